#!/bin/bash
# clang-tidy (profile: .clang-tidy) over the product, from the compilation database of the build.
. "$(dirname "$0")/lib.sh"

need clang-tidy
[ -e "$build/compile_commands.json" ] || skip "no compile_commands.json"
while IFS= read -r file; do
	# A file that is not built here (yet) has no flags.
	grep -qF "$src/$file\"" "$build/compile_commands.json" && printf '%s\n' "$file"
done < <(tracked '*.c' | grep -v '^tests/') |
	xargs -r -P "$(nproc)" -n 1 clang-tidy --quiet -p "$build" 2>/dev/null || complain "see above"
verdict
