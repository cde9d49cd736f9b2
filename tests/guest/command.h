/* command: the line protocol with which tests drive the guest (README.md). */
#ifndef TESTS_GUEST_COMMAND_H
#define TESTS_GUEST_COMMAND_H

#include <stddef.h>

struct seqw;

/**
 * command_run(w, line, out, size):
 * Carry out one line, which is changed while it is split, and put the answer
 * "OK ..." or "ERR ..." without a newline into out[size].  "@TAG " in front of
 * the line comes back in front of the answer.
 *
 * Thread: any; commands run one at a time.
 */
void command_run(struct seqw *w, char *line, char *out, size_t size);

#endif
