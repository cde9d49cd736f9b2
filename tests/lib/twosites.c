#include <stdio.h>
#include <string.h>

#include "replicator/noise.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/workers.h"
#include "tests/lib/must.h"
#include "tests/lib/twosites.h"
#include "tests/lib/unit.h"

#define LONG_MS 60000

/* ---- the loop ---- */

static void
on_wake(uv_timer_t *t)
{
	(void)t;
}

static void
on_wake_closed(uv_handle_t *h)
{
	*(bool *)h->data = true;
}

bool
run_until(uv_loop_t *loop, bool (*condition)(void *arg), void *arg, int64_t ms)
{
	int64_t end = clock_mono_ns() + ms * LC_NS_PER_MS;
	bool closed = false, met;
	uv_timer_t wake;

	assert_int_equal(uv_timer_init(loop, &wake), 0);
	assert_int_equal(uv_timer_start(&wake, on_wake, 2, 2), 0);
	while (!(met = condition(arg)) && clock_mono_ns() < end)
		(void)uv_run(loop, UV_RUN_ONCE);
	wake.data = &closed;
	uv_close((uv_handle_t *)&wake, on_wake_closed);
	while (!closed)
		(void)uv_run(loop, UV_RUN_NOWAIT);
	return met;
}

static bool
never(void *arg)
{
	(void)arg;
	return false;
}

void
run_for(uv_loop_t *loop, int64_t ms)
{
	(void)run_until(loop, never, NULL, ms);
}

static bool
is_set(void *arg)
{
	return *(bool *)arg;
}

static void
set(void *arg)
{
	*(bool *)arg = true;
}

/* ---- the replica ---- */

void
drsite_make(struct drsite *d, uv_loop_t *loop)
{
	struct lc_err e = LC_ERR_INIT;
	char *top = tmpdir_new();

	memset(d, 0, sizeof *d);
	d->loop = loop;
	d->top = top;
	(void)snprintf(d->dir, sizeof d->dir, "%s/dr", top);
	must(noise_keypair(d->id.secret, d->id.public, &e), &e);
	must(workers_new(2, &d->workers, &e), &e);
	must(dir_make(d->dir, 0700, &e), &e);
}

void
drsite_start(struct drsite *d)
{
	struct lc_err e = LC_ERR_INIT;
	struct address at = {.host = "127.0.0.1"};
	struct server_opts o = {.loop = d->loop,
	                        .workers = d->workers,
	                        .dir = d->dir,
	                        .listen = &at,
	                        .identity = &d->id,
	                        .limits = d->limits,
	                        .host_max = d->host_max,
	                        .host_rate = d->host_rate};

	(void)snprintf(at.port, sizeof at.port, "%u", d->port % 65536);
	must(server_start(&o, &d->server, &e), &e);
	d->port = server_port(d->server);
	assert_int_not_equal(d->port, 0);
}

void
drsite_stop(struct drsite *d)
{
	bool stopped = false;

	if (d->server == NULL)
		return;
	server_stop(d->server, set, &stopped);
	d->server = NULL;
	if (!run_until(d->loop, is_set, &stopped, LONG_MS))
		fail_msg("the replica does not stop");
}

void
drsite_free(struct drsite *d)
{
	drsite_stop(d);
	workers_free(d->workers);
	tmpdir_free(d->top);
}

/* ---- a host ---- */

static void
make_host(struct hostsite *h, const struct drsite *d, const char *name)
{
	struct lc_err e = LC_ERR_INIT;

	(void)snprintf(h->name, sizeof h->name, "%s", name);
	must(noise_keypair(h->id.secret, h->id.public, &e), &e);
	(void)snprintf(h->peer.name, sizeof h->peer.name, "dr");
	(void)snprintf(h->peer.at.host, sizeof h->peer.at.host, "127.0.0.1");
	(void)snprintf(h->peer.at.port, sizeof h->peer.at.port, "%u", d->port % 65536);
	memcpy(h->peer.key, d->id.public, sizeof h->peer.key);
	must(workers_new(1, &h->workers, &e), &e);
}

void
hostsite_make(struct hostsite *h, uv_loop_t *loop, const struct drsite *d, const char *name)
{
	memset(h, 0, sizeof *h);
	h->loop = loop;
	vault_make(&h->v, true);
	vault_open(&h->v);
	make_host(h, d, name);
}

void
hostsite_make_beside(struct hostsite *h, const struct hostsite *first, const struct drsite *d,
                     const char *name)
{
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf keys = {0};

	memset(h, 0, sizeof *h);
	h->loop = first->loop;
	must(transfer_keys(first->v.s, &keys, &e), &e);
	vault_make_beside(&h->v, &first->v, (struct lc_span){keys.p, keys.n});
	lc_buf_free(&keys);
	vault_open(&h->v);
	make_host(h, d, name);
}

void
hostsite_join(struct hostsite *h, const struct hostsite *first, const struct drsite *d)
{
	struct lc_err e = LC_ERR_INIT;
	uint8_t secret[32];

	must(writers_join_token(d->dir, 3600 * LC_NS_PER_S, first->id.public, secret, &e), &e);
	if (hostsite_try(h, secret) != LC_OK)
		fail_msg("joining: %s", h->why.msg);
	h->ups = h->downs = 0;
}

static void
on_up(void *arg)
{
	struct hostsite *h = arg;

	h->up = true;
	h->ups++;
}

static void
on_down(void *arg, const struct lc_err *why, bool again)
{
	struct hostsite *h = arg;

	(void)again;
	h->up = false;
	h->downs++;
	h->why = *why;
}

static void
on_committed(void *arg, const struct transfer_point *p, int64_t wall_ns)
{
	struct hostsite *h = arg;

	(void)wall_ns;
	h->committed += p->entry.n > 0 ? 1 : 0;
}

static void
on_has(void *arg, const struct witness_point *list, size_t n, bool all)
{
	struct hostsite *h = arg;
	size_t i, k;

	if (all) {
		h->nhas = 0;
		h->asked++;
	}
	for (i = 0; i < n; i++) {
		for (k = 0; k < h->nhas && memcmp(h->has[k].line, list[i].line, 16) != 0; k++)
			;
		if (k == sizeof h->has / sizeof h->has[0])
			return;
		h->has[k] = list[i];
		h->nhas = k == h->nhas ? k + 1 : h->nhas;
	}
}

static void
on_roomier(void *arg)
{
	((struct hostsite *)arg)->roomier++;
}

static void
on_failed(void *arg, const uint8_t vm[16], const struct lc_err *why)
{
	struct hostsite *h = arg;

	(void)vm;
	h->failed++;
	h->why = *why;
}

static void
on_idle(void *arg)
{
	((struct hostsite *)arg)->idles++;
}

static void
begin(struct hostsite *h, const uint8_t *secret, bool once)
{
	struct lc_err e = LC_ERR_INIT;
	struct uplink_opts o = {.loop = h->loop,
	                        .workers = h->workers,
	                        .store = h->v.s,
	                        .peer = &h->peer,
	                        .identity = &h->id,
	                        .host = h->name,
	                        .secret = secret,
	                        .once = once,
	                        .limits = h->limits,
	                        .throttle = h->throttle,
	                        .retry_ms = h->retry_ms,
	                        .events = {.arg = h,
	                                   .up = on_up,
	                                   .down = on_down,
	                                   .has = on_has,
	                                   .committed = on_committed,
	                                   .failed = on_failed,
	                                   .roomier = on_roomier,
	                                   .idle = on_idle}};

	h->up = false;
	must(uplink_start(&o, &h->uplink, &e), &e);
}

void
hostsite_begin(struct hostsite *h, const uint8_t *secret)
{
	begin(h, secret, true);
}

void
hostsite_connect(struct hostsite *h)
{
	begin(h, NULL, false);
}

void
hostsite_disconnect(struct hostsite *h)
{
	bool stopped = false;

	if (h->uplink == NULL)
		return;
	uplink_stop(h->uplink, set, &stopped);
	h->uplink = NULL;
	if (!run_until(h->loop, is_set, &stopped, LONG_MS))
		fail_msg("the uplink does not stop");
	h->up = false;
}

static bool
tried(void *arg)
{
	struct hostsite *h = arg;

	return h->ups + h->downs > 0;
}

enum lc_code
hostsite_try(struct hostsite *h, const uint8_t *secret)
{
	unsigned ups;

	h->ups = h->downs = 0;
	lc_err_clear(&h->why);
	begin(h, secret, true);
	if (!run_until(h->loop, tried, h, LONG_MS))
		fail_msg("neither up nor down");
	ups = h->ups;
	hostsite_disconnect(h);
	return ups > 0 ? LC_OK : h->why.code;
}

void
hostsite_pair(struct hostsite *h, const struct drsite *d)
{
	struct lc_err e = LC_ERR_INIT;
	uint8_t secret[32];

	must(writers_token(d->dir, 3600 * LC_NS_PER_S, NULL, secret, &e), &e);
	if (hostsite_try(h, secret) != LC_OK)
		fail_msg("pairing: %s", h->why.msg);
	h->ups = h->downs = 0;
}

void
hostsite_free(struct hostsite *h)
{
	hostsite_disconnect(h);
	workers_free(h->workers);
	vault_free(&h->v);
}

struct point
hostsite_backup(struct hostsite *h, const char *vm, const struct vault_disk *d)
{
	struct lc_err e = LC_ERR_INIT;
	struct point p;

	must(vault_backup(h->v.s, vm, d, 1, &p, &e), &e);
	if (h->uplink != NULL)
		uplink_wake(h->uplink, p.line);
	return p;
}

const char *
hostsite_dir_at(const struct hostsite *h, const struct drsite *d)
{
	static char path[512];
	struct lc_err e = LC_ERR_INIT;
	struct writer_entry w;

	must(writers_find(d->dir, h->id.public, &w, &e), &e);
	(void)snprintf(path, sizeof path, "%s/%s", d->dir, w.store);
	return path;
}

void
hostsite_arrived(const struct hostsite *h, const struct drsite *d, const struct point *p,
                 const struct vault_disk *disk)
{
	struct store_opts o = {.dir = hostsite_dir_at(h, d), .recovery_code = h->v.code};
	struct lc_err e = LC_ERR_INIT;
	struct store *s;

	must(store_open(&o, &s, &e), &e);
	must(vault_compare(s, p->id, disk, 1, &e), &e);
	must(vault_verify(s, p->id, &e), &e);
	store_close(s);
}

void
hostsite_ends(struct hostsite *h, struct drsite *d, const struct point *p,
              const struct vault_disk *disk)
{
	hostsite_disconnect(h);
	drsite_stop(d);
	hostsite_arrived(h, d, p, disk);
}

bool
hostsite_has_one(void *arg)
{
	return ((struct hostsite *)arg)->committed > 0;
}

bool
hostsite_is_idle(void *arg)
{
	struct hostsite *h = arg;

	return h->uplink != NULL && uplink_idle(h->uplink);
}

bool
hostsite_is_up(void *arg)
{
	return ((struct hostsite *)arg)->up;
}

bool
hostsite_is_down(void *arg)
{
	return !((struct hostsite *)arg)->up;
}
