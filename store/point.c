#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/base/cli.h"
#include "store/point.h"

/* Flags that are in the log. */
#define POINT_STORED ((uint32_t)(POINT_SEED | POINT_FRESH | POINT_FORK))

/* Fields of the sealed header: u16 tag, u32 length, bytes.  Unknown tags are skipped. */
enum {
	TAG_VM = 1,
	TAG_CONSISTENCY = 2,
	TAG_COUNTER = 3,
	TAG_PAUSE = 4,
	TAG_SET = 5,
	TAG_DEFINITION = 6,
	TAG_LEFT_OUT = 7,
	TAG_DISK = 8, /* once per disk, in order: name NUL stamp */
	TAG_FREEZE = 9,
};

void
point_done(struct point *p)
{
	lc_free(p->definition);
	lc_free(p->left_out);
	p->definition = NULL;
	p->left_out = NULL;
}

uint64_t
point_windows(uint64_t size)
{
	return size / WINDOW_SIZE + (size % WINDOW_SIZE != 0);
}

static int
put_field(struct lc_buf *b, uint16_t tag, const void *p, size_t n)
{
	int rc = lc_wr16(b, tag);

	rc = rc != 0 ? rc : lc_wr32(b, (uint32_t)n);
	return rc != 0 ? rc : lc_buf_append(b, p, n);
}

static int
put_u64(struct lc_buf *b, uint16_t tag, uint64_t v)
{
	uint8_t t[8];

	lc_put64(t, v);
	return put_field(b, tag, t, sizeof t);
}

/* What the header is bound to: it can't be moved to another point, line or set of disks. */
static int
header_ad(const struct point *p, struct lc_buf *ad)
{
	size_t i;
	int rc = lc_buf_append(ad, "point", 5);

	rc = rc != 0 ? rc : lc_buf_append(ad, p->id, sizeof p->id);
	rc = rc != 0 ? rc : lc_buf_append(ad, p->line, sizeof p->line);
	rc = rc != 0 ? rc : lc_buf_append(ad, p->base, sizeof p->base);
	rc = rc != 0 ? rc : lc_wr32(ad, p->flags & POINT_STORED);
	rc = rc != 0 ? rc : lc_wr64(ad, p->epoch);
	rc = rc != 0 ? rc : lc_wr64(ad, (uint64_t)p->source_ns);
	for (i = 0; rc == 0 && i < p->ndisks; i++) {
		rc = lc_buf_append(ad, p->disks[i].id, sizeof p->disks[i].id);
		rc = rc != 0 ? rc : lc_wr64(ad, p->disks[i].size);
		rc = rc != 0 ? rc : lc_wr64(ad, p->disks[i].covered);
		rc = rc != 0 ? rc : lc_wr8(ad, p->disks[i].role);
	}
	return rc;
}

static int
put_header(const struct point *p, struct lc_buf *b)
{
	size_t i;
	int rc = put_field(b, TAG_VM, p->vm, strlen(p->vm));

	rc = rc != 0 ? rc : put_field(b, TAG_CONSISTENCY, &p->consistency, 1);
	rc = rc != 0 ? rc : put_u64(b, TAG_COUNTER, p->counter);
	rc = rc != 0 ? rc : put_u64(b, TAG_PAUSE, (uint64_t)p->pause_ns);
	rc = rc != 0 ? rc : put_field(b, TAG_SET, p->set.v, sizeof p->set.v);
	if (rc == 0 && p->definition != NULL)
		rc = put_field(b, TAG_DEFINITION, p->definition, strlen(p->definition));
	if (rc == 0 && p->left_out != NULL)
		rc = put_field(b, TAG_LEFT_OUT, p->left_out, strlen(p->left_out));
	if (rc == 0 && p->freeze[0] != '\0')
		rc = put_field(b, TAG_FREEZE, p->freeze, strlen(p->freeze));
	for (i = 0; rc == 0 && i < p->ndisks; i++) {
		const struct point_disk *d = &p->disks[i];
		struct lc_buf f = {0};

		rc = lc_buf_append(&f, d->name, strlen(d->name) + 1);
		rc = rc != 0 ? rc : lc_buf_append(&f, d->stamp, strlen(d->stamp));
		rc = rc != 0 ? rc : put_field(b, TAG_DISK, f.p, f.n);
		lc_buf_free(&f);
	}
	return rc;
}

int
point_seal_header(const struct keyring *k, const struct point *p, struct lc_buf *out,
                  struct lc_err *e)
{
	struct lc_buf plain = {0}, ad = {0};
	int rc = put_header(p, &plain);

	rc = rc != 0 ? rc : header_ad(p, &ad);
	if (rc != 0)
		(void)lc_fail(e, LC_ENOMEM, 0, "point header: out of memory");
	else
		rc = seal_blob(k, (struct lc_span){ad.p, ad.n}, (struct lc_span){plain.p, plain.n},
		               out, e);
	lc_buf_free(&plain);
	lc_buf_free(&ad);
	return rc;
}

bool
point_name_ok(const char *name)
{
	char copy[POINT_NAME_MAX];
	int n = snprintf(copy, sizeof copy, "%s", name);

	return n > 0 && (size_t)n < sizeof copy && strchr(name, '/') == NULL &&
	       cli_tame(copy, (size_t)n, "") == 0;
}

static bool
get_text(struct lc_span f, char *dst, size_t max)
{
	if (f.n >= max || memchr(f.p, 0, f.n) != NULL)
		return false;
	memcpy(dst, f.p, f.n);
	dst[f.n] = '\0';
	return true;
}

static bool
get_owned(struct lc_span f, size_t max, char **dst)
{
	char *copy;

	if (f.n > max || memchr(f.p, 0, f.n) != NULL || *dst != NULL)
		return false;
	copy = lc_alloc(f.n + 1);
	if (copy == NULL)
		return false;
	memcpy(copy, f.p, f.n);
	/* A writer may say to people what it likes, but nothing to their terminals. */
	(void)cli_tame(copy, f.n, "\n\t");
	*dst = copy;
	return true;
}

static bool
get_disk(struct lc_span f, struct point_disk *d)
{
	const uint8_t *nul = memchr(f.p, 0, f.n);
	size_t n;

	if (nul == NULL)
		return false;
	n = (size_t)(nul - f.p);
	return get_text((struct lc_span){f.p, n}, d->name, sizeof d->name) &&
	       point_name_ok(d->name) &&
	       get_text((struct lc_span){nul + 1, f.n - n - 1}, d->stamp, sizeof d->stamp);
}

static bool
get_field(uint16_t tag, struct lc_span f, struct point *p, size_t *disk)
{
	switch (tag) {
	case TAG_VM:
		return get_text(f, p->vm, sizeof p->vm) && point_name_ok(p->vm);
	case TAG_CONSISTENCY:
		p->consistency = f.n == 1 ? f.p[0] : 0;
		return f.n == 1;
	case TAG_COUNTER:
		p->counter = f.n == 8 ? lc_get64(f.p) : 0;
		return f.n == 8;
	case TAG_PAUSE:
		p->pause_ns = f.n == 8 ? (int64_t)lc_get64(f.p) : 0;
		return f.n == 8;
	case TAG_SET:
		if (f.n != sizeof p->set.v)
			return false;
		memcpy(p->set.v, f.p, f.n);
		return true;
	case TAG_DEFINITION:
		return get_owned(f, POINT_DEFINITION_MAX, &p->definition);
	case TAG_LEFT_OUT:
		return get_owned(f, POINT_DEFINITION_MAX, &p->left_out);
	case TAG_DISK:
		return *disk < p->ndisks && get_disk(f, &p->disks[(*disk)++]);
	case TAG_FREEZE:
		if (!get_text(f, p->freeze, sizeof p->freeze))
			return false;
		(void)cli_tame(p->freeze, f.n, "");
		return true;
	default:
		return true;
	}
}

int
point_open_header(const struct keyring *k, struct lc_span sealed, struct point *p, struct lc_err *e)
{
	struct lc_buf plain = {0}, ad = {0};
	struct lc_rd r;
	size_t disk = 0;
	int rc = header_ad(p, &ad);

	if (rc != 0)
		rc = lc_fail(e, LC_ENOMEM, 0, "point header: out of memory");
	else
		rc = open_blob(k, (struct lc_span){ad.p, ad.n}, sealed, &plain, e);
	r = lc_rd_over(plain.p, plain.n);
	while (rc == 0 && r.n > 0) {
		uint16_t tag = lc_rd16(&r);
		struct lc_span f = {.n = lc_rd32(&r)};

		f.p = lc_rd_bytes(&r, f.n);
		if (!lc_rd_ok(&r) || !get_field(tag, f, p, &disk))
			rc = lc_fail(e, LC_ECORRUPT, 0, "point header: malformed field %u", tag);
	}
	if (rc == 0 && (disk != p->ndisks || p->vm[0] == '\0'))
		rc = lc_fail(e, LC_ECORRUPT, 0, "point header: incomplete");
	p->opened = rc == 0;
	lc_buf_free(&plain);
	lc_buf_free(&ad);
	return rc;
}

int
point_encode(const struct point *p, struct lc_span sealed, struct lc_buf *out, struct lc_err *e)
{
	size_t i;
	int rc = lc_buf_append(out, p->id, 16);

	rc = rc != 0 ? rc : lc_buf_append(out, p->line, 16);
	rc = rc != 0 ? rc : lc_buf_append(out, p->base, 16);
	rc = rc != 0 ? rc : lc_wr32(out, p->flags & POINT_STORED);
	rc = rc != 0 ? rc : lc_wr32(out, (uint32_t)p->ndisks);
	rc = rc != 0 ? rc : lc_wr64(out, p->epoch);
	rc = rc != 0 ? rc : lc_wr64(out, (uint64_t)p->source_ns);
	rc = rc != 0 ? rc : lc_wr64(out, p->changed);
	rc = rc != 0 ? rc : lc_wr64(out, p->stored);
	rc = rc != 0 ? rc : lc_buf_append(out, p->rows_sum.v, sizeof p->rows_sum.v);
	for (i = 0; rc == 0 && i < p->ndisks; i++) {
		rc = lc_buf_append(out, p->disks[i].id, 16);
		rc = rc != 0 ? rc : lc_wr64(out, p->disks[i].size);
		rc = rc != 0 ? rc : lc_wr64(out, p->disks[i].covered);
		rc = rc != 0 ? rc : lc_wr64(out, p->disks[i].role);
	}
	rc = rc != 0 ? rc : lc_wr32(out, (uint32_t)sealed.n);
	rc = rc != 0 ? rc : lc_buf_append(out, sealed.p, sealed.n);
	return rc == 0 ? 0 : lc_fail(e, LC_ENOMEM, 0, "point: out of memory");
}

int
point_decode(struct lc_span entry, struct point *p, struct lc_span *sealed, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(entry.p, entry.n);
	uint32_t ndisks;
	size_t i;

	memset(p, 0, sizeof *p);
	lc_rd_copy(&r, p->id, 16);
	lc_rd_copy(&r, p->line, 16);
	lc_rd_copy(&r, p->base, 16);
	p->flags = lc_rd32(&r);
	ndisks = lc_rd32(&r);
	p->epoch = lc_rd64(&r);
	p->source_ns = (int64_t)lc_rd64(&r);
	p->changed = lc_rd64(&r);
	p->stored = lc_rd64(&r);
	lc_rd_copy(&r, p->rows_sum.v, sizeof p->rows_sum.v);
	if (!lc_rd_ok(&r) || ndisks > POINT_DISKS_MAX || (p->flags & POINT_MAP_DAMAGED) != 0)
		return lc_fail(e, LC_ECORRUPT, 0, "malformed point");
	if ((p->flags & ~POINT_STORED) != 0)
		return lc_fail(e, LC_EVERSION, 0,
		               "a restore point of a kind that this version does not know: use a "
		               "newer locum");
	p->ndisks = ndisks;
	for (i = 0; i < ndisks; i++) {
		uint64_t role;

		lc_rd_copy(&r, p->disks[i].id, 16);
		p->disks[i].size = lc_rd64(&r);
		p->disks[i].covered = lc_rd64(&r);
		role = lc_rd64(&r);
		if (role > 255 || p->disks[i].size > POINT_DISK_SIZE_MAX)
			return lc_fail(e, LC_ECORRUPT, 0, "malformed point");
		p->disks[i].role = (uint8_t)role;
	}
	sealed->n = lc_rd32(&r);
	sealed->p = lc_rd_bytes(&r, sealed->n);
	if (!lc_rd_end(&r))
		return lc_fail(e, LC_ECORRUPT, 0, "malformed point");
	return 0;
}
