#!/bin/bash
# Run the test guest.  Source it for the functions, or call it:
#
#   guest.sh start DIR [options] DISK...     until `SEQ start` is on the console
#   guest.sh wait  DIR REGEX [SECONDS]       for a line of the console
#   guest.sh cmd   DIR COMMAND...            command of the guest, prints the answer
#   guest.sh qmp   DIR JSON                  on the second QMP socket
#   guest.sh event DIR NAME [SECONDS]        wait for a QMP event
#   guest.sh last  DIR                       newest number that the guest reported
#   guest.sh alive DIR                       exit status only
#   guest.sh kill  DIR                       kill -9 and wait for the end
#   guest.sh stop  DIR                       poweroff from inside and wait
#
# DIR is the run folder: qmp (free for the program under test), qmp2 (for the
# tests), ch (command channel), serial, serial.prev, qemu.log, pid, args.  Its
# path must be short enough for unix sockets.  Options: see guest_start.
#
# With LOCUM_TEST_CONFINED set, QEMU runs as nobody, with -sandbox on and nothing
# allowed again; the run folder and the disks are nobody's then, and nothing else.
#
# The guest is built on the first start in $GUEST_OUT, by default
# ${TMPDIR:-/tmp}/locum-guest/out.  A test that sources this file begins with
# guest_require, which skips it (exit 77) where the guest cannot be built.

# shellcheck source=tests/lib/has.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/has.sh"

GUEST_SRC=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
GUEST_OUT=${GUEST_OUT:-${TMPDIR:-/tmp}/locum-guest/out}
GUEST_APPEND='console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check noreplace-smp'
GUEST_APPEND+=' mitigations=off random.trust_cpu=on'
# Start-up work that the guest has no use for, about half a second under TCG.
GUEST_APPEND+=' cryptomgr.notests initcall_blacklist=init_kprobe_trace,load_system_certificate_list'
GUEST_APPEND+=',cubictcp_register'

_guest_fail() {
	echo "guest: $*" >&2
	return 1
}

# Usage text = the comment at the top of this file.
guest_usage() {
	sed -n '2,/^$/s/^# \{0,1\}//p' "$GUEST_SRC/guest.sh"
}

# State and start time of a process, "S 12345"; nothing if it is gone.
_guest_proc() { # PID
	# The name in parentheses may hold anything: cut up to the last one.
	sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 1,20
}

# For tests: build the guest, or end the test as skipped and say what is missing.
guest_require() { # [PROGRAM:PACKAGE...]
	local need rc=0 why
	for need in qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils "$@"; do
		PATH=$PATH:/usr/sbin:/sbin command -v "${need%%:*}" >/dev/null || {
			echo "SKIP: ${need%%:*} is missing; install the package ${need#*:}"
			exit 77
		}
	done
	why=$("$GUEST_SRC/build-guest.sh" "$GUEST_OUT" 2>&1) || rc=$?
	[ "$rc" != 77 ] || {
		echo "SKIP: $why"
		exit 77
	}
	[ "$rc" = 0 ] || {
		echo "$why" >&2
		exit 1
	}
}

# The same for a guest with the guest agent (guest_start -g).
guest_require_agent() {
	local rc=0 why
	why=$("$GUEST_SRC/build-agent.sh" "$GUEST_OUT" 2>&1) || rc=$?
	[ "$rc" != 77 ] || {
		echo "SKIP: $why"
		exit 77
	}
	[ "$rc" = 0 ] || {
		echo "$why" >&2
		exit 1
	}
}

# Is the QEMU of this run folder running?  A number that now belongs to another
# program is not, and a zombie is only not once its last thread is gone: a thread
# in the middle of a write keeps the disks open, and locked, until it is through.
guest_alive() { # DIR
	local pid start now threads
	read -r pid start 2>/dev/null <"$1/pid" || return 1
	now=$(_guest_proc "$pid")
	[ -n "$now" ] && [ "${now#* }" = "$start" ] || return 1
	[ "${now%% *}" = Z ] || return 0
	threads=("/proc/$pid/task/"*)
	[ ${#threads[@]} -gt 1 ]
}

# Wait for a line of the console that matches the extended REGEX, and print the
# first such line.  Fails at once when QEMU ends without one.
guest_wait() { # DIR REGEX [SECONDS]
	local dir=$1 regex=$2 seconds=${3:-30} line
	local until=$((SECONDS + seconds))
	while :; do
		# After the look at QEMU a look at the file, or its last words are lost.
		local alive=1
		guest_alive "$dir" || alive=0
		line=$(grep -aEm1 -- "$regex" "$dir/serial" 2>/dev/null) && {
			echo "${line%$'\r'}"
			return 0
		}
		if grep -aq '^SEQ DIED' "$dir/serial" 2>/dev/null; then
			tail -n 5 "$dir/serial" >&2
			_guest_fail "$dir: the workload in the guest died"
			return 1
		fi
		if [ "$alive" = 0 ]; then
			cat "$dir/qemu.log" >&2 2>/dev/null
			_guest_fail "$dir: QEMU ended before '$regex' was on the console"
			return 1
		fi
		if [ "$SECONDS" -ge "$until" ]; then
			tail -n 5 "$dir/serial" >&2 2>/dev/null
			_guest_fail "$dir: no '$regex' on the console in $seconds s"
			return 1
		fi
		sleep 0.05
	done
}

guest_cmd() { # DIR COMMAND...
	local dir=$1
	shift
	"$GUEST_OUT/sockline" --timeout "${GUEST_TIMEOUT:-60}" "$dir/ch" "$*"
}

guest_qmp() { # DIR JSON
	"$GUEST_OUT/sockline" --timeout "${GUEST_TIMEOUT:-60}" --qmp "$1/qmp2" "$2"
}

guest_event() { # DIR NAME [SECONDS]
	"$GUEST_OUT/sockline" --timeout "${3:-30}" --event "$1/qmp2" "$2"
}

guest_last() { # DIR
	{ sed -n 's/^SEQ \([0-9][0-9]*\) rate .*/\1/p' "$1/serial" 2>/dev/null || true; } | tail -n 1
}

_guest_gone() { # DIR SECONDS
	local until=$((SECONDS + $2))
	while guest_alive "$1"; do
		[ "$SECONDS" -lt "$until" ] || return 1
		sleep 0.02
	done
	rm -f "$1/pid"
}

guest_kill() { # DIR
	local pid
	guest_alive "$1" || {
		rm -f "$1/pid"
		return 0
	}
	read -r pid _ <"$1/pid"
	kill -9 "$pid" 2>/dev/null || true
	_guest_gone "$1" 10 || _guest_fail "$1: QEMU $pid does not die"
}

guest_stop() { # DIR
	guest_alive "$1" || return 0
	guest_cmd "$1" poweroff >/dev/null || return 1
	_guest_gone "$1" 20 || _guest_fail "$1: no power-off in 20 s"
}

# For a QEMU that runs as nobody: what it opens itself.  Folders on the way there
# can be passed through, not listed.
_guest_hand_over() { # PATH...
	local path dir
	for path in "$@"; do
		path=$(readlink -f "$path") || return 1
		chown 65534:65534 "$path" || return 1
		dir=$(dirname "$path")
		while [ "$dir" != / ] && [ "$dir" != /tmp ]; do
			chmod o+x "$dir" || return 1
			dir=$(dirname "$dir")
		done
	done
}

# For images that a guest gets otherwise than as disks of guest_start.
guest_may() { # PATH...
	[ -z "${LOCUM_TEST_CONFINED:-}" ] || _guest_hand_over "$@"
}

# One disk as QEMU arguments, appended to the array args of guest_start.
_guest_add_disk() { # INDEX PATH STYLE BUS IOTHREAD
	local i=$1 path=$2 style=$3 bus=$4 iothread=$5 format=raw device drive=disk$1
	[ "${path%.qcow2}" = "$path" ] || format=qcow2
	if [ "$style" = drive ]; then
		args+=(-drive "if=virtio,format=$format,file=${path//,/,,}")
		return
	fi
	args+=(-blockdev "{\"driver\":\"$format\",\"node-name\":\"disk$i\",\"discard\":\"unmap\",\"file\":{\"driver\":\"file\",\"filename\":\"$path\"}}")
	if [ "$style" = top ]; then
		args+=(-blockdev "{\"driver\":\"raw\",\"node-name\":\"top$i\",\"file\":\"disk$i\"}")
		drive=top$i
	fi
	case $bus in
	virtio) device="virtio-blk-pci,id=vd$i,drive=$drive${iothread:+,iothread=io$i}" ;;
	scsi) device="scsi-hd,id=vd$i,drive=$drive,bus=scsi0.0" ;;
	ide) device="ide-hd,id=vd$i,drive=$drive,bus=ide.$((i / 2)),unit=$((i % 2))" ;;
	nvme) device="nvme,id=vd$i,drive=$drive,serial=n$i" ;;
	esac
	[ -z "$iothread" ] || args+=(-object "iothread,id=io$i")
	args+=(-device "$device")
}

# guest_start DIR [options] DISK...
#   -a APPEND   kernel parameters to add: 'seq.load=2000 fs=vdb2 ...'
#   -m MIB      memory (default 128)
#   -s STYLE    blockdev (default; nodes disk0.., devices vd0..), top (a raw node
#               top0.. above each, for blockdev-reopen), drive (-drive if=virtio)
#   -b BUS      virtio (default), scsi, nvme, ide (machine pc, at most 4)
#   -g          with the QEMU guest agent, its channel is DIR/qga (guest_require_agent)
#   -i          each disk in an IOThread of its own (virtio)
#   -I          the first disk in an IOThread, the others not (virtio)
#   -B          boot from the first disk (mkbootdisk.sh) and not with -kernel
#   -w REGEX    wait for this line (default '^SEQ start'); '' does not wait
#   -t SECONDS  for at most so long (default 60)
#   -x ARG      an argument more for QEMU; may be given several times
# A DISK is qcow2 if its name ends so, else raw.  Prints the line waited for.
guest_start() {
	local dir=${1:?guest_start DIR ...} opt i pid
	local append='' mem=128 style=blockdev bus=virtio iothread='' boot='' seconds=60
	local wait_for='^SEQ start' machine=q35
	local initrd=initrd.img
	local -a extra=() args=() disks=() run_as=()
	local OPTIND OPTARG
	shift
	# Options and disks in any order.
	while [ $# -gt 0 ]; do
		OPTIND=1
		while getopts a:m:s:b:giIBw:t:x: opt; do
			case $opt in
			a) append+=" $OPTARG" ;;
			m) mem=$OPTARG ;;
			s) style=$OPTARG ;;
			b) bus=$OPTARG ;;
			g) initrd='initrd-agent.img' ;;
			i) iothread=all ;;
			I) iothread=first ;;
			B) boot=1 ;;
			w) wait_for=$OPTARG ;;
			t) seconds=$OPTARG ;;
			x) extra+=("$OPTARG") ;;
			*) return 2 ;;
			esac
		done
		shift $((OPTIND - 1))
		[ $# -eq 0 ] || {
			disks+=("$1")
			shift
		}
	done
	case $style:$bus in
	blockdev:virtio | blockdev:scsi | blockdev:nvme | blockdev:ide | drive:virtio) ;;
	top:virtio | top:scsi | top:nvme | top:ide) ;;
	*)
		_guest_fail "no disks of style '$style' on bus '$bus'"
		return 2
		;;
	esac

	command -v qemu-system-x86_64 >/dev/null || {
		_guest_fail "qemu-system-x86_64 is missing; install the package qemu-system-x86"
		return 1
	}
	"$GUEST_SRC/build-guest.sh" "$GUEST_OUT" || return 1
	mkdir -p "$dir" || return 1
	dir=$(cd "$dir" && pwd)
	[ ${#dir} -lt 90 ] || {
		_guest_fail "$dir: too long for a unix socket (108 bytes)"
		return 1
	}
	if guest_alive "$dir"; then
		_guest_fail "$dir: already running"
		return 1
	fi
	rm -f "$dir"/{qmp,qmp2,ch,qga,pid}
	[ ! -e "$dir/serial" ] || mv "$dir/serial" "$dir/serial.prev"

	[ "$bus" != ide ] || machine=pc
	# Commas are QEMU's, not the array's.
	# shellcheck disable=SC2054
	args=(-M "$machine" -accel tcg,thread=multi -cpu max -m "$mem" -nodefaults
		-no-user-config -display none -no-reboot
		-qmp "unix:$dir/qmp,server=on,wait=off" -qmp "unix:$dir/qmp2,server=on,wait=off"
		-serial "file:$dir/serial"
		-device "virtio-serial-pci,id=vser"
		-chardev "socket,id=ch,path=$dir/ch,server=on,wait=off"
		-device "virtserialport,bus=vser.0,chardev=ch,name=org.locum.test")
	[ -n "$boot" ] || args+=(-kernel "$GUEST_OUT/vmlinux" -initrd "$GUEST_OUT/$initrd"
		-append "$GUEST_APPEND $append")
	# shellcheck disable=SC2054
	[ "$initrd" = initrd.img ] || args+=(-chardev "socket,id=qga,path=$dir/qga,server=on,wait=off"
		-device "virtserialport,bus=vser.0,chardev=qga,name=org.qemu.guest_agent.0")
	[ "$bus" != scsi ] || args+=(-device 'virtio-scsi-pci,id=scsi0')
	for ((i = 0; i < ${#disks[@]}; i++)); do
		_guest_add_disk "$i" "${disks[i]}" "$style" "$bus" "$iothread"
		[ "$iothread" != first ] || iothread=''
	done
	args+=("${extra[@]}")
	if [ -n "${LOCUM_TEST_CONFINED:-}" ]; then
		run_as=(setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --no-new-privs)
		args+=(-sandbox 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny')
		_guest_hand_over "$dir" "${disks[@]}" || return 1
	fi
	printf '%q ' qemu-system-x86_64 "${args[@]}" >"$dir/args"

	"${run_as[@]}" qemu-system-x86_64 "${args[@]}" </dev/null >"$dir/qemu.log" 2>&1 &
	pid=$!
	disown "$pid" 2>/dev/null || true # or the shell reports each guest that a test kills
	echo "$pid $(_guest_proc "$pid" | cut -d ' ' -f 2)" >"$dir/pid"
	[ -n "$wait_for" ] || return 0
	guest_wait "$dir" "$wait_for" "$seconds"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
	set -u
	case ${1:-} in
	start | wait | cmd | qmp | event | last | alive | kill | stop)
		[ $# -ge 2 ] || {
			guest_usage >&2
			exit 2
		}
		verb=$1
		shift
		"guest_$verb" "$@"
		;;
	*)
		guest_usage >&2
		exit 2
		;;
	esac
fi
