#include "replicator/packet.h"

struct packet *
packet_new(uint16_t type, const struct lc_span *spans, size_t n)
{
	struct packet *p = lc_alloc(sizeof *p);
	size_t i, size = 0;

	if (p == NULL)
		return NULL;
	p->type = type;
	for (i = 0; i < n; i++)
		size += spans[i].n;
	if (lc_buf_reserve(&p->body, size) != 0) {
		packet_free(p);
		return NULL;
	}
	for (i = 0; i < n; i++)
		(void)lc_buf_append(&p->body, spans[i].p, spans[i].n);
	return p;
}

void
packet_free(struct packet *p)
{
	lc_buf_free(&p->body);
	lc_free(p);
}

struct packet *
packet_take(struct packet_list *list)
{
	struct packet *p = STAILQ_FIRST(list);

	if (p != NULL)
		STAILQ_REMOVE_HEAD(list, entry);
	return p;
}

void
packet_free_all(struct packet_list *list)
{
	struct packet *p;

	while ((p = packet_take(list)) != NULL)
		packet_free(p);
}
