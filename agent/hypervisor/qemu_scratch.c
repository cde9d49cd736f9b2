/*
 * Scratch: where the old content goes while a snapshot lives.
 *
 * QEMU opens no path of ours: it may run as another user, confined, while our folders are closed to
 * all but us.  So the files are made here, have no name, and are handed over as descriptors.
 *
 * The filesystem of the scratch may hang.  The guest is then held up once, for at most cbw-timeout;
 * but the copies that timed out are still under way inside QEMU, and any change of its graph waits
 * for them with the guest's CPUs held.  So nothing of the graph is touched before the scratch was
 * seen to answer: a byte is written into the same files, for which the kernel takes the lock that a
 * stuck write holds.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "store/base/files.h"

#include "agent/hypervisor/pushed.h"
#include "agent/hypervisor/qemu.h"

#define MAKE_MS 5000
#define PROBE_MS 2000
#define SYNC_MS 30000
#define RESERVE_MAX (UINT64_C(1) << 30) /* as in qemu.c */

/* ---- make ---- */

struct make { /* seen by the errand: no pointers to anything that changes */
	struct errand job;
	char dir[512];
	uint64_t sizes[HV_DISKS_MAX];
	uint64_t reserve[HV_DISKS_MAX]; /* bytes, 0: no image, only as long as the disk */
	size_t n;
};

/* Where a dead server or another process can hang what is local. */
static bool
is_remote(int fd)
{
	static const uint32_t remote[] = {
	    0x6969,     /* NFS */
	    0x517b,     /* SMB */
	    0xff534d42, /* CIFS */
	    0xfe534d42, /* SMB2 */
	    0x01021997, /* 9P */
	    0x00c36400, /* Ceph */
	    0x65735546, /* FUSE */
	    0x5346414f, /* AFS */
	    0x73757245, /* Coda */
	    0x7461636f, /* OCFS2 */
	    0x01161970, /* GFS2 */
	};
	struct statfs s;
	size_t i;

	if (fstatfs(fd, &s) != 0)
		return false;
	for (i = 0; i < sizeof remote / sizeof remote[0]; i++) {
		if ((uint32_t)s.f_type == remote[i])
			return true;
	}
	return false;
}

static int
open_nameless(const char *dir)
{
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
		char path[600] = "";

		(void)stpcpy(stpcpy(path, dir), "/locum-scratch-XXXXXX");
		fd = mkostemp(path, O_CLOEXEC);
		if (fd >= 0)
			(void)unlink(path);
	}
	return fd;
}

/* All that an image can come to, and with it no more than the filesystem can spare. */
static int
reserve(int fd, uint64_t bytes)
{
	struct statfs s;
	uint64_t all;

	if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)bytes) != 0 || fstatfs(fd, &s) != 0)
		return -1;
	all = (uint64_t)s.f_blocks * (uint64_t)s.f_frsize / 50;
	if ((uint64_t)s.f_bavail * (uint64_t)s.f_frsize >= (all < RESERVE_MAX ? all : RESERVE_MAX))
		return 0;
	errno = ENOSPC;
	return -1;
}

static int
fill(int fd, uint64_t size, uint64_t bytes)
{
	if (bytes == 0)
		return ftruncate(fd, (off_t)size);
	return reserve(fd, bytes) != 0 ? -1 : pushed_make(fd, size);
}

static void
run_make(const struct errand *job, struct errand_result *out)
{
	const struct make *m = (const struct make *)job;
	size_t i;

	for (i = 0; i < m->n; i++) {
		int fd = open_nameless(m->dir);

		if (fd >= 0 && is_remote(fd)) {
			out->sys = EREMOTE;
			return;
		}
		/* A byte, to see that the filesystem answers and has room; then nothing again. */
		if (fd < 0 || pwrite(fd, "", 1, 0) != 1 || ftruncate(fd, 0) != 0 ||
		    fill(fd, m->sizes[i], m->reserve[i]) != 0) {
			out->sys = errno;
			out->at = i;
			if (fd >= 0)
				(void)close(fd);
			return;
		}
		out->fds[out->nfds++] = fd;
	}
}

int
qemu_scratch_make(struct qemu *q, errand_done_cb *done, struct lc_err *e)
{
	struct make m = {.job = {.run = run_make, .deadline_ms = MAKE_MS}};
	size_t i;

	m.job.one_at_a_time = m.dir;
	if ((size_t)snprintf(m.dir, sizeof m.dir, "%s", q->t.scratch_dir) >= sizeof m.dir)
		return lc_fail(e, LC_EINVAL, 0, "scratch folder %s: its name is too long",
		               q->t.scratch_dir);
	for (i = 0; i < q->base.vm.ndisks; i++) {
		if (!q->disks[i].in)
			continue;
		m.reserve[m.n] = q->disks[i].push ? q->disks[i].reserved : 0;
		m.sizes[m.n++] = q->base.vm.disks[i].size;
	}
	return m.n == 0 ? DRIVER_NOTHING : errand_start(q->loop, &m.job, done, q, e);
}

int
qemu_scratch_made(struct qemu *q, struct errand_result *r, struct lc_err *e)
{
	size_t i, k = 0;

	if (r->late)
		return lc_fail(e, LC_ETIMEDOUT, 0, "the scratch folder %s does not answer",
		               q->t.scratch_dir);
	if (r->sys == EREMOTE) {
		return lc_fail(
		    e, LC_ENOTSUP, 0,
		    "scratch in %s: not on a disk of this host; the guest would have to wait for "
		    "whatever is behind it",
		    q->t.scratch_dir);
	}
	for (i = 0; i < q->base.vm.ndisks; i++) {
		if (!q->disks[i].in)
			continue;
		if (k >= r->nfds || r->sys != 0) {
			errno = r->sys == 0 ? EMFILE : r->sys; /* fewer arrived than were sent */
			return lc_fail_errno(
			    e, "scratch in %s: %" PRIu64 " bytes for disk %s", q->t.scratch_dir,
			    q->disks[i].push ? q->disks[i].reserved : q->base.vm.disks[i].size,
			    q->base.vm.disks[i].name);
		}
		fd_close(&q->disks[i].scratch);
		q->disks[i].scratch = r->fds[k];
		r->fds[k++] = -1;
	}
	return 0;
}

/* ---- probe ---- */

struct probe {
	struct errand job;
	char dir[512];
	int fds[HV_DISKS_MAX];
	size_t n;
};

/* That it answers is all, not what. */
static void
run_probe(const struct errand *job, struct errand_result *out)
{
	const struct probe *p = (const struct probe *)job;
	size_t i;

	(void)out;
	for (i = 0; i < p->n; i++)
		(void)!pwrite(p->fds[i], "", 1, 0);
	/* Of a process before us: its files have no name, another one in the same folder has to do.
	 */
	if (p->n == 0)
		(void)!pwrite(open_nameless(p->dir), "", 1, 0);
}

static bool
uses_scratch(const struct qemu *q)
{
	const struct json_t *nodes = qemu_look_nodes(q);
	size_t i, n = strlen(q->prefix);

	for (i = 0; i < qmp_count(nodes); i++) {
		const char *name = qmp_str(qmp_at(nodes, i), "node-name");

		if (qemu_ours(q, name) && name[n] == 's')
			return true;
	}
	return false;
}

int
qemu_scratch_probe(struct qemu *q, errand_done_cb *done, struct lc_err *e)
{
	struct probe p = {.job = {.run = run_probe, .deadline_ms = PROBE_MS}};
	size_t i;

	if (!uses_scratch(q))
		return DRIVER_NOTHING;
	(void)snprintf(p.dir, sizeof p.dir, "%s", q->t.scratch_dir);
	p.job.one_at_a_time = p.dir;
	for (i = 0; i < HV_DISKS_MAX; i++) {
		if (q->disks[i].scratch >= 0)
			p.fds[p.n++] = q->disks[i].scratch;
	}
	p.job.keep = p.fds;
	p.job.nkeep = p.n;
	return errand_start(q->loop, &p.job, done, q, e);
}

int
qemu_scratch_probed(struct qemu *q, struct errand_result *r, struct lc_err *e)
{
	if (!r->late)
		return 0;
	return lc_fail(e, LC_EBUSY, 0,
	               "the scratch in %s does not answer (%d ms): the snapshot is left where it "
	               "is, where it does "
	               "not hold up the guest; the next run removes it",
	               q->t.scratch_dir, PROBE_MS);
}

/* ---- write back ---- */

struct sync {
	struct errand job;
	char paths[HV_DISKS_MAX][sizeof((struct hv_disk *)NULL)->path];
	size_t n;
};

static void
run_sync(const struct errand *job, struct errand_result *out)
{
	const struct sync *s = (const struct sync *)job;
	size_t i;

	(void)out;
	for (i = 0; i < s->n; i++) {
		struct stat st;
		int fd = -1;

		/* QEMU names it: nothing is opened that does something when it is. */
		if (stat(s->paths[i], &st) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)))
			fd = open(s->paths[i], O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (fd >= 0) {
			(void)fdatasync(fd);
			(void)close(fd);
		}
	}
}

/* `stop` waits until QEMU has flushed every image, with the CPUs held: half a second where the host
 * has cached half a gigabyte of them.  Written back here before, it takes milliseconds. */
int
qemu_scratch_sync(struct qemu *q, errand_done_cb *done, struct lc_err *e)
{
	const struct hv_vm *vm = &q->base.vm;
	struct sync s = {.job = {.run = run_sync, .deadline_ms = SYNC_MS}};
	size_t i;

	if (!q->was_running || (strcmp(vm->way, "pause") != 0 && !q->take.group))
		return DRIVER_NOTHING;
	for (i = 0; i < vm->ndisks; i++) { /* Of all disks: `stop` asks for no less. */
		if (vm->disks[i].path[0] != '\0')
			memcpy(s.paths[s.n++], vm->disks[i].path, sizeof s.paths[0]);
	}
	return s.n == 0 ? DRIVER_NOTHING : errand_start(q->loop, &s.job, done, q, e);
}

int
qemu_scratch_synced(struct qemu *q, struct errand_result *r, struct lc_err *e)
{
	(void)q;
	if (!r->late)
		return 0;
	return lc_fail(
	    e, LC_ETIMEDOUT, 0,
	    "the images were not written back within %d s, so stopping the guest would take "
	    "as long",
	    SYNC_MS / 1000);
}

/* ---- use ---- */

void
qemu_scratch_close(struct qemu *q)
{
	size_t i;

	for (i = 0; i < HV_DISKS_MAX; i++)
		fd_close(&q->disks[i].scratch);
}

uint64_t
qemu_scratch_used(const struct driver *d)
{
	const struct qemu *q = (const struct qemu *)d;
	uint64_t used = 0;
	size_t i;

	for (i = 0; i < HV_DISKS_MAX; i++) {
		struct stat st;

		if (q->disks[i].scratch >= 0 && !q->disks[i].push &&
		    fstat(q->disks[i].scratch, &st) == 0)
			used += (uint64_t)st.st_blocks * 512;
	}
	return used;
}
