/*
 * locum recall: the store of this host, made again from a replica.
 *
 * What comes is keys (sealed), points and maps; contents stay there.  A point is here when its
 * commit is, so what was interrupted is done again for the lines that are not here yet.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "replicator/borrower.h"
#include "replicator/verbs.h"
#include "store/base/clock.h"
#include "store/base/config.h"
#include "store/base/files.h"
#include "store/keyring.h"
#include "store/kit.h"
#include "store/recall.h"
#include "store/thin.h"
#include "store/verbs/opening.h"

struct recall {
	const struct cli_args *args;
	struct opening opening;
	struct peer peer;
	const uint8_t *secret; /* of a token: pair first */
	char host[256];        /* what this host calls itself */
	struct borrower *b;
	struct store *s;
	struct lc_buf lines; /* ids of those that have a point there, 16 bytes each */
	struct incoming *in; /* the one in hand */
	uint64_t left;       /* rows of it that may still come */
	uint64_t rows, points;
};

/* ---- one point ---- */

static int
on_begin(void *arg, const struct transfer_point *p, struct lc_err *e)
{
	struct recall *x = arg;
	int rc;

	if (x->in != NULL)
		return lc_fail(e, LC_ECORRUPT, 0, "the replica began a point twice");
	rc = recall_windows(x->s, p->entry, &x->left, e);
	if (rc == LC_EKEY)
		lc_wrap(e, "a point there (--recovery-code-file brings the keys of other hosts)");
	return rc != 0 ? rc : incoming_begin(x->s, 0, p, &x->in, e);
}

static int
on_rows(void *arg, struct lc_span payload, struct lc_err *e)
{
	struct recall *x = arg;

	return x->in == NULL ? lc_fail(e, LC_ECORRUPT, 0, "rows came before their point")
	                     : recall_rows(x->s, x->in, payload, &x->left, e);
}

static int
recall_line(struct recall *x, const uint8_t line[16], struct lc_err *e)
{
	const struct recall_events ev = {.begin = on_begin, .rows = on_rows, .arg = x};
	struct incoming_end end = {.err = LC_ERR_INIT};
	bool lacks;
	int rc = recall_lacks(x->s, line, &lacks, e);

	if (rc != 0 || !lacks)
		return rc;
	rc = borrower_recall(x->b, line, &ev, &end.rows, &end.sum, e);
	if (rc != 0) {
		incoming_abort(x->in);
		x->in = NULL;
		return rc;
	}
	if (x->in == NULL)
		return lc_fail(e, LC_EPEER, 0, "a point ended that was not begun");
	end.in = x->in;
	x->in = NULL;
	incoming_commit(&end, 1);
	if (end.rc != 0) {
		*e = end.err;
		return end.rc;
	}
	x->points++;
	x->rows += end.rows;
	return 0;
}

static int
note_line(void *arg, const struct transfer_line *l, struct lc_err *e)
{
	struct recall *x = arg;

	if (l->head.n == 0)
		return 0;
	return lc_buf_append(&x->lines, l->line, 16) == 0
	           ? 0
	           : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

/* ---- the store ---- */

static int
connect_it(struct recall *x, struct lc_err *e)
{
	const char *dir = x->opening.settings.key_dir;
	char *path = path_join(dir, "host.key");
	struct identity id = {0};
	struct borrower_opts o = {
	    .peer = &x->peer, .identity = &id, .host = x->host, .secret = x->secret};
	int rc;

	rc = path == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	                  : identity_load(path, x->secret != NULL, &id, e);
	rc = rc != 0 ? rc : borrower_open(&o, &x->b, e);
	identity_forget(&id);
	lc_free(path);
	return rc;
}

/* The code as the kit or a file of its own has it. */
static int
open_keys(struct recall *x, struct lc_span keys, struct lc_err *e)
{
	const char *file = cli_get(x->args, "recovery-code-file");
	char code[RECOVERY_CODE_MAX] = "";
	int rc = file == NULL ? 0 : kit_read_code(file, code, e);

	rc = rc != 0 ? rc
	             : recall_key(x->opening.settings.key_dir, keys, file == NULL ? NULL : code, e);
	explicit_bzero(code, sizeof code);
	return rc;
}

/* The one that is there, if it is of that domain, or a new one. */
static int
open_store(struct recall *x, struct lc_err *e)
{
	struct store_opts o = {.mode = STORE_WRITE,
	                       .who = "locum recall",
	                       .dir = x->opening.settings.store,
	                       .key_dir = x->opening.settings.key_dir};
	struct lc_buf keys = {0};
	uint8_t domain[16];
	int rc = borrower_keys(x->b, &keys, e);
	struct lc_span span = {keys.p, keys.n};

	rc = rc != 0 ? rc : keyring_domain_of(span, domain, e);
	rc = rc != 0 ? rc : open_keys(x, span, e);
	rc = rc != 0 ? rc : transfer_make(o.dir, span, e);
	if (rc == LC_EEXIST) { /* a try of before, or a store that lacks some lines */
		lc_err_clear(e);
		rc = 0;
	}
	rc = rc != 0 ? rc : store_open(&o, &x->s, e);
	if (rc == 0 && memcmp(transfer_domain(x->s), domain, sizeof domain) != 0)
		rc = lc_fail(e, LC_EEXIST, 0,
		             "%s is a store of another key domain than that at replica %s", o.dir,
		             x->peer.name);
	lc_buf_free(&keys);
	return rc;
}

static int
recall(struct recall *x, struct lc_err *e)
{
	size_t i;
	int rc = peer_load(x->opening.settings.key_dir, cli_operand(x->args, 0), &x->peer, e);

	(void)snprintf(x->host, sizeof x->host, "host");
	(void)gethostname(x->host, sizeof x->host - 1);
	rc = rc != 0 ? rc : connect_it(x, e);
	rc = rc != 0 ? rc : open_store(x, e);
	rc = rc != 0 ? rc : borrower_lines(x->b, note_line, x, e);
	if (rc == 0 && x->lines.n > 0)
		rc = thin_name_peers(x->s, x->peer.name, e);
	for (i = 0; rc == 0 && i < x->lines.n; i += 16)
		rc = recall_line(x, x->lines.p + i, e);
	return rc;
}

static void
close_recall(struct recall *x)
{
	borrower_close(x->b);
	store_close(x->s);
	lc_buf_free(&x->lines);
	opening_done(&x->opening);
}

/* A store that is there has keys, which may be others, and points, which would be sent anew. */
static int
check_none(const struct recall *x, struct lc_err *e)
{
	char *path = path_join(x->opening.settings.store, "store");
	int rc = path == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory") : 0;

	if (path != NULL && access(path, F_OK) == 0)
		rc = lc_fail(e, LC_EEXIST, 0,
		             "%s is a store already: --join is for a host that has none yet",
		             x->opening.settings.store);
	lc_free(path);
	return rc;
}

int
recall_join(const struct cli_args *a, const struct peer *peer, const uint8_t *secret,
            const char *host, bool *made, struct lc_err *e)
{
	struct recall x = {.args = a, .peer = *peer, .secret = secret};
	int rc = opening_settings(a, &x.opening, e);

	(void)snprintf(x.host, sizeof x.host, "%s", host);
	*made = false;
	rc = rc != 0 ? rc : check_none(&x, e);
	rc = rc != 0 ? rc : connect_it(&x, e);
	rc = rc != 0 ? rc : peer_save(x.opening.settings.key_dir, peer, e);
	*made = rc == 0;
	rc = rc != 0 ? rc : open_store(&x, e);
	close_recall(&x);
	return rc;
}

static void
report(const struct recall *x)
{
	uint64_t bytes = borrower_received(x->b);
	char size[32];

	if (cli_has(x->args, "json")) {
		(void)printf("{\"points\": %" PRIu64 ", \"windows\": %" PRIu64
		             ", \"bytes\": %" PRIu64 ", \"replica\": ",
		             x->points, x->rows, bytes);
		cli_json_string(stdout, x->peer.name);
		(void)puts("}");
	} else if (!cli_has(x->args, "quiet")) {
		(void)printf("%" PRIu64 " lines of VMs are back, with %" PRIu64
		             " windows, for %s over the wire; contents are at replica %s\n",
		             x->points, x->rows, size_format(size, sizeof size, bytes),
		             x->peer.name);
	}
}

static int
run_recall(const struct cli_args *a)
{
	struct recall x = {.args = a};
	struct lc_err e = LC_ERR_INIT;
	int rc = opening_settings(a, &x.opening, &e);

	rc = rc != 0 ? rc : recall(&x, &e);
	if (rc == 0)
		report(&x);
	close_recall(&x);
	return rc == 0 ? CLI_DONE : cli_error(&e);
}

static const struct cli_option recall_options[] = {
    {.name = "recovery-code-file",
     .arg = "FILE",
     .help = "the recovery kit, where this host has lost its key file, too"},
    {.name = NULL}};

const struct cli_verb verb_recall = {
    .name = "recall",
    .operands = "REPLICA",
    .summary = "make this host's store again from a replica",
    .details =
	"For a host that has lost its store, but is still paired (its host.key and the\n"
	"replica's file in key_dir).  The newest point of each line of each VM comes back as a\n"
	"map: the next backup compares what the VM has with it, here, and sends what differs.\n"
	"Contents stay at the replica, and are read from there (the store is thin).\n"
	"\n"
	"What was interrupted is finished by doing it again.\n"
	"\n"
	"With --recovery-code-file it also brings data keys that other hosts of the key domain\n"
	"began (locum key rotate), where they share a store at the replica.\n"
	"\n"
	"Examples:\n"
	"  locum recall dr\n"
	"  locum recall dr --recovery-code-file /mnt/usb/locum-recovery-kit.txt",
    .options = recall_options,
    .min_operands = 1,
    .max_operands = 1,
    .run = run_recall,
};
