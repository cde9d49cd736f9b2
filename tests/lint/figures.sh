#!/bin/bash
# What a machine reads is documented: every metric in locum.conf(5), and every member of the status as JSON in locum(1).  A name
# that is there once stays: dashboards and checks are made of them.
. "$(dirname "$0")/lib.sh"

names() { # SED-PROGRAM FILE...
	local program=$1
	shift
	sed -nE "$program" "$@" | sort -u
}
while IFS= read -r metric; do
	grep -q "\.It Li $metric\b" docs/man/locum.conf.5 || complain "docs/man/locum.conf.5: no word of $metric"
done < <(grep -ohE '"locum_[a-z_]+"' agent/report.c replicator/server_metrics.c | tr -d '"' | sort -u)
while IFS= read -r metric; do
	grep -qF "\"$metric\"" agent/report.c replicator/server_metrics.c || complain "docs/man/locum.conf.5: $metric is gone"
done < <(names 's/^\.It Li (locum_[a-z_]+).*/\1/p' docs/man/locum.conf.5)
while IFS= read -r member; do
	sed -n '/^\.Sh STATUS AS JSON/,/^\.Sh ENV/p' docs/man/locum.1 | grep -qE "^\.It (Li|Cm) (.*[ ,])?$member( |,|\$)" ||
		complain "docs/man/locum.1: STATUS AS JSON has no word of $member"
done < <(grep -ohE '\\"[a-z_]+\\": |"[a-z_]+_s"' agent/protect_status.c agent/strangers.c replicator/server_host.c | tr -d '\\": ' | sort -u)
verdict
