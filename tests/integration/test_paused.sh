#!/bin/bash
# A VM that stays paused while cron goes on: its newest point holds, and nothing piles up in QEMU, which closes no descriptor
# that it was given before its guest runs.
#
#   test_paused.sh [BACKUPS]    default 12
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
n=${1:-12}
scenario_begin paused

put() { # PATTERN OFFSET LENGTH
	guest_qmp "$t/vm" "{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"qemu-io -d vd0 \\\"write -P $1 $2 $3\\\"\"}}" |
		has '"return": ""' || fail "write"
}
held() { guest_qmp "$t/vm" '{"execute":"query-fdsets"}' | grep -o '"fdset-id"' | wc -l; }
points() { point_ids web01 | wc -l; }

truncate -s 4M "$t/a" "$t/b"
scenario_vm web01 "qmp = $t/vm/qmp"
qemu_stands "$t/a" "$t/b"
backup web01 full
put 0x11 1M 64k
backup web01 incremental
same_as web01 vd0="$t/a" vd1="$t/b"
points=$(points) held=$(held)
for ((i = 0; i < n; i++)); do
	locum backup --all --quiet || fail "backup $i of a paused VM"
done
[ "$(held)" = "$held" ] || fail "QEMU held $held descriptors before $n backups, and $(held) after them"
[ "$(points)" = "$points" ] || fail "points are made of a VM that stands still"
backup web01 unchanged
locum backup web01 --verbose | has 'web01: unchanged since its point of' || fail "it does not say so"
echo "$n backups of a paused VM: QEMU holds $held descriptors, no point was made"

# Another store has no point of it, and a record of changes of its own.
LOCUM_STORE=$t/other locum store init --kit "$t/kit2" >/dev/null
LOCUM_STORE=$t/other locum backup web01 --json | has '"full": true' || fail "another store"
LOCUM_STORE=$t/other locum backup web01 --json | has '"outcome": "unchanged"' || fail "another store, once more"

# Written to all the same (a job of an admin's), resized, or let go: there is something to say again.
put 0x12 2M 64k
backup web01 incremental
same_as web01 vd0="$t/a" vd1="$t/b"
backup web01 unchanged
guest_qmp "$t/vm" '{"execute":"block_resize","arguments":{"node-name":"disk0","size":8388608}}' >/dev/null
backup web01 compared
same_as web01 vd0="$t/a" vd1="$t/b"
guest_qmp "$t/vm" '{"execute":"cont"}' >/dev/null
points=$(points)
backup web01 incremental
backup web01 incremental
[ "$(points)" = $((points + 2)) ] || fail "no points of a VM that runs"
[ "$(held)" -le 2 ] || fail "it runs, and QEMU still holds $(held) descriptors"
