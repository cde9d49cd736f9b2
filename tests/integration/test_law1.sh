#!/bin/bash
# Law 1, true to one instant: test_law1.sh WAY [POINTS]
#
# A guest with a raw and a qcow2 disk writes increasing numbers to them alternately, random blocks beside, and churns a
# mounted ext4.  Points are taken at moments drawn from a logged seed.  Each is restored: no number missing, none torn, and
# the ext4 checks clean after its journal was replayed.  At the end every point still restores to the bytes it had when it was made.
#
# WAY: pause (a VM of somebody else's), drive (the same, -drive), push (the same, each disk on an IOThread), mixed (the same,
# one on an IOThread, so that QEMU is let go while it copies), reopen (started by locum).
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"

way=${1:-pause} points=${2:-30}
hands=$((points / 10 + 1)) # snapshots by hand
scenario_begin law1
mapfile -t disks < <("$src/tests/guest/mkdisks.sh" "$t/img")
append='seq.load=400 fs=vdb2 seq.disks=vda,vdb'
case $way in
pause | drive)
	scenario_vm web01 "qmp = $t/vm/qmp"
	guest_start "$t/vm" -s "${way/pause/blockdev}" -a "$append" "${disks[@]}"
	dir=$t/vm
	;;
push)
	scenario_vm web01 "qmp = $t/vm/qmp" "push_full = yes"
	guest_start "$t/vm" -i -a "$append" "${disks[@]}"
	dir=$t/vm
	;;
mixed)
	scenario_vm web01 "qmp = $t/vm/qmp" "push_full = yes"
	guest_start "$t/vm" -I -a "$append" "${disks[@]}"
	dir=$t/vm
	;;
reopen)
	scenario_vm web01 "memory = 128 MiB" "kernel = $GUEST_OUT/vmlinux" \
		"initrd = $GUEST_OUT/initrd.img" "append = $GUEST_APPEND $append" \
		"disk = vda raw ${disks[0]}" "disk = vdb qcow2 ${disks[1]}"
	locum vm start web01
	dir=$t/run/web01
	ln -sf serial.log "$dir/serial"
	pid=$(locum vm list --json | grep -o '"pid": *[0-9]*' | tr -dc 0-9)
	echo "$pid $(_guest_proc "$pid" | cut -d ' ' -f 2)" >"$t/reopen-pid"
	guest_alive() { [ "$(_guest_proc "$pid" | cut -d ' ' -f 2)" = "$(cut -d ' ' -f 2 "$t/reopen-pid")" ]; }
	guest_wait "$dir" '^SEQ start' 60
	;;
*) fail "unknown way $way" ;;
esac
guest_past "$dir" 0

# What the checker is worth: a snapshot made by hand, its disks one after the other, either while the CPUs stand still or not.
by_hand() { # stop|run
	local i
	local -a do=(guest_qmp "$dir")
	for i in 0 1; do
		truncate -s "$(qemu-img info -U --output=json "${disks[i]}" | sed -n 's/.*"virtual-size": \([0-9]*\).*/\1/p' | tail -n 1)" "$t/cow$i"
		"${do[@]}" "{\"execute\":\"blockdev-add\",\"arguments\":{\"driver\":\"file\",\"node-name\":\"s$i\",\"filename\":\"$t/cow$i\"}}"
		"${do[@]}" "{\"execute\":\"blockdev-add\",\"arguments\":{\"driver\":\"copy-before-write\",\"node-name\":\"c$i\",\"file\":\"disk$i\",\"target\":\"s$i\"}}"
	done
	[ "$1" = run ] || "${do[@]}" '{"execute":"stop"}'
	for i in 0 1; do
		"${do[@]}" "{\"execute\":\"qom-set\",\"arguments\":{\"path\":\"/machine/peripheral/vd$i\",\"property\":\"drive\",\"value\":\"c$i\"}}"
		[ "$1" = stop ] || guest_past "$dir" "$(guest_last "$dir")"
	done
	[ "$1" = run ] || "${do[@]}" '{"execute":"cont"}'
	"${do[@]}" "{\"execute\":\"nbd-server-start\",\"arguments\":{\"addr\":{\"type\":\"unix\",\"data\":{\"path\":\"$t/nbd\"}}}}"
	for i in 0 1; do
		"${do[@]}" "{\"execute\":\"blockdev-add\",\"arguments\":{\"driver\":\"snapshot-access\",\"node-name\":\"a$i\",\"file\":\"c$i\"}}"
		"${do[@]}" "{\"execute\":\"block-export-add\",\"arguments\":{\"type\":\"nbd\",\"id\":\"a$i\",\"node-name\":\"a$i\"}}"
	done
	for i in 0 1; do
		qemu-img convert -f raw -O raw "nbd+unix:///a$i?socket=$t/nbd" "$t/hand$i"
	done
	"${do[@]}" '{"execute":"nbd-server-stop"}'
	for i in 0 1; do
		"${do[@]}" "{\"execute\":\"blockdev-del\",\"arguments\":{\"node-name\":\"a$i\"}}"
		"${do[@]}" "{\"execute\":\"qom-set\",\"arguments\":{\"path\":\"/machine/peripheral/vd$i\",\"property\":\"drive\",\"value\":\"disk$i\"}}"
		"${do[@]}" "{\"execute\":\"blockdev-del\",\"arguments\":{\"node-name\":\"c$i\"}}"
		"${do[@]}" "{\"execute\":\"blockdev-del\",\"arguments\":{\"node-name\":\"s$i\"}}"
	done
	rm -f "$t"/cow?
}
# A confined QEMU opens nothing by hand.
if [ "$way" = pause ] && [ -z "${LOCUM_TEST_CONFINED:-}" ]; then
	for ((i = 0; i < hands; i++)); do
		by_hand stop >"$t/hand"
		! grep '"error"' "$t/hand" || fail "a snapshot by hand"
		"$GUEST_OUT/seqcheck" --strict "$t/hand0" "$t/hand1" >"$t/seq" 2>&1 || fail "the checker refuses a snapshot of one instant: $(cat "$t/seq")"
		by_hand run >"$t/hand"
		! grep '"error"' "$t/hand" || fail "a snapshot by hand"
		rc=0
		"$GUEST_OUT/seqcheck" "$t/hand0" "$t/hand1" >"$t/seq" 2>&1 || rc=$?
		[ "$rc" = 1 ] || fail "the checker takes a snapshot for atomic that is not (status $rc): $(cat "$t/seq")"
	done
	rm -f "$t"/hand*
	echo "$hands snapshots whose disks were cut one after the other: all caught; $hands of one instant: none"
fi

mkdir "$t/sums"
for ((i = 1; i <= points; i++)); do
	before=$(guest_last "$dir")
	locum backup web01 --json >"$t/out" || fail "backup $i: $(cat "$t/out")"
	[ "$i" = 1 ] || grep -q '"full": false, "scanned_disks": 0' "$t/out" || fail "point $i was not incremental: $(cat "$t/out")"
	# QEMU cuts disk after disk so fast that the judge below would rarely see that it had gone on meanwhile.
	[[ $way != pause && $way != drive && $way != mixed ]] || [ "$(figure pause_ms)" != 0.000 ] ||
		fail "point $i: the guest did not stand still while its disks were cut: $(cat "$t/out")"
	id=$(grep -o '"point": "[0-9a-f]*"' "$t/out" | grep -o '[0-9a-f]\{32\}')
	echo "$id" >>"$t/ids"
	locum restore "web01@$id" --to "$t/r" --quiet || fail "restore of point $i"
	images=("$t"/r/web01-v*.raw) # vd0, vda or virtio0
	[ ${#images[@]} = 2 ] || fail "point $i: $(ls "$t/r")"
	"$GUEST_OUT/seqcheck" --strict "${images[@]}" >"$t/seq" 2>&1 || fail "point $i is not of one instant: $(cat "$t/seq")"
	"$src/tests/guest/fscheck.sh" -f raw "${images[1]}" >"$t/fs" 2>&1 || fail "point $i: ext4: $(cat "$t/fs")"
	sha256sum "${images[@]}" >"$t/sums/$id"
	# What the checker is worth: the first disk of this point with the second of the one before.
	if [ "$i" -gt 1 ] && "$GUEST_OUT/seqcheck" "${images[0]}" "$t/before.raw" >/dev/null 2>&1; then
		fail "the checker takes disks of points $((i - 1)) and $i for one instant"
	fi
	mv "${images[1]}" "$t/before.raw"
	rm -rf "$t/r"
	guest_past "$dir" "${before:-0}"
	moment 300
done
locum verify web01 --quiet || fail "verify"
n=0
while read -r id; do
	locum restore "web01@$id" --to "$t/r" --quiet
	sha256sum --quiet -c "$t/sums/$id" || fail "point $id has other bytes now"
	rm -rf "$t/r"
	n=$((n + 1))
done <"$t/ids"
guest_alive "$dir" || fail "the guest died"
! grep -a 'SEQ WRITE-ERROR' "$dir/serial" || fail "the guest saw an error"
echo "$way: $n points of one instant each, all with the bytes they had"
