/* The calls below are made anew, without the checks that would make them inline. */
#undef _FORTIFY_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "tests/fault/trace.h"
#include "tests/lib/vault.h"

#define SECTOR 512u
#define EXPORT __attribute__((visibility("default")))

enum kind { MAKE, WRITE, CUT, SYNC, SYNC_FOLDER, RENAME, REMOVE, FOLDER, MARK };

/* ---- writing it down ---- */

struct line { /* what a trace is made of; then path, second path, bytes */
	uint32_t kind, path, to;
	uint64_t ino, off, n;
};

static const char *root;
static int out = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void
begin(void)
{
	const char *file = getenv("LOCUM_TRACE");

	root = getenv("LOCUM_TRACE_ROOT");
	if (file == NULL || root == NULL)
		return;
	out = (int)syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
	                   0600);
	if (out < 0)
		abort();
}

static void
put(const void *p, size_t n)
{
	if (n > 0 && syscall(SYS_write, out, p, n) != (long)n)
		abort();
}

static void
note(enum kind kind, uint64_t ino, uint64_t off, const char *path, const char *to,
     struct lc_span bytes)
{
	struct line x = {.kind = kind,
	                 .ino = ino,
	                 .off = off,
	                 .n = bytes.n,
	                 .path = path == NULL ? 0 : (uint32_t)strlen(path),
	                 .to = to == NULL ? 0 : (uint32_t)strlen(to)};
	int saved = errno;

	(void)pthread_mutex_lock(&lock);
	put(&x, sizeof x);
	put(path, x.path);
	put(to, x.to);
	put(bytes.p, bytes.n);
	(void)pthread_mutex_unlock(&lock);
	errno = saved;
}

void
trace_mark(const char *text)
{
	if (out >= 0)
		note(MARK, 0, 0, text, NULL, (struct lc_span){0});
}

/* The path below the root; NULL for what is not there, and for what is no part of a store. */
static const char *
inside(const char *path)
{
	size_t n = root == NULL ? 0 : strlen(root), len;

	if (out < 0 || strncmp(path, root, n) != 0 || (path[n] != '/' && path[n] != '\0'))
		return NULL;
	path += path[n] == '\0' ? n : n + 1;
	/* Shared memory, which no restart sees; what the test itself writes. */
	len = strlen(path);
	if ((len > 4 && strcmp(path + len - 4, "-shm") == 0) || strncmp(path, "journal", 7) == 0)
		return NULL;
	return path;
}

static const char *
path_at(int dir, const char *name, char full[PATH_MAX])
{
	char link[64], folder[PATH_MAX / 2];
	ssize_t n;

	if (name[0] == '/')
		return inside(name);
	(void)snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
	n = dir == AT_FDCWD ? -1 : readlink(link, folder, sizeof folder - 1);
	if (n < 0)
		return NULL;
	folder[n] = '\0';
	(void)snprintf(full, PATH_MAX, "%s%s%s", folder, name[0] == '\0' ? "" : "/", name);
	return inside(full);
}

/* Number of the file behind a descriptor below the root, or 0. */
static uint64_t
file_of(int fd, bool *folder, char path[PATH_MAX])
{
	char full[PATH_MAX];
	const char *in = out < 0 || fd == out ? NULL : path_at(fd, "", full);
	struct stat st;

	if (in == NULL || fstat(fd, &st) != 0)
		return 0;
	*folder = S_ISDIR(st.st_mode);
	(void)snprintf(path, PATH_MAX, "%s", in);
	return *folder || S_ISREG(st.st_mode) ? st.st_ino : 0;
}

/* ---- the calls ---- */

static int
do_open(int dir, const char *name, int flags, mode_t mode)
{
	char full[PATH_MAX];
	const char *path = (flags & O_CREAT) == 0 || out < 0 ? NULL : path_at(dir, name, full);
	bool made = path != NULL && faccessat(dir, name, F_OK, AT_SYMLINK_NOFOLLOW) != 0;
	int fd = (int)syscall(SYS_openat, dir, name, flags, mode);
	struct stat st;

	if (fd >= 0 && made && fstat(fd, &st) == 0)
		note(MAKE, st.st_ino, 0, path, NULL, (struct lc_span){0});
	return fd;
}

EXPORT int
open(const char *name, int flags, ...)
{
	mode_t mode = 0;
	va_list ap;

	va_start(ap, flags);
	if ((flags & O_CREAT) != 0)
		mode = va_arg(ap, mode_t);
	va_end(ap);
	return do_open(AT_FDCWD, name, flags, mode);
}

EXPORT int
openat(int dir, const char *name, int flags, ...)
{
	mode_t mode = 0;
	va_list ap;

	va_start(ap, flags);
	if ((flags & O_CREAT) != 0)
		mode = va_arg(ap, mode_t);
	va_end(ap);
	return do_open(dir, name, flags, mode);
}

static void
note_write(int fd, off_t off, const void *p, ssize_t n)
{
	char path[PATH_MAX];
	bool folder;
	uint64_t ino = n <= 0 ? 0 : file_of(fd, &folder, path);

	if (ino != 0)
		note(WRITE, ino, (uint64_t)off, NULL, NULL, (struct lc_span){p, (size_t)n});
}

EXPORT ssize_t
pwrite(int fd, const void *p, size_t n, off_t off)
{
	ssize_t done = syscall(SYS_pwrite64, fd, p, n, off);

	note_write(fd, off, p, done);
	return done;
}

EXPORT ssize_t
write(int fd, const void *p, size_t n)
{
	off_t off = out < 0 ? 0 : lseek(fd, 0, SEEK_CUR);
	ssize_t done = syscall(SYS_write, fd, p, n);

	if (off >= 0)
		note_write(fd, off, p, done);
	return done;
}

EXPORT int
ftruncate(int fd, off_t size)
{
	int rc = (int)syscall(SYS_ftruncate, fd, size);
	char path[PATH_MAX];
	bool folder;
	uint64_t ino = rc != 0 ? 0 : file_of(fd, &folder, path);

	if (ino != 0)
		note(CUT, ino, (uint64_t)size, NULL, NULL, (struct lc_span){0});
	return rc;
}

static int
synced(int fd, int rc)
{
	char path[PATH_MAX];
	bool folder = false;
	uint64_t ino = rc != 0 ? 0 : file_of(fd, &folder, path);

	if (ino != 0)
		note(folder ? SYNC_FOLDER : SYNC, ino, 0, path, NULL, (struct lc_span){0});
	return rc;
}

EXPORT int
fsync(int fd)
{
	return synced(fd, (int)syscall(SYS_fsync, fd));
}

EXPORT int
fdatasync(int fd)
{
	return synced(fd, (int)syscall(SYS_fdatasync, fd));
}

EXPORT int
rename(const char *from, const char *to)
{
	int rc = (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);

	if (rc == 0 && inside(from) != NULL && inside(to) != NULL)
		note(RENAME, 0, 0, inside(from), inside(to), (struct lc_span){0});
	return rc;
}

EXPORT int
link(const char *from, const char *to)
{
	int rc = (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
	struct stat st;

	if (rc == 0 && inside(to) != NULL && stat(to, &st) == 0)
		note(MAKE, st.st_ino, 1, inside(to), NULL, (struct lc_span){0});
	return rc;
}

EXPORT int
unlinkat(int dir, const char *name, int flags)
{
	char full[PATH_MAX];
	const char *path = out < 0 ? NULL : path_at(dir, name, full);
	int rc = (int)syscall(SYS_unlinkat, dir, name, flags);

	if (rc == 0 && path != NULL)
		note(REMOVE, 0, 0, path, NULL, (struct lc_span){0});
	return rc;
}

EXPORT int
unlink(const char *name)
{
	return unlinkat(AT_FDCWD, name, 0);
}

EXPORT int
mkdir(const char *name, mode_t mode)
{
	int rc = (int)syscall(SYS_mkdirat, AT_FDCWD, name, mode);

	if (rc == 0 && inside(name) != NULL)
		note(FOLDER, 0, 0, inside(name), NULL, (struct lc_span){0});
	return rc;
}

/* ---- reading it ---- */

struct call {
	struct line x;
	const char *path, *to; /* owned */
	const uint8_t *bytes;  /* in the trace */
	size_t object;         /* of the file, for MAKE, WRITE, CUT and SYNC */
};

struct name {
	char path[128];
	size_t object; /* FOLDER_OBJECT: a folder */
};

#define FOLDER_OBJECT SIZE_MAX

struct names {
	struct name *list;
	size_t n, cap;
};

struct object {
	uint64_t ino;
	struct lc_buf first; /* what was in it before the trace */
	struct lc_buf now;   /* while a folder is made */
};

struct crash {
	struct names first;
	struct object *objects;
	size_t nobjects;
	struct call *calls;
	size_t ncalls;
	struct lc_buf trace;
};

static void *
grown(void *p, size_t n)
{
	p = realloc(p, n);
	if (p == NULL)
		abort();
	return p;
}

static struct name *
find_name(struct names *s, const char *path)
{
	size_t i;

	for (i = 0; i < s->n; i++) {
		if (strcmp(s->list[i].path, path) == 0)
			return &s->list[i];
	}
	return NULL;
}

static void
set_name(struct names *s, const char *path, size_t object)
{
	struct name *x = find_name(s, path);

	if (x == NULL) {
		if (s->n == s->cap) {
			s->cap = 2 * s->cap + 64;
			s->list = grown(s->list, s->cap * sizeof *s->list);
		}
		x = &s->list[s->n++];
		(void)snprintf(x->path, sizeof x->path, "%s", path);
	}
	x->object = object;
}

static void
drop_name(struct names *s, const char *path)
{
	struct name *x = find_name(s, path);

	if (x != NULL)
		*x = s->list[--s->n];
}

static size_t
new_object(struct crash *c, uint64_t ino)
{
	c->objects = grown(c->objects, (c->nobjects + 1) * sizeof *c->objects);
	c->objects[c->nobjects] = (struct object){.ino = ino};
	return c->nobjects++;
}

/* The newest file of that number: numbers are used again. */
static size_t
object_of(const struct crash *c, uint64_t ino)
{
	size_t i = c->nobjects;

	while (i > 0 && c->objects[i - 1].ino != ino)
		i--;
	if (i == 0)
		abort();
	return i - 1;
}

static void
remember(struct crash *c, const char *top, const char *below)
{
	char path[PATH_MAX], full[PATH_MAX];
	struct dirent *ent;
	struct stat st;
	size_t o;
	DIR *d;

	(void)snprintf(full, sizeof full, "%.2000s/%.2000s", top, below);
	d = opendir(full);
	while (d != NULL && (ent = readdir(d)) != NULL) {
		if (strcmp(ent->d_name, ".") == 0 || strcmp(ent->d_name, "..") == 0)
			continue;
		(void)snprintf(path, sizeof path, "%.2000s%s%.255s", below,
		               *below == '\0' ? "" : "/", ent->d_name);
		(void)snprintf(full, sizeof full, "%.2000s/%.2000s", top, path);
		if (stat(full, &st) != 0)
			abort();
		if (S_ISDIR(st.st_mode)) {
			set_name(&c->first, path, FOLDER_OBJECT);
			remember(c, top, path);
			continue;
		}
		o = new_object(c, st.st_ino);
		set_name(&c->first, path, o);
		if (file_read_all(full, SIZE_MAX / 2, &c->objects[o].first, NULL) != 0)
			abort();
	}
	if (d != NULL)
		(void)closedir(d);
}

struct crash *
crash_begin(const char *top)
{
	struct crash *c = calloc(1, sizeof *c);

	if (c == NULL)
		abort();
	remember(c, top, "");
	return c;
}

static char *
text(const uint8_t *p, size_t n)
{
	char *s = grown(NULL, n + 1);

	memcpy(s, p, n);
	s[n] = '\0';
	return s;
}

size_t
crash_load(struct crash *c, const char *file)
{
	size_t at = 0;

	if (file_read_all(file, SIZE_MAX / 2, &c->trace, NULL) != 0)
		abort();
	while (at < c->trace.n) {
		struct call *k;

		c->calls = grown(c->calls, (c->ncalls + 1) * sizeof *c->calls);
		k = &c->calls[c->ncalls++];
		memcpy(&k->x, c->trace.p + at, sizeof k->x);
		at += sizeof k->x;
		k->path = text(c->trace.p + at, k->x.path);
		k->to = text(c->trace.p + at + k->x.path, k->x.to);
		at += k->x.path + k->x.to;
		k->bytes = c->trace.p + at;
		at += k->x.kind == MARK ? 0 : k->x.n;
		if (k->x.kind == MAKE && k->x.off == 0)
			k->object = new_object(c, k->x.ino);
		else if (k->x.kind <= SYNC)
			k->object = object_of(c, k->x.ino);
	}
	return c->ncalls;
}

void
crash_free(struct crash *c)
{
	size_t i;

	for (i = 0; i < c->ncalls; i++) {
		free((void *)(uintptr_t)c->calls[i].path);
		free((void *)(uintptr_t)c->calls[i].to);
	}
	for (i = 0; i < c->nobjects; i++) {
		lc_buf_free(&c->objects[i].first);
		lc_buf_free(&c->objects[i].now);
	}
	lc_buf_free(&c->trace);
	free(c->first.list);
	free(c->objects);
	free(c->calls);
	free(c);
}

int
crash_is_sync(const struct crash *c, size_t at)
{
	return at < c->ncalls &&
	       (c->calls[at].x.kind == SYNC || c->calls[at].x.kind == SYNC_FOLDER);
}

/* ---- what is there afterwards ---- */

struct making {
	struct crash *c;
	size_t at;
	enum crash_keeps keeps;
	uint64_t seed;
};

static bool
kept(struct making *m)
{
	return m->keeps == CRASH_ALL || (m->keeps == CRASH_SOME && vault_random(&m->seed, 2) == 0);
}

/* Whether the file was synced between a call and the failure. */
static bool
durable(const struct making *m, size_t call)
{
	const struct call *calls = m->c->calls;
	size_t i;

	for (i = call + 1; i < m->at; i++) {
		if (calls[i].x.kind == SYNC && calls[i].object == calls[call].object)
			return true;
	}
	return false;
}

static void
resize(struct lc_buf *b, uint64_t n)
{
	if (n > b->n) {
		if (lc_buf_reserve(b, n - b->n) != 0)
			abort();
		memset(b->p + b->n, 0, n - b->n);
	}
	b->n = n;
}

static void
put_bytes(struct lc_buf *b, uint64_t off, const uint8_t *p, uint64_t n)
{
	if (off + n > b->n)
		resize(b, off + n);
	memcpy(b->p + off, p, n);
}

static void
apply_write(struct making *m, size_t call)
{
	const struct call *k = &m->c->calls[call];
	struct lc_buf *b = &m->c->objects[k->object].now;
	bool torn = m->keeps == CRASH_SOME && vault_random(&m->seed, 2) == 0;
	uint64_t done, n;

	if (durable(m, call) || (!torn && kept(m))) {
		put_bytes(b, k->x.off, k->bytes, k->x.n);
		return;
	}
	for (done = 0; torn && done < k->x.n; done += n) {
		n = SECTOR - (k->x.off + done) % SECTOR;
		n = n < k->x.n - done ? n : k->x.n - done;
		if (kept(m))
			put_bytes(b, k->x.off + done, k->bytes + done, n);
	}
}

static void
make_bytes(struct making *m)
{
	struct crash *c = m->c;
	size_t i;

	for (i = 0; i < c->nobjects; i++) {
		c->objects[i].now.n = 0;
		if (lc_buf_append(&c->objects[i].now, c->objects[i].first.p,
		                  c->objects[i].first.n) != 0)
			abort();
	}
	for (i = 0; i < m->at; i++) {
		if (c->calls[i].x.kind == WRITE)
			apply_write(m, i);
		else if (c->calls[i].x.kind == CUT && (durable(m, i) || kept(m)))
			resize(&c->objects[c->calls[i].object].now, c->calls[i].x.off);
	}
}

static bool
same_folder(const char *path, const char *folder)
{
	const char *slash = strrchr(path, '/');
	size_t n = slash == NULL ? 0 : (size_t)(slash - path);

	return n == strlen(folder) && strncmp(path, folder, n) == 0;
}

/* Where in the trace the names of a call's folder stop being what was asked for. */
static size_t
names_end(struct making *m, const char *path, char folders[][128], size_t *ends, size_t *n)
{
	char folder[128];
	const char *slash = strrchr(path, '/');
	size_t i, last = 0;

	(void)snprintf(folder, sizeof folder, "%.*s", slash == NULL ? 0 : (int)(slash - path),
	               path);
	for (i = 0; i < *n; i++) {
		if (strcmp(folders[i], folder) == 0)
			return ends[i];
	}
	for (i = 0; i < m->at; i++) {
		if (m->c->calls[i].x.kind == SYNC_FOLDER &&
		    strcmp(m->c->calls[i].path, folder) == 0)
			last = i;
	}
	if (*n == 32)
		abort();
	(void)snprintf(folders[*n], 128, "%s", folder);
	ends[*n] = m->keeps == CRASH_ALL       ? m->at
	           : m->keeps == CRASH_NOTHING ? last
	                                       : last + vault_random(&m->seed, m->at - last + 1);
	return ends[(*n)++];
}

static void
make_names(struct making *m, struct names *names)
{
	static char folders[32][128];
	size_t ends[32], n = 0, i;

	for (i = 0; i < m->c->first.n; i++)
		set_name(names, m->c->first.list[i].path, m->c->first.list[i].object);
	for (i = 0; i < m->at; i++) {
		const struct call *k = &m->c->calls[i];
		struct name *from;

		if (k->x.kind != MAKE && k->x.kind != RENAME && k->x.kind != REMOVE &&
		    k->x.kind != FOLDER)
			continue;
		if (i >= names_end(m, k->path, folders, ends, &n))
			continue;
		if (k->x.kind == RENAME && !same_folder(k->to, "") &&
		    strrchr(k->to, '/') - k->to != strrchr(k->path, '/') - k->path)
			abort(); /* from folder to folder: not thought of */
		from = k->x.kind == RENAME ? find_name(names, k->path) : NULL;
		if (k->x.kind == MAKE)
			set_name(names, k->path, k->object);
		else if (k->x.kind == FOLDER)
			set_name(names, k->path, FOLDER_OBJECT);
		else if (from != NULL)
			set_name(names, k->to, from->object);
		if (k->x.kind == REMOVE || k->x.kind == RENAME)
			drop_name(names, k->path);
	}
}

static int
by_path(const void *a, const void *b)
{
	const struct name *x = a, *y = b;

	return strcmp(x->path, y->path);
}

static void
write_names(struct crash *c, struct names *names, const char *to)
{
	char full[PATH_MAX];
	struct lc_buf *b;
	size_t i;

	qsort(names->list, names->n, sizeof *names->list, by_path);
	for (i = 0; i < names->n; i++) {
		(void)snprintf(full, sizeof full, "%s/%s", to, names->list[i].path);
		if (names->list[i].object == FOLDER_OBJECT) {
			if (mkdir(full, 0700) != 0 && errno != EEXIST && errno != ENOENT)
				abort();
			continue;
		}
		/* Where its folder is not there, nor is it. */
		b = &c->objects[names->list[i].object].now;
		if (file_write_new(full, b->p, b->n, 0600, NULL) == LC_EIO)
			abort();
	}
}

void
crash_make(struct crash *c, size_t at, enum crash_keeps keeps, uint64_t seed, const char *to,
           const char *journal)
{
	struct making m = {.c = c, .at = at, .keeps = keeps, .seed = seed};
	struct names names = {0};
	size_t i;
	FILE *f;

	make_bytes(&m);
	make_names(&m, &names);
	write_names(c, &names, to);
	free(names.list);
	f = fopen(journal, "a");
	if (f == NULL)
		abort();
	for (i = 0; i < at; i++) {
		if (c->calls[i].x.kind == MARK)
			(void)fprintf(f, "%s\n", c->calls[i].path);
	}
	(void)fclose(f);
}
