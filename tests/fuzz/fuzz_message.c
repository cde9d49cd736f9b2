/*
 * message: whatever a peer says, in any order: a receiver and a sender with real stores take it or
 * end the session; no point appears that was not sent whole, and what is encoded is decoded again.
 *
 * The first byte: whom it is for (0 receiver, 1 sender, 2 the codecs alone, 3 lender).  Then
 * messages: type (1 byte), length (2 bytes, little-endian), body.
 */
#include <stdlib.h>
#include <string.h>

#include "replicator/lender.h"
#include "replicator/message.h"
#include "replicator/receiver.h"
#include "replicator/sender.h"
#include "store/store.h"
#include "tests/fuzz/blind.h"
#include "tests/fuzz/fuzz.h"

#define EMITTED_MAX (8u << 20)

static struct store *store;
static size_t emitted;

static int
emit(void *arg, uint16_t type, const struct lc_span *spans, size_t n, struct lc_err *e)
{
	(void)arg;
	(void)type;
	(void)e;
	for (; n > 0; n--)
		emitted += spans[n - 1].n;
	return 0;
}

/* ---- codecs: what is taken can be written again ---- */

static void
same_again(struct lc_span body, struct lc_buf *again, int rc)
{
	fuzz_check(rc == 0);
	fuzz_check(again->n == body.n);
	lc_buf_free(again);
}

static void
is_text(const char *s, size_t n)
{
	size_t i, len = strnlen(s, n);

	fuzz_check(len < n);
	for (i = 0; i < len; i++)
		fuzz_check((unsigned char)s[i] >= 0x20 && s[i] != 0x7f);
}

static void
decode(uint16_t type, struct lc_span body)
{
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf b = {0};
	struct transfer_point p;
	struct committed done;
	struct welcome welcome;
	struct refused refused;
	struct sent_chunk chunk;
	struct sent_rows rows;
	struct commit commit;
	struct hello hello;
	struct offer offer;
	struct head head;
	struct want want;
	struct proof proof;
	uint32_t stream;
	struct room room;
	struct damaged damaged;
	const uint8_t *above;
	uint64_t n;

	if (type == MESSAGE_HELLO && message_get_hello(body, &hello, &e) == 0) {
		is_text(hello.name, sizeof hello.name);
		same_again(body, &b, message_put_hello(&b, &hello));
	} else if (type == MESSAGE_WELCOME && message_get_welcome(body, &welcome, &e) == 0) {
		fuzz_check(welcome.byte_window > 0);
		same_again(body, &b, message_put_welcome(&b, &welcome));
	} else if (type == MESSAGE_REFUSED && message_get_refused(body, &refused, &e) == 0) {
		is_text(refused.text, sizeof refused.text);
		fuzz_check(refused_error(&refused, &e) < 0);
	} else if (type == MESSAGE_HEAD && message_get_head(body, &head, &e) == 0) {
		same_again(body, &b, message_put_head(&b, &head));
	} else if (type == MESSAGE_BEGIN && message_get_begin(body, &stream, &p, &e) == 0) {
		same_again(body, &b, message_put_begin(&b, stream, &p));
	} else if (type == MESSAGE_OFFER && message_get_offer(body, &offer, &e) == 0) {
		same_again(body, &b, message_put_offer(&b, &offer));
	} else if (type == MESSAGE_PROOF && message_get_proof(body, &proof, &e) == 0) {
		same_again(body, &b, message_put_proof(&b, &proof));
	} else if ((type == MESSAGE_WANT || type == MESSAGE_PROVE) &&
	           message_get_want(body, &want, &e) == 0) {
		same_again(body, &b, message_put_want(&b, &want));
	} else if (type == MESSAGE_CHUNK && message_get_chunk(body, &chunk, &e) == 0) {
		fuzz_check(chunk.chunk.payload.n + 12 == body.n);
	} else if (type == MESSAGE_ROWS && message_get_rows(body, &rows, &e) == 0) {
		fuzz_check(rows.payload.n + 4 == body.n);
	} else if (type == MESSAGE_COMMIT && message_get_commit(body, &commit, &e) == 0) {
		same_again(body, &b, message_put_commit(&b, &commit));
	} else if (type == MESSAGE_COMMITTED && message_get_committed(body, &done, &e) == 0) {
		same_again(body, &b, message_put_committed(&b, &done));
	} else if (type == MESSAGE_ROOM && message_get_room(body, &room, &e) == 0) {
		same_again(body, &b, message_put_room(&b, &room));
	} else if (type == MESSAGE_INSPECT && message_get_inspect(body, &above, &e) == 0) {
		same_again(body, &b, message_put_inspect(&b, above));
	} else if (type == MESSAGE_DAMAGED && message_get_damaged(body, &damaged, &e) == 0) {
		fuzz_check(damaged.n <= damaged.contents);
		same_again(body, &b, message_put_damaged(&b, &damaged));
	} else if (type == MESSAGE_TAKEN && message_get_number(body, type, &n, &e) == 0) {
		same_again(body, &b, message_put_number(&b, n));
	}
	fuzz_check(e.code == LC_OK || e.code < 0);
}

static void
decode_reading(uint16_t type, struct lc_span body)
{
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf b = {0};
	struct transfer_chunk c;
	struct recall recall;
	struct have have;
	struct none none;
	struct ids ids;
	uint32_t stream;

	if ((type == MESSAGE_READ || type == MESSAGE_ASK) &&
	    message_get_ids(body, type, &ids, &e) == 0)
		same_again(body, &b, message_put_ids(&b, &ids));
	else if (type == MESSAGE_BODY && message_get_body(body, &c, &e) == 0)
		fuzz_check(c.payload.n + 8 == body.n);
	else if (type == MESSAGE_NONE && message_get_none(body, &none, &e) == 0)
		same_again(body, &b, message_put_none(&b, &none));
	else if (type == MESSAGE_HAVE && message_get_have(body, &have, &e) == 0)
		same_again(body, &b, message_put_have(&b, &have));
	else if (type == MESSAGE_RECALL && message_get_recall(body, &recall, &e) == 0)
		same_again(body, &b, message_put_recall(&b, &recall));
	else if (type == MESSAGE_MORE && message_get_more(body, &stream, &e) == 0)
		same_again(body, &b, message_put_more(&b, stream));
	fuzz_check(e.code == LC_OK || e.code < 0);
}

/* ---- the two halves ---- */

static void
to_receiver(struct lc_span all)
{
	struct receiver_events ev = {.emit = emit};
	struct lc_err e = LC_ERR_INIT;
	struct receiver *r;
	struct lc_span body;
	uint16_t type;
	int rc;

	fuzz_check(receiver_new(store, &ev, &r, &e) == 0);
	receiver_room(r, 1u << 20);
	while (blind_message(&all, &type, &body)) {
		rc = type == 255 ? receiver_settle(r, &e) : receiver_message(r, type, body, &e);
		fuzz_check(rc == e.code);
		if (rc != 0)
			break;
		fuzz_check(emitted < EMITTED_MAX);
	}
	receiver_free(r);
}

static void
to_sender(struct lc_span all)
{
	struct sender_events ev = {.emit = emit};
	struct sender_care care = {.due_ns = 0};
	const struct sender_mending mending = {.care = &care};
	struct lc_err e = LC_ERR_INIT;
	struct sender_stats st;
	struct sender *x;
	struct lc_span body;
	uint16_t type;
	int rc;

	fuzz_check(sender_new(store, 1u << 16, &ev, &x, &e) == 0);
	sender_mend(x, &mending);
	fuzz_check(sender_start(x, &e) == 0);
	while (blind_message(&all, &type, &body)) {
		if (type == 255)
			sender_wake(x, body.n >= 16 ? body.p : NULL);
		if (type == 254) /* a minute has gone by */
			care.due_ns = 0;
		rc = type >= 254 ? sender_pump(x, &e) : sender_message(x, type, body, &e);
		fuzz_check(rc == e.code);
		if (rc != 0)
			break;
		sender_stats(x, &st);
		fuzz_check(st.unacknowledged <= st.chunk_bytes);
		fuzz_check(emitted < EMITTED_MAX);
	}
	sender_free(x);
	sender_care_done(&care);
}

static void
to_lender(struct lc_span all)
{
	struct lc_err e = LC_ERR_INIT;
	struct lender *x;
	struct lc_span body;
	uint16_t type;
	int rc;

	fuzz_check(lender_new(store, 0, emit, NULL, &x, &e) == 0);
	while (blind_message(&all, &type, &body)) {
		rc = lender_message(x, type, body, &e);
		fuzz_check(rc == e.code);
		if (rc != 0)
			break;
		fuzz_check(emitted < EMITTED_MAX);
	}
	lender_free(x);
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct lc_span all = {p + 1, n - 1}, body;
	uint16_t type;

	store = blind_store(NULL);
	if (n == 0)
		return 0;
	emitted = 0;
	if (p[0] % 4 == 0) {
		to_receiver(all);
	} else if (p[0] % 4 == 1) {
		to_sender(all);
	} else if (p[0] % 4 == 3) {
		to_lender(all);
	} else {
		while (blind_message(&all, &type, &body)) {
			decode(type, body);
			decode_reading(type, body);
		}
	}
	return 0;
}
