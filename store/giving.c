/*
 * A VM of one writer becomes another's (vouch.h), as when it was moved from host to host.
 */
#include <string.h>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/commit.h"
#include "store/store_internal.h"
#include "store/transfer.h"
#include "store/vouch.h"

#define ROWS_AT_ONCE 1024u
#define TRIES 4 /* while its host goes on sending points of it */

struct given_line {
	uint8_t line[16], newest[16]; /* zeros: there is no point */
};

struct giving {
	struct store *s;
	const uint8_t *vm;
	uint16_t writer;
	struct lc_buf lines; /* struct given_line[] */
	bool moved;          /* there were newer points when it was to be committed */
	struct lc_buf list;  /* struct vouch[], for the next record */
	struct map_record rows;
};

static int
no_memory(struct lc_err *e)
{
	return lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

static int
put_vouches(struct giving *g, struct lc_err *e)
{
	struct record r = {.type = RECORD_VOUCH, .writer = g->writer};
	const struct vouch *list = (const struct vouch *)(const void *)g->list.p;
	size_t n = g->list.n / sizeof *list;
	struct lc_buf payload = {0};
	int rc = 0;

	if (n == 0)
		return 0;
	rc = vouch_encode(list, n, &payload, e);
	r.n = (uint32_t)payload.n;
	rc = rc != 0 ? rc : store_append(g->s, &r, payload.p, NULL, e);
	lc_buf_free(&payload);
	g->list.n = 0;
	return rc != 0 ? rc : store_relieve(g->s, e);
}

/* What the writer has already need not be vouched for. */
static int
vouch_one(struct giving *g, struct outgoing *o, uint64_t no, struct lc_err *e)
{
	struct vouch v = {.seq = no};
	uint64_t has;
	int rc = outgoing_id(o, no, v.id, e);

	rc = rc != 0 ? rc : fold_find_whole(g->s->fold, g->writer, v.id, &has, e);
	if (rc != LC_ENOENT)
		return rc;
	if (lc_buf_append(&g->list, &v, sizeof v) != 0)
		return no_memory(e);
	return g->list.n / sizeof v < VOUCH_MAX ? 0 : put_vouches(g, e);
}

/* A content, and what it is made upon: who reads it reads those, too. */
static int
vouch_row(struct giving *g, struct outgoing *o, uint64_t no, struct lc_err *e)
{
	struct map_base b;
	struct lc_buf bases = {0};
	size_t off;
	int rc = outgoing_bases(o, &no, 1, &bases, e);

	for (off = 0; rc == 0 && off < bases.n; off += sizeof b) {
		memcpy(&b, bases.p + off, sizeof b);
		rc = vouch_one(g, o, b.no, e);
	}
	lc_buf_free(&bases);
	return rc != 0 ? rc : vouch_one(g, o, no, e);
}

/* What the newest point of a line has: points to come stand on it. */
static int
vouch_line(struct giving *g, const uint8_t line[16], struct lc_err *e)
{
	struct outgoing *o = NULL;
	size_t i;
	int rc = outgoing_newest(g->s, line, &o, e);

	if (rc == LC_ENOENT) {
		lc_err_clear(e);
		return 0;
	}
	do {
		rc = rc != 0 ? rc : outgoing_rows(o, &g->rows, ROWS_AT_ONCE, e);
		for (i = 0; rc == 0 && i < g->rows.n; i++)
			rc = vouch_row(g, o, g->rows.rows[i].chunk, e);
	} while (rc == 0 && g->rows.n > 0);
	outgoing_free(o);
	return rc;
}

static int
keep_line(void *arg, const uint8_t line[16], const uint8_t vm[16], uint16_t writer,
          struct lc_span sealed, struct lc_err *e)
{
	struct given_line x = {.newest = {0}};
	struct giving *g = arg;

	(void)writer;
	(void)sealed;
	if (memcmp(vm, g->vm, 16) != 0)
		return 0;
	memcpy(x.line, line, 16);
	return lc_buf_append(&g->lines, &x, sizeof x) == 0 ? 0 : no_memory(e);
}

static int
take_id(void *arg, const struct catalog_point *p, struct lc_err *e)
{
	(void)e;
	memcpy(arg, p->id, 16);
	return 0;
}

/* The lines of the VM, and the newest point of each. */
static int
list_lines(struct giving *g, struct lc_err *e)
{
	struct given_line *list;
	size_t i;
	int rc;

	g->lines.n = 0;
	rc = catalog_each_line_vm(g->s->catalog, keep_line, g, e);
	list = (struct given_line *)(void *)g->lines.p;
	for (i = 0; rc == 0 && i < g->lines.n / sizeof *list; i++) {
		rc = catalog_newest(g->s->catalog, list[i].line, take_id, list[i].newest, e);
		rc = rc == LC_ENOENT ? 0 : rc;
	}
	return rc;
}

/* No other commit comes between this look and the entry. */
static int
build_owner(void *arg, struct lc_buf *payload, struct lc_err *e)
{
	struct giving *g = arg;
	struct lc_buf before = g->lines;
	uint8_t body[20] = {0};
	int rc;

	g->lines = (struct lc_buf){0};
	rc = list_lines(g, e);
	g->moved = rc == 0 && (g->lines.n != before.n ||
	                       (before.n > 0 && memcmp(g->lines.p, before.p, before.n) != 0));
	lc_buf_free(&before);
	if (rc != 0 || g->moved)
		return rc;
	rc = commit_start(payload, clock_wall_ns(), e);
	memcpy(body, g->vm, 16);
	lc_put16(body + 16, g->writer);
	return rc != 0 ? rc
	               : commit_add(payload, COMMIT_OWNER, (struct lc_span){body, sizeof body}, e);
}

/* What its newest points have, then that it is that writer's; *moved: there are newer ones. */
static int
give(struct giving *g, struct lc_err *e)
{
	struct given_line x;
	size_t at;
	int rc = list_lines(g, e);

	for (at = 0; rc == 0 && at < g->lines.n; at += sizeof x) {
		memcpy(&x, g->lines.p + at, sizeof x);
		rc = vouch_line(g, x.line, e);
	}
	rc = rc != 0 ? rc : put_vouches(g, e);
	return rc != 0 ? rc : store_commit(g->s, build_owner, g, e);
}

int
transfer_give(struct store *s, const uint8_t vm[16], uint16_t writer, struct lc_err *e)
{
	struct giving *g = lc_alloc(sizeof *g);
	uint16_t owner = 0;
	int rc, tries = 0;

	if (g == NULL)
		return no_memory(e);
	*g = (struct giving){.s = s, .vm = vm, .writer = writer};
	rc = catalog_vm_writer(s->catalog, vm, &owner, e);
	if (rc == LC_ENOENT)
		(void)lc_fail(e, LC_ENOENT, 0, "store %s has no such VM", s->dir);
	if (rc != 0 || owner == writer) {
		lc_free(g);
		return rc;
	}
	do
		rc = give(g, e);
	while (rc == 0 && g->moved && ++tries < TRIES);
	if (rc == 0 && g->moved)
		rc = lc_fail(e, LC_EBUSY, 0,
		             "points of the VM come from the host that it is taken from: stop that "
		             "one's agent");
	lc_buf_free(&g->lines);
	lc_buf_free(&g->list);
	lc_free(g);
	return rc;
}
