/*
 * What several hosts of one key domain have of it, put together by who has no key.
 */
#include <string.h>

#include "store/base/bytes.h"
#include "store/keyring_internal.h"

struct merging {
	struct lc_buf wraps;
	unsigned n;
};

static int
put_wrap(struct merging *m, const struct wrap_view *w, struct lc_err *e)
{
	int rc = lc_wr8(&m->wraps, w->kind);

	rc = rc != 0 ? rc : lc_wr8(&m->wraps, 0);
	rc = rc != 0 ? rc : lc_wr16(&m->wraps, w->n);
	rc = rc != 0 ? rc : lc_wr32(&m->wraps, w->number);
	rc = rc != 0 ? rc : lc_buf_append(&m->wraps, w->box, w->n);
	m->n++;
	return rc == 0 ? 0 : lc_fail(e, LC_ENOMEM, 0, "keys: out of memory");
}

/* Of one number both must have the same seal; only data keys may be on one side alone. */
static int
check_pair(const struct wrap_view *x, const struct wrap_view *y, int order, struct lc_err *e)
{
	if (order == 0 && (x->n != y->n || memcmp(x->box, y->box, x->n) != 0))
		return lc_fail(e, LC_EKEY, 0,
		               "keys: another seal of kind %u, number %u than before", x->kind,
		               x->number);
	if (order != 0 && (order < 0 ? x : y)->kind < WRAP_DATA)
		return lc_fail(e, LC_EKEY, 0, "keys: not the master and id key of before");
	return 0;
}

/* Both ascend. */
static int
merge(struct keys_view *a, struct keys_view *b, struct merging *m, unsigned *added,
      struct lc_err *e)
{
	struct wrap_view x, y;
	bool has_x = wrap_step(a, &x), has_y = wrap_step(b, &y);
	int order, rc = 0;

	while (rc == 0 && (has_x || has_y)) {
		order = has_x && has_y ? wrap_order(x.kind, x.number, y.kind, y.number)
		                       : (has_x ? -1 : 1);
		rc = check_pair(&x, &y, order, e);
		rc = rc != 0 ? rc : put_wrap(m, order <= 0 ? &x : &y, e);
		*added += order > 0;
		if (order <= 0)
			has_x = wrap_step(a, &x);
		if (order >= 0)
			has_y = wrap_step(b, &y);
	}
	return rc;
}

int
keyring_union(struct lc_span have, struct lc_span given, struct lc_buf *out, unsigned *added,
              struct lc_err *e)
{
	struct merging m = {.n = 0};
	struct keys_view a, b;
	int rc = keys_parse(have, &a, e);

	*added = 0;
	rc = rc != 0 ? rc : keys_parse(given, &b, e);
	if (rc == 0 && memcmp(a.recovery, b.recovery, KEY_SIZE) != 0)
		rc = lc_fail(e, LC_EKEY, 0, "keys: of another key domain");
	rc = rc != 0 ? rc : merge(&a, &b, &m, added, e);
	if (rc == 0 && m.n > WRAPS_MAX)
		rc = lc_fail(e, LC_EKEY, 0, "keys: no room for another data key");
	if (rc == 0 &&
	    (lc_buf_append(out, a.domain, DOMAIN_ID_SIZE) != 0 ||
	     lc_buf_append(out, a.recovery, KEY_SIZE) != 0 || lc_wr16(out, (uint16_t)m.n) != 0 ||
	     lc_buf_append(out, m.wraps.p, m.wraps.n) != 0))
		rc = lc_fail(e, LC_ENOMEM, 0, "keys: out of memory");
	lc_buf_free(&m.wraps);
	return rc;
}
