#!/bin/bash
# Nothing is left for later without an issue that says so.
. "$(dirname "$0")/lib.sh"

while IFS= read -r line; do
	[ -z "$line" ] || complain "$line"
done < <(tracked '*.c' '*.h' '*.sh' '*.txt' '*.cmake' '*.md' 'runtests' 'quickstart' '.ci/run' |
	grep -v '^tests/lint/todos\.sh$' |
	xargs -r grep -nHE '\b(TODO|FIXME|XXX|HACK)\b' | grep -vE '\b(TODO|FIXME|XXX|HACK)\b[^a-z]*#[0-9]+')
verdict
