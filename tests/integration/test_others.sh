#!/bin/bash
# More of what others do to a VM between two restore points (test_changes.sh has the rest): snapshots in the image and going
# back to one, storage migration, live migration, saving and restoring, a reset, another backup tool.  After each, the next
# point has the true bytes, and is incremental or compared as OPERATIONS.md says.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin others

vm=vm
qmp() { # COMMAND [ARGUMENTS]
	guest_qmp "$t/$vm" "{\"execute\":\"$1\"${2:+,\"arguments\":{$2\}}}" >"$t/qmp"
	grep -q '"return"' "$t/qmp" || fail "$1: $(cat "$t/qmp")"
}
hmp() { # COMMAND: it says nothing where all went well
	guest_qmp "$t/$vm" "{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"$1\"}}"
}
put() { # DEVICE PATTERN OFFSET LENGTH
	local n
	n=$(grep -c '^wrote' "$t/$vm/qemu.log" || true)
	hmp "qemu-io -d $1 \\\"write -P $2 $3 $4\\\"" >/dev/null
	hmp "qemu-io -d $1 flush" >/dev/null
	[ "$(grep -c '^wrote' "$t/$vm/qemu.log")" -gt "$n" ] || fail "write to $1: $(tail -n 2 "$t/$vm/qemu.log")"
}
boot() { # VM OPTION... DISK...
	local i
	vm=$1
	shift
	guest_start "$t/$vm" -b scsi -w '' -x -S "$@"
	for ((i = 0; i < 200; i++)); do
		[ ! -S "$t/$vm/qmp2" ] || break
		sleep 0.05
	done
	[ -S "$t/$vm/qmp2" ] || fail "QEMU does not start: $(cat "$t/$vm/qemu.log")"
	sed -i "s|^qmp = .*|qmp = $t/$vm/qmp|" "$LOCUM_CONFIG"
}
wait_for() { # QUERY REGEX
	local i
	for ((i = 0; i < 200; i++)); do
		guest_qmp "$t/$vm" "{\"execute\":\"$1\"}" >"$t/wait"
		! grep -qE "$2" "$t/wait" || return 0
		sleep 0.05
	done
	fail "$1 does not come to '$2': $(cat "$t/wait")"
}
done_with() { echo "$1"; }

scenario_vm web01 "qmp = $t/vm/qmp"
qemu-img create -q -f qcow2 "$t/a.qcow2" 16M
boot vm "$t/a.qcow2"
put vd0 0x11 1M 64k
backup web01 full

# A reset of the guest.
qmp set-action '"reboot":"reset"' # the test guest's QEMU would end
qmp system_reset
put vd0 0x12 2M 64k
backup web01 incremental
same_as web01 vd0="$t/a.qcow2"
done_with "guest reset: incremental"

# Made smaller, and as large as before again: what was in between reads as zeros, and QEMU records nothing of that.
put vd0 0x15 12M 64k
put vd0 0x15 15M 64k
backup web01 incremental
for size in 8388608 16777216; do
	qmp block_resize "\"device\":\"\",\"node-name\":\"disk0\",\"size\":$size"
done
put vd0 0x16 15M 64k
backup web01 compared
same_as web01 vd0="$t/a.qcow2"
put vd0 0x17 13M 64k
backup web01 incremental
same_as web01 vd0="$t/a.qcow2"
done_with "made smaller and larger again: compared, then incremental"

# A snapshot in the image; going back to it, which QEMU refuses while there is a record of changes.
hmp 'savevm one' | has '"return": ""' || fail "savevm: $(hmp 'savevm one')"
put vd0 0x13 3M 64k
backup web01 incremental
same_as web01 vd0="$t/a.qcow2"
hmp 'loadvm one' | has 'active dirty bitmaps' || fail "loadvm does not name our record"
locum unprotect web01 --quiet
hmp 'loadvm one' | has '"return": ""' || fail "loadvm after unprotect"
backup web01 compared
same_as web01 vd0="$t/a.qcow2"
put vd0 0x14 4M 64k
backup web01 incremental
same_as web01 vd0="$t/a.qcow2"
done_with "internal snapshot: incremental; reverted (after unprotect): compared"

# Its storage is moved while it runs.
qemu-img create -q -f qcow2 "$t/moved.qcow2" 16M
qmp blockdev-add "\"driver\":\"qcow2\",\"node-name\":\"moved\",\"file\":{\"driver\":\"file\",\"filename\":\"$t/moved.qcow2\"}"
qmp blockdev-mirror '"job-id":"m","device":"disk0","target":"moved","sync":"full"'
wait_for query-jobs '"ready"'
refused 1 'web01: .*vd0.*another tool' locum backup web01
qmp job-complete '"id":"m"'
wait_for query-jobs '"return": *\[\]'
put vd0 0x21 5M 64k
backup web01 compared
same_as web01 vd0="$t/moved.qcow2"
put vd0 0x22 6M 64k
backup web01 incremental
same_as web01 vd0="$t/moved.qcow2"
done_with "storage migration: refused while it runs, then compared, then incremental"

# Another backup tool: with a job of its own, and with an NBD server of its own.
qemu-img create -q -f qcow2 "$t/theirs.qcow2" 16M
qmp blockdev-add "\"driver\":\"qcow2\",\"node-name\":\"theirs\",\"file\":{\"driver\":\"file\",\"filename\":\"$t/theirs.qcow2\"}"
qmp blockdev-backup '"job-id":"b","device":"moved","target":"theirs","sync":"none"'
refused 1 'web01: .*vd0.*another tool' locum backup web01
qmp block-job-cancel '"device":"b","force":true'
wait_for query-jobs '"return": *\[\]'
put vd0 0x23 7M 64k
backup web01 incremental
same_as web01 vd0="$t/moved.qcow2"
qmp nbd-server-start "\"addr\":{\"type\":\"unix\",\"data\":{\"path\":\"$t/their.nbd\"}}"
qmp block-export-add '"type":"nbd","id":"their","node-name":"moved","name":"their"'
put vd0 0x24 8M 64k
refused 1 'web01: an NBD server that is not Locum.s runs in this QEMU' locum backup web01
guest_qmp "$t/$vm" '{"execute":"query-block-exports"}' | has '"their"' || fail "their export is gone"
qmp nbd-server-stop
put vd0 0x25 9M 64k
backup web01 incremental
same_as web01 vd0="$t/moved.qcow2"
done_with "another backup tool: refused while it works, then incremental"

# Saved into a file, and restored from it by another QEMU.
qmp migrate "\"uri\":\"exec:cat >$t/saved\""
wait_for query-migrate '"status": "completed"'
refused 1 'web01: .*state postmigrate, its disks belong to another QEMU' locum backup web01
guest_kill "$t/vm"
boot vm2 -x -incoming -x "exec:cat $t/saved" "$t/moved.qcow2"
wait_for query-status '"status": "(paused|prelaunch|postmigrate)"'
put vd0 0x31 10M 64k
backup web01 compared
same_as web01 vd0="$t/moved.qcow2"
put vd0 0x32 11M 64k
backup web01 incremental
same_as web01 vd0="$t/moved.qcow2"
done_with "saved and restored: refused in between, compared, then incremental"

# Live migration to another QEMU over the same image.
boot vm3 -x -incoming -x "unix:$t/mig" "$t/moved.qcow2"
refused 1 'web01: .*state inmigrate, its disks belong to another QEMU' locum backup web01
vm=vm2
qmp migrate "\"uri\":\"unix:$t/mig\""
wait_for query-migrate '"status": "completed"'
vm=vm3
wait_for query-status '"status": "(paused|prelaunch|postmigrate)"'
guest_kill "$t/vm2"
put vd0 0x41 12M 64k
backup web01 compared
same_as web01 vd0="$t/moved.qcow2"
put vd0 0x42 13M 64k
backup web01 incremental
same_as web01 vd0="$t/moved.qcow2"
done_with "live migration: refused until it is there, compared, then incremental"
left=$(guest_qmp "$t/$vm" '{"execute":"query-named-block-nodes","arguments":{"flat":true}}' | grep -o '"node-name": *"locum[^"]*"' || true)
[ -z "$left" ] || fail "left in QEMU: $left"
locum verify --all --quiet || fail "verify"
