#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "replicator/witness.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/config.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/base/memory.h"

#define LINES_MAX 1000u /* fit into what the parser takes */

struct witness {
	char *path;
	uint8_t key[CHANNEL_KEY_SIZE];
	struct lc_buf points; /* of struct witness_point, one of a line */
	int64_t lost_ns;
	bool changed;
};

static struct witness_point *
points_of(const struct witness *w, size_t *n)
{
	*n = w->points.n / sizeof(struct witness_point);
	return (struct witness_point *)(void *)w->points.p;
}

static struct witness_point *
find(const struct witness *w, const uint8_t line[16])
{
	size_t i, n;
	struct witness_point *list = points_of(w, &n);

	for (i = 0; i < n; i++) {
		if (memcmp(list[i].line, line, 16) == 0)
			return &list[i];
	}
	return NULL;
}

/* Where there are too many the one goes that got no point for longest. */
static void
add(struct witness *w, const struct witness_point *p)
{
	size_t i, n;
	struct witness_point *list = points_of(w, &n), *oldest = list;

	if (n < LINES_MAX) {
		(void)lc_buf_append(&w->points, p, sizeof *p);
		return;
	}
	for (i = 1; i < n; i++) {
		if (list[i].source_ns < oldest->source_ns)
			oldest = &list[i];
	}
	if (p->source_ns > oldest->source_ns)
		*oldest = *p;
}

/* ---- the file ---- */

static bool
get_line(const struct config *c, const char *name, struct witness_point *p)
{
	const char *vm = config_get(c, "line", name, "vm");
	const char *id = config_get(c, "line", name, "point");
	const char *count = config_get(c, "line", name, "count");
	const char *instant = config_get(c, "line", name, "instant_ns");
	const char *called = config_get(c, "line", name, "name_hex");
	size_t len = called == NULL ? 0 : strlen(called) / 2;
	uint64_t ns = 0;

	*p = (struct witness_point){.counter = 0};
	if (vm == NULL || id == NULL || count == NULL || instant == NULL ||
	    !lc_unhex(p->line, 16, name) || !lc_unhex(p->vm, 16, vm) || !lc_unhex(p->id, 16, id) ||
	    !config_uint(count, &p->counter) || !config_uint(instant, &ns) || ns > INT64_MAX ||
	    called == NULL || len >= sizeof p->name || !lc_unhex(p->name, len, called))
		return false;
	p->name[len] = '\0';
	p->source_ns = (int64_t)ns;
	return true;
}

static bool
get_all(struct witness *w, const struct config *c)
{
	const char *hex = config_get(c, "", "", "key"), *lost = config_get(c, "", "", "lost_ns");
	const struct config_entry *list;
	struct witness_point p;
	uint8_t key[CHANNEL_KEY_SIZE];
	uint64_t ns = 0;
	size_t i, n;

	if (hex == NULL || !lc_unhex(key, sizeof key, hex) || lost == NULL ||
	    !config_uint(lost, &ns) || ns > INT64_MAX)
		return false;
	if (memcmp(key, w->key, sizeof key) != 0)
		return true; /* of another replica, which had this name */
	w->lost_ns = (int64_t)ns;
	list = config_entries(c, &n);
	for (i = 0; i < n; i++) {
		if (strcmp(list[i].section, "line") != 0 || strcmp(list[i].key, "point") != 0)
			continue;
		if (!get_line(c, list[i].name, &p))
			return false;
		if (find(w, p.line) == NULL)
			add(w, &p);
	}
	return true;
}

static void
load(struct witness *w)
{
	struct lc_err e = LC_ERR_INIT;
	struct config *c = NULL;

	if (access(w->path, F_OK) != 0)
		return;
	if (config_load(w->path, &c, &e) != 0 || !get_all(w, c)) {
		log_warn("%s can't be read: whether that replica still has what it acknowledged is "
		         "not known this time%s%s",
		         w->path, e.code == LC_OK ? "" : ": ", e.msg);
		w->points.n = 0;
		w->lost_ns = 0;
	}
	config_free(c);
}

int
witness_open(const char *key_dir, const struct peer *peer, struct witness **out, struct lc_err *e)
{
	struct witness *w = lc_alloc(sizeof *w);

	if (w != NULL)
		w->path = lc_asprintf("%s/%s.witness", key_dir, peer->name);
	if (w == NULL || w->path == NULL) {
		lc_free(w);
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	memcpy(w->key, peer->key, sizeof w->key);
	load(w);
	*out = w;
	return 0;
}

static int
write_text(const struct witness *w, FILE *f)
{
	char key[65], line[33], vm[33], id[33], name[2 * POINT_NAME_MAX + 1];
	size_t i, n;
	const struct witness_point *p = points_of(w, &n);

	(void)fprintf(f,
	              "# what this replica has acknowledged last; made by locum\n"
	              "key = %s\nlost_ns = %" PRId64 "\n",
	              lc_hex(key, w->key, sizeof w->key), w->lost_ns);
	for (i = 0; i < n; i++) {
		(void)fprintf(f,
		              "[line %s]\nvm = %s\npoint = %s\ncount = %" PRIu64
		              "\ninstant_ns = %" PRId64 "\nname_hex = %s\n",
		              lc_hex(line, p[i].line, 16), lc_hex(vm, p[i].vm, 16),
		              lc_hex(id, p[i].id, 16), p[i].counter, p[i].source_ns,
		              lc_hex(name, p[i].name, strlen(p[i].name)));
	}
	return ferror(f) != 0 ? -1 : 0;
}

/* Beside, then renamed.  No flush: to have forgotten the last second is no harm. */
int
witness_save(struct witness *w, struct lc_err *e)
{
	char *made = lc_asprintf("%s.new", w->path);
	FILE *f = NULL;
	int rc = 0;

	if (!w->changed) {
		lc_free(made);
		return 0;
	}
	if (made == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	f = fopen(made, "we");
	if (f == NULL || write_text(w, f) != 0)
		rc = -1;
	if (f != NULL && fclose(f) != 0)
		rc = -1;
	if (rc != 0 || rename(made, w->path) != 0)
		rc = lc_fail(e, LC_EIO, 0, "%s can't be written", w->path);
	w->changed = rc != 0;
	lc_free(made);
	return rc;
}

/* ---- what it has ---- */

void
witness_note(struct witness *w, const struct witness_point *p)
{
	struct witness_point *old = find(w, p->line);

	if (old != NULL && old->counter > p->counter)
		return;
	if (old != NULL && memcmp(old->id, p->id, 16) == 0)
		return;
	w->changed = true;
	if (old != NULL)
		*old = *p;
	else
		add(w, p);
}

const struct witness_point *
witness_points(const struct witness *w, size_t *n)
{
	return points_of(w, n);
}

static const struct witness_point *
pick(const struct witness_point *list, size_t n, const uint8_t line[16])
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (memcmp(list[i].line, line, 16) == 0)
			return &list[i];
	}
	return NULL;
}

unsigned
witness_compare(struct witness *w, const struct witness_point *there, size_t n,
                void (*lost)(void *arg, const struct witness_point *was,
                             const struct witness_point *is),
                void *arg)
{
	unsigned found = 0;
	size_t i, known;
	struct witness_point *list = points_of(w, &known);

	for (i = 0; i < known;) {
		const struct witness_point *is = pick(there, n, list[i].line);
		struct witness_point was = list[i];

		if (is != NULL && is->counter >= was.counter) {
			i++;
			continue;
		}
		found++;
		w->changed = true;
		w->lost_ns = clock_wall_ns();
		if (is != NULL)
			list[i++] = *is;
		else
			list[i] = list[--known];
		w->points.n = known * sizeof was;
		lost(arg, &was, is);
	}
	for (i = 0; i < n; i++)
		witness_note(w, &there[i]);
	return found;
}

int64_t
witness_lost_ns(const struct witness *w)
{
	return w->lost_ns;
}

void
witness_free(struct witness *w)
{
	if (w == NULL)
		return;
	lc_buf_free(&w->points);
	lc_free(w->path);
	lc_free(w);
}
