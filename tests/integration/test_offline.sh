#!/bin/bash
# A VM that is off: read from its images, with QEMU's locks respected; not read again while nothing was written; and what
# becomes of it when it is started again.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin offline

mapfile -t disks < <("$src/tests/guest/mkdisks.sh" "$t/img" --size 96 --fs-size 0)
scenario_vm web01 "qmp = $t/vm/qmp"
refused 1 "web01: .*$t/vm/qmp.*locum.conf nor a restore point says where its disks are" locum backup web01

guest_start "$t/vm" -a 'seq.load=200' "${disks[@]}" >/dev/null
guest_past "$t/vm" 0
backup web01 full
guest_stop "$t/vm"

# Off: whole images, compared with what the store has.
backup web01 compared
same_as web01 "vd0=${disks[0]}" "vd1=${disks[1]}"
locum points web01 --json | has 'powered off' || fail "the point does not say that the VM was off: $(locum points web01 --json)"

# Files that changed in the last seconds are not trusted by their times.
sleep 2.2
backup web01 compared
[ "$(figure changed_bytes)" = 0 ] || fail "nothing was written, but: $(cat "$t/out")"
points=$(point_ids web01 | wc -l)
backup web01 unchanged
[ "$(point_ids web01 | wc -l)" = "$points" ] || fail "a point was made of unchanged images"
locum backup web01 --verbose 2>/dev/null | has 'unchanged since its point of' || fail "it does not say so"
LOCUM_FAILPOINT_LOG=$t/passed locum backup web01 --quiet || fail "once more"
! grep -qx segment.sync "$t/passed" || fail "the store is synced for nothing"
[ -z "$(locum backup web01 2>&1)" ] || fail "not silent without a terminal: $(locum backup web01 2>&1)"
echo "off: compared, then unchanged"

# Written to offline: only that is stored.
qemu-io -f raw -c 'write -P 0x5a 20M 64k' "${disks[0]}" >/dev/null
qemu-io -f qcow2 -c 'write -P 0xa5 30M 128k' "${disks[1]}" >/dev/null
backup web01 compared
same_as web01 "vd0=${disks[0]}" "vd1=${disks[1]}"
[ "$(figure changed_bytes)" = $((192 * 1024)) ] || fail "192 KiB were written, but: $(cat "$t/out")"
[ "$(figure stored_bytes)" -lt $((192 * 1024)) ] || fail "more was stored than written: $(cat "$t/out")"
echo "off and written to: $(figure stored_bytes) bytes stored"

# Its monitor is dead, but a QEMU that we do not know of holds the images.
guest_start "$t/vm2" "${disks[@]}" >/dev/null
refused 1 "web01: .*disk[01].* in use .*, but .*$t/vm/qmp" locum backup web01
cat "$t/refused"
guest_kill "$t/vm2"

# An image that is not there.
mv "${disks[1]}" "$t/away"
refused 1 "web01: .*disk vd1.*${disks[1]}.*No such file" locum backup web01
mv "$t/away" "${disks[1]}"

# Started again: its QEMU has no record of changes, so all is compared; then it is incremental again.
guest_start "$t/vm" -a 'seq.load=200' "${disks[@]}" >/dev/null
guest_past "$t/vm" "$(guest_last "$t/vm")"
backup web01 compared
grep -o '"scanned_why": .*' "$t/out"
guest_past "$t/vm" "$(guest_last "$t/vm")"
backup web01 incremental

# A disk has the name that its section gives it, running or off: by its serial number, or by its image.
sed -i "/^\[vm web01\]/a disk = root raw ${disks[0]}\ndisk = data qcow2 /else/where.qcow2 serial=s-1" "$LOCUM_CONFIG"
guest_stop "$t/vm"
guest_start "$t/vm" -a 'seq.load=200' "${disks[@]}" -x -set -x device.vd1.serial=s-1 >/dev/null
guest_past "$t/vm" 0
locum backup web01 --quiet || fail "disks with the names of its section"
backup web01 incremental
locum restore web01 --to "$t/r" --quiet
[ "$(cd "$t/r" && echo *.raw)" = "web01-data.raw web01-root.raw" ] || fail "the names of its section: $(ls "$t/r")"
rm -rf "$t/r"
sed -i "s#/else/where.qcow2#${disks[1]}#" "$LOCUM_CONFIG"
guest_stop "$t/vm"
backup web01 compared
same_as web01 "root=${disks[0]}" "data=${disks[1]}"
sed -i '/^disk = /d' "$LOCUM_CONFIG"
guest_start "$t/vm" -a 'seq.load=200' "${disks[@]}" >/dev/null
guest_past "$t/vm" 0
locum backup web01 --quiet || fail "disks with names of their own again"

# Disks of other formats are read as what they are when the VM is off, or not at all.
foreign() { # FORMAT FILE
	qemu-img create -q -f "$1" "$2" 8M
	qemu-io -f "$1" -c 'write -P 0x77 1M 64k' "$2" >/dev/null
	scenario_vm "$1" "qmp = $t/$1.qmp"
	qemu-system-x86_64 -S -nodefaults -display none -m 8 -daemonize -pidfile "$t/$1.pid" \
		-qmp "unix:$t/$1.qmp,server=on,wait=off" -drive "file=$2,format=$1,if=virtio"
	locum backup "$1" || fail "$1: backup"
	kill "$(cat "$t/$1.pid")"
	while [ -e "$t/$1.pid" ]; do sleep 0.05; done
	qemu-io -f "$1" -c 'write -P 0x78 2M 64k' "$2" >/dev/null
}
for format in vmdk vpc vhdx; do
	foreign $format "$t/img/foreign.$format"
	backup $format compared
	[ "$(figure changed_bytes)" = 65536 ] || fail "$format: 64 KiB were written, but: $(cat "$t/out")"
	rm -rf "$t/r.raw"
	locum restore $format --to "$t/r.raw" --quiet
	qemu-img compare -q -f raw -F $format "$t/r.raw" "$t/img/foreign.$format" || fail "$format: another content"
	rm "$t/r.raw"
done
foreign vdi "$t/img/foreign.vdi"
refused 1 "vdi: disk virtio0 .*nothing says where its image is: start the VM" locum backup vdi
echo "vmdk, vpc, vhdx: read as what they are when the VM is off; vdi: refused"

# Its terminal goes away: the snapshot is given back, as at Ctrl-C; under nohup it goes on.
hang_up() { # STATUS
	local pid rc=0
	LOCUM_FAILPOINT=backup.taken:1:stop "$bin/locum" backup web01 2>"$t/err" &
	pid=$!
	stopped $pid
	kill -HUP $pid
	kill -CONT $pid
	wait $pid || rc=$?
	[ "$rc" = "$1" ] || fail "SIGHUP: exit status $rc and not $1: $(cat "$t/err")"
}
hang_up 1
grep -q 'web01: interrupted' "$t/err" || fail "SIGHUP: $(cat "$t/err")"
unharmed "$t/vm"
trap '' HUP
hang_up 0
trap - HUP
# Nobody reads what it says any more: no reason to leave snapshots behind.
# shellcheck disable=SC2216
{ locum backup web01 --verbose || echo $? >"$t/rc"; } | true
[ "$(cat "$t/rc" 2>/dev/null || echo 0)" -le 1 ] || fail "a closed pipe: exit status $(cat "$t/rc")"
unharmed "$t/vm"

locum restore web01 --to "$t/r" --quiet
"$GUEST_OUT/seqcheck" --no-load "$t"/r/web01-vd0.raw "$t"/r/web01-vd1.raw || fail "the last point is not of one instant"
unharmed "$t/vm"
locum verify web01 --quiet || fail "verify"

# However large a disk is: what it takes in memory does not grow with it.
truncate -s 4T "$t/big"
for at in 0 3000000000000 4398046511103; do
	printf x | dd of="$t/big" bs=1 seek=$at conv=notrunc status=none
done
scenario_vm big "disk = vda raw $t/big"
measured() { # COMMAND...: its peak in MiB
	python3 -c 'import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)' "$@"
}
for what in "backup big" "restore big --to $t/small.qcow2 --format qcow2 --quiet"; do
	# shellcheck disable=SC2086
	mib=$(measured "$bin/locum" $what)
	echo "$what: $mib MiB"
	[ "$mib" -lt 100 ] || fail "$what: $mib MiB of memory"
done
qemu-img compare -q -f qcow2 -F raw "$t/small.qcow2" "$t/big" || fail "a restored disk of 4 TiB differs"
