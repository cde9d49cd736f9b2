#!/bin/bash
# shellcheck disable=SC1007,SC2086,SC2209
# Kill the process, and let it fail, at every failpoint of the hypervisor core; the next run must go on incrementally
# and be right, with the guest unharmed.
. "$(dirname "$0")/hv_lib.sh"

# One turn with a failpoint; the store's newest point is in $NEWEST.
# The store commits between release and end.
COUNT=0
NEWEST=
turn() { # FAILPOINT HIT ACTION [FAILPOINTS that lead there] [commit|rollback]
	local next rc how=${5:-commit} options=() event=() rest=(read="$OUT" valid release)
	case $1 in
	hv.drop.*) # by a snapshot that outgrows its scratch
		options=(--scratch-max 100000)
		event=(sh="$(poking vd0 ed 1024 512)" event=lost)
		rest=(release) # which waits for it; what reads then fails at once, and ends the program
		;;
	esac
	COUNT=$((COUNT + 1))
	next=p$COUNT
	put vd0 "$(printf %02x $((COUNT % 256)))" $((COUNT * 64 % 16000)) 64
	put sd1 "$(printf %02x $((COUNT % 256)))" $((COUNT * 192 % 16000)) 32
	remember $next
	rm -f "$DIR/hits"
	LOCUM_FAILPOINT=${4:+$4,}$1:$2:$3 LOCUM_FAILPOINT_LOG=$DIR/hits \
		cycle "${options[@]}" prepare take=$next,$NEWEST sh="$(poking vd0 ee 512 64); $(poking sd1 ef 640 64)" \
		"${event[@]}" "${rest[@]}" end=$how
	rc=$?
	grep -qx "$1" "$DIR/hits" || fail "$1 was not passed"
	if [ "$3" = kill ]; then
		[ $rc = 137 ] || fail "$1: killed, but the exit status is $rc"
		running "$1 killed"
	else
		[ $rc = 1 ] || fail "$1:$3: the failure was not noticed, exit status $rc"
		case $1 in
		hv.take.*) clean "$1 failed" ;;
		esac
		running "$1 failed"
	fi
	if grep -q '^ok sh=' "$DIR/log"; then
		put_truth vd0 ee 512 64
		put_truth sd1 ef 640 64
	fi
	[ ${#event[@]} = 0 ] || put_truth vd0 ed 1024 512
	if [ $how = commit ] && grep -q '^ok release' "$DIR/log"; then
		follow $next superset
		NEWEST=$next
	fi
}

# A turn without fault, which must be incremental.
good() { # WHERE
	local next
	COUNT=$((COUNT + 1))
	next=p$COUNT
	put vd0 "$(printf %02x $((COUNT % 256)))" $((COUNT * 64 % 16000)) 64
	put sd1 "$(printf %02x $((COUNT % 256)))" $((COUNT * 320 % 16000)) 32
	remember $next
	must prepare take=$next${NEWEST:+,$NEWEST} read="$OUT" valid release end=commit
	follow $next "${NEWEST:+superset}"
	NEWEST=$next
	clean "$1"
	[ "$(bitmaps | wc -l)" = 2 ] || fail "$1: bitmaps are not one for each disk: $(bitmaps)"
}

# Every failpoint of the driver, from its sources, so that none is forgotten.
all_names() {
	cd "$(dirname "$0")/../../agent/hypervisor" || exit 1
	grep -ohE 'QEMU_(STEP|SENT)\("hv\.[^"]*"' qemu*.c | sed 's/.*"\(.*\)"/\1/'
}

for mode in top blockdev; do
	actions="kill eio"
	[ $mode = top ] || actions=kill
	start $mode
	NEWEST=
	good "$mode: first"
	for name in $(all_names); do
		lead= how=commit hits=1
		case $name in
		hv.*.freeze-cpus | hv.*.thaw-cpus | hv.take.group-status) continue ;; # several VMs: test_hv_group.sh
		hv.end.forget*) continue ;;                            # nothing is expected of it
		hv.glance) continue ;;                                 # only after a look in the same program: test_hv_glance.sh
		hv.forget.*) continue ;;                               # unprotect: test_identity.sh
		hv.end.roll*) how=rollback ;;
		hv.undo.*) lead=hv.take.verify:1:eio ;;
		hv.release.*-sent) ;;
		hv.release.*) hits="1 2" ;; # in prepare, and in release
		esac
		for action in $actions; do
			case $action:$name in
			eio:*-sent | eio:hv.undo.* | eio:hv.drop.*) continue ;;
			esac
			for hit in $hits; do
				turn "$name" $hit $action "$lead" $how
				# Dead twice in the same place, then well.
				[ $action = kill ] && turn "$name" $hit $action "$lead" $how
				good "$mode: after $name:$hit:$action"
			done
		done
		# While a failed take is being undone.
		case $name in
		hv.release.*-sent) ;;
		hv.release.*) turn "$name" 2 kill hv.take.verify:1:eio && good "$mode: after undo $name:kill" ;;
		hv.end.roll*) turn "$name" 1 kill hv.take.verify:1:eio && good "$mode: after undo $name:kill" ;;
		esac
	done
	stop
done
echo "$COUNT turns"
verdict
