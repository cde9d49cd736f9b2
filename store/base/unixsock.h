/**
 * unixsock: who listens on a unix socket.
 *
 * Thread: any.  Nothing here waits.
 */
#ifndef LOCUM_UNIXSOCK_H
#define LOCUM_UNIXSOCK_H

#include <stdbool.h>

/**
 * unixsock_connect(path):
 * A stream to whoever listens there; it does not block.
 *
 * Returns    a descriptor, given; -1 with errno: ENAMETOOLONG: no socket has such a path; ENOENT,
 *            ECONNREFUSED: nobody listens; EAGAIN: somebody does, and has others waiting.
 */
int unixsock_connect(const char *path);
/** unixsock_listens(path): whether somebody listens there.  Nothing is sent. */
bool unixsock_listens(const char *path);

#endif
