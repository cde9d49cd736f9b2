/*
 * seqw: the workload of the test guest; on the host it writes plain files.
 *
 * Threads: one writes the sequence, one the random load; both stop at the
 * gate (pause) between two writes.  One per command channel reads commands.
 * The main thread prints the status every half second and on SIGUSR1 the
 * latency histogram, so that a hung write is reported while it hangs.
 *
 * Law 1 rests on one property: number n + 1 is only written once the disk has
 * confirmed number n.  Therefore a single thread, and a failed write is tried
 * again with the same number for ever.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "command.h"
#include "ring.h"
#include "say.h"
#include "seqw.h"

#define STATUS_NS UINT64_C(500000000)
#define STALL_NS UINT64_C(1000000000)
#define PAUSE_LIMIT_S 30

uint64_t
seqw_now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static uint64_t
wall_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void
sleep_ns(uint64_t ns)
{
	struct timespec ts = {
	    .tv_sec = (time_t)(ns / 1000000000),
	    .tv_nsec = (long)(ns % 1000000000),
	};

	(void)nanosleep(&ts, NULL);
}

/* ------------------------------------------------------------------ gate */

/* Both writers come by here before each write. */
static void
gate(struct seqw *w)
{
	pthread_mutex_lock(&w->lock);
	if (w->paused) {
		w->parked++;
		pthread_cond_broadcast(&w->cond);
		while (w->paused)
			pthread_cond_wait(&w->cond, &w->lock);
		w->parked--;
	}
	pthread_mutex_unlock(&w->lock);
}

int
seqw_pause(struct seqw *w)
{
	struct timespec until;
	int rc = 0;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PAUSE_LIMIT_S;
	pthread_mutex_lock(&w->lock);
	w->paused = true;
	while (w->parked < w->workers && rc == 0)
		rc = pthread_cond_timedwait(&w->cond, &w->lock, &until);
	pthread_mutex_unlock(&w->lock);
	return rc;
}

void
seqw_resume(struct seqw *w)
{
	pthread_mutex_lock(&w->lock);
	w->paused = false;
	pthread_cond_broadcast(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

void
seqw_lat(struct seqw *w, char *out, size_t size)
{
	pthread_mutex_lock(&w->lock);
	(void)snprintf(out, size,
	               "n=%" PRIu64 " p50=%" PRIu64 " p99=%" PRIu64 " p999=%" PRIu64 " max=%" PRIu64
	               "us",
	               w->lat.n, hist_at(&w->lat, 500), hist_at(&w->lat, 990),
	               hist_at(&w->lat, 999), w->lat.max_us);
	hist_reset(&w->lat);
	pthread_mutex_unlock(&w->lock);
}

/* --------------------------------------------------------------- writers */

static void
write_failed(struct seqw *w, unsigned disk, int rc)
{
	atomic_fetch_add(&w->errors, 1);
	say("SEQ WRITE-ERROR disk=%u errno=%d", disk, rc);
	sleep_ns(100000000);
}

static void
count_latency(struct seqw *w, uint64_t took_ns)
{
	pthread_mutex_lock(&w->lock);
	hist_add(&w->status, took_ns / 1000);
	hist_add(&w->lat, took_ns / 1000);
	pthread_mutex_unlock(&w->lock);
	if (took_ns > STALL_NS) {
		atomic_fetch_add(&w->stalls, 1);
		say("SEQ STALL %" PRIu64, took_ns / 1000000);
	}
}

/* Write number w->next; w->next moves on only if the disk has confirmed it. */
static void
write_one(struct seqw *w, uint8_t *buf)
{
	unsigned d = (unsigned)(w->next % w->ndisks);
	struct seqfmt_rec r = {
	    .n = w->next,
	    .disk = d,
	    .ndisks = w->ndisks,
	    .prev = w->prev_sum,
	    .epoch = w->epoch,
	    .wall_ns = wall_ns(),
	    .run = w->run,
	    .load_seed = w->seed,
	    .load_done = atomic_load(&w->load_done),
	    .region_end = w->region_end[d],
	};
	uint64_t slot = r.n / w->ndisks % SEQFMT_SLOTS;
	uint64_t begin;
	int rc;

	seqfmt_put_rec(buf, &r);
	begin = seqw_now_ns();
	atomic_store(&w->pending_ns, begin);
	rc = disk_write(&w->disk[d], true, buf, SEQFMT_REC_SIZE,
	                SEQFMT_RING_OFF + slot * SEQFMT_REC_SIZE);
	atomic_store(&w->pending_ns, 0);
	if (rc != 0) {
		write_failed(w, d, rc);
		return;
	}
	w->prev_sum = r.sum;
	w->next++;
	atomic_store(&w->last, r.n);
	count_latency(w, seqw_now_ns() - begin);
}

static void *
seq_main(void *arg)
{
	struct seqw *w = arg;
	uint8_t *buf = disk_alloc(SEQFMT_REC_SIZE);
	uint64_t left = w->count;
	uint64_t before, us;

	for (;;) {
		gate(w);
		before = w->next;
		write_one(w, buf);
		if (w->count != 0 && w->next != before && --left == 0)
			break;
		us = atomic_load(&w->delay_us);
		if (us != 0)
			sleep_ns(us * 1000);
	}
	free(buf);
	atomic_store(&w->done, true);
	return NULL;
}

/* One random write; returns its size, 0 if it was not done. */
static size_t
load_one(struct seqw *w, uint8_t *buf)
{
	struct seqfmt_page p = {.id = atomic_load(&w->load_done), .run = w->run};
	struct seqfmt_place at = seqfmt_place(w->seed, p.id, w->region_end, w->ndisks);
	uint64_t last;
	int rc;

	if (at.size == 0)
		return 0;
	last = atomic_load(&w->last);
	p.seq_next = last == SEQFMT_NONE ? 0 : last + 1;
	p.disk = at.disk;
	for (p.page = 0; p.page < at.size / SEQFMT_REC_SIZE; p.page++) {
		p.offset = at.offset + (uint64_t)p.page * SEQFMT_REC_SIZE;
		seqfmt_put_page(buf + (size_t)p.page * SEQFMT_REC_SIZE, &p);
	}
	rc = disk_write(&w->disk[at.disk], false, buf, at.size, at.offset);
	if (rc != 0) {
		write_failed(w, at.disk, rc);
		return 0;
	}
	atomic_fetch_add(&w->load_done, 1);
	return at.size;
}

static void *
load_main(void *arg)
{
	struct seqw *w = arg;
	uint8_t *buf = disk_alloc(SEQFMT_LOAD_MAX);
	uint64_t due_ns = seqw_now_ns();
	uint64_t KiBps, now;
	size_t n;

	while (!atomic_load(&w->done)) {
		gate(w);
		KiBps = atomic_load(&w->load_KiBps);
		n = KiBps == 0 ? 0 : load_one(w, buf);
		now = seqw_now_ns();
		if (n == 0) {
			sleep_ns(50000000);
			due_ns = now;
			continue;
		}
		due_ns += n * UINT64_C(1000000000) / (KiBps * 1024);
		if (due_ns > now)
			sleep_ns(due_ns - now);
		else if (now - due_ns > STALL_NS)
			due_ns = now; /* After a stall go on, do not catch up in a burst. */
	}
	free(buf);
	return NULL;
}

/* -------------------------------------------------------------- channels */

struct channel {
	struct seqw *w;
	int in, out;
	int epoll; /* Of a port; -1 for the console. */
};

/* A port does not block: wait a moment for room, at most a second. */
static void
send_answer(struct channel *c, const char *out, size_t n)
{
	unsigned tries;

	for (tries = 0; tries < 1000; tries++) {
		if (write(c->out, out, n) >= 0)
			return;
		if (errno != EAGAIN)
			break;
		sleep_ns(1000000);
	}
	say("SEQ answer lost errno=%d", errno);
}

static void
answer(struct channel *c, char *line)
{
	char out[512];
	size_t n;

	command_run(c->w, line, out, sizeof(out) - 1);
	n = strlen(out);
	out[n++] = '\n';
	send_answer(c, out, n);
	if (c->w->guest && atomic_load(&c->w->done)) {
		sleep_ns(50000000); /* Let the host read the answer. */
		(void)reboot(RB_POWER_OFF);
	}
}

/*
 * Without a peer on the host a virtio port reads as empty and polls as hung
 * up all the time.  Only the edges are of interest, hence epoll.
 */
static void *
channel_main(void *arg)
{
	struct channel *c = arg;
	struct epoll_event event;
	char buf[256], line[512];
	size_t used = 0;
	ssize_t n, i;

	for (;;) {
		n = read(c->in, buf, sizeof(buf));
		if (n <= 0) {
			if (c->epoll < 0)
				return NULL;
			if (n == 0)
				used = 0; /* The next peer begins a line of its own. */
			(void)epoll_wait(c->epoll, &event, 1, -1);
			continue;
		}
		for (i = 0; i < n; i++) {
			if (buf[i] != '\n' && buf[i] != '\r') {
				if (used < sizeof(line) - 1)
					line[used++] = buf[i];
				continue;
			}
			line[used] = '\0';
			if (used > 0)
				answer(c, line);
			used = 0;
		}
	}
}

/* Returns 0 or an errno value. */
static int
open_port(struct channel *c, const char *path)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLET};

	c->in = c->out = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	c->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (c->in < 0 || c->epoll < 0 || epoll_ctl(c->epoll, EPOLL_CTL_ADD, c->in, &event) < 0)
		return errno;
	return 0;
}

/* ---------------------------------------------------------------- status */

static void
print_status(struct seqw *w, uint64_t elapsed_ns)
{
	uint64_t last = atomic_load(&w->last);
	struct hist h;

	pthread_mutex_lock(&w->lock);
	h = w->status;
	hist_reset(&w->status);
	pthread_mutex_unlock(&w->lock);
	say("SEQ %" PRId64 " rate %" PRIu64 " max %.2f p50 %.2f p99 %.2f",
	    last == SEQFMT_NONE ? -1 : (int64_t)last,
	    (h.n * 1000000000 + elapsed_ns / 2) / elapsed_ns, (double)h.max_us / 1000,
	    (double)hist_at(&h, 500) / 1000, (double)hist_at(&h, 990) / 1000);
}

static void
print_lat(struct seqw *w)
{
	char lat[128];

	seqw_lat(w, lat, sizeof(lat));
	say("SEQ LAT %s", lat);
}

/* Until count is reached; in the guest for ever. */
static void
status_loop(struct seqw *w, bool quiet, uint64_t lat_every_ns)
{
	uint64_t before = seqw_now_ns();
	uint64_t lat_at = before + lat_every_ns;
	uint64_t hung_since = 0, hung_s = 0;
	uint64_t now, since;
	sigset_t usr1;

	(void)sigemptyset(&usr1);
	(void)sigaddset(&usr1, SIGUSR1);
	while (w->guest || !atomic_load(&w->done)) {
		/* A short tick on the host, so that --count ends without delay. */
		struct timespec tick = {.tv_nsec = w->guest ? (long)STATUS_NS : 10000000};

		if (sigtimedwait(&usr1, NULL, &tick) == SIGUSR1)
			print_lat(w);
		now = seqw_now_ns();
		if (lat_every_ns != 0 && now >= lat_at) {
			print_lat(w);
			lat_at = now + lat_every_ns;
		}
		since = atomic_load(&w->pending_ns);
		if (since != hung_since) {
			hung_since = since;
			hung_s = 0;
		}
		if (since != 0 && now > since && (now - since) / STALL_NS > hung_s) {
			hung_s = (now - since) / STALL_NS;
			say("SEQ HUNG %" PRIu64, (now - since) / 1000000);
		}
		if (now - before < STATUS_NS - 5000000)
			continue;
		if (!quiet)
			print_status(w, now - before);
		before = now;
	}
}

/* ------------------------------------------------------------------ main */

struct options {
	bool quiet, console;
	const char *command, *port;
	uint64_t create_MiB, lat_s;
};

static int
usage(FILE *to)
{
	fprintf(to, "usage: seqw [options] DISK...\n"
	            "       seqw --cmd LINE DISK...     one command of the guest, on plain files\n"
	            "  --count N        write N numbers and exit (default: for ever)\n"
	            "  --create MIB     make or extend plain files first\n"
	            "  --load KIB       random writes, KiB per second\n"
	            "  --delay-us US    pause between two numbers\n"
	            "  --seed N         of the random writes\n"
	            "  --lat-s S        print SEQ LAT every S seconds\n"
	            "  --fs DIR         keep the file system at DIR busy\n"
	            "  --fs-dev DEV     mount this ext4 at DIR first\n"
	            "  --no-fs-start    but wait for `fs start`\n"
	            "  --quiet          no status lines\n"
	            "  --guest          in the guest: never exit, poweroff allowed\n"
	            "  --console        take commands from stdin\n"
	            "  --port PATH      and from this virtio-serial port\n");
	return to == stdout ? 0 : 2;
}

static void
raw_console(void)
{
	struct termios t;

	/* Plain \n, and no echo of commands between the lines of status. */
	if (tcgetattr(STDOUT_FILENO, &t) == 0) {
		t.c_oflag &= ~(tcflag_t)OPOST;
		t.c_lflag &= ~(tcflag_t)(ECHO | ECHONL);
		(void)tcsetattr(STDOUT_FILENO, TCSANOW, &t);
	}
}

static void
start_thread(void *(*fn)(void *), void *arg, pthread_t *id)
{
	pthread_t unused;
	int rc = pthread_create(id != NULL ? id : &unused, NULL, fn, arg);

	if (rc != 0) {
		fprintf(stderr, "seqw: thread: %s\n", strerror(rc));
		exit(2);
	}
}

static int
run(struct seqw *w, const struct options *o, bool fs_start)
{
	struct channel console = {.w = w, .in = STDIN_FILENO, .out = STDOUT_FILENO, .epoll = -1};
	struct channel port = {.w = w};
	pthread_t seq = 0, load = 0;
	sigset_t usr1;
	int rc;

	/* Before any thread, so that only sigtimedwait() takes it. */
	(void)sigemptyset(&usr1);
	(void)sigaddset(&usr1, SIGUSR1);
	(void)pthread_sigmask(SIG_BLOCK, &usr1, NULL);
	if (getrandom(&w->run, sizeof(w->run), 0) != (ssize_t)sizeof(w->run))
		w->run = seqfmt_mix(wall_ns());
	w->churn.rng = w->run;
	raw_console();

	if (!ring_resume(w)) {
		say("SEQ idle");
		if (!w->guest)
			return 1;
	} else {
		say("SEQ start %" PRIu64, w->next);
		w->workers = 2;
		start_thread(seq_main, w, &seq);
		start_thread(load_main, w, &load);
	}
	if (o->console)
		start_thread(channel_main, &console, NULL);
	if (o->port != NULL) {
		rc = open_port(&port, o->port);
		if (rc == 0)
			start_thread(channel_main, &port, NULL);
		else
			say("SEQ no command port: %s", strerrordesc_np(rc));
	}
	if (fs_start) {
		rc = churn_start(&w->churn);
		if (rc != 0)
			say("SEQ FS-ERROR op=mount errno=%d", rc);
		else
			say("SEQ fs started");
	}
	status_loop(w, o->quiet, o->lat_s * 1000000000);
	(void)pthread_join(seq, NULL);
	(void)pthread_join(load, NULL);
	rc = churn_stop(&w->churn);
	if (!o->quiet)
		say("SEQ done newest=%" PRIu64 " load=%" PRIu64 " errors=%" PRIu64,
		    atomic_load(&w->last), atomic_load(&w->load_done), atomic_load(&w->errors));
	return rc == 0 && atomic_load(&w->errors) == 0 && atomic_load(&w->churn.errors) == 0 ? 0
	                                                                                     : 1;
}

static bool
number(const char *s, uint64_t *v)
{
	char *end;

	errno = 0;
	*v = strtoull(s, &end, 0);
	return *s >= '0' && *s <= '9' && *end == '\0' && errno == 0;
}

enum {
	O_COUNT = 256,
	O_CREATE,
	O_LOAD,
	O_DELAY,
	O_SEED,
	O_LAT,
	O_FS,
	O_FSDEV,
	O_NOFS,
	O_QUIET,
	O_GUEST,
	O_CONSOLE,
	O_PORT,
	O_CMD,
	O_HELP
};

static const struct option longopts[] = {
    {"count", required_argument, NULL, O_COUNT}, {"create", required_argument, NULL, O_CREATE},
    {"load", required_argument, NULL, O_LOAD},   {"delay-us", required_argument, NULL, O_DELAY},
    {"seed", required_argument, NULL, O_SEED},   {"lat-s", required_argument, NULL, O_LAT},
    {"fs", required_argument, NULL, O_FS},       {"fs-dev", required_argument, NULL, O_FSDEV},
    {"no-fs-start", no_argument, NULL, O_NOFS},  {"quiet", no_argument, NULL, O_QUIET},
    {"guest", no_argument, NULL, O_GUEST},       {"console", no_argument, NULL, O_CONSOLE},
    {"port", required_argument, NULL, O_PORT},   {"cmd", required_argument, NULL, O_CMD},
    {"help", no_argument, NULL, O_HELP},         {NULL, 0, NULL, 0},
};

/* Returns 0, or the exit status + 1 if the program is to end. */
static int
parse(struct seqw *w, struct options *o, bool *fs_start, int argc, char **argv)
{
	uint64_t load = 0, delay = 0;
	bool ok = true;
	int c;

	while ((c = getopt_long(argc, argv, "", longopts, NULL)) != -1) {
		switch (c) {
		case O_COUNT:
			ok = ok && number(optarg, &w->count);
			break;
		case O_CREATE:
			ok = ok && number(optarg, &o->create_MiB);
			break;
		case O_LOAD:
			ok = ok && number(optarg, &load);
			break;
		case O_DELAY:
			ok = ok && number(optarg, &delay);
			break;
		case O_SEED:
			ok = ok && number(optarg, &w->seed);
			break;
		case O_LAT:
			ok = ok && number(optarg, &o->lat_s);
			break;
		case O_FS:
			w->churn.dir = optarg;
			break;
		case O_FSDEV:
			w->churn.dev = optarg;
			break;
		case O_NOFS:
			*fs_start = false;
			break;
		case O_QUIET:
			o->quiet = true;
			break;
		case O_GUEST:
			w->guest = true;
			break;
		case O_CONSOLE:
			o->console = true;
			break;
		case O_PORT:
			o->port = optarg;
			break;
		case O_CMD:
			o->command = optarg;
			break;
		case O_HELP:
			return usage(stdout) + 1;
		default:
			return usage(stderr) + 1;
		}
	}
	atomic_store(&w->load_KiBps, load);
	atomic_store(&w->delay_us, delay);
	if (!ok || optind == argc || argc - optind > (int)SEQFMT_MAX_DISKS)
		return usage(stderr) + 1;
	if (w->churn.dir == NULL)
		*fs_start = false;
	return 0;
}

static int
one_command(struct seqw *w, const char *command)
{
	char line[512], out[512];

	(void)snprintf(line, sizeof(line), "%s", command);
	command_run(w, line, out, sizeof(out));
	puts(out);
	return strncmp(out, "OK", 2) == 0 ? 0 : 1;
}

int
main(int argc, char **argv)
{
	static struct seqw w = {
	    .lock = PTHREAD_MUTEX_INITIALIZER,
	    .cond = PTHREAD_COND_INITIALIZER,
	    .command_lock = PTHREAD_MUTEX_INITIALIZER,
	    .last = SEQFMT_NONE,
	};
	struct options o = {0};
	bool fs_start = true;
	int rc = parse(&w, &o, &fs_start, argc, argv);
	unsigned i;

	if (rc != 0)
		return rc - 1;
	w.ndisks = (unsigned)(argc - optind);
	for (i = 0; i < w.ndisks; i++) {
		if (disk_open(&w.disk[i], argv[optind + (int)i], o.create_MiB << 20) < 0)
			return 2;
		if (o.command == NULL && w.disk[i].size < SEQFMT_LOAD_OFF) {
			fprintf(stderr, "seqw: %s: smaller than 16 MiB\n", w.disk[i].path);
			return 2;
		}
	}
	rc = o.command != NULL ? one_command(&w, o.command) : run(&w, &o, fs_start);
	for (i = 0; i < w.ndisks; i++)
		disk_close(&w.disk[i]);
	return rc;
}
