#!/bin/bash
# Several VMs at once: all right; interrupted in the middle; one failing among others; and a first pass that has to be made in
# several because a writing guest uses up a small scratch.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin parallel
sed -i '/^scratch_dir/a jobs = 3' "$LOCUM_CONFIG"

for i in 1 2 3 4; do
	"$src/tests/guest/mkdisks.sh" "$t/img$i" --size 64 --fs-size 0 >/dev/null
	scenario_vm web0$i "qmp = $t/vm$i/qmp"
	guest_start "$t/vm$i" -m 96 -w '' -a 'seq.load=100 seq.delay_us=2000' "$t/img$i/disk0.raw" "$t/img$i/disk1.qcow2"
done
for i in 1 2 3 4; do
	guest_wait "$t/vm$i" '^SEQ start' 120 >/dev/null
	guest_past "$t/vm$i" 0
done

all() { # WHAT: each VM's part of the last --json
	[ "$(grep -c "$1" "$t/out")" = 4 ] || fail "not four of '$1': $(cat "$t/out")"
}

right() { # the newest points of all VMs are each of one instant
	local i
	for i in 1 2 3 4; do
		rm -rf "$t/r"
		locum restore web0$i --to "$t/r" --quiet || fail "restore of web0$i"
		"$GUEST_OUT/seqcheck" "$t"/r/web0$i-vd0.raw "$t"/r/web0$i-vd1.raw >"$t/seq" 2>&1 ||
			fail "the point of web0$i is wrong: $(cat "$t/seq")"
	done
	rm -rf "$t/r"
}

locum backup --all --json >"$t/out" 2>"$t/err" || fail "first: $(cat "$t/err")"
all '"full": true'
right
[ -z "$(locum backup --all 2>&1)" ] || fail "not silent without a terminal"
echo "four at once: $(grep -o '"seconds": [0-9.]*' "$t/out" | tr -dc '0-9.\n' | paste -sd ' ') s"

# Interrupted or ended in the middle, at any moment: status 1 or 3, nothing is left, the next run is incremental.
signals=(INT TERM)
for round in 1 2 3 4; do
	signal=${signals[round % 2]}
	for i in 1 2 3 4; do
		guest_cmd "$t/vm$i" write 0 6M 4M $((round * 10 + i)) >/dev/null
	done
	rc=0
	"$bin/locum" backup --all --json >"$t/out" 2>"$t/err" &
	pid=$!
	moment 300
	kill -s "$signal" "$pid" || true
	[ $((round / 2 % 2)) = 0 ] || kill -s "$signal" "$pid" 2>/dev/null || true
	wait "$pid" || rc=$?
	case $rc in
	0) echo "round $round: was over before" ;;
	130 | 143) echo "round $round: ended before it had begun" ;;
	1 | 3)
		grep -q 'interrupted' "$t/err" || fail "round $round: $(cat "$t/err")"
		[ "$(grep -o '"vm":' "$t/out" | wc -l)" = 4 ] ||
			fail "round $round: not every VM is told of: $(cat "$t/out")"
		echo "round $round: status $rc, $(grep -c '"done"' "$t/out" || true) done"
		;;
	*) fail "round $round: status $rc: $(cat "$t/err")" ;;
	esac
	for i in 1 2 3 4; do unharmed "$t/vm$i"; done
	locum backup --all --json >"$t/out" 2>"$t/err" || fail "round $round, next: $(cat "$t/err")"
	all '"full": false, "scanned_disks": 0'
done
right

# One of them fails.
guest_kill "$t/vm2"
mv "$t/img2" "$t/gone"
rc=0
locum backup --all --json >"$t/out" 2>"$t/err" || rc=$?
[ "$rc" = 3 ] || fail "status $rc and not 3: $(cat "$t/err")"
[ "$(grep -c '"done"' "$t/out")" = 3 ] || fail "the others were not backed up: $(cat "$t/out")"
grep -q 'web02: .*img2/disk0.raw' "$t/err" || fail "which and why: $(cat "$t/err")"
refused 1 'web02: .*img2/disk0.raw' locum backup web02
echo "one of four fails: status 3"
for i in 1 3 4; do guest_kill "$t/vm$i"; done

# Seeding under a tiny scratch, with a guest that writes all over its disks.
"$src/tests/guest/mkdisks.sh" "$t/img5" --size 300 --fs-size 0 >/dev/null
guest_start "$t/vm5" -a 'seq.load=600' "$t/img5/disk0.raw" "$t/img5/disk1.qcow2" >/dev/null
guest_cmd "$t/vm5" write 0 64M 120M 5 >/dev/null
guest_cmd "$t/vm5" write 1 64M 120M 6 >/dev/null
sed -i '/^scratch_dir/a scratch_max = 12 MiB' "$LOCUM_CONFIG"
sed -i '/^scratch_dir/a workers = 1' "$LOCUM_CONFIG"
sed -i '/^scratch_dir/a level = 12' "$LOCUM_CONFIG"
scenario_vm web05 "qmp = $t/vm5/qmp"
for ((k = 0; k < 6; k++)); do
	rc=0
	# While the first one stands still the guest uses up more than the half of the scratch after which a pass ends.
	rule=
	[ "$k" != 0 ] || rule=backup.taken:1:stop
	LOCUM_FAILPOINT=$rule "$bin/locum" backup web05 --json >"$t/out" 2>"$t/err" &
	pid=$!
	if [ -n "$rule" ]; then
		stopped "$pid"
		guest_cmd "$t/vm5" write 0 64M 8M 7 >/dev/null
		kill -CONT "$pid"
	fi
	wait "$pid" || rc=$?
	[ "$rc" != 0 ] || break
	grep -q 'web05: ' "$t/err" || fail "seeding: $(cat "$t/err")"
	[ -z "$(point_ids web05 2>/dev/null || true)" ] || fail "a pass that did not complete is listed"
	sed 's/^.*error: /  /' "$t/err"
done
[ "$rc" = 0 ] || fail "does not converge: $(cat "$t/err")"
[ "$(figure passes)" -gt 1 ] || [ "$k" -gt 0 ] || fail "one pass was enough, this tests nothing: $(cat "$t/out")"
locum restore web05 --to "$t/r" --quiet || fail "restore of web05"
"$GUEST_OUT/seqcheck" --no-load "$t"/r/web05-vd0.raw "$t"/r/web05-vd1.raw || fail "the point made in $(figure passes) passes is wrong"
unharmed "$t/vm5"
echo "seeding with 12 MiB of scratch: $((k + 1)) run(s), the last of $(figure passes) passes, $(figure seconds) s"
sed -i '/^scratch_max/d' "$LOCUM_CONFIG"
backup web05 incremental
locum verify --all --quiet || fail "verify"
