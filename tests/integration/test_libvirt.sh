#!/bin/bash
# Domains of libvirt: test_libvirt.sh [POINTS]
#
# A domain with a raw and a qcow2 disk, of a libvirtd of the test's own whose QEMU runs as nobody.  It is found without a
# section of its own and its points are of one instant (see test_law1.sh), whatever libvirt does with the domain between and
# during cycles; nothing of its description changes.  A point is restored as another domain there, which runs on.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
# shellcheck source=tests/lib/libvirt.sh
. "$src/tests/lib/libvirt.sh"
at_end() { libvirt_end; }

points=${1:-3}
scenario_begin libvirt
libvirt_begin
sed -i "/^store/a libvirt = $uri" "$LOCUM_CONFIG"
mapfile -t disks < <("$src/tests/guest/mkdisks.sh" "$t/img")
chmod 755 "$t/img"
libvirt_guest web01 'seq.load=400 fs=vdb2 seq.disks=vda,vdb' "${disks[@]}"
dir=$t/d-web01
virsh_t dumpxml --inactive web01 >"$t/before.xml"
virsh_t dumpxml web01 >"$t/live.xml"
guest_past "$dir" 0

locum vm list >"$t/out"
grep -q '^web01 *running *libvirt' "$t/out" || fail "vm list: $(cat "$t/out")"

# A point: of one instant, its ext4 clean.
check_point() { # POINT
	locum restore "web01@$1" --to "$t/r" --quiet || fail "restore of $1"
	"$GUEST_OUT/seqcheck" --strict "$t/r/web01-vda.raw" "$t/r/web01-vdb.raw" >"$t/seq" 2>&1 ||
		fail "point $1 is not of one instant: $(cat "$t/seq")"
	"$src/tests/guest/fscheck.sh" -f raw "$t/r/web01-vdb.raw" >"$t/fs" 2>&1 || fail "point $1: ext4: $(cat "$t/fs")"
	rm -rf "$t/r"
}

locum backup --all --json >"$t/out" 2>"$t/err" || fail "backup --all: $(cat "$t/out" "$t/err")"
grep -q '"full": true' "$t/out" || fail "the first point: $(cat "$t/out")"
for ((i = 1; i <= points; i++)); do
	before=$(guest_last "$dir")
	backup web01 incremental
	figure pause_ms >>"$t/pauses"
	check_point "$(grep -o '"point": "[0-9a-f]*"' "$t/out" | grep -o '[0-9a-f]\{32\}')"
	guest_past "$dir" "${before:-0}"
	moment 300
done
sort -n "$t/pauses" | tail -n 1 | sed 's/^/longest pause in ms: /'
unharmed "$dir"
