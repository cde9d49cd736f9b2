#!/bin/bash
# The first points over a slow link: test_seeding.sh [MBIT [MIB]]
#
# A guest with three disks (one of them full of what does not compress, MIB of it: 1280) writes all the time; scratch and spool
# may each be a twentieth of that.  While the first point goes over a wire of MBIT (80), a disk is resized, the VM is migrated live to
# another QEMU, the wire is cut, and the VM is switched off and started again.  Seeding ends, and the store is within its budget
# then; what went over the wire is little more than what the replica has; every point there is of one instant, and the last one has
# the disks to the byte.
set -euo pipefail
# shellcheck source=tests/lib/sites.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/sites.sh"

mbit=${1:-80} mib=${2:-1280}
budget=$((mib / 20)) # of scratch and spool; less than 64 MiB does not count for the spool
scenario_begin seeding
at_end() { sites_end; }
sites_begin
wire_shape "$mbit" 20
sed -i "/^store =/a rpo = 4s\nscratch_max = $budget MiB\nspool_max = $budget MiB" "$LOCUM_CONFIG"
mapfile -t disks < <("$src/tests/guest/mkdisks.sh" "$t/img" --size 96 --fs-size 0 --disks 3)
truncate -s $((mib + 32))M "${disks[2]}"
dd if=/dev/urandom of="${disks[2]}" bs=1M count="$mib" conv=notrunc status=none
ln -s "$t/vm1" "$t/now" # where the VM is
scenario_vm web01 "qmp = $t/now/qmp"
append='seq.load=200 seq.disks=vda,vdb seq.delay_us=2000'
guest_start "$t/vm1" -m 128 -a "$append" "${disks[@]}" >/dev/null
guest_past "$t/vm1" 0
replica_start
sites_pair
began=$SECONDS
agent_start

bytes_in() { find "$@" -type f -printf '%s\n' | awk '{ s += $1 } END { printf "%d\n", s }'; }
while [ -d "$t/store" ]; do du -sm "$t/store" 2>/dev/null | cut -f 1 >>"$t/peak" && sleep 1; done &
disown $!

# The replica has no point yet, and some of the first one has come.
seeding() { # WHAT MIB
	local i kept
	for ((i = 0; i < 3000; i++)); do
		kept=$(du -sm "$t"/drfs/dr/stores 2>/dev/null | cut -f 1)
		[ "${kept:-0}" -lt "$2" ] || break
		kill -0 "$agent_pid" 2>/dev/null || fail "the agent died: $(tail -n 5 "$t/agent.log")"
		sleep 0.1
	done
	[ -z "$(ids_at_replica web01 2>/dev/null)" ] || fail "the first point is there before $1: use a slower link"
	echo "after $((SECONDS - began)) s, with $kept MiB there: $1"
}

seeding resize $((mib / 6))
# By the image's node QEMU refuses it while a snapshot stands: until that is over.
for ((i = 0; i < 600; i++)); do
	guest_qmp "$t/vm1" "{\"execute\":\"block_resize\",\"arguments\":{\"node-name\":\"disk2\",\"size\":$(((mib + 36) << 20))}}" >"$t/resize" || true
	! grep -q return "$t/resize" || break
	sleep 0.1
done
grep -q return "$t/resize" || fail "the disk was not resized: $(cat "$t/resize")"

seeding migration $((mib / 3))
guest_start "$t/vm2" -m 128 -a "$append" -w '' -x -incoming -x "unix:$t/move" "${disks[@]}"
for ((i = 0; i < 100; i++)); do [ ! -S "$t/move" ] || break; sleep 0.05; done
guest_qmp "$t/vm1" "{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"unix:$t/move\"}}" | has return || fail "migrate"
for ((i = 0; i < 1200; i++)); do
	guest_qmp "$t/vm1" '{"execute":"query-migrate"}' >"$t/migrate"
	! grep -qE '"status": *"(completed|failed)"' "$t/migrate" || break
	sleep 0.05
done
grep -q '"status": *"completed"' "$t/migrate" || fail "the migration failed: $(cat "$t/migrate" "$t/vm1/qemu.log" "$t/vm2/qemu.log")"
! grep -a 'SEQ WRITE-ERROR' "$t/vm1/serial" || fail "the guest saw an error"
guest_kill "$t/vm1"
ln -sfn "$t/vm2" "$t/now"
guest_past "$t/vm2" 0

seeding cut $((mib / 2))
wire_cut
seeding restart $((mib * 2 / 3))
guest_stop "$t/vm2" || fail "power-off"
! grep -a 'SEQ WRITE-ERROR' "$t/vm2/serial" || fail "the guest saw an error"
guest_start "$t/vm3" -m 128 -a "$append" "${disks[@]}" >/dev/null
grep -aq 'SEQ check ok' "$t/vm3/serial" || fail "the guest's own disks: $(grep -a 'SEQ check' "$t/vm3/serial")"
ln -sfn "$t/vm3" "$t/now"
guest_past "$t/vm3" 0

for ((i = 0; i < 6000; i++)); do
	[ -z "$(ids_at_replica web01 2>/dev/null)" ] || break
	sleep 0.1
done
echo "after $((SECONDS - began)) s: the first point"
status_has '"state": "protected"' 120
guest_cmd "$t/vm3" pause >/dev/null
paused=$(date +%s.%N)
# A cycle may be under way that began before: until what is safe is from after that.
for ((i = 0; i < 300; i++)); do
	now=$(date +%s.%N)
	lag=$({ locum status --json || true; } | sed -nE 's/.*"vm": "web01".*"lag_s": ([0-9.]+).*/\1/p')
	[ "$(awk -v n="$now" -v l="${lag:-9999}" -v p="$paused" 'BEGIN { print (n - l > p) }')" != 1 ] || break
	sleep 0.1
done
[ "$i" -lt 300 ] || fail "no point of the guest at rest: $(locum status)"
status_has '"has_all": true'
# What can be dropped lies in sealed segments; the rest is a map and a segment or two.
for ((i = 0; i < 300; i++)); do
	here=$(bytes_in "$t/store/segments")
	[ "$here" -gt $(((budget > 64 ? budget : 64) << 20)) ] || break
	sleep 0.1
done
[ "$i" -lt 300 ] || fail "the store holds $((here >> 20)) MiB: $(cat "$t/status")"
sent=$(sed -nE 's/.*"sent_bytes": ([0-9]+).*/\1/p' "$t/status")
ended "$agent_pid"
unharmed "$t/vm3"
kept=$(bytes_in "$t"/drfs/dr/stores/*/segments)
echo "sent $((sent >> 20)) MiB; the replica has $((kept >> 20)) MiB, the host's store $((here >> 20)), at most $(sort -n "$t/peak" | tail -n 1)"
[ "$sent" -le $((kept * 105 / 100 + (9 << 20))) ] || fail "more was sent than there is: $sent bytes, the replica has $kept"
n=0
while read -r id; do
	rm -rf "$t/r"
	at_replica restore "web01@$id" --to "$t/r" --quiet || fail "restore of $id"
	"$GUEST_OUT/seqcheck" --strict "$t"/r/web01-vd[01].raw >"$t/seq" 2>&1 || fail "$id is not of one instant: $(cat "$t/seq")"
	n=$((n + 1))
done < <(ids_at_replica web01)
cmp "$t/r/web01-vd2.raw" "${disks[2]}" || fail "the last point has other bytes"
cmp "$t/r/web01-vd0.raw" "${disks[0]}" || fail "the last point has other bytes"
echo "$n points at the replica, of one instant each"
