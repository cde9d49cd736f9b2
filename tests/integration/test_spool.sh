#!/bin/bash
# A host with little disk: its store stays within spool_max while a replica takes what is in it; where the replica is away
# for long no points are made, and it goes on by itself; what was dropped is read back from the replica, or the error
# says where it is.  The agent is killed in between.  The host's store is lost, and comes back as a map.
#
# The VM is off, so its image is written to by hand.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"

scenario_begin spool
at_end() { kill -9 $replica_pid $agent_pid 2>/dev/null; }
mib=$((1024 * 1024))

replica_kill() {
	kill -9 $replica_pid
	wait $replica_pid 2>/dev/null || true
}

spool() { # KEY: a number of the spool
	{ locum status --json 2>/dev/null || true; } | sed -nE "s/.*\"spool\": .*\"$1\": ([0-9]+).*/\1/p"
}

kept() { # bytes of the log here
	cat "$t"/store/segments/* | wc -c
}

at_replica_bytes() { # of the log there
	cat "$t"/dr/stores/*/segments/* | wc -c
}

write() { # MIB OFFSET: random bytes into the image, all at once
	cp --sparse=always "$t/img" "$t/img.new"
	dd if=/dev/urandom of="$t/img.new" bs=1M count="$1" seek="$2" conv=notrunc status=none
	mv "$t/img.new" "$t/img"
}

# Until a point here shows the image as it is; then it is in "newest".
newest=''
look() {
	newest=$({ locum points web01 --json 2>/dev/null || true; } | grep -o '"id":"[0-9a-f]*"' | grep -o '[0-9a-f]\{32\}' | tail -n 1 || true)
}

captured() {
	local i before=$newest
	for ((i = 0; i < 600; i++)); do
		look
		[ "$newest" = "$before" ] || return 0
		sleep 0.1
	done
	fail "no point came: $(tail -n 5 "$t/agent.log")"
}

# The newest point becomes what the image is now.
restores() {
	local i
	for ((i = 0; i < 20; i++)); do
		locum restore web01 --to "$t/r.raw" --quiet --force || fail "restore"
		! cmp -s "$t/img" "$t/r.raw" || break
		sleep 0.5
	done
	cmp "$t/img" "$t/r.raw" || fail "another image was restored"
	rm "$t/r.raw"
}

truncate -s 96M "$t/img"
write 70 0
printf '%s\n' 'spool_max = 64 MiB' 'rpo = 1s' "key_dir = $t/keys" >>"$LOCUM_CONFIG"
rm -rf "$t/store" "$t/kit"
locum store init --kit "$t/kit" >/dev/null || fail "store init"
scenario_vm web01 'memory = 64 MiB' "disk = vda raw $t/img"
replica_start

agent_start # paired with none: the limit does nothing, and keeps no VM from being protected
for ((i = 0; i < 100; i++)); do
	! grep -q 'spool_max is for hosts with a replica' "$t/agent.log" || break
	sleep 0.05
done
grep -q 'spool_max is for hosts with a replica' "$t/agent.log" || fail "the agent says nothing of spool_max"
captured
kill $agent_pid
wait $agent_pid 2>/dev/null || true
rm -rf "$t/store" "$t/kit" "$t/keys"
newest=''
locum store init --kit "$t/kit" >/dev/null || fail "store init"
# More than the budget lies in the store, of an attempt that failed: there is nothing that a replica could take.
LOCUM_FAILPOINT=writer.rows:1:kill locum backup web01 2>/dev/null && fail "writer.rows was not passed"
[ "$(kept)" -gt $((64 * mib)) ] || fail "the attempt left $(kept) bytes"
token=$(locum token --dir "$t/dr" --address "127.0.0.1:$port")
locum pair --name dr --as host-a --quiet "$token"
agent_start
captured
status_has '"state": "protected"'

# Five times the budget goes through it.
for ((round = 1; round <= 6; round++)); do
	write 24 $((round * 11 % 72))
	captured
	status_has '"has_all": true'
done
status_has '"spent": false'
for ((i = 0; i < 600; i++)); do # what the last round brought is dropped after that
	[ "$(spool dropped_bytes)" -le $((48 * mib)) ] || break
	sleep 0.1
done
[ "$(spool dropped_bytes)" -gt $((48 * mib)) ] || fail "little was dropped: $(cat "$t/status")"
for ((i = 0; i < 300 && $(kept) > 48 * mib; i++)); do sleep 0.1; done
[ "$(kept)" -le $((48 * mib)) ] || fail "the store holds $(kept) bytes"
locum store stats | has 'they are at replica dr' || fail "stats: $(locum store stats)"
echo "180 MiB went through 64: $(kept) bytes are here, $(spool dropped_bytes) were dropped"

# What is not here is read from there, also while the agent sends.
locum verify --all --quiet || fail "verify with the replica there"
restores

# The replica is away: the budget is spent, and points are made no more; changes wait in the VM.
replica_kill
for ((round = 1; round <= 20; round++)); do
	locum status --json >"$t/status" 2>/dev/null || true
	! grep -q '"spent": true' "$t/status" || break
	write 24 $((round * 13 % 72))
	sleep 1.5
done
status_has '"spent": true'
status_has '"state": "waiting"'
look
points=$(locum points web01 --json | grep -c '"id":')
write 8 40
sleep 3
[ "$(locum points web01 --json | grep -c '"id":')" = "$points" ] || fail "a point was made beyond the budget"
locum status >"$t/out" 2>&1 && fail "status says that all is well"
grep -q 'SPENT' "$t/out" || fail "status does not say why: $(cat "$t/out")"
refused 1 "web01/vda.*(byte|bytes) .*replica dr" locum restore "web01@$newest" --to "$t/r.raw"
cat "$t/refused"
# It is not said to be bad: nobody knows.
refused 1 'could not be checked: .*web01/vda.*replica dr' locum verify "web01@$newest"
{ locum verify "web01@$newest" --json || true; } 2>/dev/null | has '"ok":null' || fail "verify --json with the replica away"

# Killed meanwhile; nothing is lost, and it stays as it was.
kill -9 $agent_pid
wait $agent_pid 2>/dev/null || true
agent_start
# What the replica has acknowledged is known without it, from the first moment on.
for ((i = 0; i < 200; i++)); do
	locum status --json >"$t/status" 2>/dev/null || true
	! grep -q "\"pid\": $agent_pid," "$t/status" || break
	sleep 0.02
done
grep -qE '"lag_s": [0-9]' "$t/status" || fail "after a start it knows no lag: $(cat "$t/status")"
grep -qE '"waiting_points": [0-9]' "$t/status" || fail "after a start it does not know what waits: $(cat "$t/status")"
status_has '"spent": true'

# It goes on by itself, and all points that waited arrive as points.
replica_start
status_has '"spent": false'
captured
status_has '"has_all": true'
status_has '"state": "protected"'
here=$(locum points web01 --json | grep -o '"id":"[0-9a-f]*"' | sort -u | tr '\n' ' ')
there=$(at_replica points web01 --json | grep -o '"id":"[0-9a-f]*"' | sort -u | tr '\n' ' ')
[ "$here" = "$there" ] || fail "points here: $here; there: $there"
at_replica verify web01 --quiet || fail "verify at the replica"
locum verify --all --quiet || fail "verify here"
restores
echo "the replica was away until the budget was spent; all $(wc -w <<<"$here") points are there"

# The host's store is lost, and its key file too; its pairing and the recovery kit remain.
kill $agent_pid
wait $agent_pid 2>/dev/null || true
rm -rf "$t/store" "$t"/keys/[0-9a-f]*.key
refused 1 'no store .*locum recall' locum backup web01
refused 1 'recovery-code-file' locum recall dr
refused 1 'no replica nowhere is known' locum recall nowhere
for place in recall.stubs:1 commit.data-durable:2 commit.appended:2 commit.durable:2; do
	LOCUM_FAILPOINT=$place:kill locum recall dr --recovery-code-file "$t/kit" >/dev/null 2>&1 && fail "$place was not passed"
	locum scrub >/dev/null || fail "scrub after a kill at $place"
	locum recall dr --quiet --recovery-code-file "$t/kit" || fail "recall after a kill at $place"
	[ "$(locum points web01 --json | grep -c '"id":')" = 1 ] || fail "no point after a kill at $place"
	locum verify --all --quiet || fail "verify after a kill at $place"
	rm -rf "$t/store"
done
locum recall dr --recovery-code-file "$t/kit" >"$t/out" || fail "recall: $(cat "$t/out")"
cat "$t/out"
[ "$(kept)" -lt $mib ] || fail "the map takes $(kept) bytes"
locum recall dr | has '^0 lines' || fail "recalling again brings something"
write 1 50
before=$(at_replica_bytes)
locum backup web01 --to dr --json >"$t/out" 2>"$t/err" || fail "backup after the loss: $(cat "$t/out" "$t/err")"
after=$(at_replica_bytes)
[ "$(figure changed_bytes)" -le $((18 * 65536)) ] || fail "much differs: $(cat "$t/out")"
[ $((after - before)) -lt $((mib * 3 / 2)) ] || fail "$((after - before)) bytes went to the replica for 1 MiB of changes"
echo "after the loss: a backup of 96 MiB, 1 MiB of it changed, sent $((after - before)) bytes"
restores
locum store rebuild --quiet
locum verify --all --quiet || fail "verify after the loss"
at_replica verify web01 --quiet || fail "verify at the replica after the loss"
