#include <stddef.h>

#include "agent/room.h"
#include "agent/sites.h"
#include "agent/spool.h"
#include "store/base/clock.h"

#define PART 16u                   /* of the budget: less is not worth another pass */
#define LITTLE (UINT64_C(1) << 20) /* that it lives is said all the time */
#define STILL_NS (30 * LC_NS_PER_S)

/* Whether it can be sent to all of them. */
static bool
is_up(const struct sites *s, uint64_t *sent)
{
	struct site_status st;
	bool up = true;
	size_t i;

	*sent = 0;
	for (i = 0; s != NULL && i < sites_count(s); i++) {
		sites_status(s, i, &st);
		up = up && st.up;
		*sent += st.sent;
	}
	return up;
}

uint64_t
room_left(struct room *r, struct spool *spool, struct sites *sites, uint64_t n, int64_t since_ns)
{
	int64_t now = clock_mono_ns();
	struct spool_status st = {0};
	uint64_t sent, left;
	bool up = is_up(sites, &sent);

	if (spool != NULL)
		spool_status(spool, &st);
	if (st.max == 0)
		return UINT64_MAX;
	if (sent < r->sent || sent - r->sent > LITTLE || st.bytes != r->bytes || !up) {
		r->since_ns = now;
		r->sent = sent;
		r->bytes = st.bytes;
	}
	/* 0: it was not looked at yet. */
	left = st.bytes > 0 && st.bytes < st.max ? (st.max - st.bytes) / (n == 0 ? 1 : n) : 0;
	if (since_ns == 0)
		return left;
	if (st.looked_ns <= since_ns)
		return 0;
	if (left >= st.max / PART)
		return left;
	return now - r->since_ns > STILL_NS ? st.max / PART : 0;
}
