/*
 * A host's key file: whole or refused, and nobody else's to read.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/base/files.h"
#include "store/keyring.h"
#include "store/recovery.h"
#include "tests/lib/unit.h"
#include "tests/unit/vector_keyring.h"
#include "tests/unit/vectors_keys.h"

static void
host_file_comes_back_whole(void **state)
{
	char *dir = tmpdir_new();
	char *path = path_join(dir, "a/b/host.key");
	struct lc_err e = LC_ERR_INIT;
	struct keyring *k = vector_keyring(), *host = NULL;
	struct lc_buf one, two, pass = {0};
	struct stat st;

	(void)state;
	assert_int_equal(keyring_rotate(k, &e), 0);
	assert_int_equal(keyring_save(k, path, &e), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(stat(tmpdir_path(dir, "a/b"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(keyring_load(path, &host, &e), 0);
	assert_memory_equal(keyring_domain(host), keyring_domain(k), DOMAIN_ID_SIZE);
	assert_memory_equal(keyring_id(host), keyring_id(k), KEY_SIZE);
	assert_memory_equal(keyring_set(host), keyring_set(k), KEY_SIZE);
	assert_int_equal(keyring_data_number(host), keyring_data_number(k));
	assert_memory_equal(keyring_data(host, 1), keyring_data(k, 1), KEY_SIZE);
	vector_encode(k, &one);
	vector_encode(host, &two);
	assert_int_equal(one.n, two.n);
	assert_memory_equal(one.p, two.p, one.n);
	assert_int_equal(keyring_wrap_passphrase(host, "x", 1, &pass, &e), LC_EKEY);
	lc_err_clear(&e);
	assert_int_equal(keyring_save(host, path, &e), 0);
	lc_buf_free(&one);
	lc_buf_free(&two);
	keyring_free(host);
	keyring_free(k);
	lc_free(path);
	tmpdir_free(dir);
}

static void
host_file_is_not_replaced_by_less(void **state)
{
	char *dir = tmpdir_new(), code[RECOVERY_CODE_MAX];
	const char *path = tmpdir_path(dir, "host.key"), *junk = tmpdir_path(dir, "junk");
	struct keyring *k = vector_keyring(), *old = vector_keyring(), *other = NULL, *host = NULL;
	struct lc_err e = LC_ERR_INIT;

	(void)state;
	assert_int_equal(keyring_new(code, &other, &e), 0);
	assert_int_equal(keyring_rotate(k, &e), 0);
	assert_int_equal(keyring_save(k, path, &e), 0);
	assert_int_equal(keyring_save(other, path, &e), LC_EEXIST);
	lc_err_clear(&e);
	assert_int_equal(keyring_save(old, path, &e), LC_ECONFLICT);
	lc_err_clear(&e);
	assert_int_equal(keyring_load(path, &host, &e), 0);
	assert_memory_equal(keyring_domain(host), vector_domain, DOMAIN_ID_SIZE);
	assert_int_equal(file_write_atomic(junk, "junk", 4, 0600, &e), 0);
	assert_int_equal(keyring_save(k, junk, &e), LC_EEXIST);
	keyring_free(host);
	keyring_free(other);
	keyring_free(old);
	keyring_free(k);
	tmpdir_free(dir);
}

static void
host_file_that_others_can_touch_is_refused(void **state)
{
	static const mode_t bad[] = {0640, 0604, 0660, 0601, 0644, 0777};
	char *dir = tmpdir_new();
	const char *path = tmpdir_path(dir, "host.key");
	struct keyring *k = vector_keyring(), *host = NULL;
	struct lc_err e = LC_ERR_INIT;
	size_t i;

	(void)state;
	assert_int_equal(keyring_save(k, path, &e), 0);
	for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		assert_int_equal(chmod(path, bad[i]), 0);
		lc_err_clear(&e);
		assert_int_equal(keyring_load(path, &host, &e), LC_EACCES);
		assert_null(host);
		assert_non_null(strstr(e.msg, "host.key"));
	}
	assert_int_equal(chmod(path, 0400), 0);
	assert_int_equal(keyring_load(path, &host, NULL), 0);
	keyring_free(host);
	assert_int_equal(keyring_load(tmpdir_path(dir, "none"), &host, NULL), LC_ENOENT);
	assert_int_equal(mkfifo(tmpdir_path(dir, "fifo"), 0600), 0);
	assert_int_equal(keyring_load(tmpdir_path(dir, "fifo"), &host, NULL), LC_EACCES);
	keyring_free(k);
	tmpdir_free(dir);
}

static void
host_file_damage_is_found(void **state)
{
	char *dir = tmpdir_new();
	const char *path = tmpdir_path(dir, "host.key");
	struct keyring *k = vector_keyring(), *host = NULL;
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf whole = {0};
	uint8_t byte;
	size_t i;
	int fd, rc;

	(void)state;
	assert_int_equal(keyring_save(k, path, &e), 0);
	assert_int_equal(file_read_all(path, 65536, &whole, &e), 0);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	for (i = 0; i < whole.n; i++) {
		byte = (uint8_t)(whole.p[i] ^ 1u << i % 8);
		assert_int_equal(pwrite(fd, &byte, 1, (off_t)i), 1);
		rc = keyring_load(path, &host, NULL);
		assert_int_equal(rc, i == 8 || i == 9 ? LC_EVERSION : LC_ECORRUPT);
		assert_int_equal(pwrite(fd, whole.p + i, 1, (off_t)i), 1);
	}
	assert_int_equal(keyring_load(path, &host, NULL), 0);
	keyring_free(host);
	assert_int_equal(pwrite(fd, "", 1, (off_t)whole.n), 1);
	assert_int_equal(keyring_load(path, &host, NULL), LC_ECORRUPT);
	for (i = whole.n; i-- > 0;) {
		assert_int_equal(ftruncate(fd, (off_t)i), 0);
		assert_int_equal(keyring_load(path, &host, NULL), LC_ECORRUPT);
	}
	(void)close(fd);
	lc_buf_free(&whole);
	keyring_free(k);
	tmpdir_free(dir);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(host_file_comes_back_whole),
	    cmocka_unit_test(host_file_is_not_replaced_by_less),
	    cmocka_unit_test(host_file_that_others_can_touch_is_refused),
	    cmocka_unit_test(host_file_damage_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
