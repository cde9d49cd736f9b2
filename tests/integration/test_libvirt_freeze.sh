#!/bin/bash
# Frozen points of a domain of libvirt, which holds the guest agent's channel: test_libvirt_freeze.sh [PART]..., of
# killed, hangs, others, both, daemon, hung, nobody; by default all.
#
# A real guest with Debian's own qemu-guest-agent.  What test_freeze.sh says of any VM goes for domains, too: while locum
# stands still with the guest frozen no file in it is written; once it is killed, with whoever helps it or with libvirtd, or
# its time is up, they are again.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
# shellcheck source=tests/lib/libvirt.sh
. "$src/tests/lib/libvirt.sh"
# shellcheck source=tests/lib/freeze.sh
. "$src/tests/lib/freeze.sh"
pid=''
at_end() {
	[ -z "$pid" ] || kill -9 "$pid" 2>/dev/null
	libvirt_end
}

parts=" $* "
[ $# -gt 0 ] || parts=" killed hangs others both daemon hung nobody "
scenario_begin libvirt_freeze
guest_require_agent
libvirt_begin
sed -i "/^store/a libvirt = $uri" "$LOCUM_CONFIG"
mapfile -t disks < <("$src/tests/guest/mkdisks.sh" "$t/img" --size 96 --disks 2)
chmod 755 "$t/img"
disk_xml=("<channel type='unix'><source mode='bind' path='$t/d-web01/qga'/>"
	"<target type='virtio' name='org.qemu.guest_agent.0'/></channel>")
lv_initrd='initrd-agent.img'
libvirt_guest web01 'seq.load=200 fs=vdb2' "${disks[@]}"
dir=$t/d-web01 fs_disk=vdb

settings() { # FREEZE [LIMIT]
	sed -i '/^\[vm/,$d; /_timeout/d' "$LOCUM_CONFIG"
	printf 'connect_timeout = 2s\nfreeze_timeout = %s\n' "${2:-10s}" >>"$LOCUM_CONFIG"
	[ -z "$1" ] || scenario_vm web01 "freeze = $1"
}

frozen() {
	grep -q '"frozen": true, "freeze": "1 filesystem for' "$t/out" || fail "not frozen: $(cat "$t/out" "$t/err")"
}

stand() { # COMMAND...
	LOCUM_FAILPOINT=hv.take.cut:1:stop "$bin/locum" "$@" >"$t/out" 2>"$t/err" &
	pid=$!
	stopped "$pid"
}
end() { # kill -9, without a word from the shell
	disown "$pid"
	kill -9 "$pid"
	pid=''
}

echo "a domain whose section says nothing of it"
settings never
begins
backup web01 full
grep -q '"frozen": false, "freeze": null' "$t/out" || fail "freeze = never: $(cat "$t/out")"
needs_recovery || fail "a point of a busy filesystem that was not frozen needs no recovery: this test shows nothing"
settings ''
for ((i = 0; i < 100; i++)); do # until the agent has started
	! virsh_t dumpxml web01 | has "org.qemu.guest_agent.0' state='connected'" || break
	sleep 0.2
done
settings require
for ((i = 0; i < 40; i++)); do # and answers
	! locum backup web01 >"$t/out" 2>"$t/err" || break
	sleep 0.2
done
settings ''
backup web01 incremental
frozen
grep -oE '"freeze": "[^"]*"' "$t/out" | sed 's/^/  /'
goes_on "a point" "$(now_ms)" 2000
! needs_recovery || fail "the filesystem of a frozen point needs recovery"
"$GUEST_OUT/seqcheck" "$t"/r/web01-vda.raw "$t"/r/web01-vdb.raw >"$t/seq" 2>&1 || fail "$(cat "$t/seq")"
"$src/tests/guest/fscheck.sh" "$t/r/web01-vdb.raw" || fail "the filesystem is damaged"
locum doctor web01 --json >"$t/doctor" || true
grep -q 'libvirt sees its guest agent' "$t/doctor" || fail "doctor: $(cat "$t/doctor")"
virsh_t dominfo web01 | has 'tainted: custom guest agent' || fail "libvirt does not show the taint that the manual speaks of"

killed() {
	local command since
	settings require
	for command in "backup web01" "agent"; do
		# shellcheck disable=SC2086
		stand $command
		still "locum $command stands still"
		since=$(now_ms)
		end
		goes_on "locum $command, kill -9" "$since" 2000
		backup web01 incremental
		frozen
		unharmed "$dir"
	done
}

hangs() {
	local since rc=0
	settings require 2s
	since=$(now_ms)
	stand backup web01
	goes_on "freeze_timeout = 2s" "$since" 4500
	kill -CONT "$pid"
	wait "$pid" || rc=$?
	pid=''
	[ "$rc" = 1 ] || fail "status $rc of a backup that had to be refused: $(cat "$t/out" "$t/err")"
	grep -q 'web01: freeze = require, but the guest stood still for freeze_timeout and was thawed: raise' "$t/err" ||
		fail "it does not say why: $(cat "$t/err")"
	settings require
	backup web01 incremental
}

# Who has frozen it, for a snapshot of a storage system say, counts on that until he thaws it.
others() {
	settings ''
	virsh_t domfsfreeze web01 >/dev/null || fail "domfsfreeze"
	backup web01 incremental
	grep -q '"frozen": false, "freeze": "somebody else has frozen it"' "$t/out" || fail "$(cat "$t/out" "$t/err")"
	still "frozen by somebody else, after a backup"
	virsh_t domfsthaw web01 >/dev/null || fail "domfsthaw"
	goes_on "thawed" "$(now_ms)" 2000
	backup web01 incremental
	frozen
}

both() {
	local since
	settings require
	stand backup web01
	still "locum stands still"
	since=$(now_ms)
	kill -9 "$(pgrep -P "$pid" lc-thawer)"
	end
	goes_on "killed with its helper" "$since" 2000
	backup web01 incremental
	frozen
}

daemon() {
	local since
	settings require
	stand backup web01
	still "locum stands still"
	since=$(now_ms)
	libvirtd_stop KILL
	end
	goes_on "killed with libvirtd" "$since" 4000
	libvirtd_start
	for ((i = 0; i < 100; i++)); do
		! locum backup web01 --json >"$t/out" 2>"$t/err" || break
		sleep 0.2
	done
	frozen
	unharmed "$dir"
}

# In a guest whose agent stands still nobody can be asked to wake it: this is the last part.
hung() {
	local since ms
	settings auto
	# shellcheck disable=SC2016 # it is for a shell in the guest
	virsh_t qemu-agent-command web01 --timeout 5 '{"execute":"guest-exec","arguments":{"path":"/bin/busybox",
		"arg":["sh","-c","sleep 1; kill -STOP $(pidof qemu-ga)"]}}' >/dev/null || fail "guest-exec"
	sleep 1.5
	since=$(now_ms)
	backup web01 incremental
	ms=$(($(now_ms) - since))
	grep -q '"frozen": false, "freeze": "[^"]*does not answer' "$t/out" || fail "$(cat "$t/out" "$t/err")"
	[ "$ms" -le 9000 ] || fail "an agent that hangs: $ms ms"
	echo "  an agent that hangs: $ms ms: $(sed 's/.*not frozen: //' "$t/err" | tail -n 1)"
	settings require
	refused 1 "web01: freeze = require, but .*does not answer.*or set freeze = auto" locum backup web01
	goes_on "refused" "$(now_ms)" 2000
	unharmed "$dir"
}

nobody() {
	disk_xml=()
	libvirt_xml web02 '' "$t/img/third.raw" | sed 's/:56/:58/' >"$t/web02.xml"
	truncate -s 1M "$t/img/third.raw"
	mkdir -m 777 "$t/d-web02"
	virsh_t define "$t/web02.xml" >/dev/null
	virsh_t start web02 >/dev/null || fail "start of web02: $(tail -n 3 "$t/lv/libvirtd.log")"
	locum backup web02 --json >"$t/out" 2>"$t/err" || fail "$(cat "$t/err")"
	grep -q '"frozen": false, "freeze": null' "$t/out" || fail "$(cat "$t/out")"
	! grep -q 'not frozen' "$t/err" || fail "a domain that nobody wants frozen: $(cat "$t/err")"
	scenario_vm web02 'freeze = require'
	refused 1 'web02: freeze = require, but the domain has no channel to a guest agent: give it one.*or set' locum backup web02
	locum doctor web02 --json >"$t/doctor" || true
	grep -q 'no channel to a guest agent' "$t/doctor" || fail "doctor: $(cat "$t/doctor")"
	virsh_t destroy web02 >/dev/null
}

for part in killed hangs others both daemon nobody hung; do
	case $parts in
	*" $part "*)
		echo "$part"
		"$part"
		;;
	esac
done
! pgrep -a lc-thawer | grep -F "$bin/locum" || fail "a process is left"
