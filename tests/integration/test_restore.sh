#!/bin/bash
# Restored images are what was backed up, whole or not there at all: raw, qcow2, kernel; refusals;
# Ctrl-C, kill -9 and a full disk in the middle; damage; without catalog, with nothing but segments
# and the recovery code.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
at_end() {
	[ ! -e "$t/nbd.pid" ] || kill "$(cat "$t/nbd.pid")" 2>/dev/null
}
scenario_begin restore

# Odd sizes, holes, text, noise; a kernel of any length.
mkdir "$t/img"
make_image() { # FILE BYTES STEP
	local at
	truncate -s "$2" "$1"
	for ((at = 0; at < $2; at += $3)); do
		if ((at / $3 % 2)); then
			head -c 150000 /dev/urandom
		else
			head -c 150000 <(seq "$((at / 1000))" "$((at / 1000 + 30000))")
		fi | dd of="$1" bs=64K seek=$((at / 65536)) conv=notrunc status=none iflag=fullblock
	done
	truncate -s "$2" "$1" # the last piece may have made it longer
}
make_image "$t/img/a.raw" $((90 * 1048576 + 77 * 512)) 1048576
make_image "$t/img/b.raw" $((600 * 1048576)) 33554432
qemu-img convert -f raw -O qcow2 "$t/img/b.raw" "$t/img/b.qcow2"
head -c 3333333 /dev/urandom >"$t/img/vmlinux"
scenario_vm web01 "memory = 300 MiB" "append = console=ttyS0" "kernel = $t/img/vmlinux" \
	"disk = vda raw $t/img/a.raw boot=1" "disk = vdb qcow2 $t/img/b.qcow2 serial=xyz" \
	"nic = net0 user mac=52:54:00:00:00:01"
locum backup web01 >/dev/null || fail "backup"
out=$t/out.d

# ---- raw and qcow2, into a folder ----
locum restore web01 --to "$out" >"$t/said"
cmp "$out/web01-vda.raw" "$t/img/a.raw" || fail "vda differs"
cmp "$out/web01-vdb.raw" "$t/img/b.raw" || fail "vdb differs"
cmp "$out/web01-kernel" "$t/img/vmlinux" || fail "the kernel differs"
[ "$(du -k "$out/web01-vdb.raw" | cut -f1)" -lt 10000 ] || fail "vdb is not sparse: $(du -k "$out/web01-vdb.raw")"
[ "$(stat -c %a "$out/web01-vda.raw")" = 600 ] || fail "others may read a restored disk"
grep -q "locum vm start web01 --config $out/web01.conf" "$t/said" || fail "no word on how to start it"
for line in 'memory = 300 MiB' "kernel = $out/web01-kernel" 'append = console=ttyS0' \
	"disk = vda raw \"$out/web01-vda.raw\" bus=virtio.* boot=1" "disk = vdb raw .* serial=xyz" 'mac=52:54:00:00:00:01'; do
	grep -q -- "$line" "$out/web01.conf" || fail "no '$line' in web01.conf: $(cat "$out/web01.conf")"
done
locum vm list --config "$out/web01.conf" --store "$t/store" >/dev/null || fail "web01.conf is not valid"

locum restore web01 --to "$t/q/" --format qcow2 --json >"$t/said"
grep -q '"format": *"qcow2"' "$t/said" || fail "--json: $(cat "$t/said")"
for d in a:vda b:vdb; do
	qemu-img check -q -f qcow2 "$t/q/web01-${d#*:}.qcow2" || fail "${d#*:}.qcow2 is damaged"
	qemu-img compare -q -f raw -F qcow2 "$t/img/${d%:*}.raw" "$t/q/web01-${d#*:}.qcow2" || fail "${d#*:}.qcow2 differs"
done
cmp "$t/q/web01-kernel" "$t/img/vmlinux" || fail "the kernel is no plain file"

# ---- one disk, a file ----
locum restore web01@latest --disk vda --to "$t/one.img" --quiet
cmp "$t/one.img" "$t/img/a.raw" || fail "one disk differs"

# ---- a VM of one disk: a folder all the same, or the file that an image would be called ----
scenario_vm web03 "disk = vda raw $t/img/a.raw boot=1"
locum backup web03 >/dev/null || fail "backup of web03"
locum restore web03 --to "$t/new" >"$t/said"
cmp "$t/new/web03-vda.raw" "$t/img/a.raw" || fail "a VM of one disk differs"
grep -q "locum vm start web03 --config $t/new/web03.conf" "$t/said" || fail "no word on how to start it: $(cat "$t/said")"
[ -e "$t/new/web03.conf" ] || fail "no web03.conf"
locum restore web03 --to "$t/web03.IMG" --quiet
cmp "$t/web03.IMG" "$t/img/a.raw" || fail "the one disk, as a file, differs"
refused 1 'already; --force replaces it' locum restore web03 --to "$t/web03.IMG"
for f in web03.qcow2:qcow2 web03.vhd:vpc; do
	locum restore web03 --to "$t/${f%:*}" --quiet
	qemu-img compare -q -f raw -F "${f#*:}" "$t/img/a.raw" "$t/${f%:*}" || fail "$f is not of the format that its name says"
done
locum restore web03 --to "$t/web03.qcow2" --format raw --force --quiet
cmp "$t/web03.qcow2" "$t/img/a.raw" || fail "--format does not go before the name"

# An image that a VM runs from, or that one stands on, is not taken away from under it.
for mode in '' --read-only; do
	rm -f "$t/nbd.pid"
	# shellcheck disable=SC2086
	qemu-nbd --fork --pid-file="$t/nbd.pid" --persistent --socket="$t/nbd.sock" -f raw $mode "$t/new/web03-vda.raw"
	printf mine | dd of="$t/new/web03-vda.raw" bs=1 seek=5000 conv=notrunc status=none
	refused 1 'web03-vda.raw: in use: a VM runs from it' locum restore web03 --to "$t/new" --force
	pid=$(cat "$t/nbd.pid")
	kill "$pid"
	while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
	rm -f "$t/nbd.pid"
	[ "$(dd if="$t/new/web03-vda.raw" bs=1 skip=5000 count=4 status=none)" = mine ] || fail "an image in use was replaced"
done
locum restore web03 --to "$t/new" --force --quiet
cmp "$t/new/web03-vda.raw" "$t/img/a.raw" || fail "restored over an old image it differs"

# ---- its section: with where the host keeps things, and never over one that is there ----
for line in "store = $t/store" "run_dir = $t/run" "scratch_dir = $t/scratch" "key_dir = $t/keys"; do
	grep -qxF "$line" "$out/web01.conf" || fail "no '$line' in web01.conf: $(cat "$out/web01.conf")"
done
env -u LOCUM_CONFIG "$bin/locum" backup web01 --config "$out/web01.conf" >"$t/said" 2>&1 ||
	fail "backup of the restored VM: $(cat "$t/said")"
mkdir "$t/mine"
echo mine >"$t/mine/web01.conf"
refused 1 'web01.conf: is there already' locum restore web01 --to "$t/mine"
[ "$(ls -A "$t/mine")" = web01.conf ] || fail "refused, and left $(ls -A "$t/mine")"
grep -qx mine "$t/mine/web01.conf" || fail "somebody's web01.conf was overwritten"
refused 1 'is no folder; the point has several' locum restore web01 --to "$t/mine/web01.conf"

# ---- what there is, in 80 columns ----
locum points >"$t/said"
[ "$(wc -L <"$t/said")" -le 80 ] || fail "too wide: $(cat "$t/said")"
grep -q '^   vda 90.0 MiB, vdb 600.0 MiB, kernel' "$t/said" || fail "no disks: $(cat "$t/said")"

# ---- refusals ----
refused 1 'already; --force replaces it' locum restore web01 --disk vda --to "$t/one.img"
echo old >"$t/one.img"
locum restore web01 --disk vda --to "$t/one.img" --force --quiet
cmp "$t/one.img" "$t/img/a.raw" || fail "--force did not replace it"
refused 1 "no disk 'vdx'; did you mean 'vd[ab]'" locum restore web01 --disk vdx --to "$t/x"
refused 1 "did you mean .*web01" locum restore web1 --to "$t/x"
refused 2 'say where to' locum restore web01
refused '[12]' 'raw, qcow2' locum restore web01 --to "$t/x" --format vdi
refused 2 'nothing stands after' locum restore web01@ --to "$t/x"
refused '[12]' 'nothing stands after' locum drop web01@ --dry-run
refused 2 'not an empty one' locum restore web01 --to "$t/x" --store ''
refused 2 'no regular file' locum restore web01 --disk vda --to /dev/null --force
! mknod "$t/dev" b 7 250 2>/dev/null || refused 2 'a device is written by nbdcopy' locum restore web01 --disk vda --to "$t/dev" --force
[ ! -e "$t/x" ] || fail "a refusal left a folder"

# ---- ends in the middle: nothing is there, least of all something half ----
nothing_in() { # WHEN
	[ -z "$(ls -A "$t/half" 2>/dev/null)" ] || fail "$1 left: $(ls -A "$t/half")"
}
mkdir "$t/half"
for at in export.write:1 export.write:20 output.sync:1 output.publish:1; do
	LOCUM_FAILPOINT=$at:kill locum restore web01 --to "$t/half" --quiet 2>/dev/null && fail "$at was not hit"
	nothing_in "kill -9 at $at"
done
for at in export.write:20:enospc export.write:1:eio output.sync:1:eio; do
	LOCUM_FAILPOINT=$at refused 1 "$t/half/web01-" locum restore web01 --to "$t/half"
	nothing_in "$at"
done
LOCUM_FAILPOINT=export.write:10:stop "$bin/locum" restore web01 --to "$t/half" 2>"$t/err" &
pid=$!
stopped "$pid"
kill -INT "$pid"
kill -CONT "$pid"
rc=0
wait "$pid" || rc=$?
[ "$rc" = 1 ] || fail "Ctrl-C: exit status $rc: $(cat "$t/err")"
grep -q interrupted "$t/err" || fail "Ctrl-C: $(cat "$t/err")"
nothing_in "Ctrl-C"

# A closed descriptor's number is not given to a file: messages would be written into it.
LOCUM_FAILPOINT=export.write:10:stop "$bin/locum" restore web01 --to "$t/half" <&- >&- 2>&- &
pid=$!
stopped "$pid"
for fd in 0 1 2; do
	[ "$(readlink "/proc/$pid/fd/$fd")" = /dev/null ] || fail "closed descriptor $fd became $(readlink "/proc/$pid/fd/$fd")"
done
kill -INT "$pid"
kill -CONT "$pid"
wait "$pid" && fail "Ctrl-C without descriptors: exit status 0"
nothing_in "Ctrl-C without descriptors"

# A filesystem that is too small is refused before anything is written to it.
if mkdir "$t/small" && mount -t tmpfs -o size=8m none "$t/small" 2>/dev/null; then
	rc=0
	locum restore web01 --to "$t/small" 2>"$t/err" || rc=$?
	left=$(ls -A "$t/small")
	umount "$t/small"
	grep -q 'needs .*MiB, 8.0 MiB are free' "$t/err" || fail "too small: $rc, $(cat "$t/err")"
	[ "$rc" = 1 ] || fail "too small: exit status $rc"
	[ -z "$left" ] || fail "too small: left $left"
fi

# ---- a catalog that somebody changed: every chunk is sound, and in the wrong place ----
cp -r "$t/store" "$t/swapped"
swap_windows "$t/swapped"
for disk in vda kernel; do # the one that was changed, and one beside it
	refused 1 'not the one that was committed' locum restore web01 --disk $disk --to "$t/half/x" --store "$t/swapped"
	nothing_in "a changed map"
done
refused 1 'NOT good: .*not the one that was committed' locum verify web01 --store "$t/swapped"
locum store rebuild --store "$t/swapped" --quiet
locum restore web01 --disk vda --to "$t/rebuilt.raw" --store "$t/swapped" --quiet
cmp "$t/rebuilt.raw" "$t/img/a.raw" || fail "after a rebuild it differs"

# ---- with less and less ----
locum points web01 --json >"$t/points"
rm -rf "$t/store"/catalog.sqlite* "$t/store/index"
locum restore web01 --disk vda --to "$t/nocatalog.raw" --quiet
cmp "$t/nocatalog.raw" "$t/img/a.raw" || fail "without the catalog it differs"
# A folder that can't be read to its end is no folder with less in it.
points_of() { locum points --store "$1" --json; }
points_of "$t/swapped" >"$t/all"
unread=0
for ((n = 1; n < 200; n++)); do
	rm -rf "$t/unread"
	cp -r "$t/swapped" "$t/unread"
	: >"$t/places"
	rc=0
	LOCUM_FAILPOINT=dir.next:$n:eio LOCUM_FAILPOINT_LOG=$t/places "$bin/locum" store rebuild --store "$t/unread" \
		>"$t/out" 2>&1 || rc=$?
	[ "$(grep -cx dir.next "$t/places")" -ge $n ] || break
	if [ $rc != 0 ]; then
		unread=$((unread + 1))
		grep -q 'Input/output error' "$t/out" || fail "a folder that can't be read, $n: $(cat "$t/out")"
		locum store rebuild --store "$t/unread" --quiet || fail "rebuild again, $n"
	fi
	points_of "$t/unread" | cmp -s - "$t/all" || fail "a folder that can't be read, $n: other points"
done
[ $unread -gt 0 ] || fail "no rebuild met a folder that can't be read"
echo "$((n - 1)) places where a folder can't be read, $unread of them told"
cp -r "$t/store" "$t/rescued"
refused 1 'recovery' locum restore web01 --disk vda --to "$t/x.raw" --store "$t/rescued" --config /dev/null
locum restore web01 --disk vda --to "$t/code.raw" --store "$t/rescued" --recovery-code-file "$t/kit" \
	--config /dev/null --quiet
cmp "$t/code.raw" "$t/img/a.raw" || fail "with the recovery code it differs"

# ---- damage: said, never given as data ----
segment=$(find "$t/rescued/segments" -name '*.*' | sort | sed -n 1p)
size=$(stat -c %s "$segment")
printf '\x5a\xa5\x5a\xa5' | dd of="$segment" bs=1 seek=$((size / 3)) conv=notrunc status=none
damaged=("--store" "$t/rescued" "--recovery-code-file" "$t/kit" "--config" /dev/null)
refused 1 'web01/(vd[ab]|kernel) at byte [0-9]+: .*segments/[0-9]+.*offset' \
	locum restore web01 --to "$t/half" "${damaged[@]}"
nothing_in "damage"
refused 1 'is NOT good: .*web01/(vd[ab]|kernel) at byte' locum verify web01 "${damaged[@]}"
all=1 # where what was hit is in vda, it is in both VMs
! locum verify web03 --quiet "${damaged[@]}" 2>/dev/null || all=3
refused $all '"ok": *false' locum verify --all --json "${damaged[@]}"
locum verify web01 --quiet || fail "verify of the good store"
locum verify web01 --json | has '"ok": *true' || fail "verify --json"
refused 3 'no VM web02' locum verify web02 web01
refused 3 '"asked":"web02","point":null,"ok":false' locum verify web02 web01 --json
grep -q '"asked":"web01","point":{' "$t/refused" || fail "an unknown VM hides the others: $(cat "$t/refused")"
refused 2 'either points' locum verify
echo "ok"
