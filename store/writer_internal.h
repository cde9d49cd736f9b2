/**
 * writer_internal: what the files of the writer share.  Not for others.
 *
 * writer.c begins a point and takes its windows, writer_rows.c keeps the map, its rows and its
 * disks, writer_commit.c makes it durable.
 */
#ifndef LOCUM_WRITER_INTERNAL_H
#define LOCUM_WRITER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "store/packer.h"
#include "store/store_internal.h"

#define PAGE_WINDOWS 4096u
#define PAGES 4u       /* of the base's map kept per disk: workers are never far apart */
#define PAGE_FIRST 64u /* windows that are looked up where nothing says that others follow */

struct page {
	uint64_t first; /* window */
	uint32_t n;     /* windows; 0: empty */
	uint64_t used_at;
	uint64_t chunks[PAGE_WINDOWS];
};

struct writer_disk_state {
	struct point_disk d;
	bool known;       /* the base has it */
	size_t base_disk; /* its index there */
	uint64_t base_windows;
	struct page *pages;     /* [PAGES] */
	struct map_record *map; /* rows not yet in the log */
};

struct writer {
	struct store *s;
	struct writer *next; /* in the store's list */
	char vm[POINT_NAME_MAX];
	uint8_t vm_id[16], line[16], id[POINT_ID_SIZE];
	bool whole;                     /* no deltas */
	bool fork;                      /* base is a point of another line */
	struct point *base;             /* NULL: none that can be built upon */
	uint8_t base_id[POINT_ID_SIZE]; /* newest point or seed of the line, zeros if none */
	uint64_t counter;               /* its count */
	unsigned nworkers;
	struct packer **packers; /* [nworkers] */
	size_t ndisks;
	struct writer_disk_state *disks;

	pthread_mutex_t lock; /* what follows, pages and rows of the disks */
	uint64_t tick;
	bool failed; /* what follows is no longer the truth */
	struct set_sum set, rows_sum;
	uint64_t rows;
	struct writer_stats stats;
	atomic_bool large; /* so much was stored that it may be sent ahead; read without the lock */
};

/** writer_free(w): as it is, without a word to the store. */
void writer_free(struct writer *w);

/* These are called with w->lock held. */

/** writer_write_rows(w, d, e): the rows of a disk that wait, as a MAP record. */
int writer_write_rows(struct writer *w, struct writer_disk_state *d, struct lc_err *e);
/** writer_add_row(w, d, window, old, id, chunk, e): one more row, in place of chunk old. */
int writer_add_row(struct writer *w, struct writer_disk_state *d, uint64_t window, uint64_t old,
                   const uint8_t id[CHUNK_ID_SIZE], uint64_t chunk, struct lc_err *e);
/** writer_old_chunk(w, d, window, old, e): the base's chunk in a window, through a few pages of
 * its map. */
int writer_old_chunk(struct writer *w, struct writer_disk_state *d, uint64_t window, uint64_t *old,
                     struct lc_err *e);

#endif
