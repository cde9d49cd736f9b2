#!/bin/bash
# Domains of libvirt of the kinds that admins have: test_libvirt_kinds.sh [bus|off|uefi]...
#
# bus    an IOThread, virtio, SCSI and SATA disks and a CD-ROM in one that runs.
# off    an IOThread, virtio, SCSI and SATA disks, a CD-ROM, a device of the host's, firmware variables, a TPM and a LUKS disk,
#        in domains that do not run: what their points hold and say is not in them, and what is defined from them.
# uefi   firmware variables from a template, a TPM, a LUKS disk and VNC in one that runs, and that is restored as another domain
#        of the same libvirtd, which is started.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
# shellcheck source=tests/lib/libvirt.sh
. "$src/tests/lib/libvirt.sh"
at_end() { libvirt_end; }

parts=" $* "
[ $# -gt 0 ] || parts=" bus off uefi "
scenario_begin libvirt_kinds
code=/usr/share/OVMF/OVMF_CODE_4M.fd vars=/usr/share/OVMF/OVMF_VARS_4M.fd
case $parts in
*' uefi '*)
	for need in "$code:ovmf" /usr/bin/swtpm:swtpm /usr/bin/swtpm_setup:swtpm-tools; do
		[ -e "${need%:*}" ] || {
			echo "SKIP: ${need%:*} is missing; install the package ${need#*:}"
			exit 77
		}
	done
	;;
esac
libvirt_begin
sed -i "/^store/a libvirt = $uri" "$LOCUM_CONFIG"
mkdir -p "$t/img"
chmod 755 "$t/img"

# Random content, of which nothing is changed by the guest.
image() { # PATH MIB
	head -c "$2M" /dev/urandom >"$1"
	chmod 666 "$1"
}

# ... but for the ring of a guest that writes numbers: what it does not come to in time is to be empty.
guest_image() { # PATH MIB
	image "$1" "$2"
	dd if=/dev/zero of="$1" bs=1M seek=1 count=4 conv=notrunc status=none
}

omits() { # VM REGEX
	locum points "$1" --json >"$t/points"
	grep -qE -- "$2" "$t/points" || fail "the point of $1 does not say '$2': $(cat "$t/points")"
}

defined() { # VM NAME
	rm -rf "$t/r-$2"
	mkdir -m 755 "$t/r-$2"
	locum restore "$1" --to "$t/r-$2/x" --libvirt --name "$2" >"$t/out" 2>"$t/err" || fail "restore of $1: $(cat "$t/out" "$t/err")"
	virsh_t dumpxml "$2" >"$t/$2.xml" || fail "$2 is not defined"
}

restored() { # VM NAME
	defined "$1" "$2"
	virsh_t start "$2" >/dev/null 2>"$t/err" || fail "start of $2: $(cat "$t/err"; tail -n 3 "$t/lv/libvirtd.log")"
	locum backup "$2" --quiet || fail "backup of $2"
}

uefi_define() { # NAME
	local secret=6a1f0000-0000-4000-8000-00000000000a i
	image "$t/img/a.raw" 2
	image "$t/img/plain.raw" 3
	echo "<secret ephemeral='no' private='no'><uuid>$secret</uuid><usage type='volume'><volume>v</volume></usage></secret>" >"$t/secret.xml"
	virsh_t secret-define "$t/secret.xml" >/dev/null || fail "secret-define"
	virsh_t secret-set-value "$secret" --base64 "$(printf geheim | base64)" >/dev/null 2>&1 || fail "secret-set-value"
	# On a busy machine it may fail to take the time of the key's derivation.
	for ((i = 0; i < 20; i++)); do
		! qemu-img convert -q -f raw -O qcow2 --object secret,id=s,data=geheim \
			-o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 \
			"$t/img/plain.raw" "$t/img/luks.qcow2" 2>"$t/err" || break
	done
	[ "$i" -lt 20 ] || fail "$(cat "$t/err")"
	chmod 666 "$t/img/luks.qcow2"
	mkdir -m 777 "$t/d-$1"
	cat >"$t/$1.xml" <<-END
		<domain type='qemu'>
		  <name>$1</name><memory unit='MiB'>256</memory><vcpu>1</vcpu>
		  <os><type arch='x86_64' machine='q35'>hvm</type>
		    <loader readonly='yes' type='pflash'>$code</loader>
		    <nvram template='$vars'>$t/d-$1/vars.fd</nvram></os>
		  <features><acpi/></features><cpu mode='maximum'/>
		  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
		    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='$t/img/a.raw'/>
		      <target dev='vda' bus='virtio'/></disk>
		    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='$t/img/luks.qcow2'>
		      <encryption format='luks'><secret type='passphrase' uuid='$secret'/></encryption></source>
		      <target dev='vdb' bus='virtio'/></disk>
		    <serial type='file'><source path='$t/d-$1/serial'/></serial>
		    <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
		    <graphics type='vnc' socket='$t/d-$1/vnc'/>
		    <video><model type='vga'/></video>
		  </devices>
		</domain>
	END
	virsh_t define "$t/$1.xml" >/dev/null || fail "define: $(tail -n 3 "$t/lv/libvirtd.log")"
}

same_firmware() { # NAME FROM
	grep -q "<loader readonly='yes' type='pflash'>$code" "$t/$1.xml" || fail "no firmware: $(cat "$t/$1.xml")"
	cmp "$t/d-$2/vars.fd" "$(sed -n 's/.*<nvram.*>\(.*\)<.nvram>/\1/p' "$t/$1.xml")" || fail "its variables are others"
}

uefi() {
	local i
	uefi_define uefi01
	virsh_t start uefi01 >/dev/null || fail "start: $(tail -n 3 "$t/lv/libvirtd.log")"
	# Until the firmware has found nothing to boot, and written its variables.
	for ((i = 0; i < 600; i++)); do
		! grep -aq 'Shell>\|UEFI Interactive' "$t/d-uefi01/serial" || break
		sleep 0.1
	done
	! cmp -s "$vars" "$t/d-uefi01/vars.fd" || fail "the firmware has written no variables"
	backup uefi01 full
	backup uefi01 incremental
	rm -rf "$t/r"
	locum restore uefi01 --to "$t/r" --quiet || fail "restore"
	cmp "$t/img/a.raw" "$t/r/uefi01-vda.raw" || fail "vda"
	cmp "$t/img/plain.raw" "$t/r/uefi01-vdb.raw" || fail "the LUKS disk is not what the guest sees"
	omits uefi01 'tpm.*its state is not captured'
	omits uefi01 'encryption of disk vdb: the point holds what the guest sees'
	restored uefi01 uefi02
	same_firmware uefi02 uefi01
	virsh_t destroy uefi01 >/dev/null
	refused 1 'disk vdb cannot be captured: libvirt keeps the key' locum backup uefi01
	scenario_vm uefi01 'exclude = vdb'
	backup uefi01 compared
	omits uefi01 'tpm: its state is not captured'
}

cpu_features="<feature policy='require' name='aes'/><feature policy='disable' name='lahf_lm'/>"
same_cpu() { # NAME
	[ "$(grep "<feature " "$t/$1.xml" | tr -d ' \n')" = "${cpu_features// /}" ] || fail "features of the CPU: $(cat "$t/$1.xml")"
}

same_buses() { # NAME
	local disk
	for disk in vda:virtio vdb:virtio sda:scsi sdb:sata; do
		grep -q "<target dev='${disk%:*}' bus='${disk#*:}'/>" "$t/$1.xml" || fail "$disk: $(cat "$t/$1.xml")"
	done
	grep -q '<serial>S-1</serial>' "$t/$1.xml" || fail "serial: $(cat "$t/$1.xml")"
}

bus_xml() {
	image "$t/img/scsi.raw" 1
	image "$t/img/sata.raw" 2
	image "$t/img/cd.iso" 1
	disk_xml=(
		"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='$t/img/scsi.raw'/><target dev='sda' bus='scsi'/><serial>S-1</serial></disk>"
		"<controller type='scsi' index='0' model='virtio-scsi'/>"
		"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='$t/img/sata.raw'/><target dev='sdb' bus='sata'/></disk>"
		"<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='$t/img/cd.iso'/><target dev='sdc' bus='sata'/><readonly/></disk>"
		"<graphics type='vnc' socket='$t/vnc'/>")
	lv_edit="s#<vcpu>1</vcpu>#<vcpu>1</vcpu><iothreads>1</iothreads>#; s#discard='unmap'/>#discard='unmap' iothread='1'/>#"
	lv_edit+="; s#</os>#<smbios mode='sysinfo'/></os><sysinfo type='smbios'><system><entry name='serial'>S-7</entry></system></sysinfo>#"
	lv_edit+="; s#<cpu mode='maximum'/>#<cpu mode='custom' match='exact' check='none'><model>Nehalem</model>$cpu_features</cpu>#"
}

# Its VNC socket lies where QEMU may make one: in a folder that is closed to it QEMU ends, and libvirt says no more than that
# the monitor was closed.
bus() {
	bus_xml
	disk_xml=("${disk_xml[@]/\/vnc/\/d-bus01\/vnc}")
	guest_image "$t/img/b1.raw" 16
	guest_image "$t/img/b2.raw" 16
	libvirt_guest bus01 'seq.load=50 seq.disks=vda,vdb' "$t/img/b1.raw" "$t/img/b2.raw"
	scenario_vm bus01 'push_full = no'
	locum doctor bus01 >"$t/out" || fail "doctor: $(cat "$t/out")"
	grep -q 'bus01 .*for the first one QEMU has to copy disk vda as a whole' "$t/out" || fail "doctor: $(cat "$t/out")"
	refused 1 'bus01: disk vda: there is no point of it and QEMU has to copy all of it.*push_full = yes in \[vm bus01\]' locum backup bus01
	sed -i 's/^push_full = no/push_full = yes/' "$LOCUM_CONFIG"
	backup bus01 full
	backup bus01 incremental
	omits bus01 'removable drive'
	omits bus01 'SMBIOS: what the machine is called'
	rm -rf "$t/r"
	locum restore bus01 --to "$t/r" --quiet || fail "restore"
	"$GUEST_OUT/seqcheck" --strict "$t/r/bus01-vda.raw" "$t/r/bus01-vdb.raw" >"$t/seq" 2>&1 || fail "not of one instant: $(cat "$t/seq")"
	grep -q '^cpu_features = +aes,-lahf-lm' "$t/r/bus01.conf" || fail "features of the CPU: $(cat "$t/r/bus01.conf")"
	cmp "$t/img/scsi.raw" "$t/r/bus01-sda.raw" || fail "sda"
	cmp "$t/img/sata.raw" "$t/r/bus01-sdb.raw" || fail "sdb"
	unharmed "$t/d-bus01"
	virsh_t destroy bus01 >/dev/null
	backup bus01 compared
	virsh_t undefine bus01 >/dev/null
	sed -i '/^\[vm/,$d' "$LOCUM_CONFIG"
	disk_xml=() lv_edit=''
}

bare() { # NAME DEVICE
	cat >"$t/$1.xml" <<-END
		<domain type='qemu'><name>$1</name><uuid>5b3f0000-0000-4000-8000-000000000001</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>
		<os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features>
		<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>$2</devices></domain>
	END
	virsh_t define "$t/$1.xml" >/dev/null || fail "define $1: $(tail -n 3 "$t/lv/libvirtd.log")"
}

doctor_says() { # VM REGEX ADVICE
	locum doctor "$1" --quiet >"$t/out" 2>&1 || true
	sed -n "/^bad  *$1 /,\$p" "$t/out" >"$t/said"
	grep -q "$2" "$t/said" || fail "doctor: $(cat "$t/out")"
	grep -q "$3" "$t/said" || fail "doctor: $(cat "$t/out")"
}

off() {
	if [ -e "$code" ]; then
		uefi_define off01
		cp "$vars" "$t/d-off01/vars.fd"
		refused 1 'disk vdb cannot be captured: libvirt keeps the key of its encryption' locum backup off01
		scenario_vm off01 'exclude = vdb'
		backup off01 full
		omits off01 'tpm: its state is not captured'
		defined off01 off03
		same_firmware off03 off01
		cmp "$t/img/a.raw" "$(sed -n "s/.*<source file='\(.*vda.raw\)'.*/\1/p" "$t/off03.xml")" || fail "vda"
		virsh_t undefine off01 --nvram >/dev/null || fail "undefine"
		# libvirt is to choose the firmware, as virt-install has it: its description of a domain that is off names none.
		cp "$vars" "$t/d-off01/vars.fd"
		sed "s/off01</off04</; s/<os>/<os firmware='efi'>/; /<loader/d; s/<nvram template='[^']*'>/<nvram>/" "$t/off01.xml" >"$t/off04.xml"
		virsh_t define "$t/off04.xml" >/dev/null || fail "define: $(tail -n 3 "$t/lv/libvirtd.log")"
		! virsh_t dumpxml off04 | grep '<loader' || fail "this libvirt chooses earlier"
		scenario_vm off04 'exclude = vdb'
		backup off04 full
		defined off04 off05
		grep -q "<loader readonly='yes' type='pflash'>/.*OVMF_CODE" "$t/off05.xml" || fail "no firmware: $(cat "$t/off05.xml")"
		cmp "$vars" "$(sed -n 's/.*<nvram.*>\(.*\)<.nvram>/\1/p' "$t/off05.xml")" || fail "its variables are others"
		rm "$t/d-off01/vars.fd"
		backup off04 compared
		omits off04 'firmware variables: their file is not there'
		virsh_t undefine off04 >/dev/null || fail "undefine"
		sed -i '/^\[vm/,$d' "$LOCUM_CONFIG"
	else
		left_out "ovmf is not installed"
	fi
	bus_xml
	libvirt_xml bus00 '' "$t/img/o1.raw" "$t/img/o2.raw" | sed "$lv_edit" |
		sed "/<kernel>/d; /<initrd>/d; /<cmdline>/d; s#</devices>#<hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0' bus='0xff' slot='0' function='0'/></source></hostdev></devices>#" >"$t/bus00.xml"
	image "$t/img/o1.raw" 1
	image "$t/img/o2.raw" 1
	virsh_t define "$t/bus00.xml" >/dev/null || fail "define: $(tail -n 3 "$t/lv/libvirtd.log")"
	backup bus00 full
	omits bus00 'removable drive sdc'
	omits bus00 'hostdev: a device of this host that was passed through'
	defined bus00 bus03
	same_buses bus03
	same_cpu bus03
	locum restore bus00 --to "$t/r" --quiet || fail "restore"
	cmp "$t/img/o1.raw" "$t/r/bus00-vda.raw" || fail "vda"
	cmp "$t/img/sata.raw" "$t/r/bus00-sdb.raw" || fail "sdb"
	cmp "$t/img/scsi.raw" "$t/r/bus00-sda.raw" || fail "sda"
	virsh_t undefine bus00 >/dev/null
	# Without a disk, as it never had one and after it had one: what its points name are not its disks any more.
	bare bare01 ''
	refused 1 'bare01: .*it has no disk to back up; protect = no in .vm bare01. of .* leaves it alone$' locum backup bare01
	doctor_says bare01 'it has no disk' 'do: protect = no, in .vm bare01. of '
	bare bare01 "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='$t/img/o1.raw'/><target dev='vda' bus='virtio'/></disk>"
	backup bare01 full
	bare bare01 ''
	refused 1 'bare01: .*it has no disk to back up' locum backup bare01
	# Its image is gone: libvirt says where it is, so a `disk` in a section would make another VM of it.
	bare bare01 "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='$t/img/gone.raw'/><target dev='vda' bus='virtio'/></disk>"
	doctor_says bare01 'disk vda: .*gone.raw: No such file' 'do: virsh -c .* edit [^ ]*, with where the image is now; exclude = vda, in .vm bare01. of '
	virsh_t undefine bare01 >/dev/null
	refused 1 'nosuch: .*Domain not found' locum unprotect nosuch
}

for part in bus off uefi; do
	case $parts in
	*" $part "*)
		echo "$part"
		"$part"
		;;
	esac
done
