/*
 * The relay's process for a guest agent.
 *
 *     (a line ─► libvirt ─► its answer)* ─► our other end is closed ─► (thaw) ─► end
 *
 * libvirt asks the agent for a sync of its own before each command, drops answers that come too
 * late, and ends every call after the time given, in seconds.  It is reached when there is
 * something to be asked, so that the reason why it can't be has an answer to stand in.
 *
 * Where libvirtd hangs a call hangs with it; we are killed by an alarm, long after nobody waits any
 * more.
 */
#include "agent/hypervisor/libvirt_api.h"
#include "agent/hypervisor/relay.h"

#ifdef LOCUM_LIBVIRT
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <jansson.h>

#include "store/base/errors.h"

#define AGENT_FD 3
#define ALARM_S 660 /* longer than a guest that does not thaw is asked to */
#define THAW_S 5
#define FREEZE "guest-fsfreeze-freeze"
#define STATUS "{\"execute\":\"guest-fsfreeze-status\"}"
#define THAW "{\"execute\":\"guest-fsfreeze-thaw\"}"

struct relay_agent {
	struct libvirt_api v;
	const char *uri, *domain;
	int answer_s, limit_s;
	virConnectPtr conn;
	virDomainPtr dom;
	bool frozen; /* it was asked to freeze, and has not thawed since */
	bool lost;   /* libvirtd is gone */
	char in[4096];
	size_t n;
};

static void
say(json_t *v)
{
	char *text = json_dumps(v, JSON_COMPACT);

	json_decref(v);
	if (text != NULL) {
		(void)send(AGENT_FD, text, strlen(text), MSG_NOSIGNAL);
		(void)send(AGENT_FD, "\n", 1, MSG_NOSIGNAL);
	}
	free(text);
}

/* id may be NULL. */
static json_t *
failure(struct relay_agent *r, json_t *id)
{
	int code = r->v.virGetLastErrorCode();
	const char *class = "GenericError";
	char why[256];

	(void)snprintf(why, sizeof why, "libvirt: %s", r->v.virGetLastErrorMessage());
	if (code == VIR_ERR_NO_DOMAIN || (r->dom != NULL && r->v.virDomainIsActive(r->dom) == 0))
		class = "DeviceNotFound";
	else if (r->conn == NULL)
		class = "ConnectionFailed";
	return json_pack("{s:{s:s, s:s}, s:O*}", "error", "class", class, "desc", why, "id", id);
}

static bool
reach(struct relay_agent *r)
{
	if (r->dom != NULL)
		return true;
	if (r->conn == NULL)
		r->conn = r->v.virConnectOpen(r->uri);
	if (r->conn == NULL)
		return false;
	if (strlen(r->domain) == VIR_UUID_STRING_BUFLEN - 1)
		r->dom = r->v.virDomainLookupByUUIDString(r->conn, r->domain);
	if (r->dom == NULL)
		r->dom = r->v.virDomainLookupByName(r->conn, r->domain);
	return r->dom != NULL;
}

/* The agent's answer, or why there is none. */
static json_t *
ask(struct relay_agent *r, const char *text, int seconds, json_t *id)
{
	char *answer = NULL;
	json_t *v = NULL;

	if (reach(r))
		answer = r->v.virDomainQemuAgentCommand(r->dom, text, seconds, 0);
	if (answer != NULL)
		v = json_loads(answer, 0, NULL);
	free(answer);
	if (v == NULL) {
		v = failure(r, id); /* any further call makes libvirt forget the reason */
		if (r->conn != NULL && r->v.virConnectIsAlive(r->conn) != 1)
			r->lost = true;
	}
	return v;
}

static void
answer_sync(struct relay_agent *r, json_t *id)
{
	json_t *v = ask(r, "{\"execute\":\"guest-ping\"}", r->answer_s, id);

	if (json_object_get(v, "return") != NULL)
		(void)json_object_set(v, "return", id);
	say(v);
}

static void
take_line(struct relay_agent *r, const char *p, size_t n)
{
	json_t *command = json_loadb(p, n, 0, NULL), *v;
	const char *name = json_string_value(json_object_get(command, "execute"));
	json_t *id = json_object_get(json_object_get(command, "arguments"), "id");

	(void)alarm(ALARM_S);
	if (name != NULL && strcmp(name, "guest-sync-delimited") == 0) {
		answer_sync(r, id);
	} else if (name != NULL && strcmp(name, FREEZE) == 0) {
		r->frozen = true;
		say(ask(r, "{\"execute\":\"" FREEZE "\"}", r->limit_s, NULL));
	} else if (name != NULL && strcmp(name, "guest-fsfreeze-status") == 0) {
		say(ask(r, STATUS, r->answer_s, NULL));
	} else if (name != NULL) {
		v = ask(r, THAW, THAW_S, NULL);
		r->frozen = r->frozen && json_object_get(v, "return") == NULL;
		say(v);
	}
	json_decref(command);
}

static void
take_lines(struct relay_agent *r)
{
	char *nl;

	while (!r->lost && (nl = memchr(r->in, '\n', r->n)) != NULL) {
		const char *from = r->in[0] == '\xff' ? r->in + 1 : r->in;

		take_line(r, from, (size_t)(nl - from));
		r->n -= (size_t)(nl + 1 - r->in);
		memmove(r->in, nl + 1, r->n);
	}
	if (r->n == sizeof r->in)
		r->lost = true;
}

static void
work(struct relay_agent *r)
{
	while (!r->lost) {
		ssize_t k = recv(AGENT_FD, r->in + r->n, sizeof r->in - r->n, 0);

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			break;
		r->n += (size_t)k;
		take_lines(r);
	}
	if (r->frozen && !r->lost)
		json_decref(ask(r, THAW, THAW_S, NULL));
}

static void
on_nothing(int timer, void *arg)
{
	(void)timer;
	(void)arg;
}

int
relay_agent_main(int argc, char **argv)
{
	struct relay_agent r = {.lost = false};
	struct lc_err e = LC_ERR_INIT;
	sigset_t set;

	if (argc < 6)
		return 2;
	(void)sigfillset(&set);
	(void)sigdelset(&set, SIGALRM);
	(void)pthread_sigmask(SIG_SETMASK, &set, NULL);
	(void)signal(SIGALRM, SIG_DFL); /* NOLINT(cert-err33-c) */
	(void)alarm(ALARM_S);
	r.answer_s = (int)strtol(argv[2], NULL, 10);
	r.limit_s = (int)strtol(argv[3], NULL, 10);
	r.uri = argv[4];
	r.domain = argv[5];
	/* libvirt wants a loop to be there, and we never need a turn of it. */
	if (libvirt_load(&r.v, &e) != 0 || r.v.virEventRegisterDefaultImpl() != 0)
		return 1;
	(void)r.v.virEventAddTimeout(-1, on_nothing, NULL, NULL);
	work(&r);
	return 0;
}
#else
int
relay_agent_main(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return 1;
}
#endif
