#!/bin/bash
# An agent from which its last VM is taken, or its store, lives on, says what it lacks, and goes on when that is there again.
# No guests: the VM is off.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin bereft
at_end() { kill -9 $agent_pid 2>/dev/null; }

echo 'rpo = 2s' >>"$LOCUM_CONFIG"
truncate -s 1M "$t/a.raw"
scenario_vm web01 "disk = vda raw $t/a.raw"
agent_start
status_has '"state": "protected"'

# The one VM that there is.
cp "$LOCUM_CONFIG" "$t/before"
echo 'protect = no' >>"$LOCUM_CONFIG"
kill -HUP "$agent_pid"
status_says 3 '^no VM is protected: neither locum.conf nor libvirt names one$'
grep -q 'no VM is protected: the settings name none' "$t/agent.log" || fail "the log: $(tail -n 3 "$t/agent.log")"
cp "$t/before" "$LOCUM_CONFIG"
kill -HUP "$agent_pid"
status_says 0 '^web01 +protected'

# Its store, between two times that it is open.
LOCUM_FAILPOINT=store.catalog.renamed:1:stop "$bin/locum" store rebuild >"$t/err" 2>&1 &
borrower=$!
stopped $borrower
status_says 3 '^the store is lent to locum store rebuild'
mv "$t/store" "$t/away"
kill -9 $borrower
wait $borrower 2>/dev/null || true
status_says 3 "^no points are made: the store can't be opened: .*$t/store"
{ locum status --json || true; } | has '"store_error": "' || fail "status --json: $(locum status --json)"
mv "$t/away" "$t/store"
status_says 0 '^web01 +protected'

# And while it is open: what is written to files that no name leads to any more is no point.
mv "$t/store" "$t/away"
status_says 3 "^no points are made: the store can't be opened: .*$t/store"
grep -q "store $t/store: it is gone" "$t/agent.log" || fail "the log: $(tail -n 3 "$t/agent.log")"
mv "$t/away" "$t/store"
status_says 0 '^web01 +protected'
kill -TERM "$agent_pid"
wait "$agent_pid" || fail "the agent ended with $?: $(tail -n 3 "$t/agent.log")"
