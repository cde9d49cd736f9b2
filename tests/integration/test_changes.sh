#!/bin/bash
# What others do to a VM's disks between two restore points: the next point has the true bytes of the true disks, read
# incrementally where that is known to be enough and compared where it is not.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin changes
# shellcheck source=tests/lib/monitor.sh
. "$src/tests/lib/monitor.sh"

mapfile -t disks < <("$src/tests/guest/mkdisks.sh" "$t/img" --size 48 --fs-size 0)
guest_may "$t/img" # its snapshots go there
scenario_vm web01 "qmp = $t/vm/qmp"
a=${disks[0]} b=${disks[1]}

# What our record is called on a node.
bitmap() { # NODE
	guest_qmp "$t/vm" '{"execute":"query-named-block-nodes","arguments":{"flat":true}}' | sed 's/"iops_rd"/\n&/g' |
		grep "\"node-name\": \"$1\"" | grep -o '"name": *"locum\.[^"]*"' | sed 's/.*"\(locum[^"]*\)"/\1/'
}

why() {
	grep -q "\"scanned_why\": \"[^\"]*$1" "$t/out" || fail "the reason should have '$1': $(cat "$t/out")"
}

# A guest is not needed: nothing but the test writes.  A VM whose CPUs do not run is backed up like any other.
qemu_stands "$a" "$b"
backup web01 full
put vd0 0x11 4M 100k
put vd1 0x12 8M 100k
backup web01 incremental
same_as web01 vd0="$a" vd1="$b"
[ "$(figure changed_bytes)" = $((4 * 65536)) ] || fail "4 windows were written, not $(cat "$t/out")"

# Grown, with the old end in the middle of a window and something behind it; grown and not written to.
qmp block_resize "\"node-name\":\"disk0\",\"size\":$((56 * 1048576 + 512))"
put vd0 0x21 50M 64k
backup web01 compared
why 'vd0: the disk was resized'
[ "$(figure scanned_disks)" = 1 ] || fail "the other disk was read as a whole too: $(cat "$t/out")"
same_as web01 vd0="$a" vd1="$b"
qmp block_resize "\"node-name\":\"disk0\",\"size\":$((60 * 1048576))"
put vd0 0x22 $((56 * 1048576 + 512)) 1k
backup web01 compared
same_as web01 vd0="$a" vd1="$b"
qmp block_resize "\"node-name\":\"disk1\",\"size\":$((52 * 1048576))"
backup web01 compared
[ "$(figure changed_bytes)" = 0 ] || fail "nothing was written: $(cat "$t/out")"
same_as web01 vd0="$a" vd1="$b"
put vd1 0x23 51M 64k
backup web01 incremental
same_as web01 vd0="$a" vd1="$b"
echo "grown: compared, then incremental"

# A disk more.
truncate -s 16M "$t/img/new.raw"
guest_may "$t/img/new.raw"
qmp blockdev-add "\"driver\":\"raw\",\"node-name\":\"new\",\"file\":{\"driver\":\"file\",\"filename\":\"$t/img/new.raw\"}"
qmp device_add '"driver":"scsi-hd","id":"vd2","drive":"new","bus":"scsi0.0"'
put vd2 0x31 1M 1M
put vd0 0x32 5M 64k
backup web01 incremental
same_as web01 vd0="$a" vd1="$b" vd2="$t/img/new.raw"
[ "$(figure changed_bytes)" = $((17 * 65536)) ] || fail "17 windows are new, not $(cat "$t/out")"
put vd2 0x33 2M 64k
backup web01 incremental
same_as web01 vd0="$a" vd1="$b" vd2="$t/img/new.raw"

# A disk less; then one of that name that is another.
qmp device_del '"id":"vd2"'
for ((i = 0; i < 100; i++)); do
	! guest_qmp "$t/vm" '{"execute":"query-block"}' | has '"vd2"' || sleep 0.05
done
put vd1 0x41 6M 64k
backup web01 incremental
same_as web01 vd0="$a" vd1="$b"
truncate -s 20M "$t/img/other.raw"
guest_may "$t/img/other.raw"
qmp blockdev-add "\"driver\":\"raw\",\"node-name\":\"other\",\"file\":{\"driver\":\"file\",\"filename\":\"$t/img/other.raw\"}"
qmp device_add '"driver":"scsi-hd","id":"vd2","drive":"other","bus":"scsi0.0"'
put vd2 0x42 3M 64k
backup web01 incremental
same_as web01 vd0="$a" vd1="$b" vd2="$t/img/other.raw"

# ... and one that goes while we ask QEMU about it: it is in the list of disks, and its device is not there any more.
LOCUM_FAILPOINT=hv.prepare.devices:1:stop "$bin/locum" backup web01 --json >"$t/out" 2>"$t/err" &
asking=$!
stopped "$asking"
qmp device_del '"id":"vd2"'
kill -CONT "$asking"
wait "$asking" || fail "a disk was unplugged while QEMU was asked: $(cat "$t/out" "$t/err")"
same_as web01 vd0="$a" vd1="$b"

# One that comes when the disks have been listed and the instant is not yet: it is in the point all the same.
put vd0 0x42 7M 64k
LOCUM_FAILPOINT=backup.prepared:1:stop "$bin/locum" backup web01 --json >"$t/out" 2>"$t/err" &
listed=$!
stopped "$listed"
truncate -s 16M "$t/img/late.raw"
guest_may "$t/img/late.raw"
qmp blockdev-add "\"driver\":\"raw\",\"node-name\":\"late\",\"file\":{\"driver\":\"file\",\"filename\":\"$t/img/late.raw\"}"
qmp device_add '"driver":"scsi-hd","id":"vd3","drive":"late","bus":"scsi0.0"'
put vd3 0x43 1M 64k
kill -CONT "$listed"
wait "$listed" || fail "a disk was added after they were listed: $(cat "$t/out" "$t/err")"
same_as web01 vd0="$a" vd1="$b" vd3="$t/img/late.raw"
qmp device_del '"id":"vd3"'
for ((i = 0; i < 100; i++)); do
	! guest_qmp "$t/vm" '{"execute":"query-block"}' | has '"vd3"' || sleep 0.05
done
echo "added, removed, added again: incremental"

# Somebody makes an external snapshot: what is written goes where our record is not.
qmp blockdev-snapshot-sync "\"node-name\":\"disk1\",\"snapshot-node-name\":\"snap1\",\"snapshot-file\":\"$t/img/snap1.qcow2\",\"format\":\"qcow2\""
put vd1 0x51 10M 64k
backup web01 compared
why 'snapshot or moved the image'
same_as web01 vd0="$a" vd1="$t/img/snap1.qcow2"
put vd1 0x52 11M 64k
backup web01 incremental
same_as web01 vd0="$a" vd1="$t/img/snap1.qcow2"
# ... and merges it back.
qmp block-commit '"job-id":"c","device":"snap1"'
answers query-jobs '"ready"'
qmp job-complete '"id":"c"'
answers query-jobs '"return": *\[\]'
put vd1 0x53 12M 64k
backup web01 compared
same_as web01 vd0="$a" vd1="$b"
backup web01 incremental
echo "snapshot by another tool, and its commit: compared, then incremental"

# ... and makes one over ours, which QEMU then can't give back: that is what is said, and not that the VM is off.
put vd1 0x54 13M 64k
LOCUM_FAILPOINT=backup.taken:1:stop "$bin/locum" backup web01 >"$t/err" 2>&1 &
overlaid=$!
stopped "$overlaid"
filter=$(guest_qmp "$t/vm" '{"execute":"query-named-block-nodes","arguments":{"flat":true}}' | grep -o '"locum[.0-9a-f]*\.c1"' | sed -n 1p)
qmp blockdev-snapshot-sync "\"node-name\":$filter,\"snapshot-node-name\":\"snap2\",\"snapshot-file\":\"$t/img/snap2.qcow2\",\"format\":\"qcow2\""
kill -CONT "$overlaid"
! wait "$overlaid" || fail "a snapshot over ours went unnoticed"
for verb in backup unprotect; do
	refused 1 "web01: blockdev-del: .*is busy: node is used as backing hd of 'snap2'$" locum $verb web01
done
qmp block-commit "\"job-id\":\"c\",\"device\":\"snap2\",\"base-node\":$filter"
answers query-jobs '"ready"'
qmp job-complete '"id":"c"'
answers query-jobs '"return": *\[\]'
backup web01 incremental
same_as web01 vd0="$a" vd1="$b"
echo "snapshot by another tool over ours: said, then incremental"

# Somebody removes our record, or stops it.
put vd0 0x61 13M 64k
qmp block-dirty-bitmap-remove "\"node\":\"disk0\",\"name\":\"$(bitmap disk0)\""
backup web01 compared
why 'vd0: .*was removed'
same_as web01 vd0="$a" vd1="$b"
qmp block-dirty-bitmap-disable "\"node\":\"disk0\",\"name\":\"$(bitmap disk0)\""
put vd0 0x62 14M 64k
backup web01 compared
why 'stopped by somebody'
same_as web01 vd0="$a" vd1="$b"
put vd0 0x63 15M 64k
backup web01 incremental
same_as web01 vd0="$a" vd1="$b"
echo "record removed, stopped: compared, then incremental"

# Shrunk while it was off, and QEMU is another one.
guest_kill "$t/vm"
truncate -s $((40 * 1048576 - 512)) "$a"
qemu_stands "$a" "$b"
backup web01 compared
why 'QEMU was restarted'
same_as web01 vd0="$a" vd1="$b"
put vd0 0x71 39M 64k
backup web01 incremental
same_as web01 vd0="$a" vd1="$b"
echo "shrunk, QEMU restarted: compared, then incremental"

# Left out.
scenario_vm web02 "qmp = $t/vm/qmp" "exclude = vd1" "exclude = vd9"
locum backup web02 >"$t/out" 2>&1 || fail "$(cat "$t/out")"
grep -q "web02: .*excludes disk vd9, but it has none" "$t/out" || fail "a name that is none: $(cat "$t/out")"
truncate -s "$(qemu-img info -U --output=json "$b" | grep -o '"virtual-size": [0-9]*' | grep -o '[0-9]*')" "$t/empty.raw"
same_as web02 vd0="$a" vd1="$t/empty.raw"
locum points web02 --json | has 'disk vd1: excluded in' || fail "the point does not say what was left out"
locum backup web02 --quiet
[ "$(locum points web02 | grep -c 'is excluded: not in it')" = 1 ] || fail "what all points lack is said again and again: $(locum points web02)"

# A disk that QEMU has to copy itself: as a whole only where that is allowed.
guest_kill "$t/vm"
guest_start "$t/vm" -i -w '' -x -S "$a" "$b"
sleep 0.5
refused 1 'web01: disk vd0: .* allow it with push_full = yes in \[vm web01\]' locum backup web01
cat "$t/refused"
guest_qmp "$t/vm" '{"execute":"query-status"}' | has return || fail "QEMU died"
locum verify --all --quiet || fail "verify"
