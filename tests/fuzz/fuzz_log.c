/*
 * log: a store in which every checksum is right and what it says is not (a hostile writer, a
 * hostile replica) is opened, listed, read and scrubbed without harm.
 *
 * Input: records, each u8 type and, in its upper two bits, writer, u16 length, payload.  "#" in a
 * payload at the places of ids is as good as any.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/segment.h"
#include "store/store.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/vectors_keys.h"

static const uint8_t id[16] = "fuzz";
static char top[64], segments_dir[128];

static void
setup(void)
{
	(void)snprintf(top, sizeof top, "%s/locum-fuzz-XXXXXX",
	               access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	fuzz_check(mkdtemp(top) != NULL);
	(void)snprintf(segments_dir, sizeof segments_dir, "%s/segments", top);
	log_set_level((enum log_level) - 1);
}

static void
write_log(const uint8_t *p, size_t n)
{
	struct record first = {.type = RECORD_COMMIT, .n = 8};
	static const uint8_t nothing[8];
	struct segments *s;
	size_t i, len;

	dir_remove(segments_dir);
	fuzz_check(dir_make(segments_dir, 0700, NULL) == 0);
	fuzz_check(segments_open(segments_dir, id, vector_domain, &s, NULL) == 0);
	fuzz_check(segments_resume(s, (struct lc_span){vector_keys, sizeof vector_keys}, 1, NULL) ==
	           0);
	fuzz_check(segments_append(s, &first, nothing, NULL) == 0);
	for (i = 0; i + 3 <= n; i += 3 + len) {
		struct record r = {.type = p[i] & 63u};

		len = lc_get16(p + i + 1);
		if (len > n - i - 3)
			len = n - i - 3;
		r.n = (uint32_t)len;
		if (r.type == RECORD_CHUNK && len < 32)
			continue;
		if (r.type == RECORD_CHUNK || r.type == RECORD_MAP || r.type == RECORD_VOUCH)
			r.writer = p[i] >> 6;
		fuzz_check(segments_append(s, &r, p + i + 3, NULL) == 0);
	}
	fuzz_check(segments_sync(s, NULL, NULL) == 0);
	segments_close(s);
}

static void
read_points(struct store *s, const struct point_list *l)
{
	uint64_t chunks[64];
	struct view *v;
	size_t i, k;

	for (i = 0; i < l->n; i++) {
		if (store_view(s, l->points[i].id, &v, NULL) != 0)
			continue;
		for (k = 0; k < view_point(v)->ndisks; k++) {
			(void)view_map(v, k, 0, 64, chunks, NULL);
			(void)view_map(v, k, UINT64_C(1) << 46, 64, chunks, NULL);
		}
		view_close(v);
	}
}

static void
open_and_look(bool with_key)
{
	struct store_opts o = {.dir = top, .no_key = !with_key};
	struct lc_err e = LC_ERR_INIT;
	struct point_list l;
	struct store *s;
	int rc;

	if (with_key)
		o.recovery_code = VECTOR_CODE;
	rc = store_open(&o, &s, &e);
	fuzz_check(rc == e.code);
	fuzz_check(rc == 0 || rc == LC_EVERSION || rc == LC_ECORRUPT);
	if (rc != 0)
		return;
	if (store_points(s, NULL, &l, NULL) == 0) {
		read_points(s, &l);
		point_list_free(&l);
	}
	rc = store_scrub(s, NULL, NULL, NULL, NULL, NULL);
	fuzz_check(rc == 0 || rc == LC_ECORRUPT);
	store_close(s);
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	char path[160];

	if (top[0] == '\0')
		setup();
	write_log(p, n);
	(void)snprintf(path, sizeof path, "%s/catalog.sqlite", top);
	(void)unlink(path);
	(void)snprintf(path, sizeof path, "%s/store", top);
	(void)unlink(path);
	open_and_look(n % 2 == 0);
	return 0;
}
