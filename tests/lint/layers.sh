#!/bin/bash
# Which library, and which file in it, may use which foreign library: read from the undefined symbols
# of what was built, so that no #include can hide it.  What is not built yet is not looked at.
. "$(dirname "$0")/lib.sh"

[ -n "$build" ] || skip "no build folder given"
need nm

# symbols LIBRARY: lines "object symbol" of what it leaves undefined
symbols() {
	nm -A -u "$1" 2>/dev/null | sed -E 's,^.*[:/]([^:/]+)\.c\.o:.* ([^ ]+)$,\1 \2,; s,^([^ ]+/)?([^/:]+\.so):.* ([^ ]+)$,\2 \3,'
}

# refuse LIBRARY PATTERN WHY: no object of it may use a symbol that matches
refuse() {
	local found
	[ -e "$build/$1" ] || return 0
	found=$(symbols "$build/$1" | grep -E " ($2)" | sort -u)
	[ -z "$found" ] || complain "$1: $3:"$'\n'"$found"
}

# only LIBRARY PATTERN OBJECTS WHY: of its objects only those (a pattern) may
only() {
	local found
	[ -e "$build/$1" ] || return 0
	found=$(symbols "$build/$1" | grep -E " ($2)" | grep -vE "^($3) " | sort -u)
	[ -z "$found" ] || complain "$1: $4:"$'\n'"$found"
}

[ -e "$build/store/libbase.a" ] || complain "store/libbase.a is not built"

loop='uv_|nbd_'
for lib in store/libbase.a store/libstore.a replicator/libchannel.a; do
	refuse $lib "$loop" "synchronous code may not know the event loop or NBD"
done
# The way to a replica has a loop of its own.
refuse nbdkit-locum-plugin.so 'nbd_|MHD_|json_' "the plugin serves points, and knows replicas at most"
refuse store/libbase.a 'sqlite3_|ZSTD_|crypto_|sodium_|XXH|rs_|json_' "base is libc only"
only store/libstore.a 'sqlite3_' 'catalog.*' "only the catalog knows sqlite"
only store/libstore.a 'ZSTD_' 'seal|delta' "only seal knows zstd"
only store/libstore.a 'crypto_|sodium_|randombytes' 'seal|keyring.*|recovery' "only seal and the keyring know libsodium"
only store/libstore.a 'rs_' 'delta' "only delta knows librsync"
only replicator/libreplicator.a 'MHD_' 'metrics' "only metrics knows the HTTP server"
only replicator/libchannel.a 'crypto_|randombytes' 'noise' "only noise knows cryptography"
verdict
