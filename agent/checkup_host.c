#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <link.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/timex.h>
#include <unistd.h>

#include "agent/checkup.h"
#include "agent/control.h"
#include "agent/findings.h"
#include "agent/hypervisor/launch_accel.h"
#include "agent/hypervisor/settings.h"
#include "replicator/identity.h"
#include "store/base/cli.h"
#include "store/base/clock.h"
#include "store/base/config.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "store/base/spawn.h"
#include "store/base/unixsock.h"
#include "store/store.h"

#define GIB (UINT64_C(1) << 30)
#define QEMU_MIN 70100u /* copies before writes that give up instead of stopping the guest */
#define PROGRAM_MS 5000
#define CRON_FILE "/etc/cron.d/locum"
#define SOCKET_MAX 107u
#define CLOCK_SLACK_NS (INT64_C(300) * LC_NS_PER_S)

static const char *
origin(const struct checkup *c)
{
	return c->settings->origin == NULL ? SETTINGS_DEFAULT_PATH : c->settings->origin;
}

/* ---- who we are, and by what settings ---- */

static void
look_at_privileges(struct checkup *c)
{
	struct finding *x;

	if (geteuid() == 0) {
		(void)findings_add(c->findings, FINDING_GOOD, "privileges", "root");
		return;
	}
	x = findings_add(c->findings, FINDING_WARN, "privileges",
	                 "user %u: keys, monitor sockets and images of others are out of reach, "
	                 "and what is said below may be due to that",
	                 (unsigned)geteuid());
	finding_advise(x, "sudo locum doctor");
}

static void
look_at_settings(struct checkup *c)
{
	struct finding *x;
	struct cli_word w;
	struct stat st;

	if (c->settings->origin == NULL) {
		x = findings_add(c->findings, FINDING_WARN, "configuration",
		                 "there is no %s: defaults hold, and no VM is named",
		                 SETTINGS_DEFAULT_PATH);
		finding_advise(x, "install -D -m 644 conf/locum.conf %s, from Locum's source",
		               SETTINGS_DEFAULT_PATH);
	} else if (stat(c->settings->origin, &st) == 0 && (st.st_mode & 022) != 0) {
		x = findings_add(
		    c->findings, FINDING_BAD, "configuration",
		    "%s can be written by others, and it names programs that root runs",
		    c->settings->origin);
		finding_advise(x, "chmod go-w %s", cli_word(&w, c->settings->origin));
	} else {
		(void)findings_add(c->findings, FINDING_GOOD, "configuration", "%s, %zu VM%s",
		                   c->settings->origin, c->settings->nvms,
		                   c->settings->nvms == 1 ? "" : "s");
	}
}

/* ---- folders ---- */

/* The folder, or the nearest one above it that is there. */
static char *
nearest(const char *path)
{
	char *dir = lc_strdup(path), *up;
	struct stat st;

	while (dir != NULL && stat(dir, &st) != 0 && errno == ENOENT && strcmp(dir, "/") != 0) {
		up = path_dirname(dir);
		lc_free(dir);
		dir = up;
	}
	return dir;
}

static const char *
network_name(const char *dir)
{
	static const struct {
		unsigned long magic;
		const char *name;
	} kinds[] = {
	    {NFS_SUPER_MAGIC, "NFS"},   {0xff534d42ul, "CIFS"},     {0xfe534d42ul, "SMB"},
	    {SMB_SUPER_MAGIC, "SMB"},   {V9FS_MAGIC, "9p"},         {CEPH_SUPER_MAGIC, "CephFS"},
	    {AFS_SUPER_MAGIC, "AFS"},   {CODA_SUPER_MAGIC, "Coda"}, {0x01161970ul, "GFS2"},
	    {FUSE_SUPER_MAGIC, "FUSE"}, {0x7461636ful, "OCFS2"},
	};
	struct statfs s;
	size_t i;

	for (i = 0; statfs(dir, &s) == 0 && i < sizeof kinds / sizeof kinds[0]; i++) {
		if ((unsigned long)s.f_type == kinds[i].magic)
			return kinds[i].name;
	}
	return NULL;
}

/* False: what is wrong with it was told. */
static bool
folder_works(struct checkup *c, const char *about, const char *key, const char *path)
{
	char *dir = nearest(path);
	struct finding *x = NULL;
	struct cli_word w;
	struct stat st;

	if (dir == NULL || stat(dir, &st) != 0) {
		x = findings_add(c->findings, FINDING_BAD, about, "%s: %s", path,
		                 strerrordesc_np(errno));
		finding_advise(x, "%s = another folder, in %s", key, origin(c));
	} else if (!S_ISDIR(st.st_mode)) {
		x = findings_add(c->findings, FINDING_BAD, about, "%s: %s is no folder", path, dir);
		finding_advise(x, "%s = another folder, in %s", key, origin(c));
	} else if (access(dir, W_OK | X_OK) != 0) {
		bool rofs = errno == EROFS;

		x = strcmp(path, dir) == 0
		        ? findings_add(c->findings, FINDING_BAD, about, "%s can't be written: %s",
		                       path, strerrordesc_np(errno))
		        : findings_add(c->findings, FINDING_BAD, about,
		                       "%s: %s can't be written: %s", path, dir,
		                       strerrordesc_np(errno));
		finding_advise(x,
		               rofs ? "mount -o remount,rw the filesystem of %s"
		                    : "run it as root, or chmod u+rwx %s",
		               rofs ? dir : cli_word(&w, dir));
	}
	lc_free(dir);
	return x == NULL;
}

static bool
free_bytes(const char *path, uint64_t *out)
{
	char *dir = nearest(path);
	struct statfs s;
	bool yes = dir != NULL && statfs(dir, &s) == 0;

	if (yes)
		*out = (uint64_t)s.f_bavail * (uint64_t)s.f_bsize;
	lc_free(dir);
	return yes;
}

static void
look_at_scratch(struct checkup *c)
{
	const struct settings *s = c->settings;
	char a[32], b[32], *dir;
	const char *network;
	struct finding *x;
	uint64_t room = 0;

	if (!folder_works(c, "scratch", "scratch_dir", s->scratch_dir))
		return;
	dir = nearest(s->scratch_dir);
	network = dir == NULL ? NULL : network_name(dir);
	lc_free(dir);
	(void)free_bytes(s->scratch_dir, &room);
	if (network != NULL) {
		x = findings_add(c->findings, FINDING_BAD, "scratch",
		                 "%s is on %s: a guest's write would wait for the network",
		                 s->scratch_dir, network);
		finding_advise(x, "scratch_dir = a folder on a local disk, in %s", origin(c));
	} else if (s->scratch_max > room) {
		x = findings_add(c->findings, FINDING_WARN, "scratch",
		                 "%s: %s free, and scratch_max allows a snapshot %s",
		                 s->scratch_dir, size_format(a, sizeof a, room),
		                 size_format(b, sizeof b, s->scratch_max));
		finding_advise(x, "scratch_max = %" PRIu64 " MiB, in %s", room >> 21, origin(c));
	} else if (room < GIB) {
		x = findings_add(c->findings, FINDING_WARN, "scratch",
		                 "%s: only %s free; a snapshot ends when that is used up",
		                 s->scratch_dir, size_format(a, sizeof a, room));
		finding_advise(x, "make room in %s, or set scratch_dir in %s", s->scratch_dir,
		               origin(c));
	} else {
		(void)findings_add(c->findings, FINDING_GOOD, "scratch", "%s, %s free",
		                   s->scratch_dir, size_format(a, sizeof a, room));
	}
}

/* Sockets have short names. */
static void
look_at_run_dir(struct checkup *c)
{
	static const char backup[] = "/.backup/", file[] = "/00000000-0123456789abcdef.nbd";
	const struct settings *s = c->settings;
	size_t i, longest = 8, n;
	struct finding *x;

	for (i = 0; i < s->nvms; i++)
		longest = strlen(s->vms[i].name) > longest ? strlen(s->vms[i].name) : longest;
	n = strlen(s->run_dir) + sizeof backup - 1 + longest + sizeof file - 1 + 8;
	if (n > SOCKET_MAX) {
		x = findings_add(c->findings, FINDING_BAD, "run folder",
		                 "%s: its name is %zu characters too long for sockets in it",
		                 s->run_dir, n - SOCKET_MAX);
		finding_advise(x, "run_dir = /run/locum, in %s", origin(c));
	} else if (folder_works(c, "run folder", "run_dir", s->run_dir)) {
		(void)findings_add(c->findings, FINDING_GOOD, "run folder", "%s", s->run_dir);
	}
}

/* ---- store ---- */

/* A host that is paired has had one: another with keys of its own is no way back to its points. */
static bool
advise_recall(const struct checkup *c, struct finding *x)
{
	struct peer_file *list = NULL;
	struct cli_word w;
	size_t n = 0, i = 0;
	bool paired = peer_files(c->settings->key_dir, &list, &n, NULL) == 0 && n > 0;

	while (paired && i < n - 1 && list[i].err.code != LC_OK) /* best one that can be read */
		i++;
	if (paired)
		finding_advise(x, "locum recall %s", cli_word(&w, list[i].peer.name));
	lc_free(list);
	return paired;
}

static void
store_trouble(struct checkup *c, const struct lc_err *e)
{
	struct finding *x = findings_add(c->findings, FINDING_BAD, "store", "%s", e->msg);
	struct cli_word w;
	const char *dir = cli_word(&w, c->settings->store);

	if (e->code == LC_ENOENT && advise_recall(c, x))
		return;
	if (e->code == LC_ENOENT)
		finding_advise(x, "locum store init --store %s", dir);
	else if (e->code == LC_EKEY)
		finding_advise(x, "locum key recover --recovery-code-file KIT --store %s", dir);
	else if (e->code == LC_EVERSION)
		finding_advise(x, "install the version of locum that made it");
	else if (e->code == LC_EACCES)
		finding_advise(x, "run it as root, or chmod as the message says");
	else
		finding_advise(x, "locum scrub --store %s", dir);
}

static void
look_at_store(struct checkup *c)
{
	const struct settings *s = c->settings;
	struct store_opts o = {.dir = s->store, .key_dir = s->key_dir, .who = "locum doctor"};
	struct lc_err e = LC_ERR_INIT;
	struct store_stats st = {0};
	struct finding *x;
	uint64_t room = 0;
	char a[32], b[32];
	const char *network;

	if (s->store == NULL) {
		x = findings_add(c->findings, FINDING_BAD, "store", "%s names none", origin(c));
		finding_advise(x, "store = FOLDER, in [locum] of %s; then: locum store init",
		               origin(c));
		return;
	}
	if (store_open(&o, &c->store, &e) == 0 && !store_has_key(c->store)) {
		store_close(c->store);
		c->store = NULL;
		(void)lc_fail(&e, LC_EKEY, 0, "%s: no key of it in %s", s->store, s->key_dir);
	}
	if (c->store == NULL) {
		store_trouble(c, &e);
		return;
	}
	(void)store_stats(c->store, &st, NULL);
	(void)free_bytes(s->store, &room);
	network = network_name(s->store);
	size_format(a, sizeof a, st.bytes);
	size_format(b, sizeof b, room);
	if (network != NULL) {
		x = findings_add(c->findings, FINDING_WARN, "store",
		                 "%s is on %s, where locks and flushes are not to be relied on",
		                 s->store, network);
		finding_advise(x,
		               "store = a folder on a local disk, in %s; locum copy takes points "
		               "there",
		               origin(c));
	} else if (room < GIB || room < st.bytes / 20) {
		x = findings_add(c->findings, FINDING_WARN, "store",
		                 "%s: only %s free beside its %s", s->store, b, a);
		finding_advise(x, "make room in the filesystem of %s", s->store);
	} else {
		(void)findings_add(c->findings, FINDING_GOOD, "store",
		                   "%s: %" PRIu64 " points of %" PRIu64 " VMs in %s, %s free",
		                   s->store, st.points, st.vms, a, b);
	}
}

/* ---- who makes points ---- */

static void
look_at_schedule(struct checkup *c)
{
	char *path = path_join(c->settings->run_dir, CONTROL_FILE);
	struct finding *x;

	c->agent = path != NULL && unixsock_listens(path);
	lc_free(path);
	if (c->agent) {
		(void)findings_add(c->findings, FINDING_GOOD, "schedule",
		                   "an agent runs (locum status)");
	} else if (access(CRON_FILE, F_OK) == 0) {
		(void)findings_add(c->findings, FINDING_GOOD, "schedule", CRON_FILE);
	} else {
		x = findings_add(c->findings, FINDING_WARN, "schedule",
		                 "nothing makes restore points by itself: no agent runs, and there "
		                 "is no " CRON_FILE);
		finding_advise(x, "systemctl enable --now locum-agent");
	}
}

/* ---- clock ---- */

void
checkup_clock(struct findings *f, const struct checkup_clock *t)
{
	struct finding *x;
	char when[40], now[40];

	if (t->newest_ns > t->now_ns + CLOCK_SLACK_NS) {
		x = findings_add(f, FINDING_BAD, "clock",
		                 "it shows %s, and the newest restore point is of %s: it is wrong, "
		                 "or was when that was made",
		                 clock_format(now, sizeof now, t->now_ns),
		                 clock_format(when, sizeof when, t->newest_ns));
		finding_advise(x, "timedatectl set-ntp true");
	} else if (t->known && !t->synchronised) {
		x = findings_add(f, FINDING_WARN, "clock",
		                 "no time server keeps it right: points of two sites can't be "
		                 "compared by time");
		finding_advise(x, "timedatectl set-ntp true");
	} else {
		(void)findings_add(f, FINDING_GOOD, "clock", "%s%s",
		                   clock_format(now, sizeof now, t->now_ns),
		                   t->known ? ", synchronised" : "");
	}
}

static int
keep_newest(void *arg, struct point *p, struct lc_err *e)
{
	int64_t *newest = arg;

	(void)e;
	*newest = p->commit_ns > *newest ? p->commit_ns : *newest;
	return 0;
}

static void
look_at_clock(struct checkup *c)
{
	struct timex tx = {.modes = 0};
	struct checkup_clock t = {.now_ns = clock_wall_ns()};
	int state = adjtimex(&tx);

	t.known = state >= 0;
	t.synchronised = state != TIME_ERROR;
	if (c->store != NULL)
		(void)store_each_point(c->store, NULL, keep_newest, &t.newest_ns, NULL);
	checkup_clock(c->findings, &t);
}

/* ---- programs ---- */

bool
checkup_version(const char *text, unsigned *out)
{
	for (; *text != '\0'; text++) {
		unsigned v[3] = {0};
		char *end;
		size_t i;

		if (*text < '0' || *text > '9')
			continue;
		for (i = 0; i < 3; i++) {
			unsigned long n = strtoul(text, &end, 10);

			v[i] = n > 9999 ? 9999 : (unsigned)n;
			text = end;
			if (*end != '.' || end[1] < '0' || end[1] > '9')
				break;
			text = end + 1;
		}
		if (i > 0) {
			*out = v[0] * 10000 + (v[1] > 99 ? 99 : v[1]) * 100 +
			       (v[2] > 99 ? 99 : v[2]);
			return true;
		}
		if (*text == '\0')
			break;
	}
	return false;
}

/* The first line of what `program --version` says.  False: it can't be run. */
static bool
ask_version(const char *program, char *dst, size_t n)
{
	char *copy = lc_strdup(program), arg[] = "--version";
	char *argv[] = {copy, arg, NULL};
	struct spawn s = {.argv = argv, .timeout_ms = PROGRAM_MS};
	struct lc_buf out = {0};
	bool yes = copy != NULL && spawn_run(&s, &out, NULL, NULL) == 0;

	*dst = '\0';
	if (yes)
		(void)snprintf(dst, n, "%.*s", (int)strcspn((const char *)out.p, "\n"),
		               (const char *)out.p);
	lc_buf_free(&out);
	lc_free(copy);
	return yes;
}

static void
look_at_qemu(struct checkup *c)
{
	const char *qemu = c->settings->qemu;
	char words[256];
	struct finding *x;
	unsigned v = 0;

	if (!ask_version(qemu, words, sizeof words)) {
		x = findings_add(c->findings, FINDING_BAD, "qemu",
		                 "%s can't be run: no restore point can be booted here", qemu);
		finding_advise(x, "apt install qemu-system-x86");
	} else if (strstr(words, "QEMU") == NULL || !checkup_version(words, &v)) {
		x = findings_add(c->findings, FINDING_BAD, "qemu", "%s is no QEMU, it says: %.100s",
		                 qemu, words);
		finding_advise(x, "qemu = qemu-system-x86_64, in %s", origin(c));
	} else if (v < QEMU_MIN) {
		x = findings_add(c->findings, FINDING_BAD, "qemu",
		                 "%s is %u.%u.%u, and 7.1 is the oldest that will do", qemu,
		                 v / 10000, v / 100 % 100, v % 100);
		finding_advise(x, "apt install qemu-system-x86 (of Debian 12 or later)");
	} else {
		(void)findings_add(c->findings, FINDING_GOOD, "qemu", "%s %u.%u.%u", qemu,
		                   v / 10000, v / 100 % 100, v % 100);
	}
}

static void
look_at_tools(struct checkup *c)
{
	const char *tools[] = {"qemu-img", "qemu-nbd"};
	char words[256];
	struct finding *x;
	size_t i;

	for (i = 0; i < sizeof tools / sizeof tools[0]; i++) {
		unsigned v = 0;

		if (ask_version(tools[i], words, sizeof words) && checkup_version(words, &v)) {
			(void)findings_add(c->findings, FINDING_GOOD, tools[i], "%u.%u.%u",
			                   v / 10000, v / 100 % 100, v % 100);
			continue;
		}
		x = findings_add(c->findings, FINDING_BAD, tools[i],
		                 "can't be run: VMs that are off can't be read");
		finding_advise(x, "apt install qemu-utils");
	}
}

static void
look_at_nbdkit(struct checkup *c)
{
	const struct settings *s = c->settings;
	char words[256];
	struct finding *x;
	unsigned v = 0;

	if (!ask_version(s->nbdkit, words, sizeof words) || strstr(words, "nbdkit") == NULL ||
	    !checkup_version(words, &v)) {
		x = findings_add(c->findings, FINDING_BAD, "nbdkit",
		                 "%s can't be run: no restore point can be booted here", s->nbdkit);
		finding_advise(x, "apt install nbdkit");
	} else if (s->plugin[0] == '/' && access(s->plugin, R_OK) != 0) {
		x = findings_add(c->findings, FINDING_BAD, "nbdkit",
		                 "its plugin %s: %s; no restore point can be booted here",
		                 s->plugin, strerrordesc_np(errno));
		finding_advise(x, "remove `plugin` from %s", origin(c));
	} else {
		(void)findings_add(c->findings, FINDING_GOOD, "nbdkit", "%s %u.%u.%u, plugin %s",
		                   s->nbdkit, v / 10000, v / 100 % 100, v % 100, s->plugin);
	}
}

/* Names of the files that are mapped carry their versions. */
static int
add_library(struct dl_phdr_info *info, size_t size, void *arg)
{
	static const char *const known[] = {"libuv.",    "libsqlite3.", "libsodium.", "libzstd.",
	                                    "librsync.", "libnbd.",     "libjansson."};
	struct lc_buf *text = arg;
	char path[PATH_MAX];
	const char *base;
	size_t i;

	(void)size;
	if (info->dlpi_name == NULL || realpath(info->dlpi_name, path) == NULL)
		return 0;
	base = strrchr(path, '/') + 1;
	for (i = 0; i < sizeof known / sizeof known[0]; i++) {
		if (strncmp(base, known[i], strlen(known[i])) == 0)
			(void)lc_buf_printf(text, "%s%s", text->n == 0 ? "" : ", ", base);
	}
	return 0;
}

static void
look_at_libraries(struct checkup *c)
{
	struct lc_buf text = {0};

	(void)dl_iterate_phdr(add_library, &text);
	if (text.n > 0)
		(void)findings_add(c->findings, FINDING_GOOD, "libraries", "%s",
		                   (const char *)text.p);
	lc_buf_free(&text);
}

static void
look_at_kvm(struct checkup *c)
{
	char why[160];

	if (launch_kvm_works(why, sizeof why))
		(void)findings_add(c->findings, FINDING_GOOD, "kvm", "works");
	else
		(void)findings_add(c->findings, FINDING_NOTE, "kvm",
		                   "%s: VMs that locum boots here run many times slower", why);
}

/* QEMUs that we start; others are said beside their VMs. */
static void
look_at_user(struct checkup *c)
{
	struct lc_err e = LC_ERR_INIT;
	struct finding *x = NULL;
	char *user = NULL;

	if (geteuid() != 0)
		return;
	if (settings_run_as(c->settings, &user, &e) != 0)
		x = findings_add(c->findings, FINDING_BAD, "run_as",
		                 "no VM can be started here: %s", e.msg);
	else if (strcmp(user, "root") == 0)
		x = findings_add(c->findings, FINDING_WARN, "run_as",
		                 "VMs that locum starts run as root: a guest that breaks out of "
		                 "QEMU has this host");
	else
		(void)findings_add(c->findings, FINDING_GOOD, "run_as",
		                   "VMs that locum starts run as %s", user);
	if (x != NULL)
		finding_advise(x, "run_as = libvirt-qemu:nobody, in [locum]");
	lc_free(user);
}

static void
look_at_confinement(struct checkup *c)
{
	struct lc_buf text = {0};
	bool on = file_read_all("/sys/module/apparmor/parameters/enabled", 16, &text, NULL) == 0 &&
	          text.n > 0 && text.p[0] == 'Y';

	lc_buf_free(&text);
	(void)findings_add(c->findings, FINDING_GOOD, "confinement", "%s",
	                   on ? "AppArmor is on; QEMU is handed open files, so no profile has to "
	                        "allow folders of locum"
	                      : "no AppArmor");
}

void
checkup_host(struct checkup *c)
{
	look_at_privileges(c);
	look_at_settings(c);
	look_at_store(c);
	look_at_scratch(c);
	look_at_run_dir(c);
	look_at_schedule(c);
	look_at_clock(c);
	look_at_qemu(c);
	look_at_tools(c);
	look_at_nbdkit(c);
	look_at_libraries(c);
	look_at_kvm(c);
	look_at_user(c);
	look_at_confinement(c);
}
