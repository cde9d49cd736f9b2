#!/bin/bash
# For scenarios that freeze a guest (its agent started, fs=DISK2 in its arguments).  Source it after scenario.sh, and set
# dir to the guest's run folder and fs_disk to the disk of a point of web01 that has the filesystem in its second part.
# shellcheck disable=SC2154 # src and t are of scenario.sh, dir and fs_disk of who sources this
# shellcheck source=tests/guest/mbr.sh
. "$src/tests/guest/mbr.sh"

now_ms() {
	echo $(($(date +%s%N) / 1000000))
}

files() { # operations on files that the guest has finished
	guest_cmd "$dir" stat | grep -oE 'fsops=[0-9]+' | cut -d = -f 2
}

# Until files are written for the first time: the guest is up before its filesystem is mounted, on a busy machine long before.
begins() {
	local i
	for ((i = 0; i < 600; i++)); do
		[ "$(files)" -eq 0 ] || return 0
		sleep 0.1
	done
	fail "the guest writes no files"
}

# The guest's filesystem stands still.
still() { # WHAT
	local n
	n=$(files)
	sleep 0.4
	[ "$(files)" -le $((n + 1)) ] || fail "$1: files are written all the same"
}

# Until files are written again, or a failure; prints ms since the time given.
goes_on() { # WHAT SINCE_MS MAX_MS
	local n ms
	n=$(files)
	while [ "$(files)" -le $((n + 1)) ]; do
		ms=$(($(now_ms) - $2))
		[ "$ms" -le "$3" ] || fail "$1: no file was written for $ms ms"
	done
	echo "  $1: files are written again after $(($(now_ms) - $2)) ms"
}

# Whether the ext4 of the newest point says that its journal has to be replayed.
needs_recovery() {
	local offset
	rm -rf "$t/r"
	locum restore web01 --to "$t/r" --quiet || fail "restore"
	read -r offset _ <<<"$(mbr_part "$t/r/web01-$fs_disk.raw" 2)"
	[ $(($(od -An -tu1 -j $((offset + 1024 + 0x60)) -N 1 "$t/r/web01-$fs_disk.raw") & 4)) -ne 0 ]
}
