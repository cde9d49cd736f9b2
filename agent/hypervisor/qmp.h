/**
 * qmp: a client of QEMU's machine protocol over a unix socket or through libvirt (link.h), in the
 * event loop.
 *
 * Happy path: qmp_open ─► (qmp_batch_new ─► qmp_batch_add* ─► qmp_batch_run ─► done)* ─► qmp_close.
 *
 * A batch is a list of commands that are sent at once and are carried out by QEMU in that order.
 * QEMU does not stop at one that fails: what must not run after a failure goes into the next batch.
 *
 * What comes from the socket is not trusted: a line is at most QMP_LINE_MAX bytes of one JSON
 * object without duplicate keys; a broken line ends the connection with a message.  An answer to a
 * question that was not asked is dropped: QEMU does hand answers meant for a client that died to
 * the next one. QEMU answers in order.  Where the oldest command is not answered in time, it and
 * all that were sent after it fail with LC_ETIMEDOUT; their late answers are dropped.
 *
 * JSON values are jansson's; only qmp.c looks inside, others use qmp_get() and its kin.
 *
 * Thread: loop thread only.  A callback may call anything here, qmp_close() too.
 */
#ifndef LOCUM_QMP_H
#define LOCUM_QMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"

struct uv_loop_s;
struct json_t;
struct qmp;
struct qmp_batch;
struct qmp_memo;

#define QMP_LINE_MAX (8u << 20) /* bytes of one message */

typedef void qmp_done_cb(void *arg, const struct lc_err *err);
/** data: borrowed for the call, NULL where the event has none; at_us: QEMU's wall clock,
 * microseconds. */
typedef void qmp_event_cb(void *arg, const char *name, const struct json_t *data, int64_t at_us);

struct qmp_opts {
	const char *socket;         /* path of the monitor's, or NULL: through libvirt */
	const char *libvirt;        /* URI */
	const char *domain;         /* name or UUID; NULL: only what a relay answers itself */
	int64_t connect_timeout_ms; /* until QEMU has greeted; 0 = 5000 */
	int64_t command_timeout_ms; /* until a command is answered; 0 = 10000 */
	qmp_event_cb *on_event;     /* may be NULL */
	qmp_done_cb *on_lost; /* may be NULL: the connection broke while no qmp_close() was asked
	                         for; comes once, after every batch in flight has failed */
	void *arg;            /* of both */
};

/**
 * qmp_open(loop, opts, done, arg, out, e):
 * Connect, read the greeting, negotiate.
 *
 * Returns    0 and a handle in *out, or LC_ENOENT (no socket, or nobody listens), LC_EBUSY,
 * LC_EACCES, LC_ENOMEM. done gets LC_EBUSY where nobody greets (another client holds the monitor),
 * LC_EINVAL where it is no QMP socket, LC_ETIMEDOUT where QEMU greets but does not answer, or
 * libvirt does not, LC_ENOENT where libvirt has no such domain.
 * Ownership: *out is the caller's also when done reports a failure: qmp_close() it.  The strings of
 * opts are borrowed for the call.
 */
int qmp_open(struct uv_loop_s *loop, const struct qmp_opts *opts, qmp_done_cb *done, void *arg,
             struct qmp **out, struct lc_err *e);
/** qmp_close(q, closed, arg): batches in flight end with LC_ECANCELED first; `closed` may be NULL.
 */
void qmp_close(struct qmp *q, void (*closed)(void *arg), void *arg);
/** qmp_version(q): of QEMU, 70222 for 7.2.22; 0 before it has greeted, and where the domain is off.
 */
unsigned qmp_version(const struct qmp *q);
/** qmp_usable(q): commands can be sent. */
bool qmp_usable(const struct qmp *q);

/** qmp_carries_on(q): what was sent is carried out even if this process dies, whatever it is. */
bool qmp_carries_on(const struct qmp *q);
/** qmp_descriptor(q): of the connection, for a guard process; it stays q's. */
int qmp_descriptor(const struct qmp *q);

/** qmp_batch_new(q): an empty batch, or NULL when out of memory. */
struct qmp_batch *qmp_batch_new(struct qmp *q);
/**
 * qmp_batch_add(b, command, args):
 * Append a command; args is what qmp_pack() gave, or qmp_none().  A failure (args of NULL: a
 * qmp_pack() that failed) is remembered and reported by qmp_batch_run().
 *
 * Returns    the command's index in the batch.
 * Ownership: takes args.
 */
size_t qmp_batch_add(struct qmp_batch *b, const char *command, struct json_t *args);
/** qmp_batch_add_fd(b, command, args, fd): as above with a descriptor, which is duplicated. */
size_t qmp_batch_add_fd(struct qmp_batch *b, const char *command, struct json_t *args, int fd);
/**
 * qmp_batch_survive(b):
 * What is added from now on is carried out even if this process dies as soon as qmp_batch_run() has
 * sent it: QEMU itself holds our end of the connection until the last command of the batch is done.
 */
void qmp_batch_survive(struct qmp_batch *b);
/** qmp_batch_pause(b): the `stop` that is added next will be undone by a `cont`, of this batch or
 * another.  Adds a command, whose answer comes after all events that were before it. */
void qmp_batch_pause(struct qmp_batch *b);
/** qmp_batch_timeout(b, ms): for each command of this batch instead of the connection's. */
void qmp_batch_timeout(struct qmp_batch *b, int64_t ms);
/**
 * qmp_batch_run(b, done, arg, e):
 * Send all, wait for all answers.  done gets the first failure that was not allowed.
 *
 * Returns    0, or LC_ENOMEM, LC_EPEER (the connection is gone).
 * Ownership: b is the caller's until qmp_batch_free(); not before done was called, but within it is
 * fine.
 */
int qmp_batch_run(struct qmp_batch *b, qmp_done_cb *done, void *arg, struct lc_err *e);
/** qmp_batch_may_fail(b): a failure of the command added last is not the batch's. */
void qmp_batch_may_fail(struct qmp_batch *b);
/** qmp_batch_all_may_fail(b): nor is that of any command so far. */
void qmp_batch_all_may_fail(struct qmp_batch *b);
/** qmp_record(q, m): from now on questions and answers are put down in m, which is cleared; NULL:
 * no more. Borrowed until then. */
void qmp_record(struct qmp *q, struct qmp_memo *m);
/** qmp_batch_unnoted(b): a memo leaves the command added last out: what is said to it changes by
 * itself, or stays for as long as the process lives. */
void qmp_batch_unnoted(struct qmp_batch *b);
/**
 * qmp_batch_recall(b, m):
 * Append every question of a memo, borrowed until qmp_batch_free().  Answers that are the same,
 * word for word, are not looked into: there is no qmp_reply().  No failure of one of these is the
 * batch's.
 */
void qmp_batch_recall(struct qmp_batch *b, const struct qmp_memo *m);
/** qmp_batch_differs(b): after it was run, the first of these questions to which something else was
 * said; NULL: there is none. */
const char *qmp_batch_differs(const struct qmp_batch *b);
/** qmp_batch_free(b): NULL is fine.  Frees all replies. */
void qmp_batch_free(struct qmp_batch *b);
struct lc_buf;
/** qmp_batch_text(b, out): append the lines of a batch that is not run, for a guard process.  0 or
 * LC_ENOMEM. */
int qmp_batch_text(const struct qmp_batch *b, struct lc_buf *out);
/** qmp_batch_count(b): number of commands. */
size_t qmp_batch_count(const struct qmp_batch *b);
/** qmp_reply(b, i): what command i returned, or NULL where it failed.  Borrowed until
 * qmp_batch_free(). */
const struct json_t *qmp_reply(const struct qmp_batch *b, size_t i);
/**
 * qmp_reply_err(b, i):
 * The failure of command i (code LC_OK where there is none): LC_ENOENT for class DeviceNotFound,
 * LC_ENOTSUP for CommandNotFound, LC_EPEER for any other refusal; "command: QEMU's text".
 */
const struct lc_err *qmp_reply_err(const struct qmp_batch *b, size_t i);
/** qmp_reply_ns(b, i): monotonic time at which the answer to command i arrived. */
int64_t qmp_reply_ns(const struct qmp_batch *b, size_t i);

/**
 * qmp_pack(fmt, ...):
 * Make a value in jansson's json_pack() notation: {} object, [] list, s string, b bool (int), i
 * int, I int64_t, o value (taken), s* and o* leave the key out for NULL.
 *
 * Returns    a value for qmp_batch_add() or for "o" of another qmp_pack(), or NULL.
 */
struct json_t *qmp_pack(const char *fmt, ...);
/** qmp_none(): for a command without arguments. */
struct json_t *qmp_none(void);
/** qmp_list(): an empty list, or NULL. */
struct json_t *qmp_list(void);
/** qmp_list_add(list, v): append; takes v.  False (and v is gone) when out of memory or either is
 * NULL. */
bool qmp_list_add(struct json_t *list, struct json_t *v);
/** qmp_flags(keys, n, value): an object with that truth value under each of keys[n], or NULL. */
struct json_t *qmp_flags(const char *const *keys, size_t n, bool value);
/** qmp_copy(v): a copy to hand on, or NULL. */
struct json_t *qmp_copy(const struct json_t *v);
/** qmp_list_free(list): for a list that was not handed on.  NULL is fine. */
void qmp_list_free(struct json_t *list);

/* Looking into what came.  Everything is borrowed from the value asked; a NULL value has nothing in
 * it. */
/** qmp_get(v, path): the value at "key.key.key" (keys may not hold dots), or NULL. */
const struct json_t *qmp_get(const struct json_t *v, const char *path);
/** qmp_str(v, path): the string there, or NULL.  An empty path means v itself. */
const char *qmp_str(const struct json_t *v, const char *path);
/** qmp_u64(v, path, out): whether a number >= 0 is there; *out is left alone where not. */
bool qmp_u64(const struct json_t *v, const char *path, uint64_t *out);
/** qmp_true(v, path): whether `true` is there. */
bool qmp_true(const struct json_t *v, const char *path);
/** qmp_flag(v, key, out): whether a truth value is there, by a key that may hold dots; *out is left
 * alone where not. */
bool qmp_flag(const struct json_t *v, const char *key, bool *out);
/** qmp_count(v): elements of a list, 0 for anything else. */
size_t qmp_count(const struct json_t *v);
/** qmp_at(v, i): element of a list, or NULL. */
const struct json_t *qmp_at(const struct json_t *v, size_t i);

/* The line parser, by itself so that it can be fuzzed. */
enum qmp_kind { QMP_GREETING = 1, QMP_RETURN, QMP_ERROR, QMP_EVENT };

struct qmp_message {
	enum qmp_kind kind;
	struct json_t *root;       /* owned: qmp_message_done() */
	const struct json_t *body; /* QMP_RETURN: the value; QMP_ERROR: class and desc; QMP_EVENT:
	                              data or NULL; QMP_GREETING: version */
	const char *event;         /* its name */
	int64_t at_us;             /* of an event */
	uint64_t id;               /* of an answer; 0 where it has none of ours */
};

/** qmp_parse(p, n, out, e): one line without its newline.  LC_EPEER where it is no message of QMP.
 */
int qmp_parse(const char *p, size_t n, struct qmp_message *out, struct lc_err *e);
void qmp_message_done(struct qmp_message *m);

#endif
