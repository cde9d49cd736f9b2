#!/bin/bash
# A first point of much beside a VM with a small goal: test_neighbour.sh [MBIT [MIB]]
#
# web01 writes all the time and has a goal of some seconds.  Then a VM comes with a goal of half an hour, whose first point has MIB
# (768) that do not compress: that is made at once, and takes a while to be read, and longer on the wire of MBIT (300).  web01
# does not miss its goal for that, though there is one job, and at the end both are at the replica.
set -euo pipefail
# shellcheck source=tests/lib/sites.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/sites.sh"

mbit=${1:-300} mib=${2:-768} goal=8
scenario_begin neighbour
at_end() { sites_end; }
sites_begin
wire_shape "$mbit" 10
sed -i "/^store =/a jobs = 1\nrpo = ${goal}s" "$LOCUM_CONFIG"
mapfile -t disks < <("$src/tests/guest/mkdisks.sh" "$t/img" --size 48 --fs-size 0)
scenario_vm web01 "qmp = $t/vm1/qmp"
guest_start "$t/vm1" -m 128 -s blockdev -a 'seq.load=50 seq.disks=vda,vdb seq.delay_us=2000' "${disks[@]}" >/dev/null
replica_start
sites_pair
guest_past "$t/vm1" 0
agent_start
status_has '"points": [3-9]' 60
before=$(guest_last "$t/vm1") began=$SECONDS

dd if=/dev/urandom of="$t/large.raw" bs=1M count="$mib" status=none
qemu_stands "$t/large.raw"
scenario_vm large "qmp = $t/vm/qmp" "rpo = 30m"
kill -HUP "$agent_pid"
lags=$t/lags
: >"$lags"
until [ -n "$(ids_at_replica large 2>/dev/null)" ]; do
	kill -0 "$agent_pid" 2>/dev/null || fail "the agent died: $(tail -n 5 "$t/agent.log")"
	[ $((SECONDS - began)) -lt 400 ] || fail "the large one does not get there: $(locum status)"
	{ locum status --json || true; } | python3 -c '
import json, sys
print(*(vm["lag_s"] for vm in json.load(sys.stdin)["vms"] if vm["vm"] == "web01"))' >>"$lags"
	sleep 0.25
done
took=$((SECONDS - began))
rate=$((($(guest_last "$t/vm1") - before) / took))
sort -n "$lags" | tail -n 5
[ "$took" -ge 10 ] || fail "the large point took $took s only: this shows nothing"
[ "$rate" -ge 30 ] || fail "the guest writes $rate times a second: this shows nothing"
! grep -q None "$lags" || fail "web01 was not protected in between"
worst=$(sort -n "$lags" | tail -n 1)
echo "$(wc -l <"$lags") looks in $took s: the worst lag was $worst s of ${goal} s; $rate writes/s"
[ "$(awk -v w="$worst" -v g="$goal" 'BEGIN { print w <= g }')" = 1 ] || fail "the goal was missed"
ended "$agent_pid"
unharmed "$t/vm1"
one_instant web01 "$(ids_at_replica web01 | tail -n 1)"
at_replica restore large --to "$t/back" --quiet
cmp "$t"/back/large-*.raw "$t/large.raw" || fail "the large disk came back differently"
