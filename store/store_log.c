/*
 * The log from the facade's side: append, make durable, let the catalog know.
 *
 * Happy path of a commit: flush what was appended, let the catalog know, append the COMMIT record,
 * flush it, let the catalog know.  What was appended waits in `pending` until it is durable.
 *
 * After any failure of the log or of the catalog the store is closed for writing: what reached the
 * disk is found out by opening it again, and until then nothing more is promised.
 */
#include <string.h>

#include "store/base/bytes.h"
#include "store/base/failpoint.h"
#include "store/base/log.h"
#include "store/seal.h"
#include "store/store_internal.h"

#define FLUSH_LAG 4u /* times what is flushed at once may wait, while a flush is under way */

static void
free_pending(struct pending *p)
{
	struct pending *next;

	for (; p != NULL; p = next) {
		next = p->next;
		lc_free(p->map);
		lc_buf_free(&p->commit);
		lc_buf_free(&p->bases);
		lc_free(p);
	}
}

/* What it takes: in the log, until that is flushed, and in memory. */
static uint64_t
weight(const struct pending *p)
{
	return record_size(p->r.n) + sizeof *p + (p->map == NULL ? 0 : sizeof *p->map) +
	       p->commit.cap + p->bases.cap;
}

static int
refuse(const struct store *s, struct lc_err *e)
{
	return lc_fail(e, LC_EIO, 0,
	               "store %s: an earlier failure closed it for writing; open it again", s->dir);
}

/* What of the payload the catalog needs. */
static int
keep_payload(struct pending *p, const struct record *r, const uint8_t *payload)
{
	const uint8_t *ids;
	size_t n;

	if (r->type == RECORD_COMMIT || r->type == RECORD_STUBS || r->type == RECORD_VOUCH)
		return lc_buf_append(&p->commit, payload, r->n);
	if (r->type != RECORD_CHUNK || !chunk_is_delta(r->encoding))
		return 0;
	ids = chunk_payload_bases((struct lc_span){payload, r->n}, &n);
	return lc_buf_append(&p->bases, ids, n * CHUNK_ID_SIZE);
}

/* log_lock is held. */
static int
append_locked(struct store *s, struct record *r, const uint8_t *payload, struct map_record *map,
              struct lc_err *e)
{
	struct pending *p = lc_alloc(sizeof *p);
	int rc;

	if (p == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "store %s: out of memory", s->dir);
	if (s->broken)
		rc = refuse(s, e);
	else if (keep_payload(p, r, payload) != 0)
		rc = lc_fail(e, LC_ENOMEM, 0, "store %s: out of memory", s->dir);
	else
		rc = segments_append(s->segments, r, payload, e);
	if (rc != 0) {
		lc_wrap(e, "store");
		free_pending(p);
		return rc;
	}
	p->r = *r;
	p->map = map;
	s->pending_bytes += weight(p);
	p->prev = s->pending.last;
	if (p->prev == NULL)
		s->pending.first = p;
	else
		p->prev->next = p;
	s->pending.last = p;
	return 0;
}

void
store_forget_pending(struct store *s)
{
	free_pending(s->pending.first);
	s->pending = (struct pending_list){.first = NULL};
	s->pending_bytes = 0;
}

int
store_append(struct store *s, struct record *r, const uint8_t *payload, struct map_record *map,
             struct lc_err *e)
{
	int rc;

	(void)pthread_mutex_lock(&s->log_lock);
	rc = append_locked(s, r, payload, map, e);
	(void)pthread_mutex_unlock(&s->log_lock);
	if (rc != 0)
		lc_free(map);
	return rc != 0 ? rc : segments_write(s->segments, e);
}

int
store_chunk_row(struct store *s, uint64_t no, struct record *r, struct lc_err *e)
{
	uint64_t applied = s->applied_seq;

	if (applied != 0 && no > applied && segments_recent(s->segments, no, r) &&
	    r->type == RECORD_CHUNK)
		return 0;
	return catalog_chunk(s->catalog, no, r, e);
}

/* log_lock is held; NULL: it does not wait for the catalog.  What is looked for was mostly appended
 * a moment ago. */
static const struct pending *
find_waiting(const struct store *s, uint64_t no)
{
	const struct pending *p = s->pending.last;

	if (s->pending.first == NULL || s->pending.first->r.seq > no)
		p = s->applying.last;
	while (p != NULL && p->r.seq > no)
		p = p->prev;
	return p != NULL && p->r.seq == no ? p : NULL;
}

/* Encoding of a chunk that is here; LC_ENOENT: it is not, or its bytes are not.  log_lock is
 * held. */
static int
encoding_locked(struct store *s, uint64_t no, uint8_t *encoding)
{
	const struct pending *p;
	struct record r;

	if (store_chunk_row(s, no, &r, NULL) == 0) {
		*encoding = r.encoding;
		return r.segment == 0 || record_is_stub(&r) ? LC_ENOENT : 0;
	}
	p = find_waiting(s, no);
	if (p != NULL) {
		*encoding = p->r.encoding;
		return 0;
	}
	/* It went from there to the catalog between the two looks, if it is anywhere. */
	if (catalog_chunk(s->catalog, no, &r, NULL) != 0)
		return LC_ENOENT;
	*encoding = r.encoding;
	return r.segment == 0 ? LC_ENOENT : 0;
}

int
store_find_base(struct store *s, uint16_t writer, const uint8_t id[32], uint64_t *no,
                struct lc_err *e)
{
	uint8_t encoding = 0;
	int rc = fold_find(s->fold, writer, id, no, e);

	if (rc != 0)
		return rc;
	(void)pthread_mutex_lock(&s->log_lock);
	rc = encoding_locked(s, *no, &encoding);
	(void)pthread_mutex_unlock(&s->log_lock);
	return rc == 0 && chunk_is_delta(encoding) ? LC_ENOENT : rc;
}

/* Whether what is here of an id does for what r says; log_lock is held. */
static bool
have_locked(struct store *s, const struct record *r, const uint8_t key[32], uint64_t *no)
{
	uint8_t encoding = 0;

	if (idindex_find(s->index, key, no) != IDINDEX_FOUND)
		return false;
	if (s->fold->missing && fold_find(s->fold, r->writer, r->id, no, NULL) != 0)
		return false;
	if (s->fold->thin && fold_find_whole(s->fold, r->writer, r->id, no, NULL) != 0)
		return false;
	/* A whole one comes for a delta only where it is needed as a base. */
	return chunk_is_delta(r->encoding) || encoding_locked(s, *no, &encoding) != 0 ||
	       !chunk_is_delta(encoding);
}

int
store_append_chunk(struct store *s, struct record *r, const uint8_t *payload, uint64_t *no,
                   struct lc_err *e)
{
	uint8_t key[32];
	int rc = 0;

	fold_key(r->writer, r->id, key);
	(void)pthread_mutex_lock(&s->log_lock);
	/* Another worker may have met the same content a moment ago. */
	if (!have_locked(s, r, key, no)) {
		rc = append_locked(s, r, payload, NULL, e);
		if (rc == 0) {
			*no = r->seq;
			/* Instead of one whose bytes were dropped, or of a delta. */
			idindex_replace(s->index, key, r->seq);
		}
	}
	(void)pthread_mutex_unlock(&s->log_lock);
	rc = rc != 0 ? rc : segments_write(s->segments, e);
	return rc != 0 ? rc : store_relieve(s, e);
}

static int
apply_one(struct store *s, const struct pending *p, struct lc_err *e)
{
	switch (p->r.type) {
	case RECORD_CHUNK:
		return fold_delta(s->fold, &p->r, (struct lc_span){p->bases.p, p->bases.n}, e);
	case RECORD_MAP:
		return fold_map(s->fold, p->map, e);
	case RECORD_STUBS:
		return fold_stubs(s->fold, &p->r, (struct lc_span){p->commit.p, p->commit.n}, e);
	case RECORD_VOUCH:
		return fold_vouch(s->fold, &p->r, (struct lc_span){p->commit.p, p->commit.n}, e);
	case RECORD_COMMIT:
		return fold_commit(s->fold, p->r.seq, (struct lc_span){p->commit.p, p->commit.n},
		                   e);
	default:
		return 0;
	}
}

static int
apply_pending(struct store *s, const struct pending *p, struct lc_err *e)
{
	int rc = apply_one(s, p, e);

	return rc != 0 ? rc : catalog_add_bytes(s->catalog, p->r.writer, record_size(p->r.n), e);
}

/* Take what is durable off the list; applied() ends it. */
static const struct pending *
take_durable(struct store *s, uint64_t upto)
{
	struct pending_list taken = {.first = NULL};
	struct pending *p;

	(void)pthread_mutex_lock(&s->log_lock);
	taken.first = s->pending.first;
	for (p = taken.first; p != NULL && p->r.seq <= upto; p = p->next) {
		s->pending_bytes -= weight(p);
		taken.last = p;
	}
	if (taken.last == NULL)
		taken.first = NULL;
	else
		taken.last->next = NULL;
	s->pending.first = p;
	if (p == NULL)
		s->pending.last = NULL;
	else
		p->prev = NULL;
	s->applying = taken;
	(void)pthread_mutex_unlock(&s->log_lock);
	return taken.first;
}

/* The catalog knows what was taken; or it failed, and can follow the log no more. */
static void
applied(struct store *s, bool failed)
{
	struct pending *list;

	(void)pthread_mutex_lock(&s->log_lock);
	s->broken = s->broken || failed;
	list = s->applying.first;
	s->applying = (struct pending_list){.first = NULL};
	(void)pthread_mutex_unlock(&s->log_lock);
	free_pending(list);
}

static int
apply_list(struct store *s, const struct pending *list, uint64_t *last_seq, struct lc_err *e)
{
	struct catalog_position pos = {0};
	const struct pending *p;
	int rc = catalog_begin(s->catalog, e), fail;

	if (rc != 0)
		return rc;
	fail = failpoint("store.apply");
	if (fail != 0)
		rc = lc_fail(e, LC_EIO, fail, "catalog of store %s", s->dir);
	for (p = list; rc == 0 && p != NULL; p = p->next) {
		rc = apply_pending(s, p, e);
		pos.segment = p->r.segment;
		pos.off = p->r.off + record_size(p->r.n);
		pos.last_off = p->r.off;
		pos.last_seq = *last_seq = record_last_seq(&p->r);
	}
	rc = rc != 0 ? rc : catalog_set_position(s->catalog, &pos, e);
	if (rc != 0) {
		catalog_rollback(s->catalog);
		return rc;
	}
	return catalog_commit(s->catalog, e);
}

void
store_flush_index(struct store *s, uint64_t durable_upto)
{
	struct lc_err err = LC_ERR_INIT;

	/* It may forget: then a chunk is stored twice. */
	if (idindex_flush(s->index, durable_upto, &err) != 0)
		log_warn("store %s: %s", s->dir, err.msg);
}

bool
store_failed(struct store *s)
{
	bool failed;

	(void)pthread_mutex_lock(&s->log_lock);
	failed = s->broken;
	(void)pthread_mutex_unlock(&s->log_lock);
	return failed || segments_failed(s->segments);
}

/* Everything up to sequence `upto` is durable: let the catalog know.  flush_lock is held. */
static int
apply_durable(struct store *s, uint64_t upto, struct lc_err *e)
{
	const struct pending *list;
	uint64_t last_seq = 0;
	bool broken;
	int rc;

	(void)pthread_mutex_lock(&s->log_lock);
	broken = s->broken;
	(void)pthread_mutex_unlock(&s->log_lock);
	/* The catalog lacks what came before: its position must not pass that. */
	if (broken)
		return refuse(s, e);
	list = take_durable(s, upto);
	if (list == NULL)
		return 0;
	rc = apply_list(s, list, &last_seq, e);
	applied(s, rc != 0);
	if (rc != 0)
		return rc;
	s->applied_seq = last_seq;
	store_flush_index(s, last_seq);
	return 0;
}

/* flush_lock is held. */
static int
flush_locked(struct store *s, struct lc_err *e)
{
	uint64_t upto;
	int rc = segments_sync(s->segments, &upto, e);

	return rc != 0 ? rc : apply_durable(s, upto, e);
}

int
store_flush(struct store *s, struct lc_err *e)
{
	int rc;

	(void)pthread_mutex_lock(&s->flush_lock);
	rc = flush_locked(s, e);
	(void)pthread_mutex_unlock(&s->flush_lock);
	return rc;
}

int
store_relieve(struct store *s, struct lc_err *e)
{
	uint64_t waits = s->pending_bytes;
	int rc;

	if (waits < s->flush_bytes)
		return 0;
	/* Who is at it already does it for all; but where that takes long, what waits must not go
	 * on growing. */
	if (waits / FLUSH_LAG >= s->flush_bytes)
		(void)pthread_mutex_lock(&s->flush_lock);
	else if (pthread_mutex_trylock(&s->flush_lock) != 0)
		return 0;
	rc = s->pending_bytes < s->flush_bytes ? 0 : flush_locked(s, e);
	(void)pthread_mutex_unlock(&s->flush_lock);
	return rc;
}

/* A commit follows only what is durable; others went on appending since the last flush. */
static int
append_commit(struct store *s, const struct lc_buf *payload, struct lc_err *e)
{
	struct record r = {.type = RECORD_COMMIT, .n = (uint32_t)payload->n};
	int rc = 0;

	(void)pthread_mutex_lock(&s->log_lock);
	if (segments_unsynced(s->segments) > 0)
		rc = segments_sync(s->segments, NULL, e);
	rc = rc != 0 ? rc : append_locked(s, &r, payload->p, NULL, e);
	(void)pthread_mutex_unlock(&s->log_lock);
	return rc;
}

int
store_commit(struct store *s, int (*build)(void *arg, struct lc_buf *payload, struct lc_err *e),
             void *arg, struct lc_err *e)
{
	struct lc_buf payload = {0};
	uint64_t upto;
	int rc;

	(void)pthread_mutex_lock(&s->flush_lock);
	(void)failpoint("commit.begin");
	rc = segments_sync(s->segments, &upto, e);
	(void)failpoint("commit.data-durable");
	rc = rc != 0 ? rc : apply_durable(s, upto, e);
	rc = rc != 0 ? rc : build(arg, &payload, e);
	if (rc == 0 && payload.n > 0) {
		rc = append_commit(s, &payload, e);
		(void)failpoint("commit.appended");
		rc = rc != 0 ? rc : segments_sync(s->segments, &upto, e);
		(void)failpoint("commit.durable");
		rc = rc != 0 ? rc : apply_durable(s, upto, e);
		(void)failpoint("commit.applied");
	}
	(void)pthread_mutex_unlock(&s->flush_lock);
	lc_buf_free(&payload);
	return rc;
}

void
store_discard(struct store *s, const uint8_t point[16])
{
	struct lc_err err = LC_ERR_INIT;
	int rc = store_flush(s, &err);
	char hex[33];

	rc = rc != 0 ? rc : catalog_begin(s->catalog, &err);
	if (rc == 0) {
		rc = catalog_discard(s->catalog, point, &err);
		lc_err_clear(rc == 0 ? &err : NULL);
		if (rc == 0)
			rc = catalog_commit(s->catalog, &err);
		else
			catalog_rollback(s->catalog);
	}
	if (rc != 0)
		log_warn("store %s: the map of point %.8s, which was given up, takes room until "
		         "the store is opened again: %s",
		         s->dir, lc_hex(hex, point, 16), err.msg);
}
