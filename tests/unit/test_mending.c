/*
 * What is found damaged at the replica is sent there again, as far as the source has it.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "replicator/lender.h"
#include "replicator/message.h"
#include "store/base/clock.h"
#include "store/base/log.h"
#include "store/thin.h"
#include "tests/lib/decay.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"

#define SLOW_US 250000 /* more than a turn */

static void
flip(const char *dir, int type, int nth)
{
	struct vault_piece p;

	assert_true(vault_piece_of(dir, type, nth, &p));
	vault_flip(dir, &p, RECORD_HEADER_SIZE + 50, 4);
}

/* A session that looks for damage at once. */
static void
mend(struct decay *s)
{
	const struct sender_mending o = {.care = &s->care, .first = true};

	halves_hang_up(&s->x);
	halves_connect(&s->x);
	s->care.due_ns = 0;
	sender_mend(s->x.tx, &o);
	assert_false(sender_idle(s->x.tx));
	halves_run(&s->x, &s->seed);
	assert_true(sender_idle(s->x.tx));
}

/* ---- it heals ---- */

static void
contents_come_back(struct decay *s, bool rebuild)
{
	/* Whole ones, the base of deltas among them, and a delta. */
	static const int nth[] = {0, 3, 17, 41};
	static const uint8_t none[CHUNK_ID_SIZE];
	struct transfer_damage others = {.contents = 0}, first = others, second = others;
	struct lc_err e = LC_ERR_INIT;
	struct store_opts o = {.recovery_code = s->x.v.code, .dir = s->x.dir};
	struct store *reader;

	decay_spoil(s, RECORD_CHUNK, nth, 4, rebuild);
	assert_int_equal(decay_scrub(s->x.to, NULL), rebuild ? 8 : 4);
	assert_false(decay_is_whole(s));
	must(transfer_damage(s->x.to, 1, none, 10, &others, &e), &e);
	assert_int_equal(others.contents, 0); /* of another host's nothing is told */
	must(transfer_damage(s->x.to, 0, none, 1, &first, &e), &e);
	assert_true(first.contents >= 4 && first.ids.n == CHUNK_ID_SIZE);
	must(transfer_damage(s->x.to, 0, first.ids.p, 1, &second, &e), &e);
	assert_true(memcmp(second.ids.p, first.ids.p, CHUNK_ID_SIZE) > 0);
	transfer_damage_free(&first);
	transfer_damage_free(&second);
	must(store_open(&o, &reader, &e), &e);
	assert_int_equal(vault_compare(reader, s->p[0].id, &s->d[0], 1, &e), LC_ECORRUPT);
	store_close(reader);
	s->x.chunk_bytes = 0;
	mend(s);
	assert_true(s->x.told >= 2); /* that it is so, and that it is over */
	assert_int_equal(s->x.damage.contents, 0);
	assert_true(s->x.damage.sent >= 4 && s->x.damage.sent <= 8);
	assert_int_equal(s->x.damage.unable, 0);
	assert_string_equal(s->x.damage.text, "");
	assert_true(s->x.chunk_bytes <= 8 * (WINDOW_SIZE + 200u));
	assert_true(decay_is_whole(s));
	decay_arrived(s);
	assert_int_equal(decay_scrub(s->x.to, NULL), 0);
	/* Once is enough. */
	s->x.chunk_bytes = 0;
	mend(s);
	assert_int_equal(s->x.chunk_bytes, 0);
}

static void
damaged_contents_come_back(void **state)
{
	struct decay s;

	(void)state;
	decay_make(&s);
	contents_come_back(&s, false);
	/* Also where the catalog is made again by what is in the log. */
	decay_spoil(&s, 0, NULL, 0, true);
	assert_true(decay_is_whole(&s));
	decay_arrived(&s);
	decay_end(&s);
}

static void
they_come_back_to_a_catalog_that_was_made_again(void **state)
{
	struct decay s;

	(void)state;
	decay_make(&s);
	contents_come_back(&s, true);
	decay_end(&s);
}

/* In the middle of a session, at the time for it, and beside points. */
static void
it_is_noticed_while_connected(void **state)
{
	const struct sender_mending o = {.every_ms = 50};
	static const int nth[] = {2};
	struct sender_mending with = o;
	struct sender_stats st;
	struct decay s;
	struct damage d = {.type = RECORD_CHUNK};
	struct vault_piece p;
	struct lc_err e = LC_ERR_INIT;

	(void)state;
	decay_make(&s);
	(void)nth;
	with.care = &s.care;
	sender_mend(s.x.tx, &with);
	halves_run(&s.x, &s.seed);
	assert_int_equal(s.x.damage.contents, 0);
	sender_stats(s.x.tx, &st);
	assert_true(st.look_ns > 0);
	assert_true(vault_piece_of(s.x.dir, RECORD_CHUNK, 2, &p));
	vault_flip(s.x.dir, &p, RECORD_HEADER_SIZE + 50, 4);
	d.segment = p.r.segment;
	d.offset = p.off;
	d.length = p.n;
	must(store_condemn(s.x.to, &d, 1, NULL, &e), &e);
	while (clock_mono_ns() < st.look_ns)
		(void)usleep(5000);
	halves_run(&s.x, &s.seed);
	assert_int_equal(s.x.damage.sent, 1);
	assert_true(decay_is_whole(&s));
	decay_arrived(&s);
	decay_end(&s);
}

/* What is cut off goes on with the next session. */
static void
cuts_do_not_keep_it_from_healing(void **state)
{
	int nth[20];
	struct decay s;
	unsigned cuts = 0;
	size_t i;

	(void)state;
	decay_make(&s);
	for (i = 0; i < 20; i++)
		nth[i] = (int)(2 * i);
	decay_spoil(&s, RECORD_CHUNK, nth, 20, false);
	(void)decay_scrub(s.x.to, NULL);
	do {
		const struct sender_mending o = {.care = &s.care, .first = true};

		halves_connect(&s.x);
		s.care.due_ns = 0;
		sender_mend(s.x.tx, &o);
		s.x.budget = (int64_t)vault_random(&s.seed, 40);
		halves_run(&s.x, &s.seed);
		s.x.budget = -1;
		halves_hang_up(&s.x);
	} while (!decay_is_whole(&s) && ++cuts < 100);
	assert_true(cuts > 1);
	halves_connect(&s.x);
	assert_true(decay_is_whole(&s));
	decay_arrived(&s);
	decay_end(&s);
}

static int
note_answer(void *arg, uint16_t type, const struct lc_span *spans, size_t n, struct lc_err *e)
{
	struct lc_buf *b = arg;

	(void)e;
	assert_int_equal(n, 1);
	b->n = 0;
	assert_int_equal(lc_buf_append(b, &type, sizeof type), 0);
	return lc_buf_append(b, spans[0].p, spans[0].n);
}

/* Its host reads something back, and it is bad: that is as good as a scrub. */
static void
what_a_read_finds_bad_comes_back(void **state)
{
	static const int nth[] = {7};
	struct lc_buf answer = {0}, ask = {0};
	struct lc_err e = LC_ERR_INIT;
	const uint16_t type = MESSAGE_NONE;
	struct vault_piece bad;
	struct lender *lender;
	struct ids m = {.n = 1};
	struct none none;
	struct decay s;

	(void)state;
	decay_make(&s);
	assert_true(vault_piece_of(s.x.dir, RECORD_CHUNK, nth[0], &bad));
	decay_spoil(&s, RECORD_CHUNK, nth, 1, false);
	assert_true(decay_is_whole(&s)); /* as far as anybody knows */
	must(lender_new(s.x.to, 0, note_answer, &answer, &lender, &e), &e);
	m.ids = bad.r.id;
	must(message_put_ids(&ask, &m), &e);
	must(lender_message(lender, MESSAGE_READ, (struct lc_span){ask.p, ask.n}, &e), &e);
	assert_memory_equal(answer.p, &type, sizeof type);
	must(message_get_none((struct lc_span){answer.p + 2, answer.n - 2}, &none, &e), &e);
	assert_int_equal(none.code, LC_ECORRUPT);
	assert_false(decay_is_whole(&s));
	assert_int_equal(lender_message(lender, MESSAGE_HEADS, (struct lc_span){ask.p, 1}, NULL),
	                 LC_EPEER);
	lender_free(lender);
	mend(&s);
	assert_int_equal(s.x.damage.sent, 1);
	assert_true(decay_is_whole(&s));
	decay_arrived(&s);
	lc_buf_free(&answer);
	lc_buf_free(&ask);
	decay_end(&s);
}

/* ---- what is not here either ---- */

static void
what_is_damaged_here_too_is_named(void **state)
{
	static const int nth[] = {5, 6};
	struct decay s;

	(void)state;
	decay_make(&s);
	decay_spoil(&s, RECORD_CHUNK, nth, 2, false);
	assert_int_equal(decay_scrub(s.x.to, NULL), 2);
	vault_close(&s.x.v);
	flip(s.x.v.dir, RECORD_CHUNK, 5); /* the same: the replica has them in the same order */
	vault_open(&s.x.v);
	halves_connect(&s.x);
	mend(&s);
	assert_int_equal(s.x.damage.contents, 1);
	assert_int_equal(s.x.damage.sent, 1);
	assert_int_equal(s.x.damage.unable, 1);
	assert_non_null(strstr(s.x.damage.text, "web01/vda in 3 restore points"));
	assert_int_equal(decay_scrub(s.x.v.s, NULL), 1);
	mend(&s);
	assert_int_equal(s.x.damage.unable, 1);
	assert_non_null(strstr(s.x.damage.text, "damaged here, too"));
	/* The disk has it still, and the next backup stores it again. */
	(void)halves_backup(&s.x, "web01", &s.d[DECAY_POINTS - 1]);
	mend(&s);
	assert_int_equal(s.x.damage.contents, 0);
	assert_true(decay_is_whole(&s));
	decay_arrived(&s);
	decay_end(&s);
}

/* ---- what is at another replica ---- */

struct elsewhere {
	struct store *s; /* NULL: it has nothing */
	bool lies, away, slow;
	unsigned asked;
};

static int
fetch(void *arg, const uint8_t *ids, size_t n, uint8_t *payload, struct fetched *out,
      struct lc_err *e)
{
	struct elsewhere *x = arg;
	struct transfer_chunk c = {.encoding = 0};
	int rc;

	(void)n;
	x->asked++;
	if (x->away)
		return lc_fail(e, LC_EPEER, 0, "replica far: no answer");
	if (x->slow)
		(void)usleep(SLOW_US);
	if (x->s == NULL)
		return lc_fail(e, LC_ENOENT, 0, "no replica has it");
	rc = transfer_read(x->s, 0, ids, payload, &c, e);
	if (rc == 0 && x->lies)
		payload[c.payload.n - 1] ^= 1;
	*out = (struct fetched){.encoding = c.encoding, .key = c.key, .n = c.payload.n};
	return rc;
}

/* All that can be was dropped at the host, and some of it is damaged at one of two replicas. */
static void
make_thin(struct decay *s, struct elsewhere *x)
{
	static const int nth[] = {0, 1};
	const struct thin_opts drop = {
	    .have = vault_have_all, .peers = "dr, far", .bytes = UINT64_MAX};
	struct store_opts o = {.mode = STORE_WRITE, .no_key = true};
	struct lc_err e = LC_ERR_INIT;
	struct thin_stats st;
	static char path[400];

	decay_make(s);
	halves_hang_up(&s->x);
	store_close(s->x.to);
	(void)snprintf(path, sizeof path, "%s/far", s->x.v.top);
	vault_copy(s->x.dir, path);
	halves_open_replica(&s->x);
	o.dir = path;
	*x = (struct elsewhere){.s = NULL};
	must(store_open(&o, &x->s, &e), &e);
	must(thin_run(s->x.v.s, &drop, &st, &e), &e);
	assert_true(st.chunks > 20);
	thin_fetch(s->x.v.s, fetch, x);
	decay_spoil(s, RECORD_CHUNK, nth, 2, false);
	assert_int_equal(decay_scrub(s->x.to, NULL), 2);
}

static void
what_was_dropped_comes_from_another_replica(void **state)
{
	struct elsewhere x;
	struct decay s;

	(void)state;
	make_thin(&s, &x);
	x.lies = true; /* nothing of that goes on to the one that asks */
	mend(&s);
	assert_int_equal(s.x.damage.sent, 0);
	assert_int_equal(s.x.damage.unable, 2);
	x.lies = false;
	mend(&s);
	assert_int_equal(s.x.damage.contents, 0);
	assert_int_equal(s.x.damage.sent, 2);
	decay_arrived(&s);
	store_close(x.s);
	decay_end(&s);
}

static void
connect_from(struct decay *s, struct elsewhere *x)
{
	const struct sender_mending o = {.care = &s->care, .first = true, .from = {fetch, x}};

	halves_hang_up(&s->x);
	halves_connect(&s->x);
	s->care.due_ns = 0;
	sender_mend(s->x.tx, &o);
}

/* Points are sent by the same worker: they are not held up by a replica that hangs, or is far away.
 */
static void
no_point_waits_long_for_another_replica(void **state)
{
	struct sender_stats st;
	struct elsewhere x;
	struct decay s;

	(void)state;
	make_thin(&s, &x);
	thin_fetch(s.x.v.s, NULL, NULL);
	x.away = true;
	connect_from(&s, &x);
	halves_run(&s.x, &s.seed);
	assert_int_equal(x.asked, 1); /* in one look, though it lacks two */
	assert_int_equal(s.x.damage.unable, 2);
	assert_int_equal(s.x.damage.sent, 0);

	x = (struct elsewhere){.s = x.s, .slow = true};
	connect_from(&s, &x);
	while (x.asked == 0) {
		s.x.budget = 1;
		halves_run(&s.x, &s.seed);
	}
	sender_stats(s.x.tx, &st);
	assert_int_equal(x.asked, 1);
	assert_true(st.more);
	s.x.budget = -1;
	halves_run(&s.x, &s.seed);
	assert_int_equal(s.x.damage.sent, 2);
	decay_arrived(&s);
	store_close(x.s);
	decay_end(&s);
}

static void
what_nobody_has_comes_from_the_disks(void **state)
{
	struct elsewhere x;
	struct store *far;
	struct vault_disk d;
	struct point q;
	struct decay s;

	(void)state;
	make_thin(&s, &x);
	far = x.s;
	x.s = NULL;
	mend(&s);
	assert_int_equal(s.x.damage.unable, 2);
	assert_non_null(strstr(s.x.damage.text, "web01/vda in 3 restore points"));
	assert_non_null(strstr(s.x.damage.text, "no replica has it"));
	d = vault_disk_copy(&s.d[DECAY_POINTS - 1]);
	d.codes[0] = 999; /* of the two one is on the disk no more */
	q = halves_backup(&s.x, "web01", &d);
	assert_true((q.flags & POINT_FRESH) != 0);
	mend(&s);
	assert_int_equal(s.x.damage.contents, 1);
	halves_arrived(&s.x, &q, &d);
	point_done(&q);
	assert_non_null(strstr(s.x.damage.text, "web01/vda in 3 restore points"));
	q = halves_backup(&s.x, "web01", &d); /* and it is not read as a whole for that again */
	assert_int_equal(q.flags & POINT_FRESH, 0);
	point_done(&q);
	vault_disk_free(&d);
	store_close(far);
	decay_end(&s);
}

static uint64_t
failed_lines(const struct decay *s)
{
	struct sender_stats st;

	sender_stats(s->x.tx, &st);
	return st.failed;
}

/* A replica that came later lacks what was dropped here.  However often that is looked at, it does
 * not count as being there, until the next point brings it. */
static void
what_is_nowhere_does_not_count_as_sent(void **state)
{
	const struct thin_opts drop = {.have = vault_have_all, .peers = "dr", .bytes = UINT64_MAX};
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf keys = {0};
	struct store *own;
	struct thin_stats st;
	struct vault_disk d;
	struct point q;
	struct decay s;

	(void)state;
	decay_make(&s);
	halves_hang_up(&s.x);
	store_close(s.x.to);
	(void)snprintf(s.x.dir, sizeof s.x.dir, "%s/later", s.x.v.top);
	must(transfer_keys(s.x.v.s, &keys, &e), &e);
	must(transfer_make(s.x.dir, (struct lc_span){keys.p, keys.n}, &e), &e);
	lc_buf_free(&keys);
	halves_open_replica(&s.x);
	must(thin_run(s.x.v.s, &drop, &st, &e), &e);
	assert_true(st.chunks > 20);
	s.x.committed = 0;
	own = s.x.v.s; /* who only reads, as locum copy does, has no point made */
	must(vault_try(&s.x.v, STORE_READ, &s.x.v.s, &e), &e);
	halves_connect(&s.x);
	halves_run(&s.x, &s.seed);
	assert_int_equal(failed_lines(&s), 1);
	assert_non_null(strstr(s.x.why.msg, "are not here any more"));
	assert_null(strstr(s.x.why.msg, "made from all of the disks"));
	halves_hang_up(&s.x);
	store_close(s.x.v.s);
	s.x.v.s = own;
	halves_connect(&s.x);
	halves_run(&s.x, &s.seed);
	assert_int_equal(failed_lines(&s), 1);
	assert_non_null(strstr(s.x.why.msg, "made from all of the disks"));
	sender_wake(s.x.tx, NULL);
	halves_run(&s.x, &s.seed);
	assert_int_equal(s.x.committed, 0);
	assert_int_equal(failed_lines(&s), 1);
	d = vault_disk_copy(&s.d[DECAY_POINTS - 1]);
	d.codes[20] = 77;
	q = halves_backup(&s.x, "web01", &d);
	assert_true((q.flags & POINT_FRESH) != 0);
	sender_wake(s.x.tx, q.line);
	halves_run(&s.x, &s.seed);
	assert_int_equal(failed_lines(&s), 0);
	assert_true(sender_idle(s.x.tx));
	halves_arrived(&s.x, &q, &d);
	point_done(&q);
	vault_disk_free(&d);
	decay_end(&s);
}

/* ---- maps ---- */

static void
a_damaged_map_is_told_and_replaced(void **state)
{
	static const int last[] = {-1};
	struct decay_said said = {.mended = ""};
	struct vault_disk d;
	struct point q;
	struct decay s;

	(void)state;
	decay_make(&s);
	decay_spoil(&s, RECORD_MAP, last, 1, false);
	assert_int_equal(decay_scrub(s.x.to, NULL), 1);
	mend(&s);
	assert_int_equal(s.x.damage.contents, 0);
	assert_int_equal(s.x.damage.lines, 1);
	assert_string_equal(s.x.damage.text, "");
	decay_arrived(&s); /* by the catalog there */
	d = vault_disk_copy(&s.d[DECAY_POINTS - 1]);
	d.codes[20] = 77;
	q = halves_backup(&s.x, "web01", &d);
	assert_true((q.flags & POINT_FRESH) != 0);
	mend(&s);
	assert_int_equal(s.x.damage.lines, 0);
	assert_true(decay_is_whole(&s));
	/* And it is not done again; all is readable, and scrub names the point of before alone. */
	assert_int_equal(decay_scrub(s.x.to, &said), 0);
	assert_non_null(strstr(said.mended, "in 1 restore point"));
	assert_non_null(strstr(said.mended, "only the catalog still knows"));
	mend(&s);
	point_done(&q);
	q = halves_backup(&s.x, "web01", &d);
	assert_int_equal(q.flags & POINT_FRESH, 0);
	mend(&s);
	decay_arrived(&s);
	halves_arrived(&s.x, &q, &d);
	decay_spoil(&s, 0, NULL, 0, true); /* from the log alone */
	halves_connect(&s.x);
	halves_arrived(&s.x, &q, &d);
	halves_arrived(&s.x, &s.p[0], &s.d[0]);
	/* The catalog that knew is gone: the point can't be read now, and that is the answer. */
	assert_int_equal(decay_scrub(s.x.to, &said), 1);
	assert_non_null(strstr(said.affects, "in 1 restore point"));
	point_done(&q);
	vault_disk_free(&d);
	decay_end(&s);
}

/* Deltas upon it are good again with it, unless they are bad themselves. */
static void
of_a_base_and_its_deltas_the_base_goes(void **state)
{
	enum { DELTAS = 12 };
	struct vault_disk d[DELTAS];
	struct point p[DELTAS];
	uint64_t first;
	struct decay s;
	int i, bad[2];

	(void)state;
	decay_make(&s);
	for (i = 0; i < DELTAS; i++) {
		d[i] = vault_disk_copy(i == 0 ? &s.d[DECAY_POINTS - 1] : &d[i - 1]);
		d[i].codes[3] += VAULT_EDIT;
		p[i] = halves_backup(&s.x, "web01", &d[i]);
	}
	mend(&s);
	bad[0] = 3;
	decay_spoil(&s, RECORD_CHUNK, bad, 1, false);
	assert_int_equal(decay_scrub(s.x.to, NULL), 1);
	mend(&s);
	assert_int_equal(s.x.damage.contents, 0);
	print_message("a base with %d deltas upon it: %d contents sent\n", DELTAS + 2,
	              (int)s.x.damage.sent);
	assert_int_equal(s.x.damage.sent, 1);
	assert_int_equal(decay_scrub(s.x.to, NULL), 0);
	/* The newest delta itself, too: two contents. */
	first = s.x.chunk_bytes;
	bad[0] = 0;
	bad[1] = -2; /* behind it lies the base that was mended */
	decay_spoil(&s, RECORD_CHUNK, bad, 2, false);
	assert_int_equal(decay_scrub(s.x.to, NULL), 2);
	mend(&s);
	assert_int_equal(s.x.damage.contents, 0);
	assert_int_equal(s.x.damage.sent, 2);
	assert_true(s.x.chunk_bytes - first <= 2 * (WINDOW_SIZE + 200u));
	/* And where the catalog is made again, which knows less of what is bad. */
	decay_spoil(&s, 0, NULL, 0, true);
	mend(&s);
	assert_true(decay_is_whole(&s));
	assert_int_equal(decay_scrub(s.x.to, NULL), 0);
	for (i = 0; i < DELTAS; i++) {
		halves_arrived(&s.x, &p[i], &d[i]);
		point_done(&p[i]);
		vault_disk_free(&d[i]);
	}
	decay_arrived(&s);
	decay_end(&s);
}

/* Whatever it was: it was known what lay there. */
static void
a_record_whose_header_is_gone_is_mended(void **state)
{
	struct vault_piece p;
	struct decay s;

	(void)state;
	decay_make(&s);
	halves_hang_up(&s.x);
	store_close(s.x.to);
	assert_true(vault_piece_of(s.x.dir, RECORD_CHUNK, 4, &p));
	vault_flip(s.x.dir, &p, 1, 4);
	halves_open_replica(&s.x);
	assert_int_equal(decay_scrub(s.x.to, NULL), 1);
	mend(&s);
	assert_int_equal(s.x.damage.sent, 1);
	assert_int_equal(s.x.damage.lines, 0);
	assert_int_equal(decay_scrub(s.x.to, NULL), 0);
	mend(&s); /* and no disk is read for it */
	assert_int_equal(s.x.damage.lines, 0);
	assert_true(decay_is_whole(&s));
	decay_arrived(&s);
	decay_end(&s);
}

/* The point that stands by itself is made, and not there yet: that is enough. */
static void
a_map_is_not_replaced_twice(void **state)
{
	static const int last[] = {-1};
	struct sender_mending o = {.every_ms = 1};
	struct point q;
	struct decay s;

	(void)state;
	decay_make(&s);
	decay_spoil(&s, RECORD_MAP, last, 1, false);
	assert_int_equal(decay_scrub(s.x.to, NULL), 1);
	halves_connect(&s.x);
	o.care = &s.care;
	sender_mend(s.x.tx, &o);
	halves_run(&s.x, &s.seed);
	assert_int_equal(s.x.damage.lines, 1);
	q = halves_backup(&s.x, "web01", &s.d[DECAY_POINTS - 1]); /* nobody tells the sender */
	assert_true((q.flags & POINT_FRESH) != 0);
	point_done(&q);
	s.care.due_ns = 0;
	s.care.lines.n = 0; /* and it is another day */
	s.x.told = 0;
	halves_run(&s.x, &s.seed);
	assert_true(s.x.told > 0);
	q = halves_backup(&s.x, "web01", &s.d[DECAY_POINTS - 1]);
	assert_int_equal(q.flags & POINT_FRESH, 0);
	point_done(&q);
	decay_end(&s);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(damaged_contents_come_back),
	    cmocka_unit_test(they_come_back_to_a_catalog_that_was_made_again),
	    cmocka_unit_test(it_is_noticed_while_connected),
	    cmocka_unit_test(cuts_do_not_keep_it_from_healing),
	    cmocka_unit_test(what_a_read_finds_bad_comes_back),
	    cmocka_unit_test(what_is_damaged_here_too_is_named),
	    cmocka_unit_test(what_was_dropped_comes_from_another_replica),
	    cmocka_unit_test(no_point_waits_long_for_another_replica),
	    cmocka_unit_test(what_nobody_has_comes_from_the_disks),
	    cmocka_unit_test(what_is_nowhere_does_not_count_as_sent),
	    cmocka_unit_test(a_damaged_map_is_told_and_replaced),
	    cmocka_unit_test(of_a_base_and_its_deltas_the_base_goes),
	    cmocka_unit_test(a_record_whose_header_is_gone_is_mended),
	    cmocka_unit_test(a_map_is_not_replaced_twice),
	};

	log_set_level(LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
