/**
 * kit: the recovery kit, a page of text with the recovery code in it.
 */
#ifndef LOCUM_KIT_H
#define LOCUM_KIT_H

#include "store/base/errors.h"
#include "store/keyring.h"

struct kit {
	const char *code;
	const char *domain; /* hex */
	const char *store;  /* hex id of the store that it was made with */
	const char *dir;    /* its folder */
};

/** kit_write(path, k, e): a new file, mode 0600.  LC_EEXIST where path is there. */
int kit_write(const char *path, const struct kit *k, struct lc_err *e);
/**
 * kit_read_code(path, code, e):
 * The recovery code in a file: a kit, or a text whose only line is the code.  Whether it is a code
 * shows when it is used.
 *
 * Returns  0, LC_EINVAL (no code in it), or what reading gave.
 * Secret:  the caller wipes code.
 */
int kit_read_code(const char *path, char code[RECOVERY_CODE_MAX], struct lc_err *e);

#endif
