/**
 * sites: the replicas that this host sends its store's points to, and how far each of them is.
 *
 * Thread: loop.
 */
#ifndef LOCUM_SITES_H
#define LOCUM_SITES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "replicator/uplink.h"
#include "store/base/errors.h"
#include "store/store.h"

struct settings;
struct sites;
struct uv_loop_s;

struct sites_events {
	void *arg;
	/** durable(arg, site, p): a point is durable at a replica; p has no names.  May be NULL. */
	void (*durable)(void *arg, size_t site, const struct point *p);
	/**
	 * heads(arg, site, list, n): a replica was asked what it has: these are the newest points
	 * of its lines, and it has no others.  May be NULL.
	 */
	void (*heads)(void *arg, size_t site, const struct witness_point *list, size_t n);
	/** refused(arg, site, vm, why): a point could not be given to a replica; LC_OK: what was in
	 * its way is not any more, it goes now.  May be NULL. */
	void (*refused)(void *arg, size_t site, const uint8_t vm[16], const struct lc_err *why);
	/** changed(arg): a connection came or went, or a replica has all there is.
	 * May be NULL. */
	void (*changed)(void *arg);
};

struct sites_opts {
	struct uv_loop_s *loop;
	const struct settings *settings;
	struct store *store;
	struct throttle *throttle; /* of what goes out; NULL: none */
	const char *const *names;  /* of replicas; n = 0: every one that this host is paired with */
	size_t n;
	bool once;                 /* do not connect again */
	bool mend_first;           /* not idle before it has looked for damage there once */
	bool brief;                /* of a command: say only what is wrong */
	const uint8_t (*only)[16]; /* ids of VMs to send; nonly = 0: all */
	size_t nonly;
	struct sites_events events;
};

/** sites_start(o, out, e): connect.  LC_ENOENT: this host is not paired with one of that name.
 * Where all are meant, one whose file can't be read is one that is away. */
int sites_start(const struct sites_opts *o, struct sites **out, struct lc_err *e);
size_t sites_count(const struct sites *s);
/** sites_current(s, key_dir): whether they are those that this host is paired with now. */
bool sites_current(const struct sites *s, const char *key_dir);
/** sites_recall(s): heads() comes for each replica of which it is known from before what it has
 * acknowledged: that is what it has, until it is asked. */
void sites_recall(struct sites *s);
/** sites_wake(s, line): there are new points of that line in the store; NULL: of any. */
void sites_wake(struct sites *s, const uint8_t *line);
/** sites_also(s, vm, e): that VM (its id), too, is one to send, where only some are. */
int sites_also(struct sites *s, const uint8_t vm[16], struct lc_err *e);
/** sites_look(s): points are being made: what there is of large ones goes ahead.  To be called now
 * and then. */
void sites_look(struct sites *s);

struct site_status {
	const char *name;
	char address[ADDRESS_MAX];
	bool up;
	bool unknown;      /* where it is: its file here can't be read */
	int64_t since_ns;  /* wall clock: up or down since then */
	struct lc_err err; /* why it is down, or what it refused last; LC_OK: nothing is wrong */
	uint64_t points;   /* sent since this process began */
	uint64_t refusals; /* likewise: how often it did not take one */
	uint64_t sent;     /* bytes, likewise */
	uint64_t rate;     /* of these, a second, by the last ten; as far as this is called */
	bool idle;         /* it has all there is, or did not take it */
	bool has_all;      /* it has all there is */
	uint64_t room_used, room_max; /* bytes of this host's quota there; max 0: not known */
	int64_t ahead_ns;             /* its clock before ours; 0: it has not said */
	int64_t lost_ns;    /* wall clock: it had lost points that it had acknowledged; 0: never */
	bool older;         /* that is so, and not all was sent again yet */
	bool was_whole;     /* it has had all there is, since this began */
	bool damage_known;  /* it has said what is damaged */
	uint64_t damaged;   /* contents of this host that are damaged there, and maps */
	const char *damage; /* what is done about it, and what to do; NULL: nothing is damaged */
	int64_t damaged_ns; /* wall clock: something was, last; 0: never */
};
void sites_status(const struct sites *s, size_t i, struct site_status *out);
/** sites_stop(s, stopped, arg): hang up; stopped() (may be NULL) comes when all is gone. */
void sites_stop(struct sites *s, void (*stopped)(void *arg), void *arg);

#endif
