/**
 * sender_internal: what the files of the sender share.  Not for others.
 *
 * sender.c takes points in their order and sends them, sender_anew.c knows what follows one that
 * can't be sent, sender_ahead.c sends what there is of those that are still being made,
 * sender_mend.c what was found damaged at the other side.
 */
#ifndef LOCUM_SENDER_INTERNAL_H
#define LOCUM_SENDER_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "replicator/batch.h"
#include "replicator/flight.h"
#include "replicator/message.h"
#include "replicator/sender.h"

enum line_state { LINE_IDLE = 0, LINE_SENDING, LINE_COMMITTING, LINE_AHEAD, LINE_FAILED };

struct line {
	TAILQ_ENTRY(line) entry;
	uint8_t id[16], vm[16];
	enum line_state state;
	bool looked;        /* while idle or ahead: there was nothing to send */
	bool gone;          /* it is not to be sent: not here, or of another VM */
	struct lc_buf head; /* POINT entry of the newest point there */
	struct outgoing *out;
	uint32_t stream;
	TAILQ_HEAD(, batch) batches;
	unsigned nbatches;
	bool rows_over;
	bool anew;            /* only points that share nothing with their base can be sent ... */
	uint8_t lacking[16];  /* ... behind that one, of which contents are not here */
	struct commit commit; /* rows and sum so far */
	unsigned restarts;
	uint64_t owed_at;      /* bytes of chunks that go before what it owes an answer for ... */
	int64_t owed_ns;       /* ... since when it has those; 0: not yet */
	uint8_t made[16];      /* the point that was sent ahead last ... */
	uint8_t made_seed[16]; /* ... upon that pass ... */
	bool made_was_ended;   /* ... and it, or this store, did not want more of that */
};

TAILQ_HEAD(line_list, line);

enum mend_state { MEND_NEVER = 0, MEND_RESTING, MEND_ASKED, MEND_OFFERED, MEND_SENDING };

struct mend {
	enum mend_state state;
	struct sender_mending o;
	bool looked; /* once, to the end */
	/* 0: whole ones, as what is made upon them is good again with them; 1: of what is damaged
	 * still, the rest; 2: all was sent that is here: is it whole now? */
	unsigned round;
	bool left;                   /* in this round: deltas */
	uint64_t more_ids;           /* so many are looked at in this round yet */
	bool more;                   /* there may be ids above the last one */
	bool more_now;               /* its turn is over; it goes on in the next */
	uint8_t last[CHUNK_ID_SIZE]; /* that was dealt with */
	unsigned examined;           /* of what can't be had, who needs it */
	uint32_t stream;
	struct outgoing *out;
	struct batch *batch;
	struct sender_damage now;
};

struct sender {
	struct store *s;
	struct sender_events ev;
	struct flight flight;
	bool started, heads_known;
	struct heads heads;
	int64_t heads_ns; /* since when */
	bool look;        /* the store may have lines that are not in the list */
	bool put_off;     /* a line waits for what nobody tells of: it is looked at again */
	struct line_list lines;
	struct lc_buf only; /* ids of VMs; empty: all */
	uint32_t last_stream;
	unsigned active;
	uint64_t asked; /* batches, twice where there was a PROOF */
	uint32_t open;  /* sum of that of all batches of lines */
	struct transfer_making making[TRANSFER_MAKING_MAX]; /* as of this pump */
	size_t nmaking;
	struct mend mend;
	struct sender_stats stats;
	struct map_record *rows;
	uint8_t *buf; /* [RECORD_PAYLOAD_MAX] */
};

/* sender.c */
/** sender_emit(x, type, body, tail, e): a message; it is encoded in body, and in tail as it is. */
int sender_emit(struct sender *x, uint16_t type, const struct lc_buf *body, struct lc_span tail,
                struct lc_err *e);
/** sender_chunk(x, stream, c, e): one content, counted as being on the way. */
int sender_chunk(struct sender *x, uint32_t stream, const struct transfer_chunk *c,
                 struct lc_err *e);
/** sender_wanted(x, vm): whether that VM is to be sent. */
bool sender_wanted(const struct sender *x, const uint8_t vm[16]);
/** sender_sent_all(x): all points that are here are there, or have failed. */
bool sender_sent_all(const struct sender *x);
/** sender_find_line(x, id), sender_add_line(x, id): NULL: there is none; no memory. */
struct line *sender_find_line(struct sender *x, const uint8_t id[16]);
struct line *sender_add_line(struct sender *x, const uint8_t id[16]);
/** sender_leave(x, l, state): whatever of a point is under way on a line is over. */
void sender_leave(struct sender *x, struct line *l, enum line_state state);
/** sender_batches(x, l, bad, e): offer rows ahead of the answers, and send what is wanted, as far
 * as it goes.  *bad: a failure of this store, for this line alone. */
int sender_batches(struct sender *x, struct line *l, struct lc_err *bad, struct lc_err *e);

/** sender_fail(x, l, why): no more points of a line for now. */
void sender_fail(struct sender *x, struct line *l, const struct lc_err *why);

/* sender_anew.c: where contents of a point that are wanted are not here any more */
/** anew_begin(x, l, bad): bad: what was said of them.  Go on with the next point that shares
 * nothing with those of before; where there is none, the next one is to be, and the line fails. */
void anew_begin(struct sender *x, struct line *l, const struct lc_err *bad);
/** anew_next(x, l, e): that point into l->out; LC_ENOENT, and then the line has failed unless the
 * other side lacks nothing. */
int anew_next(struct sender *x, struct line *l, struct lc_err *e);

/* sender_ahead.c */
/** ahead_look(x, e): which points are being made now; before the rest, in each pump. */
int ahead_look(struct sender *x, struct lc_err *e);
/** ahead_end_if_over(x, l, e): leave AHEAD where there is nothing more of that to go. */
int ahead_end_if_over(struct sender *x, struct line *l, struct lc_err *e);
/** ahead_pump(x, e): send of them what there is room for.  After all points. */
int ahead_pump(struct sender *x, struct lc_err *e);
/** ahead_refused(x, l): no more of that, by the word of the other side. */
void ahead_refused(struct sender *x, struct line *l);

/* sender_mend.c */
/** mend_pump(x, e): ask, or send what there is room for.  After all points. */
int mend_pump(struct sender *x, struct lc_err *e);
/** mend_is(x, stream): it is that one's.  mend_want(x, m, e), mend_refused(x, m): its messages. */
bool mend_is(const struct sender *x, uint32_t stream);
int mend_want(struct sender *x, const struct want *m, struct lc_err *e);
void mend_refused(struct sender *x, const struct refused *m);
int mend_damaged(struct sender *x, struct lc_span body, struct lc_err *e);
void mend_done(struct sender *x);
/** sender_has_all(x, id): whether all points that are here of a line are there, and none is under
 * way. */
bool sender_has_all(struct sender *x, const uint8_t *id);

#endif
