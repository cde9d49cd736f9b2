#!/bin/bash
# Clocks that are wrong: test_clocks.sh [HOURS...]
#
# The host's clock jumps by so many hours (by default -3, two years on and five years back), while the replica's is right.
# Each time both sides say so, points go on, incrementally, and stand behind those from before: the newest one is the one that
# was made last, none is gone, and the replica keeps its own time of each.  A lag is never made smaller by a clock: with the
# replica away, a VM is late whatever the time is.
set -euo pipefail
# shellcheck source=tests/lib/sites.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/sites.sh"

shifts=("$@")
[ $# -gt 0 ] || shifts=(-3 $((2 * 8766)) -$((5 * 8766)))
scenario_begin clocks
at_end() { sites_end; }
sites_begin
sed -i "/^store =/a rpo = 1s" "$LOCUM_CONFIG"
mapfile -t disks < <("$src/tests/guest/mkdisks.sh" "$t/img" --size 32 --fs-size 0)
scenario_vm web01 "qmp = $t/vm/qmp"
guest_start "$t/vm" -m 128 -s blockdev -a 'seq.load=100 seq.disks=vda,vdb' "${disks[@]}" >/dev/null
guest_past "$t/vm" 0
replica_start
sites_pair
agent_start
status_has '"points": [1-9][0-9]*, "failures": 0'
status_has '"has_all": true'

h=3600000000000
for shift in "${shifts[@]}"; do
	ended "$agent_pid"
	mark=$(($(wc -l <"$t/agent.log") + 1)) rmark=$(($(wc -l <"$t/replica.log") + 1))
	ids_at_replica web01 >"$t/before"
	agent_env=("LOCUM_TEST_CLOCK_NS=$((shift * h))")
	export "${agent_env[@]}" # status compares with its clock, too
	agent_start
	status_has '"state": "protected".*"points": [1-9][0-9]*, "failures": 0'
	status_has '"has_all": true'
	what=$([ "$shift" -gt 0 ] && echo behind || echo 'ahead of')
	tail -n "+$mark" "$t/agent.log" | has "replica dr: its clock is .* $what this host's" ||
		fail "$shift h: the host is not told: $(tail -n "+$mark" "$t/agent.log")"
	what=$([ "$shift" -gt 0 ] && echo 'ahead of' || echo behind)
	tail -n "+$rmark" "$t/replica.log" | has "host-a: its clock is .* $what this one's" ||
		fail "$shift h: the replica does not say so: $(tail -n "+$rmark" "$t/replica.log")"
	! tail -n "+$mark" "$t/agent.log" | grep compared || fail "$shift h: the next point was not incremental"
	ids_at_replica web01 | sed -n "1,$(wc -l <"$t/before")p" | cmp -s - "$t/before" ||
		fail "$shift h: what the replica had is not there first, in its order"
	killed "$replica_pid"
	status_has '"state": "late"' 20
	replica_start
	status_has '"state": "protected"'
	status_has '"has_all": true'
	lag=$(sed -nE 's/.*"lag_s": ([0-9]+)\..*/\1/p' "$t/status" | sed -n 1p)
	[ "${lag:-99}" -le 5 ] || fail "$shift h: a lag of $lag s: $(cat "$t/status")"
done
ended "$agent_pid"
unharmed "$t/vm"
unset LOCUM_TEST_CLOCK_NS

# In the order in which they were made; and the newest one is the last one.
ids_at_replica web01 >"$t/ids"
last=0
while read -r id; do
	at_replica restore "web01@$id" --to "$t/r" --quiet || fail "restore of $id"
	"$GUEST_OUT/seqcheck" --strict --json "$t"/r/web01-v*.raw >"$t/seq" 2>&1 || fail "$id is not of one instant: $(cat "$t/seq")"
	n=$(grep -oE '"newest":[0-9]+' "$t/seq" | tr -dc 0-9)
	[ "$n" -ge "$last" ] || fail "$id shows number $n, after one that shows $last"
	last=$n
	rm -rf "$t/r"
done <"$t/ids"
at_replica verify web01 --json >"$t/out" || fail "verify"
grep -q "$(tail -n 1 "$t/ids")" "$t/out" || fail "the newest point is not the one that was made last: $(cat "$t/out")"
at_replica points web01 >"$t/out" || fail "points"
grep -q 'came after those above, at .*clock was wrong' "$t/out" || fail "no word of points that say to be older: $(cat "$t/out")"
echo "$(wc -l <"$t/ids") points under $((${#shifts[@]} + 1)) clocks, in their order"
