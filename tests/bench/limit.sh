#!/bin/bash
# limit.sh LIMIT: a small disk there and back, to another place, and a byte that went bad.
set -euo pipefail
t=$(mktemp -d)
receiver=''
trap '[ -z "$receiver" ] || kill "$receiver"; rm -rf "$t"' EXIT

head -c 3000000 "$1" >"$t/disk" # compresses
head -c 700000 /dev/urandom >>"$t/disk"
truncate -s 40M "$t/disk"
head -c 5000 "$1" >>"$t/disk" # behind a hole, and no whole window
mkdir "$t/repo"
"$1" backup "$t/disk" "$t/repo"
"$1" verify "$t/repo"
"$1" restore "$t/repo" "$t/back"
cmp "$t/disk" "$t/back"
[ "$(stat -c %s "$t/repo/00000000")" -lt 3700000 ] || {
	echo "nothing was compressed" >&2
	exit 1
}
mkdir "$t/there"
"$1" receive "$t/there" >"$t/port" &
receiver=$!
until port=$(sed -nE 's/^limit listens on port ([0-9]+);$/\1/p' "$t/port") && [ -n "$port" ]; do sleep 0.05; done
"$1" send "$t/repo" "$port"
cmp <(cat "$t"/repo/0*) <(cat "$t"/there/0*)
printf '\377\377' | dd of="$t/repo/00000000" bs=1 seek=100000 conv=notrunc status=none
! "$1" verify "$t/repo" || {
	echo "a bad byte was not seen" >&2
	exit 1
}
