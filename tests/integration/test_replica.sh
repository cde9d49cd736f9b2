#!/bin/bash
# The other site: pair, back up with --to, lose the host, restore from the replica's folder and the recovery code alone.
#
# A guest with a raw and a qcow2 disk writes increasing numbers.  Every point at the replica is of one instant, and the
# same bytes as here.  The replica is killed while it takes points, and goes on; strangers and revoked hosts are refused.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"

points=${1:-5}
scenario_begin replica

third_pid=''
at_end() { kill -9 $replica_pid $third_pid 2>/dev/null; }

mapfile -t disks < <("$src/tests/guest/mkdisks.sh" "$t/img")
scenario_vm vm-that-nobody-names "qmp = $t/vm/qmp"
guest_start "$t/vm" -s blockdev -a 'seq.load=400 seq.disks=vda,vdb' "${disks[@]}"
guest_past "$t/vm" 0
replica_start

refused 1 'no replica dr is known' locum backup vm-that-nobody-names --to dr
refused 2 'is no token' locum pair --name dr nonsense
token=$(locum token --dir "$t/dr" --address "127.0.0.1:$port")
locum pair --name dr --as host-a "$token" >"$t/pair"
refused 1 'was used' locum pair --name dr --as host-b "$token"
locum replica hosts --dir "$t/dr" | has '^host-a ' || fail "host-a is not listed"

for ((i = 1; i <= points; i++)); do
	locum backup vm-that-nobody-names --to dr --json >"$t/out" 2>"$t/err" || fail "backup $i: $(cat "$t/out" "$t/err")"
	id=$(grep -o '"point": "[0-9a-f]*"' "$t/out" | grep -o '[0-9a-f]\{32\}')
	at_replica restore "vm-that-nobody-names@$id" --to "$t/r" --quiet || fail "restore of point $i at the replica"
	images=("$t"/r/vm-that-nobody-names-v*.raw)
	[ ${#images[@]} = 2 ] || fail "point $i: $(ls "$t/r")"
	"$GUEST_OUT/seqcheck" --strict "${images[@]}" >"$t/seq" 2>&1 || fail "point $i is not of one instant: $(cat "$t/seq")"
	locum restore "vm-that-nobody-names@$id" --to "$t/h" --quiet
	for image in "${images[@]}"; do
		cmp "$image" "$t/h/$(basename "$image")" || fail "point $i has other bytes at the replica"
	done
	rm -rf "$t/r" "$t/h"
	if [ "$i" = 2 ]; then # what it was sent is durable
		kill -9 $replica_pid
		wait $replica_pid 2>/dev/null || true
		refused 3 'connection refused' locum backup vm-that-nobody-names --to dr
		replica_start
	fi
	moment 200
done
[ "$(at_replica points vm-that-nobody-names --json | grep -c '"id"')" = $((points + 1)) ] ||
	fail "the point that was made while the replica was down did not arrive: $(at_replica points vm-that-nobody-names)"
at_replica verify vm-that-nobody-names --quiet || fail "verify at the replica"

# It is blind: neither name nor content of the VM is in its folder, its log or its memory.
if grep -rqa -e vm-that-nobody-names -e 'SEQ start' "$t/dr" "$t/replica.log"; then
	fail "the replica's folder or log names the VM"
fi
refused 1 'no key' env LOCUM_CONFIG=/dev/null "$bin/locum" restore vm-that-nobody-names --to "$t/r" --store "$(echo "$t"/dr/stores/*)"

mv "$t/dr/writers" "$t/writers"
refused 3 "host $(sed -nE "s/^this host's +//p" "$t/pair") is not paired" locum backup vm-that-nobody-names --to dr
mv "$t/writers" "$t/dr/writers"
for ((i = 0; i < 100; i++)); do # it is written every second
	LOCUM_CONFIG=/dev/null locum status --dir "$t/dr" --json >"$t/out" 2>/dev/null || [ $? = 3 ] || fail "status of the replica"
	! grep -q '"age_s"' "$t/out" || break
	sleep 0.1
done
grep -q '"name": "host-a"' "$t/out" || fail "the replica's status does not list the host: $(cat "$t/out")"
grep -q vm-that-nobody-names "$t/out" && fail "the replica's status names the VM"
# It sends by command, and has just done so.
locum status --dir "$t/dr" >"$t/out" || fail "the replica's status ends with $?: $(cat "$t/out")"
grep -q '^host-a .*idle' "$t/out" || fail "the replica's status as a table: $(cat "$t/out")"

locum replica revoke host-a --dir "$t/dr" --quiet
refused 3 'was revoked' locum backup vm-that-nobody-names --to dr
token=$(locum token --dir "$t/dr" --address "127.0.0.1:$port")
locum pair --name dr --as host-a "$token" --quiet || fail "pairing again"
locum backup vm-that-nobody-names --to dr --quiet || fail "after pairing again"

# The host burns.
guest_kill "$t/vm"
rm -rf "$t/store" "$t/keys" "$t/img"
kill -9 $replica_pid
at_replica restore vm-that-nobody-names --to "$t/r" --quiet || fail "restore after the loss of the host"
"$GUEST_OUT/seqcheck" --strict "$t"/r/vm-that-nobody-names-v*.raw >"$t/seq" 2>&1 || fail "after the loss of the host: $(cat "$t/seq")"

# What it cannot read it passes on to a third site, of which the kit opens the copy, too.
: >"$t/third.log"
"$bin/locum" replica --dir "$t/third" --listen 127.0.0.1:0 >>"$t/third.log" 2>&1 &
third_pid=$!
for ((i = 0; i < 200; i++)); do
	! grep -q 'listens on port' "$t/third.log" || break
	sleep 0.05
done
third=127.0.0.1:$(sed -nE 's/.* listens on port ([0-9]+);.*/\1/p' "$t/third.log")
here=$(echo "$t"/dr/stores/*)
printf '[locum]\nkey_dir = %s\n' "$t/dr-keys" >"$t/dr.conf"
at_dr() { LOCUM_CONFIG=$t/dr.conf locum "$@" --store "$here"; }
refused 1 'locum pair' at_dr copy --to third
at_dr pair --name third --as dr --quiet "$(locum token --dir "$t/third" --address "$third")" || fail "pairing with a third site"
at_dr copy --to third --json >"$t/copied" || fail "copy to a third site: $(cat "$t/copied")"
grep -q "^{\"points\": $(at_replica points vm-that-nobody-names --json | grep -c '"id"'),.*\"failed\": 0" "$t/copied" || fail "copied: $(cat "$t/copied")"
at_dr copy --to third --json | has '^{"points": 0, "chunks": 0' || fail "copied twice"
! grep -rqa vm-that-nobody-names "$t/third" "$t/third.log" || fail "the third site knows the VM's name"
kill $third_pid
wait $third_pid || fail "the third site ended with $?"
rm -rf "$t/r"
LOCUM_CONFIG=/dev/null locum restore vm-that-nobody-names --to "$t/r" --quiet --store "$(echo "$t"/third/stores/*)" --recovery-code-file "$t/kit" ||
	fail "restore at the third site"
"$GUEST_OUT/seqcheck" --strict "$t"/r/vm-that-nobody-names-v*.raw >"$t/seq" 2>&1 || fail "at the third site: $(cat "$t/seq")"
echo "$((points + 2)) points at the replica, of one instant each"
