/*
 * QEMU opens nothing in the VM's folder: its sockets are made and bound here and inherited, the
 * console's log and, where it runs as another user, its images are handed over as descriptors.  So
 * the folder stays ours alone, and what lies in it (the pid to be killed one day) is not the
 * guest's to write.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/memory.h"

#include "agent/hypervisor/handed.h"
#include "agent/hypervisor/launch.h"
#include "agent/hypervisor/launch_accel.h"
#include "agent/hypervisor/launch_args.h"
#include "agent/hypervisor/launch_proc.h"
#include "agent/hypervisor/launch_talk.h"
#include "agent/hypervisor/openas.h"

#define START_MS 10000
#define QUIT_MS 5000
#define KILL_MS 5000
#define MONITOR_MS 2000
#define LOG_TAIL 4096
#define ACCEL_MAX 16
#define ENDED LC_EPEER /* QEMU ended by itself: another accelerator may do */

struct start {
	const struct definition *def;
	const struct launch_opts *opts;
	struct launch_fds fds;
	int log;
};

static int
path_in(const char *dir, const char *name, char *out, size_t n, struct lc_err *e)
{
	int len = snprintf(out, n, "%s/%s", dir, name);

	if (len < 0 || (size_t)len >= n)
		return lc_fail(e, LC_EINVAL, 0, "%s/%s: path longer than %zu bytes", dir, name,
		               n - 1);
	return 0;
}

/* ---- the log of QEMU ---- */

/* The end of a line, which is where the reason stands after the option that it is about. */
static const char *
line_end(const char *line, size_t max)
{
	size_t n = strlen(line);

	return n <= max ? line : line + n - max;
}

/*
 * Its last complaint ("qemu-system-x86_64: -device ...: reason") with the line of advice that may
 * follow; where there is none, its last line, be it a warning.  text is cut up.
 */
static void
last_words(char *text, char *out, size_t n)
{
	const char *line, *complaint = NULL, *advice = NULL, *warning = NULL;
	char *save = NULL;

	for (line = strtok_r(text, "\r\n", &save); line != NULL;
	     line = strtok_r(NULL, "\r\n", &save)) {
		if (strstr(line, "warning:") != NULL) {
			warning = line;
		} else if (complaint == NULL || strncmp(line, "qemu", 4) == 0) {
			complaint = line;
			advice = NULL;
		} else {
			advice = line;
		}
	}
	if (complaint == NULL)
		complaint = warning == NULL ? "it said nothing" : warning;
	(void)snprintf(out, n, "%s%s%s%s", line_end(complaint, 200), advice == NULL ? "" : " (",
	               advice == NULL ? "" : line_end(advice, 100), advice == NULL ? "" : ")");
}

static int
fail_ended(const char *dir, struct lc_err *e)
{
	char path[PATH_MAX], text[LOG_TAIL + 1], words[320];
	struct stat st;
	ssize_t got = 0;
	int fd = -1;
	bool locked;

	if (path_in(dir, "qemu.log", path, sizeof path, NULL) == 0)
		fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd != -1 && fstat(fd, &st) == 0)
		got = pread(fd, text, LOG_TAIL, st.st_size > LOG_TAIL ? st.st_size - LOG_TAIL : 0);
	fd_close(&fd);
	text[got > 0 ? got : 0] = '\0';
	locked = strstr(text, "Is another process using the image") != NULL;
	last_words(text, words, sizeof words);
	if (locked)
		return lc_fail(e, LC_EBUSY, 0, "an image is in use by another process: %s (%s)",
		               words, path);
	return lc_fail(e, ENDED, 0, "QEMU ended: %s (%s)", words, path);
}

/* ---- what QEMU inherits ---- */

static int
listen_at(const char *dir, const char *name, int *fd, struct lc_err *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char path[PATH_MAX];
	int rc = path_in(dir, name, path, sizeof path, e);

	if (rc != 0)
		return rc;
	if (strlen(path) >= sizeof a.sun_path) {
		return lc_fail(
		    e, LC_EINVAL, 0,
		    "%s: longer than the %zu bytes that a socket's path may have; choose a "
		    "shorter run_dir or name",
		    path, sizeof a.sun_path - 1);
	}
	memcpy(a.sun_path, path, strlen(path) + 1);
	*fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (*fd == -1)
		return lc_fail_errno(e, "%s", path);
	(void)unlink(path);
	if (bind(*fd, (const struct sockaddr *)&a, sizeof a) == -1 || chmod(path, 0600) == -1 ||
	    listen(*fd, 8) == -1)
		return lc_fail_errno(e, "%s", path);
	return 0;
}

static int
open_in(const char *dir, const char *name, int *fd, struct lc_err *e)
{
	char path[PATH_MAX];
	int rc = path_in(dir, name, path, sizeof path, e);

	if (rc != 0)
		return rc;
	(void)unlink(path); /* an old one may still be written to */
	*fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
	return *fd == -1 ? lc_fail_errno(e, "%s", path) : 0;
}

/* *fd: a copy in memory, which any user may open anew through the descriptor; read only. */
static int
open_copy(const char *path, int *fd, struct lc_err *e)
{
	int copy = memfd_create("handed", MFD_CLOEXEC), rc = 0;
	char link[32];
	ssize_t n;

	if (copy < 0)
		return lc_fail_errno(e, "%s: a copy in memory", path);
	do
		n = sendfile(copy, *fd, NULL, 1u << 30);
	while (n > 0 || (n < 0 && errno == EINTR));
	if (n < 0)
		rc = lc_fail_errno(e, "%s: a copy in memory", path);
	fd_close(fd);
	if (rc == 0) {
		(void)snprintf(link, sizeof link, "/proc/self/fd/%d", copy);
		*fd = open(link, O_RDONLY | O_CLOEXEC);
		if (*fd < 0)
			rc = lc_fail_errno(e, "%s: a copy in memory", path);
	}
	fd_close(&copy);
	return rc;
}

/* A kernel or initial ramdisk is opened anew by QEMU, through our descriptor: so no folder on the
 * way there need be open to its user, but what is opened has to be. */
static int
open_kernel(struct start *s, size_t i, const char *path, struct lc_err *e)
{
	char link[32];
	uint32_t uid, gid;
	int fd = -1, rc = launch_user(s->opts->run_as, &uid, &gid, e);

	if (rc != 0)
		return rc;
	s->fds.image_ro[i] = open(path, O_RDONLY | O_CLOEXEC);
	if (s->fds.image_ro[i] == -1)
		return lc_fail_errno(e, "%s", path);
	(void)snprintf(link, sizeof link, "/proc/self/fd/%d", s->fds.image_ro[i]);
	rc = openas_read(link, uid, gid, &fd, NULL);
	fd_close(&fd);
	return rc == 0 ? 0 : open_copy(path, &s->fds.image_ro[i], e);
}

/* Images for a QEMU that runs as somebody else. */
static int
open_images(struct start *s, struct lc_err *e)
{
	size_t i;

	for (i = 0; i < s->def->ndisks; i++) {
		const char *path = launch_image_path(s->def, s->opts, i);
		enum hv_role role = s->def->disks[i].role;

		if (path == NULL)
			continue;
		if (role == HV_ROLE_KERNEL || role == HV_ROLE_INITRD) {
			int rc = open_kernel(s, i, path, e);

			if (rc != 0)
				return rc;
			continue;
		}
		s->fds.image[i] = open(path, O_RDWR | O_CLOEXEC);
		s->fds.image_ro[i] = open(path, O_RDONLY | O_CLOEXEC);
		if (s->fds.image[i] == -1 || s->fds.image_ro[i] == -1)
			return lc_fail_errno(e, "%s", path);
	}
	return 0;
}

/* The folder of the NBD server's socket, for a QEMU that could not come to it by its path. */
static int
open_served(struct start *s, struct lc_err *e)
{
	char *dir = NULL;
	size_t i;
	int rc = 0;

	for (i = 0; dir == NULL && i < s->opts->ndisks; i++) {
		if (s->opts->disks[i].kind == LAUNCH_IMAGE_OVERLAY)
			dir = path_dirname(s->opts->disks[i].nbd_socket);
	}
	if (dir != NULL) {
		s->fds.served = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (s->fds.served == -1)
			rc = lc_fail_errno(e, "%s", dir);
	}
	lc_free(dir);
	return rc;
}

/* A tap device on a bridge of the host; it goes away with QEMU. */
static int
open_tap(const char *bridge, int *fd, struct lc_err *e)
{
	struct ifreq tap = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	struct ifreq br = {.ifr_ifindex = 0};
	int sock = -1, rc = 0;

	(void)snprintf(tap.ifr_name, sizeof tap.ifr_name, "locum%%d");
	(void)snprintf(br.ifr_name, sizeof br.ifr_name, "%s", bridge);
	*fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (*fd == -1 || sock == -1 || ioctl(*fd, TUNSETIFF, &tap) == -1) {
		rc = lc_fail_errno(e, "bridge %s: /dev/net/tun", bridge);
		goto out;
	}
	if (ioctl(sock, SIOCGIFINDEX, &tap) == 0)
		br.ifr_ifindex = tap.ifr_ifindex;
	if (br.ifr_ifindex == 0 || ioctl(sock, SIOCBRADDIF, &br) == -1) {
		rc = lc_fail_errno(e, "bridge %s", bridge);
		goto out;
	}
	tap.ifr_flags = IFF_UP;
	if (ioctl(sock, SIOCSIFFLAGS, &tap) == -1)
		rc = lc_fail_errno(e, "bridge %s", bridge);
out:
	fd_close(&sock);
	return rc;
}

static int
open_taps(struct start *s, struct lc_err *e)
{
	static const char bridge[] = "bridge:";
	size_t i;
	int rc = 0;

	for (i = 0; rc == 0 && i < s->def->nnics && !s->opts->isolated; i++) {
		const struct def_nic *nic = &s->def->nics[i];

		if (strncmp(nic->network, bridge, sizeof bridge - 1) == 0) {
			rc = open_tap(nic->network + sizeof bridge - 1, &s->fds.tap[i], e);
			if (rc != 0)
				lc_wrap(e, "nic %s", nic->name);
		}
	}
	return rc;
}

static int
open_all(struct start *s, struct lc_err *e)
{
	const char *dir = s->opts->dir;
	int rc = listen_at(dir, LAUNCH_MONITOR, &s->fds.qmp, e);

	if (rc == 0)
		rc = listen_at(dir, LAUNCH_MONITOR_OWN, &s->fds.qmp2, e);
	if (rc == 0)
		rc = listen_at(dir, LAUNCH_AGENT, &s->fds.qga, e);
	if (rc == 0)
		rc = open_in(dir, "serial.log", &s->fds.serial, e);
	if (rc == 0)
		rc = open_in(dir, "qemu.log", &s->log, e);
	if (rc == 0 && s->opts->run_as != NULL)
		rc = open_images(s, e);
	if (rc == 0 && s->opts->run_as != NULL)
		rc = open_served(s, e);
	return rc == 0 ? open_taps(s, e) : rc;
}

static void
close_all(struct start *s)
{
	size_t i;

	fd_close(&s->fds.qmp);
	fd_close(&s->fds.qmp2);
	fd_close(&s->fds.qga);
	fd_close(&s->fds.serial);
	fd_close(&s->fds.served);
	fd_close(&s->log);
	for (i = 0; i < HV_DISKS_MAX; i++) {
		fd_close(&s->fds.image[i]);
		fd_close(&s->fds.image_ro[i]);
	}
	for (i = 0; i < DEF_NICS_MAX; i++)
		fd_close(&s->fds.tap[i]);
}

static size_t
list_fds(const struct start *s, int *out)
{
	const int single[] = {s->fds.qmp, s->fds.qmp2, s->fds.qga, s->fds.serial};
	size_t i, n = 0;

	for (i = 0; i < sizeof single / sizeof single[0]; i++)
		out[n++] = single[i];
	if (s->fds.served >= 0)
		out[n++] = s->fds.served;
	for (i = 0; i < HV_DISKS_MAX; i++) {
		if (s->fds.image[i] >= 0)
			out[n++] = s->fds.image[i];
		if (s->fds.image_ro[i] >= 0)
			out[n++] = s->fds.image_ro[i];
	}
	for (i = 0; i < DEF_NICS_MAX; i++) {
		if (s->fds.tap[i] >= 0)
			out[n++] = s->fds.tap[i];
	}
	return n;
}

/* ---- start ---- */

/* QEMU runs: until its monitor answers from the main loop, which it does only once the machine is
 * made. */
static int
wait_ready(const char *dir, int pidfd, struct lc_err *e)
{
	int64_t end = clock_mono_ns() + START_MS * LC_NS_PER_MS;
	char socket[PATH_MAX];
	struct lc_err why = LC_ERR_INIT;
	int rc = path_in(dir, LAUNCH_MONITOR_OWN, socket, sizeof socket, e);

	while (rc == 0) {
		int64_t left_ms = (end - clock_mono_ns()) / LC_NS_PER_MS;
		struct talk *t = NULL;

		if (proc_wait(pidfd, 0))
			return fail_ended(dir, e);
		if (left_ms <= 0)
			return lc_fail(e, LC_ETIMEDOUT, 0,
			               "QEMU's monitor does not answer: %s (%s/qemu.log)", why.msg,
			               dir);
		lc_err_clear(&why);
		/* A QEMU that dies takes the connection with it, so the whole time may be waited.
		 */
		if (talk_open(socket, left_ms, &t, &why) == 0 &&
		    talk_do(t, "query-status", &why) == 0) {
			talk_close(t);
			return 0;
		}
		talk_close(t);
		(void)proc_wait(pidfd, 20);
	}
	return rc;
}

static int
kill_found(const char *pid_file)
{
	int pidfd = proc_find(pid_file, NULL);
	bool gone = true;

	if (pidfd != -1) {
		proc_kill(pidfd);
		gone = proc_wait(pidfd, KILL_MS);
		(void)close(pidfd);
	}
	return gone ? 0 : LC_EBUSY;
}

static void
remove_leftovers(const char *dir)
{
	static const char *const names[] = {"pid", LAUNCH_MONITOR, LAUNCH_MONITOR_OWN,
	                                    LAUNCH_AGENT};
	char path[PATH_MAX];
	size_t i;

	for (i = 0; i < sizeof names / sizeof names[0]; i++) {
		if (path_in(dir, names[i], path, sizeof path, NULL) == 0)
			(void)unlink(path);
	}
}

static int
try_accel(struct start *s, const char *accel, int *pid, struct lc_err *e)
{
	int keep[5 + 2 * HV_DISKS_MAX + DEF_NICS_MAX];
	struct launch_args args = {0};
	char pid_file[PATH_MAX];
	int pidfd = -1, rc = path_in(s->opts->dir, "pid", pid_file, sizeof pid_file, e);

	s->log = -1;
	launch_fds_init(&s->fds);
	if (rc == 0)
		rc = open_all(s, e);
	if (rc == 0)
		rc = launch_args_make(s->def, s->opts, accel, &s->fds, &args, e);
	if (rc == 0) {
		const struct proc_opts o = {.argv = args.argv,
		                            .pid_file = pid_file,
		                            .log = s->log,
		                            .keep = keep,
		                            .nkeep = list_fds(s, keep),
		                            .user = s->opts->run_as};

		rc = proc_start(&o, e);
	}
	close_all(s); /* while we listen too, nobody notices that QEMU does not */
	if (rc == 0) {
		pidfd = proc_find(pid_file, pid);
		rc = pidfd == -1 ? fail_ended(s->opts->dir, e) : wait_ready(s->opts->dir, pidfd, e);
		if (rc != 0)
			(void)kill_found(pid_file);
	}
	if (rc != 0)
		remove_leftovers(s->opts->dir);
	fd_close(&pidfd);
	launch_args_free(&args);
	return rc;
}

/* "kvm:tcg": one after the other. */
static int
try_all(struct start *s, int *pid, struct lc_err *e)
{
	const char *list = s->opts->accel == NULL ? "kvm:tcg" : s->opts->accel;
	struct lc_err first = LC_ERR_INIT;
	char why[128];

	for (;;) {
		size_t n = strcspn(list, ":");
		char accel[ACCEL_MAX];
		struct lc_err err = LC_ERR_INIT;
		int rc;

		(void)snprintf(accel, sizeof accel, "%.*s", (int)n, list);
		if (strcmp(accel, "kvm") != 0 && strcmp(accel, "tcg") != 0)
			return lc_fail(e, LC_EINVAL, 0, "accelerator '%s': there are kvm and tcg",
			               accel);
		if (strcmp(accel, "kvm") == 0 && !launch_kvm_works(why, sizeof why))
			rc = lc_fail(&err, LC_ENOTSUP, 0, "%s", why);
		else
			rc = try_accel(s, accel, pid, &err);
		if (rc == 0)
			return 0;
		if (first.code == LC_OK)
			first = err;
		/* What is no fault of KVM's would only fail once more, and hide the reason. */
		if (list[n] == '\0' || strcmp(accel, "kvm") != 0 ||
		    (rc != LC_ENOTSUP && rc != ENDED))
			return lc_fail(e, err.code, 0, "%s", err.msg);
		list += n + 1;
	}
}

static int
write_definition(const struct definition *def, const char *dir, struct lc_err *e)
{
	char path[PATH_MAX];
	struct lc_buf text = {0};
	int rc = path_in(dir, "definition.ini", path, sizeof path, e);

	if (rc == 0)
		rc = definition_encode(def, &text, e);
	if (rc == 0)
		rc = file_write_atomic(path, text.p, text.n, 0600, e);
	lc_buf_free(&text);
	return rc;
}

char *
launch_writes(const char *scratch_dir, const char *vm)
{
	return lc_asprintf("%s/boot/%s", scratch_dir, vm);
}

int
launch_check_name(const char *vm, struct lc_err *e)
{
	const char *s = vm;

	while (isalnum((unsigned char)*s) || (*s != '\0' && strchr("._-", *s) != NULL))
		s++;
	if (*s == '\0' && s > vm && s - vm < HV_NAME_MAX && *vm != '-' && *vm != '.')
		return 0;
	return lc_fail(e, LC_EINVAL, 0,
	               "\"%s\": a VM's name has letters, digits, '.', '_' and '-', at most %d", vm,
	               HV_NAME_MAX - 1);
}

int
launch_start(const struct definition *def, const struct launch_opts *opts, int *pid_out,
             struct lc_err *e)
{
	struct start s = {.def = def, .opts = opts};
	char lock_path[PATH_MAX];
	int lock = -1, pid = 0, rc;

	rc = definition_check(def, e);
	if (rc == 0)
		rc = dir_make(opts->dir, 0700, e);
	if (rc == 0)
		rc = path_in(opts->dir, "lock", lock_path, sizeof lock_path, e);
	if (rc == 0)
		rc = file_lock(lock_path, 0600, "start of a VM", &lock, e);
	if (rc == 0 && launch_alive(opts->dir, &pid))
		rc = lc_fail(e, LC_EEXIST, 0, "runs already (pid %d)", pid);
	if (rc == 0)
		rc = write_definition(def, opts->dir, e);
	if (rc == 0)
		rc = handed_write(def, opts, e);
	if (rc == 0)
		rc = try_all(&s, &pid, e);
	fd_close(&lock);
	if (rc != 0) {
		lc_wrap(e, "%s", opts->vm);
		return rc;
	}
	if (pid_out != NULL)
		*pid_out = pid;
	return 0;
}

/* ---- find and stop ---- */

bool
launch_alive(const char *dir, int *pid_out)
{
	char path[PATH_MAX];
	int pidfd = -1;

	if (path_in(dir, "pid", path, sizeof path, NULL) == 0)
		pidfd = proc_find(path, pid_out);
	if (pidfd == -1)
		return false;
	(void)close(pidfd);
	return true;
}

/* Ask the guest to power off, by a monitor that listens: ours, unless who waits for a sign of life
 * has that. */
static void
power_down(const char *dir)
{
	static const char *const monitors[] = {LAUNCH_MONITOR_OWN, LAUNCH_MONITOR};
	char socket[PATH_MAX];
	size_t i;
	int rc = LC_EBUSY;

	for (i = 0; rc != 0 && i < sizeof monitors / sizeof monitors[0]; i++) {
		struct talk *t = NULL;

		if (path_in(dir, monitors[i], socket, sizeof socket, NULL) == 0 &&
		    talk_open(socket, MONITOR_MS, &t, NULL) == 0)
			rc = talk_do(t, "system_powerdown", NULL);
		talk_close(t);
	}
}

int
launch_stop(const char *dir, int64_t grace_ms, struct lc_err *e)
{
	char path[PATH_MAX];
	int pidfd = -1, pid = 0, rc = path_in(dir, "pid", path, sizeof path, e);
	bool gone = false;

	if (rc != 0)
		return rc;
	pidfd = proc_find(path, &pid);
	if (pidfd == -1)
		return 0;
	if (grace_ms > 0) {
		power_down(dir);
		gone = proc_wait(pidfd, grace_ms);
	}
	if (!gone) {
		proc_end(pidfd);
		gone = proc_wait(pidfd, QUIT_MS);
	}
	if (!gone) {
		proc_kill(pidfd);
		gone = proc_wait(pidfd, KILL_MS);
	}
	(void)close(pidfd);
	if (!gone)
		return lc_fail(e, LC_EBUSY, 0, "%s: QEMU (pid %d) does not end, even killed", dir,
		               pid);
	remove_leftovers(dir);
	return 0;
}
