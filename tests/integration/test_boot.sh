#!/bin/bash
# A VM straight from a restore point: what the guest reads is the point, what it writes lies beside, and
# nothing is left where nothing is wanted, however the command ends.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin boot
command -v nbdkit >/dev/null || {
	echo "SKIP: no nbdkit"
	exit 77
}

mapfile -t disks < <("$src/tests/guest/mkdisks.sh" "$t/img" --size 96)
scenario_vm web01 "memory = 128 MiB" "nic = net0 user" "kernel = $GUEST_OUT/vmlinux" "initrd = $GUEST_OUT/initrd.img" \
	"append = $GUEST_APPEND fs=vdb2 seq.load=300" \
	"disk = vd0 raw ${disks[0]}" "disk = vd1 qcow2 ${disks[1]}"
locum backup web01 >/dev/null || fail "backup"

# Processes of a VM with their commands: QEMU does not know its folders, but has files of them open.
processes_of() { # NAME
	local pid line
	{
		pgrep -f -- "$t/(run|scratch/boot)/$1/" || true
		for pid in $(pgrep qemu-system || true); do
			! find "/proc/$pid/fd" \( -lname "$t/run/$1/*" -o -lname "$t/scratch/boot/$1/*" \) 2>/dev/null | has . || echo "$pid"
		done
	} | sort -u | while read -r pid; do
		line=$(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" || true)
		[ -z "$line" ] || echo "$pid $line"
	done
}
nothing_runs() { # NAME WHEN
	local i
	for ((i = 0; i < 100; i++)); do
		[ -n "$(processes_of "$1")" ] || return 0
		sleep 0.1
	done
	fail "$2: still running: $(processes_of "$1" | cut -c 1-200)"
}
nothing_left() { # NAME WHEN
	nothing_runs "$1" "$2"
	[ ! -e "$t/scratch/boot/$1" ] || fail "$2: left $(ls -A "$t/scratch/boot/$1")"
	[ -z "$(ls "$t/store/leases" 2>/dev/null)" ] || fail "$2: leases are left"
}

# ---- a test: verdict, and nothing left ----
locum boot web01 --test >"$t/said" || fail "boot --test: $(cat "$t/said")"
cat "$t/said"
for word in 'point web01@.* ago, powered off' 'served' 'guest executing' 'sign of life: serial: SEQ start' 'PASSED.*RTO'; do
	grep -q "$word" "$t/said" || fail "no '$word'"
done
nothing_left web01-test "a test"
[ ! -e "$t/run/web01-test" ] || fail "a test left its folder"

rc=0
locum boot web01 --test --serial-pattern NEVER --timeout 6s --json >"$t/said" 2>"$t/err" || rc=$?
[ "$rc" = 1 ] || fail "a guest without a sign of life: exit status $rc"
grep -q '"verdict": *"silent"' "$t/said" || fail "$(cat "$t/said" "$t/err")"
nothing_left web01-test "a test that failed"
[ -e "$t/run/web01-test/serial.log" ] || fail "a test that failed keeps no console"

# ---- a code that is typed in can be read once only ----
mv "$t/keys" "$t/away"
locum boot web01 --test --quiet --recovery-code-file <(cat "$t/kit") || fail "the code from a pipe"
locum boot web01 --test --quiet --recovery-code-file /dev/stdin <"$t/kit" || fail "the code from the standard input"
locum store rebuild --quiet --recovery-code-file <(cat "$t/kit") || fail "store rebuild: the code from a pipe"
mv "$t/away" "$t/keys"
nothing_left web01-test "a code that was typed in"

# ---- Ctrl-C in a test ----
"$bin/locum" boot web01 --test --serial-pattern NEVER >/dev/null 2>"$t/err" &
pid=$!
for ((i = 0; i < 300; i++)); do # the pid is written down before it has become QEMU
	qemu=$(processes_of web01-test | grep qemu-system) && break
	sleep 0.05
done
[ -n "$qemu" ] || fail "no QEMU of a test"
grep -q 'restrict=on' <<<"$qemu" || fail "a test has a network: $qemu"
kill -INT $pid
rc=0
wait $pid || rc=$?
[ "$rc" = 1 ] || fail "Ctrl-C in a test: exit status $rc"
grep -q interrupted "$t/err" || fail "Ctrl-C in a test: $(cat "$t/err")"
nothing_left web01-test "Ctrl-C in a test"

# ---- nobody reads what a test says ----
"$bin/locum" boot web01 --test --serial-pattern NEVER 2>/dev/null | head -n 1 >/dev/null || true # reads no more, on purpose
nothing_left web01-test "a test whose pipe was closed"

# ---- for good: the guest runs on after the command has ended ----
locum boot web01 >"$t/said" || fail "boot: $(cat "$t/said")"
grep -q 'stop *locum vm stop web01' "$t/said" || fail "$(cat "$t/said")"
serial=$t/run/web01/serial.log
last() { grep -ao 'SEQ [0-9]* rate' "$1" | tail -n 1 | tr -dc 0-9; }
runs() { # WHEN
	local i
	for ((i = 0; i < 300; i++)); do
		[ "$(last "$serial")" -gt 20 ] 2>/dev/null && break
		sleep 0.1
	done
	((i < 300)) || fail "$1: the guest does not write: $(tail -n 3 "$serial")"
	! grep -aE 'I/O error|WRITE-ERROR|FS-ERROR' "$serial" || fail "$1: the guest saw an error"
}
runs "boot"
processes_of web01 | has qemu-system || fail "no QEMU of a boot"
if processes_of web01 | has 'restrict=on'; then fail "a boot has no network"; fi
refused 1 'runs already .pid [0-9]+.: stop it' locum boot web01
refused 1 'is being read' locum drop "web01@$(point_ids web01 | tail -n 1 | cut -c 1-8)"

# ---- two at once: one of them boots it, and the other one takes nothing from it ----
locum boot web01 --name twice --quiet 2>"$t/err1" &
one=$!
locum boot web01 --name twice --quiet 2>"$t/err2" &
two=$!
rc1=0 rc2=0
wait $one || rc1=$?
wait $two || rc2=$?
[ $((rc1 + rc2)) = 1 ] || fail "two boots at once: $rc1 $rc2: $(cat "$t/err1" "$t/err2")"
grep -qE 'runs already|in use by another' "$t/err1" "$t/err2" || fail "two boots at once: $(cat "$t/err1" "$t/err2")"
[ -e "$t/scratch/boot/twice/vd0.qcow2" ] || fail "two boots at once: the writes are gone"
locum vm stop twice --force >/dev/null || fail "vm stop"
nothing_runs twice "vm stop"

# ---- under another name: what it wrote is its own ----
twice=$(sha256sum <"$t/scratch/boot/twice/vd0.qcow2")
refused 1 "holds what a VM 'twice' wrote" locum boot web01 --test --name twice
[ "$twice" = "$(sha256sum <"$t/scratch/boot/twice/vd0.qcow2")" ] || fail "a test took the writes of a VM"
locum boot twice --resume --quiet || fail "boot --resume of another name"
locum vm list | has '^twice .*running' || fail "--resume: another VM was started: $(locum vm list)"
for ((i = 0; i < 300; i++)); do # it boots, and then it writes
	[ "$twice" = "$(sha256sum <"$t/scratch/boot/twice/vd0.qcow2")" ] || break
	sleep 0.1
done
locum vm stop twice --force >/dev/null
nothing_runs twice "vm stop"
[ "$twice" != "$(sha256sum <"$t/scratch/boot/twice/vd0.qcow2")" ] || fail "--resume wrote somewhere else"
rm "$t/scratch/boot/twice/vd1.qcow2"
refused 1 "can't go on with .*vd1.qcow2" locum boot twice --resume
[ -e "$t/scratch/boot/twice/vd0.qcow2" ] || fail "a --resume that failed took the writes"

# ---- power cut, and on again with what it wrote ----
locum vm stop web01 --force >/dev/null || fail "vm stop"
nothing_runs web01 "vm stop"
before=$(last "$serial")
refused 1 'holds what an earlier boot .*--resume' locum boot web01
refused 2 'name the VM only' locum boot web01@latest --resume
refused 1 "what the VM '(web01|twice)' wrote .*$t/scratch/boot/(web01|twice).*--resume" locum drop web01@latest
refused 1 'nothing to go on with' locum boot other --resume
locum boot web01 --resume >"$t/said" || fail "boot --resume: $(cat "$t/said")"
runs "boot --resume"
grep -aq 'SEQ check ok' "$serial" || fail "the guest does not find what it wrote: $(head -n 5 "$serial")"
from=$(grep -ao 'SEQ start [0-9]*' "$serial" | tail -n 1 | tr -dc 0-9)
((from >= before)) || fail "it wrote $before, and went on from $from"
locum vm stop web01 --force >/dev/null
nothing_runs web01 "vm stop"

cp "$t/scratch/boot/web01/point" "$t/point"
echo 'web01@0123456789abcdef0123456789abcdef' >"$t/scratch/boot/web01/point"
refused 1 "an earlier boot of 'web01' wrote lies over 'web01@0123.*: web01 has no point" locum boot web01 --resume
cp "$t/point" "$t/scratch/boot/web01/point"

# The point itself is what it was.
cp "${disks[0]}" "$t/before.raw"
locum restore web01 --disk vd0 --to "$t/vd0.raw" --quiet
refused 1 "has no disk 'elsewhere'; it has vd0, vd1" locum restore web01 --disk elsewhere --to "$t/none"
cmp "$t/vd0.raw" "$t/before.raw" || fail "the point has changed"

# ---- --discard begins again ----
locum boot web01 --discard --name again >"$t/said" || fail "boot --name: $(cat "$t/said")"
serial=$t/run/again/serial.log
grep -aq 'SEQ check empty' "$serial" || fail "not a fresh start: $(head -n 3 "$serial")"
locum vm stop again --force >/dev/null
nothing_runs again "vm stop"
rm -rf "$t/scratch/boot/again"
# The images that the settings name are not what it was last, and of the other one there are none.
refused 1 "web01: it is off, and what it wrote since it was booted from web01@[0-9a-f]* .*$t/scratch/boot/web01: .*--resume" locum backup web01
refused 1 "twice: it is off, .*--resume" locum backup twice
refused 1 "web01: it is off, " locum backup --all
locum vm list | has "^twice *off *locum *$t/scratch/boot/twice" || fail "vm list: $(locum vm list)"
mv "$t/scratch/boot/web01" "$t/writes"
locum backup web01 --quiet || fail "backup"
mv "$t/writes" "$t/scratch/boot/web01"
refused 1 "the VM '(web01|twice)' wrote" locum drop "web01@$(point_ids web01 | sed -n 1p | cut -c 1-8)"
rm -rf "$t/scratch/boot/web01" "$t/scratch/boot/twice"
locum drop "web01@$(point_ids web01 | sed -n 1p | cut -c 1-8)" >/dev/null || fail "drop, with all that stood on the point gone"

# ---- kill -9 of the command, at any time before the guest runs ----
for ((i = 0; i < 6; i++)); do
	"$bin/locum" boot web01 --name k --discard --quiet 2>/dev/null &
	pid=$!
	moment 400
	kill -9 $pid 2>/dev/null || true
	wait $pid 2>/dev/null || true
	locum vm stop k --force >/dev/null 2>&1 || true
	for ((j = 0; j < 400; j++)); do # a server that nobody came to ends after 30 s
		[ -n "$(processes_of k)" ] || break
		sleep 0.1
	done
	((j < 400)) || fail "kill -9: left $(processes_of k)"
done

rm -f "$t"/store/leases/* # of dead readers: nobody holds them

# ---- what can't be booted says why ----
scenario_vm data "disk = vda raw ${disks[0]}"
sed -i 's/^\[vm data\]/[vm data]\nfirmware = \/usr\/share\/nowhere.fd/' "$LOCUM_CONFIG"
locum backup data >/dev/null || fail "backup of data"
refused 1 'nowhere.fd' locum boot data --test
nothing_left data-test "a boot that failed"
refused 2 'not a time' locum boot web01 --test --timeout soon
for name in ../x 'a b' .x -x ''; do
	refused 2 'name has letters|empty' locum boot web01 "--name=$name"
done
refused 2 'name has letters' locum boot ../web01 --resume
echo ok
