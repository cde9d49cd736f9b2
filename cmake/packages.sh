#!/bin/bash
# install_packages LIST [run]: install the Debian packages of a list that are missing.  Source it.
#
# With `run` only those that running and building need: the part of the list above its line "# tests".
# As root, or with sudo.

_as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	else
		sudo "$@"
	fi
}

_apt() {
	_as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@"
}

install_packages() { # LIST [run]
	local package upto='' missing=()

	if ! command -v dpkg-query >/dev/null; then
		printf 'no dpkg here: packages are not looked at\n'
		return
	fi
	[ "${2:-}" != run ] || upto="/^# tests/Q;"
	while read -r package; do
		[ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
			missing+=("$package")
	done < <(sed -E "$upto s/[[:space:]]*#.*//; /^$/d" "$1")
	# The guest of the tests gets its kernel through apt, which must have its lists for that.
	if [ ${#missing[@]} -eq 0 ] && apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1; then
		printf 'no package is missing\n'
		return
	fi
	printf 'missing: %s\n' "${missing[*]:-lists of apt}"
	_apt update || return
	[ ${#missing[@]} -eq 0 ] ||
		_apt -o Dpkg::Use-Pty=0 install -y --no-install-recommends "${missing[@]}" >/dev/null
}
