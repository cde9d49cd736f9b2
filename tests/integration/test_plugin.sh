#!/bin/bash
# nbdkit's plugin with the tools of others as judges: nbdinfo, nbdcopy, qemu-img, qemu-io.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin plugin
for program in nbdkit nbdinfo nbdcopy qemu-io; do
	command -v $program >/dev/null || {
		echo "SKIP: no $program"
		exit 77
	}
done
plugin=$bin/nbdkit-locum-plugin.so
keys=(key-dir="$t/keys")

mkdir "$t/img"
for d in a:100 b:700; do
	f=$t/img/${d%:*}.raw
	truncate -s "${d#*:}M" "$f"
	for at in 0 3 17 64 99; do
		head -c 300000 /dev/urandom | dd of="$f" bs=1M seek=$at conv=notrunc status=none iflag=fullblock
	done
	truncate -s "$((${d#*:} * 1048576 + 512))" "$f"
done
scenario_vm web01 "disk = vda raw $t/img/a.raw" "disk = vdb raw $t/img/b.raw"
locum backup web01 >/dev/null || fail "backup"
cp "$t/img/a.raw" "$t/img/a.old"
sleep 1.1
printf changed | dd of="$t/img/a.raw" bs=1 seek=5000 conv=notrunc status=none
touch -d '10 seconds ago' "$t/img/a.raw"
locum backup web01 >/dev/null || fail "second backup"
first=$(point_ids web01 | sed -n 1p)

# ---- what it says of itself ----
nbdkit "$plugin" --dump-plugin | has '^max_thread_model=parallel' || fail "--dump-plugin"
for word in store= vm= point= disk= cache= key-dir= recovery-code-file= passphrase-file= boot= first-client= replica-patience=; do
	nbdkit "$plugin" --help | has "^$word" || fail "--help does not tell of $word"
done

# ---- wrong use is told on the terminal, also where nbdkit goes into the background ----
wrong() { # REGEX PARAMETER...
	local regex=$1
	shift
	refused 1 "$regex" nbdkit -U "$t/w" "$plugin" "$@"
	rm -f "$t/w"
}
wrong 'give the store and the VM' store="$t/store"
wrong 'both name a point' store="$t/store" vm=web01@latest point=latest
wrong 'is no store' store="$t/img" vm=web01 "${keys[@]}"
wrong 'did you mean web01' store="$t/store" vm=web1 "${keys[@]}"
wrong 'no key' store="$t/store" vm=web01 key-dir="$t/img"
wrong "no disk 'vdc'" store="$t/store" vm=web01 disk=vdc "${keys[@]}"
wrong "unknown parameter 'colour'" store="$t/store" vm=web01 colour=red
wrong 'no size such as' store="$t/store" vm=web01 cache=much
wrong 'given twice' store="$t/store" vm=web01 vm=web02

# ---- all disks of the newest point, in the background ----
serve() { # PARAMETER...
	rm -f "$t/nbd" "$t/pid"
	nbdkit -U "$t/nbd" -P "$t/pid" "$plugin" store="$t/store" "$@" || fail "nbdkit $*"
}
unserve() {
	local pid i
	pid=$(cat "$t/pid")
	kill "$pid"
	for ((i = 0; i < 100; i++)); do
		kill -0 "$pid" 2>/dev/null || return 0
		sleep 0.05
	done
	fail "nbdkit does not end"
}
_plugin_end() {
	local status=$?
	set +e
	[ ! -e "$t/pid" ] || kill "$(cat "$t/pid")" 2>/dev/null
	(exit $status)
	_scenario_end
}
trap _plugin_end EXIT
uri() { echo "nbd+unix:///$1?socket=$t/nbd"; }

(cd "$t" && nbdkit -U "$t/nbd" -P "$t/pid" "$plugin" store=store vm=web01 key-dir=keys) || fail "relative paths"
[ "$(nbdinfo --list "$(uri '')" | grep -c '^export=')" = 2 ] || fail "exports: $(nbdinfo --list "$(uri '')")"
nbdinfo "$(uri vdb)" >"$t/info"
for word in 'export-size: 734003712' 'is_read_only: true' 'can_multi_conn: true' 'is_rotational: false' 'can_cache: true' \
	'block_size_preferred: 65536' 'block_size_maximum: 33554432'; do
	grep -q "$word" "$t/info" || fail "no '$word': $(cat "$t/info")"
done
nbdinfo "$(uri vdc)" >/dev/null 2>&1 && fail "an export that is not there"
for d in a:vda b:vdb; do
	qemu-img compare -q -f raw -F raw "$t/img/${d%:*}.raw" "$(uri "${d#*:}")" || fail "${d#*:} differs"
	nbdcopy --connections=4 "$(uri "${d#*:}")" "$t/copy"
	cmp "$t/copy" "$t/img/${d%:*}.raw" || fail "nbdcopy of ${d#*:} differs"
	nbdcopy --no-extents --request-size=131072 "$(uri "${d#*:}")" - | cmp - "$t/img/${d%:*}.raw" || fail "${d#*:} as a stream differs"
done
nbdcopy "$(uri '')" - | cmp - "$t/img/a.raw" || fail "the export without a name is not the first disk"
# Five pieces of 300000 bytes: 4.6 windows each, so 5 windows.
[ "$(nbdinfo --map --totals "$(uri vdb)" | awk '$NF == "data" { print $1 }')" = $((25 * 65536)) ] ||
	fail "map of vdb: $(nbdinfo --map --totals "$(uri vdb)")"
qemu-io -r -f raw -c 'read -P 0 40M 1M' -c 'write 0 512' "$(uri vda)" >"$t/io" 2>&1 && fail "it can be written to"
grep -q 'read 1048576/1048576' "$t/io" || fail "qemu-io: $(cat "$t/io")"
# Any offset, any length, against the image; several clients at once.
client() {
	local i off n
	for ((i = 0; i < 12; i++)); do
		off=$(((RANDOM * 32768 + RANDOM) % (100 * 1048576)))
		n=$((RANDOM * 7 % 200000 + 1))
		((off + n <= 100 * 1048576 + 512)) || n=1
		# shellcheck disable=SC2016
		nbdkit -U - nbd socket="$t/nbd" export=vda --filter=offset offset=$off range=$n \
			--run 'nbdcopy "$uri" -' | cmp - <(dd if="$t/img/a.raw" bs=64K skip=$off count=$n \
			iflag=skip_bytes,count_bytes status=none) || return 1
	done
}
clients=()
for ((c = 0; c < 3; c++)); do
	client &
	clients+=($!)
done
for c in "${clients[@]}"; do
	wait "$c" || fail "a read at random differs"
done
newest=$(point_ids web01 | tail -n 1)
refused 1 'is being read' locum drop "web01@${newest:0:8}"
unserve

# ---- another point, one disk, a small cache, the recovery code ----
serve vm=web01 point="$first" disk=vda cache=64K recovery-code-file="$t/kit"
nbdcopy "$(uri vda)" - | cmp - "$t/img/a.old" || fail "the first point differs"
[ "$(nbdinfo --list "$(uri '')" | grep -c '^export=')" = 1 ] || fail "disk= serves others too"
nbdinfo "$(uri vdb)" >/dev/null 2>&1 && fail "disk=vda serves vdb"
unserve
[ -z "$(ls "$t/store/leases" 2>/dev/null)" ] || fail "leases are left: $(ls "$t/store/leases")"

# ---- nobody comes ----
began=$SECONDS
timeout 20 nbdkit -f -U "$t/n" "$plugin" store="$t/store" vm=web01 "${keys[@]}" first-client=500ms 2>"$t/err" || fail "first-client: $(cat "$t/err")"
((SECONDS - began < 10)) || fail "first-client: it waited $((SECONDS - began)) s"

# ---- a map that was changed: no bytes from it once that is known ----
cp -r "$t/store" "$t/swapped"
swap_windows "$t/swapped"
rm -f "$t/nbd" "$t/pid"
nbdkit -f -U "$t/nbd" -P "$t/pid" "$plugin" store="$t/swapped" vm=web01 point="$first" "${keys[@]}" 2>"$t/log" &
for ((i = 0; i < 200; i++)); do
	grep -q 'not the one that was committed' "$t/log" && break
	sleep 0.05
done
((i < 200)) || fail "the plugin does not check the map: $(cat "$t/log")"
nbdcopy "$(uri vdb)" "$t/copy" 2>/dev/null && fail "the plugin serves a map that was changed"
unserve

# ---- what the last boot read is there before it is asked for ----
reads() { # what a boot reads
	qemu-io -r -f raw -c 'read -v 0 300000' -c 'read -v 17M 300000' "$(uri vda)" && qemu-io -r -f raw -c 'read -v 64M 300000' "$(uri vdb)"
}
hex() { # lines of content
	grep '^[0-9a-f]\{8\}:' "$1"
}
boots() { # STORE
	rm -f "$t/nbd" "$t/pid"
	nbdkit -f -U "$t/nbd" -P "$t/pid" "$plugin" store="$1" vm=web01 boot=true "${keys[@]}" 2>"$t/log" &
	for ((i = 0; i < 200; i++)); do
		[ -e "$t/pid" ] && return
		sleep 0.05
	done
	fail "nbdkit does not start: $(cat "$t/log")"
}
boots "$t/store"
reads >"$t/first" 2>&1 || fail "reads: $(cat "$t/first" "$t/log")"
grep -q 'read ahead' "$t/log" && fail "something is read ahead of the first boot"
unserve
lists=("$t"/store/index/boot-*)
[ "$(stat -c %a "${lists[0]}")" = 600 ] || fail "no list of what the boot read, or it is not ours alone"
boots "$t/store"
for ((i = 0; i < 200; i++)); do
	grep -q 'read ahead what the last boot of web01 read: 1[0-9] windows' "$t/log" && break
	sleep 0.05
done
((i < 200)) || fail "it is not read ahead: $(cat "$t/log")"
mv "$t/store/segments" "$t/segments" # nothing can be read from there now
cp -r "$t/segments" "$t/store/segments"
find "$t/segments" -type f -exec truncate -s 4096 {} +
reads >"$t/second" 2>&1 || fail "what was read ahead is read again: $(cat "$t/log")"
cmp -s <(hex "$t/first") <(hex "$t/second") || fail "what was read ahead differs"
qemu-io -r -f raw -c 'read 99M 300000' "$(uri vdb)" >"$t/io" 2>&1 && fail "the test: the rest can be read, too"
unserve
# A list that is damaged: nothing is read ahead, all is served, the next one is good.
printf x | dd of="${lists[0]}" bs=1 seek=100 conv=notrunc status=none
boots "$t/store"
reads >"$t/second" 2>&1 || fail "reads: $(cat "$t/second" "$t/log")"
cmp -s <(hex "$t/first") <(hex "$t/second") || fail "a damaged list changes what is read"
grep -q 'read ahead' "$t/log" && fail "a damaged list is used"
unserve
boots "$t/store"
for ((i = 0; i < 200; i++)); do
	grep -q 'read ahead what the last boot of web01 read' "$t/log" && break
	sleep 0.05
done
((i < 200)) || fail "no list after one that was damaged: $(cat "$t/log")"
unserve

# ---- damage: an error for the client, a name in the log, and the rest can be read ----
segment=$(find "$t/store/segments" -name '*.*' | sort | sed -n 1p)
for part in 2 3 4; do
	printf '\x5a\xa5\x5a\xa5' | dd of="$segment" bs=1 seek=$(($(stat -c %s "$segment") * part / 6)) \
		conv=notrunc status=none
done
rm -f "$t/nbd" "$t/pid"
nbdkit -f -U "$t/nbd" -P "$t/pid" "$plugin" store="$t/store" vm=web01 "${keys[@]}" 2>"$t/log" &
for ((i = 0; i < 100; i++)); do
	[ -e "$t/pid" ] && break
	sleep 0.05
done
bad=0 where=''
for d in a:vda b:vdb; do
	for at in 0 3 17 64 99; do
		if qemu-io -r -f raw -c "read -v $((at * 1048576)) 512k" "$(uri "${d#*:}")" >"$t/io" 2>&1; then
			# What is given is right.
			qemu-io -r -f raw -c "read -v $((at * 1048576)) 512k" "$t/img/${d%:*}.raw" | grep '^[0-9a-f]\{8\}:' |
				cmp -s - <(grep '^[0-9a-f]\{8\}:' "$t/io") || fail "wrong bytes of ${d#*:} at $at MiB"
		else
			bad=$((bad + 1))
			where+=" ${d#*:}:$at"
		fi
	done
done
((bad >= 1 && bad <= 6)) || fail "$bad of 10 reads failed:$where"
grep -qE 'web01/vd[ab] at byte [0-9]+: .*segments/' "$t/log" || fail "the log: $(cat "$t/log")"
unserve
echo ok
