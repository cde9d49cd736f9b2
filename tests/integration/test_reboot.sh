#!/bin/bash
# The host is switched off in the middle of a backup, and on again: what lay on its tmpfs is gone, all QEMUs are others.  Each
# VM is compared once and is incremental from then on; and no more VMs are read at once than `jobs` says, as all of them have
# to be read as a whole now.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
at_end() { [ -z "${pid:-}" ] || kill -9 "$pid" 2>/dev/null || true; }
scenario_begin reboot

vms=(a b c)
put() { # VM PATTERN OFFSET LENGTH
	local n
	n=$(grep -c '^wrote' "$t/vm-$1/qemu.log" || true)
	guest_qmp "$t/vm-$1" "{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"qemu-io -d vd0 \\\"write -P $2 $3 $4\\\"\"}}" >/dev/null
	guest_qmp "$t/vm-$1" "{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"qemu-io -d vd0 flush\"}}" >/dev/null
	[ "$(grep -c '^wrote' "$t/vm-$1/qemu.log")" -gt "$n" ] || fail "write to $1: $(tail -n 2 "$t/vm-$1/qemu.log")"
}
boot() {
	local vm i
	for vm in "${vms[@]}"; do
		guest_start "$t/vm-$vm" -b scsi -w '' -x -S "$t/$vm.raw"
	done
	for vm in "${vms[@]}"; do
		for ((i = 0; i < 200; i++)); do
			[ ! -S "$t/vm-$vm/qmp2" ] || break
			sleep 0.05
		done
	done
}
# Everything ends at once, and the tmpfs is empty.
host_off() {
	local vm
	[ -z "${pid:-}" ] || kill -9 "$pid" 2>/dev/null || true
	for vm in "${vms[@]}"; do
		guest_kill "$t/vm-$vm"
	done
	[ -z "${pid:-}" ] || wait "$pid" 2>/dev/null || true
	rm -rf "$t/run"
}
snapshots() { # how many VMs have one now
	local vm n=0
	for vm in "${vms[@]}"; do
		! guest_qmp "$t/vm-$vm" '{"execute":"query-named-block-nodes","arguments":{"flat":true}}' |
			has '"node-name": *"locum\.[0-9a-f]*\.c' || n=$((n + 1))
	done
	echo $n
}

for vm in "${vms[@]}"; do
	head -c 24M /dev/urandom >"$t/$vm.raw"
	scenario_vm "$vm" "qmp = $t/vm-$vm/qmp"
done
boot
locum backup --all --quiet || fail "the first points"
for vm in "${vms[@]}"; do
	put "$vm" 0x11 1M 64k
	backup "$vm" incremental
	put "$vm" 0x12 2M 64k
done

# Off in the middle of a snapshot.
LOCUM_FAILPOINT=backup.taken:1:stop "$bin/locum" backup a >"$t/out" 2>"$t/err" &
pid=$!
stopped $pid
put a 0x13 3M 64k
host_off
pid=''
boot
for vm in "${vms[@]}"; do
	put "$vm" 0x14 4M 64k
	backup "$vm" compared
	grep -q 'QEMU was restarted' "$t/out" || fail "why: $(cat "$t/out")"
	same_as "$vm" vd0="$t/$vm.raw"
	put "$vm" 0x15 5M 64k
	backup "$vm" incremental
	[ "$(figure changed_bytes)" = 65536 ] || fail "one window was written, not $(cat "$t/out")"
	same_as "$vm" vd0="$t/$vm.raw"
done
echo "host switched off in the middle: compared, then incremental"

# Of all of them, as after that: at its second snapshot `jobs = 1` has one, as the first one was given back.
limited() { # WHAT JOBS COMMAND...
	local what=$1 jobs=$2 n
	shift 2
	host_off
	boot
	sed -i '/^jobs/d' "$LOCUM_CONFIG"
	sed -i "/^run_dir/a jobs = $jobs" "$LOCUM_CONFIG"
	LOCUM_FAILPOINT=backup.taken:2:stop "$@" >"$t/out" 2>"$t/err" &
	pid=$!
	stopped $pid
	n=$(snapshots)
	kill -CONT $pid
	echo "$what, jobs = $jobs: $n VMs are read at once"
	[ "$n" -le "$jobs" ] || fail "$what: $n VMs are read at once, and jobs is $jobs"
	[ "$jobs" = 1 ] || [ "$n" -gt 1 ] || fail "$what: the test does not see two at once"
}
limited "backup --all" 1 "$bin/locum" backup --all
wait $pid || fail "backup --all: $(cat "$t/err")"
limited "backup --all" 3 "$bin/locum" backup --all
wait $pid || fail "backup --all: $(cat "$t/err")"
sed -i '/^run_dir/a rpo = 1s' "$LOCUM_CONFIG"
limited "agent" 1 "$bin/locum" agent
kill $pid
wait $pid || fail "agent: $(cat "$t/err")"
pid=''
for vm in "${vms[@]}"; do
	left=$(guest_qmp "$t/vm-$vm" '{"execute":"query-named-block-nodes","arguments":{"flat":true}}' |
		grep -o '"node-name": *"locum[^"]*"' || true)
	[ -z "$left" ] || fail "left in $vm: $left"
done
locum verify --all --quiet || fail "verify"
