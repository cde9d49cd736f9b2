/**
 * borrower_internal: what the files of borrower.h share.  Not for others.
 */
#ifndef LOCUM_BORROWER_INTERNAL_H
#define LOCUM_BORROWER_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "replicator/borrower.h"
#include "store/base/errors.h"
#include "store/base/memory.h"

struct request {
	TAILQ_ENTRY(request) entry;
	uint16_t type;
	struct lc_buf body;
	/* Called on the worker with each answer; *done once it was the last one. */
	int (*answer)(struct request *r, uint16_t type, struct lc_span body, struct lc_err *e);
	void *arg; /* of that */
	bool own;  /* nobody waits for it: it is freed when it is over */
	size_t answered;
	bool done; /* under the lock */
	int rc;
	struct lc_err err;
};

/** borrower_ask(b, r, e): send it, and wait until it is answered. */
int borrower_ask(struct borrower *b, struct request *r, struct lc_err *e);
/** borrower_unexpected(type, e): that is no answer to what was asked. */
int borrower_unexpected(uint16_t type, struct lc_err *e);

#endif
