#include <string.h>

#include "store/seeds.h"
#include "store/store_internal.h"

/* With writers_lock. */
static struct seed **
find(struct store *s, const uint8_t line[16])
{
	struct seed **x = &s->seeds;

	while (*x != NULL && memcmp((*x)->line, line, 16) != 0)
		x = &(*x)->next;
	return x;
}

void
seeds_note(struct store *s, const uint8_t line[16], const uint8_t vm[16], const uint8_t seed[16])
{
	struct seed **x;

	(void)pthread_mutex_lock(&s->writers_lock);
	x = find(s, line);
	if (*x == NULL)
		*x = lc_alloc(sizeof **x);
	if (*x != NULL) {
		memcpy((*x)->line, line, 16);
		memcpy((*x)->vm, vm, 16);
		memcpy((*x)->id, seed, 16);
	}
	(void)pthread_mutex_unlock(&s->writers_lock);
}

void
seeds_over(struct store *s, const uint8_t line[16])
{
	struct seed **x, *over;

	(void)pthread_mutex_lock(&s->writers_lock);
	x = find(s, line);
	over = *x;
	if (over != NULL)
		*x = over->next;
	(void)pthread_mutex_unlock(&s->writers_lock);
	lc_free(over);
}

void
seeds_free(struct store *s)
{
	while (s->seeds != NULL)
		seeds_over(s, s->seeds->line);
}
