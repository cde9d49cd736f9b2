/*
 * identity: texts that people paste and files that lie about: addresses, tokens, names and files of
 * replicas.  What is taken is a text that is taken again and says the same.
 *
 * The first byte: 0 address, 1 token, 2 name, 3 file of a replica.
 */
#include <string.h>
#include <unistd.h>

#include "replicator/identity.h"
#include "store/base/files.h"
#include "tests/fuzz/fuzz.h"

static void
is_plain(const char *s)
{
	fuzz_check(*s != '\0' && *s != '-');
	for (; *s != '\0'; s++)
		fuzz_check(*s > 0x20 && *s < 0x7f && *s != '/' && *s != '[' && *s != ']');
}

static void
check_address(const struct address *a)
{
	char text[ADDRESS_MAX];
	struct address b;

	fuzz_check(memchr(a->host, 0, sizeof a->host) != NULL);
	fuzz_check(memchr(a->port, 0, sizeof a->port) != NULL);
	is_plain(a->host);
	is_plain(a->port);
	fuzz_check(address_parse(address_text(text, a), &b));
	fuzz_check(strcmp(a->host, b.host) == 0 && strcmp(a->port, b.port) == 0);
}

static void
fuzz_address(const char *text)
{
	struct address a;

	if (address_parse(text, &a))
		check_address(&a);
}

static void
fuzz_token(const char *text)
{
	char again[TOKEN_TEXT_MAX];
	struct token t, u;

	if (token_parse(text, &t, NULL) != 0)
		return;
	check_address(&t.at);
	fuzz_check(token_parse(token_text(again, &t), &u, NULL) == 0);
	fuzz_check(memcmp(t.key, u.key, sizeof t.key) == 0);
	fuzz_check(memcmp(t.secret, u.secret, sizeof t.secret) == 0);
}

static void
fuzz_name(const char *name)
{
	if (!peer_name_ok(name))
		return;
	fuzz_check(strlen(name) < PEER_NAME_MAX && *name != '.');
	fuzz_check(strchr(name, '/') == NULL);
}

static void
fuzz_file(const uint8_t *p, size_t n)
{
	static char dir[32], path[64];
	struct lc_err e = LC_ERR_INIT;
	struct peer peer, again;

	if (dir[0] == '\0') {
		(void)snprintf(dir, sizeof dir, "%s/locum-fuzz-XXXXXX",
		               access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
		fuzz_check(mkdtemp(dir) != NULL);
		(void)snprintf(path, sizeof path, "%s/dr.replica", dir);
	}
	fuzz_check(file_write_atomic(path, p, n, 0600, &e) == 0);
	if (peer_load(dir, "dr", &peer, &e) == 0) {
		check_address(&peer.at);
		fuzz_check(peer_save(dir, &peer, NULL) == 0);
		fuzz_check(peer_load(dir, "dr", &again, NULL) == 0);
		fuzz_check(strcmp(peer.at.host, again.at.host) == 0);
		fuzz_check(memcmp(peer.key, again.key, sizeof peer.key) == 0);
	} else {
		fuzz_check(e.code != LC_OK && e.msg[0] != '\0');
	}
	(void)unlink(path);
	(void)rmdir(dir);
	dir[0] = '\0';
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	char text[1024];
	size_t len;

	if (n == 0)
		return 0;
	len = n - 1 < sizeof text - 1 ? n - 1 : sizeof text - 1;
	memcpy(text, p + 1, len);
	text[len] = '\0';
	switch (p[0] % 4) {
	case 0:
		fuzz_address(text);
		break;
	case 1:
		fuzz_token(text);
		break;
	case 2:
		fuzz_name(text);
		break;
	default:
		fuzz_file(p + 1, n - 1);
		break;
	}
	return 0;
}
