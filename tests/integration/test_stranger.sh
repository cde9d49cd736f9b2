#!/bin/bash
# A VM that somebody started on this host and that no setting names: after three minutes the agent says so, in its log and status and
# to the alert program, with the lines that are missing.  With those in the configuration it is protected, and that is told, too.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"

scenario_begin stranger
at_end() { kill -9 $agent_pid 2>/dev/null; }

told() { # LINE SECONDS
	local until=$((SECONDS + $2))
	while [ "$SECONDS" -lt "$until" ]; do
		! grep -qxE "$1" "$t/alerts" || return 0
		kill -0 "$agent_pid" 2>/dev/null || fail "the agent died: $(tail -n 5 "$t/agent.log")"
		sleep 0.5
	done
	fail "'$1' was not told: $(cat "$t/alerts") $(tail -n 5 "$t/agent.log")"
}

# Others may run here, too.
new=new-$$
# shellcheck disable=SC2016 # for the program to expand
printf '#!/bin/sh\necho "$1|$LOCUM_VM" >>%s\necho "$2" >>%s\n' "$t/alerts" "$t/texts" >"$t/alert"
chmod +x "$t/alert"
: >"$t/alerts"
printf 'rpo = 5s\nalert = %s\n' "$t/alert" >>"$LOCUM_CONFIG"
qemu-img create -q -f qcow2 "$t/old.qcow2" 16M
qemu-img create -q -f qcow2 "$t/new.qcow2" 16M
mkdir "$t/vm"
scenario_vm old "disk = vda qcow2 $t/old.qcow2"
qemu-system-x86_64 -name "$new" -machine q35,accel=tcg -m 32 -nodefaults -display none -S -qmp "unix:$t/vm/qmp,server=on,wait=off" \
	-blockdev "driver=qcow2,node-name=d,file.driver=file,file.filename=$t/new.qcow2" -device virtio-blk,drive=d >"$t/vm/log" 2>&1 &
qemu=$!
agent_start
status_has '"vm": "old", "state": "protected"'
{ locum status --json || true; } | grep '"unprotected"' | has "$new" && fail "told at once"
told "vm-unprotected\|$new" 240
grep -qF "write [vm $new] and qmp = $t/vm/qmp into the configuration" "$t/texts" || fail "the text: $(cat "$t/texts")"
grep -q "$new runs on this host, and nothing protects it" "$t/agent.log" || fail "the log: $(tail -n 5 "$t/agent.log")"
status_has "\"unprotected\": .*\"$new\""
rc=0
locum status >"$t/out" || rc=$?
[ $rc = 3 ] || fail "status ends with $rc: $(cat "$t/out")"
grep -qE "nothing protects them: .*$new" "$t/out" || fail "status: $(cat "$t/out")"

scenario_vm "$new" "qmp = $t/vm/qmp"
kill -HUP "$agent_pid"
told "vm-protected\|$new" 60
status_has "\"vm\": \"$new\", \"state\": \"protected\""
for ((i = 0; i < 50; i++)); do # it is written each second
	{ locum status --json || true; } | grep '"unprotected"' | has "\"$new\"" || break
	sleep 0.1
done
[ "$i" -lt 50 ] || fail "still told: $(locum status --json)"
[ "$(grep -cE "^vm-(un)?protected\|$new\$" "$t/alerts")" = 2 ] || fail "told more than once: $(cat "$t/alerts")"
kill -9 $qemu
wait $qemu 2>/dev/null || true
