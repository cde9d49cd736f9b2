/*
 * locum pair: let this host send its store's points to a replica.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "replicator/uplink.h"
#include "replicator/verbs.h"
#include "store/base/bytes.h"
#include "store/base/cli.h"
#include "store/base/config.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/base/workers.h"
#include "store/verbs/opening.h"

struct pairing {
	uv_loop_t loop;
	struct uplink *uplink;
	bool up;
	struct lc_err err;
};

static void
on_up(void *arg)
{
	struct pairing *p = arg;

	p->up = true;
	uplink_stop(p->uplink, NULL, NULL);
}

static void
on_down(void *arg, const struct lc_err *why, bool again)
{
	struct pairing *p = arg;

	(void)again;
	p->err = *why;
	uplink_stop(p->uplink, NULL, NULL);
}

/* Say who we are, with the token's secret, and hang up. */
static int
say_hello(struct store *s, const struct peer *peer, const struct identity *id, const char *host,
          const uint8_t *secret, struct lc_err *e)
{
	static const uint8_t nobody[1][16];
	struct pairing p = {.err = LC_ERR_INIT};
	struct workers *workers;
	struct uplink_opts o = {.loop = &p.loop,
	                        .store = s,
	                        .peer = peer,
	                        .identity = id,
	                        .host = host,
	                        .secret = secret,
	                        .once = true,
	                        .only = nobody, /* sending is for the agent */
	                        .nonly = 1,
	                        .events = {.arg = &p, .up = on_up, .down = on_down}};
	int rc = workers_new(1, &workers, e);

	if (rc != 0)
		return rc;
	o.workers = workers;
	(void)uv_loop_init(&p.loop);
	rc = uplink_start(&o, &p.uplink, e);
	(void)uv_run(&p.loop, UV_RUN_DEFAULT);
	(void)uv_loop_close(&p.loop);
	workers_free(workers);
	if (rc == 0 && !p.up) {
		rc = p.err.code;
		*e = p.err;
	}
	return rc;
}

/* ours: NULL where it is not at hand. */
static void
print_json(const char *name, const struct peer *peer, const struct identity *ours)
{
	char print[FINGERPRINT_MAX];

	(void)printf("{\"replica\": ");
	cli_json_string(stdout, name);
	(void)printf(", \"fingerprint\": \"%s\", \"host_fingerprint\": ",
	             fingerprint(print, peer->key));
	if (ours == NULL)
		(void)puts("null}");
	else
		(void)printf("\"%s\"}\n", fingerprint(print, ours->public));
}

/* writer: whose points of a store that several hosts share; 0: of the first one, or the only one.
 */
static int
pair(const struct cli_args *a, const struct opening *o, const struct token *t, unsigned writer,
     struct lc_err *e)
{
	const char *name = cli_get(a, "name"), *as = cli_get(a, "as");
	char print[FINGERPRINT_MAX], ours[FINGERPRINT_MAX], host[256] = "host", numbered[270];
	struct peer peer = {.at = t->at};
	struct identity id = {0};
	int rc;

	(void)snprintf(peer.name, sizeof peer.name, "%s", name);
	memcpy(peer.key, t->key, sizeof peer.key);
	if (as == NULL && gethostname(host, sizeof host - 1) == 0)
		as = host;
	if (as == host && writer > 0) {
		(void)snprintf(numbered, sizeof numbered, "%s-%u", host, writer);
		as = numbered;
	}
	rc = identity_of_store(o->settings.key_dir, transfer_domain(o->store), writer, true, &id,
	                       e);
	rc = rc != 0 ? rc : say_hello(o->store, &peer, &id, as == NULL ? host : as, t->secret, e);
	rc = rc != 0 ? rc : peer_save(o->settings.key_dir, &peer, e);
	if (rc == 0 && cli_has(a, "json")) {
		print_json(name, &peer, &id);
	} else if (rc == 0 && !cli_has(a, "quiet")) {
		(void)printf("paired with replica %s\n"
		             "its fingerprint       %s\n"
		             "this host's           %s\n"
		             "Compare them with what `locum replica` and `locum replica hosts` say "
		             "there.\n",
		             name, fingerprint(print, peer.key), fingerprint(ours, id.public));
	}
	identity_forget(&id);
	return rc;
}

/* As one more host of a domain. */
static int
join(const struct cli_args *a, const struct token *t, struct lc_err *e)
{
	const char *name = cli_get(a, "name"), *as = cli_get(a, "as");
	struct peer peer = {.at = t->at};
	char print[FINGERPRINT_MAX], host[256] = "host";
	struct cli_word w;
	bool made;
	int rc;

	(void)snprintf(peer.name, sizeof peer.name, "%s", name);
	memcpy(peer.key, t->key, sizeof peer.key);
	if (as == NULL && gethostname(host, sizeof host - 1) == 0)
		as = host;
	rc = recall_join(a, &peer, t->secret, as == NULL ? host : as, &made, e);
	if (rc != 0 && made)
		lc_wrap(e, "paired, but there is no store yet (finish with: locum recall %s)",
		        cli_word(&w, name));
	if (rc == 0 && cli_has(a, "json")) {
		print_json(name, &peer, NULL);
	} else if (rc == 0 && !cli_has(a, "quiet")) {
		(void)printf(
		    "joined at replica %s, with a store in the key domain of the host that "
		    "the token is for\n"
		    "its fingerprint       %s\n"
		    "Compare it with what `locum replica` says there.\n",
		    name, fingerprint(print, peer.key));
	}
	return rc;
}

static int
run_pair(const struct cli_args *a)
{
	const char *name = cli_get(a, "name"), *number = cli_get(a, "writer");
	struct lc_err e = LC_ERR_INIT;
	uint64_t writer = 0;
	struct opening o;
	struct token t;
	int rc;

	if (name != NULL && !peer_name_ok(name))
		return cli_usage(a, "--name: '%s': letters, digits, '-', '_' and '.'", name);
	if (name == NULL)
		return cli_usage(a, "give the replica a name with --name, such as dr");
	if (cli_has(a, "join") && cli_get(a, "recovery-code-file") == NULL)
		return cli_usage(a, "--join: give --recovery-code-file, the kit of the host that "
		                    "this one joins");
	if (number != NULL && (!config_uint(number, &writer) || writer > UINT16_MAX))
		return cli_usage(a, "--writer: '%s' is no number of a host", number);
	rc = token_parse(cli_operand(a, 0), &t, &e);
	if (rc == 0 && cli_has(a, "join"))
		rc = join(a, &t, &e);
	if (rc != 0 || cli_has(a, "join")) {
		explicit_bzero(&t, sizeof t);
		return rc == 0 ? CLI_DONE : cli_error(&e);
	}
	rc = opening_settings(a, &o, &e);
	rc = rc != 0 ? rc : opening_store(a, &o, STORE_READ, "locum pair", true, &e);
	rc = rc != 0 ? rc : pair(a, &o, &t, (unsigned)writer, &e);
	explicit_bzero(&t, sizeof t);
	opening_done(&o);
	return rc == 0 ? CLI_DONE : cli_error(&e);
}

static const struct cli_option pair_options[] = {
    OPENING_OPTIONS,
    {.name = "name", .arg = "NAME", .help = "what to call the replica on this host"},
    {.name = "join",
     .help = "make a store here in the key domain of the host that the token is for"},
    {.name = "writer",
     .arg = "N",
     .help = "at a replica: of a store that hosts share, for the one with this number"},
    {.name = "as", .arg = "NAME", .help = "what this host calls itself (default: its name)"},
    {.name = NULL}};

const struct cli_verb verb_pair = {
    .name = "pair",
    .operands = "TOKEN",
    .summary = "pair this host with a replica, by a token that it made",
    .details =
	"Uses a token of `locum token` once: the replica learns this host's key and keeps a\n"
	"store for it, in the key domain of the store here; this host learns the replica's.\n"
	"From then on `locum backup --to NAME` and `locum agent` send restore points there.\n"
	"At a replica, with --store and no key, a host's store there is paired with a third\n"
	"site; `locum copy --to NAME` passes its points on.  Of a store that several hosts\n"
	"share, each is paired by itself (--writer; locum replica hosts tells their numbers), so\n"
	"that the third site keeps them apart, too.\n"
	"\n"
	"With --join, and a token of `locum token --join HOST`, this host joins the store that\n"
	"HOST has there: equal contents of both are kept once.  It needs HOST's recovery code, "
	"and\n"
	"has no store yet: one is made, in HOST's key domain.  Each of them has its own VMs "
	"there.\n"
	"\n"
	"Examples:\n"
	"  locum pair --name dr locum1/dr.example.net:7227/...\n"
	"  locum pair --join --recovery-code-file kit.txt --name dr locum1/...",
    .options = pair_options,
    .min_operands = 1,
    .max_operands = 1,
    .run = run_pair,
};
