/*
 * locum copy: points from one store's folder into another's, by the same two halves that work over
 * a wire.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "replicator/packet.h"
#include "replicator/identity.h"
#include "replicator/receiver.h"
#include "replicator/sender.h"
#include "replicator/verbs.h"
#include "replicator/verbs/forward.h"
#include "replicator/verbs/parts.h"
#include "store/base/bytes.h"
#include "store/base/cli.h"
#include "store/base/clock.h"
#include "store/base/config.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/base/progress.h"
#include "store/verbs/opening.h"

#define BYTE_WINDOW (8u << 20)

struct copy {
	struct opening o;
	struct store *to;
	struct packet_list up, down;
	struct parts parts;
	struct sender *sender;
	struct receiver *receiver;
	unsigned failed;
	struct sender_stats all;     /* of the parts that are through */
	uint64_t mended;             /* contents that were damaged there, likewise ... */
	uint64_t damaged;            /* ... and what still is: those, and maps */
	struct sender_damage damage; /* of the part in hand */
	struct lc_err refused;       /* there, last ... */
	uint8_t refused_vm[16];      /* ... of that one */
	struct lc_err broken;        /* the store there can't go on, for that */
};

static int
put(struct packet_list *q, uint16_t type, const struct lc_span *spans, size_t n, struct lc_err *e)
{
	struct packet *p = packet_new(type, spans, n);

	if (p == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	STAILQ_INSERT_TAIL(q, p, entry);
	return 0;
}

static int
emit_up(void *arg, uint16_t type, const struct lc_span *spans, size_t n, struct lc_err *e)
{
	return put(&((struct copy *)arg)->up, type, spans, n, e);
}

static int
emit_down(void *arg, uint16_t type, const struct lc_span *spans, size_t n, struct lc_err *e)
{
	return put(&((struct copy *)arg)->down, type, spans, n, e);
}

static void
on_failed(void *arg, const uint8_t vm[16], const struct lc_err *why)
{
	struct copy *c = arg;
	char name[POINT_NAME_MAX];

	c->failed++;
	if (c->broken.code != LC_OK) /* which is all that there is to say */
		return;
	/* What a folder did not take is not told as a replica's word. */
	if (c->refused.code != LC_OK && memcmp(c->refused_vm, vm, sizeof c->refused_vm) == 0)
		why = &c->refused;
	parts_vm(c->o.store, vm, name);
	log_error("VM %s: %s", name, why->msg);
}

static void
on_refused(void *arg, const uint8_t vm[16], const struct lc_err *why)
{
	struct copy *c = arg;

	c->refused = *why;
	memcpy(c->refused_vm, vm, sizeof c->refused_vm);
	if (c->broken.code == LC_OK && store_failed(c->to))
		c->broken = *why;
}

static void
on_damaged(void *arg, const struct sender_damage *d)
{
	((struct copy *)arg)->damage = *d;
}

/* What has become of it; a part is through. */
static void
take_damage(struct copy *c, const struct sender_damage *d)
{
	c->mended += d->sent;
	c->damaged += d->contents + d->lines;
	if (d->contents + d->lines > 0)
		log_error("%" PRIu64 " contents and the maps of %zu lines are damaged there%s%s",
		          d->contents, d->lines, d->text[0] == '\0' ? "" : "; ", d->text);
}

/* Carry all that waits in a queue; *moved: something did. */
static int
carry(struct copy *c, struct packet_list *q, bool *moved, struct lc_err *e)
{
	struct packet *p;
	int rc = 0;

	while (rc == 0 && (p = packet_take(q)) != NULL) {
		struct lc_span body = {p->body.p, p->body.n};

		*moved = true;
		rc = q == &c->up ? receiver_message(c->receiver, p->type, body, e)
		                 : sender_message(c->sender, p->type, body, e);
		packet_free(p);
	}
	return rc;
}

static void
add_stats(struct sender_stats *a, const struct sender_stats *b)
{
	a->points += b->points;
	a->chunks += b->chunks;
	a->chunk_bytes += b->chunk_bytes;
	a->failed += b->failed;
}

static int
move_all(struct copy *c, struct progress *bar, struct lc_err *e)
{
	struct sender_stats st;
	bool moved = true;
	int rc = sender_start(c->sender, e);

	while (rc == 0 && moved && c->broken.code == LC_OK) {
		moved = false;
		rc = carry(c, &c->up, &moved, e);
		rc = rc != 0 ? rc : receiver_settle(c->receiver, e);
		rc = rc != 0 ? rc : carry(c, &c->down, &moved, e);
		rc = rc != 0 ? rc : sender_pump(c->sender, e);
		sender_stats(c->sender, &st);
		st.chunk_bytes += c->all.chunk_bytes;
		progress_update(bar, &(struct progress_state){.done = st.chunk_bytes,
		                                              .moved = st.chunk_bytes,
		                                              .note = "copying"});
		moved = moved || !STAILQ_EMPTY(&c->up);
	}
	return rc;
}

/* That it takes nothing more follows from the first thing that it did not take. */
static int
say_broken(const struct copy *c, struct lc_err *e)
{
	lc_err_clear(e);
	return lc_fail(e, c->broken.code, 0, "%s%s", c->broken.msg,
	               c->broken.code == LC_ENOSPC
	                   ? ": make room, and give the command again: it goes on from there"
	                   : "");
}

/* Data keys that came since.  That the other one has more is fine: it was copied to from elsewhere.
 */
static int
give_keys(struct copy *c, struct lc_err *e)
{
	enum keys_change change;
	struct lc_buf keys = {0};
	int rc = transfer_keys(c->o.store, &keys, e);

	rc = rc != 0 ? rc : transfer_take_keys(c->to, (struct lc_span){keys.p, keys.n}, &change, e);
	lc_buf_free(&keys);
	return rc;
}

/* A store that a replica keeps for its hosts, whose numbers there are its own. */
static bool
is_of_replica(const char *dir)
{
	char *key = lc_asprintf("%s/../../replica.key", dir);
	bool is = key != NULL && access(key, F_OK) == 0;

	lc_free(key);
	return is;
}

/* It is not waited for: whoever has it may have it for months. */
static int
say_busy(const char *dir, struct lc_err *e)
{
	struct lc_err busy = *e;

	lc_err_clear(e);
	if (is_of_replica(dir)) {
		return lc_fail(e, LC_EBUSY, 0,
		               "%s: a replica takes points from hosts that it knows: locum pair "
		               "--name NAME --store FROM TOKEN, then locum copy --to NAME --store "
		               "FROM; or stop it for that while",
		               busy.msg);
	}
	return lc_fail(e, LC_EBUSY, 0,
	               "%s: give the command again when that has ended; an agent is stopped by "
	               "systemctl stop locum-agent",
	               busy.msg);
}

/* The other store: made where there is none, in the key domain of this one. */
static int
open_other(struct copy *c, const char *dir, struct lc_err *e)
{
	struct store_opts so = {
	    .dir = dir, .mode = STORE_WRITE, .who = "locum copy", .no_key = true};
	struct lc_buf keys = {0};
	int rc;

	if (dir_same(dir, store_dir(c->o.store)))
		return lc_fail(e, LC_EINVAL, 0,
		               "%s is the store whose points are to be copied: name another folder",
		               dir);
	rc = store_open(&so, &c->to, e);
	if (rc == LC_ENOENT) {
		lc_err_clear(e);
		rc = transfer_keys(c->o.store, &keys, e);
		rc = rc != 0 ? rc : transfer_make(dir, (struct lc_span){keys.p, keys.n}, e);
		rc = rc != 0 ? rc : store_open(&so, &c->to, e);
		lc_buf_free(&keys);
	}
	if (rc == LC_EBUSY)
		return say_busy(dir, e);
	if (rc == 0 && memcmp(transfer_domain(c->to), transfer_domain(c->o.store), 16) != 0) {
		rc = lc_fail(e, LC_EKEY, 0,
		             "store %s has other keys than %s: only stores of one key domain "
		             "exchange points",
		             dir, store_dir(c->o.store));
	}
	return rc != 0 ? rc : give_keys(c, e);
}

static int
find_vm(struct copy *c, const char *vm, uint8_t id[16], struct lc_err *e)
{
	struct point p = {.ndisks = 0};
	int rc = 0;

	if (strchr(vm, '@') != NULL)
		rc = lc_fail(e, LC_EINVAL, 0, "%s: name the VM; all its points are copied", vm);
	rc = rc != 0 ? rc : store_find(c->o.store, vm, &p, e);
	if (rc == 0)
		memcpy(id, p.vm_id, 16);
	point_done(&p);
	return rc;
}

/* The VMs that are meant, by whose they are. */
static int
find_parts(struct copy *c, const struct cli_args *a, size_t first, struct lc_err *e)
{
	size_t i, n = cli_operands(a) - first;
	uint8_t(*only)[16] = lc_alloc_array(n + 1, sizeof *only);
	int rc = 0;

	if (only == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	for (i = 0; rc == 0 && i < n; i++)
		rc = find_vm(c, cli_operand(a, first + i), only[i], e);
	rc = rc != 0 ? rc : parts_of(c->o.store, (const uint8_t(*)[16])only, n, &c->parts, e);
	lc_free(only);
	return rc;
}

static void
report(const struct cli_args *a, const struct copy *c, int64_t took_ns)
{
	const struct sender_stats *st = &c->all;
	char size[32], took[32];

	if (cli_has(a, "json")) {
		(void)printf("{\"points\": %" PRIu64 ", \"chunks\": %" PRIu64
		             ", \"bytes\": %" PRIu64 ", \"failed\": %" PRIu64
		             ", \"mended\": %" PRIu64 ", \"damaged\": %" PRIu64
		             ", \"seconds\": %.3f}\n",
		             st->points, st->chunks, st->chunk_bytes, st->failed, c->mended,
		             c->damaged, (double)took_ns / 1e9);
	} else if (!cli_has(a, "quiet") && isatty(STDOUT_FILENO) != 0) {
		(void)printf("%" PRIu64 " points, %s in %s\n", st->points,
		             size_format(size, sizeof size, st->chunk_bytes),
		             clock_format_duration(took, sizeof took, took_ns));
		if (c->mended > 0)
			(void)printf("%" PRIu64 " contents that were damaged there were copied "
			             "again\n",
			             c->mended);
	}
}

/* Another host's than the first one's, and the replica does not know that one from here. */
static void
not_paired(struct copy *c, const char *replica, unsigned writer, const uint8_t (*vms)[16], size_t n,
           const struct lc_err *why)
{
	struct cli_word name, store;
	size_t i;

	for (i = 0; i < n; i++) {
		struct lc_err one = LC_ERR_INIT;

		(void)lc_fail(
		    &one, LC_ENOENT, 0,
		    "it is of host number %u of this store, for which nothing is paired "
		    "with %s: there, locum token (--join the first one); here, locum pair "
		    "--writer %u --name %s --store %s TOKEN",
		    writer, replica, writer, cli_word(&name, replica),
		    cli_word(&store, store_dir(c->o.store)));
		on_failed(c, vms[i], why->code == LC_ENOENT ? &one : why);
	}
	c->all.failed += n;
}

/* To a replica, which may be a third site, over the wire.  Each writer of the store is a host of
 * its own there, so that none has to believe what another one sent. */
static int
copy_to(const struct cli_args *a, struct copy *c, const char *replica, struct lc_err *e)
{
	bool show = !cli_has(a, "quiet");
	int64_t began = clock_mono_ns();
	uint8_t(*vms)[16] = NULL;
	unsigned writer = 0;
	struct identity id = {0};
	size_t n = 0;
	int rc = find_parts(c, a, 0, e);

	for (; rc == 0 && parts_next(&c->parts, &writer, &vms, &n); writer++) {
		const uint8_t(*ids)[16] = (const uint8_t(*)[16])vms;
		struct lc_err why = LC_ERR_INIT;
		struct sender_stats st = {0};

		rc = vms == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory") : 0;
		c->damage = (struct sender_damage){0};
		if (rc == 0 && vms != NULL && writer > 0 &&
		    identity_of_store(c->o.settings.key_dir, transfer_domain(c->o.store), writer,
		                      false, &id, &why) != 0) {
			not_paired(c, replica, writer, ids, n, &why);
			lc_free(vms);
			continue;
		}
		identity_forget(&id);
		rc = rc != 0 ? rc
		             : forward(&c->o.settings, c->o.store, writer, replica, ids, n, show,
		                       &st, &c->damage, e);
		c->failed += (unsigned)st.failed;
		add_stats(&c->all, &st);
		take_damage(c, &c->damage);
		lc_free(vms);
	}
	if (rc == 0)
		report(a, c, clock_mono_ns() - began);
	return rc;
}

/* VMs that were given to another host since they were copied.  A replica's own hosts have other
 * numbers than those of this store may be. */
static int
same_owners(struct copy *c, const char *dir, unsigned writer, const uint8_t (*vms)[16], size_t n,
            struct lc_err *e)
{
	struct parts there;
	uint8_t(*theirs)[16] = NULL;
	unsigned other = 0;
	size_t i, m = 0;
	int rc = parts_of(c->to, vms, n, &there, e);

	for (; rc == 0 && parts_next(&there, &other, &theirs, &m); other++) {
		rc = theirs == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory") : 0;
		for (i = 0; rc == 0 && other != writer && i < m && !is_of_replica(dir); i++)
			rc = transfer_give(c->to, theirs[i], (uint16_t)writer, e);
		lc_free(theirs);
	}
	parts_done(&there);
	return rc;
}

/* What one writer of this store has sent goes as that one's. */
static int
copy_part(struct copy *c, const char *dir, unsigned writer, const uint8_t (*vms)[16], size_t n,
          struct progress *bar, struct lc_err *e)
{
	struct sender_events se = {
	    .arg = c, .emit = emit_up, .failed = on_failed, .damaged = on_damaged};
	struct sender_care care = {0};
	const struct sender_mending mending = {
	    .care = &care, .writer = (uint16_t)writer, .first = true};
	struct receiver_events re = {
	    .arg = c, .emit = emit_down, .refused = on_refused, .writer = (uint16_t)writer};
	struct sender_stats st;
	size_t i;
	int rc = same_owners(c, dir, writer, vms, n, e);

	rc = rc != 0 ? rc : receiver_new(c->to, &re, &c->receiver, e);
	rc = rc != 0 ? rc : sender_new(c->o.store, BYTE_WINDOW, &se, &c->sender, e);
	for (i = 0; rc == 0 && i < n; i++)
		rc = sender_only(c->sender, vms[i], e);
	c->damage = (struct sender_damage){0};
	if (rc == 0)
		sender_mend(c->sender, &mending);
	rc = rc != 0 ? rc : move_all(c, bar, e);
	if (c->broken.code != LC_OK)
		rc = say_broken(c, e);
	if (rc == 0) {
		sender_stats(c->sender, &st);
		add_stats(&c->all, &st);
		take_damage(c, &c->damage);
	}
	sender_free(c->sender);
	sender_care_done(&care);
	receiver_free(c->receiver);
	c->sender = NULL;
	c->receiver = NULL;
	packet_free_all(&c->up);
	packet_free_all(&c->down);
	return rc;
}

static int
copy(const struct cli_args *a, struct copy *c, struct lc_err *e)
{
	const char *dir = cli_operand(a, 0);
	int64_t began = clock_mono_ns();
	uint8_t(*vms)[16] = NULL;
	struct progress *bar;
	unsigned writer = 0;
	size_t n = 0;
	/* In this order: a slip makes no store. */
	int rc = find_parts(c, a, 1, e);

	rc = rc != 0 ? rc : open_other(c, dir, e);
	bar = progress_new("copy", rc == 0 && !cli_has(a, "quiet"));
	for (; rc == 0 && parts_next(&c->parts, &writer, &vms, &n); writer++) {
		rc = vms == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
		                 : copy_part(c, dir, writer, (const uint8_t(*)[16])vms, n, bar, e);
		lc_free(vms);
	}
	progress_free(bar);
	c->all.failed = c->failed;
	if (rc == 0)
		report(a, c, clock_mono_ns() - began);
	return rc;
}

static int
run_copy(const struct cli_args *a)
{
	struct lc_err e = LC_ERR_INIT;
	struct copy c = {.failed = 0};
	const char *to = cli_get(a, "to");
	int rc;

	if (to == NULL && cli_operands(a) == 0)
		return cli_usage(a, "copy to where? name a folder, or give --to REPLICA");
	STAILQ_INIT(&c.up);
	STAILQ_INIT(&c.down);
	rc = opening_settings(a, &c.o, &e);
	rc = rc != 0 ? rc : opening_store(a, &c.o, STORE_READ, "locum copy", true, &e);
	if (rc == 0)
		rc = to != NULL ? copy_to(a, &c, to, &e) : copy(a, &c, &e);
	parts_done(&c.parts);
	store_close(c.to);
	opening_done(&c.o);
	if (rc != 0)
		return cli_error(&e);
	return c.failed > 0 || c.damaged > 0 ? CLI_PARTLY : CLI_DONE;
}

static const struct cli_option copy_options[] = {
    OPENING_OPTIONS,
    {.name = "to",
     .arg = "REPLICA",
     .help = "to this replica over the wire, as `locum pair` named it; all operands are VMs then"},
    {.name = NULL}};

const struct cli_verb verb_copy = {
    .name = "copy",
    .operands = "DIR|--to REPLICA [VM...]",
    .summary = "copy restore points into another store",
    .details =
	"Copies what the store in DIR lacks, of all VMs or of those that are named, as it\n"
	"lies here: sealed.  DIR becomes a store of the same key domain where there is\n"
	"none; the recovery kit opens both.  Run again, it copies what is new.  To copy\n"
	"all VMs no key is needed, unless points were dropped here that are the newest\n"
	"there.  What was found damaged there (locum scrub, there) is copied again, as far as\n"
	"it is whole here.\n"
	"\n"
	"With --to it goes to a replica that this store was paired with (locum pair), which\n"
	"may be a third site: a replica passes on what it cannot read.  Of a store that several\n"
	"hosts share, what each has sent goes as that one's.\n"
	"\n"
	"Examples:\n"
	"  locum copy /mnt/usb/locum\n"
	"  locum copy --to third --store /srv/locum/stores/3f2a91c0-77aa01b2\n"
	"  locum copy --store /srv/locum/stores/3f2a91c0-77aa01b2 /mnt/vault",
    .options = copy_options,
    .min_operands = 0,
    .max_operands = -1,
    .run = run_copy,
};
