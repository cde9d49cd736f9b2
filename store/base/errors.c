#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "store/base/cli.h"
#include "store/base/errors.h"

static enum lc_code
code_of_errno(int err)
{
	switch (err) {
	case ENOSPC:
	case EDQUOT:
		return LC_ENOSPC;
	case EACCES:
	case EPERM:
	case EROFS:
		return LC_EACCES;
	case ENOENT:
		return LC_ENOENT;
	case EEXIST:
		return LC_EEXIST;
	case ENOMEM:
		return LC_ENOMEM;
	case ETIMEDOUT:
		return LC_ETIMEDOUT;
	case EBUSY:
		return LC_EBUSY;
	default:
		return LC_EIO;
	}
}

static void __attribute__((format(printf, 4, 0)))
set_message(struct lc_err *e, enum lc_code code, int sys, const char *fmt, va_list ap)
{
	int n;

	e->code = code;
	e->sys = sys;
	n = vsnprintf(e->msg, sizeof e->msg, fmt, ap);
	if (n >= 0 && (size_t)n < sizeof e->msg && sys > 0)
		(void)snprintf(e->msg + n, sizeof e->msg - (size_t)n, ": %s", strerrordesc_np(sys));
	(void)cli_tame(e->msg, strlen(e->msg), "");
}

int
lc_fail(struct lc_err *e, enum lc_code code, int sys, const char *fmt, ...)
{
	va_list ap;

	if (e != NULL && e->code == LC_OK) {
		va_start(ap, fmt);
		set_message(e, code, sys, fmt, ap);
		va_end(ap);
	}
	return code;
}

int
lc_fail_errno(struct lc_err *e, const char *fmt, ...)
{
	int err = errno;
	enum lc_code code = code_of_errno(err);
	va_list ap;

	if (e != NULL && e->code == LC_OK) {
		va_start(ap, fmt);
		set_message(e, code, err, fmt, ap);
		va_end(ap);
	}
	return code;
}

void
lc_wrap(struct lc_err *e, const char *fmt, ...)
{
	char inner[sizeof e->msg];
	va_list ap;
	int n;

	if (e == NULL || e->code == LC_OK)
		return;
	memcpy(inner, e->msg, sizeof inner);
	va_start(ap, fmt);
	n = vsnprintf(e->msg, sizeof e->msg, fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof e->msg)
		(void)snprintf(e->msg + n, sizeof e->msg - (size_t)n, ": %s", inner);
	(void)cli_tame(e->msg, strlen(e->msg), "");
}

void
lc_err_clear(struct lc_err *e)
{
	if (e != NULL) {
		e->code = LC_OK;
		e->sys = 0;
		e->msg[0] = '\0';
	}
}

static const struct row {
	enum lc_code code;
	bool retryable;
	const char *text;
} rows[] = {
#define X(name, value, retry, words) {.code = (name), .retryable = (retry), .text = (words)},
    LC_CODES(X)
#undef X
};

/* A code may come from a newer peer: NULL where it is none of ours. */
static const struct row *
find_row(enum lc_code code)
{
	size_t i;

	for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		if (rows[i].code == code)
			return &rows[i];
	}
	return NULL;
}

const char *
lc_code_text(enum lc_code code)
{
	const struct row *r = find_row(code);

	return r == NULL ? "unknown error" : r->text;
}

bool
lc_code_retryable(enum lc_code code)
{
	const struct row *r = find_row(code);

	return r != NULL && r->retryable;
}
