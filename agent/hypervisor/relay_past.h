/**
 * relay_past: past a libvirtd that is gone, to the monitor of a QEMU that stands still.
 *
 * QEMU listens on the socket that libvirtd was connected to, and has room for one: so as long as
 * libvirtd is there, hung or not, nobody is answered here, and when it is gone, whoever comes is.
 *
 * Blocking, for less than a second.
 */
#ifndef LOCUM_RELAY_PAST_H
#define LOCUM_RELAY_PAST_H

#include <stdbool.h>

#define RELAY_PAST_PATH 108

/** relay_past_path(filename, out): the path in what `query-chardev` calls the "filename" of a
 * listening unix socket, or "". */
void relay_past_path(const char *filename, char out[RELAY_PAST_PATH]);
/**
 * relay_past(path, uuid):
 * Let the CPUs go.  The path may be one of another mount namespace, that of QEMU.
 *
 * Returns    true when the QEMU of this UUID has said that they do.
 */
bool relay_past(const char *path, const char *uuid);

#endif
