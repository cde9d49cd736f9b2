/**
 * memory: the one way to the heap, so that a test can make the n-th allocation fail.
 *
 * Failure is NULL, never an abort.  Borrowed bytes are a struct lc_span, owned
 * growing bytes a struct lc_buf.
 */
#ifndef LOCUM_MEMORY_H
#define LOCUM_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"

struct lc_span { /* borrowed */
	const uint8_t *p;
	size_t n;
};

struct lc_buf { /* owned; zero-initialised is empty; free with lc_buf_free() */
	uint8_t *p;
	size_t n;   /* bytes used */
	size_t cap; /* bytes allocated */
};

/** lc_alloc(n): n zeroed bytes or NULL.  Thread: any. */
void *lc_alloc(size_t n) __attribute__((malloc));
/** lc_alloc_array(n, size): n * size zeroed bytes or NULL, also where the product overflows. */
void *lc_alloc_array(size_t n, size_t size) __attribute__((malloc));
/** lc_realloc(p, n): as realloc(3); new bytes are not zeroed. */
void *lc_realloc(void *p, size_t n);
/** lc_strdup(s): a copy, or NULL (also where s is NULL). */
char *lc_strdup(const char *s) __attribute__((malloc));
/** lc_asprintf(fmt, ...): a formatted copy, or NULL. */
char *lc_asprintf(const char *fmt, ...) __attribute__((malloc, format(printf, 1, 2)));
/** lc_free(p): free what the functions above gave; NULL is fine. */
void lc_free(void *p);

/** lc_buf_reserve(b, more): room for `more` further bytes.  Returns 0 or LC_ENOMEM. */
int lc_buf_reserve(struct lc_buf *b, size_t more);
/** lc_buf_append(b, p, n): append a copy.  Returns 0 or LC_ENOMEM. */
int lc_buf_append(struct lc_buf *b, const void *p, size_t n);
/** lc_buf_printf(b, fmt, ...): append formatted text (a NUL follows, not counted in n). */
int lc_buf_printf(struct lc_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/** lc_buf_free(b): release; b is empty afterwards. */
void lc_buf_free(struct lc_buf *b);

/**
 * lc_alloc_fail_after(n):
 * For tests: the n-th allocation from now on (0 = the next) and all after it
 * fail; a negative n turns that off.
 */
void lc_alloc_fail_after(long n);

#endif
