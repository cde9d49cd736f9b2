#!/bin/bash
# One program at work: peer.sh NAME init|backup|restore|verify, with the paths $disk, $repo and $out, and $day (and $vm) for
# backup.  restore writes the last backup to $out/disk.raw; verify reads all that the last backup needs, and compares it with
# hashes.
set -euo pipefail
: "${disk:?} ${repo:?} ${out:?}" "${day:=}" "${vm:=web01}"

case $1:$2 in
locum*:init) locum store init --quiet --kit "$repo.kit" ;;
locum*:backup) locum backup "$vm" --quiet ;;
locum*:restore) locum restore "$vm" --quiet --to "$out/disk.raw" ;;
locum*:verify) locum verify "$vm" --quiet ;;

limit:backup) limit backup "$disk" "$repo" ;;
limit-1:backup) limit backup "$disk" "$repo" 1 ;;
limit-lib:backup) limit backup "$disk" "$repo" 1 lib ;;
limit:restore) limit restore "$repo" "$out/disk.raw" ;;
limit:verify) limit verify "$repo" ;;

restic:init) restic init -q -r "$repo" ;;
restic:backup) restic -q -r "$repo" backup "$disk" ;;
restic:restore)
	restic -q -r "$repo" restore latest --target "$out/t"
	mv "$out/t$disk" "$out/disk.raw"
	;;

restic:verify) restic -q -r "$repo" check --read-data ;;

borg:init) borg init -e repokey "$repo" ;;
borg:backup) borg create -C zstd,1 "$repo::$day" "$disk" ;;
borg:restore)
	cd "$out"
	borg extract --sparse "$repo::$day"
	mv "$out$disk" "$out/disk.raw"
	;;
borg:verify) borg check --verify-data "$repo" ;;

casync:init) mkdir "$repo" ;;
casync:backup) casync make --store="$repo/store.castr" "$repo/$day.caibx" "$disk" ;;
casync:restore) casync extract --store="$repo/store.castr" "$repo/$day.caibx" "$out/disk.raw" ;;
casync:verify) casync digest --store="$repo/store.castr" "$repo/$day.caibx" ;;

*:init) mkdir "$repo" ;;
qemu-img-*:backup) qemu-img convert -c -O qcow2 -o compression_type="${1#qemu-img-}" "$disk" "$repo/$day" ;;
qemu-img-*:restore) qemu-img convert -O raw "$repo/$day" "$out/disk.raw" ;;
cp:backup) cp --sparse=always "$disk" "$repo/$day" ;;
cp:restore) cp --sparse=always "$repo/$day" "$out/disk.raw" ;;
zstd:backup) zstd -q -1 -T0 "$disk" -o "$repo/$day" ;;
zstd:verify) zstd -q -t "$repo/$day" ;;
zstd:restore) zstd -q -d --sparse "$repo/$day" -o "$out/disk.raw" ;;
*) exit 2 ;;
esac
