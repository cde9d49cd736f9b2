/* seqfmt: see seqfmt.h and README.md. */
#include <endian.h>
#include <string.h>

#include "seqfmt.h"

/* "LCSEQrec" and "LCSEQpag" as they read in a hex dump. */
#define REC_MAGIC UINT64_C(0x6365725145534c43)
#define PAGE_MAGIC UINT64_C(0x6761705145534c43)
#define SUM_AT (SEQFMT_REC_SIZE - 8)
#define REC_FILL_AT 96
#define PAGE_FILL_AT 64

static uint64_t
get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return le64toh(v);
}

static void
put64(uint8_t *p, uint64_t v)
{
	v = htole64(v);
	memcpy(p, &v, sizeof(v));
}

static uint32_t
get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

static void
put32(uint8_t *p, uint32_t v)
{
	v = htole32(v);
	memcpy(p, &v, sizeof(v));
}

uint64_t
seqfmt_mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

void
seqfmt_fill(uint8_t *p, size_t n, uint64_t key)
{
	uint64_t base = seqfmt_mix(key);
	size_t i;

	for (i = 0; i < n / 8; i++)
		put64(p + i * 8, seqfmt_mix(base + i));
}

/* Each step is a bijection of the state, so one changed word always shows. */
static uint64_t
sum_of(const uint8_t *buf)
{
	uint64_t h = UINT64_C(0x6c6f63756d736571);
	size_t i;

	for (i = 0; i < SUM_AT; i += 8) {
		h = (h ^ get64(buf + i)) * UINT64_C(0x9e3779b97f4a7c15);
		h ^= h >> 29;
	}
	return h;
}

static bool
all_zero(const uint8_t *buf)
{
	return buf[0] == 0 && memcmp(buf, buf + 1, SEQFMT_REC_SIZE - 1) == 0;
}

void
seqfmt_put_rec(uint8_t *buf, struct seqfmt_rec *r)
{
	/* The filler first: the fields then overwrite its beginning. */
	seqfmt_fill(buf, SEQFMT_REC_SIZE, r->n ^ REC_MAGIC);
	memset(buf, 0, REC_FILL_AT);
	put64(buf, REC_MAGIC);
	put64(buf + 8, r->n);
	put32(buf + 16, r->disk);
	put32(buf + 20, r->ndisks);
	put64(buf + 24, r->prev);
	put64(buf + 32, r->epoch);
	put64(buf + 40, r->wall_ns);
	put64(buf + 48, r->run);
	put64(buf + 56, r->load_seed);
	put64(buf + 64, r->load_done);
	put64(buf + 72, r->region_end);
	r->sum = sum_of(buf);
	put64(buf + SUM_AT, r->sum);
}

enum seqfmt_kind
seqfmt_get_rec(const uint8_t *buf, struct seqfmt_rec *r)
{
	if (get64(buf) != REC_MAGIC)
		return all_zero(buf) ? SEQFMT_EMPTY : SEQFMT_TORN;
	if (get64(buf + SUM_AT) != sum_of(buf))
		return SEQFMT_TORN;
	*r = (struct seqfmt_rec){
	    .n = get64(buf + 8),
	    .disk = get32(buf + 16),
	    .ndisks = get32(buf + 20),
	    .prev = get64(buf + 24),
	    .epoch = get64(buf + 32),
	    .wall_ns = get64(buf + 40),
	    .run = get64(buf + 48),
	    .load_seed = get64(buf + 56),
	    .load_done = get64(buf + 64),
	    .region_end = get64(buf + 72),
	    .sum = get64(buf + SUM_AT),
	};
	return SEQFMT_VALID;
}

void
seqfmt_put_page(uint8_t *buf, const struct seqfmt_page *p)
{
	seqfmt_fill(buf, SEQFMT_REC_SIZE, p->run ^ seqfmt_mix(p->id ^ ((uint64_t)p->page << 56)));
	memset(buf, 0, PAGE_FILL_AT);
	put64(buf, PAGE_MAGIC);
	put64(buf + 8, p->id);
	put64(buf + 16, p->run);
	put64(buf + 24, p->seq_next);
	put32(buf + 32, p->disk);
	put32(buf + 36, p->page);
	put64(buf + 40, p->offset);
	put64(buf + SUM_AT, sum_of(buf));
}

enum seqfmt_kind
seqfmt_get_page(const uint8_t *buf, struct seqfmt_page *p)
{
	if (get64(buf) != PAGE_MAGIC)
		return all_zero(buf) ? SEQFMT_EMPTY : SEQFMT_TORN;
	if (get64(buf + SUM_AT) != sum_of(buf))
		return SEQFMT_TORN;
	*p = (struct seqfmt_page){
	    .id = get64(buf + 8),
	    .run = get64(buf + 16),
	    .seq_next = get64(buf + 24),
	    .disk = get32(buf + 32),
	    .page = get32(buf + 36),
	    .offset = get64(buf + 40),
	};
	return SEQFMT_VALID;
}

struct seqfmt_place
seqfmt_place(uint64_t seed, uint64_t id, const uint64_t *region_end, unsigned ndisks)
{
	static const uint32_t sizes[4] = {4096, 4096, 16384, SEQFMT_LOAD_MAX};
	uint64_t h = seqfmt_mix(seqfmt_mix(seed) + id);
	struct seqfmt_place at = {0};
	unsigned i;

	at.disk = (unsigned)(h % ndisks);
	/* A disk without room passes its share on to the next one. */
	for (i = 0; i < ndisks && region_end[at.disk] == 0; i++)
		at.disk = (at.disk + 1) % ndisks;
	if (region_end[at.disk] == 0)
		return at;
	h = seqfmt_mix(h);
	at.size = sizes[h & 3];
	h = seqfmt_mix(h);
	at.offset = SEQFMT_LOAD_OFF +
	            h % ((region_end[at.disk] - SEQFMT_LOAD_OFF) / at.size) * at.size;
	return at;
}

uint64_t
seqfmt_region_end(const uint8_t *sector0, uint64_t size)
{
	uint64_t end = size;

	/* A partition type makes it a table and not just a boot sector. */
	if (sector0[510] == 0x55 && sector0[511] == 0xaa && sector0[446 + 4] != 0) {
		end = ((uint64_t)get32(sector0 + 446 + 8) + get32(sector0 + 446 + 12)) * 512;
		if (end > size)
			end = size;
	}
	end -= end % SEQFMT_LOAD_MAX;
	return end > SEQFMT_LOAD_OFF ? end : 0;
}

const char *
seqfmt_problem_name(enum seqfmt_problem p)
{
	switch (p) {
	case SEQFMT_P_MISSING:
		return "missing";
	case SEQFMT_P_STALE:
		return "stale";
	case SEQFMT_P_TORN:
		return "torn";
	case SEQFMT_P_FOREIGN:
		return "foreign";
	case SEQFMT_P_CHAIN:
		return "chain";
	}
	return "unknown";
}

static unsigned
slot_of(uint64_t n, unsigned ndisks)
{
	return (unsigned)(n / ndisks % SEQFMT_SLOTS);
}

/* Is this the record of this disk and slot, written with this many disks? */
static bool
at_home(const struct seqfmt_rec *r, unsigned ndisks, unsigned disk, unsigned slot)
{
	return r->ndisks == ndisks && r->disk == disk && r->n % ndisks == disk &&
	       slot_of(r->n, ndisks) == slot;
}

/* First pass: the newest number, per disk and over all. */
static void
find_newest(const struct seqfmt_slot *const *ring, unsigned ndisks, struct seqfmt_result *res)
{
	const struct seqfmt_rec *r;
	unsigned d, s;

	for (d = 0; d < ndisks; d++) {
		res->newest[d] = SEQFMT_NONE;
		for (s = 0; s < SEQFMT_SLOTS; s++) {
			r = &ring[d][s].rec;
			if (ring[d][s].kind != SEQFMT_VALID || !at_home(r, ndisks, d, s))
				continue;
			if (res->newest[d] == SEQFMT_NONE || r->n > res->newest[d])
				res->newest[d] = r->n;
			if (!res->found || r->n > res->top.n) {
				res->found = true;
				res->top = *r;
			}
		}
	}
}

/*
 * What the newest records of each disk say of the random writes.  The write of
 * top.n itself may have been under way, and then its flush was not done: what
 * is flushed on its disk, the number before it on that disk says.
 */
static void
find_load(const struct seqfmt_slot *const *ring, unsigned ndisks, struct seqfmt_result *res)
{
	bool have[SEQFMT_MAX_DISKS] = {false};
	const struct seqfmt_slot *slot;
	unsigned d, known = 0;
	uint64_t i, n;

	for (i = 0; res->top.n - res->lo >= i && (i <= ndisks || known < ndisks); i++) {
		n = res->top.n - i;
		d = (unsigned)(n % ndisks);
		slot = &ring[d][slot_of(n, ndisks)];
		if (slot->kind != SEQFMT_VALID || slot->rec.n != n || slot->rec.run != res->top.run)
			continue;
		if (!have[d]) {
			have[d] = true;
			known++;
			res->region_end[d] = slot->rec.region_end;
		}
		if (i > 0 && i <= ndisks)
			res->load_flushed[d] = slot->rec.load_done;
	}
	res->load_known = known == ndisks;
}

/* What is wrong with the slot of number n?  Returns false if nothing is. */
static bool
judge_slot(const struct seqfmt_slot *slot, uint64_t n, unsigned ndisks, enum seqfmt_problem *what)
{
	bool home = slot->kind == SEQFMT_VALID &&
	            at_home(&slot->rec, ndisks, (unsigned)(n % ndisks), slot_of(n, ndisks));

	if (home && slot->rec.n == n)
		return false;
	if (slot->kind == SEQFMT_EMPTY)
		*what = SEQFMT_P_MISSING;
	else if (slot->kind == SEQFMT_TORN)
		*what = SEQFMT_P_TORN;
	else if (home && slot->rec.n < n)
		*what = SEQFMT_P_STALE;
	else
		*what = SEQFMT_P_FOREIGN;
	return true;
}

/* Count one problem, and tell it to whoever wants to know. */
static void
found_problem(struct seqfmt_result *res, seqfmt_report report, void *arg, enum seqfmt_problem what,
              uint64_t n, unsigned ndisks, const struct seqfmt_slot *slot)
{
	res->problems++;
	if (report != NULL)
		report(arg, what, n, (unsigned)(n % ndisks), slot_of(n, ndisks),
		       slot->kind == SEQFMT_VALID ? slot->rec.n : SEQFMT_NONE);
}

bool
seqfmt_check(const struct seqfmt_slot *const *ring, unsigned ndisks, seqfmt_report report,
             void *arg, struct seqfmt_result *res)
{
	uint64_t capacity = (uint64_t)ndisks * SEQFMT_SLOTS;
	const struct seqfmt_slot *slot, *before = NULL;
	enum seqfmt_problem what;
	uint64_t n;

	memset(res, 0, sizeof(*res));
	find_newest(ring, ndisks, res);
	if (!res->found)
		return false;

	/*
	 * No slack at the old end: the write of top.n + 1 either did not
	 * happen, and its slot holds an in-window number, or it did, and then
	 * it would be the newest.
	 */
	res->lo = res->top.n >= capacity ? res->top.n - capacity + 1 : 0;
	if (res->lo < res->top.epoch)
		res->lo = res->top.epoch;
	res->checked = res->top.n - res->lo + 1;
	find_load(ring, ndisks, res);

	for (n = res->lo; n <= res->top.n; n++) {
		slot = &ring[n % ndisks][slot_of(n, ndisks)];
		if (judge_slot(slot, n, ndisks, &what)) {
			found_problem(res, report, arg, what, n, ndisks, slot);
			before = NULL;
			continue;
		}
		if (before != NULL && slot->rec.prev != before->rec.sum)
			found_problem(res, report, arg, SEQFMT_P_CHAIN, n, ndisks, slot);
		before = slot;
	}

	/*
	 * Slots that hold no number of the window, each named by the next
	 * number that goes there: never written, or left over from another
	 * number of disks.  They may be anything but torn or newer.
	 */
	for (; n < res->lo + capacity; n++) {
		slot = &ring[n % ndisks][slot_of(n, ndisks)];
		if (slot->kind == SEQFMT_TORN)
			found_problem(res, report, arg, SEQFMT_P_TORN, n, ndisks, slot);
		else if (slot->kind == SEQFMT_VALID && slot->rec.n >= res->lo)
			found_problem(res, report, arg, SEQFMT_P_FOREIGN, n, ndisks, slot);
	}
	return res->problems == 0;
}
