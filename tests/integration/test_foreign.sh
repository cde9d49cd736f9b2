#!/bin/bash
# Image formats of other hypervisors: out of a restore point, and back in.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin foreign
at_end() { umount -l "$t/small" 2>/dev/null || true; }

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
head -c 20000 "$t/vmdk/web01-vda.vmdk" | grep -aq 'RW [0-9]* SPARSE "web01-vda.vmdk"' || fail "the vmdk does not name itself"
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
env "PATH=$t/path:$PATH" "$bin/locum" restore web01 --to "$t/to" --format vhdx >"$t/out" 2>&1 &
pid=$!
rm "$t/slow"
for ((i = 0; i < 200; i++)); do [ ! -s "$t/slow" ] || break; sleep 0.05; done
kill -KILL $pid
kill "$(cat "$t/slow")"
wait $pid 2>/dev/null || true
nothing
if [ "$(id -u)" = 0 ] && mkdir "$t/small" && mount -t tmpfs -o size=16m none "$t/small" 2>/dev/null; then
	refused 1 'web01-vda.vhdx: needs .* are free there' locum restore web01 --to "$t/small" --format vhdx
	[ -z "$(ls -A "$t/small")" ] || fail "left behind: $(ls -A "$t/small")"
else
	left_out "a small filesystem: not root"
fi
echo "nothing is left of what failed"
