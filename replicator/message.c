#include <stdio.h>
#include <string.h>

#include "replicator/message.h"
#include "store/segment.h"
#include "store/base/bytes.h"

const char *
message_name(uint16_t type)
{
	switch ((enum message_type)type) {
	case MESSAGE_HELLO:
		return "HELLO";
	case MESSAGE_WELCOME:
		return "WELCOME";
	case MESSAGE_REFUSED:
		return "REFUSED";
	case MESSAGE_PING:
		return "PING";
	case MESSAGE_PONG:
		return "PONG";
	case MESSAGE_HEADS:
		return "HEADS";
	case MESSAGE_HEAD:
		return "HEAD";
	case MESSAGE_HEADS_END:
		return "HEADS_END";
	case MESSAGE_BEGIN:
		return "BEGIN";
	case MESSAGE_OFFER:
		return "OFFER";
	case MESSAGE_WANT:
		return "WANT";
	case MESSAGE_CHUNK:
		return "CHUNK";
	case MESSAGE_ROWS:
		return "ROWS";
	case MESSAGE_COMMIT:
		return "COMMIT";
	case MESSAGE_COMMITTED:
		return "COMMITTED";
	case MESSAGE_TAKEN:
		return "TAKEN";
	case MESSAGE_ROOM:
		return "ROOM";
	case MESSAGE_READ:
		return "READ";
	case MESSAGE_BODY:
		return "BODY";
	case MESSAGE_NONE:
		return "NONE";
	case MESSAGE_ASK:
		return "ASK";
	case MESSAGE_HAVE:
		return "HAVE";
	case MESSAGE_RECALL:
		return "RECALL";
	case MESSAGE_PROVE:
		return "PROVE";
	case MESSAGE_PROOF:
		return "PROOF";
	case MESSAGE_INSPECT:
		return "INSPECT";
	case MESSAGE_DAMAGED:
		return "DAMAGED";
	case MESSAGE_MORE:
		return "MORE";
	case MESSAGE_KEYS:
		return "KEYS";
	}
	return "a message of an unknown type";
}

/* ---- encoding ---- */

static int
put_span(struct lc_buf *out, struct lc_span s)
{
	int rc = lc_wr32(out, (uint32_t)s.n);

	return rc != 0 ? rc : lc_buf_append(out, s.p, s.n);
}

static int
put_text(struct lc_buf *out, const char *text, size_t max)
{
	struct lc_span s = {(const uint8_t *)text, strnlen(text, max)};
	int rc = lc_wr16(out, (uint16_t)s.n);

	return rc != 0 ? rc : lc_buf_append(out, s.p, s.n);
}

int
message_put_hello(struct lc_buf *out, const struct hello *m)
{
	int rc = lc_wr16(out, m->version);

	rc = rc != 0 ? rc : lc_wr16(out, m->pairing ? 1 : m->reading ? 2 : m->brief ? 4 : 0);
	rc = rc != 0 ? rc : lc_wr32(out, 0);
	rc = rc != 0 ? rc : lc_buf_append(out, m->domain, sizeof m->domain);
	rc = rc != 0 ? rc : lc_buf_append(out, m->secret, sizeof m->secret);
	rc = rc != 0 ? rc : lc_wr64(out, (uint64_t)m->wall_ns);
	rc = rc != 0 ? rc : put_text(out, m->name, sizeof m->name - 1);
	return rc != 0 ? rc : put_span(out, m->keys);
}

int
message_put_welcome(struct lc_buf *out, const struct welcome *m)
{
	int rc = lc_wr16(out, m->version);

	rc = rc != 0 ? rc : lc_wr16(out, m->inspects ? 1 : 0);
	rc = rc != 0 ? rc : lc_wr32(out, m->byte_window);
	rc = rc != 0 ? rc : lc_buf_append(out, m->store, sizeof m->store);
	return rc != 0 ? rc : lc_wr64(out, (uint64_t)m->wall_ns);
}

int
message_put_refused(struct lc_buf *out, uint32_t stream, const struct lc_err *why)
{
	int rc = lc_wr32(out, stream);

	rc = rc != 0 ? rc : lc_wr32(out, (uint32_t)why->code);
	return rc != 0 ? rc : put_text(out, why->msg, MESSAGE_TEXT_MAX);
}

int
message_put_head(struct lc_buf *out, const struct head *m)
{
	int rc = lc_buf_append(out, m->line, 16);

	rc = rc != 0 ? rc : lc_buf_append(out, m->vm, 16);
	return rc != 0 ? rc : put_span(out, m->entry);
}

int
message_put_begin(struct lc_buf *out, uint32_t stream, const struct transfer_point *p)
{
	int rc = lc_wr32(out, stream);

	rc = rc != 0 ? rc : lc_buf_append(out, p->id, 16);
	rc = rc != 0 ? rc : lc_buf_append(out, p->vm, 16);
	rc = rc != 0 ? rc : lc_buf_append(out, p->line, 16);
	rc = rc != 0 ? rc : lc_buf_append(out, p->base, 16);
	rc = rc != 0 ? rc : put_span(out, p->name);
	return rc != 0 ? rc : put_span(out, p->entry);
}

int
message_put_offer(struct lc_buf *out, const struct offer *m)
{
	int rc = lc_wr32(out, m->stream);

	rc = rc != 0 ? rc : lc_wr16(out, m->n);
	rc = rc != 0 ? rc : lc_wr16(out, m->bases);
	return rc != 0 ? rc : lc_buf_append(out, m->ids, (size_t)m->n * CHUNK_ID_SIZE);
}

int
message_put_want(struct lc_buf *out, const struct want *m)
{
	int rc = lc_wr32(out, m->stream);

	rc = rc != 0 ? rc : lc_wr32(out, m->n);
	return rc != 0 ? rc : lc_buf_append(out, m->bits, (m->n + 7) / 8);
}

int
message_put_proof(struct lc_buf *out, const struct proof *m)
{
	int rc = lc_wr32(out, m->stream);

	rc = rc != 0 ? rc : lc_wr32(out, m->n);
	return rc != 0 ? rc : lc_buf_append(out, m->sums, (size_t)m->n * TRANSFER_SUM_SIZE);
}

int
message_put_chunk_head(struct lc_buf *out, uint32_t stream, const struct transfer_chunk *c)
{
	int rc = lc_wr32(out, stream);

	rc = rc != 0 ? rc : lc_wr32(out, c->key);
	return rc != 0 ? rc : lc_wr32(out, c->encoding);
}

int
message_put_rows_head(struct lc_buf *out, uint32_t stream)
{
	return lc_wr32(out, stream);
}

int
message_put_commit(struct lc_buf *out, const struct commit *m)
{
	int rc = lc_wr32(out, m->stream);

	rc = rc != 0 ? rc : lc_wr32(out, 0);
	rc = rc != 0 ? rc : lc_wr64(out, m->rows);
	return rc != 0 ? rc : lc_buf_append(out, m->sum.v, sizeof m->sum.v);
}

int
message_put_committed(struct lc_buf *out, const struct committed *m)
{
	int rc = lc_wr32(out, m->stream);

	rc = rc != 0 ? rc : lc_wr32(out, 0);
	return rc != 0 ? rc : lc_wr64(out, (uint64_t)m->wall_ns);
}

int
message_put_room(struct lc_buf *out, const struct room *m)
{
	int rc = lc_wr64(out, m->used);

	return rc != 0 ? rc : lc_wr64(out, m->max);
}

int
message_put_number(struct lc_buf *out, uint64_t n)
{
	return lc_wr64(out, n);
}

/* ---- decoding ---- */

static int
verdict(const struct lc_rd *r, bool ok, uint16_t type, struct lc_err *e)
{
	return ok && lc_rd_end(r) ? 0 : lc_fail(e, LC_EPEER, 0, "malformed %s", message_name(type));
}

/* At most max bytes; what is longer counts as malformed. */
static struct lc_span
get_span(struct lc_rd *r, uint32_t max)
{
	struct lc_span s = {.n = lc_rd32(r)};

	if (s.n > max) {
		r->bad = true;
		s.n = 0;
	}
	s.p = lc_rd_bytes(r, s.n);
	return s;
}

/* Text for people: what could steer a terminal becomes a question mark. */
static void
get_text(struct lc_rd *r, char *dst, size_t max)
{
	size_t n = lc_rd16(r), i;
	const uint8_t *p;

	*dst = '\0';
	if (n > max) {
		r->bad = true;
		return;
	}
	p = lc_rd_bytes(r, n);
	for (i = 0; p != NULL && i < n; i++) {
		dst[i] = (char)p[i];
		if (p[i] < 0x20 || p[i] == 0x7f)
			dst[i] = '?';
	}
	if (p != NULL)
		dst[n] = '\0';
}

int
message_get_hello(struct lc_span body, struct hello *m, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(body.p, body.n);
	uint16_t flags;

	memset(m, 0, sizeof *m);
	m->version = lc_rd16(&r);
	flags = lc_rd16(&r);
	(void)lc_rd32(&r);
	lc_rd_copy(&r, m->domain, sizeof m->domain);
	lc_rd_copy(&r, m->secret, sizeof m->secret);
	m->wall_ns = (int64_t)lc_rd64(&r);
	get_text(&r, m->name, sizeof m->name - 1);
	m->keys = get_span(&r, MESSAGE_KEYS_MAX);
	m->pairing = (flags & 1u) != 0;
	m->reading = (flags & 2u) != 0;
	m->brief = (flags & 4u) != 0;
	return verdict(&r, flags <= 2 || flags == 4, MESSAGE_HELLO, e);
}

int
message_get_welcome(struct lc_span body, struct welcome *m, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(body.p, body.n);

	m->version = lc_rd16(&r);
	m->inspects = (lc_rd16(&r) & 1u) != 0;
	m->byte_window = lc_rd32(&r);
	lc_rd_copy(&r, m->store, sizeof m->store);
	m->wall_ns = (int64_t)lc_rd64(&r);
	return verdict(&r, m->byte_window > 0, MESSAGE_WELCOME, e);
}

int
message_get_refused(struct lc_span body, struct refused *m, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(body.p, body.n);

	m->stream = lc_rd32(&r);
	m->code = (int32_t)lc_rd32(&r);
	get_text(&r, m->text, MESSAGE_TEXT_MAX);
	return verdict(&r, m->code < 0, MESSAGE_REFUSED, e);
}

int
message_get_head(struct lc_span body, struct head *m, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(body.p, body.n);

	lc_rd_copy(&r, m->line, 16);
	lc_rd_copy(&r, m->vm, 16);
	m->entry = get_span(&r, TRANSFER_ENTRY_MAX);
	return verdict(&r, true, MESSAGE_HEAD, e);
}

int
heads_count(struct heads *t, const struct head *m, struct lc_err *e)
{
	t->lines++;
	t->bytes += m->entry.n + 64;
	return t->lines <= HEADS_LINES_MAX && t->bytes <= HEADS_BYTES_MAX
	           ? 0
	           : lc_fail(e, LC_EPEER, 0, "it tells of more lines than there can be");
}

int
message_get_begin(struct lc_span body, uint32_t *stream, struct transfer_point *p, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(body.p, body.n);

	*stream = lc_rd32(&r);
	lc_rd_copy(&r, p->id, 16);
	lc_rd_copy(&r, p->vm, 16);
	lc_rd_copy(&r, p->line, 16);
	lc_rd_copy(&r, p->base, 16);
	p->name = get_span(&r, TRANSFER_NAME_MAX);
	p->entry = get_span(&r, TRANSFER_ENTRY_MAX);
	return verdict(&r, *stream != SESSION_STREAM, MESSAGE_BEGIN, e);
}

int
message_get_offer(struct lc_span body, struct offer *m, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(body.p, body.n);
	bool ok;

	m->stream = lc_rd32(&r);
	m->n = lc_rd16(&r);
	m->bases = lc_rd16(&r);
	ok = m->n > 0 && m->n <= OFFER_IDS_MAX && m->bases <= m->n;
	m->ids = ok ? lc_rd_bytes(&r, (size_t)m->n * CHUNK_ID_SIZE) : NULL;
	return verdict(&r, ok, MESSAGE_OFFER, e);
}

int
message_get_want(struct lc_span body, struct want *m, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(body.p, body.n);
	bool ok;

	m->stream = lc_rd32(&r);
	m->n = lc_rd32(&r);
	ok = m->n > 0 && m->n <= OFFER_IDS_MAX;
	m->bits = ok ? lc_rd_bytes(&r, (m->n + 7) / 8) : NULL;
	return verdict(&r, ok, MESSAGE_WANT, e);
}

int
message_get_proof(struct lc_span body, struct proof *m, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(body.p, body.n);
	bool ok;

	m->stream = lc_rd32(&r);
	m->n = lc_rd32(&r);
	ok = m->n > 0 && m->n <= OFFER_IDS_MAX;
	m->sums = ok ? lc_rd_bytes(&r, (size_t)m->n * TRANSFER_SUM_SIZE) : NULL;
	return verdict(&r, ok, MESSAGE_PROOF, e);
}

int
message_get_chunk(struct lc_span body, struct sent_chunk *m, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(body.p, body.n);
	uint32_t encoding;

	m->stream = lc_rd32(&r);
	m->chunk.key = lc_rd32(&r);
	encoding = lc_rd32(&r);
	m->chunk.encoding = (uint8_t)encoding;
	m->chunk.payload.n = r.n;
	m->chunk.payload.p = lc_rd_bytes(&r, r.n);
	return verdict(&r, encoding <= UINT8_MAX, MESSAGE_CHUNK, e);
}

int
message_get_rows(struct lc_span body, struct sent_rows *m, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(body.p, body.n);

	m->stream = lc_rd32(&r);
	m->payload.n = r.n;
	m->payload.p = lc_rd_bytes(&r, r.n);
	return verdict(&r, true, MESSAGE_ROWS, e);
}

int
message_get_commit(struct lc_span body, struct commit *m, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(body.p, body.n);

	m->stream = lc_rd32(&r);
	(void)lc_rd32(&r);
	m->rows = lc_rd64(&r);
	lc_rd_copy(&r, m->sum.v, sizeof m->sum.v);
	return verdict(&r, true, MESSAGE_COMMIT, e);
}

int
message_get_committed(struct lc_span body, struct committed *m, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(body.p, body.n);

	m->stream = lc_rd32(&r);
	(void)lc_rd32(&r);
	m->wall_ns = (int64_t)lc_rd64(&r);
	return verdict(&r, true, MESSAGE_COMMITTED, e);
}

int
message_get_room(struct lc_span body, struct room *m, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(body.p, body.n);

	m->used = lc_rd64(&r);
	m->max = lc_rd64(&r);
	return verdict(&r, true, MESSAGE_ROOM, e);
}

int
message_get_number(struct lc_span body, uint16_t type, uint64_t *n, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(body.p, body.n);

	*n = lc_rd64(&r);
	return verdict(&r, true, type, e);
}

int
refused_error(const struct refused *m, struct lc_err *e)
{
	enum lc_code code = m->code >= LC_ENOTSUP && m->code < 0 ? (enum lc_code)m->code : LC_EPEER;

	return lc_fail(e, code, 0, "the replica refused it: %s", m->text);
}

/* ---- what is damaged ---- */

int
message_put_inspect(struct lc_buf *out, const uint8_t above[CHUNK_ID_SIZE])
{
	return lc_buf_append(out, above, CHUNK_ID_SIZE);
}

int
message_put_damaged(struct lc_buf *out, const struct damaged *m)
{
	int rc = lc_wr64(out, m->contents);

	rc = rc != 0 ? rc : lc_wr32(out, m->n);
	rc = rc != 0 ? rc : lc_wr32(out, m->nlines);
	rc = rc != 0 ? rc : lc_buf_append(out, m->ids, (size_t)m->n * CHUNK_ID_SIZE);
	return rc != 0 ? rc : lc_buf_append(out, m->lines, (size_t)m->nlines * 16);
}

int
message_get_inspect(struct lc_span body, const uint8_t **above, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(body.p, body.n);

	*above = lc_rd_bytes(&r, CHUNK_ID_SIZE);
	return verdict(&r, true, MESSAGE_INSPECT, e);
}

static bool
ascending(const struct damaged *m)
{
	uint32_t i;

	for (i = 1; i < m->n; i++) {
		const uint8_t *id = m->ids + (size_t)i * CHUNK_ID_SIZE;

		if (memcmp(id - CHUNK_ID_SIZE, id, CHUNK_ID_SIZE) >= 0)
			return false;
	}
	return true;
}

int
message_get_damaged(struct lc_span body, struct damaged *m, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(body.p, body.n);

	m->contents = lc_rd64(&r);
	m->n = lc_rd32(&r);
	m->nlines = lc_rd32(&r);
	if (m->n > DAMAGED_IDS_MAX || m->n > m->contents || m->nlines > DAMAGED_LINES_MAX)
		r.bad = true;
	m->ids = r.bad ? NULL : lc_rd_bytes(&r, (size_t)m->n * CHUNK_ID_SIZE);
	m->lines = r.bad ? NULL : lc_rd_bytes(&r, (size_t)m->nlines * 16);
	return verdict(&r, m->ids == NULL || ascending(m), MESSAGE_DAMAGED, e);
}

/* ---- sessions that read ---- */

int
message_put_ids(struct lc_buf *out, const struct ids *m)
{
	int rc = lc_wr32(out, m->n);

	return rc != 0 ? rc : lc_buf_append(out, m->ids, (size_t)m->n * CHUNK_ID_SIZE);
}

int
message_put_body_head(struct lc_buf *out, const struct transfer_chunk *c)
{
	int rc = lc_wr32(out, c->key);

	return rc != 0 ? rc : lc_wr32(out, c->encoding);
}

int
message_put_none(struct lc_buf *out, const struct none *m)
{
	int rc = lc_buf_append(out, m->id, sizeof m->id);

	return rc != 0 ? rc : lc_wr32(out, (uint32_t)m->code);
}

int
message_put_have(struct lc_buf *out, const struct have *m)
{
	int rc = lc_wr32(out, m->n);

	return rc != 0 ? rc : lc_buf_append(out, m->bits, (m->n + 7) / 8);
}

int
message_put_recall(struct lc_buf *out, const struct recall *m)
{
	int rc = lc_wr32(out, m->stream);

	return rc != 0 ? rc : lc_buf_append(out, m->line, sizeof m->line);
}

int
message_put_more(struct lc_buf *out, uint32_t stream)
{
	return lc_wr32(out, stream);
}

int
message_get_ids(struct lc_span body, uint16_t type, struct ids *m, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(body.p, body.n);
	uint32_t max = type == MESSAGE_READ ? READ_IDS_MAX : OFFER_IDS_MAX;

	m->n = lc_rd32(&r);
	if (m->n > max)
		r.bad = true;
	m->ids = r.bad ? NULL : lc_rd_bytes(&r, (size_t)m->n * CHUNK_ID_SIZE);
	return verdict(&r, m->n > 0, type, e);
}

int
message_get_body(struct lc_span body, struct transfer_chunk *m, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(body.p, body.n);
	uint32_t encoding;

	m->key = lc_rd32(&r);
	encoding = lc_rd32(&r);
	m->encoding = (uint8_t)encoding;
	m->payload = (struct lc_span){r.p, r.n};
	(void)lc_rd_bytes(&r, r.n);
	return verdict(&r,
	               encoding <= UINT8_MAX && m->payload.n >= CHUNK_ID_SIZE &&
	                   m->payload.n <= RECORD_PAYLOAD_MAX,
	               MESSAGE_BODY, e);
}

int
message_get_none(struct lc_span body, struct none *m, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(body.p, body.n);

	lc_rd_copy(&r, m->id, sizeof m->id);
	m->code = (int32_t)lc_rd32(&r);
	return verdict(&r, m->code < 0, MESSAGE_NONE, e);
}

int
message_get_have(struct lc_span body, struct have *m, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(body.p, body.n);

	m->n = lc_rd32(&r);
	if (m->n > OFFER_IDS_MAX)
		r.bad = true;
	m->bits = r.bad ? NULL : lc_rd_bytes(&r, (m->n + 7) / 8);
	return verdict(&r, m->n > 0, MESSAGE_HAVE, e);
}

int
message_get_recall(struct lc_span body, struct recall *m, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(body.p, body.n);

	m->stream = lc_rd32(&r);
	lc_rd_copy(&r, m->line, sizeof m->line);
	return verdict(&r, m->stream != SESSION_STREAM, MESSAGE_RECALL, e);
}

int
message_get_more(struct lc_span body, uint32_t *stream, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(body.p, body.n);

	*stream = lc_rd32(&r);
	return verdict(&r, true, MESSAGE_MORE, e);
}

int
message_get_nothing(struct lc_span body, uint16_t type, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(body.p, body.n);

	return verdict(&r, true, type, e);
}
