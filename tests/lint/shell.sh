#!/bin/bash
# Every shell script of the repository passes shellcheck, and reads its pipes to the end: `| grep -q` and `| head` go away
# early, and under pipefail whoever writes more then fails the pipe, now and then.
. "$(dirname "$0")/lib.sh"

need shellcheck
count=0
while IFS= read -r script; do
	count=$((count + 1))
	shellcheck -x -P "$src/$(dirname "$script")" -P "$src" "$script" || complain "$script"
done < <(tracked '*.sh' 'runtests' 'quickstart' '.ci/run')
early='(^|[^|])\|[[:space:]]*(head|grep -m|grep -[a-zA-Z]*q)\>'
while IFS= read -r line; do
	complain "ends a pipe early (use has of tests/lib/has.sh, or sed -n 1p): $line"
done < <(tracked '*.sh' 'runtests' 'quickstart' '.ci/run' | xargs grep -nHE "$early" |
	grep -vE '# reads no more, on purpose$|tests/lint/shell.sh:')
[ "$count" -gt 0 ] || complain "no script found"
verdict
