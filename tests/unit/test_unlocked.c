/*
 * Keys in the kernel: kept, found by other processes, gone when locked or their time is over.  They
 * are of domains that the tests make, so nothing else's is touched.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/keyctl.h>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/unlocked.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

#define LONG_NS (60 * LC_NS_PER_S)

static struct keyring *
some(void)
{
	char code[RECOVERY_CODE_MAX];
	struct lc_err e = LC_ERR_INIT;
	struct keyring *k = NULL;

	assert_int_equal(keyring_new(code, &k, &e), 0);
	return k;
}

static void
put(const struct keyring *k, int64_t ns)
{
	struct lc_err e = LC_ERR_INIT;
	int rc = unlocked_put(k, ns, &e);

	if (rc == LC_ENOTSUP) {
		(void)printf("SKIP: %s\n", e.msg);
		exit(77);
	}
	assert_int_equal(rc, 0);
}

static bool
listed(const uint8_t *domain, int64_t *left)
{
	struct lc_err e = LC_ERR_INIT;
	struct unlocked *list;
	bool found = false;
	size_t n, i;

	assert_int_equal(unlocked_list(&list, &n, &e), 0);
	for (i = 0; i < n; i++) {
		if (memcmp(list[i].domain, domain, DOMAIN_ID_SIZE) != 0)
			continue;
		found = true;
		*left = list[i].left_ns;
	}
	lc_free(list);
	return found;
}

static void
is_found_until_it_is_locked(void **state)
{
	struct keyring *k = some(), *again = NULL, *other = some();
	struct lc_err e = LC_ERR_INIT;
	uint8_t domain[DOMAIN_ID_SIZE];
	int64_t left = 0;
	int status;
	pid_t pid;

	(void)state;
	memcpy(domain, keyring_domain(k), sizeof domain);
	assert_int_equal(unlocked_get(domain, &again, &e), LC_ENOENT);
	assert_null(again);
	assert_false(listed(domain, &left));
	put(k, LONG_NS);
	assert_true(listed(domain, &left));
	assert_in_range(left, LONG_NS - 10 * LC_NS_PER_S, LONG_NS);
	lc_err_clear(&e);
	assert_int_equal(unlocked_get(domain, &again, &e), 0);
	assert_memory_equal(keyring_domain(again), domain, sizeof domain);
	assert_memory_equal(keyring_id(again), keyring_id(k), KEY_SIZE);
	assert_memory_equal(keyring_data(again, 1), keyring_data(k, 1), KEY_SIZE);
	/* What a host's key file does not give is not there either. */
	assert_int_equal(keyring_wrap_passphrase(again, "x", 1, &(struct lc_buf){0}, &e), LC_EKEY);
	keyring_free(again);
	/* Another domain is another matter; another process is none. */
	lc_err_clear(&e);
	assert_int_equal(unlocked_get(keyring_domain(other), &again, &e), LC_ENOENT);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(unlocked_get(domain, &again, NULL) == 0 && unlocked_drop(domain, NULL) == 0
		          ? 0
		          : 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	lc_err_clear(&e);
	assert_int_equal(unlocked_get(domain, &again, &e), LC_ENOENT);
	assert_false(listed(domain, &left));
	assert_int_equal(unlocked_drop(domain, &e), 0); /* again */
	keyring_free(k);
	keyring_free(other);
}

static void
ends_at_its_time(void **state)
{
	const struct timespec pause = {.tv_nsec = 20 * LC_NS_PER_MS};
	struct keyring *k = some(), *again = NULL;
	int64_t began = 0, left;
	int rc = -1, i;

	(void)state;
	/* Nobody asks in time where the machine stands still for so long. */
	for (i = 0; i < 20 && rc != 0; i++) {
		began = clock_mono_ns();
		put(k, 300 * LC_NS_PER_MS);
		rc = unlocked_get(keyring_domain(k), &again, NULL);
		assert_true(rc == 0 || clock_mono_ns() - began >= 300 * LC_NS_PER_MS);
	}
	assert_int_equal(rc, 0);
	keyring_free(again);
	for (began = clock_mono_ns(); clock_mono_ns() - began < 290 * LC_NS_PER_MS;)
		(void)nanosleep(&pause, NULL);
	(void)nanosleep(&pause, NULL);
	assert_int_equal(unlocked_get(keyring_domain(k), &again, NULL), LC_ENOENT);
	assert_false(listed(keyring_domain(k), &left));
	keyring_free(k);
}

/* So many that they take several keys of the kernel; then one with fewer in their place. */
static void
many_data_keys_and_fewer(void **state)
{
	struct keyring *k = some(), *again = NULL;
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf few = {0};
	unsigned i;

	(void)state;
	assert_int_equal(keyring_image(k, &few, &e), 0);
	for (i = 0; i < 900; i++)
		assert_int_equal(keyring_rotate(k, &e), 0);
	put(k, LONG_NS);
	assert_int_equal(unlocked_get(keyring_domain(k), &again, &e), 0);
	assert_int_equal(keyring_data_number(again), keyring_data_number(k));
	assert_memory_equal(keyring_data(again, keyring_data_number(k)),
	                    keyring_data(k, keyring_data_number(k)), KEY_SIZE);
	keyring_free(again);
	keyring_free(k);
	assert_int_equal(keyring_from_image((struct lc_span){few.p, few.n}, &k, &e), 0);
	put(k, LONG_NS);
	assert_int_equal(unlocked_get(keyring_domain(k), &again, &e), 0);
	assert_int_equal(keyring_data_number(again), 1);
	keyring_free(again);
	assert_int_equal(unlocked_drop(keyring_domain(k), &e), 0);
	keyring_free(k);
	lc_buf_free(&few);
}

#define OTHERS 600u /* other programs' keys */

/* In a keyring of its own, where nobody else is disturbed.  Returns 77 where that can't be had. */
static int
found_among_others(void)
{
	struct keyring *k = some();
	uint8_t domain[DOMAIN_ID_SIZE];
	char name[32];
	int64_t left;
	unsigned i;
	bool was;

	if (unshare(CLONE_NEWUSER) != 0)
		return 77;
	memcpy(domain, keyring_domain(k), sizeof domain);
	for (i = 0; i < OTHERS; i++) {
		(void)snprintf(name, sizeof name, "other:%u", i);
		if (syscall(SYS_add_key, "user", name, "x", (size_t)1, KEY_SPEC_USER_KEYRING) < 0)
			return 77; /* its quota */
	}
	put(k, LONG_NS);
	was = listed(domain, &left);
	(void)unlocked_drop(domain, NULL);
	keyring_free(k);
	return was ? 0 : 1;
}

/* What is not listed is not locked either. */
static void
is_found_among_many_others(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(found_among_others());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(status, 0);
}

/* A key of that name that is none of ours, or was cut. */
static void
junk_is_not_taken(void **state)
{
	struct keyring *k = some(), *again = NULL;
	struct lc_err e = LC_ERR_INIT;
	char hex[33], name[64];
	uint8_t junk[200] = {0};
	long id;

	(void)state;
	memset(junk, 0x7f, 8); /* far from over */
	junk[7] = 0;
	(void)snprintf(name, sizeof name, "locum:%s:0", lc_hex(hex, keyring_domain(k), 16));
	id = syscall(SYS_add_key, "user", name, junk, sizeof junk, KEY_SPEC_USER_KEYRING);
	if (id < 0) {
		(void)printf("SKIP: no keyring here\n");
		exit(77);
	}
	assert_int_equal(syscall(SYS_keyctl, KEYCTL_SETPERM, id, 0x3f3f0000), 0);
	assert_int_equal(unlocked_get(keyring_domain(k), &again, &e), LC_ECORRUPT);
	assert_null(again);
	assert_int_equal(unlocked_drop(keyring_domain(k), &e), 0);
	lc_err_clear(&e);
	assert_int_equal(unlocked_get(keyring_domain(k), &again, &e), LC_ENOENT);
	keyring_free(k);
}

/* The store of a domain that is unlocked opens with no key file, and does not when it is locked. */
static void
store_opens_by_it(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct keyring *k = NULL;
	struct lc_buf image = {0};
	struct store *s = NULL;
	struct vault v = {.top = NULL};
	struct store_opts o = {.key_dir = "/nowhere"};

	(void)state;
	vault_make(&v, true);
	o.dir = v.dir;
	assert_int_equal(store_open(&o, &s, &e), LC_EKEY);
	assert_non_null(strstr(e.msg, "locum unlock"));
	lc_err_clear(&e);
	vault_open(&v);
	assert_int_equal(store_key_image(v.s, &image, &e), 0);
	vault_close(&v);
	assert_int_equal(keyring_from_image((struct lc_span){image.p, image.n}, &k, &e), 0);
	put(k, LONG_NS);
	assert_int_equal(store_open(&o, &s, &e), 0);
	assert_true(store_has_key(s));
	store_close(s);
	assert_int_equal(unlocked_drop(keyring_domain(k), &e), 0);
	assert_int_equal(store_open(&o, &s, &e), LC_EKEY);
	lc_err_clear(&e);
	/* A process may be handed the keys; others' do not do. */
	o.key_image = (struct lc_span){image.p, image.n};
	assert_int_equal(store_open(&o, &s, &e), 0);
	store_close(s);
	keyring_free(k);
	k = some();
	assert_int_equal(keyring_image(k, &image, &e), 0);
	o.key_image = (struct lc_span){image.p, image.n};
	assert_int_equal(store_open(&o, &s, &e), LC_EKEY);
	lc_err_clear(&e);
	o.key_image.n--;
	assert_int_equal(store_open(&o, &s, &e), LC_ECORRUPT);
	keyring_free(k);
	lc_buf_free(&image);
	vault_free(&v);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(is_found_until_it_is_locked),
	    cmocka_unit_test(ends_at_its_time),
	    cmocka_unit_test(many_data_keys_and_fewer),
	    cmocka_unit_test(junk_is_not_taken),
	    cmocka_unit_test(store_opens_by_it),
	    cmocka_unit_test(is_found_among_many_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
