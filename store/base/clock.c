#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "store/base/clock.h"

/* The year 2262, where nanoseconds since 1970 no longer fit, less the day that is added. */
#define MAX_TIME_S (INT64_MAX / LC_NS_PER_S - INT64_C(2) * 86400)

static int64_t
read_clock(clockid_t id)
{
	struct timespec ts;

	if (clock_gettime(id, &ts) != 0)
		return 0;
	return (int64_t)ts.tv_sec * LC_NS_PER_S + ts.tv_nsec;
}

int64_t
clock_wall_ns(void)
{
	const char *shift = getenv("LOCUM_TEST_CLOCK_NS"); /* NOLINT(concurrency-mt-unsafe) */

	return read_clock(CLOCK_REALTIME) + (shift == NULL ? 0 : strtoll(shift, NULL, 10));
}

int64_t
clock_mono_ns(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

bool
clock_wait(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t until_ns)
{
	struct timespec until = {.tv_sec = (time_t)(until_ns / LC_NS_PER_S),
	                         .tv_nsec = (long)(until_ns % LC_NS_PER_S)};

	return pthread_cond_clockwait(cond, lock, CLOCK_MONOTONIC, &until) != ETIMEDOUT;
}

char *
clock_format(char *dst, size_t n, int64_t wall_ns)
{
	time_t t = (time_t)(wall_ns / LC_NS_PER_S);
	struct tm tm;

	if (localtime_r(&t, &tm) == NULL || strftime(dst, n, "%Y-%m-%dT%H:%M:%S", &tm) == 0)
		(void)snprintf(dst, n, "%s", "?");
	return dst;
}

char *
clock_format_utc(char *dst, size_t n, int64_t wall_ns)
{
	time_t t = (time_t)(wall_ns / LC_NS_PER_S);
	struct tm tm;

	if (gmtime_r(&t, &tm) == NULL || strftime(dst, n, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		(void)snprintf(dst, n, "%s", "?");
	return dst;
}

/* Seconds since 1970 of a broken-down time, or -1: no such day (mktime() would take the 30th of
 * February for the 2nd of March), before 1970, or past what nanoseconds can count. */
static int64_t
seconds_of(struct tm tm, bool utc)
{
	int day = tm.tm_mday;
	int64_t t = utc ? timegm(&tm) : mktime(&tm);

	return t < 0 || t > MAX_TIME_S || tm.tm_mday != day ? -1 : t;
}

bool
clock_parse(const char *s, int64_t *out)
{
	/* clang-format off */
	static const struct {
		const char *fmt;
		int64_t span_s; /* the text stands for this many seconds; 0: for a day */
	} forms[] = {
	    {"%Y-%m-%dT%H:%M:%S", 1},
	    {"%Y-%m-%d %H:%M:%S", 1},
	    {"%Y-%m-%dT%H:%M", 60},
	    {"%Y-%m-%d %H:%M", 60},
	    {"%Y-%m-%d", 0},
	};
	/* clang-format on */
	size_t i;

	for (i = 0; i < sizeof forms / sizeof forms[0]; i++) {
		struct tm tm = {.tm_isdst = -1};
		const char *rest = strptime(s, forms[i].fmt, &tm);
		int64_t t;
		bool utc;

		if (rest == NULL || (*rest != '\0' && strcmp(rest, "Z") != 0))
			continue;
		utc = *rest == 'Z';
		t = seconds_of(tm, utc);
		if (t < 0)
			return false;
		if (forms[i].span_s == 0) { /* 23 or 25 hours, twice a year. */
			tm.tm_mday++;
			t = utc ? timegm(&tm) : mktime(&tm);
		}
		*out = (t + forms[i].span_s) * LC_NS_PER_S - 1;
		return true;
	}
	return false;
}

static bool
unit_ns(const char *u, size_t n, int64_t *ns)
{
	/* clang-format off */
	static const struct {
		const char *name;
		int64_t ns;
	} units[] = {
	    {"ms", LC_NS_PER_MS},
	    {"s", LC_NS_PER_S},
	    {"m", 60 * LC_NS_PER_S},
	    {"min", 60 * LC_NS_PER_S},
	    {"h", 3600 * LC_NS_PER_S},
	    {"d", 86400 * LC_NS_PER_S},
	    {"w", INT64_C(7) * 86400 * LC_NS_PER_S},
	};
	/* clang-format on */
	size_t i;

	for (i = 0; i < sizeof units / sizeof units[0]; i++) {
		if (strlen(units[i].name) == n && strncmp(units[i].name, u, n) == 0) {
			*ns = units[i].ns;
			return true;
		}
	}
	return false;
}

bool
clock_parse_duration(const char *s, int64_t *out_ns)
{
	int64_t total = 0;

	if (!isdigit((unsigned char)*s))
		return false;
	while (*s != '\0') {
		char *end;
		int64_t v, ns = LC_NS_PER_S, part;
		size_t n = 0;

		if (!isdigit((unsigned char)*s))
			return false;
		errno = 0;
		v = strtoll(s, &end, 10);
		if (errno != 0)
			return false;
		while (*end == ' ')
			end++;
		while (isalpha((unsigned char)end[n]))
			n++;
		if (n > 0 && !unit_ns(end, n, &ns))
			return false;
		if (__builtin_mul_overflow(v, ns, &part) ||
		    __builtin_add_overflow(total, part, &total))
			return false;
		s = end + n;
		while (*s == ' ')
			s++;
	}
	*out_ns = total;
	return true;
}

char *
clock_format_duration(char *dst, size_t n, int64_t ns)
{
	int64_t s = ns / LC_NS_PER_S;

	if (ns < LC_NS_PER_S)
		(void)snprintf(dst, n, "%" PRId64 " ms", ns / LC_NS_PER_MS);
	else if (s < 60)
		(void)snprintf(dst, n, "%" PRId64 ".%" PRId64 " s", s,
		               ns % LC_NS_PER_S / (LC_NS_PER_S / 10));
	else if (s < 3600)
		(void)snprintf(dst, n, "%" PRId64 " min %" PRId64 " s", s / 60, s % 60);
	else if (s < INT64_C(2) * 86400)
		(void)snprintf(dst, n, "%" PRId64 " h %" PRId64 " min", s / 3600, s % 3600 / 60);
	else
		(void)snprintf(dst, n, "%" PRId64 " days", s / 86400);
	return dst;
}

int64_t
clock_since(int64_t now_ns, int64_t then_ns)
{
	int64_t ns;

	if (!__builtin_sub_overflow(now_ns, then_ns, &ns))
		return ns;
	return now_ns < then_ns ? INT64_MIN : INT64_MAX;
}
