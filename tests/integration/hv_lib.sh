# shellcheck shell=bash
# shellcheck disable=SC2015,SC2034
# Functions for the tests of the hypervisor core with a real QEMU.  Sourced.
#
# A machine without a guest: its disks are written through the device's own block backend (HMP qemu-io), and
# every write is done to a plain file beside it too, the truth that snapshots are compared with.
#
# Wants HV_CYCLE and SOCKLINE (programs) in the environment.

set -u
# shellcheck source=tests/lib/has.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/has.sh"
QEMU=${QEMU:-qemu-system-x86_64}
for program in "$QEMU" nbdcopy nbdinfo qemu-img jq; do
	command -v "$program" >/dev/null || {
		echo "SKIP: $program is not installed"
		exit 77
	}
done
: "${HV_CYCLE:?is not set: run this with ctest}" "${SOCKLINE:?}"
[ -x "$HV_CYCLE" ] && [ -x "$SOCKLINE" ] || {
	echo "SKIP: not built: $HV_CYCLE $SOCKLINE"
	exit 77
}

DIR=$(mktemp -d "${TMPDIR:-/tmp}/hv.XXXXXX")
RUN=$DIR/run
OUT=$DIR/out
SCRATCH=$DIR/scratch
mkdir -m 700 "$RUN" "$OUT" "$SCRATCH"
PIDS=()
FAILS=0
SIZE=16777216

cleanup() {
	local pid
	for pid in "${PIDS[@]:+${PIDS[@]}}"; do
		kill -9 "$pid" 2>/dev/null
		wait "$pid" 2>/dev/null
	done
	fsfreeze -u "$DIR/fs" 2>/dev/null
	umount "$DIR/full" "$DIR/fs" 2>/dev/null
	rm -rf "$DIR"
}
trap cleanup EXIT

fail() {
	echo "FAIL: $*"
	FAILS=$((FAILS + 1))
}

verdict() {
	if [ "$FAILS" -gt 0 ]; then
		echo "$FAILS failures"
		exit 1
	fi
	echo "ok"
	exit 0
}

# One QMP command on the test's own monitor; prints the answer.
qmp() {
	"$SOCKLINE" --qmp "$DIR/qmp2" "$1"
}

hmp() {
	qmp "{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"$1\"}}"
}

# Disks: name, how HMP qemu-io reaches it.
declare -A IO=()

# Write to the guest's disk.  PATTERN is a byte in hex, offset and length in KiB.  QEMU prints what qemu-io says
# on its own stdout.
poke() { # DISK PATTERN OFF LEN
	local before after
	before=$(grep -c '^wrote' "$DIR/qemu.log")
	hmp "qemu-io ${IO[$1]} \\\"write -P 0x$2 $3k $4k\\\"" >/dev/null
	after=$(grep -c '^wrote' "$DIR/qemu.log")
	[ "$after" -gt "$before" ] || fail "write to $1: $(tail -n 1 "$DIR/qemu.log")"
}

# Write to the guest's disk and to the truth.
put() { # DISK PATTERN OFF LEN
	poke "$@"
	put_truth "$@"
}

# A command for hv_cycle's sh= that writes to the guest's disk; the truth has to follow with put_truth.
poking() { # DISK PATTERN OFF LEN
	echo "$SOCKLINE --qmp $DIR/qmp2" \
		"'{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":" \
		"\"qemu-io ${IO[$1]} \\\"write -P 0x$2 $3k $4k\\\"\"}}' >/dev/null"
}

# Discard, which makes zeros of it.  (Not qemu-io's write -z: on an IOThread QEMU 7.2 dies of it.)
unmap() { # DISK OFF LEN
	local before after
	before=$(grep -c '^discard' "$DIR/qemu.log")
	hmp "qemu-io ${IO[$1]} \\\"discard $2k $3k\\\"" >/dev/null
	after=$(grep -c '^discard' "$DIR/qemu.log")
	[ "$after" -gt "$before" ] || fail "discard of $1: $(tail -n 1 "$DIR/qemu.log")"
	put_truth "$1" 00 "$2" "$3"
}

put_truth() { # DISK PATTERN OFF LEN
	head -c "$(($4 * 1024))" /dev/zero | tr '\0' "\\$(printf %03o "0x$2")" |
		dd of="$DIR/truth-$1" bs=64k seek="$(($3 * 1024))" oflag=seek_bytes conv=notrunc status=none
}

# Remember the truth of this instant under a name.
remember() { # NAME
	local d
	for d in "${!IO[@]}"; do
		cp --sparse=always "$DIR/truth-$d" "$DIR/at-$1-$d"
	done
}

# Start a machine.  Modes: top, blockdev, drive; iothread, iothread-top (each disk on one); mixed (one of them).
start() { # MODE [ARGUMENT...]
	local mode=$1 n pid
	shift
	rm -f "$DIR"/*.raw "$DIR"/*.qcow2 "$DIR"/truth-* "$DIR"/at-* "$DIR"/copy-*
	if [ -n "${KEEP:-}" ]; then # the disks of a machine before
		mv "$KEEP"/* "$DIR"
		rmdir "$KEEP"
	else
		truncate -s $SIZE "$DIR/d0.raw" "$DIR/d2.raw" "$DIR/truth-vd0" "$DIR/truth-sd1" "$DIR/truth-ide0-hd0"
		qemu-img create -q -f qcow2 "$DIR/d1.qcow2" $SIZE
		chmod 666 "$DIR"/d*
	fi
	IO=([vd0]="-d /machine/peripheral/vd0/virtio-backend" [sd1]="-d sd1")
	local args=(-M q35 -accel tcg -m 32 -nodefaults -display none -device virtio-scsi-pci,id=scsi)
	args+=(-qmp "unix:$DIR/qmp,server=on,wait=off" -qmp "unix:$DIR/qmp2,server=on,wait=off")
	case $mode in
	top)
		args+=(-blockdev "driver=raw,node-name=locum-img-vd0,file.driver=file,file.filename=$DIR/d0.raw")
		args+=(-blockdev "driver=raw,node-name=locum-top-vd0,file=locum-img-vd0,discard=unmap")
		args+=(-blockdev "driver=qcow2,node-name=locum-img-sd1,file.driver=file,file.filename=$DIR/d1.qcow2")
		args+=(-blockdev "driver=raw,node-name=locum-top-sd1,file=locum-img-sd1,discard=unmap")
		args+=(-device virtio-blk-pci,id=vd0,drive=locum-top-vd0 -device scsi-hd,id=sd1,drive=locum-top-sd1)
		;;
	blockdev)
		args+=(-blockdev "driver=raw,node-name=n0,file.driver=file,file.filename=$DIR/d0.raw,discard=unmap")
		args+=(-blockdev "driver=qcow2,node-name=n1,file.driver=file,file.filename=$DIR/d1.qcow2,discard=unmap")
		args+=(-device virtio-blk-pci,id=vd0,drive=n0 -device scsi-hd,id=sd1,drive=n1)
		;;
	iothread | mixed)
		args+=(-blockdev "driver=raw,node-name=n0,file.driver=file,file.filename=$DIR/d0.raw,discard=unmap")
		args+=(-blockdev "driver=qcow2,node-name=n1,file.driver=file,file.filename=$DIR/d1.qcow2,discard=unmap")
		args+=(-object iothread,id=io0 -object iothread,id=io1 -device virtio-blk-pci,id=vd0,drive=n0,iothread=io0)
		if [ "$mode" = mixed ]; then
			args+=(-device scsi-hd,id=sd1,drive=n1,bus=scsi.0)
		else
			args+=(-device virtio-scsi-pci,id=scsi1,iothread=io1 -device scsi-hd,id=sd1,drive=n1,bus=scsi1.0)
		fi
		;;
	iothread-top)
		args+=(-blockdev "driver=raw,node-name=locum-img-vd0,discard=unmap,file.driver=file,file.filename=$DIR/d0.raw")
		args+=(-blockdev "driver=raw,node-name=locum-top-vd0,file=locum-img-vd0,discard=unmap")
		args+=(-blockdev "driver=qcow2,node-name=locum-img-sd1,discard=unmap,file.driver=file,file.filename=$DIR/d1.qcow2")
		args+=(-blockdev "driver=raw,node-name=locum-top-sd1,file=locum-img-sd1,discard=unmap")
		args+=(-object iothread,id=io0 -device virtio-blk-pci,id=vd0,drive=locum-top-vd0,iothread=io0)
		args+=(-device virtio-scsi-pci,id=scsi1,iothread=io0 -device scsi-hd,id=sd1,drive=locum-top-sd1,bus=scsi1.0)
		;;
	drive)
		args+=(-drive "if=none,id=dr0,file=$DIR/d0.raw,format=raw")
		args+=(-drive "if=none,id=dr1,file=$DIR/d1.qcow2,format=qcow2")
		args+=(-drive "if=ide,file=$DIR/d2.raw,format=raw")
		args+=(-device virtio-blk-pci,id=vd0,drive=dr0 -device scsi-hd,id=sd1,drive=dr1)
		IO[vd0]=dr0
		IO[sd1]=dr1
		IO["ide0-hd0"]=ide0-hd0
		;;
	esac
	rm -f "$DIR/qmp" "$DIR/qmp2"
	"${RUN_AS[@]:+${RUN_AS[@]}}" "$QEMU" "${args[@]}" "$@" >"$DIR/qemu.log" 2>&1 &
	pid=$!
	PIDS+=("$pid")
	VM=$pid
	for _ in $(seq 100); do
		[ -S "$DIR/qmp2" ] && return 0
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.05
	done
	cat "$DIR/qemu.log"
	fail "QEMU does not start"
	verdict
}

stop() {
	kill -9 "$VM"
	wait "$VM" 2>/dev/null
}

# Run hv_cycle; its output is in $DIR/log.
cycle() { # ARGUMENT...
	# In braces, so that what the shell says of a killed child goes there too.
	{
		"$HV_CYCLE" --run "$RUN" --scratch "$SCRATCH" --qmp "$DIR/qmp" "$@"
	} >"$DIR/log" 2>&1
}

must() { # ARGUMENT...
	cycle "$@" || {
		cat "$DIR/log"
		fail "cycle: $*"
	}
}

# The copy of what was read: whole where changes were unknown, patched by the changed ranges else.
# Then it has to be the truth of that instant.
follow() { # NAME [superset|unknown: what all disks have to be]
	local d off len type rest kind
	for d in "${!IO[@]}"; do
		kind=$(sed -n "s/^source vm0 $d \([a-z]*\).*/\1/p" "$DIR/log" | tail -n 1)
		if [ -n "${2:-}" ] && [ "$kind" != "$2" ]; then
			fail "$1: changes of $d are $kind and not $2: $(grep "^source vm0 $d" "$DIR/log")"
		fi
		if [ "$kind" = superset ] && [ -f "$DIR/copy-$d" ]; then
			while read -r off len type rest; do
				[ "$type" = 1 ] || continue
				dd if="$OUT/vm0-$d.raw" of="$DIR/copy-$d" bs=64k skip="$off" seek="$off" count="$len" \
					iflag=skip_bytes,count_bytes oflag=seek_bytes conv=notrunc status=none
			done <"$OUT/vm0-$d.map"
		else
			cp --sparse=always "$OUT/vm0-$d.raw" "$DIR/copy-$d"
		fi
		grep -q "^source vm0 $d superset copied" "$DIR/log" || cmp "$OUT/vm0-$d.raw" "$DIR/at-$1-$d" ||
			fail "$1: snapshot of $d is not of the instant"
		cmp "$DIR/copy-$d" "$DIR/at-$1-$d" || fail "$1: changes of $d are not all in the record"
	done
}

# KiB marked as changed in the last read of a disk.
dirty() { # DISK
	awk '$3 == 1 { n += $2 } END { print n / 1024 }' "$OUT/vm0-$1.map"
}

# QEMU has not aborted; the worst that can happen, so said as it is.
alive() {
	kill -0 "$VM" 2>/dev/null && return
	fail "QEMU is dead: $(tail -n 1 "$DIR/qemu.log")"
	return 1
}

# Until QEMU answers a command so.
answers() { # COMMAND REGEX
	for _ in $(seq 100); do
		! qmp "{\"execute\":\"$1\"}" | has "$2" || return 0
		sleep 0.05
	done
	fail "$1 does not come to '$2': $(qmp "{\"execute\":\"$1\"}")"
}

no_jobs() {
	answers query-jobs '"return": \[\]'
}

# Until somebody has the monitor.
monitor_held() {
	answers query-chardev "\"filename\": \"unix:$DIR/qmp[,\"]"
}

# Names of image nodes of ours.
ours() {
	qmp '{"execute":"query-named-block-nodes","arguments":{"flat":true}}' | grep -o '"node-name": *"locum\.[0-9][^"]*"'
}

# What takes a snapshot of the dead out does so, and QEMU lives.  Descriptors that no node uses yet go when the last
# monitor of the dead is closed, which is what does so.
given_back() { # WHERE
	for _ in $(seq 100); do
		alive || return
		[ -n "$(ours)" ] || qmp '{"execute":"query-fdsets"}' | has '"locum\.' || break
		sleep 0.05
	done
	clean "$1"
}

# Nothing of ours in QEMU but bitmaps, and the VM runs (or is in $STATE).
clean() { # WHERE
	local graph
	alive || return
	graph=$(qmp '{"execute":"query-named-block-nodes","arguments":{"flat":true}}' |
		grep -o '"node-name": *"locum\.[^"]*"')
	[ -z "$graph" ] || fail "$1: nodes left: $graph"
	qmp '{"execute":"query-block-exports"}' | has '"locum\.' && fail "$1: exports left"
	# QEMU closes none while the VM does not run.
	[ -n "${STATE:-}" ] || ! qmp '{"execute":"query-fdsets"}' | has '"locum\.' || fail "$1: descriptors left"
	running "$1"
}

# Commands that we left behind may still be under way for a moment.
running() { # WHERE
	for _ in $(seq 20); do
		alive || return
		qmp '{"execute":"query-status"}' | has "\"status\": *\"${STATE:-running}\"" && return 0
		sleep 0.05
	done
	fail "$1: the VM is not ${STATE:-running}"
}

# Names of our records of changes, sorted, a line each "node name recording".
bitmaps() {
	qmp '{"execute":"query-named-block-nodes","arguments":{"flat":true}}' |
		jq -r '.return[] | ."node-name" as $n | (."dirty-bitmaps" // [])[] |
			select((.name // "") | startswith("locum.") and (contains(".w.") | not)) |
			"\($n) \(.name | split(".")[2]) \(.recording)"' | sort -u
}
