/**
 * vmstate: what a VM behind a monitor socket is doing.
 */
#ifndef LOCUM_VMSTATE_H
#define LOCUM_VMSTATE_H

#include "store/base/errors.h"

#define VMSTATE_BYTES 24 /* of a word for a state, with the NUL */
#define VMSTATE_OFF "off"
#define VMSTATE_UNKNOWN "unknown"

/**
 * vmstate_ask(socket, state, why):
 * The word for it: "running", "paused", "incoming" (it waits for another QEMU to send it),
 * "migrated" (another QEMU has it), "io-error" (QEMU stopped it for a disk that failed), "crashed",
 * "off" where nobody listens; what else QEMU says is its own word.  "unknown": *why says what is in
 * the way.  Blocking, a second at most.
 */
void vmstate_ask(const char *socket, char state[VMSTATE_BYTES], struct lc_err *why);
/** vmstate_word(status): for what QEMU calls its state. */
const char *vmstate_word(const char *status);
/** vmstate_launched(dir, state, why): of the VM that launch.c started in that folder. */
void vmstate_launched(const char *dir, char state[VMSTATE_BYTES], struct lc_err *why);

#endif
