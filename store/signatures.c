/*
 * A file of slots: 32 id, u16 length, a sealed blob.  Four slots may have an id; which one of them
 * it gets goes round.  Nothing is flushed: what is lost or torn does not open.
 */
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/delta.h"
#include "store/signatures.h"
#include "store/store_internal.h"

#define BLOCKS (WINDOW_SIZE / SIGNATURE_BLOCK)
#define SIGNATURE_HEAD 12u /* of librsync's */
#define SIGNATURE_SUM 36u  /* of a block */
#define BLOB_SIZE (4u + SEAL_OVERHEAD + SIGNATURE_HEAD + BLOCKS * SIGNATURE_SUM)
#define SLOT_SIZE (CHUNK_ID_SIZE + 2u + BLOB_SIZE)
#define WAYS 4u

struct signatures {
	const struct keyring *k;
	int fd;
	uint64_t sets;
	pthread_mutex_t lock; /* tick, writing */
	unsigned tick;
};

int
signatures_open(const char *path, const struct keyring *k, uint64_t bytes, struct signatures **out,
                struct lc_err *e)
{
	struct signatures *x = lc_alloc(sizeof *x);

	if (x == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	x->k = k;
	x->sets = bytes / SLOT_SIZE / WAYS;
	x->sets = x->sets == 0 ? 1 : x->sets;
	x->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (x->fd < 0) {
		lc_free(x);
		return lc_fail_errno(e, "%s", path);
	}
	(void)pthread_mutex_init(&x->lock, NULL);
	*out = x;
	return 0;
}

void
signatures_close(struct signatures *x)
{
	if (x == NULL)
		return;
	fd_close(&x->fd);
	(void)pthread_mutex_destroy(&x->lock);
	lc_free(x);
}

/* Ids are random: eight bytes of one choose its place. */
static off_t
place(const struct signatures *x, const uint8_t *id, unsigned way)
{
	return (off_t)((lc_get64(id) % x->sets * WAYS + way) * SLOT_SIZE);
}

static bool
read_slot(const struct signatures *x, const uint8_t *id, unsigned way, uint8_t slot[SLOT_SIZE])
{
	return pread(x->fd, slot, SLOT_SIZE, place(x, id, way)) == SLOT_SIZE;
}

/* What a blob is bound to. */
static struct lc_span
bound(uint8_t ad[16 + CHUNK_ID_SIZE], const uint8_t *id)
{
	static const uint8_t what[16] = "signature";

	memcpy(ad, what, 16);
	memcpy(ad + 16, id, CHUNK_ID_SIZE);
	return (struct lc_span){ad, 16 + CHUNK_ID_SIZE};
}

/* Where it is already, where nothing is, or whose turn it is. */
static unsigned
choose_way(struct signatures *x, const uint8_t *id)
{
	uint8_t slot[SLOT_SIZE];
	unsigned way, empty = WAYS;

	for (way = 0; way < WAYS; way++) {
		if (!read_slot(x, id, way, slot) || lc_is_zero(slot, CHUNK_ID_SIZE))
			empty = empty == WAYS ? way : empty;
		else if (memcmp(slot, id, CHUNK_ID_SIZE) == 0)
			return way;
	}
	return empty < WAYS ? empty : x->tick++ % WAYS;
}

int
signatures_put(struct signatures *x, const uint8_t id[CHUNK_ID_SIZE], const uint8_t *window,
               struct lc_err *e)
{
	uint8_t ad[16 + CHUNK_ID_SIZE], slot[SLOT_SIZE];
	struct lc_buf plain = {0}, blob = {0};
	ssize_t wrote = SLOT_SIZE;
	int rc;

	rc = delta_sign((struct lc_span){window, WINDOW_SIZE}, SIGNATURE_BLOCK, &plain, e);
	rc = rc != 0 ? rc
	             : seal_blob(x->k, bound(ad, id), (struct lc_span){plain.p, plain.n}, &blob, e);
	if (rc == 0 && blob.n == BLOB_SIZE) {
		memcpy(slot, id, CHUNK_ID_SIZE);
		slot[CHUNK_ID_SIZE] = (uint8_t)(BLOB_SIZE & 0xff);
		slot[CHUNK_ID_SIZE + 1] = (uint8_t)(BLOB_SIZE >> 8);
		memcpy(slot + CHUNK_ID_SIZE + 2, blob.p, BLOB_SIZE);
		(void)pthread_mutex_lock(&x->lock);
		wrote = pwrite(x->fd, slot, SLOT_SIZE, place(x, id, choose_way(x, id)));
		(void)pthread_mutex_unlock(&x->lock);
	}
	lc_buf_free(&plain);
	lc_buf_free(&blob);
	if (rc == 0 && wrote != SLOT_SIZE)
		rc = lc_fail_errno(e, "signatures");
	return rc;
}

int
signatures_get(struct signatures *x, const uint8_t id[CHUNK_ID_SIZE], struct lc_buf *out)
{
	uint8_t ad[16 + CHUNK_ID_SIZE], slot[SLOT_SIZE];
	unsigned way;

	for (way = 0; way < WAYS; way++) {
		if (!read_slot(x, id, way, slot) || memcmp(slot, id, CHUNK_ID_SIZE) != 0 ||
		    lc_get16(slot + CHUNK_ID_SIZE) != BLOB_SIZE)
			continue;
		if (open_blob(x->k, bound(ad, id),
		              (struct lc_span){slot + CHUNK_ID_SIZE + 2, BLOB_SIZE}, out,
		              NULL) == 0)
			return 0;
	}
	return LC_ENOENT;
}

void
signatures_keep(struct store *s, const struct record *list, const bool *drop, size_t n)
{
	struct chunk_reader *r = NULL;
	uint8_t *window = lc_alloc(WINDOW_SIZE);
	size_t i;

	if (s->signatures != NULL && window != NULL && chunk_reader_new(s, &r, NULL) != 0)
		r = NULL;
	for (i = 0; r != NULL && i < n; i++) {
		if (list[i].type != RECORD_CHUNK || !drop[i] || chunk_is_delta(list[i].encoding))
			continue;
		if (chunk_read(r, list[i].seq, window, NULL, NULL) == 0)
			(void)signatures_put(s->signatures, list[i].id, window, NULL);
	}
	chunk_reader_free(r);
	lc_free(window);
}

bool
signatures_alike(struct lc_span signature, const uint8_t *window)
{
	struct lc_buf own = {0};
	unsigned i, same = 0;

	if (delta_sign((struct lc_span){window, WINDOW_SIZE}, SIGNATURE_BLOCK, &own, NULL) == 0 &&
	    own.n == signature.n) {
		for (i = 0; i < BLOCKS; i++) {
			size_t at = SIGNATURE_HEAD + (size_t)i * SIGNATURE_SUM;

			same += memcmp(own.p + at, signature.p + at, SIGNATURE_SUM) == 0;
		}
	}
	lc_buf_free(&own);
	return same >= BLOCKS / 2;
}
