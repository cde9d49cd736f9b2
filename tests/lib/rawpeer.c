#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "store/base/bytes.h"
#include "tests/lib/rawpeer.h"

const uint8_t rawpeer_host[NOISE_KEY_SIZE] = {0x21, 0x22, 0x23};
const uint8_t rawpeer_replica[NOISE_KEY_SIZE] = {0x41, 0x42, 0x43};

/* Constants of process lifetime, made when first asked for. */
const uint8_t *
rawpeer_host_public(void)
{
	static uint8_t key[NOISE_KEY_SIZE];

	noise_public(rawpeer_host, key);
	return key;
}

const uint8_t *
rawpeer_replica_public(void)
{
	static uint8_t key[NOISE_KEY_SIZE];

	noise_public(rawpeer_replica, key);
	return key;
}

/* ---- randomness ---- */

static void
must(bool ok, const char *what)
{
	if (!ok) {
		(void)fprintf(stderr, "rawpeer: %s\n", what);
		abort();
	}
}

static uint64_t random_seed, random_count;
static const uint8_t *random_next;

static const char *
random_name(void)
{
	return "repeating";
}

static void
random_bytes(void *const out, const size_t n)
{
	uint8_t key[randombytes_SEEDBYTES] = {0};

	if (random_next != NULL && n == NOISE_KEY_SIZE) {
		memcpy(out, random_next, n);
		random_next = NULL;
		return;
	}
	lc_put64(key, random_seed);
	lc_put64(key + 8, random_count++);
	randombytes_buf_deterministic(out, n, key);
}

static uint32_t
random_word(void)
{
	uint32_t v;

	random_bytes(&v, sizeof v);
	return v;
}

void
rawpeer_random(uint64_t seed)
{
	static struct randombytes_implementation source = {
	    .implementation_name = random_name,
	    .random = random_word,
	    .buf = random_bytes,
	};

	(void)randombytes_set_implementation(&source);
	must(sodium_init() >= 0, "libsodium"); /* which draws some, the first time */
	random_seed = seed;
	random_count = 0;
	random_next = NULL;
}

void
rawpeer_next_random(const uint8_t *p)
{
	random_next = p;
}

/* ---- the peer ---- */

/* Our next message of the handshake, to the channel. */
static void
tell(struct noise_handshake *hs, struct channel *ch, const struct channel_events *events)
{
	uint8_t frame[2 + 64];
	size_t n = noise_overhead(hs);

	lc_put16(frame, (uint16_t)n);
	must(noise_write(hs, (struct lc_span){NULL, 0}, frame + 2, NULL) == 0, "write");
	must(channel_feed(ch, frame, 2 + n, events, NULL) == 0, "feed");
}

/* The channel's next one, behind `skip` bytes. */
static void
hear(struct noise_handshake *hs, struct channel *ch, size_t skip)
{
	uint8_t frame[8 + 2 + 64], nothing;
	size_t n;

	must(channel_pull(ch, frame, skip + 2 + noise_overhead(hs), &n, NULL) == 0, "pull");
	must(n == skip + 2 + noise_overhead(hs), "pulled too little");
	must(noise_read(hs, (struct lc_span){frame + skip + 2, n - skip - 2}, &nothing, NULL) == 0,
	     "read");
}

void
rawpeer_meet(struct rawpeer *r, struct channel *ch, bool initiator,
             const struct channel_events *events)
{
	static const uint8_t preface[8] = {'L', 'O', 'C', 'U', 'M', 'C', 'H', 1};
	const struct lc_span prologue = {preface, sizeof preface};
	struct noise_handshake hs;

	r->no_rekey = false;
	if (initiator) {
		must(noise_begin(&hs, NOISE_INITIATOR, rawpeer_host, rawpeer_replica_public(),
		                 prologue, NULL) == 0,
		     "begin");
		must(channel_feed(ch, preface, sizeof preface, events, NULL) == 0, "preface");
		tell(&hs, ch, events);
		hear(&hs, ch, 0);
		tell(&hs, ch, events);
	} else {
		must(noise_begin(&hs, NOISE_RESPONDER, rawpeer_replica, NULL, prologue, NULL) == 0,
		     "begin");
		hear(&hs, ch, sizeof preface);
		tell(&hs, ch, events);
		hear(&hs, ch, 0);
	}
	noise_split(&hs, &r->sending, &r->receiving);
}

size_t
rawpeer_frame(struct rawpeer *r, const uint8_t *plain, size_t n, uint8_t *out)
{
	must(n <= NOISE_MESSAGE_MAX - NOISE_TAG_SIZE, "frame too long");
	lc_put16(out, (uint16_t)(n + NOISE_TAG_SIZE));
	must(noise_seal(&r->sending, (struct lc_span){NULL, 0}, (struct lc_span){plain, n}, out + 2,
	                NULL) == 0,
	     "seal");
	if (r->sending.nonce % 16384 == 0 && !r->no_rekey)
		noise_rekey(&r->sending);
	return 2 + n + NOISE_TAG_SIZE;
}
