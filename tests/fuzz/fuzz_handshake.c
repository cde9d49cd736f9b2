/*
 * handshake: what anybody on the net can say.  Nothing is delivered that the key's holder has not
 * said, every failure is final and leaves nothing to say but our version, and what is said does not
 * depend on how it was cut.
 *
 * The first byte says to whom (0: responder, else initiator), the second how long the pieces are;
 * the rest is the stream.  Randomness repeats, so the corpus has sessions that get all the way.
 */
#include <string.h>

#include "replicator/channel.h"
#include "tests/fuzz/fuzz.h"
#include "tests/lib/rawpeer.h"

struct outcome {
	int rc;
	unsigned opened, messages;
	size_t bytes, said;
	uint8_t peer[CHANNEL_KEY_SIZE];
};

static int
on_opened(void *arg, const uint8_t *peer, struct lc_err *e)
{
	struct outcome *o = arg;

	(void)e;
	memcpy(o->peer, peer, sizeof o->peer);
	o->opened++;
	return 0;
}

static int
on_message(void *arg, uint16_t type, struct lc_span body, struct lc_err *e)
{
	struct outcome *o = arg;

	(void)e;
	fuzz_check(o->opened == 1 && type != 0 && body.n <= CHANNEL_BODY_MAX);
	o->messages++;
	o->bytes += body.n;
	return 0;
}

static void
check_failed(struct channel *ch, const struct channel_events *events, const struct lc_err *e)
{
	uint8_t byte = 0;

	fuzz_check(e->code == LC_EPEER || e->code == LC_EVERSION || e->code == LC_EKEY ||
	           e->code == LC_ECORRUPT);
	fuzz_check(e->msg[0] != '\0');
	fuzz_check(channel_feed(ch, &byte, 1, events, NULL) == (int)e->code);
	fuzz_check(channel_eof(ch, NULL) == (int)e->code);
	fuzz_check(!channel_established(ch) && !channel_ended(ch));
}

static struct outcome
talk(bool responder, const uint8_t *p, size_t n, size_t piece)
{
	struct outcome o = {.rc = 0};
	const struct channel_events events = {&o, on_opened, on_message};
	struct lc_err e = LC_ERR_INIT;
	uint8_t out[512];
	struct channel *ch;
	size_t k, pulled = 0;

	rawpeer_random(1);
	fuzz_check(channel_new(responder ? rawpeer_replica : rawpeer_host,
	                       responder ? NULL : rawpeer_replica_public(), &ch, &e) == 0);
	if (!responder)
		fuzz_check(channel_pull(ch, out, sizeof out, &pulled, NULL) == 0 && pulled == 58);
	for (; n > 0 && o.rc == 0; p += k, n -= k) {
		k = piece < n ? piece : n;
		o.rc = channel_feed(ch, p, k, &events, &e);
	}
	fuzz_check(o.rc == (int)e.code);
	fuzz_check(channel_queued(ch) < sizeof out);
	fuzz_check(channel_pull(ch, out, sizeof out, &o.said, NULL) == 0);
	fuzz_check(channel_queued(ch) == 0);
	if (o.rc != 0) {
		check_failed(ch, &events, &e);
		fuzz_check(o.said == 0 || (responder && o.rc == LC_EVERSION && o.said == 8 &&
		                           memcmp(out, "LOCUMCH\1", 8) == 0));
	}
	fuzz_check((channel_peer(ch) != NULL) == (o.opened == 1));
	channel_free(ch);
	return o;
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct outcome whole, cut;
	bool responder;

	if (n < 2)
		return 0;
	responder = p[0] == 0;
	whole = talk(responder, p + 2, n - 2, n);
	cut = talk(responder, p + 2, n - 2, 1 + (size_t)p[1]);
	fuzz_check(cut.rc == whole.rc && cut.opened == whole.opened && cut.said == whole.said);
	fuzz_check(cut.messages == whole.messages && cut.bytes == whole.bytes);
	/* Nobody without a key gets this far as somebody; the stranger's key would be his own. */
	if (whole.opened > 0 && !responder)
		fuzz_check(memcmp(whole.peer, rawpeer_replica_public(), CHANNEL_KEY_SIZE) == 0);
	return 0;
}
