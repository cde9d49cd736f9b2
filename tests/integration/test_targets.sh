#!/bin/bash
# One VM, three targets at once: an agent that replicates it to two replicas, and cron with a store of its own.
#
# Neither spoils the other's record of changes: all go on incrementally.  One replica is away for a while: the other one gets each
# point meanwhile, the VM is late, and what waits for the one that was away arrives as points.  Every point everywhere is of one instant.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"

scenario_begin targets
second=''
at_end() { kill -9 $replica_pid $second $agent_pid 2>/dev/null; }
second_start() {
	local i
	("$bin/locum" replica --dir "$t/dr2" --listen "127.0.0.1:${port2:-0}") >>"$t/second.log" 2>&1 &
	second=$!
	for ((i = 0; i < 200; i++)); do
		port2=$(sed -nE 's/.* listens on port ([0-9]+);.*/\1/p' "$t/second.log" 2>/dev/null | tail -n 1)
		[ -z "$port2" ] || return 0
		sleep 0.05
	done
	fail "the second replica does not listen: $(tail -n 3 "$t/second.log")"
}
at() { # REPLICA COMMAND...
	local store
	store=$(echo "$t/$1"/stores/*)
	shift
	LOCUM_CONFIG=/dev/null locum "$@" --store "$store" --recovery-code-file "$t/kit"
}
count() { at "$1" points web01 --json | grep -c '"id"' || true; }
cron() { LOCUM_CONFIG=$t/cron.conf locum "$@"; }

mapfile -t disks < <("$src/tests/guest/mkdisks.sh" "$t/img" --size 48 --fs-size 0)
scenario_vm web01 "qmp = $t/vm/qmp" 'rpo = 2s'
mkdir "$t/cron"
sed -e "s,= $t/,= $t/cron/," -e "s,^qmp = .*,qmp = $t/vm/qmp," -e '/^rpo/d' -e "/^store =/a key_dir = $t/cron/keys" "$LOCUM_CONFIG" >"$t/cron.conf"
cron store init --kit "$t/cron/kit" >/dev/null || fail "store init for cron"
guest_start "$t/vm" -m 128 -s blockdev -a 'seq.load=200 seq.disks=vda,vdb' "${disks[@]}" >/dev/null
guest_past "$t/vm" 0
replica_start
second_start
locum pair --name dr --quiet "$(locum token --dir "$t/dr" --address "127.0.0.1:$port")"
locum pair --name dr2 --quiet "$(locum token --dir "$t/dr2" --address "127.0.0.1:$port2")"
agent_start
status_has '"state": "protected"'

full=0
for ((i = 0; i < 4; i++)); do
	cron backup web01 --json >"$t/json" || fail "cron, backup $i: $(cat "$t/json")"
	! grep -q '"full": true' "$t/json" || full=$((full + 1))
	[ $i = 0 ] || grep -q '"scanned_disks": 0' "$t/json" || fail "cron, backup $i: $(cat "$t/json")"
	sleep 1
done
[ $full = 1 ] || fail "cron made $full full points"

n=$(count dr) m=$(count dr2)
kill -9 "$second"
wait "$second" 2>/dev/null || true
for ((i = 0; i < 300 && $(count dr) < n + 3; i++)); do sleep 0.1; done
status_has '"state": "late"'
[ "$(count dr2)" -le $((m + 1)) ] || fail "points at a replica that is dead"
second_start
status_has '"state": "protected"'
for ((i = 0; i < 300 && $(count dr2) < m + 3; i++)); do sleep 0.1; done
kill -TERM "$agent_pid"
wait "$agent_pid" || fail "the agent ended with $?: $(tail -n 3 "$t/agent.log")"
locum backup web01 --to dr --to dr2 --quiet || fail "a last one to both"
[ "$(count dr)" = "$(count dr2)" ] || fail "one replica has $(count dr) points, the other $(count dr2)"
! grep -E ' error: |compared' "$t/agent.log" || fail "not every point was taken as it should"
unharmed "$t/vm"

looked=0
one_instant() { # COMMAND...: locum, of one of the three
	local id
	"$@" points web01 --json | grep -o '"id": *"[0-9a-f]*"' | grep -o '[0-9a-f]\{32\}' >"$t/ids"
	while read -r id; do
		"$@" restore "web01@$id" --to "$t/r" --quiet || fail "restore of $id"
		"$GUEST_OUT/seqcheck" --strict "$t"/r/web01-v*.raw >"$t/seq" 2>&1 || fail "$id is not of one instant: $(cat "$t/seq")"
		rm -rf "$t/r"
		looked=$((looked + 1))
	done <"$t/ids"
}
one_instant at dr
one_instant at dr2
one_instant cron
echo "$looked points in three places, of one instant each"
