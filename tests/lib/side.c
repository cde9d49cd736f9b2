#include <stdlib.h>
#include <string.h>

#include "store/base/bytes.h"
#include "tests/lib/rawpeer.h"
#include "tests/lib/side.h"
#include "tests/lib/unit.h"

static uint64_t
fnv(uint64_t h, const uint8_t *p, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		h = (h ^ p[i]) * UINT64_C(0x100000001b3);
	return h;
}

uint64_t
side_digest(uint64_t h, uint16_t type, const uint8_t *p, size_t n)
{
	uint8_t head[10];

	lc_put16(head, type);
	lc_put64(head + 2, n);
	return fnv(fnv(h, head, sizeof head), p, n);
}

static int
on_opened(void *arg, const uint8_t *peer, struct lc_err *e)
{
	struct side *s = arg;

	assert_int_equal(s->messages, 0);
	assert_ptr_equal(channel_peer(s->ch), peer);
	s->opened++;
	return s->refuse_peer ? lc_fail(e, LC_EACCES, 0, "stranger") : 0;
}

static int
on_message(void *arg, uint16_t type, struct lc_span body, struct lc_err *e)
{
	struct side *s = arg;

	assert_int_equal(s->opened, 1);
	s->messages++;
	s->bytes += body.n;
	s->digest = side_digest(s->digest, type, body.p, body.n);
	s->last_type = type;
	s->last_n = body.n;
	return s->messages == s->refuse_at ? lc_fail(e, LC_ENOSPC, 0, "quota") : 0;
}

void
side_new_to(struct side *s, bool initiator, const uint8_t *replica)
{
	*s = (struct side){.events = {s, on_opened, on_message}};
	assert_int_equal(
	    channel_new(initiator ? rawpeer_host : rawpeer_replica, replica, &s->ch, &s->e), 0);
	assert_null(channel_peer(s->ch));
	assert_false(channel_established(s->ch));
}

void
side_new(struct side *s, bool initiator)
{
	side_new_to(s, initiator, initiator ? rawpeer_replica_public() : NULL);
}

void
side_free(struct side *s)
{
	channel_free(s->ch);
	free(s->wire);
}

int
side_feed(struct side *s, const uint8_t *p, size_t n)
{
	int rc;

	lc_err_clear(&s->e);
	rc = channel_feed(s->ch, p, n, &s->events, &s->e);
	assert_int_equal(rc, s->e.code);
	return rc;
}

void
side_send(struct side *s, uint16_t type, const void *p, size_t n)
{
	const struct lc_span body = {p, n};

	assert_int_equal(channel_send(s->ch, type, &body, 1, &s->e), 0);
}

/* Pull all there is to the end of s->wire; what is new is s->wire[nwire before..nwire after). */
size_t
side_pull(struct side *s)
{
	size_t n = 0, total = 0;

	do {
		if (s->wire_cap - s->nwire < 1 << 17) {
			s->wire_cap = s->wire_cap * 2 + (1 << 17);
			s->wire = realloc(s->wire, s->wire_cap);
			assert_non_null(s->wire);
		}
		assert_int_equal(
		    channel_pull(s->ch, s->wire + s->nwire, s->wire_cap - s->nwire, &n, NULL), 0);
		s->nwire += n;
		total += n;
	} while (n > 0);
	return total;
}

/* What one side has to say, to the other. */
int
side_carry(struct side *from, struct side *to)
{
	size_t n = side_pull(from);

	return side_feed(to, from->wire + from->nwire - n, n);
}

void
side_meet(struct side *host, struct side *replica)
{
	side_new(host, true);
	side_new(replica, false);
	assert_int_equal(side_carry(host, replica), 0);
	assert_int_equal(side_carry(replica, host), 0);
	assert_int_equal(side_carry(host, replica), 0);
	assert_true(channel_established(host->ch) && channel_established(replica->ch));
}

void
side_failed(struct side *s, int code, const char *text)
{
	unsigned messages = s->messages;
	uint8_t out[64];
	size_t n;

	assert_int_equal(s->e.code, code);
	if (strstr(s->e.msg, text) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", s->e.msg, text);
	/* For good. */
	assert_false(channel_established(s->ch));
	assert_false(channel_ended(s->ch));
	assert_int_equal(side_feed(s, (const uint8_t *)"x", 1), code);
	assert_non_null(strstr(s->e.msg, text));
	assert_int_equal(channel_feed(s->ch, NULL, 0, &s->events, NULL), code);
	assert_int_equal(channel_send(s->ch, 1, NULL, 0, NULL), code);
	assert_int_equal(channel_close(s->ch, NULL), code);
	assert_int_equal(channel_eof(s->ch, NULL), code);
	assert_int_equal(channel_pull(s->ch, out, sizeof out, &n, NULL), 0);
	assert_int_equal(n, 0);
	assert_int_equal(channel_queued(s->ch), 0);
	assert_int_equal(s->messages, messages);
}
