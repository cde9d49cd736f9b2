/*
 * Between fork and exec only what is safe after a fork of a process with threads: no heap, no
 * stdio, no locks.
 *
 * Two forks: the middle process ends at once, so that QEMU is init's child and no zombie of ours;
 * the pipe tells the starter that exec worked (end of file) or what failed.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/base/files.h"
#include "store/base/memory.h"

#include "agent/hypervisor/launch.h"
#include "agent/hypervisor/launch_proc.h"

enum { GROUPS_MAX = 64, STAT_MAX = 1024, BOOT_ID = 36 };

struct user {
	bool drop;
	uid_t uid;
	gid_t gid;
	gid_t groups[GROUPS_MAX];
	int ngroups;
};

enum stage { STAGE_FORK = 1, STAGE_PID_FILE, STAGE_USER, STAGE_EXEC };

struct report { /* from the child, where it failed */
	int stage, error;
};

/* ---- the file ---- */

/* At most n - 1 bytes of a file; bytes read, or -1.  Safe after fork. */
static ssize_t
read_small(const char *path, char *p, size_t n)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd == -1 ? -1 : read(fd, p, n - 1);

	if (fd != -1)
		(void)close(fd);
	if (got >= 0)
		p[got] = '\0';
	return got;
}

/*
 * Field `index` (from 3) of a stat line of /proc, or NULL.  The name in parentheses may hold
 * anything: count from the last one.
 */
static char *
stat_field(char *line, unsigned index)
{
	char *p = strrchr(line, ')');

	for (; p != NULL && index > 2; index--) {
		p = strchr(p + 1, ' ');
		if (p != NULL && p[1] == '\0')
			p = NULL;
	}
	return p == NULL ? NULL : p + 1;
}

static size_t
append_number(char *dst, size_t at, unsigned long v)
{
	char digits[24];
	size_t n = 0;

	do {
		digits[n++] = (char)('0' + v % 10);
		v /= 10;
	} while (v > 0);
	while (n > 0)
		dst[at++] = digits[--n];
	return at;
}

/* "PID START BOOT\n" of this process.  Safe after fork. */
static int
write_pid_file(const char *path)
{
	char stat[STAT_MAX], boot[BOOT_ID + 2], text[128];
	const char *start;
	size_t n, k;
	int fd;

	if (read_small("/proc/self/stat", stat, sizeof stat) <= 0 ||
	    read_small("/proc/sys/kernel/random/boot_id", boot, sizeof boot) < BOOT_ID)
		return errno == 0 ? EIO : errno;
	start = stat_field(stat, 22);
	if (start == NULL)
		return EIO;
	n = append_number(text, 0, (unsigned long)getpid());
	text[n++] = ' ';
	for (k = 0; start[k] >= '0' && start[k] <= '9' && k < 24; k++)
		text[n++] = start[k];
	text[n++] = ' ';
	for (k = 0; k < BOOT_ID; k++)
		text[n++] = boot[k];
	text[n++] = '\n';
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd == -1)
		return errno;
	k = write(fd, text, n) == (ssize_t)n ? 0 : 1;
	(void)close(fd);
	return k == 0 ? 0 : EIO;
}

/* ---- start ---- */

int
launch_user(const char *name, uint32_t *uid, uint32_t *gid, struct lc_err *e)
{
	char text[4096];
	struct passwd pw, *found = NULL;
	int rc = getpwnam_r(name, &pw, text, sizeof text, &found);

	if (found == NULL)
		return lc_fail(e, LC_ENOENT, rc, "user %s", name);
	*uid = pw.pw_uid;
	*gid = pw.pw_gid;
	return 0;
}

/* Who may use KVM is said by the group of its device; without it a VM would run, and crawl. */
static void
add_kvm_group(struct user *u)
{
	struct stat st;

	if (u->ngroups < GROUPS_MAX && stat("/dev/kvm", &st) == 0 && st.st_gid != 0 &&
	    (st.st_mode & 060) == 060)
		u->groups[u->ngroups++] = st.st_gid;
}

static int
find_user(const char *name, struct user *u, struct lc_err *e)
{
	int rc;

	u->drop = name != NULL;
	if (!u->drop)
		return 0;
	rc = launch_user(name, &u->uid, &u->gid, e);
	if (rc != 0)
		return rc;
	u->ngroups = GROUPS_MAX;
	if (getgrouplist(name, u->gid, u->groups, &u->ngroups) == -1)
		return lc_fail(e, LC_EINVAL, 0, "user %s: in more than %d groups", name,
		               GROUPS_MAX);
	add_kvm_group(u);
	return 0;
}

static int
become(const struct user *u)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1)
		return errno;
	if (u->drop &&
	    (setgroups((size_t)u->ngroups, u->groups) == -1 ||
	     setresgid(u->gid, u->gid, u->gid) == -1 || setresuid(u->uid, u->uid, u->uid) == -1))
		return errno;
	return 0;
}

static void
set_descriptors(const struct proc_opts *o)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	size_t i;

	(void)dup2(null, STDIN_FILENO);
	(void)dup2(o->log, STDOUT_FILENO);
	(void)dup2(o->log, STDERR_FILENO);
	/* All others close at exec, the report's pipe among them. */
	(void)syscall(SYS_close_range, 3u, ~0u, 4u /* CLOSE_RANGE_CLOEXEC */);
	for (i = 0; i < o->nkeep; i++)
		(void)fcntl(o->keep[i], F_SETFD, 0);
}

static void
set_signals(void)
{
	sigset_t none;
	int sig;

	for (sig = 1; sig < NSIG; sig++)
		(void)signal(sig, SIG_DFL);
	(void)sigemptyset(&none);
	(void)pthread_sigmask(SIG_SETMASK, &none, NULL);
}

/* Nothing can be done where even this fails. */
static void
tell(int report, const struct report *r)
{
	while (write(report, r, sizeof *r) == -1 && errno == EINTR)
		continue;
}

/* The process to be: returns only by ending. */
static void __attribute__((noreturn))
become_program(const struct proc_opts *o, const struct user *u, int report)
{
	struct report r = {.stage = STAGE_PID_FILE};

	set_signals();
	(void)umask(077);
	set_descriptors(o);
	r.error = chdir("/") == 0 ? write_pid_file(o->pid_file) : errno;
	if (r.error == 0) {
		r.stage = STAGE_USER;
		r.error = become(u);
	}
	if (r.error == 0) {
		r.stage = STAGE_EXEC;
		(void)execvp(o->argv[0], o->argv);
		r.error = errno;
	}
	tell(report, &r);
	_exit(127);
}

/* Up to the end: of a process that failed, so that it and what it holds are gone, or by its exec.
 */
static void
read_report(int fd, struct report *r)
{
	struct report next;
	ssize_t n;

	do {
		n = read(fd, &next, sizeof next);
		if (n == (ssize_t)sizeof next)
			*r = next;
	} while (n > 0 || (n == -1 && errno == EINTR));
}

static int
explain(const struct proc_opts *o, const struct report *r, struct lc_err *e)
{
	switch (r->stage) {
	case STAGE_PID_FILE:
		return lc_fail(e, LC_EIO, r->error, "%s", o->pid_file);
	case STAGE_USER:
		return lc_fail(e, LC_EACCES, r->error, "become user %s",
		               o->user == NULL ? "?" : o->user);
	case STAGE_EXEC:
		return lc_fail(e, r->error == ENOENT ? LC_ENOENT : LC_EACCES, r->error, "%s",
		               o->argv[0]);
	default:
		return lc_fail(e, LC_EIO, r->error, "start %s", o->argv[0]);
	}
}

/* 0 to 2 are given away; whoever started us without them gets no surprise but a message. */
static int
check_descriptors(const struct proc_opts *o, struct lc_err *e)
{
	size_t i;
	bool low = o->log < 3;

	for (i = 0; i < o->nkeep; i++)
		low = low || o->keep[i] < 3;
	return low ? lc_fail(e, LC_EINVAL, 0, "start %s: standard input or output is closed",
	                     o->argv[0])
	           : 0;
}

int
proc_start(const struct proc_opts *o, struct lc_err *e)
{
	struct user user = {0};
	struct report r = {0};
	int report[2], status, rc;
	pid_t middle;

	rc = check_descriptors(o, e);
	if (rc == 0)
		rc = find_user(o->user, &user, e);
	if (rc != 0)
		return rc;
	if (pipe2(report, O_CLOEXEC) == -1)
		return lc_fail_errno(e, "start %s", o->argv[0]);
	middle = fork();
	if (middle == 0) {
		pid_t pid;

		(void)setsid();
		pid = fork();
		if (pid == 0)
			become_program(o, &user, report[1]);
		if (pid == -1) {
			r = (struct report){.stage = STAGE_FORK, .error = errno};
			tell(report[1], &r);
		}
		_exit(0);
	}
	rc = errno;
	fd_close(&report[1]);
	if (middle == -1) {
		r = (struct report){.stage = STAGE_FORK, .error = rc};
	} else {
		while (waitpid(middle, &status, 0) == -1 && errno == EINTR)
			continue;
		read_report(report[0], &r);
	}
	fd_close(&report[0]);
	return r.stage == 0 ? 0 : explain(o, &r, e);
}

/* ---- find, wait, kill ---- */

int
proc_find(const char *pid_file, int *pid)
{
	char text[128], boot[BOOT_ID + 2], path[64], stat[STAT_MAX];
	const char *state;
	unsigned long start;
	char *field, *end;
	long number;
	int fd;

	if (read_small(pid_file, text, sizeof text) <= 0 ||
	    read_small("/proc/sys/kernel/random/boot_id", boot, sizeof boot) < BOOT_ID)
		return -1;
	number = strtol(text, &end, 10);
	if (number <= 1 || number > INT32_MAX || *end != ' ')
		return -1;
	start = strtoul(end + 1, &end, 10);
	if (*end != ' ' || strncmp(end + 1, boot, BOOT_ID) != 0)
		return -1;
	/* First the descriptor, then the look: what it names can't become another process. */
	fd = (int)syscall(SYS_pidfd_open, (pid_t)number, 0u);
	if (fd == -1)
		return -1;
	(void)snprintf(path, sizeof path, "/proc/%ld/stat", number);
	if (read_small(path, stat, sizeof stat) > 0) {
		state = stat_field(stat, 3);
		field = stat_field(stat, 22);
		if (state != NULL && field != NULL && *state != 'Z' && *state != 'X' &&
		    strtoul(field, NULL, 10) == start) {
			if (pid != NULL)
				*pid = (int)number;
			return fd;
		}
	}
	(void)close(fd);
	return -1;
}

bool
proc_wait(int pidfd, int64_t ms)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};

	return poll(&p, 1, (int)(ms > INT32_MAX ? INT32_MAX : ms)) == 1;
}

void
proc_end(int pidfd)
{
	(void)syscall(SYS_pidfd_send_signal, pidfd, SIGTERM, NULL, 0u);
}

void
proc_kill(int pidfd)
{
	(void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0u);
}
