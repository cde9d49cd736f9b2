#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "tests/fault/workload.h"
#include "tests/lib/unit.h"

#define SEGMENT_BYTES 300000u

struct vault_disk
workload_disk(unsigned vm, unsigned step)
{
	struct vault_disk d = vault_disk("vda", WORKLOAD_WINDOWS - step % 3);
	uint64_t seed, n = point_windows(d.size), k;
	unsigned i;

	/* Every step rewrites a few windows, from the first step on. */
	for (i = 0; i <= step; i++) {
		seed = vm * 1000003u + i;
		for (k = 0; k < 1 + i % 4; k++) {
			uint64_t at = vault_random(&seed, WORKLOAD_WINDOWS - 3);

			uint64_t what = vault_random(&seed, 5);

			if (what == 0)
				d.codes[at] = 0;
			else if (what < 3 && d.codes[at] != 0) /* a delta of what is there */
				d.codes[at] += VAULT_EDIT;
			else /* often one that does not compress, so that deltas pay */
				d.codes[at] = (what < 4 ? 5 : 1) * (1 + vault_random(&seed, 1000));
		}
	}
	(void)n;
	return d;
}

static void
vm_name(char dst[16], unsigned vm)
{
	(void)snprintf(dst, 16, "web%02u", vm);
}

/* ---- the child ---- */

static FILE *journal;

void (*workload_on_note)(const char *line);

static void
note(const char *what, unsigned vm, unsigned step, const uint8_t *id)
{
	char hex[33] = "-", line[80];

	if (id != NULL)
		(void)lc_hex(hex, id, 16);
	(void)snprintf(line, sizeof line, "%s %u %u %s", what, vm, step, hex);
	(void)fprintf(journal, "%s\n", line);
	(void)fflush(journal);
	if (workload_on_note != NULL)
		workload_on_note(line);
}

static void
vault_from_env(struct vault *v)
{
	const char *top = getenv("VAULT_TOP");

	memset(v, 0, sizeof *v);
	(void)snprintf(v->dir, sizeof v->dir, "%s/store", top);
	(void)snprintf(v->keys, sizeof v->keys, "%s/keys", top);
	(void)snprintf(v->kit, sizeof v->kit, "%s/kit", top);
	v->segment_bytes = SEGMENT_BYTES;
}

/* Open again after a failure; as long as the fault lasts it may fail, too. */
static bool
open_again(struct vault *v)
{
	struct lc_err e = LC_ERR_INIT;

	vault_close(v);
	if (vault_try(v, STORE_WRITE, &v->s, &e) == 0)
		return true;
	(void)fprintf(journal, "# open: %s\n", e.msg);
	(void)fflush(journal);
	v->s = NULL;
	return false;
}

static int
one_backup(struct vault *v, unsigned vm, unsigned step)
{
	struct vault_disk d = workload_disk(vm, step);
	struct commit_opts o = {.source_ns = clock_wall_ns()};
	struct lc_err e = LC_ERR_INIT;
	uint8_t id[16] = {0};
	struct writer *w;
	char name[16];
	uint64_t k;
	int rc;

	vm_name(name, vm);
	w = vault_begin(v->s, name, &d, 1, &e);
	rc = w == NULL ? e.code : 0;
	if (rc == 0) {
		memcpy(id, writer_id(w), 16);
		note("try", vm, step, id);
		for (k = 0; rc == 0 && k < point_windows(d.size); k++)
			rc = vault_put(w, 0, &d, k, &e);
		if (rc != 0)
			writer_abort(w);
		else
			rc = writer_commit(w, &o, NULL, &e);
		note(rc == 0 ? "ack" : "fail", vm, step, id);
	}
	if (rc != 0)
		(void)fprintf(journal, "# %s\n", e.msg);
	vault_disk_free(&d);
	return rc;
}

/* The second oldest point of the VM. */
static int
one_drop(struct vault *v, unsigned vm)
{
	struct lc_err e = LC_ERR_INIT;
	struct point_list l;
	char name[16];
	int rc = 0;

	vm_name(name, vm);
	if (store_points(v->s, name, &l, &e) != 0)
		return 0;
	if (l.n > 3) {
		note("trydrop", vm, 0, l.points[1].id);
		rc = store_drop(v->s, l.points[1].id, &e);
		note(rc == 0 ? "ackdrop" : "faildrop", vm, 0, l.points[1].id);
	}
	point_list_free(&l);
	return rc;
}

static int
child_write(struct vault *v, unsigned from, unsigned steps)
{
	unsigned i, failures = 0;

	if (!open_again(v))
		return 3;
	for (i = from; i < from + steps; i++) {
		unsigned vm = i % WORKLOAD_VMS;
		int rc = one_backup(v, vm, i);

		if (rc == 0 && i % 5 == 4)
			rc = one_drop(v, vm);
		/* A restart in the middle of a history is nothing special. */
		if (rc == 0 && i % 11 == 10 && !open_again(v))
			return 3;
		if (rc != 0 && (++failures > 20 || !open_again(v)))
			return 3;
	}
	vault_close(v);
	return failures == 0 ? 0 : 4;
}

int
workload_main(int argc, char **argv)
{
	const char *top = getenv("VAULT_TOP"), *limit = getenv("VAULT_FSIZE");
	struct lc_err e = LC_ERR_INIT;
	struct vault v;
	int rc = 0;

	if (argc < 4 || top == NULL)
		return 2;
	log_set_level(LOG_LV_ERROR);
	journal = fopen(tmpdir_path(top, "journal"), "a");
	if (journal == NULL)
		return 2;
	if (limit != NULL) { /* what a full disk does to every file that grows */
		struct rlimit r = {.rlim_cur = strtoull(limit, NULL, 10),
		                   .rlim_max = RLIM_INFINITY};

		(void)signal(SIGXFSZ, SIG_IGN);
		if (setrlimit(RLIMIT_FSIZE, &r) != 0)
			return 2;
	}
	vault_from_env(&v);
	if (strcmp(argv[1], "init") == 0) {
		struct store_init_opts o = {.dir = v.dir, .key_dir = v.keys, .kit = v.kit};

		rc = store_init(&o, &e);
		if (rc != 0)
			(void)fprintf(journal, "# init: %s\n", e.msg);
	} else if (strcmp(argv[1], "rebuild") == 0) {
		struct store_opts o = {
		    .dir = v.dir, .key_dir = v.keys, .segment_bytes = SEGMENT_BYTES};

		rc = store_rebuild(&o, &e);
	} else if (strcmp(argv[1], "open") == 0) {
		rc = open_again(&v) ? 0 : 3;
		vault_close(&v);
	} else {
		rc = child_write(&v, (unsigned)atoi(argv[2]), (unsigned)atoi(argv[3]));
	}
	(void)fclose(journal);
	return rc == 0 ? 0 : 3;
}

/* ---- starting it ---- */

int
workload_start(const struct vault *v, const char *mode, unsigned from, unsigned steps,
               const char *failpoint, const char *log)
{
	char a[16], b[16];
	pid_t pid;

	(void)snprintf(a, sizeof a, "%u", from);
	(void)snprintf(b, sizeof b, "%u", steps);
	pid = fork();
	if (pid != 0)
		return pid;
	(void)setenv("VAULT_TOP", v->top, 1);
	(void)unsetenv("LOCUM_FAILPOINT");
	(void)unsetenv("LOCUM_FAILPOINT_LOG");
	if (failpoint != NULL)
		(void)setenv("LOCUM_FAILPOINT", failpoint, 1);
	if (log != NULL)
		(void)setenv("LOCUM_FAILPOINT_LOG", log, 1);
	(void)execl("/proc/self/exe", "workload", mode, a, b, (char *)NULL);
	_exit(127);
}

int
workload_wait(int pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			abort();
	}
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int
workload_run(const struct vault *v, const char *mode, unsigned from, unsigned steps,
             const char *failpoint, const char *log)
{
	return workload_wait(workload_start(v, mode, from, steps, failpoint, log));
}

/* ---- looking ---- */

struct fact { /* what the journal says of a point */
	uint8_t id[16];
	unsigned vm, step;
	bool made;    /* acknowledged */
	bool dropped; /* a drop of it was acknowledged */
	bool doubt;   /* it may be there or not */
};

struct facts {
	struct fact list[4096];
	size_t n;
};

static _Noreturn void
wrong(const struct vault *v, const char *what, const char *why, const char *detail)
{
	(void)fprintf(stderr, "\n%s: %s: %s\nthe store is kept in %s\n", what, why, detail, v->top);
	abort();
}

static struct fact *
fact_of(struct facts *f, const uint8_t *id)
{
	size_t i;

	for (i = 0; i < f->n; i++) {
		if (memcmp(f->list[i].id, id, 16) == 0)
			return &f->list[i];
	}
	if (f->n == sizeof f->list / sizeof f->list[0])
		abort();
	memcpy(f->list[f->n].id, id, 16);
	return &f->list[f->n++];
}

static struct facts *
read_journal(const struct vault *v)
{
	struct facts *f = calloc(1, sizeof *f);
	char line[1024], what[16], hex[40];
	unsigned vm, step;
	uint8_t id[16];
	FILE *j = fopen(tmpdir_path(v->top, "journal"), "r");

	while (j != NULL && fgets(line, sizeof line, j) != NULL) {
		struct fact *x;

		if (sscanf(line, "%15s %u %u %39s", what, &vm, &step, hex) != 4 ||
		    !lc_unhex(id, 16, hex))
			continue;
		x = fact_of(f, id);
		if (strcmp(what, "try") == 0) {
			x->vm = vm;
			x->step = step;
			x->doubt = true;
		} else if (strcmp(what, "ack") == 0) {
			x->made = true;
			x->doubt = false;
		} else if (strcmp(what, "trydrop") == 0) {
			x->doubt = true;
		} else if (strcmp(what, "ackdrop") == 0) {
			x->dropped = true;
			x->doubt = false;
		}
	}
	if (j != NULL)
		(void)fclose(j);
	return f;
}

static void
check_points(struct vault *v, struct store *s, struct facts *f, const char *what)
{
	struct lc_err e = LC_ERR_INIT;
	struct point_list l;
	size_t i, k;

	if (store_points(s, NULL, &l, &e) != 0)
		wrong(v, what, "list", e.msg);
	for (i = 0; i < f->n; i++) {
		bool there = false;

		for (k = 0; k < l.n; k++)
			there = there || memcmp(l.points[k].id, f->list[i].id, 16) == 0;
		if (!there && f->list[i].made && !f->list[i].dropped && !f->list[i].doubt)
			wrong(v, what, "points", "an acknowledged one is gone");
		if (there && f->list[i].dropped)
			wrong(v, what, "points", "a dropped one is back");
		/* What was found once is not to be lost later. */
		if (there && !f->list[i].made && f->list[i].doubt)
			f->list[i].made = true;
		if (!there && f->list[i].doubt && f->list[i].made)
			f->list[i].dropped = true;
		f->list[i].doubt = false;
	}
	for (k = 0; k < l.n; k++) {
		struct fact *x = fact_of(f, l.points[k].id);
		struct vault_disk d = workload_disk(x->vm, x->step);

		if (vault_compare(s, x->id, &d, 1, &e) != 0 || vault_verify(s, x->id, &e) != 0)
			wrong(v, what, "read", e.msg);
		vault_disk_free(&d);
	}
	point_list_free(&l);
}

static void
print_damage(void *arg, const struct damage *d)
{
	(void)arg;
	(void)fprintf(stderr, "%s, offset %" PRIu64 ", %" PRIu64 " bytes: %s: %s\n", d->file,
	              d->offset, d->length, d->what, d->affects);
}

static void
open_and_check(struct vault *v, enum store_mode mode, struct facts *f, const char *what)
{
	struct lc_err e = LC_ERR_INIT;
	struct store *s;

	v->segment_bytes = SEGMENT_BYTES;
	if (vault_try(v, mode, &s, &e) != 0)
		wrong(v, what, "open", e.msg);
	check_points(v, s, f, what);
	if (store_scrub(s, print_damage, NULL, NULL, NULL, &e) != 0)
		wrong(v, what, "scrub", e.msg);
	store_close(s);
}

void
workload_check(struct vault *v, const char *what)
{
	struct facts *f = read_journal(v);

	open_and_check(v, STORE_WRITE, f, what);
	(void)unlink(vault_path(v, "catalog.sqlite"));
	(void)unlink(vault_path(v, "catalog.sqlite-wal"));
	(void)unlink(vault_path(v, "catalog.sqlite-shm"));
	open_and_check(v, STORE_READ, f, what);
	free(f);
}
