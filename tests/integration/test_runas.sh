#!/bin/bash
# VMs that Locum starts do not run as root (run_as): started from their section and booted from a point, with images and a
# direct boot in folders that are closed to that user.  Their points are as those of any VM, running and off.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
[ "$(id -u)" = 0 ] || {
	echo "SKIP: not root"
	exit 77
}
command -v nbdkit >/dev/null || {
	echo "SKIP: no nbdkit"
	exit 77
}
scenario_begin runas

# The user by the rule that the configuration gives.
user=nobody
! getent passwd libvirt-qemu >/dev/null || user=libvirt-qemu
uid=$(id -u "$user")

mkdir -m 700 "$t/img"
truncate -s 4M "$t/img/a.raw"
qemu-img create -q -f qcow2 "$t/img/b.qcow2" 4M
head -c 100000 /dev/urandom >"$t/img/initrd"
# A kernel (multiboot) that says what our test guest says, and halts.
python3 - "$t/img/kernel" <<-'EOF'
	import struct, sys
	at, magic, flags = 0x100000, 0x1BADB002, 0x10000
	head = struct.pack("<8I", magic, flags, -(magic + flags) & 0xffffffff, at, at, 0, 0, at + 0x20)
	code = bytes.fromhex("be34001000" "ac" "84c0" "7407" "66baf803" "ee" "ebf4" "f4" "ebfd")
	open(sys.argv[1], "wb").write(head + code + b"SEQ start\r\n\0")
EOF
chmod 600 "$t"/img/*
scenario_vm web01 "memory = 64 MiB" "kernel = $t/img/kernel" "initrd = $t/img/initrd" \
	"disk = vda raw $t/img/a.raw" "disk = vdb qcow2 $t/img/b.qcow2"

pid_of() { # VM
	locum vm list --json | python3 -c 'import json, sys
print([v["pid"] for v in json.load(sys.stdin) if v["vm"] == sys.argv[1]][0])' "$1"
}
confined() { # VM
	local status
	status=$(cat "/proc/$(pid_of "$1")/status")
	grep -qE "^Uid:	$uid	$uid	$uid	$uid$" <<<"$status" || fail "$1 runs as $(grep ^Uid: <<<"$status")"
	grep -q '^NoNewPrivs:	1' <<<"$status" || fail "$1 may gain privileges"
	grep -q '^Seccomp:	2' <<<"$status" || fail "$1 is in no sandbox"
	[ ! -e /dev/kvm ] || [ "$(stat -c %G /dev/kvm)" = root ] ||
		grep -qE "^Groups:.*\b$(stat -c %g /dev/kvm)\b" <<<"$status" || fail "$1 is not in the group of /dev/kvm"
	[ "$(stat -c %a "$t/run" "$t/run/$1")" = "700
700" ] || fail "the folders are open: $(stat -c '%a %n' "$t/run" "$t/run/$1")"
}
said_hello() { # VM
	local i
	for ((i = 0; i < 200; i++)); do
		! grep -q '^SEQ start' "$t/run/$1/serial.log" || return 0
		sleep 0.05
	done
	fail "the kernel of $1 says nothing: $(cat "$t/run/$1/serial.log" "$t/run/$1/qemu.log")"
}
put() { # PATTERN: to both disks
	local d
	for d in vda vdb; do
		"$GUEST_OUT/sockline" --timeout 30 --qmp "$t/run/web01/qmp2" \
			"{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"qemu-io -d /machine/peripheral/$d/virtio-backend \\\"write -P $1 1M 64k\\\"\"}}" >"$t/put" || fail "write to $d"
	done
	want=$1
}
right() { # the newest point has what was put, and the kernel
	local d
	rm -rf "$t/r"
	locum restore web01 --to "$t/r" --quiet || fail "restore"
	for d in vda vdb; do
		qemu-io -r -f raw -c "read -P $want 1M 64k" "$t/r/web01-$d.raw" >"$t/io" 2>&1 || true
		! grep -qE 'failed|error' "$t/io" || fail "$d is not what was written: $(cat "$t/io")"
	done
	cmp "$t/r/web01-kernel" "$t/img/kernel" || fail "the kernel is another one: $(ls "$t/r")"
	cmp "$t/r/web01-initrd" "$t/img/initrd" || fail "the initial ramdisk is another one"
}

# Kernel and initial ramdisk are root's alone, as a restore makes them.
sed -i '/^run_dir/a run_as = no-such-user' "$LOCUM_CONFIG"
refused '[13]' 'run_as: there is no user no-such-user' locum vm start web01
sed -i '/^run_as/d' "$LOCUM_CONFIG"

locum vm start web01 || fail "start"
confined web01
said_hello web01
put 0x11
backup web01 full
right
put 0x12
backup web01 incremental
right
put 0x13
locum vm stop web01 --force || fail "stop"
backup web01 compared
right
echo "started: user $user; running and off"

# Booted from the point; what it writes, and its points, go on.
mkdir "$t/away"
cp "$t/img/kernel" "$t/img/initrd" "$t/away"
rm -r "$t/img"
sed -i '/^\[vm web01\]/,$d' "$LOCUM_CONFIG"
locum boot web01 --serial-pattern 'SEQ start' --quiet || fail "boot"
mv "$t/away" "$t/img" # for right()
confined web01
! setpriv --reuid="$uid" --regid=65534 --clear-groups test -e "$t/run/web01/nbd/s" || fail "the disks are served to anybody"
right
put 0x21
backup web01 compared
right
put 0x22
backup web01 incremental
right
put 0x23
locum vm stop web01 --force || fail "stop"
locum boot web01 --resume --serial-pattern 'SEQ start' --quiet || fail "boot --resume"
confined web01
want=0x23
backup web01 compared
right
locum vm stop web01 --force
echo "booted: the same"

# As root where that is wanted, and that is told.
locum doctor --quiet >"$t/doctor" || true
! grep -q 'run_as' "$t/doctor" || fail "$(cat "$t/doctor")"
sed -i '/^run_dir/a run_as = root' "$LOCUM_CONFIG"
locum doctor --quiet >"$t/doctor" || true
grep -qE '^warn .*run as root' "$t/doctor" || fail "doctor does not say that VMs run as root: $(cat "$t/doctor")"
grep -q 'run_as = libvirt-qemu:nobody' "$t/doctor" || fail "it has no advice: $(cat "$t/doctor")"
