/**
 * uplink: the source's connection to one replica: finds it, keeps it, sends what the store has.
 *
 * It connects again by itself, waiting longer each time, and begins where the replica says it is.
 *
 * Thread: loop; callbacks come from there.
 */
#ifndef LOCUM_UPLINK_H
#define LOCUM_UPLINK_H

#include <stdbool.h>
#include <stdint.h>

#include "replicator/identity.h"
#include "replicator/sender.h"
#include "replicator/session.h"
#include "replicator/witness.h"
#include "store/base/errors.h"

struct uv_loop_s;
struct workers;
struct uplink;

struct uplink_events {
	void *arg;
	/** up(arg): connected and welcome.  May be NULL. */
	void (*up)(void *arg);
	/** down(arg, why, again): the connection ended or could not be made; `again`: it will be
	 * tried again.  May be NULL. */
	void (*down)(void *arg, const struct lc_err *why, bool again);
	/**
	 * has(arg, list, n, all): the replica has these points; `all`: it was asked, and they are
	 * the newest ones of all its lines.  Only where this store's key is here.  May be NULL.
	 */
	void (*has)(void *arg, const struct witness_point *list, size_t n, bool all);
	/** committed(arg, p, wall_ns): as sender_events.  May be NULL. */
	void (*committed)(void *arg, const struct transfer_point *p, int64_t wall_ns);
	/** failed(arg, vm, why): as sender_events.  May be NULL. */
	void (*failed)(void *arg, const uint8_t vm[16], const struct lc_err *why);
	/** roomier(arg): it may keep more there than before: what was refused for want of room goes
	 * now.  May be NULL. */
	void (*roomier)(void *arg);
	/** damaged(arg, d): as sender_events.  May be NULL. */
	void (*damaged)(void *arg, const struct sender_damage *d);
	/** idle(arg): all that is here is there, or failed.  May be NULL. */
	void (*idle)(void *arg);
};

struct uplink_opts {
	struct uv_loop_s *loop;
	struct workers *workers;
	struct store *store;
	const struct peer *peer;
	const struct identity *identity;
	const char *host;             /* what this host calls itself */
	const uint8_t *secret;        /* of a token: pair; else NULL */
	bool once;                    /* do not connect again */
	bool brief;                   /* a command's: the replica does not expect it to stay */
	bool mend_first;              /* not idle before it has looked for damage there once */
	uint16_t mend_writer;         /* whose contents of the store it may be ... */
	struct thin_source mend_from; /* ... and where those come from that are not here any more */
	unsigned retry_ms;            /* first pause before it connects again; 0: the usual */
	const uint8_t (*only)[16];    /* ids of VMs to send; with nonly 0: all */
	size_t nonly;
	int64_t mend_every_ms; /* how often it is asked what is damaged there; 0: the usual */
	struct session_limits limits;
	struct throttle *throttle; /* of what goes out; NULL: none.  Borrowed until stopped(). */
	struct uplink_events events;
};

/** uplink_start(o, out, e): o is copied; what it points to is borrowed, but peer, identity, host,
 * secret and only are copied too. */
int uplink_start(const struct uplink_opts *o, struct uplink **out, struct lc_err *e);
/** uplink_wake(u, line): there are new points of that line in the store; NULL: of any. */
void uplink_wake(struct uplink *u, const uint8_t *line);
/** uplink_also(u, vm, e): that VM (its id), too, is one to send. */
int uplink_also(struct uplink *u, const uint8_t vm[16], struct lc_err *e);
/** uplink_look(u): points are being made: what there is of large ones is sent ahead; and it may be
 * time to look for damage there.  To be called now and then; costs next to nothing. */
void uplink_look(struct uplink *u);
/** uplink_idle(u): as the event; false while there is no connection. */
bool uplink_idle(const struct uplink *u);
struct uplink_stats {
	bool up;
	struct sender_stats sender;   /* of the connection that there is */
	uint64_t received, sent;      /* bytes, of all connections */
	uint64_t room_used, room_max; /* bytes of this host's quota there; max 0: none is known */
	int64_t ahead_ns; /* the replica's clock before ours, when it said it last; 0: never */
};
void uplink_stats(const struct uplink *u, struct uplink_stats *out);
/** uplink_stop(u, stopped, arg): hang up; stopped() (may be NULL) comes when all is gone, but for a
 * look-up of the replica's name that hangs: that needs the loop alone, and keeps it alive. */
void uplink_stop(struct uplink *u, void (*stopped)(void *arg), void *arg);

#endif
