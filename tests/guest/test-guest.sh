#!/bin/bash
# Does the test guest itself work?  test-guest.sh
#
# Boots it, kills QEMU in the middle of its writes several times over, judges
# the disks each time, drives it by commands, and boots it from a disk with a
# boot loader.  About half a minute under TCG.  V=1 says how it goes.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/guest/guest.sh
. "$here/guest.sh"
guest_require e2fsck:e2fsprogs mformat:mtools syslinux:syslinux

dir=$(mktemp -d "${TMPDIR:-/tmp}/guest.XXXXXX")
cleanup() {
	guest_kill "$dir/r" || true
	rm -rf "$dir"
}
trap cleanup EXIT

die() {
	echo "test-guest: $*" >&2
	tail -n 20 "$dir/r/serial" >&2 || true
	exit 1
}

say() {
	[ "${V:-0}" != 1 ] || echo "test-guest: $*"
}

# judge SECOND_DISK...: sequence and file system, and nothing that the guest
# reported as written may be gone.
judge() {
	local last newest verdict
	last=$(guest_last "$dir/r")
	rm -f "$dir/d1.raw"
	qemu-img convert -f qcow2 -O raw "$dir/disk1.qcow2" "$dir/d1.raw"
	verdict=$("$GUEST_OUT/seqcheck" "$dir/disk0.raw" "$dir/d1.raw") || die "$verdict"
	newest=$(sed -n 's/^seqcheck: newest \([0-9]*\),.*/\1/p' <<<"$verdict")
	[ "$newest" -ge "$last" ] || die "the guest reported $last, the disks end at $newest"
	say "$verdict"
	verdict=$("$here/fscheck.sh" "$dir/disk1.qcow2") || die "$verdict"
	say "$verdict"
}

# expect TEXT COMMAND...: the answer of the guest must match TEXT.
expect() {
	local text=$1 answer
	shift
	answer=$(guest_cmd "$dir/r" "$@") || true
	[[ $answer =~ ^$text$ ]] || die "$*: '$answer' instead of '$text'"
}

sha_of() { # FILE OFFSET_MIB LENGTH_KIB
	dd if="$1" bs=1M iflag=skip_bytes,count_bytes skip=$(($2 << 20)) count=$(($3 << 10)) \
		status=none | sha256sum | cut -d ' ' -f 1
}

"$here/mkdisks.sh" "$dir" >/dev/null
params='fs=vdb2 seq.load=3000'

# --- crashes

before=-1
for round in 1 2 3; do
	began=$(date +%s%N)
	start=$(guest_start "$dir/r" -a "$params" "$dir/disk0.raw" "$dir/disk1.qcow2") ||
		die "round $round: no start"
	say "up in $((($(date +%s%N) - began) / 1000000)) ms: $start"
	[ "${start#SEQ start }" -gt "$before" ] || die "round $round: $start, but $before was written"
	[ "$round" = 1 ] || guest_wait "$dir/r" '^SEQ check' | has '^SEQ check ok' ||
		die "round $round: the guest finds its own disks bad"
	guest_wait "$dir/r" '^SEQ fs started' >/dev/null
	# Until a thousand numbers are there, at most 20 s.
	for _ in $(seq 100); do
		before=$(guest_last "$dir/r")
		[ "${before:-0}" -lt $((${start#SEQ start } + 1000)) ] || break
		sleep 0.2
	done
	say "$(tr -d '\r' <"$dir/r/serial" | grep -a '^SEQ [0-9]' | tail -n 1)"
	guest_kill "$dir/r"
	judge
	! grep -aqE 'SEQ (WRITE|FS|READ)-ERROR' "$dir/r/serial" || die "errors in the guest"
done

# --- commands

guest_start "$dir/r" -a "$params seq.fs_start=0" "$dir/disk0.raw" "$dir/disk1.qcow2" >/dev/null
expect 'OK' ping
expect 'OK last=.* paused=1 .* fs=0 .*' pause
expect 'OK' sync
expect 'OK 134217728' size vdb
expect 'OK' write 0 6M 300K 42
expect 'OK' write vda 8M 300K 42
expect 'OK' write 1 6M 64K 43
expect "OK $(sha_of "$dir/disk0.raw" 6 300)" sum 0 6M 300K
[ "$(sha_of "$dir/disk0.raw" 6 300)" = "$(sha_of "$dir/disk0.raw" 8 300)" ] ||
	die "write: the same seed gives other data"
expect 'OK' zero 0 8M 300K
[ "$(sha_of "$dir/disk0.raw" 8 300)" = "$(head -c 300K /dev/zero | sha256sum | cut -d ' ' -f 1)" ] ||
	die "zero: not zero"
used=$(stat -c %b "$dir/disk0.raw")
expect 'OK' discard 0 6M 1M
[ "$(stat -c %b "$dir/disk0.raw")" -lt "$used" ] || die "discard: nothing was given back"
expect 'OK' zeroout 1 6M 64K
expect 'ERR beyond the end.*' zero 0 127M 2M
expect 'ERR no disk.*' zero vdx 0 512
expect 'ERR usage.*' write 0 0
expect 'ERR unknown.*' rm -rf
expect 'OK' load 0
expect 'OK' delay 1000
expect 'OK' fs start
expect 'OK' resume
expect 'OK n=[0-9]+ p50=[0-9]+ p99=[0-9]+ p999=[0-9]+ max=[0-9]+us' lat
guest_wait "$dir/r" '^SEQ [0-9]+ rate [1-9]' >/dev/null
expect 'OK' fs stop
guest_qmp "$dir/r" '{"execute":"query-status"}' | has '"running": true' || die "QMP"
guest_stop "$dir/r"
judge

# --- wrong disks

guest_start "$dir/r" -w '^SEQ idle' "$dir/disk1.qcow2" "$dir/disk0.raw" >/dev/null
grep -aq 'SEQ WRONG-DISK disk=0 name=vda holds=1' "$dir/r/serial" || die "swapped disks"
guest_stop "$dir/r"

# --- a boot loader

"$here/mkbootdisk.sh" "$GUEST_OUT" "$dir/boot.raw"
guest_start "$dir/r" -B "$dir/boot.raw" >/dev/null
guest_wait "$dir/r" '^SEQ [0-9]+ rate [1-9]' >/dev/null
guest_kill "$dir/r"
guest_start "$dir/r" -B "$dir/boot.raw" >/dev/null
guest_wait "$dir/r" '^SEQ check ok' >/dev/null
guest_stop "$dir/r"
verdict=$("$GUEST_OUT/seqcheck" "$dir/boot.raw") || die "$verdict"
say "boot disk: $verdict"
echo 'test-guest: ok'
