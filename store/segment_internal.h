/**
 * segment_internal: what the files of segment.h share.  Not for others.
 *
 * Order of locks: lock, then fds_lock.
 */
#ifndef LOCUM_SEGMENT_INTERNAL_H
#define LOCUM_SEGMENT_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "store/segment.h"

#define SEGMENT_MAGIC "LOCUMSEG"
#define TRAILER_MAGIC "LOCUMEND"
#define INDEX_HEAD_SIZE 8u
#define INDEX_ENTRY_SIZE 64u
/* What an index record can hold. */
#define SEGMENT_RECORDS_MAX ((RECORD_PAYLOAD_MAX - INDEX_HEAD_SIZE) / INDEX_ENTRY_SIZE)
#define APPEND_BUFFER (1u << 20)
#define APPEND_BUFFER_MAX (APPEND_BUFFER + RECORD_PAYLOAD_MAX + 64) /* with the last record */
#define WRITE_BACK (2u << 20) /* bytes that the kernel is told to begin with at once */
#define FD_CACHE 64u

struct open_fd {
	uint64_t segment; /* 0: of one that is not to be read from any more */
	int fd;
	unsigned users;
	uint64_t used_at; /* tick of the last use */
};

struct segments {
	char *dir;
	uint8_t store_id[16];
	uint8_t domain[16];

	pthread_mutex_t fds_lock;
	pthread_cond_t fds_idle; /* one of them is used by nobody any more */
	struct open_fd fds[FD_CACHE];
	uint64_t tick;

	pthread_mutex_t lock; /* what follows */
	pthread_cond_t idle;  /* `syncing` or `writing` became false */
	bool syncing;         /* a flush to disk is under way, without the lock */
	bool writing;         /* `full` is being written, without the lock */
	bool failed;          /* a write or flush failed: nothing more is written */
	struct lc_err cause;  /* that failure */
	uint8_t *buffer;      /* what is appended goes here */
	size_t buffered;
	uint8_t *full; /* what came before it and is still to be written */
	size_t nfull;
	int fd;        /* of the open segment, -1 if none */
	uint64_t no;   /* its number */
	uint64_t size; /* its size with what is to be written */
	struct record *records;
	size_t nrecords, records_cap;
	uint64_t limit;   /* size at which a segment is sealed */
	uint64_t last_no; /* highest number seen in the folder */
	uint64_t next_seq;
	uint64_t begun;            /* the kernel was told to write what is before it */
	_Atomic uint64_t unsynced; /* also read without the lock */
	struct lc_buf keys;
};

/** segment_header_encode(in, h): of this version, whatever in->version is. */
void segment_header_encode(const struct segment_header *in, uint8_t h[SEGMENT_HEADER_SIZE]);
/** segment_header_newer(h): whether it is of a version that we do not know. */
bool segment_header_newer(const struct segment_header *h);
/** segment_open_fd(s, no, flags, name, e): a descriptor, under whichever name it has; or the
 * failure. */
int segment_open_fd(struct segments *s, uint64_t no, int flags, char name[32], struct lc_err *e);
/** segment_forget_fd(s, no): the next reader opens its file anew. */
void segment_forget_fd(struct segments *s, uint64_t no);
/** segment_remember(s, r): for the index of the open segment.  The lock is held. */
int segment_remember(struct segments *s, const struct record *r);
/** segment_index_encode(list, n, b): payload of an INDEX record; LC_ENOMEM. */
int segment_index_encode(const struct record *list, size_t n, struct lc_buf *b);
/** segment_trailer_encode(no, index_off, size, t): size: of the whole file. */
void segment_trailer_encode(uint64_t no, uint64_t index_off, uint64_t size,
                            uint8_t t[SEGMENT_TRAILER_SIZE]);
/** segment_seal(s, e): index, trailer, flush, rename.  The lock is held and nobody is syncing. */
int segment_seal(struct segments *s, struct lc_err *e);
/** segment_rename(s, no, e): from .open to .seg, durable. */
int segment_rename(struct segments *s, uint64_t no, struct lc_err *e);

#endif
