#!/bin/bash
# What replication costs beside a backup that stays here: prints three tables of docs/BENCHMARKS.md.
#
#   sites.sh [--mib N] [--runs N] [--days N] [--only first|apart|wire] [--seed TEXT] [--dir DIR]
#
#   first   a first backup that stays here, and one that goes to a replica on loopback, in turns: medians of --runs (5).
#           Both ends share the machine: what each of them has of the CPU is said.
#   apart   the same where each end has half of the cores for itself, as two hosts would; the one that stays here has half, too.
#           Beside it the bare primitives of sending as much (limit send, limit receive)
#   wire    bytes that go over the wire, both ways, for what three loads write (loads.py), each --days (5) times; beside
#           rsync, and what chunks of 4 MiB would be
#
# The disk has --mib (512) of files (content.py).  DIR (TMPDIR) needs 6 times that.  LOCUM_BIN: the build folder.  rsync and
# zstd are installed where they are missing (as root or with sudo).
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/bench/lib.sh
. "$here/lib.sh"
src=$(cd "$here/../.." && pwd)
bin=${LOCUM_BIN:-$src/build-gcc}
limit=$bin/tests/bench/limit
mib=512 runs=5 days=5 only='' seed=1 dir=${TMPDIR:-/tmp}
command="tests/bench/sites.sh${*:+ $*}"

options "mib runs days only seed dir" "$@"
for program in "$bin/locum" "$limit"; do
	[ -x "$program" ] || die "$program is not built"
done

need python3 python3-minimal
need mke2fs e2fsprogs
need rsync rsync
need zstd zstd

w=$(mktemp -d "$dir/sites.XXXX") # short: there are unix sockets in it
export LOCUM_CONFIG=$w/locum.conf
replica='' counter='' load=''
here_on=() there_on=() # where each end runs
stop() { # PID
	[ -z "$1" ] || kill "$1" 2>/dev/null || true
	[ -z "$1" ] || wait "$1" 2>/dev/null || true
}
finish() {
	local status=$?
	stop "$load"
	stop "$counter"
	stop "$replica"
	[ "$status" = 0 ] || tail -n 20 "$w/log" >&2 || true
	rm -rf "$w"
	exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

say() {
	local now
	now=$(cut -d ' ' -f 1 /proc/loadavg)
	echo "$now" >>"$w/loads"
	printf '%s  load %s  %s\n' "$(date +%T)" "$now" "$*" >&2
}

quietly() {
	"$@" >>"$w/log" 2>&1
}

locum() {
	"${here_on[@]}" "$bin/locum" "$@"
}

fresh() { # DISK: a new, empty store with one VM
	rm -rf "$w/store" "$w/kit" "$w/keys" "$w/run" "$w/scratch"
	printf '%s\n' '[locum]' "store = $w/store" "run_dir = $w/run" "scratch_dir = $w/scratch" '[vm web01]' \
		"disk = vda raw $1" >"$LOCUM_CONFIG"
	quietly locum store init --quiet --kit "$w/kit"
}

await_port() { # the port that $replica listens on
	local port
	until port=$(sed -nE 's/.* listens on port ([0-9]+);.*/\1/p' "$w/replica.log") && [ -n "$port" ]; do
		kill -0 "$replica" || die "the replica ended: $(tail -n 3 "$w/replica.log")"
		sleep 0.05
	done
	echo "$port"
}

begin_replica() { # [COUNTED]: a new, empty one, paired; COUNTED: behind a wire that counts into $w/up and $w/down
	local port at
	rm -rf "$w/dr"
	: >"$w/replica.log"
	"${there_on[@]}" "$bin/locum" replica --dir "$w/dr" --listen 127.0.0.1:0 >"$w/replica.log" 2>&1 &
	replica=$!
	port=$(await_port)
	at=$port
	if [ -n "${1:-}" ]; then
		rm -f "$w/wire"
		python3 "$here/wire.py" "$port" "$w/up" "$w/down" >"$w/wire" &
		counter=$!
		until [ -s "$w/wire" ]; do sleep 0.05; done
		at=$(cat "$w/wire")
	fi
	quietly locum pair --name dr --quiet "$(locum token --dir "$w/dr" --address "127.0.0.1:$at")"
}

end_replica() {
	stop "$counter"
	stop "$replica"
	counter='' replica=''
}

# ---- a first backup ----

ticks() { # PID: CPU time
	awk '{ print $14 + $15 }' "/proc/$1/stat"
}

timed() { # NAME COMMAND...: a line of $w/$table: name, wall s, CPU s here, CPU s of the replica
	local name=$1 began before=0 after=0
	shift
	sync -f "$w"
	[ -z "$replica" ] || before=$(ticks "$replica")
	began=$EPOCHREALTIME
	TIMEFORMAT='%U %S'
	{ time "$@" >>"$w/log" 2>&1; } 2>"$w/time"
	sync -f "$w"
	local ended=$EPOCHREALTIME
	[ -z "$replica" ] || after=$(ticks "$replica")
	awk -v n="$name" -v wall="$(awk "BEGIN { print $ended - $began }")" -v there=$((after - before)) \
		-v hz="$(getconf CLK_TCK)" '{ printf "%s\t%.3f\t%.3f\t%.3f\n", n, wall, $1 + $2, there / hz }' "$w/time" >>"$w/$table"
}

backup_here() { # NAME
	fresh "$w/day1.raw"
	cat "$w/day1.raw" >/dev/null
	timed "$1" locum backup web01 --quiet
}

backup_there() { # NAME
	fresh "$w/day1.raw"
	begin_replica
	timed "$1" locum backup web01 --quiet --to dr
	end_replica
}

send_stored() { # NAME: what was backed up here, to an empty replica
	begin_replica
	timed "$1" locum backup web01 --quiet --to dr
	end_replica
}

send_bare() { # NAME: as much, by the primitives alone
	rm -rf "$w/bare" "$w/dr"
	mkdir "$w/bare" "$w/dr"
	: >"$w/replica.log"
	quietly "$limit" backup "$w/day1.raw" "$w/bare"
	"${there_on[@]}" "$limit" receive "$w/dr" >"$w/replica.log" 2>&1 &
	replica=$!
	timed "$1" "${here_on[@]}" "$limit" send "$w/bare" "$(await_port)"
	end_replica
}

bench_first() {
	local i table=first
	for ((i = 1; i <= runs; i++)); do
		say "first: run $i of $runs"
		backup_here 'a first backup that stays here'
		send_stored 'sending that to a replica'
		backup_there 'a first backup that goes to a replica'
		rm -f "$w/copy.raw"
		timed 'rsync (neither compressed nor encrypted)' rsync --inplace "$w/day1.raw" "$w/copy.raw"
		rm -f "$w/copy.raw"
		timed 'rsync -z --zc=zstd (not encrypted)' rsync --inplace --no-whole-file -z --zc=zstd "$w/day1.raw" "$w/copy.raw"
		rm -f "$w/copy.raw"
	done
}

bench_apart() {
	local i table=apart cores half
	mapfile -t cores < <(python3 -c 'import os; print(*sorted(os.sched_getaffinity(0)), sep="\n")')
	half=$((${#cores[@]} / 2))
	[ $half -gt 0 ] || die "there is but one core: the ends can't be apart (--only first or wire)"
	here_on=(taskset -c "$(IFS=, && echo "${cores[*]:0:half}")")
	there_on=(taskset -c "$(IFS=, && echo "${cores[*]:half:half}")")
	for ((i = 1; i <= runs; i++)); do
		say "apart: run $i of $runs"
		backup_here 'a first backup that stays here, on half of the cores'
		send_stored 'sending that to a replica, which has the other half'
		backup_there 'a first backup that goes to a replica, each end on half of the cores'
		send_bare 'the bare primitives of sending as much, as far apart'
	done
	here_on=() there_on=()
}

# ---- bytes on the wire ----

on_the_wire() { # the sum of both ways, when it stands still
	local n was=-1
	while n=$(($(cat "$w/up") + $(cat "$w/down"))) && [ "$n" != "$was" ]; do
		was=$n
		sleep 0.3
	done
	echo "$n"
}

rsynced() { # DISK COPY OPTION...: bytes both ways
	local disk=$1 copy=$2
	shift 2
	rsync --inplace --no-whole-file --stats "$@" "$disk" "$copy" >"$w/stats"
	awk -F : '/^Total bytes (sent|received)/ { gsub(/,/, "", $2); n += $2 } END { print n }' "$w/stats"
}

bench_load() { # NAME
	local name=$1 disk=$w/disk.raw day ours before changed
	[ "$name" = database ] || cp --sparse=always "$w/day1.raw" "$disk"
	coproc LOAD { python3 "$here/loads.py" "$name" "$disk" "$mib" "$seed"; }
	load=$LOAD_PID
	read -r _ <&"${LOAD[0]}"
	fresh "$disk"
	begin_replica counted
	quietly locum backup web01 --quiet --to dr
	cp --sparse=always "$disk" "$w/copy.raw"
	cp --sparse=always "$disk" "$w/copyz.raw"
	for ((day = 1; day <= days; day++)); do
		say "wire: $name, day $day"
		echo "$day" >&"${LOAD[1]}"
		read -r _ <&"${LOAD[0]}"
		rm -rf "$w/chunks"
		mkdir "$w/chunks"
		changed=$(python3 "$here/loads.py" model "$w/copy.raw" "$disk" "$w/chunks")
		zstd -q -1 --no-check -r --rm "$w/chunks"
		before=$(on_the_wire)
		sleep 2.1 # or the times of the image can't tell that it changed
		quietly locum backup web01 --quiet --to dr
		ours=$(($(on_the_wire) - before))
		printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$name" "$changed" "$ours" "$(rsynced "$disk" "$w/copy.raw")" \
			"$(rsynced "$disk" "$w/copyz.raw" -z --zc=zstd)" \
			"$(find "$w/chunks" -type f -printf '%s\n' | awk '{ n += $1 } END { print n + 0 }')" >>"$w/wire.rows"
	done
	quietly locum restore web01 --to "$w/out.raw"
	cmp -s "$w/out.raw" "$disk" || die "what was restored differs from the disk"
	eval "exec ${LOAD[1]}>&-"
	wait "$load" || die "loads.py $name failed"
	load=''
	end_replica
	rm -f "$disk" "$w/copy.raw" "$w/copyz.raw" "$w/out.raw"
}

say "making the disk ($mib MiB)"
python3 "$here/content.py" make "$w" "$mib" "$seed"
rm "$w/day2.raw"
if [ -z "$only" ] || [ "$only" = first ]; then
	bench_first
fi
if [ -z "$only" ] || [ "$only" = apart ]; then
	bench_apart
fi
if [ -z "$only" ] || [ "$only" = wire ]; then
	for name in random log database; do
		bench_load "$name"
	done
fi
say "all done"

printf '    %s\n\nMade on %s: %s, %d cores; locum %s, rsync %s.\n**Load during the run: %s to %s.**\n\n' "$command" "$(date +%F)" \
	"$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | sed -n 1p)" "$(nproc)" \
	"$(git -C "$src" rev-parse --short HEAD 2>/dev/null || echo '(no clone)')" \
	"$(rsync --version | awk 'NR == 1 { print $3 }')" \
	"$(sort -n "$w/loads" | sed -n 1p)" "$(sort -n "$w/loads" | tail -n 1)"
python3 "$here/sites.py" "$w"
