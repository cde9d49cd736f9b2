#!/usr/bin/env python3
"""The independent tool restores the golden stores, whole, torn and damaged, and gives no wrong byte."""
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, HERE)
import locum_restore  # noqa: E402

if shutil.which("zstd") is None:
    print("SKIP: no zstd program")
    sys.exit(77)


def sums(folder):
    out = {}
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as f:
            data = f.read()
        out[name[:-4]] = (len(data), hashlib.sha256(data).hexdigest())
    return out


def expected_of(version):
    points = {}
    for line in open(os.path.join(version, "expected.txt")):
        vm, ident, disk, size, total = line.split()
        points.setdefault((vm, ident), {})[disk] = (int(size), total)
    return points


def replica_of(version):
    """Where what a thin store lacks is to be had."""
    there = os.path.join(version, "replica", "segments")
    return there if os.path.exists(there) else None


def open_store(segments, version):
    with open(os.path.join(version, "kit.txt")) as kit:
        return locum_restore.Store(segments, locum_restore.seed_of(kit.read()), replica_of(version))


def check(segments, version, may_fail=False):
    """Every point as expected, and no others; or, of a damaged copy, what is restored is right."""
    expected = expected_of(version)
    store = open_store(segments, version)
    listed = {(x.vm, x.id.hex()): x for x in store.listed()}
    if not may_fail:
        assert set(listed) == set(expected), (listed, expected)
    restored = 0
    for key, x in listed.items():
        with tempfile.TemporaryDirectory() as out:
            try:
                store.restore(x, out)
            except locum_restore.Gone:
                if not may_fail:
                    raise
                continue
            assert key in expected and sums(out) == expected[key], key
            restored += 1
    return restored, len(expected)


def damaged(version, segments):
    """A bit flipped here and there: never wrong bytes, and mostly whole points."""
    names = sorted(os.listdir(segments))
    whole = 0
    for i, at in enumerate((20, 140, 700, 2500, 5000, 8000)):
        with tempfile.TemporaryDirectory() as top:
            copy = os.path.join(top, "segments")
            shutil.copytree(segments, copy)
            path = os.path.join(copy, names[i % len(names)])
            with open(path, "r+b") as f:
                f.seek(at % os.path.getsize(path))
                b = f.read(1)
                f.seek(-1, 1)
                f.write(bytes([b[0] ^ 0x20]))
            whole += check(copy, version, may_fail=True)[0]
    assert whole > 0


def command_line(version, segments):
    tool = os.path.join(HERE, "locum_restore.py")
    kit = os.path.join(version, "kit.txt")
    listed = subprocess.run([sys.executable, tool, segments, kit, "list"], check=True,
                            capture_output=True, text=True).stdout.splitlines()
    ident = listed[0].split()[1]
    there = replica_of(version)
    if there is not None:
        with tempfile.TemporaryDirectory() as out:
            p = subprocess.run([sys.executable, tool, segments, kit, "restore", ident[:8], out],
                               capture_output=True, text=True)
            assert p.returncode == 1 and "are at replica dr1, dr2" in p.stderr, p.stderr
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([sys.executable, tool, segments, kit, "restore", ident[:8], out] +
                       ([there] if there else []), check=True)
        assert sums(out) == expected_of(version)[listed[0].split()[0], ident]


for name in sorted(os.listdir(HERE)):
    if os.path.exists(os.path.join(HERE, name, "expected.txt")):
        version = os.path.join(HERE, name)
        segments = os.path.join(version, "store", "segments")
        print("%s: %d of %d points" % ((name,) + check(segments, version)))
        damaged(version, segments)
        command_line(version, segments)
