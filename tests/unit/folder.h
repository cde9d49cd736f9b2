/**
 * folder: a folder of segments without a store around it, and what a scan of them reports.  All
 * asserts.
 */
#ifndef LOCUM_TESTS_FOLDER_H
#define LOCUM_TESTS_FOLDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/segment_internal.h"

struct folder {
	char *top, *dir; /* <top>/segments */
	struct segments *s;
};

struct seen { /* what a scan reports */
	size_t records, commits, bad;
	uint64_t bad_off, bad_n, last_seq, sum;
	int bad_type;
};

extern const uint8_t folder_store[16], folder_domain[16]; /* whose segments they are */

/** seen_scan(x): a scan that reports to x, which begins anew. */
struct segment_scan seen_scan(struct seen *x);
/** seen_entry(x, r, e): for segment_index(). */
int seen_entry(void *arg, const struct record *r, struct lc_err *e);

/** folder_make(f): an empty one that is written to. */
void folder_make(struct folder *f);
void folder_free(struct folder *f);
/** folder_open(f), folder_again(f): for reading, after it was closed or at once. */
void folder_open(struct folder *f);
void folder_again(struct folder *f);
/** folder_resume(f, seq): it is written to from now on. */
void folder_resume(struct folder *f, uint64_t seq);
/** folder_append(f, type, n): n bytes of payload that tell the record. */
struct record folder_append(struct folder *f, int type, uint32_t n);
void folder_sync(struct folder *f);
/** folder_log(f, off): keys, chunk, commit, chunk, chunk; the records' offsets, and the end. */
void folder_log(struct folder *f, uint64_t off[6]);
struct segment_info folder_info(struct folder *f, size_t i);
size_t folder_count(struct folder *f);
/** folder_file(f, seg): its path, in a static buffer. */
const char *folder_file(struct folder *f, const struct segment_info *seg);
void folder_poke(struct folder *f, const struct segment_info *seg, uint64_t off, const void *p,
                 size_t n);
/** folder_flip(f, seg, off): one bit of the byte there. */
void folder_flip(struct folder *f, const struct segment_info *seg, uint64_t off);
/** folder_adopt(f, from, last, x, e): segments_adopt() of the first segment. */
int folder_adopt(struct folder *f, uint64_t from, bool last, struct seen *x, struct lc_err *e);
/** folder_sum(f): of all bytes there. */
uint64_t folder_sum(struct folder *f);

#endif
