/**
 * tenure: the agent's store, seen from its desk (store/desk/desk.h): used there beside the agent's
 * own work, or lent.
 *
 * Thread: loop, unless it says something else.
 */
#ifndef LOCUM_TENURE_H
#define LOCUM_TENURE_H

#include "store/base/errors.h"
#include "store/desk/desk.h"

struct store;
struct tenure;
struct uv_loop_s;

struct tenure_opts {
	struct uv_loop_s *loop;
	const char *dir; /* of the store */
	void *arg;
	/** wanted(arg, who): somebody wants to have the store for himself: close it and call
	 * tenure_lent(), or tenure_refuse(). */
	void (*wanted)(void *arg, const char *who);
	/** back(arg): it may be opened again. */
	void (*back)(void *arg);
};

int tenure_new(const struct tenure_opts *o, struct tenure **out, struct lc_err *e);
/** tenure_owner(t): for desk_open(). */
struct desk_owner tenure_owner(struct tenure *t);
/** tenure_store(t, s): the store is open, NULL: it is about to be closed; then this blocks until
 * nobody uses it. */
void tenure_store(struct tenure *t, struct store *s);
/** tenure_lent(t): it is closed, for whom wanted() named. */
void tenure_lent(struct tenure *t);
/** tenure_refuse(t, why): whoever wants it does not get it.  Nobody: nothing. */
void tenure_refuse(struct tenure *t, const struct lc_err *why);
/** tenure_close(t): after desk_close() is done; NULL is fine. */
void tenure_close(struct tenure *t);

#endif
