/*
 * Two hosts of one key domain that share a store at the replica: what both have is there once, each
 * has its own VMs, and what one of them sends harms nothing of the other.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "replicator/message.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "tests/lib/mole.h"
#include "tests/lib/must.h"
#include "tests/lib/twosites.h"
#include "tests/lib/unit.h"

#define SOON_MS 30000
#define WINDOWS 12u

struct scene {
	uv_loop_t loop;
	struct drsite d;
	struct hostsite a, b;
	struct vault_disk disk; /* of both */
	struct mole m;          /* with b's key */
};

static void
wait_for(struct scene *x, bool (*condition)(void *arg), void *arg, const char *what)
{
	if (!run_until(&x->loop, condition, arg, SOON_MS))
		fail_msg("%s did not come about (a: %s; b: %s)", what, x->a.why.msg, x->b.why.msg);
}

static void
make(struct scene *x)
{
	unsigned i;

	memset(x, 0, sizeof *x);
	assert_int_equal(uv_loop_init(&x->loop), 0);
	drsite_make(&x->d, &x->loop);
	drsite_start(&x->d);
	hostsite_make(&x->a, &x->loop, &x->d, "host-a");
	hostsite_pair(&x->a, &x->d);
	hostsite_make_beside(&x->b, &x->a, &x->d, "host-b");
	hostsite_join(&x->b, &x->a, &x->d);
	assert_string_equal(hostsite_dir_at(&x->a, &x->d), hostsite_dir_at(&x->b, &x->d));
	x->disk = vault_disk("vda", WINDOWS);
	for (i = 0; i < WINDOWS; i++)
		x->disk.codes[i] = 101 + 2 * i;
	x->m.closed = true;
}

static void
end(struct scene *x)
{
	if (!x->m.closed)
		mole_end(&x->m);
	hostsite_disconnect(&x->a);
	hostsite_disconnect(&x->b);
	drsite_stop(&x->d);
	vault_disk_free(&x->disk);
	hostsite_free(&x->a);
	hostsite_free(&x->b);
	drsite_free(&x->d);
	(void)uv_run(&x->loop, UV_RUN_NOWAIT);
	assert_int_equal(uv_loop_close(&x->loop), 0);
}

/* A point of a VM, sent. */
static struct point
replicate(struct scene *x, struct hostsite *h, const char *vm)
{
	struct point p = hostsite_backup(h, vm, &x->disk);

	if (h->uplink == NULL)
		hostsite_connect(h);
	wait_for(x, hostsite_is_idle, h, "all there");
	assert_int_equal(h->failed, 0);
	return p;
}

/* CHUNK records that the replica's store has.  It is closed. */
static unsigned
chunks_at(const struct scene *x)
{
	struct vault_piece *list;
	unsigned chunks = 0;
	size_t n, i;

	vault_pieces(hostsite_dir_at(&x->a, &x->d), &list, &n);
	for (i = 0; i < n; i++)
		chunks += list[i].r.type == RECORD_CHUNK;
	free(list);
	return chunks;
}

static void
forget_catalog(const struct scene *x)
{
	char path[600];

	(void)snprintf(path, sizeof path, "%s/catalog.sqlite", hostsite_dir_at(&x->a, &x->d));
	assert_int_equal(unlink(path), 0);
}

/* Points as they are at the replica, now and with a catalog that was made again. */
static void
both_are_there(struct scene *x, const struct point *a, const struct vault_disk *da,
               const struct point *b, const struct vault_disk *db)
{
	struct store_opts o = {.dir = hostsite_dir_at(&x->a, &x->d),
	                       .mode = STORE_WRITE,
	                       .who = "a test",
	                       .recovery_code = x->a.v.code};
	struct lc_err e = LC_ERR_INIT;
	struct store *s;

	hostsite_arrived(&x->a, &x->d, a, da);
	hostsite_arrived(&x->b, &x->d, b, db);
	forget_catalog(x);
	must(store_open(&o, &s, &e), &e);
	store_close(s);
	hostsite_arrived(&x->a, &x->d, a, da);
	hostsite_arrived(&x->b, &x->d, b, db);
}

struct came {
	uint64_t a, b; /* bytes over the wire */
};

static void
note_came(void *arg, const struct server_host *h)
{
	struct came *c = arg;

	*(strcmp(h->name, "host-a") == 0 ? &c->a : &c->b) = h->received;
}

static void
what_both_have_is_kept_once(void **state)
{
	struct came before = {0}, after = {0};
	struct vault_disk a_disk;
	struct point a, b;
	struct scene x;

	(void)state;
	make(&x);
	a = replicate(&x, &x.a, "web01");
	a_disk = vault_disk_copy(&x.disk);
	x.disk.codes[3] = 7;
	server_hosts(x.d.server, note_came, &before);
	b = replicate(&x, &x.b, "web01"); /* the same name, another VM */
	server_hosts(x.d.server, note_came, &after);
	assert_true(after.b - before.b < before.a / 3); /* nor was it sent twice */
	assert_int_equal(x.a.nhas, 1);
	assert_int_equal(x.b.nhas, 1); /* of what is there it knows its own */
	assert_memory_not_equal(x.a.has[0].line, x.b.has[0].line, 16);
	hostsite_disconnect(&x.a);
	hostsite_disconnect(&x.b);
	drsite_stop(&x.d);
	assert_int_equal(chunks_at(&x), WINDOWS + 1);
	both_are_there(&x, &a, &a_disk, &b, &x.disk);
	vault_disk_free(&a_disk);
	end(&x);
}

/* Nobody is given one for the other. */
static void
a_name_that_is_there_twice_is_asked_about(void **state)
{
	struct store_opts o = {0};
	struct lc_err e = LC_ERR_INIT;
	struct point a, found;
	struct scene x;
	struct store *s;
	char id[33];

	(void)state;
	make(&x);
	a = replicate(&x, &x.a, "web01");
	x.disk.codes[3] = 7;
	(void)replicate(&x, &x.b, "web01");
	hostsite_disconnect(&x.a);
	hostsite_disconnect(&x.b);
	drsite_stop(&x.d);
	o.dir = hostsite_dir_at(&x.a, &x.d);
	o.recovery_code = x.a.v.code;
	must(store_open(&o, &s, &e), &e);
	assert_int_equal(store_find(s, "web01", &found, &e), LC_EINVAL);
	assert_non_null(strstr(e.msg, "several VMs web01"));
	lc_err_clear(&e);
	(void)lc_hex(id, a.vm_id, 16);
	must(store_find(s, id, &found, &e), &e);
	assert_memory_equal(found.id, a.id, sizeof a.id);
	point_done(&found);
	store_close(s);
	end(&x);
}

/* ---- b was captured: somebody else has its key ---- */

static void
say(struct scene *x, uint16_t type, const struct lc_buf *b)
{
	mole_say(&x->m, type, (struct lc_span){b->p, b->n});
}

static void
begin(struct scene *x, bool reading)
{
	struct hello m = {.version = MESSAGE_VERSION,
	                  .wall_ns = clock_wall_ns(),
	                  .name = "host-b",
	                  .reading = reading};
	struct lc_buf body = {0}, keys = {0};
	struct lc_err e = LC_ERR_INIT;
	unsigned i;

	hostsite_disconnect(&x->b);
	if (!x->m.closed)
		mole_end(&x->m);
	while (!x->m.closed)
		run_for(&x->loop, 5);
	memcpy(m.domain, transfer_domain(x->b.v.s), sizeof m.domain);
	must(transfer_keys(x->b.v.s, &keys, &e), &e);
	m.keys = (struct lc_span){keys.p, keys.n};
	must(message_put_hello(&body, &m), &e);
	for (i = 0; i < 100; i++) { /* the one before may not be quite gone */
		mole_start(&x->m, &x->loop, x->d.port, &x->b.id, x->d.id.public);
		say(x, MESSAGE_HELLO, &body);
		while (x->m.of_type[MESSAGE_WELCOME] == 0 && !x->m.over)
			run_for(&x->loop, 5);
		if (!x->m.over)
			break;
		mole_end(&x->m);
		run_for(&x->loop, 20);
	}
	assert_int_equal(x->m.of_type[MESSAGE_WELCOME], 1);
	lc_buf_free(&body);
	lc_buf_free(&keys);
}

static void
until(struct scene *x, uint16_t type, unsigned n)
{
	struct mole_count c = {&x->m, type, n};

	wait_for(x, mole_heard, &c, message_name(type));
	if (x->m.of_type[type] < n)
		fail_msg("no %s: %s", message_name(type), x->m.refused);
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

static struct outgoing *
oldest_point(struct hostsite *h, const uint8_t line[16])
{
	struct lc_err e = LC_ERR_INIT;
	struct outgoing *o = NULL;

	must(outgoing_next(h->v.s, line, (struct lc_span){0}, &o, &e), &e);
	return o;
}

static void
offer(struct scene *x, uint32_t stream, const uint8_t *ids, uint16_t n, bool wanted)
{
	unsigned wants = x->m.of_type[MESSAGE_WANT];
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf b = {0};

	must(message_put_offer(&b, &(struct offer){stream, n, 0, ids}), &e);
	say(x, MESSAGE_OFFER, &b);
	lc_buf_free(&b);
	until(x, MESSAGE_WANT, wants + 1);
	assert_int_equal(x->m.body.p[8] & 1, wanted);
}

static void
send_chunk(struct scene *x, uint32_t stream, const struct transfer_chunk *c)
{
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf b = {0};

	must(message_put_chunk_head(&b, stream, c), &e);
	must(lc_buf_append(&b, c->payload.p, c->payload.n), &e);
	say(x, MESSAGE_CHUNK, &b);
	lc_buf_free(&b);
}

/* Every window that a is going to have is there before, as junk from b; as an id means nothing
 * without a sender, a sends its own, and both its point and that of a catalog made again are
 * right. */
static void
junk_of_one_is_not_the_others(void **state)
{
	static uint8_t junk[RECORD_PAYLOAD_MAX];
	struct map_record *rows = lc_alloc(sizeof *rows);
	struct vault_disk b_disk;
	struct lc_err e = LC_ERR_INIT;
	struct transfer_chunk c;
	struct outgoing *o;
	struct point a, b, own;
	struct scene x;
	size_t i;

	(void)state;
	make(&x);
	own = replicate(&x, &x.b, "own"); /* b has a VM, so its contents are looked at */
	b_disk = vault_disk_copy(&x.disk);
	for (i = 0; i < WINDOWS; i++)
		x.disk.codes[i] = 500 + i;
	b = hostsite_backup(&x.b, "other", &x.disk);
	o = oldest_point(&x.b, b.line);
	begin(&x, false);
	must(outgoing_rows(o, rows, WINDOWS, &e), &e);
	assert_int_equal(rows->n, WINDOWS);
	begin_stream(&x, 1, outgoing_point(o));
	for (i = 0; i < rows->n; i++) {
		must(outgoing_chunk(o, rows->rows[i].chunk, junk, &c, &e), &e);
		junk[c.payload.n - 20] ^= 1;
		offer(&x, 1, junk, 1, true);
		send_chunk(&x, 1, &c);
	}
	offer(&x, 1, junk, 1, false); /* all of it was taken: who is blind can't know */
	assert_int_equal(x.m.of_type[MESSAGE_REFUSED], 0);
	outgoing_free(o);
	mole_end(&x.m);
	run_for(&x.loop, 50);
	a = replicate(&x, &x.a, "web01");
	hostsite_disconnect(&x.a);
	drsite_stop(&x.d);
	assert_int_equal(chunks_at(&x), 3 * WINDOWS);
	both_are_there(&x, &a, &x.disk, &own, &b_disk);
	lc_free(rows);
	vault_disk_free(&b_disk);
	end(&x);
}

static void
prove(struct scene *x, uint32_t stream, const uint8_t *sums, uint32_t n)
{
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf b = {0};

	must(message_put_proof(&b, &(struct proof){stream, n, sums}), &e);
	say(x, MESSAGE_PROOF, &b);
	lc_buf_free(&b);
}

/* What a has is not b's by naming it, nor by a sum that is not right. */
static void
who_has_not_the_same_bytes_sends_its_own(void **state)
{
	static uint8_t payload[RECORD_PAYLOAD_MAX], sums[2 * TRANSFER_SUM_SIZE];
	struct map_record *rows = lc_alloc(sizeof *rows);
	struct lc_err e = LC_ERR_INIT;
	struct transfer_chunk c;
	struct lc_buf b = {0};
	struct outgoing *o;
	struct scene x;
	struct point p;

	(void)state;
	make(&x);
	(void)replicate(&x, &x.a, "web01");
	p = hostsite_backup(&x.b, "db", &x.disk);
	o = oldest_point(&x.b, p.line);
	must(outgoing_rows(o, rows, 2, &e), &e);
	must(outgoing_chunk(o, rows->rows[0].chunk, payload, &c, &e), &e);
	begin(&x, false);
	begin_stream(&x, 1, outgoing_point(o));
	must(message_put_offer(&b, &(struct offer){1, 1, 0, payload}), &e);
	say(&x, MESSAGE_OFFER, &b);
	until(&x, MESSAGE_PROVE, 1);
	assert_int_equal(x.m.of_type[MESSAGE_WANT], 0);
	memset(sums, 3, sizeof sums);
	prove(&x, 1, sums, 1);
	until(&x, MESSAGE_WANT, 1);
	assert_int_equal(x.m.body.p[8] & 1, 1); /* send it, then */
	transfer_sum(&c, sums);
	prove(&x, 1, sums, 1); /* there is no second try */
	wait_for(&x, mole_is_over, &x.m, "the end");
	assert_non_null(strstr(x.m.refused, "answers no PROVE"));
	begin(&x, false);
	begin_stream(&x, 1, outgoing_point(o));
	say(&x, MESSAGE_OFFER, &b);
	until(&x, MESSAGE_PROVE, 1);
	prove(&x, 1, sums, 2); /* more than were asked for */
	wait_for(&x, mole_is_over, &x.m, "the end");
	begin(&x, false);
	begin_stream(&x, 1, outgoing_point(o));
	say(&x, MESSAGE_OFFER, &b);
	until(&x, MESSAGE_PROVE, 1);
	prove(&x, 1, sums, 1);
	until(&x, MESSAGE_WANT, 1);
	assert_int_equal(x.m.body.p[8] & 1, 0); /* that was it */
	lc_buf_free(&b);
	outgoing_free(o);
	lc_free(rows);
	end(&x);
}

/* What is kept until a proof comes takes memory: who sends none is not heard out.  Each OFFER has
 * one content that was not asked for, and is long or short. */
static void
proofs_that_never_come_are_not_waited_for(void **state)
{
	static uint8_t ids[OFFER_IDS_MAX * CHUNK_ID_SIZE], payload[RECORD_PAYLOAD_MAX];
	const uint16_t sizes[] = {OFFER_IDS_MAX, 1};
	const unsigned most[] = {4, 8};
	struct map_record *rows = lc_alloc(sizeof *rows);
	struct lc_err e = LC_ERR_INIT;
	struct transfer_chunk c;
	struct outgoing *o;
	struct scene x;
	struct point p;
	unsigned i, k, n;

	(void)state;
	make(&x);
	(void)replicate(&x, &x.a, "web01");
	p = hostsite_backup(&x.b, "db", &x.disk);
	o = oldest_point(&x.b, p.line);
	must(outgoing_rows(o, rows, WINDOWS, &e), &e);
	for (k = 0; k < 2; k++) {
		begin(&x, false);
		begin_stream(&x, 1, outgoing_point(o));
		for (i = 0; i <= most[k]; i++) {
			struct lc_buf b = {0};

			must(outgoing_chunk(o, rows->rows[i].chunk, payload, &c, &e), &e);
			for (n = 0; n < sizes[k]; n++)
				memcpy(ids + (size_t)n * CHUNK_ID_SIZE, payload, CHUNK_ID_SIZE);
			must(message_put_offer(&b, &(struct offer){1, sizes[k], 0, ids}), &e);
			say(&x, MESSAGE_OFFER, &b);
			lc_buf_free(&b);
			if (i < most[k])
				until(&x, MESSAGE_PROVE, i + 1);
		}
		wait_for(&x, mole_is_over, &x.m, "the end");
		assert_non_null(strstr(x.m.refused, "proofs never come"));
	}
	outgoing_free(o);
	lc_free(rows);
	end(&x);
}

/* Nor can b add to a's VM, by its id, its line, or both. */
static void
a_vm_is_its_hosts(void **state)
{
	struct transfer_point p, mine;
	struct outgoing *oa, *ob;
	struct vault_disk was;
	struct scene x;
	struct point a, b;

	(void)state;
	make(&x);
	a = replicate(&x, &x.a, "web01");
	was = vault_disk_copy(&x.disk);
	x.disk.codes[0] = 900;
	b = hostsite_backup(&x.b, "web01", &x.disk);
	oa = oldest_point(&x.a, a.line);
	ob = oldest_point(&x.b, b.line);
	mine = *outgoing_point(ob);
	begin(&x, false);
	p = mine;
	memcpy(p.vm, outgoing_point(oa)->vm, sizeof p.vm); /* a's VM, a line of b's */
	begin_stream(&x, 1, &p);
	until(&x, MESSAGE_REFUSED, 1);
	assert_int_equal(x.m.code, LC_EACCES);
	p = *outgoing_point(oa); /* a VM of b's, a's line and point */
	memcpy(p.vm, mine.vm, sizeof p.vm);
	begin_stream(&x, 2, &p);
	until(&x, MESSAGE_REFUSED, 2);
	assert_int_equal(x.m.code, LC_EACCES);
	p = *outgoing_point(oa); /* both a's */
	begin_stream(&x, 3, &p);
	until(&x, MESSAGE_REFUSED, 3);
	assert_int_equal(x.m.code, LC_EACCES);
	assert_false(x.m.over);
	begin_stream(&x, 4, &mine);
	run_for(&x.loop, 30);
	assert_int_equal(x.m.of_type[MESSAGE_REFUSED], 3);
	outgoing_free(oa);
	outgoing_free(ob);
	mole_end(&x.m);
	run_for(&x.loop, 50);
	b = replicate(&x, &x.b, "web01");
	hostsite_disconnect(&x.a);
	hostsite_disconnect(&x.b);
	drsite_stop(&x.d);
	both_are_there(&x, &a, &was, &b, &x.disk);
	vault_disk_free(&was);
	end(&x);
}

/* It reads neither a's lines nor a's contents, nor learns that they are there. */
static void
a_host_reads_its_own(void **state)
{
	static uint8_t payload[RECORD_PAYLOAD_MAX];
	struct map_record *rows = lc_alloc(sizeof *rows);
	struct lc_err e = LC_ERR_INIT;
	struct transfer_chunk c;
	struct lc_buf b = {0};
	struct outgoing *o;
	struct scene x;
	struct point a;
	struct ids ids;

	(void)state;
	make(&x);
	a = replicate(&x, &x.a, "web01");
	o = oldest_point(&x.a, a.line);
	must(outgoing_rows(o, rows, 1, &e), &e);
	must(outgoing_chunk(o, rows->rows[0].chunk, payload, &c, &e), &e);
	outgoing_free(o);
	begin(&x, true);
	mole_say(&x.m, MESSAGE_HEADS, (struct lc_span){0});
	until(&x, MESSAGE_HEADS_END, 1);
	assert_int_equal(x.m.of_type[MESSAGE_HEAD], 0);
	ids = (struct ids){1, payload};
	must(message_put_ids(&b, &ids), &e);
	say(&x, MESSAGE_ASK, &b);
	until(&x, MESSAGE_HAVE, 1);
	assert_int_equal(x.m.body.p[4] & 1, 0);
	say(&x, MESSAGE_READ, &b);
	until(&x, MESSAGE_NONE, 1);
	b.n = 0;
	{
		struct recall r = {.stream = 1};

		memcpy(r.line, a.line, sizeof r.line);
		must(message_put_recall(&b, &r), &e);
	}
	say(&x, MESSAGE_RECALL, &b);
	until(&x, MESSAGE_REFUSED, 1);
	assert_int_equal(x.m.code, LC_ENOENT);
	lc_buf_free(&b);
	lc_free(rows);
	end(&x);
}

/* One is revoked; the other one goes on, over the connection that it has. */
static void
revoking_one_leaves_the_other(void **state)
{
	struct vault_disk was;
	struct lc_err e = LC_ERR_INIT;
	struct point a, b;
	struct scene x;

	(void)state;
	make(&x);
	b = replicate(&x, &x.b, "db");
	was = vault_disk_copy(&x.disk);
	a = replicate(&x, &x.a, "web01");
	must(writers_revoke(x.d.dir, x.b.id.public, &e), &e);
	wait_for(&x, hostsite_is_down, &x.b, "the end of b's connection");
	hostsite_disconnect(&x.b);
	assert_int_equal(hostsite_try(&x.b, NULL), LC_EACCES);
	x.disk.codes[5] = 55;
	a = replicate(&x, &x.a, "web01");
	assert_int_equal(x.a.downs, 0);
	/* A new token is a new decision: it goes on where it was. */
	hostsite_join(&x.b, &x.a, &x.d);
	(void)replicate(&x, &x.b, "db");
	assert_int_equal(x.b.nhas, 1);
	hostsite_disconnect(&x.a);
	hostsite_disconnect(&x.b);
	drsite_stop(&x.d);
	both_are_there(&x, &a, &x.disk, &b, &was);
	vault_disk_free(&was);
	end(&x);
}

/* What one of them may keep is no part of what the other may. */
static void
each_has_room_of_its_own(void **state)
{
	struct scene x;
	unsigned i;

	(void)state;
	make(&x);
	drsite_stop(&x.d);
	x.d.host_max = 1u << 20;
	drsite_start(&x.d);
	for (i = 0; i < WINDOWS; i++)
		x.disk.codes[i] = 2000 + i;
	hostsite_connect(&x.b);
	for (i = 0; x.b.failed == 0 && i < 40; i++) { /* a flood */
		unsigned w;

		for (w = 0; w < WINDOWS; w++)
			x.disk.codes[w] = 3000 + i * WINDOWS + w;
		(void)hostsite_backup(&x.b, "flood", &x.disk);
		wait_for(&x, hostsite_is_idle, &x.b, "an end");
	}
	assert_int_equal(x.b.why.code, LC_ENOSPC);
	(void)replicate(&x, &x.a, "web01");
	assert_int_equal(x.a.failed, 0);
	/* And it does not get more of it by coming again. */
	hostsite_disconnect(&x.b);
	x.b.failed = 0;
	hostsite_connect(&x.b);
	for (i = 0; i < WINDOWS; i++)
		x.disk.codes[i] = 9000 + i;
	(void)hostsite_backup(&x.b, "flood", &x.disk);
	wait_for(&x, hostsite_is_idle, &x.b, "an end");
	assert_true(x.b.failed > 0);
	assert_int_equal(x.b.why.code, LC_ENOSPC);
	end(&x);
}

/* b's KEYS with n seals more, of keys that nobody has. */
static void
say_hello_with(struct scene *x, unsigned n)
{
	struct hello m = {.version = MESSAGE_VERSION, .wall_ns = clock_wall_ns(), .name = "host-b"};
	struct lc_buf body = {0}, keys = {0};
	struct lc_err e = LC_ERR_INIT;
	uint8_t wrap[120] = {3, 0, 112};
	unsigned i;

	memcpy(m.domain, transfer_domain(x->b.v.s), sizeof m.domain);
	must(transfer_keys(x->b.v.s, &keys, &e), &e);
	for (i = 0; i < n; i++) {
		lc_put32(wrap + 4, 0xfffff000u + i);
		memset(wrap + 8, (int)i + 1, sizeof wrap - 8);
		must(lc_buf_append(&keys, wrap, sizeof wrap), &e);
	}
	lc_put16(keys.p + 48, (uint16_t)(lc_get16(keys.p + 48) + n));
	m.keys = (struct lc_span){keys.p, keys.n};
	must(message_put_hello(&body, &m), &e);
	mole_start(&x->m, &x->loop, x->d.port, &x->b.id, x->d.id.public);
	say(x, MESSAGE_HELLO, &body);
	lc_buf_free(&body);
	lc_buf_free(&keys);
}

/* What keys one has, even false ones, is nothing that another one is held to; but each is to what
 * it had itself. */
static void
keys_of_one_do_not_lock_out_the_other(void **state)
{
	char old[700], now[700];
	struct lc_err e = LC_ERR_INIT;
	struct vault_disk was;
	struct point a, b;
	struct scene x;

	(void)state;
	make(&x);
	b = replicate(&x, &x.b, "db");
	was = vault_disk_copy(&x.disk);
	hostsite_disconnect(&x.b);
	say_hello_with(&x, 65);
	wait_for(&x, mole_is_over, &x.m, "the end");
	assert_int_equal(x.m.code, LC_EKEY);
	do { /* the one before may not be quite gone */
		mole_end(&x.m);
		run_for(&x.loop, 30);
		say_hello_with(&x, 60);
		while (x.m.of_type[MESSAGE_WELCOME] == 0 && !x.m.over)
			run_for(&x.loop, 5);
	} while (x.m.over && x.m.code == LC_EBUSY);
	assert_int_equal(x.m.of_type[MESSAGE_WELCOME], 1);
	mole_end(&x.m);
	run_for(&x.loop, 30);
	a = replicate(&x, &x.a, "web01");
	hostsite_disconnect(&x.a);
	/* It rotates, and is let in; then it comes with the file of before. */
	(void)snprintf(now, sizeof now, "%s", vault_key_file(&x.a.v));
	(void)snprintf(old, sizeof old, "%s/old", x.a.v.top);
	vault_copy(now, old);
	must(store_rotate(x.a.v.s, x.a.v.keys, &e), &e);
	x.disk.codes[2] = 4321;
	a = replicate(&x, &x.a, "web01");
	hostsite_disconnect(&x.a);
	vault_close(&x.a.v);
	assert_int_equal(rename(old, now), 0);
	vault_open(&x.a.v);
	assert_int_equal(hostsite_try(&x.a, NULL), LC_EKEY);
	drsite_stop(&x.d);
	both_are_there(&x, &a, &x.disk, &b, &was);
	vault_disk_free(&was);
	end(&x);
}

/* Both send at once, point after point; each gets its own, in its own order. */
static void
both_send_at_once(void **state)
{
	struct vault_disk a_disk, b_disk;
	struct point a, b;
	struct scene x;
	unsigned i;

	(void)state;
	make(&x);
	a_disk = vault_disk_copy(&x.disk);
	b_disk = vault_disk_copy(&x.disk);
	hostsite_connect(&x.a);
	hostsite_connect(&x.b);
	for (i = 0; i < 12; i++) {
		a_disk.codes[i % WINDOWS] = 700 + i / 2; /* some of it the other one has, too */
		b_disk.codes[(i + 5) % WINDOWS] = 700 + i / 2;
		a = hostsite_backup(&x.a, "web01", &a_disk);
		b = hostsite_backup(&x.b, "web01", &b_disk);
		run_for(&x.loop, 3);
	}
	wait_for(&x, hostsite_is_idle, &x.a, "all of a's");
	wait_for(&x, hostsite_is_idle, &x.b, "all of b's");
	assert_int_equal(x.a.failed + x.b.failed, 0);
	assert_int_equal(x.a.committed, 12);
	assert_int_equal(x.b.committed, 12);
	hostsite_disconnect(&x.a);
	hostsite_disconnect(&x.b);
	drsite_stop(&x.d);
	both_are_there(&x, &a, &a_disk, &b, &b_disk);
	vault_disk_free(&a_disk);
	vault_disk_free(&b_disk);
	end(&x);
}

/* b has begun a point, has been asked for a content, and says no more; nor does it read. */
static void
one_that_stops_holds_up_nobody(void **state)
{
	struct map_record *rows = lc_alloc(sizeof *rows);
	static uint8_t payload[RECORD_PAYLOAD_MAX];
	struct lc_err e = LC_ERR_INIT;
	struct transfer_chunk c;
	struct outgoing *o;
	struct scene x;
	struct point p;
	unsigned i;

	(void)state;
	make(&x);
	p = hostsite_backup(&x.b, "db", &x.disk);
	o = oldest_point(&x.b, p.line);
	begin(&x, false);
	begin_stream(&x, 1, outgoing_point(o));
	must(outgoing_rows(o, rows, 1, &e), &e);
	must(outgoing_chunk(o, rows->rows[0].chunk, payload, &c, &e), &e);
	offer(&x, 1, payload, 1, true);
	mole_read(&x.m, false);
	for (i = 0; i < 5; i++) {
		x.disk.codes[i] = 7000 + i;
		p = replicate(&x, &x.a, "web01");
	}
	assert_int_equal(x.a.committed, 5);
	assert_int_equal(x.a.downs, 0);
	outgoing_free(o);
	lc_free(rows);
	mole_end(&x.m);
	hostsite_disconnect(&x.a);
	drsite_stop(&x.d);
	hostsite_arrived(&x.a, &x.d, &p, &x.disk);
	end(&x);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_both_have_is_kept_once),
	    cmocka_unit_test(a_name_that_is_there_twice_is_asked_about),
	    cmocka_unit_test(junk_of_one_is_not_the_others),
	    cmocka_unit_test(who_has_not_the_same_bytes_sends_its_own),
	    cmocka_unit_test(proofs_that_never_come_are_not_waited_for),
	    cmocka_unit_test(a_vm_is_its_hosts),
	    cmocka_unit_test(a_host_reads_its_own),
	    cmocka_unit_test(revoking_one_leaves_the_other),
	    cmocka_unit_test(each_has_room_of_its_own),
	    cmocka_unit_test(both_send_at_once),
	    cmocka_unit_test(one_that_stops_holds_up_nobody),
	    cmocka_unit_test(keys_of_one_do_not_lock_out_the_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
