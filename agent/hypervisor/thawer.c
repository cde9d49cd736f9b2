/*
 *     claim ─► connect ─► look ─► mark ─► freeze ─► (answer) ─► (order) ─► thaw ─► unmark
 *       │         │         │                │           │          │       │ ▲
 *       └─────────┴─────────┴──► report, end └───────────┴──────────┴───────┘ └─ no good answer
 *                                             we die, or the time is up
 *
 * To look is a sync, then a question whether it is frozen.
 * One that somebody else has frozen is left alone: a thaw of ours would be the end of their freeze.
 *
 * Made by fork and without exec, so system calls and nothing else: what other threads of this
 * process were doing at that moment does not matter.
 *
 * The thaw is asked for as soon as it is due, whether the freeze was answered or not: the agent
 * works in order, and one that comes back to life after minutes finds the thaw right behind the
 * freeze.  So the channel stays open until the thaw was answered, for what QEMU has not yet passed
 * on is lost when we close it.  Before each thaw goes a sync, as the answer to the freeze may come
 * before that to the thaw.
 *
 * Where the channel is libvirt's a relay stands in its place.  QEMU has room for one at the
 * channel, so as long as libvirtd is there the socket itself is of no use; once it is gone, only
 * the socket is.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "store/base/clock.h"

#include "agent/hypervisor/relay.h"
#include "agent/hypervisor/thawer.h"

#define SENTINEL '\xff'
#define FREEZE "{\"execute\":\"guest-fsfreeze-freeze\"}\n"
#define THAW "{\"execute\":\"guest-fsfreeze-thaw\"}\n"
#define STATUS "{\"execute\":\"guest-fsfreeze-status\"}\n"
#define WRITE_MS 1000
#define BREATH_MS 1
#define CLAIMS 20 /* one that is being killed has its lock for a moment yet */
#define CLAIM_MS 25

enum happened {
	HAPPENED_LINE = 1,
	HAPPENED_ORDER,
	HAPPENED_ORPHANED,
	HAPPENED_TIME,
	HAPPENED_CLOSED,
	HAPPENED_REFUSED,     /* libvirt could not ask the agent */
	HAPPENED_GONE,        /* ... as the domain does not run */
	HAPPENED_UNREACHABLE, /* there is no libvirtd */
};

struct thawer {
	const struct thawer_job *job;
	int channel, mark;
	bool old_mark; /* of one that was killed: there is something to be thawed */
	bool orphan;   /* nobody listens, or nobody is listened to */
	bool past;     /* the channel is the socket, though libvirt has one */
	char order;
	char sync[128], id[24];
	int64_t froze_ns; /* when that was asked for */
	char in[4096];    /* read and not yet looked at */
	size_t at, n;
	char line[4096];
	size_t len;
	bool whole; /* line is one; the next byte begins another */
};

static int64_t
now_ns(void)
{
	return clock_mono_ns();
}

static void
breathe(long ms)
{
	const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	(void)nanosleep(&t, NULL);
}

static void
tell(const struct thawer *t, struct thawer_report *r)
{
	if (t->froze_ns > 0)
		r->held_ns = now_ns() - t->froze_ns;
	(void)send(t->job->talk, r, sizeof *r, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* With the line that was read last. */
static void
tell_line(const struct thawer *t, enum thawer_word word, bool late)
{
	struct thawer_report r = {.word = word, .late = late};

	r.n = t->len < sizeof r.line ? t->len : sizeof r.line;
	memcpy(r.line, t->line, r.n);
	tell(t, &r);
}

static _Noreturn void
end(const struct thawer *t, enum thawer_word word, int sys)
{
	struct thawer_report r = {.word = word, .sys = sys};

	tell(t, &r);
	_exit(0);
}

/* ---- the channel ---- */

static bool
dial(struct thawer *t)
{
	if (t->channel >= 0)
		(void)close(t->channel);
	t->at = t->n = t->len = 0;
	t->whole = false;
	if (t->job->uri[0] != '\0' && !t->past) {
		t->channel = relay_agent(t->job->uri, t->job->domain, t->job->answer_ms,
		                         t->job->limit_ms);
		return t->channel >= 0;
	}
	t->channel = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return t->channel >= 0 && connect(t->channel, (const struct sockaddr *)&t->job->socket,
	                                  sizeof t->job->socket) == 0;
}

/* Where the channel was closed, or is of no use; false: the VM is gone. */
static bool
dial_again(struct thawer *t, enum happened h)
{
	bool closed = h == HAPPENED_CLOSED || h == HAPPENED_UNREACHABLE;

	if (!closed && !t->past)
		return true;
	if (t->job->uri[0] == '\0')
		return dial(t);
	t->past = !t->past && t->job->socket.sun_path[0] != '\0';
	if (dial(t))
		return true;
	t->past = false; /* neither is there; libvirtd will say what there is */
	return dial(t);
}

/* QEMU that takes no more is as good as an agent that does not answer. */
static void
say(const struct thawer *t, const char *text)
{
	size_t n = strlen(text);

	while (n > 0) {
		ssize_t k = send(t->channel, text, n, MSG_NOSIGNAL);
		struct pollfd room = {.fd = t->channel, .events = POLLOUT};

		if (k > 0) {
			text += k;
			n -= (size_t)k;
		} else if (k == 0 || (errno != EAGAIN && errno != EINTR) ||
		           (errno == EAGAIN && poll(&room, 1, WRITE_MS) <= 0)) {
			return;
		}
	}
}

/* Bytes that were read, up to the end of a line.  What does not fit is cut; what comes before a
 * sentinel is of somebody before us. */
static bool
next_line(struct thawer *t)
{
	if (t->whole) {
		t->whole = false;
		t->len = 0;
	}
	while (t->at < t->n) {
		char c = t->in[t->at++];

		if (c == '\n') {
			t->whole = true;
			return true;
		}
		if (c == SENTINEL)
			t->len = 0;
		else if (t->len < sizeof t->line)
			t->line[t->len++] = c;
	}
	return false;
}

/* false: the channel was closed. */
static bool
fill(struct thawer *t)
{
	ssize_t k = recv(t->channel, t->in, sizeof t->in, 0);

	t->at = 0;
	t->n = k > 0 ? (size_t)k : 0;
	if (t->n == sizeof t->in)
		breathe(BREATH_MS); /* an agent that floods us must not take a CPU */
	return k > 0 || (k < 0 && (errno == EAGAIN || errno == EINTR));
}

/* false: nobody is there any more. */
static bool
take_order(struct thawer *t)
{
	ssize_t k = recv(t->job->talk, &t->order, 1, MSG_DONTWAIT);

	return k > 0 || (k < 0 && (errno == EAGAIN || errno == EINTR));
}

/* What comes first; time goes before all. */
static enum happened
await(struct thawer *t, int64_t end_ns)
{
	for (;;) {
		struct pollfd p[] = {{.fd = t->channel, .events = POLLIN},
		                     {.fd = t->orphan ? -1 : t->job->talk, .events = POLLIN}};
		int64_t left = end_ns - now_ns();

		if (left <= 0)
			return HAPPENED_TIME;
		if (next_line(t))
			return HAPPENED_LINE;
		/* Rounded up, or it would go round and round in the last millisecond. */
		if (poll(p, 2, (int)(left / LC_NS_PER_MS) + 1) <= 0)
			continue;
		if (p[1].revents != 0) {
			t->order = 0;
			t->orphan = !take_order(t);
			if (t->orphan)
				return HAPPENED_ORPHANED;
			if (t->order != 0)
				return HAPPENED_ORDER;
		}
		if (p[0].revents != 0 && !fill(t))
			return HAPPENED_CLOSED;
	}
}

/* What a relay's answer to the sync says. */
static enum happened
verdict(const struct thawer *t)
{
	if (memmem(t->line, t->len, "\"error\"", 7) == NULL)
		return HAPPENED_LINE;
	if (memmem(t->line, t->len, "\"ConnectionFailed\"", 18) != NULL)
		return HAPPENED_UNREACHABLE;
	return memmem(t->line, t->len, "\"DeviceNotFound\"", 16) == NULL ? HAPPENED_REFUSED
	                                                                 : HAPPENED_GONE;
}

/* Until the sync was answered, or else what happened. */
static enum happened
await_sync(struct thawer *t, int64_t end_ns)
{
	enum happened h = HAPPENED_LINE;

	while (h == HAPPENED_LINE || h == HAPPENED_ORDER) {
		h = await(t, end_ns);
		if (h == HAPPENED_LINE && memmem(t->line, t->len, t->id, strlen(t->id)) != NULL)
			return t->job->uri[0] == '\0' || t->past ? h : verdict(t);
	}
	return h;
}

/* ---- the mark ---- */

/* Whether the mark is ours now; sets *sys where not, 0: somebody else's. */
static bool
claim(struct thawer *t, int *sys)
{
	int tries = t->job->only_thaw ? CLAIMS : 1;
	struct stat st;

	*sys = 0;
	t->mark = open(t->job->mark, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (t->mark < 0) {
		*sys = errno;
		return false;
	}
	while (flock(t->mark, LOCK_EX | LOCK_NB) != 0) {
		if (--tries == 0)
			return false;
		breathe(CLAIM_MS);
	}
	t->old_mark = fstat(t->mark, &st) == 0 && st.st_size > 0;
	return true;
}

static void
unmark(const struct thawer *t)
{
	(void)unlink(t->job->mark);
}

/* Nothing was frozen by us. */
static _Noreturn void
end_as_it_was(const struct thawer *t, enum thawer_word word, int sys)
{
	if (!t->old_mark)
		unmark(t);
	end(t, word, sys);
}

static _Noreturn void
end_refused(const struct thawer *t)
{
	if (!t->old_mark)
		unmark(t);
	tell_line(t, THAWER_REFUSED, false);
	_exit(0);
}

static _Noreturn void
end_without_vm(const struct thawer *t)
{
	unmark(t);
	end(t, THAWER_CLOSED, 0);
}

/* ---- freeze and thaw ---- */

/* One question.  HAPPENED_LINE: it was answered. */
static enum happened
ask_thaw(struct thawer *t, int64_t end_ns)
{
	enum happened h;

	say(t, t->sync);
	say(t, THAW);
	do
		h = await_sync(t, end_ns);
	while (h == HAPPENED_ORPHANED);
	if (h != HAPPENED_LINE)
		return h;
	do
		h = await(t, end_ns);
	while (h == HAPPENED_ORPHANED || h == HAPPENED_ORDER);
	return h;
}

/* As long as it takes.  What goes on after the report nobody waits for. */
static _Noreturn void
thaw(struct thawer *t, bool late)
{
	int64_t began = now_ns(), give_up = began + THAWER_PATIENCE_MS * LC_NS_PER_MS;
	int64_t again_ms = THAWER_AGAIN < t->job->thaw_ms ? THAWER_AGAIN : t->job->thaw_ms;
	bool told = false;

	while (now_ns() < give_up) {
		enum happened h = ask_thaw(t, now_ns() + again_ms * LC_NS_PER_MS);

		if (h == HAPPENED_GONE)
			end_without_vm(t);
		if (h == HAPPENED_LINE && memmem(t->line, t->len, "\"return\"", 8) != NULL) {
			unmark(t);
			tell_line(t, THAWED, late);
			_exit(0);
		}
		if (!told && now_ns() - began >= t->job->thaw_ms * LC_NS_PER_MS) {
			if (h != HAPPENED_LINE)
				t->len = 0;
			tell_line(t, THAWER_STUCK, late);
			told = t->orphan = true;
		}
		if (h != HAPPENED_LINE && !dial_again(t, h))
			end_without_vm(t);
		if (h != HAPPENED_TIME && !t->past) /* it refuses, or there is another QEMU */
			breathe(again_ms / 8);
	}
	_exit(0);
}

/* An agent that can't say may freeze all the same. */
static enum happened
ask_status(struct thawer *t, int64_t end_ns, bool *held)
{
	enum happened h;

	say(t, STATUS);
	do
		h = await(t, end_ns);
	while (h == HAPPENED_ORDER);
	*held = h == HAPPENED_LINE && memmem(t->line, t->len, "\"frozen\"", 8) != NULL;
	return h;
}

static _Noreturn void
freeze(struct thawer *t)
{
	int64_t end_ns;
	enum happened h;

	if (write(t->mark, "f", 1) != 1)
		end_as_it_was(t, THAWER_UNMARKED, errno);
	t->froze_ns = now_ns();
	end_ns = t->froze_ns + t->job->limit_ms * LC_NS_PER_MS;
	say(t, FREEZE);
	h = await(t, end_ns);
	if (h == HAPPENED_LINE) {
		tell_line(t, THAWER_ANSWER, false);
		do
			h = await(t, end_ns);
		while (h == HAPPENED_LINE);
	}
	if (h == HAPPENED_CLOSED && !dial_again(t, h))
		end_without_vm(t);
	if (h == HAPPENED_ORDER && t->order == THAWER_ORDER_LEAVE && !t->old_mark) {
		unmark(t);
		_exit(0);
	}
	thaw(t, h != HAPPENED_ORDER);
}

/* Nothing of ours but the one socket.  The name, so that who kills all that is called locum does
 * not kill this one. */
static void
be_alone(int keep)
{
	sigset_t all;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_BLOCK, &all, NULL);
	(void)setsid();
	(void)prctl(PR_SET_NAME, "lc-thawer");
	if (keep > 0)
		(void)close_range(0, (unsigned)keep - 1, 0);
	(void)close_range((unsigned)keep + 1, ~0U, 0);
}

_Noreturn void
thawer_main(const struct thawer_job *job)
{
	struct thawer t = {.job = job, .channel = -1, .mark = -1, .orphan = job->only_thaw};
	enum happened h;
	int64_t end_ns;
	bool held = false;
	int sys;

	be_alone(job->talk);
	(void)snprintf(t.id, sizeof t.id, "%" PRIu64, job->nonce);
	(void)snprintf(t.sync, sizeof t.sync,
	               "%c{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":%s}}\n",
	               SENTINEL, t.id);
	if (!claim(&t, &sys))
		end(&t, sys == 0 ? THAWER_BUSY : THAWER_UNMARKED, sys);
	if (job->only_thaw && !t.old_mark)
		end_as_it_was(&t, THAWED, 0);
	if (!dial(&t)) {
		sys = errno;
		if (sys == ENOENT || sys == ECONNREFUSED)
			unmark(&t); /* the VM is not there any more */
		end_as_it_was(&t, THAWER_UNREACHABLE, sys);
	}
	if (job->only_thaw) {
		t.froze_ns = now_ns(); /* how long ago it was nobody knows */
		thaw(&t, false);
	}
	end_ns = now_ns() + job->answer_ms * LC_NS_PER_MS;
	say(&t, t.sync);
	h = await_sync(&t, end_ns);
	if (h == HAPPENED_LINE && !t.old_mark)
		h = ask_status(&t, end_ns, &held);
	if (held)
		end_as_it_was(&t, THAWER_HELD, 0);
	if (h == HAPPENED_LINE)
		freeze(&t);
	if (h == HAPPENED_REFUSED || h == HAPPENED_GONE || h == HAPPENED_UNREACHABLE)
		end_refused(&t);
	end_as_it_was(&t, h == HAPPENED_CLOSED ? THAWER_CLOSED : THAWER_SILENT, 0);
}
