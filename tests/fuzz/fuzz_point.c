/*
 * point: entries that are taken can be written again; of a header that somebody with the key made
 * (a captured writer), names are texts that end, and nothing is taken in part.
 *
 * The first byte says what the rest is: a POINT entry, or the plaintext of a header with that many
 * disks less one.
 */
#include <string.h>

#include "store/point.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/vectors_keys.h"

static struct keyring *keys;

static void
fuzz_entry(struct lc_span entry)
{
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf again = {0};
	struct lc_span sealed;
	static struct point p;
	int rc = point_decode(entry, &p, &sealed, &e);

	fuzz_check(rc == e.code);
	if (rc != 0) {
		fuzz_check(rc == LC_ECORRUPT || rc == LC_EVERSION);
		return;
	}
	fuzz_check(p.ndisks <= POINT_DISKS_MAX && !p.opened);
	fuzz_check(point_encode(&p, sealed, &again, &e) == 0);
	fuzz_check(again.n == entry.n && memcmp(again.p, entry.p, entry.n) == 0);
	lc_buf_free(&again);
	rc = point_open_header(keys, sealed, &p, &e);
	fuzz_check(rc == e.code && p.opened == (rc == 0));
	point_done(&p);
}

static void
is_text(const char *s, size_t max)
{
	fuzz_check(memchr(s, 0, max) != NULL);
}

static void
fuzz_header(size_t ndisks, struct lc_span plain)
{
	static struct point p, out;
	struct lc_err e = LC_ERR_INIT;
	uint8_t ad[5 + 48 + 4 + 8 + 8 + 33 * POINT_DISKS_MAX] = "point";
	struct lc_buf sealed = {0};
	size_t i, n = 5 + 48 + 4 + 8 + 8 + 33 * ndisks;
	int rc;

	/* All else about the point is zero, and so is what the header is bound to. */
	memset(&p, 0, sizeof p);
	p.ndisks = ndisks;
	fuzz_check(seal_blob(keys, (struct lc_span){ad, n}, plain, &sealed, &e) == 0);
	out = p;
	rc = point_open_header(keys, (struct lc_span){sealed.p, sealed.n}, &out, &e);
	fuzz_check(rc == e.code && out.opened == (rc == 0));
	fuzz_check(rc == 0 || rc == LC_ECORRUPT);
	if (rc == 0) {
		is_text(out.vm, sizeof out.vm);
		fuzz_check(out.vm[0] != '\0');
		for (i = 0; i < ndisks; i++) {
			is_text(out.disks[i].name, sizeof out.disks[i].name);
			is_text(out.disks[i].stamp, sizeof out.disks[i].stamp);
		}
		fuzz_check(out.definition == NULL ||
		           strlen(out.definition) <= POINT_DEFINITION_MAX);
	}
	point_done(&out);
	lc_buf_free(&sealed);
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	if (keys == NULL) {
		const struct lc_span all = {vector_keys, sizeof vector_keys};

		fuzz_check(keyring_open_code(all, VECTOR_CODE, &keys, NULL) == 0);
	}
	if (n == 0)
		return 0;
	if (p[0] == 0)
		fuzz_entry((struct lc_span){p + 1, n - 1});
	else if (p[0] <= POINT_DISKS_MAX)
		fuzz_header(p[0] - 1u, (struct lc_span){p + 1, n - 1});
	return 0;
}
