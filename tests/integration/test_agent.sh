#!/bin/bash
# Continuous protection: locum agent here, locum replica there, a guest that writes, a goal of some seconds.
#
# The lag stays within the goal; every point at the replica is of one instant; a replica that is away for a while gets all
# of the points that were made meanwhile; a killed agent leaves the guest alone and the next one goes on incrementally.  All of it
# shows in the metrics, and is told to the alert program.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"

scenario_begin agent
at_end() { kill -9 $replica_pid $agent_pid 2>/dev/null; }

made() { # points that this agent has made
	{ locum status --json 2>/dev/null || true; } | sed -nE 's/.*"points": ([0-9]+), "failures".*/\1/p' | sed -n 1p
}

# Until the metrics have a line that matches; at most 60 s.
metric() { # REGEX [LOG]
	local i mport
	for ((i = 0; i < 300; i++)); do
		mport=$(sed -nE 's/.* metrics on port ([0-9]+)$/\1/p' "${2:-$t/agent.log}" | tail -n 1)
		if exec 3<>"/dev/tcp/127.0.0.1/$mport"; then
			printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
			cat <&3 >"$t/metrics"
			exec 3>&-
			! grep -qE "^$1\$" "$t/metrics" || return 0
		fi
		sleep 0.2
	done
	fail "no metric '$1': $(cat "$t/metrics") $(tail -n 5 "$t/agent.log")"
}

# Until the alert program was told; at most 60 s.
told() { # LINE
	local i
	for ((i = 0; i < 300; i++)); do
		! grep -qxE "$1" "$t/alerts" || return 0
		sleep 0.2
	done
	fail "'$1' was not told: $(cat "$t/alerts") $(tail -n 5 "$t/agent.log")"
}

npoints() { at_replica points web01 --json | grep -c '"id"' || true; }

mapfile -t disks < <("$src/tests/guest/mkdisks.sh" "$t/img")
printf 'metrics = 127.0.0.1:0\nalert = %s\n' "$t/alert" >>"$LOCUM_CONFIG"
# shellcheck disable=SC2016 # for the program to expand
printf '#!/bin/sh\necho "$1|$LOCUM_EVENT|$LOCUM_VM|$LOCUM_REPLICA" >>%s\n' "$t/alerts" >"$t/alert"
chmod +x "$t/alert"
: >"$t/alerts"
scenario_vm web01 "qmp = $t/vm/qmp" 'rpo = 4s'
guest_start "$t/vm" -s blockdev -a 'seq.load=400 seq.disks=vda,vdb' "${disks[@]}"
guest_past "$t/vm" 0
replica_start
refused 1 'no agent runs' locum status
locum pair --name dr "$(locum token --dir "$t/dr" --address "127.0.0.1:$port")" --quiet

agent_start
status_has '"state": "protected"'
# What needs the store is done by the agent, which has it.
locum backup web01 --to dr --json >"$t/json" || fail "a backup by the agent: $?"
grep -q '"outcome": "done", "point": "[0-9a-f]*", "time": "20[0-9T:-]*Z"' "$t/json" || fail "json: $(cat "$t/json")"
at_replica points web01 --json | has "$(sed -nE 's/.*"point": "([0-9a-f]*)".*/\1/p' "$t/json")" || fail "it is not at the replica"
[ -z "$(locum backup web01 </dev/null 2>&1)" ] || fail "a backup by the agent is not silent"
locum backup web01 --verbose | has '^web01: point [0-9a-f]*, incremental' || fail "a backup by the agent, told"
refused 1 'no VM nobody' locum backup nobody
refused 3 'no VM nobody' locum backup web01 nobody
kill -STOP $agent_pid
(trap - INT; exec "$bin/locum" backup web01 nobody web01) >"$t/int" 2>&1 &
asker=$!
connected $asker
kill -INT $asker
kill -CONT $agent_pid
wait $asker && fail "an interrupted backup says that all is well"
grep -q 'interrupted' "$t/int" || fail "interrupted: $(cat "$t/int")"
status_has '"state": "protected"'
# The points that are asked for do not count as the agent's own being late or failing.
status_has '"failures": 0'
locum drop "web01@$(point_ids web01 | sed -n 1p)" --quiet || fail "a drop by the agent"
status_has '"points": ([4-9]|[0-9]{2,}), "failures": 0'
{ locum status || true; } | has -E '^web01 *protected' || fail "status: $(locum status)"
metric 'locum_replica_up\{replica="dr"\} 1'
metric 'locum_vm_lag_seconds\{vm="web01"\} [0-3](\.[0-9]+)?'
metric 'locum_host_connected\{host="[^"]+",fingerprint="[0-9a-f-]+"\} 1' "$t/replica.log"
metric 'locum_host_points_total\{.*\} [1-9][0-9]*' "$t/replica.log"
metric 'locum_vm_state\{vm="web01",state="protected"\} 1'
! grep -v '^rpo-' "$t/alerts" || fail "alerts though all is well"

# Another limit of bandwidth is taken while all goes on; anything else begins anew.
printf '[locum]\nbandwidth = 20 MiB/s\n' >>"$LOCUM_CONFIG"
n=$(grep -c 'replica dr: connected' "$t/agent.log")
kill -HUP $agent_pid
status_has '"bandwidth_bytes": 20971520'
{ locum status || true; } | has -E '^at most 20\.0 MiB/s go to replicas' || fail "status: $(locum status)"
grep -q 'at most 20\.0 MiB/s' "$t/agent.log" || fail "no word of the limit in the log"
[ "$(grep -c 'replica dr: connected' "$t/agent.log")" = "$n" ] || fail "a new limit ended the connection"

# What can't be gone on with ends nothing: a file of another replica has a slip in it.
echo 'address = nowhere' >"$t/keys/far.replica"
kill -HUP $agent_pid
for ((i = 0; i < 100; i++)); do
	! grep -q 'the settings stay as they were: .*far\.replica' "$t/agent.log" || break
	sleep 0.1
done
kill -0 $agent_pid || fail "a replica's file with a slip ended the agent: $(tail -n 3 "$t/agent.log")"
[ "$i" -lt 100 ] || fail "the agent says nothing of the slip: $(tail -n 3 "$t/agent.log")"
rm "$t/keys/far.replica"
status_has '"state": "protected"'

# Away for a while: points wait here, and arrive as points.
kill -9 $replica_pid
wait $replica_pid 2>/dev/null || true
status_has '"up": false'
n=$(npoints)
m=$(made)
for ((i = 0; i < 600 && $(made) < m + 3; i++)); do sleep 0.1; done
status_has '"state": "late"'
status_has '"waiting_points": ([3-9]|[0-9]{2,})'
{ locum status || true; } | has -E '^web01 +late .* [0-9]+  20' || fail "status: $(locum status)"
metric 'locum_replica_up\{replica="dr"\} 0'
metric 'locum_vm_waiting_points\{vm="web01",replica="dr"\} ([3-9]|[0-9]{2,})'
told 'replica-down\|replica-down\|\|dr'
told 'rpo-missed\|rpo-missed\|web01\|'
replica_start
status_has '"state": "protected"'
status_has '"has_all": true'
status_has '"waiting_points": 0'
status_has '"rate_bytes": [1-9]'
metric 'locum_replica_up\{replica="dr"\} 1'
told 'replica-up\|replica-up\|\|dr'
told 'rpo-ok\|rpo-ok\|web01\|'
[ "$(grep -c '^replica-' "$t/alerts")" = 2 ] || fail "told more than once: $(cat "$t/alerts")"
[ "$(npoints)" -ge $((n + 3)) ] || fail "points that were made while the replica was away did not arrive"

# A killed agent: the guest goes on, the next agent too.
kill -9 $agent_pid
wait $agent_pid 2>/dev/null || true
guest_past "$t/vm" "$(guest_last "$t/vm")"
agent_start
status_has '"state": "protected"'
grep -q 'compared' "$t/agent.log" && fail "the agent read the disks anew after it was killed"
status_has '"points": [2-9]'
kill -TERM $agent_pid
wait $agent_pid || fail "the agent ended with $?: $(tail -n 3 "$t/agent.log")"
unharmed "$t/vm"
locum backup web01 --to dr --quiet || fail "a backup after the agent"

# Every one of them is of one instant.
at_replica points web01 --json | grep -o '"id": *"[0-9a-f]*"' | grep -o '[0-9a-f]\{32\}' >"$t/ids"
while read -r id; do
	at_replica restore "web01@$id" --to "$t/r" --quiet || fail "restore of $id"
	"$GUEST_OUT/seqcheck" --strict "$t"/r/web01-v*.raw >"$t/seq" 2>&1 || fail "$id is not of one instant: $(cat "$t/seq")"
	rm -rf "$t/r"
done <"$t/ids"
at_replica verify web01 --quiet || fail "verify"
echo "$(wc -l <"$t/ids") points at the replica, of one instant each"
