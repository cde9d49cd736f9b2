#include <string.h>

#include "store/base/bytes.h"
#include "store/catalog_internal.h"

#define PEERS "peers"

int
catalog_put_thin(struct catalog *c, uint64_t segment, struct lc_err *e)
{
	int rc;

	sql_lock(c);
	rc = sql_run1(c, ST_THIN_PUT, segment, e);
	sql_unlock(c);
	return rc;
}

static int
there_is(struct catalog *c, enum statement which, uint64_t segment, bool *is, struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = LC_EIO;

	sql_lock(c);
	st = sql_stmt(c, which, e);
	if (st != NULL) {
		sql_int(st, 1, segment);
		rc = sql_first(c, st, e);
		sql_done(st);
	}
	sql_unlock(c);
	*is = rc == 0;
	return rc == LC_ENOENT ? 0 : rc;
}

int
catalog_has_thin(struct catalog *c, uint64_t segment, bool *has, struct lc_err *e)
{
	return there_is(c, ST_THIN_GET, segment, has, e);
}

int
catalog_damage_in(struct catalog *c, uint64_t segment, bool *any, struct lc_err *e)
{
	return there_is(c, ST_DAMAGE_IN, segment, any, e);
}

int
catalog_set_peers(struct catalog *c, struct lc_span names, struct lc_err *e)
{
	struct lc_buf text = {0};
	int rc = lc_buf_append(&text, names.p, names.n);

	rc = rc != 0 ? rc : lc_buf_append(&text, "", 1);
	if (rc != 0) {
		(void)lc_fail(e, LC_ENOMEM, 0, "out of memory");
	} else {
		sql_lock(c);
		rc = meta_set_text(c, PEERS, (const char *)text.p, e);
		sql_unlock(c);
	}
	lc_buf_free(&text);
	return rc;
}

int
catalog_peers(struct catalog *c, char *dst, size_t n, struct lc_err *e)
{
	int rc;

	sql_lock(c);
	rc = meta_text(c, PEERS, dst, n, e);
	sql_unlock(c);
	return rc == LC_ENOENT ? 0 : rc;
}
