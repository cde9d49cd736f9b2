#!/usr/bin/env python3
"""Take files, and all in folders, out of the page cache: evict.py PATH..."""
import os
import sys


def evict(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


for top in sys.argv[1:]:
    if os.path.isfile(top):
        evict(top)
    for folder, _, names in os.walk(top):
        for name in names:
            if os.path.isfile(os.path.join(folder, name)):
                evict(os.path.join(folder, name))
