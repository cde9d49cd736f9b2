/*
 * Deltas by librsync.  The delta's commands are few (literal bytes, copies of a range of the base,
 * end), so that a reader with every length checked is shorter than a safe use of another's.
 */
#include <stdio.h>
#include <string.h>

#include <librsync.h>

#include "store/delta.h"

#define STRONG_SIZE 32u /* not cut: a wrong match would be found when it is too late */
#define DELTA_MAGIC 0x72730236u
#define LITERAL_SHORT_MAX 0x40u /* commands 1 to 64: so many bytes follow */
#define LITERAL_N1 0x41u        /* to 0x44: length in 1, 2, 4, 8 bytes, then the bytes */
#define COPY_N1_N1 0x45u        /* to 0x54: place, length, each in 1, 2, 4, 8 bytes */
#define COPY_LAST 0x54u

/* ---- making ---- */

static int
rs_failed(struct lc_err *e, rs_result rc)
{
	if (rc == RS_MEM_ERROR)
		return lc_fail(e, LC_ENOMEM, 0, "delta: out of memory");
	return lc_fail(e, LC_ECORRUPT, (int)rc, "delta: %s", rs_strerror(rc));
}

/* librsync takes bytes that it does not write to as char *. */
static char *
in_bytes(struct lc_span s)
{
	return (char *)(uintptr_t)s.p;
}

int
delta_sign(struct lc_span base, size_t block, struct lc_buf *out, struct lc_err *e)
{
	size_t cap = 12 + (base.n + block - 1) / block * (4 + STRONG_SIZE);
	rs_buffers_t io = {.next_in = in_bytes(base), .avail_in = base.n, .eof_in = 1};
	rs_result rc;
	rs_job_t *job;

	if (lc_buf_reserve(out, cap) != 0)
		return lc_fail(e, LC_ENOMEM, 0, "delta: out of memory");
	job = rs_sig_begin(block, STRONG_SIZE, RS_RK_BLAKE2_SIG_MAGIC);
	if (job == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "delta: out of memory");
	io.next_out = (char *)out->p + out->n;
	io.avail_out = cap;
	rc = rs_job_iter(job, &io);
	(void)rs_job_free(job);
	if (rc != RS_DONE)
		return rs_failed(e, rc);
	out->n += cap - io.avail_out;
	return 0;
}

static int
load(struct lc_span signature, rs_signature_t **out, struct lc_err *e)
{
	rs_buffers_t io = {.next_in = in_bytes(signature), .avail_in = signature.n, .eof_in = 1};
	rs_job_t *job = rs_loadsig_begin(out);
	rs_result rc = job == NULL ? RS_MEM_ERROR : rs_job_iter(job, &io);

	if (job != NULL)
		(void)rs_job_free(job);
	rc = rc == RS_DONE ? rs_build_hash_table(*out) : rc;
	return rc == RS_DONE ? 0 : rs_failed(e, rc);
}

int
delta_make(struct lc_span signature, struct lc_span window,
           uint8_t *out, /* NOLINT(readability-non-const-parameter): librsync writes to it */
           size_t cap, size_t *n, struct lc_err *e)
{
	rs_buffers_t io = {.next_in = in_bytes(window),
	                   .avail_in = window.n,
	                   .eof_in = 1,
	                   .next_out = (char *)out,
	                   .avail_out = cap};
	rs_signature_t *sums = NULL;
	rs_job_t *job = NULL;
	rs_result rs = RS_MEM_ERROR;
	int rc;

	*n = 0;
	rs_trace_set_level(RS_LOG_CRIT); /* what it has to say is in its result */
	rc = load(signature, &sums, e);
	if (rc == 0)
		job = rs_delta_begin(sums);
	if (job != NULL) {
		rs = rs_job_iter(job, &io);
		(void)rs_job_free(job);
	}
	if (sums != NULL)
		rs_free_sumset(sums);
	if (rc != 0)
		return rc;
	if (rs == RS_DONE)
		*n = cap - io.avail_out;
	else if (rs != RS_BLOCKED) /* no room for all of it */
		return rs_failed(e, rs);
	return 0;
}

/* ---- reading ---- */

/* A big-endian number of `width` bytes; false where they are not there. */
static bool
take_number(struct lc_span *d, unsigned width, uint64_t *v)
{
	unsigned i;

	if (d->n < width)
		return false;
	*v = 0;
	for (i = 0; i < width; i++)
		*v = *v << 8 | d->p[i];
	d->p += width;
	d->n -= width;
	return true;
}

struct command {
	bool literal;
	uint64_t from, n; /* from: of the base */
};

static bool
take_command(struct lc_span *d, uint8_t op, struct command *c)
{
	*c = (struct command){.literal = op < COPY_N1_N1};
	if (op <= LITERAL_SHORT_MAX) {
		c->n = op;
		return true;
	}
	if (c->literal)
		return take_number(d, 1u << (op - LITERAL_N1), &c->n);
	if (op > COPY_LAST)
		return false;
	return take_number(d, 1u << (op - COPY_N1_N1) / 4, &c->from) &&
	       take_number(d, 1u << (op - COPY_N1_N1) % 4, &c->n);
}

bool
delta_patch(struct lc_span d, struct lc_span base, uint8_t *out, size_t n)
{
	struct command c;
	size_t made = 0;
	uint64_t magic, op;

	if (!take_number(&d, 4, &magic) || magic != DELTA_MAGIC)
		return false;
	while (take_number(&d, 1, &op)) {
		if (op == 0)
			return made == n && d.n == 0;
		/* Every command makes something, so a delta of n commands is the most there
		 * is. */
		if (!take_command(&d, (uint8_t)op, &c) || c.n == 0 || c.n > n - made)
			return false;
		if (c.literal && c.n <= d.n) {
			memcpy(out + made, d.p, c.n);
			d.p += c.n;
			d.n -= c.n;
		} else if (!c.literal && c.from <= base.n && c.n <= base.n - c.from) {
			memcpy(out + made, base.p + c.from, c.n);
		} else {
			return false;
		}
		made += c.n;
	}
	return false;
}
