/**
 * interrupt: Ctrl-C and kill as a question that a long operation asks, not a death in the middle.
 *
 * Between begin and end SIGINT, SIGTERM, SIGHUP and SIGPIPE (nobody reads what we say any more) are
 * held back; interrupt_pending() tells whether one came.  Threads started in between inherit that.
 */
#ifndef LOCUM_INTERRUPT_H
#define LOCUM_INTERRUPT_H

#include <signal.h>
#include <stdbool.h>

struct interrupt {
	sigset_t held, before;
	int got; /* signal number, or 0 */
};

/** interrupt_begin(i): hold the signals back. */
void interrupt_begin(struct interrupt *i);
/** interrupt_pending(i): whether one came since begin; stays true. */
bool interrupt_pending(struct interrupt *i);
/** interrupt_end(i): as before; a signal that nobody asked about acts now. */
void interrupt_end(struct interrupt *i);

#endif
