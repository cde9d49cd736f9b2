/*
 * Stores of every format version are restored byte for byte, by a reader with nothing but the code,
 * and by an owner who goes on with them.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/kit.h"
#include "store/thin.h"
#include "store/transfer.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

static const char *const versions[] = {"v1", "v1-forks", "v1-deltas", "v1-thin", "v1-writers"};

struct expected {
	char vm[64], id[40], disk[64], sum[80];
	unsigned long long size;
};

static int
fetch(void *arg, const uint8_t *ids, size_t n, uint8_t *payload, struct fetched *out,
      struct lc_err *e)
{
	struct transfer_chunk c = {.encoding = 0};
	int rc = n == 0 ? LC_EINVAL : transfer_read(arg, 0, ids, payload, &c, e);

	*out = (struct fetched){c.encoding, c.key, c.payload.n};
	return rc;
}

static void
golden_copy(struct vault *v, const char *version)
{
	struct lc_err e = LC_ERR_INIT;
	struct dirent *ent;
	char from[4096];
	DIR *d;

	memset(v, 0, sizeof *v);
	v->top = tmpdir_new();
	(void)snprintf(from, sizeof from, "%s/%s", GOLDEN_DIR, version);
	vault_copy(from, tmpdir_path(v->top, "golden"));
	(void)snprintf(v->dir, sizeof v->dir, "%s/golden/store", v->top);
	(void)snprintf(v->keys, sizeof v->keys, "%s/golden/keys", v->top);
	(void)snprintf(v->kit, sizeof v->kit, "%s/golden/kit.txt", v->top);
	must(kit_read_code(v->kit, v->code, &e), &e);
	/* git keeps no modes. */
	d = opendir(v->keys);
	assert_non_null(d);
	while ((ent = readdir(d)) != NULL) {
		if (ent->d_name[0] != '.')
			assert_int_equal(chmod(tmpdir_path(v->keys, ent->d_name), 0600), 0);
	}
	(void)closedir(d);
}

/* The replica of a thin one, which has what is not here; NULL where it is none. */
static struct store *
lend_from(const struct vault *v, struct store *s)
{
	struct store_opts o = {.mode = STORE_WRITE, .no_key = true};
	struct lc_err e = LC_ERR_INIT;
	char *dir = lc_strdup(tmpdir_path(v->top, "golden/replica"));
	struct store *peer = NULL;

	o.dir = dir;
	if (access(dir, F_OK) == 0) {
		must(store_open(&o, &peer, &e), &e);
		thin_fetch(s, fetch, peer);
	}
	lc_free(dir);
	return peer;
}

static void
disk_sum(struct store *s, struct view *v, size_t disk, char hex[65])
{
	uint64_t size = view_point(v)->disks[disk].size, n = point_windows(size), k, chunk;
	static uint8_t window[WINDOW_SIZE], out[32];
	struct lc_err e = LC_ERR_INIT;
	crypto_hash_sha256_state st;
	struct chunk_reader *r;

	must(chunk_reader_new(s, &r, &e), &e);
	(void)crypto_hash_sha256_init(&st);
	for (k = 0; k < n; k++) {
		uint64_t left = size - k * WINDOW_SIZE;

		must(view_map(v, disk, k, 1, &chunk, &e), &e);
		memset(window, 0, sizeof window);
		if (chunk != 0)
			must(chunk_read(r, chunk, window, NULL, &e), &e);
		(void)crypto_hash_sha256_update(&st, window,
		                                left < WINDOW_SIZE ? left : WINDOW_SIZE);
	}
	(void)crypto_hash_sha256_final(&st, out);
	(void)lc_hex(hex, out, 32);
	chunk_reader_free(r);
}

static void
check(struct vault *v, struct store *s)
{
	struct store *peer = lend_from(v, s);
	struct lc_err e = LC_ERR_INIT;
	FILE *f = fopen(tmpdir_path(v->top, "golden/expected.txt"), "r");
	size_t lines = 0, i, disks = 0;
	struct expected x;
	struct point_list l;
	struct view *view;
	char sum[65];
	uint8_t id[16];

	assert_non_null(f);
	while (fscanf(f, "%63s %39s %63s %llu %79s", x.vm, x.id, x.disk, &x.size, x.sum) == 5) {
		lines++;
		assert_true(lc_unhex(id, 16, x.id));
		must(store_view(s, id, &view, &e), &e);
		assert_string_equal(view_point(view)->vm, x.vm);
		assert_string_equal(view_point(view)->definition, "[vm]\nmemory = 512 MiB\n");
		assert_string_equal(view_point(view)->left_out, "cdrom: not captured\n");
		assert_int_equal(view_point(view)->consistency, POINT_FROZEN);
		assert_int_equal(view_point(view)->pause_ns, 12345);
		for (i = 0; i < view_point(view)->ndisks; i++) {
			if (strcmp(view_point(view)->disks[i].name, x.disk) != 0)
				continue;
			assert_int_equal(view_point(view)->disks[i].size, x.size);
			disk_sum(s, view, i, sum);
			assert_string_equal(sum, x.sum);
			disks++;
		}
		must(view_verify(view, NULL, 2, NULL, NULL, &e), &e);
		view_close(view);
	}
	(void)fclose(f);
	assert_true(lines > 5);
	assert_int_equal(disks, lines);
	/* And no others. */
	must(store_points(s, NULL, &l, &e), &e);
	for (i = 0, disks = 0; i < l.n; i++)
		disks += l.points[i].ndisks;
	assert_int_equal(disks, lines);
	point_list_free(&l);
	thin_fetch(s, NULL, NULL);
	store_close(peer);
}

static void
with_the_code_alone(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof versions / sizeof versions[0]; i++) {
		struct store_opts o = {0};
		struct vault v;
		struct store *s;

		golden_copy(&v, versions[i]);
		(void)unlink(vault_path(&v, "store"));
		dir_remove(vault_path(&v, "keys"));
		o.dir = v.dir;
		o.recovery_code = v.code;
		must(store_open(&o, &s, &e), &e);
		check(&v, s);
		store_close(s);
		vault_free(&v);
	}
}

static void
with_the_passphrase(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct store_opts o = {0};
	char *pass;
	struct vault v;
	struct store *s;

	(void)state;
	golden_copy(&v, "v1");
	pass = lc_strdup(tmpdir_path(v.top, "golden/passphrase.txt"));
	o.dir = v.dir;
	o.passphrase_file = pass;
	must(store_open(&o, &s, &e), &e);
	check(&v, s);
	store_close(s);
	lc_free(pass);
	vault_free(&v);
}

static void
an_owner_goes_on_with_it(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof versions / sizeof versions[0]; i++) {
		struct vault_disk d = vault_disk("vda", 3);
		struct point_list l;
		struct store *peer;
		struct point p;
		struct vault v;

		golden_copy(&v, versions[i]);
		vault_open(&v);
		check(&v, v.s);
		d.codes[0] = 11;
		d.codes[1] = 4000;
		must(vault_backup(v.s, "web01", &d, 1, &p, &e), &e);
		peer = lend_from(&v, v.s);
		must(vault_compare(v.s, p.id, &d, 1, &e), &e);
		must(vault_verify(v.s, p.id, &e), &e);
		store_close(peer);
		must(store_points(v.s, "web01", &l, &e), &e);
		assert_int_equal(l.points[l.n - 1].counter, l.points[l.n - 2].counter + 1);
		point_list_free(&l);
		must(store_drop(v.s, p.id, &e), &e);
		vault_close(&v);
		vault_open(&v);
		check(&v, v.s);
		vault_disk_free(&d);
		vault_free(&v);
	}
}

static int
count_lines(void *arg, const struct transfer_line *l, struct lc_err *e)
{
	unsigned *of = arg;

	(void)e;
	assert_in_range(l->writer, 0, 1);
	of[l->writer]++;
	return 0;
}

/* Two hosts of one domain: a blind replica knows from the log alone whose VM is whose, also of the
 * one that was given from the first to the second. */
static void
a_replica_knows_whose_they_are(void **state)
{
	struct store_opts o = {.mode = STORE_WRITE, .no_key = true};
	struct lc_err e = LC_ERR_INIT;
	unsigned of[2] = {0};
	struct vault v;
	struct store *s;

	(void)state;
	golden_copy(&v, "v1-writers");
	o.dir = v.dir;
	must(store_open(&o, &s, &e), &e);
	must(transfer_lines(s, count_lines, of, &e), &e);
	assert_int_equal(of[0], 1);
	assert_int_equal(of[1], 3);
	store_close(s);
	vault_free(&v);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(with_the_code_alone),
	    cmocka_unit_test(with_the_passphrase),
	    cmocka_unit_test(an_owner_goes_on_with_it),
	    cmocka_unit_test(a_replica_knows_whose_they_are),
	};

	log_set_level(LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
