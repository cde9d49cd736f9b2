#!/bin/bash
# The replica is blind: neither names, contents nor keys are in its files, its log, its memory or a core dump, while it works
# and after it was locked again.  What looks for them is shown to find them where they are.  And `unlock`: what works without
# it, with it, and after it.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin blind
for program in nbdkit script python3; do
	command -v $program >/dev/null || {
		echo "SKIP: no $program"
		exit 77
	}
done
"$bin/locum" lock >/dev/null 2>&1 || {
	echo "SKIP: no keyring here"
	exit 77
}
look=$bin/tests/integration/lookfor

# ---- markers: what must not be seen ----
tag=$(od -An -N6 -tx1 /dev/urandom | tr -d ' \n')
vm=vm-$tag disk=dk$tag
hex() { od -An -v -tx1 | tr -d ' \n'; }
number() { # FILE OFFSET BYTES: little-endian
	od -An -v -tu"$3" -j "$2" -N "$3" "$1" | tr -d ' '
}
key_markers() { # FILE PREFIX: the id key and the data keys of a host's key file, each as NAME HEX
	local at n i
	at=$((20 + $(number "$1" 16 4)))
	echo "$2.id $(dd if="$1" bs=1 skip=$at count=32 status=none | hex)"
	n=$(number "$1" $((at + 32)) 2)
	for ((i = 0; i < n; i++)); do
		echo "$2.data$i $(dd if="$1" bs=1 skip=$((at + 34 + 36 * i + 4)) count=32 status=none | hex)"
	done
}
mkdir "$t/img"
python3 - "$t/img/d.raw" "PLAINTEXT-$tag" <<'EOF'
import os, sys
with open(sys.argv[1], "wb") as f:
    for i in range(256):  # windows that compress, and windows that do not
        block = (sys.argv[2] + f" {i:6} ").encode() * 2000 if i % 2 else os.urandom(30000) + sys.argv[2].encode() + os.urandom(30000)
        f.write(block[:65536].ljust(65536, b"."))
EOF
key=$(echo "$t"/keys/*.key)
{
	echo "name $(printf %s "$vm" | hex)"
	echo "disk $(printf %s "$disk" | hex)"
	echo "plaintext $(printf %s "PLAINTEXT-$tag" | hex)"
	echo "definition $(printf %s "locum.test=$tag" | hex)"
	echo "code $(sed -nE 's/^Recovery code: +//p' "$t/kit" | tr -d '\n' | hex)"
	key_markers "$key" key
} >"$t/markers"
grep '^key' "$t/markers" >"$t/key-markers"
[ "$(wc -l <"$t/key-markers")" = 2 ] || fail "no keys in $key"
scenario_vm "$vm" "memory = 128 MiB" "kernel = $GUEST_OUT/vmlinux" "initrd = $GUEST_OUT/initrd.img" \
	"append = $GUEST_APPEND locum.test=$tag seq.load=100" "disk = $disk raw $t/img/d.raw"

unseen() { # WHAT TARGET...
	local what=$1
	shift
	"$look" "${markers:-$t/markers}" "$@" >"$t/seen" 2>&1 || fail "$what: $(cat "$t/seen")"
}
seen() { # WHAT MARKER TARGET...
	local what=$1 marker=$2 rc=0
	shift 2
	"$look" "${markers:-$t/markers}" "$@" >"$t/seen" 2>&1 || rc=$?
	[ $rc = 1 ] || fail "$what: nothing was found, exit status $rc: $(cat "$t/seen")"
	grep -q "^$marker is in " "$t/seen" || fail "$what: no $marker: $(cat "$t/seen")"
}

# What looks for them finds them: in files, in names of files, in the memory of a process.
seen "the image" plaintext "$t/img"
seen "the key file" key.data0 "$t/keys"
seen "the configuration" name "$t/locum.conf"
touch "$t/img/x$vm"
seen "a file's name" name "$t/img/x$vm"
python3 -c "import sys, time; x = sys.stdin.buffer.read(); print('there', flush=True); time.sleep(600)" \
	<"$key" >"$t/planted" &
planted=$!
at_end() { kill -9 "$planted" "${replica_pid:-}" "${nbdkit_pid:-}" 2>/dev/null; }
for ((i = 0; i < 200; i++)); do [ ! -s "$t/planted" ] || break; sleep 0.05; done
seen "a process that has the keys" key.id "pid:$planted"
seen "a process that has the keys" key.data0 "pid:$planted"

# ---- the replica at work ----
mkdir "$t/cwd" "$t/dr-run"
printf '[locum]\nrun_dir = %s\nscratch_dir = %s\nreplica_dir = %s\nkey_dir = %s\n' \
	"$t/dr-run" "$t/dr-scratch" "$t/dr" "$t/dr-keys" >"$t/dr.conf"
replica_program() {
	cd "$t/cwd" || exit
	ulimit -c unlimited
	exec env LOCUM_CONFIG="$t/dr.conf" "$bin/locum" replica --dir "$t/dr" --listen "127.0.0.1:${port:-0}"
}
replica_start
locum pair --name dr --as host-a "$(locum token --dir "$t/dr" --address "127.0.0.1:$port")" --quiet
unseen "after pairing" "$t/dr" "$t/replica.log" "$t/cwd" "pid:$replica_pid"
looks=0
for ((round = 0; round < 3; round++)); do
	qemu-io -f raw -c "write -P $round $((round * 3))M 2M" "$t/img/d.raw" >/dev/null
	"$bin/locum" backup "$vm" --to dr >"$t/out" 2>&1 &
	backup_pid=$!
	while kill -0 $backup_pid 2>/dev/null; do
		unseen "while a point comes" "$t/dr" "$t/replica.log" "pid:$replica_pid"
		looks=$((looks + 1))
	done
	wait $backup_pid || fail "backup: $(cat "$t/out")"
	sleep 1.1 # the image's time is to be believed
done
unseen "after the points came" "$t/dr" "$t/replica.log" "$t/cwd" "pid:$replica_pid"
[ $looks -ge 3 ] || fail "looked $looks times only while points came"
grep -q 'is durable' "$t/replica.log" || fail "no point came"
echo "blind at work: looked $looks times while points came"

# A crash leaves no core dump of it, and would of another.
mkdir "$t/victim"
(cd "$t/victim" && ulimit -c unlimited && exec sleep 60) &
victim=$!
for ((i = 0; i < 100; i++)); do [ "$(cat /proc/$victim/comm)" != sleep ] || break; sleep 0.02; done
kill -SEGV $victim $replica_pid
wait $victim 2>/dev/null || true
wait $replica_pid 2>/dev/null || true
[ -n "$(ls "$t/victim")" ] || echo "no core dumps of anything here ($(cat /proc/sys/kernel/core_pattern)): that there is none of the replica proves nothing"
[ -z "$(ls "$t/cwd")" ] || fail "a core dump: $(ls "$t/cwd")"
replica_start

# ---- at the replica, locked ----
qemu-io -f raw -c 'write -P 9 9M 1M' "$t/img/d.raw" >/dev/null
locum backup "$vm" --to dr --quiet || fail "backup after the crash of the replica"
store=$(echo "$t"/dr/stores/*)
dr() { LOCUM_CONFIG=$t/dr.conf "$bin/locum" "$@"; }
vm_id=$(dr points --store "$store" --json 2>/dev/null | grep -o '"vm_id":"[0-9a-f]*"' | sed -n 1p | cut -d '"' -f 4)
[ ${#vm_id} = 32 ] || fail "no VM id: $(dr points --store "$store" --json)"
dr points --store "$store" >"$t/out" 2>"$t/err"
grep -q "^$vm_id" "$t/out" || fail "a locked store does not show the VM's id: $(cat "$t/out")"
grep -q 'is locked.*locum unlock' "$t/err" || fail "it does not say that it is locked: $(cat "$t/err")"
markers=$t/markers unseen "what a locked store shows" "$t/out" "$t/err"
refused 1 'no key for store.*no terminal to ask' setsid -w env LOCUM_CONFIG="$t/dr.conf" "$bin/locum" restore "$vm_id" --to "$t/r" --store "$store"
refused 1 'no terminal to ask' setsid -w env LOCUM_CONFIG="$t/dr.conf" "$bin/locum" unlock
status_has() { # PATTERN
	local i
	for ((i = 0; i < 60; i++)); do
		dr status >"$t/status" 2>&1 || true
		! grep -qE "$1" "$t/status" || return 0
		sleep 0.1
	done
	fail "'$1' is not in the status: $(cat "$t/status")"
}
status_has "VM ${vm_id:0:8} "

# Asked on the terminal; a wrong code first.
code=$(sed -nE 's/^Recovery code: +//p' "$t/kit")
typed() { # LINES COMMAND...: with a terminal of its own
	local lines=$1
	shift
	python3 - "$lines" "$@" <<'EOF'
import os, pty, select, sys, time
lines = sys.argv[1].split("|")
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
seen, last = b"", 0
while True:
    try:
        data = os.read(fd, 4096)
    except OSError:
        break
    if not data:
        break
    seen += data
    if lines and seen[last:].rstrip().endswith(b":") and b"Recovery code or passphrase" in seen[last:]:
        last = len(seen)
        os.write(fd, lines.pop(0).encode() + b"\r")
sys.stdout.write(seen.decode(errors="replace"))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
EOF
}
export LOCUM_CONFIG=$t/dr.conf
typed "AAAA-BBBB|$code" "$bin/locum" restore "${vm_id:0:8}" --to "$t/r" --store "$store" >"$t/out" ||
	fail "restore with a typed code: $(cat "$t/out")"
grep -q 'restored in' "$t/out" || fail "restore with a typed code: $(cat "$t/out")"
! grep -q "$code" "$t/out" || fail "what was typed shows"
cmp "$t/img/d.raw" "$t/r/$vm-$disk.raw" || fail "it restored something else"
rm -rf "$t/r"
rc=0
typed "a|b|c|d" "$bin/locum" verify "$vm_id" --store "$store" >"$t/out" || rc=$?
[ $rc != 0 ] || fail "wrong codes were taken: $(cat "$t/out")"
[ "$(grep -o 'Recovery code or passphrase' "$t/out" | wc -l)" = 3 ] || fail "it is not asked three times: $(cat "$t/out")"

# ---- unlocked ----
dr unlock --recovery-code-file "$t/kit" --for 10m >"$t/out" || fail "unlock"
grep -q 'unlocked for 10 min.* of host-a' "$t/out" || fail "unlock says: $(cat "$t/out")"
dr points --store "$store" >"$t/out" || fail "points, unlocked"
grep -q "^$vm" "$t/out" || fail "points show no name: $(cat "$t/out")"
dr points "$vm" --store "$store" >/dev/null || fail "points by name"
status_has "VM $vm "
dr status --json >"$t/status" 2>&1 || true # a host is away
grep -q "\"name\": \"$vm\"" "$t/status" || fail "no name in status --json: $(cat "$t/status")"
setsid -w "$bin/locum" verify "$vm" --store "$store" --quiet </dev/null || fail "verify, unlocked"
setsid -w "$bin/locum" restore "$vm" --to "$t/r" --store "$store" --quiet </dev/null || fail "restore, unlocked"
cmp "$t/img/d.raw" "$t/r/$vm-$disk.raw" || fail "it restored something else, unlocked"
rm -rf "$t/r"
markers=$t/key-markers unseen "keys, unlocked" "$t/dr" "$t/dr-run" "$t/replica.log" "pid:$replica_pid"

# A VM that runs from its disks goes on when it is locked; its server has the keys until then.
dr boot "$vm" --store "$store" --isolated --name b1 >"$t/out" 2>&1 || fail "boot, unlocked: $(cat "$t/out")"
nbdkit_pid=$(pgrep -f -- "$t/dr-run/b1/nbd") || fail "no server of disks"
nbdkit_pid=$(head -n 1 <<<"$nbdkit_pid")
markers=$t/key-markers seen "the server of disks" key.data0 "pid:$nbdkit_pid"
! tr '\0' ' ' <"/proc/$nbdkit_pid/cmdline" | has -e recovery -e passphrase || fail "the server was given the code"
dr lock >"$t/out" 2>"$t/err" || fail "lock"
grep -q '^locked: key domain' "$t/out" || fail "lock says: $(cat "$t/out")"
grep -q '^locum: b1 runs.*keeps the keys' "$t/err" || fail "lock does not name the VM that runs: $(cat "$t/err")"
before=$(grep -ac . "$t/dr-run/b1/serial.log")
for ((i = 0; i < 200; i++)); do
	now=$(grep -ac . "$t/dr-run/b1/serial.log")
	[ "$now" -le "$before" ] || break
	sleep 0.1
done
[ "$now" -gt "$before" ] || fail "the guest does not go on after lock"
! grep -a 'error' "$t/dr-run/b1/nbdkit.log" || fail "its server does not go on after lock"
dr vm stop b1 --force >/dev/null || fail "vm stop"
for ((i = 0; i < 100; i++)); do kill -0 "$nbdkit_pid" 2>/dev/null || break; sleep 0.1; done
! kill -0 "$nbdkit_pid" 2>/dev/null || fail "the server of disks does not end"

# ---- locked again: the keys are nowhere ----
domain=$(basename "$key" .key)
! grep -q " locum:$domain" /proc/keys || fail "the kernel still has it: $(grep ' locum:' /proc/keys)"
mapfile -t ours < <(pgrep -x 'locum|nbdkit' | sed 's/^/pid:/')
markers=$t/key-markers unseen "keys, locked" "$t/dr" "$t/dr-run" "$t/dr-scratch" "$t/replica.log" "${ours[@]}"
unseen "the replica, locked" "$t/dr" "$t/replica.log" "pid:$replica_pid"
dr points --store "$store" 2>/dev/null | has "^$vm_id" || fail "locked again, but points show no id"
status_has "VM ${vm_id:0:8} "
refused 1 'no key for store' setsid -w "$bin/locum" verify "$vm_id" --store "$store"
dr lock | has 'nothing was unlocked' || fail "lock, again"

# It ends by itself.
dr unlock --recovery-code-file "$t/kit" --for 2s --quiet || fail "unlock for 2 s"
dr points "$vm" --store "$store" >/dev/null || fail "points within the time"
sleep 2.1
dr points --store "$store" 2>/dev/null | has "^$vm_id" || fail "it is open after its time"
refused 2 'is no time' dr unlock --for 8d
refused 1 'another key domain|wrong' dr unlock --recovery-code-file <(locum store init --store "$t/s2" --kit "$t/kit2" >/dev/null && cat "$t/kit2")

# Another host, with keys of its own: it has to be said whose.
LOCUM_STORE=$t/s2 locum pair --name dr --as host-b --quiet "$(locum token --dir "$t/dr" --address "127.0.0.1:$port")" || fail "pair host-b"
rm "$t"/dr-keys/*.key
refused 2 'several key domains are here: name a host \(host-., host-.\)' dr unlock --recovery-code-file "$t/kit"
refused 1 'is of another key domain' dr unlock host-b --recovery-code-file "$t/kit"
dr unlock host-b --recovery-code-file "$t/kit2" --for 1m | has 'of host-b$' || fail "unlock host-b"
dr unlock host-a --for 1m --recovery-code-file /dev/fd/7 7<"$t/kit" --quiet || fail "unlock host-a by a descriptor"
dr lock host-b >/dev/null
dr points "$vm" --store "$store" >/dev/null || fail "host-a was locked with host-b"
dr lock --quiet
echo "unlock and lock: nothing was left"

# ---- keys that change: a new data key, a lost key of the host, a lost key file, a passphrase ----
host() { LOCUM_CONFIG=$t/locum.conf "$bin/locum" "$@"; }
change_and_send() { # MIB: and restore it at the replica, by the code alone
	qemu-io -f raw -c "write -P $1 ${1}M 1M" "$t/img/d.raw" >/dev/null
	host backup "$vm" --to dr --quiet || fail "backup: $1"
	dr restore "$vm" --to "$t/r" --quiet --store "$store" --recovery-code-file "$t/kit" || fail "restore: $1"
	cmp "$t/img/d.raw" "$t/r/$vm-$disk.raw" || fail "it restored something else: $1"
	rm -rf "$t/r"
}
sleep 1.1
host key rotate | has 'data key [0-9]\{5,\}' || fail "key rotate"
key_markers "$key" rotated | grep rotated >"$t/rotated-markers"
[ "$(wc -l <"$t/rotated-markers")" = 3 ] || fail "no second data key in $key"
change_and_send 11
grep -q 'host-a: has a new data key' "$t/replica.log" || fail "the replica's log does not tell of the new key"
markers=$t/rotated-markers unseen "rotated keys" "$t/dr" "$t/replica.log" "pid:$replica_pid"
refused 1 'key file' dr key rotate --store "$store" # no host of it

rm "$t/keys/host.key"
folders=$(find "$t/dr/stores" -mindepth 1 -maxdepth 1 | wc -l)
host pair --name dr --as host-a --quiet \
	"$(locum token --dir "$t/dr" --address "127.0.0.1:$port" --replace host-a)" || fail "pair in the place of host-a"
change_and_send 12
[ "$(find "$t/dr/stores" -mindepth 1 -maxdepth 1 | wc -l)" = "$folders" ] || fail "it has begun a new folder: $(ls "$t/dr/stores")"
[ "$(dr replica hosts | grep -c '^host-a .*REVOKED')" = 1 ] || fail "the old key is not revoked: $(dr replica hosts)"

rm "$key"
refused 1 'no key for store' host backup "$vm" --to dr
host key recover --recovery-code-file "$t/kit" --json >"$t/recovered" || fail "key recover"
jq -e '.opens and .key == "'"$key"'"' "$t/recovered" >/dev/null || fail "key recover --json: $(cat "$t/recovered")"
[ "$(key_markers "$key" x | wc -l)" = 3 ] || fail "key recover did not bring back all data keys"
change_and_send 13

echo 'correct horse battery' >"$t/pass"
refused 1 'has no passphrase' dr unlock host-a --passphrase-file "$t/pass"
dr key passphrase --store "$store" --recovery-code-file "$t/kit" --new-passphrase-file "$t/pass" --quiet || fail "key passphrase"
dr unlock host-a --passphrase-file "$t/pass" --for 1m --quiet || fail "unlock with the passphrase"
dr verify "$vm" --store "$store" --quiet || fail "verify, unlocked with the passphrase"
dr lock --quiet
echo 'another one' >"$t/pass2"
dr key passphrase --store "$store" --passphrase-file "$t/pass" --new-passphrase-file "$t/pass2" --quiet || fail "key passphrase, changed"
refused 1 'passphrase: wrong' dr unlock host-a --passphrase-file "$t/pass"
typed "another one" "$bin/locum" unlock host-a --for 1m >"$t/out" || fail "unlock with a typed passphrase: $(cat "$t/out")"
dr lock --quiet
echo "keys that change: nothing was sent again, and the kit opens all of it"
