#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "agent/hypervisor/settings.h"
#include "replicator/throttle.h"
#include "replicator/uplink.h"
#include "replicator/verbs/forward.h"
#include "replicator/verbs/parts.h"
#include "store/base/log.h"
#include "store/base/progress.h"
#include "store/base/workers.h"

#define REDRAW_MS 200

struct forwarding {
	uv_loop_t loop;
	uv_timer_t redraw;
	struct store *store;
	struct uplink *uplink; /* NULL: told to stop */
	struct throttle *throttle;
	struct progress *bar;
	struct sender_stats stats; /* the last ones */
	uint64_t points, failed;
	struct sender_damage damage; /* the last one */
	bool done;
	struct lc_err err;
};

static void
look(struct forwarding *f)
{
	struct uplink_stats st;

	if (f->uplink == NULL)
		return;
	uplink_stats(f->uplink, &st);
	if (st.up)
		f->stats = st.sender;
}

static void
on_redraw(uv_timer_t *t)
{
	struct forwarding *f = t->data;

	look(f);
	progress_update(f->bar, &(struct progress_state){.done = f->stats.chunk_bytes,
	                                                 .moved = f->stats.chunk_bytes,
	                                                 .note = "sending"});
}

static void
on_stopped(void *arg)
{
	struct forwarding *f = arg;

	throttle_close(f->throttle);
	uv_close((uv_handle_t *)&f->redraw, NULL);
}

static void
stop(struct forwarding *f)
{
	struct uplink *u = f->uplink;

	look(f);
	f->uplink = NULL;
	if (u != NULL)
		uplink_stop(u, on_stopped, f);
}

static void
on_down(void *arg, const struct lc_err *why, bool again)
{
	struct forwarding *f = arg;

	(void)again;
	f->err = *why;
	stop(f);
}

static void
on_committed(void *arg, const struct transfer_point *p, int64_t wall_ns)
{
	(void)p;
	(void)wall_ns;
	((struct forwarding *)arg)->points++;
}

static void
on_failed(void *arg, const uint8_t vm[16], const struct lc_err *why)
{
	struct forwarding *f = arg;
	char name[POINT_NAME_MAX];

	f->failed++;
	parts_vm(f->store, vm, name);
	log_error("VM %s: %s", name, why->msg);
}

static void
on_damaged(void *arg, const struct sender_damage *d)
{
	((struct forwarding *)arg)->damage = *d;
}

static void
on_idle(void *arg)
{
	struct forwarding *f = arg;

	f->done = true;
	stop(f);
}

static int
run(struct forwarding *f, const struct uplink_opts *o, uint64_t rate, struct lc_err *e)
{
	struct uplink_opts uo = *o;
	int rc;

	(void)uv_loop_init(&f->loop);
	(void)uv_timer_init(&f->loop, &f->redraw);
	f->redraw.data = f;
	(void)uv_timer_start(&f->redraw, on_redraw, REDRAW_MS, REDRAW_MS);
	rc = throttle_new(&f->loop, rate, &f->throttle, e);
	uo.loop = &f->loop;
	uo.throttle = f->throttle;
	rc = rc != 0 ? rc : uplink_start(&uo, &f->uplink, e);
	if (rc != 0)
		on_stopped(f);
	(void)uv_run(&f->loop, UV_RUN_DEFAULT);
	(void)uv_loop_close(&f->loop);
	if (rc == 0 && !f->done) {
		rc = f->err.code;
		*e = f->err;
	}
	return rc;
}

int
forward(const struct settings *settings, struct store *store, unsigned writer, const char *replica,
        const uint8_t (*only)[16], size_t nonly, bool show, struct sender_stats *out,
        struct sender_damage *damage, struct lc_err *e)
{
	struct forwarding f = {.store = store, .err = LC_ERR_INIT};
	struct workers *workers = NULL;
	struct identity id = {0};
	char host[256] = "host";
	struct peer peer;
	struct uplink_opts o = {.store = store,
	                        .brief = true,
	                        .peer = &peer,
	                        .identity = &id,
	                        .host = host,
	                        .once = true,
	                        .mend_first = true,
	                        .mend_writer = (uint16_t)writer,
	                        .only = only,
	                        .nonly = nonly,
	                        .events = {.arg = &f,
	                                   .down = on_down,
	                                   .committed = on_committed,
	                                   .failed = on_failed,
	                                   .damaged = on_damaged,
	                                   .idle = on_idle}};
	int rc = peer_load(settings->key_dir, replica, &peer, e);

	(void)gethostname(host, sizeof host - 1);
	rc = rc != 0 ? rc
	             : identity_of_store(settings->key_dir, transfer_domain(store), writer, false,
	                                 &id, e);
	rc = rc != 0 ? rc : workers_new(1, &workers, e);
	o.workers = workers;
	if (rc == 0) {
		f.bar = progress_new("copy", show);
		rc = run(&f, &o, settings->bandwidth, e);
		progress_free(f.bar);
	}
	workers_free(workers);
	identity_forget(&id);
	*out = f.stats;
	*damage = f.damage;
	out->points = f.points;
	out->failed = f.failed;
	return rc;
}
