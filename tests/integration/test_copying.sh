#!/bin/bash
# locum copy into a folder: slips, a disk that gets full, and again; and what the verbs of the other site print for machines.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin copying
at_end() {
	[ -z "$replica_pid" ] || kill -9 "$replica_pid" 2>/dev/null
	umount "$t/small" 2>/dev/null
}

json() { # FILTER COMMAND...: an expression of Python that has to be true of what it prints, as d
	local what=$1
	shift
	"$@" >"$t/out" 2>"$t/err" || fail "$*: $(cat "$t/out" "$t/err")"
	python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); assert eval(sys.argv[2]), d' "$t/out" "$what" ||
		fail "$*: not $what: $(cat "$t/out")"
}

dd if=/dev/urandom of="$t/a.raw" bs=1M count=8 status=none
locum backup web01 --image "$t/a.raw" --quiet || fail "backup"

refused 1 'has no VM nosuch' locum copy "$t/new" nosuch
[ ! -e "$t/new" ] || fail "a slip made a store"
refused 2 "$t/store is the store whose points are to be copied" locum copy "$t/store"
refused 2 'an empty word: locum copy DIR' locum copy ''

if [ "$(id -u)" = 0 ] && mkdir "$t/small" && mount -t tmpfs -o size=4m none "$t/small" 2>/dev/null; then
	for _ in 1 2; do # it was not there, and was
		refused 1 "$t/small/copy.*: No space left on device: make room" locum copy "$t/small/copy"
		[ "$(grep -c 'No space' "$t/refused")" = 1 ] || fail "said again and again: $(cat "$t/refused")"
		! grep -q 'the replica' "$t/refused" || fail "a folder is no replica: $(cat "$t/refused")"
	done
	mount -o remount,size=32m "$t/small"
	json 'd["points"] == 1 and d["failed"] == 0' locum copy "$t/small/copy" --json
	locum verify --every --store "$t/small/copy" --quiet || fail "verify"
else
	left_out "a small file system to fill needs root"
fi

replica_start
json 'd["replica"] == "dr" and len(d["fingerprint"]) == 39 and len(d["host_fingerprint"]) == 39' \
	locum pair --json --name dr --as host-a "$(locum token --dir "$t/dr" --address "127.0.0.1:$port")"
json 'd["points"] == 1' locum copy --to dr --json
json 'd == {"host": "host-a", "rate_bytes": None, "max_bytes": None}' locum replica limit host-a --json --dir "$t/dr"
json 'd["rate_bytes"] == 1 << 20 and d["max_bytes"] == 0' \
	locum replica limit host-a --json --rate '1 MiB/s' --max 0 --dir "$t/dr"
mv "$t/store" "$t/lost"
json 'd["points"] == 1 and d["windows"] == 128 and d["bytes"] > 4096 and d["replica"] == "dr"' locum recall dr --json
vm=$(locum points web01 --json | grep -o '"vm_id":"[0-9a-f]*"' | cut -d '"' -f 4)
json "d == {'vm_id': '$vm', 'host': 'host-a'}" locum replica give "${vm:0:8}" host-a --json --dir "$t/dr"
json 'd["name"] == "host-a" and d["revoked"] and d["store"].startswith("stores/")' \
	locum replica revoke host-a --json --dir "$t/dr"
kill -TERM "$replica_pid"
wait "$replica_pid" || fail "the replica ended with $?: $(tail -n 3 "$t/replica.log")"
replica_pid=''
