/**
 * sender: the source's half of a session: everything that the other store lacks, line by line.
 *
 * Pure: messages in, messages out; whoever owns it carries them.  Happy path of a point:
 *
 *     BEGIN, OFFER, OFFER.. ──►  ◄── WANT..  CHUNK.., ROWS, .., COMMIT ──►  ◄── COMMITTED
 *
 * OFFERs run ahead of the WANTs, so a point costs two round trips however large it is, and several
 * lines are under way at once.  Chunks are sent as far as the byte window lets, and no more than
 * keeps the wire busy (it is measured by how fast they are taken): what is on the way is what a cut
 * can cost, and what a small point waits for.  After a cut a new sender begins anew, and what the
 * other side took is not asked for again.
 *
 * Calls block in the store; none may run at the same time as another.
 */
#ifndef LOCUM_SENDER_H
#define LOCUM_SENDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"
#include "store/thin.h"
#include "store/transfer.h"

struct sender;

struct sender_damage {         /* what of this store's is damaged at the other side */
	uint64_t contents;     /* as it said last */
	uint64_t sent, unable; /* of them, in this look: sent again; not to be had here */
	size_t lines;   /* of which the maps are: their next points are made from all disks */
	bool over;      /* the look is */
	char text[960]; /* what does not mend by itself, and what to do; "": nothing */
};

/* What was done about that, over several sessions; begins as zeros. */
struct sender_care {
	int64_t due_ns, pause_ns; /* monotonic: when to look again; what is waited then */
	int64_t day_ns;           /* since when these were sent: */
	uint64_t bytes, bytes_max;
	struct lc_buf lines; /* [16], that were restarted */
};
/** sender_care_done(c): at the end. */
void sender_care_done(struct sender_care *c);

struct sender_events {
	void *arg;
	/** emit(arg, type, spans, n, e): a message whose body is the spans one after the other;
	 * they are borrowed for the call. */
	int (*emit)(void *arg, uint16_t type, const struct lc_span *spans, size_t n,
	            struct lc_err *e);
	/** head(arg, line, vm, entry): its newest point of a line, as HEAD says (entry empty:
	 * none); line NULL: those were all.  Comes before anything else.  May be NULL. */
	void (*head)(void *arg, const uint8_t *line, const uint8_t *vm, struct lc_span entry);
	/** committed(arg, p, wall_ns): a point is durable there, by the clock there.  May be NULL.
	 */
	void (*committed)(void *arg, const struct transfer_point *p, int64_t wall_ns);
	/** failed(arg, vm, why): no more points of this VM for now (until sender_wake).  May be
	 * NULL. */
	void (*failed)(void *arg, const uint8_t vm[16], const struct lc_err *why);
	/** damaged(arg, d): how it is: when a look has found something, and at its end.  May be
	 * NULL. */
	void (*damaged)(void *arg, const struct sender_damage *d);
};

/** sender_new(s, byte_window, events, out, e): nothing is sent yet.  The store is borrowed. */
int sender_new(struct store *s, uint64_t byte_window, const struct sender_events *events,
               struct sender **out, struct lc_err *e);
/**
 * sender_only(x, vm, e):
 * Send this VM (its id), and others that are named so, now or later; without such a call, all of
 * them.
 */
int sender_only(struct sender *x, const uint8_t vm[16], struct lc_err *e);
/** sender_rate(x, bytes_ps): what goes out is limited to that, as far as is known; 0: it is not. */
void sender_rate(struct sender *x, uint64_t bytes_ps);
struct sender_mending {
	struct sender_care *care; /* borrowed */
	uint16_t writer;          /* whose contents of this store are meant */
	bool first;               /* not idle before it has looked once, after all points */
	int64_t every_ms;         /* between looks; 0: the usual */
	struct thin_source from;  /* of contents that are not here any more; zeros: as of others */
};
/**
 * sender_mend(x, o):
 * The other side can be asked what is damaged there (INSPECT): it is, now and then, and gets it
 * again, in so far as it is here.  What it claims is not believed without bounds: in a day no more
 * goes for that than the log here holds and 1 GiB, a line is restarted once, and where it does not
 * get better it is asked less and less often.
 */
void sender_mend(struct sender *x, const struct sender_mending *o);
/** sender_start(x, e): ask what the other side has. */
int sender_start(struct sender *x, struct lc_err *e);
/** sender_message(x, type, body, e): take a message.  A failure is final: end the session. */
int sender_message(struct sender *x, uint16_t type, struct lc_span body, struct lc_err *e);
/** sender_pump(x, e): send what can be sent now.  After sender_message() or sender_wake(), and now
 * and then while a point is being made: what there is of a large one goes ahead of it. */
int sender_pump(struct sender *x, struct lc_err *e);
/**
 * sender_wake(x, line):
 * There may be new points on a line, or, where it is NULL, on any; what failed of that is tried
 * again.
 */
void sender_wake(struct sender *x, const uint8_t *line);
/** sender_idle(x): all that is here is there, or has failed. */
bool sender_idle(const struct sender *x);
struct sender_stats {
	uint64_t points, chunks, chunk_bytes; /* sent; points: committed there */
	uint64_t failed;                      /* lines */
	uint64_t unacknowledged;              /* bytes of chunks on the way */
	bool ready;                           /* the other side has told what it has */
	uint64_t answers;                     /* that were due; also what was newly taken */
	/* Monotonic: since when it has had all that came before a question, and has answered none
	 * of that point's; of the point that waits longest.  0: it owes nothing. */
	int64_t owed_ns;
	int64_t look_ns; /* monotonic: to be pumped then, to look for damage; 0: it never is */
	bool more;       /* to be pumped again at once: its turn was over */
};
void sender_stats(const struct sender *x, struct sender_stats *out);
void sender_free(struct sender *x);

#endif
