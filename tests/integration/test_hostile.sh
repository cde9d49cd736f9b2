#!/bin/bash
# A hostile guest and a hostile image: headers of other formats written into raw disks, an image of a million bitmaps, names
# made to be taken for something else.  No file of the host is opened for them, nothing is run, and what the guest wrote is
# what a restore gives back.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin hostile

hostile=$src/tests/lib/hostile_image.py
watcher='' front=''
at_end() {
	[ -z "$watcher" ] || kill "$watcher" 2>/dev/null
	[ -z "$front" ] || kill "$front" 2>/dev/null
}

put_file() { # VM DEVICE FILE: its bytes at the begin of the disk, as the guest would write them
	local n
	n=$(grep -c '^wrote' "$t/$1/qemu.log" || true)
	guest_qmp "$t/$1" "{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"qemu-io $2 \\\"write -s $3 0 256k\\\"\"}}" >/dev/null
	[ "$(grep -c '^wrote' "$t/$1/qemu.log")" -gt "$n" ] || fail "write to $2: $(tail -n 2 "$t/$1/qemu.log")"
}

# ---- headers in raw disks ----
mkdir "$t/img" "$t/h"
head -c 1M /dev/urandom >"$t/secret"
cp "$t/secret" "$t/secret2"
kinds=("backing $t/secret" "backing json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"$t/secret2\"}}"
	"data $t/secret" "vmdk $t/secret" "bitmaps 1000000")
# Whole images of other formats.
printf x >"$t/pw"
for format in vhdx vdi vpc luks; do
	options=()
	[ $format != luks ] || options=(--object "secret,id=s,file=$t/pw" -o key-secret=s,iter-time=10)
	# It measures this machine for luks, which fails where that is busy.
	for ((i = 0; i < 20; i++)); do
		! qemu-img create -q -f $format "${options[@]}" "$t/h/$format" 1M 2>"$t/err" || break
	done
	[ "$i" -lt 20 ] || fail "an image of format $format: $(cat "$t/err")"
	kinds+=("image $t/h/$format")
done
disks=() args=()
for i in "${!kinds[@]}"; do
	if [ "${kinds[i]%% *}" = image ]; then
		cp "${kinds[i]#* }" "$t/h/$i"
	else
		"$hostile" "${kinds[i]%% *}" "${kinds[i]#* }" >"$t/h/$i"
	fi
	truncate -s 256k "$t/h/$i"
	truncate -s 1G "$t/img/d$i.raw"
	disks+=("$t/img/d$i.raw")
	args+=("vd$i=$t/img/d$i.raw")
done
# What they are worth: who probes the format falls for them.
qemu-io -c 'write -q -s '"$t/h/0"' 0 256k' -f raw "$t/img/d0.raw"
qemu-img info "$t/img/d0.raw" 2>/dev/null | has "backing file: $t/secret" || fail "the header is none that a probing tool takes"
python3 "$src/tests/lib/watch_open.py" "$t/secret" "$t/secret2" >>"$t/opened" &
watcher=$!
touch "$t/opened"
for ((i = 0; i < 100; i++)); do
	! grep -q ready "$t/opened" || break
	sleep 0.05
done
grep -q ready "$t/opened" || fail "the watcher does not start"
qemu-img convert -O raw "$t/img/d0.raw" "$t/probed" 2>/dev/null || true
for ((i = 0; i < 100; i++)); do
	! grep -q "opened $t/secret" "$t/opened" || break
	sleep 0.05
done
[ "$i" -lt 100 ] || fail "the watcher does not see that a file is opened"
rm -f "$t/probed"
: >"$t/opened"

scenario_vm web01 "qmp = $t/vm/qmp"
guest_start "$t/vm" -b scsi -w '' -x -S "${disks[@]}"
qemu_ready vm
for i in "${!kinds[@]}"; do
	put_file vm "-d vd$i" "$t/h/$i"
done
backup web01 full
same_as web01 "${args[@]}"
put_file vm "-d vd1" "$t/h/0"
put_file vm "-d vd1" "$t/h/1"
backup web01 incremental
guest_kill "$t/vm"
backup web01 compared
same_as web01 "${args[@]}"
# Into another format, and what such an image holds.
locum restore web01 --to "$t/q" --format qcow2 --quiet || fail "restore as qcow2"
for i in "${!kinds[@]}"; do
	qemu-img compare -q -f qcow2 -F raw "$t/q/web01-vd$i.qcow2" "$t/img/d$i.raw" || fail "disk $i as qcow2 is not what the guest wrote"
done
# Booted, by its kernel: QEMU has opened all of them.
locum boot web01 --name web09 --isolated --timeout 60s --quiet >"$t/out" 2>&1 || fail "boot: $(cat "$t/out")"
locum vm stop web09 --force >/dev/null 2>&1 || true
! grep opened "$t/opened" || fail "a file of the host was opened: $(sort "$t/opened" | uniq -c)"
kill -0 "$watcher" || fail "the watcher died"
echo "${#kinds[@]} headers in raw disks: kept as bytes, no file opened"

# ---- an image that says it has a million bitmaps, of a VM that is off ----
"$hostile" bitmaps 1000000 >"$t/img/bitmaps.qcow2"
truncate -s 1M "$t/img/bitmaps.qcow2"
scenario_vm web02 "disk = vda qcow2 $t/img/bitmaps.qcow2"
refused '[13]' 'bitmaps.qcow2|vda' timeout 30 "$bin/locum" backup web02
# And one whose data are said to lie elsewhere: the admin's image, so QEMU's to open; ours not.
echo "a million bitmaps: refused in time: $(tail -n 1 "$t/refused")"

# ---- a QEMU that its guest has broken into: it runs as nobody, and says that its kernel is a file of root's ----
pretend() { # FRONT [FROM TO]...: sets front
	python3 "$src/tests/lib/qmp_rewrite.py" --as 65534 "$1" "$t/vm4/qmp" "${@:2}" &
	front=$!
	for ((i = 0; i < 100; i++)); do
		[ ! -S "$1" ] || break
		sleep 0.05
	done
	: >"$t/opened"
}
if [ "$(id -u)" = 0 ]; then
	chmod 600 "$t/secret"
	scenario_vm web04 "qmp = $t/vm4/front"
	LOCUM_TEST_CONFINED=1 guest_start "$t/vm4" -w '' "$t/img/d1.raw"
	qemu_ready vm4
	pretend "$t/vm4/front" "\"$GUEST_OUT/vmlinux\"" "\"$t/secret\""
	rc=0
	refused 1 "$t/secret, as user 65534, who runs the VM: Permission denied" locum backup web04 || rc=1
	kill "$front"
	! grep opened "$t/opened" || fail "the file was opened"
	[ "$rc" = 0 ] || fail "its kernel was read"
	# One that we have started was handed its kernel, but not what it names beside it.
	printf 'kernel\t%s\n' "$GUEST_OUT/vmlinux" >"$t/vm4/files"
	rm "$t/vm4/front"
	pretend "$t/vm4/front" "\"$GUEST_OUT/vmlinux\"" '"/proc/self/fd/9"' "\"$GUEST_OUT/initrd.img\"" "\"$t/secret\""
	refused 1 "$t/secret, as user 65534, who runs the VM: Permission denied" locum backup web04 || rc=1
	kill "$front"
	rm "$t/vm4/files"
	! grep opened "$t/opened" || fail "the file was opened"
	[ "$rc" = 0 ] || fail "its initial ramdisk was read"
	sed -i "s|^qmp = $t/vm4/front|qmp = $t/vm4/qmp|" "$LOCUM_CONFIG"
	# Without the lie it is read, also by the service, which may no more than its unit says.
	caps=$(sed -n 's/^CapabilityBoundingSet=//p' "$src/conf/systemd/locum-agent.service")
	[ -n "$caps" ] || fail "the agent's unit names no capabilities"
	caps=$(tr 'A-Z ' 'a-z,' <<<"$caps" | sed 's/cap_/+/g')
	of_the_same=$(setpriv --no-new-privs --inh-caps=-all --bounding-set="-all,$caps" "$bin/locum" backup web04 2>&1) ||
		fail "without the lie, with the capabilities of the agent's unit: $of_the_same"
	guest_kill "$t/vm4"
	echo "a kernel that is none: not read"
fi

# ---- names ----
odd="$t/img/a b\"c;\$(touch $t/ran)\`touch $t/ran\`%s%n[vm x]#.raw"
mkdir -p "$(dirname "$odd")"
truncate -s 1M "$odd"
guest_may "$odd"
scenario_vm web03 "qmp = $t/vm3/qmp"
serial="x\";y\$(touch $t/ran)[vm z]=#\\"
guest_start "$t/vm3" -b scsi -w '' -x -S \
	-x -blockdev -x "$(python3 -c 'import json,sys; print(json.dumps({"driver":"raw","node-name":"odd","file":{"driver":"file","filename":sys.argv[1]}}))' "$odd")" \
	-x -device -x "$(python3 -c 'import json,sys; print(json.dumps({"driver":"scsi-hd","drive":"odd","bus":"scsi0.0","serial":sys.argv[1][:36]}))' "$serial")" \
	"$t/img/d0.raw"
qemu_ready vm3
backup web03 full
locum points web03 --json >"$t/points"
python3 -c 'import json, sys; json.load(sys.stdin)' <"$t/points" || fail "--json of a point with odd names: $(cat "$t/points")"
locum points web03 >"$t/points"
! grep -q $'\x1b' "$t/points" || fail "an escape sequence on the terminal"
locum restore web03 --to "$t/r3" --quiet || fail "restore"
names=("$t/r3"/*.raw)
[ ${#names[@]} = 2 ] || fail "restored: $(ls "$t/r3")"
[ -z "$(find "$t/r3" -mindepth 2)" ] || fail "a name led into another folder: $(find "$t/r3")"
locum vm list --config "$t/r3/web03.conf" >/dev/null || fail "the section that starts it: $(cat "$t/r3/web03.conf")"
[ "$(grep -c '^\[vm ' "$t/r3/web03.conf")" = 1 ] || fail "a name became a section: $(cat "$t/r3/web03.conf")"
guest_kill "$t/vm3"
[ ! -e "$t/ran" ] || fail "a name was run"
echo "odd names: ok"

# ---- names that speak to a terminal, or in lines of their own ----
esc=$'\e]0;title\a\e[2J\xc2\x9b31m'
bad="$t/img/$esc"$'\n'"[vm evil].raw"
truncate -s 1M "$bad"
guest_may "$bad"
guest_start "$t/vm5" -b scsi -w '' -x -S -x -name -x "guest=stranger$esc"$'\n'"do: touch $t/ran" \
	-x -blockdev -x "$(python3 -c 'import json,os,sys; print(json.dumps({"driver":"raw","node-name":"odd","file":{"driver":"file","filename":os.fsdecode(os.fsencode(sys.argv[1]))}}))' "$bad")" \
	-x -device -x "$(python3 -c 'import json,sys; print(json.dumps({"driver":"scsi-hd","drive":"odd","bus":"scsi0.0","serial":sys.argv[1][:20]}))' "$esc")" "$t/img/d1.raw"
qemu_ready vm5
quiet() { # WHAT FILE...: nothing in it but text, each line of our own
	local what=$1
	shift
	! LC_ALL=C grep -aqP '[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]' "$@" || fail "$what speaks to the terminal: $(cat -A "$@")"
	! LC_ALL=C grep -aqE "^( *do: touch|\[vm evil)" "$@" || fail "$what has a line of the guest's: $(cat -A "$@")"
}
locum doctor >"$t/said" 2>"$t/err" || true
grep -q 'vm5/qmp' "$t/said" || fail "doctor does not see the VM: $(cat "$t/said")"
quiet "doctor" "$t/said" "$t/err"
locum doctor --json >"$t/said" 2>"$t/err" || true
python3 -c 'import json, sys; json.load(sys.stdin)' <"$t/said" || fail "doctor --json"
quiet "doctor --json" "$t/said" "$t/err"
scenario_vm web05 "qmp = $t/vm5/qmp"
backup web05 full
quiet "backup --json" "$t/out" "$t/err"
locum backup web05 --verbose >"$t/said" 2>"$t/err" || fail "backup: $(cat "$t/err")"
quiet "backup" "$t/said" "$t/err"
for verb in "points web05" "points web05 --json" "vm list" "vm list --json" "restore web05 --to $t/r5 --verbose" "verify web05"; do
	# shellcheck disable=SC2086
	locum $verb >"$t/said" 2>"$t/err" || fail "$verb: $(cat "$t/err")"
	quiet "$verb" "$t/said" "$t/err"
done
quiet "the section that starts it" "$t/r5/web05.conf"
[ "$(find "$t/r5" -name '*.raw' | wc -l)" = 2 ] || fail "restored: $(ls "$t/r5")"
guest_kill "$t/vm5"
rm "$bad" "$t/img/d1.raw"
! locum backup web05 >"$t/said" 2>"$t/err" || fail "its images are gone"
quiet "a failed backup" "$t/said" "$t/err"
! locum backup gone --image "$bad" >"$t/said" 2>"$t/err" || fail "an image that is not there"
quiet "a failed import" "$t/said" "$t/err"
[ ! -e "$t/ran" ] || fail "a name was run"
echo "names that speak to a terminal: tame"
