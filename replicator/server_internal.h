/**
 * server_internal: what the files of server.h share.  Not for others.
 *
 * What is decided on a worker (HELLO, the receiver) uses only the guest's own part, and files; the
 * list of guests is the loop's.  What both of them look at, hosts and what became of them, has a
 * lock.
 */
#ifndef LOCUM_SERVER_INTERNAL_H
#define LOCUM_SERVER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uv.h>

#include "replicator/limits.h"
#include "replicator/meter.h"
#include "replicator/server.h"
#include "replicator/session.h"
#include "replicator/visits.h"
#include "replicator/writers.h"
#include "store/base/errors.h"
#include "store/base/memory.h"

struct lender;
struct receiver;
struct shared;
struct store;
struct stores;
struct throttle;

/* What others cause as often as they like fills no log. */
struct hush {
	int64_t since_ns;
	unsigned said, kept; /* since then */
};
/** hush_tells(h, who): whether the log is to be told of one more; where it begins and has ceased to
 * tell it says that itself.  Not from two threads at once: a host's are under the lock. */
bool hush_tells(struct hush *h, const char *who);

struct host_vm {
	uint8_t id[16];
	int64_t last_ns; /* wall clock here: the instant of its newest point */
	uint64_t points; /* that came */
};

struct host { /* what became of a paired host since this process began */
	TAILQ_ENTRY(host) entry;
	uint8_t key[CHANNEL_KEY_SIZE];
	char name[64];
	unsigned connected, readers;
	bool entering;    /* a connection of it opens the store to write, or waits for that */
	int64_t since_ns; /* wall clock: connected, or not, since then */
	char at[64];
	uint64_t received;             /* bytes, of connections that ended */
	struct meter rate;             /* of all that it sends */
	uint64_t points, refused;      /* points */
	struct hush refusals, comings; /* and goings */
	bool kept_known, damage_known;
	uint64_t kept;                 /* bytes of its store */
	uint64_t damaged;              /* contents of it that are damaged here ... */
	size_t damaged_lines;          /* ... and lines of which the maps are */
	bool limits_known, limits_bad; /* they were read once; and can't be now */
	struct limits limits;          /* as they were read last */
	uint64_t room;                 /* bytes that its store may have then, 0: any number */
	struct visits visits;
	bool revoked;       /* let in no more: it is not missed */
	bool file_bad;      /* its file (writers.h) can't be read: it is not let in until it can */
	struct lc_err err;  /* what was refused last and not taken since, or why the connection
	                     * ended */
	uint8_t err_vm[16]; /* of that; zeros: of none */
	struct lc_buf vms;  /* of struct host_vm, by their ids */
};

struct guest {
	TAILQ_ENTRY(guest) entry;
	struct server *server;
	struct session *session;
	const char *dir; /* of the replica */
	uint8_t key[CHANNEL_KEY_SIZE];
	atomic_bool greeted;         /* HELLO came */
	atomic_bool reading;         /* and said that it only reads */
	bool pairing, brief;         /* or that it pairs, or is a command's */
	struct lc_err unwelcome;     /* told in answer to HELLO; set before it can come */
	_Atomic(struct host *) host; /* NULL: not welcome yet */

	/* The loop's. */
	struct throttle *throttle; /* of what is read of it */
	_Atomic uint64_t max;      /* bytes that its store may take; 0: any number */
	bool open, known;          /* it has proved its key; which is that of a paired host */
	char name[64];             /* "" unless known, or it was: the worker reads it, too */
	int64_t since_ns, looked_ns;
	bool sent_away;
	bool dropped; /* its last words are not waited for any more */

	/* The worker's. */
	struct writer_entry who;
	struct shared *shared;
	struct store *store; /* that one's */
	struct receiver *receiver;
	struct lender *lender;        /* instead, where it reads */
	uint64_t points;              /* that came */
	int64_t ahead_ns;             /* its clock before ours, when it came */
	struct lc_err broken;         /* the store can't go on */
	int64_t room_ns;              /* when that was looked at ... */
	uint64_t max_seen;            /* ... with this much that it may take */
	uint64_t room_told, max_told; /* bytes used, and that it may, as the host was told last */
	bool room_is_told;
};

struct server {
	struct uv_loop_s *loop;
	struct workers *workers;
	char *dir;
	struct identity identity;
	struct session_limits limits;
	uint64_t host_max, host_rate;
	uv_tcp_t tcp;
	uv_timer_t timer;
	unsigned handles; /* and work */
	bool waiting;     /* a connection that could not even be turned away */
	int64_t warned_ns;
	int64_t looked_ns;    /* whether hosts that are away were revoked */
	unsigned turned_away; /* since the last warning */
	struct hush strangers;
	TAILQ_HEAD(, guest) guests;
	unsigned nguests;
	void (*stopped)(void *arg);
	void *arg;

	struct stores *stores;
	uv_work_t survey;
	atomic_bool stopping;
	pthread_mutex_t pairing; /* one host at a time uses a token */
	atomic_bool look;        /* one may have been revoked just now */
	atomic_bool spoilt;      /* a store failed: who is in it has to leave */
	pthread_mutex_t lock;    /* the hosts */
	TAILQ_HEAD(, host) hosts;
};

/** host_find(s, key): what became of that host; one is made.  NULL: no memory.  Under the lock. */
struct host *host_find(struct server *s, const uint8_t key[CHANNEL_KEY_SIZE]);
/** host_name(s, key, name): "" unless it was paired when this process began, or was here since. Not
 * under the lock. */
void host_name(struct server *s, const uint8_t key[CHANNEL_KEY_SIZE], char name[64]);
/** host_vm_find(h, id): one is made; NULL: there are too many, or no memory.  Under the lock. */
struct host_vm *host_vm_find(struct host *h, const uint8_t id[16]);

/** host_vm_forget(s, key, id): that host has no such VM any more.  Not under the lock. */
void host_vm_forget(struct server *s, const uint8_t key[CHANNEL_KEY_SIZE], const uint8_t id[16]);

/** host_damaged(s, h, contents, lines): so much of it is damaged here.  Not under the lock. */
void host_damaged(struct server *s, struct host *h, uint64_t contents, size_t lines);

/**
 * host_limits(s, h, e):
 * Read what it is allowed, into h.  What can't be read goes on as it was read last, with a word in
 * the log.  Under the lock.
 *
 * Returns  0; LC_EACCES, for its ears, where that was never read.
 */
int host_limits(struct server *s, struct host *h, struct lc_err *e);
/** host_bytes(dir, w, store, out): how much of its store is that host's; false: it can't be told.
 */
bool host_bytes(const char *dir, const struct writer_entry *w, struct store *store, uint64_t *out);
/** host_file(h, name, why): its file was looked at, and says that name; why: it can't be read, with
 * a word in the log.  Under the lock. */
void host_file(struct host *h, const char *name, const struct lc_err *why);
/** hosts_look(s): which hosts that are away were revoked, or have a file that can't be read, and
 * what they may have.  Thread: loop. */
void hosts_look(struct server *s);

/** server_release(s): one of its handles is gone, or its work is done.  Thread: loop. */
void server_release(struct server *s);

/* The calls of a session_role that come on a worker, and their last words. */
int guest_message(void *arg, uint16_t type, struct lc_span body, struct lc_err *e);
int guest_settle(void *arg, struct lc_err *e);
void guest_leave(void *arg);
/** guest_say_why(g, rc, why): tell the other side why it ends, unless rc is 0.  Returns rc. */
int guest_say_why(struct guest *g, int rc, const struct lc_err *why);

#endif
