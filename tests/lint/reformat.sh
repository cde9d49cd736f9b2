#!/bin/bash
# Not a test: lays files out as the format test wants them, comments over 100 columns broken too.
# Run as: tests/lint/reformat.sh FILE...
# Look at what it did: tables and diagrams in comments that were too wide come out as prose.
set -eu

cd "$(dirname "$0")/../.."
clang_format=$(command -v clang-format-14 || command -v clang-format)
style=$(mktemp)
trap 'rm -f "$style"' EXIT
sed 's/^ReflowComments:.*/ReflowComments: true/' .clang-format >"$style"
for file in "$@"; do
	case $file in
	*.[ch]) ;;
	*) continue ;; # it would take a script for C
	esac
	# Only where it must: reflowing takes hand-made line breaks away.
	if expand "$file" | LC_ALL=C.UTF-8 grep -qE '^.{101}'; then
		"$clang_format" -i --style="file:$style" "$file"
	fi
	"$clang_format" -i "$file"
done
