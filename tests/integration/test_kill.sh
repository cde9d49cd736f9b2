#!/bin/bash
# Laws 2 and 3: locum backup killed with SIGKILL at every place that it passes: test_kill.sh [EVERY], 1 by default; with 3
# it is each third place, beginning with a random one.
#
# At each place: the guest goes on without an error, the next backup tidies up, is incremental and right (law 1's judge),
# and every point that was there still verifies.  Fails if a place is not passed.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin kill

mapfile -t disks < <("$src/tests/guest/mkdisks.sh" "$t/img" --size 96 --fs-size 0)
scenario_vm web01 "qmp = $t/vm/qmp"
guest_start "$t/vm" -a 'seq.load=200' "${disks[@]}"
guest_past "$t/vm" 0
locum backup web01 || fail "first backup"

# Which places there are: what an undisturbed backup passes.
guest_past "$t/vm" "$(guest_last "$t/vm")"
LOCUM_FAILPOINT_LOG=$t/places LOCUM_FAILPOINT=writer.rows:1000000:eio locum backup web01 || fail "second backup"
mapfile -t places < <(sort -u "$t/places")

# All that the code has, but for what a cycle that goes well does not come to: test_hv_crash.sh, test_hv_group.sh, test_hv_glance.sh and
# test_identity.sh do.
elsewhere='hv\.forget\..*|hv\.drop\..*|hv\.undo\..*|hv\.end\.(forget|roll).*|hv\.take\.(freeze-cpus|thaw-cpus|group-status)|hv\.guard\.act|hv\.glance'
while read -r place; do
	[[ "$place" =~ ^($elsewhere)$ ]] || grep -qx "$place" "$t/places" || fail "a backup does not pass $place, which the code has"
done < <(grep -ohE '(QEMU_STEP|QEMU_SENT|\bfailpoint)\("(hv|backup|commit|writer|qemu)\.[^"]*"' -r "$src/agent" "$src/store" --include='*.c' |
	sed 's/.*"\(.*\)"/\1/' | sort -u)

every=${1:-1}
for ((i = RANDOM % every; i < ${#places[@]}; i += every)); do
	place=${places[i]}
	guest_past "$t/vm" "$(guest_last "$t/vm")"
	rc=0
	LOCUM_FAILPOINT=$place:1:kill locum backup web01 >"$t/out" 2>&1 || rc=$?
	[ "$rc" = 137 ] || fail "$place: not killed there (status $rc): $(cat "$t/out")"
	guest_past "$t/vm" "$(guest_last "$t/vm")"
	locum backup web01 --json >"$t/out" || fail "$place: the next backup failed"
	grep -q '"full": false, "scanned_disks": 0' "$t/out" ||
		fail "$place: the next backup was not incremental: $(cat "$t/out")"
	rm -rf "$t/r"
	locum restore web01 --to "$t/r" --quiet || fail "$place: restore"
	"$GUEST_OUT/seqcheck" "$t"/r/web01-vd0.raw "$t"/r/web01-vd1.raw >"$t/seq" 2>&1 ||
		fail "$place: the point after it is wrong: $(cat "$t/seq")"
	unharmed "$t/vm"
	echo "$place: ok"
done
for id in $(point_ids web01); do
	locum verify "web01@$id" --quiet || fail "point $id does not verify"
done
! grep -a 'SEQ WRITE-ERROR' "$t/vm/serial" || fail "the guest saw an error"
! grep -a 'SEQ STALL' "$t/vm/serial" || fail "the guest stalled"
echo "killed at each $every. of ${#places[@]} places"
