#!/bin/bash
# Wrong, missing, full, held and newer things: each is refused with a message that says what and where, with the right
# exit status, and nothing is lost by it.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin badinput

mapfile -t disks < <("$src/tests/guest/mkdisks.sh" "$t/img" --size 48 --fs-size 0)
scenario_vm web01 "qmp = $t/vm/qmp"
guest_start "$t/vm" -a 'seq.load=100' "${disks[@]}" >/dev/null
guest_past "$t/vm" 0
backup web01 full
first=$(point_ids web01)

still() { # the first point is there and right
	[ "$(point_ids web01 | sed -n 1p)" = "$first" ] || fail "the first point is gone"
	locum verify "web01@$first" --quiet || fail "the first point does not verify"
}

# ---- recovery codes ----
code=$(grep -oE '([0-9A-Za-z]{4,}-){5,}[0-9A-Za-z]+' "$t/kit" | sed -n 1p)
[ -n "$code" ] || fail "no code in the kit: $(cat "$t/kit")"
mkdir "$t/nokeys"
nokey=(env "LOCUM_CONFIG=$t/nokey.conf")
sed "/^store/a key_dir = $t/nokeys" "$LOCUM_CONFIG" >"$t/nokey.conf"
echo "$code" >"$t/code"
"${nokey[@]}" "$bin/locum" points web01 --recovery-code-file "$t/code" >/dev/null || fail "the right code is refused"
last=${code: -1}
echo "${code%?}$([ "$last" = 2 ] && echo 3 || echo 2)" >"$t/typo"
refused 2 'recovery code: mistyped' "${nokey[@]}" "$bin/locum" points web01 --recovery-code-file "$t/typo"
refused 2 "^locum: $t/typo: recovery code" "${nokey[@]}" "$bin/locum" points web01 --recovery-code-file "$t/typo"
LOCUM_CONFIG='' locum store init --store "$t/other" --kit "$t/kit2" >/dev/null 2>&1 ||
	"${nokey[@]}" "$bin/locum" store init --store "$t/other" --kit "$t/kit2" >/dev/null
grep -oE '([0-9A-Za-z]{4,}-){5,}[0-9A-Za-z]+' "$t/kit2" | sed -n 1p >"$t/code2"
refused 1 "$t/code2: store $t/store is of key domain [0-9a-f]{32}: the recovery code is of another" \
	"${nokey[@]}" "$bin/locum" points web01 --recovery-code-file "$t/code2"
refused 1 'no key for store.*locum key recover' "${nokey[@]}" "$bin/locum" backup web01
refused 1 "$t/nothere" "${nokey[@]}" "$bin/locum" points web01 --recovery-code-file "$t/nothere"
echo "recovery codes: ok"

# ---- names ----
refused 1 'no VM web1: .*did you mean web01' locum backup web1
refused 1 'web01' locum points web1
refused 1 'no VM web1: .*did you mean web01' locum vm start web1
refused 1 'no VM web1: .*did you mean web01' locum vm stop web1
refused 1 'web01 has no point ffffffff; it has 1' locum restore web01@ffffffff --to "$t/r"
refused 1 'name has letters' locum backup '../web01'
refused 1 'name has letters' locum backup $'we\tb\x01'
refused '[12]' 'name has letters' locum vm stop '../../etc'
refused 1 'name has letters' locum backup "$(printf 'x%.0s' {1..200})"
refused 2 'which VM' locum backup
refused 2 'either VMs or --all' locum backup web01 --all
refused 2 'duration' locum backup web01 --wait soon
refused 1 "$t/nostore" locum backup web01 --store "$t/nostore"
rc=0
locum backup $'a"b\\c\n' --json >"$t/out" 2>/dev/null || rc=$?
{ [ "$rc" = 1 ] && grep -qF '"vm": "a\"b\\c\n"' "$t/out"; } || fail "--json of an odd name: $(cat "$t/out")"
echo "names: ok"

# ---- a folder of running VMs that can't be read ----
sed "s|^run_dir.*|run_dir = $t/kit|" "$LOCUM_CONFIG" >"$t/run.conf"
refused 1 "run_dir $t/kit: Not a directory" locum vm list --config "$t/run.conf"
{ locum vm list --json --config "$t/run.conf" 2>/dev/null || true; } | python3 -c 'import json, sys; json.load(sys.stdin)' || fail "--json of vm list"

if [ "$(id -u)" = 0 ]; then
	mkdir -m 700 "$t/others"
	mkdir -m 700 "$t/others/hers"
	chmod 711 "$t" "$t/others"
	printf '[locum]\nrun_dir = %s\n[vm hers]\nmemory = 64 MiB\n' "$t/others" >"$t/others.conf"
	as_nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups "$bin/locum")
	refused '[01]' "^hers +unknown +locum +$t/others/hers: Permission denied" "${as_nobody[@]}" vm list --config "$t/others.conf"
	refused 1 "$t/others/hers: Permission denied" "${as_nobody[@]}" vm stop hers --config "$t/others.conf"
else
	left_out "VMs of somebody else: not root"
fi

printf '[locum]\nrun_dir = %s\n[vm bare]\nmemory = 64 MiB\n' "$t/run" >"$t/bare.conf"
refused 1 'bare: neither a disk nor a kernel' locum vm start bare --config "$t/bare.conf"

# ---- configuration ----
config() { # LINE...: refused with the number of the line
	printf '[locum]\nstore = %s\n' "$t/store" >"$t/bad.conf"
	printf '%s\n' "$@" >>"$t/bad.conf"
	refused 2 "$t/bad.conf:$(($# + 2)): " locum backup web01 --config "$t/bad.conf"
}
config 'jobs = many'
config 'scratch_maxx = 5 GiB'
config 'scratch_dir = here'
config '# fine' 'this is no key'
config '[vm web01]' 'qmp = relative/path'
config '[vm we/b]' 'qmp = /x'
refused 1 "$t/no.conf" locum backup web01 --config "$t/no.conf"
refused 1 "$t: |$t/: |directory" locum backup web01 --config "$t"
still
echo "configuration: ok"

# ---- monitors ----
monitor() { # SECONDS REGEX: of $t/m.sock
	local begin=$SECONDS
	refused 1 "$2" locum backup odd
	[ $((SECONDS - begin)) -le "$1" ] || fail "took $((SECONDS - begin)) s, $1 are allowed"
}
scenario_vm odd "qmp = $t/m.sock"
monitor 2 "odd: .*$t/m.sock"
: >"$t/m.sock"
monitor 2 "odd: .*$t/m.sock"
rm "$t/m.sock"
nbdkit -f -U "$t/m.sock" null >/dev/null 2>&1 &
pids=($!)
for ((i = 0; i < 100; i++)); do [ ! -S "$t/m.sock" ] || break; sleep 0.05; done
monitor 8 "odd: .*$t/m.sock"
cat "$t/refused"
kill "${pids[0]}"
wait "${pids[0]}" 2>/dev/null || true
# One that is silent, and our own guest's, held by somebody.
"$GUEST_OUT/sockline" --timeout 60 --event "$t/vm/qmp" NEVER >/dev/null 2>&1 &
pids=($!)
monitor_held vm
begin=$SECONDS
refused 1 "web01: another client holds the monitor socket $t/vm/qmp" locum backup web01
[ $((SECONDS - begin)) -le 8 ] || fail "took $((SECONDS - begin)) s"
kill "${pids[0]}"
wait "${pids[0]}" 2>/dev/null || true
backup web01 incremental
echo "monitors: ok"

# ---- two at once ----
guest_cmd "$t/vm" write 0 6M 4M 7 >/dev/null
LOCUM_FAILPOINT=backup.taken:1:stop "$bin/locum" backup web01 >"$t/slow" 2>"$t/err" &
slow=$!
stopped "$slow"
refused 1 "$t/store.*locum backup" locum backup web01
cat "$t/refused"
locum points web01 >/dev/null || fail "points while a backup runs"
refused 1 "$t/store.*locum backup" locum backup web01 --wait 300ms
locum backup web01 --wait 60s >"$t/two" 2>&1 &
two=$!
sleep 0.5
kill -CONT "$slow"
wait "$slow" || fail "the first of two: $(cat "$t/slow" "$t/err")"
wait "$two" || fail "the one that waits: $(cat "$t/two")"
echo "two at once: ok"

# ---- full and read-only ----
if [ "$(id -u)" = 0 ] && mkdir "$t/small" && mount -t tmpfs -o size=48m none "$t/small" 2>/dev/null; then
	at_end() { umount -l "$t/small" 2>/dev/null; }
	sed -e "s|^store = .*|store = $t/small/store|" -e "s|^run_dir|key_dir = $t/keys\nrun_dir|" "$LOCUM_CONFIG" >"$t/small.conf"
	locum store init --config "$t/small.conf" --kit "$t/kit3" --quiet >"$t/out" || fail "init on a small disk"
	[ ! -s "$t/out" ] || fail "init --quiet says something: $(cat "$t/out")"
	small_ids() { locum points web01 --config "$t/small.conf" --json | grep -o '"id":"[0-9a-f]*"' | sort; }
	guest_cmd "$t/vm" pause >/dev/null
	rc=0
	for ((i = 0; i < 30 && rc == 0; i++)); do
		points=$i
		guest_cmd "$t/vm" write 0 6M 4M $((100 + i)) >/dev/null
		locum backup web01 --config "$t/small.conf" >"$t/full" 2>&1 || rc=$?
		[ "$rc" != 0 ] || small_ids >"$t/told"
	done
	[ "$rc" = 1 ] || fail "48 MiB were never full"
	grep -qiE "web01: .*$t/small/store.*(no space|disk is full)" "$t/full" || fail "what is full: $(cat "$t/full")"
	cat "$t/full"
	refused 1 '[Nn]o space|disk is full' locum backup web01 --config "$t/small.conf"
	dd if=/dev/zero of="$t/small/rest" bs=4k 2>/dev/null || true
	refused 1 '[Nn]o space|disk is full' locum backup web01 --config "$t/small.conf"
	rm "$t/small/rest"
	unharmed "$t/vm"
	if [ "$points" -gt 0 ]; then
		[ "$(wc -l <"$t/told")" = "$points" ] || fail "$points points, and listed were: $(cat "$t/told")"
		# One that was durable when the catalog found no room was told as failed, and is there all the same.
		small_ids >"$t/there"
		[ -z "$(comm -23 "$t/told" "$t/there")" ] || fail "points were lost: $(comm -23 "$t/told" "$t/there")"
		[ "$(wc -l <"$t/there")" -le $((points + 1)) ] || fail "$points points and one that failed, and there are: $(cat "$t/there")"
		locum verify web01 --config "$t/small.conf" --quiet || fail "a full store does not verify"
	fi
	echo "a full store: $points points before, all there, $(small_ids | wc -l) now"
	mount -o remount,size=256m "$t/small"
	locum backup web01 --config "$t/small.conf" --json >"$t/out" || fail "after there is room: $(cat "$t/out")"
	same_small() { LOCUM_CONFIG=$t/small.conf same_as web01 vd0="${disks[0]}" vd1="${disks[1]}"; }
	same_small
	# Read-only: what only reads goes on.
	mount -o remount,ro "$t/small"
	refused 1 'web01|store' locum backup web01 --config "$t/small.conf"
	locum points web01 --config "$t/small.conf" >/dev/null || fail "points of a read-only store"
	locum verify web01 --config "$t/small.conf" --quiet || fail "verify of a read-only store"
	same_small
	umount "$t/small"
	at_end() { :; }
	echo "a read-only store: points, verify, restore"
else
	left_out "full and read-only store: not root"
fi
unharmed "$t/vm"
still
