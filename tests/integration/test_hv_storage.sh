#!/bin/bash
# shellcheck disable=SC2034,SC2054
# Storage that no snapshot can be taken of, by the device tree: each kind is listed with its reason, the VM is refused
# because of it, and once it is excluded by name the other disks are captured.  Devices that need a kernel or hardware that
# a test machine lacks are made of others by rewriting what QEMU answers (tests/lib/qmp_rewrite.py).
. "$(dirname "$0")/hv_lib.sh"

lib=$(cd "$(dirname "$0")/../lib" && pwd)
command -v qemu-storage-daemon >/dev/null || {
	echo "SKIP: qemu-storage-daemon is not installed"
	exit 77
}
truncate -s 1M "$DIR/vhost" "$DIR/pmem"
truncate -s 16M "$DIR/nv"

# Sees one more disk, with that reason; refuses to go on with it; goes on without it.
row() { # WHAT NAME SIZE REASON
	local what=$1 name=$2 size=$3 reason=$4
	must prepare disks
	grep -qE "^disk vm0 $name size $size role 0 refused .*$reason" "$DIR/log" ||
		fail "$what: $(grep '^disk' "$DIR/log")"
	cycle prepare take=one && fail "$what: it was taken"
	grep -qE "^FAIL take.*disk $name cannot be captured: .*$reason.*leave it out by name" "$DIR/log" || fail "$what: $(cat "$DIR/log")"
	cycle prepare exclude="$name" take=one read="$OUT" valid release end=lost || fail "$what: without it: $(cat "$DIR/log")"
	cmp "$OUT/vm0-vd0.raw" "$DIR/truth-vd0" || fail "$what: the others are not what they were"
	clean "$what"
	echo "ok: $what"
}

# The same with QEMU's answers rewritten.
rewritten() { # WHAT NAME SIZE REASON FROM TO [FROM TO...]
	local what=$1 name=$2 size=$3 reason=$4 front
	shift 4
	# hv_cycle is given the socket in front.
	mv "$DIR/qmp" "$DIR/qmp.behind"
	python3 "$lib/qmp_rewrite.py" "$DIR/qmp" "$DIR/qmp.behind" "$@" &
	front=$!
	PIDS+=("$front")
	for _ in $(seq 100); do
		[ -S "$DIR/qmp" ] && break
		sleep 0.02
	done
	row "$what" "$name" "$size" "$reason"
	kill "$front"
	wait "$front" 2>/dev/null
	rm -f "$DIR/qmp"
	mv "$DIR/qmp.behind" "$DIR/qmp"
}

qemu-storage-daemon --blockdev driver=file,node-name=f,filename="$DIR/vhost" \
	--export type=vhost-user-blk,id=e,node-name=f,writable=on,addr.type=unix,addr.path="$DIR/vhost.sock" &
PIDS+=("$!")
for _ in $(seq 100); do
	[ -S "$DIR/vhost.sock" ] && break
	sleep 0.05
done
start blockdev -object memory-backend-memfd,id=mem,size=32M,share=on -machine memory-backend=mem \
	-chardev "socket,id=vu,path=$DIR/vhost.sock" -device vhost-user-blk-pci,id=vub,chardev=vu
put vd0 11 0 256
row "vhost-user-blk" vub 0 "vhost-user disk lives in another process"
stop

start blockdev -blockdev driver=null-co,node-name=x,size=1048576,read-zeroes=on -device virtio-blk-pci,id=shared,drive=x,share-rw=on
put vd0 12 0 256
row "shared" shared 1048576 "shared with other writers"
stop

start blockdev -machine nvdimm=on -m 32,slots=2,maxmem=1G \
	-object "memory-backend-file,id=nvm,share=on,mem-path=$DIR/nv,size=16M" -device nvdimm,id=nv0,memdev=nvm
put vd0 13 0 256
row "nvdimm" nv0 0 "persistent memory"
stop

start blockdev -m 32,slots=2,maxmem=1G -object "memory-backend-file,id=pm,share=on,mem-path=$DIR/nv,size=16M" \
	-device virtio-pmem-pci,id=pmem0,memdev=pm
put vd0 14 0 256
row "virtio-pmem" pmem0 0 "persistent memory"
stop

# A random number generator is what QEMU has that a host cannot lack.
start blockdev -object rng-builtin,id=rng -device virtio-rng-pci,id=other,rng=rng \
	-blockdev driver=null-co,node-name=x,size=1048576,read-zeroes=on -device virtio-scsi-pci,id=s2 -device scsi-hd,id=pass,drive=x,bus=s2.0
put vd0 15 0 256
rewritten "vhost-scsi" other 0 "vhost disk lives in the kernel" 'child<virtio-rng-pci>' 'child<vhost-scsi-pci>'
rewritten "vhost-user-scsi" other 0 "vhost-user disk lives in another process" 'child<virtio-rng-pci>' 'child<vhost-user-scsi-pci>'
rewritten "vDPA" other 0 "vDPA device bypasses QEMU" 'child<virtio-rng-pci>' 'child<vhost-vdpa-device-pci>'
stop
start blockdev -blockdev driver=null-co,node-name=x,size=1048576,read-zeroes=on -device ide-hd,id=pass,drive=x
put vd0 16 0 256
rewritten "scsi-block" pass 1048576 "SCSI passthrough" '"return": "ide-hd"' '"return": "scsi-block"'
rewritten "scsi-generic" pass 1048576 "SCSI passthrough" '"return": "ide-hd"' '"return": "scsi-generic"'
stop

# CD-ROMs and empty drives are no disks; flash of firmware variables is.
truncate -s 131072 "$DIR/code.fd" "$DIR/vars.fd"
start blockdev -blockdev "driver=raw,node-name=code,read-only=on,file.driver=file,file.filename=$DIR/code.fd" \
	-blockdev "driver=raw,node-name=vars,file.driver=file,file.filename=$DIR/vars.fd" \
	-machine pflash0=code,pflash1=vars \
	-blockdev driver=null-co,node-name=x,size=1048576,read-only=on -device ide-cd,id=cd,drive=x -device ide-cd,id=empty,bus=ide.3 \
	-device virtio-scsi-pci,id=s2 -device scsi-cd,id=scsicd,bus=s2.0
must prepare disks
grep -qE '^disk vm0 (cd|empty|scsicd) ' "$DIR/log" && fail "a drive is taken for a disk: $(cat "$DIR/log")"
grep -q '^disk vm0 nvram size 131072 role 1 capturable' "$DIR/log" || fail "firmware variables: $(cat "$DIR/log")"
must prepare take=one read="$OUT" valid release end=commit
cmp "$OUT/vm0-nvram.raw" "$DIR/vars.fd" || fail "firmware variables differ"
stop
verdict
