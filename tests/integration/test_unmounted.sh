#!/bin/bash
# What a replica writes to goes from under it: the folder of its stores, then its whole folder.  What it took since is not said to be
# safe, no store is begun anew in its place, and it goes on when the folder is back.
# No guests: the VM is off.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin unmounted
at_end() { kill -9 $agent_pid $replica_pid 2>/dev/null; }

change() {
	dd if=/dev/urandom of="$t/a.raw" bs=64k count=1 conv=notrunc status=none
}

durable() {
	grep -c 'is durable' "$t/replica.log" || true
}

ends() {
	grep -c 'connection ended: .* gone' "$t/replica.log" || true
}

turned_away() { # TIMES
	local i
	for ((i = 0; i < 100; i++)); do
		[ "$(ends)" -lt $((ended + $1)) ] || return 0
		sleep 0.1
	done
	fail "the host did not come again: $(tail -n 5 "$t/agent.log" "$t/replica.log")"
}

echo 'rpo = 1s' >>"$LOCUM_CONFIG"
truncate -s 1M "$t/a.raw"
scenario_vm web01 "disk = vda raw $t/a.raw"
replica_start
locum pair --name dr --as host-a --quiet "$(locum token --dir "$t/dr" --address "127.0.0.1:$port")" || fail "pair"
agent_start
status_says 0 '^dr .* up +yes'

for moved in dr/stores dr; do
	mv "$t/$moved" "$t/away"
	before=$(durable) ended=$(ends)
	change
	status_says 3 "^    .*$t/dr.* is gone"
	turned_away 2 # when it came again, too
	[ "$(durable)" = "$before" ] || fail "points are said to be durable: $(tail -n 5 "$t/replica.log")"
	grep -q "host-a .*$t/dr.* gone: " "$t/replica.log" || fail "the replica's log: $(tail -n 5 "$t/replica.log")"
	[ ! -e "$t/$moved" ] || fail "begun anew: $(find "$t/$moved")"
	mv "$t/away" "$t/$moved"
	status_says 0 '^dr .* up +yes'
done
kill -TERM "$agent_pid" "$replica_pid"
wait "$agent_pid" || fail "the agent ended with $?: $(tail -n 3 "$t/agent.log")"
wait "$replica_pid" || fail "the replica ended with $?: $(tail -n 3 "$t/replica.log")"
at_replica verify --all --every --quiet || fail "verify"
id=$(point_ids web01 | tail -n 1)
at_replica points web01 --json | has "$id" || fail "the newest point is not there"
