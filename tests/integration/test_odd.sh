#!/bin/bash
# Disks as nobody expects them: tiny, of no whole number of windows or sectors, read-only, of no size, without a medium, with
# names that QEMU made up; two VMs whose images are called the same.  And a huge one: what a point of it costs.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin odd

put() { # VM DEVICE PATTERN OFFSET LENGTH
	local n
	n=$(grep -c '^wrote' "$t/$1/qemu.log" || true)
	guest_qmp "$t/$1" "{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"qemu-io $2 \\\"write -P $3 $4 $5\\\"\"}}" >/dev/null
	guest_qmp "$t/$1" "{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"qemu-io $2 flush\"}}" >/dev/null
	[ "$(grep -c '^wrote' "$t/$1/qemu.log")" -gt "$n" ] || fail "write to $2: $(tail -n 2 "$t/$1/qemu.log")"
}

d=$t/img e=$t/img2
mkdir "$d" "$e"
truncate -s 65536 "$d/window.raw"
truncate -s 70001 "$d/odd.raw"
truncate -s 513 "$d/sector.raw"
truncate -s 1M "$d/made-up.raw" "$d/ro.raw"
qemu-img create -q -f qcow2 "$d/tiny.qcow2" 64k
qemu-img create -q -f qcow2 "$d/uneven.qcow2" $((3 * 65536 + 1536))
qemu-img create -q -f qcow2 "$e/tiny.qcow2" 64k
qemu-io -f raw -c 'write -q -P 0x77 0 1M' "$d/ro.raw"
guest_may "$d/ro.raw" "$d/made-up.raw"
scenario_vm web01 "qmp = $t/vm/qmp"
scenario_vm web02 "qmp = $t/vm2/qmp"
odd=(-x -device -x scsi-cd,id=cd,bus=scsi0.0
	-x -blockdev -x "driver=raw,node-name=ro,read-only=on,file.driver=file,file.filename=$d/ro.raw" -x -device -x scsi-hd,id=ro,drive=ro,bus=scsi0.0
	-x -drive -x "if=none,id=dr,file=$d/made-up.raw,format=raw" -x -device -x scsi-hd,id=made-up,drive=dr,bus=scsi0.0)
images=("$d/window.raw" "$d/odd.raw" "$d/sector.raw" "$d/tiny.qcow2" "$d/uneven.qcow2")
all=(vd0="$d/window.raw" vd1="$d/odd.raw" vd2="$d/sector.raw" vd3="$d/tiny.qcow2" vd4="$d/uneven.qcow2" ro="$d/ro.raw" made-up="$d/made-up.raw")
guest_start "$t/vm" -b scsi -w '' -x -S "${odd[@]}" "${images[@]}"
guest_start "$t/vm2" -b scsi -w '' -x -S "$e/tiny.qcow2"
qemu_ready vm
qemu_ready vm2
guest_qmp "$t/vm" '{"execute":"query-block"}' | has '"node-name": "#block' || fail "no node has a made-up name"
put vm "-d vd1" 0x11 0 70144
put vm dr 0x12 64k 64k
put vm2 "-d vd0" 0x13 0 64k
backup web01 full
same_as web01 "${all[@]}"
backup web02 full
same_as web02 vd0="$e/tiny.qcow2"
put vm "-d vd0" 0x21 512 1k
put vm "-d vd1" 0x22 69632 512
put vm "-d vd2" 0x23 512 512
put vm "-d vd3" 0x24 0 64k
put vm "-d vd4" 0x25 $((3 * 65536)) 1536
put vm dr 0x26 $((1048576 - 512)) 512
backup web01 incremental
same_as web01 "${all[@]}"
[ "$(figure changed_bytes)" = $((6 * 65536)) ] || fail "6 windows were written, not $(cat "$t/out")"
guest_kill "$t/vm"
guest_kill "$t/vm2"
# Off, they have the same sizes and bytes.
backup web01 compared
[ "$(figure changed_bytes)" = 0 ] || fail "nothing was written: $(cat "$t/out")"
same_as web01 "${all[@]}"
# No more of a disk is data than there is of it.
for want in '"vd1",[^}]*"data_bytes":70144' '"vd2",[^}]*"data_bytes":1024' '"vd4",[^}]*"data_bytes":1536'; do
	locum restore web01 --to "$t/again" --json --force | has "$want" || fail "a restore should say $want"
done
echo "tiny, uneven, read-only, no medium, made-up names: as they were"

# Of no size: it is said which, and that it can be left out.
: >"$d/none.raw"
guest_start "$t/vm" -b scsi -w '' -x -S "$d/window.raw" "$d/none.raw"
qemu_ready vm
refused 1 'web01: disk vd1 cannot be captured: it has no size.*leave it out by name' locum backup web01
sed -i '/^\[vm web01\]/a exclude = vd1' "$LOCUM_CONFIG"
locum backup web01 || fail "without it"
sed -i '/^\[vm web01\]/a exclude = vd0' "$LOCUM_CONFIG"
refused 1 'web01: it has no disk to back up: all of them are excluded' locum backup web01
guest_kill "$t/vm"
guest_start "$t/vm" -b scsi -w '' -x -S
qemu_ready vm
refused 1 'web01: it has no disk to back up; protect = no in \[vm web01\] of .* leaves it alone$' locum backup web01
refused 3 'web01: it has no disk to back up; ' locum backup --all
sed -i '/^\[vm web01\]/a protect = no' "$LOCUM_CONFIG"
locum backup --all --json >"$t/out" || fail "backup --all without the one that has no disk: $(cat "$t/out")"
grep -q '"vm": *"web02"' "$t/out" || fail "web02 is left alone, too: $(cat "$t/out")"
! grep -q web01 "$t/out" || fail "web01 is not left alone: $(cat "$t/out")"
refused 1 'web01: it has no disk to back up; ' locum backup web01
sed -i '/^\[vm web02\]/a protect = no' "$LOCUM_CONFIG"
refused 1 'every VM of .* is left alone' locum backup --all
guest_kill "$t/vm"
sed -i '/^exclude = vd0/d; /^protect = no/d' "$LOCUM_CONFIG"

# One that is off boots without it: there is nothing that could stand in its place.
scenario_vm web04 "disk = a raw $d/window.raw" "disk = gone raw $d/gone.raw" 'exclude = gone'
locum backup web04 || fail "without an image that is gone"
refused 1 'web04: disk gone is not in the point: without it' locum boot web04 --test --timeout 1s
grep -q 'no sign of life' "$t/refused" || fail "it does not boot: $(cat "$t/refused")"

# 100 GiB with 1 GiB in them.
truncate -s 100G "$d/huge.raw"
scenario_vm web03 "qmp = $t/vm3/qmp"
guest_start "$t/vm3" -b scsi -w '' -x -S "$d/huge.raw"
qemu_ready vm3
for ((i = 0; i < 8; i++)); do
	put vm3 "-d vd0" $((i + 1)) $((i * 13))G 128M
done
cost() { # WHAT: limits of seconds and of KiB
	/usr/bin/time -f '%e %M' -o "$t/time" "$bin/locum" backup web03 --json >"$t/out" 2>"$t/err" || fail "$1: $(cat "$t/err")"
	read -r seconds kib <"$t/time"
	echo "100 GiB, $1: $seconds s, $((kib / 1024)) MiB resident, $(figure stored_bytes) bytes stored"
	[ "$kib" -lt 102400 ] || fail "$1: $kib KiB resident"
}
cost full
put vm3 "-d vd0" 0x5a 50G 1M
cost "1 MiB changed"
# A second is the aim; what is judged allows for a busy machine.
awk -v s="$seconds" 'BEGIN { exit !(s < 5) }' || fail "a point of 1 MiB took $seconds s"
guest_kill "$t/vm3"
locum verify --all --quiet || fail "verify"
