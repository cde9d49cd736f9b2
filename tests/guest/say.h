/* say: whole lines on the console, from any thread. */
#ifndef TESTS_GUEST_SAY_H
#define TESTS_GUEST_SAY_H

/** say(fmt, ...): print one line (the newline is added) with a single write. */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
