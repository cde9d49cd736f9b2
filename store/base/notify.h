/**
 * notify: tell systemd how a service does (sd_notify(3)), where it started us.
 */
#ifndef LOCUM_NOTIFY_H
#define LOCUM_NOTIFY_H

/** notify_service(state): "READY=1", "STATUS=..."; does nothing without NOTIFY_SOCKET.  Thread:
 * any. */
void notify_service(const char *state);

#endif
