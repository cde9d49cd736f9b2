#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "replicator/borrower.h"
#include "replicator/remote.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/memory.h"

#define AGAIN_NS (5 * LC_NS_PER_S) /* after a failure */
#define CONNECT_MS 5000
#define HURRY_MS 5000
#define STOP_LINGER_MS 500 /* for last words of one that is not waited for any more */
#define READ_TRIES 2       /* a connection that was given up in between is made again */

struct far { /* one replica */
	struct peer peer;
	struct lc_err unknown; /* where it is: its file can't be read */
	pthread_mutex_t lock;  /* what follows; held while it connects */
	pthread_cond_t left;   /* the last user of one that had failed */
	struct borrower *b;
	unsigned users; /* of b */
	bool failed;    /* b has: the last user closes it */
	int64_t tried_ns;
	struct lc_err err; /* why it could not be connected then */
};

struct remote {
	struct store *s;
	struct identity identity;
	char host[256];
	struct far *list; /* [n] */
	size_t n;
	struct lc_buf names;
	struct session_limits limits;
	bool (*stop)(void *arg);
	void *stop_arg;
};

static int
load(struct remote *r, const char *key_dir, struct lc_err *e)
{
	char *path = path_join(key_dir, "host.key");
	struct peer_file *peers = NULL;
	size_t i;
	int rc = path == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	                      : peer_files(key_dir, &peers, &r->n, e);

	r->n = rc != 0 ? 0 : r->n;
	for (i = 0; peers != NULL && i < r->n && peers[i].err.code != LC_OK; i++)
		;
	if (i < r->n) /* else nobody can be asked */
		rc = identity_load(path, false, &r->identity, e);
	r->list = rc != 0 ? NULL : lc_alloc_array(r->n + 1, sizeof *r->list);
	if (rc == 0 && r->list == NULL)
		rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	for (i = 0; rc == 0 && r->list != NULL && peers != NULL && i < r->n; i++) {
		r->list[i].peer = peers[i].peer;
		r->list[i].unknown = peers[i].err;
		(void)pthread_mutex_init(&r->list[i].lock, NULL);
		(void)pthread_cond_init(&r->list[i].left, NULL);
		if (lc_buf_printf(&r->names, "%s%s", i == 0 ? "" : ", ", peers[i].peer.name) != 0)
			rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	lc_free(peers);
	lc_free(path);
	return rc;
}

int
remote_new(struct store *s, const char *key_dir, struct remote **out, struct lc_err *e)
{
	struct remote *r = lc_alloc(sizeof *r);
	int rc;

	if (r == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	r->s = s;
	(void)strcpy(r->host, "host"); /* NOLINT(clang-analyzer-security.insecureAPI.strcpy) */
	(void)gethostname(r->host, sizeof r->host - 1);
	r->limits = (struct session_limits){.connect_ms = CONNECT_MS};
	rc = load(r, key_dir, e);
	if (rc != 0)
		remote_free(r);
	else
		*out = r;
	return rc;
}

size_t
remote_count(const struct remote *r)
{
	return r->n;
}

int
remote_known(const struct remote *r, struct lc_err *e)
{
	size_t i;

	for (i = 0; i < r->n && r->list[i].unknown.code == LC_OK; i++)
		;
	if (i == r->n)
		return 0;
	if (e != NULL && e->code == LC_OK)
		*e = r->list[i].unknown;
	return r->list[i].unknown.code;
}

void
remote_hurry(struct remote *r)
{
	r->limits = (struct session_limits){.connect_ms = HURRY_MS,
	                                    .ping_ms = HURRY_MS / 4,
	                                    .dead_ms = HURRY_MS,
	                                    .welcome_ms = HURRY_MS};
}

void
remote_stop(struct remote *r, bool (*stop)(void *arg), void *arg)
{
	r->stop = stop;
	r->stop_arg = arg;
	r->limits.linger_ms = STOP_LINGER_MS;
}

const char *
remote_names(const struct remote *r)
{
	return r->n == 0 ? "" : (const char *)r->names.p;
}

void
remote_free(struct remote *r)
{
	size_t i;

	if (r == NULL)
		return;
	for (i = 0; r->list != NULL && i < r->n; i++) {
		borrower_close(r->list[i].b);
		(void)pthread_mutex_destroy(&r->list[i].lock);
		(void)pthread_cond_destroy(&r->list[i].left);
	}
	identity_forget(&r->identity);
	lc_buf_free(&r->names);
	lc_free(r->list);
	lc_free(r);
}

/* ---- connections ---- */

/* Under its lock. */
static int
connect_it(struct remote *r, struct far *f, struct lc_err *e)
{
	struct borrower_opts o = {.store = r->s,
	                          .peer = &f->peer,
	                          .identity = &r->identity,
	                          .host = r->host,
	                          .limits = r->limits,
	                          .stop = r->stop,
	                          .stop_arg = r->stop_arg};
	int64_t now = clock_mono_ns();

	if (f->unknown.code != LC_OK)
		f->err = f->unknown;
	else if (f->err.code == LC_OK || now - f->tried_ns >= AGAIN_NS) {
		lc_err_clear(&f->err);
		(void)borrower_open(&o, &f->b, &f->err);
		borrower_of_link(&f->err);
		f->tried_ns = clock_mono_ns();
	}
	if (f->b == NULL && e != NULL && e->code == LC_OK)
		*e = f->err;
	return f->b == NULL ? f->err.code : 0;
}

static int
take(struct remote *r, struct far *f, struct borrower **out, struct lc_err *e)
{
	int rc = 0;

	(void)pthread_mutex_lock(&f->lock);
	/* The others that are at it hear of that, too, and then it is made anew for all. */
	while (f->failed && f->users > 0)
		(void)pthread_cond_wait(&f->left, &f->lock);
	if (f->b == NULL)
		rc = connect_it(r, f, e);
	if (rc == 0) {
		f->users++;
		*out = f->b;
	}
	(void)pthread_mutex_unlock(&f->lock);
	return rc;
}

/* rc: of what was done with it. */
static void
give(struct far *f, int rc)
{
	(void)pthread_mutex_lock(&f->lock);
	f->users--;
	f->failed = f->failed || (rc != 0 && rc != LC_ENOENT && rc != LC_ECORRUPT);
	if (f->failed && f->users == 0) {
		borrower_close(f->b);
		f->b = NULL;
		f->failed = false;
		(void)pthread_cond_broadcast(&f->left);
	}
	(void)pthread_mutex_unlock(&f->lock);
}

/* ---- what is asked of all ---- */

int
remote_have(void *arg, const uint8_t *ids, size_t n, uint8_t *bits, struct lc_err *e)
{
	uint8_t some[(THIN_ASK_MAX + 7) / 8];
	struct remote *r = arg;
	struct borrower *b = NULL;
	size_t i, k;
	int rc = r->n == 0 ? lc_fail(e, LC_ENOENT, 0, "this host is not paired with any replica")
	                   : 0;

	memset(bits, 0xff, (n + 7) / 8);
	for (i = 0; rc == 0 && i < r->n; i++) {
		rc = take(r, &r->list[i], &b, e);
		if (rc != 0)
			break;
		rc = borrower_have(b, ids, n, some, e);
		give(&r->list[i], rc);
		for (k = 0; rc == 0 && k < (n + 7) / 8; k++)
			bits[k] &= some[k];
	}
	return rc;
}

static int
fetch_from(struct remote *r, struct far *f, const uint8_t *ids, size_t n, uint8_t *payload,
           struct fetched *out, struct lc_err *e)
{
	struct borrower *b = NULL;
	int rc = LC_EPEER, tries;

	for (tries = 0; tries < READ_TRIES && rc == LC_EPEER; tries++) {
		lc_err_clear(e);
		rc = take(r, f, &b, e);
		if (rc != 0)
			break;
		rc = borrower_read(b, ids, n, payload, out, e);
		give(f, rc);
	}
	return rc;
}

int
remote_fetch(void *arg, const uint8_t *ids, size_t n, uint8_t *payload, struct fetched *out,
             struct lc_err *e)
{
	struct lc_err err = LC_ERR_INIT, first = LC_ERR_INIT;
	struct remote *r = arg;
	size_t i;
	int rc = LC_ENOENT;

	(void)lc_fail(&first, LC_ENOENT, 0, "this host is not paired with any replica");
	for (i = 0; i < r->n; i++) {
		rc = fetch_from(r, &r->list[i], ids, n, payload, out, &err);
		if (rc == 0)
			return 0;
		/* That it is gone only all of them together can say. */
		if (i == 0 || first.code == LC_ENOENT ||
		    (lc_code_retryable(err.code) && !lc_code_retryable(first.code)))
			first = err;
	}
	if (e != NULL && e->code == LC_OK)
		*e = first;
	return first.code;
}

int
remote_attach(struct store *s, const char *key_dir, struct remote **out, struct lc_err *e)
{
	char peers[THIN_PEERS_MAX + 1];
	int rc;

	*out = NULL;
	thin_peers(s, peers);
	if (peers[0] == '\0')
		return 0;
	rc = remote_new(s, key_dir, out, e);
	if (rc == 0 && *out != NULL && remote_count(*out) > 0)
		thin_fetch(s, remote_fetch, *out);
	return rc;
}
