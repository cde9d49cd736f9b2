#!/bin/bash
# Every shell script of the repository passes shellcheck, and reads its pipes to the end: `| grep -q` and `| head` go away
# early, and under pipefail whoever writes more then fails the pipe, now and then.
. "$(dirname "$0")/lib.sh"

need shellcheck
check() { # SCRIPT...: names those that do not pass
	local script
	for script in "$@"; do
		shellcheck -x -P "$src/$(dirname "$script")" -P "$src" "$script" >&2 || printf '%s\n' "$script"
	done
}
export -f check
export src
mapfile -t scripts < <(tracked '*.sh' 'runtests' 'quickstart' '.ci/run')
while IFS= read -r script; do
	complain "$script"
done < <(printf '%s\0' "${scripts[@]}" | xargs -0 -n 8 -P "$(nproc)" bash -c 'check "$@"' check)
early='(^|[^|])\|[[:space:]]*(head|grep -m|grep -[a-zA-Z]*q)\>'
while IFS= read -r line; do
	complain "ends a pipe early (use has of tests/lib/has.sh, or sed -n 1p): $line"
done < <(tracked '*.sh' 'runtests' 'quickstart' '.ci/run' | xargs grep -nHE "$early" |
	grep -vE '# reads no more, on purpose$|tests/lint/shell.sh:')
[ ${#scripts[@]} -gt 0 ] || complain "no script found"
verdict
