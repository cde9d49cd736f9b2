/**
 * message: what two sites say to each other, as the body of channel messages (PROTOCOL.md).
 *
 * Pure codecs.  A decoder fails as a whole (LC_EPEER) where the body is not exactly such a message;
 * what it gives borrows from the body.
 */
#ifndef LOCUM_MESSAGE_H
#define LOCUM_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"
#include "store/transfer.h"

#define MESSAGE_VERSION 1u
#define OFFER_IDS_MAX 4096u
/* Ids of OFFERs that a replica has asked for, or is still to say of, and that have not come: */
#define ASKED_MAX (4u * OFFER_IDS_MAX) /* of a stream ... */
#define ASKED_ALL_MAX \
	(32u * OFFER_IDS_MAX) /* ... and of all of them; over that it ends the session */
#define READ_IDS_MAX 64u
#define DAMAGED_IDS_MAX 4096u   /* contents of one DAMAGED ... */
#define DAMAGED_LINES_MAX 4096u /* ... and lines */
#define TOKEN_SECRET_SIZE 32u
#define MESSAGE_TEXT_MAX 480u
#define MESSAGE_KEYS_MAX (256u << 10)
#define HEADS_BYTES_MAX (32u << 20) /* of one answer to HEADS, as heads_count() does */
#define HEADS_LINES_MAX 8192u       /* of one, as a source takes it: twice what a host may have */

enum message_type { /* numbers are never used again; 0 is the channel's CLOSE */
	            /* the session */
	            MESSAGE_HELLO = 1,   /* source: who I am, which domain */
	            MESSAGE_WELCOME = 2, /* replica: go on */
	            MESSAGE_REFUSED = 3, /* either: of a stream, or of the session */
	            MESSAGE_PING = 4,
	            MESSAGE_PONG = 5,
	            /* what the replica has */
	            MESSAGE_HEADS = 10,     /* source: tell me */
	            MESSAGE_HEAD = 11,      /* replica: the newest point of a line */
	            MESSAGE_HEADS_END = 12, /* replica: that was all */
	            /* one point, on a stream */
	            MESSAGE_BEGIN = 20,     /* source: a point */
	            MESSAGE_OFFER = 21,     /* source: ids that its rows name */
	            MESSAGE_WANT = 22,      /* replica: which of them to send */
	            MESSAGE_CHUNK = 23,     /* source: one of those */
	            MESSAGE_ROWS = 24,      /* source: rows of its map */
	            MESSAGE_COMMIT = 25,    /* source: that was all of it */
	            MESSAGE_COMMITTED = 26, /* replica: it is durable */
	            MESSAGE_TAKEN = 27, /* replica: bytes of chunks taken so far in this session */
	            MESSAGE_ROOM = 28,  /* replica: how much of its quota is used */
	            MESSAGE_PROVE = 29, /* replica: which of them to show that you have */
	            MESSAGE_PROOF = 38, /* source: that */
	            MESSAGE_INSPECT = 39, /* source: what of mine is damaged there? */
	            MESSAGE_DAMAGED = 40, /* replica: that, and how much there is */
	            /* a session that reads */
	            MESSAGE_READ = 30,   /* source: give me these chunks */
	            MESSAGE_BODY = 31,   /* replica: one of them */
	            MESSAGE_NONE = 32,   /* replica: one that can't be had */
	            MESSAGE_ASK = 33,    /* source: which of these are there? */
	            MESSAGE_HAVE = 34,   /* replica: those */
	            MESSAGE_RECALL = 35, /* source: the newest point of a line, without contents */
	            MESSAGE_MORE = 36,   /* source: further rows of it */
	            MESSAGE_KEYS = 37,   /* source: which KEYS my store has; replica: the payload */
};

/** message_name(type): static text for messages to people. */
const char *message_name(uint16_t type);

#define SESSION_STREAM UINT32_MAX /* in REFUSED: the session itself */

struct hello {
	uint16_t version;
	uint8_t domain[16];
	bool pairing;                      /* secret is a one-time token's */
	bool reading;                      /* it only reads what it has sent before */
	bool brief;                        /* it goes when all is sent: a command's */
	uint8_t secret[TOKEN_SECRET_SIZE]; /* zeros unless pairing */
	char name[64];                     /* of the source, for people */
	int64_t wall_ns;                   /* the source's clock */
	struct lc_span keys;               /* KEYS payload of the domain */
};
struct welcome {
	uint16_t version;
	uint8_t store[16];
	int64_t wall_ns;      /* the replica's clock */
	uint32_t byte_window; /* bytes of chunks that may be on the way */
	bool inspects;        /* it answers INSPECT, and takes streams that mend */
};
struct refused {
	uint32_t stream;
	int32_t code; /* enum lc_code */
	char text[MESSAGE_TEXT_MAX + 1];
};
struct head {
	uint8_t line[16], vm[16];
	struct lc_span entry; /* empty: no point on that line */
};
struct offer {
	uint32_t stream;
	uint16_t n;
	uint16_t bases;     /* the first of them: deltas are made upon these */
	const uint8_t *ids; /* n of CHUNK_ID_SIZE bytes */
};
struct want {
	uint32_t stream;
	uint32_t n;          /* as in the OFFER that it answers: the oldest open one */
	const uint8_t *bits; /* (n + 7) / 8 bytes; bit i: send the i-th */
};
struct proof {
	uint32_t stream;
	uint32_t n;          /* one for each bit of the PROVE that it answers */
	const uint8_t *sums; /* n of TRANSFER_SUM_SIZE bytes; zeros: it has none */
};
struct sent_chunk {
	uint32_t stream;
	struct transfer_chunk chunk;
};
struct sent_rows {
	uint32_t stream;
	struct lc_span payload;
};
struct commit {
	uint32_t stream;
	uint64_t rows;
	struct set_sum sum;
};
struct room {
	uint64_t used, max; /* bytes of the host's store there */
};
struct committed {
	uint32_t stream;
	int64_t wall_ns; /* the replica's clock */
};

struct ids {
	uint32_t n;
	const uint8_t *ids; /* n of CHUNK_ID_SIZE bytes */
};
struct have {
	uint32_t n;          /* as in the ASK that it answers: the oldest open one */
	const uint8_t *bits; /* (n + 7) / 8 bytes; bit i: the i-th is there, and durable */
};
struct none {
	uint8_t id[CHUNK_ID_SIZE];
	int32_t code; /* enum lc_code */
};
struct recall {
	uint32_t stream; /* in what answers it */
	uint8_t line[16];
};

struct damaged {
	uint64_t contents;  /* of this host, in all */
	uint32_t n, nlines; /* told of here */
	const uint8_t *ids; /* n of CHUNK_ID_SIZE bytes, ascending */
	const uint8_t
	    *lines; /* nlines of 16 bytes: their next points have to stand by themselves */
};

/* Encoders append to an empty *out; 0 or LC_ENOMEM. */
int message_put_hello(struct lc_buf *out, const struct hello *m);
int message_put_welcome(struct lc_buf *out, const struct welcome *m);
int message_put_refused(struct lc_buf *out, uint32_t stream, const struct lc_err *why);
int message_put_head(struct lc_buf *out, const struct head *m);
int message_put_begin(struct lc_buf *out, uint32_t stream, const struct transfer_point *p);
int message_put_offer(struct lc_buf *out, const struct offer *m);
/** WANT, PROVE. */
int message_put_want(struct lc_buf *out, const struct want *m);
int message_put_proof(struct lc_buf *out, const struct proof *m);
/** The head of a CHUNK or ROWS body; the payload is sent as a second span. */
int message_put_chunk_head(struct lc_buf *out, uint32_t stream, const struct transfer_chunk *c);
int message_put_rows_head(struct lc_buf *out, uint32_t stream);
int message_put_commit(struct lc_buf *out, const struct commit *m);
int message_put_committed(struct lc_buf *out, const struct committed *m);
int message_put_room(struct lc_buf *out, const struct room *m);
/** PING, PONG, TAKEN: one number. */
int message_put_number(struct lc_buf *out, uint64_t n);

/** READ, ASK. */
int message_put_ids(struct lc_buf *out, const struct ids *m);
/** The head of a BODY; its payload is sent as a second span. */
int message_put_body_head(struct lc_buf *out, const struct transfer_chunk *c);
int message_put_none(struct lc_buf *out, const struct none *m);
int message_put_have(struct lc_buf *out, const struct have *m);
int message_put_recall(struct lc_buf *out, const struct recall *m);
int message_put_more(struct lc_buf *out, uint32_t stream);

int message_put_inspect(struct lc_buf *out, const uint8_t above[CHUNK_ID_SIZE]);
int message_put_damaged(struct lc_buf *out, const struct damaged *m);

/** message_get_inspect(body, above, e): borrowed, CHUNK_ID_SIZE bytes. */
int message_get_inspect(struct lc_span body, const uint8_t **above, struct lc_err *e);
int message_get_damaged(struct lc_span body, struct damaged *m, struct lc_err *e);
int message_get_ids(struct lc_span body, uint16_t type, struct ids *m, struct lc_err *e);
int message_get_body(struct lc_span body, struct transfer_chunk *m, struct lc_err *e);
int message_get_none(struct lc_span body, struct none *m, struct lc_err *e);
int message_get_have(struct lc_span body, struct have *m, struct lc_err *e);
int message_get_recall(struct lc_span body, struct recall *m, struct lc_err *e);
int message_get_more(struct lc_span body, uint32_t *stream, struct lc_err *e);
/** message_get_nothing(body, type, e): of a type without fields. */
int message_get_nothing(struct lc_span body, uint16_t type, struct lc_err *e);

int message_get_hello(struct lc_span body, struct hello *m, struct lc_err *e);
int message_get_welcome(struct lc_span body, struct welcome *m, struct lc_err *e);
int message_get_refused(struct lc_span body, struct refused *m, struct lc_err *e);
int message_get_head(struct lc_span body, struct head *m, struct lc_err *e);
struct heads { /* an answer to HEADS, so far */
	uint64_t lines, bytes;
};
/** heads_count(t, m, e): one more.  LC_EPEER: no replica has so many. */
int heads_count(struct heads *t, const struct head *m, struct lc_err *e);
int message_get_begin(struct lc_span body, uint32_t *stream, struct transfer_point *p,
                      struct lc_err *e);
int message_get_offer(struct lc_span body, struct offer *m, struct lc_err *e);
int message_get_want(struct lc_span body, struct want *m, struct lc_err *e);
int message_get_proof(struct lc_span body, struct proof *m, struct lc_err *e);
int message_get_chunk(struct lc_span body, struct sent_chunk *m, struct lc_err *e);
int message_get_rows(struct lc_span body, struct sent_rows *m, struct lc_err *e);
int message_get_commit(struct lc_span body, struct commit *m, struct lc_err *e);
int message_get_committed(struct lc_span body, struct committed *m, struct lc_err *e);
int message_get_room(struct lc_span body, struct room *m, struct lc_err *e);
int message_get_number(struct lc_span body, uint16_t type, uint64_t *n, struct lc_err *e);

/** refused_error(m, e): what the other side refused, as a failure here.  Returns its code. */
int refused_error(const struct refused *m, struct lc_err *e);

#endif
