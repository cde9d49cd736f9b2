#!/bin/bash
# Every shell script of the repository passes shellcheck.
. "$(dirname "$0")/lib.sh"

need shellcheck
count=0
while IFS= read -r script; do
	count=$((count + 1))
	shellcheck -x -P "$src/$(dirname "$script")" -P "$src" "$script" || complain "$script"
done < <(tracked '*.sh' 'runtests' 'quickstart' '.ci/run')
[ "$count" -gt 0 ] || complain "no script found"
verdict
