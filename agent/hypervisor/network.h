/**
 * network: what a card of a running QEMU hangs on, as a definition says it.
 */
#ifndef LOCUM_NETWORK_H
#define LOCUM_NETWORK_H

#include <stdbool.h>

#define NETWORK_MAX 64u

/**
 * network_behind(text, id, out):
 * What is behind the back end called id (NULL or "": nothing is), by text, the answer of the human
 * monitor to "info network", and by this host's bridges: "none", "user" or "bridge:NAME".  Where it
 * is neither, "unmapped" and false.
 */
bool network_behind(const char *text, const char *id, char out[NETWORK_MAX]);

#endif
