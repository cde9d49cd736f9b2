#!/usr/bin/env python3
"""The tables of sites.sh: sites.py DIR, with what was measured in DIR/first, DIR/apart and DIR/wire.rows."""
import os
import statistics
import sys


def lines(name):
    path = os.path.join(sys.argv[1], name)
    if os.path.exists(path):
        with open(path, encoding="ascii") as f:
            for line in f:
                head, *values = line.rstrip("\n").split("\t")
                yield head, [float(v) for v in values]


def first(of):
    runs = {}
    for name, values in lines(of):
        runs.setdefault(name, []).append(values)
    if not runs:
        return
    base = next(iter(runs.values()))
    print("| what | runs | wall s (min-max) | CPU s here | CPU s at the replica | wall, to the first line | CPU here | CPU of both |")
    print("|---|---|---|---|---|---|---|---|")
    for name, values in runs.items():
        wall, here, there = (statistics.median(v) for v in zip(*values))
        # Of each run by itself: what else the machine did was about the same.
        pairs = list(zip(values, base))
        ratios = (statistics.median(v[0] / b[0] for v, b in pairs), statistics.median(v[1] / b[1] for v, b in pairs),
                  statistics.median((v[1] + v[2]) / b[1] for v, b in pairs))
        walls = [v[0] for v in values]
        print(f"| {name} | {len(values)} | {wall:.2f} ({min(walls):.2f}-{max(walls):.2f}) | {here:.2f} | "
              + (f"{there:.2f}" if there > 0 else "") + " | " + " | ".join(f"{r:.2f}" for r in ratios) + " |")


def wire():
    loads = {}
    for name, values in lines("wire.rows"):
        loads.setdefault(name, []).append(values)
    if not loads:
        return
    print("| load | days | changed KiB a day | locum KiB | / changed | rsync KiB | / changed | rsync -z KiB | / changed "
          "| 4 MiB chunks KiB | / changed | locum / rsync -z | locum / chunks |")
    print("|---" * 13 + "|")
    for name, values in loads.items():
        changed, *sent = (sum(v) / len(values) for v in zip(*values))
        cells = "".join(f" {n / 1024:.0f} | {n / changed:.2f} |" for n in sent)
        print(f"| {name} | {len(values)} | {changed / 1024:.0f} |{cells} {sent[0] / sent[2]:.2f} | {sent[0] / sent[3]:.2f} |")


first("first")
print()
first("apart")
print()
wire()
