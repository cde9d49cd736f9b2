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
 *                                      "persistent", "xml"}, and "firmware" and "nvram", the files
 *                                      of UEFI that it would take, where it is off and libvirt is
 *                                      to choose them
 *   RELAY_DOMAINS   {}                 all of them: a list of the same without "xml"
 *   RELAY_DEFINE    {"xml": TEXT}      define a domain; {"name", "uuid"}
 *   RELAY_PAUSE     {}                 a `stop` follows that a `cont` will undo: whatever becomes
 *                                      of us, of the relay or of libvirtd meanwhile, the CPUs are
 *                                      let go; answered when all events before it were told
 *
 * The guest agent's channel of a domain is libvirt's, too, so there is a second kind of relay that
 * is the guest agent at the other end of a socket pair:
 *
 *   - each command goes to it through virDomainQemuAgentCommand, and ends by itself;
 *   - a delimited sync is answered once the agent has answered libvirt; where it can't be asked, by
 *     an error that bears the sync's id as "id", of the class DeviceNotFound where the domain does
 *     not run (any more), ConnectionFailed where there is no libvirtd;
 *   - when our end is closed after a freeze and before a thaw it thaws, and ends;
 *   - when libvirtd is lost it closes its end.
 */
#ifndef LOCUM_RELAY_H
#define LOCUM_RELAY_H

#include <stdint.h>

#include "store/base/errors.h"

#define RELAY_WORD "libvirt-relay" /* as the first argument of this program */
#define RELAY_AGENT_WORD "libvirt-agent"
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

/**
 * relay_agent(uri, domain, answer_ms, limit_ms):
 * Start one for the guest agent.  It waits answer_ms for an answer to a sync and limit_ms for one
 * to a freeze, both in whole seconds, at least one.  System calls only: for a process that was just
 * forked, too.
 *
 * Returns    our end, which does not block, or -1 and errno.
 */
int relay_agent(const char *uri, const char *domain, int64_t answer_ms, int64_t limit_ms);
/** relay_agent_main(argc, argv): the other process, argv[1] being RELAY_AGENT_WORD. */
int relay_agent_main(int argc, char **argv);

#endif
