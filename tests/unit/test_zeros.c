/*
 * Rows that say "all zero" are a few bytes on the wire and in the log, however many they are, and
 * each takes its place in the catalog: a captured host could fill the replica's disk with them.
 */
#include <string.h>

#include "replicator/message.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/maprec.h"
#include "store/point.h"
#include "store/seal.h"
#include "tests/lib/mole.h"
#include "tests/lib/must.h"
#include "tests/lib/two.h"
#include "tests/lib/unit.h"

#define RECORDS 20u
#define ROWS ((uint64_t)RECORDS * MAP_ROWS_MAX)
#define KEEP_MAX (UINT64_C(4) << 20)

static void
hang_up(struct two *t, struct mole *m)
{
	mole_end(m);
	while (!m->closed)
		run_for(&t->loop, 5);
	memset(m, 0, sizeof *m);
}

/* The host's key in other hands; the connection before may not be quite gone. */
static void
begin(struct two *t, struct mole *m)
{
	struct hello h = {.version = MESSAGE_VERSION, .wall_ns = clock_wall_ns(), .name = "host"};
	struct lc_buf keys = {0}, body = {0};
	struct lc_err e = LC_ERR_INIT;
	unsigned i;

	memcpy(h.domain, transfer_domain(t->h.v.s), sizeof h.domain);
	must(transfer_keys(t->h.v.s, &keys, &e), &e);
	h.keys = (struct lc_span){keys.p, keys.n};
	must(message_put_hello(&body, &h), &e);
	memset(m, 0, sizeof *m);
	for (i = 0; i < 100 && m->of_type[MESSAGE_WELCOME] == 0; i++) {
		struct mole_count c = {m, MESSAGE_WELCOME, 1};

		mole_start(m, &t->loop, t->d.port, &t->h.id, t->d.id.public);
		mole_say(m, MESSAGE_HELLO, (struct lc_span){body.p, body.n});
		two_wait(t, mole_heard, &c, "an answer to HELLO");
		if (m->of_type[MESSAGE_WELCOME] == 0)
			hang_up(t, m);
	}
	assert_int_equal(m->of_type[MESSAGE_WELCOME], 1);
	lc_buf_free(&keys);
	lc_buf_free(&body);
}

static void
say(struct mole *m, uint16_t type, struct lc_buf *b)
{
	mole_say(m, type, (struct lc_span){b->p, b->n});
	lc_buf_free(b);
}

static void
begin_point(struct mole *m, uint8_t no, const uint8_t base[16], struct point *p)
{
	static const uint8_t header[64];
	struct transfer_point tp = {.name = {header, 8}};
	struct lc_buf entry = {0}, b = {0};
	struct lc_err e = LC_ERR_INIT;

	memset(p, 0, sizeof *p);
	memset(p->id, no, 16);
	memset(p->line, 3, 16);
	memcpy(p->base, base, 16);
	must(point_encode(p, (struct lc_span){header, sizeof header}, &entry, &e), &e);
	memcpy(tp.id, p->id, 16);
	memcpy(tp.line, p->line, 16);
	memcpy(tp.base, base, 16);
	memset(tp.vm, 4, 16);
	tp.entry = (struct lc_span){entry.p, entry.n};
	must(message_put_begin(&b, 1, &tp), &e);
	say(m, MESSAGE_BEGIN, &b);
	lc_buf_free(&entry);
}

/* As many as RECORDS records can say; a few bytes each. */
static void
say_zeros(struct mole *m, const struct point *p, struct set_sum *sum)
{
	static struct map_record rows;
	struct lc_err e = LC_ERR_INIT;
	struct set_sum one;
	unsigned i, k;

	memset(sum, 0, sizeof *sum);
	memset(&rows, 0, sizeof rows);
	memcpy(rows.point, p->id, 16);
	memcpy(rows.line, p->line, 16);
	memset(rows.disk, 5, 16);
	rows.n = MAP_ROWS_MAX;
	for (i = 0; i < RECORDS; i++) {
		struct lc_buf payload = {0}, b = {0};

		for (k = 0; k < MAP_ROWS_MAX; k++) {
			rows.rows[k].window = (uint64_t)i * MAP_ROWS_MAX + k;
			set_row(NULL, rows.disk, rows.rows[k].window, rows.rows[k].id, &one);
			set_add(sum, &one);
		}
		must(maprec_encode(&rows, &payload, &e), &e);
		must(message_put_rows_head(&b, 1), &e);
		assert_int_equal(lc_buf_append(&b, payload.p, payload.n), 0);
		say(m, MESSAGE_ROWS, &b);
		lc_buf_free(&payload);
	}
}

/* What became of it; LC_OK: it was taken. */
static int32_t
commit(struct two *t, struct mole *m, const struct set_sum *sum)
{
	const struct commit c = {.stream = 1, .rows = ROWS, .sum = *sum};
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf b = {0};
	unsigned i;

	must(message_put_commit(&b, &c), &e);
	say(m, MESSAGE_COMMIT, &b);
	for (i = 0; i < 3000 && m->of_type[MESSAGE_COMMITTED] + m->of_type[MESSAGE_REFUSED] == 0;
	     i++)
		run_for(&t->loop, 5);
	assert_false(m->over);
	assert_int_equal(m->of_type[MESSAGE_COMMITTED] + m->of_type[MESSAGE_REFUSED], 1);
	return m->of_type[MESSAGE_REFUSED] > 0 ? m->code : LC_OK;
}

static void
zeros_take_room_too(void **state)
{
	static struct point p, q;
	uint8_t none[16] = {0};
	struct set_sum sum;
	struct mole m;
	struct two t;

	(void)state;
	two_make(&t, NULL);
	drsite_stop(&t.d);
	t.d.host_max = KEEP_MAX;
	drsite_start(&t.d);
	begin(&t, &m);
	begin_point(&m, 1, none, &p);
	say_zeros(&m, &p, &sum);
	assert_int_equal(commit(&t, &m, &sum), LC_OK);
	hang_up(&t, &m);
	/* Another session does not know less of it. */
	begin(&t, &m);
	begin_point(&m, 2, p.id, &q);
	say_zeros(&m, &q, &sum);
	assert_int_equal(commit(&t, &m, &sum), LC_ENOSPC);
	hang_up(&t, &m);
	two_done(&t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(zeros_take_room_too),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
