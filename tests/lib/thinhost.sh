#!/bin/bash
# Sourced after scenario.sh: a host with 64 MiB for its store, and web01, which is off and whose image is $t/img.
#
# write MIB OFFSET               random bytes into the image, all at once
# thinhost_begin SIZE MIB OFFSET  an image of SIZE MiB with these written; the host, paired with its replica
# shellcheck disable=SC2154 # t and port are of scenario.sh

write() {
	cp --sparse=always "$t/img" "$t/img.new"
	dd if=/dev/urandom of="$t/img.new" bs=1M count="$1" seek="$2" conv=notrunc status=none
	mv "$t/img.new" "$t/img"
}

thinhost_begin() {
	truncate -s "$1M" "$t/img"
	write "$2" "$3"
	# It says "login: " on the serial port, and stands still.
	{
		printf '\xfc\x31\xc0\x8e\xd8\xba\xf8\x03\xbe\x16\x7c\xac\x84\xc0\x74\x03\xee\xeb\xf8\xf4\xeb\xfdlogin: \0'
		head -c 480 /dev/zero
		printf '\x55\xaa'
	} | dd of="$t/img" conv=notrunc status=none iflag=fullblock
	printf '%s\n' 'spool_max = 64 MiB' "key_dir = $t/keys" >>"$LOCUM_CONFIG"
	rm -rf "$t/store" "$t/kit"
	locum store init --kit "$t/kit" >/dev/null || fail "store init"
	scenario_vm web01 'memory = 64 MiB' "disk = vda raw $t/img"
	replica_start
	locum pair --name dr --as host-a --quiet "$(locum token --dir "$t/dr" --address "127.0.0.1:$port")"
}
