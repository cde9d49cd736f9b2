/*
 * How far a source's offers run ahead: as far as a replica takes them, whatever the contents are
 * made upon, and no less than before where they are made upon nothing.
 */
#include <stdio.h>
#include <string.h>

#include "replicator/batch.h"
#include "replicator/message.h"
#include "store/base/bytes.h"
#include "store/seal.h"
#include "store/store_internal.h"
#include "tests/lib/halves.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"

#define ROWS (BATCHES_MAX * BATCH_ROWS) /* what a line offers at once */
#define SOME_ROWS 1024u

struct scene {
	struct halves x;
	struct vault a; /* of the same domain: what the points say beside their rows */
	struct map_record *m;
	bool deltas; /* each window is one, upon four bases of its own */
	unsigned vms;
};

static void
scene_make(struct scene *s, bool deltas)
{
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf keys = {0};

	memset(s, 0, sizeof *s);
	s->deltas = deltas;
	halves_make(&s->x);
	/* What waits for the catalog is looked through for each base. */
	s->x.v.s->flush_bytes = s->x.to->flush_bytes = 256u << 10;
	must(transfer_keys(s->x.v.s, &keys, &e), &e);
	vault_make_beside(&s->a, &s->x.v, (struct lc_span){keys.p, keys.n});
	lc_buf_free(&keys);
	vault_open(&s->a);
	s->m = lc_alloc(sizeof *s->m);
	assert_non_null(s->m);
}

static void
scene_end(struct scene *s)
{
	lc_free(s->m);
	vault_free(&s->a);
	halves_free(&s->x);
}

static void
id_of(uint64_t no, uint8_t id[CHUNK_ID_SIZE])
{
	uint64_t seed = no + 1;
	size_t i;

	for (i = 0; i < CHUNK_ID_SIZE; i += 8)
		lc_put64(id + i, vault_random(&seed, UINT64_MAX));
}

/* A content that nobody can open, made upon the n next ones. */
static void
put_chunk(struct incoming *in, uint64_t no, uint32_t n)
{
	uint8_t payload[CHUNK_HEAD_SIZE + CHUNK_BASES_MAX * CHUNK_ID_SIZE + SEAL_OVERHEAD + 8] = {
	    0};
	struct transfer_chunk c = {.encoding = n == 0 ? CHUNK_ZSTD : CHUNK_PREFIX, .key = 1};
	struct lc_err e = LC_ERR_INIT;
	uint32_t i;

	id_of(no, payload);
	lc_put32(payload + CHUNK_ID_SIZE, WINDOW_SIZE);
	lc_put32(payload + CHUNK_ID_SIZE + 4, n);
	for (i = 0; i < n; i++)
		id_of(no + 1 + i, payload + CHUNK_HEAD_SIZE + (size_t)i * CHUNK_ID_SIZE);
	c.payload.p = payload;
	c.payload.n = CHUNK_HEAD_SIZE + (size_t)n * CHUNK_ID_SIZE + SEAL_OVERHEAD + 8;
	must(incoming_chunk(in, &c, &e), &e);
}

/* The contents of a row; of all VMs the same. */
static void
put_contents(const struct scene *s, struct incoming *in, uint64_t window)
{
	uint64_t no = window * (1 + CHUNK_BASES_MAX);
	uint32_t i;

	for (i = 0; s->deltas && i < CHUNK_BASES_MAX; i++)
		put_chunk(in, no + 1 + i, 0);
	put_chunk(in, no, s->deltas ? CHUNK_BASES_MAX : 0);
}

static void
put_rows(struct scene *s, struct incoming_end *end, uint64_t first)
{
	struct map_record *m = s->m;
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf rows = {0};
	struct set_sum one;
	uint64_t i;

	for (m->n = 0; m->n < SOME_ROWS && first + m->n < ROWS; m->n++) {
		i = first + m->n;
		if (s->vms == 0)
			put_contents(s, end->in, i);
		m->rows[m->n] = (struct map_row){.window = i};
		id_of(i * (1 + CHUNK_BASES_MAX), m->rows[m->n].id);
		set_row(NULL, m->disk, i, m->rows[m->n].id, &one);
		set_add(&end->sum, &one);
	}
	end->rows += m->n;
	must(maprec_encode(m, &rows, &e), &e);
	must(incoming_rows(end->in, (struct lc_span){rows.p, rows.n}, &e), &e);
	lc_buf_free(&rows);
}

/* A point at the source that has as many rows as are offered at once. */
static void
add_vm(struct scene *s)
{
	struct vault_disk d = vault_disk("vda", 4);
	struct incoming_end end = {.rows = 0};
	struct lc_err e = LC_ERR_INIT;
	struct outgoing *o;
	struct point p;
	char name[16];
	uint64_t i;

	(void)snprintf(name, sizeof name, "vm%u", s->vms);
	must(vault_backup(s->a.s, name, &d, 1, &p, &e), &e);
	must(outgoing_next(s->a.s, p.line, (struct lc_span){0}, &o, &e), &e);
	must(incoming_begin(s->x.v.s, 0, outgoing_point(o), &end.in, &e), &e);
	memcpy(s->m->point, p.id, 16);
	memcpy(s->m->line, p.line, 16);
	memcpy(s->m->disk, p.disks[0].id, 16);
	for (i = 0; i < ROWS; i += SOME_ROWS)
		put_rows(s, &end, i);
	incoming_commit(&end, 1);
	must(end.rc, &end.err);
	s->vms++;
	outgoing_free(o);
	point_done(&p);
	vault_disk_free(&d);
}

/* OFFERs that are on the way. */
static unsigned
offers(struct scene *s)
{
	struct packet *p;
	unsigned n = 0;

	TAILQ_FOREACH (p, &s->x.up, entry)
		n += p->type == MESSAGE_OFFER ? 1 : 0;
	return n;
}

/* The replica has told what it has, and has not answered any OFFER. */
static void
begin(struct scene *s)
{
	assert_true(halves_carry(&s->x, &s->x.up)); /* HEADS */
	while (halves_carry(&s->x, &s->x.down))
		continue;
}

/* All of them are wanted, as none has come when they are offered. */
static void
no_more_is_offered_than_is_taken(void **state)
{
	const unsigned vms = ASKED_ALL_MAX / ROWS / (1 + CHUNK_BASES_MAX) + 1;
	uint64_t seed = 1;
	struct scene s;
	unsigned i;

	(void)state;
	scene_make(&s, true);
	for (i = 0; i < vms; i++)
		add_vm(&s);
	begin(&s);
	assert_true(offers(&s) >= vms); /* each VM has one under way */
	halves_run(&s.x, &seed);
	assert_true(sender_idle(s.x.tx));
	assert_int_equal(s.x.failed + s.x.refused, 0);
	assert_int_equal(s.x.committed, vms);
	scene_end(&s);
}

static void
whole_contents_go_side_by_side(void **state)
{
	struct scene s;
	unsigned i;

	(void)state;
	scene_make(&s, false);
	for (i = 0; i < BATCHES_LINES + 1; i++)
		add_vm(&s);
	begin(&s);
	assert_int_equal(offers(&s), BATCHES_LINES * BATCHES_MAX);
	scene_end(&s);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(no_more_is_offered_than_is_taken),
	    cmocka_unit_test(whole_contents_go_side_by_side),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
