/**
 * packer: a window into the smallest CHUNK payload that is worth it: whole, a delta against what
 * was in its place before, or one against chunks that share pages with it (similar.h).
 *
 * Where the predecessor is whole it is the base; where it is a delta itself its bases are, so that
 * no delta is ever made upon a delta; and what changed may become one more of them (layer.h).  A
 * delta is kept only where it is clearly smaller, and when deltas against an old base have grown
 * the window is stored whole again (docs/DESIGN.md). Whatever stands in the way (bytes that are
 * elsewhere, or bad) only means that it is stored whole.
 */
#ifndef LOCUM_PACKER_H
#define LOCUM_PACKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/seal.h"

struct packer; /* of one thread */
struct store;

/** packer_new(s, level, out, e): level is zstd's.  Some 1 MiB. */
int packer_new(struct store *s, int level, struct packer **out, struct lc_err *e);
/** packer_free(p): NULL is fine. */
void packer_free(struct packer *p);
struct packed { /* a chunk, ready to be stored */
	uint8_t id[CHUNK_ID_SIZE];
	uint8_t encoding;
	uint32_t key;
	size_t n;
	uint8_t payload[CHUNK_PAYLOAD_MAX];
};

struct packer_window {
	const uint8_t *bytes; /* [WINDOW_SIZE] */
	const uint8_t *id;
	uint64_t old; /* number of the chunk that was in its place, 0: none */
	bool whole;   /* as no delta */
};

struct packer_out {                 /* borrowed until the packer is used again */
	const struct packed *layer; /* a new base, to be stored first (layer.h), or NULL */
	const struct packed *chunk; /* what holds the window */
};

/** packer_seal(p, w, out, e): the chunks that hold a window. */
int packer_seal(struct packer *p, const struct packer_window *w, struct packer_out *out,
                struct lc_err *e);
/** packer_stored(p, no): what packer_seal() gave was stored under that number. */
void packer_stored(struct packer *p, uint64_t no);

/* How well a window does as a delta; sizes are bytes of payloads. */
struct packer_sizes {
	size_t delta; /* against the base */
	size_t step;  /* against its predecessor, where that is a delta, which would be its size had
	               * that been stored whole; else as delta */
	size_t whole; /* of the base, or its own where that is known */
	size_t again; /* the delta and the layers that it is put together with, about */
	bool sure;    /* that its own is not much less than that */
	bool blind;   /* step is not known, and the predecessor is a delta */
	bool similar; /* against other chunks than its predecessor */
};
/** packer_worth(z): whether the delta is clearly smaller than the whole. */
bool packer_worth(const struct packer_sizes *z);
/** packer_outgrown(z): whether it is time to store anew what the newest layers have, or the
 * window whole. */
bool packer_outgrown(const struct packer_sizes *z);

#endif
