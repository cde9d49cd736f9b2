/*
 * The hosts of a replica: what is there of each, what became of it since this process began, and
 * the status that tells of it.
 */
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "replicator/message.h"
#include "replicator/server_internal.h"
#include "replicator/stores.h"
#include "store/base/bytes.h"
#include "store/base/cli.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/transfer.h"

/* Of a host, in the status: as many as it may have lines, and those that were begun at once. */
#define VMS_MAX (TRANSFER_LINES_MAX + 64u)

#define SURVEY_WAIT_MS 2000 /* for who has a store */

#define TOLD_MAX 20u
#define TOLD_NS (10 * LC_NS_PER_S)

bool
hush_tells(struct hush *h, const char *who)
{
	int64_t now = clock_mono_ns();

	if (h->since_ns == 0 || now - h->since_ns >= TOLD_NS) {
		if (h->kept > 0)
			log_warn("%s: %u more of that were not told", who, h->kept);
		*h = (struct hush){.since_ns = now};
	}
	if (h->said < TOLD_MAX) {
		h->said++;
		return true;
	}
	if (h->kept++ == 0)
		log_warn("%s: no more of that is told for some seconds", who);
	return false;
}

/* Under the lock; NULL: there is none. */
static struct host *
look_up(struct server *s, const uint8_t key[CHANNEL_KEY_SIZE])
{
	struct host *h;

	TAILQ_FOREACH (h, &s->hosts, entry) {
		if (memcmp(h->key, key, CHANNEL_KEY_SIZE) == 0)
			break;
	}
	return h;
}

void
host_name(struct server *s, const uint8_t key[CHANNEL_KEY_SIZE], char name[64])
{
	const struct host *h;

	(void)pthread_mutex_lock(&s->lock);
	h = look_up(s, key);
	(void)snprintf(name, 64, "%s", h == NULL ? "" : h->name);
	(void)pthread_mutex_unlock(&s->lock);
}

struct host *
host_find(struct server *s, const uint8_t key[CHANNEL_KEY_SIZE])
{
	struct host *h = look_up(s, key);

	if (h != NULL)
		return h;
	h = lc_alloc(sizeof *h);
	if (h == NULL)
		return NULL;
	memcpy(h->key, key, CHANNEL_KEY_SIZE);
	TAILQ_INSERT_TAIL(&s->hosts, h, entry);
	return h;
}

/* They are sorted by their ids. */
struct host_vm *
host_vm_find(struct host *h, const uint8_t id[16])
{
	struct host_vm *list = (struct host_vm *)(void *)h->vms.p, fresh = {.points = 0};
	size_t low = 0, high = h->vms.n / sizeof *list, n = high;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int order = memcmp(list[mid].id, id, 16);

		if (order == 0)
			return &list[mid];
		if (order < 0)
			low = mid + 1;
		else
			high = mid;
	}
	if (n >= VMS_MAX || lc_buf_append(&h->vms, &fresh, sizeof fresh) != 0)
		return NULL;
	list = (struct host_vm *)(void *)h->vms.p;
	memmove(&list[low + 1], &list[low], (n - low) * sizeof *list);
	list[low] = fresh;
	memcpy(list[low].id, id, 16);
	return &list[low];
}

void
host_vm_forget(struct server *s, const uint8_t key[CHANNEL_KEY_SIZE], const uint8_t id[16])
{
	struct host_vm *list;
	struct host *h;
	size_t i, n;

	(void)pthread_mutex_lock(&s->lock);
	TAILQ_FOREACH (h, &s->hosts, entry) {
		list = (struct host_vm *)(void *)h->vms.p;
		n = h->vms.n / sizeof *list;
		if (memcmp(h->key, key, CHANNEL_KEY_SIZE) != 0)
			continue;
		for (i = 0; i < n && memcmp(list[i].id, id, 16) != 0; i++)
			;
		if (i == n)
			continue;
		memmove(&list[i], &list[i + 1], (n - i - 1) * sizeof *list);
		h->vms.n -= sizeof *list;
	}
	(void)pthread_mutex_unlock(&s->lock);
}

/* ---- what it may have, and has ---- */

int
host_limits(struct server *s, struct host *h, struct lc_err *e)
{
	struct lc_err why = LC_ERR_INIT;
	struct limits l;
	int rc = limits_read(s->dir, h->key, &l, &why);

	if (rc == 0) {
		if (h->limits_bad)
			log_info("%s: what is set for it can be read again", h->name);
		if (h->limits_bad && !h->limits_known)
			lc_err_clear(&h->err);
		h->limits = l;
		h->room = l.max_set ? l.max : s->host_max;
		h->limits_known = true;
	} else if (!h->limits_bad) {
		log_error("%s: what is set for it can't be read%s (locum replica limit, with "
		          "--max and --rate, sets it anew): %s",
		          h->name, h->limits_known ? ", and stays as it was" : ": it is not let in",
		          why.msg);
		if (!h->limits_known)
			(void)lc_fail(&h->err, LC_EACCES, 0, "it is not let in: %s", why.msg);
	}
	h->limits_bad = rc != 0;
	return h->limits_known
	           ? 0
	           : lc_fail(e, LC_EACCES, 0,
	                     "the replica can't read what is set for this host there (its log "
	                     "says more), and lets it in only within that");
}

/* Bytes of a store's log; what else lies there is small or can be made again. */
static uint64_t
bytes_of_log(const char *top, const char *store)
{
	char *dir = lc_asprintf("%s/%s/segments", top, store);
	DIR *d = dir == NULL ? NULL : opendir(dir);
	const struct dirent *ent;
	uint64_t sum = 0;
	struct stat st;
	int rc = 0;

	while (d != NULL && (ent = dir_next(d, dir, &rc, NULL)) != NULL) {
		if (fstatat(dirfd(d), ent->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    S_ISREG(st.st_mode))
			sum += (uint64_t)st.st_size;
	}
	if (d != NULL)
		(void)closedir(d);
	lc_free(dir);
	return sum;
}

/* The first writer of a store has what is no other one's.  Of what can be made again, only rows
 * that say zero count: a host could have the catalog grow without end. */
bool
host_bytes(const char *dir, const struct writer_entry *w, struct store *store, uint64_t *out)
{
	uint64_t zeros = 0, all;

	if (transfer_bytes(store, w->writer, out, NULL) != 0 ||
	    transfer_zeros(store, w->writer, &zeros, NULL) != 0)
		return false;
	if (w->writer == 0) {
		all = bytes_of_log(dir, w->store);
		*out = all > *out ? all - *out : 0;
	}
	*out += zeros;
	return true;
}

/* ---- damage ---- */

void
host_damaged(struct server *s, struct host *h, uint64_t contents, size_t lines)
{
	char name[sizeof h->name];
	uint64_t before;

	(void)pthread_mutex_lock(&s->lock);
	before = h->damaged + h->damaged_lines;
	h->damage_known = true;
	h->damaged = contents;
	h->damaged_lines = lines;
	(void)snprintf(name, sizeof name, "%s", h->name);
	(void)pthread_mutex_unlock(&s->lock);
	if (contents + lines > 0 && before == 0)
		log_warn("%s: %" PRIu64 " contents and the maps of %zu lines of it are damaged "
		         "here: it asks for that, and sends what it has",
		         name, contents, lines);
	else if (contents + lines == 0 && before > 0)
		log_info("%s: what was damaged of it here is whole again", name);
}

static void
look_at_host(struct server *s, const struct writer_entry *w, struct store *store)
{
	static const uint8_t first[CHUNK_ID_SIZE];
	struct transfer_damage d = {.contents = 0};
	uint64_t kept = 0;
	bool known = host_bytes(s->dir, w, store, &kept);
	struct host *h;

	(void)pthread_mutex_lock(&s->lock);
	h = host_find(s, w->key);
	if (h != NULL) {
		(void)snprintf(h->name, sizeof h->name, "%s", w->name);
		h->kept = known ? kept : h->kept;
		h->kept_known = h->kept_known || known;
	}
	(void)pthread_mutex_unlock(&s->lock);
	if (h != NULL && transfer_damage(store, w->writer, first, DAMAGED_LINES_MAX, &d, NULL) == 0)
		host_damaged(s, h, d.contents, d.lines.n / 16);
	transfer_damage_free(&d);
}

void
server_look(struct server *s, const char *dir, struct store *store)
{
	struct writer_entry *list = NULL;
	const char *base = strrchr(dir, '/');
	size_t i, n = 0;

	if (writers_list(s->dir, &list, &n, NULL) != 0)
		return;
	for (i = 0; base != NULL && i < n; i++) {
		const char *of = strrchr(list[i].store, '/');

		if (!list[i].revoked && of != NULL && strcmp(of, base) == 0)
			look_at_host(s, &list[i], store);
	}
	lc_free(list);
}

static void
survey_store(struct server *s, const char *name)
{
	char *dir = path_join(s->dir, name);
	struct lc_err e = LC_ERR_INIT;
	struct shared *x = NULL;

	/* The first point of a host makes its store. */
	if (dir == NULL || access(dir, F_OK) != 0) {
		lc_free(dir);
		return;
	}
	if (stores_take(s->stores, dir, NULL, SURVEY_WAIT_MS, &x, &e) == 0) {
		server_look(s, dir, shared_store(x));
		stores_give(s->stores, x, NULL);
	} else {
		log_info("%s: how large it is, and whether it is damaged, shows when its host is "
		         "here: %s",
		         dir, e.msg);
	}
	lc_free(dir);
}

static void
survey(uv_work_t *work)
{
	struct server *s = work->data;
	struct writer_entry *list = NULL;
	size_t i, k, n = 0;

	if (writers_list(s->dir, &list, &n, NULL) != 0)
		return;
	for (i = 0; i < n && !s->stopping; i++) {
		if (list[i].revoked)
			continue;
		for (k = 0; k < i; k++) {
			if (!list[k].revoked && strcmp(list[k].store, list[i].store) == 0)
				break;
		}
		if (k == i) /* else that one was looked at */
			survey_store(s, list[i].store);
	}
	lc_free(list);
}

static void
on_surveyed(uv_work_t *work, int status)
{
	(void)status;
	server_release(work->data);
}

void
server_survey(struct server *s)
{
	s->survey.data = s;
	if (uv_queue_work(s->loop, &s->survey, survey, on_surveyed) == 0)
		s->handles++;
}

/* ---- let in no more ---- */

void
host_file(struct host *h, const char *name, const struct lc_err *why)
{
	char print[FINGERPRINT_MAX];

	if (why == NULL) {
		(void)snprintf(h->name, sizeof h->name, "%s", name);
		if (h->file_bad) {
			log_info("%s: its file can be read again", h->name);
			lc_err_clear(&h->err);
		}
		h->file_bad = false;
		return;
	}
	if (h->name[0] == '\0')
		(void)snprintf(h->name, sizeof h->name, "%s", fingerprint(print, h->key));
	if (!h->file_bad)
		log_error("%s: its file can't be read: it is not let in: %s", h->name, why->msg);
	h->file_bad = true;
	lc_err_clear(&h->err);
	(void)lc_fail(&h->err, why->code, 0, "it is not let in: %s", why->msg);
	memset(h->err_vm, 0, sizeof h->err_vm);
}

/* One that was revoked is not waited for, also where it was away then and nobody told it. */
void
hosts_look(struct server *s)
{
	struct host *h;

	(void)pthread_mutex_lock(&s->lock);
	TAILQ_FOREACH (h, &s->hosts, entry) {
		struct lc_err why = LC_ERR_INIT;
		struct writer_entry w;
		bool before = h->revoked;
		int rc;

		if (h->connected > 0)
			continue;
		(void)host_limits(s, h, NULL);
		rc = writers_find(s->dir, h->key, &w, &why);
		if (rc != 0 && rc != LC_EACCES && rc != LC_ENOENT) {
			host_file(h, NULL, &why);
			continue;
		}
		if (h->file_bad && rc != LC_ENOENT)
			host_file(h, w.name, NULL);
		h->revoked = rc == LC_EACCES;
		if (h->revoked || before)
			memset(h->err_vm, 0, sizeof h->err_vm);
		if (h->revoked)
			h->err = why;
		else if (before)
			lc_err_clear(&h->err);
	}
	(void)pthread_mutex_unlock(&s->lock);
}

/* ---- status ---- */

/* Under the lock: bytes, with those of the connections that it has. */
static uint64_t
received_of(const struct host *h, const struct server *s)
{
	uint64_t received = h->received;
	const struct guest *g;
	struct session_stats st;

	TAILQ_FOREACH (g, &s->guests, entry) {
		if (g->host != h)
			continue;
		session_stats(g->session, &st);
		received += st.received;
	}
	return received;
}

static bool
is_late(const struct host *h, int64_t wall)
{
	return !h->revoked && h->connected == 0 && visits_by_command(&h->visits, wall) &&
	       visits_late(&h->visits, wall);
}

static uint64_t
damaged_of(const struct host *h)
{
	return h->damage_known ? h->damaged + h->damaged_lines : SERVER_UNKNOWN;
}

void
server_hosts(struct server *s, void (*visit)(void *arg, const struct server_host *h), void *arg)
{
	int64_t wall = clock_wall_ns();
	const struct host *h;

	(void)pthread_mutex_lock(&s->lock);
	TAILQ_FOREACH (h, &s->hosts, entry) {
		const struct host_vm *vms = (const struct host_vm *)(const void *)h->vms.p;
		struct server_host x = {.name = h->name,
		                        .key = h->key,
		                        .connected = h->connected > 0,
		                        .revoked = h->revoked,
		                        .by_command = visits_by_command(&h->visits, wall),
		                        .late = is_late(h, wall),
		                        .since_ns = h->since_ns,
		                        .received = received_of(h, s),
		                        .points = h->points,
		                        .refused = h->refused,
		                        .kept = h->kept_known ? h->kept : SERVER_UNKNOWN,
		                        .room = h->limits_known ? h->room : SERVER_UNKNOWN,
		                        .damaged = damaged_of(h),
		                        .vms = h->vms.n / sizeof *vms};
		size_t i;

		for (i = 0; i < x.vms; i++)
			x.last_ns = vms[i].last_ns > x.last_ns ? vms[i].last_ns : x.last_ns;
		visit(arg, &x);
	}
	(void)pthread_mutex_unlock(&s->lock);
}

static void
print_number(FILE *f, const char *key, uint64_t n)
{
	if (n == SERVER_UNKNOWN)
		(void)fprintf(f, ", \"%s\": null", key);
	else
		(void)fprintf(f, ", \"%s\": %" PRIu64, key, n);
}

static void
print_host(struct host *h, const struct server *s, int64_t wall, FILE *f)
{
	const struct host_vm *vms = (const struct host_vm *)(const void *)h->vms.p;
	size_t i, n = h->vms.n / sizeof *vms;
	char print[FINGERPRINT_MAX], hex[33], when[40];
	uint64_t received = received_of(h, s);
	int64_t now = clock_mono_ns();

	meter_note(&h->rate, now, received);
	(void)fprintf(f, "{\"name\": ");
	cli_json_string(f, h->name);
	(void)fprintf(f, ", \"fingerprint\": \"%s\", \"connected\": %s, \"since\": ",
	              fingerprint(print, h->key), h->connected > 0 ? "true" : "false");
	if (h->since_ns == 0)
		(void)fprintf(f, "null");
	else
		(void)fprintf(f, "\"%s\"", clock_format_utc(when, sizeof when, h->since_ns));
	(void)fprintf(f, ", \"by_command\": %s, \"late\": %s, \"came\": ",
	              visits_by_command(&h->visits, wall) ? "true" : "false",
	              is_late(h, wall) ? "true" : "false");
	if (h->visits.last_ns == 0)
		(void)fprintf(f, "null");
	else
		(void)fprintf(f, "\"%s\"", clock_format_utc(when, sizeof when, h->visits.last_ns));
	(void)fprintf(f, ", \"comes_each_s\": ");
	if (h->visits.usual_ns == 0)
		(void)fprintf(f, "null");
	else
		(void)fprintf(f, "%.3f", (double)h->visits.usual_ns / 1e9);
	(void)fprintf(f, ", \"address\": ");
	cli_json_string(f, h->at);
	(void)fprintf(f,
	              ", \"received_bytes\": %" PRIu64 ", \"rate_bytes\": %" PRIu64
	              ", \"points\": %" PRIu64 ", \"refused\": %" PRIu64,
	              received, meter_rate(&h->rate, now), h->points, h->refused);
	print_number(f, "stored_bytes", h->kept_known ? h->kept : SERVER_UNKNOWN);
	print_number(f, "quota_bytes", h->limits_known ? h->room : SERVER_UNKNOWN);
	print_number(f, "damaged", damaged_of(h));
	(void)fprintf(f, ", \"error\": ");
	if (h->err.code == LC_OK)
		(void)fprintf(f, "null");
	else
		cli_json_string(f, h->err.msg);
	(void)fprintf(f, ",\n   \"vms\": [");
	for (i = 0; i < n; i++) {
		(void)fprintf(
		    f,
		    "%s{\"vm\": \"%s\", \"time\": \"%s\", \"age_s\": %.3f, \"points\": %" PRIu64
		    "}",
		    i == 0 ? "" : ",\n    ", lc_hex(hex, vms[i].id, 16),
		    clock_format_utc(when, sizeof when, vms[i].last_ns),
		    (double)(wall > vms[i].last_ns ? wall - vms[i].last_ns : 0) / 1e9,
		    vms[i].points);
	}
	(void)fprintf(f, "]}");
}

void
server_status(struct server *s, FILE *f)
{
	char print[FINGERPRINT_MAX], when[40];
	int64_t wall = clock_wall_ns();
	struct host *h;

	(void)fprintf(f, "{\"role\": \"replica\", \"pid\": %ld, \"time\": \"%s\", \"dir\": ",
	              (long)getpid(), clock_format_utc(when, sizeof when, wall));
	cli_json_string(f, s->dir);
	(void)fprintf(f, ", \"fingerprint\": \"%s\", \"port\": %u,\n \"hosts\": [",
	              fingerprint(print, s->identity.public), server_port(s));
	(void)pthread_mutex_lock(&s->lock);
	TAILQ_FOREACH (h, &s->hosts, entry) {
		(void)fprintf(f, "%s", h == TAILQ_FIRST(&s->hosts) ? "" : ",\n  ");
		print_host(h, s, wall, f);
	}
	(void)pthread_mutex_unlock(&s->lock);
	(void)fprintf(f, "]}\n");
}
