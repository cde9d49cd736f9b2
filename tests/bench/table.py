#!/usr/bin/env python3
"""Medians of what measure.py wrote, as markdown: table.py FILE BENCH [REFERENCE]...

For each reference there is a column of ratios, its median to that of the line: wall / CPU / added.
"""
import statistics
import sys

STAGES = {"first": "first backup", "same": "unchanged", "day2": "day two"}


def main():
    runs, references = {}, sys.argv[3:]
    with open(sys.argv[1], encoding="ascii") as f:
        for line in f:
            bench, name, stage, *values = line.rstrip("\n").split("\t")
            if bench == sys.argv[2]:
                runs.setdefault((stage, name), []).append([float(v) if v else None for v in values])
    medians = {k: [None if None in c else statistics.median(c) for c in zip(*v)] for k, v in runs.items()}
    head = ["stage", "program", "runs", "wall s (min-max)", "CPU s", "peak MiB", "added MiB"]
    head += [f"{r} / it" for r in references]
    print("| " + " | ".join(head) + " |")
    print("|---" * len(head) + "|")
    for stage, name in sorted(runs, key=lambda k: list(dict.fromkeys(s for s, _ in runs)).index(k[0])):
        wall, cpu, peak, added = medians[stage, name]
        walls = [v[0] for v in runs[stage, name]]
        row = [STAGES.get(stage, stage), name, str(len(walls)), f"{wall:.2f} ({min(walls):.2f}-{max(walls):.2f})",
               "" if cpu is None else f"{cpu:.2f}", "" if peak is None else f"{peak:.0f}", "" if added is None else f"{added / 2**20:.1f}"]
        for r in references:
            own = medians.get((stage, r))
            if own is None or r == name:
                row.append("")
                continue
            pairs = [(own[0], wall), (own[1], cpu)]
            if stage != "restore" and (added or 0) > 2**20:
                pairs.append((own[3], added))
            row.append(" / ".join(f"{a / b:.2f}" for a, b in pairs if a is not None and b))
        print("| " + " | ".join(row) + " |")


main()
