/**
 * errors: a failure is a value that names its object.
 *
 * Functions that can fail return 0 or a negative enum lc_code and take a last
 * struct lc_err * (which may be NULL).  The lowest layer that knows the name
 * of the object writes the message, upper layers prefix context, and only the
 * top layer prints it, once.
 */
#ifndef LOCUM_ERRORS_H
#define LOCUM_ERRORS_H

#include <stdbool.h>
#include <stddef.h>

/* code, value, retryable, text: one row per outcome that a caller can act on */
#define LC_CODES(X)                                               \
	X(LC_OK, 0, false, "ok")                                  \
	X(LC_ENOMEM, -1, true, "out of memory")                   \
	X(LC_EIO, -2, false, "input/output error")                \
	X(LC_EINVAL, -3, false, "invalid argument")               \
	X(LC_ECORRUPT, -4, false, "stored data failed its check") \
	X(LC_ENOENT, -5, false, "not found")                      \
	X(LC_EEXIST, -6, false, "already there")                  \
	X(LC_EBUSY, -7, true, "in use")                           \
	X(LC_ENOSPC, -8, true, "no space left")                   \
	X(LC_EACCES, -9, false, "access denied")                  \
	X(LC_EKEY, -10, false, "wrong or missing key")            \
	X(LC_ECANCELED, -11, false, "canceled")                   \
	X(LC_ETIMEDOUT, -12, true, "timed out")                   \
	X(LC_EVERSION, -13, false, "made by a newer version")     \
	X(LC_EPEER, -14, true, "the other side failed")           \
	X(LC_ECONFLICT, -15, true, "somebody else changed it")    \
	X(LC_ENOTSUP, -16, false, "not supported")

enum lc_code {
#define X(name, value, retry, text) name = (value),
	LC_CODES(X)
#undef X
};

struct lc_err {            /* by value, no heap: crosses threads safely */
	enum lc_code code; /* LC_OK while nothing failed */
	int sys;           /* errno, UV_E*, SQLITE_* behind it, or 0 */
	char msg[504];     /* "outer: inner: cause"; no newline, no full stop */
};

/* Initialiser: struct lc_err err = LC_ERR_INIT; */
/* clang-format off */
#define LC_ERR_INIT {.code = LC_OK, .sys = 0, .msg = ""}
/* clang-format on */

/**
 * lc_fail(e, code, sys, fmt, ...):
 * Record a failure.  The first failure wins: an e that already holds one keeps
 * it.  If sys is a positive errno, ": strerror" is appended to the message.
 *
 * Returns  code, always (also when e is NULL).
 * Thread:  any (e is not shared).
 */
int lc_fail(struct lc_err *e, enum lc_code code, int sys, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/**
 * lc_fail_errno(e, fmt, ...):
 * As lc_fail() with errno; the code is derived from it (ENOSPC and EDQUOT to
 * LC_ENOSPC, EACCES, EPERM and EROFS to LC_EACCES, ENOENT to LC_ENOENT, ENOMEM to
 * LC_ENOMEM, everything else to LC_EIO).
 */
int lc_fail_errno(struct lc_err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/**
 * lc_wrap(e, fmt, ...):
 * Prefix the message with "<context>: ".  Does nothing where e is NULL or holds no failure, and so
 * has no result: the failure is that of who failed.
 */
void lc_wrap(struct lc_err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** lc_err_clear(e): forget the failure in e (e may be NULL). */
void lc_err_clear(struct lc_err *e);

/** lc_code_text(code): static text of a code. */
const char *lc_code_text(enum lc_code code);

/** lc_code_retryable(code): whether doing the same again later can help. */
bool lc_code_retryable(enum lc_code code);

#endif
