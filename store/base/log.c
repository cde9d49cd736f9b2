#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/base/cli.h"
#include "store/base/clock.h"
#include "store/base/log.h"

/* A struct lc_err of 504 bytes with context fits several times. */
enum { LINE_MAX_BYTES = 4096 };

static const struct {
	const char *word;    /* what a person reads */
	const char *journal; /* sd-daemon(3) priority */
} levels[] = {
    [LOG_LV_ERROR] = {"error: ", "<3>"},
    [LOG_LV_WARN] = {"warning: ", "<4>"},
    [LOG_LV_INFO] = {"", "<6>"},
    [LOG_LV_DEBUG] = {"debug: ", "<7>"},
};

static atomic_int max_level = LOG_LV_INFO;
/* Guards line_hook and the order of lines. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void (*line_hook)(bool before);

void
log_set_level(enum log_level level)
{
	atomic_store_explicit(&max_level, (int)level, memory_order_relaxed);
}

bool
log_enabled(enum log_level level)
{
	return (int)level <= atomic_load_explicit(&max_level, memory_order_relaxed);
}

void
log_set_hook(void (*hook)(bool before))
{
	(void)pthread_mutex_lock(&lock);
	line_hook = hook;
	(void)pthread_mutex_unlock(&lock);
}

/* Nothing can be reported where stderr itself fails, so a failed write is let go. */
static void
write_stderr(const char *p, size_t n)
{
	int saved = errno;

	(void)pthread_mutex_lock(&lock);
	if (line_hook != NULL)
		line_hook(true);
	while (n > 0) {
		ssize_t w = write(STDERR_FILENO, p, n);

		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			break;
		p += w;
		n -= (size_t)w;
	}
	if (line_hook != NULL)
		line_hook(false);
	(void)pthread_mutex_unlock(&lock);
	errno = saved;
}

void
log_text(const char *text)
{
	write_stderr(text, strlen(text));
}

static size_t
put_prefix(char *line, size_t size, enum log_level level)
{
	char when[32];
	int n;

	if (isatty(STDERR_FILENO))
		n = snprintf(line, size, "locum: %s", levels[level].word);
	else if (getenv("LOCUM_LOG_JOURNAL") != NULL) /* NOLINT(concurrency-mt-unsafe) */
		n = snprintf(line, size, "%s", levels[level].journal);
	else
		n = snprintf(line, size, "%s locum[%d]: %s",
		             clock_format(when, sizeof when, clock_wall_ns()), (int)getpid(),
		             levels[level].word);
	return n < 0 ? 0 : (size_t)n;
}

static void __attribute__((format(printf, 2, 0)))
log_line(enum log_level level, const char *fmt, va_list ap)
{
	static const char cut[] = "...";
	char line[LINE_MAX_BYTES];
	int saved = errno;
	size_t n, start;
	int m;

	if (!log_enabled(level))
		return;
	start = put_prefix(line, sizeof line, level);
	errno = saved; /* For a %m in fmt. */
	m = vsnprintf(line + start, sizeof line - start, fmt, ap);
	n = start + (m < 0 ? 0 : (size_t)m);
	if (n > sizeof line - 1) {
		n = sizeof line - 1;
		memcpy(line + n - (sizeof cut - 1), cut, sizeof cut - 1);
	}
	line[n] = '\0';
	(void)cli_tame(line + start, n - start, "");
	line[n++] = '\n';
	write_stderr(line, n);
	errno = saved;
}

void
log_error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(LOG_LV_ERROR, fmt, ap);
	va_end(ap);
}

void
log_warn(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(LOG_LV_WARN, fmt, ap);
	va_end(ap);
}

void
log_info(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(LOG_LV_INFO, fmt, ap);
	va_end(ap);
}

void
log_debug(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(LOG_LV_DEBUG, fmt, ap);
	va_end(ap);
}
