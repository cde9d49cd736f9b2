#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/base/log.h"
#include "tests/lib/unit.h"

static int old_err;
static FILE *caught;
static char text[16384];

static int catch (void **state)
{
	(void)state;
	caught = tmpfile();
	old_err = dup(2);
	(void)unsetenv("LOCUM_LOG_JOURNAL");
	log_set_level(LOG_LV_INFO);
	return dup2(fileno(caught), 2) == 2 ? 0 : -1;
}

/* What was logged since catch(). */
static const char *
release(void)
{
	size_t n;

	(void)dup2(old_err, 2);
	(void)close(old_err);
	rewind(caught);
	n = fread(text, 1, sizeof text - 1, caught);
	text[n] = '\0';
	assert_int_equal(fclose(caught), 0);
	return text;
}

static void
levels_are_dropped(void **state)
{
	(void)state;
	assert_int_equal(setenv("LOCUM_LOG_JOURNAL", "1", 1), 0);
	log_error("e%d", 1);
	log_warn("w");
	log_info("i");
	log_debug("d");
	assert_true(log_enabled(LOG_LV_INFO));
	log_set_level(LOG_LV_ERROR);
	log_warn("dropped");
	assert_false(log_enabled(LOG_LV_WARN));
	log_set_level(LOG_LV_DEBUG);
	log_debug("d");
	assert_string_equal(release(), "<3>e1\n<4>w\n<6>i\n<7>d\n");
}

static void
files_get_the_time(void **state)
{
	int year, pid;
	char word[20], rest[20];

	(void)state;
	log_warn("disk full");
	assert_int_equal(sscanf(release(), "%d-%*d-%*dT%*d:%*d:%*d locum[%d]: %19s %19s", &year,
	                        &pid, word, rest),
	                 4);
	assert_true(year >= 2024);
	assert_int_equal(pid, getpid());
	assert_string_equal(word, "warning:");
	assert_string_equal(rest, "disk");
}

static void
one_event_is_one_line(void **state)
{
	(void)state;
	assert_int_equal(setenv("LOCUM_LOG_JOURNAL", "1", 1), 0);
	/* A guest that names itself to forge a line or to paint the terminal. */
	log_info("vm %s", "x\n<3>forged\033[31m\x7f");
	assert_string_equal(release(), "<6>vm x?<3>forged?[31m?\n");
}

static void
long_lines_are_cut_and_say_so(void **state)
{
	static char big[9000];

	(void)state;
	assert_int_equal(setenv("LOCUM_LOG_JOURNAL", "1", 1), 0);
	memset(big, 'x', sizeof big - 1);
	log_info("%s", big);
	(void)release();
	assert_int_equal(strlen(text), 4096);
	assert_string_equal(text + 4092, "...\n");
}

static void
errno_is_kept(void **state)
{
	(void)state;
	errno = EXDEV;
	log_info("x");
	log_debug("x");
	log_text("plain\n");
	assert_int_equal(errno, EXDEV);
	(void)release();
	assert_non_null(strstr(text, "plain\n"));
}

static unsigned before_calls, after_calls;

static void
hook(bool before)
{
	if (before)
		before_calls++;
	else
		after_calls += before_calls;
}

static void
the_hook_stands_around_each_line(void **state)
{
	(void)state;
	log_set_hook(hook);
	log_info("a");
	log_debug("not written");
	log_text("b\n");
	log_set_hook(NULL);
	log_info("c");
	(void)release();
	assert_int_equal(before_calls, 2);
	assert_int_equal(after_calls, 3); /* 1 + 2: after each. */
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(levels_are_dropped, catch),
	    cmocka_unit_test_setup(files_get_the_time, catch),
	    cmocka_unit_test_setup(one_event_is_one_line, catch),
	    cmocka_unit_test_setup(long_lines_are_cut_and_say_so, catch),
	    cmocka_unit_test_setup(errno_is_kept, catch),
	    cmocka_unit_test_setup(the_hook_stands_around_each_line, catch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
