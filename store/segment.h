/**
 * segment: the log on disk, as files of records.
 *
 * <dir>/<16 hex digits>.open is being appended to; <n>.seg is sealed: it ends in a checksummed
 * index of its records and is never changed again; <n>.thin takes the place of a sealed one without
 * (most of) its chunks (thin.h).  FORMAT.md has the bytes.  A struct segments is the folder of one
 * store.
 *
 * Appending is buffered and safe from any thread; nothing is durable before segments_sync().  After
 * a failed write or flush nothing more is written: what reached the disk is not known, and only
 * opening the store again finds out (segments_adopt).
 */
#ifndef LOCUM_SEGMENT_H
#define LOCUM_SEGMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"

#define SEGMENT_HEADER_SIZE 128u
#define SEGMENT_TRAILER_SIZE 32u
#define RECORD_HEADER_SIZE 48u
#define RECORD_PAYLOAD_MAX (1u << 20)
#define SEGMENT_SIZE (64u << 20) /* sealed when it would grow past this */

enum record_type {
	RECORD_KEYS = 1,
	RECORD_CHUNK = 2,
	RECORD_MAP = 3,
	RECORD_COMMIT = 4,
	RECORD_INDEX = 5, /* of a sealed segment */
	RECORD_STUBS = 6, /* chunks whose bytes were dropped, of a thin segment */
	RECORD_VOUCH = 7, /* chunks of other writers that a writer has, too (vouch.h) */
};

struct record {
	uint8_t type; /* enum record_type, or one of a newer version */
	uint8_t encoding;
	uint16_t writer; /* whose it is, where several write: see vouch.h; 0: the first one's */
	uint32_t key;    /* number of the data key */
	uint32_t n;      /* bytes of payload */
	uint64_t seq;
	uint64_t segment; /* where it is */
	uint64_t off;     /* of its header */
	uint8_t id[32];   /* CHUNK: its id, else zeros */
};

/** record_is_stub(r): a chunk, as the catalog has it, whose bytes were dropped. */
static inline bool
record_is_stub(const struct record *r)
{
	return r->segment != 0 && r->off == 0;
}
/** record_last_seq(r): the last sequence that it takes: a STUBS record has one for each entry. */
uint64_t record_last_seq(const struct record *r);
/** record_size(n): bytes that a record with n bytes of payload takes in the file (padded to 8). */
uint64_t record_size(uint32_t n);
/** record_header_encode(r, sum, h): sum = xxh3 of the payload. */
void record_header_encode(const struct record *r, uint64_t sum, uint8_t h[RECORD_HEADER_SIZE]);
enum record_look { RECORD_BAD = 0, RECORD_GOOD, RECORD_NEWER };
/**
 * record_header_decode(h, segment, off, r, sum):
 * BAD: no record header of that segment (magic, checksum, length).  NEWER: one of a later version
 * of the format, of which nothing else is known.
 */
enum record_look record_header_decode(const uint8_t h[RECORD_HEADER_SIZE], uint64_t segment,
                                      uint64_t off, struct record *r, uint64_t *sum);

struct segment_header {
	uint16_t version;
	uint8_t store_id[16];
	uint8_t domain[16];
	uint64_t no;
	uint64_t first_seq;
	int64_t made_ns;
};
/** segment_header_decode(h, out): false if it is no header of a segment, of whatever version. */
bool segment_header_decode(const uint8_t h[SEGMENT_HEADER_SIZE], struct segment_header *out);

struct segments;

/** segments_open(dir, store_id, domain, out, e): the folder; nothing is read. */
int segments_open(const char *dir, const uint8_t store_id[16], const uint8_t domain[16],
                  struct segments **out, struct lc_err *e);
void segments_close(struct segments *s);
/** segments_limit(s, bytes): seal a segment that would grow past this; SEGMENT_SIZE at first. */
void segments_limit(struct segments *s, uint64_t bytes);

struct segment_info {
	uint64_t no;
	uint64_t bytes;
	bool sealed; /* thin ones, too */
	bool thin;
	bool twin; /* it is there whole and thin: this is the whole one */
};
/** segments_list(s, out, n, e): by number; read from the folder anew.  Free with lc_free(). */
int segments_list(struct segments *s, struct segment_info **out, size_t *n, struct lc_err *e);
/** segment_file(dst, seg): "0000000000000001.seg", ".thin" or ".open". */
const char *segment_file(char dst[32], const struct segment_info *seg);
/** segment_name(dst, no, sealed): the same where it is not known to be thin. */
const char *segment_name(char dst[32], uint64_t no, bool sealed);
/** segment_called(s, dst, no): the same as it is called now, for people; ".seg" if it is gone. */
const char *segment_called(struct segments *s, char dst[32], uint64_t no);

/* ---- reading ---- */

struct segment_scan {
	/* A good record; payload borrowed for the call.  A return other than 0 ends the scan with
	 * it. */
	int (*on_record)(void *arg, const struct record *r, struct lc_span payload,
	                 struct lc_err *e);
	/* Bytes that are no good record: [off, off + n).  r is not NULL where the header at off is
	 * good and only the payload is not.  May be NULL. */
	void (*on_bad)(void *arg, uint64_t off, uint64_t n, const struct record *r);
	void *arg;
};
struct segment_extent {     /* what a scan came across */
	uint64_t committed; /* end of the last good COMMIT; where the scan began if there is none */
	uint64_t good;      /* end of the last good record; likewise */
};
/**
 * segment_scan(s, seg, from, scan, extent, e):
 * Read every record from byte `from` (0: from the first).  extent may be NULL.  What the disk
 * cannot read is bad bytes.
 *
 * Returns  0; what on_record returned; LC_EVERSION: the segment or a record of it was made by a
 *          newer version; LC_ECONFLICT: it is of another store.
 */
int segment_scan(struct segments *s, const struct segment_info *seg, uint64_t from,
                 const struct segment_scan *scan, struct segment_extent *extent, struct lc_err *e);
/**
 * segment_index(s, seg, on_entry, arg, e):
 * Read the index of a sealed segment; the last entry is the index record itself.
 *
 * Returns  0; LC_ECORRUPT where it is bad: then on_entry was never called, and the caller scans
 *          instead; LC_EVERSION, LC_ECONFLICT as above.
 */
int segment_index(struct segments *s, const struct segment_info *seg,
                  int (*on_entry)(void *arg, const struct record *r, struct lc_err *e), void *arg,
                  struct lc_err *e);
/**
 * segment_keys(s, seg, out, e):
 * Append the payload of the KEYS record that a segment begins with.  LC_ECORRUPT where it has none.
 */
int segment_keys(struct segments *s, const struct segment_info *seg, struct lc_buf *out,
                 struct lc_err *e);
/**
 * segment_read(s, want, payload, e):
 * The payload of a record into payload[want->n], its header and checksum checked (want needs
 * segment, off, n).
 *
 * Returns  0; LC_ECORRUPT (also where the file is missing or ends before); LC_EIO; LC_EVERSION.
 * Thread:  any.
 */
int segment_read(struct segments *s, const struct record *want, uint8_t *payload, struct lc_err *e);

/**
 * segment_advise(s, no, off, n):
 * Those bytes are read soon: the system begins to read them now, if it likes.  Thread: any.
 */
void segment_advise(struct segments *s, uint64_t no, uint64_t off, uint64_t n);
/** segment_peek(s, no, off, r): what record header is there (BAD: none); its payload is not looked
 * at. */
enum record_look segment_peek(struct segments *s, uint64_t no, uint64_t off, struct record *r);

/**
 * segments_recent(s, seq, r):
 * The record of the open segment with that sequence, where it was given to the system, so that
 * segment_read() finds it; durable or not.  Thread: any.
 */
bool segments_recent(struct segments *s, uint64_t seq, struct record *r);

/* ---- appending (the owner only) ---- */

/**
 * segments_adopt(s, seg, from, last, scan, e):
 * Take over an open segment of a dead owner: report its records from byte `from` on and all bad
 * bytes, and remember its records for the index.  What lies before `from` was durable (UINT64_MAX:
 * everything); `last`: no later segment exists.
 *
 * In the last segment what follows the first bad bytes behind `from` and behind every commit is a
 * tear, and cut.  Nothing else is ever cut.  Whatever stays is written again and flushed, so that
 * it is on the disk, and not only in memory after a flush that failed.
 *
 * Returns  0; LC_EVERSION, LC_ECONFLICT as segment_scan(): then nothing was changed.
 * Durable: what was reported.
 */
int segments_adopt(struct segments *s, const struct segment_info *seg, uint64_t from, bool last,
                   const struct segment_scan *scan, struct lc_err *e);
/**
 * segments_resume(s, keys, next_seq, e):
 * Get ready to append, after every .open file was adopted.  keys: payload of the KEYS record that
 * every segment begins with.
 */
int segments_resume(struct segments *s, struct lc_span keys, uint64_t next_seq, struct lc_err *e);
/**
 * segments_rekey(s, keys, e):
 * From the next record on segments begin with this KEYS payload: the open one is sealed.  Thread:
 * any.
 */
int segments_rekey(struct segments *s, struct lc_span keys, struct lc_err *e);
/**
 * segments_append(s, r, payload, e):
 * Append a record of type, encoding, key, n and id as in *r; fills seq, segment and off.
 */
int segments_append(struct segments *s, struct record *r, const uint8_t *payload, struct lc_err *e);
/**
 * segments_write(s, e):
 * Hand to the kernel what fills a buffer, while others append to the next one: to be called after
 * segments_append(), without the locks that it is called under.  Where nobody does, appending
 * writes, and whoever else appends waits for it.
 */
int segments_write(struct segments *s, struct lc_err *e);
/** segments_unsynced(s): bytes appended since the last sync. */
uint64_t segments_unsynced(const struct segments *s);
/**
 * segments_sync(s, upto, e):
 * Durable, on return of 0: every record appended before the call.  *upto (may be NULL) = their last
 * sequence.
 */
int segments_sync(struct segments *s, uint64_t *upto, struct lc_err *e);
/** segments_failed(s): a write or flush failed, and every further one is refused. */
bool segments_failed(struct segments *s);

#endif
