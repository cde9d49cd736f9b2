/*
 *     FREEZE ──► FROZEN ──► THAW ──► (done)
 *        │          └────────▲
 *        ├── it answered that it can't ─┘
 *        └── nothing was frozen ──► (done)
 *
 * The state names what is waited for: the answer to the freeze, freezer_thaw(), the thawer's last
 * report.  A thawer that dies or does not report in time is followed by another one, which only
 * thaws, and which nobody waits for.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <uv.h>

#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "store/base/spawn.h"

#include "agent/hypervisor/freezer.h"
#include "agent/hypervisor/qmp.h"
#include "agent/hypervisor/thawer.h"

#define THAW_MS 5000
#define SLACK_MS 2000 /* for a thawer to report, after its own times */

enum freezer_state { FREEZER_FREEZE = 0, FREEZER_FROZEN, FREEZER_THAW };

struct freezer {
	uv_loop_t *loop;
	uv_poll_t poll;
	uv_timer_t timer;
	int handles;
	struct thawer_job job; /* of the thawer; talk is its end */
	int fd;                /* our end */
	pid_t pid;
	enum freezer_state state;
	bool ended; /* the thawer's last report was read, or there will be none */
	struct freezer_result r;
	freezer_cb *done;
	void *arg;
};

/* ---- the other process ---- */

/* Sets *fd to our end. */
static int
spawn(struct thawer_job *job, int *fd, pid_t *pid, struct lc_err *e)
{
	int ends[2] = {-1, -1};

	*fd = -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
		return lc_fail(e, LC_ENOMEM, 0, "no descriptors");
	random_bytes(&job->nonce, sizeof job->nonce);
	job->nonce = (job->nonce >> 12) + (UINT64_C(1) << 51); /* always as many digits */
	job->talk = ends[1];
	*pid = fork();
	if (*pid == 0)
		thawer_main(job);
	fd_close(&ends[1]);
	if (*pid < 0) {
		fd_close(&ends[0]);
		return lc_fail(e, LC_ENOMEM, 0, "no process");
	}
	*fd = ends[0];
	return 0;
}

/* Another thawer, as the first one is gone or hangs. */
static void
replace(struct freezer *f)
{
	struct thawer_job job = f->job;
	pid_t pid = -1;
	int fd;

	job.only_thaw = true;
	if (!freezer_left(job.mark) || spawn(&job, &fd, &pid, NULL) != 0)
		return;
	fd_close(&fd);
	spawn_leave(pid);
}

/* ---- the end ---- */

static void
on_closed(uv_handle_t *h)
{
	struct freezer *f = h->data;

	if (--f->handles > 0)
		return;
	fd_close(&f->fd);
	spawn_leave(f->pid);
	f->done(f->arg, &f->r);
	lc_free(f);
}

static void
finish(struct freezer *f)
{
	uv_close((uv_handle_t *)&f->poll, on_closed);
	uv_close((uv_handle_t *)&f->timer, on_closed);
}

/* The first thing that went wrong is told. */
static void
fail(struct freezer *f, enum lc_code code, const char *hint, const char *why, const char *more)
{
	if (f->r.err.code != LC_OK)
		return;
	f->r.hint = hint;
	(void)lc_fail(&f->r.err, code, 0, "%s%s%.100s", why, more == NULL ? "" : ": ",
	              more == NULL ? "" : more);
}

static void
order(const struct freezer *f, char what)
{
	(void)send(f->fd, &what, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* ---- reports ---- */

/* What the agent says may be anything: it is the guest's. */
static void
refuse(struct freezer *f, const struct qmp_message *m, bool *unable)
{
	const char *class = qmp_str(m->body, "class"), *desc = qmp_str(m->body, "desc");
	char text[101];
	size_t i;

	(void)snprintf(text, sizeof text, "%s", desc == NULL ? "it does not say why" : desc);
	for (i = 0; text[i] != '\0'; i++) {
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
			text[i] = '?';
	}
	*unable = class != NULL && strcmp(class, "CommandNotFound") == 0;
	if (*unable)
		fail(f, LC_ENOTSUP,
		     "install a guest agent that can, and allow it guest-fsfreeze-freeze and -thaw",
		     "the guest agent cannot freeze", text);
	else
		fail(f, LC_EPEER, "see the log of the guest agent in the guest",
		     "freezing failed in the guest", text);
}

/* The number that the agent returned, or false after fail(). */
static bool
number_of(struct freezer *f, const struct thawer_report *r, uint64_t *n, bool *unable)
{
	struct qmp_message m;
	bool ok = false;

	*unable = false;
	if (qmp_parse(r->line, r->n, &m, NULL) == 0) {
		ok = m.kind == QMP_RETURN && qmp_u64(m.body, "", n);
		if (m.kind == QMP_ERROR)
			refuse(f, &m, unable);
		qmp_message_done(&m);
	}
	if (!ok)
		fail(f, LC_EPEER, "see which guest agent runs in the guest",
		     "what the guest agent answered to the freeze is no answer", NULL);
	return ok;
}

static void
answered(struct freezer *f, const struct thawer_report *r)
{
	bool unable, ok = number_of(f, r, &f->r.filesystems, &unable);

	if (ok && f->r.filesystems == 0)
		fail(f, LC_ENOTSUP, "mount what holds data from a disk of the VM",
		     "the guest has no filesystem that can be frozen", NULL);
	if (f->r.err.code == LC_OK) {
		f->state = FREEZER_FROZEN;
		f->r.held_ns = r->held_ns;
		f->done(f->arg, &f->r);
		return;
	}
	f->state = FREEZER_THAW;
	if (unable) {
		order(f, THAWER_ORDER_LEAVE);
		f->ended = true;
		finish(f);
	} else {
		order(f, THAWER_ORDER_THAW);
	}
}

static void
thawed(struct freezer *f, const struct thawer_report *r)
{
	uint64_t n = f->r.filesystems;
	bool unable;

	f->r.held_ns = r->held_ns;
	if (r->late) {
		fail(f, LC_ETIMEDOUT,
		     "raise freeze_timeout, or make the point when the guest writes less",
		     f->state == FREEZER_FREEZE
		         ? "the guest was not frozen within freeze_timeout"
		         : "the guest stood still for freeze_timeout and was thawed",
		     NULL);
	}
	if (f->r.err.code == LC_OK && r->n > 0 &&
	    (!number_of(f, r, &n, &unable) || n < f->r.filesystems))
		fail(f, LC_ECANCELED, "see who else freezes and thaws in it",
		     "somebody else thawed the guest meanwhile", NULL);
}

static void
stuck(struct freezer *f, const struct thawer_report *r)
{
	f->r.held_ns = r->held_ns;
	f->r.stuck = true;
	fail(f, LC_ETIMEDOUT, "thaw it in the guest (fsfreeze -u MOUNTPOINT), or reset the VM",
	     "the guest agent does not answer to the thaw", NULL);
}

/* By libvirt. */
static void
refused(struct freezer *f, const struct thawer_report *r)
{
	struct qmp_message m;
	char text[101] = "";
	size_t i;

	if (qmp_parse(r->line, r->n, &m, NULL) == 0) {
		const char *desc = m.kind == QMP_ERROR ? qmp_str(m.body, "desc") : NULL;

		(void)snprintf(text, sizeof text, "%s", desc == NULL ? "" : desc);
		qmp_message_done(&m);
	}
	for (i = 0; text[i] != '\0'; i++) {
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
			text[i] = '?';
	}
	fail(f, LC_ETIMEDOUT, "see that the guest agent runs in the guest",
	     "the guest agent does not answer", text[0] == '\0' ? NULL : text);
}

static void
last_report(struct freezer *f, const struct thawer_report *r)
{
	switch (r->word) {
	case THAWED:
		thawed(f, r);
		break;
	case THAWER_STUCK:
		stuck(f, r);
		break;
	case THAWER_UNREACHABLE:
		fail(f, LC_ENOENT, "see that the VM runs, and that guest_agent names its socket",
		     "no guest agent's channel",
		     strerror(r->sys)); /* NOLINT(concurrency-mt-unsafe) */
		break;
	case THAWER_UNMARKED:
		fail(f, LC_EIO, "make room in run_dir", "no mark can be left there",
		     strerror(r->sys)); /* NOLINT(concurrency-mt-unsafe) */
		break;
	case THAWER_BUSY:
		fail(f, LC_EBUSY, "see that the guest agent runs in the guest",
		     "the guest is still being thawed from before", NULL);
		break;
	case THAWER_CLOSED:
		fail(f, LC_EPEER, "see whether the VM still runs",
		     "the guest agent's channel was closed", NULL);
		break;
	case THAWER_HELD:
		fail(f, LC_EBUSY, "wait until it is thawed (virsh domfsthaw, fsfreeze -u)",
		     "somebody else has frozen it", NULL);
		break;
	case THAWER_REFUSED:
		refused(f, r);
		break;
	case THAWER_SILENT:
	case THAWER_ANSWER:
		fail(f, LC_ETIMEDOUT,
		     "see that the guest agent runs in the guest, and that no other program "
		     "(libvirt, say) holds its channel",
		     "the guest agent does not answer", NULL);
		break;
	}
	f->ended = true;
	if (f->state != FREEZER_FROZEN) /* else it is told when it is asked for */
		finish(f);
}

static void
lost(struct freezer *f)
{
	fail(f, LC_EPEER, NULL, "the process that was to thaw the guest was killed", NULL);
	replace(f);
	f->ended = true;
	(void)uv_poll_stop(&f->poll);
	if (f->state != FREEZER_FROZEN)
		finish(f);
}

static void
on_report(uv_poll_t *p, int status, int events)
{
	struct freezer *f = p->data;
	struct thawer_report r;
	ssize_t n = recv(f->fd, &r, sizeof r, MSG_DONTWAIT);

	(void)status;
	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (f->ended)
		(void)uv_poll_stop(p);
	else if (n != sizeof r || r.n > sizeof r.line)
		lost(f);
	else if (r.word == THAWER_ANSWER && f->state == FREEZER_FREEZE)
		answered(f, &r);
	else
		last_report(f, &r);
}

/* The thawer has its own times, so it hangs. */
static void
on_late(uv_timer_t *t)
{
	struct freezer *f = t->data;

	if (f->ended)
		return;
	(void)kill(f->pid, SIGKILL);
	lost(f);
}

/* ---- calls ---- */

static int
set_paths(struct thawer_job *job, const struct freezer_opts *o, struct lc_err *e)
{
	const char *socket_path = o->socket == NULL ? "" : o->socket;

	if (strlen(socket_path) >= sizeof job->socket.sun_path)
		return lc_fail(e, LC_EINVAL, 0, "guest agent: socket path %s is too long",
		               socket_path);
	if (strlen(o->mark) >= sizeof job->mark)
		return lc_fail(e, LC_EINVAL, 0, "guest agent: path %s is too long", o->mark);
	if (o->libvirt != NULL &&
	    (strlen(o->libvirt) >= sizeof job->uri || strlen(o->domain) >= sizeof job->domain))
		return lc_fail(e, LC_EINVAL, 0, "guest agent: URI %s or domain %s is too long",
		               o->libvirt, o->domain);
	memcpy(job->socket.sun_path, socket_path, strlen(socket_path) + 1);
	memcpy(job->mark, o->mark, strlen(o->mark) + 1);
	if (o->libvirt != NULL) {
		memcpy(job->uri, o->libvirt, strlen(o->libvirt) + 1);
		memcpy(job->domain, o->domain, strlen(o->domain) + 1);
	}
	return 0;
}

static int
begin(struct uv_loop_s *loop, const struct freezer_opts *o, bool only_thaw, freezer_cb *done,
      void *arg, struct freezer **out, struct lc_err *e)
{
	struct freezer *f = lc_alloc(sizeof *f);
	int rc;

	if (f == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	f->loop = loop;
	f->done = done;
	f->arg = arg;
	f->fd = -1;
	f->state = only_thaw ? FREEZER_THAW : FREEZER_FREEZE;
	f->job = (struct thawer_job){.socket.sun_family = AF_UNIX,
	                             .answer_ms = o->answer_ms,
	                             .limit_ms = o->limit_ms,
	                             .thaw_ms = o->thaw_ms > 0 ? o->thaw_ms : THAW_MS,
	                             .only_thaw = only_thaw};
	rc = set_paths(&f->job, o, e);
	rc = rc != 0 ? rc : spawn(&f->job, &f->fd, &f->pid, e);
	if (rc == 0 && uv_poll_init(loop, &f->poll, f->fd) != 0) {
		rc = lc_fail(e, LC_ENOMEM, 0, "no descriptors");
		fd_close(&f->fd); /* it ends */
		spawn_leave(f->pid);
	}
	if (rc != 0) {
		lc_free(f);
		return rc;
	}
	(void)uv_timer_init(loop, &f->timer);
	f->handles = 2;
	f->poll.data = f;
	f->timer.data = f;
	(void)uv_poll_start(&f->poll, UV_READABLE | UV_DISCONNECT, on_report);
	(void)uv_timer_start(
	    &f->timer, on_late,
	    (uint64_t)(o->answer_ms + o->limit_ms + f->job.thaw_ms + THAWER_AGAIN + SLACK_MS), 0);
	*out = f;
	return 0;
}

int
freezer_start(struct uv_loop_s *loop, const struct freezer_opts *o, freezer_cb *frozen, void *arg,
              struct freezer **out, struct lc_err *e)
{
	*out = NULL;
	return begin(loop, o, false, frozen, arg, out, e);
}

void
freezer_thaw(struct freezer *f, freezer_cb *thawed_cb, void *arg)
{
	f->done = thawed_cb;
	f->arg = arg;
	f->state = FREEZER_THAW;
	if (f->ended)
		finish(f);
	else
		order(f, THAWER_ORDER_THAW);
}

bool
freezer_left(const char *mark)
{
	struct stat st;

	return stat(mark, &st) == 0;
}

int
freezer_recover(struct uv_loop_s *loop, const struct freezer_opts *o, freezer_cb *done, void *arg,
                struct lc_err *e)
{
	struct freezer *f;

	return begin(loop, o, true, done, arg, &f, e);
}
