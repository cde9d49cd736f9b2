/*
 * control, submit, result: what other commands have the agent do, with a made-up protect: here it
 * is the test that says when a backup begins and ends.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include "agent/control.h"
#include "agent/hypervisor/definition.h"
#include "agent/import.h"
#include "agent/protect.h"
#include "agent/result.h"
#include "agent/sites.h"
#include "agent/submit.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/log.h"
#include "tests/lib/unit.h"

#define SOON_MS 10000

/* ---- a protect ---- */

struct protect {
	struct protect_ask *asks[8]; /* NULL: over */
	unsigned n, unasked;
	struct vm_status vm;
	int64_t durable_ns;
	struct lc_err refused;
	struct site_status site;
	struct protect_opts opts;
	char imported[200];
	int images;
	unsigned imports; /* copies that nobody has taken or freed */
};

static struct protect fake;

int
protect_ask(struct protect *x, struct protect_ask *ask, struct lc_err *e)
{
	if (strcmp(ask->vm, "none") == 0)
		return lc_fail(e, LC_ENOENT, 0, "no VM none");
	if (ask->import != NULL)
		import_free(ask->import);
	ask->import = NULL;
	x->asks[x->n++] = ask;
	return 0;
}

void
protect_unask(struct protect_ask *ask)
{
	unsigned i;

	for (i = 0; i < fake.n; i++) {
		if (fake.asks[i] != ask)
			continue;
		fake.asks[i] = NULL;
		fake.unasked++;
	}
}

bool
protect_asked(const struct protect_ask *ask, struct backup_progress *out)
{
	*out = (struct backup_progress){.note = "reading", .looked = 10, .total = 20, .stored = 5};
	return ask->begun;
}

size_t
protect_vms(const struct protect *x)
{
	(void)x;
	return 1;
}

void
protect_vm(const struct protect *x, size_t i, struct vm_status *out)
{
	(void)i;
	*out = x->vm;
	out->instant_ns = 77;
	out->name = "web01";
	out->durable_ns = &fake.durable_ns;
	out->refused = &fake.refused;
}

size_t
protect_sites(const struct protect *x)
{
	(void)x;
	return 1;
}

void
protect_site(const struct protect *x, size_t i, struct site_status *out)
{
	(void)i;
	*out = x->site;
	out->name = "dr";
}

const struct protect_opts *
protect_options(const struct protect *x)
{
	return &x->opts;
}

/* ---- imports ---- */

int
import_check(struct store *store, const char *vm, struct lc_err *e)
{
	(void)store;
	return strcmp(vm, "taken") == 0 ? lc_fail(e, LC_EEXIST, 0, "taken: is there") : 0;
}

int
import_copy(const struct settings *s, const struct import_opts *o, struct settings **out,
            const char **vm, struct lc_err *e)
{
	size_t i;

	(void)s;
	(void)e;
	for (i = 0; i < o->nfiles; i++)
		fake.images += snprintf(fake.imported + fake.images,
		                        sizeof fake.imported - (size_t)fake.images, "%s:%s;",
		                        o->formats[i], o->files[i]);
	*vm = o->vm;
	*out = (struct settings *)(void *)&fake.imports; /* not looked into */
	fake.imports++;
	return 0;
}

void
import_free(struct settings *copy)
{
	fake.imports -= copy == NULL ? 0 : 1;
}

/* ---- both ends ---- */

struct scene {
	uv_loop_t loop;
	char *dir, path[100];
	struct control *control;
	struct submit *submit;
	unsigned results, failed, progress, unsent, ended;
	bool refused;
	int64_t silence_ms;
	const struct definition *import;
	size_t nmade;            /* of those that are asked for, from the last one on */
	struct lc_err why, last; /* last: of a result, or unsent */
	struct backup_result r;
};

static void
on_tick(uv_timer_t *t)
{
	(void)t;
}

static void
on_over(uv_timer_t *t)
{
	*(unsigned *)t->data = 1;
}

/* Until *n is at least that. */
static void
wait_for(struct scene *x, const unsigned *n, unsigned least)
{
	int64_t end = clock_mono_ns() + SOON_MS * LC_NS_PER_MS;
	uv_timer_t t;

	assert_int_equal(uv_timer_init(&x->loop, &t), 0);
	assert_int_equal(uv_timer_start(&t, on_tick, 2, 2), 0);
	while (*n < least && clock_mono_ns() < end)
		(void)uv_run(&x->loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&t, NULL);
	(void)uv_run(&x->loop, UV_RUN_NOWAIT);
	if (*n < least)
		fail_msg("%u of %u", *n, least);
}

static void
on_progress(void *arg, const char *vm, const struct backup_progress *p)
{
	struct scene *x = arg;

	x->progress += strcmp(vm, "web01") == 0 && p->looked == 10 && p->total == 20 &&
	                       p->stored == 5 && strcmp(p->note, "reading") == 0
	                   ? 1
	                   : 0;
}

static void
on_result(void *arg, const struct backup_result *r)
{
	struct scene *x = arg;

	x->results++;
	x->failed += r->outcome == BACKUP_FAILED ? 1 : 0;
	x->last = r->err;
	x->r = *r;
}

static void
on_unsent(void *arg, const char *replica, const char *why)
{
	struct scene *x = arg;

	x->unsent++;
	assert_non_null(replica);
	(void)snprintf(x->last.msg, sizeof x->last.msg, "%s", why);
}

static void
on_ended(void *arg, const struct lc_err *why, bool refused)
{
	struct scene *x = arg;

	x->ended++;
	x->why = *why;
	x->refused = refused;
	x->submit = NULL;
}

static void
make(struct scene *x)
{
	struct control_opts o = {.loop = &x->loop};
	struct lc_err e = LC_ERR_INIT;

	memset(x, 0, sizeof *x);
	memset(&fake, 0, sizeof fake);
	assert_int_equal(uv_loop_init(&x->loop), 0);
	x->dir = tmpdir_new();
	(void)snprintf(x->path, sizeof x->path, "%s/sock", x->dir);
	o.path = x->path;
	o.store = x->dir;
	if (control_start(&o, &x->control, &e) != 0)
		fail_msg("%s", e.msg);
	control_protect(x->control, &fake);
}

static void
end(struct scene *x)
{
	control_stop(x->control);
	(void)uv_run(&x->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&x->loop), 0);
	tmpdir_free(x->dir);
}

static const char *const two[] = {"web01", "db"}, *const dr[] = {"dr", "other"};

static void
ask(struct scene *x, const char *const *vms, size_t nvms, size_t nto)
{
	struct submit_opts o = {.loop = &x->loop,
	                        .path = x->path,
	                        .store = x->dir,
	                        .vms = vms,
	                        .nvms = nvms - x->nmade,
	                        .made = vms + nvms - x->nmade,
	                        .nmade = x->nmade,
	                        .to = dr,
	                        .nto = nto,
	                        .silence_ms = x->silence_ms,
	                        .import = x->import,
	                        .events = {.arg = x,
	                                   .progress = on_progress,
	                                   .result = on_result,
	                                   .unsent = on_unsent,
	                                   .ended = on_ended}};
	struct lc_err e = LC_ERR_INIT;

	if (submit_start(&o, &x->submit, &e) != 0)
		fail_msg("%s", e.msg);
}

static void
finish(unsigned i, enum backup_outcome outcome)
{
	struct backup_result r = {.vm = fake.asks[i]->vm,
	                          .outcome = outcome,
	                          .point = {.source_ns = 77,
	                                    .changed = 3,
	                                    .pause_ns = 5,
	                                    .consistency = POINT_FROZEN,
	                                    .freeze = "2 filesystems for 5 ms"},
	                          .stats = {.stored = 1234},
	                          .passes = 2,
	                          .full = true,
	                          .scanned = 1,
	                          .took_ns = 99};
	struct protect_ask *a = fake.asks[i];

	memset(r.point.id, 0xab, sizeof r.point.id);
	(void)snprintf(r.why_scanned, sizeof r.why_scanned, "bad bytes: \xff\"");
	if (outcome == BACKUP_FAILED)
		(void)lc_fail(&r.err, LC_EIO, 0, "%s: broken", r.vm);
	fake.asks[i] = NULL;
	a->done(a, &r);
}

static void
two_vms_are_backed_up(void **state)
{
	struct scene x;

	(void)state;
	make(&x);
	ask(&x, two, 2, 0);
	wait_for(&x, &fake.n, 2);
	fake.asks[0]->begun = true;
	wait_for(&x, &x.progress, 2);
	finish(1, BACKUP_FAILED);
	wait_for(&x, &x.results, 1);
	assert_string_equal(x.r.vm, "db");
	assert_int_equal(x.last.code, LC_EIO);
	assert_string_equal(x.last.msg, "db: broken");
	finish(0, BACKUP_DONE);
	wait_for(&x, &x.ended, 1);
	assert_int_equal(x.results, 2);
	assert_int_equal(x.failed, 1);
	assert_string_equal(x.r.vm, "web01");
	assert_int_equal(x.r.outcome, BACKUP_DONE);
	assert_int_equal(x.r.point.id[15], 0xab);
	assert_int_equal(x.r.point.source_ns, 77);
	assert_int_equal(x.r.point.changed, 3);
	assert_int_equal(x.r.point.pause_ns, 5);
	assert_int_equal(x.r.point.consistency, POINT_FROZEN);
	assert_string_equal(x.r.point.freeze, "2 filesystems for 5 ms");
	assert_int_equal(x.r.stats.stored, 1234);
	assert_int_equal(x.r.passes, 2);
	assert_true(x.r.full && x.r.scanned == 1 && x.r.took_ns == 99);
	assert_string_equal(x.r.why_scanned, "bad bytes: ?\"");
	assert_int_equal(x.why.code, LC_OK);
	assert_false(x.refused);
	end(&x);
}

/* Image files go along with the name of their VM. */
static void
images_are_imported(void **state)
{
	static const char *const vms[] = {"sql01", "taken", "none"};
	struct definition *def = lc_alloc(sizeof *def);
	struct scene x;
	unsigned i;

	(void)state;
	assert_non_null(def);
	def->ndisks = 2;
	(void)snprintf(def->disks[0].path, sizeof def->disks[0].path, "/a \"b.vhdx");
	(void)snprintf(def->disks[0].format, sizeof def->disks[0].format, "vhdx");
	(void)snprintf(def->disks[1].path, sizeof def->disks[1].path, "/c");
	(void)snprintf(def->disks[1].format, sizeof def->disks[1].format, "raw");
	make(&x);
	x.import = def;
	ask(&x, &vms[0], 1, 0);
	wait_for(&x, &fake.n, 1);
	assert_string_equal(fake.imported, "vhdx:/a \"b.vhdx;raw:/c;");
	finish(0, BACKUP_DONE);
	wait_for(&x, &x.ended, 1);
	assert_int_equal(x.failed, 0);
	for (i = 1; i < 3; i++) { /* refused before, and after it was looked at */
		ask(&x, &vms[i], 1, 0);
		wait_for(&x, &x.ended, 1 + i);
		assert_int_equal(x.failed, i);
		assert_int_equal(x.last.code, i == 1 ? LC_EEXIST : LC_ENOENT);
		assert_int_equal(fake.imports, 0);
	}
	ask(&x, two, 2, 0); /* which VM's would they be? */
	wait_for(&x, &x.ended, 4);
	assert_true(x.refused);
	end(&x);
	lc_free(def);
}

static void
a_name_that_is_no_text_is_told(void **state)
{
	static const char *const vms[] = {"sql01"};
	struct submit_opts o = {.vms = vms, .nvms = 1};
	struct definition *def = lc_alloc(sizeof *def);
	struct lc_err e = LC_ERR_INIT;
	struct scene x;

	(void)state;
	assert_non_null(def);
	def->ndisks = 1;
	memcpy(def->disks[0].path, "/a\xff", 4);
	make(&x);
	o.loop = &x.loop;
	o.path = x.path;
	o.store = x.dir;
	o.import = def;
	assert_int_equal(submit_start(&o, &x.submit, &e), LC_EINVAL);
	end(&x);
	lc_free(def);
}

static void
what_cannot_begin_fails_alone(void **state)
{
	static const char *const vms[] = {"none", "web01"};
	struct scene x;

	(void)state;
	make(&x);
	ask(&x, vms, 2, 0);
	wait_for(&x, &x.results, 1);
	assert_int_equal(x.last.code, LC_ENOENT);
	assert_int_equal(x.ended, 0);
	finish(0, BACKUP_UNCHANGED);
	wait_for(&x, &x.ended, 1);
	assert_int_equal(x.failed, 1);
	assert_int_equal(x.r.outcome, BACKUP_UNCHANGED);
	end(&x);
}

/* Interrupted once, what is under way is given up in order; what was made counts. */
static void
an_interrupt_gives_up_in_order(void **state)
{
	struct scene x;

	(void)state;
	make(&x);
	ask(&x, two, 2, 0);
	wait_for(&x, &fake.n, 2);
	finish(0, BACKUP_DONE);
	submit_cancel(x.submit);
	wait_for(&x, &x.ended, 1);
	assert_int_equal(x.results, 2);
	assert_int_equal(x.failed, 1);
	assert_int_equal(x.last.code, LC_ECANCELED);
	assert_int_equal(x.why.code, LC_OK);
	assert_int_equal(fake.unasked, 1);
	/* Twice: at once, whatever the agent does. */
	x.ended = 0;
	ask(&x, two, 2, 0);
	wait_for(&x, &fake.n, 4);
	submit_cancel(x.submit);
	submit_cancel(x.submit);
	wait_for(&x, &x.ended, 1);
	assert_int_equal(x.why.code, LC_ECANCELED);
	wait_for(&x, &fake.unasked, 3);
	end(&x);
}

static void
an_agent_that_dies_is_told(void **state)
{
	struct scene x;

	(void)state;
	make(&x);
	ask(&x, two, 2, 0);
	wait_for(&x, &fake.n, 2);
	finish(0, BACKUP_DONE);
	wait_for(&x, &x.results, 1);
	control_stop(x.control);
	x.control = NULL;
	wait_for(&x, &x.ended, 1);
	assert_int_equal(x.results, 2);
	assert_int_equal(x.failed, 1);
	assert_string_equal(x.r.vm, "db");
	assert_non_null(strstr(x.last.msg, "the agent ended before it was done"));
	assert_int_equal(x.last.code, LC_ECANCELED); /* so it is tried again */
	assert_int_equal(x.why.code, LC_ECANCELED);
	end(&x);
}

/* One whose VMs wait for others says all the while that it lives. */
static void
an_agent_that_has_much_to_do_is_waited_for(void **state)
{
	unsigned never = 0;
	struct scene x;
	uv_timer_t t;

	(void)state;
	make(&x);
	x.silence_ms = 700;
	ask(&x, two, 2, 0);
	wait_for(&x, &fake.n, 2);
	assert_int_equal(uv_timer_init(&x.loop, &t), 0);
	t.data = &never;
	assert_int_equal(uv_timer_start(&t, on_over, 1500, 0), 0);
	wait_for(&x, &never, 1);
	uv_close((uv_handle_t *)&t, NULL);
	assert_int_equal(x.results + x.progress + x.ended, 0);
	finish(0, BACKUP_DONE);
	finish(1, BACKUP_DONE);
	wait_for(&x, &x.ended, 1);
	assert_int_equal(x.failed, 0);
	assert_int_equal(x.why.code, LC_OK);
	end(&x);
}

/* One that stands still has its socket, and the system takes the request for it. */
static void
an_agent_that_hangs_is_given_up(void **state)
{
	struct scene x;

	(void)state;
	make(&x);
	control_stop(x.control);
	x.control = NULL;
	(void)uv_run(&x.loop, UV_RUN_DEFAULT);
	(void)unlink(x.path);
	{
		struct sockaddr_un a = {.sun_family = AF_UNIX};
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		memcpy(a.sun_path, x.path, strlen(x.path) + 1);
		assert_int_equal(bind(fd, (const struct sockaddr *)(const void *)&a, sizeof a), 0);
		assert_int_equal(listen(fd, 1), 0);
		x.silence_ms = 200;
		ask(&x, two, 2, 0);
		wait_for(&x, &x.ended, 1);
		assert_int_equal(x.why.code, LC_ETIMEDOUT);
		assert_int_equal(x.failed, 2);
		assert_non_null(strstr(x.last.msg, "db: the agent took the request and is not "));
		(void)close(fd);
	}
	end(&x);
}

/* What it has is there when its newest point is, or one that follows it. */
static void
replicas_are_waited_for(void **state)
{
	struct scene x;

	(void)state;
	make(&x);
	fake.site.up = true;
	ask(&x, two, 1, 2);
	wait_for(&x, &fake.n, 1);
	finish(0, BACKUP_DONE);
	wait_for(&x, &x.unsent, 1); /* "other" */
	assert_non_null(strstr(x.last.msg, "does not know this replica"));
	assert_int_equal(x.ended, 0);
	fake.durable_ns = 77;
	wait_for(&x, &x.ended, 1);
	assert_int_equal(x.unsent, 1);
	/* Refused. */
	fake.durable_ns = 5;
	(void)lc_fail(&fake.refused, LC_ENOSPC, 0, "full");
	x.ended = 0;
	ask(&x, two, 1, 1);
	wait_for(&x, &fake.n, 2);
	finish(1, BACKUP_DONE);
	wait_for(&x, &x.results, 2);
	assert_int_equal(x.unsent, 1); /* that is of before, and may be over */
	fake.site.refusals++;
	wait_for(&x, &x.ended, 1);
	assert_int_equal(x.unsent, 2);
	assert_string_equal(x.last.msg, "full");
	/* Nothing more is on its way then; whose point it is is known of protected VMs. */
	fake.site.idle = true;
	(void)lc_fail(&fake.site.err, LC_ENOSPC, 0, "full for somebody");
	x.ended = 0;
	ask(&x, two, 1, 1);
	wait_for(&x, &fake.n, 3);
	finish(2, BACKUP_DONE);
	wait_for(&x, &x.ended, 1);
	assert_int_equal(x.unsent, 3);
	assert_string_equal(x.last.msg, "full");
	lc_err_clear(&fake.refused);
	x.ended = 0;
	ask(&x, &two[1], 1, 1);
	wait_for(&x, &fake.n, 4);
	finish(3, BACKUP_DONE);
	wait_for(&x, &x.ended, 1);
	assert_int_equal(x.unsent, 4);
	assert_string_equal(x.last.msg, "full for somebody");
	x.ended = 0;
	ask(&x, two, 1, 1);
	wait_for(&x, &fake.n, 5);
	finish(4, BACKUP_DONE);
	wait_for(&x, &x.ended, 1);
	assert_int_equal(x.unsent, 4);
	/* Down. */
	fake.site = (struct site_status){.since_ns = 1};
	(void)lc_fail(&fake.site.err, LC_EPEER, 0, "nobody there");
	x.ended = 0;
	ask(&x, two, 1, 1);
	wait_for(&x, &fake.n, 6);
	finish(5, BACKUP_DONE);
	wait_for(&x, &x.ended, 1);
	assert_int_equal(x.unsent, 5);
	assert_string_equal(x.last.msg, "nobody there");
	end(&x);
}

/* Somebody else made those before: they go to the replica, and no points of them are made. */
static void
what_was_made_before_is_only_sent(void **state)
{
	static const char *const vms[] = {"db", "web01"};
	struct scene x;

	(void)state;
	make(&x);
	fake.site.up = true;
	fake.durable_ns = 5;
	x.nmade = 1;
	ask(&x, vms, 2, 1);
	wait_for(&x, &fake.n, 1);
	assert_string_equal(fake.asks[0]->vm, "db");
	finish(0, BACKUP_FAILED);
	wait_for(&x, &x.results, 1);
	assert_int_equal(x.ended, 0);
	fake.durable_ns = 77;
	wait_for(&x, &x.ended, 1);
	/* All of them. */
	fake.durable_ns = 5;
	x.ended = 0;
	ask(&x, &vms[1], 1, 1);
	wait_for(&x, &x.ended, 0);
	fake.durable_ns = 77;
	wait_for(&x, &x.ended, 1);
	assert_int_equal(x.results, 1);
	assert_int_equal(x.unsent, 0);
	assert_int_equal(x.why.code, LC_OK);
	assert_int_equal(fake.n, 1);
	end(&x);
}

static void
another_store_is_refused(void **state)
{
	static char root[] = "/";
	struct scene x, y;

	(void)state;
	make(&x);
	y = x;
	x.dir = root;
	ask(&x, two, 2, 0);
	wait_for(&x, &x.ended, 1);
	assert_true(x.refused);
	assert_int_equal(x.why.code, LC_ENOENT);
	assert_int_equal(x.results, 0);
	x.dir = y.dir;
	control_protect(x.control, NULL);
	x.ended = 0;
	ask(&x, two, 2, 0);
	wait_for(&x, &x.ended, 1);
	assert_true(x.refused);
	assert_int_equal(x.why.code, LC_EBUSY);
	end(&x);
}

/* ---- others ---- */

static int
dial(const struct scene *x)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)snprintf(a.sun_path, sizeof a.sun_path, "%s", x->path);
	assert_int_equal(connect(fd, (const struct sockaddr *)(const void *)&a, sizeof a), 0);
	return fd;
}

/* What comes back until it hangs up. */
static size_t
hear(struct scene *x, int fd, char *dst, size_t cap)
{
	int64_t end = clock_mono_ns() + SOON_MS * LC_NS_PER_MS;
	size_t n = 0;

	while (clock_mono_ns() < end) {
		ssize_t k = recv(fd, dst + n, cap - 1 - n, MSG_DONTWAIT);

		if (k == 0)
			break;
		n += k > 0 ? (size_t)k : 0;
		(void)uv_run(&x->loop, UV_RUN_NOWAIT);
	}
	assert_true(clock_mono_ns() < end);
	dst[n] = '\0';
	return n;
}

static void
nonsense_is_sent_away(void **state)
{
	static const char *const lines[] = {
	    "hello\n",
	    "[1]\n",
	    "{\"locum\": 2, \"verb\": \"backup\"}\n",
	    "{\"locum\": 1, \"verb\": \"shutdown\", \"store\": \"/\"}\n",
	    "{\"locum\": 1, \"verb\": 7}\n",
	    "{\"locum\": 1, \"locum\": 1}\n",
	};
	struct scene x;
	char answer[1024], *big;
	size_t i;
	int fd;

	(void)state;
	make(&x);
	for (i = 0; i < sizeof lines / sizeof lines[0]; i++) {
		fd = dial(&x);
		assert_true(send(fd, lines[i], strlen(lines[i]), 0) > 0);
		(void)hear(&x, fd, answer, sizeof answer);
		assert_non_null(strstr(answer, "refused"));
		(void)close(fd);
	}
	/* A line without an end. */
	big = malloc(CONTROL_LINE_MAX * 2);
	assert_non_null(big);
	memset(big, 'x', CONTROL_LINE_MAX * 2);
	fd = dial(&x);
	assert_true(send(fd, big, CONTROL_LINE_MAX * 2, MSG_DONTWAIT) > 0);
	assert_int_equal(hear(&x, fd, answer, sizeof answer), 0);
	(void)close(fd);
	free(big);
	assert_int_equal(fake.n, 0);
	end(&x);
}

/* Who hangs up has canceled. */
static void
who_hangs_up_has_canceled(void **state)
{
	char line[400];
	struct scene x;
	int fd;

	(void)state;
	make(&x);
	fd = dial(&x);
	(void)snprintf(line, sizeof line,
	               "{\"locum\": 1, \"verb\": \"backup\", \"store\": \"%s\", "
	               "\"vms\": [\"a\", \"b\"], \"to\": []}\n",
	               x.dir);
	assert_true(send(fd, line, strlen(line), 0) > 0);
	wait_for(&x, &fake.n, 2);
	(void)close(fd);
	wait_for(&x, &fake.unasked, 2);
	end(&x);
}

static void
one_agent_listens(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct control *second;
	struct control_opts o;
	struct scene x;

	(void)state;
	make(&x);
	o = (struct control_opts){.loop = &x.loop, .path = x.path, .store = x.dir};
	assert_int_equal(control_start(&o, &second, &e), LC_EBUSY);
	end(&x);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(two_vms_are_backed_up),
	    cmocka_unit_test(images_are_imported),
	    cmocka_unit_test(a_name_that_is_no_text_is_told),
	    cmocka_unit_test(what_cannot_begin_fails_alone),
	    cmocka_unit_test(an_interrupt_gives_up_in_order),
	    cmocka_unit_test(an_agent_that_dies_is_told),
	    cmocka_unit_test(an_agent_that_has_much_to_do_is_waited_for),
	    cmocka_unit_test(an_agent_that_hangs_is_given_up),
	    cmocka_unit_test(replicas_are_waited_for),
	    cmocka_unit_test(what_was_made_before_is_only_sent),
	    cmocka_unit_test(another_store_is_refused),
	    cmocka_unit_test(nonsense_is_sent_away),
	    cmocka_unit_test(who_hangs_up_has_canceled),
	    cmocka_unit_test(one_agent_listens),
	};

	cmocka_set_test_filter(getenv("LOCUM_TEST_ONLY"));
	log_set_level(getenv("LOCUM_TEST_LOG") != NULL ? LOG_LV_DEBUG : LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
