#!/bin/bash
# Two hosts share a store at the other site, continuously: test_domain_sites.sh [POINTS]
#
# Both agents run in the host's network namespace, with a wire of 100 Mbit/s to the replica's; each protects a guest that
# writes all the time, with a goal of a second.  The replica is killed once while both send.  When it has POINTS points of
# each VM (default 20) every one of them is restored there and judged: one instant, no number missing, none torn.
set -euo pipefail
# shellcheck source=tests/lib/sites.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/sites.sh"

points=${1:-20} b_pid=''
scenario_begin domain-sites
at_end() {
	[ -z "$b_pid" ] || kill -9 "$b_pid" 2>/dev/null
	sites_end
}
sites_begin
wire_shape 100 10
host_b() { LOCUM_CONFIG=$t/b.conf at_host_site "$bin/locum" "$@"; }

sed -i "/^store =/a rpo = 1s" "$LOCUM_CONFIG"
cat >"$t/b.conf" <<-END
	[locum]
	store = $t/bstore
	rpo = 1s
	run_dir = $t/brun
	scratch_dir = $t/bscratch
	key_dir = $t/bkeys
	[vm web2]
	qmp = $t/vm2/qmp
END
for i in 1 2; do
	mapfile -t disks < <("$src/tests/guest/mkdisks.sh" "$t/img$i" --size 48 --fs-size 0)
	guest_start "$t/vm$i" -m 128 -s blockdev -a 'seq.load=200 seq.disks=vda,vdb' -w '' "${disks[@]}"
done
scenario_vm web1 "qmp = $t/vm1/qmp"
replica_start
sites_pair
host_b pair --join --name dr --as host-b --recovery-code-file "$t/kit" --quiet \
	"$(locum token --join host-a --dir "$t/drfs/dr" --address "$REPLICA_ADDRESS:$port")" || fail "joining"
[ "$(find "$t/drfs/dr/stores" -mindepth 1 -maxdepth 1 | wc -l)" = 1 ] || fail "two stores at the replica"
for i in 1 2; do
	guest_wait "$t/vm$i" '^SEQ start' 60 >/dev/null
	guest_past "$t/vm$i" 0
done

agent_start
_launch "$ns_host" "$t/b.log" "LOCUM_CONFIG=$t/b.conf" "$bin/locum" agent
b_pid=$!
enough() { # POINTS of both
	local i k
	for i in 1 2; do
		for ((k = 0; k < $1 * 100; k++)); do
			[ "$(ids_at_replica "web$i" 2>/dev/null | wc -l)" -lt "$1" ] || break
			kill -0 "$agent_pid" 2>/dev/null || fail "an agent died: $(tail -n 5 "$t/agent.log")"
			kill -0 "$b_pid" 2>/dev/null || fail "an agent died: $(tail -n 5 "$t/b.log")"
			sleep 0.2
		done
	done
}
enough 3
killed "$replica_pid"
replica_start
enough "$points"
ended "$agent_pid"
ended "$b_pid"
b_pid=''
n=0
for i in 1 2; do
	unharmed "$t/vm$i"
	ids_at_replica "web$i" >"$t/ids"
	[ "$(wc -l <"$t/ids")" -ge "$points" ] || fail "web$i: $(wc -l <"$t/ids") points at the replica"
	while read -r id; do
		one_instant "web$i" "$id"
		n=$((n + 1))
	done <"$t/ids"
done
echo "$n points of two hosts in one store, of one instant each"
