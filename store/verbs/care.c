#include <inttypes.h>
#include <stdio.h>

#include "store/base/config.h"
#include "store/base/log.h"
#include "store/base/memory.h"
#include "store/segment.h"
#include "store/thin.h"
#include "store/verbs.h"
#include "store/verbs/opening.h"

static const struct cli_option key_options[] = {OPENING_OPTIONS, {.name = NULL}};

/* ---- stats ---- */

static void
stats_json(const char *dir, struct store *s, const struct store_stats *st)
{
	(void)printf("{\n  \"store\": ");
	cli_json_string(stdout, dir);
	(void)printf(",\n  \"id\": \"%s\",\n  \"vms\": %" PRIu64 ",\n  \"points\": %" PRIu64
	             ",\n  \"logical\": %" PRIu64 ",\n  \"bytes\": %" PRIu64
	             ",\n  \"segments\": %" PRIu64 ",\n  \"chunks\": %" PRIu64
	             ",\n  \"dropped\": %" PRIu64 ",\n  \"map_rows\": %" PRIu64
	             ",\n  \"damaged\": %" PRIu64 "\n}\n",
	             store_tag(s), st->vms, st->points, st->logical, st->bytes, st->segments,
	             st->chunks, st->dropped, st->map_rows, st->damaged);
}

static void
stats_text(const char *dir, struct store *s, const struct store_stats *st)
{
	char logical[32], bytes[32], peers[THIN_PEERS_MAX + 1];

	(void)printf("store           %s (%s)\n"
	             "VMs             %" PRIu64 "\n"
	             "restore points  %" PRIu64 "\n"
	             "disks           %s in the newest points\n"
	             "on disk         %s in %" PRIu64 " segment%s\n"
	             "chunks          %" PRIu64 "\n"
	             "map rows        %" PRIu64 "\n",
	             dir, store_tag(s), st->vms, st->points,
	             size_format(logical, sizeof logical, st->logical),
	             size_format(bytes, sizeof bytes, st->bytes), st->segments,
	             st->segments == 1 ? "" : "s", st->chunks, st->map_rows);
	if (st->dropped > 0) {
		thin_peers(s, peers);
		(void)printf("dropped         %" PRIu64 " of the chunks: they are at replica %s\n",
		             st->dropped, peers);
	}
	if (st->damaged > 0)
		(void)printf("damaged         %" PRIu64 " places (see: locum scrub)\n",
		             st->damaged);
}

static int
run_stats(const struct cli_args *a)
{
	struct lc_err e = LC_ERR_INIT;
	struct store_stats st = {0};
	struct opening o;
	int rc = opening_settings(a, &o, &e);

	rc = rc != 0 ? rc : opening_store(a, &o, STORE_READ, "locum store stats", true, &e);
	rc = rc != 0 ? rc : store_stats(o.store, &st, &e);
	if (rc == 0 && cli_has(a, "json"))
		stats_json(o.settings.store, o.store, &st);
	else if (rc == 0)
		stats_text(o.settings.store, o.store, &st);
	opening_done(&o);
	return rc == 0 ? CLI_DONE : cli_error(&e);
}

const struct cli_verb verb_store_stats = {
    .name = "store stats",
    .operands = "",
    .summary = "say what a store holds",
    .details = "Needs no key.\n"
	       "\n"
	       "Examples:\n"
	       "  locum store stats\n"
	       "  locum store stats --store /mnt/rescued --json",
    .options = key_options,
    .min_operands = 0,
    .max_operands = 0,
    .run = run_stats,
};

/* ---- rebuild ---- */

static int
run_rebuild(const struct cli_args *a)
{
	struct lc_err e = LC_ERR_INIT;
	struct store_stats st = {0};
	struct opening o;
	int rc = opening_settings(a, &o, &e);

	rc = rc != 0 ? rc : opening_rebuild(a, &o, &e);
	rc = rc != 0 ? rc : opening_store(a, &o, STORE_READ, "locum store rebuild", true, &e);
	rc = rc != 0 ? rc : store_stats(o.store, &st, &e);
	if (rc == 0 && cli_has(a, "json"))
		stats_json(o.settings.store, o.store, &st);
	else if (rc == 0 && !cli_has(a, "quiet"))
		(void)printf("catalog made again: %" PRIu64 " restore points of %" PRIu64
		             " VMs, segments read: %" PRIu64 "\n",
		             st.points, st.vms, st.segments);
	if (rc == 0 && st.damaged > 0 && !cli_has(a, "json"))
		(void)printf("%" PRIu64 " damaged place%s passed over (see: locum scrub)\n",
		             st.damaged, st.damaged == 1 ? " was" : "s were");
	opening_done(&o);
	return rc == 0 ? CLI_DONE : cli_error(&e);
}

const struct cli_verb verb_store_rebuild = {
    .name = "store rebuild",
    .operands = "",
    .summary = "make the catalog again from the segments",
    .details =
	"The catalog is only an index: everything in it comes from the segments, and this reads\n"
	"them again.  Locum does it by itself where the catalog is missing or does not match.\n"
	"Needs no key.  An agent or replica that has the store lends it for that while.\n"
	"\n"
	"Example:\n"
	"  locum store rebuild --store /mnt/rescued",
    .options = key_options,
    .min_operands = 0,
    .max_operands = 0,
    .run = run_rebuild,
};

/* ---- scrub ---- */

struct scrubbing {
	bool json, quiet;
	uint64_t n, mended;
	struct lc_buf list; /* struct damage[] */
};

static void
on_damage(void *arg, const struct damage *d)
{
	struct scrubbing *x = arg;

	x->n++;
	x->mended += d->mended;
	if (!d->mended) /* what does not fit is found next time */
		(void)lc_buf_append(&x->list, d, sizeof *d);
	if (!x->json && d->mended && (x->quiet || d->type == RECORD_CHUNK || d->type == 0))
		return; /* it needs nobody's eye */
	if (!x->json) {
		(void)printf("%s: %s, offset %" PRIu64 ", %" PRIu64 " bytes (%s): %s\n",
		             d->mended ? "was damaged" : "damaged", d->file, d->offset, d->length,
		             d->what, d->affects);
		return;
	}
	(void)printf("%s\n    {\"file\": ", x->n == 1 ? "" : ",");
	cli_json_string(stdout, d->file);
	(void)printf(", \"offset\": %" PRIu64 ", \"length\": %" PRIu64 ", \"what\": ", d->offset,
	             d->length);
	cli_json_string(stdout, d->what);
	(void)printf(", \"affects\": ");
	cli_json_string(stdout, d->affects);
	(void)printf(", \"mended\": %s}", d->mended ? "true" : "false");
}

/* What is damaged is stored again by the next backup that meets it; else every new point with the
 * same content would hang by the same bad bytes. */
static void
condemn(const struct cli_args *a, struct opening *o, const struct scrubbing *x)
{
	struct lc_err e = LC_ERR_INIT;
	uint64_t n = 0;
	int rc;

	store_close(o->store);
	o->store = NULL;
	rc = opening_own(a, o, "locum scrub", true, &e);
	rc = rc != 0 ? rc
	             : opening_condemn(o, (const struct damage *)(const void *)x->list.p,
	                               x->list.n / sizeof(struct damage), &n, &e);
	if (rc != 0)
		log_warn("the damage could not be noted, so new backups will not mend it: %s",
		         e.msg);
	else if (n > 0 && !x->json && !cli_has(a, "quiet"))
		(void)printf("%" PRIu64 " damaged chunks: at a replica their hosts send the "
		             "content again, elsewhere the next backups store it again, where "
		             "it is there still\n",
		             n);
}

static int
run_scrub(const struct cli_args *a)
{
	struct scrubbing x = {.json = cli_has(a, "json"), .quiet = cli_has(a, "quiet")};
	struct lc_err e = LC_ERR_INIT;
	uint64_t records = 0, bytes = 0;
	char size[32];
	struct opening o;
	int rc = opening_settings(a, &o, &e);

	rc = rc != 0 ? rc : opening_store(a, &o, STORE_READ, "locum scrub", true, &e);
	if (rc == 0) {
		if (x.json)
			(void)printf("{\n  \"damage\": [");
		rc = store_scrub(o.store, on_damage, &x, &records, &bytes, &e);
		if (x.json)
			(void)printf("%s],\n  \"records\": %" PRIu64 ",\n  \"bytes\": %" PRIu64
			             "\n}\n",
			             x.n == 0 ? "" : "\n  ", records, bytes);
	}
	if (rc == LC_ECORRUPT && x.n > 0)
		condemn(a, &o, &x);
	lc_buf_free(&x.list);
	if (rc == 0 && !x.json && !cli_has(a, "quiet"))
		(void)printf("%s: %" PRIu64 " records, %s, all sound\n", o.settings.store, records,
		             size_format(size, sizeof size, bytes));
	if (x.mended > 0 && !x.json && !cli_has(a, "quiet"))
		(void)printf("%" PRIu64 " places were damaged: what was there was stored again, or "
		             "the catalog knows it\n",
		             x.mended);
	opening_done(&o);
	return rc == 0 ? CLI_DONE : cli_error(&e);
}

const struct cli_verb verb_scrub = {
    .name = "scrub",
    .operands = "",
    .summary = "check every record of a store",
    .details =
	"Reads the whole store and checks the checksum of everything in it.  What is damaged is\n"
	"named with the file, the offset, and the VMs, disks and restore points that need it.\n"
	"What was stored again elsewhere since, so that nothing needs it, is counted and is no\n"
	"failure; nor is a map that only the catalog knows, where what came after it stands by\n"
	"itself: it is told, as that catalog must not be deleted.  Needs no key; with one, the\n"
	"names of VMs and disks are shown.  Exit status 1 where anything is damaged.  To prove\n"
	"that a restore point can be decrypted and restored, use locum verify.\n"
	"\n"
	"Example:\n"
	"  locum scrub --store /var/backups/locum",
    .options = key_options,
    .min_operands = 0,
    .max_operands = 0,
    .run = run_scrub,
};
