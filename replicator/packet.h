/**
 * packet: a message that waits: to be sent, or to be worked on.
 */
#ifndef LOCUM_PACKET_H
#define LOCUM_PACKET_H

#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "store/base/memory.h"

#define PACKET_COST 64u /* what one counts beside its body */

struct packet {
	STAILQ_ENTRY(packet) entry;
	uint16_t type;
	struct lc_buf body;
};
STAILQ_HEAD(packet_list, packet);

/** packet_new(type, spans, n): with a copy of the spans, one after the other; NULL: no memory. */
struct packet *packet_new(uint16_t type, const struct lc_span *spans, size_t n);
void packet_free(struct packet *p);
/** packet_take(list): the first one, taken out; NULL: it is empty. */
struct packet *packet_take(struct packet_list *list);
/** packet_free_all(list): the list is empty afterwards. */
void packet_free_all(struct packet_list *list);

#endif
