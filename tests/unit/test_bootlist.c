/*
 * bootlist: kept with the store, for its VM, sealed; and whatever is in it, no harm.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/bootlist.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

static struct bootlist list, got;

static struct point
backup(struct vault *v, const char *vm, struct vault_disk *d, size_t n)
{
	struct lc_err e = LC_ERR_INIT;
	struct point p;

	must(vault_backup(v->s, vm, d, n, &p, &e), &e);
	return p;
}

static const char *
path_of(const struct vault *v, const struct point *p)
{
	char name[64], hex[33];

	(void)snprintf(name, sizeof name, "index/boot-%s", lc_hex(hex, p->vm_id, 16));
	return vault_path(v, name);
}

static void
it_is_kept_for_its_vm_and_sealed(void **state)
{
	struct vault_disk d[2] = {vault_disk("vda", 100), vault_disk("vdb", 20)};
	struct lc_err e = LC_ERR_INIT;
	struct point p, q, other;
	struct lc_buf b = {0};
	struct store *s;
	struct vault v;
	struct stat st;
	size_t i;

	(void)state;
	vault_make(&v, true);
	vault_open(&v);
	d[0].codes[3] = 4;
	p = backup(&v, "web01", d, 2);
	other = backup(&v, "db01", d, 2);
	assert_int_equal(bootlist_load(v.s, &p, &got, NULL), LC_ENOENT);
	for (i = 0; i < 110; i++)
		list.at[i] = i < 100 ? (struct bootlist_window){0, 99 - i}
		                     : (struct bootlist_window){1, 2 * (i - 100)};
	list.n = 110;
	must(bootlist_save(v.s, &p, &list, &e), &e);
	/* Whoever reads, reads it. */
	must(vault_try(&v, STORE_READ, &s, &e), &e);
	must(bootlist_load(s, &p, &got, &e), &e);
	store_close(s);
	assert_int_equal(got.n, 110);
	for (i = 0; i < 110; i++) {
		assert_int_equal(got.at[i].disk, list.at[i].disk);
		assert_int_equal(got.at[i].window, list.at[i].window);
	}
	assert_int_equal(stat(path_of(&v, &p), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	must(file_read_all(path_of(&v, &p), 1 << 20, &b, &e), &e);
	assert_null(memmem(b.p, b.n, p.disks[0].id, 16)); /* no key, no places */
	/* Under another VM's name it is nobody's. */
	must(file_write_atomic(path_of(&v, &other), b.p, b.n, 0600, &e), &e);
	assert_int_equal(bootlist_load(v.s, &other, &got, NULL), LC_ECORRUPT);
	b.p[b.n / 2] ^= 1;
	must(file_write_atomic(path_of(&v, &p), b.p, b.n, 0600, &e), &e);
	assert_int_equal(bootlist_load(v.s, &p, &got, NULL), LC_ECORRUPT);
	assert_int_equal(got.n, 0);
	lc_buf_free(&b);
	/* A later point has a smaller disk, and lacks the other. */
	must(bootlist_save(v.s, &p, &list, &e), &e);
	vault_disk_resize(&d[0], 50 * (uint64_t)WINDOW_SIZE);
	q = backup(&v, "web01", d, 1);
	must(bootlist_load(v.s, &q, &got, &e), &e);
	assert_int_equal(got.n, 50);
	assert_int_equal(got.at[0].window, 49);
	point_done(&p);
	point_done(&q);
	point_done(&other);
	vault_disk_free(&d[0]);
	vault_disk_free(&d[1]);
	vault_free(&v);
}

static void
a_full_one_fits_its_file(void **state)
{
	struct vault_disk d = vault_disk("vda", 4);
	struct lc_err e = LC_ERR_INIT;
	struct point p;
	struct vault v;

	(void)state;
	vault_make(&v, true);
	vault_open(&v);
	p = backup(&v, "web01", &d, 1);
	memset(&list, 0, sizeof list);
	list.n = BOOTLIST_MAX;
	must(bootlist_save(v.s, &p, &list, &e), &e);
	must(bootlist_load(v.s, &p, &got, &e), &e);
	assert_int_equal(got.n, BOOTLIST_MAX);
	point_done(&p);
	vault_disk_free(&d);
	vault_free(&v);
}

static void
what_is_malformed_is_refused(void **state)
{
	struct point p = {.ndisks = 1, .disks = {{.size = WINDOW_SIZE}}};
	struct lc_buf b = {0};
	size_t i;

	(void)state;
	(void)lc_wr16(&b, 1);
	(void)lc_wr16(&b, 1);
	(void)lc_buf_append(&b, p.disks[0].id, 16);
	(void)lc_wr32(&b, 2);
	(void)lc_wr64(&b, 0);
	(void)lc_wr64(&b, 0);
	assert_int_equal(bootlist_decode((struct lc_span){b.p, b.n}, &p, &got, NULL), 0);
	assert_int_equal(got.n, 2);
	for (i = 0; i < b.n; i++) {
		assert_int_equal(bootlist_decode((struct lc_span){b.p, i}, &p, &got, NULL),
		                 LC_ECORRUPT);
		assert_int_equal(got.n, 0);
	}
	b.p[b.n - 1] = 1; /* a disk that it does not name */
	assert_int_equal(bootlist_decode((struct lc_span){b.p, b.n}, &p, &got, NULL), LC_ECORRUPT);
	assert_int_equal(got.n, 0);
	b.p[b.n - 1] = 0;
	b.p[20] = 0xff; /* too many */
	b.p[21] = 0xff;
	assert_int_equal(bootlist_decode((struct lc_span){b.p, b.n}, &p, &got, NULL), LC_ECORRUPT);
	b.p[0] = 2;
	assert_int_equal(bootlist_decode((struct lc_span){b.p, b.n}, &p, &got, NULL), LC_ECORRUPT);
	lc_buf_free(&b);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(it_is_kept_for_its_vm_and_sealed),
	    cmocka_unit_test(a_full_one_fits_its_file),
	    cmocka_unit_test(what_is_malformed_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
