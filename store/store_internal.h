/**
 * store_internal: what the files of the facade (store, replay, writer, view, scrub) share.  Not for
 * other rooms.
 *
 * Order of locks: commit_lock, flush_lock, a writer's lock, log_lock, then the catalog's own.
 */
#ifndef LOCUM_STORE_INTERNAL_H
#define LOCUM_STORE_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "store/catalog.h"
#include "store/fold.h"
#include "store/idindex.h"
#include "store/keyring.h"
#include "store/segment.h"
#include "store/store.h"
#include "store/thin.h"

#define STORE_IDENTITY_FILE "store"
#define STORE_PASSPHRASE_FILE "keys/passphrase"
#define FLUSH_BYTES (16u << 20) /* that wait for the catalog, on disk and in memory */
/* What the catalog's damage is of, beside types of records. */
#define DAMAGE_MISSING 256
#define DAMAGE_FOREIGN 257

#define RECENT_KEEP 64u /* newest points whose rows stay ordered by generation */

struct pending { /* appended, not yet in the catalog */
	struct pending *next, *prev;
	struct record r;
	struct map_record *map; /* of a MAP record, with chunk numbers */
	struct lc_buf commit;   /* payload of a COMMIT, STUBS or VOUCH record */
	struct lc_buf bases;    /* ids, of a CHUNK record that is a delta */
};

struct group_entry; /* group.h */
struct incoming;    /* incoming.c */
struct signatures;  /* signatures.h */
struct bases;       /* bases.h */
struct pages;       /* pages.h */

struct store {
	char *dir;
	char *segments_dir;
	char tag[17];
	uint8_t id[16];
	uint8_t domain[16];
	bool writable;
	bool identity_lost; /* it came from a segment */
	int lock_fd;
	struct keyring *keyring; /* NULL: blind */
	struct segments *segments;
	struct catalog *catalog;
	struct idindex *index;
	struct fold *fold;
	struct bases *bases;
	struct signatures *signatures; /* NULL: none are kept */
	struct pages *pages;           /* NULL: similar windows are not looked for */

	bool broken;              /* the catalog could not follow the log */
	pthread_mutex_t log_lock; /* appending, `broken`, `pending` and `applying` */
	struct pending_list {
		struct pending *first, *last; /* in order of sequence */
	} pending, applying; /* applying: taken off pending; the catalog may not know them yet */
	_Atomic uint64_t pending_bytes; /* of it, in the log and in memory; read without the lock */
	_Atomic uint64_t applied_seq;   /* the catalog knows all up to it; 0: not told */
	uint64_t flush_bytes;           /* at which a writer flushes; tests want less */

	pthread_mutex_t flush_lock;

	pthread_mutex_t commit_lock;
	pthread_cond_t commit_cond;
	struct group_entry *waiting, **waiting_tail;
	bool committing;

	thin_fetch_cb *fetch; /* contents that are not here; NULL: nobody is asked */
	void *fetch_arg;

	pthread_mutex_t writers_lock;
	struct writer *writers; /* one per VM at most */
	struct seed {           /* a line whose newest point is a pass (seeds.h) */
		struct seed *next;
		uint8_t line[16], vm[16], id[16];
	} * seeds;
	struct incoming *incomings; /* one per line at most */
};

/** store_append(s, r, payload, map, e): append a record and queue it for the catalog.  Takes map.
 * Thread: any. */
int store_append(struct store *s, struct record *r, const uint8_t *payload, struct map_record *map,
                 struct lc_err *e);
/**
 * store_append_chunk(s, r, payload, no, e):
 * As above for a chunk; if the same id was appended meanwhile nothing is, and *no is that one's
 * number.
 */
int store_append_chunk(struct store *s, struct record *r, const uint8_t *payload, uint64_t *no,
                       struct lc_err *e);
/**
 * store_find_base(s, writer, id, no, e): number of a chunk that a delta may be made upon: it is
 * whole, its bytes are here and were not found to be bad.  LC_ENOENT.  Thread: any.
 */
int store_find_base(struct store *s, uint16_t writer, const uint8_t id[32], uint64_t *no,
                    struct lc_err *e);
/**
 * store_relieve(s, e): store_flush(), if much waits and nobody is at it, or very much does.  So
 * what waits does not grow with what is appended.  Thread: any that holds no lock of the store or
 * of a writer.
 */
int store_relieve(struct store *s, struct lc_err *e);
/** store_flush(s, e): make all that was appended durable, then known to the catalog. */
int store_flush(struct store *s, struct lc_err *e);
/**
 * store_commit(s, build, arg, e):
 * Flush to disk and apply; then, with every other commit shut out, build() makes the payload of a
 * COMMIT record by what the catalog says now; that is appended, flushed and applied.  A payload
 * that stays empty is none.
 *
 * Durable: the commit, on return of 0.  On failure it may be on disk or not: the next open decides.
 */
int store_commit(struct store *s, int (*build)(void *arg, struct lc_buf *payload, struct lc_err *e),
                 void *arg, struct lc_err *e);
/**
 * store_discard(s, point):
 * Forget the rows of a point in the making, once what is pending has reached the catalog.  Best
 * effort: the next owner would purge them too.
 */
void store_discard(struct store *s, const uint8_t point[16]);
/** store_flush_index(s, durable_upto): idindex_flush(); a failure is a warning. */
void store_flush_index(struct store *s, uint64_t durable_upto);

/** store_forget_pending(s): free what waits for the catalog; nobody else is in the store. */
void store_forget_pending(struct store *s);

/** store_identity_write(dir, id, domain, e): the identity file (FORMAT.md "Identity file"). */
int store_identity_write(const char *dir, const uint8_t id[16], const uint8_t domain[16],
                         struct lc_err *e);
/** store_identity_read(s, e): s->id, domain and tag; LC_ENOENT where s->dir is no store. */
int store_identity_read(struct store *s, struct lc_err *e);
/** store_open_segments(s, o, e): s->segments. */
int store_open_segments(struct store *s, const struct store_opts *o, struct lc_err *e);
/** store_open_keys(s, o, e): s->keyring, by the way that o names; NULL with o->no_key. */
int store_open_keys(struct store *s, const struct store_opts *o, struct lc_err *e);
/** store_read_passphrase(path, out, e): its line without the newline.  Secret: the caller wipes
 * it. */
int store_read_passphrase(const char *path, struct lc_buf *out, struct lc_err *e);
/** store_key_path(key_dir, domain): path of the host's key file, or NULL; free with lc_free(). */
char *store_key_path(const char *key_dir, const uint8_t domain[16]);

/** store_chunk_row(s, no, r, e): catalog_chunk(), or of what the owner's catalog is to learn yet
 * and can be read from the log all the same.  That may not be durable, but what is appended now is
 * so no earlier. */
int store_chunk_row(struct store *s, uint64_t no, struct record *r, struct lc_err *e);
/**
 * store_chunk_payload(s, no, buf, r, e):
 * The CHUNK payload of a chunk into buf[RECORD_PAYLOAD_MAX], from here or (thin.h) elsewhere; *r
 * says its id, encoding, key and length, and where it lies.  The payload's own id is r's; nothing
 * else of it was looked at.
 *
 * Returns  0; LC_ENOENT: no such chunk, or it is elsewhere and nobody can be asked; LC_ECORRUPT;
 *          what fetching failed with.
 */
int store_chunk_payload(struct store *s, uint64_t no, uint8_t *buf, struct record *r,
                        struct lc_err *e);
/** store_payload_at(s, no, buf, r, e): the same of one that the catalog says to be at *r
 * (catalog_chunks()); where it was moved since, *r says that. */
int store_payload_at(struct store *s, uint64_t no, uint8_t *buf, struct record *r,
                     struct lc_err *e);
/** store_payload_from(s, from, no, buf, r, e): the same, where what is elsewhere comes from there;
 * NULL: as thin_fetch() said. */
int store_payload_from(struct store *s, const struct thin_source *from, uint64_t no, uint8_t *buf,
                       struct record *r, struct lc_err *e);
/** store_fetch_payload(s, from, id, buf, r, e): the same of a chunk that nothing here stands for.
 */
int store_fetch_payload(struct store *s, const struct thin_source *from, const uint8_t id[32],
                        uint8_t *buf, struct record *r, struct lc_err *e);
/** chunk_reader_from(r, from): what is elsewhere comes from there; borrowed. */
void chunk_reader_from(struct chunk_reader *r, const struct thin_source *from);
/** store_need_ids(s, e): fold_find() is going to be used.  In a store that is only read that is
 * made ready for it, which takes reading what its owner has not put into the index yet. */
int store_need_ids(struct store *s, struct lc_err *e);
/** thin_settle(s, e): finish what a dead owner was making thin. */
int thin_settle(struct store *s, struct lc_err *e);
/** thin_behind(s, list, n, behind, e): set it where the catalog does not know of a thin segment. */
int thin_behind(struct store *s, const struct segment_info *list, size_t n, bool *behind,
                struct lc_err *e);

/** replay_tail(s, e): take up the log beyond the catalog's position and get ready to append. */
int replay_tail(struct store *s, struct lc_err *e);
/** replay_all(s, e): make the catalog from nothing; reads the indexes of sealed segments, scans
 * where they are bad. */
int replay_all(struct store *s, struct lc_err *e);
/** replay_behind(s, behind, e): whether the log holds commits that the catalog does not know. */
int replay_behind(struct store *s, bool *behind, struct lc_err *e);
/** replay_position_ok(s, ok, e): whether the catalog is complete, up to a record that this log
 * has. */
int replay_position_ok(struct store *s, bool *ok, struct lc_err *e);

/**
 * chunk_bases(r, owner, ids, n, bases, e):
 * The contents of n chunks (at most CHUNK_BASES_MAX), which must be whole, one after the other:
 * borrowed until r is used again.  owner: number of a delta upon them, or 0.  LC_ECORRUPT: one is
 * not here, is a delta, or is bad.
 */
int chunk_bases(struct chunk_reader *r, uint64_t owner, const uint8_t *ids, size_t n,
                const uint8_t **bases, struct lc_err *e);

/** chunk_read_bases(r, chunk, ids, n): the ids[CHUNK_BASES_MAX * CHUNK_ID_SIZE] that a delta is
 * made upon.  Not authentic before the chunk was read. */
int chunk_read_bases(struct chunk_reader *r, uint64_t chunk, uint8_t *ids, size_t *n);

/** store_point_of(s, cp, out, e): a catalog row as a point, opened where there is a key. */
int store_point_of(struct store *s, const struct catalog_point *cp, struct point *out,
                   struct lc_err *e);
/** store_vm_name(s, vm, dst): name of a VM, or its id in hex without the key. */
void store_vm_name(struct store *s, const struct catalog_vm *vm, char dst[POINT_NAME_MAX]);
/** store_users(s, no, on, arg, text, n, e): who needs a chunk: on() for each point (disk by disk),
 * and text for people, as store_scrub() says it.  Slow: the whole map. */
int store_users(struct store *s, uint64_t no,
                int (*on)(void *arg, const struct catalog_point *p, struct lc_err *e), void *arg,
                char *text, size_t n, struct lc_err *e);
/** condemn_line(s, d, line): the line that a damaged MAP record is of; false: those bytes are bad.
 */
bool condemn_line(struct store *s, const struct damage *d, uint8_t line[16]);
/** condemn_settled(s, d): that damage was put down (store_condemn()), and every line that had to
 * has a point since that stands by itself: what is readable now does not depend on it. */
bool condemn_settled(struct store *s, const struct damage *d);
/** lease_take(s, point, path, fd, e): hold a lease; *fd = -1 where the store can't be written:
 * then it is read without.  LC_ENOENT: it is being dropped.  lease_give(path, fd) ends it. */
int lease_take(struct store *s, const uint8_t point[16], char **path, int *fd, struct lc_err *e);
void lease_give(char **path, int *fd);
/** store_leased(s, point, e): LC_EBUSY if a reader has it, or something that is kept stands on it.
 */
int store_leased(struct store *s, const uint8_t point[16], struct lc_err *e);
/**
 * lease_bar(s, point, path, fd, e):
 * From now on no lease is to be had on the point, until lease_give(): it is being dropped.  Who
 * drops bars, then looks at the leases; who reads takes a lease, then looks at the bar: one sees
 * the other.
 */
int lease_bar(struct store *s, const uint8_t point[16], char **path, int *fd, struct lc_err *e);

struct view {
	struct store *s;
	struct point p;
	int lease_fd; /* -1 where the store can't be written: nobody drops points there */
	char *lease_path;
};

#endif
