#!/bin/bash
# codespell over the text that people read.  Words that it takes for slips: codespell-ignore.txt
. "$(dirname "$0")/lib.sh"

need codespell
tracked '*.c' '*.h' '*.sh' '*.md' '*.txt' '*.cmake' '*.conf' '*.1' '*.5' '*.8' 'runtests' 'quickstart' '.ci/run' |
	grep -vE '^tests/(lint/codespell-ignore\.txt|.*corpus/)' |
	xargs -r codespell -I tests/lint/codespell-ignore.txt || complain "see above"
verdict
