/**
 * moving: what one store has into another one of its key domain, as a writer of that (vouch.h),
 * without a wire; also as one that lies.  Aborts where that does not succeed.
 */
#ifndef LOCUM_TESTS_MOVING_H
#define LOCUM_TESTS_MOVING_H

#include <stdint.h>

struct store;

enum moving_how {
	MOVING_TRUE = 0,
	MOVING_JUNK,       /* contents that do not open, of the first point of each line, which
	                    * is not finished */
	MOVING_JUNK_POINTS /* such contents, in points */
};

/** moving_all(from, to, writer, how): all that the other one lacks; both are open, `to` as owner.
 */
void moving_all(struct store *from, struct store *to, uint16_t writer, enum moving_how how);

#endif
