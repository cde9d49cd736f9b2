#!/bin/bash
# Many VMs that do nothing: they are protected all the time, get no new points, and cost next to nothing.
#
# What is written as it was before makes no point either; what differs makes one, and be it not in a byte of a disk.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"

n=${1:-8}
look_s=$((n > 8 ? 20 : 10))
scenario_begin idle
agent_pid=''
at_end() {
	local i
	# shellcheck disable=SC2046,SC2086
	kill -9 $agent_pid $(cat "$t"/q*/pid 2>/dev/null) 2>/dev/null
	for ((i = 0; i < 100; i++)); do # until they are gone
		pgrep -f "$t/" >/dev/null || break
		sleep 0.05
	done
}

tell() { # VM JSON
	printf '%s\n' '{"execute":"qmp_capabilities"}' "$2" | python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); f = s.makefile("rw")
f.readline()
for line in sys.stdin:
    f.write(line); f.flush()
    while "return" not in (got := f.readline()) and "error" not in got: pass
print(got)' "$t/q$1/qmp2"
}

# Write to its disk behind the guest's back, but through QEMU: it counts as a guest's write.
poke() { # VM ARGUMENTS-OF-QEMU-IO
	local answer
	answer=$(tell "$1" "{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"qemu-io -d /machine/peripheral/vda/virtio-backend \\\"$2\\\"\"}}")
	[[ $answer = *"\"return\": \"\""* ]] || fail "qemu-io: $answer"
}

status_until() { # SECONDS COMMAND...: of the status in $t/status
	local i seconds=$1
	shift
	for ((i = 0; i < seconds * 5; i++)); do
		locum status --json >"$t/status" 2>/dev/null || true
		! "$@" || return 0
		kill -0 $agent_pid 2>/dev/null || fail "the agent died: $(tail -n 5 "$t/agent.log")"
		sleep 0.2
	done
	fail "$* did not come: $(cat "$t/status") $(tail -n 5 "$t/agent.log")"
}
# Whatever else runs on this host, which is told, too.
all_within() {
	locum status --json >"$t/status" || [ $? = 3 ] || fail "status: $(cat "$t/status")"
	protected "$n" || fail "not all within their goals: $(cat "$t/status")"
}
protected() { [ "$(grep -c '"state": "protected"' "$t/status")" = "$1" ]; }
points_of() { # VM: that this agent has made
	grep "\"vm\": \"vm$1\"" "$t/status" | grep -o '"points": [0-9]*' | grep -o '[0-9]*'
}
has_points() { [ "$(points_of "$1")" = "$2" ]; }
ticks() { # PID...: that they have used, together
	local pid
	for pid in "$@"; do
		cat "/proc/$pid/stat"
	done | awk '{ n += $14 + $15 } END { print n }'
}
# Tenths of a percent of a core, of so many ticks.
share() { echo $(($1 * 1000 / $(getconf CLK_TCK) / look_s)); }
percent() { echo "$(($1 / 10)).$(($1 % 10))%"; }

sed -i "/^store =/a jobs = 4\nrpo = 5s" "$LOCUM_CONFIG"
for ((i = 1; i <= n; i++)); do
	mkdir "$t/q$i"
	truncate -s 16M "$t/q$i/disk.raw"
	scenario_vm "vm$i" "qmp = $t/q$i/qmp"
	qemu-system-x86_64 -machine q35,accel=tcg -m 8 -nodefaults -display none -daemonize -S \
		-blockdev "driver=raw,node-name=img,file.driver=file,file.filename=$t/q$i/disk.raw" \
		-device virtio-blk-pci,id=vda,drive=img \
		-qmp "unix:$t/q$i/qmp,server=on,wait=off" -qmp "unix:$t/q$i/qmp2,server=on,wait=off" \
		-pidfile "$t/q$i/pid" || fail "QEMU $i"
	poke "$i" "write -P $i 0 4M"
done

passed() { grep -cx "$1" "$t/passed" || true; }
[ "$n" -gt 8 ] || export LOCUM_FAILPOINT_LOG=$t/passed # which costs time, too
"$bin/locum" agent >>"$t/agent.log" 2>&1 &
agent_pid=$!
unset LOCUM_FAILPOINT_LOG
status_until 60 protected "$n"
sleep 6 # the first cycles compare, and are over
qemus=$(cat "$t"/q*/pid)
# shellcheck disable=SC2086
before=$(ticks $agent_pid) qemus_before=$(ticks $qemus)
[ "$n" -gt 8 ] || looks=$(passed hv.prepare.look) glances=$(passed hv.glance)
sleep $look_s
used=$(share $(($(ticks $agent_pid) - before)))
# shellcheck disable=SC2086
qemus_used=$(share $(($(ticks $qemus) - qemus_before)))
if [ "$n" -le 8 ]; then # a VM in which nothing happens is looked at in full once, and then by a glance
	looks=$(($(passed hv.prepare.look) - looks)) glances=$(($(passed hv.glance) - glances))
	echo "$glances glances, of which $looks were followed by a full look"
	[ "$glances" -ge "$n" ] || fail "idle VMs are not looked at"
	[ $((looks * 4)) -lt "$glances" ] || fail "idle VMs are looked at in full"
fi
all_within
for ((i = 1; i <= n; i++)); do
	has_points "$i" 1 || fail "vm$i did nothing and has $(points_of "$i") points"
done
echo "$n idle VMs, goal 5 s: the agent takes $(percent "$used") of a core, all QEMUs $(percent "$qemus_used")"
[ "$used" -lt 50 ] || [ "$n" -gt 64 ] || fail "the agent takes $(percent "$used") of a core"

poke 1 'write -P 1 1M 256k' # what is there already
sleep 7
all_within
has_points 1 1 || fail "equal bytes made a point"
poke 1 'write -P 77 1M 256k'
status_until 20 has_points 1 2
status_until 20 protected "$n"

# Another machine, a longer disk, and a newest point that is the newest no more.
newest=$(point_ids vm1 | tail -n 1)
tell 2 '{"execute":"qom-set","arguments":{"path":"/machine/peripheral/vda","property":"bootindex","value":3}}' >/dev/null
tell 3 '{"execute":"block_resize","arguments":{"node-name":"img","size":33554432}}' >/dev/null
locum drop "vm1@$newest" --quiet || fail "drop"
status_until 20 has_points 2 2
status_until 20 has_points 3 2
status_until 20 has_points 1 3
status_until 20 protected "$n"
kill -TERM $agent_pid
wait $agent_pid || fail "the agent ended with $?"
agent_pid=''
locum restore vm1 --to "$t/r.raw" --quiet
cmp "$t/q1/disk.raw" "$t/r.raw" || fail "the newest point is another state"
locum restore vm3 --to "$t/r3.raw" --quiet
cmp "$t/q3/disk.raw" "$t/r3.raw" || fail "the newest point is of another length"
# Of a VM that waits for its first point, it says so.
! grep -v 'nothing of it is safe yet' "$t/agent.log" | grep -e warning -e ERROR || fail "the agent warned"
