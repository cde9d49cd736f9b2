/*
 * A host that was captured, and a stranger, against a replica at work: what they say is refused,
 * with a reason, which is in the replica's log, too; nothing is harmed; another host goes on.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replicator/limits.h"
#include "replicator/message.h"
#include "replicator/noise.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/log.h"
#include "tests/lib/logged.h"
#include "tests/lib/mole.h"
#include "tests/lib/must.h"
#include "tests/lib/twosites.h"
#include "tests/lib/unit.h"

#define SOON_MS 30000

struct scene {
	uv_loop_t loop;
	struct drsite d;
	struct hostsite good;   /* goes on whatever happens */
	struct hostsite lost;   /* was captured: the mole has its key */
	struct vault_disk disk; /* of both */
	struct point first;     /* of the lost one, at the replica */
	struct mole m;
	unsigned points;
	unsigned made;   /* points that it was free to make */
	const char *due; /* why a connection ended, which the log is to say */
};

static void
wait_for(struct scene *x, bool (*condition)(void *arg), void *arg, const char *what)
{
	if (!run_until(&x->loop, condition, arg, SOON_MS))
		fail_msg("%s did not come about", what);
}

static bool
mole_is_welcome(void *arg)
{
	const struct mole *m = arg;

	return m->of_type[MESSAGE_WELCOME] > 0 || m->over;
}

/* A connection that ended is told of when the other side has hung up, too. */
static void
logged_what_is_due(struct scene *x)
{
	if (x->due != NULL)
		logged_wait(&x->loop, x->due);
	x->due = NULL;
}

/* The replica waits for that after a REFUSED. */
static void
hang_up(struct scene *x)
{
	if (x->m.tcp.data == NULL)
		return; /* the first one */
	mole_end(&x->m);
	while (!x->m.closed)
		run_for(&x->loop, 5);
	logged_what_is_due(x);
}

/* With the captured host's key, until something comes of it.  The connection before may not be
 * quite gone at the replica, which says so. */
static void
say_hello(struct scene *x, const struct hello *m, bool (*outcome)(void *arg))
{
	struct lc_buf body = {0};
	struct lc_err e = LC_ERR_INIT;
	unsigned i;

	must(message_put_hello(&body, m), &e);
	for (i = 0; i < 100; i++) {
		hang_up(x);
		mole_start(&x->m, &x->loop, x->d.port, &x->lost.id, x->d.id.public);
		mole_say(&x->m, MESSAGE_HELLO, (struct lc_span){body.p, body.n});
		wait_for(x, outcome, &x->m, "an answer to HELLO");
		if (!x->m.over ||
		    (x->m.refused[0] != '\0' && strstr(x->m.refused, "connected already") == NULL &&
		     strstr(x->m.refused, "is being closed") == NULL))
			break;
		run_for(&x->loop, 20);
	}
	lc_buf_free(&body);
}

/* The captured host's key in other hands, welcome at the replica. */
static void
begin(struct scene *x)
{
	struct hello m = {.version = MESSAGE_VERSION, .wall_ns = clock_wall_ns(), .name = "lost"};
	struct lc_buf keys = {0};
	struct lc_err e = LC_ERR_INIT;

	memcpy(m.domain, transfer_domain(x->lost.v.s), sizeof m.domain);
	must(transfer_keys(x->lost.v.s, &keys, &e), &e);
	m.keys = (struct lc_span){keys.p, keys.n};
	say_hello(x, &m, mole_is_welcome);
	assert_int_equal(x->m.of_type[MESSAGE_WELCOME], 1);
	lc_buf_free(&keys);
}

static void
make(struct scene *x)
{
	assert_int_equal(uv_loop_init(&x->loop), 0);
	drsite_make(&x->d, &x->loop);
	drsite_start(&x->d);
	hostsite_make(&x->good, &x->loop, &x->d, "good");
	hostsite_make(&x->lost, &x->loop, &x->d, "lost");
	hostsite_pair(&x->good, &x->d);
	hostsite_pair(&x->lost, &x->d);
	x->disk = vault_disk("vda", 6);
	x->disk.codes[2] = 5;
	x->first = hostsite_backup(&x->lost, "web01", &x->disk);
	hostsite_connect(&x->lost);
	hostsite_connect(&x->good);
	wait_for(x, hostsite_is_idle, &x->lost, "all there");
	wait_for(x, hostsite_is_idle, &x->good, "all there");
	hostsite_disconnect(&x->lost);
	x->points = 0;
	x->made = 0;
	x->due = NULL;
	memset(&x->m, 0, sizeof x->m);
	begin(x);
}

/* The good host goes on, and the captured one's point is what it was. */
static void
nothing_is_harmed(struct scene *x)
{
	struct point p;

	x->disk.codes[4] = 1000 + ++x->points;
	p = hostsite_backup(&x->good, "db", &x->disk);
	wait_for(x, hostsite_is_idle, &x->good, "the good host's point");
	assert_int_equal(x->good.downs, 0);
	assert_int_equal(x->good.failed, 0);
	(void)p;
}

static void
end(struct scene *x)
{
	struct store_opts o = {0};
	struct lc_err e = LC_ERR_INIT;
	struct store_stats st;
	struct vault_disk was = vault_disk("vda", 6);
	struct store *s;

	nothing_is_harmed(x);
	if (!x->m.closed)
		mole_end(&x->m);
	run_for(&x->loop, 20);
	logged_what_is_due(x);
	hostsite_disconnect(&x->good);
	drsite_stop(&x->d);
	was.codes[2] = 5;
	hostsite_arrived(&x->lost, &x->d, &x->first, &was);
	o.dir = hostsite_dir_at(&x->lost, &x->d);
	o.recovery_code = x->lost.v.code;
	must(store_open(&o, &s, &e), &e);
	must(store_stats(s, &st, &e), &e);
	assert_int_equal(st.points, 1 + x->made); /* what it said made no other */
	assert_int_equal(st.damaged, 0);
	store_close(s);
	vault_disk_free(&was);
	vault_disk_free(&x->disk);
	hostsite_free(&x->good);
	hostsite_free(&x->lost);
	drsite_free(&x->d);
	(void)uv_run(&x->loop, UV_RUN_NOWAIT);
	assert_int_equal(uv_loop_close(&x->loop), 0);
}

static void
say(struct scene *x, uint16_t type, const struct lc_buf *b)
{
	mole_say(&x->m, type, (struct lc_span){b->p, b->n});
}

static void
until_or_over(struct scene *x, uint16_t type, unsigned n)
{
	struct mole_count c = {&x->m, type, n};

	wait_for(x, mole_heard, &c, message_name(type));
}

static void
until(struct scene *x, uint16_t type, unsigned n)
{
	until_or_over(x, type, n);
	assert_true(x->m.of_type[type] >= n);
}

static void
ended_with(struct scene *x, const char *reason)
{
	wait_for(x, mole_is_over, &x->m, "the end of the connection");
	if (strstr(x->m.refused, reason) == NULL)
		fail_msg("'%s' is not the reason: '%s'", reason, x->m.refused);
	x->due = reason;
}

/* The next point of the captured host, taken from its own store. */
static struct outgoing *
next_point(struct scene *x, const uint8_t line[16])
{
	struct lc_err e = LC_ERR_INIT;
	struct outgoing *o = NULL;

	must(outgoing_next(x->lost.v.s, line, (struct lc_span){0}, &o, &e), &e);
	return o;
}

static void
begin_stream(struct scene *x, uint32_t stream, const struct transfer_point *p)
{
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf b = {0};

	must(message_put_begin(&b, stream, p), &e);
	say(x, MESSAGE_BEGIN, &b);
	lc_buf_free(&b);
}

/* ---- asking for what a source may not ----  */

static void
a_source_can_only_add(void **state)
{
	struct scene x;
	uint16_t type;
	unsigned n = 0;

	(void)state;
	make(&x);
	for (type = 1; type <= 64; type++) {
		static const uint8_t body[64];

		if (type == MESSAGE_PING || type == MESSAGE_PONG || type == MESSAGE_HEADS ||
		    type == MESSAGE_PROOF ||   /* of what was never asked for: below */
		    type == MESSAGE_INSPECT || /* what of its own is damaged: it is told */
		    (type >= MESSAGE_BEGIN && type <= MESSAGE_COMMIT && type != MESSAGE_WANT))
			continue;
		mole_say(&x.m, type, (struct lc_span){body, sizeof body});
		/* With REFUSED a source gives up a stream of its own, and no zeros are one. */
		ended_with(&x, type == MESSAGE_REFUSED ? "malformed REFUSED"
		                                       : "which a replica does not get");
		mole_end(&x.m);
		run_for(&x.loop, 10);
		if (++n % 8 == 0) { /* the log is told of so many of a host, and then of no more */
			end(&x);
			make(&x);
		} else {
			begin(&x);
		}
	}
	end(&x);
}

/* The same point again, an older base, a base that is not there. */
static void
history_is_not_written_twice(void **state)
{
	struct transfer_point p;
	struct outgoing *o;
	struct scene x;

	(void)state;
	make(&x);
	o = next_point(&x, x.first.line);
	p = *outgoing_point(o);
	begin_stream(&x, 1, &p);
	until(&x, MESSAGE_REFUSED, 1);
	assert_int_equal(x.m.code, LC_EEXIST);
	logged_wait(&x.loop, "refused a point: the restore point is here already");
	p.id[3] ^= 1; /* another id over the same entry */
	begin_stream(&x, 2, &p);
	until(&x, MESSAGE_REFUSED, 2);
	assert_int_equal(x.m.code, LC_ECORRUPT);
	assert_false(x.m.over); /* a point was wrong, not the session */
	outgoing_free(o);
	/* A new one that claims to follow nothing: backdated before what is there. */
	x.disk.codes[3] = 7;
	(void)hostsite_backup(&x.lost, "web01", &x.disk);
	{
		struct lc_err e = LC_ERR_INIT;
		struct lc_buf head = {0};
		struct outgoing *first = next_point(&x, x.first.line);

		must(lc_buf_append(&head, outgoing_point(first)->entry.p,
		                   outgoing_point(first)->entry.n),
		     &e);
		must(outgoing_next(x.lost.v.s, x.first.line, (struct lc_span){head.p, head.n}, &o,
		                   &e),
		     &e);
		outgoing_free(first);
		lc_buf_free(&head);
	}
	p = *outgoing_point(o);
	memset(p.base, 0, sizeof p.base);
	begin_stream(&x, 3, &p);
	until(&x, MESSAGE_REFUSED, 3);
	assert_int_equal(x.m.code, LC_ECONFLICT);
	logged_wait(&x.loop, "refused a point: its base is not the newest");
	memset(p.base, 7, sizeof p.base);
	begin_stream(&x, 4, &p);
	until(&x, MESSAGE_REFUSED, 4);
	assert_int_equal(x.m.code, LC_ECONFLICT);
	outgoing_free(o);
	x.disk.codes[3] = 0;
	end(&x);
}

/* Junk under an id that was asked for: it lands in the store of who sent it, and the good host's
 * window of the same id is its own. */
static void
junk_harms_its_own_store_only(void **state)
{
	static uint8_t junk[RECORD_PAYLOAD_MAX];
	struct map_record *rows = lc_alloc(sizeof *rows);
	struct transfer_chunk c;
	struct transfer_point p;
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf b = {0};
	struct outgoing *o;
	struct point second;
	struct scene x;

	(void)state;
	make(&x);
	x.disk.codes[1] = 77;
	second = hostsite_backup(&x.lost, "other", &x.disk);
	o = next_point(&x, second.line);
	x.disk.codes[1] = 0;
	p = *outgoing_point(o);
	must(outgoing_rows(o, rows, 1, &e), &e);
	must(outgoing_chunk(o, rows->rows[0].chunk, junk, &c, &e), &e);
	memset(junk, 0x42, CHUNK_ID_SIZE); /* the content of one, under the id of another */
	begin_stream(&x, 1, &p);
	must(message_put_offer(&b, &(struct offer){1, 1, 0, junk}), &e);
	say(&x, MESSAGE_OFFER, &b);
	until(&x, MESSAGE_WANT, 1);
	assert_int_equal(x.m.body.p[8] & 1, 1);
	b.n = 0;
	must(message_put_chunk_head(&b, 1, &c), &e);
	must(lc_buf_append(&b, junk, c.payload.n), &e);
	say(&x, MESSAGE_CHUNK, &b);
	run_for(&x.loop, 30);
	assert_int_equal(x.m.of_type[MESSAGE_REFUSED], 0); /* who is blind can't know */
	assert_false(x.m.over);
	/* An id that nobody asked for is another matter. */
	b.p[12] ^= 1;
	say(&x, MESSAGE_CHUNK, &b);
	ended_with(&x, "not asked for");
	lc_buf_free(&b);
	lc_free(rows);
	outgoing_free(o);
	end(&x);
}

static void
offers_that_never_come_end(void **state)
{
	static uint8_t ids[OFFER_IDS_MAX * CHUNK_ID_SIZE];
	struct lc_err e = LC_ERR_INIT;
	struct transfer_point p;
	struct lc_buf b = {0};
	struct outgoing *o;
	struct scene x;
	uint64_t seed = 1;
	unsigned round;
	size_t i;

	(void)state;
	make(&x);
	x.disk.codes[1] = 77;
	{
		struct point second = hostsite_backup(&x.lost, "other", &x.disk);

		o = next_point(&x, second.line);
	}
	p = *outgoing_point(o);
	begin_stream(&x, 1, &p);
	for (round = 0; round < 10 && !x.m.over; round++) {
		for (i = 0; i < sizeof ids; i++)
			ids[i] = (uint8_t)vault_random(&seed, 256);
		b.n = 0;
		must(message_put_offer(&b, &(struct offer){1, OFFER_IDS_MAX, 0, ids}), &e);
		say(&x, MESSAGE_OFFER, &b);
		until_or_over(&x, MESSAGE_WANT, round + 1);
	}
	ended_with(&x, "never come");
	assert_true(round <= 6);
	x.disk.codes[1] = 0;
	lc_buf_free(&b);
	outgoing_free(o);
	end(&x);
}

/* A flood of points that are begun and left: so many, and not more. */
static void
a_flood_of_points_is_bounded(void **state)
{
	struct outgoing *o[80];
	struct scene x;
	unsigned i;
	char vm[16];

	(void)state;
	make(&x);
	for (i = 0; i < 80; i++) {
		struct point p;

		(void)snprintf(vm, sizeof vm, "vm%u", i);
		p = hostsite_backup(&x.lost, vm, &x.disk);
		o[i] = next_point(&x, p.line);
		begin_stream(&x, i + 1, outgoing_point(o[i]));
	}
	until(&x, MESSAGE_REFUSED, 16);
	run_for(&x.loop, 30);
	assert_int_equal(x.m.of_type[MESSAGE_REFUSED], 16); /* 64 at once */
	logged_wait(&x.loop, "refused a point: more than 64 points at once");
	assert_int_equal(x.m.code, LC_EBUSY);
	assert_false(x.m.over);
	for (i = 0; i < 80; i++)
		outgoing_free(o[i]);
	end(&x);
}

/* ---- points without end ---- */

#define MANY_MAX (3u << 20) /* bytes that the captured host may keep */
#define HEADER ((size_t)200 << 10)

static void
note_kept(void *arg, const struct server_host *h)
{
	if (strcmp(h->name, "lost") == 0)
		*(uint64_t *)arg = h->kept;
}

/* One with nothing in it but a header of junk, upon the one before. */
static int
junk_point(struct scene *x, uint32_t stream, const uint8_t base[16], uint8_t id[16])
{
	static struct point p;
	static uint8_t header[HEADER];
	struct transfer_point tp = {.name = {header, 100}};
	struct commit c = {.stream = stream};
	struct lc_buf entry = {0}, b = {0};
	struct lc_err e = LC_ERR_INIT;
	unsigned n = x->m.of_type[MESSAGE_REFUSED];
	struct mole_count over = {&x->m, MESSAGE_COMMITTED, x->m.of_type[MESSAGE_COMMITTED] + 1};

	memset(&p, 0, sizeof p);
	memset(id, 0, 16);
	id[0] = 99;
	memcpy(id + 1, &stream, sizeof stream);
	memcpy(p.id, id, 16);
	memset(p.line, 3, 16);
	memcpy(p.base, base, 16);
	p.source_ns = INT64_MIN + (int64_t)stream; /* long before anything */
	must(point_encode(&p, (struct lc_span){header, sizeof header}, &entry, &e), &e);
	memcpy(tp.id, id, 16);
	memcpy(tp.line, p.line, 16);
	memset(tp.vm, 4, 16);
	memcpy(tp.base, base, 16);
	tp.entry = (struct lc_span){entry.p, entry.n};
	begin_stream(x, stream, &tp);
	must(message_put_commit(&b, &c), &e);
	say(x, MESSAGE_COMMIT, &b);
	while (!mole_heard(&over) && x->m.of_type[MESSAGE_REFUSED] == n)
		run_for(&x->loop, 2);
	lc_buf_free(&entry);
	lc_buf_free(&b);
	return x->m.of_type[MESSAGE_REFUSED] > n ? x->m.code : 0;
}

static void
whole_points_are_bounded_too(void **state)
{
	struct limits l = {.max_set = true, .max = MANY_MAX};
	uint8_t base[16] = {0}, id[16];
	struct lc_err e = LC_ERR_INIT;
	uint64_t kept = 0;
	uint32_t stream = 0;
	struct scene x;
	int rc = 0;

	(void)state;
	make(&x);
	must(limits_write(x.d.dir, x.lost.id.public, &l, &e), &e);
	mole_end(&x.m);
	run_for(&x.loop, 30);
	begin(&x);
	while (rc == 0 && ++stream < 100) {
		rc = junk_point(&x, stream, base, id);
		memcpy(base, id, 16);
	}
	assert_int_equal(rc, LC_ENOSPC);
	logged_wait(&x.loop, "refused a point: what this host may keep at the replica is used up");
	assert_true(stream >= MANY_MAX / HEADER - 2);
	assert_true(stream <= MANY_MAX / HEADER + 1);
	/* Nor is there more room after a while, or in another session. */
	mole_end(&x.m);
	run_for(&x.loop, 30);
	begin(&x);
	memset(base, 0, sizeof base);
	assert_int_equal(junk_point(&x, 1, base, id), LC_EEXIST);
	server_hosts(x.d.server, note_kept, &kept);
	assert_true(kept > MANY_MAX / 2 && kept <= MANY_MAX + HEADER);
	x.made = stream - 1;
	end(&x);
}

/* ---- lines without end ---- */

#define FLOOD 64u /* at once */

struct tally {
	const struct mole *m;
	unsigned n;
};

static bool
all_answered(void *arg)
{
	const struct tally *t = arg;

	return t->m->of_type[MESSAGE_COMMITTED] + t->m->of_type[MESSAGE_REFUSED] >= t->n ||
	       t->m->over;
}

/* A point with nothing in it, the first one of line n of VM n / 2. */
static void
bare_point(struct scene *x, uint32_t stream, uint32_t n)
{
	static const uint8_t header[64];
	static struct point p;
	struct transfer_point tp = {.name = {header, 8}};
	struct commit c = {.stream = stream};
	struct lc_buf entry = {0}, b = {0};
	struct lc_err e = LC_ERR_INIT;

	memset(&p, 0, sizeof p);
	lc_put32(p.id, n);
	p.id[15] = 98;
	memcpy(p.line, p.id, 16);
	must(point_encode(&p, (struct lc_span){header, sizeof header}, &entry, &e), &e);
	memcpy(tp.id, p.id, 16);
	memcpy(tp.line, p.line, 16);
	lc_put32(tp.vm, n / 2);
	tp.vm[15] = 97;
	tp.entry = (struct lc_span){entry.p, entry.n};
	begin_stream(x, stream, &tp);
	must(message_put_commit(&b, &c), &e);
	say(x, MESSAGE_COMMIT, &b);
	lc_buf_free(&entry);
	lc_buf_free(&b);
}

static void
note_vms(void *arg, const struct server_host *h)
{
	if (strcmp(h->name, "lost") == 0)
		*(size_t *)arg = h->vms;
}

/* A VM or line costs next to nothing of what a host may keep, and each is told at each HELLO. */
static void
lines_are_bounded(void **state)
{
	struct tally t = {.n = 0};
	uint32_t n = 0;
	struct scene x;
	size_t vms = 0;
	unsigned made, i;

	(void)state;
	make(&x);
	t.m = &x.m;
	while (x.m.of_type[MESSAGE_REFUSED] == 0 && n < TRANSFER_LINES_MAX + 2 * FLOOD) {
		for (i = 0; i < FLOOD; i++, n++)
			bare_point(&x, n + 1, n);
		t.n = n;
		wait_for(&x, all_answered, &t, "an answer to each");
		assert_false(x.m.over); /* points were too many, not the session wrong */
	}
	assert_true(x.m.of_type[MESSAGE_REFUSED] > 0);
	assert_int_equal(x.m.code, LC_EACCES);
	assert_non_null(strstr(x.m.refused, "lines of VMs here"));
	logged_wait(&x.loop, "lines of VMs here");
	made = x.m.of_type[MESSAGE_COMMITTED];
	assert_in_range(made, TRANSFER_LINES_MAX - 1, TRANSFER_LINES_MAX - 1 + FLOOD);
	nothing_is_harmed(&x);
	/* It is told what it has, and is refused again. */
	begin(&x);
	mole_say(&x.m, MESSAGE_HEADS, (struct lc_span){0});
	until(&x, MESSAGE_HEADS_END, 1);
	assert_int_equal(x.m.of_type[MESSAGE_HEAD], made + 1);
	bare_point(&x, 1, n);
	until(&x, MESSAGE_REFUSED, 1);
	assert_int_equal(x.m.code, LC_EACCES);
	server_hosts(x.d.server, note_vms, &vms);
	assert_in_range(vms, TRANSFER_LINES_MAX / 2, TRANSFER_LINES_MAX / 2 + FLOOD);
	x.made = made;
	end(&x);
}

/* Every kind of message, too long, too short, of random bytes. */
static void
nonsense_ends_the_session(void **state)
{
	static uint8_t bytes[CHANNEL_BODY_MAX];
	static const uint16_t types[] = {MESSAGE_BEGIN,  MESSAGE_OFFER, MESSAGE_CHUNK, MESSAGE_ROWS,
	                                 MESSAGE_COMMIT, MESSAGE_HEADS, MESSAGE_PING};
	static const size_t sizes[] = {0, 7, 64, sizeof bytes};
	struct scene x;
	uint64_t seed = 7;
	size_t t, n, i;

	(void)state;
	for (i = 0; i < sizeof bytes; i++)
		bytes[i] = (uint8_t)vault_random(&seed, 256);
	make(&x);
	for (t = 0; t < sizeof types / sizeof types[0]; t++) {
		for (n = 0; n < sizeof sizes / sizeof sizes[0]; n++) {
			if (types[t] == MESSAGE_HEADS)
				continue; /* has no body to be wrong */
			mole_say(&x.m, types[t], (struct lc_span){bytes, sizes[n]});
			wait_for(&x, mole_is_over, &x.m, "the end");
			mole_end(&x.m);
			run_for(&x.loop, 10);
			begin(&x);
		}
	}
	end(&x);
}

/* Bytes on the wire that are no channel, flipped, replayed, in another order. */
static void
bytes_that_are_no_channel_end_it(void **state)
{
	static uint8_t bytes[200000];
	struct identity id;
	struct lc_err e = LC_ERR_INIT;
	uint64_t seed = 9;
	struct scene x;
	struct mole m;
	size_t i;

	(void)state;
	make(&x);
	for (i = 0; i < sizeof bytes; i++)
		bytes[i] = (uint8_t)vault_random(&seed, 256);
	for (i = 0; i < 20; i++) { /* in place of a handshake */
		mole_start(&m, &x.loop, x.d.port, NULL, NULL);
		while (!m.connected)
			run_for(&x.loop, 1);
		mole_raw(&m, (struct lc_span){bytes + i * 1000, i == 0 ? 200000 : i * 97});
		run_for(&x.loop, 5);
		mole_end(&m);
		while (!m.closed)
			run_for(&x.loop, 1);
	}
	/* A stranger's key is no way to another host's store. */
	must(noise_keypair(id.secret, id.public, &e), &e);
	mole_start(&m, &x.loop, x.d.port, &id, x.d.id.public);
	mole_say(&m, MESSAGE_HEADS, (struct lc_span){0});
	wait_for(&x, mole_is_over, &m, "the end");
	assert_non_null(strstr(m.refused, "before HELLO"));
	mole_end(&m);
	/* Behind a good handshake. */
	mole_raw(&x.m,
	         (struct lc_span){bytes, sizeof bytes}); /* a whole frame, whatever its length */
	wait_for(&x, mole_is_over, &x.m, "the end");
	mole_end(&x.m);
	while (!x.m.closed)
		run_for(&x.loop, 1);
	begin(&x);
	end(&x);
}

/* What the good host says it is, said with the captured one's key. */
static void
another_hosts_domain_is_refused(void **state)
{
	struct hello m = {.version = MESSAGE_VERSION, .wall_ns = clock_wall_ns(), .name = "good"};
	struct lc_buf keys = {0};
	struct lc_err e = LC_ERR_INIT;
	struct scene x;
	unsigned i;

	(void)state;
	make(&x);
	must(transfer_keys(x.good.v.s, &keys, &e), &e);
	for (i = 0; i < 3; i++) {
		/* its domain and keys; its own domain with the other's keys; another version */
		m.version = i == 2 ? 99 : MESSAGE_VERSION;
		memcpy(m.domain, transfer_domain(i == 0 ? x.good.v.s : x.lost.v.s), 16);
		m.keys = (struct lc_span){keys.p, keys.n};
		say_hello(&x, &m, mole_is_over);
		ended_with(&x, i == 0   ? "another key domain"
		               : i == 1 ? "not those of its store here"
		                        : "speaks version 99");
		assert_int_equal(x.m.of_type[MESSAGE_WELCOME], 0);
	}
	lc_buf_free(&keys);
	end(&x);
}

/* A captured host may add seals, which open nothing; it takes none away and changes none. */
static void
seals_are_only_added(void **state)
{
	static const char *const why[] = {"not those of its store here",
	                                  "not the master and id key"};
	struct hello m = {.version = MESSAGE_VERSION, .wall_ns = clock_wall_ns(), .name = "lost"};
	struct lc_buf keys = {0}, before = {0}, after = {0};
	struct store_opts o = {.no_key = true};
	struct lc_err e = LC_ERR_INIT;
	struct store *s;
	struct scene x;
	char dir[512];
	unsigned i;

	(void)state;
	make(&x);
	memcpy(m.domain, transfer_domain(x.lost.v.s), 16);
	for (i = 0; i < 2; i++) {
		keys.n = 0;
		must(transfer_keys(x.lost.v.s, &keys, &e), &e);
		if (i == 0) { /* its data key's seal is another one */
			keys.p[keys.n - 1] ^= 1;
		} else { /* the id key's is gone */
			memmove(keys.p + 50 + 120, keys.p + 50 + 240, keys.n - 50 - 240);
			keys.n -= 120;
			keys.p[48]--;
		}
		m.keys = (struct lc_span){keys.p, keys.n};
		say_hello(&x, &m, mole_is_over);
		ended_with(&x, why[i]);
		assert_int_equal(x.m.of_type[MESSAGE_WELCOME], 0);
	}
	(void)snprintf(dir, sizeof dir, "%s", hostsite_dir_at(&x.lost, &x.d));
	o.dir = dir;
	must(store_open(&o, &s, &e), &e);
	must(transfer_keys(s, &after, &e), &e);
	must(transfer_keys(x.lost.v.s, &before, &e), &e);
	assert_int_equal(after.n, before.n);
	assert_memory_equal(after.p, before.p, after.n);
	store_close(s);
	lc_buf_free(&keys);
	lc_buf_free(&before);
	lc_buf_free(&after);
	end(&x);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_source_can_only_add),
	    cmocka_unit_test(history_is_not_written_twice),
	    cmocka_unit_test(junk_harms_its_own_store_only),
	    cmocka_unit_test(offers_that_never_come_end),
	    cmocka_unit_test(a_flood_of_points_is_bounded),
	    cmocka_unit_test(whole_points_are_bounded_too),
	    cmocka_unit_test(lines_are_bounded),
	    cmocka_unit_test(nonsense_ends_the_session),
	    cmocka_unit_test(bytes_that_are_no_channel_end_it),
	    cmocka_unit_test(another_hosts_domain_is_refused),
	    cmocka_unit_test(seals_are_only_added),
	};

	cmocka_set_test_filter(getenv("LOCUM_TEST_ONLY"));
	log_set_level(getenv("LOCUM_TEST_LOG") != NULL ? LOG_LV_DEBUG : LOG_LV_WARN);
	return cmocka_run_group_tests(tests, logged_begin, logged_end);
}
