/**
 * store: a directory of restore points.
 *
 * The facade of this room: everything outside uses this header (and point.h for what a point is).
 * Writing needs the store's lock, one process at a time; reading needs none.  A reader holds a
 * lease on its point, so that nobody drops it meanwhile.
 *
 * Nothing here knows an event loop; every call blocks.
 */
#ifndef LOCUM_STORE_H
#define LOCUM_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"
#include "store/point.h"

struct store;
struct view;
struct writer;

/* ---- make and open ---- */

#define STORE_PATH_MAX 4096u

struct store_made {               /* what store_init() made */
	char id[33], domain[33];  /* hex */
	char kit[STORE_PATH_MAX]; /* the recovery kit */
	char key[STORE_PATH_MAX]; /* the host's key file */
};

struct store_init_opts {
	const char *dir;
	const char *key_dir; /* where the host's key file goes: <key_dir>/<domain hex>.key */
	const char *kit;     /* recovery kit file to write (0600, must not exist); NULL:
	                      * ./locum-recovery-kit-<8 digits of the store's id>.txt */
	const char *passphrase_file; /* wrap the recovery seed with the passphrase in it, or NULL */
	struct store_made *made;     /* filled on success; may be NULL */
};

/**
 * store_init(opts, e):
 * Make an empty store in a new key domain.  The order is: kit, host key, store; so that no store
 * exists whose code was never written.  On failure nothing of it is left.
 *
 * Returns  0; LC_EEXIST where dir is a store or not empty, or the kit is there; LC_EINVAL where the
 *          kit would lie in the store; LC_EBUSY where another init is at it.
 * Durable: all of it, on return of 0.
 */
int store_init(const struct store_init_opts *opts, struct lc_err *e);

enum store_mode { STORE_READ = 0, STORE_WRITE };

struct store_opts {
	const char *dir;
	enum store_mode mode;
	const char *who;             /* "locum backup": for the message that a second owner gets */
	const char *desk;            /* where it listens for such ones (desk.h), or NULL */
	const char *key_dir;         /* look for the host's key file here, then in the kernel
	                              * (unlocked.h), or NULL */
	struct lc_span key_image;    /* else with what store_key_image() gave, or empty */
	const char *recovery_code;   /* else open with the code, or NULL */
	const char *passphrase;      /* else with the passphrase, or NULL */
	const char *passphrase_file; /* else with the one in that file, or NULL */
	bool no_key;                 /* stay blind */
	int64_t wait_ms;             /* how long to wait for the lock */
	uint64_t cache_bytes;        /* catalog cache, 0 = 16 MiB */
	uint64_t segment_bytes;      /* seal segments at this size, 0 = 64 MiB (tests want less) */
	bool rebuild;                /* a writer makes the catalog again in any case */
	uint64_t similar_bytes;      /* a writer with the key keeps an index of pages of at most so
	                              * many bytes, on disk and in memory (pages.h); 0: none */
};

/**
 * store_open(opts, out, e):
 * Open.  What was appended after the catalog's last state is folded in first; a torn tail is cut
 * (writers only).  A missing catalog is rebuilt: in place by a writer, in memory by a reader.
 *
 * Returns  LC_ENOENT (no store there), LC_EBUSY (another owner, named), LC_EKEY (no key, or another
 *          domain's), LC_EVERSION (made by a newer version), LC_EACCES.
 */
int store_open(const struct store_opts *opts, struct store **out, struct lc_err *e);
#define STORE_DESK_MAX 108u /* as the name of a socket */
/** store_desk(dir, path): where the owner that a store has, or had last, listens; "": nowhere. */
void store_desk(const char *dir, char path[STORE_DESK_MAX]);
/** store_failed(s): a write failed, so nothing more is written until the store is opened again.
 * Thread: any. */
bool store_failed(struct store *s);
/**
 * store_check_there(s, e):
 * LC_ENOENT: its folder was removed or moved, or another file system hides it.  What is written
 * then goes where nobody finds it, so the store has failed.  Asks the disk.  Thread: any.
 */
int store_check_there(struct store *s, struct lc_err *e);
/** store_close(s): a writer's open segment stays open for the next one. */
void store_close(struct store *s);
/** store_dir(s), store_id(s), store_tag(s): folder; 16 bytes; the first 8 of them in hex. */
const char *store_dir(const struct store *s);
const uint8_t *store_id(const struct store *s);
const char *store_tag(const struct store *s);
/** store_has_key(s): whether names and contents can be read. */
bool store_has_key(const struct store *s);
/**
 * store_rotate(s, key_dir, e):
 * Start a new data key, for all that is stored from now on, with the host's key file; an owner's
 * store.  LC_EKEY where this host has no such file.
 *
 * Durable: first the key file, then the segment that begins with its seal.  After a crash between
 * the two the next owner begins that segment.
 */
int store_rotate(struct store *s, const char *key_dir, struct lc_err *e);
/** store_save_key(s, key_dir, e): write the host's key file by what the store was opened with: with
 * the code or the passphrase all data keys.  As keyring_save(). */
int store_save_key(struct store *s, const char *key_dir, struct lc_err *e);
/**
 * store_set_passphrase(s, pass, n, e):
 * Let a passphrase of n bytes open this folder, in the place of the one of before.  LC_EKEY where
 * it was not opened with the code or the passphrase.
 */
int store_set_passphrase(struct store *s, const char *pass, size_t n, struct lc_err *e);
/** store_unlock(s, for_ns, e): keep the keys that it was opened with (unlocked_put()). */
int store_unlock(const struct store *s, int64_t for_ns, struct lc_err *e);
/** store_domain(s): 16 bytes, borrowed. */
const uint8_t *store_domain(const struct store *s);
/**
 * store_key_image(s, out, e):
 * The keys that it was opened with, for another process that opens it (store_opts); LC_EKEY where
 * there are none.  Secret: replaces what out holds by one allocation, which the caller wipes.
 */
int store_key_image(const struct store *s, struct lc_buf *out, struct lc_err *e);
/** store_rebuild(opts, e): make the catalog again from the segments alone. Takes the lock. */
int store_rebuild(const struct store_opts *opts, struct lc_err *e);

struct store_key {
	char store[33], domain[33]; /* hex */
	uint8_t domain_id[16];
	char file[STORE_PATH_MAX]; /* where this host's key file is, or should be */
	bool opens;                /* it is there and of the store's domain */
	char why[256];             /* else why not */
	unsigned data_key;         /* number of its newest data key */
	bool passphrase;           /* the store has a passphrase wrap */
};
/** store_key(dir, key_dir, out, e): which keys a store needs, and whether this host has them. */
int store_key(const char *dir, const char *key_dir, struct store_key *out, struct lc_err *e);

/* ---- points ---- */

struct point_list {
	struct point *points; /* oldest first, VM by VM in order of name */
	size_t n;
};

/**
 * store_points(s, vm, out, e):
 * Points of a VM (NULL: all), of all its lines.  Seeds are left out.  A VM is named by its name, or
 * by 8 or more digits of its id, which stands for the name where the store has no key.  LC_ENOENT:
 * unknown VM, nearest suggested.
 */
int store_points(struct store *s, const char *vm, struct point_list *out, struct lc_err *e);
/**
 * store_each_point(s, vm, on, arg, e):
 * The same, one after the other, so that a long list takes no memory (a struct point is 15 KB).  p
 * is borrowed for the call; on() may take definition and left_out out of it.  No transaction is
 * open meanwhile; what is dropped meanwhile is left out.
 */
int store_each_point(struct store *s, const char *vm,
                     int (*on)(void *arg, struct point *p, struct lc_err *e), void *arg,
                     struct lc_err *e);
/** store_points_after(s, line, point, n, e): how many points of a line are newer than that one of
 * it; where that is not here, how many there are. */
int store_points_after(struct store *s, const uint8_t line[16], const uint8_t point[POINT_ID_SIZE],
                       uint64_t *n, struct lc_err *e);
/**
 * store_stands(s, p):
 * Whether p (id, line and VM) is the newest that there is of its VM, a seed included, on the line
 * that the next point will go to, and nothing is known of contents that are bad or gone.  False
 * also where it can't be told.
 */
bool store_stands(struct store *s, const struct point *p);
struct store_vm {
	uint8_t id[16];
	char name[POINT_NAME_MAX]; /* its id in hex without the key */
};
/** store_vms(s, out, n, e): all VMs; free with lc_free(). */
int store_vms(struct store *s, struct store_vm **out, size_t *n, struct lc_err *e);
void point_list_free(struct point_list *l);
/**
 * store_find(s, spec, out, e):
 * "web01", "web01@latest", "web01@2026-11-22T05:00" (newest not after it), "web01@-15m",
 * "web01@<at least 4 digits of the id>"; instead of a name, 8 digits of the VM's id or more do.
 * LC_ENOENT says what there is; LC_EINVAL: several VMs.  Free with point_done().
 */
int store_find(struct store *s, const char *spec, struct point *out, struct lc_err *e);
/** store_drop(s, point, e): fold it into the next one of its line; LC_EBUSY where a reader has
 * it, or something is kept that stands on it. */
int store_drop(struct store *s, const uint8_t point[POINT_ID_SIZE], struct lc_err *e);

/**
 * store_keep(s, point, path, why, e):
 * The point is not dropped for as long as there is a file at path that has the id of the point in
 * it (32 hex digits): until then something stands on it that no reader lives for.  why is what
 * somebody who wants to drop it is told: what stands on it, and how to end that.  Again with the
 * same path: the same.  The caller reads the point meanwhile (store_view()).
 *
 * Returns  0, also where the store can't be written (nobody drops points there); LC_EINVAL where
 *          path or why has a newline.
 * Durable: on return of 0.
 */
int store_keep(struct store *s, const uint8_t point[POINT_ID_SIZE], const char *path,
               const char *why, struct lc_err *e);

/* ---- reading ---- */

/** store_view(s, point, out, e): open a point for reading, with a lease. */
int store_view(struct store *s, const uint8_t point[POINT_ID_SIZE], struct view **out,
               struct lc_err *e);
const struct point *view_point(const struct view *v);
#define VIEW_MAP_MAX 4096u
/**
 * view_map(v, disk, first, n, chunks, e):
 * Chunk numbers of n windows (at most VIEW_MAP_MAX) from window `first` of the disk with that
 * index; 0 = all zero.
 * Thread: any (serialised inside; ask for many at once).
 */
int view_map(struct view *v, size_t disk, uint64_t first, uint32_t n, uint64_t *chunks,
             struct lc_err *e);
void view_close(struct view *v);

struct chunk_reader; /* contexts of one thread */
int chunk_reader_new(struct store *s, struct chunk_reader **out, struct lc_err *e);
void chunk_reader_free(struct chunk_reader *r);
/**
 * chunk_read(r, chunk, window, id, e):
 * Read, decrypt, decode and check one chunk into window[WINDOW_SIZE]; its id into id[] (may be
 * NULL). A failure names segment file, offset and id; it never gives wrong bytes.
 */
int chunk_read(struct chunk_reader *r, uint64_t chunk, uint8_t *window, uint8_t *id,
               struct lc_err *e);
#define CHUNK_MANY 8u
/**
 * chunk_read_many(r, chunks, n, windows, ids, good, e):
 * The first CHUNK_MANY of n chunks (not 0), with their ids, which takes half of the time; the
 * others are those that are read next.  Stops at the first one that can't be read: *good were, and
 * the failure is that of the next.
 */
int chunk_read_many(struct chunk_reader *r, const uint64_t *chunks, size_t n, uint8_t *windows,
                    uint8_t (*ids)[32], size_t *good, struct lc_err *e);
/**
 * view_read_ahead(v, chunks, n):
 * These are read next, in this order (zeros: nothing): the system begins to read what it takes into
 * its cache, while others are decoded.  Some hundred at once; best effort.  Thread: any.
 */
void view_read_ahead(struct view *v, const uint64_t *chunks, uint32_t n);
/**
 * The map that a reader follows comes from the catalog, which has no seal; the point's header has
 * one: a keyed hash over all rows.  So that nobody restores by a map that is another one:
 *
 * view_add(v, disk, window, id, sum): add a row that is followed; id as chunk_read() gave it.
 * view_add_disk(v, disk, stop, arg, sum, e): add all rows of a disk, without reading its chunks;
 * LC_ECANCELED once stop(arg) says so.
 * view_check(v, sum, e): after every row of every disk was added; LC_ECORRUPT where it is another
 * map than the one that was committed.
 *
 * Thread: any; a sum belongs to one thread at a time.
 */
void view_add(const struct view *v, size_t disk, uint64_t window, const uint8_t *id,
              struct set_sum *sum);
int view_add_disk(struct view *v, size_t disk, bool (*stop)(void *arg), void *arg,
                  struct set_sum *sum, struct lc_err *e);
int view_check(const struct view *v, const struct set_sum *sum, struct lc_err *e);

struct verified; /* chunks of a store that were found to be good */
/** verified_new(range, out, e): none yet.  32 MiB where there are so many chunks; range: numbers
 * that are dealt with at once, 0 for the usual. */
int verified_new(uint64_t range, struct verified **out, struct lc_err *e);
void verified_free(struct verified *all);
/**
 * view_verify(v, all, threads, on_progress, arg, e):
 * Read every chunk of the point, but those that are in `all` (NULL: none), to which they are added:
 * each once, in the order in which they lie in the store.  Checksum, seal and id of each, its bases
 * with it, and the set hash over the map.  threads: 0: one for each core.
 *
 * Returns  0; LC_ECORRUPT, with the number of windows, the first one and what is wrong with it;
 *          LC_ENOENT and others where it can't be told.
 */
int view_verify(struct view *v, struct verified *all, unsigned threads,
                void (*on_progress)(void *arg, uint64_t done, uint64_t total), void *arg,
                struct lc_err *e);

/* ---- writing ---- */

struct writer_disk {
	const char *name;
	uint64_t size;
	uint8_t role;
	const char *stamp; /* or NULL */
};

struct writer_opts {
	const char *vm;
	unsigned workers; /* threads that will call writer_put, each with its index */
	int level;        /* zstd level */
	bool whole;       /* store no deltas */
	/* Begin a new line of the VM at this restore point of it (POINT_ID_SIZE bytes): that is the
	 * base, and points made from then on follow the new one.  NULL: go on where the VM is. */
	const uint8_t *fork;
};

/**
 * writer_begin(s, opts, out, e):
 * Start a restore point of a VM (made known to the store by its first commit).  One writer per VM
 * at a time: LC_EBUSY.  LC_ENOENT: no such point to begin a line at.
 */
int writer_begin(struct store *s, const struct writer_opts *opts, struct writer **out,
                 struct lc_err *e);
/** writer_base(w): newest point or seed of the VM, or NULL. Borrowed. */
const struct point *writer_base(const struct writer *w);
/**
 * writer_base_damaged(w, seen, damaged, e):
 * Whether the base names contents that are known to be bad or gone, and that only come back where
 * the disks are read as a whole.  seen: how much damage there was when the line's newest point had
 * none of it, to begin with 0; the caller keeps it, so that the map is read once and not for each
 * point (slow: all of it, where there is damage at all).
 */
int writer_base_damaged(struct writer *w, uint64_t *seen, bool *damaged, struct lc_err *e);
/** writer_id(w): id of the point being made, POINT_ID_SIZE bytes. */
const uint8_t *writer_id(const struct writer *w);
/** writer_disks(w, disks, n, e): what the VM's disks are now; once, before the first put. Disks are
 *  matched with the base's by name and role; a disk that shrank gets zero rows, one that is gone
 *  ends. */
int writer_disks(struct writer *w, const struct writer_disk *disks, size_t n, struct lc_err *e);
/** writer_known(w, disk): whether the base has this disk (else every window is new). */
bool writer_known(const struct writer *w, size_t disk);

enum put_result { PUT_ZERO_SAME = 0, PUT_ZERO, PUT_SAME, PUT_KNOWN, PUT_NEW };
/**
 * writer_put(w, worker, disk, window, data, result, e):
 * One window (WINDOW_SIZE bytes, the disk's last one zero-padded): zero? same as in the base?
 * known? else compressed, sealed, appended.  Thread: any, with its own worker index; each window at
 * most once per writer.
 */
int writer_put(struct writer *w, unsigned worker, size_t disk, uint64_t window, const uint8_t *data,
               enum put_result *result, struct lc_err *e);
/** writer_put_run(w, worker, disk, first, n, data, e): n windows from `first` on, which takes less
 * than one after the other. */
int writer_put_run(struct writer *w, unsigned worker, size_t disk, uint64_t first, size_t n,
                   const uint8_t *data, struct lc_err *e);
/**
 * writer_has_content(w, disk, first, n, found, e):
 * Whether the base has anything but zeros in a range.  Takes time by what was ever written there,
 * not by its size: it gives up, with false, behind more than a million windows of which there are
 * rows, all of zeros.  Thread: any.
 */
int writer_has_content(struct writer *w, size_t disk, uint64_t first, uint64_t n, bool *found,
                       struct lc_err *e);
/** writer_zeros(w, disk, first, n, e): a range known to be zero (a hole). Thread: any. */
int writer_zeros(struct writer *w, size_t disk, uint64_t first, uint64_t n, struct lc_err *e);

struct writer_stats {
	uint64_t zero, same, known, fresh; /* windows */
	uint64_t stored;                   /* bytes appended */
};
void writer_stats(const struct writer *w, struct writer_stats *out);

struct commit_opts {
	int64_t source_ns;
	int64_t pause_ns;
	uint8_t consistency;
	bool seed;               /* an incomplete pass: covered[] says how far it came */
	const uint64_t *covered; /* [ndisks] windows, with seed */
	const char *definition;  /* may be NULL */
	const char *left_out;    /* may be NULL */
	const char *freeze;      /* what came of asking the guest to freeze; NULL: not asked */
};
/**
 * writer_commit(w, opts, out, e):
 * Make the point durable.  Several writers that commit at once share one flush and one transaction.
 * out (may be NULL) is the committed point.  The writer is gone afterwards, whatever is returned.
 *
 * Durable: the point, on return of 0.  LC_ECONFLICT: the base is no longer the newest.
 */
int writer_commit(struct writer *w, const struct commit_opts *opts, struct point *out,
                  struct lc_err *e);
/**
 * writer_nothing_new(w, opts):
 * Whether a commit with these options would say what the base says: no window differs, the disks
 * are the same, and so is what goes with them (but times).  Nobody puts any more.
 */
bool writer_nothing_new(const struct writer *w, const struct commit_opts *opts);
/** writer_abort(w): forget it; chunks already stored stay and are found again by the next one. */
void writer_abort(struct writer *w);

/* ---- care ---- */

struct damage {
	uint64_t segment; /* its number; 0: no place in the log */
	int type;         /* enum record_type, 0 if that is not known */
	uint64_t seq;     /* of the record; likewise */
	char file[64];
	uint64_t offset, length;
	char what[48];     /* "chunk", "map", "commit", "unknown" */
	char affects[256]; /* "web01/vda in 3 points, newest 2026-..." */
	/* Nothing that is readable now depends on it: a chunk whose content was stored again since;
	 * a map or commit that the catalog knows, and what comes after it stands by itself. */
	bool mended;
};
/** store_scrub(s, on_damage, arg, records, bytes, e): check every record, without any key. Returns
 * LC_ECORRUPT if anything was bad that is not mended. */
int store_scrub(struct store *s, void (*on_damage)(void *arg, const struct damage *d), void *arg,
                uint64_t *records, uint64_t *bytes, struct lc_err *e);
/**
 * store_condemn(s, list, n, condemned, e):
 * Have the chunks at these places stored again by the next backup that meets their content; each is
 * read again first.  Where maps or commits are bad, only the catalog still knows what they said:
 * the next point of the VM stands by itself. *condemned (may be NULL) = how many chunks are bad.
 */
int store_condemn(struct store *s, const struct damage *list, size_t n, uint64_t *condemned,
                  struct lc_err *e);

struct store_stats {
	uint64_t segments, bytes, chunks, points, vms, map_rows, damaged;
	uint64_t dropped; /* of the chunks: contents that are at a replica (thin.h) */
	uint64_t logical; /* bytes of all disks of the newest points */
};
int store_stats(struct store *s, struct store_stats *out, struct lc_err *e);

#endif
