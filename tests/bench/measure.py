#!/usr/bin/env python3
"""Run a command and add a line to a file of measurements.

measure.py FILE BENCH NAME STAGE [--repo DIR] [--pid PID] [--warm FILE]... -- COMMAND...

The line, separated by tabs: bench, name, stage, wall seconds, CPU seconds, peak MiB, bytes added to DIR ("" without).
Wall includes writing out what is dirty in the file system of DIR.  CPU and the peak are those of
the command and its children; with --pid also the CPU time that process (QEMU) spent meanwhile.
"""
import argparse
import os
import subprocess
import sys
import time


def used(folder):
    if folder is None:
        return 0
    out = subprocess.run(["du", "-s", "-B1", folder], check=True, stdout=subprocess.PIPE).stdout
    return int(out.split()[0])


def cpu_of(pid):
    if pid is None:
        return 0.0
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def flush(folder):
    if folder is not None:
        subprocess.run(["sync", "-f", folder], check=True)


def main():
    split = sys.argv.index("--")
    p = argparse.ArgumentParser()
    p.add_argument("file")
    p.add_argument("bench")
    p.add_argument("name")
    p.add_argument("stage")
    p.add_argument("--repo")
    p.add_argument("--pid")
    p.add_argument("--warm", action="append", default=[])
    a = p.parse_args(sys.argv[1:split])
    for path in a.warm:
        with open(path, "rb", buffering=0) as f:
            while f.read(1 << 20):
                pass
    flush(a.repo)
    before, cpu = used(a.repo), cpu_of(a.pid)
    start = time.monotonic()
    child = subprocess.Popen(sys.argv[split + 1:], stdin=subprocess.DEVNULL)
    _, status, mine = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    flush(a.repo)
    wall = time.monotonic() - start
    cpu = cpu_of(a.pid) - cpu + mine.ru_utime + mine.ru_stime
    if child.returncode != 0:
        sys.exit(f"measure.py: {a.name} {a.stage}: exit status {child.returncode}")
    added = "" if a.repo is None else str(used(a.repo) - before)
    with open(a.file, "a", encoding="ascii") as f:
        f.write(f"{a.bench}\t{a.name}\t{a.stage}\t{wall:.3f}\t{cpu:.3f}\t{mine.ru_maxrss / 1024:.0f}\t{added}\n")


main()
