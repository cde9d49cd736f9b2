#!/bin/bash
# What writes to a store beside the daemon that has it: the same words and exit status as without one, at a host and at
# a replica; a daemon that hangs or is killed meanwhile, and a command that is.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"

scenario_begin owner
at_end() {
	kill -CONT $agent_pid $replica_pid 2>/dev/null
	kill -9 $replica_pid $agent_pid 2>/dev/null
}

# A VM that is off is enough: its points are made from its images.
printf 'rpo = 1s\n' >>"$LOCUM_CONFIG"
truncate -s 4M "$t/a.raw" "$t/b.raw"
scenario_vm web01 "disk = vda raw $t/a.raw" "disk = vdb raw $t/b.raw" 'rpo = 0'
scenario_vm db "disk = vda raw $t/b.raw"
write() { printf '%s' "$1" | dd of="$t/a.raw" bs=64k seek=$((RANDOM % 64)) conv=notrunc status=none; }
for ((i = 1; i <= 9; i++)); do
	write "point $i $RANDOM"
	locum backup web01 --quiet || fail "backup $i"
done
mapfile -t ids < <(point_ids web01)
[ ${#ids[@]} = 9 ] || fail "${#ids[@]} points"

# On a copy that nobody has, and beside the agent on the store: each command says and ends the same.
cp -a "$t/store" "$t/free"
same() { # COMMAND...
	local free=0 busy=0
	locum "$@" --store "$t/free" </dev/null >"$t/free.out" 2>"$t/free.err" || free=$?
	locum "$@" </dev/null >"$t/busy.out" 2>"$t/busy.err" || busy=$?
	sed -i "s|$t/free|$t/store|g" "$t"/free.out "$t"/free.err
	[ $free = $busy ] || fail "$*: exit status $free without an agent and $busy beside it: $(cat "$t/busy.out" "$t/busy.err")"
	diff -u "$t/free.out" "$t/busy.out" || fail "$*: says another thing beside an agent"
	diff -u "$t/free.err" "$t/busy.err" || fail "$*: complains of another thing beside an agent"
	last=$free
}

agent_start
status_has '"vm": "db", "state": "protected"'
same drop "web01@${ids[0]}" --dry-run
same drop "web01@${ids[0]}"
same drop "web01@${ids[1]}" "web01@${ids[2]}" --json
same drop "web01@${ids[0]}"
[ $last = 1 ] || fail "a point was dropped twice"
same drop "web01@${ids[3]}" web01@beef "web01@${ids[3]}"
[ $last = 3 ] || fail "a part of it: $last"
same drop "web01@${ids[4]}" --quiet
same drop nobody@latest
same drop web01
[ $last = 2 ] || fail "wrong use: $last"
point_ids web01 | has "${ids[4]}" && fail "it says that it was dropped, and it is there"
locum verify web01 --quiet || fail "verify after the drops"
locum backup web01 --quiet || fail "the agent does not make a point"
[ "$(grep -c 'asks to drop' "$t/agent.log")" -ge 5 ] || fail "the agent was not asked: $(cat "$t/agent.log")"

# The same byte of the same sealed segment, or of the open one, in both.
segment=$(basename "$(find "$t/free/segments" -type f | sort | sed -n 1p)")
at=1700
for dir in store free; do
	printf '\377\000\377\000' | dd of="$t/$dir/segments/$segment" bs=1 seek=$at conv=notrunc status=none
done
# How many records there are differs, as the agent has made more points; what is said of the damage does not.
for dir in free store; do
	rc=0
	locum scrub --store "$t/$dir" >"$t/$dir.out" 2>"$t/$dir.err" || rc=$?
	[ $rc = 1 ] || fail "scrub of damage in $dir ends with $rc"
	grep -q '^damaged: segments/' "$t/$dir.out" || fail "scrub of $dir: $(cat "$t/$dir.out" "$t/$dir.err")"
	! grep -q 'could not be noted' "$t/$dir.err" || fail "$dir: $(cat "$t/$dir.err")"
done
[ "$(grep -c 'damaged chunks: ' "$t/free.out")" = "$(grep -c 'damaged chunks: ' "$t/store.out")" ] ||
	fail "the damage is noted in one way only: $(cat "$t/free.out" "$t/store.out")"

# What needs the store for itself gets it, and the agent goes on.
locum key rotate --json >"$t/out" || fail "key rotate beside an agent: $?"
grep -qE '^\{"data_key": [0-9]+\}$' "$t/out" || fail "key rotate: $(cat "$t/out")"
status_has '"vm": "db", "state": "protected"'
locum store rebuild >"$t/out" || fail "store rebuild beside an agent: $?"
grep -q '^catalog made again: [0-9]* restore points of 2 VMs' "$t/out" || fail "store rebuild: $(cat "$t/out")"
status_has '"vm": "db", "state": "protected"'
write "after it"
locum backup web01 --quiet || fail "no point after the store was lent"
# While it is lent, status says so; a borrower that is killed gives it back.
LOCUM_FAILPOINT=store.catalog.removed:1:stop "$bin/locum" store rebuild >"$t/out" 2>"$t/err" &
borrower=$!
stopped $borrower
sleep 1.2
rc=0
locum status >"$t/out" || rc=$?
[ $rc = 3 ] || fail "status of a lent store ends with $rc"
grep -q '^the store is lent to locum store rebuild' "$t/out" || fail "status: $(cat "$t/out")"
# A SIGHUP in that while is seen to when the store is back.
scenario_vm cache "disk = vda raw $t/b.raw"
kill -HUP $agent_pid
sleep 0.2
kill -9 $borrower
wait $borrower 2>/dev/null || true
status_has '"vm": "db", "state": "protected"'
status_has '"vm": "cache", "state": "protected"'
locum drop "web01@${ids[5]}" --quiet || fail "drop after a borrower was killed"
echo "beside an agent: the same"

# Killed while it waits: the agent does not care.
kill -STOP $agent_pid
(trap - INT; exec "$bin/locum" drop "web01@${ids[6]}") >"$t/int" 2>&1 &
asker=$!
connected $asker
kill -INT $asker
wait $asker && fail "an interrupted drop says that all is well"
# One that hangs is told in time.
before=$SECONDS
refused 1 'in use by locum agent .*and has said nothing for 10 s: does it hang' locum drop "web01@${ids[7]}"
[ $((SECONDS - before)) -le 30 ] || fail "it took $((SECONDS - before)) s to tell that the agent hangs"
# Killed while somebody waits.
"$bin/locum" drop "web01@${ids[7]}" >"$t/out" 2>&1 &
asker=$!
connected $asker
kill -9 $agent_pid
wait $agent_pid 2>/dev/null || true
wait $asker && fail "a drop by a killed agent says that all is well"
grep -q 'it ended before it answered' "$t/out" || fail "killed: $(cat "$t/out")"
locum drop "web01@${ids[7]}" --quiet || fail "drop after the agent was killed"
locum verify web01 --quiet || fail "verify after all that"
echo "hung and killed: told"

# The other site: the host stays connected and goes on.
replica_start
locum pair --name dr "$(locum token --dir "$t/dr" --address "127.0.0.1:$port")" --quiet
agent_start
status_has '"has_all": true'
status_has '"vm": "db", "state": "protected"'
for ((i = 1; i <= 3; i++)); do
	write "over there $i $RANDOM"
	locum backup web01 --to dr --quiet || fail "backup $i on to the replica"
done
there=$(echo "$t"/dr/stores/*)
mapfile -t ids < <(at_replica points web01 --json | grep -o '"id": *"[0-9a-f]*"' | grep -o '[0-9a-f]\{32\}')
at_replica drop "web01@${ids[0]}" >"$t/out" || fail "drop at a replica whose host is connected: $?"
grep -q '^dropped web01@' "$t/out" || fail "drop at a replica: $(cat "$t/out")"
refused 1 'has no point' at_replica drop "web01@${ids[0]}"
at_replica scrub --quiet || fail "scrub at the replica"
# What needs the store for itself gets it: the host leaves for that while, is told why, and comes again.
LOCUM_FAILPOINT=store.catalog.removed:1:stop env LOCUM_CONFIG=/dev/null "$bin/locum" store rebuild --store "$there" >"$t/out" 2>"$t/err" &
borrower=$!
stopped $borrower
for ((i = 0; i < 100; i++)); do
	locum status >"$t/status" || true
	! grep -q 'the store here is lent to locum store rebuild' "$t/status" || break
	sleep 0.2
done
[ $i -lt 100 ] || fail "the host is not told: $(cat "$t/status")"
kill -CONT $borrower
wait $borrower || fail "store rebuild at a replica whose host is connected: $(cat "$t/err")"
grep -q '^catalog made again: [0-9]* restore points' "$t/out" || fail "store rebuild: $(cat "$t/out")"
for ((i = 0; i < 100; i++)); do # within half a minute, by itself
	! locum backup web01 --to dr --quiet 2>"$t/err" || break
	sleep 0.5
done
[ $i -lt 100 ] || fail "the host does not come again: $(cat "$t/err")"
grep -q 'locum drop asks to drop' "$t/replica.log" || fail "the replica was not asked: $(cat "$t/replica.log")"
# The newest one, too: the host learns of it and goes on.
sleep 2.1
at_replica drop web01@latest --quiet || fail "drop of the newest point at the replica"
write "and on"
refused 3 'another one than it was .dropped there' locum backup web01 --to dr
for ((i = 0; i < 20; i++)); do # it connects again
	! locum backup web01 --to dr --quiet 2>"$t/err" || break
	sleep 0.5
done
[ $i -lt 20 ] || fail "the host does not go on after its newest point was dropped there: $(cat "$t/err")"
at_replica verify web01 --quiet || fail "verify at the replica"
at_replica drop "web01@${ids[1]}" --quiet || fail "another drop at the replica"
# What one host may have is told and taken while both run.
locum replica limit "$(hostname)" --dir "$t/dr" >"$t/out" || fail "replica limit: $(cat "$t/out")"
grep -q ': read at most as for every host; its store may take as for every host$' "$t/out" || fail "no limit: $(cat "$t/out")"
refused 2 'no rate of 16 KiB/s' locum replica limit "$(hostname)" --dir "$t/dr" --rate 3
refused 1 'nobody' locum replica limit nobody --dir "$t/dr"
locum replica limit "$(hostname)" --dir "$t/dr" --rate '20 MiB/s' --max '1 GiB' >"$t/out" || fail "replica limit --rate: $?"
grep -q ': read at most 20.0 MiB/s; its store may take 1.0 GiB$' "$t/out" || fail "a limit: $(cat "$t/out")"
# What can't be read is nobody's word that there is no limit: it is set anew as a whole.
echo 'max much' >"$(echo "$t"/dr/limits/*)"
refused 1 'not understood: max much' locum replica limit "$(hostname)" --dir "$t/dr" --max '1 GiB'
locum replica limit "$(hostname)" --dir "$t/dr" --max '1 GiB' --rate 0 >"$t/out" || fail "limits that can't be read are not replaced: $?"
grep -q ': read at most as fast as it comes; its store may take 1.0 GiB$' "$t/out" || fail "a limit set anew: $(cat "$t/out")"
# What it does not take it does not have.
locum replica limit "$(hostname)" --dir "$t/dr" --max 1 >"$t/out" || fail "replica limit --max: $?"
for ((i = 0; i < 20; i++)); do # it is looked at every five seconds
	write "number $i"
	locum backup web01 --to dr --quiet 2>"$t/err" || break
	sleep 1
done
grep -q 'is used up' "$t/err" || fail "the quota: $(cat "$t/err")"
status_has '"has_all": false.*is used up'
locum replica limit "$(hostname)" --dir "$t/dr" --max default >"$t/out" || fail "replica limit --max default: $?"
status_has '"quota_bytes": 0,.*"has_all": true'
# What was refused for it is over, there too.
for ((i = 0; i < 30; i++)); do # it is written every second
	LOCUM_CONFIG=/dev/null locum status --dir "$t/dr" --json >"$t/out" 2>/dev/null || true
	grep -q 'is used up' "$t/out" || break
	sleep 0.1
done
! grep 'is used up' "$t/out" || fail "the replica shows the refusal of before"
# What it had heard of the replica is known with other settings, too, while that is away.
kill -TERM $replica_pid
wait $replica_pid || fail "the replica ended with $?"
printf changed | dd of="$t/b.raw" bs=64k seek=9 conv=notrunc status=none
status_has '"lag_s": ([3-9]|[1-9][0-9]+)[.]'
sed -i '/^run_dir/a freeze_timeout = 9s' "$LOCUM_CONFIG"
kill -HUP $agent_pid
for ((i = 0; i < 100; i++)); do
	! grep -q 'reading the settings anew' "$t/agent.log" || break
	sleep 0.1
done
for ((i = 0; i < 20; i++)); do # the status is one of the agent that has them
	locum status --json >"$t/status" || true
	grep -q '"lag_s": [0-9]' "$t/status" || fail "nothing is safe any more: $(cat "$t/status")"
	grep -qE '"worst_lag_s": ([3-9]|[1-9][0-9]+)[.]' "$t/status" || fail "its worst lag: $(cat "$t/status")"
	sleep 0.1
done
# One that is to be left alone from now on is told of, and one that always was is not.
sed -i '/^\[vm db\]/a protect = no' "$LOCUM_CONFIG"
printf '[vm later]\ndisk = vda raw %s\nprotect = no\n' "$t/a.raw" >>"$LOCUM_CONFIG"
sed -i '/^\[vm web01\]/,/^rpo/s/^rpo = .*/rpo = 5s/' "$LOCUM_CONFIG"
kill -HUP $agent_pid
for ((i = 0; i < 100; i++)); do
	! grep -q 'web01: protected from now on' "$t/agent.log" || break
	sleep 0.1
done
grep -q 'web01: protected from now on' "$t/agent.log" || fail "the agent: $(tail -n 5 "$t/agent.log")"
grep -q 'db: not protected any more, protect = no; its points stay' "$t/agent.log" || fail "the agent: $(tail -n 5 "$t/agent.log")"
! grep 'later: ' "$t/agent.log" || fail "it is left alone"
kill -TERM $agent_pid
wait $agent_pid || fail "the agent ended with $?"
! at_replica points web01 --json | has "${ids[1]}" || fail "it is there still"
echo "beside a replica: the same"
