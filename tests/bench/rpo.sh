#!/bin/bash
# How old the newest safe state gets: rpo.sh [VMS] [GOAL] [SECONDS] [EVERY]
#
# VMS guests (default 4) with a raw and a qcow2 disk each, which write all the time, protected by an agent with that goal
# (default 2s) and a replica on loopback.  The lag of every VM is read from `locum status --json` once a second for SECONDS
# (default 120), after all of them were protected; lag = age of the newest state that is durable at the replica.
# At the end every point at the replica (or each EVERY-th) is restored and judged.  Prints a table; needs some 2 GiB in TMPDIR.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"

n=${1:-4} goal=${2:-2s} seconds=${3:-120} every=${4:-1}
scenario_begin rpo
agent_pid='' replica_pid=''
# shellcheck disable=SC2086
at_end() { kill -9 $agent_pid $replica_pid 2>/dev/null; }

sed -i "/^store =/a jobs = 4\nrpo = $goal" "$LOCUM_CONFIG"
for ((i = 1; i <= n; i++)); do
	mapfile -t disks < <("$src/tests/guest/mkdisks.sh" "$t/img$i")
	scenario_vm "web$i" "qmp = $t/vm$i/qmp"
	guest_start "$t/vm$i" -m 128 -s blockdev -a 'seq.load=200 seq.disks=vda,vdb' "${disks[@]}" >/dev/null
done
"$bin/locum" replica --dir "$t/dr" --listen 127.0.0.1:0 >"$t/replica.log" 2>&1 &
replica_pid=$!
until port=$(sed -nE 's/.* listens on port ([0-9]+);.*/\1/p' "$t/replica.log") && [ -n "$port" ]; do sleep 0.05; done
locum pair --name dr --quiet "$(locum token --dir "$t/dr" --address "127.0.0.1:$port")"
"$bin/locum" agent >"$t/agent.log" 2>&1 &
agent_pid=$!
until [ "$({ locum status --json 2>/dev/null || true; } | grep -c '"state": "protected"')" = "$n" ]; do sleep 0.2; done

began=$SECONDS
for ((i = 1; i <= n; i++)); do guest_last "$t/vm$i"; done >"$t/before"
while [ $((SECONDS - began)) -lt "$seconds" ]; do
	locum status --json >>"$t/samples" 2>/dev/null || true
	sleep 1
done
for ((i = 1; i <= n; i++)); do guest_last "$t/vm$i"; done >"$t/after"
cpu=$(awk '{ printf "%.1f", ($14 + $15) / 100 }' "/proc/$agent_pid/stat")
memory=$(for pid in $agent_pid $replica_pid; do awk '/^VmHWM/ { printf "%.0f ", $2 / 1024 }' "/proc/$pid/status"; done)
kill -TERM $agent_pid
wait $agent_pid || fail "the agent: $(tail -n 3 "$t/agent.log")"
store=$(echo "$t"/dr/stores/*)
bad=0 points=0 all=0
for ((i = 1; i <= n; i++)); do
	unharmed "$t/vm$i"
	for id in $(LOCUM_CONFIG=/dev/null locum points "web$i" --json --store "$store" --recovery-code-file "$t/kit" |
		grep -o '"id": *"[0-9a-f]*"' | grep -o '[0-9a-f]\{32\}'); do
		all=$((all + 1))
		[ $((all % every)) = 0 ] || continue
		LOCUM_CONFIG=/dev/null locum restore "web$i@$id" --to "$t/r" --quiet --store "$store" --recovery-code-file "$t/kit"
		"$GUEST_OUT/seqcheck" --strict "$t/r/web$i"-v*.raw >/dev/null 2>&1 || bad=$((bad + 1))
		points=$((points + 1))
		rm -rf "$t/r"
	done
done
python3 - "$t/samples" "$t/before" "$t/after" "$seconds" "$n" "$goal" "$cpu" "$points of $all" "$bad" "$memory" <<'EOF'
import json, sys
samples, before, after, seconds, n, goal, cpu, points, bad, memory = sys.argv[1:]
lags, decoder, text, at = [], json.JSONDecoder(), open(samples).read(), 0
while at < len(text):
    if text[at].isspace():
        at += 1
        continue
    doc, at = decoder.raw_decode(text, at)
    lags += [vm["lag_s"] for vm in doc["vms"] if vm["lag_s"] is not None]
lags.sort()
limit = float(goal.rstrip("s"))
writes = [(b - a) / float(seconds) for a, b in zip(map(int, open(before)), map(int, open(after)))]
print("| VMs | goal | samples | lag p50 | p99 | max | over the goal | writes/s of a guest | agent CPU | peak MiB of agent, replica | points looked at, not of one instant |")
print("|---|---|---|---|---|---|---|---|---|---|---|")
print("| %s | %s | %d | %.2f s | %.2f s | %.2f s | %d | %.0f to %.0f | %.0f%% of a core | %s | %s, %s |" % (
    n, goal, len(lags), lags[len(lags) // 2], lags[int(len(lags) * .99)], lags[-1],
    sum(x > limit for x in lags), min(writes), max(writes), 100 * float(cpu) / float(seconds), ", ".join(memory.split()), points, bad))
EOF
