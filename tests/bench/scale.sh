#!/bin/bash
# What a store of many chunks costs: makes one without its data (synthetic.h) and measures what works on its catalog.
#
#   scale.sh [--windows N] [--points N] [--changes N] [--dir DIR]
#
#   --windows  of the one disk, each with a chunk (default 16777216: 1 TiB)
#   --points   restore points (default 1000); --changes  windows that each of them changes (default 1000)
#   --dir      where it goes (default TMPDIR): some 250 bytes a window are needed
#
# LOCUM_BIN is the build folder (default build-gcc).  Prints a markdown table; progress goes to stderr.
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/bench/lib.sh
. "$here/lib.sh"
bin=${LOCUM_BIN:-$here/../../build-gcc}/tests/bench/scale
windows=16777216 points=1000 changes=1000 dir=${TMPDIR:-/tmp}
command=("tests/bench/scale.sh" "$@")

options "windows points changes dir" "$@"
[ -x "$bin" ] || die "$bin is not built"

w=$(mktemp -d "$dir/scale.XXXX")
trap 'rm -rf "$w"' EXIT
trap 'exit 130' INT TERM

load() {
	cut -d ' ' -f 1 /proc/loadavg | tee -a "$w/loads"
}

step() {
	printf '%s  load %s  %s\n' "$(date +%T)" "$(load)" "$1" >&2
	"$bin" "$1" "$w/s" >>"$w/results" 2>"$w/err" || {
		cat "$w/err" >&2
		exit 1
	}
}

bytes() { # FOLDER: allocated
	du -s -B1 "$1" | cut -f 1
}

mkdir "$w/s"
printf '%s  load %s  making the store\n' "$(date +%T)" "$(load)" >&2
"$bin" make "$w/s" "$windows" "$points" "$changes"
step rebuild
index=$(bytes "$w/s/store/index")
for name in open map lookup commit sizes drop; do
	step "$name"
done
chunks=$(awk -F '\t' '$1 == "chunks" { print $2 }' "$w/results")
cat <<-END
	    ${command[*]}

	$(sort -n "$w/loads" | sed -n 1p) to $(sort -n "$w/loads" | tail -n 1) was the load on $(nproc) cores, at nice $(nice).
	Index of ids: $(awk "BEGIN { printf \"%.1f\", $index / $chunks }") bytes a chunk.

	| what | wall | CPU | | peak MiB |
	|---|---|---|---|---|
END
# Of a measurement that was made several times, the median by wall.
awk -F '\t' '
	!($1 in n) { order[++names] = $1 }
	{ wall[$1, ++n[$1]] = $2; rest[$1, n[$1]] = $3 " | " $4 " | " $5 }
	END {
		for (k = 1; k <= names; k++) {
			what = order[k]
			for (i = 1; i <= n[what]; i++)
				for (j = i + 1; j <= n[what]; j++)
					if (wall[what, j] + 0 < wall[what, i] + 0) {
						x = wall[what, i]; wall[what, i] = wall[what, j]; wall[what, j] = x
						x = rest[what, i]; rest[what, i] = rest[what, j]; rest[what, j] = x
					}
			mid = int((n[what] + 1) / 2)
			print "| " what " | " wall[what, mid] " | " rest[what, mid] " |"
		}
	}' "$w/results"
