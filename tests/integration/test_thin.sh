#!/bin/bash
# A host with little disk and no agent: `backup --to` keeps its store within spool_max, and a VM boots from a point of which
# the contents are only at the replica; where that can't be reached the error comes soon, and says what to do.
#
# The VM is off, so its image is written to by hand.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"

scenario_begin thin
# shellcheck source=tests/lib/thinhost.sh
. "$src/tests/lib/thinhost.sh"
for program in nbdkit nbdcopy qemu-io; do
	command -v $program >/dev/null || {
		echo "SKIP: no $program"
		exit 77
	}
done
nbdkit_pid=''
# shellcheck disable=SC2086
at_end() { kill -9 $replica_pid $nbdkit_pid 2>/dev/null; }
mib=$((1024 * 1024))
plugin=$bin/nbdkit-locum-plugin.so

kept() { # bytes of the log here
	cat "$t"/store/segments/* | wc -c
}

replica_kill() {
	kill -9 $replica_pid
	wait $replica_pid 2>/dev/null || true
}

serve() { # PARAMETER...: in the background, on $t/nbd
	rm -f "$t/nbd"
	nbdkit -f -U "$t/nbd" "$plugin" store="$t/store" vm=web01 key-dir="$t/keys" "$@" 2>"$t/nbdkit.log" &
	nbdkit_pid=$!
	for ((i = 0; i < 200; i++)); do
		[ ! -S "$t/nbd" ] || return 0
		sleep 0.05
	done
	fail "nbdkit does not listen: $(cat "$t/nbdkit.log")"
}

serve_end() {
	kill $nbdkit_pid
	wait $nbdkit_pid || fail "nbdkit ended with $?: $(cat "$t/nbdkit.log")"
	nbdkit_pid=''
}

thinhost_begin 96 70 0

# Cron: twice the budget goes through it.
locum backup web01 --to dr --verbose >"$t/out" || fail "the first backup"
grep -q ' that the replicas have were dropped here' "$t/out" || fail "nothing was dropped: $(cat "$t/out")"
for ((round = 1; round <= 3; round++)); do
	write 24 $((round * 13 + 8))
	[ -z "$(locum backup web01 --to dr 2>&1)" ] || fail "not silent under cron"
	[ "$(kept)" -le $((48 * mib)) ] || fail "the store holds $(kept) bytes after round $round"
done
locum store stats | has 'they are at replica dr' || fail "stats: $(locum store stats)"
echo "142 MiB went through 64: $(kept) bytes are here"

# What keeps contents from being dropped keeps no point from being made: another replica's file has a slip in it.
echo 'address = nowhere' >"$t/keys/far.replica"
write 1 60
locum backup web01 --to dr --json >"$t/out" 2>"$t/err" || fail "a backup beside a replica's file with a slip: $(cat "$t/err")"
grep -q '"outcome": "done"' "$t/out" || fail "no point beside a replica's file with a slip: $(cat "$t/out" "$t/err")"
grep -q 'the store stays as it is: .*far\.replica' "$t/err" || fail "it does not say what is wrong: $(cat "$t/err")"
rm "$t/keys/far.replica"

# Served and booted with what is there.
serve
nbdcopy "nbd+unix:///vda?socket=$t/nbd" "$t/copy" || fail "nbdcopy: $(cat "$t/nbdkit.log")"
cmp "$t/img" "$t/copy" || fail "another image was served"
rm "$t/copy"
serve_end
locum boot web01 --test >"$t/out" 2>&1 || fail "boot: $(cat "$t/out" "$t"/run/*/nbdkit.log)"
grep -q 'PASSED: it boots' "$t/out" || fail "boot: $(cat "$t/out")"

# Without the replica: soon, and with the next step.
replica_kill
before=$SECONDS
refused 1 'web01: not all of this point is here, .*replica dr.*connection refused.*boot it at the replica' locum boot web01 --test
[ $((SECONDS - before)) -le 12 ] || fail "it took $((SECONDS - before)) s to tell"
[ ! -e "$t/run/web01-test" ] || fail "the boot that failed left $(ls "$t/run/web01-test")"
serve
qemu-io -r -f raw -c 'read 0 512' "nbd+unix:///vda?socket=$t/nbd" >"$t/out" 2>&1 && ! grep -q 'failed' "$t/out" &&
	fail "it was read from nowhere: $(cat "$t/out")"
grep -q 'web01/vda.*replica dr.*connection refused' "$t/nbdkit.log" || fail "nbdkit does not say why: $(cat "$t/nbdkit.log")"
serve_end
# A guest waits for a while instead.
serve replica-patience=30s
qemu-io -r -f raw -c 'read -v 510 2' "nbd+unix:///vda?socket=$t/nbd" >"$t/out" 2>&1 &
reader=$!
sleep 1
replica_start
wait $reader || fail "a read with patience failed: $(cat "$t/out")"
grep -q '55 aa' "$t/out" || fail "a read with patience: $(cat "$t/out")"
serve_end
echo "booted by way of the replica; without it: told"

# The budget is spent while the replica is away: no points, until it is back.
replica_kill
for ((round = 1; round <= 8; round++)); do
	write 12 $((round * 9 % 80 + 1))
	rc=0
	locum backup web01 --to dr >"$t/out" 2>&1 || rc=$?
	[ $rc != 0 ] || fail "a replica that is away is not told"
	! grep -q 'no point is made' "$t/out" || break
done
grep -q "web01: no point is made: the store's spool_max is used up" "$t/out" || fail "the budget was never spent: $(kept) $(cat "$t/out")"
points=$(point_ids web01 | wc -l)
locum backup web01 --to dr >/dev/null 2>&1 && fail "it says that all is well"
[ "$(point_ids web01 | wc -l)" = "$points" ] || fail "a point was made beyond the budget"
replica_start
locum backup web01 --to dr >/dev/null 2>&1 || true # what waits is sent and dropped, before a point is made or after
[ -z "$(locum backup web01 --to dr 2>&1)" ] || fail "it does not go on"
[ "$(point_ids web01 | wc -l)" -gt "$points" ] || fail "no point was made with room for it"
at_replica verify web01 --quiet || fail "verify at the replica"
locum verify --all --quiet || fail "verify here"
echo "spent and gone on"
