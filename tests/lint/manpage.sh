#!/bin/bash
# The options that the program knows are the options that its man page describes, every verb is named
# there, and every key of conf/locum.conf in the other page.  mandoc finds nothing wrong with either.
. "$(dirname "$0")/lib.sh"

locum=$build/locum
man=docs/man/locum.1
[ -x "$locum" ] || skip "locum is not built"
[ -e "$man" ] || skip "$man is not written"

verbs=$("$locum" help-options) || complain "locum help-options failed"
known=$(while IFS= read -r verb; do
	# shellcheck disable=SC2086 # a verb may be two words
	"$locum" help-options $verb
done <<<"$verbs" | sort -u)
[ -n "$known" ] || complain "the program knows no option"
# mdoc: .Fl -name; man: \-\-name; both may be written plainly.
described=$(sed -e 's/\\-/-/g' -e 's/\\&//g' "$man" |
	grep -oE '(Fl -|--)[a-z][a-z0-9-]*' | sed -E 's/^(Fl -|--)/--/' |
	grep -vxE -- '--(version|help-options)' | sort -u)
while IFS= read -r option; do
	[ -z "$option" ] || complain "$man does not describe $option"
done < <(comm -23 <(printf '%s\n' "$known") <(printf '%s\n' "$described"))
while IFS= read -r option; do
	[ -z "$option" ] || complain "$man describes $option, which no verb has"
done < <(comm -13 <(printf '%s\n' "$known") <(printf '%s\n' "$described"))
while IFS= read -r verb; do
	grep -qE "(^|[^a-z])$verb([^a-z]|\$)" "$man" || complain "$man does not name the verb '$verb'"
	sed -n '/^\.Sh SYNOPSIS/,/^\.Sh DESCRIPTION/p' "$man" | grep -qxE "\.Cm $verb( .*)?" ||
		complain "the synopsis of $man does not show the verb '$verb'"
done <<<"$verbs"

conf=docs/man/locum.conf.5
keys=$(sed -nE 's/^#([a-z_]+) =.*/\1/p' conf/locum.conf | sort -u)
[ -n "$keys" ] || complain "conf/locum.conf shows no key"
described=$(sed -n 's/^\.It Cm //p' "$conf" | tr -d ' ' | tr ',' '\n' | sort -u)
while IFS= read -r key; do
	[ -z "$key" ] || complain "$conf does not describe the key $key"
done < <(comm -23 <(printf '%s\n' "$keys") <(printf '%s\n' "$described"))
while IFS= read -r key; do
	[ -z "$key" ] || complain "$conf describes the key $key, which conf/locum.conf lacks"
done < <(comm -13 <(printf '%s\n' "$keys") <(printf '%s\n' "$described"))

need mandoc
while IFS= read -r finding; do
	complain "$finding"
done < <(mandoc -T lint "$man" "$conf" 2>/dev/null | grep -v 'referenced manual not found')
verdict
