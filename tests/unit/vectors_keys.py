#!/usr/bin/env python3
"""Makes vectors_keys.h: a key domain, a chunk and a blob, by another implementation.

Nothing here shares code with the store: primitives.py is written down from the papers, and the
formats from docs/FORMAT.md.
"""
import hashlib
import struct

from primitives import blake2b, counting, emit, sealed_box, x25519, xchacha20poly1305

# Formats

SYMBOLS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def code_of(seed):
    n = int.from_bytes(seed, "big")
    v = n << 20 | (n << 20) % 1048517
    text = "".join(SYMBOLS[v >> 5 * i & 31] for i in range(35, -1, -1))
    return "-".join(text[i:i + 4] for i in range(0, 36, 4))


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
