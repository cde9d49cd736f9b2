/*
 * In the seal: u16 1, u16 number of disks, per disk its id, u32 number of windows, per window a
 * u64: which disk in the upper 8 bits, which window below.  It is bound to store and VM.
 */
#include <string.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/bootlist.h"
#include "store/store_internal.h"

#define VERSION 1u
#define DISK_SHIFT 56
#define FILE_MAX (256u << 10)

static char *
list_path(const struct store *s, const struct point *p)
{
	char hex[33];

	return lc_asprintf("%s/index/boot-%s", s->dir, lc_hex(hex, p->vm_id, 16));
}

static struct lc_span
bound(uint8_t ad[48], const struct store *s, const struct point *p)
{
	static const uint8_t what[16] = "boot list v1";

	memcpy(ad, what, 16);
	memcpy(ad + 16, s->id, 16);
	memcpy(ad + 32, p->vm_id, 16);
	return (struct lc_span){ad, 48};
}

static int
encode(const struct point *p, const struct bootlist *l, struct lc_buf *b)
{
	size_t i;
	int rc = lc_wr16(b, VERSION);

	rc = rc != 0 ? rc : lc_wr16(b, (uint16_t)p->ndisks);
	for (i = 0; rc == 0 && i < p->ndisks; i++)
		rc = lc_buf_append(b, p->disks[i].id, 16);
	rc = rc != 0 ? rc : lc_wr32(b, (uint32_t)l->n);
	for (i = 0; rc == 0 && i < l->n; i++)
		rc = lc_wr64(b, (uint64_t)l->at[i].disk << DISK_SHIFT | l->at[i].window);
	return rc;
}

/* The index of that disk in p; p->ndisks where it is not there any more. */
static size_t
disk_of(const struct point *p, const uint8_t *id)
{
	size_t i;

	for (i = 0; i < p->ndisks && memcmp(p->disks[i].id, id, 16) != 0; i++)
		;
	return i;
}

int
bootlist_decode(struct lc_span plain, const struct point *p, struct bootlist *out, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(plain.p, plain.n);
	size_t disks[POINT_DISKS_MAX], ndisks, n, i;
	uint8_t id[16];
	uint16_t version = lc_rd16(&r);

	out->n = 0;
	ndisks = lc_rd16(&r);
	if (!lc_rd_ok(&r) || version != VERSION || ndisks > POINT_DISKS_MAX)
		return lc_fail(e, LC_ECORRUPT, 0, "boot list: malformed");
	for (i = 0; i < ndisks; i++) {
		lc_rd_copy(&r, id, sizeof id);
		disks[i] = lc_rd_ok(&r) ? disk_of(p, id) : p->ndisks;
	}
	n = lc_rd32(&r);
	if (!lc_rd_ok(&r) || n > BOOTLIST_MAX)
		return lc_fail(e, LC_ECORRUPT, 0, "boot list: malformed");
	for (i = 0; i < n; i++) {
		uint64_t v = lc_rd64(&r), window = v & ((UINT64_C(1) << DISK_SHIFT) - 1);
		size_t disk = (size_t)(v >> DISK_SHIFT);

		if (!lc_rd_ok(&r) || disk >= ndisks)
			break;
		disk = disks[disk];
		if (disk < p->ndisks && window < point_windows(p->disks[disk].size))
			out->at[out->n++] = (struct bootlist_window){disk, window};
	}
	if (i == n && lc_rd_end(&r))
		return 0;
	out->n = 0;
	return lc_fail(e, LC_ECORRUPT, 0, "boot list: malformed");
}

int
bootlist_load(struct store *s, const struct point *p, struct bootlist *out, struct lc_err *e)
{
	struct lc_buf sealed = {0}, plain = {0};
	char *path = list_path(s, p);
	uint8_t ad[48];
	int rc;

	out->n = 0;
	if (path == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "boot list: out of memory");
	rc = s->keyring == NULL ? lc_fail(e, LC_EKEY, 0, "boot list: no key")
	                        : file_read_all(path, FILE_MAX, &sealed, e);
	rc = rc != 0 ? rc
	             : open_blob(s->keyring, bound(ad, s, p), (struct lc_span){sealed.p, sealed.n},
	                         &plain, e);
	rc = rc != 0 ? rc : bootlist_decode((struct lc_span){plain.p, plain.n}, p, out, e);
	lc_free(path);
	lc_buf_free(&sealed);
	lc_buf_free(&plain);
	return rc;
}

int
bootlist_save(struct store *s, const struct point *p, const struct bootlist *l, struct lc_err *e)
{
	struct lc_buf sealed = {0}, plain = {0};
	char *path = list_path(s, p);
	uint8_t ad[48];
	int rc;

	if (path == NULL || encode(p, l, &plain) != 0)
		rc = lc_fail(e, LC_ENOMEM, 0, "boot list: out of memory");
	else if (s->keyring == NULL)
		rc = lc_fail(e, LC_EKEY, 0, "boot list: no key");
	else
		rc = seal_blob(s->keyring, bound(ad, s, p), (struct lc_span){plain.p, plain.n},
		               &sealed, e);
	rc = rc != 0 ? rc : file_write_atomic(path, sealed.p, sealed.n, 0600, e);
	lc_free(path);
	lc_buf_free(&sealed);
	lc_buf_free(&plain);
	return rc;
}
