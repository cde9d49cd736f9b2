/**
 * twosites: a replica and hosts in one process and one loop: real sockets, real stores.
 */
#ifndef LOCUM_TESTS_TWOSITES_H
#define LOCUM_TESTS_TWOSITES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "replicator/server.h"
#include "replicator/uplink.h"
#include "replicator/writers.h"
#include "tests/lib/vault.h"

struct drsite { /* the replica */
	uv_loop_t *loop;
	char *top, dir[300];
	struct identity id;
	struct workers *workers;
	struct server *server; /* NULL while it is stopped */
	unsigned port;         /* the same after the first start */
	struct session_limits limits;
	uint64_t host_max, host_rate;
};

struct hostsite { /* a host */
	uv_loop_t *loop;
	struct vault v;
	struct identity id;
	struct peer peer;
	struct workers *workers;
	struct uplink *uplink; /* NULL while it is stopped */
	struct session_limits limits;
	struct throttle *throttle;
	unsigned retry_ms;
	char name[32];
	unsigned ups, downs, committed, failed, roomier, idles;
	bool up;
	struct lc_err why;            /* of the last down or failed */
	struct witness_point has[16]; /* that the replica has: told when it was asked, or since */
	size_t nhas;
	unsigned asked;
};

/** drsite_make(d, loop): a folder and a key; drsite_start() listens. */
void drsite_make(struct drsite *d, uv_loop_t *loop);
void drsite_start(struct drsite *d);
/** drsite_stop(d): in order, until it is gone. */
void drsite_stop(struct drsite *d);
void drsite_free(struct drsite *d);

/** hostsite_make(h, loop, d, name): a store and a key, not paired; knows where d is. */
void hostsite_make(struct hostsite *h, uv_loop_t *loop, const struct drsite *d, const char *name);
/** hostsite_make_beside(h, first, d, name): likewise, with a store of the same key domain as that
 * of another host; hostsite_join(h, first, d): paired, to share that one's store.  Asserts. */
void hostsite_make_beside(struct hostsite *h, const struct hostsite *first, const struct drsite *d,
                          const char *name);
void hostsite_join(struct hostsite *h, const struct hostsite *first, const struct drsite *d);
/** hostsite_connect(h): and again, and again. */
void hostsite_connect(struct hostsite *h);
/** hostsite_begin(h, secret): connect once; secret: a token's, or NULL. */
void hostsite_begin(struct hostsite *h, const uint8_t *secret);
/** hostsite_disconnect(h): until it is gone. */
void hostsite_disconnect(struct hostsite *h);
/** hostsite_pair(h, d): with a new token; asserts. */
void hostsite_pair(struct hostsite *h, const struct drsite *d);
/** hostsite_try(h, secret): connect once, hang up; LC_OK: it was let in.  secret: a token's, or
 * NULL. */
enum lc_code hostsite_try(struct hostsite *h, const uint8_t *secret);
void hostsite_free(struct hostsite *h);
/** hostsite_backup(h, vm, d): a point here; the uplink is told. */
struct point hostsite_backup(struct hostsite *h, const char *vm, const struct vault_disk *d);
/** hostsite_dir_at(h, d): folder of its store at the replica, static. */
const char *hostsite_dir_at(const struct hostsite *h, const struct drsite *d);
/** hostsite_arrived(h, d, p, disk): assert that the replica's copy is that; its store is closed. */
void hostsite_arrived(const struct hostsite *h, const struct drsite *d, const struct point *p,
                      const struct vault_disk *disk);
/** hostsite_ends(h, d, p, disk): both go off, and the replica's copy is that. */
void hostsite_ends(struct hostsite *h, struct drsite *d, const struct point *p,
                   const struct vault_disk *disk);

/** run_until(loop, condition, arg, ms): run the loop; false: it did not come about in time. */
bool run_until(uv_loop_t *loop, bool (*condition)(void *arg), void *arg, int64_t ms);
/** run_for(loop, ms): run the loop for that long. */
void run_for(uv_loop_t *loop, int64_t ms);
/** hostsite_is_idle(h), hostsite_is_up(h), hostsite_is_down(h): conditions. */
bool hostsite_is_idle(void *h);
/** hostsite_has_one(h): condition: a point was committed at the replica. */
bool hostsite_has_one(void *h);
bool hostsite_is_up(void *h);
bool hostsite_is_down(void *h);

#endif
