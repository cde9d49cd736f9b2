#!/bin/bash
# `locum status` at three in the morning: in each state it says what is wrong and what to type next, on both sides, whoever
# wrote the state.  No guests, no daemons: only what they leave for it to read.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin status

run=$(sed -nE 's/^run_dir = //p' "$LOCUM_CONFIG")
now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
mkdir -p "$run"
agent() { # VMS REPLICAS [MORE]
	printf '{"role": "agent", "pid": %d, "time": "%s", "store": "/s", "bandwidth_bytes": 0, "vms": [%s], "replicas": [%s]%s}\n' \
		$$ "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$1" "$2" "${3:-}" >"$run/agent.json"
}
vm() { # NAME STATE [ERROR]
	printf '{"vm": "%s", "state": "%s", "goal_s": 5, "lag_s": 9, "worst_lag_s": 9, "time": "%s", "error": %s}' "$1" "$2" "$now" "${3:-null}"
}
site() { # UP QUOTA USED [ERROR [DAMAGE]]
	printf '{"name": "dr", "address": "dr:7227", "up": %s, "has_all": true, "sent_bytes": 1, "quota_bytes": %s, "quota_used_bytes": %s, "clock_ahead_s": 0, "lost_points": null, "error": %s, "damage": %s}' \
		"$1" "$2" "$3" "${4:-null}" "${5:-null}"
}
says() { # STATUS PATTERN...
	local want=$1 rc=0 pattern
	shift
	locum status >"$t/out" 2>&1 || rc=$?
	[ $rc = "$want" ] || fail "status ends with $rc, not with $want: $(cat "$t/out")"
	for pattern in "$@"; do
		grep -qE -- "$pattern" "$t/out" || fail "no '$pattern' in: $(cat "$t/out")"
	done
}

agent "$(vm web01 protected)" "$(site true 0 0)"
says 0 '^web01 +protected' '^dr +dr:7227 +up +yes'
! grep -q -- '->' "$t/out" || fail "all is well, and something is to do: $(cat "$t/out")"
agent '' "$(site true 0 0)"
says 3 '^no VM is protected: neither locum.conf nor libvirt names one$' '-> a section .vm NAME. each, then systemctl reload locum-agent'
agent "$(vm web01 failing '"scratch full"')" "$(site true 0 0)"
says 3 '^    scratch full$' '-> locum doctor web01$'
agent "$(vm web01 late)" "$(site false 0 0 '"connecting: connection refused"')"
says 3 '-> its points wait here for the replica that is DOWN' 'connection refused' '-> .*there: locum status, systemctl status locum-replica'
agent "$(vm web01 late)" "$(site true 0 0)"
says 3 '-> its points come too seldom, or go too slowly: .*bandwidth'
agent "$(vm web01 beginning)" "$(site true 0 0)"
says 3 '-> its first point is being made or sent'
agent "$(vm web01 protected)" "$(site true 1000 899)"
says 0 '899 B used of the 1000 B'
! grep -q 'nearly full' "$t/out" || fail "89%% is not near: $(cat "$t/out")"
agent "$(vm web01 protected)" "$(site true 1000 905)"
says 0 '-> nearly full: there, locum replica limit HOST --max SIZE'
agent "$(vm web01 late)" "$(site true 1000 1000 '"the replica refused it: what this host may keep at the replica is used up"')"
says 3 '-> see what is wrong with the replica, below' 'is used up$' '-> full, no more points are taken: there, locum replica limit'
agent "$(vm web01 protected)" "$(site false 0 0 '"the replica refused it: host host-a was revoked at this replica"')"
says 3 '-> it lets this host in no more, .*locum token there and locum pair here'
! grep -q 'when it is back' "$t/out" || fail "it does not come back by itself: $(cat "$t/out")"
agent "$(vm web01 late)" "$(site false 0 0 '"keys/dr.replica: address or key is missing"' | sed 's/"up": false/"known": false, &/')"
says 3 '^    keys/dr.replica: address or key is missing$' '-> points wait here; mend that file .*locum pair TOKEN --name dr '
! grep -q 'when it is back' "$t/out" || fail "it does not come back by itself: $(cat "$t/out")"
agent "$(vm web01 protected)" "$(site true 0 0 null '"2 contents are damaged there"')"
says 3 '^    2 contents are damaged there$' '-> it is asked again now and then; there: locum scrub names the points'
agent "$(vm web01 waiting)" "$(site false 0 0)" ', "spool": {"bytes": 10, "max_bytes": 10, "spent": true, "dropped_bytes": 0, "error": null}'
says 3 '-> see the spool, below' 'SPENT' '-> changes collect in the VMs meanwhile'
agent "$(vm web01 protected)" '' ', "unprotected": ["web02", "db"]'
says 3 'nothing protects them: web02 db$' '-> locum doctor says what to write' 'no replica: all of it burns with this host \(locum pair\)'
agent "$(vm web01 protected)" '' ', "unprotected": []'
says 0 'no replica: all of it burns with this host'
printf '{"role": "agent", "pid": %d, "time": "%s", "lent": "locum store rebuild"}\n' $$ "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$run/agent.json"
says 3 'lent to locum store rebuild: no points are made until it is done'
printf '{"role": "agent", "pid": %d, "time": "2026-01-01T00:00:00Z", "vms": [], "replicas": []}\n' $$ >"$run/agent.json"
says 1 'said nothing since 2026-01-01.*systemctl restart locum-agent'
printf '{"role": "agent", "pid": %d, "time": "2126-01-01T00:00:00Z", "vms": [], "replicas": []}\n' $$ >"$run/agent.json"
says 1 'said nothing since 2126-01-01.*, by a clock that was set back: .*systemctl restart locum-agent'
rm "$run/agent.json"
says 1 'no agent runs on this host'

# At a replica.
mkdir "$t/dr"
host() { # CONNECTED STORED QUOTA NAME-OF-VM-OR-NOTHING [ERROR]
	printf '{"name": "host-a", "fingerprint": "x", "connected": %s, "since": "%s", "received_bytes": 1, "points": 3, "refused": 0, "stored_bytes": %s, "quota_bytes": %s, "error": %s, "vms": [{"vm": "00112233445566778899aabbccddeeff", %s"time": "%s", "age_s": 7, "points": 3}]}' \
		"$1" "$now" "$2" "$3" "${5:-null}" "${4:+\"name\": \"$4\", }" "$now"
}
replica() { # HOSTS
	printf '{"role": "replica", "pid": %d, "time": "%s", "dir": "%s", "fingerprint": "f", "port": 1, "hosts": [%s]}\n' \
		$$ "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$t/dr" "$1" >"$t/dr/replica.json"
}
says_there() {
	local want=$1 rc=0 pattern
	shift
	locum status --dir "$t/dr" >"$t/out" 2>&1 || rc=$?
	[ $rc = "$want" ] || fail "status there ends with $rc, not with $want: $(cat "$t/out")"
	for pattern in "$@"; do
		grep -qE -- "$pattern" "$t/out" || fail "no '$pattern' in: $(cat "$t/out")"
	done
}
says_there 1 'no replica runs in .*locum replica --dir'
# What is to be typed can be typed.
refused 1 "locum replica --dir '$t/d r'\\)" locum status --dir "$t/d r"
locum store init --store "$t/my store" --kit "$t/it's" >"$t/out" || fail "store init"
grep -qF "locum key check --store '$t/my store' --recovery-code-file COPY" "$t/out" || fail "store init: $(cat "$t/out")"
grep -qF "shred -u '$t/it'\\''s'" "$t/out" || fail "store init: $(cat "$t/out")"
replica ''
says_there 0 'no host is paired \(locum token\)'
replica "$(host true 5 0)"
says_there 0 'host-a +connected' 'VM 00112233 ' 'locum unlock HOST asks for the code'
replica "$(host true 5 0 web01)"
says_there 0 'VM web01 '
! grep -q unlock "$t/out" || fail "it is unlocked: $(cat "$t/out")"
replica "$(host false 5 0)"
says_there 3 'host-a +AWAY' '-> there: locum status, systemctl status locum-agent'
# One that sends by cron is idle in between, as long as it comes when it should.
by_cron() { # LATE [ERROR]
	host false 5 0 '' "${2:-null}" | sed "s/\"connected\": false/&, \"by_command\": true, \"late\": $1, \"came\": \"2026-01-02T03:04:05Z\", \"comes_each_s\": 86400/"
}
replica "$(by_cron false)"
says_there 0 'host-a +idle' 'it sends by cron, and did last at 2026-01-02T03:04:05Z; from one time to the next: 24 h'
! grep -q -- '-> there' "$t/out" || fail "it is as it should be, and something is to do: $(cat "$t/out")"
replica "$(by_cron true)"
says_there 3 'host-a +LATE' 'it sends by cron' '-> there: what does cron say'
replica "$(by_cron false '"the disk is full"')"
says_there 3 'host-a +idle' 'the disk is full'
replica "$(host false 5 0 '' '"host host-a was revoked at this replica"')"
says_there 0 'host-a +REVOKED' '-> its store stays; with a new token'
replica "$(host false null null)"
says_there 3 'host-a +AWAY +[^ ]+ +1 B +- +3$'
replica "$(host true 95 100)"
says_there 0 '100 B is all that it may have here' '-> nearly full: locum replica limit host-a --max'
# A port that is none is not taken for another one.
for bad in '*:72277' '*7227' '*:'; do
	refused 2 'is no address such as' timeout 10 "$bin/locum" replica --dir "$t/listen" --listen "$bad"
done
echo "every state has its next step"
