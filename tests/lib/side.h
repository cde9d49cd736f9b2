/**
 * side: one side of a channel, and what it got; two of them talk without a wire.
 */
#ifndef LOCUM_TESTS_SIDE_H
#define LOCUM_TESTS_SIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "replicator/channel.h"

enum { PREFACE = 8, SHAKE_1 = 50, SHAKE_2 = 50, SHAKE_3 = 66, PLAIN_MAX = 65519 };

struct side {
	struct channel *ch;
	struct channel_events events;
	struct lc_err e;
	unsigned opened, messages;
	size_t bytes;    /* of all bodies */
	uint64_t digest; /* over all messages, to compare with what was sent */
	uint16_t last_type;
	size_t last_n;
	unsigned refuse_at; /* the message (from 1) whose callback fails; 0: none */
	bool refuse_peer;
	uint8_t *wire; /* everything that was pulled so far */
	size_t nwire, wire_cap;
};

/** side_new(s, initiator): with the keys of rawpeer.h; side_new_to(): of one that expects, or has,
 * another replica's key. */
void side_new(struct side *s, bool initiator);
void side_new_to(struct side *s, bool initiator, const uint8_t *replica);
void side_free(struct side *s);
/** side_feed(s, p, n): what came; returns the code, s->e says more. */
int side_feed(struct side *s, const uint8_t *p, size_t n);
/** side_send(s, type, p, n): queue a message; asserts. */
void side_send(struct side *s, uint16_t type, const void *p, size_t n);
/** side_pull(s): all there is, to the end of s->wire; how much was new. */
size_t side_pull(struct side *s);
/** side_carry(from, to): what one side has to say, to the other. */
int side_carry(struct side *from, struct side *to);
/** side_meet(host, replica): both made, and open for each other. */
void side_meet(struct side *host, struct side *replica);
/** side_failed(s, code, text): assert that it failed for that reason, and for good. */
void side_failed(struct side *s, int code, const char *text);
/** side_digest(h, type, p, n): over one message more. */
uint64_t side_digest(uint64_t h, uint16_t type, const uint8_t *p, size_t n);

#endif
