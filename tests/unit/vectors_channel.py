#!/usr/bin/env python3
"""Makes vectors_channel.h: both sides of a session, by another implementation.

Shares no code with the replicator: written from docs/PROTOCOL.md "Transport" and the Noise
specification, on top of primitives.py.
"""
import hashlib
import hmac
import struct

from primitives import chacha20poly1305, counting, emit, x25519

BASE = b"\x09" + bytes(31)
PREFACE = b"LOCUMCH\x01"


def hash64(data):
    return hashlib.blake2b(data).digest()


def hkdf(ck, data):
    def mac(key, msg):
        return hmac.new(key, msg, hashlib.blake2b).digest()

    temp = mac(ck, data)
    one = mac(temp, b"\x01")
    return one, mac(temp, one + b"\x02")


class Cipher:
    def __init__(self, key):
        self.key, self.n = key, 0

    def seal(self, msg, ad=b"", n=None):
        nonce = bytes(4) + struct.pack("<Q", self.n if n is None else n)
        return chacha20poly1305(self.key, nonce, msg, ad)

    def next(self, msg, ad=b""):
        out = self.seal(msg, ad)
        self.n += 1
        return out

    def rekey(self):
        self.key = self.seal(bytes(32), n=2**64 - 1)[:32]


class Symmetric:
    def __init__(self, prologue):
        self.ck = self.h = b"Noise_XK_25519_ChaChaPoly_BLAKE2b".ljust(64, b"\0")
        self.mix_hash(prologue)

    def mix_hash(self, data):
        self.h = hash64(self.h + data)

    def mix_key(self, data):
        self.ck, key = hkdf(self.ck, data)
        self.cipher = Cipher(key[:32])

    def seal(self, msg):
        out = self.cipher.next(msg, self.h)
        self.mix_hash(out)
        return out


def noise_xk(host_s, host_e, replica_s, replica_e):
    """The three messages, and the ciphers of what the host and the replica send."""
    s = Symmetric(PREFACE)
    host_public, replica_public = x25519(host_s, BASE), x25519(replica_s, BASE)
    s.mix_hash(replica_public)
    e1 = x25519(host_e, BASE)
    s.mix_hash(e1)
    s.mix_key(x25519(host_e, replica_public))
    m1 = e1 + s.seal(b"")
    e2 = x25519(replica_e, BASE)
    s.mix_hash(e2)
    s.mix_key(x25519(host_e, e2))
    m2 = e2 + s.seal(b"")
    m3 = s.seal(host_public)
    s.mix_key(x25519(host_s, e2))
    m3 += s.seal(b"")
    return (m1, m2, m3), [Cipher(k[:32]) for k in hkdf(s.ck, b"")]


def chunk(data):
    return struct.pack("<H", len(data)) + data


def message(kind, body=b""):
    return struct.pack("<IHH", len(body), kind, 0) + body


def secret(*first):
    return bytes(first).ljust(32, b"\0")


host_s, replica_s = secret(0x21, 0x22, 0x23), secret(0x41, 0x42, 0x43)  # as in rawpeer.c
host_e, replica_e = counting(0x60, 32), counting(0x80, 32)
keys = host_s, host_e, replica_s, replica_e
host_says = message(1, b"hello") + message(2) + message(65535, counting(0, 300))

(m1, m2, m3), (host, replica) = noise_xk(*keys)
emitted = [
    ("host_ephemeral", host_e),
    ("replica_ephemeral", replica_e),
    ("host_1", PREFACE + chunk(m1)),
    ("replica_1", chunk(m2)),
    ("host_2", chunk(m3) + chunk(host.next(host_says)) + chunk(host.next(message(0)))),
    ("replica_2", chunk(replica.next(message(3, b"in parts"))) + chunk(replica.next(message(0)))),
]

# The same messages of the host, in frames cut wherever it is awkward.
_, (host, _) = noise_xk(*keys)
stream, cut = host_says + message(0), b""
for n in (1, 3, 1, 8, 1, 7, 8, 1, 290, 16, 1):
    cut, stream = cut + chunk(host.next(stream[:n])), stream[n:]
assert stream == b""
emitted.append(("host_2_cut", chunk(m3) + cut))

# The first frame under the second key: 16,384 were sent before.
_, (host, _) = noise_xk(*keys)
host.rekey()
host.n = 16384
emitted.append(("host_rekeyed", chunk(host.next(message(1)))))

print("/* Made by vectors_channel.py. */")
print("#ifndef LOCUM_TESTS_VECTORS_CHANNEL_H\n#define LOCUM_TESTS_VECTORS_CHANNEL_H\n")
print("#include <stdint.h>\n\n/* clang-format off */")
for name, data in emitted:
    emit("vector_" + name, data)
print("/* clang-format on */\n\n#endif")
