/**
 * vault: a store in a temporary folder, and windows whose content a number tells.
 *
 * A code names the content of a window: 0 is all zeros, any other number fills it by a rule, so
 * that tests remember numbers instead of bytes.  Some codes compress to nearly nothing, some not at
 * all.
 */
#ifndef LOCUM_TESTS_VAULT_H
#define LOCUM_TESTS_VAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/keyring.h"
#include "store/segment.h"
#include "store/store.h"

struct vault {
	char *top;                /* temporary folder of everything here */
	char dir[256], keys[256]; /* store, host keys */
	char kit[256];
	char code[RECOVERY_CODE_MAX];
	uint64_t segment_bytes; /* 0: the product's size */
	uint64_t cache_bytes;
	uint64_t similar_bytes; /* of the index of pages; 0: none */
	struct store *s;        /* NULL while it is closed */
};

/** vault_make(v, fast): init a store; fast: in memory where the system has a place for that. */
void vault_make(struct vault *v, bool fast);
/** vault_make_beside(v, first, keys): another store, empty, in the key domain of the first; keys:
 * its KEYS payload. */
void vault_make_beside(struct vault *v, const struct vault *first, struct lc_span keys);
/** vault_open(v): open for writing into v->s; asserts. */
void vault_open(struct vault *v);
/** vault_try(v, mode, out, e): open some other way; no assertion. */
int vault_try(const struct vault *v, enum store_mode mode, struct store **out, struct lc_err *e);
void vault_close(struct vault *v);
/** vault_free(v): close and remove. */
void vault_free(struct vault *v);
/** vault_path(v, name): "<store>/name" in one of four static buffers. */
const char *vault_path(const struct vault *v, const char *name);
/** vault_key_file(v): the host's key file; static. */
const char *vault_key_file(const struct vault *v);
/** vault_copy(from, to): copy a folder with all in it; as it is on disk at the moment. */
void vault_copy(const char *from, const char *to);

/* A record of the log, or a part of a file that is none. */
struct vault_piece {
	struct record r; /* type 0: header or trailer of the segment */
	bool sealed;
	uint64_t off, n; /* in its file */
};
/** vault_pieces(dir, pieces, n): all of them, by file and offset; free() the array.  The store is
 * closed. */
void vault_pieces(const char *dir, struct vault_piece **pieces, size_t *n);
/** vault_piece_of(dir, type, nth, out): the nth (from 0; -1: the last) record of a type; false if
 * there is none. */
bool vault_piece_of(const char *dir, int type, int nth, struct vault_piece *out);
/** vault_flip(dir, p, at, bits): change bits of the byte `at` of a piece. */
void vault_flip(const char *dir, const struct vault_piece *p, uint64_t at, uint8_t bits);
/** vault_write(dir, p, at, bytes, n): write bytes over a piece. */
void vault_write(const char *dir, const struct vault_piece *p, uint64_t at, const void *bytes,
                 size_t n);
/** vault_sum(dir): a hash over names and bytes of the segments. */
uint64_t vault_sum(const char *dir);

#define VAULT_EDITS_SHIFT 32
#define VAULT_EDIT (UINT64_C(1) << VAULT_EDITS_SHIFT)
/** vault_fill(code, window): the content that a code names; code + n * VAULT_EDIT is the same with
 * n small changes, of which n - 1 are those of the one before. */
void vault_fill(uint64_t code, uint8_t window[WINDOW_SIZE]);

/** vault_mix(code, pages): the last of its pages but so many (1 to 15), then so many of the first
 * of code + 5: files that lie elsewhere.  May be edited.  code: below 2^26, and 5 divides it where
 * the pages are to hold more than zeros. */
uint64_t vault_mix(uint64_t code, unsigned pages);

struct vault_disk {
	char name[32];
	uint64_t size;   /* bytes */
	uint64_t *codes; /* [point_windows(size)] */
};
/** vault_disk(name, windows): all zero. */
struct vault_disk vault_disk(const char *name, uint64_t windows);
/** vault_disk_copy(d): a copy with codes of its own. */
struct vault_disk vault_disk_copy(const struct vault_disk *d);
/** vault_disk_resize(d, size): new windows are zero; a last window that is cut keeps no more than
 * its part. */
void vault_disk_resize(struct vault_disk *d, uint64_t size);
void vault_disk_free(struct vault_disk *d);

/**
 * vault_begin(s, vm, disks, n, e): writer_begin() and writer_disks().
 * vault_fork(s, vm, at, disks, n, e): the same, on a new line that begins at that point.
 * vault_put(w, disk, d, window, e): writer_put() of what the model says.
 */
struct writer *vault_begin(struct store *s, const char *vm, const struct vault_disk *disks,
                           size_t n, struct lc_err *e);
struct writer *vault_fork(struct store *s, const char *vm, const uint8_t *at,
                          const struct vault_disk *disks, size_t n, struct lc_err *e);
int vault_put(struct writer *w, size_t disk, const struct vault_disk *d, uint64_t window,
              struct lc_err *e);
/** vault_backup(s, vm, disks, n, p, e): a whole point: every window is put. */
int vault_backup(struct store *s, const char *vm, const struct vault_disk *disks, size_t n,
                 struct point *p, struct lc_err *e);
/**
 * vault_compare(s, id, disks, n, e):
 * 0 where the point has these disks with these sizes and contents, each byte read through
 * chunk_read(); what differs is in *e.
 */
int vault_compare(struct store *s, const uint8_t id[POINT_ID_SIZE], const struct vault_disk *disks,
                  size_t n, struct lc_err *e);
/** vault_verify(s, id, e): store_view() and view_verify(). */
int vault_verify(struct store *s, const uint8_t id[POINT_ID_SIZE], struct lc_err *e);
/** vault_spoil(v, nth, rebuild): a bit of the nth chunk is another one; it was closed meanwhile,
 * and its catalog made again where that is wanted. */
void vault_spoil(struct vault *v, int nth, bool rebuild);
/** vault_on_damage(damage, d): for store_scrub(): the last one. */
void vault_on_damage(void *damage, const struct damage *d);
/** vault_have_all(unused, ids, n, bits, e): for thin_opts.have: the other side has everything. */
int vault_have_all(void *unused, const uint8_t *ids, size_t n, uint8_t *bits, struct lc_err *e);

/** vault_random(seed, n): below n; a small generator of its own, the same everywhere. */
uint64_t vault_random(uint64_t *seed, uint64_t n);

#endif
