#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/kit.h"
#include "store/transfer.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

uint64_t
vault_random(uint64_t *seed, uint64_t n)
{
	uint64_t z = (*seed += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return n == 0 ? 0 : (z ^ (z >> 31)) % n;
}

static void
die(const char *what, const struct lc_err *e)
{
	(void)fprintf(stderr, "vault: %s: %s\n", what, e == NULL ? "" : e->msg);
	abort();
}

static void
make_folder(struct vault *v, bool fast)
{
	struct stat st;

	memset(v, 0, sizeof *v);
	if (fast && getenv("TMPDIR") == NULL && stat("/dev/shm", &st) == 0 &&
	    access("/dev/shm", W_OK) == 0) {
		v->top = lc_strdup("/dev/shm/locum-test-XXXXXX");
		if (v->top == NULL || mkdtemp(v->top) == NULL)
			die("no folder", NULL);
	} else {
		v->top = tmpdir_new();
	}
	(void)snprintf(v->dir, sizeof v->dir, "%s/store", v->top);
	(void)snprintf(v->keys, sizeof v->keys, "%s/keys", v->top);
	(void)snprintf(v->kit, sizeof v->kit, "%s/kit", v->top);
}

void
vault_make_beside(struct vault *v, const struct vault *first, struct lc_span keys)
{
	struct lc_err e = LC_ERR_INIT;

	make_folder(v, true);
	memcpy(v->code, first->code, sizeof v->code);
	vault_copy(first->keys, v->keys);
	if (transfer_make(v->dir, keys, &e) != 0)
		die("make beside", &e);
}

void
vault_make(struct vault *v, bool fast)
{
	struct lc_err e = LC_ERR_INIT;
	struct store_init_opts o;

	make_folder(v, fast);
	o = (struct store_init_opts){.dir = v->dir, .key_dir = v->keys, .kit = v->kit};
	if (store_init(&o, &e) != 0 || kit_read_code(v->kit, v->code, &e) != 0)
		die("init", &e);
}

int
vault_try(const struct vault *v, enum store_mode mode, struct store **out, struct lc_err *e)
{
	struct store_opts o = {.dir = v->dir,
	                       .mode = mode,
	                       .who = "a test",
	                       .key_dir = v->keys,
	                       .cache_bytes = v->cache_bytes,
	                       .similar_bytes = v->similar_bytes,
	                       .segment_bytes = v->segment_bytes};

	return store_open(&o, out, e);
}

void
vault_open(struct vault *v)
{
	struct lc_err e = LC_ERR_INIT;

	if (vault_try(v, STORE_WRITE, &v->s, &e) != 0)
		die("open", &e);
}

void
vault_close(struct vault *v)
{
	store_close(v->s);
	v->s = NULL;
}

void
vault_free(struct vault *v)
{
	vault_close(v);
	if (getenv("LOCUM_TEST_KEEP") != NULL)
		(void)fprintf(stderr, "kept: %s\n", v->top);
	else
		tmpdir_free(v->top);
	if (getenv("LOCUM_TEST_KEEP") != NULL)
		lc_free(v->top);
	v->top = NULL;
}

const char *
vault_path(const struct vault *v, const char *name)
{
	return tmpdir_path(v->dir, name);
}

const char *
vault_key_file(const struct vault *v)
{
	static char path[640];
	DIR *d = opendir(v->keys);
	const struct dirent *ent;

	path[0] = '\0';
	while (d != NULL && (ent = readdir(d)) != NULL) {
		if (strstr(ent->d_name, ".key") != NULL)
			(void)snprintf(path, sizeof path, "%s/%s", v->keys, ent->d_name);
	}
	if (d != NULL)
		(void)closedir(d);
	if (path[0] == '\0')
		die("no key file", NULL);
	return path;
}

void
vault_copy(const char *from, const char *to)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		(void)execlp("cp", "cp", "-a", "--", from, to, (char *)NULL);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
		die("copy", NULL);
}

/* ---- what lies in the files ---- */

struct listing {
	struct lc_buf pieces;
	bool sealed;
};

static int
list_record(void *arg, const struct record *r, struct lc_span payload, struct lc_err *e)
{
	struct listing *l = arg;
	struct vault_piece p;

	(void)payload;
	(void)e;
	memset(&p, 0, sizeof p);
	p.r = *r;
	p.sealed = l->sealed;
	p.off = r->off;
	p.n = record_size(r->n);
	return lc_buf_append(&l->pieces, &p, sizeof p);
}

static void
list_rest(struct listing *l, uint64_t segment, uint64_t off, uint64_t n)
{
	struct vault_piece p;

	memset(&p, 0, sizeof p);
	p.r.segment = segment;
	p.sealed = l->sealed;
	p.off = off;
	p.n = n;
	assert(lc_buf_append(&l->pieces, &p, sizeof p) == 0);
}

static struct segments *
open_folder(const char *dir, struct segment_info **list, size_t *n)
{
	uint8_t raw[SEGMENT_HEADER_SIZE], none[16] = {0};
	const char *path = tmpdir_path(dir, "segments");
	struct segment_header h = {0};
	struct segments *s;
	char name[32];
	size_t i;
	int fd;

	assert(segments_open(path, none, none, &s, NULL) == 0);
	assert(segments_list(s, list, n, NULL) == 0);
	segments_close(s);
	for (i = 0; i < *n; i++) {
		fd = open(tmpdir_path(path, segment_name(name, (*list)[i].no, (*list)[i].sealed)),
		          O_RDONLY | O_CLOEXEC);
		if (file_pread_full(fd, raw, sizeof raw, 0, name, NULL) == 0 &&
		    segment_header_decode(raw, &h))
			i = *n;
		(void)close(fd);
	}
	assert(segments_open(path, h.store_id, h.domain, &s, NULL) == 0);
	return s;
}

void
vault_pieces(const char *dir, struct vault_piece **pieces, size_t *n)
{
	struct listing l = {0};
	struct segment_scan scan = {.on_record = list_record, .arg = &l};
	struct segment_info *list;
	struct lc_err e = LC_ERR_INIT;
	size_t nseg, i;
	struct segments *s = open_folder(dir, &list, &nseg);

	for (i = 0; i < nseg; i++) {
		l.sealed = list[i].sealed;
		list_rest(&l, list[i].no, 0, SEGMENT_HEADER_SIZE);
		if (segment_scan(s, &list[i], 0, &scan, NULL, &e) != 0)
			die("pieces", &e);
		if (l.sealed)
			list_rest(&l, list[i].no, list[i].bytes - SEGMENT_TRAILER_SIZE,
			          SEGMENT_TRAILER_SIZE);
	}
	lc_free(list);
	segments_close(s);
	*n = l.pieces.n / sizeof **pieces;
	*pieces = (struct vault_piece *)(void *)l.pieces.p;
}

bool
vault_piece_of(const char *dir, int type, int nth, struct vault_piece *out)
{
	struct vault_piece *list;
	bool found = false;
	size_t n, i;

	vault_pieces(dir, &list, &n);
	for (i = 0; i < n; i++) {
		if (list[i].r.type != type)
			continue;
		*out = list[i];
		found = nth <= 0;
		if (nth-- == 0)
			break;
	}
	free(list);
	return found;
}

void
vault_write(const char *dir, const struct vault_piece *p, uint64_t at, const void *bytes, size_t n)
{
	char name[32];
	int fd = open(
	    tmpdir_path(tmpdir_path(dir, "segments"), segment_name(name, p->r.segment, p->sealed)),
	    O_RDWR | O_CLOEXEC);

	if (fd < 0 || file_pwrite_full(fd, bytes, n, p->off + at, name, NULL) != 0)
		die("write", NULL);
	(void)close(fd);
}

void
vault_flip(const char *dir, const struct vault_piece *p, uint64_t at, uint8_t bits)
{
	char name[32];
	uint8_t b = 0;
	int fd = open(
	    tmpdir_path(tmpdir_path(dir, "segments"), segment_name(name, p->r.segment, p->sealed)),
	    O_RDWR | O_CLOEXEC);

	if (fd < 0 || file_pread_full(fd, &b, 1, p->off + at, name, NULL) != 0)
		die("flip", NULL);
	b ^= bits;
	if (file_pwrite_full(fd, &b, 1, p->off + at, name, NULL) != 0)
		die("flip", NULL);
	(void)close(fd);
}

uint64_t
vault_sum(const char *dir)
{
	const char *path = tmpdir_path(dir, "segments");
	struct lc_buf b = {0};
	struct dirent *ent;
	uint64_t sum = 0, part;
	DIR *d = opendir(path);
	size_t i;

	assert(d != NULL);
	while ((ent = readdir(d)) != NULL) { /* NOLINT(concurrency-mt-unsafe) */
		if (ent->d_name[0] == '.')
			continue;
		if (file_read_all(tmpdir_path(path, ent->d_name), SIZE_MAX / 2, &b, NULL) != 0)
			die("sum", NULL);
		part = 14695981039346656037u;
		for (i = 0; ent->d_name[i] != '\0'; i++)
			part = (part ^ (uint8_t)ent->d_name[i]) * 1099511628211u;
		for (i = 0; i < b.n; i++)
			part = (part ^ b.p[i]) * 1099511628211u;
		sum += part;
	}
	(void)closedir(d);
	lc_buf_free(&b);
	return sum;
}

static void
fill_plain(uint64_t code, uint8_t window[WINDOW_SIZE])
{
	uint64_t x = code, y;
	size_t i, noise;

	memset(window, 0, WINDOW_SIZE);
	if (code == 0)
		return;
	/* From a handful of bytes to all of them. */
	noise = code % 5 == 0 ? WINDOW_SIZE : 64 + code % 7 * 400;
	for (i = 0; i + 8 <= noise; i += 8) {
		y = vault_random(&x, UINT64_MAX);
		memcpy(window + i, &y, 8);
	}
	window[WINDOW_SIZE - 1 - code % 1000] = 1;
}

#define MIX (UINT64_C(1) << 31)
#define MIX_PAGES_SHIFT 26

uint64_t
vault_mix(uint64_t code, unsigned pages)
{
	assert(code < UINT64_C(1) << MIX_PAGES_SHIFT && pages >= 1 && pages <= 15);
	return MIX | (uint64_t)pages << MIX_PAGES_SHIFT | code;
}

static void
fill_mixed(uint64_t code, uint8_t window[WINDOW_SIZE])
{
	uint64_t first = code & ((UINT64_C(1) << MIX_PAGES_SHIFT) - 1);
	size_t n = (code >> MIX_PAGES_SHIFT & 15) * 4096;
	uint8_t next[WINDOW_SIZE];

	fill_plain(first, window);
	fill_plain(first + 5, next);
	memmove(window, window + n, WINDOW_SIZE - n);
	memcpy(window + WINDOW_SIZE - n, next, n);
}

void
vault_fill(uint64_t code, uint8_t window[WINDOW_SIZE])
{
	uint64_t edits = code >> VAULT_EDITS_SHIFT, plain = code & (VAULT_EDIT - 1), x, i;
	size_t k;

	if ((plain & MIX) != 0)
		fill_mixed(plain, window);
	else
		fill_plain(plain, window);
	for (i = 0; i < edits; i++) {
		x = plain * 1000 + i;
		for (k = 0; k < 100; k++)
			window[(i * 4096 + i * 640 + k) % WINDOW_SIZE] = (uint8_t)vault_random(
			    &x, UINT64_MAX);
	}
}

struct vault_disk
vault_disk(const char *name, uint64_t windows)
{
	struct vault_disk d = {.size = windows * WINDOW_SIZE};

	(void)snprintf(d.name, sizeof d.name, "%s", name);
	d.codes = calloc(windows + 1, sizeof *d.codes);
	assert(d.codes != NULL);
	return d;
}

struct vault_disk
vault_disk_copy(const struct vault_disk *d)
{
	struct vault_disk c = *d;
	size_t n = (size_t)point_windows(d->size) + 1;

	c.codes = calloc(n, sizeof *c.codes);
	assert(c.codes != NULL);
	memcpy(c.codes, d->codes, (n - 1) * sizeof *c.codes);
	return c;
}

void
vault_disk_resize(struct vault_disk *d, uint64_t size)
{
	uint64_t old = point_windows(d->size), now = point_windows(size);
	uint64_t *codes = calloc(now + 1, sizeof *codes);

	assert(codes != NULL);
	memcpy(codes, d->codes, (size_t)(old < now ? old : now) * sizeof *codes);
	free(d->codes);
	d->codes = codes;
	d->size = size;
}

void
vault_disk_free(struct vault_disk *d)
{
	free(d->codes);
	d->codes = NULL;
}

struct writer *
vault_begin(struct store *s, const char *vm, const struct vault_disk *disks, size_t n,
            struct lc_err *e)
{
	return vault_fork(s, vm, NULL, disks, n, e);
}

struct writer *
vault_fork(struct store *s, const char *vm, const uint8_t *at, const struct vault_disk *disks,
           size_t n, struct lc_err *e)
{
	struct writer_opts o = {.vm = vm, .workers = 2, .level = 2, .fork = at};
	struct writer_disk wd[POINT_DISKS_MAX] = {0};
	struct writer *w;
	size_t i;

	if (writer_begin(s, &o, &w, e) != 0)
		return NULL;
	for (i = 0; i < n; i++)
		wd[i] = (struct writer_disk){.name = disks[i].name, .size = disks[i].size};
	if (writer_disks(w, wd, n, e) != 0) {
		writer_abort(w);
		return NULL;
	}
	return w;
}

/* The bytes of a window of a disk: beyond the disk's end there are zeros. */
static void
fill_of(const struct vault_disk *d, uint64_t window, uint8_t *data)
{
	uint64_t left = d->size - window * WINDOW_SIZE;

	vault_fill(d->codes[window], data);
	if (left < WINDOW_SIZE)
		memset(data + left, 0, WINDOW_SIZE - (size_t)left);
}

int
vault_put(struct writer *w, size_t disk, const struct vault_disk *d, uint64_t window,
          struct lc_err *e)
{
	uint8_t data[WINDOW_SIZE];

	fill_of(d, window, data);
	return writer_put(w, (unsigned)(window % 2), disk, window, data, NULL, e);
}

int
vault_backup(struct store *s, const char *vm, const struct vault_disk *disks, size_t n,
             struct point *p, struct lc_err *e)
{
	struct commit_opts o = {.source_ns = clock_wall_ns()};
	struct writer *w = vault_begin(s, vm, disks, n, e);
	uint64_t k;
	size_t i;
	int rc = 0;

	if (w == NULL)
		return e == NULL ? LC_EIO : e->code;
	for (i = 0; rc == 0 && i < n; i++) {
		for (k = 0; rc == 0 && k < point_windows(disks[i].size); k++)
			rc = vault_put(w, i, &disks[i], k, e);
	}
	if (rc != 0) {
		writer_abort(w);
		return rc;
	}
	return writer_commit(w, &o, p, e);
}

struct comparing {
	struct view *v;
	struct chunk_reader *r;
	uint8_t want[WINDOW_SIZE], have[WINDOW_SIZE];
	uint64_t chunks[4096];
};

static int
compare_disk(struct comparing *x, size_t disk, const struct vault_disk *d, struct lc_err *e)
{
	uint64_t n = point_windows(d->size), first, k;
	int rc = 0;

	for (first = 0; rc == 0 && first < n; first += 4096) {
		uint32_t part = (uint32_t)(n - first < 4096 ? n - first : 4096);

		rc = view_map(x->v, disk, first, part, x->chunks, e);
		for (k = 0; rc == 0 && k < part; k++) {
			fill_of(d, first + k, x->want);
			memset(x->have, 0, sizeof x->have);
			if (x->chunks[k] != 0)
				rc = chunk_read(x->r, x->chunks[k], x->have, NULL, e);
			if (rc == 0 && memcmp(x->want, x->have, WINDOW_SIZE) != 0)
				rc = lc_fail(e, LC_ECORRUPT, 0,
				             "%s/%s: window %llu is not what was put (%llu)",
				             view_point(x->v)->vm, d->name,
				             (unsigned long long)(first + k),
				             (unsigned long long)d->codes[first + k]);
		}
	}
	return rc;
}

int
vault_compare(struct store *s, const uint8_t id[POINT_ID_SIZE], const struct vault_disk *disks,
              size_t n, struct lc_err *e)
{
	struct comparing *x = calloc(1, sizeof *x);
	const struct point *p;
	size_t i;
	int rc;

	assert(x != NULL);
	rc = store_view(s, id, &x->v, e);
	rc = rc != 0 ? rc : chunk_reader_new(s, &x->r, e);
	if (rc == 0) {
		p = view_point(x->v);
		if (p->ndisks != n)
			rc = lc_fail(e, LC_ECORRUPT, 0, "%zu disks, not %zu", p->ndisks, n);
		for (i = 0; rc == 0 && i < n; i++) {
			if (strcmp(p->disks[i].name, disks[i].name) != 0 ||
			    p->disks[i].size != disks[i].size)
				rc = lc_fail(e, LC_ECORRUPT, 0, "disk %zu is %s of %llu", i,
				             p->disks[i].name,
				             (unsigned long long)p->disks[i].size);
			rc = rc != 0 ? rc : compare_disk(x, i, &disks[i], e);
		}
	}
	chunk_reader_free(x->r);
	view_close(x->v);
	free(x);
	return rc;
}

int
vault_verify(struct store *s, const uint8_t id[POINT_ID_SIZE], struct lc_err *e)
{
	struct verified *none;
	struct view *v;
	int rc = store_view(s, id, &v, e);

	if (rc != 0)
		return rc;
	/* The usual range is cleared word by word under a sanitizer, each time. */
	rc = verified_new(1 << 20, &none, e);
	if (rc == 0) {
		rc = view_verify(v, none, 2, NULL, NULL, e);
		verified_free(none);
	}
	view_close(v);
	return rc;
}

void
vault_spoil(struct vault *v, int nth, bool rebuild)
{
	struct store_opts o = {.dir = v->dir, .key_dir = v->keys};
	struct lc_err e = LC_ERR_INIT;
	struct vault_piece piece;

	vault_close(v);
	if (!vault_piece_of(v->dir, RECORD_CHUNK, nth, &piece))
		die("spoil", NULL);
	vault_flip(v->dir, &piece, 5000, 1);
	if (rebuild && store_rebuild(&o, &e) != 0)
		die("rebuild", &e);
	vault_open(v);
}

void
vault_on_damage(void *damage, const struct damage *d)
{
	*(struct damage *)damage = *d;
}

int
vault_have_all(void *unused, const uint8_t *ids, size_t n, uint8_t *bits, struct lc_err *e)
{
	(void)unused;
	(void)ids;
	(void)e;
	memset(bits, 0xff, (n + 7) / 8);
	return 0;
}
