/**
 * steward: the stores of a replica, seen from its desk (store/desk/desk.h): another command works
 * on one while its host is connected.
 */
#ifndef LOCUM_STEWARD_H
#define LOCUM_STEWARD_H

#include "store/base/errors.h"
#include "store/desk/desk.h"

struct steward;
struct stores;
struct uv_loop_s;

#define STEWARD_FILE "replica.sock"

/** steward_open(loop, dir, stores, out, e): a desk at dir/STEWARD_FILE, where dir is the replica's
 * folder, and for the stores below it.  Thread: loop. */
int steward_open(struct uv_loop_s *loop, const char *dir, struct stores *stores,
                 struct steward **out, struct lc_err *e);
/**
 * steward_watch(w, look, arg):
 * look(arg, dir, s) comes when something was done to the store in that folder, on the desk's
 * thread.  Thread: loop; before anybody asks.
 */
void steward_watch(struct steward *w, void (*look)(void *arg, const char *dir, struct store *s),
                   void *arg);
/** steward_close(w, closed, arg): as desk_close(); NULL: closed() comes at once. */
void steward_close(struct steward *w, void (*closed)(void *arg), void *arg);

#endif
