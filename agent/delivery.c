/*
 *   MAKING ──finish──► SENDING ──────────────► STOPPING ─► (gone)
 *                         │ one is away           ▲
 *                         └──► RENEWING ─► LAST ──┘
 */
#include <string.h>
#include <uv.h>

#include "agent/delivery.h"
#include "agent/sites.h"
#include "store/base/cli.h"
#include "store/base/memory.h"
#include "store/transfer.h"

#define LOOK_MS 50

enum delivery_state {
	DELIVERY_MAKING = 0,
	DELIVERY_SENDING,
	DELIVERY_RENEWING, /* connections are ended, to be made anew */
	DELIVERY_LAST,     /* with those */
	DELIVERY_STOPPING,
};

struct delivery {
	struct delivery_opts o;
	struct delivery_result *result;
	enum delivery_state state;
	bool canceled;
	struct sites *sites; /* NULL: there are none, or they are being stopped */
	uv_timer_t timer;    /* looks for large points; then renews */
};

static void on_sites(void *arg);

static void
on_durable(void *arg, size_t site, const struct point *p)
{
	struct delivery *d = arg;

	(void)site;
	(void)p;
	d->result->points++;
}

/* The points of the VMs that were named, those of earlier runs too. */
static int
connect_sites(struct delivery *d, bool once, struct lc_err *e)
{
	/* The first one is nobody: where none is known yet, not all are to be sent. */
	uint8_t(*ids)[16] = lc_alloc_array(d->o.nvms + 1, sizeof *ids);
	struct sites_opts o = {.loop = d->o.loop,
	                       .settings = d->o.settings,
	                       .store = d->o.store,
	                       .throttle = d->o.throttle,
	                       .names = d->o.names,
	                       .n = d->o.n,
	                       .once = once,
	                       .brief = true,
	                       .mend_first = true,
	                       .events = {.arg = d, .durable = on_durable, .changed = on_sites}};
	size_t i, n = 1;
	int rc;

	if (ids == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	for (i = 0; i < d->o.nvms; i++) {
		struct point p = {.ndisks = 0};

		if (store_find(d->o.store, d->o.vms[i], &p, NULL) == 0)
			memcpy(ids[n++], p.vm_id, 16);
		point_done(&p);
	}
	o.only = (const uint8_t(*)[16])ids;
	o.nonly = n;
	rc = sites_start(&o, &d->sites, e);
	lc_free(ids);
	return rc;
}

static void
on_timer_closed(uv_handle_t *h)
{
	struct delivery *d = h->data;

	d->o.over(d->o.arg);
	lc_free(d);
}

static void
on_renew(uv_timer_t *t)
{
	struct delivery *d = t->data;
	struct lc_err e = LC_ERR_INIT;

	d->state = DELIVERY_LAST;
	if (!d->canceled && connect_sites(d, true, &e) == 0)
		return;
	if (e.code != LC_OK)
		(void)cli_error(&e);
	d->result->unsent = (unsigned)d->o.n;
	d->state = DELIVERY_STOPPING;
	uv_close((uv_handle_t *)t, on_timer_closed);
}

static void
on_stopped(void *arg)
{
	struct delivery *d = arg;

	if (d->state == DELIVERY_RENEWING)
		(void)uv_timer_start(&d->timer, on_renew, 0, 0); /* the old ones are gone by then */
	else
		uv_close((uv_handle_t *)&d->timer, on_timer_closed);
}

static void
stop_sites(struct delivery *d, enum delivery_state state)
{
	struct sites *s = d->sites;

	d->state = state;
	d->sites = NULL;
	sites_stop(s, on_stopped, d);
}

/* Has all there is, or is away.  Neither: it is being connected to, or sent to. */
static bool
is_settled(const struct site_status *st)
{
	return st->up ? st->idle : st->err.code != LC_OK;
}

static void
on_sites(void *arg)
{
	struct delivery *d = arg;
	struct site_status st;
	unsigned unsent = 0;
	size_t i;

	if (d->sites == NULL || d->state == DELIVERY_MAKING)
		return;
	for (i = 0; i < sites_count(d->sites); i++) {
		sites_status(d->sites, i, &st);
		if (!d->canceled && !is_settled(&st))
			return;
		unsent += !st.idle || st.err.code != LC_OK;
	}
	d->result->unsent = unsent;
	stop_sites(d, DELIVERY_STOPPING);
}

/* What there is of large points goes ahead, also of VMs that had none before. */
static void
on_look(uv_timer_t *t)
{
	struct transfer_making list[TRANSFER_MAKING_MAX];
	struct delivery *d = t->data;
	size_t i, n;

	if (d->sites == NULL || d->state != DELIVERY_MAKING)
		return;
	transfer_making(d->o.store, list, &n);
	for (i = 0; i < n; i++)
		(void)sites_also(d->sites, list[i].vm, NULL);
	if (n > 0)
		sites_look(d->sites);
}

int
delivery_start(const struct delivery_opts *o, struct delivery_result *result, struct delivery **out,
               struct lc_err *e)
{
	struct delivery *d = lc_alloc(sizeof *d);
	int rc;

	if (d == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	d->o = *o;
	d->result = result;
	*result = (struct delivery_result){0};
	rc = connect_sites(d, false, e);
	if (rc != 0) {
		lc_free(d);
		return rc;
	}
	(void)uv_timer_init(o->loop, &d->timer);
	d->timer.data = d;
	(void)uv_timer_start(&d->timer, on_look, LOOK_MS, LOOK_MS);
	*out = d;
	return 0;
}

void
delivery_made(struct delivery *d, const struct point *p)
{
	if (d->sites == NULL)
		return;
	if (sites_also(d->sites, p->vm_id, NULL) == 0)
		sites_wake(d->sites, p->line);
}

void
delivery_finish(struct delivery *d)
{
	struct site_status st;
	bool away = false;
	size_t i;

	for (i = 0; i < sites_count(d->sites); i++) {
		sites_status(d->sites, i, &st);
		away = away || (!st.up && st.err.code != LC_OK);
	}
	d->state = DELIVERY_SENDING;
	if (away)
		stop_sites(d, DELIVERY_RENEWING);
	else
		on_sites(d);
}

void
delivery_cancel(struct delivery *d)
{
	d->canceled = true;
	if (d->state == DELIVERY_MAKING)
		d->state = DELIVERY_SENDING;
	on_sites(d);
}
