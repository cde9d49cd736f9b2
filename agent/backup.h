/**
 * backup: one VM, one restore point (or nothing, and nothing left behind).
 *
 * Asynchronous on the loop; several at once share a store and a capture pool.
 */
#ifndef LOCUM_BACKUP_H
#define LOCUM_BACKUP_H

#include <stdbool.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/store.h"

struct uv_loop_s;
struct backup;
struct capture_pool;
struct lull;
struct settings;

struct backup_opts {
	struct uv_loop_s *loop;
	struct store *store;
	struct capture_pool *pool;
	const struct settings *settings;
	const char *vm;
	bool skip_same; /* a running VM that says what its newest point says gets no new one */
	/** room(room_arg, since_ns): how many bytes may be stored from now on; where they are used
	 * up a pass ends, and the next one begins when there is some again: 0: there is none (it is
	 * asked again and again).  since_ns: when a pass has ended for that (monotonic), or 0.
	 * NULL: as many as it takes. */
	uint64_t (*room)(void *arg, int64_t since_ns);
	void *room_arg;
	/* Of this VM: with skip_same it tells at a glance that nothing is different.  NULL: none.
	 */
	struct lull *lull;
	/* As writer_base_damaged() has it, of this VM; NULL: looked for anew. */
	uint64_t *damage_seen;
};

enum backup_outcome {
	BACKUP_FAILED = 0,
	BACKUP_DONE, /* point is the new one */
	/* Nothing was written (the VM is off or paused, or skip_same): point is the one that still
	 * holds; it shows the VM as it was when the backup began. */
	BACKUP_UNCHANGED,
};

struct backup_result {
	const char *vm;
	enum backup_outcome outcome;
	struct lc_err err;         /* its message begins with the name of the VM */
	struct point point;        /* given: the receiver calls point_done() */
	struct writer_stats stats; /* of all passes */
	unsigned passes;
	bool full;             /* no base: everything was new */
	unsigned scanned;      /* disks that were read as a whole and compared */
	char why_scanned[256]; /* of the first of them */
	int64_t took_ns;
};

/** backup_start(o, done, arg, out, e): e as in a result; o and what it points to are borrowed until
 * done.  Loop thread only. */
int backup_start(const struct backup_opts *o, void (*done)(void *arg, struct backup_result *result),
                 void *arg, struct backup **out, struct lc_err *e);
/** backup_name(e, vm): put the name in front of the message, unless that begins with it, or with a
 * disk of it ("vm/disk: "). */
void backup_name(struct lc_err *e, const char *vm);
/** backup_cancel(b): give up soon; done comes with LC_ECANCELED and nothing is left behind. */
void backup_cancel(struct backup *b);

struct backup_progress {
	const char *note;               /* static text */
	uint64_t looked, total, stored; /* bytes */
};
void backup_progress(const struct backup *b, struct backup_progress *out);

#endif
