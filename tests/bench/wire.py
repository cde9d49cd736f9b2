#!/usr/bin/env python3
"""A wire that counts: wire.py PORT UP [DOWN].  Carries connections to that port of this host; prints its own port; the file UP
has the bytes that went there so far, DOWN those that came back."""
import socket
import sys
import threading

totals, lock = {}, threading.Lock()


def count(path, n):
    with lock:
        totals[path] = totals.get(path, 0) + n
        with open(path, "w", encoding="ascii") as f:
            f.write(str(totals[path]))


def carry(a, b, path):
    while True:
        try:
            data = a.recv(1 << 16)
            b.sendall(data)
        except OSError:
            break
        if not data:
            break
        if path is not None:
            count(path, len(data))
    for s in (a, b):
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


up, down = sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None
for file in filter(None, (up, down)):
    count(file, 0)
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    near, _ = server.accept()
    far = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    for args in ((near, far, up), (far, near, down)):
        threading.Thread(target=carry, args=args, daemon=True).start()
