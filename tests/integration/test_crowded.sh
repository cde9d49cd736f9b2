#!/bin/bash
# The first point of a disk that is many times the budget of the store, over a slow link: test_crowded.sh [MIB [MIB_PER_S]]
#
# Reading is slowed, not failed: the store stays near spool_max (64 MiB) all the while, and the point is right.  In the middle the
# replica is away, and the agent is another one.
#
# The VM is off; test_seeding.sh has one that runs.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"

mib=${1:-320} rate=${2:-8}
most=160 # MiB: the budget, what is read and not yet stored when it is used up, and a segment that is being made thin
scenario_begin crowded
at_end() { kill -9 $replica_pid $agent_pid 2>/dev/null; }
# Files come and go meanwhile.
kept() { { find "$t/store/segments" -type f -printf '%s\n' 2>/dev/null || true; } | awk '{ s += $1 } END { printf "%d\n", s / 1048576 }'; }
there() { { du -sm "$t"/dr/stores 2>/dev/null || true; } | awk '{ n = $1 } END { print n + 0 }'; }

head -c "${mib}M" /dev/urandom >"$t/img"
printf '%s\n' "key_dir = $t/keys" 'spool_max = 64 MiB' 'rpo = 2s' "bandwidth = $rate MiB/s" >>"$LOCUM_CONFIG"
rm -rf "$t/store" "$t/kit"
locum store init --kit "$t/kit" >/dev/null || fail "store init"
scenario_vm web01 'memory = 64 MiB' "disk = vda raw $t/img"
replica_start
locum pair --name dr --quiet "$(locum token --dir "$t/dr" --address "127.0.0.1:$port")"
agent_start
peak=0
until_there() { # MIB
	local i now
	for ((i = 0; i < 6000 && $(there) < $1; i++)); do
		now=$(kept)
		[ "$now" -le "$peak" ] || peak=$now
		kill -0 "$agent_pid" 2>/dev/null || fail "the agent died: $(tail -n 5 "$t/agent.log")"
		sleep 0.05
	done
}
until_there $((mib / 3))
kill -9 $replica_pid
wait $replica_pid 2>/dev/null || true
sleep 3
replica_start
until_there $((mib * 2 / 3))
kill "$agent_pid"
wait "$agent_pid" || true
agent_start
until_there "$mib"
status_has '"state": "protected"'
echo "a disk of $mib MiB at $rate MiB/s: the store held $peak MiB at most"
[ "$peak" -le "$most" ] || fail "the store held $peak MiB, with a budget of 64"
at_replica restore web01 --to "$t/r.raw" --quiet || fail "restore at the replica"
cmp "$t/img" "$t/r.raw" || fail "other bytes than the disk has"
[ "$(grep -c 'no restore points are made' "$t/agent.log")" -le 3 ] || fail "it complains all the time: $(cat "$t/agent.log")"
