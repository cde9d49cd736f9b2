/*
 * What a replica claims to be damaged costs no more than it may, and what a source sends for it is
 * taken only where something is.
 */
#include <stdlib.h>
#include <string.h>

#include "replicator/message.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/log.h"
#include "tests/lib/decay.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"

/* ---- a replica that lies ---- */

/* Answers INSPECT by what is claimed, and wants all of an OFFER. */
static void
claims(struct decay *s, const struct damaged *all)
{
	static const uint8_t none[CHUNK_ID_SIZE];
	uint8_t bits[(OFFER_IDS_MAX + 7) / 8];
	struct lc_err e = LC_ERR_INIT;
	uint64_t taken = 0;
	struct packet *p;

	memset(bits, 0xff, sizeof bits);
	must(sender_pump(s->x.tx, &e), &e);
	while ((p = TAILQ_FIRST(&s->x.up)) != NULL) {
		const struct lc_span body = {p->body.p, p->body.n};
		struct damaged m = *all;
		struct lc_buf out = {0};
		struct sent_chunk c;
		struct offer o;
		int rc = 0;

		TAILQ_REMOVE(&s->x.up, p, entry);
		if (p->type == MESSAGE_INSPECT) {
			if (memcmp(body.p, none, sizeof none) != 0)
				m.n = 0; /* each but once in a look */
			must(message_put_damaged(&out, &m), &e);
			rc = sender_message(s->x.tx, MESSAGE_DAMAGED,
			                    (struct lc_span){out.p, out.n}, &e);
		} else if (p->type == MESSAGE_OFFER) {
			must(message_get_offer(body, &o, &e), &e);
			must(message_put_want(&out, &(struct want){o.stream, o.n, bits}), &e);
			rc = sender_message(s->x.tx, MESSAGE_WANT, (struct lc_span){out.p, out.n},
			                    &e);
		} else if (p->type == MESSAGE_CHUNK) {
			must(message_get_chunk(body, &c, &e), &e);
			taken += c.chunk.payload.n;
			must(message_put_number(&out, taken), &e);
			rc = sender_message(s->x.tx, MESSAGE_TAKEN, (struct lc_span){out.p, out.n},
			                    &e);
		} else if (p->type == MESSAGE_HEADS) {
			rc = sender_message(s->x.tx, MESSAGE_HEADS_END, (struct lc_span){0}, &e);
		}
		must(rc, &e);
		lc_buf_free(&out);
		lc_buf_free(&p->body);
		lc_free(p);
		must(sender_pump(s->x.tx, &e), &e);
	}
}

static int
by_id(const void *a, const void *b)
{
	return memcmp(a, b, CHUNK_ID_SIZE);
}

/* All that the source has. */
static void
ids_of(struct decay *s, struct lc_buf *ids)
{
	struct vault_piece *list;
	size_t i, n;

	vault_pieces(s->x.dir, &list, &n);
	for (i = 0; i < n; i++) {
		if (list[i].r.type == RECORD_CHUNK)
			assert_int_equal(lc_buf_append(ids, list[i].r.id, CHUNK_ID_SIZE), 0);
	}
	free(list);
	qsort(ids->p, ids->n / CHUNK_ID_SIZE, CHUNK_ID_SIZE, by_id);
}

/* Ids that nobody knows, without end: the look ends, and so does who waits for it. */
static void
a_replica_that_tells_ids_for_ever_is_not_heard_out(void **state)
{
	const struct sender_mending o = {.first = true};
	struct sender_mending with = o;
	struct lc_buf ids = {0}, out = {0};
	struct lc_err e = LC_ERR_INIT;
	struct damaged d = {.n = DAMAGED_IDS_MAX, .contents = DAMAGED_IDS_MAX};
	unsigned pages = 0;
	struct packet *p;
	struct decay s;
	uint32_t i;

	(void)state;
	decay_make(&s);
	halves_hang_up(&s.x);
	halves_connect(&s.x);
	with.care = &s.care;
	s.care.due_ns = 0;
	sender_mend(s.x.tx, &with);
	must(lc_buf_reserve(&ids, (size_t)DAMAGED_IDS_MAX * CHUNK_ID_SIZE), &e);
	memset(ids.p, 0, (size_t)DAMAGED_IDS_MAX * CHUNK_ID_SIZE);
	d.ids = ids.p;
	must(sender_only(s.x.tx, (const uint8_t *)"nobody's VM 0123", &e), &e);
	while (!sender_idle(s.x.tx) && pages < 100) {
		must(sender_pump(s.x.tx, &e), &e);
		p = TAILQ_FIRST(&s.x.up);
		assert_non_null(p);
		TAILQ_REMOVE(&s.x.up, p, entry);
		if (p->type == MESSAGE_HEADS)
			must(sender_message(s.x.tx, MESSAGE_HEADS_END, (struct lc_span){0}, &e),
			     &e);
		if (p->type == MESSAGE_INSPECT) {
			pages++;
			for (i = 0; i < DAMAGED_IDS_MAX; i++)
				lc_put32(ids.p + (size_t)i * CHUNK_ID_SIZE + 4,
				         __builtin_bswap32(pages * DAMAGED_IDS_MAX + i));
			must(message_put_damaged(&out, &d), &e);
			must(sender_message(s.x.tx, MESSAGE_DAMAGED, (struct lc_span){out.p, out.n},
			                    &e),
			     &e);
			lc_buf_free(&out);
		}
		lc_buf_free(&p->body);
		lc_free(p);
	}
	assert_true(sender_idle(s.x.tx));
	assert_true(pages <= 3); /* it said one page; while it was told there may have come more */
	lc_buf_free(&ids);
	decay_end(&s);
}

static void
a_replica_that_claims_damage_for_ever_gets_a_bounded_part(void **state)
{
	const struct sender_mending o = {.every_ms = 1000};
	struct sender_mending with = o;
	struct lc_buf ids = {0};
	struct damaged all = {0};
	uint64_t bytes = 0, max;
	int64_t pause = 0;
	struct decay s;
	unsigned i;

	(void)state;
	decay_make(&s);
	halves_hang_up(&s.x);
	ids_of(&s, &ids);
	all.n = (uint32_t)(ids.n / CHUNK_ID_SIZE);
	all.contents = all.n;
	all.ids = ids.p;
	with.care = &s.care;
	max = (uint64_t)5 * DECAY_WINDOWS * WINDOW_SIZE;
	for (i = 0; i < 20; i++) {
		halves_connect(&s.x);
		s.care.due_ns = 0; /* as if so much time had passed */
		if (i > 0)
			s.care.bytes_max = max; /* and not 1 GiB more than there is */
		s.x.chunk_bytes = 0;
		sender_mend(s.x.tx, &with);
		sender_only(s.x.tx, (const uint8_t *)"nobody's VM 0123", NULL);
		claims(&s, &all);
		bytes += s.x.chunk_bytes;
		assert_int_equal(s.x.damage.contents, all.n);
		assert_true(s.care.pause_ns > pause || pause == 3600 * LC_NS_PER_S);
		pause = s.care.pause_ns;
		halves_hang_up(&s.x);
	}
	assert_true(bytes > max - WINDOW_SIZE && bytes < max + 2 * WINDOW_SIZE);
	assert_non_null(strstr(s.x.damage.text, "it goes on tomorrow"));
	assert_int_equal(pause, 3600 * LC_NS_PER_S);
	/* Sooner than that it is not asked, in no session. */
	halves_connect(&s.x);
	sender_mend(s.x.tx, &with);
	halves_run(&s.x, &s.seed);
	assert_true(sender_idle(s.x.tx));
	lc_buf_free(&ids);
	decay_end(&s);
}

static void
takes(struct decay *s, const struct damaged *m, int rc)
{
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf out = {0};

	must(message_put_damaged(&out, m), &e);
	assert_int_equal(
	    sender_message(s->x.tx, MESSAGE_DAMAGED, (struct lc_span){out.p, out.n}, &e), rc);
	lc_buf_free(&out);
}

static void
claims_out_of_turn_end_the_session(void **state)
{
	const struct sender_mending o = {.every_ms = 1000};
	struct sender_mending with = o;
	struct lc_err e = LC_ERR_INIT;
	uint8_t ids[2][CHUNK_ID_SIZE] = {{2}, {1}};
	struct damaged m = {.contents = 2, .n = 2, .ids = ids[0]};
	struct decay s;

	(void)state;
	decay_make(&s);
	takes(&s, &m, LC_EPEER); /* nobody asks */
	with.care = &s.care;
	sender_mend(s.x.tx, &with);
	takes(&s, &m, LC_EPEER);
	must(sender_pump(s.x.tx, &e), &e);
	takes(&s, &m, LC_EPEER); /* not ascending */
	memset(ids[0], 0, sizeof ids[0]);
	takes(&s, &m, LC_EPEER); /* not above the one that was asked about */
	m.contents = 1;
	takes(&s, &m, LC_EPEER); /* more than all */
	ids[0][0] = 1;
	ids[1][0] = 2;
	m.contents = 3;
	takes(&s, &m, 0); /* of things that never were here */
	assert_int_equal(s.x.damage.contents, 3);
	takes(&s, &m, LC_EPEER); /* that was all, and it rests */
	assert_int_equal(s.x.damage.unable, 2);
	assert_non_null(strstr(s.x.damage.text, "dropped here"));
	decay_end(&s);
}

/* One INSPECT, which is answered by that. */
static void
answers(struct decay *s, const struct damaged *m)
{
	struct lc_err e = LC_ERR_INIT;
	struct packet *p;

	s->care.due_ns = 0;
	must(sender_pump(s->x.tx, &e), &e);
	p = TAILQ_LAST(&s->x.up, queue);
	assert_int_equal(p->type, MESSAGE_INSPECT);
	TAILQ_REMOVE(&s->x.up, p, entry);
	lc_buf_free(&p->body);
	lc_free(p);
	takes(s, m, 0);
	s->care.due_ns = INT64_MAX;
}

static void
a_replica_has_disks_read_as_a_whole_once_a_day(void **state)
{
	struct sender_mending o = {.every_ms = 1};
	struct damaged m = {.nlines = 1};
	struct point q;
	struct decay s;
	unsigned i;

	(void)state;
	decay_make(&s);
	o.care = &s.care;
	m.lines = s.p[0].line;
	sender_mend(s.x.tx, &o);
	for (i = 0; i < 4; i++) {
		answers(&s, &m);
		if (i == 2) /* it is another day */
			s.care.lines.n = 0;
		q = halves_backup(&s.x, "web01", &s.d[DECAY_POINTS - 1]);
		assert_int_equal((q.flags & POINT_FRESH) != 0, i == 0 || i == 3);
		point_done(&q);
		sender_wake(s.x.tx, NULL);
		halves_run(&s.x, &s.seed);
	}
	decay_end(&s);
}

/* More than one message holds. */
static void
what_is_damaged_comes_in_pages(void **state)
{
	static uint8_t ids[DAMAGED_IDS_MAX + 2][CHUNK_ID_SIZE];
	struct damaged m = {.contents = DAMAGED_IDS_MAX + 2, .n = DAMAGED_IDS_MAX, .ids = ids[0]};
	const struct sender_mending o = {.every_ms = 1000};
	struct sender_mending with = o;
	struct lc_err e = LC_ERR_INIT;
	const uint8_t *above;
	struct packet *p;
	struct decay s;
	uint32_t i;

	(void)state;
	for (i = 0; i < DAMAGED_IDS_MAX + 2; i++) {
		ids[i][0] = 1;
		ids[i][1] = (uint8_t)(i >> 8);
		ids[i][2] = (uint8_t)i;
	}
	decay_make(&s);
	with.care = &s.care;
	sender_mend(s.x.tx, &with);
	must(sender_pump(s.x.tx, &e), &e);
	takes(&s, &m, 0);
	p = TAILQ_LAST(&s.x.up, queue);
	assert_int_equal(p->type, MESSAGE_INSPECT);
	must(message_get_inspect((struct lc_span){p->body.p, p->body.n}, &above, &e), &e);
	assert_memory_equal(above, ids[DAMAGED_IDS_MAX - 1], CHUNK_ID_SIZE);
	takes(&s, &m, LC_EPEER); /* the same again */
	m.n = 2;
	m.ids = ids[DAMAGED_IDS_MAX];
	takes(&s, &m, 0);
	assert_true(s.x.damage.over);
	assert_int_equal(s.x.damage.unable, DAMAGED_IDS_MAX + 2);
	decay_end(&s);
}

/* ---- a source that lies ---- */

static int
says(struct decay *s, uint16_t type, struct lc_buf *body)
{
	struct lc_err e = LC_ERR_INIT;
	int rc = receiver_message(s->x.rx, type, (struct lc_span){body->p, body->n}, &e);

	lc_buf_free(body);
	return rc;
}

static void
begins(struct decay *s, uint32_t stream)
{
	const struct transfer_point none = {.entry = {0}};
	struct lc_buf b = {0};

	assert_int_equal(message_put_begin(&b, stream, &none), 0);
	assert_int_equal(says(s, MESSAGE_BEGIN, &b), 0);
}

/* Which of one id is wanted. */
static bool
wants(struct decay *s, uint32_t stream, const uint8_t *id)
{
	struct offer o = {.stream = stream, .n = 1, .bases = 1, .ids = id};
	struct lc_buf b = {0};
	struct packet *p;
	struct want w;

	assert_int_equal(message_put_offer(&b, &o), 0);
	assert_int_equal(says(s, MESSAGE_OFFER, &b), 0);
	p = TAILQ_LAST(&s->x.down, queue);
	assert_int_equal(p->type, MESSAGE_WANT);
	must(message_get_want((struct lc_span){p->body.p, p->body.n}, &w, NULL), NULL);
	return (w.bits[0] & 1) != 0;
}

static void
only_what_is_damaged_is_taken(void **state)
{
	static const int nth[] = {0};
	const uint8_t junk[CHUNK_ID_SIZE] = {9};
	struct vault_piece bad, good;
	struct lc_buf b = {0};
	struct transfer_chunk c = {.encoding = CHUNK_PREFIX};
	uint8_t payload[200] = {0};
	struct commit m = {.stream = 1};
	struct decay s;

	(void)state;
	decay_make(&s);
	halves_hang_up(&s.x);
	assert_true(vault_piece_of(s.x.dir, RECORD_CHUNK, 0, &bad));
	assert_true(vault_piece_of(s.x.dir, RECORD_CHUNK, 1, &good));
	decay_spoil(&s, RECORD_CHUNK, nth, 1, false);
	(void)decay_scrub(s.x.to, NULL);
	halves_connect(&s.x);
	receiver_room(s.x.rx, 0); /* and it takes no room */
	begins(&s, 1);
	assert_false(wants(&s, 1, junk));
	assert_false(wants(&s, 1, good.r.id));
	assert_true(wants(&s, 1, bad.r.id));
	assert_false(wants(&s, 1, bad.r.id));
	begins(&s, 2); /* beside it, as of another host */
	assert_int_equal(message_put_commit(&b, &m), 0);
	assert_int_equal(says(&s, MESSAGE_COMMIT, &b), LC_EPEER);
	/* A delta would not do for what others are made upon, and could come again: it needs room.
	 */
	memcpy(payload, bad.r.id, CHUNK_ID_SIZE);
	c.payload = (struct lc_span){payload, sizeof payload};
	assert_int_equal(message_put_chunk_head(&b, 1, &c), 0);
	assert_int_equal(lc_buf_append(&b, payload, sizeof payload), 0);
	assert_int_equal(says(&s, MESSAGE_CHUNK, &b), 0);
	assert_int_equal(TAILQ_LAST(&s.x.down, queue)->type, MESSAGE_REFUSED);
	halves_hang_up(&s.x);
	halves_connect(&s.x);
	receiver_room(s.x.rx, 0); /* and of what comes nothing does, either */
	sender_mend(s.x.tx, &(struct sender_mending){.care = &s.care});
	halves_run(&s.x, &s.seed);
	assert_true(decay_is_whole(&s));
	decay_arrived(&s);
	decay_end(&s);
}

/* One of before says zeros there, and one to come may say more. */
static void
only_who_says_so_is_asked(void **state)
{
	struct welcome m = {.version = MESSAGE_VERSION, .byte_window = 1};
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf b = {0};
	struct decay s;

	(void)state;
	must(message_put_welcome(&b, &m), &e);
	assert_int_equal(lc_get16(b.p + 2), 0);
	lc_put16(b.p + 2, 0xfffe);
	must(message_get_welcome((struct lc_span){b.p, b.n}, &m, &e), &e);
	assert_false(m.inspects);
	lc_put16(b.p + 2, 0xffff);
	must(message_get_welcome((struct lc_span){b.p, b.n}, &m, &e), &e);
	assert_true(m.inspects);
	lc_buf_free(&b);
	decay_make(&s); /* whose sender was not told that it may */
	assert_true(sender_idle(s.x.tx));
	assert_true(TAILQ_EMPTY(&s.x.up));
	assert_int_equal(s.x.told, 0);
	decay_end(&s);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_replica_that_tells_ids_for_ever_is_not_heard_out),
	    cmocka_unit_test(a_replica_that_claims_damage_for_ever_gets_a_bounded_part),
	    cmocka_unit_test(claims_out_of_turn_end_the_session),
	    cmocka_unit_test(a_replica_has_disks_read_as_a_whole_once_a_day),
	    cmocka_unit_test(what_is_damaged_comes_in_pages),
	    cmocka_unit_test(only_what_is_damaged_is_taken),
	    cmocka_unit_test(only_who_says_so_is_asked),
	};

	log_set_level(LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
