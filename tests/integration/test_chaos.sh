#!/bin/bash
# Chaos between two sites: test_chaos.sh [ROUNDS [KIND...]]
#
# A guest writes all the time, protected with a goal of a second over a wire.  Each round something breaks at a random
# moment for a random time (the seed is logged): the agent, the replica, both, or QEMU are killed; the wire is cut, has no link, or swallows
# what it is given; the replica stands still; the disk of the host or of the replica is full; the replica comes back with an older
# copy of its folder; the host's clock jumps by years.  After each round: replication goes on by itself and incrementally (a QEMU that was killed
# takes its records of changes along: then the disks are compared, and no more is sent than changed); every point that the
# replica ever said to be durable is there; the guest saw no error and no write took longer than the bound; nothing of ours is left in QEMU.
# At the end every point is restored at the replica and judged (by up to 20 rounds: every fourth, and the last).
set -euo pipefail
# shellcheck source=tests/lib/sites.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/sites.sh"

rounds=${1:-5}
shift || true
kinds=(kill_agent kill_replica kill_both kill_qemu cut no_link stall stop_replica full_replica full_host older_copy clock)
[ $# = 0 ] || kinds=("$@")
copy_timeout_ms=1000
slack_ms=3000 # TCG and a busy host
ndisks=2

scenario_begin chaos
at_end() {
	sites_end
	umount -l "$t/drfs" "$t/hostfs" 2>/dev/null
}
sites_begin
wire_shape 200
mkdir -p "$t/hostfs"
for fs in "$t/drfs" "$t/hostfs"; do
	mount -t tmpfs -o size=16g,mode=0700 none "$fs" 2>"$t/err" && continue
	echo "SKIP: no file systems can be mounted here: $(cat "$t/err")"
	exit 77
done
mv "$t/store" "$t/hostfs/store"
sed -i -e "s,^store = .*,store = $t/hostfs/store," \
	-e "/^store =/a copy_timeout = ${copy_timeout_ms}ms\nrpo = 1s" "$LOCUM_CONFIG"
mapfile -t disks < <("$src/tests/guest/mkdisks.sh" "$t/img" --size 32 --fs-size 0)
scenario_vm web01 "qmp = $t/vm/qmp"
boot() {
	guest_start "$t/vm" -m 128 -s blockdev -a 'seq.load=40 seq.delay_us=2000 seq.disks=vda,vdb' "${disks[@]}" >/dev/null
	guest_past "$t/vm" 0
}
boot
replica_start
sites_pair
agent_start

random() { # MIN MAX
	echo $(($1 + (RANDOM * 32768 + RANDOM) % ($2 - $1 + 1)))
}
hold() { sleep "$(awk -v ms="$(random "$1" "$2")" 'BEGIN { print ms / 1000 }')"; } # MIN_MS MAX_MS

sent() { { locum status --json || true; } | sed -nE 's/.*"sent_bytes": ([0-9]+).*/\1/p'; } # by this agent
durable() { grep -c ' is durable$' "$t/replica.log" || true; }
more_durable() { # N: until so many more points are durable than now
	local i want=$(($(durable) + $1))
	for ((i = 0; i < 600 && $(durable) < want; i++)); do
		kill -0 "$agent_pid" 2>/dev/null || fail "$what: the agent died: $(tail -n 5 "$t/agent.log")"
		kill -0 "$replica_pid" 2>/dev/null || fail "$what: the replica died: $(tail -n 5 "$t/replica.log")"
		sleep 0.1
	done
	[ "$(durable)" -ge "$want" ] || fail "$what: it does not go on: $(tail -n 5 "$t/agent.log" "$t/replica.log") $(cat "$t/status")"
}

full() { # FILE-SYSTEM: but for a random rest
	local rest i
	rest=$(random 0 200)
	# What is written between looking and shrinking may be more than that rest.
	for ((i = 0; i < 100; i++)); do
		! mount -o "remount,size=$(($(df --output=used "$1" | tail -n 1) + rest))k" "$1" 2>>"$t/mount.log" || return 0
	done
	fail "$what: $1 can't be made full: $(tail -n 2 "$t/mount.log")"
}
roomy() { mount -o "remount,size=16g" "$1"; }

wrong_kill_agent() { killed "$agent_pid"; hold 0 1500; agent_start; }
wrong_kill_replica() { killed "$replica_pid"; hold 0 2500; replica_start; }
wrong_kill_both() {
	killed "$replica_pid"
	killed "$agent_pid"
	hold 0 1000
	agent_start
	hold 0 1000
	replica_start
}
wrong_kill_qemu() {
	guest_kill "$t/vm"
	hold 0 1500
	boot
	grep -aq 'SEQ check ok' "$t/vm/serial" || fail "$what: the guest's own disks: $(grep -a 'SEQ check' "$t/vm/serial")"
}
wrong_cut() { wire_cut; hold 0 500; wire_cut; }
wrong_no_link() { wire_down; hold 100 2500; wire_up; }
wrong_stall() {
	wire_stall
	if [ "$rounds" -gt 20 ] && [ "$(random 0 3)" = 0 ]; then
		hold 20000 26000 # longer than a session waits
	else
		hold 100 2500
	fi
	wire_go
}
wrong_stop_replica() { kill -STOP "$replica_pid"; hold 100 2500; kill -CONT "$replica_pid"; }
wrong_full_replica() { full "$t/drfs"; hold 500 2500; roomy "$t/drfs"; }
wrong_full_host() {
	local i
	full "$t/hostfs"
	for ((i = 0; i < 50; i++)); do # until it hurts
		! tail -n "+$mark" "$t/agent.log" | has 'No space left' || break
		sleep 0.1
	done
	hold 0 2000
	roomy "$t/hostfs"
}
wrong_clock() { # of the host
	ended "$agent_pid"
	export LOCUM_TEST_CLOCK_NS=$(($(random -40000 40000) * 3600000000000)) # status reads it, too
	agent_start
}
wrong_older_copy() {
	killed "$replica_pid"
	cp -a "$t/drfs/dr" "$t/old"
	copied=$(date +%s%N)
	replica_start
	more_durable 2
	sleep 2
	more_durable 2
	killed "$replica_pid"
	rm -rf "$t/drfs/dr"
	mv "$t/old" "$t/drfs/dr"
	wire_shape 1 # so that it can be looked at
	replica_start
	status_has '"error": "it lacks points'
	lag_ms=$(sed -nE 's/.*"lag_s": ([0-9]+)\.([0-9]+).*/\1\2/p' "$t/status" | sed -n 1p)
	[ $((10#${lag_ms:-0})) -ge $((($(date +%s%N) - copied) / 1000000 - 1500)) ] ||
		fail "$what: a lag of ${lag_ms:-?} ms, though the replica is back before that: $(cat "$t/status")"
	wire_shape 200
}

# Every point that was ever said to be durable.
nothing_lost() {
	local id
	sed -nE 's/.*: point ([0-9a-f]+) is durable$/\1/p' "$t/replica.log" | sort -u >"$t/said"
	ids_at_replica web01 | cut -c -8 | sort -u >"$t/there"
	id=$(comm -23 "$t/said" "$t/there" | sed -n 1p)
	[ -z "$id" ] || fail "$what: point $id was durable and is not at the replica: $(tail -n 20 "$t/agent.log")"
}

guest_is_well() {
	local i max
	for ((i = 0; i < 40; i++)); do # between two cycles
		! (unharmed "$t/vm") >"$t/harm" 2>&1 || break
		sleep 0.07
	done
	[ $i -lt 40 ] || fail "$what: $(cat "$t/harm")"
	max=$(($(guest_cmd "$t/vm" lat | grep -oE 'max=[0-9]+' | tr -dc 0-9) / 1000))
	[ "$max" -le $((ndisks * copy_timeout_ms + slack_ms)) ] || fail "$what: a write took $max ms"
	guest_past "$t/vm" "$(guest_last "$t/vm")"
	slowest=$((max > slowest ? max : slowest))
}

replica_env=(LOCUM_TEST_CLOCK_NS=0)
what=begin slowest=0 order=()
status_has '"state": "protected"'
guest_cmd "$t/vm" lat >/dev/null
for ((round = 1; round <= rounds; round++)); do
	if [ ${#order[@]} = 0 ]; then # each kind once, in a random order
		order=("${kinds[@]}")
		for ((i = ${#order[@]} - 1; i > 0; i--)); do
			k=$(random 0 $i)
			x=${order[i]} order[i]=${order[k]} order[k]=$x
		done
	fi
	what="round $round, ${order[0]}"
	mark=$(($(wc -l <"$t/agent.log") + 1))
	sent=$(sent)
	hold 0 1500
	"wrong_${order[0]}"
	began=$(date +%s%N)
	more_durable 2
	status_has '"has_all": true'
	guest_is_well
	nothing_lost
	if [ "${order[0]}" = kill_qemu ]; then
		tail -n "+$mark" "$t/agent.log" | has 'compared' || fail "$what: its records of changes are gone, and the disks were not compared"
		[ $(($(sent) - sent)) -le $((ndisks * 16 << 20)) ] || fail "$what: $(($(sent) - sent)) bytes were sent"
	else
		! tail -n "+$mark" "$t/agent.log" | grep -E 'compared|read whole' || fail "$what: the next point was not incremental"
	fi
	if [ "${order[0]}" = older_copy ]; then
		tail -n "+$mark" "$t/agent.log" | has 'older' || fail "$what: nothing is said of it: $(tail -n "+$mark" "$t/agent.log")"
	fi
	echo "$what: well again after $((($(date +%s%N) - began) / 1000000)) ms"
	order=("${order[@]:1}")
done

what=end
ended "$agent_pid"
unharmed "$t/vm"
locum backup web01 --json >"$t/out" || fail "a backup after all that"
grep -q '"full": false, "scanned_disks": 0' "$t/out" || fail "the backup after all that is not incremental: $(cat "$t/out")"
nothing_lost
ids_at_replica web01 >"$t/all"
cp "$t/all" "$t/ids"
[ "$rounds" -gt 20 ] || awk 'NR % 4 == 1 { print } { last = $0 } END { print last }' "$t/all" >"$t/ids"
while read -r id; do
	one_instant web01 "$id"
done <"$t/ids"
at_replica verify web01 --quiet || fail "verify at the replica"
locum verify web01 --quiet || fail "verify here"
echo "$rounds rounds, $(wc -l <"$t/all") points at the replica, $(wc -l <"$t/ids") looked at, of one instant each; slowest write of the guest $slowest ms"
