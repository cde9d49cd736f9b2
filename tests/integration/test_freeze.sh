#!/bin/bash
# test_freeze.sh [MANNER...]: of guest agents that are of no use, by default three.
#
# Frozen points, with Debian's own qemu-guest-agent in a real guest, and with guest agents as bad as they come.
#
# The ext4 of a frozen point needs no recovery, that of any other does.  While locum, or its agent, stands still with the
# guest frozen, no file in the guest is written; once it is killed, or its time is up, they are again, within 2 s.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
# shellcheck source=tests/lib/freeze.sh
. "$src/tests/lib/freeze.sh"
manners=("$@")
[ $# -gt 0 ] || manners=(hung no-freeze never-thaws)
scenario_begin freeze
guest_require_agent

play=$bin/tests/integration/agentplay
player='' pid=''
at_end() {
	[ -z "$player" ] || kill -9 "$player" 2>/dev/null
	[ -z "$pid" ] || kill -9 "$pid" 2>/dev/null
}

mapfile -t disks < <("$src/tests/guest/mkdisks.sh" "$t/img" --size 96 --disks 2)
guest_start "$t/vm" -g -a 'fs=vdb2 seq.load=200' "${disks[@]}" >/dev/null
dir=$t/vm fs_disk=vd1

settings() { # FREEZE SOCKET [LIMIT]
	sed -i '/^\[vm/,$d; /_timeout/d' "$LOCUM_CONFIG"
	printf 'connect_timeout = 1s\nfreeze_timeout = %s\n' "${3:-10s}" >>"$LOCUM_CONFIG"
	scenario_vm web01 "qmp = $t/vm/qmp" "guest_agent = $2" "freeze = $1"
}

whole() { # WHAT
	"$GUEST_OUT/seqcheck" "$t"/r/web01-vd0.raw "$t"/r/web01-vd1.raw >"$t/seq" 2>&1 || fail "$1: $(cat "$t/seq")"
	"$src/tests/guest/fscheck.sh" "$t/r/web01-vd1.raw" || fail "$1: the filesystem is damaged"
}

echo "qemu-guest-agent in the guest"
settings never "$t/vm/qga"
begins
backup web01 full
grep -q '"frozen": false, "freeze": null' "$t/out" || fail "freeze = never: $(cat "$t/out")"
needs_recovery || fail "a point of a busy filesystem that was not frozen needs no recovery: this test shows nothing"
whole never
settings require "$t/vm/qga"
for ((i = 0; i < 40; i++)); do # until it has started
	locum backup web01 >"$t/out" 2>"$t/err" && break
	sleep 0.2
done
for i in 1 2; do
	backup web01 incremental
	goes_on "point $i" "$(now_ms)" 2000
	grep -q '"frozen": true' "$t/out" || fail "not frozen: $(cat "$t/out" "$t/err")"
	grep -oE '"freeze": "[^"]*"' "$t/out" | sed 's/^/  /'
	! needs_recovery || fail "the filesystem of a frozen point needs recovery"
	whole "point $i"
done
locum points web01 --json >"$t/points"
grep -q '"consistency":"frozen".*"freeze":"1 filesystem for' "$t/points" || fail "points: $(cat "$t/points")"
locum points web01 | has ' frozen ' || fail "points: $(locum points web01)"
locum doctor web01 --json >"$t/doctor" || true
grep -q 'its guest agent answers' "$t/doctor" || fail "doctor: $(cat "$t/doctor")"

echo "killed while the guest is frozen"
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
for command in "backup web01" "agent"; do
	# shellcheck disable=SC2086
	stand $command
	still "locum $command stands still"
	since=$(now_ms)
	end
	goes_on "locum $command, kill -9" "$since" 2000
	backup web01 incremental
	grep -q '"frozen": true' "$t/out" || fail "not frozen: $(cat "$t/out" "$t/err")"
	unharmed "$t/vm"
done

echo "locum hangs while the guest is frozen"
settings require "$t/vm/qga" 2s
since=$(now_ms)
stand backup web01
goes_on "freeze_timeout = 2s" "$since" 4500
kill -CONT "$pid"
rc=0
wait "$pid" || rc=$?
pid=''
[ "$rc" = 1 ] || fail "status $rc of a backup that had to be refused: $(cat "$t/out" "$t/err")"
grep -q 'web01: freeze = require, but the guest stood still for freeze_timeout and was thawed: raise' "$t/err" ||
	fail "it does not say why: $(cat "$t/err")"
settings require "$t/vm/qga"
backup web01 incremental

echo "killed with its helper"
stand backup web01
kill -9 "$(pgrep -P "$pid" lc-thawer)"
end
still "both are killed"
since=$(now_ms)
backup web01 incremental
goes_on "the next backup" "$since" 5000
grep -q 'web01: its filesystems had been left frozen, and were thawed' "$t/err" || fail "it does not say so: $(cat "$t/err")"
! needs_recovery || fail "the filesystem of a frozen point needs recovery"

echo "guest agents that are of no use"
settings auto "$t/qga" 400ms
while read -r manner max_ms why; do
	[[ " ${manners[*]} " == *" $manner "* ]] || continue
	"$play" "$manner" "$t/qga" &
	player=$!
	disown "$player"
	for ((i = 0; i < 100; i++)); do
		[ ! -S "$t/qga" ] || break
		sleep 0.02
	done
	since=$(now_ms)
	backup web01 incremental
	ms=$(($(now_ms) - since))
	grep -q "\"frozen\": false, \"freeze\": \"[^\"]*$why" "$t/out" || fail "$manner: $(cat "$t/out" "$t/err")"
	grep -q "web01: not frozen: .*$why" "$t/err" || fail "$manner is not told: $(cat "$t/err")"
	[ "$ms" -le $((max_ms + 3000)) ] || fail "$manner: $ms ms"
	echo "  $manner: $ms ms: $(sed 's/.*not frozen: //' "$t/err" | tail -n 1)"
	case $manner in
	hung | no-freeze)
		settings require "$t/qga" 400ms
		locum doctor web01 --json >"$t/doctor" || true
		[ "$manner" = no-freeze ] || grep -q "its guest can't be frozen: guest agent .*no answer" "$t/doctor" ||
			fail "doctor: $(cat "$t/doctor")"
		refused 1 "web01: freeze = require, but .*$why.*or set freeze = auto" locum backup web01
		settings auto "$t/qga" 400ms
		;;
	esac
	kill -9 "$player"
	player=''
	rm -f "$t/qga"
done <<-'EOF2'
	hung 1000 does not answer
	rubbish 1000 does not answer
	no-freeze 0 the guest agent cannot freeze
	fails 0 freezing failed in the guest
	slow 1000 within freeze_timeout
	dies 0 channel was closed
	never-thaws 6000 does not answer to the thaw
EOF2
locum points web01 | has '^   not frozen: the guest agent cannot freeze' || fail "points: $(locum points web01)"
locum verify web01 --quiet || fail "verify"
unharmed "$t/vm"
guest_kill "$t/vm"

echo "a VM that locum started"
scenario_vm web02 'memory = 128 MiB' "kernel = $GUEST_OUT/vmlinux" "initrd = $GUEST_OUT/initrd-agent.img" \
	"append = $GUEST_APPEND fs=vdb2" "disk = vda raw $t/img/disk0.raw" "disk = vdb qcow2 $t/img/disk1.qcow2" 'freeze = require'
locum vm start web02 >/dev/null || fail "vm start"
for ((i = 0; i < 100; i++)); do
	locum backup web02 --json >"$t/out" 2>"$t/err" && break
	sleep 0.2
done
grep -q '"frozen": true, "freeze": "1 filesystem for' "$t/out" || fail "not frozen: $(cat "$t/out" "$t/err")"
locum vm stop web02 --force >/dev/null || fail "vm stop"
! pgrep -a lc-thawer | grep -F "$bin/locum" || fail "a process is left"
