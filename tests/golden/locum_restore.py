#!/usr/bin/env python3
"""Restores from a Locum store with nothing but its segments and the recovery code.

    locum_restore.py SEGMENTS CODEFILE list
    locum_restore.py SEGMENTS CODEFILE restore POINT FOLDER [SEGMENTS-AT-THE-REPLICA]

Of a thin store some contents are only at a replica: give the segments of that, too.

Written from docs/FORMAT.md alone, to show that it can be: it shares no code with Locum, and uses
Python's standard library and the zstd program.  Slow, and not meant for use while Locum works.
"""
import hashlib
import os
import struct
import subprocess
import sys
import tempfile

WINDOW = 65536
M64 = (1 << 64) - 1


# ---- primitives, from their papers ----

def h(data, key=b"", size=32):
    return hashlib.blake2b(data, digest_size=size, key=key).digest()


def x25519(scalar, point):
    p = 2**255 - 19
    k = int.from_bytes(scalar, "little") & ~7 & (2**255 - 1) | 2**254
    x1 = int.from_bytes(point, "little") % 2**255
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for t in range(254, -1, -1):
        bit = k >> t & 1
        if swap != bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        x3, z3 = (da + cb) ** 2 % p, x1 * (da - cb) ** 2 % p
        e = aa - bb
        x2, z2 = aa * bb % p, e * (aa + 121665 * e) % p
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, p - 2, p) % p).to_bytes(32, "little")


def words(b):
    return list(struct.unpack("<%dI" % (len(b) // 4), b))


SIGMA = words(b"expand 32-byte k")


def chacha_rounds(x):
    for _ in range(10):
        for a, b, c, d in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
                           (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
            xa, xb, xc, xd = x[a], x[b], x[c], x[d]
            xa = xa + xb & 0xFFFFFFFF
            xd ^= xa
            xd = (xd << 16 | xd >> 16) & 0xFFFFFFFF
            xc = xc + xd & 0xFFFFFFFF
            xb ^= xc
            xb = (xb << 12 | xb >> 20) & 0xFFFFFFFF
            xa = xa + xb & 0xFFFFFFFF
            xd ^= xa
            xd = (xd << 8 | xd >> 24) & 0xFFFFFFFF
            xc = xc + xd & 0xFFFFFFFF
            xb ^= xc
            xb = (xb << 7 | xb >> 25) & 0xFFFFFFFF
            x[a], x[b], x[c], x[d] = xa, xb, xc, xd


def salsa_rounds(x):
    def rotl(v, n):
        v &= 0xFFFFFFFF
        return (v << n | v >> (32 - n)) & 0xFFFFFFFF

    for _ in range(10):
        for a, b, c, d in ((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11),
                           (0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14)):
            x[b] ^= rotl(x[a] + x[d], 7)
            x[c] ^= rotl(x[b] + x[a], 9)
            x[d] ^= rotl(x[c] + x[b], 13)
            x[a] ^= rotl(x[d] + x[c], 18)


def stream(rounds, state, counter, n):
    out = bytearray()
    while len(out) < n:
        s = state(counter)
        x = list(s)
        rounds(x)
        out += struct.pack("<16I", *(a + b & 0xFFFFFFFF for a, b in zip(x, s)))
        counter += 1
    return bytes(out[:n])


def xor(a, b):
    n = len(a)
    return (int.from_bytes(a, "little") ^ int.from_bytes(b[:n], "little")).to_bytes(n, "little")


def poly1305(key, msg):
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    acc = 0
    for i in range(0, len(msg), 16):
        acc = (acc + int.from_bytes(msg[i:i + 16] + b"\1", "little")) * r % (2**130 - 5)
    return ((acc + int.from_bytes(key[16:], "little")) % 2**128).to_bytes(16, "little")


def salsa_state(key, block):
    k, n = words(key), words(block)
    return [SIGMA[0]] + k[:4] + [SIGMA[1]] + n + [SIGMA[2]] + k[4:] + [SIGMA[3]]


def hsalsa20(key, block):
    x = salsa_state(key, block)
    salsa_rounds(x)
    return struct.pack("<8I", *(x[i] for i in (0, 5, 10, 15, 6, 7, 8, 9)))


def open_sealed_box(box, public, secret):
    """crypto_box_seal_open of libsodium; None where it does not open."""
    ephemeral, tag, cipher = box[:32], box[32:48], box[48:]
    nonce = h(ephemeral + public, size=24)
    key = hsalsa20(hsalsa20(x25519(secret, ephemeral), bytes(16)), nonce[:16])
    ks = stream(salsa_rounds, lambda i: salsa_state(key, nonce[16:] + struct.pack("<Q", i)), 0,
                32 + len(cipher))
    return xor(cipher, ks[32:]) if poly1305(ks[:32], cipher) == tag else None


def pad16(b):
    return b + bytes(-len(b) % 16)


def open_aead(key, nonce, sealed, ad):
    """XChaCha20-Poly1305; None where it is not authentic."""
    x = SIGMA + words(key) + words(nonce[:16])
    chacha_rounds(x)
    sub = x[:4] + x[12:]

    def state(i):
        return SIGMA + sub + [i, 0] + words(nonce[16:])

    cipher, tag = sealed[:-16], sealed[-16:]
    mac = poly1305(stream(chacha_rounds, state, 0, 32), pad16(ad) + pad16(cipher) +
                   struct.pack("<QQ", len(ad), len(cipher)))
    return xor(cipher, stream(chacha_rounds, state, 1, len(cipher))) if mac == tag else None


XXH_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e")
P32 = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)
P64 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63,
       0x27D4EB2F165667C5)


def r32(b, i):
    return int.from_bytes(b[i:i + 4], "little")


def r64(b, i):
    return int.from_bytes(b[i:i + 8], "little")


def fold(a, b):
    p = a * b
    return (p ^ p >> 64) & M64


def avalanche(v):
    v ^= v >> 37
    v = v * 0x165667919E3779F9 & M64
    return v ^ v >> 32


def avalanche64(v):
    v ^= v >> 33
    v = v * P64[1] & M64
    v ^= v >> 29
    v = v * P64[2] & M64
    return v ^ v >> 32


def mix16(b, i, s, j, seed):
    return fold(r64(b, i) ^ (r64(s, j) + seed & M64), r64(b, i + 8) ^ (r64(s, j + 8) - seed & M64))


def xxh3_short(b, seed):
    n, s = len(b), XXH_SECRET
    if n > 8:
        flip1 = (r64(s, 24) ^ r64(s, 32)) + seed & M64
        flip2 = (r64(s, 40) ^ r64(s, 48)) - seed & M64
        lo, hi = r64(b, 0) ^ flip1, r64(b, n - 8) ^ flip2
        acc = n + int.from_bytes(lo.to_bytes(8, "little"), "big") + hi + fold(lo, hi)
        return avalanche(acc & M64)
    if n >= 4:
        seed ^= int.from_bytes((seed & 0xFFFFFFFF).to_bytes(4, "little"), "big") << 32
        v = r32(b, n - 4) + (r32(b, 0) << 32) & M64
        v ^= (r64(s, 8) ^ r64(s, 16)) - seed & M64
        v ^= ((v << 49 | v >> 15) ^ (v << 24 | v >> 40)) & M64
        v = v * 0x9FB21C651E98DF25 & M64
        v ^= (v >> 35) + n
        v = v * 0x9FB21C651E98DF25 & M64
        return v ^ v >> 28
    if n > 0:
        v = b[0] << 16 | b[n >> 1] << 24 | b[n - 1] | n << 8
        return avalanche64(v ^ ((r32(s, 0) ^ r32(s, 4)) + seed & M64))
    return avalanche64(seed ^ r64(s, 56) ^ r64(s, 64))


def xxh3(b, seed=0):
    """XXH3-64; a seed only for what is at most 240 bytes, which is all that the format has."""
    n, s = len(b), XXH_SECRET
    if n <= 16:
        return xxh3_short(b, seed)
    if n <= 128:
        acc = n * P64[0] & M64
        for i in range((n - 1) // 32, -1, -1):
            acc += mix16(b, 16 * i, s, 32 * i, seed)
            acc += mix16(b, n - 16 * (i + 1), s, 32 * i + 16, seed)
        return avalanche(acc & M64)
    if n <= 240:
        acc = n * P64[0] & M64
        for i in range(8):
            acc += mix16(b, 16 * i, s, 16 * i, seed)
        acc = avalanche(acc & M64)
        for i in range(8, n // 16):
            acc += mix16(b, 16 * i, s, 16 * (i - 8) + 3, seed)
        acc += mix16(b, n - 16, s, 136 - 17, seed)
        return avalanche(acc & M64)
    assert seed == 0
    acc = [P32[2], P64[0], P64[1], P64[2], P64[3], P32[1], P64[4], P32[0]]

    def stripe(at, sec):
        for i in range(8):
            v = r64(b, at + 8 * i)
            k = v ^ r64(s, sec + 8 * i)
            acc[i ^ 1] = acc[i ^ 1] + v & M64
            acc[i] = acc[i] + (k & 0xFFFFFFFF) * (k >> 32) & M64

    per_block = (len(s) - 64) // 8
    blocks, at = (n - 1) // (64 * per_block), 0
    for _ in range(blocks):
        for i in range(per_block):
            stripe(at, 8 * i)
            at += 64
        for i in range(8):
            a = acc[i]
            acc[i] = (a ^ a >> 47 ^ r64(s, len(s) - 64 + 8 * i)) * P32[0] & M64
    for i in range((n - 1 - at) // 64):
        stripe(at + 64 * i, 8 * i)
    stripe(n - 64, len(s) - 64 - 7)
    out = n * P64[0] & M64
    for i in range(4):
        out += fold(acc[2 * i] ^ r64(s, 11 + 16 * i), acc[2 * i + 1] ^ r64(s, 19 + 16 * i))
    return avalanche(out & M64)


def unzstd(frame, prefix=None):
    with tempfile.NamedTemporaryFile() as f:
        f.write(prefix or b"")
        f.flush()
        p = subprocess.run(["zstd", "-d", "-q", "-c"] + (["--patch-from=" + f.name] if prefix else []),
                           input=frame, capture_output=True)
    return p.stdout if p.returncode == 0 else None


def patch(delta, base):
    """What a librsync delta makes of a base, or None."""
    out, at = b"", 4

    def number(width):
        nonlocal at
        at += width
        return int.from_bytes(delta[at - width:at], "big")

    if delta is None or delta[:4] != b"rs\x026":
        return None
    while at < len(delta):
        op = number(1)
        if op == 0:
            return out
        if op < 0x45:
            n = op if op <= 0x40 else number(1 << op - 0x41)
            out += delta[at:at + n]
            at += n
        elif op < 0x55:
            where = number(1 << (op - 0x45) // 4)
            out += base[where:][:number(1 << (op - 0x45) % 4)]
        else:
            return None
        if len(out) > WINDOW:
            return None
    return None


# ---- the log ----

class Gone(Exception):
    """What was asked for is damaged, missing or newer than this program."""


def records_of(path, no, store):
    """Good records of a segment: (sequence, type, encoding, key, payload)."""
    data = open(path, "rb").read()
    head = data[:128]
    if head[:8] == b"LOCUMSEG" and len(head) == 128 and r64(head, 120) == xxh3(head[:120]):
        if struct.unpack_from("<H", head, 8)[0] != 1:
            raise Gone("%s was made by a newer version" % path)
        store.setdefault("id", head[16:32])
        store.setdefault("domain", head[32:48])
        if head[16:32] != store["id"] or r64(head, 48) != no:
            say("%s is no part of this log" % path)
            return
    at = 128
    while at + 48 <= len(data):
        r = data[at:at + 48]
        if r[:4] == b"LREC" and r64(r, 40) == xxh3(r[:40], no):
            if r[4] > 1 and not (r[4] == 2 and r[5] == 2 and r[6] in (2, 3)):
                raise Gone("%s holds a record of a newer version" % path)
            n = r32(r, 8)
            size = 48 + n + 7 & ~7
            if r[4] in (1, 2) and n <= 1 << 20 and at + size <= len(data):
                payload = data[at + 48:at + 48 + n]
                if xxh3(payload) == r64(r, 24):
                    yield r64(r, 16), r[5], r[6], r32(r, 12), payload
                else:
                    say("%s: damaged record at %d" % (path, at))
                at += size
                continue
        at += 8


def say(text):
    print("warning: " + text, file=sys.stderr)


def read_log(folder):
    store, log = {}, []
    there = os.listdir(folder)
    names = [n for n in there
             if len(n) in (20, 21) and n[16:] in (".seg", ".open", ".thin") and
             all(c in "0123456789abcdef" for c in n[:16])]
    for name in sorted(names):
        if name.endswith(".thin") and name[:16] + ".seg" in there:
            continue
        log += records_of(os.path.join(folder, name), int(name[:16], 16), store)
    return store, log


# ---- keys ----

SYMBOLS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def seed_of(text):
    """The line of a kit, or a text that is nothing but the code."""
    lines = [line.split(":")[-1].strip() for line in text.splitlines() if line.strip()]
    for line in [x for x in lines if x.count("-") >= 7 and x.replace("-", "").isalnum()] + lines[:1]:
        code = line.upper().replace("-", "").replace(" ", "")
        code = code.replace("O", "0").replace("I", "1").replace("L", "1")
        if len(code) != 36 or any(c not in SYMBOLS for c in code):
            raise Gone("that is no recovery code")
        v = 0
        for c in code:
            v = v << 5 | SYMBOLS.index(c)
        seed, check = v >> 20, v & 0xFFFFF
        if (seed << 20) % 1048517 != check:
            raise Gone("the recovery code is mistyped")
        return seed.to_bytes(20, "big")
    raise Gone("no recovery code")


class Keys:
    def __init__(self, seed, log):
        self.data = {}
        self.id = None
        secret = hashlib.sha512(h(b"locum recovery v1", seed)).digest()[:32]
        public = x25519(secret, b"\x09" + bytes(31))
        auth = h(b"locum auth v1", seed)
        self.domain = h(b"locum domain v1" + public)[:16]
        wraps = {}
        for _, kind, _, _, payload in log:
            if kind != 1 or payload[:16] != self.domain or payload[16:48] != public:
                continue
            at = 50
            for _ in range(struct.unpack_from("<H", payload, 48)[0]):
                k, _, n, number = struct.unpack_from("<BBHI", payload, at)
                wraps[payload[at + 8:at + 8 + n]] = (k, number)
                at += 8 + n
        if not wraps:
            raise Gone("the recovery code is of another key domain")
        for box, (k, number) in sorted(wraps.items(), key=lambda w: w[1]):
            if k > 3 or k == 1:
                continue
            plain = open_sealed_box(box, public, secret)
            tag = h(b"locum wrap v1\0\0\0" + self.domain + struct.pack("<BxxxI", k, number) +
                    plain[:32], self.id if k == 3 else auth) if plain else None
            if plain is None or plain[32:] != tag:
                continue
            if k == 2:
                self.id = plain[:32]
                self.set = h(b"locum set v1", self.id)
            else:
                self.data[number] = plain[:32]
        if self.id is None or not self.data:
            raise Gone("no genuine keys")

    def blob(self, sealed, ad):
        number = r32(sealed, 0)
        if number not in self.data:
            return None
        return open_aead(self.data[number], sealed[4:28], sealed[28:],
                         b"locum blob v1\0\0\0" + self.domain + struct.pack("<I", number) + ad)

    def chunk(self, chunks, ident, whole=False):
        """Content of a chunk: of the records of its id, the first that opens."""
        why = Gone("a chunk is lost")
        for record in chunks[ident]:
            try:
                return self.open_chunk(chunks, ident, record, whole)
            except Gone as e:
                why = e
        raise why

    def open_chunk(self, chunks, ident, record, whole):
        encoding, number, payload = record
        if number not in self.data:
            raise Gone("data key %d is not here" % number)
        if encoding > 1 and whole:
            raise Gone("a delta is made upon a delta")
        at = 40 + 32 * payload[36]
        bases = [payload[i:i + 32] for i in range(40, at, 32)]
        if (len(bases) > 0) != (encoding > 1) or len(bases) > 4 or any(b not in chunks for b in bases):
            raise Gone("what a chunk is made upon is lost")
        prefix = b"".join(self.chunk(chunks, b, True) for b in bases)
        body = open_aead(self.data[number], payload[at:at + 24], payload[at + 24:],
                         b"locum chunk v1\0\0" + self.domain +
                         struct.pack("<II", number, encoding) + payload[32:36] + ident + b"".join(bases))
        if body is not None and encoding > 0:
            body = unzstd(body, prefix if encoding == 3 else None)
        if encoding == 2:
            body = patch(body, prefix)
        if body is None or len(body) != WINDOW or h(body, self.id) != ident:
            raise Gone("a chunk does not open")
        return body


# ---- points ----

def row_sum(rows, key=b""):
    return sum(int.from_bytes(h(disk + struct.pack("<Q", w) + ident, key), "little")
               for (disk, w), ident in rows.items()) % 2**256


class Point:
    def __init__(self, body, rows, folded):
        self.body, self.rows = body, rows
        self.id, self.line, self.made_on = body[:16], body[16:32], body[32:48]
        counted = body[72:80] + body[88:120]
        self.base = self.made_on
        if folded is not None and folded[:16] == self.id:
            self.base, counted = folded[16:32], folded[32:]
        self.flags, ndisks = struct.unpack_from("<II", body, 48)
        if self.flags & ~13:
            raise Gone("a restore point of a newer version")
        self.source_ns = struct.unpack_from("<q", body, 64)[0]
        self.disks = [(body[120 + 40 * i:136 + 40 * i],) +
                      struct.unpack_from("<QQQ", body, 136 + 40 * i) for i in range(ndisks)]
        at = 120 + 40 * ndisks
        self.sealed = body[at + 4:at + 4 + r32(body, at)]
        self.damaged = len(rows) != r64(counted, 0) or \
            row_sum(rows) != int.from_bytes(counted[8:], "little")

    def open(self, keys):
        ad = b"point" + self.id + self.line + self.made_on + \
            struct.pack("<I", self.flags) + self.body[56:64] + struct.pack("<q", self.source_ns)
        for ident, size, covered, role in self.disks:
            ad += ident + struct.pack("<QQB", size, covered, role)
        plain = keys.blob(self.sealed, ad)
        if plain is None:
            raise Gone("the header of a point does not open")
        self.names, at = [], 0
        while at < len(plain):
            tag, n = struct.unpack_from("<HI", plain, at)
            field = plain[at + 6:at + 6 + n]
            at += 6 + n
            if tag == 1:
                self.vm = field.decode()
            elif tag == 5:
                self.set = int.from_bytes(field, "little")
            elif tag == 8:
                self.names.append(field.split(b"\0")[0].decode())


class Store:
    def __init__(self, folder, seed, replica=None):
        self.store, log = read_log(folder)
        if not log:
            raise Gone("%s holds no records" % folder)
        self.keys = Keys(seed, log)
        self.chunks, self.points, self.kept, rows = {}, {}, [], {}
        self.elsewhere, self.replicas = set(), "?"
        self.add_chunks(log)
        if replica is not None:
            self.add_chunks(read_log(replica)[1])
        done = set()
        for seq, kind, _, _, payload in sorted(log, key=lambda r: r[0]):
            if kind not in (3, 4) or seq in done:
                continue
            done.add(seq)
            if kind == 3:
                self.map_record(payload, rows)
            else:
                self.commit(payload, rows)

    def add_chunks(self, log):
        for _, kind, encoding, key, payload in sorted(log, key=lambda r: r[0]):
            if kind == 2:
                # Where several hosts send, any of them may have sent junk.
                self.chunks.setdefault(payload[:32], []).append((encoding, key, payload))
            elif kind == 6:
                for i in range(r32(payload, 0)):
                    self.elsewhere.add(payload[16 + 40 * i:48 + 40 * i])
        for records in self.chunks.values():
            # A whole one serves where deltas are made upon it, too.
            records.sort(key=lambda r: r[0] > 1)

    @staticmethod
    def map_record(p, rows):
        mine, disk = rows.setdefault(p[:16], {}), p[32:48]
        at = 56
        for _ in range(r32(p, 48)):
            first, count, kind = struct.unpack_from("<QII", p, at)
            at += 16
            for i in range(count):
                mine[disk, first + i] = p[at:at + 32] if kind else bytes(32)
                at += 32 * kind

    def commit(self, p, rows):
        at, folded = 8, None
        while at < len(p):
            kind, _, n = struct.unpack_from("<HHI", p, at)
            body = p[at + 8:at + 8 + n]
            at += 8 + n
            if kind == 3:
                self.add(Point(body, rows.pop(body[:16], {}), folded))
                folded = None
            elif kind == 12:
                folded = body
            elif kind == 4:
                self.kept = [x for x in self.kept if x.id != body]
            elif kind == 14:
                self.replicas = body.decode()
            elif kind not in (1, 2, 8, 9) and not kind & 0x8000:
                raise Gone("an entry of a newer version")

    def add(self, x):
        line = [y for y in self.kept if y.line == x.line]
        ids = [y.id for y in line]
        if x.base == bytes(16) or x.base in ids:
            for y in line[ids.index(x.base) + 1 if x.base in ids else 0:]:
                self.kept.remove(y)
        self.points[x.id] = x
        base = self.points.get(x.base)
        if base is not None and base.flags & 1 and base in self.kept:
            self.kept.remove(base)
        self.kept.append(x)

    def along(self, x):
        """The point, its base, and so on; raises where one of them cannot be trusted."""
        while True:
            if x.damaged:
                raise Gone("a part of the map is damaged")
            yield x
            if x.base == bytes(16) or x.flags & 4:
                return
            x = self.points.get(x.base)
            if x is None:
                raise Gone("a point that it builds upon is lost")

    def map_of(self, x):
        found = {}
        sizes = {d[0]: (d[1] + WINDOW - 1) // WINDOW for d in x.disks}
        for y in self.along(x):
            for (disk, w), ident in y.rows.items():
                if disk in sizes and w < sizes[disk]:
                    found.setdefault((disk, w), ident)
        found = {k: v for k, v in found.items() if v != bytes(32)}
        if row_sum(found, self.keys.set) != x.set:
            raise Gone("the map is not the one that was committed")
        return found

    def listed(self):
        for x in self.kept:
            if x.flags & 1:
                continue
            try:
                x.open(self.keys)
                yield x
            except Gone as why:
                say("%s: %s" % (x.id.hex(), why))

    def restore(self, x, folder):
        found = self.map_of(x)
        for (ident, size, _, _), name in zip(x.disks, x.names):
            with open(os.path.join(folder, name + ".raw"), "wb") as f:
                f.truncate(size)
                for (disk, w), chunk in found.items():
                    if disk != ident:
                        continue
                    if chunk not in self.chunks and chunk in self.elsewhere:
                        raise Gone("%s: the bytes of window %d are at replica %s" %
                                   (name, w, self.replicas))
                    if chunk not in self.chunks:
                        raise Gone("%s: the bytes of window %d are lost" % (name, w))
                    f.seek(w * WINDOW)
                    f.write(self.keys.chunk(self.chunks, chunk)[:size - w * WINDOW])


def main(argv):
    if len(argv) < 4:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        store = Store(argv[1], seed_of(open(argv[2]).read()), argv[6] if len(argv) > 6 else None)
        if argv[3] == "list":
            for x in store.listed():
                print(x.vm, x.id.hex(), x.source_ns,
                      " ".join("%s=%d" % (n, d[1]) for n, d in zip(x.names, x.disks)))
            return 0
        points = [x for x in store.listed() if x.id.hex().startswith(argv[4])]
        if len(points) != 1:
            raise Gone("%d points begin with %s" % (len(points), argv[4]))
        store.restore(points[0], argv[5])
    except Gone as why:
        print("locum_restore: %s" % why, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
