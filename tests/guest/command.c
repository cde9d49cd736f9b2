/*
 * command: see command.h.
 *
 * write, zero, discard and sum work on byte ranges of a disk and say OK only
 * when the disk has confirmed a flush, so that a test may take its restore
 * point at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/fs.h>

#include "command.h"
#include "seqw.h"
#include "sha256.h"

#define MAX_ARGS 5
#define CHUNK 65536U /* Also the block of the pseudo-random stream of `write`. */

/* A range of one disk, checked. */
struct range {
	struct disk *disk;
	uint64_t offset, len;
};

struct reply {
	char *out;
	size_t size;
};

typedef void (*command_fn)(struct seqw *w, char **arg, struct reply *r);

__attribute__((format(printf, 2, 3))) static void
reply(struct reply *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(r->out, r->size, fmt, ap);
	va_end(ap);
}

static void
reply_rc(struct reply *r, int rc)
{
	if (rc == 0)
		reply(r, "OK");
	else
		reply(r, "ERR %s (errno %d)", strerrordesc_np(rc), rc);
}

/* A number with an optional K, M or G. */
static bool
parse_num(const char *s, uint64_t *v)
{
	unsigned shift = 0;
	char *end;

	if (*s < '0' || *s > '9')
		return false;
	errno = 0;
	*v = strtoull(s, &end, 0);
	if (errno != 0)
		return false;
	if (*end == 'K')
		shift = 10;
	else if (*end == 'M')
		shift = 20;
	else if (*end == 'G')
		shift = 30;
	if (shift != 0)
		end++;
	if (*end != '\0' || *v > UINT64_MAX >> shift)
		return false;
	*v <<= shift;
	return true;
}

/* By name (vda) or by index in seq.disks (0). */
static struct disk *
find_disk(struct seqw *w, const char *s)
{
	uint64_t i;

	for (i = 0; i < w->ndisks; i++) {
		if (strcmp(w->disk[i].name, s) == 0)
			return &w->disk[i];
	}
	return parse_num(s, &i) && i < w->ndisks ? &w->disk[i] : NULL;
}

static bool
parse_range(struct seqw *w, char **arg, struct range *at, struct reply *r)
{
	at->disk = find_disk(w, arg[0]);
	if (at->disk == NULL) {
		reply(r, "ERR no disk %s", arg[0]);
		return false;
	}
	if (!parse_num(arg[1], &at->offset) || !parse_num(arg[2], &at->len)) {
		reply(r, "ERR OFFSET and LEN are numbers, with K, M or G at will");
		return false;
	}
	/* The disk may have grown since it was opened. */
	if (at->disk->is_block)
		(void)ioctl(at->disk->fd, BLKGETSIZE64, &at->disk->size);
	if (at->offset % 512 != 0 || at->len % 512 != 0) {
		reply(r, "ERR OFFSET and LEN must be multiples of 512");
		return false;
	}
	if (at->offset > at->disk->size || at->len > at->disk->size - at->offset) {
		reply(r, "ERR beyond the end of %s at %" PRIu64, at->disk->name, at->disk->size);
		return false;
	}
	return true;
}

static void
cmd_ping(struct seqw *w, char **arg, struct reply *r)
{
	(void)w;
	(void)arg;
	reply(r, "OK");
}

static void
cmd_sync(struct seqw *w, char **arg, struct reply *r)
{
	unsigned i;

	(void)arg;
	sync();
	for (i = 0; i < w->ndisks; i++) {
		if (fsync(w->disk[i].fd) < 0) {
			reply_rc(r, errno);
			return;
		}
	}
	reply(r, "OK");
}

static void
cmd_stat(struct seqw *w, char **arg, struct reply *r)
{
	uint64_t last = atomic_load(&w->last);
	bool paused;

	(void)arg;
	pthread_mutex_lock(&w->lock);
	paused = w->paused;
	pthread_mutex_unlock(&w->lock);
	reply(r,
	      "OK last=%" PRId64 " load=%" PRIu64 " errors=%" PRIu64 " stalls=%" PRIu64
	      " paused=%d disks=%u fs=%d fsops=%" PRIu64 " fserrors=%" PRIu64,
	      last == SEQFMT_NONE ? -1 : (int64_t)last, atomic_load(&w->load_done),
	      atomic_load(&w->errors), atomic_load(&w->stalls), paused, w->ndisks, w->churn.running,
	      atomic_load(&w->churn.ops), atomic_load(&w->churn.errors));
}

static void
cmd_lat(struct seqw *w, char **arg, struct reply *r)
{
	char lat[128];

	(void)arg;
	seqw_lat(w, lat, sizeof(lat));
	reply(r, "OK %s", lat);
}

static void
cmd_pause(struct seqw *w, char **arg, struct reply *r)
{
	int rc = seqw_pause(w);

	(void)arg;
	if (rc != 0)
		reply_rc(r, rc);
	else
		cmd_stat(w, arg, r);
}

static void
cmd_resume(struct seqw *w, char **arg, struct reply *r)
{
	(void)arg;
	seqw_resume(w);
	reply(r, "OK");
}

static void
cmd_load(struct seqw *w, char **arg, struct reply *r)
{
	uint64_t v;

	if (!parse_num(arg[0], &v)) {
		reply(r, "ERR usage: load KIB_PER_SECOND");
		return;
	}
	atomic_store(&w->load_KiBps, v);
	reply(r, "OK");
}

static void
cmd_delay(struct seqw *w, char **arg, struct reply *r)
{
	uint64_t v;

	if (!parse_num(arg[0], &v)) {
		reply(r, "ERR usage: delay MICROSECONDS");
		return;
	}
	atomic_store(&w->delay_us, v);
	reply(r, "OK");
}

static void
cmd_size(struct seqw *w, char **arg, struct reply *r)
{
	struct disk *d = find_disk(w, arg[0]);
	uint64_t size;

	if (d == NULL) {
		reply(r, "ERR no disk %s", arg[0]);
		return;
	}
	size = d->size;
	if (d->is_block && ioctl(d->fd, BLKGETSIZE64, &size) < 0)
		reply_rc(r, errno);
	else
		reply(r, "OK %" PRIu64, size);
}

/* write and zero: seed is NULL for zeros. */
static void
fill_range(const struct range *at, const uint64_t *seed, struct reply *r)
{
	uint8_t *buf = disk_alloc(CHUNK);
	uint64_t done, n;
	int rc = 0;

	for (done = 0; done < at->len && rc == 0; done += n) {
		n = at->len - done < CHUNK ? at->len - done : CHUNK;
		if (seed != NULL)
			seqfmt_fill(buf, CHUNK, seqfmt_mix(*seed) ^ (done / CHUNK));
		rc = disk_write(at->disk, false, buf, (size_t)n, at->offset + done);
	}
	if (rc == 0 && fsync(at->disk->fd) < 0)
		rc = errno;
	free(buf);
	reply_rc(r, rc);
}

static void
cmd_write(struct seqw *w, char **arg, struct reply *r)
{
	struct range at;
	uint64_t seed;

	if (!parse_range(w, arg, &at, r))
		return;
	if (!parse_num(arg[3], &seed))
		reply(r, "ERR SEED is a number");
	else
		fill_range(&at, &seed, r);
}

static void
cmd_zero(struct seqw *w, char **arg, struct reply *r)
{
	struct range at;

	if (parse_range(w, arg, &at, r))
		fill_range(&at, NULL, r);
}

/* A block device takes the ioctl; a plain file loses the same range. */
static void
drop_range(struct seqw *w, char **arg, unsigned long request, struct reply *r)
{
	const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	struct range at;
	uint64_t range[2];
	int rc;

	if (!parse_range(w, arg, &at, r))
		return;
	range[0] = at.offset;
	range[1] = at.len;
	if (at.disk->is_block)
		rc = ioctl(at.disk->fd, request, range);
	else
		rc = fallocate(at.disk->fd, punch, (off_t)at.offset, (off_t)at.len);
	if (rc == 0)
		rc = fsync(at.disk->fd);
	reply_rc(r, rc < 0 ? errno : 0);
}

static void
cmd_discard(struct seqw *w, char **arg, struct reply *r)
{
	drop_range(w, arg, BLKDISCARD, r);
}

static void
cmd_zeroout(struct seqw *w, char **arg, struct reply *r)
{
	drop_range(w, arg, BLKZEROOUT, r);
}

static void
cmd_sum(struct seqw *w, char **arg, struct reply *r)
{
	struct sha256 sum;
	struct range at;
	uint64_t done, n;
	char hex[65];
	uint8_t *buf;
	int rc = 0;

	if (!parse_range(w, arg, &at, r))
		return;
	buf = disk_alloc(CHUNK);
	sha256_init(&sum);
	for (done = 0; done < at.len && rc == 0; done += n) {
		n = at.len - done < CHUNK ? at.len - done : CHUNK;
		rc = disk_read(at.disk, buf, (size_t)n, at.offset + done);
		if (rc == 0)
			sha256_add(&sum, buf, (size_t)n);
	}
	free(buf);
	if (rc != 0) {
		reply_rc(r, rc);
		return;
	}
	sha256_hex(&sum, hex);
	reply(r, "OK %s", hex);
}

static void
cmd_fs(struct seqw *w, char **arg, struct reply *r)
{
	if (strcmp(arg[0], "start") == 0)
		reply_rc(r, churn_start(&w->churn));
	else if (strcmp(arg[0], "stop") == 0)
		reply_rc(r, churn_stop(&w->churn));
	else
		reply(r, "ERR usage: fs start|stop");
}

/* Leaves the file system clean; the answer is on its way before the power goes. */
static void
cmd_poweroff(struct seqw *w, char **arg, struct reply *r)
{
	int rc;

	(void)arg;
	if (!w->guest) {
		reply(r, "ERR not in a guest");
		return;
	}
	rc = seqw_pause(w);
	if (rc == 0)
		rc = churn_stop(&w->churn);
	sync();
	if (rc == 0)
		atomic_store(&w->done, true);
	reply_rc(r, rc);
}

static const struct {
	const char *name;
	unsigned nargs;
	command_fn run;
	const char *usage;
} commands[] = {
    {"ping", 0, cmd_ping, ""},
    {"stat", 0, cmd_stat, ""},
    {"lat", 0, cmd_lat, ""},
    {"sync", 0, cmd_sync, ""},
    {"pause", 0, cmd_pause, ""},
    {"resume", 0, cmd_resume, ""},
    {"load", 1, cmd_load, "KIB_PER_SECOND"},
    {"delay", 1, cmd_delay, "MICROSECONDS"},
    {"size", 1, cmd_size, "DISK"},
    {"write", 4, cmd_write, "DISK OFFSET LEN SEED"},
    {"zero", 3, cmd_zero, "DISK OFFSET LEN"},
    {"zeroout", 3, cmd_zeroout, "DISK OFFSET LEN"},
    {"discard", 3, cmd_discard, "DISK OFFSET LEN"},
    {"sum", 3, cmd_sum, "DISK OFFSET LEN"},
    {"fs", 1, cmd_fs, "start|stop"},
    {"poweroff", 0, cmd_poweroff, ""},
};

static void
dispatch(struct seqw *w, char **arg, unsigned nargs, struct reply *r)
{
	size_t i;

	for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(arg[0], commands[i].name) != 0)
			continue;
		if (nargs != commands[i].nargs + 1) {
			reply(r, "ERR usage: %s %s", arg[0], commands[i].usage);
			return;
		}
		pthread_mutex_lock(&w->command_lock);
		commands[i].run(w, arg + 1, r);
		pthread_mutex_unlock(&w->command_lock);
		return;
	}
	reply(r, "ERR unknown command %s", arg[0]);
}

void
command_run(struct seqw *w, char *line, char *out, size_t size)
{
	struct reply r = {.out = out, .size = size};
	char *arg[MAX_ARGS + 1];
	unsigned nargs = 0;
	char *save, *s;
	int n;

	s = strtok_r(line, " \t\r\n", &save);
	if (s != NULL && *s == '@') {
		n = snprintf(out, size, "%s ", s);
		if (n > 0 && (size_t)n < size) {
			r.out += n;
			r.size -= (size_t)n;
		}
		s = strtok_r(NULL, " \t\r\n", &save);
	}
	for (; s != NULL && nargs <= MAX_ARGS; s = strtok_r(NULL, " \t\r\n", &save))
		arg[nargs++] = s;
	if (nargs == 0)
		reply(&r, "ERR empty command");
	else
		dispatch(w, arg, nargs, &r);
}
