#!/bin/bash
# Two hosts of one site share a store at the replica: test_domain.sh
#
# Both have a VM of the same system, off, so that this takes seconds.  The second one joins with a token and the kit of the
# first one; what both have is there once.  Either is restored there from the kit alone; one is revoked, loses its store, or
# gets a new data key, and the other one does not notice.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin domain
at_end() { kill -9 "$replica_pid" 2>/dev/null; }

# The second host: what it runs is in b.conf.
host_b() { LOCUM_CONFIG=$t/b.conf "$bin/locum" "$@"; }
bytes_there() { cat "$t"/dr/stores/*/segments/* | wc -c; }
token() { locum token --dir "$t/dr" --address "127.0.0.1:$port" "$@"; }
restored() { # VM IMAGE: from the replica's folder and the kit
	rm -rf "$t/r"
	mkdir "$t/r"
	at_replica restore "$1" --to "$t/r" --quiet || fail "restore of $1 at the replica"
	cmp "$(find "$t/r" -name '*.raw')" "$2" || fail "$1 has other bytes at the replica"
}
vm_id() { # NAME in the store of host b
	host_b points "$1" --json | grep -o '"vm_id": *"[0-9a-f]*"' | grep -o '[0-9a-f]\{32\}' | sed -n 1p
}

head -c 8M /dev/urandom >"$t/a.raw"
cp "$t/a.raw" "$t/b.raw"
printf 'another host' | dd of="$t/b.raw" bs=1 seek=3000000 conv=notrunc status=none
scenario_vm web01 "disk = vda raw $t/a.raw"
cat >"$t/b.conf" <<-END
	[locum]
	store = $t/bstore
	run_dir = $t/brun
	scratch_dir = $t/bscratch
	key_dir = $t/bkeys
	[vm web01]
	disk = vda raw $t/b.raw
	[vm db]
	disk = vda raw $t/b.raw
END
replica_start
locum pair --name dr --as host-a --quiet "$(token)"
locum backup web01 --to dr --quiet || fail "the first backup"
first=$(bytes_there)

# Joining takes the right kind of token, the right kit, and a host without a store.
refused 2 'recovery-code-file' host_b pair --join --name dr "$(token --join host-a)"
refused 1 'not for joining' host_b pair --join --name dr --recovery-code-file "$t/kit" "$(token)"
locum store init --store "$t/other" --kit "$t/otherkit" >/dev/null
host_b pair --join --name dr --as host-b --recovery-code-file "$t/otherkit" "$(token --join host-a)" 2>"$t/err" &&
	fail "joined with another kit"
grep -q 'finish with: locum recall dr' "$t/err" || fail "another kit: $(cat "$t/err")"
host_b recall dr --recovery-code-file "$t/kit" --quiet || fail "finishing it"
refused 1 'is a store already' host_b pair --join --name dr --recovery-code-file "$t/kit" "$(token --join host-a)"
[ "$(host_b key --json | grep -o '"domain": "[^"]*"')" = "$(locum key --json | grep -o '"domain": "[^"]*"')" ] ||
	fail "another key domain"
locum replica hosts --dir "$t/dr" | grep -A1 '^host-b' | has 'shared' || fail "sharing is not listed: $(locum replica hosts --dir "$t/dr")"

host_b backup web01 --to dr --quiet || fail "the first backup of the second host"
both=$(bytes_there)
echo "$first bytes for one host, $((both - first)) more for the other one"
[ $((both - first)) -lt $((first / 10)) ] || fail "what both have is there twice"
refused 2 'several VMs web01' at_replica restore web01 --to "$t/r"
a_id=$(locum points web01 --json | grep -o '"vm_id": *"[0-9a-f]*"' | grep -o '[0-9a-f]\{32\}' | sed -n 1p)
b_id=$(vm_id web01)
restored "${a_id:0:12}" "$t/a.raw"
restored "$b_id" "$t/b.raw"
at_replica points >"$t/out"
grep -q "^web01  (${b_id:0:8})" "$t/out" || fail "which web01 is which: $(cat "$t/out")"

# A new data key at one of them; then both have it.
locum key rotate --quiet
printf 'x' | dd of="$t/a.raw" bs=1 seek=100000 conv=notrunc status=none
locum backup web01 --to dr --quiet || fail "with a new data key"
printf 'y' | dd of="$t/b.raw" bs=1 seek=200000 conv=notrunc status=none
host_b backup web01 --to dr --quiet || fail "the other one, without it"
host_b recall dr --recovery-code-file "$t/kit" --quiet || fail "fetching the key"
[ "$(host_b key --json | grep -o '"data_key": [0-9]*')" = "$(locum key --json | grep -o '"data_key": [0-9]*')" ] ||
	fail "the second host lacks the data key"
head -c 4M /dev/urandom >>"$t/a.raw"
cp "$t/a.raw" "$t/b.raw"
locum backup web01 --to dr --quiet
before=$(bytes_there)
host_b backup db --to dr --quiet || fail "another VM"
[ $(($(bytes_there) - before)) -lt $((first / 10)) ] || fail "with one data key: what both have is there twice"
restored db "$t/b.raw"
restored "$a_id" "$t/a.raw"

# A VM moves to the second host, and is given to it: its map comes, and what differs is sent.
head -c 8M /dev/urandom >"$t/app.raw"
scenario_vm app "disk = vda raw $t/app.raw"
locum backup app --to dr --quiet
app_id=$(locum points app --json | grep -o '"vm_id": *"[0-9a-f]*"' | grep -o '[0-9a-f]\{32\}' | sed -n 1p)
refused 1 'no VM whose id begins' locum replica give 0123456789 host-b --dir "$t/dr"
locum replica give "${app_id:0:8}" host-b --dir "$t/dr" --quiet || fail "giving a VM"
host_b recall dr --quiet || fail "fetching the map of a VM that was given"
printf '[vm app]\ndisk = vda raw %s\n' "$t/app.raw" >>"$t/b.conf"
printf 'moved' | dd of="$t/app.raw" bs=1 seek=700000 conv=notrunc status=none
before=$(bytes_there)
host_b backup app --to dr --quiet || fail "the VM at its new host"
[ $(($(bytes_there) - before)) -lt 300000 ] || fail "a VM that moved was sent anew"
restored app "$t/app.raw"
mkdir "$t/h"
host_b restore app --to "$t/h" --quiet || fail "reading what the other host had sent"
cmp "$(find "$t/h" -name '*.raw')" "$t/app.raw" || fail "other bytes at the new host"
cp "$t/app.raw" "$t/sent.raw"
printf 'late' | dd of="$t/app.raw" bs=1 seek=800000 conv=notrunc status=none
refused 3 "another host's" locum backup app --to dr

# The second host loses its store: its own maps come back, and no other's.
rm -rf "$t/bstore"
host_b recall dr --quiet || fail "recall"
[ "$(host_b points --json | grep -c '"vm_id"')" = 3 ] || fail "recall brought: $(host_b points)"
printf 'z' | dd of="$t/b.raw" bs=1 seek=300000 conv=notrunc status=none
before=$(bytes_there)
host_b backup db --to dr --quiet || fail "after recall"
[ $(($(bytes_there) - before)) -lt 300000 ] || fail "after recall all was sent anew"
restored db "$t/b.raw"

locum replica revoke host-b --dir "$t/dr" --quiet
refused 3 'was revoked' host_b backup db --to dr
locum backup web01 --to dr --quiet || fail "the first host, after the second one was revoked"
kill -9 "$replica_pid"
wait "$replica_pid" 2>/dev/null || true
rm "$t"/dr/stores/*/catalog.sqlite*
restored "$a_id" "$t/a.raw"
restored db "$t/b.raw"
restored app "$t/sent.raw"
