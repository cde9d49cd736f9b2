#!/bin/bash
# Several VMs at one instant: the disks of both are of the same moment, and whatever happens to us in between,
# no VM stays stopped.
. "$(dirname "$0")/hv_lib.sh"

# Two machines; hv_lib knows one, so its names are set before each use.
A=$DIR/a B=$DIR/b
mkdir -m 700 "$A" "$B"
BASE=$DIR
both() { # FUNCTION ARGUMENT...
	DIR=$A "$@"
	DIR=$B "$@"
}
DIR=$A start top
DIR=$B start blockdev
DIR=$BASE
# Disks of both are reached in the same way.
group() { # ARGUMENT...
	{
		"$HV_CYCLE" --run "$RUN" --scratch "$SCRATCH" --qmp "$A/qmp" --qmp "$B/qmp" "$@"
	} >"$BASE/log" 2>&1
}
same() { # NAME
	local d
	for d in vd0 sd1; do
		cmp "$OUT/vm0-$d.raw" "$A/at-$1-$d" || fail "$1: $d of the first VM is not of the instant"
		cmp "$OUT/vm1-$d.raw" "$B/at-$1-$d" || fail "$1: $d of the second VM is not of the instant"
	done
}

both put vd0 11 0 64
both put sd1 12 64 64
both remember one
group prepare take=one sh="DIR=$A; $(DIR=$A poking vd0 99 0 64); $(DIR=$B poking sd1 99 64 64)" read="$OUT" valid \
	release end=commit || fail "group: $(cat "$BASE/log")"
DIR=$A put_truth vd0 99 0 64
DIR=$B put_truth sd1 99 64 64
same one
[ "$(grep -c '^pause vm[01] [1-9]' "$BASE/log")" = 2 ] || fail "pauses are not told: $(grep pause "$BASE/log")"
grep '^pause' "$BASE/log"
both clean "after the first"

both put vd0 21 128 64
both remember two
group prepare take=two,one read="$OUT" valid release end=commit || fail "group: $(cat "$BASE/log")"
same two
[ "$(grep -c '^source vm[01] .* superset' "$BASE/log")" = 4 ] || fail "second: not incremental"

# Killed, or hung, while both stand still.
for fault in hv.take.cut:1:kill hv.take.cut:2:kill hv.take.thaw-cpus:1:kill hv.take.thaw-cpus:2:kill \
	hv.take.freeze-cpus:2:kill hv.take.freeze-cpus:1:eio hv.take.cut:2:eio \
	hv.take.group-status:1:kill hv.take.group-status:2:kill hv.take.group-status:2:eio; do
	rm -f "$BASE/hits"
	LOCUM_FAILPOINT=$fault LOCUM_FAILPOINT_LOG=$BASE/hits group prepare take=bad,two read="$OUT" release end=commit &&
		fail "$fault: not noticed"
	grep -qx "${fault%%:*}" "$BASE/hits" || fail "$fault was not passed"
	both running "$fault"
	both put vd0 31 192 64
	both put sd1 32 256 64
	both remember three
	group prepare take=three,two read="$OUT" valid release end=rollback || fail "after $fault: $(cat "$BASE/log")"
	same three
	[ "$(grep -c '^source vm[01] .* superset' "$BASE/log")" = 4 ] || fail "after $fault: not incremental"
	both clean "after $fault"
done

# Stopped itself: the guard lets them go in time, and the take is no success.
LOCUM_FAILPOINT=hv.take.cut:2:stop group prepare take=hung,two &
for _ in $(seq 500); do
	[ "$(both qmp '{"execute":"query-status"}' | grep -c '"paused"')" -lt 2 ] || break
	sleep 0.01
done
both qmp '{"execute":"query-status"}' | grep -c '"paused"' | has -x 2 || fail "both should stand still"
began=$(date +%s%N)
for _ in $(seq 80); do
	both qmp '{"execute":"query-status"}' | has '"paused"' || break
	sleep 0.1
done
echo "let go after $((($(date +%s%N) - began) / 1000000)) ms more"
both running "the guard let them go"
pkill -CONT -P $! -x hv_cycle
wait $!
grep -q 'let go before the snapshot' "$BASE/log" || fail "a snapshot of different instants was not refused: $(cat "$BASE/log")"
both clean "after the guard"
verdict
