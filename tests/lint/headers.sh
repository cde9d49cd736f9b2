#!/bin/bash
# Every header compiles alone, and twice.
. "$(dirname "$0")/lib.sh"

read -ra flags <<<"${LINT_CFLAGS:--std=gnu17 -D_GNU_SOURCE}"
count=0
while IFS= read -r header; do
	count=$((count + 1))
	printf '#include "%s"\n#include "%s"\n' "$header" "$header" |
		"${CC:-cc}" "${flags[@]}" -I. -fsyntax-only -x c - || complain "$header"
done < <(tracked '*.h')
[ "$count" -gt 0 ] || complain "no header found"
verdict
