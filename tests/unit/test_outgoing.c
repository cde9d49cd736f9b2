/*
 * What a store gives of its points, while it drops some, makes others and gives a VM away.
 */
#include <string.h>

#include "store/base/log.h"
#include "store/store_internal.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"
#include "tests/unit/handover.h"

#define POINTS 6u

/* Points that the giver dropped, before and after they were sent. */
static void
drops_at_the_giver_do_no_harm(void **state)
{
	struct vault_disk d[POINTS];
	struct lc_err e = LC_ERR_INIT;
	struct point p[POINTS];
	struct handover t;
	size_t i;

	(void)state;
	handover_make(&t);
	for (i = 0; i < POINTS; i++) {
		d[i] = i == 0 ? vault_disk("vda", 8) : vault_disk_copy(&d[i - 1]);
		d[i].codes[i] = 30 + i;
		d[i].codes[7] = 90 + i;
		p[i] = handover_backup(&t, "db", &d[i], 1);
		if (i == 1)
			assert_int_equal(handover_all(&t), 2);
	}
	must(store_drop(t.v.s, p[0].id, &e), &e);
	must(store_drop(t.v.s, p[1].id, &e), &e); /* the newest that the taker has */
	must(store_drop(t.v.s, p[2].id, &e), &e);
	must(store_drop(t.v.s, p[4].id, &e), &e);
	assert_int_equal(handover_all(&t), 2);
	handover_has(&t, &p[0], &d[0], 1);
	handover_has(&t, &p[1], &d[1], 1);
	handover_has(&t, &p[3], &d[3], 1);
	handover_has(&t, &p[5], &d[5], 1);
	must(store_drop(t.to, p[1].id, &e), &e); /* what the taker drops folds as ever */
	must(store_drop(t.to, p[5].id, &e), &e);
	handover_has(&t, &p[3], &d[3], 1);
	handover_rebuild(&t);
	handover_has(&t, &p[0], &d[0], 1);
	handover_has(&t, &p[3], &d[3], 1);
	assert_int_equal(handover_all(&t), 1); /* and comes again */
	handover_has(&t, &p[5], &d[5], 1);
	for (i = 0; i < POINTS; i++)
		vault_disk_free(&d[i]);
	handover_free(&t);
}

/* What the taker has as its newest point was dropped here when it was the newest here too: what
 * came after that does not build on it, neither the content of its windows nor its size. */
static void
a_newest_point_that_was_dropped_leaves_nothing(void **state)
{
	struct vault_disk d[4], extra = vault_disk("vdb", 3);
	struct lc_err e = LC_ERR_INIT;
	struct point p[4];
	struct handover t;
	size_t i;

	(void)state;
	handover_make(&t);
	d[0] = vault_disk("vda", 6);
	d[0].codes[0] = 10;
	d[0].codes[1] = 11;
	p[0] = handover_backup(&t, "db", &d[0], 1);
	d[1] = vault_disk_copy(&d[0]);
	vault_disk_resize(&d[1], 9 * WINDOW_SIZE);
	d[1].codes[0] = 20;
	d[1].codes[2] = 22;
	d[1].codes[8] = 28;
	p[1] = handover_backup(&t, "db", &d[1], 1);
	assert_int_equal(handover_all(&t), 2);
	must(store_drop(t.v.s, p[1].id, &e), &e);
	d[2] = vault_disk_copy(&d[0]);
	d[2].codes[3] = 33;
	p[2] = handover_backup(&t, "db", &d[2], 1);
	assert_int_equal(handover_all(&t), 1);
	handover_has(&t, &p[1], &d[1], 1);
	handover_has(&t, &p[2], &d[2], 1);
	d[3] = vault_disk_copy(&d[2]); /* where there was something at the taker once */
	vault_disk_resize(&d[3], 9 * WINDOW_SIZE);
	extra.codes[1] = 40;
	{
		struct vault_disk both[2] = {d[3], extra};

		p[3] = handover_backup(&t, "db", both, 2);
		assert_int_equal(handover_all(&t), 1);
		handover_has(&t, &p[3], both, 2);
		handover_rebuild(&t);
		handover_has(&t, &p[3], both, 2);
	}
	handover_has(&t, &p[2], &d[2], 1);
	for (i = 0; i < 4; i++)
		vault_disk_free(&d[i]);
	vault_disk_free(&extra);
	handover_free(&t);
}

static void
a_point_that_is_sent_is_not_dropped(void **state)
{
	struct vault_disk d = vault_disk("vda", 4);
	struct lc_err e = LC_ERR_INIT;
	struct outgoing *out;
	struct point p;
	struct handover t;

	(void)state;
	handover_make(&t);
	d.codes[0] = 1;
	p = handover_backup(&t, "web01", &d, 1);
	out = handover_next(&t, &p);
	assert_int_equal(store_drop(t.v.s, p.id, NULL), LC_EBUSY);
	outgoing_free(out);
	must(store_drop(t.v.s, p.id, &e), &e);
	vault_disk_free(&d);
	handover_free(&t);
}

/* Others are made upon it, so it must not be a delta itself. */
static void
a_base_is_given_whole(void **state)
{
	struct vault_disk d = vault_disk("vda", 2);
	uint8_t *buf = lc_alloc(RECORD_PAYLOAD_MAX), id[CHUNK_ID_SIZE];
	struct lc_err e = LC_ERR_INIT;
	struct transfer_chunk c;
	struct outgoing *out;
	struct point p;
	struct handover t;
	uint64_t no;

	(void)state;
	handover_make(&t);
	d.codes[0] = 5;
	p = handover_backup(&t, "web01", &d, 1);
	d.codes[0] += VAULT_EDIT;
	p = handover_backup(&t, "web01", &d, 1);
	out = handover_next(&t, &p);
	must(catalog_next_delta(t.v.s->catalog, 0, &no, &e), &e);
	must(outgoing_chunk(out, no, buf, &c, &e), &e);
	assert_int_equal(c.encoding, CHUNK_PREFIX);
	memcpy(id, chunk_payload_id(c.payload), sizeof id);
	must(outgoing_base(out, no, buf, &c, &e), &e);
	assert_int_equal(c.encoding, CHUNK_RAW);
	assert_true(chunk_payload_ok(c.payload, c.encoding));
	assert_memory_equal(chunk_payload_id(c.payload), id, sizeof id);
	outgoing_free(out);
	lc_free(buf);
	vault_disk_free(&d);
	handover_free(&t);
}

static const struct point *drops_meanwhile; /* before the next lease; NULL: nobody */

int __real_lease_take(struct store *s, const uint8_t point[16], char **path, int *fd,
                      struct lc_err *e);
int __wrap_lease_take(struct store *s, const uint8_t point[16], char **path, int *fd,
                      struct lc_err *e);

int
__wrap_lease_take(struct store *s, const uint8_t point[16], char **path, int *fd, struct lc_err *e)
{
	const struct point *p = drops_meanwhile;

	drops_meanwhile = NULL;
	if (p != NULL)
		must(store_drop(s, p->id, e), e);
	return __real_lease_take(s, point, path, fd, e);
}

/* Its rows are the next one's then, which goes instead. */
static void
a_point_that_is_dropped_before_it_goes_is_passed_over(void **state)
{
	struct vault_disk d = vault_disk("vda", 3);
	struct lc_err e = LC_ERR_INIT;
	struct outgoing *out = NULL;
	struct point first, second;
	int bar = -1;
	char *path = NULL;
	struct handover t;

	(void)state;
	handover_make(&t);
	d.codes[0] = 7;
	first = handover_backup(&t, "web01", &d, 1);
	d.codes[1] = 12;
	second = handover_backup(&t, "web01", &d, 1);
	drops_meanwhile = &first;
	must(outgoing_next(t.v.s, second.line, (struct lc_span){0}, &out, &e), &e);
	assert_memory_equal(outgoing_point(out)->id, second.id, 16);
	outgoing_free(out);
	/* As long as it is not known whether it stays, nothing goes; that is no failure. */
	must(lease_bar(t.v.s, second.id, &path, &bar, &e), &e);
	assert_int_equal(outgoing_next(t.v.s, second.line, (struct lc_span){0}, &out, &e),
	                 LC_EBUSY);
	assert_non_null(strstr(e.msg, "is being dropped"));
	lc_err_clear(&e);
	lease_give(&path, &bar);
	assert_int_equal(handover_all(&t), 1);
	handover_has(&t, &second, &d, 1);
	/* The last one: there is none then. */
	d.codes[2] = 17;
	point_done(&first);
	first = handover_backup(&t, "web01", &d, 1);
	drops_meanwhile = &first;
	assert_int_equal(handover_all(&t), 0);
	point_done(&first);
	point_done(&second);
	vault_disk_free(&d);
	handover_free(&t);
}

static struct handover *sends_meanwhile; /* before the next commit; NULL: nobody */

int __real_store_commit(struct store *s,
                        int (*build)(void *arg, struct lc_buf *payload, struct lc_err *e),
                        void *arg, struct lc_err *e);
int __wrap_store_commit(struct store *s,
                        int (*build)(void *arg, struct lc_buf *payload, struct lc_err *e),
                        void *arg, struct lc_err *e);

int
__wrap_store_commit(struct store *s,
                    int (*build)(void *arg, struct lc_buf *payload, struct lc_err *e), void *arg,
                    struct lc_err *e)
{
	struct handover *t = sends_meanwhile;

	sends_meanwhile = NULL;
	if (t != NULL)
		assert_int_equal(handover_all(t), 1);
	return __real_store_commit(s, build, arg, e);
}

/* The host of before sends one more point while its VM, with a large map, is being given away: who
 * gets the VM can read all of what is its newest point by then. */
static void
a_vm_is_given_with_all_that_it_has(void **state)
{
	struct map_record *m = lc_alloc(sizeof *m);
	struct vault_disk d = vault_disk("vda", 4);
	struct lc_err e = LC_ERR_INIT;
	struct outgoing *out = NULL;
	uint16_t writer = 0;
	struct point p;
	struct handover t;
	size_t i;

	(void)state;
	handover_make(&t);
	d.codes[0] = 7;
	p = handover_backup(&t, "web01", &d, 1);
	assert_int_equal(handover_all(&t), 1);
	point_done(&p);
	d.codes[1] = 8;
	p = handover_backup(&t, "web01", &d, 1);
	sends_meanwhile = &t;
	must(transfer_give(t.to, p.vm_id, 1, &e), &e);
	assert_null(sends_meanwhile);
	must(transfer_line_writer(t.to, p.line, &writer, &e), &e);
	assert_int_equal(writer, 1);
	must(outgoing_newest(t.to, p.line, &out, &e), &e);
	must(outgoing_rows(out, m, 4, &e), &e);
	assert_int_equal(m->n, 2);
	for (i = 0; i < m->n; i++)
		must(transfer_has(t.to, 1, m->rows[i].id, &e), &e);
	outgoing_free(out);
	point_done(&p);
	lc_free(m);
	vault_disk_free(&d);
	handover_free(&t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(drops_at_the_giver_do_no_harm),
	    cmocka_unit_test(a_newest_point_that_was_dropped_leaves_nothing),
	    cmocka_unit_test(a_point_that_is_sent_is_not_dropped),
	    cmocka_unit_test(a_base_is_given_whole),
	    cmocka_unit_test(a_point_that_is_dropped_before_it_goes_is_passed_over),
	    cmocka_unit_test(a_vm_is_given_with_all_that_it_has),
	};

	log_set_level(LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
