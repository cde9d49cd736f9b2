#!/bin/bash
# Does seqcheck find what it must find?  test-seqcheck.sh [OUT]
#
# Makes images by running seqw on plain files, damages them in every way that a
# wrong restore point could, and expects the right verdict each time.  A judge
# that passes everything would make all other tests worthless.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/lib/has.sh
. "$here/../lib/has.sh"
out=${1:-${GUEST_OUT:-${TMPDIR:-/tmp}/locum-guest/out}}
rc=0
"$here/build-guest.sh" "$out" || rc=$?
[ "$rc" != 77 ] || echo 'SKIP: the guest cannot be built here, see above'
[ "$rc" = 0 ] || exit "$rc"

dir=$(mktemp -d "${TMPDIR:-/tmp}/seqcheck.XXXXXX")
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cases=0 failed=0

seqw() {
	"$out/seqw" --quiet "$@" >seqw.log 2>&1 || {
		cat seqw.log >&2
		echo "test-seqcheck: seqw $* failed" >&2
		exit 1
	}
}

# expect NAME STATUS TEXT ARGUMENTS...: seqcheck must end with STATUS and say TEXT.
expect() {
	local name=$1 status=$2 text=$3 rc=0
	shift 3
	"$out/seqcheck" "$@" >said 2>&1 || rc=$?
	cases=$((cases + 1))
	if [ "$rc" != "$status" ] || ! grep -qE -- "$text" said; then
		failed=$((failed + 1))
		echo "FAIL $name: exit $rc instead of $status, or no '$text' in:"
		sed 's/^/    /' said
	elif [ "${V:-0}" = 1 ]; then
		echo "ok $name: $(head -n 1 said)"
	fi
}

copy() { # copy FROM TO: both disks
	cp --sparse=always "$1"0 "$2"0
	cp --sparse=always "$1"1 "$2"1
}

# put_record FILE SLOT [FROM]: the record of that slot from another image, or zeros.
put_record() {
	dd if="${3:-/dev/zero}" of="$1" bs=4096 count=1 seek=$((256 + $2)) \
		skip=$((${3:+256 + $2} + 0)) conv=notrunc status=none
}

# --- nothing wrong

truncate -s 32M empty0 empty1
expect 'no record at all' 1 'no sequence' empty0 empty1
seqw --count 1 --create 32 a0 a1
expect 'only number 0' 0 'newest 0, checked 1 records, ok' a0 a1
seqw --count 2 a0 a1
expect 'odd number of records' 0 'newest 2, checked 3 records, ok' a0 a1
seqw --count 197 --load 20000 --seed 7 a0 a1
expect 'first round, with load' 0 'newest 199, checked 200 records, ok' a0 a1
copy a early
# More than 2048 numbers: every slot was written twice.
seqw --count 2900 --load 20000 --seed 8 a0 a1
expect 'the ring has wrapped' 0 'newest 3099, checked 2048 records, ok' a0 a1
expect 'the load is checked' 0 '[1-9][0-9]* flushed random writes, [1-9]' a0 a1
expect 'and strictly' 0 '[1-9][0-9]* complete random writes, [1-9]' --strict a0 a1
expect 'the load can be left out' 0 'newest 3099' --no-load a0 a1
expect 'json' 0 '"ok":true.*"newest":3099,' --json a0 a1
copy a good
seqw --count 1 --create 32 one0
expect 'one disk' 0 'newest 0' one0
seqw --count 500 --create 32 t0 t1 t2
expect 'three disks' 0 'newest 499, checked 500 records' t0 t1 t2

# --- (a) different instants

# The newest number, 3099, is on disk 1.  What one disk may be ahead and still be
# the same instant is its own next number: 3100 on disk 0, none on disk 1.
for more in 2 3 20 2500; do
	copy good later
	seqw --count $more later0 later1
	expect "disk 1 is $more numbers later" 1 'stale: number' good0 later1
	[ $more -lt 3 ] || expect "disk 0 is $more numbers later" 1 'stale: number' later0 good1
done
expect 'the text names the cause' 1 'ends at [0-9]+, the newest is .*different instants' good0 later1
expect 'json of a gap' 1 '"kind":"stale".*"ok":false' --json good0 later1
copy good later
seqw --count 1 later0 later1
expect 'the next number alone is the same instant' 0 'newest 3100' later0 good1
cp --sparse=always early0 first0
cp --sparse=always empty1 first1
expect 'one disk has nothing at all' 1 'missing: number .* disk 1' first0 first1

# --- (b) torn records

copy good x
# Number 3000 is on disk 0, slot 1500 % 1024 = 476; number 952 was there before.
seqw --count 953 --create 32 old0 old1
dd if=old0 of=x0 bs=512 count=3 skip=$(((256 + 476) * 8 + 5)) seek=$(((256 + 476) * 8 + 5)) \
	conv=notrunc status=none
expect 'torn: three sectors of the record before' 1 'torn: number 3000 disk 0 slot 476' x0 x1
copy good x
dd if=old0 of=x0 bs=512 count=1 skip=$(((256 + 476) * 8)) seek=$(((256 + 476) * 8)) \
	conv=notrunc status=none
expect 'torn: the first sector is old' 1 'torn: number 3000 disk 0 slot 476' x0 x1
copy good x
dd if=/dev/zero of=x1 bs=512 count=1 seek=$(((256 + 10) * 8 + 7)) conv=notrunc status=none
expect 'torn: the last sector is zero' 1 'torn: number [0-9]+ disk 1 slot 10 *' x0 x1
copy good x
byte=$(od -An -tu1 -j $(((256 + 77) * 4096 + 2000)) -N 1 x0 | tr -d ' ')
# shellcheck disable=SC2059
printf "\\x$(printf %02x $((byte ^ 1)))" |
	dd of=x0 bs=1 seek=$(((256 + 77) * 4096 + 2000)) conv=notrunc status=none
expect 'torn: a single bit' 1 'torn: number [0-9]+ disk 0 slot 77' x0 x1
copy early x
printf 'garbage' | dd of=x0 bs=1 seek=$(((256 + 500) * 4096)) conv=notrunc status=none
expect 'torn: in a slot not used yet' 1 'torn: number 1000 disk 0 slot 500' x0 x1

# --- (c) missing, stale and foreign records

copy good x
put_record x1 3
expect 'missing: one record is zero' 1 'missing: number [0-9]+ disk 1 slot 3' x0 x1
copy good x
put_record x0 476 old0
expect 'stale: one record is a round older' 1 'stale: number 3000 disk 0 slot 476 .holds 952' x0 x1
copy good x
dd if=x0 of=x0 bs=4096 count=1 skip=$((256 + 5)) seek=$((256 + 6)) conv=notrunc status=none
expect 'foreign: a record in the wrong slot' 1 'foreign: number [0-9]+ disk 0 slot 6' x0 x1
expect 'the disks are swapped' 1 'disk 0 .good1. holds disk 1 of 2' good1 good0
expect 'a disk is left out' 1 'disk 0 .good0. holds disk 0 of 2' good0

# --- two histories with the same numbers

copy good b
seqw --count 40 b0 b1
copy good c
seqw --count 40 c0 c1
expect 'history b' 0 'newest 3139' b0 b1
expect 'history c' 0 'newest 3139' c0 c1
expect 'disk 0 of b, disk 1 of c' 1 'chain: number 3101 disk 1' b0 c1

# --- the random writes

# lost FILE ARGUMENTS...: offsets that seqcheck misses on disk 1, into FILE.
lost() {
	local file=$1
	shift
	{ "$out/seqcheck" --show 100000 "$@" || true; } |
		sed -n 's/^seqcheck: load-missing: disk 1 offset \([0-9]*\) .*/\1/p' | sort >"$file"
}
# So much load and so slow a sequence that some 40 writes lie between two numbers.
copy good l
seqw --count 20 --load 60000 --delay-us 20000 l0 l1
expect 'load: all is well' 0 'complete random writes' --strict l0 l1
copy l x
truncate -s 16M x1
truncate -s 32M x1
expect 'load: all writes of a disk are gone' 1 'load-missing: disk 1' x0 x1
lost flushed x0 x1
lost complete --strict x0 x1
at=$(head -n 1 flushed)
at_end=$(comm -13 flushed complete | sed -n 1p)
[ -z "$(comm -23 flushed complete)" ] || {
	failed=$((failed + 1))
	echo 'FAIL a flushed write is not a complete one'
}
copy l x
dd if=/dev/zero of=x1 bs=4096 count=1 seek=$((at / 4096)) conv=notrunc status=none
expect 'load: one page is zero' 1 "load-missing: disk 1 offset $at" x0 x1
expect 'load: one page is zero, strictly' 1 "load-missing: disk 1 offset $at" --strict x0 x1
expect 'load: left out, it is not seen' 0 'ok' --no-load x0 x1
copy l x
dd if=/dev/zero of=x1 bs=4096 count=1 seek=$((at_end / 4096)) conv=notrunc status=none
expect 'load: a page not flushed is zero' 0 'flushed random writes' x0 x1
expect 'load: the same, strictly' 1 "load-missing: disk 1 offset $at_end" --strict x0 x1
copy l x
dd if=/dev/zero of=x1 bs=512 count=1 seek=$((at / 512 + 4)) conv=notrunc status=none
expect 'load: one sector is zero' 1 "load-torn: disk 1 offset $at" x0 x1
copy l x
dd if=l1 of=x1 bs=4096 count=1 skip=$((at / 4096)) seek=$((at / 4096 + 1)) conv=notrunc status=none
expect 'load: a page in the wrong place' 1 'load-foreign: disk 1' x0 x1
# The ring of now, the random area of before.
copy l x
dd if=early1 of=x1 bs=1M skip=16 seek=16 conv=notrunc status=none
expect 'load: the random area is older' 1 'load-(missing|stale): disk 1' x0 x1
# The ring of before, the random area of now.
copy l later
seqw --count 60 --load 20000 --delay-us 1000 later0 later1
copy l x
dd if=later1 of=x1 bs=1M skip=16 seek=16 conv=notrunc status=none
expect 'load: the random area is newer' 1 'load-future: disk 1' x0 x1

# --- going on

seqw --count 100 --create 32 n0 n1
seqw --count 100 --create 32 n0 n1 n2
expect 'a third disk was added' 0 'newest 199, checked 100 records, ok' n0 n1 n2
seqw --count 3000 n0 n1 n2
expect 'and all three have wrapped' 0 'newest 3199, checked 3072 records, ok' n0 n1 n2
"$out/seqw" --quiet --create 32 --load 20000 k0 k1 >seqw.log 2>&1 &
pid=$!
# Killed at a place that the number of records says is in the middle of things.
for _ in $(seq 2000); do
	if [ -e k1 ] && "$out/seqcheck" --no-load k0 k1 2>/dev/null | has 'newest [0-9][0-9]'; then
		break
	fi
	sleep 0.02
done
kill -9 "$pid"
wait "$pid" 2>/dev/null || true
expect 'the writer was killed' 0 'records, ok' --strict k0 k1
rc=0
"$out/seqw" --quiet --count 1 good1 good0 >seqw.log 2>&1 || rc=$?
cases=$((cases + 1))
if [ "$rc" != 1 ] || ! grep -q 'SEQ WRONG-DISK disk=0 name=good1 holds=1' seqw.log; then
	failed=$((failed + 1))
	echo "FAIL seqw must not write on swapped disks: exit $rc"
	sed 's/^/    /' seqw.log
fi

# --- not images at all

printf 'QFI\xfb' >q0
truncate -s 32M q0
expect 'qcow2' 2 'this is qcow2' q0 good1
truncate -s 1M short
expect 'too short' 2 'too short' short good1
expect 'not there' 2 'No such file' nowhere good1
expect 'no argument' 2 'usage'

[ "$failed" = 0 ] || {
	echo "test-seqcheck: $failed of $cases cases failed"
	exit 1
}
echo "test-seqcheck: $cases cases, ok"
