#!/bin/bash
# Law 2, the guest never pays: test_law2.sh [all] [WERROR...], by default all three.
#
# What a guest's writes take while backups are made back to back, beside the same guest left alone (told, not judged). Then
# the faults: locum itself standing still in the middle, its connection to the snapshot cut, the scratch full, failing, hung.  Each time the
# guest sees no error and is not stopped, a write takes no longer than the bound, and the next backup is incremental.  Each
# fault comes with one WERROR (what QEMU does about a failed write of the guest: report, enospc, stop) that the logged seed
# gives it; with `all`, with each of them.  At last a live migration while a backup runs: it succeeds.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
all=
[ "${1:-}" != all ] || { all=1; shift; }
werrors=("$@")
[ $# -gt 0 ] || werrors=(report enospc stop)
scenario_begin law2

copy_timeout_ms=1000
slack_ms=3000 # TCG and a busy host
ndisks=2      # each filter gives up by itself
sed -i "/^scratch_dir/a copy_timeout = ${copy_timeout_ms}ms" "$LOCUM_CONFIG"
mapfile -t disks < <("$src/tests/guest/mkdisks.sh" "$t/img" --size 96 --fs-size 0)
scenario_vm web01 "qmp = $t/vm/qmp"

loop_ok=1
mkdir -p "$t/scratch" "$t/fs"
at_end() {
	fsfreeze -u "$t/scratch" 2>/dev/null || true
	umount -l "$t/scratch" 2>/dev/null || true
}
scratch_tmpfs() { # SIZE
	mount -t tmpfs -o "size=$1,mode=0700" none "$t/scratch"
}
# On a loop device: can be frozen and shut down. A file of its own each time: one that was shut down lives on until the last that
# has it open lets go, and who mounts its file again gets it back.
nscratch=0
scratch_ext4() {
	local file=$t/fs/ext4-$((++nscratch))
	truncate -s 256M "$file"
	mkfs.ext4 -q -F "$file" && mount -o loop "$file" "$t/scratch"
}
if [ "$(id -u)" != 0 ] || ! scratch_ext4 2>/dev/null; then
	left_out "faults of the scratch: not root, or no loop devices"
	loop_ok=
fi
at_end

lat() { # Since the last call, in us: n p50 p99 max
	guest_cmd "$t/vm" lat
}
lat_max_ms() {
	echo $(($(echo "$1" | grep -oE 'max=[0-9]+' | tr -dc 0-9) / 1000))
}

# locum stands still right after the snapshot was taken, until `go`.
pid=
stand() {
	LOCUM_FAILPOINT=backup.taken:1:stop "$bin/locum" backup web01 --json >"$t/out" 2>"$t/err" &
	pid=$!
	stopped "$pid"
}
go() { # sets rc
	rc=0
	kill -CONT "$pid"
	wait "$pid" || rc=$?
	cp "$t/err" "$t/said"
}

after() { # WHAT: the guest since the last lat, and the next backup
	local l max
	l=$(lat)
	max=$(lat_max_ms "$l")
	[ "$max" -le $((ndisks * copy_timeout_ms + slack_ms)) ] || fail "$1: a write took $max ms: $l"
	guest_qmp "$t/vm" '{"execute":"query-status"}' | has '"running": *true' || fail "$1: the guest does not run"
	guest_past "$t/vm" "$(guest_last "$t/vm")"
	backup web01 incremental
	locum restore web01 --to "$t/r" --quiet || fail "$1: restore"
	"$GUEST_OUT/seqcheck" "$t"/r/web01-vd0.raw "$t"/r/web01-vd1.raw >"$t/seq" 2>&1 || fail "$1: the next point is wrong: $(cat "$t/seq")"
	rm -rf "$t/r"
	unharmed "$t/vm"
	echo "  $1: status $rc, slowest write $max ms"
	[ "$rc" = 0 ] || grep -q 'web01: ' "$t/said" || fail "$1: it says nothing: $(cat "$t/said")"
	sed 's/^.*locum\[[0-9]*\]: /      /' "$t/said"
	lat >/dev/null
}

fault_still() { # the reader hangs, the scratch has room
	stand
	sleep 3
	go
	[ "$rc" = 0 ] || fail "stopped for 3 s: $(cat "$t/err")"
	after "locum stands still for 3 s"
}

# Somebody ends the server, or one export, while the disks are read.
cut_off() { # COMMAND [ARGUMENTS]
	guest_qmp "$t/vm" "{\"execute\":\"$1\",\"arguments\":{${2:-}}}" | has '"return"' || fail "$1"
	go
	after "$1 while the snapshot is read"
}
fault_server() {
	stand
	cut_off nbd-server-stop
}
fault_export() {
	local id
	stand
	id=$(guest_qmp "$t/vm" '{"execute":"query-block-exports"}' | grep -o '"id": *"locum[^"]*"' | sed -n 1p | cut -d '"' -f 4)
	cut_off block-export-del "\"id\":\"$id\",\"mode\":\"hard\""
}

fault_full() {
	local i
	scratch_tmpfs 1m
	stand
	for ((i = 0; i < 100; i++)); do
		[ "$(df --output=avail "$t/scratch" | tail -n 1)" -ge 64 ] || break
		sleep 0.05
	done
	[ "$i" -lt 100 ] || fail "the scratch does not fill up"
	sleep 1
	go
	at_end
	after "scratch full"
}

fault_failing() {
	scratch_ext4
	stand
	# EXT4_IOC_SHUTDOWN: from now on every write fails.
	perl -e 'my $how = pack("L", 2); sysopen(F, $ARGV[0], 0) && ioctl(F, 0x8004587d, $how) or die "$!\n"' "$t/scratch" ||
		fail "cannot shut the file system down"
	guest_past "$t/vm" "$(guest_last "$t/vm")"
	sleep 1
	go
	[ "$rc" = 1 ] || fail "the scratch fails, and the backup says: $(cat "$t/out")"
	at_end
	after "scratch failing"
}

fault_hung() {
	scratch_ext4
	stand
	fsfreeze -f "$t/scratch"
	sleep 4
	guest_past "$t/vm" "$(guest_last "$t/vm")"
	go
	[ "$rc" = 1 ] || fail "the scratch hangs, and the backup says: $(cat "$t/out")"
	guest_past "$t/vm" "$(guest_last "$t/vm")"
	fsfreeze -u "$t/scratch"
	after "scratch hung"
	at_end
}

# Faults in a random order are dealt out to the werrors; with `all` each gets every one.
faults=(still server export)
[ -z "$loop_ok" ] || faults+=(full failing hung)
declare -A dealt=()
deal() {
	local i k x
	local -a order=("${faults[@]}")
	for ((i = ${#order[@]} - 1; i > 0; i--)); do
		k=$((RANDOM % (i + 1)))
		x=${order[i]} order[i]=${order[k]} order[k]=$x
	done
	for i in "${!order[@]}"; do
		dealt[${order[i]}]=${werrors[i % ${#werrors[@]}]}
	done
}
deal

look_s=4 rounds=1
[ -z "$all" ] || look_s=8 rounds=3
first=1
for werror in "${werrors[@]}"; do
	guest_start "$t/vm" -a 'seq.load=400' -x -global -x "virtio-blk-device.werror=$werror" "${disks[@]}" >/dev/null
	guest_qmp "$t/vm" '{"execute":"qom-get","arguments":{"path":"/machine/peripheral/vd0","property":"werror"}}' |
		has "\"$werror\"" || fail "werror is not $werror"
	guest_past "$t/vm" 0
	locum backup web01 || fail "first backup"
	if [ -n "$first" ]; then
		first=
		lat >/dev/null
		sleep $look_s
		echo "left alone:           $(lat)"
		n=0 end=$((SECONDS + look_s)) paused=0
		while [ "$SECONDS" -lt "$end" ]; do
			backup web01 incremental
			paused=$(awk -v a="$paused" -v b="$(figure pause_ms)" 'BEGIN { print (a > b ? a : b) }')
			n=$((n + 1))
		done
		l=$(lat)
		echo "backed up $n times:  $l; longest pause $paused ms"
		! grep -a 'SEQ STALL' "$t/vm/serial" || fail "a write took more than a second"
	fi
	echo "werror=$werror"
	lat >/dev/null
	for fault in "${faults[@]}"; do
		[ -n "$all" ] || [ "${dealt[$fault]}" = "$werror" ] || continue
		"fault_$fault"
		met=$((${met:-0} + 1))
	done
	guest_kill "$t/vm"
done
[ "${met:-0}" -ge ${#faults[@]} ] || fail "only ${met:-0} of ${#faults[@]} faults were met"

# An admin migrates while a backup runs.
guest_start "$t/vm" -a 'seq.load=200' "${disks[@]}" >/dev/null
guest_past "$t/vm" 0
locum backup web01 || fail "backup before the migration"
# Where it goes takes all and keeps nothing; a confined QEMU may start no program for that.
python3 -c '
import os, socket, sys
there = socket.socket(socket.AF_UNIX)
there.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o777)
there.listen()
while True:
    taken, _ = there.accept()
    while taken.recv(1 << 20):
        pass' "$t/there" &
for ((i = 0; i < 200; i++)); do [ ! -S "$t/there" ] || break; sleep 0.05; done
for ((round = 1; round <= rounds; round++)); do
	guest_cmd "$t/vm" write 0 6M 8M $round >/dev/null
	locum backup web01 --json >"$t/out" 2>"$t/err" &
	pid=$!
	moment 300
	guest_qmp "$t/vm" "{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"unix:$t/there\"}}" >/dev/null
	for ((i = 0; i < 600; i++)); do
		guest_qmp "$t/vm" '{"execute":"query-migrate"}' >"$t/migrate"
		! grep -qE '"status": *"(completed|failed)"' "$t/migrate" || break
		sleep 0.05
	done
	grep -q '"status": *"completed"' "$t/migrate" || fail "the migration failed: $(cat "$t/migrate" "$t/vm/qemu.log")"
	rc=0
	wait "$pid" || rc=$?
	[ "$rc" = 0 ] || grep -q 'web01: .*migrat' "$t/err" || fail "why: $(cat "$t/err")"
	echo "migrated: completed; the backup: status $rc $(sed 's/^.*web01: //' "$t/err")"
	guest_qmp "$t/vm" '{"execute":"cont"}' | has return || fail "cont"
	guest_past "$t/vm" "$(guest_last "$t/vm")"
	unharmed "$t/vm"
	backup web01 incremental
done
locum verify web01 --quiet || fail "verify"
