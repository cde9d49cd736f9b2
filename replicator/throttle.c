#include <assert.h>
#include <stdatomic.h>
#include <uv.h>

#include "replicator/throttle.h"
#include "store/base/clock.h"
#include "store/base/memory.h"

#define PIECE_MIN ((uint64_t)1460) /* a packet of the network */
#define FRAME_MIN ((size_t)4096)
#define FRAME_MAX ((size_t)65519)
#define PIECE_MAX (UINT64_C(64) << 10)

struct throttle {
	_Atomic uint64_t rate; /* bytes a second; 0: no limit */
	double tokens;         /* bytes; below 0: given on credit */
	int64_t at_ns;         /* of tokens */
	uv_timer_t timer;
	TAILQ_HEAD(, throttle_place) line;
	struct throttle_place *turn; /* is being asked */
	unsigned owners;
};

size_t
throttle_piece(const struct throttle *t)
{
	uint64_t n = t->rate / 100;

	return (size_t)(n < PIECE_MIN ? PIECE_MIN : n > PIECE_MAX ? PIECE_MAX : n);
}

static void
refill(struct throttle *t)
{
	int64_t now = clock_mono_ns();
	double most = (double)t->rate / 20, least = 2 * (double)throttle_piece(t);

	t->tokens += (double)(now - t->at_ns) * (double)t->rate / 1e9;
	if (most < least)
		most = least;
	if (t->tokens > most)
		t->tokens = most;
	t->at_ns = now;
}

static void
ask_next(struct throttle *t)
{
	struct throttle_place *p = TAILQ_FIRST(&t->line);

	if (p == NULL)
		return;
	TAILQ_REMOVE(&t->line, p, entry);
	p->waits = false;
	t->turn = p;
	p->ready(p->arg);
	t->turn = NULL;
}

static void on_timer(uv_timer_t *timer);

/* Come again when there is a piece. */
static void
wait_for_piece(struct throttle *t)
{
	double ms = ((double)throttle_piece(t) - t->tokens) * 1000 /
	            (double)(t->rate > 0 ? t->rate : 1);

	if (TAILQ_EMPTY(&t->line)) {
		(void)uv_timer_stop(&t->timer);
		return;
	}
	if (ms < 1 || t->rate == 0)
		ms = t->rate == 0 || ms <= 0 ? 0 : 1;
	(void)uv_timer_start(&t->timer, on_timer, (uint64_t)ms, 0);
}

static void
on_timer(uv_timer_t *timer)
{
	struct throttle *t = timer->data;
	size_t n = 0;
	struct throttle_place *p;

	TAILQ_FOREACH (p, &t->line, entry)
		n++;
	/* Each once; who wants more is behind the others then. */
	for (refill(t); n > 0 && (t->rate == 0 || t->tokens >= (double)throttle_piece(t)); n--)
		ask_next(t);
	wait_for_piece(t);
}

size_t
throttle_take(struct throttle *t, struct throttle_place *p, size_t want)
{
	size_t n = throttle_piece(t);

	if (t->rate == 0)
		return want;
	if (p->waits)
		return 0;
	refill(t);
	if (n > want)
		n = want;
	if (t->tokens >= (double)n && (t->turn == p || TAILQ_EMPTY(&t->line))) {
		t->tokens -= (double)n;
		return n;
	}
	p->waits = true;
	TAILQ_INSERT_TAIL(&t->line, p, entry);
	if (t->turn == NULL)
		wait_for_piece(t);
	return 0;
}

void
throttle_spend(struct throttle *t, struct throttle_place *p, size_t n)
{
	if (t->rate == 0)
		return;
	refill(t);
	t->tokens -= (double)n;
	if (t->tokens >= 0 || p->waits)
		return;
	p->waits = true;
	TAILQ_INSERT_TAIL(&t->line, p, entry);
	wait_for_piece(t);
}

size_t
throttle_frame(const struct throttle *t)
{
	uint64_t n = throttle_rate(t) / 8;

	return n == 0 || n > FRAME_MAX ? FRAME_MAX : n < FRAME_MIN ? FRAME_MIN : (size_t)n;
}

void
throttle_give_back(struct throttle *t, size_t n)
{
	if (t->rate > 0)
		t->tokens += (double)n;
}

void
throttle_leave(struct throttle *t, struct throttle_place *p)
{
	if (!p->waits)
		return;
	p->waits = false;
	TAILQ_REMOVE(&t->line, p, entry);
}

void
throttle_set(struct throttle *t, uint64_t bytes_ps)
{
	refill(t);
	t->rate = bytes_ps;
	if (t->tokens < 0)
		t->tokens = 0;
	refill(t); /* what the bucket holds is another amount now */
	wait_for_piece(t);
}

uint64_t
throttle_rate(const struct throttle *t)
{
	return t == NULL ? 0 : t->rate;
}

int
throttle_new(struct uv_loop_s *loop, uint64_t bytes_ps, struct throttle **out, struct lc_err *e)
{
	struct throttle *t = lc_alloc(sizeof *t);

	if (t == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	TAILQ_INIT(&t->line);
	t->owners = 1;
	t->rate = bytes_ps;
	t->at_ns = clock_mono_ns();
	(void)uv_timer_init(loop, &t->timer);
	t->timer.data = t;
	*out = t;
	return 0;
}

struct throttle *
throttle_share(struct throttle *t)
{
	t->owners++;
	return t;
}

static void
on_closed(uv_handle_t *h)
{
	lc_free(h->data);
}

void
throttle_close(struct throttle *t)
{
	if (t == NULL || --t->owners > 0)
		return;
	assert(TAILQ_EMPTY(&t->line));
	uv_close((uv_handle_t *)&t->timer, on_closed);
}
