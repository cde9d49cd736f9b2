#!/bin/bash
# The way home without guests, so that it is walked each time: a VM that is off is lost, gets its disks at the other site, is
# protected there and sent home, and goes on at home as the same VM; only what differs crosses the line.  With the host's store
# still there, and without it.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin back

# shellcheck source=tests/lib/wayback.sh
. "$src/tests/lib/wayback.sh"
at_end() { kill -9 $replica_pid $home_pid 2>/dev/null; }
scribble() { # IMAGE MIB: one MiB anew
	dd if=/dev/urandom of="$1" bs=1M count=1 seek="$2" conv=notrunc status=none
}
section() { sed -n '/^\[vm web01\]/,$p' "$1"; }

mkdir "$t/img"
dd if=/dev/urandom of="$t/img/a.raw" bs=1M count=16 status=none
scenario_vm web01 "memory = 128 MiB" "disk = vd0 raw $t/img/a.raw"
replica_start
locum pair --name dr --as home --quiet "$(locum token --dir "$t/dr" --address "127.0.0.1:$port")"
locum backup web01 --to dr --quiet || fail "the first backup at home"
scribble "$t/img/a.raw" 3
locum backup web01 --to dr --quiet || fail "the second backup at home"
cp "$t/img/a.raw" "$t/old.raw"
home_start

# There.
dr_conf
mkdir "$t/dr-img" "$t/images"
at_dr restore web01 --to "$t/dr-img" --quiet --store "$(echo "$t"/dr/stores/*)" --recovery-code-file "$t/kit" || fail "restore there"
section "$t/dr-img/web01.conf" >>"$t/dr.conf"
at_dr store init --kit "$t/dr-kit" --quiet >/dev/null || fail "store init there"
at_dr backup web01 --quiet || fail "backup there"
at_dr pair --name home --as dr --quiet "$(locum token --dir "$t/back" --address "$home")" || fail "pairing with home"
scribble "$t/dr-img/web01-vd0.raw" 5
at_dr backup web01 --to home --quiet || fail "backup there, on to home"

for way in kept lost; do
	scribble "$t/dr-img/web01-vd0.raw" 7
	at_dr backup web01 --to home --quiet || fail "$way: the last backup there"
	rm -rf "$t/img" "$t/run" "$t/images"
	[ $way = kept ] || rm -rf "$t/store"
	mkdir "$t/images"
	# And back.
	locum restore web01 --to "$t/images" --quiet --store "$(echo "$t"/back/stores/*)" --recovery-code-file "$t/dr-kit" ||
		fail "$way: restore at home"
	cmp "$t/images/web01-vd0.raw" "$t/dr-img/web01-vd0.raw" || fail "$way: home has other bytes"
	sed -i '/^\[vm web01\]/,$d' "$LOCUM_CONFIG"
	section "$t/images/web01.conf" >>"$LOCUM_CONFIG"
	[ $way = kept ] || locum recall dr --quiet || fail "recall"
	was=$(bytes_at_dr)
	n=$(at_replica points web01 --json | grep -c '"id"')
	locum backup web01 --to dr --quiet 2>"$t/err" || fail "$way: the first backup at home again: $(cat "$t/err")"
	grew=$(($(bytes_at_dr) - was))
	[ $grew -lt $((4 << 20)) ] || fail "$way: $grew bytes were sent for what differs"
	[ "$(at_replica points web01 --json | grep -c '"id"')" = $((n + 1)) ] || fail "$way: not the same VM: $(at_replica points)"
	at_replica restore web01 --to "$t/r.raw" --quiet || fail "$way: restore there"
	cmp "$t/r.raw" "$t/images/web01-vd0.raw" || fail "$way: the newest point there is another one"
	rm "$t/r.raw"
done
old=$(at_replica points web01 --json | grep -o '"id": *"[0-9a-f]*"' | sed -n 2p | grep -o '[0-9a-f]\{32\}')
at_replica restore "web01@$old" --to "$t/r.raw" --quiet || fail "restore of a point from before"
cmp "$t/r.raw" "$t/old.raw" || fail "a point from before is another one"
echo "there and back, twice; $grew bytes were sent for 1 MiB that differs"
