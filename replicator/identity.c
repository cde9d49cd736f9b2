#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "replicator/identity.h"
#include "replicator/noise.h"
#include "store/base/bytes.h"
#include "store/base/config.h"
#include "store/base/files.h"

#define KEY_FILE_HEAD "locum identity 1\n"
#define PEER_TAIL ".replica"

/* ---- key files ---- */

static int
make(const char *path, struct identity *out, struct lc_err *e)
{
	char text[sizeof KEY_FILE_HEAD + 66], hex[65];
	char *dir = path_dirname(path);
	int n, rc;

	rc = dir == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory") : dir_make(dir, 0700, e);
	rc = rc != 0 ? rc : noise_keypair(out->secret, out->public, e);
	if (rc == 0) {
		n = snprintf(text, sizeof text, KEY_FILE_HEAD "%s\n",
		             lc_hex(hex, out->secret, sizeof out->secret));
		rc = file_write_new(path, text, (size_t)n, 0600, e);
	}
	explicit_bzero(text, sizeof text);
	explicit_bzero(hex, sizeof hex);
	lc_free(dir);
	return rc;
}

static int
check_rights(const char *path, struct lc_err *e)
{
	struct stat st;

	if (stat(path, &st) != 0)
		return lc_fail_errno(e, "%s", path);
	if ((st.st_mode & 077) == 0 && st.st_uid == geteuid())
		return 0;
	return lc_fail(
	    e, LC_EACCES, 0,
	    "%s: others have rights on this secret key (chmod 600, and it must be yours)", path);
}

static bool
read_key(const struct lc_buf *b, uint8_t secret[CHANNEL_KEY_SIZE])
{
	const size_t head = sizeof KEY_FILE_HEAD - 1, n = head + 64;
	char hex[65];
	bool ok;

	if (b->n < n || b->n > n + 1 || (b->n > n && b->p[n] != '\n') ||
	    memcmp(b->p, KEY_FILE_HEAD, head) != 0)
		return false;
	memcpy(hex, b->p + head, 64);
	hex[64] = '\0';
	ok = lc_unhex(secret, CHANNEL_KEY_SIZE, hex);
	explicit_bzero(hex, sizeof hex);
	return ok;
}

int
identity_load(const char *path, bool create, struct identity *out, struct lc_err *e)
{
	struct lc_buf b = {0};
	int rc;

	if (create && access(path, F_OK) != 0 && errno == ENOENT) {
		rc = make(path, out, e);
		if (rc != LC_EEXIST) /* somebody else was faster: take his */
			return rc;
		lc_err_clear(e);
	}
	rc = check_rights(path, e);
	rc = rc != 0 ? rc : file_read_all(path, 256, &b, e);
	if (rc == 0) {
		if (!read_key(&b, out->secret))
			rc = lc_fail(e, LC_ECORRUPT, 0, "%s: no key file", path);
	}
	if (b.p != NULL)
		explicit_bzero(b.p, b.cap);
	lc_buf_free(&b);
	if (rc == 0)
		noise_public(out->secret, out->public);
	return rc;
}

void
identity_forget(struct identity *id)
{
	explicit_bzero(id, sizeof *id);
}

const char *
fingerprint(char dst[FINGERPRINT_MAX], const uint8_t key[CHANNEL_KEY_SIZE])
{
	char hex[33];
	size_t i, at = 0;

	(void)lc_hex(hex, key, 16);
	for (i = 0; i < 32; i += 4) {
		memcpy(dst + at, hex + i, 4);
		at += 4;
		dst[at++] = i + 4 < 32 ? '-' : '\0';
	}
	return dst;
}

/* ---- addresses ---- */

static bool
port_ok(const char *s)
{
	size_t i, n = strlen(s);

	for (i = 0; i < n; i++) {
		if (!isdigit((unsigned char)s[i]))
			return false;
	}
	return n >= 1 && n <= 5 && strtoul(s, NULL, 10) <= 65535;
}

static bool
host_ok(const char *s, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (!isalnum((unsigned char)s[i]) && strchr(".-_:%", s[i]) == NULL)
			return false;
	}
	/* What looks like an option is no host to any program. */
	return n >= 1 && n < sizeof((struct address *)0)->host && s[0] != '-';
}

bool
address_parse(const char *text, struct address *out)
{
	const char *end, *colon = strrchr(text, ':'), *port = PORT_DEFAULT, *host = text;
	size_t n = strlen(text);

	if (text[0] == '[') {
		host = text + 1;
		end = strchr(host, ']');
		if (end == NULL || (end[1] != '\0' && end[1] != ':'))
			return false;
		n = (size_t)(end - host);
		if (end[1] == ':')
			port = end + 2;
	} else if (colon != NULL && strchr(text, ':') == colon) { /* else a bare IPv6 address */
		n = (size_t)(colon - text);
		port = colon + 1;
	}
	if (!host_ok(host, n) || !port_ok(port))
		return false;
	memcpy(out->host, host, n);
	out->host[n] = '\0';
	(void)snprintf(out->port, sizeof out->port, "%s", port);
	return true;
}

const char *
address_text(char dst[ADDRESS_MAX], const struct address *a)
{
	(void)snprintf(dst, ADDRESS_MAX, strchr(a->host, ':') != NULL ? "[%s]:%s" : "%s:%s",
	               a->host, a->port);
	return dst;
}

/* ---- tokens ---- */

const char *
token_text(char dst[TOKEN_TEXT_MAX], const struct token *t)
{
	char at[ADDRESS_MAX], key[65], secret[65];

	(void)snprintf(dst, TOKEN_TEXT_MAX, "locum1/%s/%s/%s", address_text(at, &t->at),
	               lc_hex(key, t->key, sizeof t->key),
	               lc_hex(secret, t->secret, sizeof t->secret));
	explicit_bzero(secret, sizeof secret);
	return dst;
}

/* The part up to the next '/', which becomes its end; NULL where there is none. */
static char *
next_part(char **rest)
{
	char *part = *rest, *slash = strchr(part, '/');

	if (slash == NULL)
		return NULL;
	*slash = '\0';
	*rest = slash + 1;
	return part;
}

int
token_parse(const char *text, struct token *out, struct lc_err *e)
{
	char copy[TOKEN_TEXT_MAX];
	char *rest = copy, *head, *at, *key;
	bool ok;

	if (strlen(text) >= sizeof copy)
		return lc_fail(e, LC_EINVAL, 0, "that is no token of `locum token`");
	(void)snprintf(copy, sizeof copy, "%s", text);
	ok = (head = next_part(&rest)) != NULL && (at = next_part(&rest)) != NULL &&
	     (key = next_part(&rest)) != NULL && strcmp(head, "locum1") == 0 &&
	     address_parse(at, &out->at) && lc_unhex(out->key, sizeof out->key, key) &&
	     lc_unhex(out->secret, sizeof out->secret, rest);
	explicit_bzero(copy, sizeof copy);
	return ok ? 0 : lc_fail(e, LC_EINVAL, 0, "that is no token of `locum token`");
}

/* ---- replicas that this host knows ---- */

void
peer_text(const struct uv_tcp_s *tcp, char *dst, size_t n)
{
	struct sockaddr_storage a;
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)&a;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)&a;
	int size = sizeof a;
	char ip[48] = "?";

	dst[0] = '\0';
	if (uv_tcp_getpeername(tcp, (struct sockaddr *)&a, &size) != 0)
		return;
	if (a.ss_family == AF_INET6)
		(void)uv_ip6_name(v6, ip, sizeof ip);
	else
		(void)uv_ip4_name(v4, ip, sizeof ip);
	(void)snprintf(dst, n, a.ss_family == AF_INET6 ? "[%s]:%u" : "%s:%u", ip,
	               ntohs(a.ss_family == AF_INET6 ? v6->sin6_port : v4->sin_port));
}

bool
peer_name_ok(const char *name)
{
	size_t i, n = strlen(name);

	for (i = 0; i < n; i++) {
		if (!isalnum((unsigned char)name[i]) && strchr("-_.", name[i]) == NULL)
			return false;
	}
	return n > 0 && n < PEER_NAME_MAX && name[0] != '.';
}

int
identity_of_store(const char *key_dir, const uint8_t domain[16], unsigned writer, bool create,
                  struct identity *out, struct lc_err *e)
{
	char hex[33], *key = lc_asprintf("%s/%s.key", key_dir, lc_hex(hex, domain, 16));
	char *path;
	int rc;

	if (writer > 0)
		path = lc_asprintf("%s/store-%.8s-%u.key", key_dir, hex, writer);
	else if (key != NULL && access(key, F_OK) == 0)
		path = lc_asprintf("%s/host.key", key_dir);
	else
		path = lc_asprintf("%s/store-%.8s.key", key_dir, hex);
	if (key == NULL || path == NULL) {
		lc_free(key);
		lc_free(path);
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	rc = create ? dir_make(key_dir, 0700, e) : 0;
	rc = rc != 0 ? rc : identity_load(path, create, out, e);
	if (rc == LC_ENOENT) {
		lc_err_clear(e);
		rc = lc_fail(e, LC_ENOENT, 0,
		             "this store is not paired with a replica from here (locum pair)");
	}
	lc_free(key);
	lc_free(path);
	return rc;
}

static char *
peer_path(const char *key_dir, const char *name)
{
	return lc_asprintf("%s/%s" PEER_TAIL, key_dir, name);
}

int
peer_save(const char *key_dir, const struct peer *p, struct lc_err *e)
{
	char text[512], at[ADDRESS_MAX], hex[65];
	char *path = peer_path(key_dir, p->name);
	int n, rc;

	n = snprintf(text, sizeof text, "# made by locum pair\naddress = %s\nkey = %s\n",
	             address_text(at, &p->at), lc_hex(hex, p->key, sizeof p->key));
	rc = path == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	                  : file_write_atomic(path, text, (size_t)n, 0600, e);
	lc_free(path);
	return rc;
}

int
peer_load(const char *key_dir, const char *name, struct peer *out, struct lc_err *e)
{
	char *path = peer_path(key_dir, name);
	const char *at, *key;
	struct config *c = NULL;
	int rc;

	if (path == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	if (!peer_name_ok(name) || access(path, F_OK) != 0) {
		rc = lc_fail(e, LC_ENOENT, 0,
		             "no replica %s is known here (pair with one: locum pair TOKEN --name "
		             "%s)",
		             name, peer_name_ok(name) ? name : "NAME");
		lc_free(path);
		return rc;
	}
	rc = config_load(path, &c, e);
	if (rc == 0) {
		at = config_get(c, "", "", "address");
		key = config_get(c, "", "", "key");
		(void)snprintf(out->name, sizeof out->name, "%s", name);
		if (at == NULL || key == NULL || !address_parse(at, &out->at) ||
		    !lc_unhex(out->key, sizeof out->key, key))
			rc = lc_fail(e, LC_ECORRUPT, 0, "%s: address or key is missing or wrong",
			             path);
	}
	config_free(c);
	lc_free(path);
	return rc;
}

static int
by_name(const void *a, const void *b)
{
	return strcmp(((const struct peer_file *)a)->peer.name,
	              ((const struct peer_file *)b)->peer.name);
}

int
peer_files(const char *key_dir, struct peer_file **out, size_t *n, struct lc_err *e)
{
	struct lc_buf list = {0};
	DIR *d = opendir(key_dir);
	struct dirent *ent;
	int rc = 0;

	if (d == NULL && errno != ENOENT)
		rc = lc_fail_errno(e, "%s", key_dir);
	while (d != NULL && rc == 0 && (ent = dir_next(d, key_dir, &rc, e)) != NULL) {
		char name[PEER_NAME_MAX];
		struct peer_file p = {.peer = {.name = ""}};
		size_t len = strlen(ent->d_name), tail = sizeof PEER_TAIL - 1;

		if (len <= tail || len - tail >= sizeof name ||
		    strcmp(ent->d_name + len - tail, PEER_TAIL) != 0)
			continue;
		memcpy(name, ent->d_name, len - tail);
		name[len - tail] = '\0';
		if (!peer_name_ok(name)) /* an editor's */
			continue;
		if (peer_load(key_dir, name, &p.peer, &p.err) != 0) {
			p.peer = (struct peer){.name = ""};
			memcpy(p.peer.name, name, sizeof p.peer.name);
		}
		if (lc_buf_append(&list, &p, sizeof p) != 0)
			rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	if (d != NULL)
		(void)closedir(d);
	*out = (struct peer_file *)(void *)list.p;
	*n = list.n / sizeof **out;
	if (rc != 0) {
		lc_buf_free(&list);
		*out = NULL;
		*n = 0;
	} else if (*n > 0) {
		qsort(*out, *n, sizeof **out, by_name);
	}
	return rc;
}
