#!/bin/bash
# shellcheck disable=SC2015,SC2016,SC2034,SC2086
# The hypervisor core with a real QEMU: snapshots of the instant, records of changes, and everything that
# others may do in between.  An argument names the one part to run.
. "$(dirname "$0")/hv_lib.sh"

NEWEST=

# A turn that must go well: incremental, or not for a reason that matches.
turn() { # NAME [REGEX of the reason why changes are unknown [DISK, else all]]
	local d kind
	remember "$1"
	must prepare take="$1${NEWEST:+,$NEWEST}" read="$OUT" valid release end=commit
	follow "$1"
	for d in "${!IO[@]}"; do
		kind=$(sed -n "s/^source vm0 $d //p" "$DIR/log")
		if [ -n "${2:-}" ] && { [ -z "${3:-}" ] || [ "$3" = "$d" ]; }; then
			[[ "$kind" =~ unknown:.*$2 ]] || fail "$1: changes of $d are '$kind', want: unknown, $2"
		elif [ "$kind" != superset ]; then
			fail "$1: changes of $d are '$kind', want superset"
		fi
	done
	NEWEST=$1
	clean "$1"
	bitmaps | awk '{print $1}' | uniq -d | grep . && fail "$1: more than one bitmap on a node: $(bitmaps)"
}

# A turn that must fail at a command with a message; the VM is as before.
refused() { # COMMAND REGEX ARGUMENT...
	local what=$1 regex=$2
	shift 2
	cycle "$@" && fail "$what was not refused"
	grep -qE "^FAIL $what.*: error .*$regex" "$DIR/log" || fail "$what: want '$regex': $(cat "$DIR/log")"
}

first() {
	put vd0 11 0 256
	put sd1 12 64 128
	NEWEST=
	turn one "no point before"
}

node_of() { # DISK
	qmp '{"execute":"query-named-block-nodes","arguments":{"flat":true}}' |
		jq -r '.return[] | select((."dirty-bitmaps" // []) | any(.name | startswith("locum."))) | ."node-name"' |
		sed -n "$([ "$1" = vd0 ] && echo '/vd0\|^n0/p' || echo '/sd1\|^n1/p')"
}

bitmap_of() { # NODE
	qmp '{"execute":"query-named-block-nodes","arguments":{"flat":true}}' |
		jq -r --arg n "$1" '.return[] | select(."node-name" == $n) | ."dirty-bitmaps"[].name' | grep '^locum\.'
}

part_ways() {
	local mode
	for mode in top blockdev drive; do
		start $mode
		first
		put vd0 21 128 64
		put sd1 22 1024 64
		turn two
		[ "$(dirty vd0)" = 64 ] || fail "$mode: $(dirty vd0) KiB of vd0 are changed and not 64"
		# What is written while the snapshot lives is in the next one.
		put vd0 23 8192 64
		remember three
		must prepare take=three,two sh="$(poking vd0 33 0 512); $(poking sd1 34 1024 32)" read="$OUT" valid release \
			end=commit
		put_truth vd0 33 0 512
		put_truth sd1 34 1024 32
		follow three superset
		NEWEST=three
		turn four
		[ "$(dirty vd0)" = 512 ] || fail "$mode: $(dirty vd0) KiB of vd0 are changed and not 512"
		# Roll back twice: the changes go on being recorded under the last good point.
		put vd0 41 4096 64
		must prepare take=bad1,four read="$OUT" release end=rollback
		put sd1 42 4096 64
		must prepare take=bad2,four read="$OUT" release end=rollback
		put vd0 43 6144 64
		turn five
		[ "$(dirty vd0)" = 128 ] || fail "$mode: after rolling back $(dirty vd0) KiB of vd0 are changed and not 128"
		# All is lost: nothing of ours remains.
		must prepare take=six,five release end=lost
		[ -z "$(bitmaps)" ] || fail "$mode: bitmaps left: $(bitmaps)"
		turn seven "no record of changes"
		# A disk left out.
		must prepare exclude=sd1 take=eight,seven read="$OUT" valid release end=commit
		grep -q '^source vm0 sd1' "$DIR/log" && fail "$mode: an excluded disk was taken"
		NEWEST=eight
		turn nine "no record of changes" sd1
		stop
	done
}

# Two stores protect one VM; each has records of its own.
part_two_stores() {
	local other=(--tag 1111111111111111)
	start blockdev
	first
	put vd0 21 128 64
	remember b1
	must "${other[@]}" prepare take=b1 read="$OUT" valid release end=commit
	[ "$(bitmaps | wc -l)" = 4 ] || fail "each store should have a record for each disk: $(bitmaps)"
	put vd0 22 256 64
	remember a2
	must prepare take=a2,one read="$OUT" valid release end=commit
	follow a2 superset
	[ "$(dirty vd0)" = 128 ] || fail "first store: $(dirty vd0) KiB"
	put vd0 23 384 64
	remember b2
	must "${other[@]}" prepare take=b2,b1 read="$OUT" valid release end=commit
	cmp "$OUT/vm0-vd0.raw" "$DIR/at-b2-vd0" || fail "second store: not of the instant"
	[ "$(dirty vd0)" = 128 ] || fail "second store: $(dirty vd0) KiB"
	# What the other one left behind goes by itself ...
	LOCUM_FAILPOINT=hv.take.verify:1:kill cycle "${other[@]}" prepare take=b3,b2
	given_back "the other store died"
	must prepare take=a3,a2 valid release end=rollback
	# ... or, where all of it died at once, is its own to remove; it is named.
	LOCUM_FAILPOINT=hv.guard.act:1:kill,hv.take.verify:1:kill cycle "${other[@]}" prepare take=b3,b2
	refused take "another Locum store" prepare take=a3,a2
	must "${other[@]}" prepare
	clean "after the other store"
	put vd0 24 512 64
	remember a4
	must prepare take=a4,a2 read="$OUT" valid release end=commit
	follow a4 superset
	stop
}

# Sizes that are no multiple of anything, and a flash of firmware variables.
part_sizes() {
	local flash=$DIR/flash
	mkdir "$flash"
	truncate -s 131072 "$flash/code.fd" "$flash/vars.fd"
	truncate -s 1049088 "$flash/odd.raw"
	truncate -s 70001 "$flash/tiny.raw"
	start blockdev -blockdev "driver=raw,node-name=code,read-only=on,file.driver=file,file.filename=$flash/code.fd" \
		-blockdev "driver=raw,node-name=vars,file.driver=file,file.filename=$flash/vars.fd" \
		-machine pflash0=code,pflash1=vars \
		-blockdev "driver=raw,node-name=odd,file.driver=file,file.filename=$flash/odd.raw" \
		-device virtio-blk-pci,id=odd,drive=odd \
		-blockdev "driver=raw,node-name=tiny,file.driver=file,file.filename=$flash/tiny.raw" \
		-device virtio-blk-pci,id=tiny,drive=tiny
	must prepare disks
	grep '^disk' "$DIR/log" | cut -d ' ' -f 1-8
	grep -q '^disk vm0 nvram size 131072 role 1 capturable' "$DIR/log" || fail "flash: $(cat "$DIR/log")"
	IO["odd"]="-d /machine/peripheral/odd/virtio-backend"
	IO["tiny"]="-d /machine/peripheral/tiny/virtio-backend"
	truncate -s 1049088 "$DIR/truth-odd"
	truncate -s 70144 "$DIR/truth-tiny"
	first
	put odd 31 960 64
	put tiny 32 0 68
	truncate -s 1049088 "$DIR/truth-odd"
	truncate -s 70144 "$DIR/truth-tiny"
	turn two
	stop
}

part_paused() {
	start blockdev
	first
	qmp '{"execute":"stop"}' >/dev/null
	put vd0 21 128 64
	remember two
	must prepare take=two,one read="$OUT" valid release end=commit
	follow two superset
	qmp '{"execute":"query-status"}' | has '"paused"' || fail "a VM that was paused was let go"
	stop
}

# hv_cycle stands still at a failpoint; the operator acts; it goes on.  Sets rc.
meanwhile() { # FAILPOINT COMMAND OF THE OPERATOR... -- ARGUMENT...
	local place=$1 commands=() command pid n
	shift
	while [ "$1" != -- ]; do
		commands+=("$1")
		shift
	done
	shift
	LOCUM_FAILPOINT=$place:1:stop "$HV_CYCLE" --run "$RUN" --scratch "$SCRATCH" --qmp "$DIR/qmp" "$@" >"$DIR/log" 2>&1 &
	pid=$!
	for ((n = 0; n < 200; n++)); do
		[ "$(sed 's/.*) //' "/proc/$pid/stat" | cut -c 1)" != T ] || break
		sleep 0.02
	done
	[ "$n" -lt 200 ] || fail "$place was not reached: $(cat "$DIR/log")"
	for command in "${commands[@]}"; do
		[ "${command:0:1}" = "{" ] || command="{\"execute\":\"$command\"}"
		qmp "$command" | has '"return"' || fail "$place: $command"
	done
	kill -CONT "$pid"
	rc=0
	wait "$pid" || rc=$?
}

status_is() { # STATUS WHERE
	qmp '{"execute":"query-status"}' | has "\"status\": *\"$1\"" ||
		fail "$2: the VM should be $1: $(qmp '{"execute":"query-status"}')"
}

# The VM belongs to its operator, who may stop it and let it go at any moment of a take: what he did last is what it does
# after, and a snapshot during which the CPUs ran is none.
part_operator() {
	local place
	start blockdev
	first
	for place in hv.take.sync hv.take.cut; do
		put vd0 21 128 64
		remember two
		meanwhile $place stop -- prepare take=two,one read="$OUT" valid release end=rollback
		[ "$rc" = 0 ] || fail "stopped at $place: $(cat "$DIR/log")"
		follow two superset
		status_is paused "stopped at $place"
		# ... and now he lets it go.
		meanwhile $place cont -- prepare take=two,one
		[ "$rc" != 0 ] || [ "$place" != hv.take.cut ] ||
			fail "let go at $place: the disks were cut one by one while the CPUs ran: $(cat "$DIR/log")"
		[ "$place" != hv.take.cut ] || grep -q 'FAIL take.*was let go' "$DIR/log" || fail "let go at $place: $(cat "$DIR/log")"
		must prepare
		clean "let go at $place"
	done
	# A take that failed does not let go what it did not stop.
	meanwhile hv.take.access:1:eio,hv.undo.resume stop -- prepare take=two,one
	[ "$rc" != 0 ] || fail "a take that must fail went well"
	status_is paused "stopped while a take was undone"
	stop

	# Whatever state it is in: it is captured, and stays in it.
	start blockdev -device pvpanic -action panic=pause
	first
	hmp "o /b 0x505 1" >/dev/null
	put vd0 21 128 64
	STATE=guest-panicked turn two
	stop
	start blockdev -S
	STATE=prelaunch first
	put vd0 21 128 64
	STATE=prelaunch turn two
	stop
}

# QEMU closes no descriptor that it was given while the VM does not run.  Those of many backups must not use up what it has,
# and they go as soon as it runs again.
part_stopped_for_long() {
	local n
	start blockdev -S
	STATE=prelaunch first
	for ((n = 0; n < 80; n++)); do
		cycle prepare take=x,one release end=rollback || break
	done
	grep -q 'FAIL take.*descriptors of earlier snapshots' "$DIR/log" || fail "after $n backups of a VM that stands still: $(cat "$DIR/log")"
	n=$(find /proc/$VM/fd -lname "$SCRATCH/*" | wc -l)
	[ "$n" -le 130 ] || fail "QEMU holds $n descriptors of ours"
	qmp '{"execute":"cont"}' >/dev/null
	put vd0 31 0 4096
	turn two
	n=$(find /proc/$VM/fd -lname "$SCRATCH/*" | wc -l)
	[ "$n" = 0 ] || fail "QEMU still holds $n descriptors of ours"
	stop
}

part_unknown() {
	local node name
	start blockdev
	first
	put vd0 21 128 64
	node=$(node_of vd0)
	name=$(bitmap_of "$node")
	qmp "{\"execute\":\"block-dirty-bitmap-remove\",\"arguments\":{\"node\":\"$node\",\"name\":\"$name\"}}" >/dev/null
	put vd0 22 256 64
	turn removed "was removed" vd0

	put vd0 23 384 64
	name=$(bitmap_of "$node")
	qmp "{\"execute\":\"block-dirty-bitmap-disable\",\"arguments\":{\"node\":\"$node\",\"name\":\"$name\"}}" >/dev/null
	put vd0 24 512 64
	remember stopped
	# It fails after its own bitmap was added; the hole must not be forgotten by that.
	cycle prepare take=x1,$NEWEST release end=rollback
	turn stopped "stopped by somebody" vd0

	put vd0 25 640 64
	name=$(bitmap_of "$node")
	qmp "{\"execute\":\"block-dirty-bitmap-remove\",\"arguments\":{\"node\":\"$node\",\"name\":\"$name\"}}" >/dev/null
	qmp "{\"execute\":\"block-dirty-bitmap-add\",\"arguments\":{\"node\":\"$node\",\"name\":\"$name\",\"granularity\":32768}}" >/dev/null
	put vd0 26 768 64
	turn granularity "another granularity" vd0

	put sd1 27 896 64
	node=$(node_of sd1)
	name=$(bitmap_of "$node")
	qmp "{\"execute\":\"block-dirty-bitmap-remove\",\"arguments\":{\"node\":\"$node\",\"name\":\"$name\"}}" >/dev/null
	qmp "{\"execute\":\"block-dirty-bitmap-add\",\"arguments\":{\"node\":\"$node\",\"name\":\"$name\",\"persistent\":true}}" >/dev/null
	put sd1 28 1024 64
	turn persistent "stored in the image" sd1

	# Another store's bitmaps are its own.
	qmp "{\"execute\":\"block-dirty-bitmap-add\",\"arguments\":{\"node\":\"$node\",\"name\":\"locum.11111111.00000000000000000000000000000000.1000000.0.0\"}}" >/dev/null
	put sd1 29 1152 64
	remember other
	must prepare take=other,$NEWEST read="$OUT" valid release end=commit
	follow other superset
	NEWEST=other
	bitmap_of "$node" | has '^locum\.11111111\.' || fail "a bitmap of another store was removed"
	qmp "{\"execute\":\"block-dirty-bitmap-remove\",\"arguments\":{\"node\":\"$node\",\"name\":\"locum.11111111.00000000000000000000000000000000.1000000.0.0\"}}" >/dev/null

	# The VM was restarted after a crash: a persistent bitmap of ours is inconsistent, others are gone.
	name=$(bitmap_of "$node")
	qmp "{\"execute\":\"block-dirty-bitmap-remove\",\"arguments\":{\"node\":\"$node\",\"name\":\"$name\"}}" >/dev/null
	qmp "{\"execute\":\"block-dirty-bitmap-add\",\"arguments\":{\"node\":\"$node\",\"name\":\"$name\",\"persistent\":true}}" >/dev/null
	stop
	again blockdev
	put sd1 2a 1280 64
	turn restarted "restarted|not closed cleanly"
	put sd1 2b 1408 64
	turn after
	stop
}

# Start the machine once more on the same disks.
again() { # MODE
	mkdir "$DIR/keep"
	mv "$DIR"/*.raw "$DIR"/*.qcow2 "$DIR"/truth-* "$DIR"/copy-* "$DIR/keep"
	KEEP=$DIR/keep start "$@"
}

# For sh=: an external snapshot by an admin.
external() { # NODE OVERLAY
	echo "$SOCKLINE --qmp $DIR/qmp2 '{\"execute\":\"blockdev-snapshot-sync\",\"arguments\":{\"node-name\":\"$1\"," \
		"\"snapshot-file\":\"$DIR/$2.qcow2\",\"snapshot-node-name\":\"$2\",\"format\":\"qcow2\"}}' >/dev/null"
}

part_external_snapshot() {
	start blockdev
	first
	put vd0 21 128 64
	qmp "{\"execute\":\"blockdev-snapshot-sync\",\"arguments\":{\"node-name\":\"n0\",\"snapshot-file\":\"$DIR/ov.qcow2\",\"snapshot-node-name\":\"ov0\",\"format\":\"qcow2\"}}" >/dev/null
	put vd0 22 256 64
	turn two "not under the disk any more" vd0
	put vd0 23 384 64
	turn three
	# The same behind our permanent node, where the device sees nothing of it.
	stop
	start top
	first
	put vd0 21 128 64
	qmp "{\"execute\":\"blockdev-snapshot-sync\",\"arguments\":{\"node-name\":\"locum-img-vd0\",\"snapshot-file\":\"$DIR/ov.qcow2\",\"snapshot-node-name\":\"ov0\",\"format\":\"qcow2\"}}" >/dev/null
	put vd0 22 256 64
	turn two "not under the disk any more" vd0
	put vd0 23 384 64
	turn three
	stop
	# While the snapshot lives: what was read until then may be of the instant or not.
	start blockdev
	first
	refused valid "another tool" prepare take=two,one \
		sh="$SOCKLINE --qmp $DIR/qmp2 '{\"execute\":\"blockdev-snapshot-sync\",\"arguments\":{\"node-name\":\"locum.00c0ffee.c0\",\"snapshot-file\":\"$DIR/ov2.qcow2\",\"snapshot-node-name\":\"ov2\",\"format\":\"qcow2\"}}' >/dev/null" \
		valid
	# An overlay lies on our filter now; nothing may break, and it must be said.
	cycle prepare && fail "an overlay over our filter went unnoticed"
	grep -q "FAIL prepare.*used as backing hd of 'ov2'" "$DIR/log" || fail "an overlay over our filter: $(cat "$DIR/log")"
	running "overlay on our filter"
	put vd0 24 512 64
	# Once the admin has merged it, all is as before.
	qmp '{"execute":"block-commit","arguments":{"job-id":"j","device":"ov2","base-node":"locum.00c0ffee.c0"}}' >/dev/null
	for _ in $(seq 50); do
		qmp '{"execute":"query-block-jobs"}' | has '"status": "ready"' && break
		sleep 0.1
	done
	qmp '{"execute":"block-job-complete","arguments":{"device":"j"}}' >/dev/null
	for _ in $(seq 50); do
		qmp '{"execute":"query-block-jobs"}' | has '"return": \[\]' && break
		sleep 0.1
	done
	alive || verdict
	put vd0 25 640 64
	turn after
	stop
}

# We die, at every place where a snapshot is half there, and while it lives.  What takes it out then must find what is
# there and not what was: QEMU 7.2 ends when a node is put under a device where it is already.
ROUNDS=${LOCUM_HV_ROUNDS:-1}
part_dies() {
	local mode name round
	for mode in blockdev drive top; do
		start $mode
		first
		for round in $(seq "$ROUNDS"); do
			for name in hv.take.{sync,cut:1,cut-sent,freeze,exports,verify} hv.valid.look hv.release.{look,filters,filters-sent,nodes,server,scratch}; do
				case $name in
				hv.release.*-sent) ;;
				hv.release.*) name+=:2 ;; # not of prepare
				esac
				[[ $name = *:* ]] || name+=:1
				put vd0 "$(printf %02x $((round % 100 + 50)))" 128 64
				LOCUM_FAILPOINT=$name:kill cycle prepare take=two,one valid release end=rollback
				[ $? = 137 ] || fail "$mode: not killed at $name: $(cat "$DIR/log")"
				given_back "$mode: killed at $name"
				alive || verdict
			done
		done
		put vd0 23 384 64
		turn three
		stop
	done
}

# The same with an image that an admin put between our filter and the disk's, or over our filter: it is the guest's now.
part_dies_overlay() {
	local mode node lost
	local migrate="for j in '{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"exec:cat >/dev/null\"}}'; do $SOCKLINE --qmp $DIR/qmp2 \"\$j\" >/dev/null; done"
	for mode in blockdev top; do
		node=n0
		[ $mode = blockdev ] || node=locum-img-vd0
		for lost in sh='kill -9 $PPID' sh="$migrate"; do
			start $mode
			first
			cycle prepare take=two,one sh="$(external "$node" ov1); $(poking vd0 44 1024 64)" "$lost" event=lost
			put_truth vd0 44 1024 64
			[ "$lost" = sh="$migrate" ] && { sleep 0.5; qmp '{"execute":"cont"}' >/dev/null; }
			alive || verdict
			must prepare
			clean "$mode: $node overlaid, ${lost:0:10}"
			put vd0 45 2048 64
			turn three "not under the disk any more" vd0
			stop
		done
	done
}

part_resize() {
	start blockdev
	first
	qmp "{\"execute\":\"block_resize\",\"arguments\":{\"node-name\":\"n1\",\"size\":$((SIZE + 1048576))}}" >/dev/null
	truncate -s $((SIZE + 1048576)) "$DIR/truth-sd1"
	put sd1 21 $((SIZE / 1024)) 64
	turn two "resized" sd1
	put sd1 22 $((SIZE / 1024 + 128)) 64
	turn three
	# Not while a snapshot lives: QEMU refuses it.
	must prepare take=four,three \
		sh="$SOCKLINE --qmp $DIR/qmp2 '{\"execute\":\"block_resize\",\"arguments\":{\"node-name\":\"n1\",\"size\":$((SIZE + 2097152))}}'; true" \
		valid release end=rollback
	stop
}

# By the name of the device, or of a node over our filter, QEMU resizes a disk also while a snapshot lives; it aborts where
# a bitmap of that disk is in use then.
part_resize_through() {
	local mode whom bytes
	for mode in drive top; do
		whom='"device":"dr1"'
		[ $mode = drive ] || whom='"node-name":"locum-top-sd1"'
		start $mode
		first
		for bytes in $((SIZE + 1048576)) $((SIZE / 2)); do
			put sd1 21 256 64
			must prepare take=lost,"$NEWEST" \
				sh="$SOCKLINE --qmp $DIR/qmp2 '{\"execute\":\"block_resize\",\"arguments\":{$whom,\"size\":$bytes}}' | grep return" \
				!valid release end=rollback
			clean "$mode, resized to $bytes"
			truncate -s "$bytes" "$DIR/truth-sd1"
			put sd1 22 $((bytes / 1024 - 64)) 64
			turn "of$bytes" "resized" sd1
			put sd1 23 512 64
			turn "past$bytes"
		done
		stop
	done
}

# Between the filters' making and the instant: a filter of the old size never gets under the device, where it would give the
# guest errors behind the old end.
part_resize_late() {
	start drive
	first
	: >"$DIR/places"
	LOCUM_FAILPOINT_LOG=$DIR/places meanwhile hv.take.status \
		"{\"execute\":\"block_resize\",\"arguments\":{\"device\":\"dr1\",\"size\":$((SIZE + 1048576))}}" -- prepare take=two,one
	grep -q "^FAIL take.*resized" "$DIR/log" || fail "resized before the instant: $(cat "$DIR/log")"
	! grep -q '^hv.take.cut$' "$DIR/places" || fail "the filters were put under the devices"
	clean "resized before the instant"
	truncate -s $((SIZE + 1048576)) "$DIR/truth-sd1"
	put sd1 22 $((SIZE / 1024)) 64
	turn two "resized" sd1
	stop
}

part_refused() {
	local pid
	start blockdev
	first
	qmp "{\"execute\":\"nbd-server-start\",\"arguments\":{\"addr\":{\"type\":\"unix\",\"data\":{\"path\":\"$DIR/foreign.nbd\"}}}}" >/dev/null
	refused take "NBD server that is not Locum's" prepare take=two,one
	clean "foreign NBD server"
	qmp '{"execute":"nbd-server-stop"}' | has '"return"' || fail "the server of another tool was stopped"
	put vd0 21 128 64
	turn two

	# A job of another tool is on the disk.
	truncate -s $SIZE "$DIR/target.raw"
	qmp "{\"execute\":\"blockdev-add\",\"arguments\":{\"driver\":\"raw\",\"node-name\":\"target\",\"file\":{\"driver\":\"file\",\"filename\":\"$DIR/target.raw\"}}}" >/dev/null
	qmp '{"execute":"blockdev-mirror","arguments":{"job-id":"m0","device":"n0","target":"target","sync":"full"}}' >/dev/null
	refused take "vd0 cannot be captured: a job or filter of another tool" prepare take=three,two
	running "mirror"
	qmp '{"execute":"block-job-cancel","arguments":{"device":"m0","force":true}}' >/dev/null
	no_jobs
	put vd0 22 256 64
	turn three

	# Another client holds the monitor.
	"$SOCKLINE" --event --timeout 20 "$DIR/qmp" NEVER >/dev/null 2>&1 &
	pid=$!
	PIDS+=("$pid")
	monitor_held
	refused prepare "another client holds the monitor socket" --connect-ms 500 prepare
	kill "$pid"
	wait "$pid" 2>/dev/null
	must prepare
	refused prepare "no monitor socket" --qmp "$DIR/nothing" prepare
	stop

	# What cannot be captured is listed, and only that.
	start blockdev -object iothread,id=io0 \
		-blockdev driver=null-co,node-name=x1,size=1048576 -device virtio-blk-pci,id=onthread,drive=x1,iothread=io0 \
		-device virtio-scsi-pci,id=scsi2,iothread=io0 \
		-blockdev driver=null-co,node-name=x2,size=1048576 -device scsi-hd,id=onctrl,drive=x2,bus=scsi2.0 \
		-blockdev driver=null-co,node-name=x3,size=1048576 -device virtio-blk-pci,id=shared,drive=x3,share-rw=on \
		-blockdev driver=null-co,node-name=x4,size=1048576,read-only=on -device virtio-blk-pci,id=readonly,drive=x4 \
		-blockdev driver=null-co,node-name=x5,size=1048576,read-only=on -device ide-cd,id=cd,drive=x5 -device ide-cd,id=empty,bus=ide.3 \
		-device virtio-scsi-pci,id=scsi3 -blockdev driver=null-co,node-name=x6,size=1048576 \
		-device usb-ehci,id=usb -device usb-storage,id=stick,drive=x6
	must prepare disks
	grep -E '^disk' "$DIR/log"
	grep -q '^disk vm0 onthread .* capturable' "$DIR/log" || fail "disk on an IOThread"
	grep -q '^disk vm0 onctrl .* capturable' "$DIR/log" || fail "disk on a controller on an IOThread"
	grep -q '^disk vm0 shared .* refused .*share-rw' "$DIR/log" || fail "shared disk"
	grep -q '^disk vm0 readonly .* capturable' "$DIR/log" || fail "read-only disk"
	grep -qE '^disk vm0 (cd|empty)' "$DIR/log" && fail "a CD-ROM is no disk"
	refused take "cannot be captured" prepare take=one
	refused take "disk onthread: there is no point of it" prepare exclude=shared take=one
	cycle prepare exclude=onthread exclude=onctrl exclude=shared take=one read="$OUT" valid release end=commit ||
		fail "without those: $(cat "$DIR/log")"
	clean "without those"
	stop
}

part_unprivileged() {
	mkdir -m 755 "$DIR/vm"
	chmod 711 "$DIR"
	chown 65534:65534 "$DIR/vm"
	# shellcheck disable=SC2034
	RUN_AS=(setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all)
	OUTER=$DIR
	DIR=$DIR/vm
	start blockdev
	[ "$(stat -c %u "/proc/$VM")" = 65534 ] || fail "QEMU does not run as nobody"
	first
	put vd0 21 128 64
	turn two
	stop
	start top
	first
	stop
	DIR=$OUTER
	RUN_AS=()
}

part_scratch() {
	mkdir "$DIR/full"
	mount -t tmpfs -o size=1m tmpfs "$DIR/full" || return
	start top
	first
	# Full: the snapshot breaks, the guest does not.
	SCRATCH=$DIR/full
	put vd0 21 128 64
	remember two
	refused "read=$OUT" "exit status" prepare take=two,one sh="$(poking vd0 31 1024 4096)" read="$OUT"
	put_truth vd0 31 1024 4096
	running "scratch full"
	SCRATCH=$DIR/scratch
	turn three
	umount "$DIR/full"
	# Its budget spent: told, and given back at once.
	put vd0 41 128 64
	cycle --scratch-max 1000000 prepare take=four,three sh="$(poking vd0 42 4096 2048)" event=lost '!valid' release \
		end=rollback || fail "budget: $(cat "$DIR/log")"
	grep -q 'event vm0 lost: the snapshot needs more scratch' "$DIR/log" || fail "budget: $(cat "$DIR/log")"
	put_truth vd0 42 4096 2048
	clean "budget spent"
	turn five
	stop
}

# A file system of our own that can be frozen or shut down.
fs_up() {
	mkdir -p "$DIR/fs"
	truncate -s 64M "$DIR/fs.img"
	mkfs.ext4 -q -F "$DIR/fs.img" && mount -o loop "$DIR/fs.img" "$DIR/fs"
}

part_scratch_eio() {
	fs_up || {
		echo "no loop devices: scratch with errors is not tested"
		return
	}
	start top
	first
	SCRATCH=$DIR/fs
	refused "read=$OUT" "exit status" prepare take=two,one godown="$DIR/fs" sh="$(poking vd0 31 1024 1024)" read="$OUT"
	put_truth vd0 31 1024 1024
	running "scratch with errors"
	SCRATCH=$DIR/scratch
	turn three
	umount "$DIR/fs"
	stop
}

# A scratch that hangs: one delay for the guest, of at most the copy's time-out; releasing does not touch anything.
part_scratch_hangs() {
	local began ms
	fs_up || return
	start top
	first
	SCRATCH=$DIR/fs
	remember two
	began=$(date +%s%N)
	refused release "does not answer" --copy-timeout 1 prepare take=two,one \
		sh="fsfreeze -f $DIR/fs; ($(poking vd0 31 1024 64)) " sleep=200 release
	ms=$(sed -n 's/^FAIL release.*(\([0-9]*\)\..* ms)/\1/p' "$DIR/log")
	echo "hung scratch: write and release took $((($(date +%s%N) - began) / 1000000)) ms, release ${ms:-?} ms"
	[ "${ms:-9999}" -lt 2600 ] || fail "release took $ms ms"
	put_truth vd0 31 1024 64
	running "scratch hangs"
	# The guest writes on, at full speed.
	began=$(date +%s%N)
	put vd0 32 2048 64
	put vd0 33 1024 128
	ms=$((($(date +%s%N) - began) / 1000000))
	[ "$ms" -lt 900 ] || fail "writes after the snapshot broke took $ms ms"
	# The next run says so too, in time.
	refused prepare "does not answer" prepare
	fsfreeze -u "$DIR/fs"
	turn three
	SCRATCH=$DIR/scratch
	umount "$DIR/fs"
	stop
}

part_hung_reader() {
	start top
	first
	put vd0 51 0 16384
	remember two
	# Nothing is touched while somebody's answers are on their way to nowhere: a change of the graph would wait for them
	# with the guest held.
	cycle prepare take=two,one hang sh="$(poking vd0 52 0 64)" '!release' sh="$(poking vd0 52 64 64)" unhang release \
		end=rollback || fail "a reader hangs: $(cat "$DIR/log")"
	grep -q 'ok !release: .*NBD client still holds' "$DIR/log" || fail "a reader hangs: $(cat "$DIR/log")"
	put_truth vd0 52 0 128
	grep release "$DIR/log"
	clean "a reader hung"
	turn three
	# The process with the hung reader dies.
	cycle prepare take=four,three hang sh='kill -9 $PPID'
	running "a reader died"
	put vd0 53 512 64
	turn five
	stop
}

part_events() {
	local set='{\"execute\":\"migrate-set-parameters\",\"arguments\":{\"max-bandwidth\":1000000}}'
	local go='{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"exec:cat >/dev/null\"}}'
	local mode n
	for mode in top blockdev; do
		start $mode
		first
		put vd0 21 128 64
		# An admin's live migration: the snapshot is dropped, the migration succeeds.
		cycle prepare take=two,one sh="for j in \"$set\" \"$go\"; do $SOCKLINE --qmp $DIR/qmp2 \"\$j\" >/dev/null; done" \
			event=lost '!valid' release end=rollback || fail "migration: $(cat "$DIR/log")"
		for n in $(seq 50); do
			qmp '{"execute":"query-migrate"}' | has -E '"status": "(completed|failed)"' && break
			sleep 0.1
		done
		qmp '{"execute":"query-migrate"}' | has '"status": "completed"' || fail "$mode: the migration did not succeed"
		refused prepare "postmigrate" prepare
		# The admin lets it go on here: still incremental.
		qmp '{"execute":"cont"}' >/dev/null
		put vd0 22 256 64
		turn three
		# A migration under way.
		qmp "${set//\\/}" >/dev/null
		qmp "${set//\\/}" | sed 's/1000000/100000/' >/dev/null
		qmp '{"execute":"migrate-set-parameters","arguments":{"max-bandwidth":50000}}' >/dev/null
		qmp "${go//\\/}" >/dev/null
		refused prepare "being migrated" prepare
		qmp '{"execute":"migrate_cancel"}' >/dev/null
		sleep 0.2
		put vd0 23 384 64
		turn four
		stop
	done
	# A disk is unplugged.
	start blockdev
	first
	cycle prepare take=two,one \
		sh="$SOCKLINE --qmp $DIR/qmp2 '{\"execute\":\"device_del\",\"arguments\":{\"id\":\"sd1\"}}' >/dev/null" event=lost \
		'!valid' release end=rollback || fail "unplug: $(cat "$DIR/log")"
	grep -q 'event vm0 lost: disk sd1 was unplugged' "$DIR/log" || fail "unplug: $(cat "$DIR/log")"
	clean "unplugged"
	stop
	# QEMU dies.
	start blockdev
	first
	cycle prepare take=two,one sh="kill -9 $VM" event=gone '!release' && grep -q 'event vm0 gone' "$DIR/log" ||
		fail "killed QEMU: $(cat "$DIR/log")"
	wait "$VM" 2>/dev/null
}

parts=$(declare -F | sed -n 's/^declare -f part_//p')
for part in ${1:-$parts}; do
	began=$(date +%s%N)
	"part_$part"
	echo "$part: $((($(date +%s%N) - began) / 1000000)) ms"
done
verdict
