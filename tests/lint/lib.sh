# Sourced by the lint scripts: the arguments, the list of files, the verdict.
# shellcheck shell=bash
set -u -o pipefail
export LC_ALL=C

src=$(cd "${1:?source folder}" && pwd)
# shellcheck disable=SC2034 # for the scripts that look at what was built
build=${2:-}
cd "$src" || exit 1
failures=0

# tracked GLOB...: files of the repository (every file, where this is no clone) that match one.
tracked() {
	if git -c safe.directory='*' rev-parse --git-dir >/dev/null 2>&1; then
		git -c safe.directory='*' ls-files -- "$@"
	else
		local glob
		for glob in "$@"; do
			find . -path './build*' -prune -o -type f -name "${glob##*/}" -print
		done | sed 's,^\./,,'
	fi | while IFS= read -r f; do
		# A file that is being renamed is listed and gone.
		if [ -e "$f" ]; then printf '%s\n' "$f"; fi
	done
}

# complain TEXT...: one finding.
complain() {
	printf '%s\n' "$*"
	failures=$((failures + 1))
}

# skip REASON: cannot be checked here; counted and listed by runtests.
skip() {
	printf 'SKIP: %s\n' "$*"
	exit 77
}

# need PROGRAM
need() {
	command -v "$1" >/dev/null 2>&1 || skip "$1 is not installed"
}

# verdict: the end of every script.
verdict() {
	if [ "$failures" -gt 0 ]; then
		printf '%d finding(s)\n' "$failures"
		exit 1
	fi
	exit 0
}
