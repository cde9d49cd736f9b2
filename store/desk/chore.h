/**
 * chore: one request at the desk (desk.h): its text, and the doing of it.
 *
 * Thread: any; one at a time.
 */
#ifndef LOCUM_CHORE_H
#define LOCUM_CHORE_H

#include <stddef.h>
#include <stdint.h>

#include "store/base/memory.h"
#include "store/segment.h"
#include "store/store.h"

enum chore_verb { CHORE_DROP = 0, CHORE_CONDEMN, CHORE_LEND };

struct chore {
	enum chore_verb verb;
	char *store, *who;
	uint8_t point[POINT_ID_SIZE];
	struct lc_buf places; /* struct damage[] */
};

/** chore_encode(c, out, e): append its line, with the newline. */
int chore_encode(const struct chore *c, struct lc_buf *out, struct lc_err *e);
/** chore_decode(p, n, c, e): c needs chore_done() in every case. */
int chore_decode(const char *p, size_t n, struct chore *c, struct lc_err *e);
/** chore_do(c, s, condemned, e): drop or condemn; who reads the point for a moment is waited for.
 */
int chore_do(const struct chore *c, struct store *s, uint64_t *condemned, struct lc_err *e);
void chore_done(struct chore *c);

#endif
