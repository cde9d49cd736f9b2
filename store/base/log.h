/**
 * log: one line per event on stderr, with the <N> prefixes that journald reads
 * when stderr is no terminal and LOCUM_LOG_JOURNAL is set by the unit.
 *
 * A terminal gets "locum: warning: text"; a file or a pipe gets the local time before it.  A line
 * is one write(2), so lines of several processes do not mix; control characters (names that came
 * from guests and peers) are shown as '?'.  errno is left as it was.
 *
 * Only top layers log; lower ones return struct lc_err.  No key, passphrase or whole
 * configuration is ever passed to it.
 */
#ifndef LOCUM_LOG_H
#define LOCUM_LOG_H

#include <stdbool.h>

enum log_level { LOG_LV_ERROR = 0, LOG_LV_WARN, LOG_LV_INFO, LOG_LV_DEBUG };

/** log_set_level(level): what is less urgent than level is dropped; starts at LOG_LV_INFO. */
void log_set_level(enum log_level level);
/** log_enabled(level): whether a line of that level would be written. */
bool log_enabled(enum log_level level);
/** log_error/warn/info/debug(fmt, ...): write a line.  No newline in fmt.  Thread: any. */
void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/**
 * log_text(text):
 * Write text to stderr as it is (it ends in a newline), at every level: for messages that are not
 * log lines but must not tear what progress shows.  Thread: any.
 */
void log_text(const char *text);
/**
 * log_set_hook(hook):
 * Have hook(true) called before each line and hook(false) after it, under the log's own lock, so
 * that progress can take its lines away and put them back.  The hook must not log.  NULL removes
 * it.
 */
void log_set_hook(void (*hook)(bool before));

#endif
