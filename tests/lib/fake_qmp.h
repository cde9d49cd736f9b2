/**
 * fake_qmp: what QEMU's monitor would be to a client, and what it never should be, on the same
 * loop.
 *
 * It answers every command with {"return": {}} unless told otherwise.  One client at a time.
 */
#ifndef LOCUM_TESTS_FAKE_QMP_H
#define LOCUM_TESTS_FAKE_QMP_H

#include <stddef.h>

struct uv_loop_s;
struct fake_qmp;

#define FAKE_QMP_GREETING                                                                  \
	"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, " \
	"\"package\": \"\"}, "                                                             \
	"\"capabilities\": [\"oob\"]}}\r\n"

/** fake_qmp_new(loop, path): listen there.  Aborts where that fails. */
struct fake_qmp *fake_qmp_new(struct uv_loop_s *loop, const char *path);
/** fake_qmp_greet(f, text): said to a new client instead of FAKE_QMP_GREETING; "" for nothing.
 * Borrowed. */
void fake_qmp_greet(struct fake_qmp *f, const char *text);
/**
 * fake_qmp_on(f, command, reply):
 * What is said to a command from now on: any bytes, each '@' replaced by the command's id; "" for
 * nothing.  Borrowed.
 */
void fake_qmp_on(struct fake_qmp *f, const char *command, const char *reply);
/** fake_qmp_say(f, p, n): say n bytes now. */
void fake_qmp_say(struct fake_qmp *f, const char *p, size_t n);
/** fake_qmp_hang_up(f): close the client's connection; after the next answer where
 * `after_answer`. */
void fake_qmp_hang_up(struct fake_qmp *f, int after_answer);
/** fake_qmp_count(f, command): how often it was received. */
size_t fake_qmp_count(const struct fake_qmp *f, const char *command);
/** fake_qmp_order(f): commands received, one after the other with a blank behind each. */
const char *fake_qmp_order(const struct fake_qmp *f);
/** fake_qmp_fd(f): descriptor that came last, or -1; it is the fake's. */
int fake_qmp_fd(const struct fake_qmp *f);
/** fake_qmp_close(f): freed when the loop has closed its handles. */
void fake_qmp_close(struct fake_qmp *f);

#endif
