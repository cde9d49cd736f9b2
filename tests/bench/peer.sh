#!/bin/bash
# One program at work: peer.sh NAME init|backup|restore, with the paths $disk, $repo and $out, and $day for backup.
# restore writes the last backup to $out/disk.raw.
set -euo pipefail
: "${disk:?} ${repo:?} ${out:?}" "${day:=}"

case $1:$2 in
locum*:init) locum store init --quiet --kit "$repo.kit" ;;
locum*:backup) locum backup web01 --quiet ;;
locum*:restore) locum restore web01 --quiet --to "$out/disk.raw" ;;

restic:init) restic init -q -r "$repo" ;;
restic:backup) restic -q -r "$repo" backup "$disk" ;;
restic:restore)
	restic -q -r "$repo" restore latest --target "$out/t"
	mv "$out/t$disk" "$out/disk.raw"
	;;

borg:init) borg init -e repokey "$repo" ;;
borg:backup) borg create -C zstd,1 "$repo::$day" "$disk" ;;
borg:restore)
	cd "$out"
	borg extract --sparse "$repo::$day"
	mv "$out$disk" "$out/disk.raw"
	;;

*:init) mkdir "$repo" ;;
qemu-img-*:backup) qemu-img convert -c -O qcow2 -o compression_type="${1#qemu-img-}" "$disk" "$repo/$day" ;;
qemu-img-*:restore) qemu-img convert -O raw "$repo/$day" "$out/disk.raw" ;;
cp:backup) cp --sparse=always "$disk" "$repo/$day" ;;
cp:restore) cp --sparse=always "$repo/$day" "$out/disk.raw" ;;
zstd:backup) zstd -q -1 -T0 "$disk" -o "$repo/$day" ;;
zstd:restore) zstd -q -d --sparse "$repo/$day" -o "$out/disk.raw" ;;
*) exit 2 ;;
esac
