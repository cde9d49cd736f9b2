#include <string.h>

#include "store/base/bytes.h"
#include "store/commit.h"

#define COMMIT_FOLDED_SIZE 72u

int
commit_start(struct lc_buf *out, int64_t wall_ns, struct lc_err *e)
{
	int rc = lc_wr64(out, (uint64_t)wall_ns);

	return rc == 0 ? 0 : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

int
commit_add(struct lc_buf *out, uint16_t type, struct lc_span body, struct lc_err *e)
{
	int rc = lc_wr16(out, type);

	rc = rc != 0 ? rc : lc_wr16(out, 0);
	rc = rc != 0 ? rc : lc_wr32(out, (uint32_t)body.n);
	rc = rc != 0 ? rc : lc_buf_append(out, body.p, body.n);
	return rc == 0 ? 0 : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

static int
walk(struct lc_span payload, int64_t *wall_ns,
     int (*on_entry)(void *arg, const struct commit_entry *x, struct lc_err *e), void *arg,
     struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(payload.p, payload.n);
	unsigned n = 0;

	*wall_ns = (int64_t)lc_rd64(&r);
	while (lc_rd_ok(&r) && r.n > 0) {
		struct commit_entry x;
		int rc;

		x.type = lc_rd16(&r);
		(void)lc_rd16(&r);
		x.body.n = lc_rd32(&r);
		x.body.p = lc_rd_bytes(&r, x.body.n);
		if (!lc_rd_ok(&r))
			break;
		if (++n >= COMMIT_ENTRIES_MAX)
			return lc_fail(e, LC_ECORRUPT, 0, "commit record with too many entries");
		rc = on_entry == NULL ? 0 : on_entry(arg, &x, e);
		if (rc != 0)
			return rc;
	}
	return lc_rd_ok(&r) ? 0 : lc_fail(e, LC_ECORRUPT, 0, "malformed commit record");
}

int
commit_walk(struct lc_span payload, int64_t *wall_ns,
            int (*on_entry)(void *arg, const struct commit_entry *x, struct lc_err *e), void *arg,
            struct lc_err *e)
{
	int rc = walk(payload, wall_ns, NULL, NULL, e);

	return rc != 0 ? rc : walk(payload, wall_ns, on_entry, arg, e);
}

int
commit_add_folded(struct lc_buf *out, const struct commit_folded *x, struct lc_err *e)
{
	uint8_t body[COMMIT_FOLDED_SIZE];

	memcpy(body, x->point, 16);
	memcpy(body + 16, x->base, 16);
	lc_put64(body + 32, x->rows);
	memcpy(body + 40, x->sum, 32);
	return commit_add(out, COMMIT_FOLDED, (struct lc_span){body, sizeof body}, e);
}

int
commit_folded_decode(struct lc_span body, struct commit_folded *x, struct lc_err *e)
{
	if (body.n != COMMIT_FOLDED_SIZE)
		return lc_fail(e, LC_ECORRUPT, 0, "malformed folded entry");
	memcpy(x->point, body.p, 16);
	memcpy(x->base, body.p + 16, 16);
	x->rows = lc_get64(body.p + 32);
	memcpy(x->sum, body.p + 40, 32);
	return 0;
}
