#!/bin/bash
# shellcheck disable=SC2015,SC2034,SC2154
# A glance at a VM with a real QEMU: it tells that nothing is different since it was looked at in full, and whatever
# somebody does in between it tells, too.
. "$(dirname "$0")/hv_lib.sh"

# Commands for hv_cycle's sh=.
tell() { # JSON...
	printf "$SOCKLINE --qmp $DIR/qmp2 '%s' >/dev/null; " "$@"
}
io() { # DISK COMMAND OF QEMU-IO
	tell "{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"qemu-io ${IO[$1]} \\\"$2\\\"\"}}"
}

# The firmware drives vd0 without a write cache, and QEMU tells that with the disk: wait until it was there.
booted() {
	for _ in $(seq 100); do
		qmp '{"execute":"query-block"}' |
			jq -e 'any(.return[]; (.qdev | contains("vd0")) and (.inserted.cache.writeback | not))' \
				>/dev/null && return
		sleep 0.1
	done
	fail "the firmware has not found its disk"
}

# What a glance says after a command.  A full look right after it must go well.
glance() { # same|different NAME COMMAND
	must --debug prepare note again sh="$3" glance prepare
	grep -qx 'note vm0 yes' "$DIR/log" || fail "$2: not noted: $(cat "$DIR/log")"
	grep -qx "glance vm0 $1" "$DIR/log" || fail "$2: want $1: $(cat "$DIR/log")"
	alive || verdict
}

for mode in top drive iothread mixed blockdev; do
	start $mode
	booted
	put vd0 11 0 256
	must --push-full prepare take=one valid release end=commit
	glance same "$mode" true
	glance different "$mode: the first disk is written to" "$(io vd0 'write -P 17 0 64k')"
	glance different "$mode: the second disk is written to" "$(io sd1 'write -P 17 1M 512')"
	must --push-full prepare take=two,one valid release end=commit
	glance same "$mode: after an incremental one" true
	glance different "$mode: stopped" "$(tell '{"execute":"stop"}')"
	glance same "$mode: stands still" true
	glance different "$mode: let go" "$(tell '{"execute":"cont"}')"
	[ $mode = blockdev ] || stop
done

# Killed at a glance: the guest goes on, nothing of ours is left, and the next full look goes well.
(LOCUM_FAILPOINT=hv.glance:1:kill cycle prepare note again glance) >/dev/null 2>&1 && fail "a glance does not pass hv.glance"
alive || verdict
clean "killed at a glance"
glance same "after that" true
# And one that fails is told as such.
rc=0
(LOCUM_FAILPOINT=hv.glance:1:eio cycle prepare note again glance) >/dev/null 2>&1 || rc=$?
[ "$rc" = 1 ] || fail "a glance failed, and the exit status is $rc"
clean "a glance failed"
glance same "after that failure" true

# What changes nothing.
glance same "read" "$(io vd0 'read 0 1M')"
glance same "stopped and let go" "$(tell '{"execute":"stop"}' '{"execute":"cont"}')"
glance same "asked by others" "$(tell '{"execute":"query-block"}' '{"execute":"query-cpu-definitions"}')"
must prepare note again glance again glance again glance
[ "$(grep -cx 'glance vm0 same' "$DIR/log")" = 3 ] || fail "three glances: $(cat "$DIR/log")"
must glance
grep -qx 'glance vm0 different' "$DIR/log" || fail "nothing was noted, and it is the same: $(cat "$DIR/log")"
must prepare note prepare again glance
grep -qx 'glance vm0 different' "$DIR/log" || fail "what was noted counts after another look: $(cat "$DIR/log")"

# What others do, without a byte of the guest's.
record=$(bitmaps | awk '$1 == "n0" { print $1 }')
[ -n "$record" ] || fail "no record of changes on n0: $(bitmaps)"
name=$(qmp '{"execute":"query-named-block-nodes","arguments":{"flat":true}}' |
	jq -r '.return[] | select(."node-name" == "n0") | ."dirty-bitmaps"[].name')
on_record="\"arguments\":{\"node\":\"n0\",\"name\":\"$name\"}"
glance different "a record of others" \
	"$(tell '{"execute":"block-dirty-bitmap-add","arguments":{"node":"n0","name":"theirs"}}')"
glance different "our record is stopped" "$(tell "{\"execute\":\"block-dirty-bitmap-disable\",$on_record}")"
glance different "our record goes on" "$(tell "{\"execute\":\"block-dirty-bitmap-enable\",$on_record}")"
glance different "our record is removed" "$(tell "{\"execute\":\"block-dirty-bitmap-remove\",$on_record}")"
glance different "resize" "$(tell '{"execute":"block_resize","arguments":{"node-name":"n0","size":33554432}}')"
glance different "a node" \
	"$(tell '{"execute":"blockdev-add","arguments":{"driver":"null-co","node-name":"x","size":1048576,"read-zeroes":true}}')"
glance different "a disk is plugged in" \
	"$(tell '{"execute":"device_add","arguments":{"driver":"scsi-hd","id":"sd9","drive":"x","bus":"scsi.0","serial":"one"}}')"
glance different "the same disk with another serial number" \
	"$(tell '{"execute":"device_del","arguments":{"id":"sd9"}}'; echo sleep 0.3\;
		tell '{"execute":"device_add","arguments":{"driver":"scsi-hd","id":"sd9","drive":"x","bus":"scsi.0","serial":"two"}}')"
glance different "boot order" \
	"$(tell '{"execute":"qom-set","arguments":{"path":"/machine/peripheral/vd0","property":"bootindex","value":3}}')"
glance different "a disk is unplugged" "$(tell '{"execute":"device_del","arguments":{"id":"sd9"}}'; echo sleep 0.3)"
qmp "{\"execute\":\"blockdev-snapshot-sync\",\"arguments\":{\"node-name\":\"n1\",\"snapshot-file\":\"$DIR/over.qcow2\",\"snapshot-node-name\":\"before\",\"mode\":\"absolute-paths\"}}" >/dev/null
glance different "an external snapshot" \
	"$(tell "{\"execute\":\"blockdev-snapshot-sync\",\"arguments\":{\"node-name\":\"before\",\"snapshot-file\":\"$DIR/over2.qcow2\",\"snapshot-node-name\":\"over\"}}")"
glance different "a job" \
	"$(tell "{\"execute\":\"drive-mirror\",\"arguments\":{\"job-id\":\"j\",\"device\":\"n0\",\"target\":\"$DIR/mirror.raw\",\"format\":\"raw\",\"sync\":\"full\",\"speed\":1024}}")"
qmp '{"execute":"block-job-cancel","arguments":{"device":"j","force":true}}' >/dev/null
no_jobs

# What had to be tidied up is not noted: what was asked before that is not what there is.
qmp '{"execute":"blockdev-add","arguments":{"driver":"null-co","node-name":"locum.00c0ffee.s0","size":1048576}}' >/dev/null
must prepare note again glance
grep -qx 'note vm0 no' "$DIR/log" && grep -qx 'glance vm0 different' "$DIR/log" ||
	fail "a look that tidied up was noted: $(cat "$DIR/log")"
glance same "after tidying up" true

# It is gone, and says so as a full look does.
cycle prepare note again sh="kill -9 $VM; sleep 0.2" '!glance' || fail "a dead VM: $(cat "$DIR/log")"
wait "$VM" 2>/dev/null

# The guest's clock goes on; what a definition says of it stays.
export TZ=Asia/Tokyo
start blockdev -rtc base=localtime
booted
glance same "clock" "sleep 1.1"
hour=$(printf '%02d' $(((10#$(date +%H) + 12) % 24)))
port() { # ADDRESS VALUE
	tell "{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"o /b $1 $2\"}}"
}
glance different "the guest sets its clock" "$(port 0x70 4) $(port 0x71 "0x$hour")"
glance same "the clock that was set" "sleep 1.1"
stop
verdict
