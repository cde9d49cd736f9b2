#include <assert.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/stubs.h"

#define MAX_DISTANCE UINT32_MAX

int
stubs_encode(const struct stub *list, size_t n, struct lc_buf *out, struct lc_err *e)
{
	size_t i;

	assert(n > 0 && n <= STUBS_MAX);
	if (lc_buf_reserve(out, STUBS_HEAD_SIZE + n * STUB_SIZE) != 0)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	(void)lc_wr32(out, (uint32_t)n);
	(void)lc_wr32(out, 0);
	for (i = 0; i < n; i++) {
		(void)lc_wr64(out, list[i].seq - list[0].seq);
		(void)lc_buf_append(out, list[i].id, sizeof list[i].id);
	}
	return 0;
}

bool
stubs_decode(struct lc_span payload, uint64_t seq, size_t i, struct stub *out)
{
	const uint8_t *p;

	if (payload.n < STUBS_HEAD_SIZE || i >= (payload.n - STUBS_HEAD_SIZE) / STUB_SIZE)
		return false;
	p = payload.p + STUBS_HEAD_SIZE + i * STUB_SIZE;
	out->seq = seq + lc_get64(p);
	memcpy(out->id, p + 8, sizeof out->id);
	return true;
}

/* Sequences ascend from that of the record on; an id of zeros stands for nothing. */
int
stubs_count(struct lc_span payload, size_t *n, struct lc_err *e)
{
	uint64_t before = 0;
	struct stub x;
	size_t i;

	*n = payload.n < STUBS_HEAD_SIZE ? 0 : lc_get32(payload.p);
	if (*n == 0 || *n > STUBS_MAX || payload.n != STUBS_HEAD_SIZE + *n * STUB_SIZE)
		return lc_fail(e, LC_ECORRUPT, 0, "malformed stubs");
	for (i = 0; stubs_decode(payload, 0, i, &x); i++) {
		if ((i == 0 ? x.seq != 0 : x.seq <= before || x.seq > MAX_DISTANCE) ||
		    lc_is_zero(x.id, sizeof x.id))
			return lc_fail(e, LC_ECORRUPT, 0, "malformed stubs");
		before = x.seq;
	}
	return 0;
}
