/**
 * server: the replica: lets paired hosts in and takes their points, any number of them at once.
 *
 * It holds no key of a store: what it writes it cannot read, and it logs VMs by their opaque ids.
 *
 * Thread: loop.
 */
#ifndef LOCUM_SERVER_H
#define LOCUM_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "replicator/identity.h"
#include "replicator/session.h"
#include "store/base/errors.h"

struct uv_loop_s;
struct workers;
#define REPLICA_KEY_FILE "replica.key" /* in its folder */

struct server;
struct store;
struct stores;

struct server_opts {
	struct uv_loop_s *loop;
	struct workers *workers;
	const char *dir;              /* of the replica (writers.h) */
	const struct address *listen; /* host: a number, or "*" for every address */
	const struct identity *identity;
	struct session_limits limits;
	uint64_t host_max;  /* bytes that the store of one host may take; 0: any number */
	uint64_t host_rate; /* bytes a second that are read of one host; 0: no limit */
};

/** server_start(o, out, e): listen.  LC_EBUSY where the address is taken. */
int server_start(const struct server_opts *o, struct server **out, struct lc_err *e);
/** server_port(s): the one it listens on. */
unsigned server_port(const struct server *s);
/** server_stores(s): those that are open. */
struct stores *server_stores(struct server *s);
/** server_guests(s): connections that there are, strangers too. */
unsigned server_guests(const struct server *s);
/** server_status(s, f): its hosts, and how they do, as JSON. */
void server_status(struct server *s, FILE *f);

/** server_look(s, dir, store): how large the store in that folder is, and what is damaged in it,
 * for the status of its hosts.  Thread: any. */
void server_look(struct server *s, const char *dir, struct store *store);

/**
 * server_survey(s):
 * What is there of each host, also of those that do not come: how much its store takes, and what is
 * damaged in it.  Each store is opened for that, in its turn, on a thread of libuv's; hosts that
 * come meanwhile share it.  Once.
 */
void server_survey(struct server *s);

#define SERVER_UNKNOWN UINT64_MAX /* it was not looked at yet, or can't be */
struct server_host {              /* one that is paired, or was here since it began */
	const char *name;
	const uint8_t *key; /* [CHANNEL_KEY_SIZE] */
	bool connected;
	bool revoked;          /* let in no more */
	bool by_command, late; /* it comes by (visits.h); and is to have come again by now */
	int64_t since_ns;      /* wall clock: connected, or not, since then */
	uint64_t received, points, refused; /* bytes; points */
	/* Or SERVER_UNKNOWN: bytes of its store, and that it may have, 0: any number; contents of
	 * it that are damaged here, and maps. */
	uint64_t kept, room, damaged;
	size_t vms;
	int64_t last_ns; /* wall clock: its newest point, of any VM; 0: it has none */
};
/** server_hosts(s, visit, arg): visit() each of them, and what it points to is good in there. */
void server_hosts(struct server *s, void (*visit)(void *arg, const struct server_host *h),
                  void *arg);
/** server_metrics(s, f): likewise, as metrics (metrics.h); s may be NULL. */
void server_metrics(struct server *s, FILE *f);
/** server_stop(s, stopped, arg): end all sessions in order; stopped() comes when all is gone. */
void server_stop(struct server *s, void (*stopped)(void *arg), void *arg);

#endif
