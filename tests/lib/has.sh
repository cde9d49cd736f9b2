#!/bin/bash
# has [GREP OPTION...] REGEX: whether standard input has it.  At the end of a pipe, where grep -q would stop reading:
# whoever writes more after that dies of it, and under pipefail the whole pipe has failed, now and then.
has() {
	[ "$(grep -c "$@")" -gt 0 ]
}
