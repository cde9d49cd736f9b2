/*
 * What a replica's status and metrics say of its hosts, and its log of their clocks.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replicator/gifts.h"
#include "replicator/limits.h"
#include "replicator/message.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/segment.h"
#include "store/transfer.h"
#include "tests/lib/decay.h"
#include "tests/lib/logged.h"
#include "tests/lib/mole.h"
#include "tests/lib/must.h"
#include "tests/lib/two.h"
#include "tests/lib/twosites.h"
#include "tests/lib/unit.h"

#define SECONDS(n) ((n)*LC_NS_PER_S)

/* What one of both says; free() it. */
static char *
said(struct two *t, void (*say)(struct server *s, FILE *f))
{
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);

	assert_non_null(f);
	say(t->d.server, f);
	assert_int_equal(fclose(f), 0);
	return text;
}

static bool
says(struct two *t, void (*say)(struct server *s, FILE *f), const char *what)
{
	char *text = said(t, say);
	bool does = strstr(text, what) != NULL;

	free(text);
	return does;
}

static bool
is_revoked(void *t)
{
	return says(t, server_status, "was revoked at this replica");
}

static bool
is_fine(void *t)
{
	return says(t, server_status, "\"error\": null");
}

/* Value of the metric that says whether the host is late. */
static unsigned
late(struct two *t)
{
	char *text = said(t, server_metrics), *at = strstr(text, "\nlocum_host_late{");
	unsigned value = 9;

	assert_non_null(at);
	at = strstr(at, "} ");
	assert_int_equal(sscanf(at, "} %u", &value), 1); /* NOLINT(cert-err34-c) */
	free(text);
	return value;
}

/* Nobody waits for it: it neither is missed for ever, nor shown as away. */
static void
a_host_that_is_revoked_while_away_is_not_missed(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct two t;

	(void)state;
	two_make(&t, NULL);
	two_wait(&t, two_is_left, &t, "gone");
	assert_int_equal(late(&t), 1);
	must(writers_revoke(t.d.dir, t.h.id.public, &e), &e);
	assert_true(run_until(&t.loop, is_revoked, &t, 5000));
	assert_int_equal(late(&t), 0);
	hostsite_pair(&t.h, &t.d);
	two_wait(&t, is_fine, &t, "that it is let in");
	two_wait(&t, two_is_left, &t, "gone");
	assert_int_equal(late(&t), 1);
	two_done(&t);
}

static void
hello_as(struct two *t, struct mole *m, int64_t wall_ns, bool reading)
{
	struct hello h = {
	    .version = MESSAGE_VERSION, .wall_ns = wall_ns, .name = "host-a", .reading = reading};
	struct mole_count welcome = {m, MESSAGE_WELCOME, 1};
	struct lc_buf body = {0}, keys = {0};
	struct lc_err e = LC_ERR_INIT;

	memcpy(h.domain, transfer_domain(t->h.v.s), sizeof h.domain);
	must(transfer_keys(t->h.v.s, &keys, &e), &e);
	h.keys = (struct lc_span){keys.p, keys.n};
	must(message_put_hello(&body, &h), &e);
	mole_start(m, &t->loop, t->d.port, &t->h.id, t->d.id.public);
	mole_say(m, MESSAGE_HELLO, (struct lc_span){body.p, body.n});
	lc_buf_free(&body);
	lc_buf_free(&keys);
	two_wait(t, mole_heard, &welcome, "welcome");
	assert_false(m->over);
}

static void
hello(struct two *t, struct mole *m, int64_t wall_ns)
{
	hello_as(t, m, wall_ns, false);
}

static void
leave(struct two *t, struct mole *m)
{
	mole_end(m);
	while (!m->closed)
		run_for(&t->loop, 5);
}

static void
begin_stream(struct mole *m, uint32_t stream, const struct transfer_point *p)
{
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf b = {0};

	must(message_put_begin(&b, stream, p), &e);
	mole_say(m, MESSAGE_BEGIN, (struct lc_span){b.p, b.n});
	lc_buf_free(&b);
}

/* A connection may last for months. */
static void
what_was_taken_after_all_is_no_error(void **state)
{
	struct vault_disk d = vault_disk("vda", 4);
	struct mole_count refused, taken;
	struct lc_err e = LC_ERR_INIT;
	struct transfer_point tp;
	struct outgoing *o = NULL;
	struct lc_buf b = {0};
	struct point p;
	struct mole m;
	struct two t;

	(void)state;
	two_make(&t, NULL);
	p = hostsite_backup(&t.h, "web01", &d); /* all zero: it has no rows */
	must(outgoing_next(t.h.v.s, p.line, (struct lc_span){0}, &o, &e), &e);
	hello(&t, &m, clock_wall_ns());
	tp = *outgoing_point(o);
	tp.base[0] = 9;
	begin_stream(&m, 1, &tp);
	refused = (struct mole_count){&m, MESSAGE_REFUSED, 1};
	two_wait(&t, mole_heard, &refused, "that it is refused");
	assert_int_equal(m.code, LC_ECONFLICT);
	assert_true(says(&t, server_status, "its base is not the newest"));
	begin_stream(&m, 2, outgoing_point(o));
	must(message_put_commit(&b, &(struct commit){.stream = 2}), &e);
	mole_say(&m, MESSAGE_COMMIT, (struct lc_span){b.p, b.n});
	taken = (struct mole_count){&m, MESSAGE_COMMITTED, 1};
	two_wait(&t, mole_heard, &taken, "that it is taken");
	assert_int_equal(m.of_type[MESSAGE_COMMITTED], 1);
	assert_true(is_fine(&t));
	lc_buf_free(&b);
	outgoing_free(o);
	leave(&t, &m);
	point_done(&p);
	vault_disk_free(&d);
	two_done(&t);
}

static void
note_newest(void *arg, const struct server_host *h)
{
	*(int64_t *)arg = h->last_ns;
}

static void
backup_at(struct two *t, int64_t source_ns)
{
	struct commit_opts o = {.source_ns = source_ns};
	struct vault_disk d = vault_disk("vda", 2);
	struct lc_err e = LC_ERR_INIT;
	struct writer *w;
	struct point p;

	d.codes[0] = 5;
	w = vault_begin(t->h.v.s, "web01", &d, 1, &e);
	if (w == NULL)
		fail_msg("%s", e.msg);
	must(vault_put(w, 0, &d, 0, &e), &e);
	must(writer_commit(w, &o, &p, &e), &e);
	point_done(&p);
	vault_disk_free(&d);
}

/* A replica that was started anew knows the age of a point from the point alone. */
static void
a_clock_that_is_ahead_hides_no_point(void **state)
{
	int64_t newest = 0, now = clock_wall_ns();
	struct two t;

	(void)state;
	two_make(&t, NULL);
	backup_at(&t, now + SECONDS(INT64_C(100)));
	hostsite_connect(&t.h);
	two_wait(&t, hostsite_is_idle, &t.h, "all there");
	server_hosts(t.d.server, note_newest, &newest);
	assert_true(newest >= now);
	drsite_stop(&t.d);
	t.h.up = false;
	drsite_start(&t.d);
	two_wait(&t, hostsite_is_up, &t.h, "up again");
	server_hosts(t.d.server, note_newest, &newest);
	assert_true(newest >= now);
	hostsite_disconnect(&t.h);
	two_done(&t);
}

/* A captured host may say anything. */
static void
a_clock_beyond_all_bounds_is_told(void **state)
{
	struct mole m;
	struct two t;

	(void)state;
	two_make(&t, NULL);
	hello(&t, &m, INT64_MIN);
	logged_wait(&t.loop, "behind this one's");
	leave(&t, &m);
	two_wait(&t, two_is_left, &t, "gone");
	hello(&t, &m, INT64_MAX);
	logged_wait(&t.loop, "ahead of this one's");
	leave(&t, &m);
	two_done(&t);
}

/* What costs a captured host, or a stranger, a few bytes does not cost the replica's disk a line
 * each. */
static void
nobody_fills_the_log(void **state)
{
	static struct mole s[8];
	struct transfer_point tp = {.id = {1}, .vm = {2}, .line = {3}, .base = {4}};
	struct mole_count refused;
	struct mole m;
	struct two t;
	unsigned i, k;

	(void)state;
	two_make(&t, NULL);
	hello(&t, &m, clock_wall_ns());
	for (i = 1; i <= 40; i++)
		begin_stream(&m, i, &tp);
	refused = (struct mole_count){&m, MESSAGE_REFUSED, 40};
	two_wait(&t, mole_heard, &refused, "all refused");
	logged_wait(&t.loop, "host-a: no more of that is told");
	for (i = 0; i < 3; i++) {
		for (k = 0; k < 8; k++) {
			mole_start(&s[k], &t.loop, t.d.port, NULL, NULL);
			mole_raw(&s[k],
			         (struct lc_span){(const uint8_t *)"GET / HTTP/1.1\r\n", 16});
		}
		for (k = 0; k < 8; k++)
			two_wait(&t, mole_is_over, &s[k], "the end");
		for (k = 0; k < 8; k++)
			leave(&t, &s[k]);
	}
	logged_wait(&t.loop, "strangers: no more of that is told");
	leave(&t, &m);
	/* Neither by coming and going. */
	for (i = 0; i < 30; i++) {
		two_wait(&t, two_is_left, &t, "gone");
		mole_start(&m, &t.loop, t.d.port, &t.h.id, t.d.id.public);
		two_wait(&t, mole_is_open, &m, "open");
		leave(&t, &m);
	}
	logged_wait(&t.loop, "host-a: no more of that is told");
	two_done(&t);
}

#define RATE (UINT64_C(64) << 10)

static void
note_received(void *arg, const struct server_host *h)
{
	*(uint64_t *)arg = h->received;
}

/* Those that it has beside the one that sends. */
static void
a_hosts_limit_is_of_all_its_connections(void **state)
{
	static const uint8_t bytes[8];
	uint64_t before = 0, after = 0;
	struct mole m[4];
	struct two t;
	unsigned i, k;
	double s;
	int64_t began;

	(void)state;
	two_make(&t, NULL);
	drsite_stop(&t.d);
	t.d.host_rate = RATE;
	drsite_start(&t.d);
	for (i = 0; i < 4; i++)
		hello_as(&t, &m[i], clock_wall_ns(), true);
	for (k = 0; k < 20000; k++) {
		for (i = 0; i < 4; i++)
			mole_say(&m[i], MESSAGE_PING, (struct lc_span){bytes, sizeof bytes});
	}
	run_for(&t.loop, 200);
	server_hosts(t.d.server, note_received, &before);
	began = clock_mono_ns();
	run_for(&t.loop, 2000);
	server_hosts(t.d.server, note_received, &after);
	s = (double)(clock_mono_ns() - began) / 1e9;
	(void)printf("%.0f KiB/s\n", (double)(after - before) / 1024 / s);
	assert_true((double)(after - before) < 1.5 * (double)RATE * s);
	assert_true((double)(after - before) > 0.5 * (double)RATE * s);
	for (i = 0; i < 4; i++)
		leave(&t, &m[i]);
	two_done(&t);
}

/* ---- before it comes ---- */

struct sizes {
	uint64_t kept, room, damaged;
};

static void
note_sizes(void *arg, const struct server_host *h)
{
	*(struct sizes *)arg = (struct sizes){h->kept, h->room, h->damaged};
}

static struct sizes
sizes_of(struct two *t)
{
	struct sizes x = {.kept = 0};

	server_hosts(t->d.server, note_sizes, &x);
	return x;
}

static void
set_limit(const struct two *t, uint64_t max)
{
	const struct limits l = {.max_set = max > 0, .max = max};
	struct lc_err e = LC_ERR_INIT;

	must(limits_write(t->d.dir, t->h.id.public, &l, &e), &e);
}

static bool
is_surveyed(void *t)
{
	return sizes_of(t).damaged != SERVER_UNKNOWN;
}

/* As `locum scrub` there does it. */
static void
spoil_its_store(struct two *t)
{
	const char *dir = hostsite_dir_at(&t->h, &t->d);
	struct store_opts o = {.dir = dir, .mode = STORE_WRITE, .no_key = true};
	struct lc_err e = LC_ERR_INIT;
	struct store *s = NULL;
	struct vault_piece p;

	assert_true(vault_piece_of(dir, RECORD_CHUNK, 1, &p));
	vault_flip(dir, &p, RECORD_HEADER_SIZE + 50, 4);
	must(store_open(&o, &s, &e), &e);
	assert_int_equal(decay_scrub(s, NULL), 1);
	store_close(s);
}

/* A replica that was started anew tells what there is of a host, and not that there is nothing. */
static void
what_a_host_has_is_known_before_it_comes(void **state)
{
	struct vault_disk d = two_disk(3);
	struct sizes after;
	struct point p;
	struct two t;

	(void)state;
	two_make(&t, NULL);
	set_limit(&t, 1 << 30);
	p = hostsite_backup(&t.h, "web01", &d);
	hostsite_connect(&t.h);
	two_wait(&t, hostsite_is_idle, &t.h, "all there");
	hostsite_disconnect(&t.h);
	two_wait(&t, two_is_left, &t, "gone");
	/* What it brought in a moment counts, also where it is away then for a day. */
	assert_in_range(sizes_of(&t).kept, 3 * WINDOW_SIZE / 2, 4 * WINDOW_SIZE);
	drsite_stop(&t.d);
	spoil_its_store(&t);
	drsite_start(&t.d);
	after = sizes_of(&t);
	assert_int_equal(after.room, 1 << 30);
	assert_true(after.kept == SERVER_UNKNOWN && after.damaged == SERVER_UNKNOWN);
	assert_true(says(&t, server_status, "\"stored_bytes\": null"));
	assert_true(says(&t, server_status, "\"damaged\": null"));
	server_survey(t.d.server);
	two_wait(&t, is_surveyed, &t, "a look at its store");
	after = sizes_of(&t);
	assert_in_range(after.kept, 3 * WINDOW_SIZE / 2, 4 * WINDOW_SIZE);
	assert_int_equal(after.damaged, 1);
	point_done(&p);
	vault_disk_free(&d);
	two_done(&t);
}

static bool
has_another_room(void *t)
{
	return sizes_of(t).room == 700;
}

/* What is set for one that is away shows, too. */
static void
a_limit_shows_while_the_host_is_away(void **state)
{
	struct two t;

	(void)state;
	two_make(&t, NULL);
	two_wait(&t, two_is_left, &t, "gone");
	set_limit(&t, 700);
	two_wait(&t, has_another_room, &t, "the limit");
	two_done(&t);
}

/* ---- given away ---- */

struct vms {
	size_t of_a, of_b;
};

static void
note_vms(void *arg, const struct server_host *h)
{
	*(strcmp(h->name, "host-a") == 0 ? &((struct vms *)arg)->of_a
	                                 : &((struct vms *)arg)->of_b) = h->vms;
}

/* It shows at the host that has it, and at no other one. */
static void
a_vm_that_was_given_away_is_not_the_old_hosts(void **state)
{
	struct vault_disk d = two_disk(2);
	struct vms vms = {.of_a = 9};
	struct writer_entry to;
	struct lc_err e = LC_ERR_INIT;
	struct hostsite b;
	struct point p;
	struct two t;

	(void)state;
	two_make(&t, NULL);
	hostsite_make_beside(&b, &t.h, &t.d, "host-b");
	p = hostsite_backup(&t.h, "web01", &d);
	hostsite_connect(&t.h);
	two_wait(&t, hostsite_is_idle, &t.h, "all there");
	hostsite_join(&b, &t.h, &t.d);
	server_hosts(t.d.server, note_vms, &vms);
	assert_true(vms.of_a == 1 && vms.of_b == 0);
	must(writers_find(t.d.dir, b.id.public, &to, &e), &e);
	must(gifts_put(t.d.dir, p.vm_id, &to, &e), &e);
	hostsite_connect(&b);
	two_wait(&t, hostsite_is_up, &b, "up");
	server_hosts(t.d.server, note_vms, &vms);
	assert_int_equal(vms.of_b, 1);
	assert_int_equal(vms.of_a, 0);
	hostsite_disconnect(&b);
	hostsite_disconnect(&t.h);
	hostsite_free(&b);
	point_done(&p);
	vault_disk_free(&d);
	two_done(&t);
}

/* ---- limits that can't be read ---- */

static void
spoil_its_limits(const struct two *t)
{
	char hex[2 * CHANNEL_KEY_SIZE + 1];
	char path[400];
	FILE *f;

	(void)snprintf(path, sizeof path, "%s/limits/%s", t->d.dir,
	               lc_hex(hex, t->h.id.public, CHANNEL_KEY_SIZE));
	f = fopen(path, "we");
	assert_non_null(f);
	(void)fputs("max much\n", f);
	assert_int_equal(fclose(f), 0);
}

static bool
is_left_by_it(void *h)
{
	return ((struct hostsite *)h)->downs > 0;
}

/* They stay as they were; nobody has said that there is none. */
static void
a_limit_that_cannot_be_read_holds_on(void **state)
{
	struct two t;

	(void)state;
	two_make(&t, NULL);
	set_limit(&t, 1 << 20);
	hostsite_connect(&t.h);
	two_wait(&t, hostsite_is_up, &t.h, "up");
	spoil_its_limits(&t);
	logged_wait(&t.loop, "stays as it was");
	assert_int_equal(sizes_of(&t).room, 1 << 20);
	t.h.up = false;
	hostsite_disconnect(&t.h);
	hostsite_connect(&t.h);
	two_wait(&t, hostsite_is_up, &t.h, "up again");
	assert_int_equal(sizes_of(&t).room, 1 << 20);
	hostsite_disconnect(&t.h);
	two_done(&t);
}

/* And where it is not known what they were, it is let in no more than one without rights: that it
 * reads, as a restore does, needs none. */
static void
a_host_whose_limits_were_never_read_is_not_let_in(void **state)
{
	struct mole m;
	struct two t;

	(void)state;
	two_make(&t, NULL);
	drsite_stop(&t.d);
	set_limit(&t, 1 << 20);
	spoil_its_limits(&t);
	drsite_start(&t.d);
	assert_true(sizes_of(&t).room == SERVER_UNKNOWN);
	assert_true(says(&t, server_status, "it is not let in: "));
	t.h.downs = 0;
	hostsite_connect(&t.h);
	two_wait(&t, is_left_by_it, &t.h, "refused");
	assert_int_equal(t.h.why.code, LC_EACCES);
	assert_non_null(strstr(t.h.why.msg, "can't read what is set for this host"));
	assert_int_equal(t.h.ups, 0); /* not for a moment */
	hello_as(&t, &m, clock_wall_ns(), true);
	leave(&t, &m);
	set_limit(&t, 1 << 20);
	two_wait(&t, hostsite_is_up, &t.h, "up");
	assert_int_equal(sizes_of(&t).room, 1 << 20);
	assert_true(is_fine(&t));
	hostsite_disconnect(&t.h);
	two_done(&t);
}

/* ---- files that can't be read ---- */

static const char *
file_of(const struct two *t, const struct hostsite *h)
{
	static char path[400];
	char hex[2 * CHANNEL_KEY_SIZE + 1];

	(void)snprintf(path, sizeof path, "%s/writers/%s", t->d.dir,
	               lc_hex(hex, h->id.public, CHANNEL_KEY_SIZE));
	return path;
}

static bool
is_spoilt(void *t)
{
	return says(t, server_status, "it is not let in: ");
}

/* Only that one stays out, and it is told; whether it was damaged before the replica began, or
 * since. */
static void
a_host_whose_file_cannot_be_read_is_alone_with_it(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf had = {0};
	struct hostsite b;
	struct two t;

	(void)state;
	two_make(&t, NULL);
	hostsite_make(&b, &t.loop, &t.d, "host-b");
	hostsite_pair(&b, &t.d);
	must(file_read_all(file_of(&t, &b), 1000, &had, &e), &e);
	must(file_write_atomic(file_of(&t, &b), "name = x\n", 9, 0600, &e), &e);
	logged_wait(&t.loop, "host-b: its file can't be read");
	two_wait(&t, is_spoilt, &t, "told");
	drsite_stop(&t.d);
	drsite_start(&t.d);
	assert_true(is_spoilt(&t));
	hostsite_connect(&t.h);
	two_wait(&t, hostsite_is_up, &t.h, "up");
	b.downs = 0;
	hostsite_connect(&b);
	two_wait(&t, is_left_by_it, &b, "refused");
	assert_int_equal(b.why.code, LC_ECORRUPT);
	assert_int_equal(b.ups, 0);
	must(file_write_atomic(file_of(&t, &b), had.p, had.n, 0600, &e), &e);
	two_wait(&t, hostsite_is_up, &b, "up, too");
	assert_false(is_spoilt(&t));
	hostsite_disconnect(&b);
	hostsite_disconnect(&t.h);
	hostsite_free(&b);
	lc_buf_free(&had);
	two_done(&t);
}

/* Others brought keys of their own to the store that it shares: it is not held to those, also while
 * nobody can tell any more whose they are. */
static void
a_shared_store_stays_one_without_its_file(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct hostsite b;
	struct two t;

	(void)state;
	two_make(&t, NULL);
	hostsite_connect(&t.h);
	two_wait(&t, hostsite_is_up, &t.h, "up");
	hostsite_disconnect(&t.h);
	hostsite_make_beside(&b, &t.h, &t.d, "host-b");
	hostsite_join(&b, &t.h, &t.d);
	must(store_rotate(b.v.s, b.v.keys, &e), &e);
	hostsite_connect(&b);
	two_wait(&t, hostsite_is_up, &b, "up");
	hostsite_disconnect(&b);
	must(file_write_atomic(file_of(&t, &b), "name = x\n", 9, 0600, &e), &e);
	hostsite_connect(&t.h);
	two_wait(&t, hostsite_is_up, &t.h, "up again");
	hostsite_disconnect(&t.h);
	hostsite_free(&b);
	two_done(&t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_host_that_is_revoked_while_away_is_not_missed),
	    cmocka_unit_test(what_was_taken_after_all_is_no_error),
	    cmocka_unit_test(a_clock_that_is_ahead_hides_no_point),
	    cmocka_unit_test(a_clock_beyond_all_bounds_is_told),
	    cmocka_unit_test(nobody_fills_the_log),
	    cmocka_unit_test(a_hosts_limit_is_of_all_its_connections),
	    cmocka_unit_test(what_a_host_has_is_known_before_it_comes),
	    cmocka_unit_test(a_limit_shows_while_the_host_is_away),
	    cmocka_unit_test(a_vm_that_was_given_away_is_not_the_old_hosts),
	    cmocka_unit_test(a_limit_that_cannot_be_read_holds_on),
	    cmocka_unit_test(a_host_whose_limits_were_never_read_is_not_let_in),
	    cmocka_unit_test(a_host_whose_file_cannot_be_read_is_alone_with_it),
	    cmocka_unit_test(a_shared_store_stays_one_without_its_file),
	};

	cmocka_set_test_filter(getenv("LOCUM_TEST_ONLY"));
	return cmocka_run_group_tests(tests, logged_begin, logged_end);
}
