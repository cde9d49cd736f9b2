#!/bin/bash
# Whose restore points are whose: clones, copies and two of one name are told apart before anything is stored; and a VM is
# given up without a trace.  The guests stand still.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin identity

one=6a1f0000-0000-4000-8000-000000000001 two=6a1f0000-0000-4000-8000-000000000002
boot() { # VM UUID DISK...
	local dir=$t/$1 uuid=$2 i
	shift 2
	guest_start "$dir" -b scsi -w '' -x -S -x -uuid -x "$uuid" "$@"
	for ((i = 0; i < 200; i++)); do
		[ ! -S "$dir/qmp2" ] || return 0
		sleep 0.05
	done
	fail "QEMU does not start: $(cat "$dir/qemu.log")"
}
truncate -s 4M "$t/a.raw" "$t/c.raw" "$t/d.raw" "$t/e.raw"
qemu-img create -q -f qcow2 "$t/b.qcow2" 4M
count() { point_ids "$1" 2>/dev/null | wc -l; }
bitmaps() { # VM
	guest_qmp "$t/$1" '{"execute":"query-named-block-nodes","arguments":{"flat":true}}' | grep -o '"name": *"locum\.[^"]*"' || true
}

boot vm $one "$t/a.raw" "$t/b.qcow2"
scenario_vm web01 "qmp = $t/vm/qmp"
backup web01 full

# ---- a clone, with the same UUID and a section of its own ----
boot vm2 $one "$t/c.raw"
scenario_vm clone "qmp = $t/vm2/qmp"
refused 1 "clone: it has the UUID of web01 \($one\).*name its section \[vm web01\].*uuid = $one in \[vm clone\]" locum backup clone
cat "$t/refused"
[ "$(count clone)" = 0 ] || fail "a point was made of the clone"
# What it says helps.
cp "$LOCUM_CONFIG" "$t/saved"
echo "uuid = $one" >>"$LOCUM_CONFIG"
backup clone full
backup clone incremental
cp "$t/saved" "$LOCUM_CONFIG"
backup clone incremental # it has points of its own by now
# Off, it is still found: a section with nothing but a UUID does not say where its disks are.
echo "uuid = $one" >>"$LOCUM_CONFIG"
guest_kill "$t/vm2"
backup clone compared
same_as clone "vd0=$t/c.raw"
cp "$t/saved" "$LOCUM_CONFIG"

# ---- another VM behind the socket of web01 ----
guest_kill "$t/vm"
boot vm $two "$t/d.raw"
points=$(count web01)
refused 1 "web01: this VM has the UUID $two, and the restore points of web01 are of one with the UUID $one.*a section of its own.*uuid = $two in \[vm web01\]" \
	locum backup web01
cat "$t/refused"
rc=0
locum backup --all --json >"$t/out" 2>/dev/null || rc=$?
[ $rc = 3 ] || fail "--all with one of two that fails: exit status $rc: $(cat "$t/out")"
[ "$(count web01)" = "$points" ] || fail "a point of another VM was made"
[ -z "$(bitmaps vm)" ] || fail "left in it: $(bitmaps vm)"
sed -i "/^\[vm web01\]/a uuid = $two" "$LOCUM_CONFIG"
backup web01 compared
cp "$t/saved" "$LOCUM_CONFIG"
guest_kill "$t/vm"
# The same VM again, without any UUID: a hint that is not there says nothing.
boot vm 00000000-0000-0000-0000-000000000000 "$t/d.raw"
locum backup web01 || fail "without a UUID"
guest_kill "$t/vm"

# ---- two of one name ----
scenario_vm twice "memory = 128 MiB" "disk = vda raw $t/a.raw" "qmp = $t/vm3/qmp"
locum vm start twice --quiet || fail "vm start"
backup twice full
boot vm3 $two "$t/e.raw"
refused 1 "twice: two VMs of that name run: one behind $t/vm3/qmp, and one that locum booted \(pid [0-9]+, $t/run/twice\).*locum vm stop twice" locum backup twice
cat "$t/refused"
locum vm stop twice --force --quiet
locum backup twice || fail "with one of the two"

# ---- a qcow2 file that was copied with a record of changes in it ----
qemu-img create -q -f qcow2 "$t/copied.qcow2" 4M
name=$(bitmaps vm3 | sed -n 1p | sed 's/.*"\(locum[^"]*\)"/\1/')
[ -n "$name" ] || fail "no record of changes"
qemu-img bitmap --add -f qcow2 "$t/copied.qcow2" "$name"
qemu-img bitmap --add -f qcow2 "$t/copied.qcow2" theirs
guest_kill "$t/vm3"
boot vm3 $two "$t/copied.qcow2"
locum backup twice --json >"$t/out" || fail "with a copied record"
grep -q '"scanned_disks": [1-9]\|"full": true' "$t/out" || fail "a copied record was believed: $(cat "$t/out")"
same_as twice "vd0=$t/copied.qcow2"

# ---- unprotect ----
[ -n "$(bitmaps vm3)" ] || fail "no record of changes to remove"
points=$(count twice)
locum unprotect twice >"$t/out" || fail "unprotect"
grep -q "remove \[vm twice\] from" "$t/out" || fail "it does not say what is left to do: $(cat "$t/out")"
[ -z "$(bitmaps vm3)" ] || fail "unprotect left: $(bitmaps vm3)"
[ "$(count twice)" = "$points" ] || fail "unprotect dropped points"
locum unprotect twice --json | has '"clean": true.*"configured": true' || fail "again: $(locum unprotect twice --json)"
backup twice compared # protected anew
guest_qmp "$t/vm3" '{"execute":"query-status"}' | has return || fail "QEMU died"
# Killed in it, at each step: the next one removes the rest, and the VM can be protected again.
for place in look remove rest; do
	rc=0
	LOCUM_FAILPOINT=hv.forget.$place:1:kill locum unprotect twice >"$t/out" 2>&1 || rc=$?
	[ "$rc" = 137 ] || fail "not killed at hv.forget.$place (status $rc): $(cat "$t/out")"
	locum unprotect twice --quiet || fail "unprotect, after it was killed at hv.forget.$place"
	[ -z "$(bitmaps vm3)" ] || fail "unprotect left, after it was killed at hv.forget.$place: $(bitmaps vm3)"
	backup twice compared
done
# What a dead backup left goes too.
# (Of a VM that stands still, without a record of changes: else there is nothing to do.)
locum unprotect twice --quiet || fail "unprotect"
LOCUM_FAILPOINT=backup.taken:1:stop "$bin/locum" backup twice >/dev/null 2>&1 &
pid=$!
stopped $pid
refused 1 'another client holds the monitor' locum unprotect twice
kill -KILL $pid
{ wait $pid || true; } 2>/dev/null
locum unprotect twice --quiet || fail "after a dead backup"
! guest_qmp "$t/vm3" '{"execute":"query-named-block-nodes","arguments":{"flat":true}}' | has '"node-name": *"locum' || fail "nodes left"
[ -z "$(bitmaps vm3)" ] || fail "unprotect left: $(bitmaps vm3)"
# Off: in the image.  Only what is ours.
guest_kill "$t/vm3" # so the record in it was not closed, either
has() { qemu-img info --output=json "$t/copied.qcow2" | grep -c "\"name\": \"$1" || true; }
qemu-img bitmap --add -f qcow2 "$t/copied.qcow2" locum.0123abcd.x
{ [ "$(has locum)" -ge 1 ] && [ "$(has theirs)" = 1 ]; } || fail "the image has no records"
qemu-nbd --fork --pid-file="$t/nbd.pid" -t -f qcow2 -k "$t/nbd" "$t/copied.qcow2" # which has the image then
at_end() { kill "$(cat "$t/nbd.pid")" 2>/dev/null || true; }
refused 1 'in use by another process' locum unprotect --offline "$t/copied.qcow2"
pid=$(cat "$t/nbd.pid")
kill "$pid"
while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
at_end() { :; }
locum unprotect --offline "$t/copied.qcow2" >"$t/out" || fail "--offline"
{ [ "$(has locum)" = 0 ] && [ "$(has theirs)" = 1 ]; } || fail "--offline: $(qemu-img info "$t/copied.qcow2")"
qemu-img check -q "$t/copied.qcow2" || fail "the image is not sound"
cp "$t/copied.qcow2" "$t/guest.raw"
refused 2 'looks like qcow2 inside' locum unprotect --offline "$t/guest.raw"
locum unprotect --offline "$t/guest.raw" --image-format raw --quiet
cmp "$t/copied.qcow2" "$t/guest.raw" || fail "a raw image was written to"
refused 2 'give a VM, or an image' locum unprotect
refused 2 'give a VM, or an image' locum unprotect twice --offline "$t/a.raw"
refused 1 'no VM nobody' locum unprotect nobody
locum verify --all --quiet || fail "verify"
echo "clones, copies, two of one name, and nothing left of one that is given up"
