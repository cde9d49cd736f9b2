#!/bin/bash
# What is behind a disk that is no plain image: encryption by QEMU, a filter of the admin's, firmware variables; and a TPM,
# which is beside the disks.  Points hold what the guest sees, running and off, or say that they do not.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin special
# shellcheck source=tests/lib/monitor.sh
. "$src/tests/lib/monitor.sh"

at_end() { [ ! -e "$t/tpm/pid" ] || kill "$(cat "$t/tpm/pid")" 2>/dev/null || true; }
left_out_of() { # VM REGEX: its newest point says so
	locum points "$1" --json >"$t/points"
	grep -qE "$2" "$t/points" || fail "the point of $1 does not say '$2': $(cat "$t/points")"
}
disk() { # NAME NODE
	printf -- '-x\n-device\n-x\nscsi-hd,id=%s,drive=%s,bus=scsi0.0\n' "$1" "$2"
}

# ---- encrypted by QEMU: a luks image, one below a raw node, and a qcow2 image ----
printf 'secret of the host' >"$t/pw"
secret=(--object "secret,id=s,file=$t/pw")
create() { # it measures this machine, which fails where that is busy
	local i
	for ((i = 0; i < 20; i++)); do
		! qemu-img create -q "${secret[@]}" "$@" 2>"$t/err" || return 0
	done
	fail "qemu-img create $*: $(cat "$t/err")"
}
for image in plain under; do
	create -f luks -o key-secret=s,iter-time=10 "$t/$image.luks" 2M
done
create -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 "$t/c.qcow2" 2M
# ... and under a filter, which other tools put there for limits: its format is that of what is below.
qemu-img create -q -f qcow2 "$t/limited.qcow2" 2M
truncate -s 1M "$t/first.raw"
scenario_vm web01 "qmp = $t/vm/qmp"
mapfile -t devices < <(disk luks luks; disk under under; disk crypt crypt; disk limited limited)
guest_start "$t/vm" -b scsi -w '' -x -S -x -object -x "secret,id=s,file=$t/pw" -x -object -x throttle-group,id=tg \
	-x -blockdev -x "driver=luks,node-name=luks,key-secret=s,file.driver=file,file.filename=$t/plain.luks" \
	-x -blockdev -x "driver=raw,node-name=under,file.driver=luks,file.key-secret=s,file.file.driver=file,file.file.filename=$t/under.luks" \
	-x -blockdev -x "driver=qcow2,node-name=crypt,encrypt.format=luks,encrypt.key-secret=s,file.driver=file,file.filename=$t/c.qcow2" \
	-x -blockdev -x "driver=throttle,node-name=limited,throttle-group=tg,file.driver=qcow2,file.file.driver=file,file.file.filename=$t/limited.qcow2" \
	"${devices[@]}" "$t/first.raw"
qemu_ready vm
seen() { # what the guest sees, as raw images
	qemu-img convert -U "${secret[@]}" --image-opts "driver=luks,key-secret=s,file.filename=$t/plain.luks" -O raw "$t/luks.raw"
	qemu-img convert -U "${secret[@]}" --image-opts "driver=luks,key-secret=s,file.filename=$t/under.luks" -O raw "$t/under.raw"
	qemu-img convert -U "${secret[@]}" --image-opts "driver=qcow2,encrypt.key-secret=s,file.filename=$t/c.qcow2" -O raw "$t/crypt.raw"
	qemu-img convert -U -f qcow2 -O raw "$t/limited.qcow2" "$t/limited.raw"
}
right() {
	seen
	same_as web01 luks="$t/luks.raw" under="$t/under.raw" crypt="$t/crypt.raw" limited="$t/limited.raw" vd0="$t/first.raw"
}
for d in luks under crypt limited; do put $d 0x31 64k 128k; done
backup web01 full
right
for d in luks under crypt limited; do put $d 0x32 1M 64k; done
backup web01 incremental
[ "$(figure changed_bytes)" = $((4 * 65536)) ] || fail "4 windows were written, not $(cat "$t/out")"
right
for d in luks under crypt; do
	left_out_of web01 "$d: [^\"]*the point holds what the guest sees"
done
guest_kill "$t/vm"
# Off, nobody here has the key: no point, and never one of what the container holds.
refused 1 'web01: .*(luks|under|crypt)' locum backup web01
right
sed -i '/^\[vm web01\]/a exclude = luks\nexclude = under\nexclude = crypt' "$LOCUM_CONFIG"
locum backup web01 --json >"$t/out" 2>"$t/err" || fail "without them: $(cat "$t/err")"
seen
for d in luks under crypt; do truncate -s 0 "$t/$d.raw"; truncate -s 2M "$t/$d.raw"; done
same_as web01 luks="$t/luks.raw" under="$t/under.raw" crypt="$t/crypt.raw" limited="$t/limited.raw" vd0="$t/first.raw"
sed -i '/^exclude/d' "$LOCUM_CONFIG"
echo "encrypted by QEMU, and under a filter: what the guest sees, or nothing"

# ---- firmware variables of a plain QEMU ----
code=/usr/share/OVMF/OVMF_CODE.fd vars=/usr/share/OVMF/OVMF_VARS.fd
if [ -r $code ] && [ -r $vars ]; then
	cp $vars "$t/vars.fd"
	for how in blockdev drive; do
		rm -rf "$t/r"
		scenario_vm "efi-$how" "qmp = $t/vm/qmp"
		flash=(-x -drive -x "if=pflash,format=raw,readonly=on,file=$code" -x -drive -x "if=pflash,format=raw,file=$t/vars.fd")
		[ $how = drive ] || flash=(-x -blockdev -x "driver=raw,node-name=code,read-only=on,file.driver=file,file.filename=$code"
			-x -blockdev -x "driver=raw,node-name=vars,file.driver=file,file.filename=$t/vars.fd" -x -machine -x 'pflash0=code,pflash1=vars')
		guest_start "$t/vm" -b scsi -w '' -x -S "${flash[@]}" "$t/first.raw"
		qemu_ready vm
		backup "efi-$how" full
		guest_qmp "$t/vm" "{\"execute\":\"query-block\"}" >/dev/null
		printf 'changed by the firmware' | dd of="$t/vars.fd" bs=4096 seek=3 conv=notrunc status=none
		locum restore "efi-$how" --to "$t/r" --quiet || fail "restore"
		cmp "$t/r/efi-$how-nvram" $vars 2>/dev/null || cmp "$t/r/efi-$how-nvram.raw" $vars || fail "the variables are others: $(ls "$t/r")"
		grep -q "^firmware = $code" "$t/r/efi-$how.conf" || fail "the firmware is not told: $(cat "$t/r/efi-$how.conf")"
		guest_kill "$t/vm"
		cp $vars "$t/vars.fd"
	done
	echo "firmware variables: in the point"
else
	left_out "firmware variables: no OVMF (package ovmf)"
fi

# ---- what only the command line tells ----
scenario_vm cmd "qmp = $t/vm/qmp"
guest_start "$t/vm" -b scsi -w '' -x -S -x -smbios -x type=1,serial=X1 -x -object -x memory-backend-ram,id=m0,size=128M -x -numa -x node,memdev=m0 "$t/first.raw"
qemu_ready vm
backup cmd full
left_out_of cmd 'SMBIOS: -smbios[^"]* not made again'
left_out_of cmd 'NUMA nodes: -numa'
! grep -q 'ACPI\|Hyper-V' "$t/points" || fail "told of what was not asked for: $(cat "$t/points")"
guest_kill "$t/vm"
echo "options of the command line: told"

# ---- a TPM ----
if command -v swtpm >/dev/null; then
	mkdir "$t/tpm"
	swtpm socket --tpm2 --tpmstate "dir=$t/tpm" --ctrl "type=unixio,path=$t/tpm/sock" --pid "file=$t/tpm/pid" --daemon
	scenario_vm tpm "qmp = $t/vm/qmp"
	guest_start "$t/vm" -b scsi -w '' -x -S -x -chardev -x "socket,id=tpmc,path=$t/tpm/sock" \
		-x -tpmdev -x emulator,id=tpm0,chardev=tpmc -x -device -x tpm-crb,tpmdev=tpm0 "$t/first.raw"
	qemu_ready vm
	backup tpm full
	left_out_of tpm 'tpm[^"]*: its state is not captured'
	locum restore tpm --to "$t/rt" >"$t/out" 2>&1 || fail "restore: $(cat "$t/out")"
	guest_kill "$t/vm"
	echo "a TPM: told"
else
	left_out "a TPM: no swtpm (package swtpm)"
fi
