#!/bin/bash
# Somebody hangs: is stopped with its connections open, in the middle of something, so that it accepts and says nothing.
#
# The host, while it sends: its VM boots at the replica all the same, in the time that it takes without.  The replica, in the
# middle of a restore on a host whose store is thin: the restore fails within half a minute and says of whom it waited;
# a boot and a restore that begin then fail within 15 s; and all works when the replica goes on.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"

scenario_begin hung
# shellcheck source=tests/lib/thinhost.sh
. "$src/tests/lib/thinhost.sh"
command -v nbdkit >/dev/null || {
	echo "SKIP: no nbdkit"
	exit 77
}
sender='' reader=''
# shellcheck disable=SC2086
at_end() { kill -9 $replica_pid $sender $reader 2>/dev/null; }

kept() { # FOLDER|FILE: KiB of it
	du -sk "$1" 2>/dev/null | cut -f 1 || true
}

now_ms() { date +%s%3N; }

thinhost_begin 160 90 1
locum backup web01 --to dr || fail "the first backup"
cp --sparse=always "$t/img" "$t/first"

# ---- the host hangs while it sends ----

boot_there() { # sets ms
	local began
	began=$(now_ms)
	at_replica boot web01 --test --quiet >"$t/out" 2>&1 || fail "boot at the replica: $(cat "$t/out")"
	ms=$(($(now_ms) - began))
}

boot_there
alone=$ms
write 60 95
had=$(kept "$t/dr")
"$bin/locum" backup web01 --to dr >"$t/sender.log" 2>&1 &
sender=$!
until [ "$(kept "$t/dr")" -gt $((had + 4096)) ]; do
	kill -0 $sender 2>/dev/null || fail "it had sent all of it before it could be stopped"
	sleep 0.01
done
kill -STOP $sender
boot_there
echo "boot at the replica: $alone ms; $ms ms while the host that sends hangs"
[ "$ms" -le $((alone * 3 + 5000)) ] || fail "the boot waited for a host that hangs: $ms ms, $alone ms without"
kill -9 $sender
wait $sender 2>/dev/null || true
sender=''
locum backup web01 --to dr || fail "it does not go on after that"

# ---- the replica hangs in the middle of a restore ----

cmp_restored() {
	cmp "$t/img" "$t/restored.raw" || fail "what was restored differs from the disk"
	rm "$t/restored.raw"
}

has_written() { # BYTES: the reader; without a process, as it is fast
	local key n
	while read -r key n; do
		[ "$key" != wchar: ] || [ "$n" -lt "$1" ] || return 0
	done 2>/dev/null <"/proc/$reader/io"
	return 1
}

locum store stats | has 'they are at replica dr' || fail "the store is not thin: $(locum store stats)"
locum restore web01 --to "$t/restored.raw" --quiet || fail "restore by way of the replica"
cmp_restored
for ((i = 0; i < 20; i++)); do
	"$bin/locum" restore web01 --to "$t/restored.raw" --quiet >"$t/out" 2>&1 &
	reader=$!
	until has_written $((2 << 20)) || ! kill -0 $reader 2>/dev/null; do :; done
	kill -STOP $replica_pid
	began=$(now_ms)
	rc=0
	wait $reader || rc=$?
	reader=''
	[ $rc = 0 ] || break
	kill -CONT $replica_pid # it had all that it needed
	rm "$t/restored.raw"
done
ms=$(($(now_ms) - began))
[ "$rc" = 1 ] || fail "a restore while the replica hangs: exit status $rc, $(cat "$t/out")"
grep -q 'replica dr at .*: no sign of life for 20 s' "$t/out" || fail "it does not say of whom it waited: $(cat "$t/out")"
echo "a restore in the middle of which the replica hangs: told after $ms ms"
[ "$ms" -le 30000 ] || fail "a restore waited $ms ms for a replica that hangs"

late() { # WHAT: it is told soon enough
	local ms=$(($(now_ms) - began))
	echo "$1, with a replica that hangs: told after $ms ms"
	[ "$ms" -le 15000 ] || fail "$1 waited $ms ms for a replica that hangs"
}
rm -f "$t/restored.raw"
began=$(now_ms)
refused 1 'web01: not all of this point is here, .*replica dr.*no answer within.*boot it at the replica' locum boot web01 --test
late "a boot"
began=$(now_ms)
refused 1 'replica dr.*no answer within' locum restore web01 --to "$t/restored.raw"
late "a restore"
kill -CONT $replica_pid
rm -f "$t/restored.raw"
locum restore web01 --to "$t/restored.raw" --quiet || fail "restore when the replica goes on"
cmp_restored
