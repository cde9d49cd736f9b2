/**
 * clock: wall and monotonic time in nanoseconds, and the texts of both.
 *
 * LOCUM_TEST_CLOCK_NS in the environment shifts the wall clock by that many
 * nanoseconds, so that tests can jump it without touching the machine's.
 */
#ifndef LOCUM_CLOCK_H
#define LOCUM_CLOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LC_NS_PER_S INT64_C(1000000000)
#define LC_NS_PER_MS INT64_C(1000000)

/** clock_wall_ns(): nanoseconds since 1970 (UTC).  Thread: any. */
int64_t clock_wall_ns(void);
/** clock_mono_ns(): nanoseconds since an arbitrary start; never goes back.  Thread: any. */
int64_t clock_mono_ns(void);

/**
 * clock_wait(cond, lock, until_ns):
 * pthread_cond_wait() until clock_mono_ns() is until_ns: false then.  So nobody waits for hours, or
 * not at all, because somebody set the time.  Thread: any, with lock held.
 */
bool clock_wait(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t until_ns);

/** clock_format(dst, n, wall_ns): local time "2026-11-22T05:00:00"; returns dst. */
char *clock_format(char *dst, size_t n, int64_t wall_ns);
/** clock_format_utc(dst, n, wall_ns): "2026-11-22T05:00:00Z", for --json; returns dst. */
char *clock_format_utc(char *dst, size_t n, int64_t wall_ns);
/**
 * clock_parse(s, out):
 * "2026-11-22", "2026-11-22T05:00", with seconds, each local or with a Z for UTC.
 * A text without seconds means the END of that minute (or day), so that
 * "the newest point not after it" is what the reader of the text expects.
 *
 * Returns  true and *out in ns since 1970, or false if s is no such time.
 */
bool clock_parse(const char *s, int64_t *out);
/** clock_parse_duration(s, out_ns): "250ms", "15m", "2h30m", "7d", "90" (s).  False if not one. */
bool clock_parse_duration(const char *s, int64_t *out_ns);
/** clock_format_duration(dst, n, ns): "1.2 s", "3 min 20 s", "4 h 10 min", "6 days"; returns dst.
 */
char *clock_format_duration(char *dst, size_t n, int64_t ns);

/** clock_since(now_ns, then_ns): now - then; the largest or smallest number there is where that is
 * more than 292 years, as of a clock that was wrong. */
int64_t clock_since(int64_t now_ns, int64_t then_ns);

#endif
