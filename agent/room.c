#include <stddef.h>

#include "agent/capture.h"
#include "agent/room.h"
#include "agent/sites.h"
#include "agent/spool.h"
#include "store/base/clock.h"

#define PART 16u                   /* of the budget: less is not worth another pass */
#define LITTLE (UINT64_C(1) << 20) /* that it lives is said all the time */
#define STILL_NS (30 * LC_NS_PER_S)
#define WRAPPED(n) ((n) / 128) /* of what is stored of n bytes, around them: headers, rows */

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

/* Without what is being read. */
static uint64_t
free_now(struct room *r, uint64_t max, bool first)
{
	uint64_t now = spool_now(r->spool), may = first ? max - max / PART : max;

	if (now + max / PART <= may)
		r->beyond = 0;
	if (r->beyond > may)
		may = r->beyond;
	return now < may ? may - now : 0;
}

uint64_t
room_left(struct room *r, int64_t since_ns, bool first)
{
	int64_t now = clock_mono_ns();
	struct spool_status st = {0};
	uint64_t sent, left;
	bool up = is_up(r->sites, &sent);

	if (r->spool != NULL)
		spool_status(r->spool, &st);
	if (st.max == 0)
		return UINT64_MAX;
	spool_sent(r->spool, sent);
	if (sent < r->sent || sent - r->sent > LITTLE || st.bytes != r->bytes || !up) {
		r->since_ns = now;
		r->sent = sent;
		r->bytes = st.bytes;
	}
	r->away_ns = up ? 0 : r->away_ns != 0 ? r->away_ns : now;
	left = free_now(r, st.max, first);
	if (since_ns == 0)
		return left;
	if (st.looked_ns <= since_ns)
		return 0;
	if (left >= st.max / PART)
		return left;
	if (now - r->since_ns <= STILL_NS)
		return 0;
	r->beyond = spool_now(r->spool) + st.max / PART;
	return free_now(r, st.max, first);
}

static uint64_t
left(void *arg, int64_t since_ns, bool first)
{
	return room_left(arg, since_ns, first);
}

static bool
may(void *arg, uint64_t bytes, bool first)
{
	struct room *r = arg;
	struct spool_status st = {0};

	if (r->spool != NULL)
		spool_status(r->spool, &st);
	if (st.max == 0)
		return true;
	bytes += capture_pool_busy(r->pool);
	return bytes + WRAPPED(bytes) <= free_now(r, st.max, first);
}

static bool
hopeless(void *arg)
{
	const struct room *r = arg;

	return r->patience_ns != 0 && r->away_ns != 0 &&
	       clock_mono_ns() - r->away_ns > r->patience_ns;
}

void
room_init(struct room *r)
{
	r->ops = (struct backup_room){.left = left, .may = may, .hopeless = hopeless, .arg = r};
}
