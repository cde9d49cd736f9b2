#!/bin/bash
# A raw image of a VM that is off, and what can happen to it while it is read: each is told by name, and what is
# kept in the end is right.  No guest runs.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin rawimage

disk=$t/disk.raw
head -c 400000 /dev/urandom >"$disk"
truncate -s 8M "$disk"
scenario_vm web01 "disk = vda raw $disk"

told() { # TEXT
	grep -q "$1" "$t/err" || fail "not told as that ($1): $(cat "$t/err")"
	grep "$1" "$t/err"
}

# The storage fails, each time that it is asked.
every=$(for _ in {1..8}; do printf 'rawimage.read:1:eio,'; done)
if LOCUM_FAILPOINT=${every%,} "$bin/locum" backup web01 2>"$t/err"; then
	fail "read errors passed"
fi
told "web01/vda: $disk: read of [0-9]* bytes at offset [0-9]*: Input/output error"
[ -z "$(point_ids web01 2>/dev/null)" ] || fail "a point was made of what could not be read"

# Cut short, grown, replaced and written to while it is read: that is told, and no point has it.
meanwhile() { # COMMAND...
	head -c 512 /dev/urandom | dd of="$disk" conv=notrunc status=none # or there is nothing to read
	LOCUM_FAILPOINT=rawimage.read:1:stop "$bin/locum" backup web01 --verbose 2>"$t/err" >&2 &
	local pid=$!
	until grep -q '^State:.*T (stopped)' "/proc/$pid/status"; do
		kill -0 "$pid" || fail "it did not come so far: $(cat "$t/err")"
		read -rt 0.02 <> <(:) || true
	done
	"$@"
	kill -CONT "$pid"
	# Its one read may have been over just before it stopped.
	if wait "$pid"; then
		told "web01/vda: $disk: the image ends at [0-9]* now, of [0-9]* bytes.*trying once more"
	else
		told "disk vda: $disk was opened or changed while it was read"
		locum backup web01
	fi
	rm -f "$t/back.raw"
	locum restore web01 --quiet --to "$t/back.raw"
	cmp "$t/back.raw" "$disk"
}
meanwhile truncate -s 256K "$disk"
meanwhile truncate -s 16M "$disk"
cp "$disk" "$t/other"
meanwhile mv "$t/other" "$disk"
meanwhile qemu-io -f raw -c 'write -q -P 7 100k 4k' "$disk"
locum verify web01 --quiet
