#!/bin/bash
# Put Debian's QEMU guest agent into the test guest: build-agent.sh OUTDIR
#
# Makes initrd-agent.img in OUTDIR, which build-guest.sh has filled: its initial RAM
# disk with qemu-ga and the libraries that it needs behind.  Does nothing if that is
# there and of the initial RAM disk that is there now.  Nothing is installed here.
#
#   GUEST_AGENT_DEB=FILE   take this package instead of downloading one
#
# Exit status: 0 made, 77 something is missing here (and it says what), 1 failed.
set -euo pipefail
export LC_ALL=C

package=qemu-guest-agent

die() {
	echo "build-agent: $*" >&2
	exit 1
}

missing() {
	echo "build-agent: $*" >&2
	exit 77
}

[ $# -eq 1 ] || die "usage: build-agent.sh OUTDIR"
[ -s "$1/initrd.img" ] || die "no initrd.img in $1: build-guest.sh first"
out=$(cd "$1" && pwd)
for need in flock:util-linux cpio:cpio dpkg-deb:dpkg ldd:libc-bin; do
	command -v "${need%%:*}" >/dev/null || missing "${need%%:*} is missing; install the package ${need#*:}"
done
exec 9>"$out/.lock-agent"
flock 9

key="${GUEST_AGENT_DEB:-$package} $(sha256sum <"$out/initrd.img") $(sha256sum <"${BASH_SOURCE[0]}")"
if [ -s "$out/initrd-agent.img" ] && [ "$(cat "$out/.agent" 2>/dev/null)" = "$key" ]; then
	exit 0
fi
tmp=$(mktemp -d "$out/tmp.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

deb=${GUEST_AGENT_DEB:-}
if [ -z "$deb" ]; then
	command -v apt-get >/dev/null || missing "apt-get is missing; set GUEST_AGENT_DEB=FILE"
	# As root apt complains when its own user cannot enter the folder.
	(cd "$tmp" && apt-get -q -o APT::Sandbox::User=root download "$package") >"$tmp/apt.log" 2>&1 || {
		cat "$tmp/apt.log" >&2
		missing "cannot download $package; run apt-get update, or set GUEST_AGENT_DEB=FILE"
	}
	set -- "$tmp/$package"_*.deb
	deb=$1
fi
[ -r "$deb" ] || die "$deb: not readable"
dpkg-deb -x "$deb" "$tmp/x" || die "$deb does not unpack"
[ -x "$tmp/x/usr/sbin/qemu-ga" ] || die "$deb holds no qemu-ga"

# The host's libraries will do: the agent is of the same Debian.
mkdir -p "$tmp/tree/bin" "$tmp/tree/etc"
cp "$tmp/x/usr/sbin/qemu-ga" "$tmp/tree/bin/qemu-ga"
ldd "$tmp/x/usr/sbin/qemu-ga" >"$tmp/libs"
! grep 'not found' "$tmp/libs" >&2 || missing "libraries of $package are missing here; install libglib2.0-0 liburing2 libnuma1"
grep -o '/[^ ]*' "$tmp/libs" | while read -r lib; do
	mkdir -p "$tmp/tree/${lib%/*}"
	cp -L "$lib" "$tmp/tree/$lib"
done
(cd "$tmp/tree" && find . | sort | cpio -o -H newc -R 0:0 --quiet) >"$tmp/agent.img"
cat "$out/initrd.img" "$tmp/agent.img" >"$tmp/initrd-agent.img"
mv "$tmp/initrd-agent.img" "$out/"
echo "$key" >"$out/.agent"
