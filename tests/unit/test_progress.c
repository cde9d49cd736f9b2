/*
 * Progress on a pseudo terminal, read through a small emulator of one: what counts is what a person
 * sees at the end, not which bytes made it.
 */
#include <fcntl.h>
#include <pthread.h>
#include <pty.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "store/base/clock.h"
#include "store/base/log.h"
#include "store/base/progress.h"
#include "tests/lib/unit.h"

enum { ROWS = 10, COLS = 60 };

static int master, old_err;
static char screen[ROWS][COLS + 1];
static int row, col;
static size_t bytes_seen;

static int
open_terminal(void **state)
{
	struct winsize ws = {.ws_row = ROWS, .ws_col = COLS};
	struct termios t;
	int slave;

	(void)state;
	if (openpty(&master, &slave, NULL, NULL, &ws) != 0 || tcgetattr(slave, &t) != 0)
		return -1;
	t.c_oflag |= OPOST | ONLCR;
	(void)tcsetattr(slave, TCSANOW, &t);
	(void)fcntl(master, F_SETFL, O_NONBLOCK);
	old_err = dup(2);
	(void)dup2(slave, 2);
	(void)close(slave);
	(void)setenv("TERM", "xterm", 1);
	memset(screen, 0, sizeof screen);
	row = col = 0;
	bytes_seen = 0;
	return 0;
}

static int
close_terminal(void **state)
{
	(void)state;
	(void)dup2(old_err, 2);
	(void)close(old_err);
	return close(master);
}

static void
scroll(void)
{
	memmove(screen[0], screen[1], sizeof screen - sizeof screen[0]);
	memset(screen[ROWS - 1], 0, sizeof screen[0]);
	row = ROWS - 1;
}

static void
show(char c)
{
	if (c == '\r') {
		col = 0;
	} else if (c == '\n') {
		if (++row == ROWS)
			scroll();
	} else {
		assert_true(col < COLS); /* A wrapped line would spoil the count of rows. */
		screen[row][col++] = c;
	}
}

/* ESC [ n A (up) and ESC [ J (erase below) are all that may come. */
static const char *
escape(const char *s)
{
	int n = 0;

	assert_int_equal(s[1], '[');
	for (s += 2; *s >= '0' && *s <= '9'; s++)
		n = 10 * n + (*s - '0');
	if (*s == 'A') {
		row = row > n ? row - n : 0;
	} else {
		assert_int_equal(*s, 'J');
		assert_int_equal(col, 0);
		memset(screen[row], 0, (size_t)(ROWS - row) * sizeof screen[0]);
	}
	return s;
}

static void
look(void)
{
	static char buf[256 << 10];
	size_t len = 0;
	ssize_t n;
	const char *s;

	while ((n = read(master, buf + len, sizeof buf - 1 - len)) > 0)
		len += (size_t)n;
	bytes_seen += len;
	buf[len] = '\0';
	for (s = buf; *s != '\0'; s++) {
		if (*s == '\033')
			s = escape(s);
		else
			show(*s);
	}
}

static void
draws_and_takes_away(void **state)
{
	const struct progress_state s = {
	    .done = 1288490189, .total = 8589934592, .moved = 1 << 20, .note = "reading"};
	struct progress *a, *b;

	(void)state;
	a = progress_new("web01", true);
	b = progress_new("db\033[2J", true); /* Names come from guests. */
	assert_non_null(a);
	assert_non_null(b);
	look();
	assert_memory_equal(screen[0], "web01   ", 8);
	assert_memory_equal(screen[1], "db?[2J  ", 8);
	progress_update(a, &s); /* Too soon to be drawn; the log line below draws. */
	log_text("a message\n");
	look();
	assert_string_equal(screen[0], "a message");
	assert_string_equal(screen[1],
	                    "web01   reading     1.2 GiB of 8.0 GiB   15%  1.0 MiB moved");
	assert_memory_equal(screen[2], "db?", 3);
	assert_int_equal(row, 3);
	progress_free(a);
	look();
	assert_memory_equal(screen[1], "db?", 3);
	assert_string_equal(screen[2], "");
	progress_free(b);
	look();
	assert_string_equal(screen[0], "a message");
	assert_string_equal(screen[1], "");
	assert_int_equal(row, 1);
	assert_int_equal(col, 0);
}

static void
many_tasks_do_not_scroll(void **state)
{
	struct progress *p[3 * ROWS];
	char label[16];
	unsigned i;

	(void)state;
	for (i = 0; i < 3 * ROWS; i++) {
		(void)snprintf(label, sizeof label, "vm%02u", i);
		p[i] = progress_new(label, true);
	}
	look();
	assert_memory_equal(screen[0], "vm00", 4);
	assert_string_equal(screen[ROWS - 2], "and 22 more");
	assert_string_equal(screen[ROWS - 1], "");
	for (i = 0; i < 3 * ROWS; i++)
		progress_free(p[i]);
	look();
	for (i = 0; i < ROWS; i++)
		assert_string_equal(screen[i], "");
	assert_int_equal(row, 0);
}

static void
long_lines_do_not_wrap(void **state)
{
	const struct progress_state s = {.done = 1,
	                                 .note = "a very long note that never ends, "
	                                         "and goes on beyond any terminal"};
	struct progress *p = progress_new("a-name-that-is-rather-long-for-a-machine-but-legal",
	                                  true);

	(void)state;
	progress_update(p, &s);
	log_text("x\n");
	look(); /* show() asserts. */
	assert_int_equal(strlen(screen[1]), COLS - 1);
	progress_free(p);
	look();
	assert_string_equal(screen[1], "");
}

static void
draws_five_times_a_second_at_most(void **state)
{
	struct progress_state s = {.total = 1000000};
	struct progress *p = progress_new("web01", true);
	size_t first;

	(void)state;
	look();
	first = bytes_seen;
	for (s.done = 0; s.done < 10000; s.done++)
		progress_update(p, &s);
	look();
	assert_true(bytes_seen - first < 20 * 100); /* Far from 10000 drawings. */
	progress_free(p);
}

struct noise {
	struct progress *p;
	int id;
};

static void *
make_noise(void *arg)
{
	struct noise *n = arg;
	struct progress_state s = {.total = 100};

	for (s.done = 0; s.done < 5; s.done++) {
		char line[40];

		progress_update(n->p, &s);
		(void)snprintf(line, sizeof line, "line %d of thread %d\n", (int)s.done, n->id);
		log_text(line);
	}
	return NULL;
}

static void
log_lines_are_not_torn(void **state)
{
	struct noise noise[2];
	pthread_t t[2];
	unsigned whole = 0;
	int i, a, b;
	char c;

	(void)state;
	for (i = 0; i < 2; i++) {
		noise[i] = (struct noise){.p = progress_new("vm", true), .id = i};
		assert_int_equal(pthread_create(&t[i], NULL, make_noise, &noise[i]), 0);
	}
	for (i = 0; i < 2; i++)
		assert_int_equal(pthread_join(t[i], NULL), 0);
	for (i = 0; i < 2; i++)
		progress_free(noise[i].p);
	look();
	/* 10 lines and the two of progress scrolled; all that is left are whole lines. */
	for (i = 0; i < ROWS && screen[i][0] != '\0'; i++) {
		assert_int_equal(sscanf(screen[i], "line %d of thread %d%c", &a, &b, &c), 2);
		whole++;
	}
	assert_in_range(whole, ROWS - 3, ROWS);
}

static void
a_stopped_terminal_holds_nothing_up(void **state)
{
	struct progress_state s = {.total = 1 << 30};
	struct progress *p = progress_new("web01", true);
	int64_t until_ns;
	size_t first;

	(void)state;
	look();
	first = bytes_seen;
	assert_int_equal(tcflow(2, TCOOFF), 0); /* As Ctrl-S does. */
	(void)alarm(20);                        /* Else it would hang for ever. */
	for (until_ns = clock_mono_ns() + 300 * LC_NS_PER_MS; clock_mono_ns() < until_ns; s.done++)
		progress_update(p, &s);
	look();
	assert_int_equal(bytes_seen, first);
	assert_int_equal(tcflow(2, TCOON), 0);
	(void)alarm(0);
	progress_free(p);
}

static void
nothing_without_a_terminal(void **state)
{
	int fds[2];
	char c;

	(void)state;
	assert_int_equal(pipe2(fds, O_NONBLOCK), 0);
	old_err = dup(2);
	(void)dup2(fds[1], 2);
	assert_null(progress_new("web01", true));
	progress_update(NULL, &(struct progress_state){.done = 1});
	progress_free(NULL);
	(void)dup2(old_err, 2);
	(void)close(old_err);
	(void)close(fds[1]);
	assert_int_equal(read(fds[0], &c, 1), 0);
	(void)close(fds[0]);
}

static void
nothing_where_it_is_not_wanted(void **state)
{
	(void)state;
	assert_null(progress_new("web01", false));
	(void)setenv("TERM", "dumb", 1);
	assert_null(progress_new("web01", true));
	(void)unsetenv("TERM");
	assert_null(progress_new("web01", true));
	look();
	assert_int_equal(bytes_seen, 0);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, open_terminal, close_terminal)
	    T(draws_and_takes_away),           T(many_tasks_do_not_scroll),
	    T(long_lines_do_not_wrap),         T(draws_five_times_a_second_at_most),
	    T(log_lines_are_not_torn),         T(a_stopped_terminal_holds_nothing_up),
	    T(nothing_where_it_is_not_wanted), cmocka_unit_test(nothing_without_a_terminal),
	};

	int slave;

	if (openpty(&master, &slave, NULL, NULL, NULL) != 0) {
		(void)puts("SKIP: this machine gives no pseudo terminals");
		return 77;
	}
	(void)close(master);
	(void)close(slave);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
