#!/bin/bash
# Sourced by the benchmarks: their options, and the programs that they need.

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 2
}

# Set the variables of these names; each option has a value.
options() { # "NAME..." [--NAME VALUE]...
	local names=" $1 " name
	shift
	while [ $# -gt 0 ]; do
		[ $# -ge 2 ] || die "$1 needs a value, or is no option"
		name=${1#--}
		[[ $1 = --?* && $name != *' '* && $names = *" $name "* ]] || die "no option $1"
		printf -v "$name" %s "$2"
		shift 2
	done
}

need() { # PROGRAM PACKAGE
	PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null && return
	if [ "$(id -u)" = 0 ]; then
		apt-get install -y "$2" >&2
	else
		sudo apt-get install -y "$2" >&2
	fi
}
