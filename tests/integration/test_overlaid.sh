#!/bin/bash
# A VM that is off and that only its restore points know, after its image has been another for a time: what lies under an
# external snapshot, or over a base that it was merged into, must never become a point.
set -euo pipefail
# shellcheck source=tests/lib/scenario.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/scenario.sh"
scenario_begin overlaid
# shellcheck source=tests/lib/monitor.sh
. "$src/tests/lib/monitor.sh"

on() { # DISK...
	rm -rf "$t/vm"
	qemu_stands "$@"
}
off() {
	local i
	qmp quit
	for ((i = 0; i < 200; i++)); do
		guest_alive "$t/vm" || return 0
		sleep 0.05
	done
	fail "QEMU does not end"
}
snapshot() { # DEVICE NODE FILE
	qmp blockdev-snapshot-sync "\"node-name\":\"$1\",\"snapshot-node-name\":\"$2\",\"snapshot-file\":\"$3\",\"format\":\"qcow2\""
}
points() { point_ids "$1" | wc -l; }

mkdir "$t/img"
base=$t/img/base.qcow2
qemu-img create -q -f qcow2 "$base" 16M
truncate -s 16M "$t/img/data"
scenario_vm web01 "qmp = $t/vm/qmp"

# Off with nothing between: read, as ever.
on "$base" "$t/img/data"
put vd0 0x11 1M 64k
put vd1 0x12 1M 64k
backup web01 full
put vd0 0x13 2M 64k
off
backup web01 compared
same_as web01 vd0="$base" vd1="$t/img/data"

# An external snapshot of one disk that no point knows of; the VM goes off.
on "$base" "$t/img/data"
backup web01 compared
snapshot disk0 snap0 "$t/img/snap 1"
put vd0 0x21 3M 64k
put vd1 0x22 3M 64k
off
n=$(points web01)
refused 1 "web01: .*vd0.*base.qcow2.*'?$t/img/snap 1'? stands on it" locum backup web01
cat "$t/refused"
[ "$(points web01)" = "$n" ] || fail "a point was made of what lies under a snapshot"
# It would be the same where nothing was written to what lies under it since the last point.
sleep 2.2
refused 1 "snap 1.*stands on it" locum backup web01
echo "the base under an external snapshot: refused"

# Snapshots on each other: the last one is named.  One that another folder holds is not seen, one that stands on another is
# no objection.
qemu-img create -q -f qcow2 -b "$t/img/snap 1" -F qcow2 "$t/img/snap 2"
cp "$t/img/data" "$t/img/other"
qemu-img create -q -f qcow2 -b other -F raw "$t/img/of-another"
refused 1 "snap 2.*stands on it" locum backup web01
rm "$t/img/snap 2"

# Run from the snapshot and backed up then, it is read offline as what it is.
on "$base" "$t/img/data"
off
mv "$t/img/snap 1" "$t/img/snap.qcow2"
on "$t/img/snap.qcow2" "$t/img/data"
backup web01 compared
put vd0 0x31 4M 64k
off
backup web01 compared
same_as web01 vd0="$t/img/snap.qcow2" vd1="$t/img/data"

# Merged into the base, which it runs from then; the VM goes off.  What was left behind still is an image that stands on it.
on "$t/img/snap.qcow2" "$t/img/data"
backup web01 compared
qmp block-commit '"device":"disk0","job-id":"c"'
answers query-jobs '"ready"'
qmp job-complete '"id":"c"'
answers query-jobs '"return": *\[\]'
put vd0 0x41 5M 64k
off
refused 1 "web01: .*vd0.*snap.qcow2 is not what it was: .*base.qcow2, which it stands on, is newer" locum backup web01
echo "what was merged into its base: refused"

# Who knows says which images it has.
cat >>"$LOCUM_CONFIG" <<-END
	disk = vd0 qcow2 $base
	disk = vd1 raw $t/img/data
END
backup web01 compared
rm "$t/img/snap.qcow2"
same_as web01 vd0="$base" vd1="$t/img/data"

# They are not believed where the newest point knows better.
on "$base" "$t/img/data"
snapshot disk0 snap3 "$t/img/snap3.qcow2"
snapshot snap3 snap4 "$t/img/snap4.qcow2"
put vd0 0x51 6M 64k
backup web01 compared
off
refused 1 "web01: .*vd0.*locum.conf names $base.*ran from $t/img/snap4.qcow2, which stands on it" locum backup web01
cat "$t/refused"
sed -i "s|qcow2 $base|qcow2 $t/img/snap4.qcow2|" "$LOCUM_CONFIG"
backup web01 compared
same_as web01 vd0="$t/img/snap4.qcow2" vd1="$t/img/data"
# Moved elsewhere, what it ran from is another image, and no objection.
qemu-img convert -O qcow2 "$t/img/snap4.qcow2" "$t/img/merged.qcow2"
sed -i "s|qcow2 $t/img/snap4.qcow2|qcow2 $t/img/merged.qcow2|" "$LOCUM_CONFIG"
backup web01 compared
same_as web01 vd0="$t/img/merged.qcow2" vd1="$t/img/data"
echo "settings that are older than the newest point: refused"
locum verify --all --quiet || fail "verify"
