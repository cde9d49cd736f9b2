#!/usr/bin/env python3
"""Makes vectors_keys.h: a key domain, a chunk and a blob, by another implementation.

Nothing here shares code with the store: the primitives are written down from their papers on
top of Python's standard library, and the formats from docs/FORMAT.md.
"""
import hashlib
import struct

# Primitives


def blake2b(data, size=32, key=b""):
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


def rotl(v, n):
    return (v << n | v >> 32 - n) & 0xFFFFFFFF


def words(b):
    return list(struct.unpack("<%dI" % (len(b) // 4), b))


def salsa_rounds(x):
    def quarter(a, b, c, d):
        x[b] ^= rotl((x[a] + x[d]) & 0xFFFFFFFF, 7)
        x[c] ^= rotl((x[b] + x[a]) & 0xFFFFFFFF, 9)
        x[d] ^= rotl((x[c] + x[b]) & 0xFFFFFFFF, 13)
        x[a] ^= rotl((x[d] + x[c]) & 0xFFFFFFFF, 18)

    for _ in range(10):
        for q in ((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11),
                  (0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14)):
            quarter(*q)


def chacha_rounds(x):
    def quarter(a, b, c, d):
        for (i, j, k, n) in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            x[i] = (x[i] + x[j]) & 0xFFFFFFFF
            x[k] = rotl(x[k] ^ x[i], n)

    for _ in range(10):
        for q in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
                  (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
            quarter(*q)


SIGMA = words(b"expand 32-byte k")


def salsa_state(key, block16):
    k, n = words(key), words(block16)
    return [SIGMA[0]] + k[:4] + [SIGMA[1]] + n + [SIGMA[2]] + k[4:] + [SIGMA[3]]


def hsalsa20(key, block16):
    x = salsa_state(key, block16)
    salsa_rounds(x)
    return struct.pack("<8I", *(x[i] for i in (0, 5, 10, 15, 6, 7, 8, 9)))


def hchacha20(key, block16):
    x = SIGMA + words(key) + words(block16)
    chacha_rounds(x)
    return struct.pack("<8I", *(x[:4] + x[12:]))


def stream(rounds, state, counter, n):
    """state(i) is the input of block i."""
    out = b""
    while len(out) < n:
        s = state(counter)
        x = list(s)
        rounds(x)
        out += struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(x, s)))
        counter += 1
    return out[:n]


def poly1305(key, msg):
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    acc = 0
    for i in range(0, len(msg), 16):
        acc = (acc + int.from_bytes(msg[i:i + 16] + b"\1", "little")) * r % (2**130 - 5)
    return ((acc + int.from_bytes(key[16:], "little")) % 2**128).to_bytes(16, "little")


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def secretbox(key, nonce, msg):
    """XSalsa20-Poly1305: tag, then ciphertext."""
    sub = hsalsa20(key, nonce[:16])
    ks = stream(salsa_rounds,
                lambda i: salsa_state(sub, nonce[16:] + struct.pack("<Q", i)), 0, 32 + len(msg))
    cipher = xor(msg, ks[32:])
    return poly1305(ks[:32], cipher) + cipher


def sealed_box(msg, public, ephemeral):
    """crypto_box_seal of libsodium with a chosen ephemeral secret."""
    eph_public = x25519(ephemeral, b"\x09" + bytes(31))
    nonce = blake2b(eph_public + public, 24)
    key = hsalsa20(x25519(ephemeral, public), bytes(16))
    return eph_public + secretbox(key, nonce, msg)


def pad16(b):
    return b + bytes(-len(b) % 16)


def xchacha20poly1305(key, nonce, msg, ad):
    """Ciphertext, then tag."""
    sub = hchacha20(key, nonce[:16])

    def state(i):
        return SIGMA + words(sub) + [i, 0] + words(nonce[16:])

    cipher = xor(msg, stream(chacha_rounds, state, 1, len(msg)))
    tag = poly1305(stream(chacha_rounds, state, 0, 32),
                   pad16(ad) + pad16(cipher) + struct.pack("<QQ", len(ad), len(cipher)))
    return cipher + tag


# Formats

SYMBOLS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def code_of(seed):
    n = int.from_bytes(seed, "big")
    v = n << 20 | (n << 20) % 1048517
    text = "".join(SYMBOLS[v >> 5 * i & 31] for i in range(35, -1, -1))
    return "-".join(text[i:i + 4] for i in range(0, 36, 4))


def counting(first, n):
    return bytes((first + i) & 255 for i in range(n))


seed = counting(0x10, 20)
code = code_of(seed)
box_seed = blake2b(b"locum recovery v1", key=seed)
box_secret = hashlib.sha512(box_seed).digest()[:32]
public = x25519(box_secret, b"\x09" + bytes(31))
auth = blake2b(b"locum auth v1", key=seed)
domain = blake2b(b"locum domain v1" + public)[:16]
master, id_key, data_key = counting(0x40, 32), counting(0x60, 32), counting(0x80, 32)
set_key = blake2b(b"locum set v1", key=id_key)


def wrap(kind, number, key, ephemeral):
    tag = blake2b(b"locum wrap v1\0\0\0" + domain + struct.pack("<BxxxI", kind, number) + key,
                  key=id_key if kind == 3 else auth)
    box = sealed_box(key + tag, public, ephemeral)
    return struct.pack("<BBHI", kind, 0, len(box), number) + box


keys = domain + public + struct.pack("<H", 3) + wrap(1, 0, master, counting(1, 32)) + \
    wrap(2, 0, id_key, counting(2, 32)) + wrap(3, 1, data_key, counting(3, 32))

nonce = counting(0xa0, 24)
window = bytes([0x5a]) * 65536
chunk_id = blake2b(window, key=id_key)
# A zstd frame of one block that repeats one byte: magic, no sizes, window of 64 KiB, last block.
frame = bytes.fromhex("28b52ffd") + bytes([0x00, 0x30]) + \
    struct.pack("<I", 65536 << 3 | 1 << 1 | 1)[:3] + b"\x5a"
head = chunk_id + struct.pack("<IB3x", 65536, 0)
chunk_ad = b"locum chunk v1\0\0" + domain + struct.pack("<IB3xI", 1, 1, 65536) + chunk_id
chunk = head + nonce + xchacha20poly1305(data_key, nonce, frame, chunk_ad)

blob_ad, blob_plain = b"point 7", b"web01"
blob = struct.pack("<I", 1) + nonce + xchacha20poly1305(
    data_key, nonce, blob_plain, b"locum blob v1\0\0\0" + domain + struct.pack("<I", 1) + blob_ad)

disk = counting(0xc0, 16)
row = disk + struct.pack("<Q", 0x0102030405) + chunk_id
zero_row = disk + struct.pack("<Q", 7) + bytes(32)
rows = blake2b(row, key=set_key), blake2b(zero_row, key=set_key)
total = (sum(int.from_bytes(r, "little") for r in rows) % 2**256).to_bytes(32, "little")


def emit(name, data):
    print("static const uint8_t %s[%d] = {" % (name, len(data)))
    for i in range(0, len(data), 16):
        print("\t" + " ".join("0x%02x," % b for b in data[i:i + 16]))
    print("};")


print("/* Made by vectors_keys.py. */")
print("#ifndef LOCUM_TESTS_VECTORS_KEYS_H\n#define LOCUM_TESTS_VECTORS_KEYS_H\n")
print("#include <stdint.h>\n\n/* clang-format off */")
print('#define VECTOR_CODE "%s"' % code)
for name, data in (("seed", seed), ("domain", domain), ("id_key", id_key), ("data_key", data_key),
                   ("set_key", set_key), ("keys", keys), ("chunk_id", chunk_id), ("chunk", chunk),
                   ("blob", blob), ("disk", disk), ("row", rows[0]), ("row_keyless", blake2b(row)),
                   ("rows_sum", total)):
    emit("vector_" + name, data)
print("/* clang-format on */\n\n#endif")
