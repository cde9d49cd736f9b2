#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/must.h"
#include "tests/lib/unit.h"
#include "tests/lib/three.h"

struct point
backup(struct vault *v, const char *vm, const struct vault_disk *d)
{
	struct lc_err e = LC_ERR_INIT;
	struct point p;

	must(vault_backup(v->s, vm, d, 1, &p, &e), &e);
	return p;
}

void
same(struct vault *v, const struct point *p, const struct vault_disk *d)
{
	struct lc_err e = LC_ERR_INIT;

	must(vault_compare(v->s, p->id, d, 1, &e), &e);
	must(vault_verify(v->s, p->id, &e), &e);
}

void
reopen(struct vault *v)
{
	vault_close(v);
	vault_open(v);
}

void
catalog_away(struct vault *v)
{
	(void)unlink(vault_path(v, "catalog.sqlite"));
	(void)unlink(vault_path(v, "catalog.sqlite-wal"));
	(void)unlink(vault_path(v, "catalog.sqlite-shm"));
}

void
rebuild(struct vault *v)
{
	vault_close(v);
	catalog_away(v);
	vault_open(v);
}

void
make_three(struct vault *v, const char *vm, uint64_t code, struct three *t)
{
	size_t i;

	for (i = 0; i < 3; i++) {
		t->d[i] = i == 0 ? vault_disk("vda", 3) : vault_disk_copy(&t->d[i - 1]);
		t->d[i].codes[i] = code + i;
		t->p[i] = backup(v, vm, &t->d[i]);
	}
}

void
free_three(struct three *t)
{
	size_t i;

	for (i = 0; i < 3; i++)
		vault_disk_free(&t->d[i]);
}

void
begin_three(struct vault *v, struct three *t)
{
	vault_make(v, true);
	vault_open(v);
	make_three(v, "web01", 100, t);
}

void
end_three(struct vault *v, struct three *t)
{
	free_three(t);
	vault_free(v);
}

static void
on_damage(void *arg, const struct damage *d)
{
	struct told *t = arg;
	size_t at = strlen(t->all);

	t->bad += !d->mended;
	if (t->n++ == 0)
		t->first = *d;
	t->last = *d;
	(void)snprintf(t->all + at, sizeof t->all - at, "%s|%s|%s\n", d->file, d->what, d->affects);
}

struct told
scrub(struct vault *v)
{
	struct told t = {0};
	uint64_t records, bytes;
	int rc = store_scrub(v->s, on_damage, &t, &records, &bytes, NULL);

	assert_int_equal(rc, t.bad == 0 ? 0 : LC_ECORRUPT);
	return t;
}

void
make_pair(struct pair *x)
{
	vault_make(&x->v, true);
	vault_open(&x->v);
	make_three(&x->v, "web01", 100, &x->web);
	make_three(&x->v, "db", 200, &x->db);
	vault_close(&x->v);
}

void
free_pair(struct pair *x)
{
	free_three(&x->web);
	free_three(&x->db);
	vault_free(&x->v);
}

void
all_of_db(struct pair *x)
{
	size_t i;

	for (i = 0; i < 3; i++)
		same(&x->v, &x->db.p[i], &x->db.d[i]);
}

uint32_t
flags_of(struct pair *x, const struct point *p)
{
	struct lc_err e = LC_ERR_INIT;
	struct point_list l;
	uint32_t flags = UINT32_MAX;
	size_t i;

	must(store_points(x->v.s, NULL, &l, &e), &e);
	for (i = 0; i < l.n; i++) {
		if (memcmp(l.points[i].id, p->id, 16) == 0)
			flags = l.points[i].flags;
	}
	point_list_free(&l);
	return flags;
}

bool
damaged(struct pair *x, const struct point *p)
{
	return (flags_of(x, p) & POINT_MAP_DAMAGED) != 0;
}
