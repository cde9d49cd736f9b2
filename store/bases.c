#include <pthread.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/base/memory.h"
#include "store/bases.h"
#include "store/seal.h"

#define SETS 64u
#define WAYS 4u

struct slot {
	uint8_t id[CHUNK_ID_SIZE];
	bool used, checked;
	uint8_t *window; /* owned; NULL until it is used */
};

struct set {
	pthread_mutex_t lock;
	unsigned next; /* the slot that goes next */
	struct slot slots[WAYS];
};

struct bases {
	struct set sets[SETS];
};

int
bases_new(struct bases **out, struct lc_err *e)
{
	struct bases *b = lc_alloc(sizeof *b);
	unsigned i;

	if (b == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	for (i = 0; i < SETS; i++)
		(void)pthread_mutex_init(&b->sets[i].lock, NULL);
	*out = b;
	return 0;
}

void
bases_free(struct bases *b)
{
	unsigned i, k;

	if (b == NULL)
		return;
	for (i = 0; i < SETS; i++) {
		for (k = 0; k < WAYS; k++)
			lc_free(b->sets[i].slots[k].window);
		(void)pthread_mutex_destroy(&b->sets[i].lock);
	}
	lc_free(b);
}

/* Ids are random. */
static struct set *
set_of(struct bases *b, const uint8_t *id)
{
	return &b->sets[lc_get32(id) % SETS];
}

/* Its lock is held. */
static struct slot *
find(struct set *s, const uint8_t *id)
{
	unsigned i;

	for (i = 0; i < WAYS; i++) {
		if (s->slots[i].used && memcmp(s->slots[i].id, id, CHUNK_ID_SIZE) == 0)
			return &s->slots[i];
	}
	return NULL;
}

bool
bases_get(struct bases *b, const uint8_t id[32], bool checked, uint8_t *window)
{
	struct set *s = set_of(b, id);
	const struct slot *have;
	bool hit;

	(void)pthread_mutex_lock(&s->lock);
	have = find(s, id);
	hit = have != NULL && (have->checked || !checked);
	if (hit)
		memcpy(window, have->window, WINDOW_SIZE);
	(void)pthread_mutex_unlock(&s->lock);
	return hit;
}

void
bases_put(struct bases *b, const uint8_t id[32], bool checked, const uint8_t *window)
{
	struct set *s = set_of(b, id);
	struct slot *to;

	(void)pthread_mutex_lock(&s->lock);
	to = find(s, id);
	if (to == NULL)
		to = &s->slots[s->next++ % WAYS];
	else if (to->checked && !checked)
		goto out; /* what is there is worth more */
	to->used = false;
	if (to->window == NULL)
		to->window = lc_realloc(NULL, WINDOW_SIZE);
	if (to->window == NULL)
		goto out;
	memcpy(to->id, id, CHUNK_ID_SIZE);
	memcpy(to->window, window, WINDOW_SIZE);
	to->used = true;
	to->checked = checked;
out:
	(void)pthread_mutex_unlock(&s->lock);
}
