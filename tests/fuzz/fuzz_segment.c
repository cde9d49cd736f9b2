/*
 * segment: a file that is no segment, or one that was cut and flipped, is read without harm; what
 * is taken over afterwards is what was reported, and nothing behind a commit was cut.
 *
 * First byte: 0 the rest is the file; else a good log, to which the rest is done: 3 bytes each,
 * offset and what is flipped there, and at last where it is cut.  Bit 1: sealed.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/segment_internal.h"
#include "tests/fuzz/fuzz.h"

static const uint8_t id[16] = "fuzz";
static char dir[64], open_path[128], seg_path[128];
static uint8_t good[1 << 16];
static size_t ngood;

struct seen {
	uint64_t records, committed, sum, bad, end;
};

static int
see(void *arg, const struct record *r, struct lc_span payload, struct lc_err *e)
{
	struct seen *s = arg;

	(void)e;
	fuzz_check(r->n <= RECORD_PAYLOAD_MAX && payload.n == r->n && r->off >= s->end);
	s->end = r->off + record_size(r->n);
	s->records++;
	if (r->type != RECORD_INDEX)
		s->sum = s->sum * 31 + r->off + r->n + r->type;
	if (r->type == RECORD_COMMIT)
		s->committed = s->end;
	return 0;
}

static void
see_bad(void *arg, uint64_t off, uint64_t n, const struct record *r)
{
	struct seen *s = arg;

	(void)off;
	(void)r;
	fuzz_check(n > 0);
	s->bad++;
}

static int
see_entry(void *arg, const struct record *r, struct lc_err *e)
{
	(void)e;
	(void)arg;
	fuzz_check(r->n <= RECORD_PAYLOAD_MAX);
	return 0;
}

static void
make_good(void)
{
	static const int types[] = {RECORD_CHUNK, RECORD_MAP, RECORD_COMMIT, RECORD_CHUNK,
	                            RECORD_CHUNK, RECORD_MAP, RECORD_COMMIT, RECORD_CHUNK};
	struct segments *s;
	struct lc_buf b = {0};
	uint8_t p[300];
	size_t i;

	memset(p, 7, sizeof p);
	fuzz_check(segments_open(dir, id, id, &s, NULL) == 0);
	fuzz_check(segments_resume(s, (struct lc_span){p, 40}, 1, NULL) == 0);
	for (i = 0; i < sizeof types / sizeof types[0]; i++) {
		struct record r = {.type = (uint8_t)types[i], .n = (uint32_t)(60 + 20 * i)};

		fuzz_check(segments_append(s, &r, p, NULL) == 0);
	}
	fuzz_check(segments_sync(s, NULL, NULL) == 0);
	segments_close(s);
	fuzz_check(file_read_all(open_path, sizeof good, &b, NULL) == 0);
	memcpy(good, b.p, b.n);
	ngood = b.n;
	lc_buf_free(&b);
}

static void
setup(void)
{
	(void)snprintf(dir, sizeof dir, "%s/locum-fuzz-XXXXXX",
	               access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	fuzz_check(mkdtemp(dir) != NULL);
	(void)snprintf(open_path, sizeof open_path, "%s/0000000000000001.open", dir);
	(void)snprintf(seg_path, sizeof seg_path, "%s/0000000000000001.seg", dir);
	log_set_level(LOG_LV_ERROR);
	make_good();
}

static void
put_file(const char *path, const uint8_t *p, size_t n)
{
	FILE *f;

	(void)unlink(open_path);
	(void)unlink(seg_path);
	f = fopen(path, "w");
	fuzz_check(f != NULL && fwrite(p, 1, n, f) == n && fclose(f) == 0);
}

static int
look(struct segments *s, const struct segment_info *seg, struct seen *x)
{
	struct segment_scan scan = {.on_record = see, .on_bad = see_bad, .arg = x};
	struct segment_extent extent;
	struct lc_err e = LC_ERR_INIT;
	int rc;

	memset(x, 0, sizeof *x);
	rc = segment_scan(s, seg, 0, &scan, &extent, &e);
	fuzz_check(rc == e.code);
	fuzz_check(rc == 0 || rc == LC_EVERSION || rc == LC_ECONFLICT);
	if (rc == 0 && x->records > 0)
		fuzz_check(extent.good == x->end && extent.committed >= x->committed);
	return rc;
}

static void
take_over(struct segments *s, const struct segment_info *seg, const struct seen *before)
{
	struct seen told = {0}, after;
	struct segment_scan scan = {.on_record = see, .on_bad = see_bad, .arg = &told};
	struct segment_info *list;
	size_t n;

	fuzz_check(segments_adopt(s, seg, 0, true, &scan, NULL) == 0);
	fuzz_check(segments_list(s, &list, &n, NULL) == 0);
	fuzz_check(n <= 1);
	if (n == 1) {
		fuzz_check(look(s, &list[0], &after) == 0);
		fuzz_check(after.sum == told.sum);
		fuzz_check(after.committed == before->committed);
		fuzz_check(list[0].bytes >= before->committed);
	} else {
		/* Set aside: neither its header nor a commit is there to say that any of it was
		 * acknowledged. */
		fuzz_check(before->committed == 0);
	}
	lc_free(list);
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static uint8_t file[sizeof good];
	struct segment_info seg = {.no = 1};
	struct lc_buf keys = {0};
	struct segments *s;
	struct seen x;
	size_t size, i;
	int rc;

	if (ngood == 0)
		setup();
	if (n == 0 || n > sizeof file)
		return 0;
	seg.sealed = (p[0] & 2) != 0;
	if ((p[0] & 1) == 0) {
		size = n - 1;
		memcpy(file, p + 1, size);
	} else {
		memcpy(file, good, ngood);
		size = ngood;
		for (i = 1; i + 3 <= n; i += 3)
			file[lc_get16(p + i) % ngood] ^= p[i + 2];
		if (i + 2 <= n)
			size = lc_get16(p + i) % (ngood + 1);
	}
	seg.bytes = size;
	put_file(seg.sealed ? seg_path : open_path, file, size);
	fuzz_check(segments_open(dir, id, id, &s, NULL) == 0);
	rc = look(s, &seg, &x);
	(void)segment_index(s, &seg, see_entry, NULL, NULL);
	(void)segment_keys(s, &seg, &keys, NULL);
	lc_buf_free(&keys);
	if (rc == 0 && !seg.sealed)
		take_over(s, &seg, &x);
	segments_close(s);
	return 0;
}
