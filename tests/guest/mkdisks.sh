#!/bin/bash
# Make empty disks for the test guest: mkdisks.sh OUTDIR [options]
#
#   --size MIB      of each disk (default 128)
#   --disks N       how many (default 2): disk0.raw, disk1.qcow2, disk2.raw ...
#   --format F      all of them raw or qcow2
#   --fs-size MIB   of the ext4 partition on disk 1 (default 48; 0: none)
#
# Prints the paths, in order.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/guest/mbr.sh
. "$here/mbr.sh"
PATH=$PATH:/usr/sbin:/sbin

die() {
	echo "mkdisks: $*" >&2
	exit 1
}

size=128 disks=2 format='' fs_size=48 out=''
while [ $# -gt 0 ]; do
	case $1 in
	--size) size=${2:-} && shift ;;
	--disks) disks=${2:-} && shift ;;
	--format) format=${2:-} && shift ;;
	--fs-size) fs_size=${2:-} && shift ;;
	-*) die "unknown option $1" ;;
	*) out=$1 ;;
	esac
	shift
done
[ -n "$out" ] || die "usage: mkdisks.sh OUTDIR [--size MIB] [--disks N] [--format F] [--fs-size MIB]"
for v in "$size" "$disks" "$fs_size"; do
	case $v in
	'' | *[!0-9]*) die "not a number: '$v'" ;;
	esac
done
[ "$size" -ge 17 ] || die "--size: at least 17 MiB, the random writes begin at 16"
[ "$fs_size" -eq 0 ] || [ "$disks" -lt 2 ] || [ $((size - fs_size)) -ge 17 ] ||
	die "--fs-size $fs_size leaves less than 17 of $size MiB for the raw part"
command -v qemu-img >/dev/null || die "qemu-img is missing; install the package qemu-utils"
mkdir -p "$out"

for ((i = 0; i < disks; i++)); do
	f=$format
	[ -n "$f" ] || { [ $((i % 2)) = 0 ] && f=raw || f=qcow2; }
	case $f in
	raw | qcow2) ;;
	*) die "--format: raw or qcow2, not $f" ;;
	esac
	disk=$out/disk$i.$f
	raw=$out/disk$i.raw
	rm -f "$disk" "$raw"
	truncate -s "${size}M" "$raw"
	if [ "$i" = 1 ] && [ "$fs_size" -gt 0 ]; then
		command -v mke2fs >/dev/null || die "mke2fs is missing; install the package e2fsprogs"
		p2=$((size - fs_size))
		mbr_write "$raw" "$p2" "$size" 00 83
		# A journal of 4 MiB: small enough to wrap in a short test.
		mke2fs -q -F -t ext4 -J size=4 -E "offset=$((p2 << 20)),lazy_itable_init=0" "$raw" \
			"${fs_size}M" 2>"$out/mke2fs.log" || {
			cat "$out/mke2fs.log" >&2
			die "mke2fs failed"
		}
		rm -f "$out/mke2fs.log"
	fi
	if [ "$f" = qcow2 ]; then
		qemu-img convert -f raw -O qcow2 "$raw" "$disk"
		rm "$raw"
	fi
	echo "$disk"
done
