#!/bin/bash
# What `locum doctor` says of a good host and of broken ones: each line is true, and where what it advises can be done, doing
# it helps.  Of the guests here one runs, until its disk is full.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin doctor

pids=()
at_end() { [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true; }

# What it says of one thing, in $t/said as "LEVEL ABOUT TEXT | ADVICE"; its exit status in $status.
status=0
doctor() { # ABOUT [OPTION...]
	local about=$1
	shift
	status=0
	locum doctor sick01 "$@" --json >"$t/doctor" 2>"$t/err" || status=$?
	python3 - "$about" "$t/doctor" >"$t/said" <<-'EOF'
	import json, sys
	d = json.load(open(sys.argv[2]))
	assert d["complete"]
	for x in d["host"] + d["vms"]:
	    about = x.get("check") or x["vm"]
	    if about == sys.argv[1]:
	        print(x["level"], x.get("state") or "-", x["text"], "|", x["do"])
	EOF
}

broken=0
# One thing that is wrong: how bad, what is said of it, and what is advised.
sick() { # STATUS LEVEL ABOUT TEXT ADVICE [OPTION...]
	local want=$1 level=$2 about=$3 text=$4 advice=$5
	shift 5
	doctor "$about" "$@"
	[ "$status" = "$want" ] || fail "$about: exit status $status and not $want: $(cat "$t/doctor" "$t/err")"
	grep -qE "^$level [a-z-]+ .*$text.* \| .*$advice" "$t/said" || fail "$about should be $level, '$text' | '$advice': $(cat "$t/said")"
	echo "$about: $(head -n 1 "$t/said")"
	broken=$((broken + 1))
}

well() { # ABOUT [OPTION...]
	doctor "$@"
	grep -q '^ok ' "$t/said" || fail "$1 is not well: $(cat "$t/said")"
	! grep -qE '^(bad|warn)' "$t/said" || fail "$1 is not well: $(cat "$t/said")"
}

changed() { # SED: of the configuration, in $t/other.conf
	sed -e "$1" "$LOCUM_CONFIG" >"$t/other.conf"
}
other=(--config "$t/other.conf")

# ---- a good host: a VM that is off, with a point ----
truncate -s 1M "$t/a.raw"
qemu-img create -q -f qcow2 "$t/b.qcow2" 1M
scenario_vm sick01 "uuid = 6a1f0000-0000-4000-8000-00000000abcd" "disk = vda raw $t/a.raw" "disk = vdb qcow2 $t/b.qcow2"
sick 0 warn sick01 'no restore point yet' 'locum backup sick01'
locum backup sick01
for about in configuration store scratch 'run folder' qemu qemu-img qemu-nbd nbdkit libraries sick01; do
	well "$about"
done
[ $status = 0 ] || fail "a good host: $(cat "$t/doctor")"
grep -q 'protected, newest restore point .* old (off, disks vda 1.0 MiB, vdb 1.0 MiB)' "$t/said" || fail "of sick01: $(cat "$t/said")"
locum doctor sick01 --quiet >"$t/out"
! grep -vE '^(warn +(schedule|clock|privileges)|  )' "$t/out" || fail "--quiet: $(cat "$t/out")"
locum doctor sick01 | has -E '^ok +store +.*1 points of 1 VMs' || fail "as text: $(locum doctor sick01)"
sick 3 bad nobody 'no VM of that name' 'locum doctor' nobody
broken=0

# ---- broken hosts ----
changed '/^store/d'
sick 1 bad store 'names none' "store = FOLDER.*store init" "${other[@]}"
changed "s|^store.*|store = $t/new\nkey_dir = $t/newkeys|"
sick 1 bad store "$t/new is no store" "locum store init --store $t/new" "${other[@]}"
mkdir "$t/newkeys" # of a host that is paired it comes back
printf 'address = 127.0.0.1:7227\nkey = %064d\n' 7 >"$t/newkeys/dr.replica"
sick 1 bad store "$t/new is no store" 'locum recall dr' "${other[@]}"
echo junk >"$t/newkeys/aa.replica" # beside one that can't be read, too
sick 1 bad store "$t/new is no store" 'locum recall dr' "${other[@]}"
rm -r "$t/newkeys"
locum store init --store "$t/new" "${other[@]}" --kit "$t/kit2" >/dev/null
well store "${other[@]}"
rm -r "$t/newkeys"
sick 1 bad store 'no key' "locum key recover --recovery-code-file KIT" "${other[@]}"
locum key recover --recovery-code-file "$t/kit2" --store "$t/new" "${other[@]}" >/dev/null
well store "${other[@]}"
chmod 644 "$t"/newkeys/*.key
sick 1 bad store 'lets others at it' 'chmod' "${other[@]}"

: >"$t/file"
changed "s|^scratch_dir.*|scratch_dir = $t/file/scratch|"
sick 1 bad scratch "$t/file" 'scratch_dir = another folder' "${other[@]}"
changed "s|^scratch_dir.*|scratch_dir = $t/new\nscratch_max = 900 TiB|"
sick 0 warn scratch 'free, and scratch_max allows' 'scratch_max = [0-9]+ MiB' "${other[@]}"
sed -i "s|^scratch_max.*|$(grep -oE 'scratch_max = [0-9]+ MiB' "$t/said" | tail -n 1)|" "$t/other.conf"
well scratch "${other[@]}"
if [ "$(id -u)" = 0 ] && mkdir "$t/small" && mount -t tmpfs -o size=16m none "$t/small" 2>/dev/null; then
	changed "s|^scratch_dir.*|scratch_dir = $t/small|"
	sick 0 warn scratch 'only 16.0 MiB free' 'make room' "${other[@]}"
	mount -o remount,ro "$t/small"
	sick 1 bad scratch 'Read-only' 'mount -o remount,rw' "${other[@]}"
	umount "$t/small"
else
	left_out "a scratch that is full or read-only: not root"
fi
changed "s|^run_dir.*|run_dir = $t/$(printf 'x%.0s' {1..60})|"
sick 1 bad 'run folder' 'characters too long for sockets' 'run_dir = /run/locum' "${other[@]}"
changed "s|^run_dir.*|run_dir = $t/file/run|"
sick 1 bad 'run folder' "$t/file" 'run_dir = another folder' "${other[@]}"

changed '/^run_dir/a qemu = qemu-system-nowhere'
sick 1 bad qemu "qemu-system-nowhere can't be run" 'apt install qemu-system' "${other[@]}"
printf '#!/bin/sh\necho QEMU emulator version 6.2.0\n' >"$t/old"
chmod +x "$t/old"
changed "/^run_dir/a qemu = $t/old"
sick 1 bad qemu 'is 6.2.0, and 7.1 is the oldest' 'apt install' "${other[@]}"
changed '/^run_dir/a qemu = /bin/true'
sick 1 bad qemu '/bin/true is no QEMU' 'qemu = qemu-system' "${other[@]}"
changed '/^run_dir/a nbdkit = /nowhere/nbdkit'
sick 1 bad nbdkit "/nowhere/nbdkit can't be run" 'apt install nbdkit' "${other[@]}"
changed '/^run_dir/a plugin = /nowhere/plugin.so'
sick 1 bad nbdkit 'plugin /nowhere/plugin.so: No such file' 'remove .plugin.' "${other[@]}"
changed '/^run_dir/a scratch_dri = /x'
sick 1 bad configuration "other.conf:[0-9]+: .*scratch_dri" 'locum.conf' "${other[@]}"
changed 's/x/x/'
chmod 666 "$t/other.conf"
sick 1 bad configuration 'can be written by others' "chmod go-w $t/other.conf" "${other[@]}"
chmod go-w "$t/other.conf"
well configuration "${other[@]}"
# The newest point is of a time that is still to come.
LOCUM_TEST_CLOCK_NS=-$((3600 * 1000000000)) sick 1 bad clock 'newest restore point is of' 'timedatectl'
# Nobody has looked for two days.
LOCUM_TEST_CLOCK_NS=$((48 * 3600 * 1000000000)) sick 0 warn sick01 'newest restore point is 2 days old' 'locum backup sick01'
agent_start
for ((i = 0; i < 100; i++)); do [ ! -S "$t/run/agent.sock" ] || break; sleep 0.05; done
well schedule
kill "$agent_pid"
wait "$agent_pid" || true

# ---- broken VMs ----
mv "$t/a.raw" "$t/away"
sick 3 bad sick01 'disk vda: .*a.raw: No such file' 'disk = vda FORMAT FILE.*exclude = vda'
changed "/^\[vm sick01\]/a exclude = vda"
well sick01 "${other[@]}"
mv "$t/away" "$t/a.raw"
changed "/^\[vm sick01\]/a exclude = vdc"
sick 0 warn sick01 'disk vdc is excluded, and it has none' 'remove exclude = vdc' "${other[@]}"
changed "/^\[vm sick01\]/a exclude = vda"
cp "$LOCUM_CONFIG" "$t/other.conf"
sed -i 's/^disk = vdb.*/disk = vdb qcow2 '"${t//\//\\/}"'\/a.raw/' "$t/other.conf"
sick 3 bad sick01 'disk vdb: .*not a qcow2 image' 'exclude = vdb' "${other[@]}"
sed -e '/^\[vm sick01\]/,$d' "$LOCUM_CONFIG" >"$t/other.conf"
printf '[vm sick01]\nqmp = %s\n' "$t/no.sock" >>"$t/other.conf"
sick 0 ok sick01 'protected' None "${other[@]}" # off: by what its newest point says
for id in $(point_ids sick01); do
	locum drop "sick01@$id" >/dev/null
done
sed -i 's|^run_dir|connect_timeout = 300ms\nrun_dir|' "$t/other.conf"
sick 3 bad sick01 "no monitor socket $t/no.sock" 'start it, or say what it is' "${other[@]}"
sed -i "s|no.sock|b.qcow2/no.sock|" "$t/other.conf"
sick 3 bad sick01 "monitor socket $t/b.qcow2/no.sock: Not a directory" 'locum backup sick01 says more' "${other[@]}"
! grep -q 'directory: Not' "$t/said" || fail "said twice: $(cat "$t/said")"
sed -i "s|b.qcow2/no.sock|no.sock|" "$t/other.conf"
nbdkit -f -U "$t/no.sock" null >/dev/null 2>&1 &
pids+=($!)
for ((i = 0; i < 100; i++)); do [ ! -S "$t/no.sock" ] || break; sleep 0.05; done
sick 3 bad sick01 "$t/no.sock" 'qmp = its monitor' "${other[@]}"
python3 - "$t/silent.sock" <<-'EOF' &
import socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
time.sleep(60)
EOF
pids+=($!)
sed -i "s|no.sock|silent.sock|" "$t/other.conf"
for ((i = 0; i < 100; i++)); do [ ! -S "$t/silent.sock" ] || break; sleep 0.05; done
sick 3 bad sick01 'another client holds the monitor' 'give locum a monitor of its own: -qmp unix:' "${other[@]}"
{
	cat "$LOCUM_CONFIG"
	printf '[vm clone]\nuuid = 6a1f0000-0000-4000-8000-00000000abcd\ndisk = vda raw %s\n' "$t/b.qcow2"
} >"$t/other.conf"
sick 0 warn clone 'UUID 6a1f0000.* is that of VM sick01, too' 'another UUID' "${other[@]}" clone

# ---- a VM that runs, and that nobody has named ----
truncate -s 1M "$t/c.raw" "$t/d.raw"
guest_start "$t/vm" -b scsi -w '' -x -S -x -name -x stranger "$t/c.raw"
qemu_ready vm
sick 0 warn stranger 'not protected, but it could be .paused, disk vd0 1.0 MiB' "\[vm stranger\]" stranger
grep -A3 '\[vm stranger\]' "$t/said" | sed -e 's/.*| //' -e '/^at the end/d' >>"$LOCUM_CONFIG"
sick 0 warn stranger 'no restore point yet' 'locum backup stranger' stranger
locum backup stranger
doctor stranger stranger
grep -q '^ok protected ' "$t/said" || fail "of stranger: $(cat "$t/said")"
guest_kill "$t/vm"
guest_start "$t/vm" -b scsi -w '' -x -S -x -name -x stranger \
	-x -blockdev -x "driver=raw,node-name=sh,file.driver=file,file.filename=$t/d.raw" \
	-x -device -x scsi-hd,id=sh,drive=sh,share-rw=on,bus=scsi0.0 "$t/c.raw"
qemu_ready vm
sick 3 bad stranger 'disk sh: shared with other writers' 'exclude = sh, in \[vm stranger\]' stranger
echo "exclude = sh" >>"$LOCUM_CONFIG"
doctor stranger stranger
grep -q '^ok protected ' "$t/said" || fail "of stranger: $(cat "$t/said")"
guest_qmp "$t/vm" '{"execute":"query-named-block-nodes"}' | has '"name": *"locum\.d0c7' && fail "doctor left something in QEMU"
guest_kill "$t/vm"

# ---- without a disk, or with none that is to be in a point ----
printf '[vm none]\nqmp = %s\n' "$t/vm/qmp" >>"$LOCUM_CONFIG"
guest_start "$t/vm" -w '' -x -S -x -name -x none
qemu_ready vm
sick 3 bad none 'it has no disk' 'protect = no, in \[vm none\] of ' none
echo "protect = no" >>"$LOCUM_CONFIG"
doctor none none
grep -q '^note no left alone: protect = no, in \[vm none\] of ' "$t/said" || fail "of none: $(cat "$t/said")"
sed -i '/^protect = no/d' "$LOCUM_CONFIG"
guest_kill "$t/vm"
guest_start "$t/vm" -w '' -x -S -x -name -x none "$t/a.raw"
qemu_ready vm
echo "exclude = vd0" >>"$LOCUM_CONFIG"
sick 3 bad none 'it has no disk that is not excluded' 'remove an exclude = from \[vm none\] of ' none
guest_kill "$t/vm"
sed -i '/^exclude = vd0/d; /^\[vm none\]/,+1d' "$LOCUM_CONFIG"

# ---- on an IOThread: its first point is a copy that has to be allowed ----
truncate -s 1M "$t/e.raw"
printf '[vm threads]\nqmp = %s\n' "$t/vm/qmp" >>"$LOCUM_CONFIG"
guest_start "$t/vm" -i -w '' -x -S -x -name -x threads "$t/e.raw"
qemu_ready vm
sick 0 warn threads 'no restore point yet.*QEMU has to copy disk vd0 as a whole' 'push_full = yes, in \[vm threads\] of .*; then: locum backup threads' threads
echo "push_full = yes" >>"$LOCUM_CONFIG"
sick 0 warn threads 'no restore point yet' 'locum backup threads' threads
locum backup threads
doctor threads threads
grep -q '^ok protected ' "$t/said" || fail "of threads: $(cat "$t/said")"
sed -i '/^push_full/d' "$LOCUM_CONFIG"
doctor threads threads
grep -q '^note .*disk vd0 .*QEMU is started anew' "$t/said" || fail "of threads: $(cat "$t/said")"
guest_kill "$t/vm"

# ---- stopped by QEMU, as the host has no room for what it writes ----
truncate -s 32M "$t/f.raw"
printf '[vm full]\nqmp = %s\n' "$t/vm/qmp" >>"$LOCUM_CONFIG"
guest_start "$t/vm" -w '' -x -name -x full -x -blockdev \
	-x "driver=blkdebug,node-name=no-room,inject-error.0.event=write_aio,inject-error.0.errno=28,image.driver=file,image.filename=$t/f.raw" \
	-x -blockdev -x driver=raw,node-name=bad,file=no-room -x -device -x virtio-blk-pci,id=bad,drive=bad,werror=stop "$t/e.raw"
for ((i = 0; i < 300; i++)); do
	! guest_qmp "$t/vm" '{"execute":"query-status"}' 2>/dev/null | has '"status": "io-error"' || break
	sleep 0.1
done
sick 0 warn full "no restore point yet .io-error, disks" 'locum backup full' full
sick 0 warn full "QEMU has stopped it, as one of its images can't be written" 'make room there' full
guest_kill "$t/vm"

# ---- off, after it was booted from a point: what it was last is nowhere to be read ----
mkdir -p "$t/scratch/boot/sick01"
echo 'sick01@00' >"$t/scratch/boot/sick01/point"
sick 3 bad sick01 'it is off, and what it wrote since it was booted from sick01@00 lies over that point' 'locum boot sick01 --resume'
rm -r "$t/scratch/boot"
echo "$broken broken hosts and VMs"
[ $broken -ge 20 ] || fail "the table has become short"

# Nothing is left behind, and nothing was made.
[ ! -e "$t/run/.backup" ] || [ -z "$(ls "$t/run/.backup")" ] || fail "left: $(ls "$t/run/.backup")"
