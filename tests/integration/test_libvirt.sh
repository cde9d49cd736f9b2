#!/bin/bash
# Domains of libvirt: test_libvirt.sh [session] [POINTS] [between|halfway|commit|relay|deaths|restored|agent]...
#
# A domain with a raw and a qcow2 disk, of a libvirtd of the test's own whose QEMU runs as nobody.  It is found without a
# section of its own and its points are of one instant (see test_law1.sh), whatever libvirt does with the domain between and
# during cycles; nothing of its description changes.  A point is restored as another domain there, which runs on.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
# shellcheck source=tests/lib/libvirt.sh
. "$src/tests/lib/libvirt.sh"
[ "${1:-}" != session ] || {
	shift
	libvirt_session "${BASH_SOURCE[0]}" "$@"
}
at_end() {
	[ -z "$agent_pid" ] || kill -9 "$agent_pid" 2>/dev/null
	libvirt_end
}

points=${1:-3}
parts=" ${*:2} "
[ $# -gt 1 ] || parts=" between halfway commit relay deaths restored agent "
scenario_begin libvirt
libvirt_begin
sed -i "/^store/a libvirt = $uri" "$LOCUM_CONFIG"
mapfile -t disks < <("$src/tests/guest/mkdisks.sh" "$t/img")
chmod 755 "$t/img"
libvirt_guest web01 'seq.load=400 fs=vdb2 seq.disks=vda,vdb' "${disks[@]}"
dir=$t/d-web01
virsh_t dumpxml --inactive web01 >"$t/before.xml"
virsh_t dumpxml web01 >"$t/live.xml"
guest_past "$dir" 0

locum vm list >"$t/out"
grep -q '^web01 *running *libvirt' "$t/out" || fail "vm list: $(cat "$t/out")"

refused 1 'Domain not found' locum backup nosuch

# A point: of one instant, its ext4 clean.
check_point() { # POINT
	locum restore "web01@$1" --to "$t/r" --quiet || fail "restore of $1"
	"$GUEST_OUT/seqcheck" --strict "$t/r/web01-vda.raw" "$t/r/web01-vdb.raw" >"$t/seq" 2>&1 ||
		fail "point $1 is not of one instant: $(cat "$t/seq")"
	"$src/tests/guest/fscheck.sh" -f raw "$t/r/web01-vdb.raw" >"$t/fs" 2>&1 || fail "point $1: ext4: $(cat "$t/fs")"
	rm -rf "$t/r"
}

newest() {
	point_ids web01 | tail -n 1
}

locum backup --all --json >"$t/out" 2>"$t/err" || fail "backup --all: $(cat "$t/out" "$t/err")"
grep -q '"full": true' "$t/out" || fail "the first point: $(cat "$t/out")"
grep -q 'web01: libvirt shows the domain as tainted (custom-monitor) from now on' "$t/err" || fail "taint: $(cat "$t/err")"
for ((i = 1; i <= points; i++)); do
	before=$(guest_last "$dir")
	backup web01 incremental
	figure pause_ms >>"$t/pauses"
	! grep -q tainted "$t/err" || fail "the taint is told again: $(cat "$t/err")"
	check_point "$(grep -o '"point": "[0-9a-f]*"' "$t/out" | grep -o '[0-9a-f]\{32\}')"
	guest_past "$dir" "${before:-0}"
	moment 300
done
sort -n "$t/pauses" | tail -n 1 | sed 's/^/longest pause in ms: /'
unharmed "$dir"
virsh_t dominfo web01 | has 'tainted: custom monitor' || fail "libvirt does not show the taint that the manual speaks of"
virsh_t dumpxml web01 >"$t/live2.xml"
diff "$t/live.xml" "$t/live2.xml" || fail "the description of the running domain is another one"

# amid PLACE COMMAND...: a backup that stands still there while the command is done; its exit status in $rc.
amid() {
	local pid
	LOCUM_FAILPOINT=$1:1:stop "$bin/locum" backup web01 --json >"$t/out" 2>"$t/err" &
	pid=$!
	stopped "$pid"
	shift
	"$@" >/dev/null 2>"$t/err2" || fail "$*: $(cat "$t/err2")"
	kill -CONT "$pid"
	rc=0
	wait "$pid" || rc=$?
}
runs() {
	local i
	for ((i = 0; i < 100; i++)); do
		! guest_qmp "$dir" '{"execute":"query-status"}' 2>/dev/null | has '"running": *true' || return 0
		sleep 0.1
	done
	fail "the guest stands still: $1"
}
sound() { # WHAT
	runs "$1"
	guest_past "$dir" "$(guest_last "$dir")"
	locum backup web01 --quiet 2>"$t/err" || fail "the backup after $1: $(cat "$t/err")"
	check_point "$(newest)"
	unharmed "$dir"
}

# ---- libvirt does something between two points ----
between() {
	virsh_t snapshot-create-as web01 s1 --disk-only --no-metadata --diskspec "vda,file=$t/img/s1a.qcow2" \
		--diskspec "vdb,file=$t/img/s1b.qcow2" >/dev/null || fail "snapshot"
	backup web01 compared
	check_point "$(newest)"
	backup web01 incremental
	for disk in vda vdb; do
		virsh_t blockcommit web01 "$disk" --active --pivot >/dev/null || fail "blockcommit $disk"
	done
	backup web01 compared
	check_point "$(newest)"
	echo "snapshot, block commit: compared, then incremental"

	virsh_t save web01 "$t/lv/saved" >/dev/null || fail "save"
	locum vm list >"$t/out"
	grep -q '^web01 *off *libvirt' "$t/out" || fail "vm list: $(cat "$t/out")"
	sleep 2.1 # until the images' times can tell that nothing was written since
	backup web01 compared
	check_point "$(newest)"
	backup web01 unchanged
	virsh_t restore "$t/lv/saved" >/dev/null || fail "restore"
	libvirt_pid web01
	backup web01 compared
	backup web01 incremental
	check_point "$(newest)"
	virsh_t destroy web01 >/dev/null
	backup web01 compared
	check_point "$(newest)"
	virsh_t start web01 >/dev/null
	libvirt_wait web01
	backup web01 compared
	echo "save, restore, destroy: read while it is off, compared when it runs again"
}

# ---- in the middle of a cycle ----
halfway() {
	backup web01 incremental
	amid backup.taken virsh_t snapshot-create-as web01 s2 --disk-only --no-metadata \
		--diskspec "vda,file=$t/img/s2a.qcow2" --diskspec "vdb,file=$t/img/s2b.qcow2"
	sound "a snapshot in the middle of a cycle"
	# libvirt lets nobody talk to QEMU while it saves, so the snapshot can't be given back in time: it is the save that fails.
	try_save() { ! virsh_t save web01 "$t/lv/saved"; }
	amid backup.taken try_save
	sound "a save in the middle of a cycle"
	amid backup.taken virsh_t destroy web01
	[ "$rc" != 0 ] || fail "a backup of a domain that was destroyed meanwhile: $(cat "$t/out")"
	virsh_t start web01 >/dev/null
	libvirt_wait web01
	sound "a destroy in the middle of a cycle"
	echo "snapshot, save, destroy in the middle of a cycle: the guest goes on, the next point is right"
}

# ---- a block commit in the middle of a cycle ----
snapshot() { # NAME
	virsh_t snapshot-create-as web01 "$1" --disk-only --no-metadata --diskspec "vda,file=$t/img/$1a.qcow2" \
		--diskspec "vdb,file=$t/img/$1b.qcow2" >/dev/null || fail "snapshot $1"
}
# How it ended is in $committed.
try_commit() { # ARGUMENT...
	committed=0
	timeout 60 virsh -q -c "$uri" blockcommit web01 "$@" 2>"$t/commit" || committed=$?
}
commit_all() { # WHEN
	local disk i
	for disk in vda vdb; do
		virsh_t blockcommit web01 "$disk" --active --pivot >/dev/null 2>"$t/err" || fail "block commit of $disk $1: $(cat "$t/err")"
	done
	sound "block commits $1"
}
commit() {
	local place i
	# QEMU commits nothing into or out of what has our filter above it.
	for place in hv.take.cut backup.taken backup.read; do
		snapshot "c$place"
		backup web01 compared
		backup web01 incremental
		amid "$place" try_commit vda --active --pivot --wait
		[ "$committed$rc" = 10 ] || fail "block commit at $place: $committed, and the backup $rc: $(cat "$t/commit" "$t/err")"
		grep -q 'Need a root block node' "$t/commit" || fail "block commit at $place: $(cat "$t/commit")"
		sound "a block commit at $place"
		commit_all "after one at $place"
	done
	# Of what lies below the image that the guest writes to.
	snapshot d1
	snapshot d2
	backup web01 compared
	amid backup.taken try_commit vda --top "$t/img/d1a.qcow2" --wait
	[ "$rc" = 0 ] || fail "block commit below: the backup: $(cat "$t/err")"
	sound "a block commit below in the middle of a cycle"
	commit_all "of all of it"
	# Just before the snapshot: over by then, or under way.
	snapshot e1
	backup web01 compared
	amid backup.begun try_commit vda --active --pivot --wait
	[ "$committed$rc" = 00 ] || fail "block commit just before the snapshot: $committed, and the backup $rc: $(cat "$t/commit" "$t/err")"
	sound "a block commit just before the snapshot"
	snapshot e2
	backup web01 compared
	amid backup.begun try_commit vda --active
	[ "$committed$rc" = 01 ] || fail "block commit under way: $committed, and the backup $rc: $(cat "$t/commit" "$t/err")"
	grep -q 'a job or filter of another tool' "$t/err" || fail "block commit under way: $(cat "$t/err")"
	for ((i = 0; i < 100; i++)); do
		! virsh_t blockjob web01 vda --pivot >/dev/null 2>"$t/err" || break
		sleep 0.1
	done
	[ "$i" -lt 100 ] || fail "pivot: $(cat "$t/err")"
	sound "a block commit under way"
	virsh_t blockcommit web01 vdb --active --pivot >/dev/null || fail "block commit of vdb"
	echo "block commit in the middle of a cycle: the guest goes on, the next point is right"
}

# ---- whoever dies or hangs ----
relay() {
	LOCUM_FAILPOINT=relay.stopped:1:kill locum backup web01 >"$t/out" 2>"$t/err" && fail "a backup whose relay died"
	sound "the death of the relay while the guest stood still"
}

# A backup whose relay, $stuck, stands still just after it has stopped the guest.
in_pause() {
	LOCUM_FAILPOINT=relay.stopped:1:stop "$bin/locum" backup web01 >"$t/out" 2>"$t/err" &
	backup_pid=$!
	for ((i = 0; i < 100; i++)); do
		stuck=$(pgrep -f "libvirt-relay .*$t/lv/sock" | while read -r pid; do ! grep -q '^State:.*T' "/proc/$pid/status" || echo "$pid"; done || true)
		[ -z "$stuck" ] || break
		sleep 0.1
	done
	[ -n "$stuck" ] || fail "no relay stands still"
}

# libvirtd holds QEMU's only monitor: as long as it hangs the guest stands still.
hung_in_pause() {
	in_pause
	kill -STOP "$lv_daemon"
	began=$SECONDS
	kill -CONT "$stuck"
	wait "$backup_pid" && fail "a backup whose libvirtd hung"
	[ $((SECONDS - began)) -lt 30 ] || fail "a libvirtd that hangs was waited for $((SECONDS - began)) s"
	grep -q 'libvirtd did not answer .* the guest may stand still until it does' "$t/err" || fail "it does not say that the guest stands still: $(cat "$t/err")"
	before=$(guest_last "$dir")
}

deaths() {
	LOCUM_FAILPOINT=hv.take.cut-sent:1:kill locum backup web01 >"$t/out" 2>"$t/err" && fail "a backup that died"
	sound "the death of locum while the guest stood still"
	in_pause
	before=$(guest_last "$dir")
	libvirtd_stop KILL
	kill -CONT "$stuck"
	wait "$backup_pid" && fail "a backup whose libvirtd died"
	guest_past "$dir" "$before" # with no libvirtd there
	libvirtd_start
	sound "the death of libvirtd while the guest stood still"
	kill -STOP "$lv_daemon"
	before=$(guest_last "$dir") began=$SECONDS
	locum backup web01 >"$t/out" 2>"$t/err" && fail "a backup with a libvirtd that hangs"
	grep -q 'libvirtd does not answer' "$t/err" || fail "$(cat "$t/err")"
	[ $((SECONDS - began)) -lt 10 ] || fail "a libvirtd that hangs was waited for $((SECONDS - began)) s"
	guest_past "$dir" "$before"
	kill -CONT "$lv_daemon"
	sound "a libvirtd that hung"
	hung_in_pause
	kill -CONT "$lv_daemon"
	guest_past "$dir" "$before"
	sound "a libvirtd that hung while the guest stood still"
	hung_in_pause
	libvirtd_stop KILL
	guest_past "$dir" "$before" # with no libvirtd there
	libvirtd_start
	sound "a libvirtd that hung while the guest stood still, and was killed"
	echo "locum or libvirtd killed while the guest stands still, libvirtd hung: the guest goes on"
}

# ---- restored beside it ----
restored() {
	virsh_t dumpxml --inactive web01 >"$t/after.xml"
	# Its own snapshots have moved its disks; all else is as it was.
	local moved='<source file\|type=.raw.\|type=.qcow2.\|backingStore'
	diff <(grep -v "$moved" "$t/before.xml") <(grep -v "$moved" "$t/after.xml") || fail "the description is another one"
	refused 1 'has a domain web01 already' locum restore web01 --to "$t/x" --libvirt
	refused 2 'goes with --libvirt' locum restore web01 --to "$t/x" --name web02
	locum restore web01 --to "$t/r2" --libvirt --name web02 >"$t/out" || fail "restore as a domain"
	virsh_t dumpxml web02 >"$t/web02.xml"
	! grep -q "$(sed -n 's/.*<uuid>\(.*\)<.*/\1/p' "$t/before.xml")" "$t/web02.xml" || fail "two domains of one UUID"
	! grep -q '52:54:00:12:34:56' "$t/web02.xml" || fail "two domains of one MAC address"
	timeout 60 "$bin/locum" doctor web02 >"$t/out" || fail "doctor, of a domain that is off: $(cat "$t/out")"
	grep -q 'web02 .*off, disks' "$t/out" || fail "doctor, of a domain that is off: $(cat "$t/out")"
	virsh_t start web02 >/dev/null || fail "start of web02: $(tail -n 3 "$t/lv/libvirtd.log")"
	locum vm list >"$t/out"
	grep -q '^web02 *running *libvirt' "$t/out" || fail "vm list: $(cat "$t/out")"
	locum backup web02 --quiet || fail "backup of web02"
	# It writes on: what the images hold now is not what was restored.
	for ((i = 0; i < 300; i++)); do
		locum backup web02 --json >"$t/out" 2>"$t/err" || fail "backup of web02: $(cat "$t/err")"
		changed=$(figure changed_bytes)
		[ "${changed:-0}" -lt 1000000 ] || break
		sleep 0.2
	done
	[ "${changed:-0}" -ge 1000000 ] || fail "web02 does not work: $(cat "$t/out")"
	locum restore web02 --to "$t/r3" --quiet || fail "restore of web02"
	"$GUEST_OUT/seqcheck" --strict "$t/r3/web02-vda.raw" "$t/r3/web02-vdb.raw" >"$t/seq" 2>&1 || fail "web02: $(cat "$t/seq")"
	locum backup --all --quiet || fail "backup --all"
	# A domain that has no name for a VM has no points, which is no success of --all.
	virsh_t dumpxml web02 | sed "s/<name>web02/<name>web 02/; /<uuid>/d; s/52:54:00:../52:54:00:99/" >"$t/blank.xml"
	virsh_t define "$t/blank.xml" >/dev/null || fail "define: $(tail -n 3 "$t/lv/libvirtd.log")"
	refused 3 'domain web 02 has no restore points: .*give it a section' locum backup --all --quiet
	virsh_t undefine "web 02" >/dev/null
	unharmed "$dir"
	echo "restored as another domain, which works and is protected"
}

# ---- the agent ----
agent() {
	agent_start
	status_has '"vm": *"web01"[^}]*"points": *[1-9]|web01'
	libvirt_xml web03 '' "$t/img/third.raw" | sed 's/52:54:00:12:34:56/52:54:00:12:34:58/' >"$t/web03.xml"
	truncate -s 1M "$t/img/third.raw"
	virsh_t define "$t/web03.xml" >/dev/null
	kill -HUP "$agent_pid"
	status_has '"vm": "web03"'
	for ((i = 0; i < 300; i++)); do
		! locum points web03 --json 2>/dev/null | has '"id"' || break
		sleep 0.1
	done
	kill -TERM "$agent_pid"
	wait "$agent_pid" || fail "the agent: $(tail -n 5 "$t/agent.log")"
	agent_pid=''
	locum points web03 --json | has '"id"' || fail "no point of a domain that came while the agent runs: $(cat "$t/agent.log")"
	agent_start
	status_has '"vm": "web03"'
	virsh_t domrename web03 web04 >/dev/null || fail "rename"
	kill -HUP "$agent_pid"
	status_has 'web04.*the domain has the UUID of web03'
	grep -q 'web03: not protected any more' "$t/agent.log" || fail "the agent: $(tail -n 5 "$t/agent.log")"
	grep -q 'web04: protected from now on' "$t/agent.log" || fail "the agent: $(tail -n 5 "$t/agent.log")"
	refused 3 'give it a section \[vm web03\] with domain = ' locum backup --all --quiet
	scenario_vm web03 "domain = $(virsh_t domuuid web04)"
	kill -HUP "$agent_pid"
	status_has '"vm": "web03"'
	backup web03 unchanged
	# Another domain of the same name.
	virsh_t undefine web04 >/dev/null
	sed 's/web03/web04/' "$t/web03.xml" >"$t/web04.xml"
	virsh_t define "$t/web04.xml" >/dev/null
	sed -i '/^\[vm web03\]/,$d' "$LOCUM_CONFIG"
	kill -HUP "$agent_pid"
	status_has 'web04'
	for ((i = 0; i < 300; i++)); do
		! locum points web04 --json 2>/dev/null | has '"id"' || break
		sleep 0.1
	done
	locum points web04 --json | has '"id"' || fail "no point of a domain that took the name of another: $(tail -n 5 "$t/agent.log")"
	virsh_t undefine web04 >/dev/null
	kill -HUP "$agent_pid"
	for ((i = 0; i < 100; i++)); do
		! grep -q 'web04: not protected any more' "$t/agent.log" || break
		sleep 0.1
	done
	grep -q 'web04: not protected any more' "$t/agent.log" || fail "the agent: $(tail -n 5 "$t/agent.log")"
	kill -TERM "$agent_pid"
	wait "$agent_pid" || fail "the agent: $(tail -n 5 "$t/agent.log")"
	agent_pid=''
	unharmed "$dir"
	echo "the agent takes in a domain that came later, one that was renamed, another one of that name; and tells of one that is gone"
}

locum doctor web01 >"$t/out" || fail "doctor: $(cat "$t/out")"
grep -q 'web01' "$t/out" || fail "doctor: $(cat "$t/out")"
grep -q 'libvirt .*tainted (custom-monitor)' "$t/out" || fail "doctor: $(cat "$t/out")"
for part in between halfway commit relay deaths restored agent; do
	case $parts in
	*" $part "*) "$part" ;;
	esac
done
