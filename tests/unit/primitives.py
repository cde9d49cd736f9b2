"""What the makers of test vectors need: primitives of cryptography, written down from their papers on
top of Python's standard library.  Shares no code with the product, and is no example: it is slow and
not constant in time.
"""
import hashlib
import struct


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


def chacha20poly1305(key, nonce, msg, ad):
    """Ciphertext, then tag; a nonce of 12 bytes."""
    def state(i):
        return SIGMA + words(key) + [i] + words(nonce)

    cipher = xor(msg, stream(chacha_rounds, state, 1, len(msg)))
    tag = poly1305(stream(chacha_rounds, state, 0, 32),
                   pad16(ad) + pad16(cipher) + struct.pack("<QQ", len(ad), len(cipher)))
    return cipher + tag


def xchacha20poly1305(key, nonce, msg, ad):
    """Ciphertext, then tag."""
    return chacha20poly1305(hchacha20(key, nonce[:16]), bytes(4) + nonce[16:], msg, ad)


def counting(first, n):
    return bytes((first + i) & 255 for i in range(n))


def emit(name, data):
    print("static const uint8_t %s[%d] = {" % (name, len(data)))
    for i in range(0, len(data), 16):
        print("\t" + " ".join("0x%02x," % b for b in data[i:i + 16]))
    print("};")
