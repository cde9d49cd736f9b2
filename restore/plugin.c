/*
 * plugin: nbdkit's way to a restore point.
 *
 *     nbdkit nbdkit-locum-plugin.so store=DIR vm=web01@-15m
 *
 * Every disk of the point is an export, read-only.  nbdkit forks into the
 * background after get_ready(); neither threads nor a database handle survive
 * that.  So get_ready() opens, chooses the point and closes, which gives wrong
 * use its message on the terminal; after_fork() opens for good, the same point by
 * its id, whatever was committed in between.
 *
 * The map that is read by has no seal of its own, so a thread compares it with the
 * sealed hash of the whole map, which takes time in proportion to it.  Clients are
 * served meanwhile; where the map is another one every later read fails.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/config.h"
#include "store/base/memory.h"
#include "store/kit.h"
#include "store/store.h"
#include "replicator/remote.h"
#include "restore/prefetch.h"
#include "restore/reader.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

enum {
	EXTENTS_MAX = 512, /* that one call of extents() gives */
	BLOCK_MAX = 32 << 20,
	AGAIN_MS = 500, /* between two tries to read what is at a replica */
};

static struct {
	/* What was asked for: paths are absolute, as nbdkit leaves its folder. */
	char *store, *vm, *point, *disk;
	char *key_dir, *code_file, *passphrase_file;
	uint64_t cache;
	int64_t first_client_ns; /* 0: wait for ever */
	int64_t patience_ns;     /* with replicas that can't be reached */
	int keys_fd;             /* -1: none */
	int boot;                /* a VM is booted from it */
	/* From get_ready() to after_fork(). */
	struct lc_buf keys;
	/* From get_ready() on. */
	uint8_t id[POINT_ID_SIZE];
	char code[RECOVERY_CODE_MAX];
	/* From after_fork() on. */
	struct store *s;
	struct view *v;
	struct reader *r;
	struct remote *remote;  /* of a thin store; else NULL */
	struct prefetch *ahead; /* NULL: no boot, or no memory */
	pthread_t watch,
	    check; /* waits for a first client, where one is asked for; checks the map */
	bool watching, checking;
	atomic_bool over;    /* the check is to end */
	atomic_bool changed; /* the map is not the one that was committed */
	pthread_mutex_t lock;
	pthread_cond_t seen_cond;
	bool seen; /* under lock: a client came, or nobody waits for one any more */
} plugin = {
    .keys_fd = -1, .lock = PTHREAD_MUTEX_INITIALIZER, .seen_cond = PTHREAD_COND_INITIALIZER};

struct handle { /* one connection */
	size_t disk;
};

/* What the client is told; the text goes to nbdkit's log. */
static int
report(const struct lc_err *e)
{
	int err = EIO;

	if (e->code == LC_ENOMEM)
		err = ENOMEM;
	else if (e->code == LC_EINVAL || e->code == LC_ENOENT)
		err = EINVAL;
	else if (e->code == LC_EACCES || e->code == LC_EKEY)
		err = EPERM;
	nbdkit_error("%s", e->msg);
	nbdkit_set_error(err);
	errno = err;
	return -1;
}

/* ---- configuration ---- */

static int
take_text(char **field, const char *key, char *value)
{
	if (*field != NULL) {
		nbdkit_error("%s is given twice", key);
		free(value);
		return -1;
	}
	if (value == NULL) {
		nbdkit_error("%s: out of memory", key);
		return -1;
	}
	*field = value;
	return 0;
}

static int
plugin_config(const char *key, const char *value)
{
	if (strcmp(key, "store") == 0)
		return take_text(&plugin.store, key, nbdkit_absolute_path(value));
	if (strcmp(key, "vm") == 0)
		return take_text(&plugin.vm, key, strdup(value));
	if (strcmp(key, "point") == 0)
		return take_text(&plugin.point, key, strdup(value));
	if (strcmp(key, "disk") == 0)
		return take_text(&plugin.disk, key, strdup(value));
	if (strcmp(key, "key-dir") == 0)
		return take_text(&plugin.key_dir, key, nbdkit_absolute_path(value));
	if (strcmp(key, "recovery-code-file") == 0)
		return take_text(&plugin.code_file, key, nbdkit_absolute_path(value));
	if (strcmp(key, "passphrase-file") == 0)
		return take_text(&plugin.passphrase_file, key, nbdkit_absolute_path(value));
	if (strcmp(key, "keys-fd") == 0)
		return nbdkit_parse_int(key, value, &plugin.keys_fd);
	if (strcmp(key, "boot") == 0) {
		plugin.boot = nbdkit_parse_bool(value);
		return plugin.boot < 0 ? -1 : 0;
	}
	if (strcmp(key, "cache") == 0) {
		if (config_size(value, &plugin.cache) && plugin.cache >= WINDOW_SIZE)
			return 0;
		nbdkit_error("cache=%s is no size such as 64M", value);
		return -1;
	}
	if (strcmp(key, "replica-patience") == 0) {
		if (clock_parse_duration(value, &plugin.patience_ns))
			return 0;
		nbdkit_error("replica-patience=%s is no time such as 60s", value);
		return -1;
	}
	if (strcmp(key, "first-client") == 0) {
		if (clock_parse_duration(value, &plugin.first_client_ns))
			return 0;
		nbdkit_error("first-client=%s is no time such as 30s", value);
		return -1;
	}
	nbdkit_error("unknown parameter '%s'; nbdkit locum --help lists what there is", key);
	return -1;
}

static int
plugin_config_complete(void)
{
	const char *env = getenv("LOCUM_STORE"); /* NOLINT(concurrency-mt-unsafe) */

	if (plugin.store == NULL && env != NULL && *env != '\0')
		plugin.store = nbdkit_absolute_path(env);
	if (plugin.store == NULL || plugin.vm == NULL) {
		nbdkit_error("give the store and the VM: store=DIR vm=NAME[@POINT]");
		return -1;
	}
	if (plugin.point != NULL && strchr(plugin.vm, '@') != NULL) {
		nbdkit_error("vm=%s and point=%s both name a point", plugin.vm, plugin.point);
		return -1;
	}
	return 0;
}

#define CONFIG_HELP                                                                                \
	"store=DIR                  (required) folder of the store, or LOCUM_STORE\n"              \
	"vm=NAME[@POINT]            (required) VM, as web01, web01@-15m, web01@2026-11-22T05:00\n" \
	"point=POINT                point of that VM; default: the newest\n"                       \
	"disk=NAME                  serve this disk only; default: every disk as an export\n"      \
	"cache=SIZE                 decoded data kept in memory; default 64M\n"                    \
	"key-dir=DIR                folder of this host's keys; default /etc/locum/keys\n"         \
	"recovery-code-file=FILE    open with the recovery code in it\n"                           \
	"passphrase-file=FILE       open with the passphrase in it\n"                              \
	"replica-patience=TIME      how long a read of what only a replica has is tried again\n"   \
	"boot=BOOL                  read ahead what the last boot of the VM read (locum boot)\n"   \
	"keys-fd=N                  open with the keys that this descriptor gives (locum boot)\n"  \
	"first-client=TIME          outlive who starts it; end where no client comes in that time"

static void
plugin_dump(void)
{
	(void)printf("locum_version=%s\n", LOCUM_VERSION);
	(void)printf("locum_window=%u\n", WINDOW_SIZE);
}

/* ---- opening ---- */

static const char *
key_dir(void)
{
	return plugin.key_dir != NULL ? plugin.key_dir : "/etc/locum/keys";
}

static int
open_store(struct lc_err *e)
{
	struct store_opts opts = {
	    .dir = plugin.store,
	    .mode = STORE_READ,
	    .who = "nbdkit locum",
	    .key_dir = key_dir(),
	    .recovery_code = plugin.code[0] != '\0' ? plugin.code : NULL,
	    .passphrase_file = plugin.passphrase_file,
	    .key_image = {plugin.keys.p, plugin.keys.n},
	};

	return store_open(&opts, &plugin.s, e);
}

static int
find_disk(const struct point *p, const char *name, size_t *disk)
{
	size_t i;

	for (i = 0; i < p->ndisks; i++) {
		if (strcmp(p->disks[i].name, name) == 0) {
			*disk = i;
			return 0;
		}
	}
	return -1;
}

static int
choose_point(struct lc_err *e)
{
	struct point p = {0};
	char *spec;
	size_t disk;
	int rc;

	spec = plugin.point == NULL ? lc_strdup(plugin.vm)
	                            : lc_asprintf("%s@%s", plugin.vm, plugin.point);
	if (spec == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "locum: out of memory");
	rc = store_find(plugin.s, spec, &p, e);
	lc_free(spec);
	if (rc != 0)
		return rc;
	if (!p.opened)
		rc = lc_fail(e, LC_EKEY, 0,
		             "no key: give key-dir=, recovery-code-file= or passphrase-file=");
	else if (plugin.disk != NULL && find_disk(&p, plugin.disk, &disk) != 0)
		rc = lc_fail(e, LC_ENOENT, 0, "%s has no disk '%s' (see: locum points %s)", p.vm,
		             plugin.disk, p.vm);
	memcpy(plugin.id, p.id, sizeof plugin.id);
	point_done(&p);
	return rc;
}

static void
close_all(void)
{
	prefetch_free(plugin.ahead);
	plugin.ahead = NULL;
	reader_free(plugin.r);
	if (plugin.v != NULL)
		view_close(plugin.v);
	remote_free(plugin.remote);
	if (plugin.s != NULL)
		store_close(plugin.s);
	plugin.remote = NULL;
	plugin.r = NULL;
	plugin.v = NULL;
	plugin.s = NULL;
}

static void
wipe_keys(void)
{
	if (plugin.keys.p != NULL)
		explicit_bzero(plugin.keys.p, plugin.keys.cap);
	lc_buf_free(&plugin.keys);
}

/* A pipe that is full already: one read of it all, so that there is one copy to wipe. */
static int
read_keys(struct lc_err *e)
{
	ssize_t n;

	if (lc_buf_reserve(&plugin.keys, KEYRING_IMAGE_MAX) != 0)
		return lc_fail(e, LC_ENOMEM, 0, "locum: out of memory");
	n = read(plugin.keys_fd, plugin.keys.p, KEYRING_IMAGE_MAX);
	(void)close(plugin.keys_fd);
	plugin.keys_fd = -1;
	if (n <= 0)
		return lc_fail(e, LC_EKEY, 0, "keys-fd: nothing came");
	plugin.keys.n = (size_t)n;
	return 0;
}

static int
plugin_get_ready(void)
{
	struct lc_err e = LC_ERR_INIT;
	int rc = 0;

	/* What it holds opens the store: no core dump, no debugger of this user. */
	(void)prctl(PR_SET_DUMPABLE, 0);
	if (plugin.keys_fd >= 0)
		rc = read_keys(&e);
	if (rc == 0 && plugin.code_file != NULL)
		rc = kit_read_code(plugin.code_file, plugin.code, &e);
	if (rc == 0)
		rc = open_store(&e);
	if (rc == 0)
		rc = choose_point(&e);
	close_all();
	return rc == 0 ? 0 : report(&e);
}

/* ---- a server that nobody came to ---- */

static void
client_seen(void)
{
	(void)pthread_mutex_lock(&plugin.lock);
	plugin.seen = true;
	(void)pthread_cond_signal(&plugin.seen_cond);
	(void)pthread_mutex_unlock(&plugin.lock);
}

static void *
watch_first_client(void *arg)
{
	int64_t until = clock_mono_ns() + plugin.first_client_ns;

	(void)arg;
	(void)pthread_mutex_lock(&plugin.lock);
	while (!plugin.seen && clock_wait(&plugin.seen_cond, &plugin.lock, until))
		;
	if (!plugin.seen) {
		nbdkit_error("no client came");
		nbdkit_shutdown();
	}
	(void)pthread_mutex_unlock(&plugin.lock);
	return NULL;
}

static void
stop_watch(void)
{
	if (!plugin.watching)
		return;
	client_seen();
	(void)pthread_join(plugin.watch, NULL);
	plugin.watching = false;
}

/* ---- is it the map that was committed ---- */

static bool
is_over(void *arg)
{
	(void)arg;
	return atomic_load(&plugin.over);
}

static void *
check_map(void *arg)
{
	struct set_sum sum = {0};
	struct lc_err e = LC_ERR_INIT;
	size_t i;
	int rc = 0;

	(void)arg;
	for (i = 0; rc == 0 && i < view_point(plugin.v)->ndisks; i++)
		rc = view_add_disk(plugin.v, i, is_over, NULL, &sum, &e);
	rc = rc != 0 ? rc : view_check(plugin.v, &sum, &e);
	if (rc != 0 && rc != LC_ECANCELED) {
		atomic_store(&plugin.changed, true);
		nbdkit_error("%s", e.msg);
	}
	return NULL;
}

static void
stop_check(void)
{
	if (!plugin.checking)
		return;
	atomic_store(&plugin.over, true);
	(void)pthread_join(plugin.check, NULL);
	plugin.checking = false;
}

static void
start_ahead(void)
{
	struct prefetch_opts o = {
	    .store = plugin.s, .view = plugin.v, .reader = plugin.r, .cache_bytes = plugin.cache};
	struct lc_err e = LC_ERR_INIT;

	if (plugin.boot > 0 && prefetch_new(&o, &plugin.ahead, &e) != 0)
		nbdkit_debug("%s", e.msg);
}

static int
plugin_after_fork(void)
{
	struct reader_opts opts = {.cache_bytes = plugin.cache};
	struct lc_err e = LC_ERR_INIT;
	int rc = open_store(&e);

	if (rc == 0)
		rc = remote_attach(plugin.s, key_dir(), &plugin.remote, &e);
	if (rc == 0)
		rc = store_view(plugin.s, plugin.id, &plugin.v, &e);
	if (rc == 0)
		rc = reader_new(plugin.s, plugin.v, &opts, &plugin.r, &e);
	if (rc == 0)
		start_ahead();
	explicit_bzero(plugin.code, sizeof plugin.code);
	wipe_keys();
	/* Debian's nbdkit 1.32.5 always asks to be killed with its parent, --exit-with-parent or
	 * not.  A server that waits for a first client is there to outlive who started it. */
	if (plugin.first_client_ns > 0)
		(void)prctl(PR_SET_PDEATHSIG, 0);
	if (rc == 0 && plugin.first_client_ns > 0)
		plugin.watching = pthread_create(&plugin.watch, NULL, watch_first_client, NULL) ==
		                  0;
	if (rc == 0) {
		plugin.checking = pthread_create(&plugin.check, NULL, check_map, NULL) == 0;
		if (!plugin.checking)
			rc = lc_fail(&e, LC_ENOMEM, 0, "locum: no thread");
	}
	return rc == 0 ? 0 : report(&e);
}

static void
plugin_unload(void)
{
	stop_watch();
	stop_check();
	close_all();
	explicit_bzero(plugin.code, sizeof plugin.code);
	wipe_keys();
	free(plugin.store);
	free(plugin.vm);
	free(plugin.point);
	free(plugin.disk);
	free(plugin.key_dir);
	free(plugin.code_file);
	free(plugin.passphrase_file);
}

/* ---- exports ---- */

/* The index of the disk that an export without a name stands for. */
static size_t
first_disk(const struct point *p)
{
	size_t i;

	if (plugin.disk != NULL && find_disk(p, plugin.disk, &i) == 0)
		return i;
	for (i = 0; i < p->ndisks; i++) {
		if (p->disks[i].role == 0) /* a disk, rather than firmware variables or a kernel */
			return i;
	}
	return 0;
}

static int
plugin_list_exports(int readonly, int is_tls, struct nbdkit_exports *exports)
{
	const struct point *p = view_point(plugin.v);
	size_t i;

	(void)readonly;
	(void)is_tls;
	for (i = 0; i < p->ndisks; i++) {
		if (plugin.disk != NULL && strcmp(plugin.disk, p->disks[i].name) != 0)
			continue;
		if (nbdkit_add_export(exports, p->disks[i].name, NULL) != 0)
			return -1;
	}
	return 0;
}

static const char *
plugin_default_export(int readonly, int is_tls)
{
	const struct point *p = view_point(plugin.v);

	(void)readonly;
	(void)is_tls;
	return p->ndisks == 0 ? NULL : p->disks[first_disk(p)].name;
}

static void *
plugin_open(int readonly)
{
	const struct point *p = view_point(plugin.v);
	const char *name = nbdkit_export_name();
	struct handle *h;
	size_t disk = 0;

	(void)readonly;
	client_seen();
	if (name == NULL)
		return NULL;
	if (p->ndisks == 0) {
		nbdkit_error("the point of %s has no disks", p->vm);
		return NULL;
	}
	if (*name == '\0') {
		disk = first_disk(p);
	} else if (find_disk(p, name, &disk) != 0 ||
	           (plugin.disk != NULL && strcmp(plugin.disk, name) != 0)) {
		nbdkit_error("%s: no export '%s' (nbdinfo --list tells what there is)", p->vm,
		             name);
		return NULL;
	}
	h = malloc(sizeof *h);
	if (h == NULL) {
		nbdkit_error("out of memory");
		return NULL;
	}
	h->disk = disk;
	return h;
}

static const char *
plugin_export_description(void *handle)
{
	const struct handle *h = handle;
	const struct point *p = view_point(plugin.v);
	char id[2 * POINT_ID_SIZE + 1], when[32], text[256];

	(void)snprintf(text, sizeof text, "locum %s@%s, disk %s, of %s", p->vm,
	               lc_hex(id, p->id, POINT_ID_SIZE), p->disks[h->disk].name,
	               clock_format_utc(when, sizeof when, p->source_ns));
	return nbdkit_strdup_intern(text);
}

/* ---- a connection ---- */

static int64_t
plugin_get_size(void *handle)
{
	const struct handle *h = handle;

	return (int64_t)view_point(plugin.v)->disks[h->disk].size;
}

static int
plugin_block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
	(void)handle;
	*minimum = 1;
	*preferred = WINDOW_SIZE;
	*maximum = BLOCK_MAX;
	return 0;
}

static int
say_yes(void *handle)
{
	(void)handle;
	return 1;
}

static int
say_no(void *handle)
{
	(void)handle;
	return 0;
}

static int
plugin_can_cache(void *handle)
{
	(void)handle;
	return NBDKIT_CACHE_NATIVE;
}

/* Whether a read that failed is tried again: a guest that gets an error for each moment without a
 * link is worse off than one that waits. */
static bool
is_patient(int rc, int64_t until)
{
	const struct timespec pause = {.tv_nsec = AGAIN_MS * LC_NS_PER_MS};

	if (rc == 0 || plugin.remote == NULL || !lc_code_retryable((enum lc_code)rc) ||
	    clock_mono_ns() >= until || atomic_load(&plugin.over))
		return false;
	(void)nanosleep(&pause, NULL);
	return true;
}

static int
plugin_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	const struct handle *h = handle;
	int64_t until = clock_mono_ns() + plugin.patience_ns;
	struct lc_err e = LC_ERR_INIT;
	int rc;

	(void)flags;
	if (atomic_load(&plugin.changed)) {
		nbdkit_error("the map is not the one that was committed, see above");
		nbdkit_set_error(EIO);
		return -1;
	}
	prefetch_note(plugin.ahead, h->disk, offset, count);
	do {
		lc_err_clear(&e);
		rc = reader_read(plugin.r, h->disk, buf, count, offset, &e);
	} while (is_patient(rc, until));
	return rc == 0 ? 0 : report(&e);
}

static int
plugin_cache(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	const struct handle *h = handle;
	struct lc_err e = LC_ERR_INIT;

	(void)flags;
	return reader_prefetch(plugin.r, h->disk, count, offset, &e) == 0 ? 0 : report(&e);
}

static int
plugin_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
               struct nbdkit_extents *extents)
{
	const struct handle *h = handle;
	struct reader_extent x[EXTENTS_MAX];
	struct lc_err e = LC_ERR_INIT;
	size_t max = (flags & NBDKIT_FLAG_REQ_ONE) != 0 ? 1 : EXTENTS_MAX;
	size_t i, n;

	if (reader_extents(plugin.r, h->disk, offset, count, x, max, &n, &e) != 0)
		return report(&e);
	for (i = 0; i < n; i++) {
		uint32_t type = x[i].data ? 0 : NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO;

		if (nbdkit_add_extent(extents, x[i].off, x[i].len, type) != 0)
			return -1;
	}
	return 0;
}

static struct nbdkit_plugin locum_plugin = {
    .name = "locum",
    .longname = "Locum restore point",
    .version = LOCUM_VERSION,
    .description = "The disks of a restore point, read-only, each as an export.",
    .unload = plugin_unload,
    .config = plugin_config,
    .config_complete = plugin_config_complete,
    .config_help = CONFIG_HELP,
    .dump_plugin = plugin_dump,
    .magic_config_key = "vm",
    .get_ready = plugin_get_ready,
    .after_fork = plugin_after_fork,
    .list_exports = plugin_list_exports,
    .default_export = plugin_default_export,
    .export_description = plugin_export_description,
    .open = plugin_open,
    .close = free,
    .get_size = plugin_get_size,
    .block_size = plugin_block_size,
    .can_multi_conn = say_yes,
    .is_rotational = say_no,
    .can_extents = say_yes,
    .can_cache = plugin_can_cache,
    .pread = plugin_pread,
    .cache = plugin_cache,
    .extents = plugin_extents,
};

struct nbdkit_plugin *plugin_init(void); /* what the macro defines */
NBDKIT_REGISTER_PLUGIN(locum_plugin)
