/*
 * What a replica tells of a point that is made again here ends, whatever it is that answers.
 */
#include <string.h>

#include "store/base/bytes.h"
#include "store/recall.h"
#include "store/store.h"
#include "store/transfer.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

#define WINDOWS 40u

struct scene {
	struct vault v, lost; /* what the replica has; the host's new store, of the same domain */
	struct store *s;      /* that one, with the key */
	struct outgoing *out;
	struct incoming *in;
	struct map_record *m;
	struct lc_buf rows; /* all there are */
};

static int
note_line(void *arg, const struct transfer_line *l, struct lc_err *e)
{
	struct scene *x = arg;

	return outgoing_newest(x->v.s, l->line, &x->out, e);
}

static void
begin(struct scene *x)
{
	struct vault_disk d = vault_disk("vda", WINDOWS);
	struct store_opts o = {.mode = STORE_WRITE};
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf keys = {0};
	struct point p;
	size_t i;

	memset(x, 0, sizeof *x);
	vault_make(&x->v, true);
	vault_open(&x->v);
	for (i = 0; i < WINDOWS; i++)
		d.codes[i] = i + 1;
	must(vault_backup(x->v.s, "web01", &d, 1, &p, &e), &e);
	must(transfer_keys(x->v.s, &keys, &e), &e);
	vault_make_beside(&x->lost, &x->v, (struct lc_span){keys.p, keys.n});
	lc_buf_free(&keys);
	o.dir = x->lost.dir;
	o.key_dir = x->v.keys;
	must(store_open(&o, &x->s, &e), &e);
	must(transfer_lines(x->v.s, note_line, x, &e), &e);
	must(incoming_begin(x->s, 0, outgoing_point(x->out), &x->in, &e), &e);
	x->m = lc_alloc(sizeof *x->m);
	assert_non_null(x->m);
	must(outgoing_rows(x->out, x->m, MAP_ROWS_MAX, &e), &e);
	assert_int_equal(x->m->n, WINDOWS);
	must(maprec_encode(x->m, &x->rows, &e), &e);
	point_done(&p);
	vault_disk_free(&d);
}

static void
end(struct scene *x)
{
	incoming_abort(x->in);
	outgoing_free(x->out);
	lc_free(x->m);
	lc_buf_free(&x->rows);
	store_close(x->s);
	vault_free(&x->lost);
	vault_free(&x->v);
}

static int
take(struct scene *x, uint64_t *left, struct lc_err *e)
{
	return recall_rows(x->s, x->in, (struct lc_span){x->rows.p, x->rows.n}, left, e);
}

/* As many as the disks have windows, and no more. */
static void
rows_without_end_are_not_heard_out(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	uint64_t left = 0;
	struct scene x;

	(void)state;
	begin(&x);
	must(recall_windows(x.s, outgoing_point(x.out)->entry, &left, &e), &e);
	assert_int_equal(left, WINDOWS);
	must(take(&x, &left, &e), &e);
	assert_int_equal(take(&x, &left, &e), LC_ECORRUPT);
	end(&x);
}

/* Nor are answers that tell nothing. */
static void
no_rows_are_no_answer(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	uint64_t left = WINDOWS;
	struct scene x;

	(void)state;
	begin(&x);
	x.m->n = 0;
	x.rows.n = 0;
	must(maprec_encode(x.m, &x.rows, &e), &e);
	assert_int_equal(take(&x, &left, &e), LC_ECORRUPT);
	end(&x);
}

/* Nor is a disk as large as the replica likes to say. */
static void
sizes_are_the_hosts_own(void **state)
{
	const size_t size = 120 + 16; /* where the first disk's is, in a POINT entry */
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf entry = {0};
	uint64_t left = 0;
	struct lc_span had;
	struct scene x;

	(void)state;
	begin(&x);
	had = outgoing_point(x.out)->entry;
	must(lc_buf_append(&entry, had.p, had.n), &e);
	assert_int_equal(lc_get64(entry.p + size), WINDOWS * (uint64_t)WINDOW_SIZE);
	lc_put64(entry.p + size, POINT_DISK_SIZE_MAX);
	assert_int_equal(recall_windows(x.s, (struct lc_span){entry.p, entry.n}, &left, &e),
	                 LC_ECORRUPT);
	lc_buf_free(&entry);
	end(&x);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(rows_without_end_are_not_heard_out),
	    cmocka_unit_test(no_rows_are_no_answer),
	    cmocka_unit_test(sizes_are_the_hosts_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
