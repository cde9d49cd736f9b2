#!/usr/bin/env python3
"""What is backed up: an ext4 disk of a Debian userland, and the same disk a day later.

content.py make DIR MIB SEED     DIR/day1.raw and DIR/day2.raw, sparse, MIB of files on a disk twice as large
content.py others DIR MIB SEED   beside them DIR/clone.raw and DIR/sibling.raw
content.py write IMAGE NEW QMP   write what differs through the device `vda` of a running QEMU, so that IMAGE,
                                 its disk, holds what NEW does
content.py touch QMP OFF LEN SEED  write random bytes to that device

The files are those of the Debian packages that are installed here, in an order drawn from SEED.  Day two,
all by size: 3% of the files replaced by a slightly different version (as an upgrade does), logs appended, and
1% of the 4 KiB blocks of files half overwritten with random bytes (as a database does).  So the
same seed gives the same disks on a machine with the same packages.

The clone is day two's disk with an eighth more files.  The sibling has the files of day one, installed package by
package, in an order of its own, on a file system of its own.
"""
import hashlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys

BLOCK = 4096
LOGS = 20
PATHS = ("/usr/", "/bin/", "/sbin/", "/lib/")
PLAIN = re.compile(r"[\w./+@:~-]+")  # names that debugfs takes as they are
LINES = (
    "%(t)s web01 sshd[%(n)d]: Accepted publickey for deploy from 10.0.%(a)d.%(b)d port %(n)d ssh2\n",
    "%(t)s web01 kernel: [%(n)d.%(a)03d] IPv4: host 10.0.%(a)d.%(b)d took %(n)d us\n",
    "%(t)s web01 nginx: 10.0.%(a)d.%(b)d GET /static/%(n)06x.js 200 %(n)d\n",
)


def run(*args, **kw):
    env = dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin", E2FSPROGS_FAKE_TIME="1700000000")
    return subprocess.run(args, check=True, env=env, stderr=subprocess.DEVNULL, **kw)


def packages(seed):
    """The paths of each installed package, packages in random order."""
    info = "/var/lib/dpkg/info"
    lists = [n for n in os.listdir(info) if n.endswith(".list")]
    for name in sorted(lists, key=lambda n: hashlib.sha256(f"{seed}:{n}".encode()).digest()):
        with open(os.path.join(info, name), encoding="utf-8", errors="surrogateescape") as f:
            yield f.read().split("\n")


def choose(seed, want):
    """(path, size) of files that make up `want` bytes."""
    chosen, total = {}, 0
    for paths in packages(seed):
        for path in paths:
            if not path.startswith(PATHS) or not PLAIN.fullmatch(path) or path in chosen:
                continue
            if os.path.islink(path) or not os.path.isfile(path) or not os.access(path, os.R_OK):
                continue
            size = os.path.getsize(path)
            if size == 0 or total + size > want:
                continue
            # Behind /lib -> usr/lib there is one file with two names.
            real = os.path.realpath(path)
            if real not in chosen:
                chosen[real] = size
                total += -(-size // BLOCK) * BLOCK
        if total > want * 0.995:
            break
    return sorted(chosen.items())


def log_text(rng, n):
    lines, size = [], 0
    while size < n:
        line = rng.choice(LINES) % {
            "t": f"2026-03-{rng.randrange(1, 29):02d}T{rng.randrange(24):02d}:{rng.randrange(60):02d}:00",
            "n": rng.randrange(1 << 20), "a": rng.randrange(256), "b": rng.randrange(256)}
        lines.append(line)
        size += len(line)
    return "".join(lines).encode()[:n]


def upgraded(old):
    """The next version: a byte here and there, and a little more from a third on."""
    new = bytearray(old)
    for at in range(1000, len(new), 32768):
        new[at] ^= 1
    third = len(new) // 3
    return bytes(new[:third] + b"a line that the version before had not" + new[third:])


def debugfs(image, commands, write=False):
    text = "\n".join(commands) + "\n"
    args = ["debugfs"] + (["-w"] if write else []) + ["-f", "/dev/stdin", image]
    return run(*args, input=text.encode(), stdout=subprocess.PIPE).stdout.decode()


def blocks_of(image, paths):
    """Of each file its blocks, without those of its extent tree."""
    out = debugfs(image, [f"blocks {p}" for p in paths])
    lists = [[int(n) for n in line.split()] for line in out.split("\n") if line and not line.startswith("debugfs")]
    if len(lists) != len(paths):
        sys.exit("content.py: debugfs lists other files than asked for")
    with open(image, "rb") as f:
        def is_data(n):
            f.seek(n * BLOCK)
            return f.read(2) != b"\x0a\xf3"
        return [[n for n in blocks if is_data(n)] for blocks in lists]


def make_day1(folder, image, files, logs, mib, seed):
    stage = os.path.join(folder, "stage")
    shutil.rmtree(stage, ignore_errors=True)
    os.makedirs(os.path.join(stage, "var/log"))
    for path, _ in files:
        os.makedirs(os.path.dirname(stage + path), exist_ok=True)
        shutil.copyfile(path, stage + path)
    for path, text in logs.items():
        with open(stage + path, "wb") as f:
            f.write(text)
    with open(image, "wb") as f:
        f.truncate(2 * mib << 20)
    uuid = hashlib.md5(seed.encode()).hexdigest()
    uuid = "-".join((uuid[:8], uuid[8:12], uuid[12:16], uuid[16:20], uuid[20:]))
    run("mke2fs", "-q", "-F", "-t", "ext4", "-b", str(BLOCK), "-U", uuid, "-E", f"hash_seed={uuid},nodiscard",
        "-d", stage, image)
    shutil.rmtree(stage)


def replace_files(folder, image, files, rng, share):
    todo, script = share, []
    fresh = os.path.join(folder, "fresh")
    os.makedirs(fresh, exist_ok=True)
    for i, (path, size) in enumerate(rng.sample(files, len(files))):
        if size > todo:
            continue
        with open(path, "rb") as old, open(f"{fresh}/{i}", "wb") as new:
            new.write(upgraded(old.read()))
        where, name = os.path.split(path)
        script += [f"cd {where}", f"rm {name}", f"write {fresh}/{i} {name}"]
        todo -= size
        if todo < BLOCK:
            break
    debugfs(image, script, write=True)
    shutil.rmtree(fresh)


def append_logs(image, logs, rng):
    for path, text in logs.items():
        append(image, path, text, log_text(rng, len(text) // 10))


def append(image, path, text, more):
    """As a file system does: more blocks for a file that has that text, its size, the bytes in them."""
    size, last = len(text) + len(more), len(text) // BLOCK
    script = [f"set_inode_field {path} size {size}"]
    if -(-size // BLOCK) > -(-len(text) // BLOCK):
        script.insert(0, f"fallocate {path} {-(-len(text) // BLOCK)} {-(-size // BLOCK) - 1}")
    debugfs(image, script, write=True)
    tail = text[last * BLOCK:] + more
    with open(image, "r+b") as f:
        for i, block in enumerate(blocks_of(image, [path])[0][last:]):
            f.seek(block * BLOCK)
            f.write(tail[i * BLOCK:(i + 1) * BLOCK].ljust(BLOCK, b"\0"))


def write_blocks(image, files, rng):
    blocks = [n for one in blocks_of(image, [path for path, _ in files]) for n in one]
    with open(image, "r+b") as f:
        for n in rng.sample(blocks, len(blocks) // 100):
            f.seek(n * BLOCK + BLOCK // 2)
            f.write(rng.randbytes(BLOCK // 2))


def make(folder, mib, seed):
    day1, day2 = os.path.join(folder, "day1.raw"), os.path.join(folder, "day2.raw")
    want = mib << 20
    rng = random.Random(seed)
    files = choose(seed, want * 98 // 100)
    have = sum(size for _, size in files)
    if have < want * 8 // 10:
        sys.exit(f"content.py: the packages here have only {have >> 20} MiB of files; ask for less")
    logs = {f"/var/log/app{i}.log": log_text(rng, want // 50 // LOGS) for i in range(LOGS)}
    make_day1(folder, day1, files, logs, mib, seed)
    run("cp", "--sparse=always", day1, day2)
    replace_files(folder, day2, files, rng, want * 3 // 100)
    append_logs(day2, logs, rng)
    write_blocks(day2, files, rng)
    for image in day1, day2:
        run("e2fsck", "-fn", image, stdout=subprocess.DEVNULL)


def directories(paths):
    """Of those files, parents first."""
    found = {}
    for path in paths:
        parts = os.path.dirname(path).split("/")[1:]
        for i in range(len(parts)):
            found["/" + "/".join(parts[:i + 1])] = True
    return sorted(found)


def install(image, files, script=()):
    """Files into an image, in that order."""
    script = list(script)
    for path, source in files:
        where, name = os.path.split(path)
        script += [f"cd {where}", f"write {source} {name}"]
    debugfs(image, script, write=True)


def in_packages(files, seed):
    """The same files, package by package."""
    left = dict(files)
    for paths in packages(seed):
        for path in paths:
            if path in left:
                yield path
                del left[path]
    yield from left


def make_clone(clone, files, mib, seed):
    have = {path for path, _ in files}
    more, total = [], 0
    for path in in_packages(choose(f"{seed}-clone", mib << 20), f"{seed}-clone"):
        if path not in have and total < (mib << 20) // 8:
            more.append((path, path))
            total += os.path.getsize(path)
    there = set(directories(have))
    made = [d for d in directories([path for path, _ in more]) if d not in there]
    install(clone, more, [f"mkdir {d}" for d in made])


def make_sibling(folder, image, files, logs, mib, seed):
    with open(image, "wb") as f:
        f.truncate(2 * mib << 20)
    uuid = hashlib.md5(f"{seed}-sibling".encode()).hexdigest()
    uuid = "-".join((uuid[:8], uuid[8:12], uuid[12:16], uuid[16:20], uuid[20:]))
    run("mke2fs", "-q", "-F", "-t", "ext4", "-b", str(BLOCK), "-U", uuid, "-E", f"hash_seed={uuid},nodiscard", image)
    fresh = os.path.join(folder, "fresh")
    os.makedirs(fresh, exist_ok=True)
    rng = random.Random(f"{seed}-sibling")
    order = [(path, path) for path in in_packages(files, f"{seed}-sibling")]
    for i, (path, text) in enumerate(logs.items()):
        with open(f"{fresh}/{i}", "wb") as f:
            f.write(log_text(rng, len(text)))
        order.append((path, f"{fresh}/{i}"))
    install(image, order, [f"mkdir {d}" for d in directories([path for path, _ in order])])
    shutil.rmtree(fresh)


def others(folder, mib, seed):
    want = mib << 20
    files = choose(seed, want * 98 // 100)
    logs = {f"/var/log/app{i}.log": b" " * (want // 50 // LOGS) for i in range(LOGS)}
    clone, sibling = os.path.join(folder, "clone.raw"), os.path.join(folder, "sibling.raw")
    run("cp", "--sparse=always", os.path.join(folder, "day2.raw"), clone)
    make_clone(clone, files, mib, seed)
    make_sibling(folder, sibling, files, logs, mib, seed)
    for image in clone, sibling:
        run("e2fsck", "-fn", image, stdout=subprocess.DEVNULL)


# ---- a disk of a running QEMU ----

class Disk:
    """Written as the guest's device writes, which nobody else may while QEMU has it."""

    def __init__(self, qmp):
        self.pattern = qmp + ".pattern"
        self.qmp = socket.socket(socket.AF_UNIX)
        self.qmp.connect(qmp)
        self.lines = self.qmp.makefile("r")
        self.lines.readline()
        self.ask("qmp_capabilities")

    def ask(self, command, **args):
        self.qmp.sendall(json.dumps({"execute": command, "arguments": args}).encode() + b"\n")
        while True:
            answer = json.loads(self.lines.readline())
            if answer.get("return") not in (None, {}, "") or "error" in answer:
                sys.exit(f"content.py: {command}: {answer}")
            if "return" in answer:
                return

    def qemu_io(self, line):
        self.ask("human-monitor-command",
                 **{"command-line": f'qemu-io -d /machine/peripheral/vda/virtio-backend "{line}"'})

    def write(self, off, data):
        with open(self.pattern, "wb") as f:
            f.write(data)
        self.qemu_io(f"write -q -s {self.pattern} {off} {len(data)}")

    def close(self):
        self.qemu_io("flush")
        os.unlink(self.pattern)


def write(image, new, qmp):
    disk = Disk(qmp)
    with open(image, "rb") as a, open(new, "rb") as b:
        off = 0
        while True:
            x, y = a.read(1 << 20), b.read(1 << 20)
            if not y:
                break
            at = 0
            while x != y and at < len(y):
                end = at
                while end < len(y) and x[end:end + BLOCK] != y[end:end + BLOCK]:
                    end += BLOCK
                if end > at:
                    disk.write(off + at, y[at:end])
                at = end + BLOCK
            off += len(y)
    disk.close()


def touch(qmp, off, length, seed):
    disk = Disk(qmp)
    disk.write(off, random.Random(seed).randbytes(length))
    disk.close()


def change(qmp, image, first, length, n, step, key):
    """Overwrites n pieces of that length, from first on and step apart, with the bytes of the image all changed in one way,
    so that they compress as those do."""
    disk = Disk(qmp)
    other = bytes(b ^ key for b in range(256))
    with open(image, "rb") as f:
        for i in range(n):
            f.seek(first + i * step)
            disk.write(first + i * step, f.read(length).translate(other))
    disk.close()


def pages(image, n, seed, folder):
    """Overwrites n pages with what others of the same image become when all bytes change in one way, so that they
    compress as those do and are nowhere yet; each of them goes to a file in folder, too."""
    rng = random.Random(seed)
    with open(image, "r+b") as f:
        f.seek(0, 2)
        size = f.tell() // BLOCK

        def some_page():
            while True:
                at = rng.randrange(size)
                f.seek(at * BLOCK)
                data = f.read(BLOCK)
                if any(data):
                    return at, data
        for i in range(n):
            _, data = some_page()
            key = rng.randrange(1, 256)
            data = bytes(b ^ key for b in data)
            at, _ = some_page()
            f.seek(at * BLOCK)
            f.write(data)
            with open(os.path.join(folder, str(i)), "wb") as page:
                page.write(data)


if __name__ == "__main__":
    verb, args = sys.argv[1], sys.argv[2:]
    if verb == "make":
        make(args[0], int(args[1]), args[2])
    elif verb == "others":
        others(args[0], int(args[1]), args[2])
    elif verb == "write":
        write(*args)
    elif verb == "touch":
        touch(args[0], int(args[1]), int(args[2]), args[3])
    elif verb == "change":
        change(args[0], args[1], *map(int, args[2:]))
    elif verb == "pages":
        pages(args[0], int(args[1]), args[2], args[3])
    else:
        sys.exit(__doc__)
