#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/hypervisor/settings.h"
#include "agent/sites.h"
#include "replicator/meter.h"
#include "replicator/remote.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/base/workers.h"

struct site {
	struct sites *sites;
	size_t no;
	struct peer peer;
	struct uplink *uplink; /* NULL: it is not known where that is: err says why */
	bool up;
	bool skewed; /* its clock is another one than ours, and that was said */
	bool older;  /* it has lost what it had acknowledged, and not got all of it again */
	bool whole;  /* it has had all there is */
	bool told;   /* what is damaged there */
	struct witness *witness;
	int64_t saved_ns; /* when the witness was */
	int64_t since_ns;
	struct lc_err err;
	uint64_t points, refusals;
	struct meter sent;
	struct sender_damage damage; /* there, of what this host sent */
	char damage_text[1200];
	int64_t damaged_ns;
	struct lc_buf crowded; /* [16] each: VMs of which it refused points as it has no room */
};

struct sites {
	struct sites_events ev;
	struct workers *workers;
	struct remote *remote; /* all that this host is paired with; NULL: one at most */
	struct site *sites;    /* [n] */
	size_t n, alive;
	bool brief;
	void (*stopped)(void *arg);
	void *arg;
};

static void
tell(struct sites *s)
{
	if (s->ev.changed != NULL)
		s->ev.changed(s->ev.arg);
}

/* Points are ordered and expire by its clock, and their instants are by ours. */
static void
look_at_clock(struct site *x)
{
	struct uplink_stats st;
	bool skewed;
	char text[32];

	uplink_stats(x->uplink, &st);
	skewed = st.ahead_ns > SESSION_SKEW_NS || st.ahead_ns < -SESSION_SKEW_NS;
	if (skewed && !x->skewed) {
		log_warn("replica %s: its clock is %s %s this host's: one of the two is wrong",
		         x->peer.name,
		         clock_format_duration(text, sizeof text,
		                               st.ahead_ns > 0 ? st.ahead_ns : -st.ahead_ns),
		         st.ahead_ns > 0 ? "ahead of" : "behind");
	} else if (!skewed && x->skewed) {
		log_info("replica %s: its clock and this host's agree again", x->peer.name);
	}
	x->skewed = skewed;
}

static void
on_up(void *arg)
{
	struct site *x = arg;

	if (!x->sites->brief) /* of cron's business only what is wrong */
		log_info("replica %s: connected", x->peer.name);
	x->up = true;
	x->since_ns = clock_wall_ns();
	lc_err_clear(&x->err);
	look_at_clock(x);
	tell(x->sites);
}

static void
on_down(void *arg, const struct lc_err *why, bool again)
{
	struct site *x = arg;

	/* The first failure of a row is news, the others are not. */
	if (x->up || x->err.code == LC_OK)
		log_warn("%s%s", why->msg, again ? "; connecting again" : "");
	if (x->up || x->since_ns == 0)
		x->since_ns = clock_wall_ns();
	x->up = false;
	x->err = *why;
	tell(x->sites);
}

static void
on_committed(void *arg, const struct transfer_point *p, int64_t wall_ns)
{
	struct site *x = arg;
	struct lc_span sealed;
	struct point *point = lc_alloc(sizeof *point);

	(void)wall_ns;
	x->points++;
	look_at_clock(x);
	if (point != NULL && point_decode(p->entry, point, &sealed, NULL) == 0 &&
	    x->sites->ev.durable != NULL) {
		memcpy(point->vm_id, p->vm, sizeof point->vm_id);
		x->sites->ev.durable(x->sites->ev.arg, x->no, point);
	}
	lc_free(point);
}

static void
save_witness(struct site *x)
{
	struct lc_err e = LC_ERR_INIT;

	x->saved_ns = clock_mono_ns();
	if (witness_save(x->witness, &e) != 0)
		log_warn("%s", e.msg);
}

static void
on_lost(void *arg, const struct witness_point *was, const struct witness_point *is)
{
	const struct site *x = arg;
	char then[40], now[40] = "nothing of it";

	if (is != NULL)
		(void)snprintf(now, sizeof now, "%s",
		               clock_format_utc(then, sizeof then, is->source_ns));
	log_error(
	    "replica %s: %s: it had acknowledged the point of %s, and its newest now is %s: "
	    "an older copy of its folder, or points were dropped there; what it lacks is sent "
	    "again",
	    x->peer.name, was->name, clock_format_utc(then, sizeof then, was->source_ns), now);
}

static void
on_has(void *arg, const struct witness_point *list, size_t n, bool all)
{
	struct site *x = arg;
	unsigned lost;

	if (!all) {
		witness_note(x->witness, list);
		if (clock_mono_ns() - x->saved_ns > LC_NS_PER_S)
			save_witness(x);
		return;
	}
	lost = witness_compare(x->witness, list, n, on_lost, x);
	save_witness(x);
	if (lost > 0) {
		x->older = true;
		(void)lc_fail(
		    &x->err, LC_ECONFLICT, 0,
		    "it lacks points of %u VM%s that it had acknowledged: an older copy of "
		    "its folder, or points were dropped there; they are sent again",
		    lost, lost == 1 ? "" : "s");
	}
	if (x->sites->ev.heads != NULL)
		x->sites->ev.heads(x->sites->ev.arg, x->no, list, n);
	tell(x->sites);
}

static void
note_crowded(struct site *x, const uint8_t vm[16])
{
	size_t i;

	for (i = 0; i < x->crowded.n; i += 16) {
		if (memcmp(x->crowded.p + i, vm, 16) == 0)
			return;
	}
	(void)lc_buf_append(&x->crowded, vm, 16);
}

static void
on_failed(void *arg, const uint8_t vm[16], const struct lc_err *why)
{
	struct site *x = arg;

	x->err = *why;
	x->refusals++;
	log_error("replica %s: %s", x->peer.name, why->msg);
	if (why->code == LC_ENOSPC)
		note_crowded(x, vm);
	if (x->sites->ev.refused != NULL)
		x->sites->ev.refused(x->sites->ev.arg, x->no, vm, why);
	tell(x->sites);
}

/* What was refused because there was no room is not refused any more: it goes now. */
static void
on_roomier(void *arg)
{
	const struct lc_err none = LC_ERR_INIT;
	struct site *x = arg;
	size_t i;

	for (i = 0; i < x->crowded.n && x->sites->ev.refused != NULL; i += 16)
		x->sites->ev.refused(x->sites->ev.arg, x->no, x->crowded.p + i, &none);
	x->crowded.n = 0;
	if (x->err.code == LC_ENOSPC && x->up)
		lc_err_clear(&x->err);
	tell(x->sites);
}

static uint64_t
damaged(const struct sender_damage *d)
{
	return d->contents + d->lines;
}

static void
describe_damage(struct site *x)
{
	const struct sender_damage *d = &x->damage;
	char *to = x->damage_text;
	size_t size = sizeof x->damage_text, n;

	(void)snprintf(to, size, "%s", "damaged there, of what this host sent:");
	n = strlen(to);
	if (d->contents > 0)
		(void)snprintf(to + n, size - n, " %" PRIu64 " content%s, %s", d->contents,
		               d->contents == 1 ? "" : "s",
		               d->over ? "to be sent again" : "being sent again");
	n = strlen(to);
	if (d->lines > 0)
		(void)snprintf(to + n, size - n,
		               "%s maps of %zu VM%s: their next restore points are made from all "
		               "of their disks",
		               d->contents > 0 ? ";" : "", d->lines, d->lines == 1 ? "" : "s");
	n = strlen(to);
	if (d->text[0] != '\0')
		(void)snprintf(to + n, size - n, "; %s", d->text);
}

static void
on_damaged(void *arg, const struct sender_damage *d)
{
	struct site *x = arg;
	bool news = damaged(d) > 0 &&
	            (damaged(&x->damage) == 0 || strcmp(d->text, x->damage.text) != 0);
	uint64_t before = damaged(&x->damage);

	x->damage = *d;
	x->told = true;
	describe_damage(x);
	if (damaged(d) > 0)
		x->damaged_ns = clock_wall_ns();
	if (news)
		log_warn("replica %s: %s", x->peer.name, x->damage_text);
	else if (damaged(d) == 0 && before > 0)
		log_info("replica %s: what was damaged there is whole again (%" PRIu64
		         " contents were sent)",
		         x->peer.name, d->sent);
	if (damaged(d) > 0 || before > 0)
		tell(x->sites);
}

static void
on_idle(void *arg)
{
	struct site *x = arg;
	struct uplink_stats st;

	uplink_stats(x->uplink, &st);
	if (st.sender.failed == 0) { /* what was refused has gone over since */
		lc_err_clear(&x->err);
		x->older = false;
		x->whole = true;
	}
	save_witness(x);
	tell(x->sites);
}

static void
free_sites(struct sites *s)
{
	size_t i;

	for (i = 0; s->sites != NULL && i < s->n; i++) {
		if (s->sites[i].witness != NULL)
			save_witness(&s->sites[i]);
		witness_free(s->sites[i].witness);
		lc_buf_free(&s->sites[i].crowded);
	}
	workers_free(s->workers); /* then nobody reads from them any more */
	remote_free(s->remote);
	lc_free(s->sites);
	lc_free(s);
}

/* What is damaged at one of them another one may have, where it was dropped here. */
static void
find_others(const struct sites_opts *o, struct sites *s)
{
	if (remote_new(o->store, o->settings->key_dir, &s->remote, NULL) == 0 &&
	    remote_count(s->remote) > 1) {
		remote_hurry(s->remote); /* points wait meanwhile */
		return;
	}
	remote_free(s->remote);
	s->remote = NULL;
}

/* What it is to have waits here; the others go on. */
static void
note_unknown(struct site *x)
{
	x->since_ns = clock_wall_ns();
	log_error("replica %s: nothing goes there: %s", x->peer.name, x->err.msg);
}

static int
load_peers(const struct sites_opts *o, struct sites *s, struct lc_err *e)
{
	const char *dir = o->settings->key_dir;
	struct peer_file *list = NULL;
	size_t i;
	int rc = 0;

	s->n = o->n;
	if (o->n == 0)
		rc = peer_files(dir, &list, &s->n, e);
	if (rc != 0 || s->n == 0)
		return rc;
	s->sites = lc_alloc_array(s->n, sizeof *s->sites);
	if (s->sites == NULL) {
		lc_free(list);
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	for (i = 0; rc == 0 && i < s->n; i++) {
		struct site *x = &s->sites[i];

		x->sites = s;
		x->no = i;
		if (list != NULL) {
			x->peer = list[i].peer;
			x->err = list[i].err;
		} else {
			rc = peer_load(dir, o->names[i], &x->peer, e);
		}
		if (x->err.code != LC_OK)
			note_unknown(x);
		else
			rc = rc != 0 ? rc : witness_open(dir, &x->peer, &x->witness, e);
	}
	lc_free(list);
	return rc;
}

/* Else there is nobody to whom this host has to show who it is. */
static bool
any_known(const struct sites *s)
{
	size_t i;

	for (i = 0; i < s->n && s->sites[i].err.code != LC_OK; i++)
		;
	return i < s->n;
}

static int
start_all(const struct sites_opts *o, struct sites *s, const struct identity *id, struct lc_err *e)
{
	char host[256] = "host";
	size_t i;
	int rc = 0;

	(void)gethostname(host, sizeof host - 1);
	for (i = 0; rc == 0 && i < s->n; i++) {
		struct site *x = &s->sites[i];
		struct uplink_opts uo = {
		    .loop = o->loop,
		    .workers = s->workers,
		    .store = o->store,
		    .peer = &x->peer,
		    .identity = id,
		    .host = host,
		    .once = o->once,
		    .brief = o->brief,
		    .mend_first = o->mend_first,
		    .mend_from = {s->remote == NULL ? NULL : remote_fetch, s->remote},
		    .throttle = o->throttle,
		    .only = o->only,
		    .nonly = o->nonly,
		    .events = {.arg = x,
		               .up = on_up,
		               .down = on_down,
		               .has = on_has,
		               .committed = on_committed,
		               .failed = on_failed,
		               .roomier = on_roomier,
		               .damaged = on_damaged,
		               .idle = on_idle}};

		if (x->err.code != LC_OK)
			continue;
		rc = uplink_start(&uo, &x->uplink, e);
		if (rc == 0)
			s->alive++;
	}
	return rc;
}

int
sites_start(const struct sites_opts *o, struct sites **out, struct lc_err *e)
{
	struct sites *s = lc_alloc(sizeof *s);
	struct identity id = {0};
	char *path = path_join(o->settings->key_dir, "host.key");
	int rc = 0;

	if (s == NULL || path == NULL) {
		lc_free(s);
		lc_free(path);
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	s->ev = o->events;
	s->brief = o->brief;
	rc = load_peers(o, s, e);
	if (rc == 0 && any_known(s))
		rc = identity_load(path, false, &id, e);
	if (rc == 0 && s->n > 0)
		find_others(o, s);
	/* A connection works one thing at a time. */
	rc = rc != 0 ? rc : workers_new(s->n == 0 ? 1 : (unsigned)s->n, &s->workers, e);
	rc = rc != 0 ? rc : start_all(o, s, &id, e);
	identity_forget(&id);
	lc_free(path);
	if (rc == 0)
		*out = s;
	else if (s->alive > 0)
		sites_stop(s, NULL, NULL);
	else
		free_sites(s);
	return rc;
}

size_t
sites_count(const struct sites *s)
{
	return s->n;
}

bool
sites_current(const struct sites *s, const char *key_dir)
{
	struct peer_file *list = NULL;
	size_t i, n = 0;
	bool same = peer_files(key_dir, &list, &n, NULL) == 0 && n == s->n;

	for (i = 0; same && i < n; i++) {
		const struct peer *p = &s->sites[i].peer, *now = &list[i].peer;

		same = strcmp(p->name, now->name) == 0 && strcmp(p->at.host, now->at.host) == 0 &&
		       strcmp(p->at.port, now->at.port) == 0 &&
		       memcmp(p->key, now->key, sizeof p->key) == 0;
	}
	lc_free(list);
	return same;
}

void
sites_recall(struct sites *s)
{
	size_t i, n;

	for (i = 0; i < s->n && s->ev.heads != NULL; i++) {
		const struct witness_point *list;

		if (s->sites[i].witness == NULL)
			continue;
		list = witness_points(s->sites[i].witness, &n);
		if (n > 0)
			s->ev.heads(s->ev.arg, i, list, n);
	}
}

void
sites_wake(struct sites *s, const uint8_t *line)
{
	size_t i;

	for (i = 0; i < s->n; i++) {
		if (s->sites[i].uplink != NULL)
			uplink_wake(s->sites[i].uplink, line);
	}
}

int
sites_also(struct sites *s, const uint8_t vm[16], struct lc_err *e)
{
	size_t i;
	int rc = 0;

	for (i = 0; rc == 0 && i < s->n; i++)
		rc = s->sites[i].uplink == NULL ? 0 : uplink_also(s->sites[i].uplink, vm, e);
	return rc;
}

void
sites_look(struct sites *s)
{
	size_t i;

	for (i = 0; i < s->n; i++) {
		if (s->sites[i].uplink != NULL)
			uplink_look(s->sites[i].uplink);
	}
}

void
sites_status(const struct sites *s, size_t i, struct site_status *out)
{
	struct site *x = &s->sites[i];
	int64_t now = clock_mono_ns();
	struct uplink_stats st;

	if (x->uplink == NULL) {
		*out = (struct site_status){.name = x->peer.name,
		                            .address = "-",
		                            .since_ns = x->since_ns,
		                            .err = x->err,
		                            .unknown = true};
		return;
	}
	uplink_stats(x->uplink, &st);
	meter_note(&x->sent, now, st.sent);
	*out = (struct site_status){.name = x->peer.name,
	                            .up = x->up,
	                            .since_ns = x->since_ns,
	                            .err = x->err,
	                            .points = x->points,
	                            .refusals = x->refusals,
	                            .sent = st.sent,
	                            .rate = meter_rate(&x->sent, now),
	                            .ahead_ns = st.ahead_ns,
	                            .lost_ns = witness_lost_ns(x->witness),
	                            .older = x->older,
	                            .was_whole = x->whole,
	                            .damage_known = x->told,
	                            .damaged = damaged(&x->damage),
	                            .damage = damaged(&x->damage) > 0 ? x->damage_text : NULL,
	                            .damaged_ns = x->damaged_ns,
	                            .room_used = st.room_used,
	                            .room_max = st.room_max,
	                            .idle = uplink_idle(x->uplink)};
	out->has_all = out->idle && out->err.code == LC_OK;
	(void)address_text(out->address, &x->peer.at);
}

static void
on_stopped(void *arg)
{
	struct sites *s = arg;

	if (--s->alive > 0)
		return;
	if (s->stopped != NULL)
		s->stopped(s->arg);
	free_sites(s);
}

void
sites_stop(struct sites *s, void (*stopped)(void *arg), void *arg)
{
	size_t i;

	s->stopped = stopped;
	s->arg = arg;
	if (s->alive == 0) {
		if (stopped != NULL)
			stopped(arg);
		free_sites(s);
		return;
	}
	for (i = 0; i < s->n; i++) {
		if (s->sites[i].uplink != NULL)
			uplink_stop(s->sites[i].uplink, on_stopped, s);
	}
}
