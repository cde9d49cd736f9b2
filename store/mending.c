/*
 * What is damaged in a store of what a writer sent, for that writer to send it again (transfer.h);
 * and who needs what it can't send.
 */
#include <string.h>

#include "store/base/bytes.h"
#include "store/store_internal.h"
#include "store/transfer.h"

int
transfer_damage(struct store *s, uint16_t writer, const uint8_t above[CHUNK_ID_SIZE], size_t max,
                struct transfer_damage *out, struct lc_err *e)
{
	bool first = lc_is_zero(above, CHUNK_ID_SIZE);
	int rc = store_flush(s, e);

	rc = rc != 0 ? rc : catalog_missing_above(s->catalog, writer, above, max, &out->ids, e);
	out->contents = out->ids.n / CHUNK_ID_SIZE;
	if (rc == 0 && first && out->contents == max) /* there may be many: counted but once */
		rc = catalog_writer_missing(s->catalog, writer, &out->contents, e);
	if (rc == 0 && first)
		rc = catalog_writer_restarts(s->catalog, writer, max, &out->lines, e);
	return rc;
}

void
transfer_damage_free(struct transfer_damage *d)
{
	lc_buf_free(&d->ids);
	lc_buf_free(&d->lines);
}

struct line_point {
	uint8_t line[16], point[16];
};

static int
note_user(void *arg, const struct catalog_point *p, struct lc_err *e)
{
	struct line_point x;

	memcpy(x.line, p->line, sizeof x.line);
	memcpy(x.point, p->id, sizeof x.point);
	return lc_buf_append(arg, &x, sizeof x) == 0 ? 0
	                                             : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

static int
take_id(void *arg, const struct catalog_point *p, struct lc_err *e)
{
	(void)e;
	memcpy(arg, p->id, 16);
	return 0;
}

int
transfer_needs(struct store *s, uint64_t no, bool restart, char text[TRANSFER_NEEDS_MAX],
               struct lc_err *e)
{
	struct lc_buf users = {0};
	struct line_point x;
	uint8_t newest[16];
	size_t i;
	int rc = store_users(s, no, note_user, &users, text, TRANSFER_NEEDS_MAX, e);

	for (i = 0; rc == 0 && restart && i < users.n; i += sizeof x) {
		memcpy(&x, users.p + i, sizeof x);
		rc = catalog_newest(s->catalog, x.line, take_id, newest, e);
		if (rc == 0 && memcmp(newest, x.point, sizeof newest) == 0)
			rc = outgoing_restart(s, x.line, e);
	}
	lc_buf_free(&users);
	return rc == LC_ENOENT ? 0 : rc;
}

struct going_on {
	const uint8_t *line;
	bool found;
};

static int
match_line(void *arg, const struct catalog_vm *vm, struct lc_err *e)
{
	struct going_on *g = arg;

	(void)e;
	g->found = g->found || memcmp(vm->line, g->line, 16) == 0;
	return 0;
}

int
transfer_goes_on(struct store *s, const uint8_t line[16], struct lc_err *e)
{
	struct going_on g = {.line = line};
	int rc = catalog_each_vm(s->catalog, match_line, &g, e);

	return rc != 0 || g.found ? rc : LC_ENOENT;
}

bool
transfer_owns(const struct store *s)
{
	return s->writable;
}

int
transfer_restarts(struct store *s, const uint8_t line[16], bool *is, struct lc_err *e)
{
	return catalog_restarts(s->catalog, line, is, e);
}
