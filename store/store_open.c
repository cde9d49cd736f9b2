/*
 * Opening a store: identity, lock, key, catalog; closing it; making its catalog again.
 *
 * The owner makes a new catalog in a file beside, which takes the place of the old one when it is
 * complete; so a kill meanwhile leaves the old one or none, and readers never meet half of one.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/failpoint.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/bases.h"
#include "store/pages.h"
#include "store/segment_internal.h"
#include "store/signatures.h"
#include "store/seeds.h"
#include "store/store_internal.h"

#define CATALOG_FILE "catalog.sqlite"
#define SIGNATURES_BYTES (UINT64_C(64) << 20) /* some 100,000 windows */
#define INDEX_IDS_IN_MEMORY 200000u
#define CACHE_BYTES (16u << 20)
/* How often a reader looks again whether the living owner's catalog has caught up with its log. */
#define BEHIND_TRIES 20
#define BEHIND_PAUSE_MS 50
#define LOCK_TEXT_MAX 256u

/* ---- identity ---- */

/* The identity file is a convenience: every segment says the same. */
static int
identity_from_segments(struct store *s, struct lc_err *e)
{
	static const uint8_t unknown[16];
	uint8_t raw[SEGMENT_HEADER_SIZE];
	struct segment_header h;
	struct segment_info *list;
	struct segments *segs;
	struct lc_err err = LC_ERR_INIT;
	bool found = false;
	char name[32];
	size_t n, i;
	int fd, rc;

	rc = segments_open(s->segments_dir, unknown, unknown, &segs, e);
	if (rc != 0)
		return rc;
	rc = segments_list(segs, &list, &n, &err);
	if (rc == LC_ENOENT) {
		rc = lc_fail(e, LC_ENOENT, 0,
		             "%s is no store (make one with: locum store init; one that was "
		             "lost comes back from a replica with: locum recall)",
		             s->dir);
	} else if (rc != 0) {
		rc = lc_fail(e, (enum lc_code)rc, 0, "%s", err.msg);
	}
	for (i = 0; rc == 0 && !found && i < n; i++) {
		fd = segment_open_fd(segs, list[i].no, O_RDONLY, name, NULL);
		if (fd < 0)
			continue;
		found = file_pread_full(fd, raw, sizeof raw, 0, name, NULL) == 0 &&
		        segment_header_decode(raw, &h);
		fd_close(&fd);
	}
	if (rc == 0) {
		lc_free(list);
		if (!found)
			rc = lc_fail(e, LC_ENOENT, 0, "%s holds no segment of a store", s->dir);
	}
	if (rc == 0) {
		memcpy(s->id, h.store_id, 16);
		memcpy(s->domain, h.domain, 16);
		s->identity_lost = true;
	}
	segments_close(segs);
	return rc;
}

int
store_identity_read(struct store *s, struct lc_err *e)
{
	char id[33] = "", domain[33] = "";
	struct lc_buf b = {0};
	char number[12] = "";
	unsigned long version = 0;
	char *path = path_join(s->dir, STORE_IDENTITY_FILE);
	int rc;

	if (path == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = file_read_all(path, 1024, &b, NULL);
	lc_free(path);
	if (rc == 0 && lc_buf_append(&b, "", 1) == 0 &&
	    sscanf((const char *)b.p, "locum store version %11[0-9] store %32s domain %32s", number,
	           id, domain) >= 1)
		version = strtoul(number, NULL, 10);
	if (version > 1) {
		rc = lc_fail(
		    e, LC_EVERSION, 0,
		    "store %s has format version %lu, this locum knows up to 1: use a newer "
		    "one",
		    s->dir, version);
	} else if (rc == LC_EACCES) {
		rc = lc_fail(e, LC_EACCES, 0, "store %s can't be read by this user", s->dir);
	} else if (rc != 0 || version != 1 || !lc_unhex(s->id, 16, id) ||
	           !lc_unhex(s->domain, 16, domain)) {
		rc = identity_from_segments(s, e);
	}
	lc_buf_free(&b);
	(void)lc_hex(s->tag, s->id, 8);
	return rc;
}

static int
take_lock(struct store *s, const struct store_opts *o, struct lc_err *e)
{
	int64_t until = clock_mono_ns() + o->wait_ms * LC_NS_PER_MS;
	const char *who = o->who == NULL ? "locum" : o->who;
	char *path = path_join(s->dir, "lock");
	char *text = o->desk == NULL ? lc_strdup(who) : lc_asprintf("%s\n%s", who, o->desk);
	struct lc_err err;
	int rc;

	if (path == NULL || text == NULL) {
		lc_free(path);
		lc_free(text);
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	for (;;) {
		struct timespec pause = {.tv_nsec = 50 * LC_NS_PER_MS};

		lc_err_clear(&err);
		rc = file_lock(path, 0600, text, &s->lock_fd, &err);
		if (rc != LC_EBUSY || clock_mono_ns() >= until)
			break;
		(void)nanosleep(&pause, NULL);
	}
	lc_free(path);
	lc_free(text);
	if (rc != 0 && e != NULL) {
		*e = err;
		lc_wrap(e, "store %s", s->dir);
	}
	return rc;
}

/* A name that leads to another file is one that was made anew only where ours has none any more:
 * there are file systems whose numbers change. */
static bool
is_there(const struct stat *ours, const char *lock)
{
	struct stat st;

	if (stat(lock, &st) != 0)
		return errno != ENOENT && errno != ENOTDIR;
	return ours->st_nlink > 0 || (st.st_dev == ours->st_dev && st.st_ino == ours->st_ino);
}

int
store_check_there(struct store *s, struct lc_err *e)
{
	char *lock = path_join(s->dir, "lock");
	struct stat ours;
	bool there;

	if (lock == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	there = s->lock_fd < 0 || fstat(s->lock_fd, &ours) != 0 || is_there(&ours, lock);
	lc_free(lock);
	if (there)
		return 0;
	(void)pthread_mutex_lock(&s->log_lock);
	s->broken = true;
	(void)pthread_mutex_unlock(&s->log_lock);
	return lc_fail(e, LC_ENOENT, 0,
	               "store %s: it is gone: was it removed or moved, or is something else "
	               "mounted there?",
	               s->dir);
}

void
store_desk(const char *dir, char path[STORE_DESK_MAX])
{
	char *lock = path_join(dir, "lock");
	struct lc_buf b = {0};
	const char *line = NULL;
	size_t n = 0;

	if (lock != NULL && file_read_all(lock, LOCK_TEXT_MAX, &b, NULL) == 0 &&
	    lc_buf_append(&b, "", 1) == 0)
		line = strchr((const char *)b.p, '\n');
	if (line != NULL)
		n = strcspn(++line, "\n");
	if (n >= STORE_DESK_MAX)
		n = 0;
	memcpy(path, n == 0 ? "" : line, n);
	path[n] = '\0';
	lc_buf_free(&b);
	lc_free(lock);
}

/* ---- the catalog and the index of ids ---- */

#define INDEX_FLUSH_EVERY 65536u /* ids; a flush that is not due does nothing */

static int
add_to_index(void *arg, uint64_t no, uint16_t writer, const uint8_t id[32])
{
	struct store *s = arg;
	uint8_t key[32];

	fold_key(writer, id, key);
	idindex_add(s->index, key, no);
	if (s->writable && no % INDEX_FLUSH_EVERY == 0)
		store_flush_index(s, no);
	return 0;
}

/* fresh: the catalog is to be made from nothing, so the runs say nothing. */
static int
open_index(struct store *s, bool fresh, struct lc_err *e)
{
	struct catalog_position pos = {0};
	char *path = path_join(s->dir, "index");
	uint64_t covered = 0;
	int rc;

	if (path == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = idindex_open(path, s->id, INDEX_IDS_IN_MEMORY, s->writable, &s->index, &covered, e);
	lc_free(path);
	rc = rc != 0 ? rc : catalog_position(s->catalog, &pos, e);
	if (rc == 0 && (fresh || covered > pos.last_seq)) { /* of another catalog */
		idindex_reset(s->index);
		covered = 0;
	}
	return rc != 0 ? rc : catalog_each_chunk(s->catalog, covered, add_to_index, s, e);
}

static void
remove_catalog(const char *path)
{
	static const char *const tails[] = {"-wal", "-shm", "-journal"};
	size_t i;

	(void)unlink(path);
	for (i = 0; i < sizeof tails / sizeof tails[0]; i++) {
		char *extra = lc_asprintf("%s%s", path, tails[i]);

		if (extra != NULL)
			(void)unlink(extra);
		lc_free(extra);
	}
}

static int
open_catalog(struct store *s, const char *path, bool build, const struct store_opts *o,
             struct lc_err *e)
{
	struct catalog_opts co = {.path = path,
	                          .writable = s->writable,
	                          .build = build,
	                          .cache_bytes = o->cache_bytes == 0 ? CACHE_BYTES : o->cache_bytes,
	                          .store_id = s->id};

	return catalog_open(&co, &s->catalog, e);
}

static void
close_catalog(struct store *s)
{
	idindex_close(s->index);
	s->index = NULL;
	catalog_close(s->catalog);
	s->catalog = NULL;
	s->fold->catalog = NULL;
	s->fold->index = NULL;
}

/* Whether contents may be elsewhere. */
static int
note_thin(struct store *s, struct lc_err *e)
{
	char peers[THIN_PEERS_MAX + 1];
	int rc = catalog_peers(s->catalog, peers, sizeof peers, e);

	s->fold->thin = rc == 0 && peers[0] != '\0';
	return rc;
}

static int
ready_fold(struct store *s, bool fresh, struct lc_err *e)
{
	bool missing, vouched;
	int rc = open_index(s, fresh, e);

	rc = rc != 0 ? rc : catalog_any_missing(s->catalog, &missing, e);
	rc = rc != 0 ? rc : catalog_any_vouch(s->catalog, &vouched, e);
	rc = rc != 0 ? rc : note_thin(s, e);
	if (rc != 0)
		return rc;
	s->fold->catalog = s->catalog;
	s->fold->index = s->index;
	s->fold->missing = missing;
	s->fold->vouched = vouched;
	return 0;
}

int
store_need_ids(struct store *s, struct lc_err *e)
{
	if (s->fold->index != NULL)
		return 0;
	idindex_close(s->index); /* of a try that failed */
	s->index = NULL;
	return ready_fold(s, false, e);
}

/* ---- the owner's way ---- */

static int
sync_file(const char *path, struct lc_err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int rc = 0;

	if (fd < 0)
		return lc_fail_errno(e, "%s", path);
	if (fsync(fd) != 0)
		rc = lc_fail_errno(e, "%s: fsync", path);
	fd_close(&fd);
	return rc;
}

/* The new catalog takes the place of the old one.  The helpers of the old one go first: they would
 * be taken for those of the new. */
static int
put_in_place(const char *made, const char *path, const char *dir, struct lc_err *e)
{
	int rc = sync_file(made, e);

	if (rc != 0)
		return rc;
	remove_catalog(path);
	(void)failpoint("store.catalog.removed");
	if (rename(made, path) != 0)
		return lc_fail_errno(e, "%s: rename", made);
	(void)failpoint("store.catalog.renamed");
	return dir_sync(dir, e);
}

/* The old catalog knew a record that the log no longer has. */
static int
note_lost_end(struct store *s, const struct catalog_position *old, struct lc_err *e)
{
	struct catalog_position pos;
	int rc = catalog_position(s->catalog, &pos, e);

	if (rc != 0 || old->last_seq <= pos.last_seq)
		return rc;
	log_warn("store %s: the end of the log is missing: the catalog knew %" PRIu64
	         " further records, the last one in segment %016" PRIx64
	         "; the newest restore points are gone",
	         s->dir, old->last_seq - pos.last_seq, old->segment);
	rc = catalog_begin(s->catalog, e);
	if (rc != 0)
		return rc;
	rc = catalog_put_damage(s->catalog, old->segment, old->off, 0, DAMAGE_MISSING, e);
	if (rc != 0) {
		catalog_rollback(s->catalog);
		return rc;
	}
	return catalog_commit(s->catalog, e);
}

static int
remake(struct store *s, const char *path, const struct catalog_position *old,
       const struct store_opts *o, struct lc_err *e)
{
	char *made = lc_asprintf("%s.new", path);
	int rc;

	if (made == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	remove_catalog(made);
	rc = open_catalog(s, made, true, o, e);
	rc = rc != 0 ? rc : ready_fold(s, true, e);
	rc = rc != 0 ? rc : replay_all(s, e);
	rc = rc != 0 ? rc : note_lost_end(s, old, e);
	catalog_close(s->catalog);
	s->catalog = NULL;
	rc = rc != 0 ? rc : put_in_place(made, path, s->dir, e);
	if (rc != 0)
		remove_catalog(made);
	lc_free(made);
	rc = rc != 0 ? rc : open_catalog(s, path, false, o, e);
	s->fold->catalog = s->catalog;
	return rc;
}

/* Whether making the catalog is worth a word: it is not for a store that was just made. */
static bool
takes_time(struct store *s)
{
	struct segment_info *list = NULL;
	size_t n = 0;
	bool yes = segments_list(s->segments, &list, &n, NULL) != 0 || n > 1 ||
	           (n == 1 && list[0].bytes > UINT64_C(1) << 20);

	lc_free(list);
	return yes;
}

/* Use the catalog that is there.  *again: it must be made again. */
static int
use_catalog(struct store *s, const char *path, struct catalog_position *pos, bool *again,
            const struct store_opts *o, struct lc_err *e)
{
	bool there = access(path, F_OK) == 0, ok = false;
	int rc;

	*again = true;
	if (there && o->rebuild)
		return 0;
	if (!there) {
		if (takes_time(s))
			log_info("store %s: making the catalog from the log", s->dir);
		return 0;
	}
	rc = open_catalog(s, path, false, o, e);
	if (rc == LC_ECORRUPT)
		return 0;
	rc = rc != 0 ? rc : catalog_position(s->catalog, pos, e);
	rc = rc != 0 ? rc : replay_position_ok(s, &ok, e);
	if (rc == 0 && !ok) {
		(void)lc_fail(e, LC_ECORRUPT, 0, "it does not match the log");
		return 0;
	}
	rc = rc != 0 ? rc : ready_fold(s, false, e);
	rc = rc != 0 ? rc : replay_tail(s, e);
	*again = rc != 0 && s->catalog != NULL && catalog_damaged(s->catalog);
	return *again ? 0 : rc;
}

static int
settle(struct store *s, struct lc_err *e)
{
	struct catalog_position pos = {0};
	int rc = thin_settle(s, e);

	rc = rc != 0 ? rc : catalog_position(s->catalog, &pos, e);
	s->applied_seq = pos.last_seq;
	return rc;
}

static int
open_for_writing(struct store *s, const char *path, const struct store_opts *o, struct lc_err *e)
{
	struct lc_err err = LC_ERR_INIT;
	struct catalog_position pos = {0};
	bool again;
	int rc;

	rc = use_catalog(s, path, &pos, &again, o, &err);
	if (rc != 0) {
		if (e != NULL)
			*e = err;
		return rc;
	}
	if (!again)
		return settle(s, e);
	if (err.code != LC_OK)
		log_warn("store %s: making the catalog again: %s", s->dir, err.msg);
	close_catalog(s);
	/* What an attempt with the old catalog took over is taken over anew. */
	segments_close(s->segments);
	s->segments = NULL;
	rc = store_open_segments(s, o, e);
	rc = rc != 0 ? rc : remake(s, path, &pos, o, e);
	return rc != 0 ? rc : settle(s, e);
}

/* ---- a reader's way ---- */

static int
open_in_memory(struct store *s, const struct store_opts *o, struct lc_err *e)
{
	int rc;

	log_debug("store %s: reading the log into memory", s->dir);
	rc = open_catalog(s, NULL, false, o, e);
	rc = rc != 0 ? rc : ready_fold(s, true, e);
	return rc != 0 ? rc : replay_all(s, e);
}

/* Somebody must take up what a dead owner left: this reader, if it may write, through the owner's
 * way. */
static int
catch_up(const struct store_opts *o)
{
	struct store_opts w = *o;
	struct store *owner = NULL;
	int rc;

	w.mode = STORE_WRITE;
	w.wait_ms = 0;
	rc = store_open(&w, &owner, NULL);
	if (rc == 0)
		store_close(owner);
	return rc;
}

/* Whether the catalog on disk can be used, and whether it lacks a commit of the log. */
static bool
look_at_catalog(struct store *s, const char *path, const struct store_opts *o, bool *behind)
{
	bool ok = false;

	*behind = false;
	if (s->catalog == NULL && open_catalog(s, path, false, o, NULL) != 0)
		return false;
	return replay_position_ok(s, &ok, NULL) == 0 && ok && replay_behind(s, behind, NULL) == 0;
}

static int
open_for_reading(struct store *s, const char *path, const struct store_opts *o, struct lc_err *e)
{
	const struct timespec pause = {.tv_nsec = BEHIND_PAUSE_MS * LC_NS_PER_MS};
	bool behind = false, ok = false;
	int tries;

	for (tries = 0; tries < BEHIND_TRIES; tries++) {
		ok = look_at_catalog(s, path, o, &behind);
		if (ok && !behind)
			break;
		if (!ok)
			close_catalog(s);
		if (catch_up(o) != LC_EBUSY) {
			close_catalog(s);
			ok = look_at_catalog(s, path, o, &behind) && !behind;
			break;
		}
		/* An owner lives: what its catalog lacks was not acknowledged, or it is being
		 * made. */
		if (tries + 1 < BEHIND_TRIES)
			(void)nanosleep(&pause, NULL);
	}
	if (ok) {
		s->fold->catalog = s->catalog;
		return note_thin(s, e);
	}
	close_catalog(s);
	return open_in_memory(s, o, e);
}

/* ---- open, close ---- */

int
store_open_segments(struct store *s, const struct store_opts *o, struct lc_err *e)
{
	int rc = segments_open(s->segments_dir, s->id, s->domain, &s->segments, e);

	if (rc == 0 && o->segment_bytes != 0)
		segments_limit(s->segments, o->segment_bytes);
	return rc;
}

/* Only whoever makes points has a use for them; and can do without. */
static void
open_signatures(struct store *s)
{
	struct lc_err err = LC_ERR_INIT;
	char *path = s->writable && s->keyring != NULL ? lc_asprintf("%s/index/signatures", s->dir)
	                                               : NULL;

	if (path != NULL &&
	    signatures_open(path, s->keyring, SIGNATURES_BYTES, &s->signatures, &err) != 0)
		log_warn("store %s: deltas against contents that are elsewhere can't be made: %s",
		         s->dir, err.msg);
	lc_free(path);
}

/* The same goes for these. */
static void
open_pages(struct store *s, uint64_t bytes)
{
	struct lc_err err = LC_ERR_INIT;
	char *path = s->writable && s->keyring != NULL && bytes > 0
	                 ? lc_asprintf("%s/index/pages", s->dir)
	                 : NULL;

	if (path != NULL && pages_open(path, s->keyring, s->id, bytes, &s->pages, &err) != 0)
		log_warn("store %s: similar windows are not looked for: %s", s->dir, err.msg);
	lc_free(path);
}

int
store_open(const struct store_opts *o, struct store **out, struct lc_err *e)
{
	struct store *s = lc_alloc(sizeof *s);
	char *path = path_join(o->dir, CATALOG_FILE);
	int rc;

	if (s == NULL || path == NULL) {
		lc_free(s);
		lc_free(path);
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	s->lock_fd = -1;
	s->writable = o->mode == STORE_WRITE;
	s->flush_bytes = FLUSH_BYTES;
	s->waiting_tail = &s->waiting;
	(void)pthread_mutex_init(&s->log_lock, NULL);
	(void)pthread_mutex_init(&s->flush_lock, NULL);
	(void)pthread_mutex_init(&s->commit_lock, NULL);
	(void)pthread_cond_init(&s->commit_cond, NULL);
	(void)pthread_mutex_init(&s->writers_lock, NULL);
	s->dir = lc_strdup(o->dir);
	s->segments_dir = path_join(o->dir, "segments");
	s->fold = lc_alloc(sizeof *s->fold);
	if (s->dir == NULL || s->segments_dir == NULL || s->fold == NULL)
		rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	else
		rc = store_identity_read(s, e);
	rc = rc != 0 ? rc : bases_new(&s->bases, e);
	if (rc == 0 && s->writable)
		rc = take_lock(s, o, e);
	rc = rc != 0 ? rc : store_open_segments(s, o, e);
	rc = rc != 0 ? rc : store_open_keys(s, o, e);
	if (rc == 0)
		rc = s->writable ? open_for_writing(s, path, o, e)
		                 : open_for_reading(s, path, o, e);
	if (rc == 0) {
		open_signatures(s);
		open_pages(s, o->similar_bytes);
	}
	if (rc == 0 && s->writable && s->identity_lost)
		(void)store_identity_write(s->dir, s->id, s->domain, NULL);
	lc_free(path);
	if (rc != 0) {
		s->broken = true;
		store_close(s);
		return rc;
	}
	*out = s;
	return 0;
}

void
store_close(struct store *s)
{
	if (s == NULL)
		return;
	if (s->writable && s->pending.first != NULL && !s->broken)
		(void)store_flush(s,
		                  NULL); /* chunks of a point that was given up are worth keeping */
	if (s->writable && s->catalog != NULL)
		catalog_checkpoint(s->catalog);
	if (s->fold != NULL)
		close_catalog(s);
	signatures_close(s->signatures);
	bases_free(s->bases);
	pages_close(s->pages);
	segments_close(s->segments);
	keyring_free(s->keyring);
	store_forget_pending(s);
	seeds_free(s);
	fd_close(&s->lock_fd);
	(void)pthread_mutex_destroy(&s->log_lock);
	(void)pthread_mutex_destroy(&s->flush_lock);
	(void)pthread_mutex_destroy(&s->commit_lock);
	(void)pthread_cond_destroy(&s->commit_cond);
	(void)pthread_mutex_destroy(&s->writers_lock);
	lc_free(s->fold);
	lc_free(s->segments_dir);
	lc_free(s->dir);
	lc_free(s);
}

int
store_rebuild(const struct store_opts *opts, struct lc_err *e)
{
	struct store_opts o = *opts;
	struct store *s = NULL;
	int rc;

	o.mode = STORE_WRITE;
	o.rebuild = true;
	rc = store_open(&o, &s, e);
	if (rc == 0)
		store_close(s);
	return rc;
}

const char *
store_dir(const struct store *s)
{
	return s->dir;
}

const uint8_t *
store_id(const struct store *s)
{
	return s->id;
}

const uint8_t *
store_domain(const struct store *s)
{
	return s->domain;
}

const char *
store_tag(const struct store *s)
{
	return s->tag;
}

bool
store_has_key(const struct store *s)
{
	return s->keyring != NULL;
}
