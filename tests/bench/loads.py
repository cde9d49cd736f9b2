#!/usr/bin/env python3
"""What a day writes to a disk: loads.py LOAD IMAGE MIB SEED

Says "ready", then for each line on its input writes once more to the image, in place as a guest does, and says how many
bytes were written.  LOAD:

random    4 KiB blocks, as many as 1% of the disk's files, overwritten with what compresses as another block of it
log       its 20 logs grow by a tenth of what they were: blocks at their ends, and the file system's own
database  IMAGE is made: ext4 with a database of SQLite (8 KiB pages, WAL, MIB/8 of rows), in which 2000 transactions each
          update five rows of some 200 bytes, half of them among the hundredth that is used most

The image of random and log is day1.raw of content.py, made with the same MIB and SEED.
"""
import os
import random
import shutil
import sqlite3
import sys
import tempfile

import content

BLOCK = content.BLOCK
TRANSACTIONS = 2000


def random_pages(image, mib, seed):
    with tempfile.TemporaryDirectory(dir=os.path.dirname(image)) as folder:
        n = mib * 256 // 100
        for day in rounds():
            content.pages(image, n, f"{seed}-{day}", folder)
            said(n * BLOCK)


def logs(image, mib, seed):
    rng = random.Random(seed)
    size = (mib << 20) // 50 // content.LOGS
    texts = {f"/var/log/app{i}.log": content.log_text(rng, size) for i in range(content.LOGS)}
    for day in rounds():
        # Appends a tenth of what is there, which is to be the same each time.
        more, written = random.Random(f"{seed}-{day}"), 0
        for path in texts:
            text = content.log_text(more, size // 10)
            content.append(image, path, texts[path], text)
            texts[path] += text
            written += len(text)
        said(written)


class Database:
    """A database in files of its own, and a disk that has the same bytes in its files."""

    def __init__(self, image, mib, seed):
        self.folder = tempfile.mkdtemp(dir=os.path.dirname(image))
        self.rng = random.Random(seed)
        self.image = image
        self.path = os.path.join(self.folder, "main.db")
        self.db = sqlite3.connect(self.path, isolation_level=None)
        for line in ("page_size = 8192", "journal_mode = WAL", "synchronous = OFF"):
            self.db.execute(f"PRAGMA {line}").fetchall()
        self.db.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, owner TEXT, note TEXT, balance INTEGER, changed TEXT)")
        self.rows = (mib << 20) // 8 // 250
        self.db.execute("BEGIN")
        self.db.executemany("INSERT INTO account VALUES (?, ?, ?, ?, ?)",
                            ((i, f"owner-{i:09d}", self.note(), self.rng.randrange(10**6), "2026-03-01T00:00:00")
                             for i in range(self.rows)))
        self.db.execute("COMMIT")
        self.day()
        self.make_image(mib)

    def note(self):
        return "".join(self.rng.choice(WORDS) for _ in range(30))

    def day(self):
        for _ in range(TRANSACTIONS):
            self.db.execute("BEGIN")
            for _ in range(5):
                hot = self.rng.random() < 0.5
                row = self.rng.randrange(self.rows // 100 if hot else self.rows)
                self.db.execute("UPDATE account SET note = ?, balance = balance + 1, changed = ? WHERE id = ?",
                                (self.note(), f"2026-03-{self.rng.randrange(1, 29):02d}T12:00:00", row))
            self.db.execute("COMMIT")

    def make_image(self, mib):
        stage = os.path.join(self.folder, "stage")
        os.makedirs(stage)
        for name in ("main.db", "main.db-wal"):
            shutil.copyfile(os.path.join(self.folder, name), os.path.join(stage, name))
            # Room to grow, without holes.
            with open(os.path.join(stage, name), "ab") as f:
                f.write(b"\xff" * (-f.tell() % BLOCK + f.tell() // 2 // BLOCK * BLOCK))
        with open(self.image, "wb") as f:
            f.truncate(mib << 20)
        content.run("mke2fs", "-q", "-F", "-t", "ext4", "-b", str(BLOCK), "-E", "nodiscard", "-d", stage, self.image)
        shutil.rmtree(stage)
        self.names = ["main.db", "main.db-wal"]
        self.blocks = content.blocks_of(self.image, ["/" + n for n in self.names])

    def write(self):
        """The files' blocks that differ from those on the disk; their number."""
        n = 0
        with open(self.image, "r+b") as disk:
            for name, blocks in zip(self.names, self.blocks):
                with open(os.path.join(self.folder, name), "rb") as f:
                    for block in blocks:
                        data = f.read(BLOCK)
                        disk.seek(block * BLOCK)
                        if data and disk.read(len(data)) != data:
                            disk.seek(block * BLOCK)
                            disk.write(data)
                            n += 1
                    if f.read(1):
                        sys.exit(f"loads.py: {name} has grown")
        return n

    def close(self):
        self.db.close()
        shutil.rmtree(self.folder)


WORDS = ("order ", "paid ", "by card, ", "returned ", "to stock ", "invoice ", "sent ", "on time ", "late ", "again ",
         "7714 ", "2093 ", "x", "ab", "9 ", "held, ")


def database(image, mib, seed):
    db = Database(image, mib, seed)
    try:
        for _ in rounds():
            db.day()
            said(db.write() * BLOCK)
    finally:
        db.close()


def said(n):
    print(n, flush=True)


def rounds():
    print("ready", flush=True)
    for day, _ in enumerate(sys.stdin):
        yield day


def differ(old, new, size):
    """How many pieces of that size differ, and those of the new one."""
    with open(old, "rb") as a, open(new, "rb") as b:
        at = 0
        while True:
            x, y = a.read(size), b.read(size)
            if not y:
                break
            if x != y:
                yield at, y
            at += 1


def model(old, new, folder):
    """loads.py model OLD NEW DIR: bytes of the 4 KiB blocks that differ; the 4 MiB chunks that differ go to files in DIR."""
    for at, data in differ(old, new, 4 << 20):
        with open(os.path.join(folder, str(at)), "wb") as f:
            f.write(data)
    said(sum(BLOCK for _ in differ(old, new, BLOCK)))


LOADS = {"random": random_pages, "log": logs, "database": database}

if __name__ == "__main__":
    if sys.argv[1] == "model":
        model(*sys.argv[2:])
    elif sys.argv[1] in LOADS:
        LOADS[sys.argv[1]](sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        sys.exit(__doc__)
