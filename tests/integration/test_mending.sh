#!/bin/bash
# Bits flip on the replica's disk.  A scrub there finds it, both sides tell it, the host sends it again by itself, connected or
# by cron, and then the replica's store is sound: scrub, verify and a restore say so.  A map that was hit is replaced.
#
# The VM is off: its points are made from its image.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"

scenario_begin mending
at_end() { kill -9 $replica_pid $agent_pid 2>/dev/null; }

# Of records of that type, the nths, a bit in the middle of the payload; of all segments of the replica.
flip() { # TYPE N...
	python3 - "$t"/dr/stores/*/segments "$@" <<'PY'
import glob, struct, sys
at, files = [], sorted(glob.glob(sys.argv[1] + "/*"))
for name in files:
    b = open(name, "rb").read()
    off = 128
    while off + 48 <= len(b):
        if b[off:off + 4] != b"LREC":
            off += 8
            continue
        n = struct.unpack_from("<I", b, off + 8)[0]
        if b[off + 5] == int(sys.argv[2]):
            at.append((name, off + 48 + n // 2))
        off += 48 + (n + 7) // 8 * 8
for i in sys.argv[3:]:
    name, off = at[int(i)]
    with open(name, "r+b") as f:
        f.seek(off)
        byte = f.read(1)
        f.seek(off)
        f.write(bytes([byte[0] ^ 16]))
PY
}

scrub_there() { locum scrub --store "$(echo "$t"/dr/stores/*)" >"$t/out" 2>&1; }
finds() { # PATTERN
	scrub_there && fail "scrub at the replica says that all is well"
	grep -qE "$1" "$t/out" || fail "scrub at the replica: $(cat "$t/out")"
	grep -q 'could not be noted' "$t/out" && fail "not noted: $(cat "$t/out")"
	return 0
}
is_sound() {
	scrub_there || fail "scrub at the replica after it was mended: $(cat "$t/out") $(tail -n 5 "$t/replica.log")"
	at_replica verify --all --every --quiet || fail "verify at the replica"
	at_replica restore web01 --to "$t/r.raw" --quiet --force || fail "restore at the replica"
	cmp "$t/img" "$t/r.raw" || fail "other bytes than the disk has"
}
logged() { # FILE PATTERN: within 30 s
	local i
	for ((i = 0; i < 300; i++)); do
		! grep -qE "$2" "$1" || return 0
		sleep 0.1
	done
	fail "'$2' did not come: $(tail -n 5 "$1")"
}
there_has() { # REGEX: the replica's status, within 30 s
	local i
	for ((i = 0; i < 300; i++)); do
		LOCUM_CONFIG=/dev/null locum status --dir "$t/dr" --json >"$t/there" 2>/dev/null || true
		! grep -qE "$1" "$t/there" || return 0
		sleep 0.1
	done
	fail "'$1' did not come: $(cat "$t/there")"
}
write() { # MIB OFFSET
	dd if=/dev/urandom of="$t/img" bs=1M count="$1" seek="$2" conv=notrunc status=none
}

cat >"$t/alert" <<-EOF
	#!/bin/sh
	echo "\$1 \$2" >>$t/alerts
EOF
chmod +x "$t/alert"
: >"$t/alerts"
printf '%s\n' "key_dir = $t/keys" 'rpo = 1s' "alert = $t/alert" >>"$LOCUM_CONFIG"
rm -rf "$t/store" "$t/kit"
locum store init --kit "$t/kit" >/dev/null || fail "store init"
truncate -s 8M "$t/img"
write 4 0
scenario_vm web01 "disk = vda raw $t/img"
replica_start
locum pair --name dr --as host-a --quiet "$(locum token --dir "$t/dr" --address "127.0.0.1:$port")"
locum backup web01 --to dr --quiet || fail "backup"
write 1 1
locum backup web01 --to dr --quiet || fail "second backup"

# By cron: the host hears of it when it comes.
flip 2 3 20 21
finds '^damaged: .*\(chunk\): .* in 2 restore points'
at_replica verify web01 --quiet 2>/dev/null && fail "verified, though contents are damaged"
locum backup web01 --to dr >"$t/out" 2>&1 || fail "backup --to: $(cat "$t/out")"
grep -q 'replica dr: damaged there, .* 3 contents' "$t/out" || fail "backup --to does not tell: $(cat "$t/out")"
is_sound
grep -q '^3 places were damaged' "$t/out" || fail "scrub: $(cat "$t/out")"
grep -q 'host-a: 3 contents and the maps of 0 lines of it are damaged here' "$t/replica.log" || fail "log: $(tail -n 5 "$t/replica.log")"
grep -q 'host-a: what was damaged of it here is whole again' "$t/replica.log" || fail "log: $(tail -n 5 "$t/replica.log")"

# Connected.
agent_start
status_has '"vm": "web01", "state": "protected".*' && status_has '"has_all": true.*"damaged": 0, "damage": null'
flip 2 5 40
finds '\(chunk\): .* in [0-9]+ restore points?'
grep -q 'host-a: 2 contents and the maps of 0 lines of it are damaged here' "$t/replica.log" || fail "log: $(tail -n 5 "$t/replica.log")"
logged "$t/agent.log" 'replica dr: damaged there, of what this host sent: 2 contents'
logged "$t/agent.log" 'replica dr: what was damaged there is whole again'
logged "$t/alerts" '^replica-damaged .*replica dr'
status_has '"damaged": 0, "damage": null'
is_sound

there_has '"damaged": 0'

# A map: what comes next stands by itself.
flip 3 0
finds 'damaged: .*\(map\): .*only the catalog still knows'
there_has '"damaged": 1'
{ LOCUM_CONFIG=/dev/null locum status --dir "$t/dr" || true; } >"$t/out"
grep -q '1 contents or maps of it are damaged here' "$t/out" || fail "status there: $(cat "$t/out")"
logged "$t/agent.log" 'maps of 1 VM: their next restore points are made from all of their disks'
write 1 2
there_has '"damaged": 0'
status_has '"damaged": 0, "damage": null'
scrub_there || fail "scrub, though all of it can be read: $(cat "$t/out")"
grep -q '^was damaged: .*(map): .*only the catalog still knows: do not delete it' "$t/out" || fail "scrub does not tell of it: $(cat "$t/out")"
locum store rebuild --store "$(echo "$t"/dr/stores/*)" >/dev/null 2>&1 || fail "rebuild at the replica"
at_replica restore web01 --to "$t/r.raw" --quiet --force || fail "restore from the log alone"
cmp "$t/img" "$t/r.raw" || fail "from the log alone: other bytes than the disk has"
finds '^damaged: point .* \(damaged map\)'
echo "mended by cron, while connected, and a map"
