/*
 * seqfmt: what the test guest writes on its disks, and how to judge it.
 *
 * The writer (seqw) and the judge (seqcheck) share this file so that they
 * cannot disagree.  The layout, the record fields and the rules are in
 * README.md; the reasons are here.
 *
 * A record says who it is (number, disk, number of disks), carries a checksum
 * over itself, and names the checksum of the record before it, which is on
 * another disk.  So disks of different instants show as a missing number, and
 * disks of different histories (two copies that both ran on) as a broken
 * chain, even where all the numbers are there.
 */
#ifndef TESTS_GUEST_SEQFMT_H
#define TESTS_GUEST_SEQFMT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SEQFMT_MAX_DISKS 16U
#define SEQFMT_REC_SIZE 4096U
#define SEQFMT_SLOTS 1024U
#define SEQFMT_RING_OFF ((uint64_t)1 << 20)
#define SEQFMT_RING_SIZE ((size_t)SEQFMT_SLOTS * SEQFMT_REC_SIZE)
#define SEQFMT_LOAD_OFF ((uint64_t)16 << 20)
#define SEQFMT_LOAD_MAX 65536U /* The largest write of the random load. */
#define SEQFMT_NONE UINT64_MAX

/* One record of the ring.  wall_ns is the clock of the guest at the write. */
struct seqfmt_rec {
	uint64_t n;
	uint32_t disk;
	uint32_t ndisks;
	uint64_t prev;  /* Checksum of record n - 1; 0 for the first of all. */
	uint64_t epoch; /* First number written with this number of disks. */
	uint64_t wall_ns;
	uint64_t run; /* Random, drawn by the writer at its start. */
	uint64_t load_seed;
	uint64_t load_done;  /* Random writes 0 .. load_done - 1 of this run were complete. */
	uint64_t region_end; /* Random writes end here on this disk; 0 if there are none. */
	uint64_t sum;
};

/* One page of one random write. */
struct seqfmt_page {
	uint64_t id; /* Number of the random write in its run. */
	uint64_t run;
	uint64_t seq_next; /* All sequence numbers below this were complete before it. */
	uint32_t disk;
	uint32_t page;   /* Index of this page in the write. */
	uint64_t offset; /* Where this page is on its disk. */
};

/* Where one random write goes. */
struct seqfmt_place {
	unsigned disk;
	uint64_t offset;
	size_t size; /* 4, 16 or 64 KiB; 0 if no disk has room for random writes. */
};

enum seqfmt_kind {
	SEQFMT_EMPTY = 0, /* All zero: never written. */
	SEQFMT_VALID,
	SEQFMT_TORN, /* Neither. */
};

/* What one slot of a ring holds; rec only counts if it is SEQFMT_VALID. */
struct seqfmt_slot {
	enum seqfmt_kind kind;
	struct seqfmt_rec rec;
};

enum seqfmt_problem {
	SEQFMT_P_MISSING = 0, /* The slot was never written. */
	SEQFMT_P_STALE,       /* The slot holds an older number. */
	SEQFMT_P_TORN,        /* Checksum or magic wrong. */
	SEQFMT_P_FOREIGN,     /* Valid, but of another disk, slot or number of disks. */
	SEQFMT_P_CHAIN,       /* Valid, but not the successor of the record before it. */
};

/**
 * seqfmt_mix(x):
 * Spread x over 64 bits (splitmix64's finisher), for fillers and placement.
 */
uint64_t seqfmt_mix(uint64_t x);

/**
 * seqfmt_fill(p, n, key):
 * Fill n bytes at p, a multiple of 8, with incompressible data.  Word i
 * depends on key and i only, and is stored little-endian.
 */
void seqfmt_fill(uint8_t *p, size_t n, uint64_t key);

/**
 * seqfmt_put_rec(buf, r):
 * Build the record r in buf[SEQFMT_REC_SIZE] and set r->sum.
 */
void seqfmt_put_rec(uint8_t *buf, struct seqfmt_rec *r);

/**
 * seqfmt_get_rec(buf, r):
 * Judge buf[SEQFMT_REC_SIZE].
 *
 * Returns SEQFMT_VALID, and only then *r is filled in.
 */
enum seqfmt_kind seqfmt_get_rec(const uint8_t *buf, struct seqfmt_rec *r);

/** seqfmt_put_page(buf, p): build a page of a random write in buf[SEQFMT_REC_SIZE]. */
void seqfmt_put_page(uint8_t *buf, const struct seqfmt_page *p);

/** seqfmt_get_page(buf, p): as seqfmt_get_rec(), for a page of a random write. */
enum seqfmt_kind seqfmt_get_page(const uint8_t *buf, struct seqfmt_page *p);

/**
 * seqfmt_place(seed, id, region_end, ndisks):
 * Where random write id goes; region_end[ndisks] as in struct seqfmt_rec.
 * Writer and checker both call this, so the checker can tell which write
 * must be the last one on every page.
 */
struct seqfmt_place seqfmt_place(uint64_t seed, uint64_t id, const uint64_t *region_end,
                                 unsigned ndisks);

/**
 * seqfmt_region_end(sector0, size):
 * End of the random writes on a disk of size bytes whose first 512 bytes are
 * sector0: the end of the first MBR partition if there is one, else of the
 * disk, rounded down to 64 KiB; 0 if nothing fits.
 */
uint64_t seqfmt_region_end(const uint8_t *sector0, uint64_t size);

struct seqfmt_result {
	bool found;            /* Any record at all; without it only problems is set. */
	struct seqfmt_rec top; /* The newest record over all disks. */
	uint64_t lo;           /* Numbers lo .. top.n must be there. */
	uint64_t checked;
	uint64_t problems;
	uint64_t newest[SEQFMT_MAX_DISKS]; /* Per disk, SEQFMT_NONE if it has no record. */
	/*
	 * What the newest run says of its random writes; only if every disk has
	 * a record of that run, because each one names its own region_end.  On
	 * disk d all writes below load_flushed[d] are flushed: they were
	 * complete before a number that the disk has confirmed.
	 */
	bool load_known;
	uint64_t region_end[SEQFMT_MAX_DISKS];
	uint64_t load_flushed[SEQFMT_MAX_DISKS];
};

/* Called once per problem; found is the number in the slot or SEQFMT_NONE. */
typedef void (*seqfmt_report)(void *arg, enum seqfmt_problem what, uint64_t n, unsigned disk,
                              unsigned slot, uint64_t found);

/**
 * seqfmt_check(ring, ndisks, report, arg, res):
 * Apply law 1 to the rings ring[ndisks], each SEQFMT_SLOTS slots, disk 0
 * first: one prefix of one history, complete and whole.  report may be NULL.
 *
 * Returns true if there are records and no problem.
 */
bool seqfmt_check(const struct seqfmt_slot *const *ring, unsigned ndisks, seqfmt_report report,
                  void *arg, struct seqfmt_result *res);

/** seqfmt_problem_name(p): one word, for messages. */
const char *seqfmt_problem_name(enum seqfmt_problem p);

#endif
