/*
 * shared: a store that several hosts of a domain share, and one of them says whatever it likes:
 * what another one has there stays its own, and is what it was.
 *
 * The first byte: bit 0 which of two it is, bit 1 whether it reads.  Then messages: type (1 byte;
 * 255: no message waits), length (2 bytes, little-endian), body.  The other one's ids: 16 or 32
 * times 'p' (point), 'v' (VM), 'l' (line), 'd' (disk), '#' (chunk).
 */
#include <stdlib.h>
#include <string.h>

#include "replicator/lender.h"
#include "replicator/message.h"
#include "replicator/receiver.h"
#include "store/base/bytes.h"
#include "store/maprec.h"
#include "store/segment.h"
#include "store/store.h"
#include "tests/fuzz/blind.h"
#include "tests/fuzz/fuzz.h"

#define EMITTED_MAX (8u << 20)
#define HEAD 64u /* of a CHUNK payload: id, length, no bases, nonce */
#define PAYLOAD (HEAD + 100u)

static struct store *store;
static size_t emitted;
static uint16_t writer;
static uint8_t theirs[PAYLOAD]; /* a content of writer 0 */
static struct lc_buf head;      /* of its line */

/* ---- what the other one has ---- */

static void
its_point(void)
{
	static struct point p;
	static struct map_record m;
	struct transfer_chunk c = {.encoding = 1, .key = 1, .payload = {theirs, PAYLOAD}};
	struct transfer_point tp = {.name = {(const uint8_t *)"sealed", 6}};
	struct incoming_end end = {.rows = 1};
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf rows = {0};

	memset(theirs, '#', sizeof theirs);
	lc_put32(theirs + 32, WINDOW_SIZE);
	memset(theirs + 36, 0, 4);
	m.n = 1;
	memset(m.point, 'p', 16);
	memset(m.line, 'l', 16);
	memset(m.disk, 'd', 16);
	memset(m.rows[0].id, '#', CHUNK_ID_SIZE);
	set_row(NULL, m.disk, 0, m.rows[0].id, &end.sum);
	fuzz_check(maprec_encode(&m, &rows, &e) == 0);
	memset(&p, 0, sizeof p);
	memcpy(p.id, m.point, 16);
	memcpy(p.line, m.line, 16);
	p.ndisks = 1;
	memcpy(p.disks[0].id, m.disk, 16);
	p.disks[0].size = WINDOW_SIZE;
	p.changed = 1;
	p.rows_sum = end.sum;
	head.n = 0;
	fuzz_check(point_encode(&p, tp.name, &head, &e) == 0);
	memcpy(tp.id, p.id, 16);
	memcpy(tp.line, p.line, 16);
	memset(tp.vm, 'v', 16);
	tp.entry = (struct lc_span){head.p, head.n};
	fuzz_check(incoming_begin(store, 0, &tp, &end.in, &e) == 0);
	fuzz_check(incoming_chunk(end.in, &c, &e) == 0);
	fuzz_check(incoming_rows(end.in, (struct lc_span){rows.p, rows.n}, &e) == 0);
	incoming_commit(&end, 1);
	fuzz_check(end.rc == 0);
	lc_buf_free(&rows);
}

static int
look_at_line(void *arg, const struct transfer_line *l, struct lc_err *e)
{
	bool its = l->line[0] == 'l' && memcmp(l->line, l->line + 1, 15) == 0;

	(void)e;
	fuzz_check((l->writer == 0) == its);
	if (its) {
		*(bool *)arg = true;
		fuzz_check(l->head.n == head.n && memcmp(l->head.p, head.p, head.n) == 0);
	}
	return 0;
}

static void
nothing_has_changed_for_it(void)
{
	static uint8_t buf[RECORD_PAYLOAD_MAX];
	struct lc_err e = LC_ERR_INIT;
	struct transfer_chunk c;
	bool there = false;

	fuzz_check(transfer_lines(store, look_at_line, &there, &e) == 0);
	fuzz_check(there);
	fuzz_check(transfer_read(store, 0, theirs, buf, &c, &e) == 0);
	fuzz_check(c.payload.n == PAYLOAD && memcmp(c.payload.p, theirs, PAYLOAD) == 0);
}

/* ---- who says it ---- */

/* What is read back is the reader's own: here, what it has shown to have, too. */
static int
emit(void *arg, uint16_t type, const struct lc_span *spans, size_t n, struct lc_err *e)
{
	size_t i;

	(void)arg;
	(void)e;
	for (i = 0; i < n; i++) {
		emitted += spans[i].n;
		if (type == MESSAGE_BODY && spans[i].n == PAYLOAD &&
		    memcmp(spans[i].p, theirs, PAYLOAD) == 0)
			fuzz_check(transfer_has(store, writer, theirs, NULL) == 0);
	}
	return 0;
}

static void
sends(struct lc_span all)
{
	struct receiver_events ev = {.writer = writer, .emit = emit};
	struct lc_err e = LC_ERR_INIT;
	struct receiver *r;
	struct lc_span body;
	uint16_t type;
	int rc = 0;

	fuzz_check(receiver_new(store, &ev, &r, &e) == 0);
	receiver_room(r, 1u << 20);
	while (rc == 0 && blind_message(&all, &type, &body)) {
		rc = type == 255 ? receiver_settle(r, &e) : receiver_message(r, type, body, &e);
		fuzz_check(rc == e.code);
		fuzz_check(emitted < EMITTED_MAX);
	}
	receiver_free(r);
}

static void
reads(struct lc_span all)
{
	struct lc_err e = LC_ERR_INIT;
	struct lender *x;
	struct lc_span body;
	uint16_t type;
	int rc = 0;

	fuzz_check(lender_new(store, writer, emit, NULL, &x, &e) == 0);
	while (rc == 0 && blind_message(&all, &type, &body)) {
		rc = lender_message(x, type, body, &e);
		fuzz_check(rc == e.code);
		fuzz_check(emitted < EMITTED_MAX);
	}
	lender_free(x);
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	bool is_new;

	store = blind_store(&is_new);
	if (is_new)
		its_point();
	if (n == 0)
		return 0;
	emitted = 0;
	writer = (uint16_t)(1 + p[0] % 2);
	if ((p[0] & 2) != 0)
		reads((struct lc_span){p + 1, n - 1});
	else
		sends((struct lc_span){p + 1, n - 1});
	nothing_has_changed_for_it();
	return 0;
}
