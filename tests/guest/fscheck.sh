#!/bin/bash
# Is the ext4 on a disk of the test guest whole?  fscheck.sh [-f FORMAT] IMAGE
#
# Copies out the file system (partition 2 of the disk, or the whole image if it
# has no partition table), replays the journal as a mount would, and then asks
# e2fsck to find nothing to repair.  The image is only read.  FORMAT is raw or
# qcow2; without -f it follows from the name, never from the content.
#
# Exit status: 0 whole, 1 damaged, 2 usage or unreadable.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/guest/mbr.sh
. "$here/mbr.sh"
PATH=$PATH:/usr/sbin:/sbin

die() {
	echo "fscheck: $*" >&2
	exit 2
}

format=''
if [ "${1:-}" = -f ]; then
	format=${2:-}
	shift 2
fi
[ $# -eq 1 ] || die "usage: fscheck.sh [-f raw|qcow2] IMAGE"
image=$1
[ -r "$image" ] || die "$image: not readable"
[ -n "$format" ] || { [ "${image%.qcow2}" != "$image" ] && format=qcow2 || format=raw; }
command -v e2fsck >/dev/null || die "e2fsck is missing; install the package e2fsprogs"

tmp=$(mktemp -d "${TMPDIR:-/tmp}/fscheck.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
if [ "$format" != raw ]; then
	command -v qemu-img >/dev/null || die "qemu-img is missing; install the package qemu-utils"
	qemu-img convert -f "$format" -O raw "$image" "$tmp/disk.raw" || die "$image: unreadable"
	image=$tmp/disk.raw
fi
if part=$(mbr_part "$image" 2); then
	read -r offset length <<<"$part"
	dd if="$image" of="$tmp/fs" bs=1M iflag=skip_bytes,count_bytes skip="$offset" \
		count="$length" conv=sparse status=none
	truncate -s "$length" "$tmp/fs"
else
	cp --sparse=always "$image" "$tmp/fs"
fi

# Bit 0: something was changed, which is what replaying a journal is.
rc=0
e2fsck -fy -E journal_only "$tmp/fs" >"$tmp/journal.log" 2>&1 || rc=$?
if [ $((rc & ~1)) -ne 0 ]; then
	cat "$tmp/journal.log"
	echo "fscheck: $1: the journal cannot be replayed (e2fsck $rc)"
	exit 1
fi
rc=0
e2fsck -fn "$tmp/fs" >"$tmp/check.log" 2>&1 || rc=$?
if [ "$rc" -ne 0 ]; then
	cat "$tmp/check.log"
	echo "fscheck: $1: damaged (e2fsck $rc)"
	exit 1
fi
echo "fscheck: $(tail -n 1 "$tmp/check.log" | sed 's/^[^:]*: //'), ok"
