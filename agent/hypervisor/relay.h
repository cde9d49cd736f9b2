/**
 * relay: libvirt as a monitor, in a process of its own.
 *
 * Calls of libvirt block, some of them for as long as libvirtd pleases, and a thread that is stuck
 * in one can neither be ended nor left; so they are made by a process that this program starts of
 * itself, on no loop of ours.  Towards us it is a QEMU monitor at the other end of a socket pair:
 *
 *   - it greets with QEMU's version (0.0.0: the domain is off) or with an error, before anything
 *     else;
 *   - each command goes to QEMU through virDomainQemuMonitorCommandWithFiles, but for those below,
 *     which it answers itself;
 *   - QEMU's events come in their order among the answers;
 *   - when our end is closed, however suddenly, it carries out what was sent before, lets the CPUs
 *     go if they stand still because of us, and ends;
 *   - when the domain ends, or libvirtd is lost, it closes its end.
 *
 * libvirt's libraries are loaded there and nowhere else, when it is started.
 *
 * Commands of its own:
 *
 *   RELAY_DOMAIN    {}                 what libvirt knows of the domain: {"name", "uuid", "state",
 *                                      "persistent", "xml"}
 *   RELAY_DOMAINS   {}                 all of them: a list of the same without "xml"
 *   RELAY_DEFINE    {"xml": TEXT}      define a domain; {"name", "uuid"}
 *   RELAY_PAUSE     {}                 a `stop` follows that a `cont` will undo: whatever becomes
 *                                      of us, of the relay or of libvirtd meanwhile, the CPUs are
 *                                      let go; answered when all events before it were told
 */
#ifndef LOCUM_RELAY_H
#define LOCUM_RELAY_H

#include <stdint.h>

#include "store/base/errors.h"

#define RELAY_WORD "libvirt-relay" /* as the first argument of this program */
#define RELAY_DOMAIN "locum-domain"
#define RELAY_DOMAINS "locum-domains"
#define RELAY_DEFINE "locum-define"
#define RELAY_PAUSE "locum-pause"

/**
 * relay_start(uri, domain, timeout_ms, out, e):
 * Start one.  It gives up connecting after timeout_ms and a second.
 *
 * Returns    0 and our end in *out, or LC_ENOMEM where no process is to be had.
 */
int relay_start(const char *uri, const char *domain, int64_t timeout_ms, int *out,
                struct lc_err *e);
/** relay_main(argc, argv): the other process, argv[1] being RELAY_WORD; returns its exit status. */
int relay_main(int argc, char **argv);

#endif
