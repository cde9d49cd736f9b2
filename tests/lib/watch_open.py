#!/usr/bin/env python3
"""Writes a line to stdout for each time that one of the files is opened, by whomever; "ready" first.

    watch_open.py FILE...
"""
import ctypes
import os
import struct
import sys

IN_OPEN = 0x20
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.inotify_init()
names = {}
for path in sys.argv[1:]:
    wd = libc.inotify_add_watch(fd, os.fsencode(path), IN_OPEN)
    if wd < 0:
        sys.exit(f"{path}: {os.strerror(ctypes.get_errno())}")
    names[wd] = path
print("ready", flush=True)
while True:
    data = os.read(fd, 65536)
    while data:
        wd, _, _, n = struct.unpack_from("iIII", data)
        print("opened", names[wd], flush=True)
        data = data[16 + n:]
