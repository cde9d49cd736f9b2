/**
 * outgoing_internal: what outgoing.c (points and their rows) and outgoing_chunks.c (contents)
 * share.
 */
#ifndef LOCUM_OUTGOING_INTERNAL_H
#define LOCUM_OUTGOING_INTERNAL_H

#include "store/segment.h"
#include "store/thin.h"
#include "store/transfer.h"

struct whole_disk {
	uint8_t id[16];
	uint64_t windows;
};

struct made_disk { /* of a point in the making */
	uint64_t no;
	uint64_t disk, window; /* rows up to there were given */
};

struct outgoing {
	struct store *s;
	uint16_t writer;         /* whose contents ... */
	struct thin_source from; /* ... and what of them is elsewhere comes from there */
	struct transfer_point p;
	struct lc_buf name, entry;
	char *lease;
	int lease_fd;
	uint64_t disk, window; /* rows up to here were given; whole: disk is an index */
	/* Whole: every window is given, for it is not known what the taker has there. */
	bool whole, no_zeros;
	struct whole_disk disks[POINT_DISKS_MAX];
	size_t ndisks;
	uint64_t *chunks;   /* [MAP_ROWS_MAX] */
	uint8_t (*ids)[32]; /* [MAP_ROWS_MAX] */
	/* What outgoing_chunk() is to give soon, and where it lies. */
	uint64_t expected[TRANSFER_EXPECT_MAX];
	struct record records[TRANSFER_EXPECT_MAX];
	size_t nexpected;
	bool made;        /* it is in the making ... */
	uint8_t seed[16]; /* ... upon that pass, whose rows go first (disk, window); zeros: none */
	struct made_disk made_disks[POINT_DISKS_MAX];
	size_t nmade;
};

#endif
