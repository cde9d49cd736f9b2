#!/bin/bash
# There and back: the host is killed, its VM runs at the other site, is protected there and sent home, and goes on at home with
# all that it wrote meanwhile; then its points go to the other site again, and only what differs does.
#
# test_failback.sh [lost]: with `lost` the host comes back without its store.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
lost=${1:-}
scenario_begin failback
command -v nbdkit >/dev/null || {
	echo "SKIP: no nbdkit"
	exit 77
}

# shellcheck source=tests/lib/wayback.sh
. "$src/tests/lib/wayback.sh"
at_end() {
	kill -9 $replica_pid $home_pid 2>/dev/null
	at_dr vm stop web01 --force >/dev/null 2>&1
	locum vm stop web01 --force >/dev/null 2>&1
}
last() { { grep -ao 'SEQ [0-9]* rate' "$1" 2>/dev/null || true; } | tail -n 1 | tr -dc 0-9; }
runs() { # SERIAL NUMBER WHEN: until it has reported a number greater than that
	local i n
	for ((i = 0; i < 900; i++)); do
		n=$(last "$1")
		[ "${n:-0}" -le "$2" ] || break
		sleep 0.1
	done
	((i < 900)) || fail "$3: the guest does not write: $(tail -n 3 "$1")"
	! grep -aE 'I/O error|WRITE-ERROR|FS-ERROR' "$1" || fail "$3: the guest saw an error"
	! grep -a 'SEQ check' "$1" | grep -avE 'SEQ check (ok|empty)' || fail "$3: the guest lacks what it wrote"
}
newest() { # IMAGE...: the number that they show; they are of one instant
	"$GUEST_OUT/seqcheck" --strict --json "$@" >"$t/seq" 2>&1 || fail "not of one instant: $(cat "$t/seq")"
	grep -oE '"newest":[0-9]+' "$t/seq" | tr -dc 0-9
}

# ---- home, as ever ----
mkdir "$t/img"
head -c 32M /dev/urandom >"$t/img/fill.raw" # nobody writes there, so it does not go again
mapfile -t disks < <("$src/tests/guest/mkdisks.sh" "$t/img" --size 96 --fs-size 0)
scenario_vm web01 "memory = 128 MiB" "kernel = $GUEST_OUT/vmlinux" "initrd = $GUEST_OUT/initrd.img" \
	"append = $GUEST_APPEND seq.load=300 seq.disks=vda,vdb" "disk = vd0 raw ${disks[0]}" "disk = vd1 qcow2 ${disks[1]}" \
	"disk = fill raw $t/img/fill.raw"
locum vm start web01 --quiet || fail "vm start"
serial=$t/run/web01/serial.log
runs "$serial" 20 "at home"
replica_start
locum pair --name dr --as home --quiet "$(locum token --dir "$t/dr" --address "127.0.0.1:$port")"
locum backup web01 --to dr --quiet || fail "backup at home"
old=$(point_ids web01 | tail -n 1)
runs "$serial" "$(($(last "$serial") + 50))" "at home"
locum backup web01 --to dr --quiet || fail "the last backup at home"
before=$(last "$serial")

# ---- home burns ----
kill -9 "$(cut -d " " -f 1 "$t/run/web01/pid")" || fail "nothing to kill"
[ -z "$lost" ] || rm -rf "$t/store"
rm -rf "$t/img" "$t/run"

# ---- at the other site: boot, then protect what runs there in a store of that machine ----
dr_conf
at_dr boot web01 --quiet --store "$(echo "$t"/dr/stores/*)" --recovery-code-file "$t/kit" || fail "boot at the other site"
serial=$t/dr-run/web01/serial.log
runs "$serial" "$((before > 60 ? before - 60 : 0))" "at the other site"
at_dr store init --kit "$t/dr-kit" --quiet || fail "store init at the other site"
at_dr backup web01 --quiet || fail "backup at the other site"
runs "$serial" "$(($(last "$serial") + 50))" "at the other site"

# ---- home is mended: it is the other one's replica until the VM is back ----
home_start
at_dr pair --name home --as dr --quiet "$(locum token --dir "$t/back" --address "$home")" || fail "pairing with home"
for ((i = 0; i < 3; i++)); do # seeds it, then what changes
	at_dr backup web01 --to home --quiet || fail "backup $i on to home"
	runs "$serial" "$(($(last "$serial") + 30))" "at the other site, protected"
done
# The services are stopped; one more, and the VM is off.
there=$(last "$serial")
at_dr backup web01 --to home --quiet || fail "the last backup at the other site"
at_dr vm stop web01 --force >/dev/null || fail "vm stop at the other site"

# ---- and back ----
back=$(echo "$t"/back/stores/*)
locum restore web01 --to "$t/images" --quiet --store "$back" --recovery-code-file "$t/dr-kit" || fail "restore at home"
n=$(newest "$t"/images/web01-v*.raw)
[ "$n" -ge "$there" ] || fail "home has $n, and $there were written at the other site"
sed -i '/^\[vm web01\]/,$d' "$LOCUM_CONFIG"
sed -n '/^\[vm web01\]/,$p' "$t/images/web01.conf" >>"$LOCUM_CONFIG"
locum vm start web01 --quiet || fail "vm start at home"
serial=$t/run/web01/serial.log
runs "$serial" "$n" "at home again"

# ---- protected as before: the same VM goes on, and only differences cross the line ----
[ -z "$lost" ] || locum recall dr --quiet || fail "recall"
was=$(bytes_at_dr)
locum backup web01 --to dr --quiet 2>"$t/err" || fail "the first backup at home again: $(cat "$t/err")"
grew=$(($(bytes_at_dr) - was))
[ $grew -lt $((was / 2)) ] || fail "$grew bytes went to the other site, where $was were"
at_replica points web01 --json >"$t/out"
[ "$(grep -c '"id"' "$t/out")" = 3 ] || fail "not one VM with three points: $(cat "$t/out")"
at_replica verify web01 --quiet || fail "verify at the other site"
at_replica restore web01 --to "$t/new" --quiet || fail "restore of the newest there"
[ "$(newest "$t"/new/web01-v*.raw)" -ge "$n" ] || fail "the newest point there is an old one"
at_replica restore "web01@$old" --to "$t/old" --quiet || fail "restore of a point from before"
[ "$(newest "$t"/old/web01-v*.raw)" -lt "$before" ] || fail "the point from before is another one"
echo "there and back: $before at home, $there at the other site, $(last "$serial") at home; $grew of $was bytes went again"
