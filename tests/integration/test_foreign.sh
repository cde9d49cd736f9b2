#!/bin/bash
# Image formats of other hypervisors: out of a restore point, and back in.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin foreign
at_end() {
	umount -l "$t/small" 2>/dev/null || true
	[ ! -e "$t/nbd.pid" ] || kill "$(cat "$t/nbd.pid")" 2>/dev/null || true
}

# A disk with something at its beginning, at its odd end, and in some windows between.
size=$((300 * 1048576 + 1536))
truncate -s $size "$t/a.raw"
for at in 0 65536 70M 131M $((size - 512)); do
	qemu-io -f raw -c "write -q -P 0x5a $at 512" "$t/a.raw"
done
dd if=/dev/urandom of="$t/a.raw" bs=64k seek=2000 count=40 conv=notrunc status=none
truncate -s 1M "$t/b.raw"
scenario_vm web01 "disk = vda raw $t/a.raw" "disk = vdb raw $t/b.raw"
locum backup web01

# ---- out ----
suffix() {
	if [ "$1" = vpc ]; then echo vhd; else echo "$1"; fi
}
compare() { # RAW FORMAT IMAGE
	qemu-img compare -f raw -F "$2" "$1" "$3" >"$t/compare" || fail "$3: $(cat "$t/compare")"
	! grep -q 'size mismatch' "$t/compare" || fail "$3: $(cat "$t/compare")"
}
for format in vhdx vmdk vpc; do
	s=$(suffix $format)
	locum restore web01 --to "$t/$format" --format $format --json >"$t/out" || fail "restore to $format"
	grep -q "\"path\":\"$t/$format/web01-vda.$s\",\"format\":\"$format\"" "$t/out" || fail "$format: $(cat "$t/out")"
	[ "$(find "$t/$format" -type f | wc -l)" = 2 ] || fail "files of $format: $(ls -a "$t/$format")"
	compare "$t/a.raw" $format "$t/$format/web01-vda.$s"
	compare "$t/b.raw" $format "$t/$format/web01-vdb.$s"
	qemu-img check -q -f $format "$t/$format/web01-vda.$s" 2>/dev/null || [ $? = 63 ] || fail "$format: qemu-img check"
	kib=$(du -k "$t/$format/web01-vda.$s" | cut -f 1)
	[ "$kib" -lt 20480 ] || fail "$format: $kib KiB on disk for 3 MiB of data"
	[ "$(stat -c %a "$t/$format/web01-vda.$s")" = 600 ] || fail "$format can be read by others"
	echo "$format: $kib KiB on disk, the same bytes and size"
done
head -c 20000 "$t/vmdk/web01-vda.vmdk" | has -a 'RW [0-9]* SPARSE "web01-vda.vmdk"' || fail "the vmdk does not name itself"
locum restore web01 --disk vdb --to "$t/one.vhdx" --format vhdx --quiet
refused 1 "one.vhdx: is there already" locum restore web01 --disk vdb --to "$t/one.vhdx" --format vhdx
locum restore web01 --disk vdb --to "$t/one.vhdx" --format vhdx --force --quiet
refused 2 'format vdi: raw, qcow2, vhdx' locum restore web01 --to "$t/no" --format vdi

# What is too large for the format is refused at once.
truncate -s 3T "$t/large.raw"
scenario_vm large "disk = vda raw $t/large.raw"
locum backup large
refused 1 'large.vhd: a disk of 3.0 TiB; vpc takes at most 2.0 TiB.*vhdx takes more' locum restore large --to "$t/large.vhd" --format vpc
locum restore large --to "$t/large.vhdx" --format vhdx --quiet
[ "$(du -m "$t/large.vhdx" | cut -f 1)" -lt 100 ] || fail "an empty vhdx takes $(du -m "$t/large.vhdx")"

# qemu-img fails, is not there, is slow, and the disk is full: no file, hidden or not.
mkdir "$t/path" "$t/to"
nothing() {
	[ -z "$(ls -A "$t/to")" ] || fail "left behind: $(ls -A "$t/to")"
}
fake() {
	printf '#!/bin/sh\n%s\n' "$1" >"$t/path/qemu-img"
	chmod +x "$t/path/qemu-img"
}
fake 'echo it is broken >&2; exit 1'
refused 1 'web01-vda.vhdx: qemu-img: it is broken' env "PATH=$t/path:$PATH" "$bin/locum" restore web01 --to "$t/to" --format vhdx
nothing
refused 1 'start qemu-img.*qemu-utils' env PATH=/nowhere "$bin/locum" restore web01 --to "$t/to" --format vhdx
nothing
fake "echo \$\$ >$t/slow; exec sleep 60"
env "PATH=$t/path:$PATH" "$bin/locum" restore web01 --to "$t/to" --format vhdx >"$t/out" 2>&1 &
pid=$!
for ((i = 0; i < 200; i++)); do [ ! -s "$t/slow" ] || break; sleep 0.05; done
kill -TERM $pid
rc=0
wait $pid || rc=$?
{ [ $rc = 1 ] && grep -q 'interrupted; no file' "$t/out"; } || fail "interrupted: $rc $(cat "$t/out")"
sleep 0.2
! kill -0 "$(cat "$t/slow")" 2>/dev/null || fail "qemu-img runs on"
nothing
rm "$t/slow"
env "PATH=$t/path:$PATH" "$bin/locum" restore web01 --to "$t/to" --format vhdx >"$t/out" 2>&1 &
pid=$!
for ((i = 0; i < 200; i++)); do [ ! -s "$t/slow" ] || break; sleep 0.05; done
kill -KILL $pid
kill "$(cat "$t/slow")"
{ wait $pid || true; } 2>/dev/null
nothing
if [ "$(id -u)" = 0 ] && mkdir "$t/small" && mount -t tmpfs -o size=16m none "$t/small" 2>/dev/null; then
	refused 1 'web01-vda.vhdx: needs .* are free there' locum restore web01 --to "$t/small" --format vhdx
	[ -z "$(ls -A "$t/small")" ] || fail "left behind: $(ls -A "$t/small")"
else
	left_out "a small filesystem: not root"
fi
echo "nothing is left of what failed"

# ---- in ----
imported() { # VM OUTCOME [OPTION...]
	local vm=$1 outcome=$2
	shift 2
	locum backup "$vm" "$@" --json >"$t/out" 2>"$t/err" || fail "import of $vm: $(cat "$t/out" "$t/err")"
	grep -q "$outcome" "$t/out" || fail "$vm: not $outcome: $(cat "$t/out")"
}
is() { # VM DISK RAW
	locum restore "$1" --disk "$2" --to "$t/back" --force --quiet || fail "restore of $1"
	compare "$3" raw "$t/back"
}
for format in vhdx vmdk vpc; do
	s=$(suffix $format)
	a=$t/$format/web01-vda.$s b=$t/$format/web01-vdb.$s
	imported "from-$format" '"full": true' --image "$a" --image "$b"
	is "from-$format" sda "$t/a.raw"
	is "from-$format" sdb "$t/b.raw"
	locum verify "from-$format" --quiet || fail "verify of from-$format"
	# All of it is in the store already: from the VM's own disks.
	[ "$(figure stored_bytes)" -lt 20000 ] || fail "$format: stored again: $(cat "$t/out")"
	# Another export of it: other files, 4 KiB changed.
	mkdir "$t/next"
	cp --sparse=always "$a" "$t/next/later.$s"
	cp --sparse=always "$b" "$t/next/other.$s"
	qemu-io -f $format -c 'write -q -P 0x77 131M 4k' "$t/next/later.$s" >/dev/null
	imported "from-$format" '"full": false, "scanned_disks": 2' --image "$t/next/later.$s" --image "$t/next/other.$s"
	[ "$(figure changed_bytes)" = 65536 ] || fail "$format: 4 KiB were written, but: $(cat "$t/out")"
	[ "$(figure stored_bytes)" -lt 8192 ] || fail "$format: stored: $(cat "$t/out")"
	echo "$format: imported twice, 4 KiB changed: $(figure stored_bytes) bytes stored"
	qemu-img convert -f $format -O raw "$t/next/later.$s" "$t/later.raw"
	is "from-$format" sda "$t/later.raw"
	sleep 2.2
	imported "from-$format" '"full": false' --image "$t/next/later.$s" --image "$t/next/other.$s"
	imported "from-$format" '"outcome": "unchanged"' --image "$t/next/later.$s" --image "$t/next/other.$s"
	rm -r "$t/next"
done
locum points from-vhdx --json | has 'machine: imported from image files' || fail "the point does not say that it is imported"
# By the name of the file; a name with odd letters.
cp "$t/vhdx/web01-vdb.vhdx" "$t/sql01.vhdx"
locum backup --image "$t/sql01.vhdx"
is sql01 sda "$t/b.raw"
mkdir "$t/a, \"b\\"
cp "$t/sql01.vhdx" "$t/a, \"b\\/x=y:z.vhdx"
locum backup odd --image "$t/a, \"b\\/x=y:z.vhdx"
is odd sda "$t/b.raw"
# Also from the configuration; but nothing runs from it.
scenario_vm hyper "disk = vda vhdx $t/sql01.vhdx"
locum backup hyper
is hyper vda "$t/b.raw"
refused 1 'its image is vhdx, which is read here, but no VM runs from it: locum restore' locum vm start hyper

# ---- what is refused ----
secret=$t/secret
head -c 65536 /dev/urandom >"$secret"
refused 1 'section \[vm web01\] already' locum backup web01 --image "$t/sql01.vhdx"
sed '/^\[vm web01\]/,$d' "$LOCUM_CONFIG" >"$t/other.conf"
refused 1 'restore points of that name are of a VM that was protected here' locum backup web01 --image "$t/sql01.vhdx" --config "$t/other.conf"
refused 2 'one VM, or none' locum backup a b --image "$t/sql01.vhdx"
refused 2 'one VM, or none' locum backup --all --image "$t/sql01.vhdx"
refused 2 'image-format is for --image' locum backup web01 --image-format raw
refused 2 'raw, qcow2, vhdx' locum backup x --image "$t/sql01.vhdx" --image-format vdi
refused 2 'given twice' locum backup x --image "$t/sql01.vhdx" --image "$t/../$(basename "$t")/sql01.vhdx"
refused 1 'No such file' locum backup x --image "$t/no.vhdx"
refused 2 'neither a file nor a block device' locum backup x --image /dev/null --image-format raw
refused 2 'no name for a VM' locum backup --image "$t/a, \"b\\/x=y:z.vhdx"
# A raw disk whose guest wrote a header there, that names a file of the host.
qemu-img create -q -f qcow2 -b "$secret" -F raw "$t/evil.qcow2"
cp "$t/evil.qcow2" "$t/evil.raw"
cp "$t/evil.qcow2" "$t/evil"
for file in evil.raw evil; do
	refused 2 'looks like qcow2 inside.*say what it is: --image-format raw or' locum backup x --image "$t/$file"
done
refused 2 'stands on a backing image' locum backup x --image "$t/evil.qcow2"
truncate -s 262144 "$t/evil.raw"
locum backup x --image "$t/evil.raw" --image-format raw
is x sda "$t/evil.raw"
qemu-img create -q -f vmdk -b "$t/vmdk/web01-vdb.vmdk" -F vmdk "$t/snap.vmdk"
refused 2 'stands on another vmdk' locum backup y --image "$t/snap.vmdk"
qemu-img create -q -f vmdk -o subformat=monolithicFlat "$t/flat.vmdk" 1M
refused 2 'only names the files.*-flat.vmdk' locum backup y --image "$t/flat.vmdk"
locum backup y --image "$t/flat-flat.vmdk" --image-format raw
: >"$t/not.vhdx"
refused 2 'its name says vhdx' locum backup z --image "$t/not.vhdx"
printf vhdxfile >"$t/not.vhdx"
refused 1 'not.vhdx: qemu-img' locum backup z --image "$t/not.vhdx"
# Somebody writes to it.  Its socket is there before it has the image.
qemu-nbd --fork --pid-file="$t/nbd.pid" -t -f vhdx -k "$t/nbd" "$t/sql01.vhdx"
refused 1 'sql01.vhdx: the image is in use' locum backup --image "$t/sql01.vhdx"
agent_start
for ((i = 0; i < 200; i++)); do [ ! -S "$t/run/agent.sock" ] || break; sleep 0.05; done
refused 1 'sql01.vhdx: the image is in use' locum backup --image "$t/sql01.vhdx"
kill "$(cat "$t/nbd.pid")"
echo "hostile, unclear and busy images: refused"

# ---- beside an agent, which has the store: it does the work ----
a=$t/vmdk/web01-vda.vmdk b=$t/vmdk/web01-vdb.vmdk
imported by-agent '"full": true' --image "$a" --image "$b"
is by-agent sda "$t/a.raw"
is by-agent sdb "$t/b.raw"
cp --sparse=always "$b" "$t/b \"2.vmdk"
qemu-io -f vmdk -c 'write -q -P 0x78 0 4k' "$t/b \"2.vmdk" >/dev/null
imported by-agent '"full": false, "scanned_disks": 2' --image "$a" --image "$t/b \"2.vmdk"
[ "$(figure changed_bytes)" = 65536 ] || fail "4 KiB were written, but: $(cat "$t/out")"
qemu-img convert -f vmdk -O raw "$t/b \"2.vmdk" "$t/b2.raw"
is by-agent sdb "$t/b2.raw"
sleep 2.2
imported by-agent '"full": false' --image "$a" --image "$t/b \"2.vmdk"
imported by-agent '"outcome": "unchanged"' --image "$a" --image "$t/b \"2.vmdk"
locum points by-agent --json | has 'machine: imported from image files' || fail "the point does not say that it is imported"
refused 1 'section \[vm web01\] already' locum backup web01 --image "$t/sql01.vhdx"
refused 1 'restore points of that name are of a VM that was protected here' locum backup web01 --image "$t/sql01.vhdx" --config "$t/other.conf"
kill -0 "$agent_pid" || fail "the agent died: $(tail -n 3 "$t/agent.log")"
kill $agent_pid
wait $agent_pid || true
echo "beside an agent: imported by it"
