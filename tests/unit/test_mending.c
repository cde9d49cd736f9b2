/*
 * What is found damaged at the replica is sent there again, as far as the source has it; and what
 * a replica claims costs no more than it may.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "replicator/lender.h"
#include "replicator/message.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/log.h"
#include "store/seal.h"
#include "store/thin.h"
#include "tests/lib/halves.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"

#define WINDOWS 40u
#define POINTS 3u

struct scene {
	struct halves x;
	struct vault_disk d[POINTS];
	struct point p[POINTS];
	struct sender_care care;
	uint64_t seed;
};

/* Three points of a VM: windows that do not compress, a few of which change a little each time. */
static void
make(struct scene *s)
{
	size_t i;

	memset(s, 0, sizeof *s);
	s->seed = 7;
	halves_make(&s->x);
	halves_hang_up(&s->x);
	vault_close(&s->x.v);
	s->x.v.segment_bytes = 256u << 10; /* that some of it can be dropped */
	vault_open(&s->x.v);
	halves_connect(&s->x);
	s->d[0] = vault_disk("vda", WINDOWS);
	for (i = 0; i < WINDOWS; i++)
		s->d[0].codes[i] = 5 * (i + 1);
	for (i = 0; i < POINTS; i++) {
		if (i > 0) {
			s->d[i] = vault_disk_copy(&s->d[i - 1]);
			s->d[i].codes[3] += VAULT_EDIT;
			s->d[i].codes[9] = 5 * (1000 + i);
		}
		s->p[i] = halves_backup(&s->x, "web01", &s->d[i]);
	}
	halves_run(&s->x, &s->seed);
	assert_int_equal(s->x.committed, POINTS);
}

static void
end(struct scene *s)
{
	size_t i;

	for (i = 0; i < POINTS; i++)
		vault_disk_free(&s->d[i]);
	halves_free(&s->x);
	sender_care_done(&s->care);
}

static void
all_arrived(struct scene *s)
{
	size_t i;

	for (i = 0; i < POINTS; i++)
		halves_arrived(&s->x, &s->p[i], &s->d[i]);
}

/* ---- damage ---- */

static char last_affects[256], last_mended[256]; /* as it was said last */

static void
note(void *arg, const struct damage *d)
{
	if (d->mended) {
		memcpy(last_mended, d->affects, sizeof last_mended);
		return;
	}
	memcpy(last_affects, d->affects, sizeof last_affects);
	assert_int_equal(lc_buf_append(arg, d, sizeof *d), 0);
}

/* As `locum scrub` does it; how many places were found. */
static size_t
scrub(struct store *s)
{
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf list = {0};
	size_t n;
	int rc = store_scrub(s, note, &list, NULL, NULL, &e);

	n = list.n / sizeof(struct damage);
	assert_int_equal(rc, n > 0 ? LC_ECORRUPT : 0);
	lc_err_clear(&e);
	must(store_condemn(s, (const struct damage *)(const void *)list.p, n, NULL, &e), &e);
	lc_buf_free(&list);
	return n;
}

static void
flip(const char *dir, int type, int nth)
{
	struct vault_piece p;

	assert_true(vault_piece_of(dir, type, nth, &p));
	vault_flip(dir, &p, RECORD_HEADER_SIZE + 50, 4);
}

/* The replica's store is closed and open again; its host hangs up. */
static void
spoil_replica(struct scene *s, int type, const int *nth, size_t n, bool rebuild)
{
	struct vault_piece p[20];
	char path[400];
	size_t i;

	halves_hang_up(&s->x);
	store_close(s->x.to);
	for (i = 0; i < n; i++)
		assert_true(vault_piece_of(s->x.dir, type, nth[i], &p[i]));
	for (i = 0; i < n; i++)
		vault_flip(s->x.dir, &p[i], RECORD_HEADER_SIZE + 50, 4);
	(void)snprintf(path, sizeof path, "%s/catalog.sqlite", s->x.dir);
	if (rebuild)
		assert_int_equal(unlink(path), 0);
	halves_open_replica(&s->x);
}

/* A session that looks for damage at once. */
static void
mend(struct scene *s)
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

static bool
is_whole(struct scene *s)
{
	struct transfer_damage d = {.contents = 0};
	struct lc_err e = LC_ERR_INIT;
	static const uint8_t none[CHUNK_ID_SIZE];
	bool whole;

	must(transfer_damage(s->x.to, 0, none, 10, &d, &e), &e);
	whole = d.contents == 0 && d.lines.n == 0;
	transfer_damage_free(&d);
	return whole;
}

/* ---- it heals ---- */

static void
contents_come_back(struct scene *s, bool rebuild)
{
	/* Whole ones, the base of deltas among them, and a delta. */
	static const int nth[] = {0, 3, 17, 41};
	static const uint8_t none[CHUNK_ID_SIZE];
	struct transfer_damage others = {.contents = 0}, first = others, second = others;
	struct lc_err e = LC_ERR_INIT;
	struct store_opts o = {.recovery_code = s->x.v.code, .dir = s->x.dir};
	struct store *reader;

	spoil_replica(s, RECORD_CHUNK, nth, 4, rebuild);
	assert_int_equal(scrub(s->x.to), rebuild ? 8 : 4);
	assert_false(is_whole(s));
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
	assert_true(is_whole(s));
	all_arrived(s);
	assert_int_equal(scrub(s->x.to), 0);
	/* Once is enough. */
	s->x.chunk_bytes = 0;
	mend(s);
	assert_int_equal(s->x.chunk_bytes, 0);
}

static void
damaged_contents_come_back(void **state)
{
	struct scene s;

	(void)state;
	make(&s);
	contents_come_back(&s, false);
	/* Also where the catalog is made again by what is in the log. */
	spoil_replica(&s, 0, NULL, 0, true);
	assert_true(is_whole(&s));
	all_arrived(&s);
	end(&s);
}

static void
they_come_back_to_a_catalog_that_was_made_again(void **state)
{
	struct scene s;

	(void)state;
	make(&s);
	contents_come_back(&s, true);
	end(&s);
}

/* In the middle of a session, at the time for it, and beside points. */
static void
it_is_noticed_while_connected(void **state)
{
	const struct sender_mending o = {.every_ms = 50};
	static const int nth[] = {2};
	struct sender_mending with = o;
	struct sender_stats st;
	struct scene s;
	struct damage d = {.type = RECORD_CHUNK};
	struct vault_piece p;
	struct lc_err e = LC_ERR_INIT;

	(void)state;
	make(&s);
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
	assert_true(is_whole(&s));
	all_arrived(&s);
	end(&s);
}

/* What is cut off goes on with the next session. */
static void
cuts_do_not_keep_it_from_healing(void **state)
{
	int nth[20];
	struct scene s;
	unsigned cuts = 0;
	size_t i;

	(void)state;
	make(&s);
	for (i = 0; i < 20; i++)
		nth[i] = (int)(2 * i);
	spoil_replica(&s, RECORD_CHUNK, nth, 20, false);
	(void)scrub(s.x.to);
	do {
		const struct sender_mending o = {.care = &s.care, .first = true};

		halves_connect(&s.x);
		s.care.due_ns = 0;
		sender_mend(s.x.tx, &o);
		s.x.budget = (int64_t)vault_random(&s.seed, 40);
		halves_run(&s.x, &s.seed);
		s.x.budget = -1;
		halves_hang_up(&s.x);
	} while (!is_whole(&s) && ++cuts < 100);
	assert_true(cuts > 1);
	halves_connect(&s.x);
	assert_true(is_whole(&s));
	all_arrived(&s);
	end(&s);
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
	struct scene s;

	(void)state;
	make(&s);
	assert_true(vault_piece_of(s.x.dir, RECORD_CHUNK, nth[0], &bad));
	spoil_replica(&s, RECORD_CHUNK, nth, 1, false);
	assert_true(is_whole(&s)); /* as far as anybody knows */
	must(lender_new(s.x.to, 0, note_answer, &answer, &lender, &e), &e);
	m.ids = bad.r.id;
	must(message_put_ids(&ask, &m), &e);
	must(lender_message(lender, MESSAGE_READ, (struct lc_span){ask.p, ask.n}, &e), &e);
	assert_memory_equal(answer.p, &type, sizeof type);
	must(message_get_none((struct lc_span){answer.p + 2, answer.n - 2}, &none, &e), &e);
	assert_int_equal(none.code, LC_ECORRUPT);
	assert_false(is_whole(&s));
	lender_free(lender);
	mend(&s);
	assert_int_equal(s.x.damage.sent, 1);
	assert_true(is_whole(&s));
	all_arrived(&s);
	lc_buf_free(&answer);
	lc_buf_free(&ask);
	end(&s);
}

/* ---- what is not here either ---- */

static void
what_is_damaged_here_too_is_named(void **state)
{
	static const int nth[] = {5, 6};
	struct scene s;

	(void)state;
	make(&s);
	spoil_replica(&s, RECORD_CHUNK, nth, 2, false);
	assert_int_equal(scrub(s.x.to), 2);
	vault_close(&s.x.v);
	flip(s.x.v.dir, RECORD_CHUNK, 5); /* the same: the replica has them in the same order */
	vault_open(&s.x.v);
	halves_connect(&s.x);
	mend(&s);
	assert_int_equal(s.x.damage.contents, 1);
	assert_int_equal(s.x.damage.sent, 1);
	assert_int_equal(s.x.damage.unable, 1);
	assert_non_null(strstr(s.x.damage.text, "web01/vda in 3 restore points"));
	assert_int_equal(scrub(s.x.v.s), 1);
	mend(&s);
	assert_int_equal(s.x.damage.unable, 1);
	assert_non_null(strstr(s.x.damage.text, "damaged here, too"));
	/* The disk has it still, and the next backup stores it again. */
	(void)halves_backup(&s.x, "web01", &s.d[POINTS - 1]);
	mend(&s);
	assert_int_equal(s.x.damage.contents, 0);
	assert_true(is_whole(&s));
	all_arrived(&s);
	end(&s);
}

/* ---- what is at another replica ---- */

struct elsewhere {
	struct store *s; /* NULL: it has nothing */
	bool lies;
};

static int
fetch(void *arg, const uint8_t *ids, size_t n, uint8_t *payload, struct fetched *out,
      struct lc_err *e)
{
	struct elsewhere *x = arg;
	struct transfer_chunk c = {.encoding = 0};
	int rc;

	(void)n;
	if (x->s == NULL)
		return lc_fail(e, LC_ENOENT, 0, "no replica has it");
	rc = transfer_read(x->s, 0, ids, payload, &c, e);
	if (rc == 0 && x->lies)
		payload[c.payload.n - 1] ^= 1;
	*out = (struct fetched){.encoding = c.encoding, .key = c.key, .n = c.payload.n};
	return rc;
}

static int
has_it(void *arg, const uint8_t *ids, size_t n, uint8_t *bits, struct lc_err *e)
{
	(void)arg;
	(void)ids;
	(void)e;
	memset(bits, 0xff, (n + 7) / 8);
	return 0;
}

/* All that can be was dropped at the host, and some of it is damaged at one of two replicas. */
static void
make_thin(struct scene *s, struct elsewhere *x)
{
	static const int nth[] = {0, 1};
	const struct thin_opts drop = {.have = has_it, .peers = "dr, far", .bytes = UINT64_MAX};
	struct store_opts o = {.mode = STORE_WRITE, .no_key = true};
	struct lc_err e = LC_ERR_INIT;
	struct thin_stats st;
	static char path[400];

	make(s);
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
	spoil_replica(s, RECORD_CHUNK, nth, 2, false);
	assert_int_equal(scrub(s->x.to), 2);
}

static void
what_was_dropped_comes_from_another_replica(void **state)
{
	struct elsewhere x;
	struct scene s;

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
	all_arrived(&s);
	store_close(x.s);
	end(&s);
}

static void
what_nobody_has_comes_from_the_disks(void **state)
{
	struct elsewhere x;
	struct store *far;
	struct vault_disk d;
	struct point q;
	struct scene s;

	(void)state;
	make_thin(&s, &x);
	far = x.s;
	x.s = NULL;
	mend(&s);
	assert_int_equal(s.x.damage.unable, 2);
	assert_non_null(strstr(s.x.damage.text, "web01/vda in 3 restore points"));
	assert_non_null(strstr(s.x.damage.text, "no replica has it"));
	d = vault_disk_copy(&s.d[POINTS - 1]);
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
	end(&s);
}

/* ---- maps ---- */

static void
a_damaged_map_is_told_and_replaced(void **state)
{
	static const int last[] = {-1};
	struct vault_disk d;
	struct point q;
	struct scene s;

	(void)state;
	make(&s);
	spoil_replica(&s, RECORD_MAP, last, 1, false);
	assert_int_equal(scrub(s.x.to), 1);
	mend(&s);
	assert_int_equal(s.x.damage.contents, 0);
	assert_int_equal(s.x.damage.lines, 1);
	assert_string_equal(s.x.damage.text, "");
	all_arrived(&s); /* by the catalog there */
	d = vault_disk_copy(&s.d[POINTS - 1]);
	d.codes[20] = 77;
	q = halves_backup(&s.x, "web01", &d);
	assert_true((q.flags & POINT_FRESH) != 0);
	mend(&s);
	assert_int_equal(s.x.damage.lines, 0);
	assert_true(is_whole(&s));
	/* And it is not done again; all is readable, and scrub names the point of before alone. */
	last_mended[0] = '\0';
	assert_int_equal(scrub(s.x.to), 0);
	assert_non_null(strstr(last_mended, "in 1 restore point"));
	assert_non_null(strstr(last_mended, "only the catalog still knows"));
	mend(&s);
	point_done(&q);
	q = halves_backup(&s.x, "web01", &d);
	assert_int_equal(q.flags & POINT_FRESH, 0);
	mend(&s);
	all_arrived(&s);
	halves_arrived(&s.x, &q, &d);
	spoil_replica(&s, 0, NULL, 0, true); /* from the log alone */
	halves_connect(&s.x);
	halves_arrived(&s.x, &q, &d);
	halves_arrived(&s.x, &s.p[0], &s.d[0]);
	/* The catalog that knew is gone: the point can't be read now, and that is the answer. */
	assert_int_equal(scrub(s.x.to), 1);
	assert_non_null(strstr(last_affects, "in 1 restore point"));
	point_done(&q);
	vault_disk_free(&d);
	end(&s);
}

/* Whatever it was: it was known what lay there. */
static void
a_record_whose_header_is_gone_is_mended(void **state)
{
	struct vault_piece p;
	struct scene s;

	(void)state;
	make(&s);
	halves_hang_up(&s.x);
	store_close(s.x.to);
	assert_true(vault_piece_of(s.x.dir, RECORD_CHUNK, 4, &p));
	vault_flip(s.x.dir, &p, 1, 4);
	halves_open_replica(&s.x);
	assert_int_equal(scrub(s.x.to), 1);
	mend(&s);
	assert_int_equal(s.x.damage.sent, 1);
	assert_int_equal(s.x.damage.lines, 0);
	assert_int_equal(scrub(s.x.to), 0);
	mend(&s); /* and no disk is read for it */
	assert_int_equal(s.x.damage.lines, 0);
	assert_true(is_whole(&s));
	all_arrived(&s);
	end(&s);
}

/* The point that stands by itself is made, and not there yet: that is enough. */
static void
a_map_is_not_replaced_twice(void **state)
{
	static const int last[] = {-1};
	struct sender_mending o = {.every_ms = 1};
	struct point q;
	struct scene s;

	(void)state;
	make(&s);
	spoil_replica(&s, RECORD_MAP, last, 1, false);
	assert_int_equal(scrub(s.x.to), 1);
	halves_connect(&s.x);
	o.care = &s.care;
	sender_mend(s.x.tx, &o);
	halves_run(&s.x, &s.seed);
	assert_int_equal(s.x.damage.lines, 1);
	q = halves_backup(&s.x, "web01", &s.d[POINTS - 1]); /* nobody tells the sender */
	assert_true((q.flags & POINT_FRESH) != 0);
	point_done(&q);
	s.care.due_ns = 0;
	s.care.lines.n = 0; /* and it is another day */
	s.x.told = 0;
	halves_run(&s.x, &s.seed);
	assert_true(s.x.told > 0);
	q = halves_backup(&s.x, "web01", &s.d[POINTS - 1]);
	assert_int_equal(q.flags & POINT_FRESH, 0);
	point_done(&q);
	end(&s);
}

/* ---- a replica that lies ---- */

/* Answers INSPECT by what is claimed, and wants all of an OFFER. */
static void
claims(struct scene *s, const struct damaged *all)
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
ids_of(struct scene *s, struct lc_buf *ids)
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

static void
a_replica_that_claims_damage_for_ever_gets_a_bounded_part(void **state)
{
	const struct sender_mending o = {.every_ms = 1000};
	struct sender_mending with = o;
	struct lc_buf ids = {0};
	struct damaged all = {0};
	uint64_t bytes = 0, max;
	int64_t pause = 0;
	struct scene s;
	unsigned i;

	(void)state;
	make(&s);
	halves_hang_up(&s.x);
	ids_of(&s, &ids);
	all.n = (uint32_t)(ids.n / CHUNK_ID_SIZE);
	all.contents = all.n;
	all.ids = ids.p;
	with.care = &s.care;
	max = (uint64_t)5 * WINDOWS * WINDOW_SIZE;
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
	end(&s);
}

static void
takes(struct scene *s, const struct damaged *m, int rc)
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
	struct scene s;

	(void)state;
	make(&s);
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
	end(&s);
}

/* One INSPECT, which is answered by that. */
static void
answers(struct scene *s, const struct damaged *m)
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
	struct scene s;
	unsigned i;

	(void)state;
	make(&s);
	o.care = &s.care;
	m.lines = s.p[0].line;
	sender_mend(s.x.tx, &o);
	for (i = 0; i < 4; i++) {
		answers(&s, &m);
		if (i == 2) /* it is another day */
			s.care.lines.n = 0;
		q = halves_backup(&s.x, "web01", &s.d[POINTS - 1]);
		assert_int_equal((q.flags & POINT_FRESH) != 0, i == 0 || i == 3);
		point_done(&q);
		sender_wake(s.x.tx, NULL);
		halves_run(&s.x, &s.seed);
	}
	end(&s);
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
	struct scene s;
	uint32_t i;

	(void)state;
	for (i = 0; i < DAMAGED_IDS_MAX + 2; i++) {
		ids[i][0] = 1;
		ids[i][1] = (uint8_t)(i >> 8);
		ids[i][2] = (uint8_t)i;
	}
	make(&s);
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
	end(&s);
}

/* ---- a source that lies ---- */

static int
says(struct scene *s, uint16_t type, struct lc_buf *body)
{
	struct lc_err e = LC_ERR_INIT;
	int rc = receiver_message(s->x.rx, type, (struct lc_span){body->p, body->n}, &e);

	lc_buf_free(body);
	return rc;
}

static void
begins(struct scene *s, uint32_t stream)
{
	const struct transfer_point none = {.entry = {0}};
	struct lc_buf b = {0};

	assert_int_equal(message_put_begin(&b, stream, &none), 0);
	assert_int_equal(says(s, MESSAGE_BEGIN, &b), 0);
}

/* Which of one id is wanted. */
static bool
wants(struct scene *s, uint32_t stream, const uint8_t *id)
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
	struct scene s;

	(void)state;
	make(&s);
	halves_hang_up(&s.x);
	assert_true(vault_piece_of(s.x.dir, RECORD_CHUNK, 0, &bad));
	assert_true(vault_piece_of(s.x.dir, RECORD_CHUNK, 1, &good));
	spoil_replica(&s, RECORD_CHUNK, nth, 1, false);
	(void)scrub(s.x.to);
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
	assert_true(is_whole(&s));
	all_arrived(&s);
	end(&s);
}

/* One of before says zeros there, and one to come may say more. */
static void
only_who_says_so_is_asked(void **state)
{
	struct welcome m = {.version = MESSAGE_VERSION, .byte_window = 1};
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf b = {0};
	struct scene s;

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
	make(&s); /* whose sender was not told that it may */
	assert_true(sender_idle(s.x.tx));
	assert_true(TAILQ_EMPTY(&s.x.up));
	assert_int_equal(s.x.told, 0);
	end(&s);
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
	    cmocka_unit_test(what_nobody_has_comes_from_the_disks),
	    cmocka_unit_test(a_damaged_map_is_told_and_replaced),
	    cmocka_unit_test(a_record_whose_header_is_gone_is_mended),
	    cmocka_unit_test(a_map_is_not_replaced_twice),
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
