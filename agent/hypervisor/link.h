/**
 * link: how the monitor of a QEMU is reached: a connected socket over which qmp.c speaks.
 *
 * Two ways, and qmp.c does not care which:
 *
 *     socket    QEMU's own monitor socket; QEMU itself is at the other end
 *     libvirt   a relay (relay.h), a process of its own that carries each command to libvirt, whose
 *               monitor it goes through, and brings back answers and events
 *
 * Both greet, take a line a command, take descriptors with a command, answer in order, and carry
 * out what was sent when we have died.
 */
#ifndef LOCUM_LINK_H
#define LOCUM_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "store/base/errors.h"

struct link_address {
	const char *socket; /* path of the monitor socket, or NULL: */
	const char *uri;    /* libvirt's */
	const char *domain; /* name or UUID; NULL: only what the relay answers itself */
};

struct link {
	int fd;     /* the caller's to close */
	char *name; /* what to call it in messages; free with lc_free() */
	/* What it means that nobody greets (said before and after the name), and its code. */
	const char *silence, *advice;
	const char *other; /* who it is that answers, or does not */
	enum lc_code silence_code;
	bool explains; /* where it does not greet it says why, in an error that answers nothing */
	/* Without more ado the other end carries out what was sent even where we die (else QEMU has
	 * to hold our end for that). */
	bool carries_on;
};

/**
 * link_open(a, timeout_ms, out, e):
 * Connect, or start a relay that connects within timeout_ms.  Does not wait for the other end.
 *
 * Returns    0, or LC_ENOENT (no socket, or nobody listens), LC_EBUSY, LC_EACCES, LC_EINVAL,
 * LC_ENOMEM.
 */
int link_open(const struct link_address *a, int64_t timeout_ms, struct link *out, struct lc_err *e);

#endif
