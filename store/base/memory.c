#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/base/memory.h"

/* Allocations left until they fail; negative: never. */
static atomic_long fail_countdown = -1;

static bool
must_fail(void)
{
	long left = atomic_load_explicit(&fail_countdown, memory_order_relaxed);

	if (left < 0)
		return false;
	if (left == 0)
		return true;
	(void)atomic_fetch_sub(&fail_countdown, 1);
	return false;
}

void
lc_alloc_fail_after(long n)
{
	atomic_store(&fail_countdown, n);
}

void *
lc_alloc(size_t n)
{
	return must_fail() ? NULL : calloc(1, n == 0 ? 1 : n);
}

void *
lc_alloc_array(size_t n, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(n, size, &bytes))
		return NULL;
	return lc_alloc(bytes);
}

void *
lc_realloc(void *p, size_t n)
{
	return must_fail() ? NULL : realloc(p, n == 0 ? 1 : n);
}

char *
lc_strdup(const char *s)
{
	size_t n;
	char *copy;

	if (s == NULL)
		return NULL;
	n = strlen(s) + 1;
	copy = lc_alloc(n);
	if (copy != NULL)
		memcpy(copy, s, n);
	return copy;
}

char *
lc_asprintf(const char *fmt, ...)
{
	struct lc_buf b = {0};
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0 || lc_buf_reserve(&b, (size_t)n + 1) != 0)
		return NULL;
	va_start(ap, fmt);
	(void)vsnprintf((char *)b.p, (size_t)n + 1, fmt, ap);
	va_end(ap);
	return (char *)b.p;
}

void
lc_free(void *p)
{
	free(p);
}

int
lc_buf_reserve(struct lc_buf *b, size_t more)
{
	size_t need, cap;
	uint8_t *p;

	if (__builtin_add_overflow(b->n, more, &need))
		return LC_ENOMEM;
	if (need <= b->cap)
		return 0;
	cap = b->cap < 256 ? 256 : b->cap;
	while (cap < need) {
		if (__builtin_mul_overflow(cap, (size_t)2, &cap))
			return LC_ENOMEM;
	}
	p = lc_realloc(b->p, cap);
	if (p == NULL)
		return LC_ENOMEM;
	b->p = p;
	b->cap = cap;
	return 0;
}

int
lc_buf_append(struct lc_buf *b, const void *p, size_t n)
{
	if (lc_buf_reserve(b, n) != 0)
		return LC_ENOMEM;
	if (n > 0)
		memcpy(b->p + b->n, p, n);
	b->n += n;
	return 0;
}

int
lc_buf_printf(struct lc_buf *b, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0 || lc_buf_reserve(b, (size_t)n + 1) != 0)
		return LC_ENOMEM;
	va_start(ap, fmt);
	(void)vsnprintf((char *)b->p + b->n, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->n += (size_t)n;
	return 0;
}

void
lc_buf_free(struct lc_buf *b)
{
	lc_free(b->p);
	*b = (struct lc_buf){0};
}
