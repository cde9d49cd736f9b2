/**
 * fake_store: a store of made-up windows behind the reading half of store.h, for tests of the
 * reader.
 *
 * Window w of disk d holds a pattern made of its chunk number, which fake_chunk() tells.
 */
#ifndef LOCUM_TEST_FAKE_STORE_H
#define LOCUM_TEST_FAKE_STORE_H

#include <stdatomic.h>
#include <stdint.h>

#include "store/store.h"

struct fake_config {
	struct point point;
	unsigned zero_every; /* every n-th window is zero; 0 = none */
	unsigned distinct;   /* chunk numbers repeat after so many; 0 = never */
	uint64_t bad_chunk;  /* reading it fails, for bad_times times (-1: always); 0 = none */
	atomic_int bad_times;
	enum lc_code bad_code; /* what it fails with; 0: LC_ECORRUPT */
	unsigned delay_us;     /* of each chunk_read */
	atomic_uint reads;     /* chunk_read calls */
	atomic_uint maps;      /* view_map calls */
	atomic_uint map_fails; /* so many view_map calls fail next */
	atomic_uint contexts;  /* chunk_readers alive */
	atomic_uint ahead;     /* chunks that view_read_ahead() was called with */
};
extern struct fake_config fake;

/** fake_reset(sizes, n): disks d0, d1, ... of these sizes, no zeros, no faults. */
void fake_reset(const uint64_t *sizes, size_t n);
/** fake_chunk(disk, window): its chunk number, 0 = zero. */
uint64_t fake_chunk(size_t disk, uint64_t window);
/** fake_fill(chunk, window): what it holds. */
void fake_fill(uint64_t chunk, uint8_t window[WINDOW_SIZE]);
/** fake_byte(disk, off): the byte that reading must give. */
uint8_t fake_byte(size_t disk, uint64_t off);

#endif
