#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "store/commit.h"
#include "store/maprec.h"
#include "store/segment_internal.h"
#include "store/store_internal.h"
#include "store/transfer.h"
#include "tests/bench/synthetic.h"

#define POINTS_APART_NS (INT64_C(600) * LC_NS_PER_S)

struct maker {
	const struct synthetic *what;
	struct store *s; /* whose keys and identity it gets; lies elsewhere */
	const char *segments;
	struct lc_buf keys;
	/* The segment in hand. */
	int fd; /* -1: none */
	uint64_t no, size, seq;
	struct record *records;
	size_t n;
	/* The map. */
	uint32_t *chunks;    /* [windows]: which one is there, counted from 1 */
	uint64_t nchunks;    /* made so far */
	uint64_t rows;       /* of the point in hand */
	struct set_sum set;  /* of the whole map */
	struct set_sum sum;  /* keyless, of its rows */
	struct point *point; /* the one in hand */
	uint8_t base[POINT_ID_SIZE];
	struct map_record map;
};

void
synthetic_id(uint64_t n, uint8_t id[32])
{
	XXH128_hash_t a = XXH3_128bits_withSeed(&n, sizeof n, 1);
	XXH128_hash_t b = XXH3_128bits_withSeed(&n, sizeof n, 2);

	memcpy(id, &a, 16);
	memcpy(id + 16, &b, 16);
}

/* ---- segments ---- */

static int
seal(struct maker *m, struct lc_err *e)
{
	struct record r = {.type = RECORD_INDEX, .segment = m->no, .off = m->size};
	uint8_t h[RECORD_HEADER_SIZE], t[SEGMENT_TRAILER_SIZE];
	struct lc_buf b = {0};
	int rc = 0;

	if (m->fd < 0)
		return 0;
	if (segment_index_encode(m->records, m->n, &b) != 0)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	r.n = (uint32_t)b.n;
	record_header_encode(&r, XXH3_64bits(b.p, b.n), h);
	m->size += record_size(r.n);
	segment_trailer_encode(m->no, r.off, m->size + sizeof t, t);
	rc = file_pwrite_full(m->fd, h, sizeof h, r.off, "segment", e);
	rc = rc != 0 ? rc
	             : file_pwrite_full(m->fd, b.p, b.n, r.off + RECORD_HEADER_SIZE, "segment", e);
	rc = rc != 0 ? rc : file_pwrite_full(m->fd, t, sizeof t, m->size, "segment", e);
	lc_buf_free(&b);
	fd_close(&m->fd);
	return rc;
}

static int put(struct maker *m, struct record *r, const uint8_t *payload, struct lc_err *e);

static int
begin(struct maker *m, struct lc_err *e)
{
	struct segment_header h = {
	    .no = m->no + 1, .first_seq = m->seq + 1, .made_ns = clock_wall_ns()};
	struct record keys = {.type = RECORD_KEYS, .n = (uint32_t)m->keys.n};
	uint8_t raw[SEGMENT_HEADER_SIZE];
	char name[32], *path = path_join(m->segments, segment_name(name, h.no, true));
	int rc;

	if (path == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	m->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	rc = m->fd < 0 ? lc_fail_errno(e, "%s", path) : 0;
	lc_free(path);
	if (rc != 0)
		return rc;
	m->no = h.no;
	m->n = 0;
	m->size = SEGMENT_HEADER_SIZE;
	memcpy(h.store_id, m->s->id, 16);
	memcpy(h.domain, m->s->domain, 16);
	segment_header_encode(&h, raw);
	rc = file_pwrite_full(m->fd, raw, sizeof raw, 0, "segment", e);
	return rc != 0 ? rc : put(m, &keys, m->keys.p, e);
}

/* payload NULL: a hole. */
static int
put(struct maker *m, struct record *r, const uint8_t *payload, struct lc_err *e)
{
	uint8_t h[RECORD_HEADER_SIZE];
	int rc = 0;

	if (m->fd >= 0 &&
	    (m->n == SEGMENT_RECORDS_MAX || m->size + record_size(r->n) > SEGMENT_SIZE))
		rc = seal(m, e);
	if (rc == 0 && m->fd < 0)
		rc = begin(m, e);
	if (rc != 0)
		return rc;
	r->segment = m->no;
	r->off = m->size;
	r->seq = ++m->seq;
	m->records[m->n++] = *r;
	m->size += record_size(r->n);
	if (payload == NULL)
		return 0;
	record_header_encode(r, XXH3_64bits(payload, r->n), h);
	rc = file_pwrite_full(m->fd, h, sizeof h, r->off, "segment", e);
	return rc != 0 ? rc
	               : file_pwrite_full(m->fd, payload, r->n, r->off + RECORD_HEADER_SIZE,
	                                  "segment", e);
}

/* ---- points ---- */

static int
put_map(struct maker *m, struct lc_err *e)
{
	struct record r = {.type = RECORD_MAP};
	struct lc_buf b = {0};
	int rc;

	if (m->map.n == 0)
		return 0;
	rc = maprec_encode(&m->map, &b, e);
	r.n = (uint32_t)b.n;
	rc = rc != 0 ? rc : put(m, &r, b.p, e);
	lc_buf_free(&b);
	m->map.n = 0;
	return rc;
}

static void
add_row(struct set_sum *sum, const uint8_t *key, const uint8_t *disk, uint64_t window,
        const uint8_t *id, bool out)
{
	struct set_sum one;

	set_row(key, disk, window, id, &one);
	if (out)
		set_sub(sum, &one);
	else
		set_add(sum, &one);
}

/* A new content in that window. */
static int
change(struct maker *m, uint64_t window, struct lc_err *e)
{
	const uint8_t *key = keyring_set(m->s->keyring), *disk = m->point->disks[0].id;
	struct record r = {.type = RECORD_CHUNK,
	                   .encoding = CHUNK_ZSTD,
	                   .key = keyring_data_number(m->s->keyring)};
	struct map_row *row = &m->map.rows[m->map.n];
	uint8_t old[CHUNK_ID_SIZE];
	int rc;

	synthetic_id(m->nchunks++, r.id);
	r.n = 8192 + (r.id[0] | (uint32_t)r.id[1] << 8) % 36000;
	rc = put(m, &r, NULL, e);
	if (m->chunks[window] != 0) {
		synthetic_id(m->chunks[window] - 1, old);
		add_row(&m->set, key, disk, window, old, true);
	}
	m->chunks[window] = (uint32_t)m->nchunks;
	add_row(&m->set, key, disk, window, r.id, false);
	add_row(&m->sum, NULL, disk, window, r.id, false);
	row->window = window;
	row->chunk = 0;
	memcpy(row->id, r.id, sizeof r.id);
	m->rows++;
	if (++m->map.n == MAP_ROWS_MAX)
		rc = rc != 0 ? rc : put_map(m, e);
	return rc;
}

static int
commit_entries(struct maker *m, struct lc_buf *b, struct lc_err *e)
{
	struct point *p = m->point;
	struct lc_buf vm = {0}, sealed = {0}, entry = {0};
	uint8_t line[32];
	int rc = lc_buf_append(&vm, p->vm_id, 16);

	memcpy(line, p->line, 16);
	memcpy(line + 16, p->vm_id, 16);
	rc = rc != 0 ? rc
	             : seal_blob(m->s->keyring, (struct lc_span){p->vm_id, 16},
	                         (struct lc_span){(const uint8_t *)p->vm, strlen(p->vm)}, &vm, e);
	rc = rc != 0 ? rc : point_seal_header(m->s->keyring, p, &sealed, e);
	rc = rc != 0 ? rc : point_encode(p, (struct lc_span){sealed.p, sealed.n}, &entry, e);
	rc = rc != 0 ? rc : commit_start(b, p->commit_ns, e);
	rc = rc != 0 ? rc : commit_add(b, COMMIT_VM, (struct lc_span){vm.p, vm.n}, e);
	rc = rc != 0 ? rc : commit_add(b, COMMIT_LINE, (struct lc_span){line, sizeof line}, e);
	rc = rc != 0 ? rc : commit_add(b, COMMIT_POINT, (struct lc_span){entry.p, entry.n}, e);
	lc_buf_free(&vm);
	lc_buf_free(&sealed);
	lc_buf_free(&entry);
	return rc;
}

static int
commit(struct maker *m, struct lc_err *e)
{
	struct record r = {.type = RECORD_COMMIT};
	struct point *p = m->point;
	struct lc_buf b = {0};
	int rc = put_map(m, e);

	memcpy(p->base, m->base, sizeof p->base);
	p->changed = m->rows;
	p->rows_sum = m->sum;
	p->set = m->set;
	p->counter++;
	rc = rc != 0 ? rc : commit_entries(m, &b, e);
	r.n = (uint32_t)b.n;
	rc = rc != 0 ? rc : put(m, &r, b.p, e);
	lc_buf_free(&b);
	memcpy(m->base, p->id, sizeof m->base);
	return rc;
}

static int
make_point(struct maker *m, uint64_t n, struct lc_err *e)
{
	uint64_t windows = m->what->windows, count = n == 0 ? windows : m->what->changes;
	uint64_t share = windows / count, i, window;
	struct point *p = m->point;
	int rc = 0;

	random_bytes(p->id, sizeof p->id);
	memcpy(m->map.point, p->id, 16);
	p->source_ns = p->commit_ns = clock_wall_ns() -
	                              (int64_t)(m->what->points - n) * POINTS_APART_NS;
	m->rows = 0;
	memset(&m->sum, 0, sizeof m->sum);
	for (i = 0; rc == 0 && i < count; i++) {
		uint64_t key[2] = {n, i};

		window = n == 0 ? i : i * share + XXH3_64bits(key, sizeof key) % share;
		rc = change(m, window, e);
	}
	return rc != 0 ? rc : commit(m, e);
}

static int
make_all(struct maker *m, struct lc_err *e)
{
	struct point *p = m->point;
	uint64_t n;
	int rc = transfer_keys(m->s, &m->keys, e);

	random_bytes(p->vm_id, 16);
	random_bytes(p->line, 16);
	random_bytes(p->disks[0].id, 16);
	(void)snprintf(p->vm, sizeof p->vm, SYNTHETIC_VM);
	(void)snprintf(p->disks[0].name, sizeof p->disks[0].name, "vda");
	p->ndisks = 1;
	p->disks[0].size = m->what->windows * WINDOW_SIZE;
	p->disks[0].covered = m->what->windows;
	memcpy(m->map.line, p->line, 16);
	memcpy(m->map.disk, p->disks[0].id, 16);
	for (n = 0; rc == 0 && n < m->what->points; n++)
		rc = make_point(m, n, e);
	return rc != 0 ? rc : seal(m, e);
}

/* In the place of the segments that init made. */
static int
make_segments(struct store *s, const struct synthetic *what, const char *segments, struct lc_err *e)
{
	struct maker *m = lc_alloc(sizeof *m);
	int rc;

	if (m == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	m->what = what;
	m->s = s;
	m->segments = segments;
	m->fd = -1;
	m->chunks = lc_alloc_array(what->windows, sizeof *m->chunks);
	m->records = lc_alloc_array(SEGMENT_RECORDS_MAX, sizeof *m->records);
	m->point = lc_alloc(sizeof *m->point);
	rc = m->chunks == NULL || m->records == NULL || m->point == NULL
	         ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	         : make_all(m, e);
	fd_close(&m->fd);
	lc_buf_free(&m->keys);
	lc_free(m->chunks);
	lc_free(m->records);
	lc_free(m->point);
	lc_free(m);
	return rc;
}

static int
swap(const char *store, const char *made, struct lc_err *e)
{
	static const char *const old[] = {"segments/0000000000000001.open",
	                                  "segments/0000000000000001.seg", "segments",
	                                  "catalog.sqlite"};
	size_t i;
	int rc = 0;

	for (i = 0; i < sizeof old / sizeof old[0]; i++) {
		char *path = path_join(store, old[i]);

		if (path != NULL)
			(void)remove(path);
		if (path != NULL && i == 2 && rename(made, path) != 0)
			rc = lc_fail_errno(e, "%s", path);
		lc_free(path);
	}
	return rc;
}

int
synthetic_make(const char *dir, const struct synthetic *what, struct lc_err *e)
{
	char store[512], keys[512], kit[512], made[512];
	struct store_init_opts init = {.dir = store, .key_dir = keys, .kit = kit};
	struct store_opts open = {
	    .dir = store, .mode = STORE_WRITE, .who = "bench", .key_dir = keys};
	struct store *s = NULL;
	int rc;

	if (what->windows == 0 || what->points == 0 || what->changes == 0 ||
	    what->changes > what->windows ||
	    what->windows + what->points * what->changes >= UINT32_MAX)
		return lc_fail(e, LC_EINVAL, 0, "no such store");
	(void)snprintf(store, sizeof store, "%s/store", dir);
	(void)snprintf(keys, sizeof keys, "%s/keys", dir);
	(void)snprintf(kit, sizeof kit, "%s/kit", dir);
	(void)snprintf(made, sizeof made, "%s/made", dir);
	rc = dir_make(made, 0700, e);
	rc = rc != 0 ? rc : store_init(&init, e);
	rc = rc != 0 ? rc : store_open(&open, &s, e);
	rc = rc != 0 ? rc : make_segments(s, what, made, e);
	if (s != NULL)
		store_close(s);
	return rc != 0 ? rc : swap(store, made, e);
}
