#!/bin/bash
# A disk that no snapshot can be taken of: the backup is refused because of it, says which and why, and goes on once it is
# excluded by name.  The point says so, and a restore and a boot attach an empty disk of its size in its place.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin excluded

mapfile -t disks < <("$src/tests/guest/mkdisks.sh" "$t/img" --size 48 --disks 1 --fs-size 0)
head -c 3M /dev/urandom >"$t/img/shared.raw"
scenario_vm web01 "qmp = $t/vm/qmp"
guest_start "$t/vm" -a 'seq.disks=vda' \
	-x -blockdev -x "driver=raw,node-name=sh,file.driver=file,file.filename=$t/img/shared.raw" \
	-x -device -x virtio-blk-pci,id=shared,drive=sh,share-rw=on,serial=s1 "${disks[@]}" >/dev/null
guest_past "$t/vm" 0
refused 1 'web01: disk shared cannot be captured: shared with other writers.*leave it out by name' locum backup web01
unharmed "$t/vm"
sed -i '/^\[vm web01\]/a exclude = shared' "$LOCUM_CONFIG"
backup web01 full
backup web01 incremental
locum points web01 --json >"$t/points"
grep -q 'disk shared: excluded in .*(shared with other writers (share-rw=on)); a restore makes an empty one of 3145728 bytes' "$t/points" ||
	fail "the point does not say what was excluded: $(cat "$t/points")"
locum points | has '^   disk shared is excluded: not in it$' || fail "the list does not: $(locum points)"
! locum points | has 'something' || fail "the list says of nothing else that it is missing: $(locum points)"
guest_kill "$t/vm"

# Restored: beside what was in the point, and in the section that starts it.
locum restore web01 --to "$t/r" --quiet
empty=$t/r/web01-shared.raw
[ "$(stat -c %s "$empty")" = 3145728 ] || fail "the empty disk: $(ls -l "$t/r")"
cmp -n 3145728 "$empty" /dev/zero || fail "the empty disk is not empty"
grep -q "^disk = shared raw \"$empty\" bus=virtio serial=s1" "$t/r/web01.conf" || fail "$(cat "$t/r/web01.conf")"
# What somebody has put there meanwhile is not lost by a second restore.
echo mine >"$empty"
locum restore web01 --to "$t/r" --force --quiet
grep -q mine "$empty" || fail "the disk in the place of the excluded one was overwritten"

# Booted: the guest sees it, at the same place.
locum boot web01 --name web09 --isolated --serial-pattern 'SEQ start' --quiet
guest_qmp "$t/run/web09" '{"execute":"query-block"}' >"$t/blocks" 2>/dev/null ||
	"$GUEST_OUT/sockline" --timeout 20 --qmp "$t/run/web09/qmp" '{"execute":"query-block"}' >"$t/blocks"
grep -q '"virtual-size": 3145728' "$t/blocks" || fail "the booted VM has no disk in its place: $(cat "$t/blocks")"
locum vm stop web09 --force >/dev/null
echo "excluded: said, and attached empty"
