/*
 * Each condition of a subject has a level that is (alarm.h) and one that was told.  Where they
 * differ the program is run, as soon as none runs for the subject, and not too many at all:
 *
 *     is = told ──► is != told ──► runs (told = is) ──exit──► and again, if they differ then
 *                                    └─ 60 s ─► SIGKILL to its group ─► exit
 *
 * What a failed program was to tell is lost, but logged: trying again is the program's, which knows
 * how.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>
#include <uv.h>

#include "agent/alert.h"
#include "store/base/clock.h"
#include "store/base/log.h"
#include "store/base/memory.h"

#define TEXT_MAX 600u
#define SUBJECTS_MAX 4096u
#define GONE_NS (60 * LC_NS_PER_S) /* what was not seen for so long may be forgotten */

struct condition {
	struct alarm alarm;
	enum alarm_level told;
	char text[TEXT_MAX]; /* of the change */
	int64_t wall_ns;     /* likewise */
	int64_t seen_ns;
};

struct subject {
	TAILQ_ENTRY(subject) entry;
	char *vm, *replica; /* "" none */
	bool busy;
	int64_t seen_ns;
	struct condition conditions[ALERT_CONDITIONS];
};

struct run { /* of the program */
	TAILQ_ENTRY(run) entry;
	struct alert *alert;
	struct subject *subject;
	const char *event;
	uv_process_t process;
	uv_timer_t timer;
	unsigned handles;
	bool started, killed;
};

struct alert {
	struct uv_loop_s *loop;
	char *program;
	int64_t kill_ms;
	TAILQ_HEAD(, subject) subjects;
	TAILQ_HEAD(, run) runs;
	unsigned nsubjects, running;
	bool closing;
};

const char *
alert_event(enum alert_condition condition, enum alarm_level level)
{
	static const char *const names[ALERT_CONDITIONS][3] = {
	    [ALERT_RPO] = {"rpo-ok", "rpo-near", "rpo-missed"},
	    [ALERT_CYCLE] = {"vm-ok", "vm-failing", "vm-failing"},
	    [ALERT_LINK] = {"replica-up", "replica-down", "replica-down"},
	    [ALERT_SPOOL] = {"spool-ok", "spool-near", "spool-spent"},
	    [ALERT_QUOTA] = {"quota-ok", "quota-near", "quota-full"},
	    [ALERT_REFUSED] = {"point-taken", "point-refused", "point-refused"},
	    [ALERT_UNPROTECTED] = {"vm-protected", "vm-unprotected", "vm-unprotected"},
	    [ALERT_DAMAGED] = {"replica-mended", "replica-damaged", "replica-damaged"},
	    [ALERT_OLDER] = {"replica-whole", "replica-older", "replica-older"},
	};

	return names[condition][level < ALARM_OK ? ALARM_OK : level];
}

/* ---- running it ---- */

static void pump(struct alert *a);
static void free_subject(struct alert *a, struct subject *s);

static void
free_if_over(struct alert *a)
{
	struct subject *s;

	if (!a->closing || !TAILQ_EMPTY(&a->runs))
		return;
	while ((s = TAILQ_FIRST(&a->subjects)) != NULL)
		free_subject(a, s);
	lc_free(a->program);
	lc_free(a);
}

static void
on_closed(uv_handle_t *h)
{
	struct run *r = h->data;
	struct alert *a = r->alert;

	if (--r->handles > 0)
		return;
	TAILQ_REMOVE(&a->runs, r, entry);
	r->subject->busy = false;
	a->running--;
	lc_free(r);
	pump(a);
	free_if_over(a);
}

static void
close_run(struct run *r)
{
	if (uv_is_closing((uv_handle_t *)&r->timer) != 0)
		return;
	uv_close((uv_handle_t *)&r->process, on_closed);
	uv_close((uv_handle_t *)&r->timer, on_closed);
}

static const char *
who(const struct subject *s)
{
	return s->vm[0] != '\0' ? s->vm : s->replica;
}

static void
on_ended(uv_process_t *p, int64_t status, int signum)
{
	struct run *r = p->data;
	const char *program = r->alert->program;

	if (r->killed)
		log_error("alert %s (%s): %s ran for too long and was killed", r->event,
		          who(r->subject), program);
	else if (signum != 0)
		log_error("alert %s (%s): %s was ended by signal %d", r->event, who(r->subject),
		          program, signum);
	else if (status != 0)
		log_error("alert %s (%s): %s ended with exit status %lld", r->event,
		          who(r->subject), program, (long long)status);
	close_run(r);
}

static void
on_late(uv_timer_t *t)
{
	struct run *r = t->data;

	/* Its group: what it began goes too. */
	r->killed = true;
	(void)kill(-r->process.pid, SIGKILL);
}

/* Ours, but what systemd says to us alone. */
static bool
inherited(const char *variable)
{
	static const char *const not [] = {"NOTIFY_SOCKET=", "WATCHDOG_",     "LISTEN_",
	                                   "LOCUM_EVENT=",   "LOCUM_TEXT=",   "LOCUM_VM=",
	                                   "LOCUM_TIME=",    "LOCUM_REPLICA="};
	size_t i;

	for (i = 0; i < sizeof not / sizeof not [0]; i++) {
		if (strncmp(variable, not [i], strlen(not [i])) == 0)
			return false;
	}
	return true;
}

#define OWN 5u

static char **
make_environment(const struct subject *s, const struct condition *c, const char *event, char **own)
{
	char when[40], **env;
	size_t i, n = 0, k = 0;

	own[0] = lc_asprintf("LOCUM_EVENT=%s", event);
	own[1] = lc_asprintf("LOCUM_VM=%s", s->vm);
	own[2] = lc_asprintf("LOCUM_REPLICA=%s", s->replica);
	own[3] = lc_asprintf("LOCUM_TEXT=%s", c->text);
	own[4] = lc_asprintf("LOCUM_TIME=%s", clock_format_utc(when, sizeof when, c->wall_ns));
	while (environ[n] != NULL)
		n++;
	env = lc_alloc_array(n + OWN + 1, sizeof *env);
	for (i = 0; env != NULL && i < n; i++) {
		if (inherited(environ[i]))
			env[k++] = environ[i];
	}
	for (i = 0; env != NULL && i < OWN; i++) {
		if (own[i] != NULL)
			env[k++] = own[i];
	}
	return env;
}

static int
spawn(struct run *r, struct condition *c)
{
	struct alert *a = r->alert;
	char *own[OWN], **env = make_environment(r->subject, c, r->event, own);
	union {
		const char *in;
		char *out;
	} event = {.in = r->event};
	char *args[] = {a->program, event.out, c->text, NULL};
	uv_stdio_container_t io[3] = {{.flags = UV_IGNORE},
	                              {.flags = UV_INHERIT_FD, .data = {.fd = STDERR_FILENO}},
	                              {.flags = UV_INHERIT_FD, .data = {.fd = STDERR_FILENO}}};
	uv_process_options_t o = {.exit_cb = on_ended,
	                          .file = a->program,
	                          .args = args,
	                          .env = env,
	                          .cwd = "/",
	                          .flags = UV_PROCESS_DETACHED, /* a group of its own */
	                          .stdio_count = 3,
	                          .stdio = io};
	size_t i;
	int rc = env == NULL ? UV_ENOMEM : uv_spawn(a->loop, &r->process, &o);

	for (i = 0; i < OWN; i++)
		lc_free(own[i]);
	lc_free(env);
	return rc;
}

static bool
tell(struct alert *a, struct subject *s, enum alert_condition which)
{
	struct condition *c = &s->conditions[which];
	struct run *r = lc_alloc(sizeof *r);
	int rc;

	if (r == NULL)
		return false; /* with the next change */
	r->alert = a;
	r->subject = s;
	r->event = alert_event(which, c->alarm.is);
	(void)uv_timer_init(a->loop, &r->timer);
	r->process.data = r->timer.data = r;
	r->handles = 2;
	s->busy = true;
	a->running++;
	TAILQ_INSERT_TAIL(&a->runs, r, entry);
	c->told = c->alarm.is;
	rc = spawn(r, c);
	if (rc == 0) {
		r->started = true;
		(void)uv_timer_start(&r->timer, on_late, (uint64_t)a->kill_ms, 0);
		return true;
	}
	log_error("alert %s (%s): running %s: %s", r->event, who(s), a->program, uv_strerror(rc));
	if (r->process.loop == NULL) { /* it did not come that far */
		r->handles = 1;
		uv_close((uv_handle_t *)&r->timer, on_closed);
	} else {
		close_run(r);
	}
	return true;
}

/* What is to be told of a subject first; ALERT_CONDITIONS: nothing. */
static enum alert_condition
to_tell(const struct subject *s)
{
	unsigned i;

	for (i = 0; i < ALERT_CONDITIONS; i++) {
		if (s->conditions[i].alarm.is != s->conditions[i].told)
			break;
	}
	return (enum alert_condition)i;
}

static void
pump(struct alert *a)
{
	struct subject *s, *next;

	for (s = TAILQ_FIRST(&a->subjects); s != NULL && !a->closing; s = next) {
		enum alert_condition which = s->busy ? ALERT_CONDITIONS : to_tell(s);

		next = TAILQ_NEXT(s, entry);
		if (which == ALERT_CONDITIONS)
			continue;
		if (a->running >= ALERT_RUNNING_MAX || !tell(a, s, which))
			return;
		/* The others come first the next time. */
		TAILQ_REMOVE(&a->subjects, s, entry);
		TAILQ_INSERT_TAIL(&a->subjects, s, entry);
	}
}

/* ---- what is seen ---- */

static void
free_subject(struct alert *a, struct subject *s)
{
	TAILQ_REMOVE(&a->subjects, s, entry);
	a->nsubjects--;
	lc_free(s->vm);
	lc_free(s->replica);
	lc_free(s);
}

/* Of which nothing is known that one who is new would not be taken to be. */
static bool
is_quiet(const struct subject *s)
{
	unsigned i;

	for (i = 0; i < ALERT_CONDITIONS; i++) {
		const struct condition *c = &s->conditions[i];

		if (c->alarm.is != ALARM_OK || c->told != ALARM_OK || c->alarm.rising)
			return false;
	}
	return true;
}

/* VMs come and go: those that are gone, or do well, are to be in nobody's way. */
static void
make_room(struct alert *a, int64_t now_ns)
{
	struct subject *s, *gone = NULL;

	TAILQ_FOREACH (s, &a->subjects, entry) {
		if (!s->busy && (is_quiet(s) || now_ns - s->seen_ns >= GONE_NS) &&
		    (gone == NULL || s->seen_ns < gone->seen_ns))
			gone = s;
	}
	if (gone != NULL)
		free_subject(a, gone);
}

/* NULL: none is known, and nothing is wrong that there would have to be one for; or no memory. */
static struct subject *
find(struct alert *a, const struct alert_sight *x, int64_t now_ns)
{
	const char *vm = x->vm == NULL ? "" : x->vm;
	const char *replica = x->replica == NULL ? "" : x->replica;
	struct subject *s;

	TAILQ_FOREACH (s, &a->subjects, entry) {
		if (strcmp(s->vm, vm) == 0 && strcmp(s->replica, replica) == 0)
			return s;
	}
	if (x->level <= ALARM_OK)
		return NULL;
	if (a->nsubjects >= SUBJECTS_MAX)
		make_room(a, now_ns);
	s = a->nsubjects < SUBJECTS_MAX ? lc_alloc(sizeof *s) : NULL;
	if (s == NULL)
		return NULL;
	s->vm = lc_strdup(vm);
	s->replica = lc_strdup(replica);
	if (s->vm == NULL || s->replica == NULL) {
		lc_free(s->vm);
		lc_free(s->replica);
		lc_free(s);
		return NULL;
	}
	a->nsubjects++;
	TAILQ_INSERT_TAIL(&a->subjects, s, entry);
	return s;
}

/* Parts of it come from guests and peers, and it may go into the head of a mail. */
static void
take_text(char dst[TEXT_MAX], const char *text)
{
	size_t i;

	(void)snprintf(dst, TEXT_MAX, "%s", text);
	for (i = 0; dst[i] != '\0'; i++) {
		if ((unsigned char)dst[i] < 0x20 || dst[i] == 0x7f)
			dst[i] = '?';
	}
}

void
alert_see(struct alert *a, const struct alert_sight *x, int64_t now_ns)
{
	struct subject *s = find(a, x, now_ns);
	struct condition *c;

	if (s == NULL)
		return;
	s->seen_ns = now_ns;
	c = &s->conditions[x->condition];
	c->seen_ns = now_ns;
	if (alarm_observe(&c->alarm, x->level, x->rise_ns, x->fall_ns, now_ns)) {
		take_text(c->text, x->text);
		c->wall_ns = clock_wall_ns();
		pump(a);
	}
}

/* Returns whether that is to be told. */
static bool
end_condition(const struct subject *s, struct condition *c)
{
	bool is = c->alarm.is != ALARM_OK, vm = s->vm[0] != '\0', replica = s->replica[0] != '\0';
	char text[TEXT_MAX];

	c->alarm = (struct alarm){.is = ALARM_OK};
	if (!is)
		return false;
	(void)snprintf(text, sizeof text,
	               "%s%s%s%s: not looked at any more: the settings are other ones by now",
	               vm || replica ? s->vm : "the store", vm && replica ? ", " : "",
	               replica ? "replica " : "", s->replica);
	take_text(c->text, text);
	c->wall_ns = clock_wall_ns();
	return true;
}

void
alert_over(struct alert *a, unsigned conditions, int64_t since_ns)
{
	struct subject *s;
	bool news = false;
	unsigned i;

	TAILQ_FOREACH (s, &a->subjects, entry) {
		for (i = 0; i < ALERT_CONDITIONS; i++) {
			if ((conditions & 1u << i) != 0 && s->conditions[i].seen_ns < since_ns)
				news = end_condition(s, &s->conditions[i]) || news;
		}
	}
	if (news)
		pump(a);
}

unsigned
alert_running(const struct alert *a)
{
	return a->running;
}

/* ---- begin and end ---- */

int
alert_program(struct alert *a, const char *path, struct lc_err *e)
{
	char *copy = lc_strdup(path);

	if (copy == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	lc_free(a->program);
	a->program = copy;
	if (access(path, X_OK) != 0)
		log_error("alert: %s cannot be run: nobody will be told of anything", path);
	return 0;
}

int
alert_new(const struct alert_opts *o, struct alert **out, struct lc_err *e)
{
	struct alert *a = lc_alloc(sizeof *a);

	if (a == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	if (alert_program(a, o->program, e) != 0) {
		lc_free(a);
		return LC_ENOMEM;
	}
	a->loop = o->loop;
	a->kill_ms = o->kill_ms == 0 ? ALERT_KILL_MS : o->kill_ms;
	TAILQ_INIT(&a->subjects);
	TAILQ_INIT(&a->runs);
	*out = a;
	return 0;
}

void
alert_close(struct alert *a)
{
	struct run *r;

	if (a == NULL || a->closing)
		return;
	a->closing = true;
	TAILQ_FOREACH (r, &a->runs, entry) {
		if (!r->started || uv_is_closing((uv_handle_t *)&r->timer) != 0)
			continue;
		log_warn("alert %s (%s): %s is ended with the agent", r->event, who(r->subject),
		         r->alert->program);
		(void)kill(-r->process.pid, SIGTERM);
		close_run(r);
	}
	free_if_over(a);
}
