#include <assert.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/vouch.h"

#define HEAD_SIZE 8u
#define ENTRY_SIZE 40u

int
vouch_encode(const struct vouch *list, size_t n, struct lc_buf *out, struct lc_err *e)
{
	size_t i;

	assert(n > 0 && n <= VOUCH_MAX);
	if (lc_buf_reserve(out, HEAD_SIZE + n * ENTRY_SIZE) != 0)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	(void)lc_wr32(out, (uint32_t)n);
	(void)lc_wr32(out, 0);
	for (i = 0; i < n; i++) {
		(void)lc_wr64(out, list[i].seq);
		(void)lc_buf_append(out, list[i].id, sizeof list[i].id);
	}
	return 0;
}

int
vouch_count(struct lc_span payload, size_t *n, struct lc_err *e)
{
	*n = payload.n < HEAD_SIZE ? 0 : lc_get32(payload.p);
	if (*n == 0 || *n > VOUCH_MAX || payload.n != HEAD_SIZE + *n * ENTRY_SIZE)
		return lc_fail(e, LC_ECORRUPT, 0, "malformed vouch record");
	return 0;
}

void
vouch_get(struct lc_span payload, size_t i, struct vouch *out)
{
	const uint8_t *p = payload.p + HEAD_SIZE + i * ENTRY_SIZE;

	out->seq = lc_get64(p);
	memcpy(out->id, p + 8, sizeof out->id);
}
