#!/bin/bash
# Benchmarks: locum and others on the same disks.  Prints a markdown document; progress goes to stderr.
#
#   run.sh [--size SMALL|FULL] [--only NAME] [--runs N] [--seed TEXT] [--dir DIR]
#
#   --size   of the disk's files: SMALL 512 MiB (default), FULL 4 GiB
#   --only   some of (a,b,...): locum-vm locum-image limit restic borg casync qemu-img-zstd qemu-img-zlib cp zstd changed empty pages boot
#   --runs   medians of so many (default 3)
#   --dir    where the disks and repositories go (default TMPDIR): 5 times the size are needed
#
# LOCUM_BIN is the build folder (default build-gcc).  Programs that are missing are installed (as root or with
# sudo), but casync, which is left out then.  What is compared is in docs/BENCHMARKS.md.
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/bench/lib.sh
. "$here/lib.sh"
src=$(cd "$here/../.." && pwd)
bin=${LOCUM_BIN:-$src/build-gcc}
size=SMALL only='' runs=3 seed=1 dir=${TMPDIR:-/tmp}
command=("tests/bench/run.sh" "$@")

options "size only runs seed dir" "$@"
case $size in
SMALL) mib=512 ;;
FULL) mib=4096 ;;
*) die "--size is SMALL or FULL" ;;
esac
[ -x "$bin/locum" ] || die "$bin/locum is not built"

need python3 python3-minimal
need mke2fs e2fsprogs
need restic restic
need borg borgbackup
need qemu-img qemu-utils
need qemu-system-x86_64 qemu-system-x86
need zstd zstd

w=$(mktemp -d "$dir/bench.XXXX") # short: there are unix sockets in it
qemu=''
stop_qemu() {
	[ -z "$qemu" ] || kill -9 "$qemu" 2>/dev/null || true
	[ -z "$qemu" ] || wait "$qemu" 2>/dev/null || true
	qemu=''
}
finish() {
	local status=$?
	stop_qemu
	[ ! -e "$w/run/boot" ] || "$bin/locum" vm stop boot --force >/dev/null 2>&1 || true
	# What there is of a run that did not come to its end.
	[ "$status" = 0 ] || python3 "$here/table.py" "$w/results" peers >&2 || true
	[ ! -e "$w/run/local" ] || "$bin/locum" vm stop local --force >/dev/null 2>&1 || true
	rm -rf "$w"
	exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

# For peer.sh: what is backed up, where to, and where it is restored.
export disk=$w/disk.raw repo=$w/repo out=$w/out
export LOCUM_CONFIG=$w/locum.conf RESTIC_PASSWORD=bench RESTIC_CACHE_DIR=$w/cache
export BORG_PASSPHRASE=bench BORG_BASE_DIR=$w/borg-base BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes
results=$w/results
: >"$results"

say() {
	local load
	load=$(cut -d ' ' -f 1 /proc/loadavg)
	echo "$load" >>"$w/loads"
	printf '%s  load %s  %s\n' "$(date +%T)" "$load" "$*" >&2
}

wanted() {
	[ -z "$only" ] || [[ ,$only, == *,$1,* ]]
}

measure() { # BENCH NAME STAGE [OPTION]... -- COMMAND...
	say "$1: $2, $3"
	python3 -S -E "$here/measure.py" "$results" "$@" >>"$w/log" 2>&1 || {
		tail -n 20 "$w/log" >&2
		exit 1
	}
}

quietly() {
	"$@" >>"$w/log" 2>&1
}

locum_store() { # SECTION-LINE...: a new, empty store with one VM
	rm -rf "$repo" "$repo.kit" "$w/keys" "$w/run" "$w/scratch"
	printf '%s\n' '[locum]' "store = $repo" "run_dir = $w/run" "scratch_dir = $w/scratch" "$@" >"$LOCUM_CONFIG"
	quietly "$here/peer.sh" locum init
}

start_qemu() { # IMAGE: a machine that stands still, with that disk
	rm -f "$w/qmp" "$w/qmp2"
	qemu-system-x86_64 -S -M q35 -accel tcg -m 64 -nodefaults -display none \
		-qmp "unix:$w/qmp,server=on,wait=off" -qmp "unix:$w/qmp2,server=on,wait=off" \
		-blockdev "driver=raw,node-name=disk0,file.driver=file,file.filename=$1,discard=unmap" \
		-device virtio-blk-pci,drive=disk0,id=vda </dev/null >>"$w/log" 2>&1 &
	qemu=$!
	while [ ! -S "$w/qmp2" ]; do
		kill -0 "$qemu" || die "QEMU ended: $(tail -n 3 "$w/log")"
		sleep 0.05
	done
}

use() { # NAME: of a disk; it gets the same one, as for a backup of every day
	ln -f "$w/$1.raw" "$disk"
}

check_restored() { # ORIGINAL
	cmp -s "$out/disk.raw" "$1" || die "what was restored differs from what was backed up"
	rm -rf "$out"
	mkdir "$out"
}

# ---- the same disks with each program ----

bench_peer() { # NAME
	local name=$1 other
	use day1
	if [ "$name" = locum-image ]; then
		locum_store '[vm web01]' "disk = vda raw $disk" '[vm clone]' "disk = vda raw $disk" \
			'[vm sibling]' "disk = vda raw $disk"
		sleep 3 # or the times of the image can't tell that it did not change
	else
		quietly "$here/peer.sh" "$name" init
	fi
	day=1 measure peers "$name" first --repo "$repo" --warm "$disk" -- "$here/peer.sh" "$name" backup
	day=1b measure peers "$name" same --repo "$repo" --warm "$disk" -- "$here/peer.sh" "$name" backup
	# While there is one day in the repository: some read that one, some all.
	case $name in
	qemu-img-* | cp) ;; # have no hashes
	*) day=1b measure peers "$name" verify -- "$here/peer.sh" "$name" verify ;;
	esac
	use day2
	export day=2
	measure peers "$name" day2 --repo "$repo" --warm "$disk" -- "$here/peer.sh" "$name" backup
	measure peers "$name" restore --repo "$out" -- "$here/peer.sh" "$name" restore
	check_restored "$disk"
	for other in clone sibling; do
		use "$other"
		vm=$other day=$other measure peers "$name" "$other" --repo "$repo" --warm "$disk" -- "$here/peer.sh" "$name" backup
	done
	vm=sibling day=sibling quietly "$here/peer.sh" "$name" restore
	check_restored "$disk"
	rm -rf "$repo"
}

# What a program can come to that does nothing but what must be: limit.c.
bench_limit() {
	local other
	use day1
	quietly "$here/peer.sh" limit init
	measure peers limit first --repo "$repo" --warm "$disk" -- "$here/peer.sh" limit backup
	measure peers limit verify -- "$here/peer.sh" limit verify
	rm -rf "$repo"
	for other in limit-1 limit-lib; do
		quietly "$here/peer.sh" "$other" init
		measure peers "$other" first --repo "$repo" --warm "$disk" -- "$here/peer.sh" "$other" backup
		rm -rf "$repo"
	done
	use day2 # what the others restore
	quietly "$here/peer.sh" limit init
	quietly "$here/peer.sh" limit backup
	measure peers limit restore --repo "$out" -- "$here/peer.sh" limit restore
	check_restored "$disk"
	rm -rf "$repo"
}

bench_locum_vm() {
	cp --sparse=always "$w/day1.raw" "$w/vm.raw"
	locum_store '[vm web01]' "qmp = $w/qmp"
	start_qemu "$w/vm.raw"
	local args=(--repo "$repo" --pid "$qemu" --warm "$w/vm.raw" -- "$here/peer.sh" locum backup)
	measure peers locum-vm first "${args[@]}"
	measure peers locum-vm same "${args[@]}"
	python3 "$here/content.py" write "$w/vm.raw" "$w/day2.raw" "$w/qmp2"
	measure peers locum-vm day2 "${args[@]}"
	stop_qemu
	quietly "$here/peer.sh" locum restore
	check_restored "$w/day2.raw"
	rm -rf "$repo" "$w/vm.raw"
}

# ---- what changed, as QEMU says it ----

bench_changed() {
	local i n key=1
	cp --sparse=always "$w/day1.raw" "$w/vm.raw"
	locum_store '[vm web01]' "qmp = $w/qmp"
	start_qemu "$w/vm.raw"
	local args=(--repo "$repo" --pid "$qemu" --warm "$w/vm.raw" -- "$here/peer.sh" locum backup)
	measure changed 'the whole disk' first "${args[@]}"
	measure changed nothing 'next backup' "${args[@]}"
	for ((i = 1; i <= runs; i++)); do
		# No more than half of the files, in one place; then pages, each in a window of its own.
		for ((n = 1; n <= mib / 2; n *= 4)); do
			python3 "$here/content.py" change "$w/qmp2" "$w/vm.raw" $((mib * i << 17)) $((1 << 20)) $n $((1 << 20)) $((key++))
			measure changed "$n MiB in one place" 'next backup' "${args[@]}"
		done
		for ((n = 256; n <= mib * 4; n *= 4)); do
			python3 "$here/content.py" change "$w/qmp2" "$w/vm.raw" $((i << 12)) 4096 $n $(((mib << 20) / n & ~0xffff)) $((key++))
			measure changed "$n pages of 4 KiB, apart" 'next backup' "${args[@]}"
		done
	done
	cp "$w/vm.raw" "$w/vm-end.raw"
	stop_qemu
	quietly "$here/peer.sh" locum restore
	check_restored "$w/vm-end.raw"
	rm -rf "$repo" "$w/vm.raw" "$w/vm-end.raw"
}

# ---- large disks, mostly empty ----

bench_empty() { # NAME SIZE
	cp --sparse=always "$w/day1.raw" "$w/vm.raw"
	truncate -s "$2" "$w/vm.raw"
	locum_store '[vm web01]' "qmp = $w/qmp"
	start_qemu "$w/vm.raw"
	local args=(--repo "$repo" --pid "$qemu" -- "$here/peer.sh" locum backup) i
	measure empty "$1" first "${args[@]}"
	measure empty "$1" same "${args[@]}"
	for ((i = 1; i <= runs; i++)); do
		python3 "$here/content.py" touch "$w/qmp2" $((i * 16 << 30)) $((1 << 20)) "$seed$i"
		measure empty "$1" '1 MiB changed' "${args[@]}"
	done
	stop_qemu
	rm -rf "$repo" "$w/vm.raw"
}

# ---- random writes of 4 KiB, and what they cost ----

peak_row() { # NAME STAGE PID: the most memory that a daemon had so far
	printf 'memory\t%s\t%s\t0\t\t%s\t\n' "$1" "$2" "$(awk '/^VmHWM/ { print $2 / 1024 }' "/proc/$3/status")" >>"$results"
}

stored() {
	find "$repo/segments" -type f -printf '%s\n' | awk '{ n += $1 } END { print n }'
}

bench_pages() {
	local n=$((mib * 2)) day=0 made=0 port before sent alone i
	cp --sparse=always "$w/day1.raw" "$w/vm.raw"
	locum_store '[vm web01]' "disk = vda raw $w/vm.raw"
	locum replica --dir "$w/dr" --listen 127.0.0.1:0 >"$w/replica.log" 2>&1 &
	local replica=$! wire=''
	# shellcheck disable=SC2064
	trap "kill $replica 2>/dev/null; finish" EXIT
	for ((i = 0; i < 100; i++)); do
		port=$(sed -nE 's/.* listens on port ([0-9]+);.*/\1/p' "$w/replica.log" | tail -n 1)
		[ -z "$port" ] || break
		sleep 0.1
	done
	python3 "$here/wire.py" "$port" "$w/sent" >"$w/wire" &
	wire=$!
	# shellcheck disable=SC2064
	trap "kill $replica $wire 2>/dev/null; finish" EXIT
	for ((i = 0; i < 100; i++)); do
		[ -s "$w/wire" ] && break
		sleep 0.1
	done
	quietly locum pair --name dr "$(locum token --dir "$w/dr" --address "127.0.0.1:$(cat "$w/wire")")"
	quietly locum backup web01 --to dr
	for day in 1 2 3 5 8 13 20; do
		while [ "$made" -lt "$day" ]; do
			made=$((made + 1))
			say "pages: day $made"
			rm -rf "$w/pages"
			mkdir "$w/pages"
			python3 "$here/content.py" pages "$w/vm.raw" "$n" "$seed-$made" "$w/pages"
			zstd -q -1 --no-check -r --rm "$w/pages"
			before=$(stored)
			sent=$(cat "$w/sent")
			sleep 2.1 # or the times of the image can't tell that it changed
			measure memory 'locum backup --to' 'sending points' -- locum backup web01 --to dr
		done
		alone=$(find "$w/pages" -type f -printf '%s\n' | awk '{ n += $1 } END { print n }')
		awk -v d="$day" -v n="$n" -v alone="$alone" -v stored=$(($(stored) - before)) -v sent=$(($(cat "$w/sent") - sent)) \
			'BEGIN { printf "| %d | %d | %d | %d | %.2f | %d | %.2f |\n", d, n, alone / n, stored / n, stored / alone, sent / n, sent / alone }' \
			>>"$w/pages.table"
	done
	quietly locum verify web01
	quietly locum restore web01 --to "$out/disk.raw"
	check_restored "$w/vm.raw"
	peak_row 'locum replica' 'taking points' "$replica"
	kill $replica $wire
	trap finish EXIT
	rm -rf "$repo" "$w/vm.raw" "$w/dr"
}

# ---- booting ----

now_ms() {
	date +%s%3N
}

field() { # NAME JSON: a number
	grep -o "\"$1\":[0-9]*" <<<"$2" | cut -d : -f 2
}

boot_row() { # NAME STAGE MS
	printf 'boot\t%s\t%s\t%s\t\t\t\n' "$1" "$2" "$(awk "BEGIN { print $3 / 1000 }")" >>"$results"
}

boot_locum() { # NAME STAGES
	local json
	json=$(locum boot boot --test --json --serial-pattern 'SEQ start') || die "locum boot: $json"
	boot_row "$1" "guest executes$2" "$(field executing_ms "$json")"
	boot_row "$1" "guest userspace$2" "$(field rto_ms "$json")"
}

boot_local() { # STAGES
	local began
	began=$(now_ms)
	quietly locum vm start local --config "$w/local.conf"
	boot_row 'local qcow2' "guest executes$1" $(($(now_ms) - began))
	until grep -aqs 'SEQ start' "$w/run/local/serial.log"; do
		sleep 0.02
	done
	boot_row 'local qcow2' "guest userspace$1" $(($(now_ms) - began))
	quietly locum vm stop local --force --config "$w/local.conf"
}

bench_boot() {
	local i cold=', cold'
	# shellcheck source=tests/guest/guest.sh
	. "$src/tests/guest/guest.sh"
	"$src/tests/guest/build-guest.sh" "$GUEST_OUT" >>"$w/log" 2>&1 || die "no test guest: $(tail -n 1 "$w/log")"
	quietly "$src/tests/guest/mkbootdisk.sh" "$GUEST_OUT" "$w/boot.raw"
	locum_store '[vm boot]' 'memory = 256 MiB' "disk = vda raw $w/boot.raw boot=1"
	quietly locum backup boot
	quietly locum restore boot --format qcow2 --to "$out/"
	sed -i "s/^\[vm boot\]/[vm local]/; s/serial=[^ ]*//" "$out/boot.conf"
	mv "$out/boot.conf" "$w/local.conf" # it names the folders, too
	for ((i = 1; i <= runs; i++)); do
		say "boot: run $i"
		boot_locum 'locum boot' ''
		boot_local ''
		# Nothing of it in the page cache; first without the list of what the last boot read.
		rm -f "$repo"/index/boot-*
		python3 "$here/evict.py" "$repo"
		boot_locum 'locum boot, no list' "$cold"
		python3 "$here/evict.py" "$repo"
		boot_locum 'locum boot' "$cold"
		python3 "$here/evict.py" "$out"
		boot_local "$cold"
	done
	rm -rf "$repo" "$out"
	mkdir "$out"
}

# ---- all of it ----

kvm() { # whether it carries a guest, not whether it is there: locum asks the same before it uses it
	local status=0 said
	said=$(timeout 2 qemu-system-x86_64 -S -M q35 -accel kvm -nodefaults -display none 2>&1) || status=$?
	[ "$status" = 124 ] && [[ $said != *'support requested feature'* ]] && echo 'with KVM' || echo 'without KVM'
}

PATH=$bin:$bin/tests/bench:$PATH
peers='locum-image restic borg casync qemu-img-zstd qemu-img-zlib cp zstd'
mkdir "$out"
[ "$only" = boot ] || say "making the disks ($size)"
[ "$only" = boot ] || python3 "$here/content.py" make "$w" "$mib" "$seed"
any=''
for peer in $peers; do
	! wanted "$peer" || any=yes
done
if [ -n "$any" ]; then
	python3 "$here/content.py" others "$w" "$mib" "$seed"
fi
for ((run = 1; run <= runs; run++)); do
	say "run $run of $runs"
	! wanted locum-vm || bench_locum_vm
	! wanted limit || bench_limit
	for peer in $peers; do
		if wanted "$peer" && [ "$peer" = casync ] && ! command -v casync >/dev/null; then
			say "casync is left out: it is not installed"
		elif wanted "$peer"; then
			bench_peer "$peer"
		fi
	done
done
! wanted changed || bench_changed
if wanted empty; then
	bench_empty '100 GiB disk' 100G
	bench_empty '1 TiB disk' 1T
fi
! wanted pages || bench_pages
! wanted boot || bench_boot
say "all done"
loads="$(sort -n "$w/loads" | sed -n 1p) to $(sort -n "$w/loads" | tail -n 1)"

# The document.
model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | sed -n 1p)
memory=$(awk '/^MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)
versions="locum $(git -C "$src" rev-parse --short HEAD 2>/dev/null || echo '(no clone)'), $(restic version | cut -d ' ' -f 1-2)"
versions+=", $(borg --version)$(! command -v casync >/dev/null || casync --version | sed -n '1s/^casync/, casync/p'), $(qemu-img --version | sed -n '1s/ version\( [0-9.]*\).*/\1/p'), zstd $(zstd --version | grep -o 'v[0-9.]*')"
cat <<-END
	# Benchmarks

	    ${command[*]}

	Made on $(date +%F): $model, $(nproc) cores, $memory, $(findmnt -n -o FSTYPE -T "$w"), Linux $(uname -r | cut -d - -f 1),
	guests $(kvm).  $versions.
	**Load during the run: $loads** (more than the number of cores: wall times say little, CPU times hold).

	The disk: ext4 of $((2 * mib)) MiB with $mib MiB of files, those of installed Debian packages.  Day two: 3% of the
	files replaced by a slightly other version, logs appended, 1% of the 4 KiB blocks half overwritten.
	Clone: day two's disk with an eighth more files.  Sibling: the files of day one, installed in another order on a file
	system of its own.
	**locum-vm** backs up the disk of a running QEMU and counts QEMU's CPU time; **locum-image** is the VM that is off,
	read from its image as the others read it.  locum, restic and borg encrypt and deduplicate, casync deduplicates,
	qemu-img, cp and zstd (all cores) do neither.  **limit** is the primitives alone, on all cores: read, BLAKE2b, zstd,
	XChaCha20-Poly1305, write and flush, and back, with no catalog and nothing known before: a ratio of 1.11 to it is 90%
	of what can be had (**limit-1**: with zstd's level 1; **limit-lib**: so, and hashed as libsodium does it, one window at a
	time, not as Locum does it).  Disks are in the page cache; wall ends when all is written
	out; CPU is user and system; medians.  Every restore was compared with the disk.  *verify* reads all that day one
	takes (\`locum verify\`, \`restic check --read-data\`, \`borg check --verify-data\`, \`casync digest\`, \`zstd -t\`).
	Ratios are wall / CPU / bytes added, below 1 = locum needs less.

END
if [ -z "$only" ] || grep -q '^peers' "$results"; then
	python3 "$here/table.py" "$results" peers locum-vm locum-image
fi
if wanted changed; then
	printf '\n## What changed in a running VM\n\nEach backup after a change of so much; all other programs read the whole disk.\n\n'
	python3 "$here/table.py" "$results" changed
fi
if wanted empty; then
	printf '\n## Large disks with the same data, of a running VM\n\n'
	python3 "$here/table.py" "$results" empty
fi
if wanted pages; then
	printf '\n## Random writes of 4 KiB, day after day\n\nOne page in %d of the files a day, each overwritten with one that compresses as another\npage of the disk; backed up and sent to a replica once a\nday.  Bytes a page; *alone* is that page by itself, by zstd -1; the wire has all that a session needs.\n\n' $((mib * 256 / (mib * 2)))
	printf '| day | pages | alone | stored | stored / alone | on the wire | wire / alone |\n|---|---|---|---|---|---|---|\n'
	cat "$w/pages.table"
fi
printf '\n## Memory\n\nThe most that a process of Locum had, in any run, MiB; to be under 150 beside the caches that are configured.\n\n'
printf '| work | peak MiB | |\n|---|---|---|\n'
awk -F '\t' '
	($2 ~ /^locum/ || $1 == "empty" || $1 == "changed") && $6 != "" {
		what = ($1 == "empty" || $1 == "changed" ? "locum-vm, " $2 : $2) ": " $3
		if (!(what in peak)) order[++n] = what
		if ($6 + 0 >= peak[what]) peak[what] = $6 + 0
	}
	END { for (i = 1; i <= n; i++) printf "| %s | %.0f | %s |\n", order[i], peak[order[i]], peak[order[i]] < 150 ? "" : "**over**" }' "$results"
if wanted boot; then
	printf '\n## Booting (wall only)\n\nFrom the start of the command; the same machine, first from the store, then from a local qcow2.  Cold: store or image are not in\nthe page cache; no list: of what the last boot read.\n\n'
	python3 "$here/table.py" "$results" boot 'locum boot'
fi
