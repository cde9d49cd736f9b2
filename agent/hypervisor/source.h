/**
 * source: an NBD export in the event loop (libnbd), many requests in flight.
 *
 * Happy path: source_open ─► source_extents* ─► source_read* ─► source_close.
 *
 * A request that the server refuses fails alone, and the source lives on.  A server that goes away,
 * breaks the protocol or leaves a request unanswered for timeout_ms breaks the source: every
 * request in flight ends, once, with that reason, and further ones are refused with it.
 *
 * Thread: loop thread only.  A callback may call anything here, source_close() too.
 */
#ifndef LOCUM_SOURCE_H
#define LOCUM_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"

struct hv_file; /* hypervisor.h */
struct uv_loop_s;
struct source;

#define SOURCE_READ_MAX (1u << 20) /* bytes of one read */

struct source_opts {        /* all strings are copied */
	const char *name;   /* "web01/vda", for messages */
	const char *socket; /* unix socket path */
	/* Instead of a server: what was copied into a file; dirty_context then is no name, but not
	 * empty where only changed ranges were copied.  NULL: none. */
	const struct hv_file *file;
	const char *export_name;
	/* Meta context that marks changed ranges; NULL or "": none is wanted. */
	const char *dirty_context;
	int64_t timeout_ms; /* a request unanswered for so long breaks the source; 0 = 30000 */
};

struct source_extent {
	uint64_t off, len; /* bytes */
	bool data;         /* to be read: with dirty_context changed, without it perhaps not zero */
	bool zero;         /* reads as zeros for certain (base:allocation), changed or not */
};

typedef void source_done_cb(void *arg, const struct lc_err *err);
/**
 * extents: borrowed for the call; without gaps they cover [asked offset, some end), where offset <
 * end and end is not after what was asked.  Neighbours differ.  n is 0 only where err is a failure.
 */
typedef void source_extents_cb(void *arg, const struct source_extent *x, size_t n,
                               const struct lc_err *err);

/**
 * source_open(loop, opts, done, arg, out, e):
 * Connect and negotiate.
 *
 * Returns    0 and a handle in *out, or LC_ENOENT (no socket), LC_EPEER (nobody listens),
 *            LC_EINVAL, LC_ENOMEM.
 *            done gets LC_ENOENT where the server has no such export or not the dirty_context
 *            asked for (what changed is then not known, so nothing is assumed), LC_EPEER,
 *            LC_ETIMEDOUT.
 * Ownership: *out is the caller's also when done reports a failure: source_close() it.
 */
int source_open(struct uv_loop_s *loop, const struct source_opts *opts, source_done_cb *done,
                void *arg, struct source **out, struct lc_err *e);
/** source_size(s): bytes, after opening. */
uint64_t source_size(const struct source *s);
/**
 * source_read(s, p, n, off, done, arg, e):
 * Read n bytes (1 to SOURCE_READ_MAX) at off, all within the size.
 *
 * Returns    0, or LC_EINVAL, LC_ENOMEM, or what broke the source.  done gets LC_EIO where the
 *            server refused.
 * Ownership: borrows p until done, or until source_close() was called; from a file, until done.
 */
int source_read(struct source *s, void *p, uint32_t n, uint64_t off, source_done_cb *done,
                void *arg, struct lc_err *e);
/** source_extents(s, off, len, cb, arg, e): one block status request; the answer may cover less. */
int source_extents(struct source *s, uint64_t off, uint64_t len, source_extents_cb *cb, void *arg,
                   struct lc_err *e);
/**
 * source_close(s, closed, arg):
 * Close the connection at once.  Requests in flight then end with LC_ECANCELED, later, from the
 * loop, and after the last of them `closed` (may be NULL) is called.  Once only, and s is not NULL.
 */
void source_close(struct source *s, void (*closed)(void *arg), void *arg);

#endif
