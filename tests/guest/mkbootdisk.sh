#!/bin/bash
# Make a disk of the test guest that boots by itself: mkbootdisk.sh OUT IMAGE [options]
#
#   OUT            folder of build-guest.sh, for vmlinuz and initrd.img
#   IMAGE          qcow2 if the name ends so, else raw
#   --size MIB     of the disk (default 128); the last 32 MiB are the boot partition
#   --append TEXT  kernel parameters to add: 'seq.load=2000 fs=vdb2 ...'
#
# SeaBIOS starts the MBR, that the active partition 2 (FAT16), and that
# SYSLINUX.  Neither root nor a loop device is needed.  Partition 1 is as on
# the other disks, so that the guest writes its sequence here too.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/guest/mbr.sh
. "$here/mbr.sh"
# shellcheck source=tests/guest/guest.sh
. "$here/guest.sh"
boot_MiB=32

die() {
	echo "mkbootdisk: $*" >&2
	exit 1
}

need() { # need PROGRAM PACKAGE
	command -v "$1" >/dev/null || die "$1 is missing; install the package $2"
}

size=128 append='' out='' image=''
while [ $# -gt 0 ]; do
	case $1 in
	--size) size=${2:-} && shift ;;
	--append) append=${2:-} && shift ;;
	-*) die "unknown option $1" ;;
	*) if [ -z "$out" ]; then out=$1; else image=$1; fi ;;
	esac
	shift
done
[ -n "$image" ] || die "usage: mkbootdisk.sh OUT IMAGE [--size MIB] [--append TEXT]"
case $size in
'' | *[!0-9]*) die "--size: not a number: '$size'" ;;
esac
[ "$size" -ge $((boot_MiB + 17)) ] || die "--size: at least $((boot_MiB + 17)) MiB"
need mformat mtools
need mcopy mtools
need syslinux syslinux
mbr_code=/usr/lib/syslinux/mbr/mbr.bin
[ -r "$mbr_code" ] || die "$mbr_code is missing; install the package syslinux-common"
"$here/build-guest.sh" "$out"

raw=$image
[ "${image%.qcow2}" = "$image" ] || raw=$image.tmp
tmp=$(mktemp -d "${TMPDIR:-/tmp}/mkbootdisk.XXXXXX")
trap 'rm -rf "$tmp"; [ "$raw" = "$image" ] || rm -f "$raw"' EXIT

rm -f "$image" "$raw"
truncate -s "${size}M" "$raw"
dd if="$mbr_code" of="$raw" bs=440 count=1 conv=notrunc status=none
p2=$((size - boot_MiB))
mbr_write "$raw" "$p2" "$size" 80 06

cat >"$tmp/syslinux.cfg" <<CFG
DEFAULT guest
PROMPT 0
TIMEOUT 0
LABEL guest
KERNEL /vmlinuz
INITRD /initrd.img
APPEND $GUEST_APPEND $append
CFG
# The boot code computes from the hidden sectors where its partition begins.
fat=$raw@@$((p2 << 20))
export MTOOLS_SKIP_CHECK=1
mformat -i "$fat" -T $((boot_MiB * 2048)) -h 64 -s 32 -H $((p2 * 2048)) -v LOCUMTEST ::
mcopy -i "$fat" "$out/vmlinuz" "$out/initrd.img" "$tmp/syslinux.cfg" ::/
syslinux --offset $((p2 << 20)) --install "$raw" >"$tmp/log" 2>&1 || {
	cat "$tmp/log" >&2
	die "syslinux failed"
}
if [ "$raw" != "$image" ]; then
	need qemu-img qemu-utils
	qemu-img convert -f raw -O qcow2 "$raw" "$image"
fi
