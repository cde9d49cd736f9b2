/*
 * frame: the parser of messages against an authentic peer gone bad.
 *
 * The input is a list of frames, each a u16 length and that many bytes of plaintext; they are
 * sealed properly and fed.  What is delivered, and how it ends, is compared with a second parser
 * that sees the plaintext as a whole.
 */
#include <string.h>

#include "replicator/channel.h"
#include "store/base/bytes.h"
#include "tests/fuzz/fuzz.h"
#include "tests/lib/rawpeer.h"

enum { FRAMES_MAX = 64, PLAIN_MAX = 65519 };

struct stream { /* the plaintext of all frames, and how far it was delivered */
	uint8_t *p;
	size_t n, at;
};

static size_t frame_sizes[FRAMES_MAX], nframes;

/* The next message is at s->at, whole, and this one. */
static int
on_message(void *arg, uint16_t type, struct lc_span body, struct lc_err *e)
{
	struct stream *s = arg;
	struct lc_rd r = lc_rd_over(s->p + s->at, s->n - s->at);
	const uint8_t *content;

	(void)e;
	fuzz_check(lc_rd32(&r) == body.n && body.n <= CHANNEL_BODY_MAX);
	fuzz_check(lc_rd16(&r) == type && type != 0);
	fuzz_check(lc_rd16(&r) == 0);
	content = lc_rd_bytes(&r, body.n);
	fuzz_check(lc_rd_ok(&r));
	fuzz_check(body.n == 0 || memcmp(content, body.p, body.n) == 0);
	s->at = s->n - r.n;
	return 0;
}

enum verdict { GOES_ON, ENDS, BREAKS_A_RULE };

/* What comes of the bytes from `at` on, none of which make a message to be delivered. */
static enum verdict
judge(const struct stream *s)
{
	struct lc_rd r = lc_rd_over(s->p + s->at, s->n - s->at);
	uint32_t n = lc_rd32(&r);
	uint16_t type = lc_rd16(&r), zero = lc_rd16(&r);

	if (!lc_rd_ok(&r))
		return GOES_ON;
	if (n > CHANNEL_BODY_MAX || zero != 0 || (type == 0 && n > 0))
		return BREAKS_A_RULE;
	if (type == 0)
		return r.n == 0 ? ENDS : BREAKS_A_RULE;
	fuzz_check(r.n < n); /* else it should have been delivered */
	return GOES_ON;
}

static void
cut_into_frames(const uint8_t *p, size_t n, struct stream *s)
{
	struct lc_rd r = lc_rd_over(p, n);

	s->p = malloc(n + 1);
	fuzz_check(s->p != NULL);
	nframes = 0;
	while (nframes < FRAMES_MAX && r.n > 2) {
		size_t k = lc_rd16(&r);

		k = k > r.n ? r.n : k;
		k = k > PLAIN_MAX ? PLAIN_MAX : k;
		if (k == 0)
			continue;
		lc_rd_copy(&r, s->p + s->n, k);
		s->n += k;
		frame_sizes[nframes++] = k;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static uint8_t frame[RAWPEER_FRAME_MAX];
	struct stream s = {0};
	const struct channel_events events = {&s, NULL, on_message};
	struct lc_err e = LC_ERR_INIT;
	enum verdict verdict;
	struct channel *ch;
	struct rawpeer r;
	size_t i, at = 0, k;
	int rc = 0;

	rawpeer_random(1);
	fuzz_check(channel_new(rawpeer_replica, NULL, &ch, NULL) == 0);
	rawpeer_meet(&r, ch, true, &events);
	cut_into_frames(p, n, &s);
	for (i = 0; i < nframes && rc == 0; i++) {
		k = rawpeer_frame(&r, s.p + at, frame_sizes[i], frame);
		at += frame_sizes[i];
		rc = channel_feed(ch, frame, k, &events, &e);
	}
	fuzz_check(rc == (int)e.code);
	s.n = at; /* All that was fed. */
	verdict = judge(&s);
	fuzz_check(rc == (verdict == BREAKS_A_RULE ? LC_EPEER : 0));
	fuzz_check(channel_ended(ch) == (verdict == ENDS));
	fuzz_check(channel_eof(ch, NULL) == (verdict == ENDS ? 0 : LC_EPEER));
	channel_free(ch);
	free(s.p);
	return 0;
}
