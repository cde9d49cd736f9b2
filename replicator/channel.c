#include <assert.h>
#include <string.h>
#include <sys/queue.h>

#include <sodium.h>

#include "replicator/channel.h"
#include "replicator/noise.h"
#include "store/base/bytes.h"

#define MAGIC "LOCUMCH"
#define MAGIC_SIZE 7u
#define PREFACE_SIZE 8u
#define LENGTH_SIZE 2u
#define HEAD_SIZE 8u
#define TYPE_CLOSE 0u
#define SPARE_MAX 16u /* sent frames that are kept: memory fresh from the kernel costs a third */
#define REKEY_EVERY 16384u /* frames in one direction */
#define FRAME_MAX (LENGTH_SIZE + NOISE_MESSAGE_MAX)
#define FRAME_PLAIN_MAX (NOISE_MESSAGE_MAX - NOISE_TAG_SIZE)
#define SHAKE_MAX (LENGTH_SIZE + 64u) /* the longest of the handshake */
#define HELLO_MAX \
	(PREFACE_SIZE + LENGTH_SIZE + 48u + SHAKE_MAX) /* all that the initiator says in it */

_Static_assert(CHANNEL_KEY_SIZE == NOISE_KEY_SIZE, "key");

/* What the other side owes us next; after ENDED nothing.  A failure is in ch->err. */
enum state { PREFACE, VERSION_ANSWER, HANDSHAKE, OPEN, ENDED };

struct frame { /* to be sent */
	TAILQ_ENTRY(frame) link;
	bool sealed;
	size_t n;   /* bytes of plaintext behind the length; once sealed, of all of it */
	size_t off; /* bytes pulled */
	uint8_t wire[FRAME_MAX];
};

TAILQ_HEAD(frame_list, frame);

struct channel { /* in sodium_malloc memory */
	enum state state;
	struct lc_err err;
	struct noise_handshake hs;
	struct noise_cipher sending, receiving;
	uint8_t peer[CHANNEL_KEY_SIZE];
	bool known; /* peer is proved */

	uint8_t *in; /* what is being received: small, then a frame of its own */
	size_t have, want;
	uint8_t small[SHAKE_MAX];

	uint8_t head[HEAD_SIZE]; /* of the message that is being received */
	size_t nhead;
	uint8_t *body; /* of one that spans frames; kept for the next one */
	size_t nbody, body_cap;

	uint8_t hello[HELLO_MAX]; /* what we say before the first frame */
	size_t nhello, hello_off;
	struct frame_list frames, spare;
	unsigned nspare;
	size_t queued;    /* bytes that the frames have to give */
	size_t frame_max; /* bytes of a new frame */
	bool closed;      /* we have queued our CLOSE */
};

_Static_assert(sizeof(struct channel) < 2048, "what a stranger may cost");

/* ---- beginning and end ---- */

static void
scrub(uint8_t *p, size_t n)
{
	if (p != NULL)
		sodium_memzero(p, n);
	lc_free(p);
}

static void
frame_drop(struct channel *ch, struct frame *f)
{
	TAILQ_REMOVE(&ch->frames, f, link);
	if (!f->sealed)
		sodium_memzero(f->wire, LENGTH_SIZE + f->n);
	if (ch->nspare == SPARE_MAX) {
		lc_free(f);
		return;
	}
	TAILQ_INSERT_HEAD(&ch->spare, f, link);
	ch->nspare++;
}

/* A spare frame, else a new one, or NULL. */
static struct frame *
frame_get(struct channel *ch)
{
	struct frame *f = TAILQ_FIRST(&ch->spare);

	if (f == NULL)
		return lc_realloc(NULL, sizeof *f);
	TAILQ_REMOVE(&ch->spare, f, link);
	ch->nspare--;
	return f;
}

/* Forget all keys and all content. */
static void
wipe(struct channel *ch)
{
	noise_end(&ch->hs);
	noise_forget(&ch->sending);
	noise_forget(&ch->receiving);
	while (!TAILQ_EMPTY(&ch->frames))
		frame_drop(ch, TAILQ_FIRST(&ch->frames));
	while (!TAILQ_EMPTY(&ch->spare))
		lc_free(frame_get(ch));
	ch->queued = 0;
	if (ch->in != ch->small)
		scrub(ch->in, FRAME_MAX);
	ch->in = ch->small;
	scrub(ch->body, ch->body_cap);
	ch->body = NULL;
	ch->body_cap = 0;
}

/* The failure that ch->err holds is final.  Gives it to e. */
static int
fail(struct channel *ch, struct lc_err *e)
{
	wipe(ch);
	/* Only the answer to a wrong version, all that was said in this state, is still of use. */
	if (ch->state != PREFACE)
		ch->hello_off = ch->nhello;
	if (e != NULL && e->code == LC_OK)
		*e = ch->err;
	return ch->err.code;
}

static int
failed(const struct channel *ch, struct lc_err *e)
{
	if (e != NULL && e->code == LC_OK)
		*e = ch->err;
	return ch->err.code;
}

static void
say(struct channel *ch, const void *p, size_t n)
{
	assert(n <= sizeof ch->hello - ch->nhello);
	memcpy(ch->hello + ch->nhello, p, n);
	ch->nhello += n;
}

static const uint8_t preface[PREFACE_SIZE] = {'L', 'O', 'C', 'U', 'M', 'C', 'H', CHANNEL_VERSION};

/* Say our next message of the handshake. */
static int
say_handshake(struct channel *ch, struct lc_err *e)
{
	uint8_t message[SHAKE_MAX];
	size_t n = noise_overhead(&ch->hs);
	int rc = noise_write(&ch->hs, (struct lc_span){NULL, 0}, message + LENGTH_SIZE, e);

	if (rc != 0)
		return rc;
	lc_put16(message, (uint16_t)n);
	say(ch, message, LENGTH_SIZE + n);
	return 0;
}

int
channel_new(const uint8_t secret[CHANNEL_KEY_SIZE], const uint8_t *remote, struct channel **out,
            struct lc_err *e)
{
	const struct lc_span prologue = {preface, sizeof preface};
	struct channel *ch;
	int rc;

	*out = NULL;
	if (sodium_init() < 0)
		return lc_fail(e, LC_ENOTSUP, 0, "channel: libsodium does not start");
	ch = sodium_malloc(sizeof *ch);
	if (ch == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "channel: out of memory");
	memset(ch, 0, sizeof *ch);
	TAILQ_INIT(&ch->frames);
	TAILQ_INIT(&ch->spare);
	ch->in = ch->small;
	ch->state = remote == NULL ? PREFACE : HANDSHAKE;
	ch->want = remote == NULL ? PREFACE_SIZE : LENGTH_SIZE;
	ch->frame_max = FRAME_PLAIN_MAX;
	rc = noise_begin(&ch->hs, remote == NULL ? NOISE_RESPONDER : NOISE_INITIATOR, secret,
	                 remote, prologue, e);
	if (rc == 0 && remote != NULL) {
		say(ch, preface, sizeof preface);
		rc = say_handshake(ch, e);
	}
	if (rc != 0) {
		channel_free(ch);
		return rc;
	}
	*out = ch;
	return 0;
}

void
channel_free(struct channel *ch)
{
	if (ch == NULL)
		return;
	wipe(ch);
	sodium_free(ch); /* Wipes it first. */
}

/* ---- receiving: these fail into ch->err ---- */

static int
refuse_version(struct channel *ch)
{
	return lc_fail(&ch->err, LC_EVERSION, 0,
	               "channel: the other side speaks version %u, we speak version %u",
	               ch->in[MAGIC_SIZE], CHANNEL_VERSION);
}

static int
take_preface(struct channel *ch)
{
	if (memcmp(ch->in, MAGIC, MAGIC_SIZE) != 0)
		return lc_fail(&ch->err, LC_EPEER, 0,
		               "channel: the other side does not speak our protocol");
	if (ch->in[MAGIC_SIZE] != CHANNEL_VERSION) {
		say(ch, preface, sizeof preface);
		return refuse_version(ch);
	}
	ch->state = HANDSHAKE;
	return 0;
}

/* A responder that refuses our version.  Nobody vouches for that: all it can do is to end this. */
static int
take_version_answer(struct channel *ch)
{
	if (memcmp(ch->in, MAGIC, MAGIC_SIZE) != 0 || ch->in[MAGIC_SIZE] == CHANNEL_VERSION)
		return lc_fail(&ch->err, LC_EPEER, 0,
		               "channel: the other side does not speak our protocol");
	return refuse_version(ch);
}

/* Both bytes of a length are there. */
static int
take_length(struct channel *ch)
{
	size_t n = lc_get16(ch->in);

	if (ch->state == OPEN) {
		if (n <= NOISE_TAG_SIZE)
			return lc_fail(&ch->err, LC_EPEER, 0, "channel: a frame of %zu bytes", n);
	} else if (ch->hs.role == NOISE_INITIATOR && memcmp(ch->in, MAGIC, LENGTH_SIZE) == 0) {
		ch->state = VERSION_ANSWER;
		ch->want = PREFACE_SIZE;
		return 0;
	} else if (n != noise_overhead(&ch->hs)) {
		return lc_fail(&ch->err, LC_EPEER, 0, "channel: a handshake message of %zu bytes%s",
		               n,
		               ch->hs.role == NOISE_INITIATOR
		                   ? ": that is no replica's port, or something between answers"
		                   : "");
	}
	ch->want = LENGTH_SIZE + n;
	return 0;
}

/* What a callback says is final.  It gets an error of its own: 0 is 0, whatever it wrote there. */
static int
heed(struct channel *ch, int rc, const struct lc_err *said)
{
	if (rc == 0)
		return 0;
	if (said->code != LC_OK)
		ch->err = *said;
	return lc_fail(&ch->err, rc, 0, "channel: refused");
}

static int
open_up(struct channel *ch, const struct channel_events *events)
{
	struct lc_err said = LC_ERR_INIT;

	ch->in = lc_realloc(NULL, FRAME_MAX);
	if (ch->in == NULL) {
		ch->in = ch->small;
		return lc_fail(&ch->err, LC_ENOMEM, 0, "channel: out of memory");
	}
	memcpy(ch->peer, noise_remote(&ch->hs), sizeof ch->peer);
	ch->known = true;
	noise_split(&ch->hs, &ch->sending, &ch->receiving);
	ch->state = OPEN;
	if (events->opened == NULL)
		return 0;
	return heed(ch, events->opened(events->arg, ch->peer, &said), &said);
}

static int
take_handshake(struct channel *ch, const struct channel_events *events)
{
	static const char *const why[] = {
	    "channel: does it expect another key of us?",
	    "channel: it does not hold the key that we expect",
	    "channel: it does not hold the key that it claims",
	};
	const struct lc_span message = {ch->in + LENGTH_SIZE, ch->want - LENGTH_SIZE};
	unsigned number = ch->hs.message;
	uint8_t nothing;
	int rc;

	rc = noise_read(&ch->hs, message, &nothing, &ch->err);
	if (rc != 0) {
		lc_wrap(&ch->err, "%s", why[number]);
		return rc;
	}
	if (!noise_complete(&ch->hs))
		rc = say_handshake(ch, &ch->err);
	if (rc == 0 && noise_complete(&ch->hs))
		rc = open_up(ch, events);
	return rc;
}

/* The eight bytes of ch->head are there. */
static int
take_head(struct channel *ch)
{
	uint32_t n = lc_get32(ch->head);
	uint16_t type = lc_get16(ch->head + 4);

	if (n > CHANNEL_BODY_MAX)
		return lc_fail(&ch->err, LC_EPEER, 0, "channel: a message of %u bytes (type %u)", n,
		               type);
	if (lc_get16(ch->head + 6) != 0 || (type == TYPE_CLOSE && n != 0))
		return lc_fail(&ch->err, LC_EPEER, 0, "channel: malformed message (type %u)", type);
	return 0;
}

static int
deliver(struct channel *ch, struct lc_span body, const struct channel_events *events)
{
	uint16_t type = lc_get16(ch->head + 4);
	struct lc_err said = LC_ERR_INIT;

	ch->nhead = 0;
	ch->nbody = 0;
	if (type == TYPE_CLOSE) {
		ch->state = ENDED;
		return 0;
	}
	return heed(ch, events->message(events->arg, type, body, &said), &said);
}

/* Add to a body that spans frames.  Its bytes: at most *n of those at p, how many to *n. */
static int
collect(struct channel *ch, const uint8_t *p, size_t *n)
{
	size_t whole = lc_get32(ch->head);

	if (ch->body_cap < whole) { /* Only at the start of a body, so nothing is lost. */
		scrub(ch->body, ch->body_cap);
		ch->body = lc_realloc(NULL, whole);
		ch->body_cap = ch->body == NULL ? 0 : whole;
		if (ch->body == NULL)
			return lc_fail(&ch->err, LC_ENOMEM, 0, "channel: out of memory");
	}
	if (*n > whole - ch->nbody)
		*n = whole - ch->nbody;
	memcpy(ch->body + ch->nbody, p, *n);
	ch->nbody += *n;
	return 0;
}

/* Authentic plaintext: a piece of the stream of messages. */
static int
take_plain(struct channel *ch, const uint8_t *p, size_t n, const struct channel_events *events)
{
	size_t k, whole;
	int rc = 0;

	while (n > 0 && rc == 0) {
		if (ch->state == ENDED)
			return lc_fail(&ch->err, LC_EPEER, 0, "channel: a message after CLOSE");
		if (ch->nhead < HEAD_SIZE) {
			k = n < HEAD_SIZE - ch->nhead ? n : HEAD_SIZE - ch->nhead;
			memcpy(ch->head + ch->nhead, p, k);
			ch->nhead += k;
			p += k;
			n -= k;
			if (ch->nhead < HEAD_SIZE)
				return 0;
			rc = take_head(ch);
			if (rc != 0)
				return rc;
		}
		whole = lc_get32(ch->head);
		k = n;
		if (ch->nbody == 0 && n >= whole) {
			k = whole;
			rc = deliver(ch, (struct lc_span){p, k}, events);
		} else {
			rc = collect(ch, p, &k);
			if (rc == 0 && ch->nbody == whole)
				rc = deliver(ch, (struct lc_span){ch->body, whole}, events);
		}
		p += k;
		n -= k;
	}
	return rc;
}

/* Both sides count, so nothing has to be said about it. */
static void
count_frame(struct noise_cipher *c)
{
	if (c->nonce % REKEY_EVERY == 0)
		noise_rekey(c);
}

/* The frame of ch->want bytes at wire, which may be ch->in or what was fed. */
static int
take_frame(struct channel *ch, const uint8_t *wire, const struct channel_events *events)
{
	uint8_t *plain = ch->in + LENGTH_SIZE;
	size_t n = ch->want - LENGTH_SIZE;
	int rc = noise_open(&ch->receiving, (struct lc_span){NULL, 0},
	                    (struct lc_span){wire + LENGTH_SIZE, n}, plain, &ch->err);

	if (rc != 0) {
		lc_wrap(&ch->err, "channel: frame %llu", (unsigned long long)ch->receiving.nonce);
		return rc;
	}
	count_frame(&ch->receiving);
	return take_plain(ch, plain, n - NOISE_TAG_SIZE, events);
}

/* All bytes that were wanted are there. */
static int
take(struct channel *ch, const struct channel_events *events)
{
	int rc;

	if (ch->state == VERSION_ANSWER)
		return take_version_answer(ch);
	if (ch->state != PREFACE && ch->want == LENGTH_SIZE)
		return take_length(ch);
	if (ch->state == PREFACE)
		rc = take_preface(ch);
	else if (ch->state == HANDSHAKE)
		rc = take_handshake(ch, events);
	else
		rc = take_frame(ch, ch->in, events);
	ch->have = 0;
	ch->want = LENGTH_SIZE;
	return rc;
}

/* What was fed begins with a whole frame: opened from there, it is not copied before. */
static bool
is_whole_frame(const struct channel *ch, const uint8_t *p, size_t n)
{
	return ch->state == OPEN && ch->have == 0 && n > LENGTH_SIZE &&
	       lc_get16(p) > NOISE_TAG_SIZE && n >= LENGTH_SIZE + (size_t)lc_get16(p);
}

int
channel_feed(struct channel *ch, const uint8_t *p, size_t n, const struct channel_events *events,
             struct lc_err *e)
{
	size_t k;
	int rc = 0;

	if (ch->err.code != LC_OK)
		return failed(ch, e);
	while (n > 0 && rc == 0) {
		if (ch->state == ENDED) {
			rc = lc_fail(&ch->err, LC_EPEER, 0, "channel: bytes after CLOSE");
			break;
		}
		if (is_whole_frame(ch, p, n)) {
			ch->want = k = LENGTH_SIZE + (size_t)lc_get16(p);
			rc = take_frame(ch, p, events);
			ch->want = LENGTH_SIZE;
		} else {
			k = n < ch->want - ch->have ? n : ch->want - ch->have;
			memcpy(ch->in + ch->have, p, k);
			ch->have += k;
			if (ch->have == ch->want)
				rc = take(ch, events);
		}
		p += k;
		n -= k;
	}
	return rc == 0 ? 0 : fail(ch, e);
}

int
channel_eof(const struct channel *ch, struct lc_err *e)
{
	if (ch->err.code != LC_OK)
		return failed(ch, e);
	switch (ch->state) {
	case PREFACE:
	case VERSION_ANSWER:
		return lc_fail(e, LC_EPEER, 0, "channel: the connection ended in the preface");
	case HANDSHAKE:
		return lc_fail(e, LC_EPEER, 0,
		               "channel: the connection ended before handshake message %u%s",
		               ch->hs.message + 1,
		               ch->hs.role == NOISE_INITIATOR ? " (has its key changed?)" : "");
	case OPEN:
		return lc_fail(e, LC_EPEER, 0, "channel: the connection was cut %s",
		               ch->have > 0 || ch->nhead > 0 ? "in the middle of a message"
		                                             : "between two messages");
	case ENDED:
		break;
	}
	return 0;
}

/* ---- sending ---- */

/* The last frame, where it takes more; or a new one, or NULL. */
static struct frame *
frame_with_room(struct channel *ch)
{
	struct frame *f = TAILQ_LAST(&ch->frames, frame_list);

	if (f != NULL && !f->sealed && f->n < ch->frame_max)
		return f;
	f = frame_get(ch);
	if (f == NULL)
		return NULL;
	f->sealed = false;
	f->n = 0;
	f->off = 0;
	TAILQ_INSERT_TAIL(&ch->frames, f, link);
	ch->queued += LENGTH_SIZE + NOISE_TAG_SIZE;
	return f;
}

static int
append(struct channel *ch, struct lc_span s)
{
	size_t k;

	while (s.n > 0) {
		struct frame *f = frame_with_room(ch);

		if (f == NULL)
			return LC_ENOMEM;
		k = s.n < ch->frame_max - f->n ? s.n : ch->frame_max - f->n;
		memcpy(f->wire + LENGTH_SIZE + f->n, s.p, k);
		f->n += k;
		ch->queued += k;
		s.p += k;
		s.n -= k;
	}
	return 0;
}

/* Queue a head and a body, or nothing. */
static int
queue(struct channel *ch, uint16_t type, const struct lc_span *spans, size_t nspans, size_t nbody,
      struct lc_err *e)
{
	struct frame *tail = TAILQ_LAST(&ch->frames, frame_list), *f;
	size_t ntail = tail == NULL ? 0 : tail->n, queued = ch->queued, i;
	uint8_t head[HEAD_SIZE] = {0};
	int rc;

	lc_put32(head, (uint32_t)nbody);
	lc_put16(head + 4, type);
	rc = append(ch, (struct lc_span){head, sizeof head});
	for (i = 0; i < nspans && rc == 0; i++)
		rc = append(ch, spans[i]);
	if (rc == 0)
		return 0;
	while ((f = TAILQ_LAST(&ch->frames, frame_list)) != tail)
		frame_drop(ch, f);
	if (tail != NULL) {
		sodium_memzero(tail->wire + LENGTH_SIZE + ntail, tail->n - ntail);
		tail->n = ntail;
	}
	ch->queued = queued;
	return lc_fail(e, LC_ENOMEM, 0, "channel: out of memory");
}

int
channel_send(struct channel *ch, uint16_t type, const struct lc_span *spans, size_t nspans,
             struct lc_err *e)
{
	size_t n = 0, i;

	if (ch->err.code != LC_OK)
		return failed(ch, e);
	for (i = 0; i < nspans && n <= CHANNEL_BODY_MAX; i++)
		n = spans[i].n > CHANNEL_BODY_MAX ? SIZE_MAX : n + spans[i].n;
	if (n > CHANNEL_BODY_MAX)
		return lc_fail(e, LC_EINVAL, 0, "channel: a message of over %u bytes",
		               CHANNEL_BODY_MAX);
	if (type == TYPE_CLOSE || ch->closed)
		return lc_fail(e, LC_EINVAL, 0, "channel: cannot send a message (type %u)%s", type,
		               ch->closed ? " after the end" : "");
	return queue(ch, type, spans, nspans, n, e);
}

int
channel_close(struct channel *ch, struct lc_err *e)
{
	int rc;

	if (ch->err.code != LC_OK)
		return failed(ch, e);
	if (ch->closed)
		return 0;
	rc = queue(ch, TYPE_CLOSE, NULL, 0, 0, e);
	ch->closed = rc == 0;
	return rc;
}

/* To wire, which may be f->wire itself or have room for all of the frame. */
static int
seal(struct channel *ch, struct frame *f, uint8_t *wire)
{
	const struct lc_span plain = {f->wire + LENGTH_SIZE, f->n};
	int rc = noise_seal(&ch->sending, (struct lc_span){NULL, 0}, plain, wire + LENGTH_SIZE,
	                    &ch->err);

	if (rc != 0)
		return rc;
	count_frame(&ch->sending);
	lc_put16(wire, (uint16_t)(f->n + NOISE_TAG_SIZE));
	return 0;
}

/* Copy what fits of p[*off..n) to out. */
static size_t
give(const uint8_t *p, size_t n, size_t *off, uint8_t *out, size_t cap)
{
	size_t k = cap < n - *off ? cap : n - *off;

	if (k > 0)
		memcpy(out, p + *off, k);
	*off += k;
	return k;
}

int
channel_pull(struct channel *ch, uint8_t *out, size_t cap, size_t *n, struct lc_err *e)
{
	struct frame *f;
	size_t k;

	*n = give(ch->hello, ch->nhello, &ch->hello_off, out, cap);
	if (!channel_established(ch))
		return 0;
	while (*n < cap && (f = TAILQ_FIRST(&ch->frames)) != NULL) {
		bool fits = !f->sealed && cap - *n >= LENGTH_SIZE + f->n + NOISE_TAG_SIZE;

		if (!f->sealed && seal(ch, f, fits ? out + *n : f->wire) != 0)
			return fail(ch, e);
		if (fits) {
			k = LENGTH_SIZE + f->n + NOISE_TAG_SIZE;
		} else {
			f->n += f->sealed ? 0 : LENGTH_SIZE + NOISE_TAG_SIZE;
			f->sealed = true;
			k = give(f->wire, f->n, &f->off, out + *n, cap - *n);
		}
		*n += k;
		ch->queued -= k;
		if (fits || f->off == f->n)
			frame_drop(ch, f);
	}
	return 0;
}

void
channel_frame_max(struct channel *ch, size_t n)
{
	ch->frame_max = n;
}

size_t
channel_queued(const struct channel *ch)
{
	return ch->nhello - ch->hello_off + ch->queued;
}

/* ---- state ---- */

bool
channel_established(const struct channel *ch)
{
	return ch->err.code == LC_OK && (ch->state == OPEN || ch->state == ENDED);
}

bool
channel_ended(const struct channel *ch)
{
	return ch->err.code == LC_OK && ch->state == ENDED;
}

const uint8_t *
channel_peer(const struct channel *ch)
{
	return ch->known ? ch->peer : NULL;
}
