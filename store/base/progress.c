/*
 * The terminal is one, whatever number of tasks draw on it, so the list of lines is global here.
 *
 * Lines are drawn as a block that ends with the cursor at the start of the row below it.  To draw
 * again or to take the block away the cursor goes up by the number of rows drawn and all below is
 * erased.  No mode of the terminal is ever changed (no hidden cursor, no scroll region): a process
 * that is killed leaves nothing behind but its last lines.
 *
 * Lock order: the lock of log, then the lock here.  Nothing here logs with its lock held.
 */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "store/base/clock.h"
#include "store/base/config.h"
#include "store/base/log.h"
#include "store/base/memory.h"
#include "store/base/progress.h"

#define REDRAW_NS (LC_NS_PER_S / 5)

enum { LABEL_MAX = 40, LINE_BYTES = 256 };

struct progress {
	struct progress *next;
	char label[LABEL_MAX];
	struct progress_state state;
	int64_t rate_at_ns; /* when `rate_done` was looked at */
	uint64_t rate_done;
	double rate_Bps; /* smoothed; 0 = not known yet */
};

/* Guards all below and every task's fields. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct progress *tasks;
static unsigned drawn_rows;
static int64_t drawn_at_ns;

/* Rows and columns change while we run; 80x24 where the terminal does not say. */
static void
terminal_size(unsigned *rows, unsigned *cols)
{
	struct winsize ws = {0};

	*rows = 24;
	*cols = 80;
	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_row > 1 && ws.ws_col > 1) {
		*rows = ws.ws_row;
		*cols = ws.ws_col;
	}
}

static void
write_all(const struct lc_buf *b)
{
	size_t done = 0;

	while (done < b->n) {
		ssize_t w = write(STDERR_FILENO, b->p + done, b->n - done);

		if (w <= 0)
			return; /* The next drawing repairs it. */
		done += (size_t)w;
	}
}

/* False while the terminal is stopped (Ctrl-S) or its other end is slow: a line that is only nice
 * to have must not hold up a backup, and the snapshot under it. */
static bool
terminal_takes(void)
{
	struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};

	return poll(&p, 1, 0) == 1 && (p.revents & POLLOUT) != 0;
}

static void
put_clear(struct lc_buf *b)
{
	if (drawn_rows > 0)
		(void)lc_buf_printf(b, "\r\033[%uA\033[J", drawn_rows);
	drawn_rows = 0;
}

/* A line that is wider than the terminal would wrap, and the rows would not be what was counted. */
static size_t
fit(const char *line, unsigned cols)
{
	size_t n = 0;
	unsigned used = 0;

	while (line[n] != '\0') {
		if (((unsigned char)line[n] & 0xc0) != 0x80 && used++ == cols - 1)
			break;
		n++;
	}
	return n;
}

static void
format_line(const struct progress *p, char *line, size_t size, int width)
{
	const struct progress_state *s = &p->state;
	char done[32], total[32], moved[32], rate[32], left[32];
	int n;

	n = snprintf(line, size, "%-*s  %-10s  %s", width, p->label, s->note == NULL ? "" : s->note,
	             size_format(done, sizeof done, s->done));
	if (n < 0 || (size_t)n >= size)
		return;
	if (s->total > 0) {
		uint64_t done_clipped = s->done < s->total ? s->done : s->total;

		n += snprintf(line + n, size - (size_t)n, " of %s  %3u%%",
		              size_format(total, sizeof total, s->total),
		              (unsigned)((double)done_clipped * 100.0 / (double)s->total));
	}
	if (s->moved > 0 && (size_t)n < size)
		n += snprintf(line + n, size - (size_t)n, "  %s moved",
		              size_format(moved, sizeof moved, s->moved));
	if (p->rate_Bps < 1 || (size_t)n >= size)
		return;
	n += snprintf(line + n, size - (size_t)n, "  %s/s",
	              size_format(rate, sizeof rate, (uint64_t)p->rate_Bps));
	if (s->total > s->done && (size_t)n < size) {
		double left_s = (double)(s->total - s->done) / p->rate_Bps;

		if (left_s < 365.0 * 86400)
			(void)snprintf(line + n, size - (size_t)n, "  %s left",
			               clock_format_duration(left, sizeof left,
			                                     (int64_t)left_s * LC_NS_PER_S));
	}
}

static void
put_block(struct lc_buf *b)
{
	const struct progress *p;
	unsigned rows, cols, shown = 0, hidden = 0;
	int width = 0;

	terminal_size(&rows, &cols);
	for (p = tasks; p != NULL; p = p->next) {
		int n = (int)strlen(p->label);

		width = n > width ? n : width;
	}
	for (p = tasks; p != NULL; p = p->next) {
		char line[LINE_BYTES];

		/* The cursor's row and the row of "more" must fit too, or the block would scroll.
		 */
		if (shown + 2 >= rows && p->next != NULL) {
			hidden++;
			continue;
		}
		if (hidden > 0) {
			hidden++;
			continue;
		}
		format_line(p, line, sizeof line, width);
		if (lc_buf_append(b, line, fit(line, cols)) != 0 || lc_buf_append(b, "\n", 1) != 0)
			break;
		shown++;
	}
	if (hidden > 0 && lc_buf_printf(b, "and %u more\n", hidden) == 0)
		shown++;
	drawn_rows = shown;
	drawn_at_ns = clock_mono_ns();
}

static void
redraw(void)
{
	struct lc_buf b = {0};

	put_clear(&b);
	put_block(&b);
	write_all(&b);
	lc_buf_free(&b);
}

/* Around each log line; the lock is held from the one to the other, so that nobody draws between.
 */
static void
on_log_line(bool before)
{
	struct lc_buf b = {0};

	if (before) {
		(void)pthread_mutex_lock(&lock);
		put_clear(&b);
		write_all(&b);
		lc_buf_free(&b);
		return;
	}
	if (tasks != NULL)
		redraw();
	(void)pthread_mutex_unlock(&lock);
}

static bool
terminal_can(void)
{
	const char *term = getenv("TERM"); /* NOLINT(concurrency-mt-unsafe) */

	return isatty(STDERR_FILENO) && term != NULL && strcmp(term, "dumb") != 0;
}

struct progress *
progress_new(const char *label, bool enabled)
{
	struct progress *p, **at;
	size_t i;

	if (!enabled || !terminal_can())
		return NULL;
	p = lc_alloc(sizeof *p);
	if (p == NULL)
		return NULL; /* A backup does not fail for want of a line. */
	(void)snprintf(p->label, sizeof p->label, "%s", label);
	for (i = 0; p->label[i] != '\0'; i++) {
		unsigned char c = (unsigned char)p->label[i];

		if (c < 0x20 || c == 0x7f)
			p->label[i] = '?';
	}
	p->rate_at_ns = clock_mono_ns();
	log_set_hook(on_log_line);
	(void)pthread_mutex_lock(&lock);
	for (at = &tasks; *at != NULL;)
		at = &(*at)->next;
	*at = p;
	redraw();
	(void)pthread_mutex_unlock(&lock);
	return p;
}

/* Smoothed over some seconds: a rate that jumps five times a second cannot be read. */
static void
update_rate(struct progress *p, int64_t now_ns)
{
	double dt = (double)(now_ns - p->rate_at_ns) / (double)LC_NS_PER_S;
	double now_Bps, weight;

	if (dt < 0.2)
		return;
	now_Bps = p->state.done > p->rate_done ? (double)(p->state.done - p->rate_done) / dt : 0;
	weight = dt / (dt + 2.0);
	p->rate_Bps = p->rate_Bps < 1 ? now_Bps : p->rate_Bps + weight * (now_Bps - p->rate_Bps);
	p->rate_at_ns = now_ns;
	p->rate_done = p->state.done;
}

void
progress_update(struct progress *p, const struct progress_state *s)
{
	int64_t now_ns;

	if (p == NULL)
		return;
	now_ns = clock_mono_ns();
	(void)pthread_mutex_lock(&lock);
	p->state = *s;
	update_rate(p, now_ns);
	if (now_ns - drawn_at_ns >= REDRAW_NS && terminal_takes())
		redraw();
	(void)pthread_mutex_unlock(&lock);
}

void
progress_free(struct progress *p)
{
	struct progress **at;

	if (p == NULL)
		return;
	(void)pthread_mutex_lock(&lock);
	for (at = &tasks; *at != NULL && *at != p;)
		at = &(*at)->next;
	if (*at == p)
		*at = p->next;
	redraw();
	(void)pthread_mutex_unlock(&lock);
	lc_free(p);
}
