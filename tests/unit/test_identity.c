#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "replicator/identity.h"
#include "store/base/files.h"
#include "tests/lib/unit.h"

static void
addresses(void **state)
{
	static const struct {
		const char *text, *host, *port;
	} good[] = {
	    {"dr.example.net", "dr.example.net", PORT_DEFAULT},
	    {"dr.example.net:80", "dr.example.net", "80"},
	    {"192.0.2.7:1", "192.0.2.7", "1"},
	    {"[2001:db8::1]", "2001:db8::1", PORT_DEFAULT},
	    {"[2001:db8::1]:65535", "2001:db8::1", "65535"},
	    {"2001:db8::1", "2001:db8::1", PORT_DEFAULT},
	    {"[fe80::1%eth0]:7", "fe80::1%eth0", "7"},
	    {"a_b-c.d", "a_b-c.d", PORT_DEFAULT},
	};
	static const char *const bad[] = {"",           ":80",         "host:",      "host:x",
	                                  "host:65536", "host:123456", "host:-1",    "host: 1",
	                                  "host:1 ",    "ho st",       "host/x",     "[::1",
	                                  "[::1]x",     "[::1]:",      "[]",         "[]:1",
	                                  "host\n",     "host:1\n",    "host;rm",    "$(host)",
	                                  "[::1]:1:2",  "\xffhost",    "a=b",        "#host",
	                                  "host:+80",   "host:0x1",    "[[::1]]:80", "-oProxy"};
	char text[ADDRESS_MAX], longest[300];
	struct address a, b;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof good / sizeof good[0]; i++) {
		if (!address_parse(good[i].text, &a))
			fail_msg("'%s' is refused", good[i].text);
		assert_string_equal(a.host, good[i].host);
		assert_string_equal(a.port, good[i].port);
		assert_true(address_parse(address_text(text, &a), &b));
		assert_string_equal(a.host, b.host);
		assert_string_equal(a.port, b.port);
	}
	for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		if (address_parse(bad[i], &a))
			fail_msg("'%s' is taken: %s port %s", bad[i], a.host, a.port);
	}
	memset(longest, 'a', sizeof longest);
	longest[255] = '\0';
	assert_true(address_parse(longest, &a));
	assert_true(strlen(address_text(text, &a)) < sizeof text);
	memset(longest, 'a', sizeof longest);
	longest[256] = '\0';
	assert_false(address_parse(longest, &a));
}

static void
tokens(void **state)
{
	struct token t = {.at = {.host = "dr.example.net", .port = "7227"}}, u;
	char text[TOKEN_TEXT_MAX], other[TOKEN_TEXT_MAX + 8];
	size_t i, n;

	(void)state;
	for (i = 0; i < 32; i++) {
		t.key[i] = (uint8_t)(i * 7);
		t.secret[i] = (uint8_t)(i * 3);
	}
	n = strlen(token_text(text, &t));
	assert_int_equal(token_parse(text, &u, NULL), 0);
	assert_memory_equal(u.key, t.key, 32);
	assert_memory_equal(u.secret, t.secret, 32);
	assert_string_equal(u.at.host, t.at.host);
	for (i = 0; i < n; i++) { /* cut anywhere, changed anywhere: refused or another one */
		(void)snprintf(other, sizeof other, "%.*s", (int)i, text);
		assert_int_equal(token_parse(other, &u, NULL), LC_EINVAL);
		(void)snprintf(other, sizeof other, "%s", text);
		other[i] = '/';
		if (text[i] != '/')
			assert_int_equal(token_parse(other, &u, NULL), LC_EINVAL);
		other[i] = '\x1b';
		assert_int_equal(token_parse(other, &u, NULL), LC_EINVAL);
	}
	(void)snprintf(other, sizeof other, "%s/", text);
	assert_int_equal(token_parse(other, &u, NULL), LC_EINVAL);
	(void)snprintf(other, sizeof other, "%s/x", text);
	assert_int_equal(token_parse(other, &u, NULL), LC_EINVAL);
	(void)snprintf(other, sizeof other, "/%s", text);
	assert_int_equal(token_parse(other, &u, NULL), LC_EINVAL);
	(void)snprintf(other, sizeof other, "locum1/%s", text + 6);
	assert_int_equal(token_parse(other, &u, NULL), LC_EINVAL);
	(void)snprintf(other, sizeof other, "%s ", text);
	assert_int_equal(token_parse(other, &u, NULL), LC_EINVAL);
	assert_int_equal(token_parse("", &u, NULL), LC_EINVAL);
	assert_int_equal(token_parse("////", &u, NULL), LC_EINVAL);
	/* The longest that there is still goes both ways. */
	memset(t.at.host, 'a', 255);
	t.at.host[255] = '\0';
	(void)snprintf(t.at.port, sizeof t.at.port, "65535");
	assert_int_equal(token_parse(token_text(text, &t), &u, NULL), 0);
	assert_string_equal(u.at.host, t.at.host);
}

static void
fingerprints(void **state)
{
	uint8_t key[CHANNEL_KEY_SIZE] = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab};
	char text[FINGERPRINT_MAX];

	(void)state;
	assert_string_equal(fingerprint(text, key), "0123-4567-89ab-0000-0000-0000-0000-0000");
}

static void
write_file(const char *path, const char *text, size_t n, mode_t mode)
{
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(path, mode), 0);
}

static void
key_files(void **state)
{
	char *dir = tmpdir_new(), path[300];
	struct identity a, b;
	struct stat st;
	struct lc_buf whole = {0};
	char text[200];
	size_t n;

	(void)state;
	(void)snprintf(path, sizeof path, "%s/keys/host.key", dir);
	assert_int_equal(identity_load(path, false, &a, NULL), LC_ENOENT);
	assert_int_equal(identity_load(path, true, &a, NULL), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(identity_load(path, false, &b, NULL), 0);
	assert_memory_equal(&a, &b, sizeof a);
	assert_int_equal(identity_load(path, true, &b, NULL), 0); /* is not made anew */
	assert_memory_equal(&a, &b, sizeof a);
	assert_int_equal(chmod(path, 0640), 0);
	assert_int_equal(identity_load(path, false, &b, NULL), LC_EACCES);
	assert_int_equal(identity_load(path, true, &b, NULL), LC_EACCES);
	assert_int_equal(chmod(path, 0600), 0);
	assert_int_equal(file_read_all(path, 256, &whole, NULL), 0);
	for (n = 0; n < whole.n - 1; n++) { /* cut anywhere: no other key */
		write_file(path, (const char *)whole.p, n, 0600);
		assert_int_equal(identity_load(path, true, &b, NULL), LC_ECORRUPT);
	}
	(void)snprintf(text, sizeof text, "%.*s%s", (int)whole.n, (const char *)whole.p, "more\n");
	write_file(path, text, strlen(text), 0600);
	assert_int_equal(identity_load(path, false, &b, NULL), LC_ECORRUPT);
	memcpy(text, whole.p, whole.n);
	text[20] = 'g';
	write_file(path, text, whole.n, 0600);
	assert_int_equal(identity_load(path, false, &b, NULL), LC_ECORRUPT);
	lc_buf_free(&whole);
	tmpdir_free(dir);
}

static void
peers(void **state)
{
	static const char *const bad_names[] = {"",     ".",   "..",   ".hidden",  "a/b",
	                                        "../x", "a b", "a\nb", "\xc3\xa4", "a\x1b[2J"};
	static const char *const bad_files[] = {"",
	                                        "address = dr.example.net\n",
	                                        "key = 00\naddress = x\n",
	                                        "address = a b\nkey = ",
	                                        "address\n",
	                                        "[section]\naddress = x\n",
	                                        "address = x\nkey = "
	                                        "zz00000000000000000000000000000000000000000000"
	                                        "000000000000000000000\n"};
	char *dir = tmpdir_new(), path[300], long_name[PEER_NAME_MAX + 1];
	struct peer p = {.name = "dr", .at = {.host = "2001:db8::1", .port = "7"}}, q;
	struct peer_file *list;
	struct lc_err e = LC_ERR_INIT;
	size_t i, n;

	(void)state;
	p.key[3] = 3;
	assert_int_equal(peer_load(dir, "dr", &q, &e), LC_ENOENT);
	assert_non_null(strstr(e.msg, "locum pair TOKEN --name dr"));
	assert_int_equal(peer_save(dir, &p, NULL), 0);
	assert_int_equal(peer_load(dir, "dr", &q, NULL), 0);
	assert_string_equal(q.at.host, p.at.host);
	assert_string_equal(q.at.port, p.at.port);
	assert_memory_equal(q.key, p.key, sizeof q.key);
	for (i = 0; i < sizeof bad_names / sizeof bad_names[0]; i++) {
		assert_false(peer_name_ok(bad_names[i]));
		assert_int_equal(peer_load(dir, bad_names[i], &q, NULL), LC_ENOENT);
	}
	memset(long_name, 'a', sizeof long_name);
	long_name[PEER_NAME_MAX] = '\0';
	assert_false(peer_name_ok(long_name));
	long_name[PEER_NAME_MAX - 1] = '\0';
	assert_true(peer_name_ok(long_name));
	(void)snprintf(p.name, sizeof p.name, "%s", "another");
	assert_int_equal(peer_save(dir, &p, NULL), 0);
	(void)snprintf(path, sizeof path, "%s/notes.txt", dir);
	write_file(path, "x", 1, 0600);
	(void)snprintf(path, sizeof path, "%s/.replica", dir);
	write_file(path, "x", 1, 0600);
	(void)snprintf(path, sizeof path, "%s/.hidden.replica", dir); /* of an editor */
	write_file(path, "x", 1, 0600);
	assert_int_equal(peer_files(dir, &list, &n, &e), 0);
	assert_int_equal(n, 2);
	assert_string_equal(list[0].peer.name, "another");
	assert_string_equal(list[1].peer.name, "dr");
	lc_free(list);
	(void)snprintf(path, sizeof path, "%s/bad.replica", dir);
	for (i = 0; i < sizeof bad_files / sizeof bad_files[0]; i++) {
		write_file(path, bad_files[i], strlen(bad_files[i]), 0600);
		lc_err_clear(&e);
		assert_int_not_equal(peer_load(dir, "bad", &q, &e), 0);
		assert_non_null(strstr(e.msg, "bad.replica"));
		lc_err_clear(&e);
		assert_int_equal(peer_files(dir, &list, &n, &e), 0); /* told, not passed over */
		assert_int_equal(n, 3);
		assert_string_equal(list[1].peer.name, "bad");
		assert_int_not_equal(list[1].err.code, LC_OK);
		assert_int_equal(list[0].err.code + list[2].err.code, LC_OK);
		lc_free(list);
	}
	assert_int_equal(peer_files("/nonexistent", &list, &n, NULL), 0);
	assert_int_equal(n, 0);
	tmpdir_free(dir);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(addresses), cmocka_unit_test(tokens), cmocka_unit_test(fingerprints),
	    cmocka_unit_test(key_files), cmocka_unit_test(peers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
