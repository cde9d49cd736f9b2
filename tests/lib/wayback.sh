#!/bin/bash
# Sourced after scenario.sh: a VM of this host's that is at the other site for a time.  The host's replica is in $t/dr, and what
# runs there sends home to a replica in $t/back.
#
# at_dr VERB...      locum there, with $t/dr.conf
# dr_conf            writes that, without the VM
# bytes_at_dr        of what this host has sent there
# home_start         the replica at home, until it listens at $home; $home_pid
# shellcheck disable=SC2154 # bin and t are of scenario.sh

at_dr() { LOCUM_CONFIG=$t/dr.conf "$bin/locum" "$@"; }
bytes_at_dr() { du -sb "$t"/dr/stores/*/segments | cut -f 1; }

dr_conf() {
	cat >"$t/dr.conf" <<-EOF
		[locum]
		store = $t/backup/store
		key_dir = $t/backup/keys
		run_dir = $t/dr-run
		scratch_dir = $t/dr-scratch
	EOF
}

home_pid='' home=''
home_start() {
	local i
	"$bin/locum" replica --dir "$t/back" --listen 127.0.0.1:0 >>"$t/back.log" 2>&1 &
	# shellcheck disable=SC2034 # for who sources this
	home_pid=$!
	for ((i = 0; i < 200; i++)); do
		home=127.0.0.1:$(sed -nE 's/.* listens on port ([0-9]+);.*/\1/p' "$t/back.log")
		[ "$home" = 127.0.0.1: ] || return 0
		sleep 0.05
	done
	fail "the replica at home does not listen: $(tail -n 3 "$t/back.log")"
}
