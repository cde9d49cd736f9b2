#!/bin/bash
# Ctrl-C, at the command and at the agent, while QEMU copies a disk itself, which takes as long as it takes: it ends within
# two seconds, nothing is left in QEMU or in the scratch, the guest goes on, and the next point is right.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
at_end() { [ -z "${agent_pid:-}" ] || kill "$agent_pid" 2>/dev/null || true; }
scenario_begin interrupt
limit_ms=2000

# A disk of 8 MiB/s under the copy; the guest's own disk is another one, so that the guest is not slow with it.
truncate -s 64M "$t/seq.raw"
truncate -s 160M "$t/slow.raw"
head -c 150M /dev/urandom | dd of="$t/slow.raw" conv=notrunc status=none
scenario_vm web01 "qmp = $t/vm/qmp" "push_full = yes" "rpo = 1s"
guest_start "$t/vm" -i -a 'seq.disks=vda' -x -object -x 'throttle-group,id=tg,x-bps-total=8388608' \
	-x -object -x 'iothread,id=ios' \
	-x -blockdev -x "driver=throttle,node-name=slow,throttle-group=tg,file.driver=raw,file.file.driver=file,file.file.filename=$t/slow.raw" \
	-x -device -x 'virtio-blk-pci,id=slow,drive=slow,iothread=ios' "$t/seq.raw" >/dev/null
guest_past "$t/vm" 0

jobs_of() {
	guest_qmp "$t/vm" '{"execute":"query-jobs"}'
}

copying() { # PID: until QEMU copies
	local i
	for ((i = 0; i < 300; i++)); do
		! jobs_of | has '"id": *"locum[^}]*' || return 0
		kill -0 "$1" 2>/dev/null || fail "it ended before QEMU copied: $(cat "$t/err")"
		sleep 0.05
	done
	fail "QEMU does not copy"
}

interrupted() { # WHAT SIGNAL PID
	local what=$1 began ms
	sleep 0.5 # well into it
	began=$(date +%s%N)
	kill "-$2" "$3"
	rc=0
	wait "$3" || rc=$?
	ms=$((($(date +%s%N) - began) / 1000000))
	[ $ms -le $limit_ms ] || fail "$what: it took $ms ms to end"
	# The agent goes on giving back when who asked has his answer.
	while ! jobs_of | has '"return": *\[\]' && [ $((($(date +%s%N) - began) / 1000000)) -le $limit_ms ]; do
		sleep 0.05
	done
	jobs_of | has '"return": *\[\]' || fail "$what: a job is left: $(jobs_of)"
	guest_past "$t/vm" "$(guest_last "$t/vm")"
	unharmed "$t/vm"
	[ -z "$(ls -A "$t/scratch")" ] || fail "$what: left in the scratch: $(ls "$t/scratch")"
	echo "$what: over after $ms ms"
}

for signal in INT TERM HUP; do
	"$bin/locum" backup web01 >"$t/out" 2>"$t/err" &
	pid=$!
	copying $pid
	interrupted "locum backup, SIG$signal" $signal $pid
	[ "$rc" = 1 ] || fail "exit status $rc and not 1: $(cat "$t/err")"
	grep -q 'web01: interrupted' "$t/err" || fail "it does not say so: $(cat "$t/err")"
done

: >"$t/err"
agent_start
copying "$agent_pid"
interrupted "locum agent" TERM "$agent_pid"
[ "$rc" = 0 ] || fail "the agent's exit status is $rc: $(cat "$t/agent.log")"

# One that asked the agent, which goes on.
sed -i 's/^rpo = 1s/rpo = 0/' "$LOCUM_CONFIG"
truncate -s 1M "$t/other.raw"
scenario_vm other "disk = vda raw $t/other.raw" # or it has nothing to do
agent_start
status_has '"vm": *"other"'
"$bin/locum" backup web01 >"$t/out" 2>"$t/err" &
pid=$!
copying $pid
interrupted "locum backup beside an agent" INT $pid
kill -0 "$agent_pid" || fail "the agent died: $(cat "$t/agent.log")"

# The agent reads its settings anew, then ends, each in the middle: the command waits for it, then does it itself.
"$bin/locum" backup web01 other --verbose >"$t/out" 2>"$t/err" &
pid=$!
copying $pid
sed -i 's/^\[vm other\]/&\nrpo = 50m/' "$LOCUM_CONFIG"
kill -HUP "$agent_pid"
waited() { # TIMES: until it has waited so often
	local i
	for ((i = 0; i < 200; i++)); do
		[ "$(grep -c 'waiting for the agent' "$t/out")" -lt "$1" ] || return 0
		kill -0 $pid 2>/dev/null || fail "it does not wait for the agent: $(cat "$t/out" "$t/err")"
		sleep 0.05
	done
	fail "it does not wait for the agent: $(cat "$t/out" "$t/err")"
}
waited 1
copying $pid
kill -0 "$agent_pid" || fail "the agent died: $(cat "$t/agent.log")"
kill "$agent_pid"
waited 2
wait "$agent_pid" || true
copying $pid
guest_qmp "$t/vm" '{"execute":"qom-set","arguments":{"path":"/objects/tg","property":"limits","value":{"bps-total":0}}}' |
	has '"return"' || fail "the brake stays on"
wait $pid || fail "a backup that the agent gave up: $? $(cat "$t/out" "$t/err")"
[ "$(grep -c '^web01: point [0-9a-f]*, full' "$t/out")" = 1 ] || fail "not one point of web01: $(cat "$t/out")"
[ "$(grep -cE '^other: (point|unchanged)' "$t/out")" = 1 ] || fail "not one of other: $(cat "$t/out")"
[ ! -s "$t/err" ] || fail "it complains: $(cat "$t/err")"
locum points web01 | has "$(sed -nE 's/^web01: point ([0-9a-f]*),.*/\1/p' "$t/out")" || fail "its point is not there"

# Let alone it ended well.
locum restore web01 --disk slow --to "$t/back" --quiet || fail "restore"
cmp "$t/back" "$t/slow.raw" || fail "the point is not the disk"
guest_past "$t/vm" "$(guest_last "$t/vm")"
backup web01 incremental
unharmed "$t/vm"

# Interrupted while it waits for an agent: at once.
printf '%d 1 locum agent\n%s' $$ "$t/run/store.sock" >"$t/store/lock"
flock "$t/store/lock" sleep 60 &
holder=$!
for ((i = 0; i < 200; i++)); do # or the command has it first
	flock -n "$t/store/lock" true || break
	sleep 0.02
done
"$bin/locum" backup web01 --verbose >"$t/out" 2>"$t/err" &
pid=$!
waited 1
kill -INT $pid
rc=0
wait $pid || rc=$?
[ "$rc" = 1 ] || fail "interrupted in waiting: $rc $(cat "$t/out" "$t/err")"
grep -q 'web01: not begun' "$t/err" || fail "interrupted in waiting: $(cat "$t/err")"
kill $holder
