#!/usr/bin/env python3
"""The first bytes of an image with something hostile in its header, to stdout.

    hostile_image.py backing FILE    a qcow2 whose backing file is FILE
    hostile_image.py data FILE       a qcow2 whose data lie in FILE
    hostile_image.py bitmaps N       a qcow2 that says it has N bitmaps
    hostile_image.py vmdk FILE       a vmdk descriptor whose extent is FILE
"""
import struct
import sys

what, arg = sys.argv[1:3]
C = 65536


def qcow2(backing=b"", incompatible=0, extensions=b"", autoclear=0):
    at = 0
    head = 104
    body = extensions + struct.pack(">II", 0, 0)
    if backing:
        at = head + len(body)
    h = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, at, len(backing), 16, 1 << 30, 0, 2, 3 * C, C, 1, 0, 0)
    h += struct.pack(">QQQII", incompatible, 0, autoclear, 4, head)
    h = (h + body + backing).ljust(C, b"\0")
    refs = struct.pack(">Q", 2 * C).ljust(C, b"\0") + struct.pack(">4H", 1, 1, 1, 1).ljust(C, b"\0")
    return h + refs + b"\0" * C


def extension(kind, data):
    return struct.pack(">II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


if what == "backing":
    fmt = extension(0xE2792ACA, b"raw")
    out = qcow2(backing=arg.encode(), extensions=fmt)
elif what == "data":
    out = qcow2(incompatible=4, extensions=extension(0x44415441, arg.encode()))
elif what == "bitmaps":
    n = int(arg)
    out = qcow2(extensions=extension(0x23852875, struct.pack(">IIQQ", n, 0, 24 * n, 4 * C)), autoclear=1)
elif what == "vmdk":
    out = (f'# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
           f'RW 2097152 FLAT "{arg}" 0\n').encode().ljust(512, b"\0")
else:
    sys.exit(__doc__)
sys.stdout.buffer.write(out)
