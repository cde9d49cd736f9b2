#!/usr/bin/env python3
"""A wire that counts: wire.py PORT FILE.  Carries connections to that port of this host; prints its own port; FILE has
the bytes that went there so far."""
import socket
import sys
import threading

total, lock = 0, threading.Lock()


def carry(a, b, count):
    global total
    while True:
        try:
            data = a.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            break
        b.sendall(data)
        if count:
            with lock:
                total += len(data)
                with open(sys.argv[2], "w") as f:
                    f.write(str(total))
    for s in (a, b):
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    near, _ = server.accept()
    far = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    for args in ((near, far, True), (far, near, False)):
        threading.Thread(target=carry, args=args, daemon=True).start()
