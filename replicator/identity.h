/**
 * identity: who a host or a replica is to other sites: a static key pair, pinned by both sides.
 */
#ifndef LOCUM_IDENTITY_H
#define LOCUM_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

#include "replicator/channel.h"
#include "store/base/errors.h"

struct uv_tcp_s;

struct identity {
	uint8_t secret[CHANNEL_KEY_SIZE]; /* wipe with identity_forget() */
	uint8_t public[CHANNEL_KEY_SIZE];
};

/**
 * identity_load(path, create, out, e):
 * Read the key file; where it is missing and `create` is set, make one (0600, its folder 0700).
 *
 * Returns  0; LC_ENOENT; LC_EACCES where others have rights on it; LC_ECORRUPT.
 * Durable: a new one, on return of 0.
 */
int identity_load(const char *path, bool create, struct identity *out, struct lc_err *e);
void identity_forget(struct identity *id);

#define FINGERPRINT_MAX 40u
/** fingerprint(dst, key): the first 128 bits of a public key, for people to compare; returns dst.
 */
const char *fingerprint(char dst[FINGERPRINT_MAX], const uint8_t key[CHANNEL_KEY_SIZE]);

/* Where a site is, and the key that it has to have. */
#define ADDRESS_MAX 264u
struct address {
	char host[256]; /* name or number, without brackets */
	char port[6];
};
#define PORT_DEFAULT "7227"
/** address_parse(text, out): "host", "host:port", "[2001:db8::1]:port". */
bool address_parse(const char *text, struct address *out);
/** address_text(dst, a): the same as text; returns dst. */
const char *address_text(char dst[ADDRESS_MAX], const struct address *a);

/* A token: what one host needs to pair once.  "locum1/host:port/<key>/<secret>". */
struct token {
	struct address at;
	uint8_t key[CHANNEL_KEY_SIZE]; /* of the replica */
	uint8_t secret[32];
};
#define TOKEN_TEXT_MAX (8u + ADDRESS_MAX + 2u * 65u)
const char *token_text(char dst[TOKEN_TEXT_MAX], const struct token *t);
/** token_parse(text, out, e): LC_EINVAL where it is none. */
int token_parse(const char *text, struct token *out, struct lc_err *e);

/* A replica that this host is paired with: <key_dir>/<name>.replica. */
#define PEER_NAME_MAX 64u
/**
 * identity_of_store(key_dir, domain, writer, create, out, e):
 * Who sends the points of a writer (vouch.h) of that store from this machine: <key_dir>/host.key
 * where its key is here, else, as at a replica that passes on what it cannot read,
 * <key_dir>/store-<8 digits>.key: each store is another host to the third site.  And so is each
 * further writer of it, store-<8 digits>-<number>.key: what one of them sent is none of the
 * others', there as here.
 */
int identity_of_store(const char *key_dir, const uint8_t domain[16], unsigned writer, bool create,
                      struct identity *out, struct lc_err *e);

struct peer {
	char name[PEER_NAME_MAX];
	struct address at;
	uint8_t key[CHANNEL_KEY_SIZE];
};
/** peer_text(tcp, dst, n): who is at the other end, "192.0.2.7:4711"; "" where that is not known.
 */
void peer_text(const struct uv_tcp_s *tcp, char *dst, size_t n);
/** peer_name_ok(name): letters, digits, '-', '_' and '.', not first a '.'. */
bool peer_name_ok(const char *name);
int peer_save(const char *key_dir, const struct peer *p, struct lc_err *e);
/** peer_load(key_dir, name, out, e): LC_ENOENT says how to pair. */
int peer_load(const char *key_dir, const char *name, struct peer *out, struct lc_err *e);
struct peer_file {
	struct peer peer;  /* only its name, where that failed */
	struct lc_err err; /* why it can't be read */
};
/** peer_files(key_dir, out, n, e): all of them, by name; one that can't be read is not to keep this
 * host from the others.  Free with lc_free(). */
int peer_files(const char *key_dir, struct peer_file **out, size_t *n, struct lc_err *e);

#endif
