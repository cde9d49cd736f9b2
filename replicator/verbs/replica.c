/*
 * locum replica, token, replica hosts, replica revoke: the other site's side.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "agent/hypervisor/settings.h"
#include "replicator/metrics.h"
#include "replicator/server.h"
#include "replicator/steward.h"
#include "replicator/throttle.h"
#include "replicator/verbs.h"
#include "replicator/writers.h"
#include "store/base/bytes.h"
#include "store/base/cli.h"
#include "store/base/clock.h"
#include "store/base/config.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/base/notify.h"
#include "store/base/workers.h"

#define STATUS_FILE "replica.json"
#define STATUS_MS 1000
#define WORKERS 4u /* they wait for the disk more than they compute */

/* ---- what all of them begin with ---- */

struct place {
	struct settings settings;
	const char *dir;
	struct identity identity;
};

static int
open_place(const struct cli_args *a, bool create, struct place *p, struct lc_err *e)
{
	struct cli_word w;
	char *path;
	int rc;

	*p = (struct place){0};
	rc = settings_load(a, &p->settings, e);
	if (rc != 0)
		return rc;
	p->dir = cli_get(a, "dir") != NULL ? cli_get(a, "dir") : p->settings.replica_dir;
	path = path_join(p->dir, REPLICA_KEY_FILE);
	if (path == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = create ? dir_make(p->dir, 0700, e) : 0;
	rc = rc != 0 ? rc : identity_load(path, create, &p->identity, e);
	if (rc == LC_ENOENT) {
		lc_err_clear(e);
		rc = lc_fail(e, LC_ENOENT, 0,
		             "no replica in %s yet (start one: locum replica --dir %s)", p->dir,
		             cli_word(&w, p->dir));
	}
	lc_free(path);
	return rc;
}

static void
close_place(struct place *p)
{
	identity_forget(&p->identity);
	settings_done(&p->settings);
}

#define DIR_OPTION                                                                     \
	{                                                                              \
		.name = "dir", .arg = "DIR",                                           \
		.help = "folder of the replica (default: replica_dir of the settings)" \
	}

/* ---- replica ---- */

struct running {
	uv_loop_t loop;
	uv_signal_t on_int, on_term;
	uv_timer_t status;
	struct server *server;
	struct metrics *metrics; /* NULL: not served */
	struct steward *steward; /* NULL: likewise */
	char *status_path;
	bool stopping;
};

/* Beside, then renamed: who reads sees the whole of one moment.  No flush: it is about now. */
static void
on_status(uv_timer_t *t)
{
	struct running *r = t->data;
	char *made = lc_asprintf("%s.new", r->status_path);
	FILE *f = made == NULL || r->server == NULL ? NULL : fopen(made, "we");
	bool ok;

	if (f != NULL) {
		server_status(r->server, f);
		ok = ferror(f) == 0;
		ok = fclose(f) == 0 && ok;
		if (!ok || rename(made, r->status_path) != 0)
			log_debug("%s can't be written", r->status_path);
	}
	lc_free(made);
}

static void
render(void *arg, FILE *f)
{
	server_metrics(((struct running *)arg)->server, f);
}

/* Points are taken also where this fails. */
static void
serve_metrics(struct running *r, const char *address)
{
	struct metrics_opts o = {.loop = &r->loop, .address = address, .render = render, .arg = r};
	struct lc_err e = LC_ERR_INIT;

	if (address != NULL && metrics_start(&o, &r->metrics, &e) != 0)
		log_error("%s", e.msg);
	else if (address != NULL)
		log_info("replica: metrics on port %u", metrics_port(r->metrics));
}

static void
close_handles(struct running *r)
{
	metrics_stop(r->metrics);
	uv_close((uv_handle_t *)&r->on_int, NULL);
	uv_close((uv_handle_t *)&r->on_term, NULL);
	uv_close((uv_handle_t *)&r->status, NULL);
}

static void
on_stopped(void *arg)
{
	struct running *r = arg;

	r->server = NULL;
	close_handles(r);
}

static void
on_steward_closed(void *arg)
{
	struct running *r = arg;

	r->steward = NULL;
	server_stop(r->server, on_stopped, r);
}

static void
on_look(void *arg, const char *dir, struct store *s)
{
	server_look(arg, dir, s);
}

/* Points are taken also where this fails. */
static void
take_orders(struct running *r, const char *dir)
{
	struct lc_err e = LC_ERR_INIT;

	if (steward_open(&r->loop, dir, server_stores(r->server), &r->steward, &e) != 0)
		log_error("replica: other commands can't ask for anything: %s", e.msg);
	else
		steward_watch(r->steward, on_look, r->server);
}

static void
on_signal(uv_signal_t *h, int signum)
{
	struct running *r = h->data;

	(void)signum;
	if (r->stopping)
		return;
	r->stopping = true;
	notify_service("STOPPING=1");
	log_info("replica: stopping");
	steward_close(r->steward, on_steward_closed, r);
}

static int
run_server(struct place *p, const struct server_opts *o, struct running *r, struct lc_err *e)
{
	struct server_opts so = *o;
	char print[FINGERPRINT_MAX];
	int rc;

	(void)uv_loop_init(&r->loop);
	(void)uv_signal_init(&r->loop, &r->on_int);
	(void)uv_signal_init(&r->loop, &r->on_term);
	(void)uv_timer_init(&r->loop, &r->status);
	r->on_int.data = r->on_term.data = r->status.data = r;
	so.loop = &r->loop;
	rc = server_start(&so, &r->server, e);
	if (rc == 0) {
		(void)uv_signal_start(&r->on_int, on_signal, SIGINT);
		(void)uv_signal_start(&r->on_term, on_signal, SIGTERM);
		(void)uv_timer_start(&r->status, on_status, 0, STATUS_MS);
		log_info("replica %s listens on port %u; folder %s",
		         fingerprint(print, p->identity.public), server_port(r->server), p->dir);
		serve_metrics(r, p->settings.metrics);
		take_orders(r, p->dir);
		/* After that: what is opened says where it is asked for. */
		server_survey(r->server);
		notify_service("READY=1");
	} else {
		close_handles(r);
	}
	(void)uv_run(&r->loop, UV_RUN_DEFAULT);
	(void)uv_loop_close(&r->loop);
	(void)unlink(r->status_path);
	return rc;
}

static int
serve(struct place *p, const struct address *at, uint64_t host_max, uint64_t host_rate,
      struct lc_err *e)
{
	struct running r = {.status_path = path_join(p->dir, STATUS_FILE)};
	struct workers *workers = NULL;
	char *lock_path = path_join(p->dir, "lock");
	int lock_fd = -1, rc;
	struct server_opts so = {.dir = p->dir,
	                         .listen = at,
	                         .identity = &p->identity,
	                         .host_max = host_max,
	                         .host_rate = host_rate};

	rc = lock_path == NULL || r.status_path == NULL
	         ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	         : file_lock(lock_path, 0600, "locum replica", &lock_fd, e);
	rc = rc != 0 ? rc : workers_new(WORKERS, &workers, e);
	so.workers = workers;
	rc = rc != 0 ? rc : run_server(p, &so, &r, e);
	workers_free(workers);
	fd_close(&lock_fd);
	lc_free(lock_path);
	lc_free(r.status_path);
	return rc;
}

/* An address, or * for every one, which is no name of a host. */
static bool
parse_listen(const char *text, struct address *out)
{
	char any[ADDRESS_MAX];

	if (text[0] != '*')
		return address_parse(text, out);
	if ((size_t)snprintf(any, sizeof any, "[::]%s", text + 1) >= sizeof any ||
	    !address_parse(any, out))
		return false;
	(void)snprintf(out->host, sizeof out->host, "*");
	return true;
}

static int
run_replica(const struct cli_args *a)
{
	const char *listen_on = cli_get(a, "listen"), *max = cli_get(a, "host-max");
	const char *rate = cli_get(a, "host-rate");
	struct lc_err e = LC_ERR_INIT;
	uint64_t host_max = 0, host_rate = 0;
	struct address at;
	struct place p;
	int rc;

	if (max != NULL && !config_size(max, &host_max))
		return cli_usage(a, "--host-max: '%s' is no size such as 500 GiB", max);
	if (rate != NULL &&
	    (!config_rate(rate, &host_rate) || (host_rate > 0 && host_rate < THROTTLE_MIN)))
		return cli_usage(a, "--host-rate: '%s' is no rate of 16 KiB/s or more", rate);
	rc = open_place(a, true, &p, &e);
	if (rc == 0 && listen_on == NULL)
		listen_on = p.settings.listen;
	if (rc == 0 && !parse_listen(listen_on, &at))
		rc = lc_fail(&e, LC_EINVAL, 0, "%s is no address such as 192.0.2.7:7227 or *:7227",
		             listen_on);
	rc = rc != 0 ? rc : serve(&p, &at, host_max, host_rate, &e);
	close_place(&p);
	return rc == 0 ? CLI_DONE : cli_error(&e);
}

static const struct cli_option replica_options[] = {
    DIR_OPTION,
    {.name = "listen",
     .arg = "ADDRESS",
     .help = "where to listen (default: listen of the settings, *:7227)"},
    {.name = "host-max",
     .arg = "SIZE",
     .help = "how much the store of one host may take; then its points are refused"},
    {.name = "host-rate",
     .arg = "RATE",
     .help = "bytes a second that are read of one host at most, such as 50 MiB/s, 400 Mbit/s"},
    {.name = NULL}};

const struct cli_verb verb_replica = {
    .name = "replica",
    .operands = "",
    .summary = "be the other site: take restore points from paired hosts",
    .details =
	"Runs until it is stopped.  Each host that paired has a store of its own in the\n"
	"replica's folder.  No key of a store is here: what is kept cannot be read, by\n"
	"this program or by who takes the disks, until somebody brings the recovery code.\n"
	"A host adds points; it can neither change nor drop what is here.\n"
	"\n"
	"Examples:\n"
	"  locum replica --dir /srv/locum\n"
	"  locum token --dir /srv/locum --address dr.example.net     # then, on a host: locum "
	"pair\n"
	"  locum status --dir /srv/locum\n"
	"  locum points --store /srv/locum/stores/... --recovery-code-file kit.txt",
    .options = replica_options,
    .min_operands = 0,
    .max_operands = 0,
    .run = run_replica,
};

/* ---- token ---- */

/* For what the arguments say. */
static int
make_secret(const struct cli_args *a, const char *dir, int64_t valid_ns, uint8_t secret[32],
            struct lc_err *e)
{
	const char *replace = cli_get(a, "replace"), *join = cli_get(a, "join");
	struct writer_entry *w = NULL;
	size_t n = 0, at = 0;
	int rc;

	if (replace == NULL && join == NULL)
		return writers_token(dir, valid_ns, NULL, secret, e);
	rc = writers_list(dir, &w, &n, e);
	rc = rc != 0 ? rc : writers_pick(w, n, replace != NULL ? replace : join, &at, e);
	if (rc == 0 && replace != NULL)
		rc = writers_token(dir, valid_ns, w[at].key, secret, e);
	else if (rc == 0)
		rc = writers_join_token(dir, valid_ns, w[at].key, secret, e);
	lc_free(w);
	return rc;
}

static int
run_token(const struct cli_args *a)
{
	const char *valid = cli_get(a, "valid"), *address = cli_get(a, "address");
	int64_t valid_ns = INT64_C(24) * 3600 * LC_NS_PER_S;
	char text[TOKEN_TEXT_MAX], print[FINGERPRINT_MAX], host[256] = "";
	struct lc_err e = LC_ERR_INIT;
	struct token t;
	struct place p;
	int rc;

	if (valid != NULL && (!clock_parse_duration(valid, &valid_ns) || valid_ns <= 0))
		return cli_usage(a, "--valid: '%s' is no time such as 1h or 2d", valid);
	if (cli_get(a, "replace") != NULL && cli_get(a, "join") != NULL)
		return cli_usage(a, "give --replace or --join");
	if (address == NULL && gethostname(host, sizeof host - 1) == 0)
		address = host;
	if (address == NULL || !address_parse(address, &t.at))
		return cli_usage(a, "--address: '%s' is no address such as dr.example.net:7227",
		                 address == NULL ? "" : address);
	rc = open_place(a, true, &p, &e);
	memcpy(t.key, p.identity.public, sizeof t.key);
	rc = rc != 0 ? rc : make_secret(a, p.dir, valid_ns, t.secret, &e);
	if (rc == 0) {
		(void)token_text(text, &t);
		if (cli_has(a, "json")) {
			(void)printf("{\"token\": \"%s\", \"fingerprint\": \"%s\"}\n", text,
			             fingerprint(print, t.key));
		} else {
			(void)printf("%s\n", text);
			if (!cli_has(a, "quiet") && isatty(STDOUT_FILENO) != 0)
				(void)printf(
				    "\nOn the host: locum pair TOKEN.  It works once.  This "
				    "replica is %s.\n",
				    fingerprint(print, t.key));
		}
	}
	explicit_bzero(text, sizeof text);
	explicit_bzero(&t, sizeof t);
	close_place(&p);
	return rc == 0 ? CLI_DONE : cli_error(&e);
}

static const struct cli_option token_options[] = {
    DIR_OPTION,
    {.name = "address",
     .arg = "ADDRESS",
     .help = "how hosts reach this replica (default: this machine's name)"},
    {.name = "valid", .arg = "TIME", .help = "how long it may be used (default: 24h)"},
    {.name = "replace",
     .arg = "HOST",
     .help = "who uses it takes over HOST's store here, and HOST's key is revoked"},
    {.name = "join",
     .arg = "HOST",
     .help = "who uses it (locum pair --join) shares HOST's store here, with VMs of its own"},
    {.name = NULL}};

const struct cli_verb verb_token = {
    .name = "token",
    .operands = "",
    .summary = "let one more host pair with this replica",
    .details =
	"Prints a token for `locum pair`.  It holds the replica's address and key and a\n"
	"secret that works once; whoever has it before the host does can pair in its\n"
	"place, so take care of it.\n"
	"\n"
	"With --replace it is for a host that was paired and has lost its key (host.key), as\n"
	"after it was installed anew: it goes on with its store here, within the limits that\n"
	"were set for it, without sending everything again.  The old key is let in no more from "
	"the moment of pairing on.\n"
	"\n"
	"With --join it is for one more host of HOST's site: it gets into HOST's store here as a\n"
	"writer of its own, so what both have is kept once.  Neither sees, changes or takes from\n"
	"the other's VMs; but as they have the same keys, let only hosts join that may know each\n"
	"other's data.\n"
	"\n"
	"Example:\n"
	"  locum token --address dr.example.net",
    .options = token_options,
    .min_operands = 0,
    .max_operands = 0,
    .run = run_token,
};

/* ---- replica hosts ---- */

static bool
is_shared(const struct writer_entry *w, size_t n, size_t at)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (strcmp(w[i].store, w[at].store) == 0 && w[i].writer != w[at].writer)
			return true;
	}
	return false;
}

static void
print_hosts(const struct cli_args *a, const char *dir, const struct writer_entry *w, size_t n)
{
	char print[FINGERPRINT_MAX], when[40], shared[48];
	size_t i;

	if (cli_has(a, "json")) {
		(void)printf("[");
		for (i = 0; i < n; i++) {
			(void)printf("%s{\"name\": ", i == 0 ? "" : ",\n ");
			cli_json_string(stdout, w[i].name);
			(void)printf(", \"fingerprint\": \"%s\", \"store\": ",
			             fingerprint(print, w[i].key));
			cli_json_string(stdout, w[i].store);
			(void)printf(", \"writer\": %u, \"paired\": \"%s\", \"revoked\": %s}",
			             w[i].writer,
			             clock_format_utc(when, sizeof when, w[i].paired_ns),
			             w[i].revoked ? "true" : "false");
		}
		(void)printf("]\n");
		return;
	}
	for (i = 0; i < n; i++) {
		if (is_shared(w, n, i))
			(void)snprintf(shared, sizeof shared, "  (shared; host number %u)",
			               w[i].writer);
		(void)printf("%-20s %s  paired %s%s\n    %s/%s%s\n", w[i].name,
		             fingerprint(print, w[i].key),
		             clock_format(when, sizeof when, w[i].paired_ns),
		             w[i].revoked ? "  REVOKED" : "", dir, w[i].store,
		             is_shared(w, n, i) ? shared : "");
	}
	if (n == 0)
		(void)printf("no host is paired (locum token)\n");
}

/* Those whose files can't be read; how many they are. */
static size_t
tell_unread(const struct writer_file *files, size_t n)
{
	char print[FINGERPRINT_MAX];
	size_t i, unread = 0;

	for (i = 0; i < n; i++) {
		if (files[i].err.code == LC_OK)
			continue;
		unread++;
		(void)fprintf(stderr, "locum: host %s is not let in: %s\n",
		              fingerprint(print, files[i].w.key), files[i].err.msg);
	}
	return unread;
}

static int
run_hosts(const struct cli_args *a)
{
	struct writer_file *files = NULL;
	struct writer_entry *w = NULL;
	struct lc_err e = LC_ERR_INIT;
	struct place p;
	size_t n = 0, nfiles = 0, unread = 0;
	int rc = open_place(a, false, &p, &e);

	rc = rc != 0 ? rc : writers_list(p.dir, &w, &n, &e);
	rc = rc != 0 ? rc : writers_files(p.dir, &files, &nfiles, &e);
	if (rc == 0) {
		print_hosts(a, p.dir, w, n);
		unread = tell_unread(files, nfiles);
	}
	lc_free(files);
	lc_free(w);
	close_place(&p);
	return rc != 0 ? cli_error(&e) : unread > 0 ? CLI_PARTLY : CLI_DONE;
}

static const struct cli_option dir_options[] = {DIR_OPTION, {.name = NULL}};

const struct cli_verb verb_replica_hosts = {
    .name = "replica hosts",
    .operands = "",
    .summary = "list the hosts that are paired with this replica",
    .details =
	"Shows each host's name, the fingerprint of its key, when it paired, and its store.\n"
	"A host whose file in the replica's folder can't be read is not let in: it is told by\n"
	"its fingerprint, and the exit status is 3.\n"
	"\n"
	"Example:\n"
	"  locum replica hosts",
    .options = dir_options,
    .min_operands = 0,
    .max_operands = 0,
    .run = run_hosts,
};

/* ---- replica revoke ---- */

static void
print_revoked(const struct writer_entry *w)
{
	char print[FINGERPRINT_MAX];

	(void)printf("{\"name\": ");
	cli_json_string(stdout, w->name);
	(void)printf(", \"fingerprint\": \"%s\", \"store\": ", fingerprint(print, w->key));
	cli_json_string(stdout, w->store);
	(void)puts(", \"revoked\": true}");
}

static int
run_revoke(const struct cli_args *a)
{
	struct writer_entry *w = NULL;
	struct lc_err e = LC_ERR_INIT;
	struct place p;
	size_t n = 0, at = 0;
	int rc = open_place(a, false, &p, &e);

	rc = rc != 0 ? rc : writers_list(p.dir, &w, &n, &e);
	rc = rc != 0 ? rc : writers_pick(w, n, cli_operand(a, 0), &at, &e);
	rc = rc != 0 ? rc : writers_revoke(p.dir, w[at].key, &e);
	if (rc == 0 && cli_has(a, "json"))
		print_revoked(&w[at]);
	else if (rc == 0 && !cli_has(a, "quiet"))
		(void)printf("%s may not connect any more; its store stays: %s/%s\n", w[at].name,
		             p.dir, w[at].store);
	lc_free(w);
	close_place(&p);
	return rc == 0 ? CLI_DONE : cli_error(&e);
}

const struct cli_verb verb_replica_revoke = {
    .name = "replica revoke",
    .operands = "HOST",
    .summary = "let a host connect no more",
    .details = "HOST is its name, or the beginning of its fingerprint.  A connection that it has\n"
	       "is ended; what it sent stays.  With a new token it can pair again.\n"
	       "\n"
	       "Example:\n"
	       "  locum replica revoke host-a",
    .options = dir_options,
    .min_operands = 1,
    .max_operands = 1,
    .run = run_revoke,
};
