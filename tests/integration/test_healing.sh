#!/bin/bash
# Contents that went bad in the store come back with the next backup, though the guest wrote nothing since: for a VM that
# runs and for one that is off, of which otherwise only changes are read, or nothing.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin healing

spoil() { # N: of the chunks, the first one of segment N
	python3 - "$t/store/segments" "$1" <<'PY'
import glob, sys
name = sorted(glob.glob(sys.argv[1] + "/*"))[int(sys.argv[2]) - 1]
with open(name, "r+b") as f:
    f.seek(5000)
    byte = f.read(1)
    f.seek(5000)
    f.write(bytes([byte[0] ^ 1]))
PY
}

for vm in web01 db01; do
	dd if=/dev/urandom of="$t/$vm" bs=1M count=1 2>/dev/null
	truncate -s 4M "$t/$vm"
done
scenario_vm web01 "qmp = $t/vm/qmp"
scenario_vm db01 "disk = vda raw $t/db01"
qemu_stands "$t/web01"
sleep 2.1 # or the times of the image can't tell that it did not change
for vm in web01 db01; do
	backup "$vm" full
	backup "$vm" unchanged
	spoil 1
	locum scrub | has "$vm" && fail "scrub says that all is well"
	locum verify "$vm" >/dev/null 2>&1 && fail "$vm: verified, though a chunk is bad"
	backup "$vm" compared
	locum verify "$vm" >/dev/null || fail "$vm: still bad after a backup"
	backup "$vm" unchanged
	mkdir "$t/back"
	locum restore "$vm" --to "$t/back" --quiet || fail "restore of $vm"
	cmp "$t"/back/*d[0a].raw "$t/$vm" || fail "$vm: other bytes than its disk has"
	rm -r "$t/back"
	rm -r "$t/store"
	locum store init --kit "$t/kit.$vm" >/dev/null
done
