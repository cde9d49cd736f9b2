/**
 * launch_talk: short, blocking talks with a monitor or a relay, on a loop of their own.  Private to
 * launch*.c, vmstate.c and domains.c.
 */
#ifndef LOCUM_LAUNCH_TALK_H
#define LOCUM_LAUNCH_TALK_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/hypervisor/qmp.h"
#include "store/base/errors.h"

struct talk;

/** talk_open(socket, timeout_ms, out, e): connect and negotiate; timeout_ms goes for each command
 * too. */
int talk_open(const char *socket, int64_t timeout_ms, struct talk **out, struct lc_err *e);
/** talk_open_opts(opts, out, e): the same, as opts says; its callbacks are not used. */
int talk_open_opts(const struct qmp_opts *opts, struct talk **out, struct lc_err *e);
/** talk_batch(t): an empty batch, or NULL. */
struct qmp_batch *talk_batch(struct talk *t);
/** talk_run(t, b, e): send and wait for all answers.  b stays the caller's. */
int talk_run(struct talk *t, struct qmp_batch *b, struct lc_err *e);
/** talk_do(t, command, e): one command without arguments whose answer does not matter. */
int talk_do(struct talk *t, const char *command, struct lc_err *e);
/** talk_close(t): NULL is fine. */
void talk_close(struct talk *t);

#endif
