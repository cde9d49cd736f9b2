#!/bin/bash
# shellcheck disable=SC2034,SC2048,SC2086,SC2154
# Disks that QEMU copies itself, with a real QEMU: on IOThreads, where it dies of filters and exports, and by
# request.  Every copy is compared with what the disk held at the instant, zeroed and discarded ranges included.
#
#   test_hv_push.sh [ROUNDS [PART...]]
. "$(dirname "$0")/hv_lib.sh"

ROUNDS=${1:-5}
shift
NEWEST=
N=0
OPTIONS=(--push-full)

# A turn that must go well, with what kind of changes; what was written is in the truth.
turn() { # superset|unknown
	N=$((N + 1))
	remember "p$N"
	must "${OPTIONS[@]}" prepare take="p$N${NEWEST:+,$NEWEST}" read="$OUT" valid release end=commit
	follow "p$N" "$1"
	NEWEST=p$N
	alive || verdict
	clean "p$N"
	[ "$(bitmaps | wc -l)" = ${#IO[@]} ] || fail "p$N: records are not one for each disk: $(bitmaps)"
}

begin() { # MODE
	start "$1"
	NEWEST=
	N=0
}

# A turn that must fail at its take, with a message; the VM is as before.
refused() { # REGEX OPTION...
	local regex=$1
	shift
	cycle "$@" prepare take="no$N${NEWEST:+,$NEWEST}" && fail "not refused: $regex"
	grep -qE "^FAIL take.*: error .*$regex" "$DIR/log" || fail "want '$regex': $(cat "$DIR/log")"
	clean "refused: $regex"
}

change() { # NUMBER
	local at=$(($1 * 320 % 15000))
	put vd0 "$(printf %02x $(($1 % 250 + 1)))" $at 200
	put sd1 "$(printf %02x $(($1 % 250 + 1)))" $((15000 - at)) 70
	unmap vd0 $((at + 64)) 64
	unmap vd0 $((at + 256)) 512
	unmap sd1 $((14016 / 64 * 64 - at / 64 * 64 * 14 / 15 / 64 * 64)) 256 # no less than a cluster is unmapped
	put vd0 00 $((at + 900)) 64 # zeros that were written
}

part_cycles() {
	local mode i
	for mode in ${MODES:-iothread iothread-top mixed}; do
		begin $mode
		put vd0 11 0 16384
		put sd1 12 0 16384
		refused "disk vd0: there is no point of it and QEMU has to copy all of it, which takes up to [0-9]+ bytes of scratch in .*push_full = yes in \[vm vm0\]"
		turn unknown
		for ((i = 0; i < ROUNDS; i++)); do
			change $i
			turn superset
		done
		# Nothing changed: nothing is copied.
		turn superset
		[ "$(dirty vd0)" = 0 ] || fail "$mode: $(dirty vd0) KiB of vd0 are changed and not 0"
		# Rolled back: the changes count for the next one.
		change 7
		must prepare take=bad,$NEWEST read="$OUT" valid release end=rollback
		change 8
		turn superset
		# Everything is lost: it has to be allowed again.
		must prepare take=bad,$NEWEST release end=lost
		OPTIONS=()
		refused "disk vd0: what changed is not known and QEMU has to copy all of it"
		OPTIONS=(--push-full)
		turn unknown
		must prepare disks
		grep -qE "^vm vm0 way $([ $mode = mixed ] && echo pause || echo push) " "$DIR/log" || fail "$mode: $(cat "$DIR/log")"
		stop
	done
}

# What was cut off is zero now, and nothing in QEMU tells of it; the end is written to again, as a partition table is.
smaller() { # NODE:DISK KIB
	local node=${1%:*} disk=${1#*:} size
	for size in $((SIZE - $2 * 1024)) $SIZE; do
		qmp "{\"execute\":\"block_resize\",\"arguments\":{\"node-name\":\"$node\",\"size\":$size}}" | has '"error"' && fail "resize"
	done
	put_truth "$disk" 00 $((16384 - $2)) "$2"
	put "$disk" 13 $((16384 - 64)) 64
	OPTIONS=()
	refused "disk $disk: what changed is not known and QEMU has to copy all of it"
	OPTIONS=(--push-full)
	remember "s$node$2"
	must --push-full prepare take="s$node$2,$NEWEST" read="$OUT" valid release end=commit
	grep -q "source vm0 $disk unknown: the disk was made smaller and larger" "$DIR/log" || fail "not noticed: $(cat "$DIR/log")"
	follow "s$node$2"
	NEWEST=s$node$2
	clean "smaller"
	change 2
	turn superset
}

part_smaller() {
	begin iothread
	put vd0 11 0 16384
	put sd1 12 0 16384
	# Killed while the mark is made, which is not looked after: the next run does.
	LOCUM_FAILPOINT=hv.take.whole-ask:1:kill cycle --push-full prepare take=dead
	alive || verdict
	turn unknown
	change 1
	turn superset
	smaller n0:vd0 64
	smaller n1:sd1 8192
	if [ "$ROUNDS" -ge 50 ]; then
		smaller n0:vd0 8192
		smaller n1:sd1 64
		smaller n1:sd1 64
	fi
	# Rolled back after it was noticed: it still counts.
	put sd1 14 8192 64
	qmp "{\"execute\":\"block_resize\",\"arguments\":{\"node-name\":\"n0\",\"size\":$((SIZE / 2))}}" >/dev/null
	qmp "{\"execute\":\"block_resize\",\"arguments\":{\"node-name\":\"n0\",\"size\":$SIZE}}" >/dev/null
	put_truth vd0 00 8192 8192
	must --push-full prepare take=bad,$NEWEST read="$OUT" valid release end=rollback
	N=$((N + 1))
	remember "p$N"
	must --push-full prepare take="p$N,$NEWEST" read="$OUT" valid release end=commit
	grep -q "source vm0 vd0 unknown" "$DIR/log" || fail "forgotten: $(cat "$DIR/log")"
	follow "p$N"
	NEWEST=p$N
	turn superset
	# Larger for good is another size.
	qmp "{\"execute\":\"block_resize\",\"arguments\":{\"node-name\":\"n0\",\"size\":$((SIZE + 65536))}}" >/dev/null
	truncate -s $((SIZE + 65536)) "$DIR/truth-vd0"
	remember larger
	must --push-full prepare take="larger,$NEWEST" read="$OUT" valid release end=commit
	follow larger
	NEWEST=larger
	change 3
	turn superset
	stop
}

# All disks of a VM that asks for it; an NBD server of somebody else is no obstacle.
part_by_job() {
	local i
	OPTIONS=(--push-full --by-job)
	begin blockdev
	qmp "{\"execute\":\"nbd-server-start\",\"arguments\":{\"addr\":{\"type\":\"unix\",\"data\":{\"path\":\"$DIR/other.nbd\"}}}}" >/dev/null
	put vd0 11 0 4096
	turn unknown
	for ((i = 0; i < 2; i++)); do
		change $i
		turn superset
	done
	stop
	OPTIONS=(--push-full)
}

# All that a copy can come to is reserved before it begins, and where that is impossible nothing begins.
part_no_room() {
	mkdir -p "$DIR/small"
	mount -t tmpfs -o size=24m none "$DIR/small" 2>/dev/null || {
		echo "no mount(2) here: a small scratch is not tested"
		return
	}
	begin iothread
	put vd0 11 0 16384
	SCRATCH=$DIR/small
	refused "scratch in .*: [0-9]+ bytes for disk .*No space left" --push-full
	umount "$DIR/small"
	SCRATCH=$DIR/scratch
	refused "which takes up to [0-9]+ bytes of scratch, and scratch_max is 1000000" --push-full --scratch-max 1000000
	turn unknown
	stop
}

# While QEMU copies: somebody ends the job, a migration begins, the scratch is more than was thought.
part_meanwhile() {
	local pid rc command
	begin iothread
	put vd0 11 0 4096
	turn unknown
	change 1
	LOCUM_FAILPOINT=hv.take.copied:1:stop cycle prepare take=bad,$NEWEST release end=rollback &
	pid=$!
	wait_stopped
	all_copied
	go_on
	wait $pid || fail "jobs that wait: $(cat "$DIR/log")"
	clean "jobs that wait"
	change 2
	LOCUM_FAILPOINT=hv.take.copy-wait:1:stop cycle prepare take=bad,$NEWEST &
	pid=$!
	wait_stopped
	all_copied
	for command in finalize dismiss; do
		qmp "{\"execute\":\"job-$command\",\"arguments\":{\"id\":\"locum.00c0ffee.p0\"}}" >/dev/null
	done
	go_on
	wait $pid && fail "a job that somebody dismissed was taken for done"
	grep -q 'somebody ended' "$DIR/log" || fail "dismissed: $(cat "$DIR/log")"
	clean "dismissed"
	turn superset
	# More changes between the look and the instant than are reserved for: reserved then.
	change 3
	LOCUM_FAILPOINT=hv.take.copy-room:1:eio cycle prepare take=bad,$NEWEST
	grep -q 'FAIL take' "$DIR/log" || fail "no room for more: $(cat "$DIR/log")"
	clean "no room for more"
	turn superset
	stop
}

wait_stopped() {
	local i
	CYCLE=
	for ((i = 0; i < 200; i++)); do
		CYCLE=$(pgrep -f "^$HV_CYCLE.*--qmp $DIR/qmp " | sed -n 1p)
		[ -n "$CYCLE" ] && grep -q '^State:.*T' "/proc/$CYCLE/status" 2>/dev/null && return
		sleep 0.05
	done
	fail "it did not stop"
}

# However long ago a job copied all, it does not take its filter out by itself.
all_copied() {
	local i
	for ((i = 0; i < 200; i++)); do
		[ "$(qmp '{"execute":"query-jobs"}' | jq -c '[.return[].status]')" != '["pending","pending"]' ] || return 0
		sleep 0.05
	done
	fail "jobs that copied all: $(qmp '{"execute":"query-jobs"}')"
}

go_on() {
	kill -CONT "$CYCLE"
}

# Killed at every step of a turn, by the names in the sources (of few rounds, where it hurts most): nothing stays, and the next turn is incremental.
part_killed() {
	local name hit how rc names
	[ "$ROUNDS" -lt 50 ] && names=$(echo hv.take.{images,filters,cut-sent,copy-look,copy-wait,copied,verify} hv.valid.look hv.release.nodes)
	[ "$ROUNDS" -lt 50 ] || names=$(cd "$(dirname "$0")/../../agent/hypervisor" && grep -ohE 'QEMU_(STEP|SENT)\("hv\.(take|valid|release|end)\.[^"]*"' qemu*.c | sed 's/.*"\(.*\)"/\1/')
	begin "${1:-iothread}"
	put vd0 11 0 8192
	turn unknown
	for name in $names; do
		hit=1 how=commit
		case $name in
		hv.*.freeze-cpus | hv.*.thaw-cpus | hv.take.group-status | hv.end.forget*) continue ;;
		hv.release.*-sent) continue ;; # there is no filter
		hv.release.*) hit=2 ;;
		hv.end.roll*) how=rollback ;;
		esac
		change $((N + 3))
		remember dead
		LOCUM_FAILPOINT=$name:$hit:kill cycle prepare take=dead,$NEWEST read="$OUT" valid release end=$how
		rc=$?
		[ $rc = 137 ] || fail "not killed at $name: $rc $(cat "$DIR/log")"
		given_back "killed at $name"
		alive || verdict
		# The store commits between release and end.
		if grep -q '^ok release' "$DIR/log" && [ $how = commit ]; then
			follow dead superset
			NEWEST=dead
			change $((N + 40))
			turn superset
			continue
		fi
		turn superset
	done
	echo "killed at $N places"
	stop
}

parts=$(declare -F | sed -n 's/^declare -f part_//p')
for part in ${*:-$parts}; do
	began=$(date +%s%N)
	"part_$part"
	echo "$part: $((($(date +%s%N) - began) / 1000000)) ms"
done
verdict
