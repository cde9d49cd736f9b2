#include <string.h>

#include "store/base/failpoint.h"
#include "store/keyring.h"
#include "store/recall.h"
#include "store/store_internal.h"
#include "store/stubs.h"

/* Those that another host of the domain began. */
static int
add_keys(const struct keyring *mine, const char *path, struct lc_span keys, const char *code,
         struct lc_err *e)
{
	struct keyring *k = NULL;
	struct lc_buf ours = {0};
	int rc = keyring_open_code(keys, code, &k, e);

	rc = rc != 0 ? rc : keyring_encode(mine, &ours, e);
	rc = rc != 0 ? rc : keyring_add(k, (struct lc_span){ours.p, ours.n}, e);
	rc = rc != 0 ? rc : keyring_save(k, path, e);
	lc_buf_free(&ours);
	keyring_free(k);
	return rc;
}

int
recall_key(const char *key_dir, struct lc_span keys, const char *code, struct lc_err *e)
{
	uint8_t domain[DOMAIN_ID_SIZE];
	struct keyring *k = NULL;
	char *path = NULL;
	int rc = keyring_domain_of(keys, domain, e);

	if (rc == 0) {
		path = store_key_path(key_dir, domain);
		rc = path == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
		                  : keyring_load(path, &k, e);
	}
	if (rc == LC_ENOENT && code != NULL) {
		lc_err_clear(e);
		rc = keyring_open_code(keys, code, &k, e);
		rc = rc != 0 ? rc : keyring_save(k, path, e);
	} else if (rc == LC_ENOENT) {
		lc_err_clear(e);
		rc = lc_fail(e, LC_EKEY, 0,
		             "this host has no key for that store (%s is not there): give the "
		             "recovery code of its kit with --recovery-code-file",
		             path);
	} else if (rc == 0 && memcmp(keyring_domain(k), domain, sizeof domain) != 0) {
		rc = lc_fail(e, LC_EKEY, 0, "%s is of another key domain", path);
	} else if (rc == 0 && code != NULL) {
		rc = add_keys(k, path, keys, code, e);
	}
	keyring_free(k);
	lc_free(path);
	return rc;
}

static int
is_there(void *arg, const struct catalog_point *p, struct lc_err *e)
{
	(void)p;
	(void)e;
	*(bool *)arg = false;
	return 0;
}

int
recall_lacks(struct store *s, const uint8_t line[16], bool *lacks, struct lc_err *e)
{
	int rc;

	*lacks = true;
	rc = catalog_newest(s->catalog, line, is_there, lacks, e);
	return rc == LC_ENOENT ? 0 : rc;
}

int
recall_windows(struct store *s, struct lc_span entry, uint64_t *n, struct lc_err *e)
{
	struct point *p = lc_alloc(sizeof *p);
	size_t i;
	int rc;

	*n = 0;
	if (p == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = transfer_open(s, entry, p, e);
	for (i = 0; rc == 0 && i < p->ndisks; i++)
		*n += point_windows(p->disks[i].size);
	if (rc == 0)
		point_done(p);
	lc_free(p);
	return rc;
}

/* Who tells of a window twice, or of nothing, could go on for ever. */
static int
count_rows(size_t n, uint64_t *left, struct lc_err *e)
{
	if (n == 0 || n > *left)
		return lc_fail(e, LC_ECORRUPT, 0, "map: %s",
		               n == 0 ? "rows were told of, and there are none"
		                      : "more rows than its disks have windows");
	*left -= n;
	return 0;
}

/* Ids that rows name and that nothing here stands for, each once. */
static int
find_strangers(struct store *s, const struct map_record *m, struct stub *list, size_t *n,
               struct lc_err *e)
{
	uint64_t no;
	size_t i, k;
	int rc = 0;

	*n = 0;
	for (i = 0; rc == 0 && i < m->n; i++) {
		if (maprec_zero(&m->rows[i]))
			continue;
		rc = fold_resolve(s->fold, m->rows[i].id, &no, e);
		if (rc != LC_ENOENT)
			continue;
		rc = 0;
		/* Equal windows mostly lie together; what this misses has two stubs. */
		for (k = *n > 8 ? *n - 8 : 0; k < *n; k++) {
			if (memcmp(list[k].id, m->rows[i].id, CHUNK_ID_SIZE) == 0)
				break;
		}
		if (k < *n)
			continue;
		list[*n].seq = *n;
		memcpy(list[(*n)++].id, m->rows[i].id, CHUNK_ID_SIZE);
	}
	return rc;
}

/* One record for all: it takes as many sequences, which are the numbers of these chunks. */
static int
append_stubs(struct store *s, const struct stub *list, size_t n, struct lc_err *e)
{
	struct record r = {.type = RECORD_STUBS};
	struct lc_buf payload = {0};
	size_t i;
	int rc = stubs_encode(list, n, &payload, e);

	r.n = (uint32_t)payload.n;
	rc = rc != 0 ? rc : store_append(s, &r, payload.p, NULL, e);
	lc_buf_free(&payload);
	for (i = 0; rc == 0 && i < n; i++)
		idindex_add(s->index, list[i].id, r.seq + i);
	(void)failpoint("recall.stubs");
	return rc;
}

int
recall_rows(struct store *s, struct incoming *in, struct lc_span payload, uint64_t *left,
            struct lc_err *e)
{
	struct map_record *m = lc_alloc(sizeof *m);
	struct stub *list = lc_alloc_array(MAP_ROWS_MAX, sizeof *list);
	size_t n = 0;
	int rc;

	if (m == NULL || list == NULL) {
		lc_free(m);
		lc_free(list);
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	rc = maprec_decode(payload, m, e);
	rc = rc != 0 ? rc : count_rows(m->n, left, e);
	rc = rc != 0 ? rc : find_strangers(s, m, list, &n, e);
	if (rc == 0 && n > 0)
		rc = append_stubs(s, list, n, e);
	lc_free(list);
	lc_free(m);
	return rc != 0 ? rc : incoming_rows(in, payload, e);
}
