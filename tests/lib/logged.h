/**
 * logged: the log of this process, to look into.
 */
#ifndef LOCUM_TESTS_LOGGED_H
#define LOCUM_TESTS_LOGGED_H

#include <uv.h>

/** logged_begin(state), logged_end(state): set-up and tear-down of a group: stderr goes where it
 * can be looked into, and is shown if a test has failed. */
int logged_begin(void **state);
int logged_end(void **state);
/** logged_wait(loop, text): until that is in the log, behind what was found before; the test fails
 * after 30 s. */
void logged_wait(uv_loop_t *loop, const char *text);

#endif
