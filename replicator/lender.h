/**
 * lender: the replica's half of a session that reads: gives a source back what it has sent.
 *
 * Pure: messages in, messages out.  It reads one store, and of that what the source itself has sent
 * (vouch.h); what it gives is sealed as it came.  Everything is asked for in pieces of bounded
 * size, so what waits to be sent is bounded by whoever carries it (session_opts.output_max).
 *
 * Calls block in the store; none may run at the same time as another.
 */
#ifndef LOCUM_LENDER_H
#define LOCUM_LENDER_H

#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"
#include "store/transfer.h"

struct lender;

typedef int lender_emit(void *arg, uint16_t type, const struct lc_span *spans, size_t n,
                        struct lc_err *e);

/** lender_new(s, writer, emit, arg, out, e): the store is borrowed; writer: whose the session is;
 * emit as in sender_events. */
int lender_new(struct store *s, uint16_t writer, lender_emit *emit, void *arg, struct lender **out,
               struct lc_err *e);
/** lender_message(x, type, body, e): take a message.  A failure is final: end the session. */
int lender_message(struct lender *x, uint16_t type, struct lc_span body, struct lc_err *e);
void lender_free(struct lender *x);

/** lender_heads(s, writer, body, emit, arg, e): answer a HEADS: HEAD for each line of a VM of that
 * writer, and HEADS_END. */
int lender_heads(struct store *s, uint16_t writer, struct lc_span body, lender_emit *emit,
                 void *arg, struct lc_err *e);

#endif
