#!/bin/bash
# Law 1 over two sites: test_sites.sh [POINTS] [VMS]
#
# The host and the replica are network namespaces with a wire of 100 Mbit/s between them.  Guests write all the time, at
# least 100 writes a second each; the agent protects them with a goal of a second.  When the replica has POINTS points
# of each VM (default 5), every one of them is restored there and judged: one instant, no number missing, none torn.
set -euo pipefail
# shellcheck source=tests/lib/sites.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/sites.sh"

points=${1:-5} nvms=${2:-1}
scenario_begin sites
at_end() { sites_end; }
sites_begin
wire_shape 100 10
sed -i "/^store =/a jobs = 4\nrpo = 1s" "$LOCUM_CONFIG"
for ((i = 1; i <= nvms; i++)); do
	mapfile -t disks < <("$src/tests/guest/mkdisks.sh" "$t/img$i" --size 48 --fs-size 0)
	scenario_vm "web$i" "qmp = $t/vm$i/qmp"
	guest_start "$t/vm$i" -m 128 -s blockdev -a 'seq.load=200 seq.disks=vda,vdb' -w '' "${disks[@]}"
done
replica_start
sites_pair
for ((i = 1; i <= nvms; i++)); do
	guest_wait "$t/vm$i" '^SEQ start' 60 >/dev/null
	guest_past "$t/vm$i" 0
done

declare -a before
began=$(date +%s%N)
for ((i = 1; i <= nvms; i++)); do before[i]=$(guest_last "$t/vm$i"); done
agent_start
for ((i = 1; i <= nvms; i++)); do
	for ((k = 0; k < points * 60; k++)); do
		[ "$(ids_at_replica "web$i" 2>/dev/null | wc -l)" -lt "$points" ] || break
		kill -0 "$agent_pid" 2>/dev/null || fail "the agent died: $(tail -n 5 "$t/agent.log")"
		sleep 0.2
	done
done
took_ms=$((($(date +%s%N) - began) / 1000000))
for ((i = 1; i <= nvms; i++)); do
	rate=$((($(guest_last "$t/vm$i") - before[i]) * 1000 / took_ms))
	echo "web$i: $rate writes/s in order, and random ones beside"
	[ "$rate" -ge 100 ] || fail "the guest of web$i writes $rate times a second: this shows nothing"
done
ended "$agent_pid"
n=0
for ((i = 1; i <= nvms; i++)); do
	unharmed "$t/vm$i"
	ids_at_replica "web$i" >"$t/ids"
	[ "$(wc -l <"$t/ids")" -ge "$points" ] || fail "web$i: $(wc -l <"$t/ids") points at the replica"
	while read -r id; do
		one_instant "web$i" "$id"
		n=$((n + 1))
	done <"$t/ids"
done
! grep -E ' error: |compared' "$t/agent.log" || fail "not every point was taken as it should"
echo "$n points at the replica, of one instant each; $((took_ms / 1000)) s"
