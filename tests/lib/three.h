/**
 * three: a store whose VMs have three points each, with one window changed in each of them.
 *
 * All of it asserts.
 */
#ifndef LOCUM_TESTS_THREE_H
#define LOCUM_TESTS_THREE_H

#include "tests/lib/vault.h"

/** backup(v, vm, d): a new point of a VM with that disk. */
struct point backup(struct vault *v, const char *vm, const struct vault_disk *d);
/** same(v, p, d): what is read of the point is what the disk was. */
void same(struct vault *v, const struct point *p, const struct vault_disk *d);
/** reopen(v), rebuild(v): close and open; the second without a catalog.  catalog_away(v): remove
 * it; the store is closed. */
void reopen(struct vault *v);
void rebuild(struct vault *v);
void catalog_away(struct vault *v);

struct three { /* points of a VM with a disk of three windows */
	struct vault_disk d[3];
	struct point p[3];
};
/** make_three(v, vm, code, t): the codes of the windows begin there. */
void make_three(struct vault *v, const char *vm, uint64_t code, struct three *t);
void free_three(struct three *t);
/** begin_three(v, t), end_three(v, t): a store in which three of web01 are all there is. */
void begin_three(struct vault *v, struct three *t);
void end_three(struct vault *v, struct three *t);

struct told {          /* by a scrub */
	size_t n, bad; /* places; that are not mended */
	struct damage first, last;
	char all[4096];
};
/** scrub(v): what a scrub tells of. */
struct told scrub(struct vault *v);

/* Two VMs, so that there is somebody who must not notice. */
struct pair {
	struct vault v;
	struct three web, db;
};
/** make_pair(x): of web01 and db; the store is closed. */
void make_pair(struct pair *x);
void free_pair(struct pair *x);
/** all_of_db(x): db is as it was made; the store is open. */
void all_of_db(struct pair *x);
/** flags_of(x, p), damaged(x, p): of a point; the latter: POINT_MAP_DAMAGED. */
uint32_t flags_of(struct pair *x, const struct point *p);
bool damaged(struct pair *x, const struct point *p);

#endif
