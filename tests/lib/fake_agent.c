#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "store/base/clock.h"
#include "tests/lib/fake_agent.h"

#define FILESYSTEMS 2
#define SLOW_MS 600

const char *const fake_agent_names[FAKE_AGENT_MANNERS] = {
    [FAKE_AGENT_POLITE] = "polite",       [FAKE_AGENT_HUNG] = "hung",
    [FAKE_AGENT_RUBBISH] = "rubbish",     [FAKE_AGENT_FLOODS] = "floods",
    [FAKE_AGENT_NO_FREEZE] = "no-freeze", [FAKE_AGENT_FAILS] = "fails",
    [FAKE_AGENT_NONSENSE] = "nonsense",   [FAKE_AGENT_NOTHING] = "nothing",
    [FAKE_AGENT_SLOW] = "slow",           [FAKE_AGENT_NEVER_THAWS] = "never-thaws",
    [FAKE_AGENT_REFUSES] = "refuses",     [FAKE_AGENT_LOSES] = "loses",
    [FAKE_AGENT_HELD] = "held",           [FAKE_AGENT_DIES] = "dies",
};

struct fake_agent {
	int listener, client;
	int stop[2]; /* pipe */
	char path[108];
	pthread_t thread;
	pthread_mutex_t lock; /* of what follows */
	enum fake_agent_manner manner;
	struct fake_agent_saw saw;
	unsigned refused;
	/* The thread's alone. */
	char line[1024];
	size_t len;
	bool dead;
};

static void
pause_ms(long ms)
{
	const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	(void)nanosleep(&t, NULL);
}

static void
say(struct fake_agent *a, const char *text)
{
	(void)!send(a->client, text, strlen(text), MSG_NOSIGNAL);
}

static void
set_frozen(struct fake_agent *a, bool frozen)
{
	(void)pthread_mutex_lock(&a->lock);
	a->saw.frozen = frozen;
	if (frozen)
		a->saw.freeze_ns = clock_mono_ns();
	else
		a->saw.thawed_ns = clock_mono_ns();
	(void)pthread_mutex_unlock(&a->lock);
}

static void
die(struct fake_agent *a)
{
	(void)unlink(a->path);
	(void)shutdown(a->client, SHUT_RDWR);
	a->dead = true;
}

static void
on_freeze(struct fake_agent *a, enum fake_agent_manner manner)
{
	switch (manner) {
	case FAKE_AGENT_NO_FREEZE:
		say(a, "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"The command "
		       "guest-fsfreeze-freeze has not been found\"}}\n");
		return;
	case FAKE_AGENT_FAILS:
		say(a, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"failed to freeze "
		       "/mnt: \\u0001"
		       "Device or resource busy\"}}\n");
		return;
	case FAKE_AGENT_NOTHING:
		say(a, "{\"return\": 0}\n");
		return;
	case FAKE_AGENT_DIES:
		die(a);
		return;
	default:
		break;
	}
	set_frozen(a, true);
	if (manner == FAKE_AGENT_SLOW)
		pause_ms(SLOW_MS);
	say(a,
	    manner == FAKE_AGENT_NONSENSE ? "{\"return\": \"yes\", \"x\"\n" : "{\"return\": 2}\n");
}

static void
on_status(struct fake_agent *a, enum fake_agent_manner manner)
{
	bool frozen = manner == FAKE_AGENT_HELD || fake_agent_saw(a).frozen;

	if (manner == FAKE_AGENT_NO_FREEZE)
		say(a, "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"The command "
		       "guest-fsfreeze-status has not been found\"}}\n");
	else
		say(a, frozen ? "{\"return\": \"frozen\"}\n" : "{\"return\": \"thawed\"}\n");
}

static void
on_thaw(struct fake_agent *a, enum fake_agent_manner manner)
{
	if (manner == FAKE_AGENT_NEVER_THAWS)
		return;
	if (manner == FAKE_AGENT_REFUSES && a->refused++ < 2) {
		say(a, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"not now\"}}\n");
		return;
	}
	set_frozen(a, false);
	say(a, manner == FAKE_AGENT_LOSES ? "{\"return\": 1}\n" : "{\"return\": 2}\n");
}

static void
on_sync(struct fake_agent *a, const char *id)
{
	char text[200];

	/* As qemu-ga does for the sentinel, and an answer that was somebody else's. */
	say(a, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON parse error, stray "
	       "'\xff'\"}}\n{\"return\": 7}\nhalf a li");
	(void)snprintf(text, sizeof text, "\xff{\"return\": %.*s}\n", (int)strcspn(id, "}"), id);
	say(a, text);
}

static void
on_line(struct fake_agent *a)
{
	static const char sync[] = "{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":";
	const char *at = strstr(a->line, sync);
	bool freeze = strstr(a->line, "guest-fsfreeze-freeze") != NULL,
	     thaw = strstr(a->line, "guest-fsfreeze-thaw") != NULL;
	enum fake_agent_manner manner;
	int i;

	(void)pthread_mutex_lock(&a->lock);
	manner = a->manner;
	a->saw.syncs += at != NULL;
	a->saw.freezes += freeze;
	a->saw.thaws += thaw;
	/* It hears no more once it has died. */
	if (manner == FAKE_AGENT_NEVER_THAWS && a->saw.frozen)
		manner = FAKE_AGENT_HUNG;
	(void)pthread_mutex_unlock(&a->lock);
	if (manner == FAKE_AGENT_HUNG) {
		return;
	} else if (manner == FAKE_AGENT_RUBBISH) {
		say(a, "\xff\x01\x02[[[{");
	} else if (manner == FAKE_AGENT_FLOODS) {
		for (i = 0; i < 2000; i++)
			say(a, "{\"return\": {\"and\": \"on\"}}\n\xff\xff{}\n");
	} else if (at != NULL) {
		on_sync(a, at + sizeof sync - 1);
	} else if (freeze) {
		on_freeze(a, manner);
	} else if (thaw) {
		on_thaw(a, manner);
	} else if (strstr(a->line, "guest-fsfreeze-status") != NULL) {
		on_status(a, manner);
	}
}

/* false: there is no client any more. */
static bool
hear(struct fake_agent *a)
{
	char c;
	ssize_t k = recv(a->client, &c, 1, 0);

	if (k != 1)
		return false;
	if (c != '\n') {
		if (a->len < sizeof a->line - 1)
			a->line[a->len++] = c;
		return true;
	}
	a->line[a->len] = '\0';
	a->len = 0;
	on_line(a);
	return !a->dead;
}

static void *
play(void *arg)
{
	struct fake_agent *a = arg;

	for (;;) {
		struct pollfd p[] = {
		    {.fd = a->stop[0], .events = POLLIN},
		    {.fd = a->client >= 0 ? a->client : a->listener, .events = POLLIN}};

		if (poll(p, a->dead ? 1 : 2, -1) < 0 && errno != EINTR)
			return NULL;
		if (p[0].revents != 0)
			return NULL;
		if (a->dead || p[1].revents == 0)
			continue;
		if (a->client < 0) {
			a->client = accept(a->listener, NULL, NULL);
			a->len = 0;
			(void)pthread_mutex_lock(&a->lock);
			a->saw.clients++;
			(void)pthread_mutex_unlock(&a->lock);
		} else if (!hear(a)) {
			(void)close(a->client);
			a->client = -1;
		}
	}
}

struct fake_agent *
fake_agent_start(const char *path, enum fake_agent_manner manner)
{
	struct fake_agent *a = calloc(1, sizeof *a);
	struct sockaddr_un s = {.sun_family = AF_UNIX};

	if (a == NULL || strlen(path) >= sizeof s.sun_path)
		abort();
	(void)snprintf(s.sun_path, sizeof s.sun_path, "%s", path);
	(void)snprintf(a->path, sizeof a->path, "%s", path);
	a->manner = manner;
	a->client = -1;
	a->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (pthread_mutex_init(&a->lock, NULL) != 0 || pipe(a->stop) != 0 ||
	    bind(a->listener, (const struct sockaddr *)&s, sizeof s) != 0 ||
	    listen(a->listener, 1) != 0 || pthread_create(&a->thread, NULL, play, a) != 0)
		abort();
	return a;
}

void
fake_agent_behave(struct fake_agent *a, enum fake_agent_manner manner)
{
	(void)pthread_mutex_lock(&a->lock);
	a->manner = manner;
	a->refused = 0;
	(void)pthread_mutex_unlock(&a->lock);
}

struct fake_agent_saw
fake_agent_saw(struct fake_agent *a)
{
	struct fake_agent_saw saw;

	(void)pthread_mutex_lock(&a->lock);
	saw = a->saw;
	(void)pthread_mutex_unlock(&a->lock);
	return saw;
}

bool
fake_agent_wait(struct fake_agent *a, bool frozen, int64_t timeout_ms)
{
	int64_t end = clock_mono_ns() + timeout_ms * LC_NS_PER_MS;

	while (fake_agent_saw(a).frozen != frozen) {
		if (clock_mono_ns() > end)
			return false;
		pause_ms(2);
	}
	return true;
}

void
fake_agent_stop(struct fake_agent *a)
{
	(void)!write(a->stop[1], "", 1);
	(void)pthread_join(a->thread, NULL);
	if (a->client >= 0)
		(void)close(a->client);
	(void)close(a->listener);
	(void)close(a->stop[0]);
	(void)close(a->stop[1]);
	(void)unlink(a->path);
	(void)pthread_mutex_destroy(&a->lock);
	free(a);
}
