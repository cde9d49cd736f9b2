#!/bin/bash
# More of what others do to a VM between two restore points (test_changes.sh has the rest): snapshots in the image and going
# back to one, storage migration, live migration, saving and restoring, a reset, another backup tool.  After each, the next
# point has the true bytes, and is incremental or compared as OPERATIONS.md says.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin others
# shellcheck source=tests/lib/monitor.sh
. "$src/tests/lib/monitor.sh"

boot() { # VM OPTION... DISK...
	vm=$1
	shift
	guest_start "$t/$vm" -b scsi -w '' -x -S "$@"
	qemu_ready "$vm"
	sed -i "s|^qmp = .*|qmp = $t/$vm/qmp|" "$LOCUM_CONFIG"
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
answers query-jobs '"ready"'
refused 1 'web01: .*vd0.*another tool' locum backup web01
qmp job-complete '"id":"m"'
answers query-jobs '"return": *\[\]'
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
answers query-jobs '"return": *\[\]'
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
answers query-migrate '"status": "completed"'
refused 1 'web01: .*state postmigrate, its disks belong to another QEMU' locum backup web01
guest_kill "$t/vm"
boot vm2 -x -incoming -x "exec:cat $t/saved" "$t/moved.qcow2"
answers query-status '"status": "(paused|prelaunch|postmigrate)"'
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
answers query-migrate '"status": "completed"'
vm=vm3
answers query-status '"status": "(paused|prelaunch|postmigrate)"'
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
