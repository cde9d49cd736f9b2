#!/bin/bash
# The layout that .clang-format says, and comments of at most 100 columns (it does not reflow them).
# Mend with: tests/lint/reformat.sh FILE...
. "$(dirname "$0")/lib.sh"

# Another version lays out otherwise: no verdict is better than a wrong one.
clang_format=$(command -v clang-format-14 || command -v clang-format) || skip "clang-format 14 is not installed"
[[ "$("$clang_format" --version)" == *'version 14.'* ]] || skip "clang-format is not version 14"
# shellcheck disable=SC2016 # "$0" and "$1" are for the inner shell
while IFS= read -r file; do
	complain "$file: tests/lint/reformat.sh $file"
done < <(tracked '*.c' '*.h' | xargs -r -P "$(nproc)" -n 1 sh -c \
	'"$0" --dry-run -Werror "$1" >/dev/null 2>&1 || echo "$1"' "$clang_format" | sort)
while IFS= read -r file; do
	while IFS= read -r line; do
		complain "$file:$line: comment over 100 columns"
	done < <(expand "$file" | LC_ALL=C.UTF-8 grep -nE '^.{101}' | grep -E '^[0-9]+: *\*|/\*|//' | cut -d: -f1)
done < <(tracked '*.c' '*.h')
verdict
