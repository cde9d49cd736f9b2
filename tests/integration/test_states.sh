#!/bin/bash
# `locum backup --all` over VMs in every state: each has its own result, and none keeps another from being backed up.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin states

boot() { # VM OPTION...
	local i dir=$t/$1
	shift
	guest_start "$dir" -b scsi -w '' "$@"
	for ((i = 0; i < 200; i++)); do
		[ ! -S "$dir/qmp2" ] || return 0
		sleep 0.05
	done
	fail "QEMU does not start: $(cat "$dir/qemu.log")"
}
vms=(running paused off crashed dead incoming held)
for vm in "${vms[@]}"; do
	truncate -s 1M "$t/$vm.raw"
	printf '%s' "$vm" | dd of="$t/$vm.raw" conv=notrunc status=none
	scenario_vm "$vm" "qmp = $t/vm-$vm/qmp"
done
scenario_vm gone "qmp = $t/vm-gone/qmp" # never seen
scenario_vm image "disk = vda raw $t/off.raw"
boot vm-running "$t/running.raw"
boot vm-paused -x -S "$t/paused.raw"
boot vm-crashed -x -S "$t/crashed.raw"
boot vm-dead -x -S "$t/dead.raw"
boot vm-held -x -S "$t/held.raw"
boot vm-off -x -S "$t/off.raw"
locum backup crashed dead off held || fail "the first points"
boot vm-incoming -x -incoming -x defer "$t/incoming.raw"
guest_kill "$t/vm-off"
guest_kill "$t/vm-crashed"
# Dead, and its image gone with it.
guest_kill "$t/vm-dead"
rm "$t/dead.raw"
"$GUEST_OUT/sockline" --timeout 60 --event "$t/vm-held/qmp" NEVER >/dev/null 2>&1 &
holder=$!
monitor_held vm-held
at_end() {
	kill $holder 2>/dev/null || true
	rm -f "$t".*
}

check() { # VM OUTCOME TEXT, from $t/out
	python3 - "$t/out" "$1" "$2" "$3" <<-'EOF' || fail "$1 should be $2, '$3': $(cat "$t/out")"
	import json, re, sys
	x = [r for r in json.load(open(sys.argv[1])) if r["vm"] == sys.argv[2]]
	assert len(x) == 1 and x[0]["outcome"] == sys.argv[3], x
	assert re.search(sys.argv[4], json.dumps(x[0])), x
	EOF
	echo "$1: $2"
}
rc=0
locum backup --all --json >"$t/out" 2>"$t/err" || rc=$?
[ $rc = 3 ] || fail "exit status $rc and not 3: $(cat "$t/out" "$t/err")"
check running 'done' '"full": true'
check paused 'done' '"full": true'
check off 'done' '"scanned_disks": 1'
check crashed 'done' '"scanned_disks": 1'
check dead failed 'dead.raw: No such file.*nobody listens|dead.raw: No such file'
check incoming failed 'state inmigrate, its disks belong to another QEMU'
check held failed 'another client holds the monitor'
check gone failed 'nor a restore point says where its disks are'
check image 'done' '"full": true'
[ "$(grep -c 'error' "$t/err")" = 4 ] || fail "4 failures are told: $(cat "$t/err")"
for vm in running paused off crashed; do
	locum restore "$vm" --disk vd0 --to "$t/back" --force --quiet || fail "restore of $vm"
	cmp "$t/back" "$t/$vm.raw" || fail "the point of $vm is not its disk"
done
# What `locum vm list` says of each.
listed() { # VM STATE [WHY], from $t/list
	python3 - "$t/list" "$1" "$2" "${3:-}" <<-'EOF' || fail "vm list: $1 should be $2: $(cat "$t/list")"
	import json, re, sys
	x = [r for r in json.load(open(sys.argv[1])) if r["vm"] == sys.argv[2]]
	assert len(x) == 1 and x[0]["state"] == sys.argv[3], x
	assert re.search(sys.argv[4], x[0].get("why", "")), x
	EOF
}
# QEMU has room for one that waits beside the one that it speaks to.
waits='another client holds the monitor|has others waiting'
locum vm list --json >"$t/list"
listed running running
listed paused paused
listed incoming incoming
listed held unknown "$waits"
for vm in off crashed dead gone image; do
	listed "$vm" off
done
locum vm list | has -E "^held *unknown *monitor .*($waits)" || fail "$(locum vm list)"
if [ "$(id -u)" = 0 ]; then
	sed "s|$t/vm-running|$t.open|" "$LOCUM_CONFIG" >"$t.conf"
	ln -s "$t/vm-running" "$t.open"
	cp "$bin/locum" "$t.program"
	chmod 755 "$t.conf" "$t.program"
	setpriv --reuid=65534 --regid=65534 --clear-groups "$t.program" vm list --json --config "$t.conf" >"$t/list" 2>/dev/null || true
	rm -f "$t.conf" "$t.open" "$t.program"
	listed running unknown 'Permission denied'
	listed off unknown 'Permission denied'
fi
echo "vm list: each with its state"

# Only failures: 1.  Only good ones: 0.
refused 1 'inmigrate' locum backup incoming gone
locum backup running paused || fail "two good ones"
# The agent goes on with the others, too, and says of each how it is.
sed -i 's/^run_dir/rpo = 2s\nrun_dir/' "$LOCUM_CONFIG"
agent_start
status_has '"vm": *"paused"[^}]*"state": *"protected"|"paused".*"protected"'
status_has 'inmigrate'
kill "$agent_pid"
wait "$agent_pid" || true
