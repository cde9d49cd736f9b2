#!/bin/bash
# Sourced after scenario.sh: the monitor of a VM in $t/$vm, and writes through it.
#
# qmp COMMAND [ARGUMENTS]                 must succeed; the answer is in $t/qmp
# hmp COMMAND                             prints the answer: nothing where all went well
# put DEVICE PATTERN OFFSET LENGTH        as the guest would, through the device, and to the end of the image
# answers COMMAND REGEX                   until it does
# shellcheck disable=SC2154 # t is of scenario.sh

vm=vm

qmp() {
	guest_qmp "$t/$vm" "{\"execute\":\"$1\"${2:+,\"arguments\":{$2\}}}" >"$t/qmp"
	grep -q '"return"' "$t/qmp" || fail "$1: $(cat "$t/qmp")"
}

hmp() {
	guest_qmp "$t/$vm" "{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"$1\"}}"
}

put() {
	local n
	n=$(grep -c '^wrote' "$t/$vm/qemu.log" || true)
	hmp "qemu-io -d $1 \\\"write -P $2 $3 $4\\\"" >/dev/null
	hmp "qemu-io -d $1 flush" >/dev/null
	[ "$(grep -c '^wrote' "$t/$vm/qemu.log")" -gt "$n" ] || fail "write to $1: $(tail -n 2 "$t/$vm/qemu.log")"
}

answers() {
	qemu_says "$vm" "$1" "$2"
}
