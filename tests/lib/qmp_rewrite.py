#!/usr/bin/env python3
"""A QMP socket in front of QEMU's that rewrites what QEMU answers: devices that no test machine can have.

    qmp_rewrite.py [--as UID] LISTEN QEMU [FROM TO]...

One client after the other; descriptors are passed on.  FROM and TO are texts within one line of QEMU's.
"""
import os
import select
import socket
import sys

args = sys.argv[1:]
if args[0] == "--as":
    os.setgroups([])
    os.setresgid(*[int(args[1])] * 3)
    os.setresuid(*[int(args[1])] * 3)
    args = args[2:]
listen, qemu, pairs = args[0], args[1], args[2:]
rules = [(a.encode(), b.encode()) for a, b in zip(pairs[::2], pairs[1::2])]
server = socket.socket(socket.AF_UNIX)
server.bind(listen)
server.listen(1)
while True:
    client, _ = server.accept()
    up = socket.socket(socket.AF_UNIX)
    up.connect(qemu)
    rest = b""
    while True:
        ready, _, _ = select.select([client, up], [], [])
        if client in ready:
            data, fds, _, _ = socket.recv_fds(client, 65536, 64)
            if not data:
                break
            socket.send_fds(up, [data[:1]], fds) if fds else up.sendall(data[:1])
            up.sendall(data[1:])
            for fd in fds:
                os.close(fd)
        if up in ready:
            data = up.recv(65536)
            if not data:
                break
            rest += data
            end = rest.rfind(b"\n") + 1
            lines, rest = rest[:end], rest[end:]
            for a, b in rules:
                lines = lines.replace(a, b)
            client.sendall(lines)
    client.close()
    up.close()
