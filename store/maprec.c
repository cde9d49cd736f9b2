#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/maprec.h"

enum { RUN_ZERO = 0, RUN_CHUNKS = 1 };

bool
maprec_zero(const struct map_row *row)
{
	return lc_is_zero(row->id, sizeof row->id);
}

static int
by_window(const void *a, const void *b)
{
	const struct map_row *x = a, *y = b;

	return x->window < y->window ? -1 : x->window > y->window;
}

/* Length of the run of one kind that starts at row i. */
static size_t
run_length(const struct map_record *m, size_t i)
{
	bool zero = maprec_zero(&m->rows[i]);
	size_t k = i + 1;

	while (k < m->n && m->rows[k].window == m->rows[k - 1].window + 1 &&
	       maprec_zero(&m->rows[k]) == zero)
		k++;
	return k - i;
}

int
maprec_encode(struct map_record *m, struct lc_buf *out, struct lc_err *e)
{
	uint32_t runs = 0;
	size_t i, k, n;
	int rc;

	qsort(m->rows, m->n, sizeof m->rows[0], by_window);
	for (i = 1; i < m->n; i++) { /* no reader would take it */
		if (m->rows[i].window == m->rows[i - 1].window)
			return lc_fail(e, LC_EINVAL, 0, "window %" PRIu64 " was put twice",
			               m->rows[i].window);
	}
	for (i = 0; i < m->n; i += run_length(m, i))
		runs++;
	rc = lc_buf_append(out, m->point, 16);
	rc = rc != 0 ? rc : lc_buf_append(out, m->line, 16);
	rc = rc != 0 ? rc : lc_buf_append(out, m->disk, 16);
	rc = rc != 0 ? rc : lc_wr32(out, runs);
	rc = rc != 0 ? rc : lc_wr32(out, (uint32_t)m->n);
	for (i = 0; rc == 0 && i < m->n; i += n) {
		bool zero = maprec_zero(&m->rows[i]);

		n = run_length(m, i);
		rc = lc_wr64(out, m->rows[i].window);
		rc = rc != 0 ? rc : lc_wr32(out, (uint32_t)n);
		rc = rc != 0 ? rc : lc_wr32(out, zero ? RUN_ZERO : RUN_CHUNKS);
		for (k = 0; rc == 0 && !zero && k < n; k++)
			rc = lc_buf_append(out, m->rows[i + k].id, CHUNK_ID_SIZE);
	}
	return rc == 0 ? 0 : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

int
maprec_decode(struct lc_span payload, struct map_record *m, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(payload.p, payload.n);
	uint64_t next = 0;
	uint32_t runs, total, i, k;

	lc_rd_copy(&r, m->point, 16);
	lc_rd_copy(&r, m->line, 16);
	lc_rd_copy(&r, m->disk, 16);
	runs = lc_rd32(&r);
	total = lc_rd32(&r);
	m->n = 0;
	if (!lc_rd_ok(&r) || total > MAP_ROWS_MAX || runs > total)
		return lc_fail(e, LC_ECORRUPT, 0, "malformed map record");
	for (i = 0; i < runs; i++) {
		uint64_t first = lc_rd64(&r);
		uint32_t n = lc_rd32(&r), kind = lc_rd32(&r);

		if (!lc_rd_ok(&r) || kind > RUN_CHUNKS || n == 0 || n > total - m->n ||
		    first < next || first >= MAP_WINDOW_MAX || n > MAP_WINDOW_MAX - first)
			return lc_fail(e, LC_ECORRUPT, 0, "malformed map record");
		for (k = 0; k < n; k++) {
			struct map_row *row = &m->rows[m->n++];

			row->window = first + k;
			row->chunk = 0;
			if (kind == RUN_CHUNKS)
				lc_rd_copy(&r, row->id, CHUNK_ID_SIZE);
			else
				memset(row->id, 0, CHUNK_ID_SIZE);
			if (kind == RUN_CHUNKS && lc_rd_ok(&r) && maprec_zero(row))
				return lc_fail(e, LC_ECORRUPT, 0, "malformed map record");
		}
		next = first + n;
	}
	if (!lc_rd_end(&r) || m->n != total)
		return lc_fail(e, LC_ECORRUPT, 0, "malformed map record");
	return 0;
}

uint64_t
maprec_zeros(struct lc_span payload)
{
	const uint64_t head = 56, run = 16;
	uint64_t runs, rows, named;

	if (payload.n < head)
		return 0;
	runs = lc_get32(payload.p + 48);
	rows = lc_get32(payload.p + 52);
	if (rows > MAP_ROWS_MAX || runs > rows || payload.n < head + runs * run)
		return 0; /* no such payload */
	named = (payload.n - head - runs * run) / CHUNK_ID_SIZE;
	return named < rows ? rows - named : 0;
}
