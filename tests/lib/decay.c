#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store/seal.h"
#include "tests/lib/decay.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"

void
decay_make(struct decay *s)
{
	size_t i;

	memset(s, 0, sizeof *s);
	s->seed = 7;
	halves_make(&s->x);
	halves_hang_up(&s->x);
	vault_close(&s->x.v);
	s->x.v.segment_bytes = 256u << 10; /* that some of it can be dropped */
	vault_open(&s->x.v);
	halves_connect(&s->x);
	s->d[0] = vault_disk("vda", DECAY_WINDOWS);
	for (i = 0; i < DECAY_WINDOWS; i++)
		s->d[0].codes[i] = 5 * (i + 1);
	for (i = 0; i < DECAY_POINTS; i++) {
		if (i > 0) {
			s->d[i] = vault_disk_copy(&s->d[i - 1]);
			s->d[i].codes[3] += VAULT_EDIT;
			s->d[i].codes[9] = 5 * (1000 + i);
		}
		s->p[i] = halves_backup(&s->x, "web01", &s->d[i]);
	}
	halves_run(&s->x, &s->seed);
	assert_int_equal(s->x.committed, DECAY_POINTS);
}

void
decay_end(struct decay *s)
{
	size_t i;

	for (i = 0; i < DECAY_POINTS; i++)
		vault_disk_free(&s->d[i]);
	halves_free(&s->x);
	sender_care_done(&s->care);
}

void
decay_arrived(struct decay *s)
{
	size_t i;

	for (i = 0; i < DECAY_POINTS; i++)
		halves_arrived(&s->x, &s->p[i], &s->d[i]);
}

struct scrubbed {
	struct lc_buf list; /* struct damage[] */
	struct decay_said *said;
};

static void
note(void *arg, const struct damage *d)
{
	struct scrubbed *x = arg;

	if (x->said != NULL)
		memcpy(d->mended ? x->said->mended : x->said->affects, d->affects,
		       sizeof x->said->affects);
	if (!d->mended)
		assert_int_equal(lc_buf_append(&x->list, d, sizeof *d), 0);
}

size_t
decay_scrub(struct store *s, struct decay_said *said)
{
	struct scrubbed x = {.said = said};
	struct lc_err e = LC_ERR_INIT;
	size_t n;
	int rc = store_scrub(s, note, &x, NULL, NULL, &e);

	n = x.list.n / sizeof(struct damage);
	assert_int_equal(rc, n > 0 ? LC_ECORRUPT : 0);
	lc_err_clear(&e);
	must(store_condemn(s, (const struct damage *)(const void *)x.list.p, n, NULL, &e), &e);
	lc_buf_free(&x.list);
	return n;
}

void
decay_spoil(struct decay *s, int type, const int *nth, size_t n, bool rebuild)
{
	struct vault_piece p[20];
	char path[400];
	size_t i;

	halves_hang_up(&s->x);
	store_close(s->x.to);
	for (i = 0; i < n; i++)
		assert_true(vault_piece_of(s->x.dir, type, nth[i], &p[i]));
	for (i = 0; i < n; i++)
		vault_flip(s->x.dir, &p[i], RECORD_HEADER_SIZE + 50, 4);
	(void)snprintf(path, sizeof path, "%s/catalog.sqlite", s->x.dir);
	if (rebuild)
		assert_int_equal(unlink(path), 0);
	halves_open_replica(&s->x);
}

bool
decay_is_whole(struct decay *s)
{
	struct transfer_damage d = {.contents = 0};
	struct lc_err e = LC_ERR_INIT;
	static const uint8_t none[CHUNK_ID_SIZE];
	bool whole;

	must(transfer_damage(s->x.to, 0, none, 10, &d, &e), &e);
	whole = d.contents == 0 && d.lines.n == 0;
	transfer_damage_free(&d);
	return whole;
}
