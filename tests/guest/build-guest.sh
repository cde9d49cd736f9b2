#!/bin/bash
# Build the test guest: build-guest.sh OUTDIR
#
# Makes vmlinux, vmlinuz, initrd.img, seqw, seqcheck and sockline in OUTDIR.
# Does nothing if they are there and made from the files that are here now; a
# kernel is kept until OUTDIR is deleted.  Safe to call from several tests at
# once.  V=1 shows what it does.
#
#   GUEST_KERNEL_DEB=FILE   take this kernel package instead of downloading one
#
# Exit status: 0 made, 77 something is missing here (and it says what), 1 failed.
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
meta=linux-image-cloud-amd64
modules='virtio_blk virtio_console virtio_scsi sd_mod virtio_net ata_piix'

die() {
	echo "build-guest: $*" >&2
	exit 1
}

# Not a failure of ours: tests that need the guest are skipped for it.
missing() {
	echo "build-guest: $*" >&2
	exit 77
}

say() {
	[ "${V:-0}" != 1 ] || echo "build-guest: $*" >&2
}

need() { # need PROGRAM PACKAGE
	PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ||
		missing "$1 is missing; install the package $2"
}

[ $# -eq 1 ] || die "usage: build-guest.sh OUTDIR"
mkdir -p "$1" || die "cannot make $1"
out=$(cd "$1" && pwd)

need flock util-linux
exec 9>"$out/.lock"
flock 9

# --- is there anything to do?

# By content and not by time: two checkouts may share one OUTDIR.
digest() {
	cat "$@" | sha256sum | cut -d ' ' -f 1
}

# Are all outputs there, and made from what the stamp says?
fresh() { # fresh STAMP KEY OUTPUT...
	local stamp=$1 key=$2 f
	shift 2
	[ "$(cat "$stamp" 2>/dev/null)" = "$key" ] || return 1
	for f; do
		[ -s "$f" ] || return 1
	done
}

kernel_key="${GUEST_KERNEL_DEB:-$meta}: $modules"
tools_key=$(digest "$here"/*.c "$here"/*.h "$here/build-guest.sh")

kernel_fresh() {
	fresh "$out/.kernel" "$kernel_key" "$out/vmlinux" "$out/vmlinuz" "$out/modules/virtio_blk.ko"
}

tools_fresh() {
	fresh "$out/.tools" "$tools_key" "$out/seqw" "$out/seqcheck" "$out/sockline"
}

# Of what goes in, once the two stages above are done.
initrd_key() {
	digest "$here/init" "$here/build-guest.sh" "$out/.tools" "$out/.kernel" "$out/.version"
}

initrd_fresh() {
	fresh "$out/.initrd" "$(initrd_key)" "$out/initrd.img"
}

if kernel_fresh && tools_fresh && initrd_fresh; then
	say "$out is up to date"
	exit 0
fi

tmp=$(mktemp -d "$out/tmp.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

# --- the kernel

# Prints the path of a kernel package.
get_kernel_deb() {
	local name
	if [ -n "${GUEST_KERNEL_DEB:-}" ]; then
		[ -r "$GUEST_KERNEL_DEB" ] || die "GUEST_KERNEL_DEB=$GUEST_KERNEL_DEB: not readable"
		echo "$GUEST_KERNEL_DEB"
		return
	fi
	need apt-get apt
	need apt-cache apt
	# The metapackage holds nothing; its one dependency is the kernel.
	name=$(apt-cache --no-recommends depends "$meta" 2>/dev/null |
		sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | sed -n 1p)
	[ -n "$name" ] ||
		missing "apt knows no $meta; run apt-get update, or set GUEST_KERNEL_DEB=FILE"
	say "downloading $name"
	# As root apt complains when its own user cannot enter the folder.
	(cd "$tmp" && apt-get -q -o APT::Sandbox::User=root download "$name") >"$tmp/apt.log" 2>&1 || {
		cat "$tmp/apt.log" >&2
		missing "cannot download $name; run apt-get update, or set GUEST_KERNEL_DEB=FILE"
	}
	set -- "$tmp/$name"_*.deb
	[ -r "$1" ] || die "apt-get download $name left no package"
	echo "$1"
}

# A whole 64-bit ELF file: its section headers, which come last, are inside.
is_whole_elf() {
	local size shoff
	[ "$(head -c 5 "$1" | od -An -tx1 | tr -d ' \n')" = 7f454c4602 ] || return 1
	size=$(stat -c %s "$1")
	shoff=$(od -An -tu8 -j 40 -N 8 "$1" | tr -d ' ')
	[ "$shoff" -gt 0 ] && [ "$shoff" -lt "$size" ]
}

# The payload of a bzImage is a compressed vmlinux: try each place where a
# magic number of a known format stands until one unpacks to an ELF.
extract_vmlinux() { # extract_vmlinux VMLINUZ OUTPUT
	local name magic unpack package offset
	while read -r name magic package unpack; do
		while IFS=: read -r offset _; do
			need "${unpack%% *}" "$package"
			# The file goes on after the payload, which the tools take as an error.
			tail -c +$((offset + 1)) "$1" | $unpack >"$2" 2>/dev/null || true
			if is_whole_elf "$2"; then
				say "vmlinux: $name payload at $offset"
				return
			fi
		done < <(grep -aboP "$magic" "$1" || true)
	done <<-'FORMATS'
		lz4 \x02\x21\x4c\x18 lz4 lz4 -dc
		zstd \x28\xb5\x2f\xfd zstd zstd -dcq
		xz \xfd7zXZ\x00 xz-utils xz -dcq
		gzip \x1f\x8b\x08 gzip gzip -dcq
	FORMATS
	die "no compressed vmlinux found in the kernel package"
}

modinfo_depends() { # of one .ko file
	tr '\0' '\n' <"$1" | sed -n 's/^depends=//p' | sed -n 1p | tr ',' ' '
}

# Prints the modules that $1 needs and $1 itself, in insmod order.
module_order() {
	local file dep
	file=$(find "$tmp/k" -name "$1.ko" -print -quit)
	[ -n "$file" ] || die "module $1 is not in the kernel package"
	case " $ordered " in
	*" $1 "*) return ;;
	esac
	for dep in $(modinfo_depends "$file"); do
		module_order "$dep"
	done
	ordered="$ordered $1"
	cp "$file" "$tmp/modules/$1.ko"
}

build_kernel() {
	local deb m
	need dpkg-deb dpkg
	deb=$(get_kernel_deb)
	say "unpacking $deb"
	dpkg-deb -x "$deb" "$tmp/k" || die "$deb does not unpack"
	set -- "$tmp"/k/boot/vmlinuz-*
	[ -r "$1" ] || die "$deb holds no /boot/vmlinuz"
	cp "$1" "$tmp/vmlinuz"
	extract_vmlinux "$tmp/vmlinuz" "$tmp/vmlinux"
	mkdir "$tmp/modules"
	for m in $modules; do
		# virtio_pci is not a dependency of the drivers: it makes their bus appear.
		ordered=
		case $m in
		virtio_*) module_order virtio_pci ;;
		esac
		module_order "$m"
		# shellcheck disable=SC2086
		printf '%s\n' $ordered >"$tmp/modules/$m.list"
	done
	# A SCSI host is of no use without its disk driver.
	cat "$tmp/modules/sd_mod.list" >>"$tmp/modules/virtio_scsi.list"
	cat "$tmp/modules/sd_mod.list" >>"$tmp/modules/ata_piix.list"
	rm -rf "$out/modules" "$out/.kernel"
	mv "$tmp/modules" "$out/modules"
	# Two fifths of it are zeros that need not be read from a disk at each start.
	cp --sparse=always "$tmp/vmlinux" "$tmp/vmlinux.sparse"
	mv "$tmp/vmlinux.sparse" "$out/vmlinux"
	mv "$tmp/vmlinuz" "$out/"
	basename "$deb" .deb >"$out/.version"
	echo "$kernel_key" >"$out/.kernel"
}

# --- the programs

build_tools() {
	local flags
	need gcc gcc
	flags="-std=gnu17 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Werror -Wshadow -Wconversion
		-Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 -Wcast-qual"
	echo 'int main(void) { return 0; }' >"$tmp/t.c"
	gcc -static -o "$tmp/t" "$tmp/t.c" 2>/dev/null ||
		missing "no static C library; install the package libc6-dev"
	say "compiling"
	cd "$here"
	# shellcheck disable=SC2086
	gcc $flags -static -pthread -o "$tmp/seqw" seqw.c command.c churn.c disk.c hist.c ring.c \
		say.c seqfmt.c sha256.c
	# shellcheck disable=SC2086
	gcc $flags -o "$tmp/seqcheck" seqcheck.c seqfmt.c
	# shellcheck disable=SC2086
	gcc $flags -o "$tmp/sockline" sockline.c
	rm -f "$out/.tools"
	mv "$tmp/seqw" "$tmp/seqcheck" "$tmp/sockline" "$out/"
	echo "$tools_key" >"$out/.tools"
}

# --- the initial RAM disk

find_busybox() {
	local b
	for b in /bin/busybox /usr/bin/busybox; do
		# The dynamic busybox of the package "busybox" would find no libc in the guest.
		if [ -x "$b" ] && ! grep -aq /ld-linux "$b"; then
			echo "$b"
			return
		fi
	done
	missing "no static busybox; install the package busybox-static"
}

build_initrd() {
	local root=$tmp/root busybox
	need cpio cpio
	busybox=$(find_busybox)
	say "packing initrd.img"
	mkdir -p "$root"/{bin,dev,proc,sys,mnt,lib}
	cp "$busybox" "$root/bin/busybox"
	cp "$out/seqw" "$root/bin/seqw"
	strip "$root/bin/seqw" 2>/dev/null || true
	cp -r "$out/modules" "$root/lib/modules"
	cp "$here/init" "$root/init"
	chmod 755 "$root/init" "$root/bin/busybox" "$root/bin/seqw"
	# Not compressed: under TCG unpacking costs more than reading.
	(cd "$root" && find . | sort | cpio -o -H newc -R 0:0 --quiet) >"$tmp/initrd.img"
	mv "$tmp/initrd.img" "$out/initrd.img"
	initrd_key >"$out/.initrd"
}

kernel_fresh || build_kernel
tools_fresh || build_tools
initrd_fresh || build_initrd
