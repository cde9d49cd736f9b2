/*
 * How alive a guest is, from outside.  The stronger the sign, the less a machine that hangs in its
 * BIOS or died while booting can show it: the agent speaks for user space, a login prompt for its
 * start, lines on the console for a kernel, a steady picture only for something that has drawn it.
 *
 * A picture alone would take "No bootable device" for a success.  So for a BIOS guest it counts
 * only with paging switched on, which the BIOS never does and every kernel does first of all. (UEFI
 * firmware has paging on: there it stays weak.)
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/memory.h"

#include "agent/hypervisor/guestagent.h"
#include "agent/hypervisor/launch.h"
#include "agent/hypervisor/launch_talk.h"
#include "agent/hypervisor/screen.h"

#define TURN_MS 100
#define CONSOLE_MAX (1u << 20) /* read of the console, from its start */
#define SCREEN_EVERY_NS (2 * LC_NS_PER_S)
#define STRONGER_NS (5 * LC_NS_PER_S) /* waited for a better sign than lines on the console */
#define STRONGER_SCREEN_NS \
	(20 * LC_NS_PER_S) /* and than a picture, which a slow kernel leaves to the BIOS */
#define MONITOR_MS 2000
#define CONSOLE_LINES 3
#define CR0_PG UINT64_C(0x80000000)

struct life {
	const char *dir, *pattern;
	int64_t started_ns;
	struct launch_sign *sign;
	struct talk *talk;
	struct guestagent *agent;
	struct lc_buf picture; /* the last one */
	int64_t pictured_ns, weak_ns;
	char line[96]; /* last of the console, for messages */
};

static int64_t
ms_since_start(const struct life *l)
{
	return (clock_mono_ns() - l->started_ns) / LC_NS_PER_MS;
}

static void
see(struct life *l, enum launch_life what, const char *text)
{
	if (what <= l->sign->best)
		return;
	l->sign->best = what;
	l->sign->life_ms = ms_since_start(l);
	(void)snprintf(l->sign->what, sizeof l->sign->what, "%s", text);
	l->weak_ns = clock_mono_ns();
}

static bool
file_of(const struct life *l, const char *name, char path[PATH_MAX])
{
	int n = snprintf(path, PATH_MAX, "%s/%s", l->dir, name);

	return n > 0 && n < PATH_MAX;
}

/* ---- console ---- */

/* Printable part of a line, without the escape sequences of a terminal. */
static void
copy_line(char *dst, size_t size, const char *s, size_t n)
{
	size_t i, k = 0;

	for (i = 0; i < n && k + 1 < size; i++) {
		if (s[i] == '\x1b' && i + 1 < n && s[i + 1] == '[') {
			for (i += 2; i < n && (s[i] < '@' || s[i] > '~');)
				i++;
		} else if (s[i] >= ' ' && s[i] <= '~') {
			dst[k++] = s[i];
		}
	}
	dst[k] = '\0';
}

/* The line of text that holds `word`. */
static void
line_around(char *dst, size_t size, const char *text, size_t n, const char *word)
{
	const char *first = word, *last = word;

	while (first > text && first[-1] != '\n')
		first--;
	while (last < text + n && *last != '\n')
		last++;
	copy_line(dst, size, first, (size_t)(last - first));
}

static unsigned
count_lines(struct life *l, const char *text, size_t n)
{
	unsigned lines = 0;
	size_t i, from = 0;

	for (i = 0; i <= n; i++) {
		char line[sizeof l->line];

		if (i < n && text[i] != '\n')
			continue;
		copy_line(line, sizeof line, text + from, i - from);
		if (line[0] != '\0') {
			memcpy(l->line, line, sizeof l->line);
			lines++;
		}
		from = i + 1;
	}
	return lines;
}

static int
look_at_console(struct life *l, struct lc_err *e)
{
	static const char *const prompts[] = {"login:", "SEQ start"};
	static const char panic[] = "Kernel panic - not syncing";
	struct lc_buf text = {0};
	char path[PATH_MAX], line[96], what[sizeof l->sign->what];
	const char *hit = NULL;
	size_t i;
	int rc = 0, fd = -1;
	ssize_t got = 0;

	if (file_of(l, "serial.log", path))
		fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd != -1 && lc_buf_reserve(&text, CONSOLE_MAX + 1) == 0)
		got = read(fd, text.p, CONSOLE_MAX);
	fd_close(&fd);
	if (got <= 0)
		goto out;
	text.n = (size_t)got;
	for (i = 0; i < text.n; i++) { /* so that string functions see all of it */
		if (text.p[i] == '\0')
			text.p[i] = ' ';
	}
	text.p[text.n] = '\0';
	if (l->pattern != NULL) {
		hit = strstr((const char *)text.p, l->pattern);
	} else {
		for (i = 0; hit == NULL && i < sizeof prompts / sizeof prompts[0]; i++)
			hit = strstr((const char *)text.p, prompts[i]);
	}
	if (hit != NULL) {
		line_around(line, sizeof line, (const char *)text.p, text.n, hit);
		(void)snprintf(what, sizeof what, "serial: %s", line);
		if (l->sign->best == LAUNCH_LIFE_SERIAL) /* so far lines that say less */
			l->sign->best = LAUNCH_LIFE_NONE;
		see(l, LAUNCH_LIFE_SERIAL, what);
		l->weak_ns = 0;
	} else if ((hit = strstr((const char *)text.p, panic)) != NULL) {
		line_around(line, sizeof line, (const char *)text.p, text.n, hit);
		rc = lc_fail(e, LC_EPEER, 0, "the guest's kernel died: %s", line);
	} else if (count_lines(l, (const char *)text.p, text.n) >= CONSOLE_LINES &&
	           l->pattern == NULL) {
		(void)snprintf(what, sizeof what, "serial: %s", l->line);
		see(l, LAUNCH_LIFE_SERIAL, what);
	}
out:
	lc_buf_free(&text);
	return rc;
}

/* ---- agent ---- */

static void
look_for_agent(struct life *l)
{
	char path[PATH_MAX];
	int rc;

	if (l->agent == NULL && file_of(l, LAUNCH_AGENT, path))
		(void)guestagent_open(path, &l->agent, NULL);
	if (l->agent == NULL)
		return;
	rc = guestagent_sync(l->agent, 0, NULL);
	if (rc == 0)
		see(l, LAUNCH_LIFE_AGENT, "guest agent answers");
	if (rc == LC_EPEER) {
		guestagent_close(l->agent);
		l->agent = NULL;
	}
}

/* ---- screen ---- */

/* A picture of the screen in l->dir/screen.ppm.  QEMU may not write there itself, so it is given
 * the file. */
static int
take_picture(struct life *l, struct lc_buf *out)
{
	struct qmp_batch *b = talk_batch(l->talk);
	char path[PATH_MAX], name[64];
	uint64_t set = 0;
	int rc = LC_ENOMEM, fd = -1;

	if (b == NULL || !file_of(l, "screen.ppm", path))
		goto out;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	(void)qmp_batch_add_fd(b, "add-fd", qmp_pack("{}"), fd);
	rc = fd == -1 ? LC_EIO : talk_run(l->talk, b, NULL);
	if (rc != 0 || !qmp_u64(qmp_reply(b, 0), "fdset-id", &set))
		goto out;
	qmp_batch_free(b);
	b = talk_batch(l->talk);
	rc = LC_ENOMEM;
	if (b == NULL)
		goto out;
	(void)snprintf(name, sizeof name, "/dev/fdset/%" PRIu64, set);
	(void)qmp_batch_add(b, "screendump", qmp_pack("{s:s}", "filename", name));
	qmp_batch_may_fail(b);
	(void)qmp_batch_add(b, "remove-fd", qmp_pack("{s:I}", "fdset-id", (int64_t)set));
	rc = talk_run(l->talk, b, NULL);
	if (rc == 0 && qmp_reply(b, 0) == NULL)
		rc = LC_EPEER;
	if (rc == 0)
		rc = file_read_all(path, SCREEN_BYTES_MAX, out, NULL);
out:
	qmp_batch_free(b);
	fd_close(&fd);
	return rc;
}

/* Whether CPU 0 has paging on, from "CR0=80050033" in what the human monitor says of registers. */
static bool
has_paging(struct life *l)
{
	struct qmp_batch *b = talk_batch(l->talk);
	const char *text = NULL, *cr0;
	bool on = false;

	if (b == NULL)
		return false;
	(void)qmp_batch_add(b, "human-monitor-command",
	                    qmp_pack("{s:s}", "command-line", "info registers"));
	if (talk_run(l->talk, b, NULL) == 0)
		text = qmp_str(qmp_reply(b, 0), "");
	cr0 = text == NULL ? NULL : strstr(text, "CR0=");
	if (cr0 != NULL)
		on = (strtoull(cr0 + 4, NULL, 16) & CR0_PG) != 0;
	qmp_batch_free(b);
	return on;
}

static void
look_at_screen(struct life *l)
{
	struct lc_buf now = {0};
	struct screen a, b;
	char what[sizeof l->sign->what];

	if (clock_mono_ns() - l->pictured_ns < SCREEN_EVERY_NS)
		return;
	l->pictured_ns = clock_mono_ns();
	if (take_picture(l, &now) != 0)
		return;
	if (screen_parse(now.p, now.n, &b, NULL) == 0 && !screen_blank(&b) && l->picture.n > 0 &&
	    screen_parse(l->picture.p, l->picture.n, &a, NULL) == 0 && screen_same(&a, &b) &&
	    has_paging(l)) {
		(void)snprintf(what, sizeof what, "screen: steady picture, %ux%u", b.width,
		               b.height);
		see(l, LAUNCH_LIFE_SCREEN, what);
	}
	lc_buf_free(&l->picture);
	l->picture = now;
}

/* ---- all of it ---- */

static void
look_at_cpus(struct life *l)
{
	struct qmp_batch *b = talk_batch(l->talk);

	if (b == NULL)
		return;
	(void)qmp_batch_add(b, "query-status", qmp_pack("{}"));
	if (talk_run(l->talk, b, NULL) == 0 && qmp_true(qmp_reply(b, 0), "running"))
		l->sign->exec_ms = ms_since_start(l);
	qmp_batch_free(b);
}

/* The monitor, if it can be had now: somebody else may hold it, and signs without it are the better
 * ones. */
static void
look_at_monitor(struct life *l)
{
	char path[PATH_MAX];

	if (l->talk == NULL && file_of(l, LAUNCH_MONITOR_OWN, path))
		(void)talk_open(path, MONITOR_MS, &l->talk, NULL);
	if (l->talk == NULL)
		return;
	if (l->sign->exec_ms == 0)
		look_at_cpus(l);
	if (l->pattern == NULL)
		look_at_screen(l);
}

static bool
is_enough(const struct life *l)
{
	int64_t waited_ns = clock_mono_ns() - l->weak_ns;

	switch (l->sign->best) {
	case LAUNCH_LIFE_NONE:
		return false;
	case LAUNCH_LIFE_SCREEN:
		return waited_ns >= STRONGER_SCREEN_NS;
	case LAUNCH_LIFE_SERIAL:
		return l->weak_ns == 0 || waited_ns >= STRONGER_NS;
	case LAUNCH_LIFE_AGENT:
		break;
	}
	return true;
}

static int
look(struct life *l, struct lc_err *e)
{
	int rc;

	if (!launch_alive(l->dir, NULL))
		return lc_fail(e, LC_EPEER, 0,
		               "QEMU ended while the guest was booting; see %s/qemu.log", l->dir);
	rc = look_at_console(l, e);
	if (rc != 0 || is_enough(l))
		return rc;
	if (l->pattern == NULL)
		look_for_agent(l);
	look_at_monitor(l);
	return 0;
}

static int
fail_silent(const struct life *l, int64_t timeout_ms, struct lc_err *e)
{
	if (l->line[0] == '\0')
		return lc_fail(e, LC_ETIMEDOUT, 0,
		               "no sign of life within %" PRId64 " s; nothing on the console",
		               timeout_ms / 1000);
	return lc_fail(e, LC_ETIMEDOUT, 0,
	               "no sign of life within %" PRId64 " s; last on the console: %s",
	               timeout_ms / 1000, l->line);
}

int
launch_wait_alive(const char *dir, int64_t started_mono_ns, const char *serial_pattern,
                  int64_t timeout_ms, struct launch_sign *out, struct lc_err *e)
{
	struct life l = {.dir = dir,
	                 .pattern = serial_pattern,
	                 .started_ns = started_mono_ns,
	                 .sign = out,
	                 .pictured_ns = clock_mono_ns()};
	int64_t end_ns = clock_mono_ns() + timeout_ms * LC_NS_PER_MS;
	const struct timespec nap = {.tv_nsec = TURN_MS * LC_NS_PER_MS};
	int rc;

	*out = (struct launch_sign){.best = LAUNCH_LIFE_NONE};
	for (;;) {
		rc = look(&l, e);
		if (rc != 0 || is_enough(&l))
			break;
		if (clock_mono_ns() >= end_ns) {
			rc = out->best == LAUNCH_LIFE_NONE ? fail_silent(&l, timeout_ms, e) : 0;
			break;
		}
		(void)nanosleep(&nap, NULL);
	}
	guestagent_close(l.agent);
	talk_close(l.talk);
	lc_buf_free(&l.picture);
	return rc;
}
