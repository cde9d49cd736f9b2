#!/bin/bash
# A libvirtd of the test's own, beside whatever the host runs.  Source it after scenario.sh.
#
#   libvirt_begin              start it in $t/lv, or skip; sets uri.  As root: system mode, its QEMUs run as
#                              nobody, its folders are private to its mount namespace.  Else session mode.
#   libvirt_session SCRIPT ARGUMENT...  be that script as nobody, if this is root: a session's libvirtd
#   libvirt_end                end its domains and it; at_end() has to call it
#   virsh_t ARGUMENT...        virsh on it
#   libvirt_guest NAME APPEND DISK...   define and start the test guest as a domain (vda, vdb ...), until it works
#   libvirt_xml NAME APPEND DISK...     its description, with the devices in ${disk_xml[*]} besides, and the initial RAM
#                              disk $lv_initrd; libvirt_guest edits it with the sed script $lv_edit
#   libvirt_wait NAME          until the guest works
#
# The run folder of a guest is $t/d-NAME; guest_alive, guest_last, guest_cmd, guest_qmp and guest_wait take it.

# shellcheck disable=SC2154 # t is scenario.sh's
lv_daemon='' uri='' disk_xml=() lv_initrd=initrd.img lv_edit=''

_libvirt_conf() {
	mkdir -p "$t"/lv/{etc,lib,log,cache,run,sock,home}
	mkdir -p "$t"/lv/etc/qemu
	cat >"$t/lv/libvirtd.conf" <<-END
		unix_sock_dir = "$t/lv/sock"
		auth_unix_rw = "none"
		auth_unix_ro = "none"
		log_outputs = "3:file:$t/lv/libvirtd.log"
	END
	cat >"$t/lv/etc/qemu.conf" <<-END
		user = "nobody"
		group = "nogroup"
		security_driver = "none"
		remember_owner = 0
		stdio_handler = "file"
		cgroup_controllers = []
		namespaces = []
	END
}

# Its QEMU must get to the images, and to nothing of ours.
_libvirt_program() {
	local d
	if [ "$(id -u)" = 0 ]; then
		chmod 711 "$t"
		for d in etc:/etc/libvirt lib:/var/lib/libvirt log:/var/log/libvirt cache:/var/cache/libvirt run:/run/libvirt; do
			mkdir -p "${d#*:}"
			mount --bind "$t/lv/${d%%:*}" "${d#*:}"
		done
		# Guests are emulated, whatever this host's KVM is worth; probing one that hangs takes minutes.
		: >"$t/lv/kvm"
		chmod 600 "$t/lv/kvm"
		[ ! -e /dev/kvm ] || mount --bind "$t/lv/kvm" /dev/kvm
		chmod 711 "$t/lv"
		# It wants the user of Debian's libvirt-daemon-system to be there, though no QEMU runs as that.
		for d in passwd:x:64055:64055::/:/usr/sbin/nologin group:x:64055:; do
			getent "${d%%:*}" libvirt-qemu >/dev/null || {
				cp "/etc/${d%%:*}" "$t/lv/${d%%:*}"
				echo "libvirt-qemu:${d#*:}" >>"$t/lv/${d%%:*}"
				mount --bind "$t/lv/${d%%:*}" "/etc/${d%%:*}"
			}
		done
	else
		export HOME=$t/lv/home XDG_RUNTIME_DIR=$t/lv/run XDG_CONFIG_HOME=$t/lv/etc XDG_CACHE_HOME=$t/lv/cache
		mkdir -p "$t/lv/etc/libvirt"
		cp "$t/lv/etc/qemu.conf" "$t/lv/etc/libvirt/"
	fi
	exec libvirtd --config "$t/lv/libvirtd.conf" --pid-file "$t/lv/pid"
}

libvirtd_start() {
	local i
	rm -f "$t/lv/pid"
	if [ "$(id -u)" = 0 ]; then
		# shellcheck disable=SC2016
		t=$t unshare --mount --propagation private bash -c "$(declare -f _libvirt_program); _libvirt_program" >>"$t/lv/out" 2>&1 &
	else
		(_libvirt_program) >>"$t/lv/out" 2>&1 &
	fi
	lv_daemon=$!
	for ((i = 0; i < 200; i++)); do
		! virsh_t version >/dev/null 2>&1 || return 0
		kill -0 "$lv_daemon" 2>/dev/null || fail "libvirtd does not start: $(tail -n 5 "$t/lv/out" "$t/lv/libvirtd.log")"
		sleep 0.1
	done
	fail "libvirtd does not answer: $(tail -n 5 "$t/lv/libvirtd.log")"
}

libvirt_session() { # SCRIPT ARGUMENT...
	local home rc=0
	[ "$(id -u)" = 0 ] || return 0
	guest_require
	home=$(mktemp -d)
	cp -r "$GUEST_OUT" "$home/out"
	chown -R 65534:65534 "$home"
	# Not /dev/kvm: see _libvirt_program.
	setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all \
		env HOME="$home" TMPDIR="$home" GUEST_OUT="$home/out" bash "$@" || rc=$?
	rm -rf "$home"
	exit $rc
}

libvirt_begin() {
	local need
	for need in libvirtd:libvirt-daemon virsh:libvirt-clients unshare:util-linux; do
		PATH=$PATH:/usr/sbin command -v "${need%%:*}" >/dev/null || {
			echo "SKIP: ${need%%:*} is missing; install the package ${need#*:}"
			exit 77
		}
	done
	PATH=$PATH:/usr/sbin
	_libvirt_conf
	if [ "$(id -u)" = 0 ]; then
		# A container may not make namespaces.
		unshare --mount --propagation private true 2>/dev/null || {
			echo "SKIP: no mount namespace is to be had"
			exit 77
		}
		uri="qemu+unix:///system?socket=$t/lv/sock/libvirt-sock"
	else
		uri="qemu+unix:///session?socket=$t/lv/sock/libvirt-sock"
	fi
	libvirtd_start
}

libvirtd_stop() { # SIGNAL
	[ -z "$lv_daemon" ] || {
		kill "-$1" "$lv_daemon" 2>/dev/null || true
		wait "$lv_daemon" 2>/dev/null || true
	}
	lv_daemon=''
}

libvirt_end() {
	local name
	if [ -n "$lv_daemon" ]; then
		kill -CONT "$lv_daemon" 2>/dev/null || true
		for name in $(virsh_t list --name 2>/dev/null); do
			virsh_t destroy "$name" >/dev/null 2>&1
		done
	fi
	libvirtd_stop TERM
}

virsh_t() {
	virsh -q -c "$uri" "$@"
}

libvirt_xml() { # NAME APPEND DISK...
	local name=$1 append=$2 disk format i=0 letters=abcdefgh
	shift 2
	cat <<-END
		<domain type='qemu'>
		  <name>$name</name>
		  <memory unit='MiB'>128</memory>
		  <vcpu>1</vcpu>
		  <os>
		    <type arch='x86_64' machine='q35'>hvm</type>
		    <kernel>$t/boot/vmlinux</kernel>
		    <initrd>$t/boot/$lv_initrd</initrd>
		    <cmdline>$GUEST_APPEND $append</cmdline>
		  </os>
		  <features><acpi/></features>
		  <cpu mode='maximum'/>
		  <on_reboot>destroy</on_reboot>
		  <devices>
		    <emulator>/usr/bin/qemu-system-x86_64</emulator>
	END
	for disk in "$@"; do
		format=raw
		[ "${disk%.qcow2}" = "$disk" ] || format=qcow2
		echo "    <disk type='file' device='disk'><driver name='qemu' type='$format' discard='unmap'/>"
		echo "      <source file='$disk'/><target dev='vd${letters:i:1}' bus='virtio'/></disk>"
		i=$((i + 1))
	done
	printf '    %s\n' "${disk_xml[@]}"
	cat <<-END
		    <interface type='user'><mac address='52:54:00:12:34:56'/><model type='virtio'/></interface>
		    <serial type='file'><source path='$t/d-$name/serial'/></serial>
		    <channel type='unix'><source mode='bind' path='$t/d-$name/ch'/><target type='virtio' name='org.locum.test'/></channel>
		  </devices>
		</domain>
	END
}

# Of the QEMU that runs now, where guest_alive looks.
libvirt_pid() { # NAME
	local pid
	pid=$(cat "$t/lv/run/qemu/$1.pid" 2>/dev/null || cat "$t/lv/run/libvirt/qemu/run/$1.pid")
	echo "$pid $(_guest_proc "$pid" | cut -d ' ' -f 2)" >"$t/d-$1/pid"
}

libvirt_wait() { # NAME
	libvirt_pid "$1"
	guest_wait "$t/d-$1" '^SEQ start' 60 >/dev/null
}

libvirt_guest() { # NAME APPEND DISK...
	local name=$1
	mkdir -p "$t/d-$name" "$t/boot"
	cp -u "$GUEST_OUT/vmlinux" "$GUEST_OUT/$lv_initrd" "$t/boot/"
	chmod 777 "$t/d-$name"
	echo "$name" >"$t/d-$name/domain"
	libvirt_xml "$@" | sed "$lv_edit" >"$t/$name.xml"
	virsh_t define "$t/$name.xml" >/dev/null || fail "define $name: $(tail -n 3 "$t/lv/libvirtd.log")"
	virsh_t start "$name" >/dev/null || fail "start $name: $(tail -n 3 "$t/lv/libvirtd.log")"
	libvirt_wait "$name"
}

guest_qmp() { # DIR JSON
	if [ -e "$1/domain" ]; then
		virsh_t qemu-monitor-command "$(cat "$1/domain")" "$2"
	else
		"$GUEST_OUT/sockline" --timeout "${GUEST_TIMEOUT:-60}" --qmp "$1/qmp2" "$2"
	fi
}
