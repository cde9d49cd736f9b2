#!/bin/bash
# Names of failpoints are unique and literal, and every one that a test arms exists.  The QEMU driver has its own in tables
# of steps (QEMU_STEP, QEMU_SENT), which its engine passes.
. "$(dirname "$0")/lib.sh"

names=$(tracked '*.c' | grep -v '^tests/' | xargs -r grep -nHoE '\b(failpoint|QEMU_STEP|QEMU_SENT)\("[^"]*"')
while IFS= read -r name; do
	complain "failpoint \"$name\" stands in more than one place:"$'\n'"$(grep -F "\"$name\"" <<<"$names")"
done < <(grep -oE '"[^"]*"' <<<"$names" | tr -d '"' | sort | uniq -d)
while IFS= read -r name; do
	[[ "$name" =~ ^[a-z][a-z0-9.-]*$ ]] || complain "failpoint \"$name\": want letters, digits, '.' and '-'"
done < <(grep -oE '"[^"]*"' <<<"$names" | tr -d '"')
while IFS= read -r line; do
	[ -z "$line" ] || complain "a failpoint needs a literal name: $line"
done < <(tracked '*.c' | grep -vE '^(tests/|store/base/failpoint\.c|agent/hypervisor/qemu\.c)' |
	xargs -r grep -noHE '\bfailpoint(_hit)?\([^")]*\)' | grep -vE 'failpoint\([a-z]+->(name|sent)\)')
while IFS= read -r name; do
	grep -qF "\"$name\"" <<<"$names" || complain "a test arms \"$name\", which no code has"
done < <(tracked 'tests/**' | grep -vE '^tests/(unit/test_failpoint\.c|lint/|.*\.md$)' |
	xargs -r grep -hoE 'LOCUM_FAILPOINT=["'\'']?[a-z][a-z0-9.-]*:' | sed -E 's/.*=["'\'']?//; s/:$//' | sort -u)
verdict
