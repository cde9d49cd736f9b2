#!/bin/bash
# A guest that boots from its own disk, by its own boot loader: protected while it runs, lost, booted from the store.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"

scenario_begin loader
"$src/tests/guest/build-guest.sh" "$GUEST_OUT" >"$t/build" 2>&1 || fail "no test guest: $(tail -n 1 "$t/build")"
"$src/tests/guest/mkbootdisk.sh" "$GUEST_OUT" "$t/boot.raw" >"$t/build" 2>&1 || fail "no boot disk: $(tail -n 1 "$t/build")"
mapfile -t disks < <("$src/tests/guest/mkdisks.sh" "$t/img")
scenario_vm web01 'memory = 256 MiB' "disk = vda raw $t/boot.raw boot=1" "disk = vdb raw ${disks[0]}" \
	"disk = vdc qcow2 ${disks[1]}"

locum vm start web01
for ((i = 0; i < 600; i++)); do
	! grep -aqs '^SEQ .* rate' "$t/run/web01/serial.log" || break
	sleep 0.1
done
grep -aq '^SEQ start' "$t/run/web01/serial.log" || fail "the guest does not boot by itself: $(tail -c 300 "$t/run/web01/serial.log")"
backup web01 full
backup web01 incremental
before=$(grep -ao 'SEQ [0-9]* rate' "$t/run/web01/serial.log" | tail -n 1 | tr -dc 0-9)
locum vm stop web01 --force
rm -rf "$t/boot.raw" "$t/img"

locum boot web01 --serial-pattern 'SEQ start' --json >"$t/out" || fail "boot: $(cat "$t/out")"
at=$(grep -ao 'SEQ start [0-9]*' "$t/run/web01/serial.log" | tail -n 1 | tr -dc 0-9)
[ "${at:-0}" -gt 0 ] || fail "it does not find what it had written ($before)"
backup web01 compared # it is another QEMU
locum vm stop web01 --force
locum verify web01 --quiet || fail "verify"
echo "booted by its own loader, at number $at"
