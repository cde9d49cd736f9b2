/**
 * unlock: how the one who restores says where the key is.
 *
 * On a host that writes to the store its own key file is enough.  Anywhere else
 * the recovery code or the passphrase opens it; both come from files, never from
 * the command line.
 */
#ifndef LOCUM_UNLOCK_H
#define LOCUM_UNLOCK_H

#include "store/base/errors.h"
#include "store/keyring.h"

/**
 * unlock_read_code(path, code, e):
 * The recovery code in a file: the recovery kit itself, or a text whose only line is the code.
 *
 * Returns 0, LC_EINVAL (no code in it), or what reading gave.
 * Secret: the caller wipes code with unlock_wipe().
 */
int unlock_read_code(const char *path, char code[RECOVERY_CODE_MAX], struct lc_err *e);
/** unlock_wipe(code): forget it. */
void unlock_wipe(char code[RECOVERY_CODE_MAX]);

#endif
