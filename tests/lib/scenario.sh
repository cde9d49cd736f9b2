#!/bin/bash
# For scenarios: real guests, the real locum.  Source it; the program is in $LOCUM_BIN (a build folder).
#
#   scenario_begin NAME       a short private folder in $t, a store in it, LOCUM_CONFIG set; all removed at the end
#   scenario_vm VM KEY=VALUE  a section [vm VM] of the configuration
#   locum ...                 the program
#   agent_start               an agent, as agent_program starts it; sets agent_pid; its log is $t/agent.log
#   status_has REGEX          until the agent's status has that, at most 60 s
#   at_replica COMMAND...     on the store of the one host at the replica, with no key but what the code opens
#   replica_start             a replica in $t/dr, as replica_program starts it; sets port, replica_pid; its log is $t/replica.log
#   moment MAX_MS             sleep for a random time, from the logged seed
#   left_out WHY              a part of it can't run here: the rest does, and then it counts as skipped

src=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=tests/guest/guest.sh
. "$src/tests/guest/guest.sh"
bin=${LOCUM_BIN:-$src/build-gcc}

fail() {
	printf 'FAILED: %s\n' "$*" >&2
	exit 1
}

locum() {
	"$bin/locum" "$@"
}

# A test may have its own.
at_end() { :; }

left_out() { # WHY
	_left_out=$*
}

_scenario_end() {
	local status=$? vm
	set +e
	at_end
	# What a test that fails has started must not outlive it.
	for vm in $(jobs -p); do
		kill -9 "$vm" 2>/dev/null
	done
	for vm in "$t"/vm*; do
		[ ! -e "$vm/pid" ] || [ "$status" = 0 ] || guest_alive "$vm" ||
			echo "$vm had ended: $(tail -n 5 "$vm/qemu.log")"
		[ ! -e "$vm/pid" ] || guest_kill "$vm"
	done
	for vm in "$t"/run/*/; do
		[ ! -e "$vm/pid" ] || locum vm stop "$(basename "$vm")" --force >/dev/null 2>&1
	done
	if [ "$status" = 0 ] && [ -n "${_left_out:-}" ]; then
		echo "SKIP: a part: $_left_out"
		status=77
	fi
	if [ "$status" != 0 ] && [ "$status" != 77 ] && [ -n "${KEEP:-}" ]; then
		echo "kept: $t"
	else
		rm -rf "$t"
	fi
	exit "$status"
}

scenario_begin() { # NAME
	[ -x "$bin/locum" ] || {
		echo "SKIP: $bin/locum is not built"
		exit 77
	}
	guest_require qemu-img:qemu-utils
	t=$(mktemp -d "/tmp/l-$1.XXXX")
	trap _scenario_end EXIT
	trap 'exit 130' INT TERM
	SEED=${SEED:-$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')}
	RANDOM=$SEED
	echo "seed $SEED (set SEED to repeat)"
	export LOCUM_CONFIG=$t/locum.conf
	cat >"$LOCUM_CONFIG" <<-EOF
		[locum]
		store = $t/store
		run_dir = $t/run
		scratch_dir = $t/scratch
	EOF
	locum store init --kit "$t/kit" >/dev/null || fail "store init"
}

scenario_vm() { # VM LINE...
	local vm=$1
	shift
	{
		echo "[vm $vm]"
		printf '%s\n' "$@"
	} >>"$LOCUM_CONFIG"
}

# A test may have its own.
replica_program() {
	exec "$bin/locum" replica --dir "$t/dr" --listen "127.0.0.1:${port:-0}"
}

# Until it listens.  Where it did before, on the same port.
port='' starts=0 replica_pid=''
replica_start() {
	local i
	: >>"$t/replica.log"
	(replica_program) >>"$t/replica.log" 2>&1 &
	replica_pid=$!
	starts=$((starts + 1))
	for ((i = 0; i < 200; i++)); do
		if [ "$(grep -c 'listens on port' "$t/replica.log")" -ge $starts ]; then
			port=$(sed -nE 's/.* listens on port ([0-9]+);.*/\1/p' "$t/replica.log" | tail -n 1)
			return 0
		fi
		kill -0 "$replica_pid" 2>/dev/null || fail "the replica does not start: $(tail -n 3 "$t/replica.log")"
		sleep 0.05
	done
	fail "the replica does not listen: $(tail -n 3 "$t/replica.log")"
}

# A test may have its own.
agent_program() {
	exec "$bin/locum" agent
}

agent_pid=''
agent_start() {
	(agent_program) >>"$t/agent.log" 2>&1 &
	agent_pid=$!
}

status_has() { # REGEX
	local i
	for ((i = 0; i < 600; i++)); do
		locum status --json >"$t/status" 2>/dev/null || true
		! grep -qE "$1" "$t/status" || return 0
		kill -0 "$agent_pid" 2>/dev/null || fail "the agent died: $(tail -n 5 "$t/agent.log")"
		sleep 0.1
	done
	fail "'$1' did not come: $(cat "$t/status") $(tail -n 5 "$t/agent.log")"
}

status_says() { # STATUS REGEX: how `locum status` ends, and what it prints; it is in $t/out then
	local i rc
	for ((i = 0; i < 150; i++)); do
		rc=0
		locum status >"$t/out" 2>&1 || rc=$?
		[ $rc != "$1" ] || ! grep -qE -- "$2" "$t/out" || return 0
		kill -0 "$agent_pid" 2>/dev/null || fail "the agent ended: $(tail -n 3 "$t/agent.log")"
		sleep 0.1
	done
	fail "status ends with $rc and says no '$2': $(cat "$t/out") $(tail -n 5 "$t/agent.log" "$t/replica.log" 2>/dev/null)"
}

at_replica() {
	LOCUM_CONFIG=/dev/null locum "$@" --store "$(echo "$t"/dr/stores/*)" --recovery-code-file "$t/kit"
}

moment() { # MAX_MS
	sleep "$(awk -v r="$RANDOM" -v max="$1" 'BEGIN { printf "%.3f", r / 32768 * max / 1000 }')"
}

# Until a process stands still at the place that LOCUM_FAILPOINT=PLACE:N:stop names.
stopped() { # PID
	local i
	for ((i = 0; i < 500; i++)); do
		! grep -q '^State:.*T' "/proc/$1/status" 2>/dev/null || return 0
		kill -0 "$1" 2>/dev/null || fail "it ended before the place where it should stop: $(cat "$t/err")"
		sleep 0.02
	done
	fail "it did not come to the place where it should stop in 10 s"
}

# Until a command has connected to whom it asks on this host.
connected() { # PID
	local i
	for ((i = 0; i < 500; i++)); do
		! find "/proc/$1/fd" -lname 'socket:*' -printf '%l\n' 2>/dev/null | tr -dc '0-9\n' |
			awk 'NR == FNR { of[$1]; next } $6 == "03" && $7 in of' - /proc/net/unix | has . || return 0
		kill -0 "$1" 2>/dev/null || fail "it ended before it asked anybody"
		sleep 0.02
	done
	fail "it asked nobody in 10 s"
}

# Until the guest has reported a number greater than that.
guest_past() { # DIR NUMBER
	local i n
	for ((i = 0; i < 600; i++)); do
		n=$(guest_last "$1")
		[ "${n:-0}" -le "${2:-0}" ] || return 0
		guest_alive "$1" || fail "the guest died"
		sleep 0.05
	done
	fail "the guest has not written past $2 in 30 s"
}

# Ids of a VM's points, oldest first.
point_ids() { # VM
	locum points "$1" --json | grep -o '"id": *"[0-9a-f]*"' | grep -o '[0-9a-f]\{32\}'
}

# One backup, and what it has to be: full, compared (read as a whole), incremental, unchanged.  Its --json is in $t/out.
backup() { # VM WHAT
	local want
	locum backup "$1" --json >"$t/out" 2>"$t/err" || fail "backup $1: $(cat "$t/out" "$t/err")"
	case $2 in
	full) want='"full": true' ;;
	compared) want='"full": false, "scanned_disks": [1-9]' ;;
	incremental) want='"full": false, "scanned_disks": 0' ;;
	unchanged) want='"outcome": "unchanged"' ;;
	esac
	grep -q "$want" "$t/out" || fail "the backup of $1 was not $2: $(cat "$t/out")"
}

# A number of the last backup's --json.
figure() { # KEY
	grep -o "\"$1\": [0-9.]*" "$t/out" | sed -n 1p | sed 's/.*: //'
}

# Two windows of the first disk of a store's first point get each other's content, in the catalog: every chunk stays sound.
swap_windows() { # STORE
	python3 - "$1/catalog.sqlite" <<-'EOF'
	import sqlite3, sys
	db = sqlite3.connect(sys.argv[1])
	table = "map_recent" if db.execute("select count(*) from map_recent").fetchone()[0] else "map_long"
	(w1, c1), (w2, c2) = db.execute(f"""select window, chunk from {table} where chunk > 0 and gen = (select min(gen)
	    from {table}) and disk = (select min(disk) from {table}) limit 2""").fetchall()
	for w, c in (w1, c2), (w2, c1):
	    assert db.execute(f"""update {table} set chunk = ? where window = ? and gen = (select min(gen) from {table})
	        and disk = (select min(disk) from {table})""", (c, w)).rowcount == 1
	db.commit()
	EOF
}

# A command that has to fail: its exit status (a pattern), and what its message has to have in it.
refused() { # STATUS REGEX COMMAND...
	local status=$1 regex=$2 rc=0
	shift 2
	"$@" >"$t/refused" 2>&1 || rc=$?
	# shellcheck disable=SC2053
	[[ $rc = $status ]] || fail "exit status $rc and not $status: $*: $(cat "$t/refused")"
	grep -qE -- "$regex" "$t/refused" || fail "'$regex' is not in the message: $*: $(cat "$t/refused")"
}

# Until the QEMU of $t/VM answers a command so.
qemu_says() { # VM COMMAND REGEX
	local i
	for ((i = 0; i < 200; i++)); do
		guest_qmp "$t/$1" "{\"execute\":\"$2\"}" >"$t/wait"
		! grep -qE "$3" "$t/wait" || return 0
		sleep 0.05
	done
	fail "$1: $2 does not come to '$3': $(cat "$t/wait")"
}

# Until somebody has the monitor $t/VM/qmp.
monitor_held() { # VM
	qemu_says "$1" query-chardev "\"filename\": \"unix:$t/$1/qmp[,\"]"
}

qemu_ready() { # VM: the QEMU in $t/VM has begun
	local i
	for ((i = 0; i < 200; i++)); do
		[ ! -S "$t/$1/qmp2" ] || return 0
		sleep 0.05
	done
	fail "QEMU does not start: $(cat "$t/$1/qemu.log")"
}

# A QEMU in $t/vm, with these disks, whose guest stands still before its first instruction.
qemu_stands() { # [OPTION]... DISK...
	guest_start "$t/vm" -b scsi -w '' -x -S "$@"
	qemu_ready vm
}

# The newest point has exactly these disks, and these bytes.  The guest must not write meanwhile.
same_as() { # VM DISK=IMAGE...
	local vm=$1 pair disk image format
	shift
	rm -rf "$t/r"
	locum restore "$vm" --to "$t/r" --quiet || fail "restore of $vm"
	for pair in "$@"; do
		disk=${pair%%=*} image=${pair#*=} format=raw
		[ "${image%.qcow2}" = "$image" ] || format=qcow2
		[ -e "$t/r/$vm-$disk.raw" ] || fail "the point of $vm has no disk $disk: $(ls "$t/r")"
		qemu-img compare -U -f raw -F "$format" "$t/r/$vm-$disk.raw" "$image" >"$t/compare" ||
			fail "disk $disk of the point of $vm is not what $image has: $(cat "$t/compare")"
		! grep -q 'size mismatch' "$t/compare" || fail "disk $disk of the point of $vm: $(cat "$t/compare")"
	done
	[ "$(find "$t/r" -name '*.raw' | wc -l)" = $# ] || fail "the point of $vm has other disks: $(ls "$t/r")"
	rm -rf "$t/r"
}

# Nothing of ours in a guest's QEMU but bitmaps, and no error in the guest.
unharmed() { # DIR
	local left
	left=$(guest_qmp "$1" '{"execute":"query-named-block-nodes","arguments":{"flat":true}}' |
		grep -o '"node-name": *"locum[^"]*"' || true)
	[ -z "$left" ] || fail "left in QEMU: $left"
	guest_qmp "$1" '{"execute":"query-block-exports"}' | has '"return": *\[\]' || fail "exports left in QEMU"
	! guest_qmp "$1" '{"execute":"query-fdsets"}' | grep '"locum' || fail "descriptors left in QEMU"
	guest_qmp "$1" '{"execute":"query-status"}' | has '"running": *true' || fail "the guest does not run"
	! grep -a 'SEQ WRITE-ERROR' "$1/serial" || fail "the guest saw an error"
}
