#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/base/files.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"
#include "tests/unit/folder.h"

const uint8_t folder_store[16] = "a store", folder_domain[16] = "a domain";
static const uint8_t keys[] = "keys";

static int
see(void *arg, const struct record *r, struct lc_span payload, struct lc_err *e)
{
	struct seen *x = arg;

	(void)e;
	x->records++;
	x->commits += r->type == RECORD_COMMIT;
	if (r->seq != 0)
		x->last_seq = r->seq;
	if (r->type != RECORD_INDEX)
		x->sum = x->sum * 31 + r->seq * 7 + r->off + r->n + r->type;
	(void)payload;
	return 0;
}

static void
see_bad(void *arg, uint64_t off, uint64_t n, const struct record *r)
{
	struct seen *x = arg;

	if (x->bad++ == 0) {
		x->bad_off = off;
		x->bad_n = n;
		x->bad_type = r == NULL ? 0 : r->type;
	}
}

int
seen_entry(void *arg, const struct record *r, struct lc_err *e)
{
	return see(arg, r, (struct lc_span){0}, e);
}

struct segment_scan
seen_scan(struct seen *x)
{
	memset(x, 0, sizeof *x);
	return (struct segment_scan){.on_record = see, .on_bad = see_bad, .arg = x};
}

void
folder_open(struct folder *f)
{
	assert_int_equal(segments_open(f->dir, folder_store, folder_domain, &f->s, NULL), 0);
}

void
folder_resume(struct folder *f, uint64_t seq)
{
	assert_int_equal(segments_resume(f->s, (struct lc_span){keys, sizeof keys}, seq, NULL), 0);
}

void
folder_make(struct folder *f)
{
	f->top = tmpdir_new();
	f->dir = path_join(f->top, "segments");
	assert_int_equal(dir_make(f->dir, 0700, NULL), 0);
	folder_open(f);
	folder_resume(f, 1);
}

void
folder_free(struct folder *f)
{
	segments_close(f->s);
	lc_free(f->dir);
	tmpdir_free(f->top);
}

void
folder_again(struct folder *f)
{
	segments_close(f->s);
	folder_open(f);
}

struct record
folder_append(struct folder *f, int type, uint32_t n)
{
	uint8_t *p = calloc(1, n + 1);
	struct record r = {.type = (uint8_t)type, .n = n};
	struct lc_err e = LC_ERR_INIT;

	memset(p, type + (int)n, n);
	if (type == RECORD_CHUNK && n >= 32)
		memcpy(r.id, p, 32);
	if (segments_append(f->s, &r, p, &e) != 0)
		fail_msg("%s", e.msg);
	free(p);
	return r;
}

void
folder_sync(struct folder *f)
{
	assert_int_equal(segments_sync(f->s, NULL, NULL), 0);
}

struct segment_info
folder_info(struct folder *f, size_t i)
{
	struct segment_info *list, one;
	size_t n;

	assert_int_equal(segments_list(f->s, &list, &n, NULL), 0);
	assert_true(i < n);
	one = list[i];
	lc_free(list);
	return one;
}

size_t
folder_count(struct folder *f)
{
	struct segment_info *list;
	size_t n;

	assert_int_equal(segments_list(f->s, &list, &n, NULL), 0);
	lc_free(list);
	return n;
}

const char *
folder_file(struct folder *f, const struct segment_info *seg)
{
	char name[32];

	return tmpdir_path(f->dir, segment_name(name, seg->no, seg->sealed));
}

void
folder_poke(struct folder *f, const struct segment_info *seg, uint64_t off, const void *p, size_t n)
{
	FILE *x = fopen(folder_file(f, seg), "r+");

	assert_non_null(x);
	assert_int_equal(fseek(x, (long)off, SEEK_SET), 0);
	assert_int_equal(fwrite(p, 1, n, x), n);
	assert_int_equal(fclose(x), 0);
}

void
folder_flip(struct folder *f, const struct segment_info *seg, uint64_t off)
{
	struct lc_buf b = {0};
	uint8_t c;

	assert_int_equal(file_read_all(folder_file(f, seg), 1u << 30, &b, NULL), 0);
	c = b.p[off] ^ 0x10;
	folder_poke(f, seg, off, &c, 1);
	lc_buf_free(&b);
}

int
folder_adopt(struct folder *f, uint64_t from, bool last, struct seen *x, struct lc_err *e)
{
	struct segment_scan scan = seen_scan(x);
	struct segment_info seg = folder_info(f, 0);

	return segments_adopt(f->s, &seg, from, last, &scan, e);
}

void
folder_log(struct folder *f, uint64_t off[6])
{
	static const int types[] = {RECORD_CHUNK, RECORD_COMMIT, RECORD_CHUNK, RECORD_CHUNK};
	struct record r = {0};
	size_t i;

	off[0] = SEGMENT_HEADER_SIZE;
	for (i = 0; i < 4; i++) {
		r = folder_append(f, types[i], (uint32_t)(61 + i));
		off[i + 1] = r.off;
	}
	off[5] = r.off + record_size(r.n);
	folder_sync(f);
	folder_again(f);
}

uint64_t
folder_sum(struct folder *f)
{
	return vault_sum(f->top);
}
