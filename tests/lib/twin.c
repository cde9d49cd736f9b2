#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/base/files.h"
#include "store/transfer.h"
#include "tests/lib/twin.h"

void
twin_make(struct twin *t, uint64_t segment_bytes)
{
	memset(t, 0, sizeof *t);
	vault_make(&t->v, true);
	t->v.segment_bytes = segment_bytes;
	vault_open(&t->v);
	(void)snprintf(t->dir, sizeof t->dir, "%s/replica", t->v.top);
}

void
twin_at(struct twin *t, const char *top, uint64_t segment_bytes)
{
	memset(t, 0, sizeof *t);
	(void)snprintf(t->v.dir, sizeof t->v.dir, "%s/store", top);
	(void)snprintf(t->v.keys, sizeof t->v.keys, "%s/keys", top);
	(void)snprintf(t->dir, sizeof t->dir, "%s/replica", top);
	t->v.segment_bytes = segment_bytes;
}

int
twin_open_peer(struct twin *t, struct lc_err *e)
{
	struct store_opts o = {.dir = t->dir, .mode = STORE_WRITE, .no_key = true};

	return store_open(&o, &t->peer, e);
}

void
twin_close_peer(struct twin *t)
{
	store_close(t->peer);
	t->peer = NULL;
}

void
twin_replicate(struct twin *t)
{
	struct lc_err e = LC_ERR_INIT;

	vault_close(&t->v);
	twin_close_peer(t);
	dir_remove(t->dir);
	vault_copy(t->v.dir, t->dir);
	if (twin_open_peer(t, &e) != 0) {
		(void)fprintf(stderr, "twin: %s\n", e.msg);
		abort();
	}
	vault_open(&t->v);
}

void
twin_free(struct twin *t)
{
	twin_close_peer(t);
	vault_free(&t->v);
}

int
twin_have(void *arg, const uint8_t *ids, size_t n, uint8_t *bits, struct lc_err *e)
{
	const struct twin *t = arg;
	size_t i;

	for (i = 0; i < n; i++) {
		if (transfer_has(t->peer, 0, ids + i * CHUNK_ID_SIZE, e) == 0)
			bits[i / 8] = (uint8_t)(bits[i / 8] | 1u << (i % 8));
	}
	return 0;
}

int
twin_fetch(void *arg, const uint8_t *ids, size_t n, uint8_t *payload, struct fetched *out,
           struct lc_err *e)
{
	const struct twin *t = arg;
	struct transfer_chunk c = {.encoding = 0};
	int rc = n == 0 ? LC_EINVAL : transfer_read(t->peer, 0, ids, payload, &c, e);

	*out = (struct fetched){c.encoding, c.key, c.payload.n};
	return rc;
}
