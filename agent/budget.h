/**
 * budget: keeps the store within spool_max while a command makes points and sends them.
 *
 * As the agent has it (spool.h, room.h), where the command sends to every replica that this host is
 * paired with; what only some of them get can't be dropped, so then the budget is looked at before
 * points are begun, and contents are dropped at the end.
 *
 * Thread: loop.
 */
#ifndef LOCUM_BUDGET_H
#define LOCUM_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"

struct backup_room;
struct budget;
struct capture_pool;
struct settings;
struct sites;
struct store;
struct uv_loop_s;

struct budget_opts { /* all of it is borrowed until it is gone */
	struct uv_loop_s *loop;
	struct store *store;
	const struct settings *settings;
	const struct capture_pool *pool;
	size_t nto;        /* to how many replicas, each once; 0: to none, then all is kept */
	uint64_t *dropped; /* what was, in bytes, is added to it until the end */
};

/** budget_start(o, out, e): drops what it can, at once.  *out is NULL where there is no budget. */
int budget_start(const struct budget_opts *o, struct budget **out, struct lc_err *e);
/** budget_sites(b, s): where points go; NULL: no more points are made. */
void budget_sites(struct budget *b, const struct sites *s);
/** budget_room(b): for backup_opts; NULL: as much as it takes. */
const struct backup_room *budget_room(const struct budget *b);
/** budget_left(b, since_ns): whether one that found no room then (monotonic; 0: it has not begun)
 * may begin. */
bool budget_left(struct budget *b, int64_t since_ns);
/** budget_waits(b): room may come by and by. */
bool budget_waits(const struct budget *b);
/** budget_stop(b): it is gone when the loop ends; NULL is fine. */
void budget_stop(struct budget *b);
/** budget_trim(store, settings, dropped, spent, e): once, where nobody stays to look after it;
 * what was dropped is added to *dropped. */
int budget_trim(struct store *store, const struct settings *settings, uint64_t *dropped,
                bool *spent, struct lc_err *e);

#endif
