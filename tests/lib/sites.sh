#!/bin/bash
# Two sites for scenarios: network namespaces with a wire between them.  Source it instead of scenario.sh.
#
#   sites_begin               the namespaces, or the test ends as skipped
#   sites_end                 call it from at_end
#   replica_start, agent_start  in their namespaces, with replica_env, agent_env; pids in replica_pid, agent_pid
#   sites_pair                as "dr"
#   wire_shape MBIT [MS]      rate each way; delay each way where the kernel has netem
#   wire_cut                  reset every connection
#   wire_down, wire_up        the host's end has no link
#   wire_stall, wire_go       what the replica's end gets vanishes: half-open
#   at_replica COMMAND...     with no key but what the code opens
#
# The replica's folder is $t/drfs/dr, its log $t/replica.log, the agent's $t/agent.log.
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/scenario.sh"

HOST_ADDRESS=10.77.0.1 REPLICA_ADDRESS=10.77.0.2
port='' starts=0 replica_pid='' agent_pid=''
replica_env=() agent_env=()

sites_begin() {
	local id=$$ i
	[ "$(id -u)" = 0 ] || {
		echo "SKIP: network namespaces need root"
		exit 77
	}
	for i in ip tc ss; do
		command -v $i >/dev/null && continue
		echo "SKIP: $i is missing; install the package iproute2"
		exit 77
	done
	ns_host=l$id-h ns_replica=l$id-r
	if ! ip netns add "$ns_host" 2>"$t/netns" || ! ip netns add "$ns_replica" 2>"$t/netns" ||
		! ip link add "l$id-h" netns "$ns_host" type veth peer name "l$id-r" netns "$ns_replica" 2>"$t/netns"; then
		sites_end
		echo "SKIP: no network namespaces here: $(cat "$t/netns")"
		exit 77
	fi
	wire_host=l$id-h wire_replica=l$id-r
	ip -n "$ns_host" address add "$HOST_ADDRESS/30" dev "$wire_host"
	ip -n "$ns_replica" address add "$REPLICA_ADDRESS/30" dev "$wire_replica"
	ip -n "$ns_host" link set "$wire_host" up
	ip -n "$ns_replica" link set "$wire_replica" up
	mkdir -p "$t/drfs"
}

sites_end() {
	# shellcheck disable=SC2086 # none, one or two
	kill -9 $agent_pid $replica_pid 2>/dev/null
	ip netns delete "$ns_host" 2>/dev/null
	ip netns delete "$ns_replica" 2>/dev/null
	return 0
}

at_host_site() { nsenter --net="/run/netns/$ns_host" "$@"; }
at_replica_site() { nsenter --net="/run/netns/$ns_replica" "$@"; }
# In the background: exec, so that $! is the program and not a shell around it.
_launch() { # NAMESPACE LOG COMMAND...
	local ns=$1 log=$2
	shift 2
	(exec nsenter --net="/run/netns/$ns" env "$@" >>"$log" 2>&1) &
	disown $!
}

replica_start() {
	local i
	_launch "$ns_replica" "$t/replica.log" "${replica_env[@]}" "$bin/locum" replica --dir "$t/drfs/dr" --listen "$REPLICA_ADDRESS:${port:-0}"
	replica_pid=$!
	starts=$((starts + 1))
	touch "$t/replica.log"
	for ((i = 0; i < 200; i++)); do
		if [ "$(grep -c 'listens on port' "$t/replica.log")" -ge $starts ]; then
			port=$(sed -nE 's/.* listens on port ([0-9]+);.*/\1/p' "$t/replica.log" | tail -n 1)
			return 0
		fi
		kill -0 $replica_pid 2>/dev/null || fail "the replica does not start: $(tail -n 3 "$t/replica.log")"
		sleep 0.05
	done
	fail "the replica does not listen: $(tail -n 3 "$t/replica.log")"
}

agent_start() {
	_launch "$ns_host" "$t/agent.log" "${agent_env[@]}" "$bin/locum" agent
	agent_pid=$!
}

killed() { # PID: until it is gone
	local i
	kill -9 "$1" 2>/dev/null || true
	for ((i = 0; i < 500; i++)); do
		[ -e "/proc/$1/exe" ] || return 0
		sleep 0.01
	done
	fail "$1 does not die"
}

# In order; its last words are in the log.
ended() { # PID
	local i
	kill -TERM "$1" 2>/dev/null || true
	for ((i = 0; i < 1000; i++)); do
		kill -0 "$1" 2>/dev/null || return 0
		sleep 0.02
	done
	fail "process $1 does not end: $(tail -n 3 "$t/agent.log" "$t/replica.log")"
}

sites_pair() {
	at_host_site "$bin/locum" pair --name dr --as host-a --quiet \
		"$(locum token --dir "$t/drfs/dr" --address "$REPLICA_ADDRESS:$port")" || fail "pair"
}

at_replica() {
	LOCUM_CONFIG=/dev/null locum "$@" --store "$(echo "$t"/drfs/dr/stores/*)" --recovery-code-file "$t/kit"
}

wire_shape() { # MBIT [MS]
	local ns dev
	wire_delay_ms=${2:-0}
	for ns in "$ns_host $wire_host" "$ns_replica $wire_replica"; do
		dev=${ns#* } ns=${ns% *}
		tc -n "$ns" qdisc delete dev "$dev" root 2>/dev/null || true
		if [ "$wire_delay_ms" != 0 ] &&
			tc -n "$ns" qdisc add dev "$dev" root netem rate "${1}mbit" delay "${wire_delay_ms}ms" 2>/dev/null; then
			continue
		fi
		[ "$wire_delay_ms" = 0 ] || echo "no netem in this kernel: the wire has no delay"
		wire_delay_ms=0
		tc -n "$ns" qdisc add dev "$dev" root tbf rate "${1}mbit" burst 64k latency 200ms ||
			fail "no tbf in this kernel"
	done
}

wire_cut() {
	at_host_site ss -K dst "$REPLICA_ADDRESS" >/dev/null 2>&1 || true
	at_replica_site ss -K dst "$HOST_ADDRESS" >/dev/null 2>&1 || true
}
wire_down() { ip -n "$ns_host" link set "$wire_host" down; }
wire_up() { ip -n "$ns_host" link set "$wire_host" up; }
wire_stall() { ip -n "$ns_replica" route add blackhole "$HOST_ADDRESS/32"; }
wire_go() { ip -n "$ns_replica" route delete blackhole "$HOST_ADDRESS/32" 2>/dev/null || true; }

# Until the status says that; at most SECONDS (60).
status_has() { # REGEX [SECONDS]
	local until=$((SECONDS + ${2:-60}))
	while [ "$SECONDS" -lt "$until" ]; do
		locum status --json >"$t/status" 2>/dev/null || true
		! grep -qE "$1" "$t/status" || return 0
		kill -0 "$agent_pid" 2>/dev/null || fail "the agent died: $(tail -n 5 "$t/agent.log")"
		sleep 0.1
	done
	fail "'$1' did not come: $(cat "$t/status") $(tail -n 5 "$t/agent.log")"
}

points_made() { # VM: by this agent
	{ locum status --json 2>/dev/null || true; } | grep "\"vm\": \"$1\"" | sed -n 1p |
		sed -nE 's/.*"points": ([0-9]+), "failures".*/\1/p'
}

ids_at_replica() { # VM
	at_replica points "$1" --json | grep -o '"id": *"[0-9a-f]*"' | grep -o '[0-9a-f]\{32\}'
}

one_instant() { # VM ID: at the replica
	at_replica restore "$1@$2" --to "$t/r" --quiet || fail "restore of $1@$2"
	"$GUEST_OUT/seqcheck" --strict "$t/r/$1"-v*.raw >"$t/seq" 2>&1 || fail "$1@$2 is not of one instant: $(cat "$t/seq")"
	rm -rf "$t/r"
}
