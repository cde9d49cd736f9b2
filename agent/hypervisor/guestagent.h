/**
 * guestagent: the QEMU guest agent in a VM, spoken to over its socket.
 *
 * The channel has no connection that the guest could see: an answer may be to a question of
 * somebody before us, and a question may wait for ever because nobody in the guest reads it.  So
 * every talk begins with a delimited sync, which skips whatever comes before its own answer, and
 * every call has a deadline.
 *
 * One client at a time: a second one connects and waits.
 *
 * Blocking; thread: any, one at a time.
 */
#ifndef LOCUM_GUESTAGENT_H
#define LOCUM_GUESTAGENT_H

#include <stdint.h>

#include "store/base/errors.h"

struct guestagent;

/** guestagent_open(socket, out, e): connect; says nothing about the guest yet.  LC_ENOENT without a
 * socket. */
int guestagent_open(const char *socket, struct guestagent **out, struct lc_err *e);
/**
 * guestagent_sync(g, timeout_ms, e):
 * Wait for the agent's answer to a sync.  After LC_ETIMEDOUT it may be called again, and the old
 * question counts for 5 s before a new one is asked; so it is fit for polling a guest that is
 * booting, with short timeouts.
 *
 * Returns  0 when the agent answered, LC_ETIMEDOUT, LC_EPEER (QEMU closed the channel).
 */
int guestagent_sync(struct guestagent *g, int64_t timeout_ms, struct lc_err *e);
/**
 * guestagent_call(g, command, timeout_ms, value_out, e):
 * Carry out a command without arguments ("guest-ping", "guest-fsfreeze-freeze",
 * "guest-fsfreeze-thaw"). value_out (may be NULL) gets the number that it returns, 0 if it returns
 * none.
 *
 * Returns  0, LC_ENOTSUP (this agent does not know or allow it), LC_EPEER (it failed in the guest),
 *          LC_ETIMEDOUT.
 */
int guestagent_call(struct guestagent *g, const char *command, int64_t timeout_ms,
                    uint64_t *value_out, struct lc_err *e);
/** guestagent_close(g): NULL is fine. */
void guestagent_close(struct guestagent *g);

/**
 * guestagent_ping(socket, timeout_ms, e):
 * Open, sync, guest-ping, close: whether an agent answers within timeout_ms.
 */
int guestagent_ping(const char *socket, int64_t timeout_ms, struct lc_err *e);

#endif
