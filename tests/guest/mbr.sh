# shellcheck shell=bash
# mbr.sh: the partition table of the test disks, to be sourced.
#
# Partition 1 (type da, "non-filesystem data") begins at 1 MiB and covers the
# ring and the random writes; partition 2 is the file system.  Written by hand
# because sfdisk is not installed everywhere and two entries are 32 bytes.

# mbr_entry BOOT TYPE START LENGTH   (flags in hex, sectors of 512 bytes)
mbr_entry() {
	local v bytes
	# fe ff ff: the cylinder numbers are not used.
	bytes="\\x$1\\xfe\\xff\\xff\\x$2\\xfe\\xff\\xff"
	for v in "$3" "$4"; do
		bytes+=$(printf '\\x%02x\\x%02x\\x%02x\\x%02x' $((v & 255)) $((v >> 8 & 255)) \
			$((v >> 16 & 255)) $((v >> 24 & 255)))
	done
	# shellcheck disable=SC2059
	printf "$bytes"
}

# mbr_write IMAGE P2_MIB SIZE_MIB BOOT TYPE: partition 1 up to P2_MIB, 2 up to SIZE_MIB.
mbr_write() {
	local image=$1 p2=$(($2 * 2048)) end=$(($3 * 2048))
	{
		mbr_entry 00 da 2048 $((p2 - 2048))
		mbr_entry "$4" "$5" "$p2" $((end - p2))
		head -c 32 /dev/zero
		printf '\x55\xaa'
	} | dd of="$image" bs=1 seek=446 conv=notrunc status=none
}

# mbr_part IMAGE N: prints byte offset and byte length of partition N of a raw image.
mbr_part() {
	local start len
	[ "$(od -An -tx1 -j 510 -N 2 "$1" | tr -d ' ')" = 55aa ] || return 1
	read -r start len < <(od -An -tu4 -j $((446 + 16 * ($2 - 1) + 8)) -N 8 "$1")
	[ "$len" -gt 0 ] || return 1
	echo $((start * 512)) $((len * 512))
}
