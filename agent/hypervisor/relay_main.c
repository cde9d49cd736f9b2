/*
 * The relay's process.
 *
 *     connect ─► greet ─► (a line ─► libvirt ─► its answer)* ─► our other end is closed, or the
 *                                                              domain is gone ─► end
 *
 * One thread: it runs libvirt's event loop while there is nothing to do, and events that arrive
 * while it waits for an answer are queued by libvirt until then.
 *
 * libvirt tells of QEMU's events and of its answers on different ways, so an event may come after
 * the answer that QEMU gave later.  Who stopped the VM is judged by that order.  So before a
 * `stop`, and whenever there is no more to do, the ways are brought level (settle): libvirtd sends
 * what it has queued before it reads another question, at the latest before it reads the second,
 * and what has arrived here is delivered by two turns of the loop.  From a `stop` to the `cont` of
 * the same batch nothing is asked besides, as the guest stands still; the answers in between are
 * held back.
 *
 * Where libvirtd is lost between `stop` and `cont`, the latter is tried until it succeeds, whatever
 * has become of those who wanted it: on QEMU's own socket, which is free then (relay_past.h), or
 * through the libvirtd that comes after.  Where this process is, a child of it that is made before
 * each pause does the same: nobody else knows that the guest stands still because of us.
 */
#include "agent/hypervisor/relay.h"

#include "agent/hypervisor/libvirt_api.h"
#include "agent/hypervisor/relay_past.h"

#ifdef LOCUM_LIBVIRT
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include "store/base/failpoint.h"
#include "store/base/files.h"
#include "store/base/memory.h"

#define RELAY_FD 3
#define LINE_MAX_BYTES (8u << 20)
#define FDS_MAX 64
#define READ_CHUNK 65536u
#define DEAF_MS 10000 /* the other end has taken nothing for so long: it is hung */
#define KEEPALIVE_S 5 /* between two questions to libvirtd whether it is alive ... */
#define KEEPALIVES 2  /* ... and how many it may leave unanswered */
#define AGAIN_MS 500  /* between attempts to reach libvirtd again */
#define LAST_S 60     /* for what is left to be done when nobody waits for it any more */

struct relay {
	struct libvirt_api v;
	const char *uri, *domain;
	virConnectPtr conn;
	virDomainPtr dom; /* NULL: none was named */
	struct lc_buf in;
	struct lc_buf held; /* answers that are said after the next settle() */
	int fds[FDS_MAX];   /* that came, for commands that have not been read yet */
	size_t nfds;
	int timer;
	unsigned ticks;
	bool eof;                      /* the other end is closed */
	bool deaf;                     /* ... or takes nothing */
	bool gone;                     /* the domain or libvirtd: nothing more can be done */
	bool unsettled;                /* something was carried out since the last settle() */
	bool stopped;                  /* our `stop` was the last of `stop` and `cont` */
	char monitor[RELAY_PAST_PATH]; /* QEMU's socket that libvirtd holds, "" not known */
	char uuid[VIR_UUID_STRING_BUFLEN];
	int heir;        /* pipe to the child that lets the CPUs go if we can't; -1: none */
	uint64_t stops;  /* events so far */
	uint64_t before; /* events before our `stop` */
};

static void
wait_ms(long ms)
{
	const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	(void)nanosleep(&t, NULL);
}

/* ---- to the other end ---- */

static void
say(struct relay *r, const char *p, size_t n)
{
	while (n > 0 && !r->deaf) {
		struct pollfd room = {.fd = RELAY_FD, .events = POLLOUT};
		ssize_t k = send(RELAY_FD, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (k > 0) {
			p += k;
			n -= (size_t)k;
		} else if (k == 0 || (errno != EAGAIN && errno != EINTR) ||
		           poll(&room, 1, DEAF_MS) <= 0) {
			r->deaf = true;
		}
	}
}

/* Takes v.  Where memory is short the other end is closed: an answer that does not come would be
 * waited for. */
static void
tell(struct relay *r, json_t *v, bool hold)
{
	char *text = json_dumps(v, JSON_COMPACT);
	int rc = text == NULL ? LC_ENOMEM : 0;

	json_decref(v);
	if (rc == 0 && hold)
		rc = lc_buf_printf(&r->held, "%s\n", text);
	else if (rc == 0) {
		say(r, text, strlen(text));
		say(r, "\n", 1);
	}
	free(text);
	if (rc != 0)
		r->gone = true;
}

static json_t *
refusal(const char *class, const char *what, const char *why)
{
	char text[512];

	(void)snprintf(text, sizeof text, "%s%s", what, why);
	return json_pack("{s:{s:s, s:s+}}", "error", "class", class, "desc", "", text);
}

/* ---- libvirt ---- */

static void
on_tick(int timer, void *arg)
{
	struct relay *r = arg;

	(void)timer;
	r->ticks++;
}

static void
on_input(int watch, int fd, int events, void *arg)
{
	(void)watch;
	(void)fd;
	(void)events;
	(void)arg; /* It ends a turn of the loop, that is all. */
}

static void
turn(struct relay *r, unsigned ticks)
{
	r->ticks = 0;
	r->v.virEventUpdateTimeout(r->timer, ticks > 0 ? 0 : -1);
	do {
		if (r->v.virEventRunDefaultImpl() < 0)
			r->gone = true;
	} while (r->ticks < ticks && !r->gone);
	r->v.virEventUpdateTimeout(r->timer, -1);
}

/* Events before answers. */
static void
settle(struct relay *r)
{
	unsigned long version;

	(void)r->v.virConnectGetLibVersion(r->conn, &version);
	(void)r->v.virConnectGetLibVersion(r->conn, &version);
	turn(r, 2);
	say(r, (const char *)r->held.p, r->held.n);
	r->held.n = 0;
	r->unsettled = false;
}

static void
on_event(virConnectPtr conn, virDomainPtr dom, const char *event, long long s, unsigned us,
         const char *details, void *arg)
{
	struct relay *r = arg;
	json_t *data = details == NULL ? NULL : json_loads(details, 0, NULL);

	(void)conn;
	(void)dom;
	if (strcmp(event, "STOP") == 0)
		r->stops++;
	tell(r,
	     json_pack("{s:s, s:o*, s:{s:I, s:I}}", "event", event, "data", data, "timestamp",
	               "seconds", (json_int_t)s, "microseconds", (json_int_t)us),
	     false);
}

static int
on_lifecycle(virConnectPtr conn, virDomainPtr dom, int event, int detail, void *arg)
{
	struct relay *r = arg;

	(void)conn;
	(void)dom;
	(void)detail;
	/* A QEMU that is started after it is another one. */
	if (event == VIR_DOMAIN_EVENT_STOPPED || event == VIR_DOMAIN_EVENT_CRASHED)
		r->gone = true;
	return 0;
}

static bool
is_uuid(const char *s)
{
	return strlen(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-';
}

static bool
reach(struct relay *r)
{
	r->conn = r->v.virConnectOpen(r->uri);
	if (r->conn == NULL)
		return false;
	(void)r->v.virConnectSetKeepAlive(r->conn, KEEPALIVE_S, KEEPALIVES);
	if (r->domain == NULL)
		return true;
	r->dom = is_uuid(r->domain) ? r->v.virDomainLookupByUUIDString(r->conn, r->domain)
	                            : r->v.virDomainLookupByName(r->conn, r->domain);
	return r->dom != NULL;
}

static bool
listen_to(struct relay *r)
{
	return r->v.virConnectDomainQemuMonitorEventRegister(r->conn, r->dom, NULL, on_event, r,
	                                                     NULL, 0) >= 0 &&
	       r->v.virConnectDomainEventRegisterAny(r->conn, r->dom, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
	                                             VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle), r,
	                                             NULL) >= 0;
}

/* One command of QEMU's; NULL where libvirt did not carry it out. */
static json_t *
pass_on(struct relay *r, const char *text, int fd)
{
	char *result = NULL;
	json_t *v = NULL;
	int rc;

	if (fd >= 0)
		rc = r->v.virDomainQemuMonitorCommandWithFiles(r->dom, text, 1, &fd, NULL, NULL,
		                                               &result, 0);
	else
		rc = r->v.virDomainQemuMonitorCommand(r->dom, text, &result, 0);
	if (rc >= 0 && result != NULL)
		v = json_loads(result, 0, NULL);
	free(result);
	return v;
}

static bool
lost(struct relay *r)
{
	return r->v.virConnectIsAlive(r->conn) != 1;
}

/* The guest stands still because of us and libvirtd is gone: nothing else matters now.  Ends when
 * the CPUs were let go, or nobody knows the domain any more. */
static void
let_go(struct relay *r)
{
	json_t *v;

	for (;;) {
		if (r->dom != NULL) {
			v = pass_on(r, "{\"execute\":\"cont\"}", -1);
			json_decref(v);
			if (v != NULL || (!lost(r) && r->v.virDomainIsActive(r->dom) != 1))
				break;
			if (lost(r) && relay_past(r->monitor, r->uuid))
				break;
			r->v.virDomainFree(r->dom);
		}
		if (r->conn != NULL)
			r->v.virConnectClose(r->conn);
		r->dom = NULL;
		wait_ms(AGAIN_MS);
		if (reach(r))
			continue;
		if (r->conn != NULL ? r->v.virGetLastErrorCode() == VIR_ERR_NO_DOMAIN
		                    : relay_past(r->monitor, r->uuid))
			break;
	}
	say(r, (const char *)r->held.p, r->held.n);
	r->held.n = 0;
	r->stopped = false;
	r->gone = true;
}

/* A byte says that all is well, an end without one that we died. */
static _Noreturn void
heir_main(struct relay *r, int pipe_end)
{
	char byte;
	ssize_t n;

	/* The connection is our parent's: it is forgotten, not closed. */
	(void)dup2(pipe_end, RELAY_FD);
	(void)close(pipe_end);
	while ((n = read(RELAY_FD, &byte, 1)) < 0 && errno == EINTR)
		;
	if (n == 0) {
		r->conn = NULL;
		r->dom = NULL;
		r->deaf = true;
		let_go(r);
	}
	_exit(0);
}

static void
appoint_heir(struct relay *r)
{
	int ends[2];
	pid_t pid;

	if (pipe(ends) != 0)
		return;
	pid = fork();
	if (pid == 0) {
		(void)close(ends[1]);
		heir_main(r, ends[0]);
	}
	(void)close(ends[0]);
	r->heir = ends[1];
	if (pid < 0)
		fd_close(&r->heir);
}

static void
dismiss_heir(struct relay *r)
{
	if (r->heir < 0)
		return;
	(void)!write(r->heir, "", 1);
	fd_close(&r->heir);
	while (wait(NULL) < 0 && errno == EINTR)
		;
}

/* ---- commands of our own ---- */

static const char *
state_name(struct relay *r, virDomainPtr dom)
{
	int state = VIR_DOMAIN_NOSTATE;

	(void)r->v.virDomainGetState(dom, &state, NULL, 0);
	switch (state) {
	case VIR_DOMAIN_PAUSED:
		return "paused";
	case VIR_DOMAIN_SHUTOFF:
		return "off";
	case VIR_DOMAIN_CRASHED:
		return "crashed";
	case VIR_DOMAIN_PMSUSPENDED:
		return "suspended";
	default:
		return "running";
	}
}

/* libvirt's description of a domain that is off does not name a firmware that it chooses itself
 * when the domain starts.  It does where it makes QEMU's command line, of which nothing else is
 * read. */
static void
add_firmware(struct relay *r, const char *xml, json_t *v)
{
	static const struct {
		const char *node, *key;
	} flash[] = {{"libvirt-pflash0-storage", "firmware"}, {"libvirt-pflash1-storage", "nvram"}};
	char *line = r->v.virConnectDomainXMLToNative(r->conn, "qemu-argv", xml, 0);
	const char *p;
	size_t i;

	for (p = line == NULL ? NULL : strchr(line, '{'); p != NULL; p = strchr(p + 1, '{')) {
		json_t *node = json_loads(p, JSON_DISABLE_EOF_CHECK, NULL);
		const char *name = json_string_value(json_object_get(node, "node-name"));
		const char *driver = json_string_value(json_object_get(node, "driver"));

		for (i = 0; i < 2 && name != NULL && driver != NULL; i++) {
			if (strcmp(driver, "file") == 0 && strcmp(name, flash[i].node) == 0)
				(void)json_object_set(v, flash[i].key,
				                      json_object_get(node, "filename"));
		}
		json_decref(node);
	}
	free(line);
}

static json_t *
describe(struct relay *r, virDomainPtr dom, bool with_xml)
{
	char uuid[VIR_UUID_STRING_BUFLEN] = "";
	char *xml = NULL;
	json_t *v;

	(void)r->v.virDomainGetUUIDString(dom, uuid);
	if (with_xml)
		xml = r->v.virDomainGetXMLDesc(dom, 0);
	v = json_pack("{s:s, s:s, s:s, s:b, s:s*}", "name", r->v.virDomainGetName(dom), "uuid",
	              uuid, "state", state_name(r, dom), "persistent",
	              r->v.virDomainIsPersistent(dom) == 1, "xml", xml);
	if (v != NULL && xml != NULL && strstr(xml, "<os firmware=") != NULL &&
	    r->v.virDomainIsActive(dom) == 0)
		add_firmware(r, xml, v);
	free(xml);
	return v;
}

static json_t *
answer_domain(struct relay *r, const json_t *arguments)
{
	(void)arguments;
	return r->dom == NULL ? NULL : describe(r, r->dom, true);
}

static json_t *
answer_domains(struct relay *r, const json_t *arguments)
{
	virDomainPtr *all = NULL;
	json_t *list = NULL;
	int i, n = r->v.virConnectListAllDomains(r->conn, &all, 0);

	(void)arguments;
	if (n >= 0)
		list = json_array();
	for (i = 0; i < n; i++) {
		(void)json_array_append_new(list, describe(r, all[i], false));
		r->v.virDomainFree(all[i]);
	}
	free(all);
	return list;
}

static json_t *
answer_define(struct relay *r, const json_t *arguments)
{
	const char *xml = json_string_value(json_object_get(arguments, "xml"));
	virDomainPtr dom = xml == NULL ? NULL : r->v.virDomainDefineXML(r->conn, xml);
	json_t *v = dom == NULL ? NULL : describe(r, dom, false);

	if (dom != NULL)
		r->v.virDomainFree(dom);
	return v;
}

/* What was before the `stop` that follows is told before this is answered. */
static json_t *
answer_pause(struct relay *r, const json_t *arguments)
{
	(void)arguments;
	dismiss_heir(r);
	appoint_heir(r);
	settle(r);
	r->before = r->stops;
	return r->heir < 0 ? NULL : json_object();
}

/* The client has negotiated with us, libvirt has with QEMU. */
static json_t *
answer_nothing(struct relay *r, const json_t *arguments)
{
	(void)r;
	(void)arguments;
	return json_object();
}

static const struct {
	const char *name;
	json_t *(*answer)(struct relay *r, const json_t *arguments);
} own[] = {
    {"qmp_capabilities", answer_nothing}, {RELAY_DOMAIN, answer_domain},
    {RELAY_DOMAINS, answer_domains},      {RELAY_DEFINE, answer_define},
    {RELAY_PAUSE, answer_pause},
};

/* ---- commands ---- */

static json_t *
failure(struct relay *r)
{
	return refusal("GenericError", "libvirt: ", r->v.virGetLastErrorMessage());
}

/* The answer, without its id. */
static json_t *
answer(struct relay *r, const char *name, const json_t *command, int fd)
{
	char *text;
	json_t *v;
	size_t i;

	for (i = 0; i < sizeof own / sizeof own[0]; i++) {
		if (strcmp(name, own[i].name) != 0)
			continue;
		v = own[i].answer(r, json_object_get(command, "arguments"));
		return v == NULL ? failure(r) : json_pack("{s:o}", "return", v);
	}
	if (r->dom == NULL)
		return refusal("CommandNotFound", "no domain was named", "");
	text = json_dumps(command, JSON_COMPACT);
	if (text == NULL)
		return NULL;
	v = pass_on(r, text, fd);
	free(text);
	return v == NULL ? failure(r) : v;
}

/* Those that come with one. */
static int
descriptor_for(struct relay *r, const char *name)
{
	int fd;

	if (r->nfds == 0 || (strcmp(name, "add-fd") != 0 && strcmp(name, "getfd") != 0))
		return -1;
	fd = r->fds[0];
	memmove(r->fds, r->fds + 1, --r->nfds * sizeof r->fds[0]);
	return fd;
}

static void
carry_out(struct relay *r, json_t *command)
{
	const char *name = json_string_value(json_object_get(command, "execute"));
	json_t *id = json_incref(json_object_get(command, "id"));
	bool stop = strcmp(name, "stop") == 0, cont = strcmp(name, "cont") == 0;
	int fd = descriptor_for(r, name);
	json_t *v;

	(void)json_object_del(command, "id"); /* libvirt sets one of its own */
	r->stopped = r->stopped || (stop && r->heir >= 0);
	v = answer(r, name, command, fd);
	fd_close(&fd);
	if (stop && r->stopped)
		(void)failpoint("relay.stopped");
	if (lost(r)) {
		if (cont && r->stopped)
			let_go(r);
		r->gone = !r->stopped;
		json_decref(v);
		v = refusal("GenericError", "the connection to libvirtd broke", "");
	}
	if (id != NULL)
		(void)json_object_set_new(v, "id", id);
	tell(r, v, r->stopped);
	r->unsettled = true;
	if (cont) {
		r->stopped = false;
		dismiss_heir(r);
		if (!r->gone)
			settle(r);
	}
}

/* A line without its newline; what is no command is not answered, as it has no id. */
static void
take_line(struct relay *r, const char *p, size_t n)
{
	json_t *v = json_loadb(p, n, JSON_REJECT_DUPLICATES, NULL);

	if (v != NULL && json_is_string(json_object_get(v, "execute")))
		carry_out(r, v);
	json_decref(v);
}

/* All whole lines that have arrived. */
static void
take_lines(struct relay *r)
{
	char *nl;

	while (!r->gone && r->in.n > 0 && (nl = memchr(r->in.p, '\n', r->in.n)) != NULL) {
		size_t n = (size_t)(nl - (char *)r->in.p);

		take_line(r, (const char *)r->in.p, n);
		r->in.n -= n + 1;
		memmove(r->in.p, nl + 1, r->in.n);
	}
	if (r->in.n > LINE_MAX_BYTES)
		r->gone = true;
}

static void
keep_descriptors(struct relay *r, struct msghdr *msg)
{
	struct cmsghdr *c;

	for (c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
		int fd;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
		    c->cmsg_len != CMSG_LEN(sizeof fd))
			continue;
		memcpy(&fd, CMSG_DATA(c), sizeof fd);
		if (r->nfds < FDS_MAX)
			r->fds[r->nfds++] = fd;
		else
			fd_close(&fd);
	}
}

/* What is there now; false: nothing. */
static bool
receive(struct relay *r)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_len = READ_CHUNK};
	struct msghdr msg = {.msg_iov = &iov,
	                     .msg_iovlen = 1,
	                     .msg_control = control.buf,
	                     .msg_controllen = sizeof control.buf};
	ssize_t n;

	if (lc_buf_reserve(&r->in, READ_CHUNK) != 0) {
		r->gone = true;
		return false;
	}
	iov.iov_base = r->in.p + r->in.n;
	n = recvmsg(RELAY_FD, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) {
		r->eof = true;
		return false;
	}
	keep_descriptors(r, &msg);
	r->in.n += (size_t)n;
	return true;
}

/* ---- life ---- */

static void
work(struct relay *r)
{
	while (!r->gone) {
		take_lines(r);
		if (r->gone || receive(r))
			continue;
		if (r->unsettled)
			settle(r);
		else if (r->eof)
			break;
		else
			turn(r, 0);
	}
}

/* Nobody is there any more who would have let the CPUs go. */
static void
leave(struct relay *r)
{
	if (!r->stopped)
		return;
	if (!r->gone)
		settle(r);
	if (r->stops > r->before || lost(r))
		let_go(r);
	dismiss_heir(r);
}

/* Where QEMU listens for libvirtd. */
static void
learn_monitor(struct relay *r)
{
	json_t *v = pass_on(r, "{\"execute\":\"query-chardev\"}", -1), *x;
	size_t i;

	(void)r->v.virDomainGetUUIDString(r->dom, r->uuid);
	json_array_foreach(json_object_get(v, "return"), i, x)
	{
		const char *label = json_string_value(json_object_get(x, "label"));
		const char *file = json_string_value(json_object_get(x, "filename"));

		if (label != NULL && file != NULL && strcmp(label, "charmonitor") == 0)
			relay_past_path(file, r->monitor);
	}
	json_decref(v);
}

/* False: the reason was said. */
static bool
greet(struct relay *r)
{
	json_t *v, *version;

	if (!reach(r)) {
		bool none = r->conn != NULL && r->v.virGetLastErrorCode() == VIR_ERR_NO_DOMAIN;

		tell(r,
		     refusal(none ? "DeviceNotFound" : "GenericError",
		             none ? "" : "libvirt: ", r->v.virGetLastErrorMessage()),
		     false);
		return false;
	}
	version = json_pack("{s:{s:i, s:i, s:i}}", "qemu", "major", 0, "minor", 0, "micro", 0);
	if (r->dom != NULL && r->v.virDomainIsActive(r->dom) == 1) {
		v = listen_to(r) ? pass_on(r, "{\"execute\":\"query-version\"}", -1) : NULL;
		if (v == NULL) {
			tell(r, failure(r), false);
			return false;
		}
		json_decref(version);
		version = json_incref(json_object_get(v, "return"));
		json_decref(v);
		learn_monitor(r);
	}
	tell(r, json_pack("{s:{s:o, s:[]}}", "QMP", "version", version, "capabilities"), false);
	return !r->gone;
}

int
relay_main(int argc, char **argv)
{
	struct relay r = {.heir = -1};
	struct lc_err e = LC_ERR_INIT;
	sigset_t set;

	if (argc < 4)
		return 2;
	/* What a terminal or a service manager says is for those at the other end; when they are
	 * gone, so are we. */
	(void)sigfillset(&set);
	(void)sigdelset(&set, SIGALRM);
	(void)pthread_sigmask(SIG_SETMASK, &set, NULL);
	(void)signal(SIGALRM, SIG_DFL); /* NOLINT(cert-err33-c) */
	(void)alarm((unsigned)strtoul(argv[2], NULL, 10));
	r.uri = argv[3];
	r.domain = argv[4];
	if (libvirt_load(&r.v, &e) != 0 || r.v.virEventRegisterDefaultImpl() != 0) {
		tell(&r, refusal("GenericError", e.msg, ""), false);
		return 1;
	}
	r.timer = r.v.virEventAddTimeout(-1, on_tick, &r, NULL);
	(void)r.v.virEventAddHandle(RELAY_FD, VIR_EVENT_HANDLE_READABLE, on_input, &r, NULL);
	if (!greet(&r))
		return 1;
	(void)alarm(0);
	work(&r);
	(void)alarm(r.stopped ? 0 : LAST_S);
	leave(&r);
	return 0;
}
#else
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int
relay_main(int argc, char **argv)
{
	static const char no[] = "{\"error\":{\"class\":\"GenericError\",\"desc\":\"this locum was "
				 "built without libvirt's headers\"}}\n";

	(void)argc;
	(void)argv;
	(void)send(3, no, strlen(no), MSG_NOSIGNAL);
	return 1;
}
#endif
