/**
 * mole: a host that was captured, a stranger, or a replica that is none: has a key, speaks the
 * channel, and says whatever the test wants; it may also stop reading, or say no more than half of
 * the handshake.
 */
#ifndef LOCUM_TESTS_MOLE_H
#define LOCUM_TESTS_MOLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "replicator/identity.h"
#include "store/base/memory.h"

struct mole {
	uv_tcp_t tcp;
	uv_connect_t connect;
	uv_tcp_t listener; /* of mole_serve() */
	bool serving;
	struct channel *channel;            /* NULL: bare TCP */
	bool connected, open, closed, over; /* over: the other side hung up */
	bool reading;
	unsigned n;         /* messages that came ... */
	uint16_t last;      /* ... the last one's type ... */
	struct lc_buf body; /* ... and body */
	unsigned of_type[64];
	char refused[512]; /* text of the last REFUSED */
	int32_t code;      /* its code */
	/* If set: each message, in order; what it says goes out behind it. */
	void (*heard)(void *arg, uint16_t type, struct lc_span body);
	void *arg;
};

/** mole_start(m, loop, port, id, replica): connect; id NULL: bare TCP, says nothing. */
void mole_start(struct mole *m, uv_loop_t *loop, unsigned port, const struct identity *id,
                const uint8_t *replica);
/** mole_serve(m, loop, id): wait for one to connect; returns the port.  PING is answered. */
unsigned mole_serve(struct mole *m, uv_loop_t *loop, const struct identity *id);
/** mole_say(m, type, body): send a message; before the channel is open it waits. */
void mole_say(struct mole *m, uint16_t type, struct lc_span body);
/** mole_raw(m, bytes): send bytes outside of any channel. */
void mole_raw(struct mole *m, struct lc_span bytes);
/** mole_read(m, on): stop reading, or go on. */
void mole_read(struct mole *m, bool on);
/** mole_unsent(m): bytes that the other side has not taken. */
size_t mole_unsent(const struct mole *m);
/** mole_end(m): close; run the loop until m->closed. */
void mole_end(struct mole *m);
/** mole_is_open(m), mole_is_over(m): conditions for run_until(). */
bool mole_is_open(void *m);
bool mole_is_over(void *m);
/** mole_heard(count): condition: so many of that type came, or it is over. */
struct mole_count {
	struct mole *m;
	uint16_t type;
	unsigned n;
};
bool mole_heard(void *count);

#endif
