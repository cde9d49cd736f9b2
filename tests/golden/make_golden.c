/*
 * Makes a golden store: make_golden FOLDER [forks | deltas | thin | writers].  Run once per format
 * version, by hand; what it made is committed and never made again.  FOLDER/expected.txt says what
 * every point holds: VM, point, disk, size, SHA-256.  Of a thin store FOLDER/replica/segments is
 * what its replica has.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/delta.h"
#include "store/keyring.h"
#include "store/kit.h"
#include "store/seal.h"
#include "store/store_internal.h"
#include "store/thin.h"
#include "store/transfer.h"
#include "tests/lib/moving.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

#define POINTS 16u

struct made {
	uint8_t id[16];
	char vm[16];
	size_t n;
	struct vault_disk d[3];
};

static struct made made[POINTS];
static uint8_t made_vm[POINTS][16];
static size_t nmade;

static void
or_end(int rc, const struct lc_err *e)
{
	if (rc != 0) {
		(void)fprintf(stderr, "%s\n", e->msg);
		exit(1);
	}
}

/* Times are fixed, so that they look the same whenever it is made. */
static void
point_at(struct vault *v, const char *vm, const uint8_t *fork, const struct vault_disk *d, size_t n,
         bool seed)
{
	uint64_t covered[3] = {1, 1, 1};
	struct commit_opts o = {.source_ns = INT64_C(1700000000) * 1000000000 + (int64_t)nmade,
	                        .consistency = POINT_FROZEN,
	                        .pause_ns = 12345,
	                        .seed = seed,
	                        .covered = covered,
	                        .definition = "[vm]\nmemory = 512 MiB\n",
	                        .left_out = "cdrom: not captured\n"};
	struct lc_err e = LC_ERR_INIT;
	struct writer *w = vault_fork(v->s, vm, fork, d, n, &e);
	struct made *m = &made[nmade];
	struct point p;
	uint64_t k;
	size_t i;

	or_end(w == NULL ? -1 : 0, &e);
	for (i = 0; i < n; i++) {
		for (k = 0; k < (seed ? 1 : point_windows(d[i].size)); k++)
			or_end(vault_put(w, i, &d[i], k, &e), &e);
	}
	or_end(writer_commit(w, &o, &p, &e), &e);
	if (seed)
		return;
	memcpy(m->id, p.id, 16);
	memcpy(made_vm[nmade], p.vm_id, 16);
	(void)snprintf(m->vm, sizeof m->vm, "%s", vm);
	m->n = n;
	for (i = 0; i < n; i++)
		m->d[i] = vault_disk_copy(&d[i]);
	nmade++;
	point_done(&p);
}

static void
point(struct vault *v, const char *vm, const struct vault_disk *d, size_t n, bool seed)
{
	point_at(v, vm, NULL, d, n, seed);
}

static void
drop(struct vault *v, size_t i)
{
	struct lc_err e = LC_ERR_INIT;

	or_end(store_drop(v->s, made[i].id, &e), &e);
	made[i].n = 0;
}

static void
on_damage(void *arg, const struct damage *d)
{
	*(struct damage *)arg = *d;
}

static void
rotate(struct vault *v)
{
	struct lc_err e = LC_ERR_INIT;
	struct store_key key;
	struct keyring *k;

	vault_close(v);
	or_end(store_key(v->dir, v->keys, &key, &e), &e);
	or_end(keyring_load(key.file, &k, &e), &e);
	or_end(keyring_rotate(k, &e), &e);
	or_end(keyring_save(k, key.file, &e), &e);
	keyring_free(k);
	vault_open(v);
}

/* A chunk of the first point is damaged, found, and healed by a later point. */
static void
damage(struct vault *v)
{
	struct lc_err e = LC_ERR_INIT;
	struct vault_piece p;
	struct damage d;

	vault_close(v);
	if (!vault_piece_of(v->dir, RECORD_CHUNK, 0, &p))
		exit(1);
	vault_flip(v->dir, &p, 90, 4);
	vault_open(v);
	(void)store_scrub(v->s, on_damage, &d, NULL, NULL, NULL);
	or_end(store_condemn(v->s, &d, 1, NULL, &e), &e);
}

static void
history(struct vault *v)
{
	struct vault_disk web[3] = {vault_disk("vda", 9), vault_disk("vdb", 3),
	                            vault_disk("nvram", 1)};
	struct vault_disk db = vault_disk("vda", 5);
	size_t i;

	vault_disk_resize(&web[1], 3 * WINDOW_SIZE - 1536);
	vault_disk_resize(&web[2], 1000);
	for (i = 0; i < 9; i++)
		web[0].codes[i] = i % 3 == 1 ? 0 : 11 + i;
	web[0].codes[8] = 5; /* does not compress */
	web[1].codes[2] = 12;
	web[2].codes[0] = 13;
	db.codes[1] = 14;                 /* the same content as of web01 */
	point(v, "web01", web, 3, false); /* 0 */
	point(v, "db", &db, 1, true);     /* a pass that did not complete */
	point(v, "db", &db, 1, false);    /* 1 */
	web[0].codes[0] = 21;
	web[0].codes[4] = 0;
	point(v, "web01", web, 3, false); /* 2 */
	rotate(v);
	vault_disk_resize(&web[0], 4 * WINDOW_SIZE + 512);
	point(v, "web01", web, 3, false); /* 3: smaller */
	vault_disk_resize(&web[0], 7 * WINDOW_SIZE);
	web[0].codes[6] = 22;
	point(v, "web01", web, 3, false); /* 4: larger again; what was cut is zero */
	point(v, "web01", web, 2, false); /* 5: a disk less */
	db.codes[4] = 10;                 /* does not compress */
	point(v, "db", &db, 1, false);    /* 6 */
	point(v, "web01", web, 3, false); /* 7: it is back, as a new one */
	drop(v, 2);
	drop(v, 0);
	drop(v, 7);
	web[0].codes[1] = 23;
	point(v, "web01", web, 2, false); /* 8: on 5, after the newest was dropped */
	damage(v);
	db.codes[0] = 11;              /* the damaged one */
	point(v, "db", &db, 1, false); /* 9 */
	for (i = 0; i < 3; i++)
		vault_disk_free(&web[i]);
	vault_disk_free(&db);
}

/* Lines that begin at points of others, and lose points on both sides. */
static void
forks(struct vault *v)
{
	struct vault_disk web[2] = {vault_disk("vda", 9), vault_disk("vdb", 3)}, then;
	size_t i;

	for (i = 0; i < 9; i++)
		web[0].codes[i] = i % 3 == 1 ? 0 : 11 + i;
	web[1].codes[1] = 31;
	point(v, "web01", web, 2, false); /* 0 */
	then = vault_disk_copy(&web[0]);
	web[0].codes[0] = 21;
	web[0].codes[8] = 0;
	point(v, "web01", web, 2, false);                /* 1 */
	web[0].codes[0] = 41;                            /* of a line that leaves 1 */
	web[1].codes[0] = 42;                            /* likewise */
	point_at(v, "web01", made[1].id, web, 2, false); /* 2 */
	web[0].codes[1] = 43;
	point(v, "web01", web, 2, false); /* 3: follows 2 */
	then.codes[2] = 0;
	vault_disk_resize(&then, 6 * WINDOW_SIZE + 1024);
	point_at(v, "web01", made[0].id, &then, 1, true); /* a pass that did not complete */
	point(v, "web01", &then, 1, false);               /* 4: follows that; smaller */
	vault_disk_resize(&then, 8 * WINDOW_SIZE);
	then.codes[7] = 44;
	point(v, "web01", &then, 1, false); /* 5 */
	web[0].codes[5] = 45;
	point_at(v, "web01", made[3].id, web, 2, false); /* 6: a fork of a fork */
	drop(v, 0);
	drop(v, 1);
	drop(v, 3);
	drop(v, 4);
	web[1].codes[2] = 46;
	point(v, "web01", web, 2, false); /* 7: follows 6 */
	for (i = 0; i < 2; i++)
		vault_disk_free(&web[i]);
	vault_disk_free(&then);
}

/* A delta of a kind that capture makes only where it has to. */
static void
put_delta(struct vault *v, uint64_t code, const uint64_t *bases, size_t n, bool rsync)
{
	static uint8_t plain[CHUNK_BASES_MAX * WINDOW_SIZE], window[WINDOW_SIZE];
	static uint8_t payload[CHUNK_PAYLOAD_MAX];
	uint8_t ids[CHUNK_BASES_MAX * CHUNK_ID_SIZE];
	struct chunk_bases b = {.n = n, .ids = ids, .plain = rsync ? NULL : plain};
	struct record r = {.type = RECORD_CHUNK};
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf signature = {0};
	struct sealer *s;
	uint64_t no;
	size_t i, len;

	for (i = 0; i < n; i++) {
		vault_fill(bases[i], plain + i * WINDOW_SIZE);
		seal_id(v->s->keyring, plain + i * WINDOW_SIZE, ids + i * CHUNK_ID_SIZE);
	}
	or_end(delta_sign((struct lc_span){plain, n * WINDOW_SIZE}, 1024, &signature, &e), &e);
	b.signature = (struct lc_span){signature.p, signature.n};
	vault_fill(code, window);
	seal_id(v->s->keyring, window, r.id);
	or_end(sealer_new(v->s->keyring, 1, &s, &e), &e);
	or_end(seal_delta(s, window, r.id, &b, CHUNK_PAYLOAD_MAX, payload, &len, &r.encoding,
	                  &r.key, &e),
	       &e);
	r.n = (uint32_t)len;
	or_end(r.encoding == (rsync ? CHUNK_RSYNC : CHUNK_PREFIX) ? 0 : -1, &e);
	or_end(store_append_chunk(v->s, &r, payload, &no, &e), &e);
	sealer_free(s);
	lc_buf_free(&signature);
}

/* Deltas of each kind, upon bases that no point holds any more, and upon several. */
static void
deltas(struct vault *v)
{
	static const uint64_t codes[8] = {6, 13, 27, 34, 41, 48, 62, 69}; /* some 2.5 KiB each */
	struct vault_disk d = vault_disk("vda", 8);
	size_t i;

	for (i = 0; i < 8; i++)
		d.codes[i] = codes[i];
	point(v, "web01", &d, 1, false); /* 0 */
	d.codes[0] += VAULT_EDIT;
	d.codes[1] += VAULT_EDIT;
	d.codes[2] += VAULT_EDIT;
	point(v, "web01", &d, 1, false); /* 1 */
	d.codes[0] += VAULT_EDIT;
	d.codes[2] += 3 * VAULT_EDIT;
	point(v, "web01", &d, 1, false); /* 2: upon the bases of 1 */
	drop(v, 0);
	rotate(v);
	put_delta(v, codes[3] + VAULT_EDIT, &codes[3], 1, true);
	put_delta(v, codes[4] + 2 * VAULT_EDIT, &codes[4], 4, true);
	put_delta(v, codes[5] + VAULT_EDIT, &codes[4], 4, false);
	d.codes[3] += VAULT_EDIT;
	d.codes[4] += 2 * VAULT_EDIT;
	d.codes[5] += VAULT_EDIT;
	d.codes[6] = 0;
	point(v, "web01", &d, 1, false); /* 3 */
	d.codes[3] += VAULT_EDIT;
	d.codes[5] += VAULT_EDIT;
	point(v, "web01", &d, 1, false); /* 4 */
	drop(v, 2);
	vault_disk_resize(&d, 7 * WINDOW_SIZE + 100);
	point(v, "web01", &d, 1, false); /* 5 */
	for (i = 6; i < 9; i++) {
		d.codes[0] += VAULT_EDIT;
		point(v, "web01", &d, 1, false); /* 6 to 8 */
	}
	vault_disk_free(&d);
}

static int
have(void *arg, const uint8_t *ids, size_t n, uint8_t *bits, struct lc_err *e)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (transfer_has(arg, 0, ids + i * CHUNK_ID_SIZE, e) == 0)
			bits[i / 8] = (uint8_t)(bits[i / 8] | 1u << (i % 8));
	}
	return 0;
}

/* Segments from which contents went; points before and after that, and a delta upon what is
 * elsewhere. */
static void
thin(struct vault *v, const char *folder)
{
	/* Some 2.5 KiB each. */
	static const uint64_t codes[12] = {6, 13, 27, 34, 0, 48, 62, 69, 76, 0, 97, 104};
	struct store_opts po = {.mode = STORE_WRITE, .no_key = true};
	struct thin_opts o = {.have = have, .peers = "dr1, dr2", .bytes = UINT64_MAX};
	struct vault_disk d = vault_disk("vda", 12), db = vault_disk("vda", 4);
	char *there = lc_strdup(tmpdir_path(folder, "replica"));
	struct lc_err e = LC_ERR_INIT;
	struct store *peer;
	struct thin_stats st;
	size_t i;

	for (i = 0; i < 12; i++)
		d.codes[i] = codes[i];
	db.codes[2] = 13;
	point(v, "web01", &d, 1, false); /* 0 */
	point(v, "db", &db, 1, false);   /* 1 */
	d.codes[0] += VAULT_EDIT;
	point(v, "web01", &d, 1, false); /* 2 */
	rotate(v);
	d.codes[7] = 506;
	point(v, "web01", &d, 1, false); /* 3 */
	vault_close(v);
	vault_copy(v->dir, there);
	vault_open(v);
	po.dir = there;
	or_end(store_open(&po, &peer, &e), &e);
	o.arg = peer;
	or_end(thin_run(v->s, &o, &st, &e), &e);
	or_end(st.segments > 2 && st.chunks > 6 ? 0 : -1, &e);
	drop(v, 2);
	d.codes[1] += VAULT_EDIT; /* made with the signature of what is elsewhere */
	d.codes[9] = 501;
	point(v, "web01", &d, 1, false); /* 4 */
	db.codes[0] = 6;
	db.codes[3] = 502;
	point(v, "db", &db, 1, false); /* 5 */
	for (i = 0; i < 3; i++) {
		d.codes[10] = 506 + i + 1;
		point(v, "web01", &d, 1, false); /* 6 to 8 */
	}
	store_close(peer);
	(void)unlink(tmpdir_path(there, "catalog.sqlite"));
	(void)unlink(tmpdir_path(there, "lock"));
	(void)unlink(tmpdir_path(there, "store"));
	dir_remove(tmpdir_path(there, "index"));
	dir_remove(tmpdir_path(there, "leases"));
	dir_remove(tmpdir_path(there, "keys"));
	lc_free(there);
	vault_disk_free(&d);
	vault_disk_free(&db);
}

/* ---- a store of a replica that two hosts share ---- */

/* Contents of both and of each, data keys of both and of each, junk of one under the id of what the
 * other one is going to have, a VM that goes from one to the other; then drops. */
static void
writers(struct vault *a, const char *folder)
{
	struct vault_disk web = vault_disk("vda", 10), db = vault_disk("vda", 5), own;
	struct vault_disk junk = vault_disk("vda", 3);
	char *there = lc_strdup(tmpdir_path(folder, "shared"));
	struct store_opts ro = {.mode = STORE_WRITE, .no_key = true, .segment_bytes = 9000};
	struct vault b = {.segment_bytes = 9000};
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf keys = {0};
	struct store *r;
	struct point p;
	size_t i;

	must(transfer_keys(a->s, &keys, &e), &e);
	vault_make_beside(&b, a, (struct lc_span){keys.p, keys.n});
	vault_open(&b);
	must(transfer_make(there, (struct lc_span){keys.p, keys.n}, &e), &e);
	ro.dir = there;
	must(store_open(&ro, &r, &e), &e);
	for (i = 0; i < 10; i++)
		web.codes[i] = i % 4 == 3 ? 0 : 6 + 7 * i;
	db.codes[0] = 13;
	point(a, "web01", &web, 1, false); /* 0 */
	point(a, "db", &db, 1, false);     /* 1 */
	own = vault_disk_copy(&web);
	own.codes[2] = 501;
	point(&b, "web02", &own, 1, false); /* 2: nearly all of it is a's, too */
	db.codes[1] = 502;
	point(&b, "db", &db, 1, false); /* 3: the same name, another VM */
	moving_all(a->s, r, 0, MOVING_TRUE);
	moving_all(b.s, r, 1, MOVING_TRUE);
	/* b, captured, sends junk under the ids of what a is going to have. */
	junk.codes[0] = 504;
	junk.codes[2] = 508;
	must(vault_backup(b.s, "junk", &junk, 1, &p, &e), &e);
	moving_all(b.s, r, 1, MOVING_JUNK);
	must(store_drop(b.s, p.id, &e), &e);
	rotate(a);
	web.codes[0] += VAULT_EDIT;
	web.codes[5] = 503;
	web.codes[6] = 504;
	web.codes[8] = 508;
	point(a, "web01", &web, 1, false); /* 4 */
	rotate(&b);
	own.codes[0] += VAULT_EDIT; /* equal contents, other keys */
	own.codes[5] = 503;
	point(&b, "web02", &own, 1, false); /* 5 */
	moving_all(a->s, r, 0, MOVING_TRUE);
	moving_all(b.s, r, 1, MOVING_TRUE);
	must(transfer_give(r, made_vm[1], 1, &e), &e);
	db.codes[1] = 507;
	db.codes[4] = 62;
	point(a, "db", &db, 1, false); /* 6: by a's hand, and sent as b's: it is b's by now */
	moving_all(a->s, r, 1, MOVING_TRUE);
	for (i = 0; i < 2; i++) {
		own.codes[0] += VAULT_EDIT;
		own.codes[9] = 605 + i;
		point(&b, "web02", &own, 1, false); /* 7, 8 */
	}
	moving_all(b.s, r, 1, MOVING_TRUE);
	for (i = 0; i < 3; i++) {
		static const size_t gone[3] = {0, 1, 5};

		must(store_drop(r, made[gone[i]].id, &e), &e);
		made[gone[i]].n = 0;
	}
	store_close(r);
	vault_close(a);
	dir_remove(a->dir);
	must(rename(there, a->dir), &e);
	/* Who has this store has the keys of both. */
	ro = (struct store_opts){.dir = a->dir, .recovery_code = a->code};
	must(kit_read_code(a->kit, a->code, &e), &e);
	must(store_open(&ro, &r, &e), &e);
	must(store_save_key(r, a->keys, &e), &e);
	store_close(r);
	vault_free(&b);
	lc_buf_free(&keys);
	lc_free(there);
	vault_disk_free(&web);
	vault_disk_free(&db);
	vault_disk_free(&own);
	vault_disk_free(&junk);
	point_done(&p);
}

static void
sha256(const struct vault_disk *d, char hex[65])
{
	crypto_hash_sha256_state st;
	uint8_t window[WINDOW_SIZE], out[32];
	uint64_t k;

	(void)crypto_hash_sha256_init(&st);
	for (k = 0; k < point_windows(d->size); k++) {
		uint64_t left = d->size - k * WINDOW_SIZE;

		vault_fill(d->codes[k], window);
		(void)crypto_hash_sha256_update(&st, window,
		                                left < WINDOW_SIZE ? left : WINDOW_SIZE);
	}
	(void)crypto_hash_sha256_final(&st, out);
	(void)lc_hex(hex, out, 32);
}

static void
write_expected(const char *folder)
{
	FILE *f = fopen(tmpdir_path(folder, "expected.txt"), "w");
	char id[33], sum[65];
	size_t i, k;

	if (f == NULL)
		exit(1);
	for (i = 0; i < nmade; i++) {
		for (k = 0; k < made[i].n; k++) {
			sha256(&made[i].d[k], sum);
			(void)fprintf(f, "%s %s %s %llu %s\n", made[i].vm,
			              lc_hex(id, made[i].id, 16), made[i].d[k].name,
			              (unsigned long long)made[i].d[k].size, sum);
		}
	}
	(void)fclose(f);
}

int
main(int argc, char **argv)
{
	struct vault v = {.segment_bytes = 9000};
	struct store_init_opts o = {.dir = v.dir, .key_dir = v.keys, .kit = v.kit};
	struct lc_err e = LC_ERR_INIT;
	const char *pass;
	FILE *f;

	if (argc < 2 || mkdir(argv[1], 0755) != 0)
		return 2;
	(void)snprintf(v.dir, sizeof v.dir, "%s/store", argv[1]);
	(void)snprintf(v.keys, sizeof v.keys, "%s/keys", argv[1]);
	(void)snprintf(v.kit, sizeof v.kit, "%s/kit.txt", argv[1]);
	pass = tmpdir_path(argv[1], "passphrase.txt");
	f = fopen(pass, "w");
	if (f == NULL || fputs("correct horse\n", f) < 0 || fclose(f) != 0)
		return 1;
	o.passphrase_file = pass;
	or_end(store_init(&o, &e), &e);
	vault_open(&v);
	if (argc == 2)
		history(&v);
	else if (strcmp(argv[2], "forks") == 0)
		forks(&v);
	else if (strcmp(argv[2], "thin") == 0)
		thin(&v, argv[1]);
	else if (strcmp(argv[2], "writers") == 0)
		writers(&v, argv[1]);
	else
		deltas(&v);
	vault_close(&v);
	write_expected(argv[1]);
	/* Only what is the format: the rest is made again. */
	(void)unlink(vault_path(&v, "catalog.sqlite"));
	dir_remove(vault_path(&v, "index"));
	dir_remove(vault_path(&v, "leases"));
	(void)unlink(vault_path(&v, "lock"));
	return 0;
}
