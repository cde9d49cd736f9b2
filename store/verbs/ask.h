/**
 * ask: a secret from the person at the terminal.
 */
#ifndef LOCUM_STORE_ASK_H
#define LOCUM_STORE_ASK_H

#include <stddef.h>

#include "store/base/errors.h"

/**
 * ask_secret(prompt, dst, n, e):
 * Ask on the terminal of this process, whatever stdin and stdout are; what is typed does not show.
 *
 * Returns  0; LC_ENOTSUP: there is no terminal; LC_ECANCELED: Ctrl-C, Ctrl-D; LC_EINVAL: n bytes or
 *          more.
 * Secret:  the caller wipes dst[n].
 */
int ask_secret(const char *prompt, char *dst, size_t n, struct lc_err *e);
/** ask_tell(text): a line on that terminal. */
void ask_tell(const char *text);

#endif
