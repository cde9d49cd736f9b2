/*
 * Giving a restore point to another store: which is next, its rows, its chunks as they lie here.
 */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/commit.h"
#include "store/outgoing_internal.h"
#include "store/store_internal.h"
#include "store/transfer.h"
#include "store/writer_internal.h"

#define DROP_TRIES 20u /* while somebody drops what was found */
#define DROP_PAUSE_MS 5

/* ---- lines ---- */

struct line_copy {
	uint8_t line[16], vm[16];
	uint16_t writer;
	uint8_t name[TRANSFER_NAME_MAX];
	size_t nname;
};

static int
copy_line(void *arg, const uint8_t line[16], const uint8_t vm[16], uint16_t writer,
          struct lc_span sealed, struct lc_err *e)
{
	struct line_copy x = {.nname = sealed.n, .writer = writer};

	if (sealed.n > sizeof x.name)
		return lc_fail(e, LC_ECORRUPT, 0, "the name of a VM is too long");
	memcpy(x.line, line, 16);
	memcpy(x.vm, vm, 16);
	memcpy(x.name, sealed.p, sealed.n);
	return lc_buf_append(arg, &x, sizeof x) == 0 ? 0
	                                             : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

static int
take_entry(void *arg, const struct catalog_point *p, struct lc_err *e)
{
	struct lc_buf *b = arg;

	if ((p->flags & POINT_SEED) != 0)
		return 0;
	b->n = 0;
	return lc_buf_append(b, p->entry.p, p->entry.n) == 0
	           ? 0
	           : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

/* The entry of the newest point that is no seed. */
static int
head_of(struct store *s, const uint8_t line[16], struct lc_buf *head, struct lc_err *e)
{
	int rc;

	head->n = 0;
	rc = catalog_newest(s->catalog, line, take_entry, head, e);
	if (rc == LC_ENOENT)
		return 0;
	if (rc == 0 && head->n == 0) /* behind a seed */
		rc = catalog_each_point(s->catalog, line, take_entry, head, e);
	return rc;
}

/* of: one writer's; NULL: all. */
static int
each_line(struct store *s, const uint16_t *of,
          int (*on)(void *arg, const struct transfer_line *l, struct lc_err *e), void *arg,
          struct lc_err *e)
{
	struct lc_buf lines = {0}, head = {0};
	struct line_copy x;
	size_t i;
	/* Copied first: what `on` does may need the same tables. */
	int rc = catalog_each_line_vm(s->catalog, copy_line, &lines, e);

	for (i = 0; rc == 0 && i < lines.n; i += sizeof x) {
		struct transfer_line l;

		memcpy(&x, lines.p + i, sizeof x);
		if (of != NULL && x.writer != *of)
			continue;
		rc = head_of(s, x.line, &head, e);
		memcpy(l.line, x.line, 16);
		memcpy(l.vm, x.vm, 16);
		l.writer = x.writer;
		l.name = (struct lc_span){x.name, x.nname};
		l.head = (struct lc_span){head.p, head.n};
		rc = rc != 0 ? rc : on(arg, &l, e);
	}
	lc_buf_free(&lines);
	lc_buf_free(&head);
	return rc;
}

int
transfer_lines(struct store *s,
               int (*on)(void *arg, const struct transfer_line *l, struct lc_err *e), void *arg,
               struct lc_err *e)
{
	return each_line(s, NULL, on, arg, e);
}

int
transfer_lines_of(struct store *s, uint16_t writer,
                  int (*on)(void *arg, const struct transfer_line *l, struct lc_err *e), void *arg,
                  struct lc_err *e)
{
	return each_line(s, &writer, on, arg, e);
}

const uint8_t *
transfer_domain(const struct store *s)
{
	return s->domain;
}

int
transfer_open(const struct store *s, struct lc_span entry, struct point *out, struct lc_err *e)
{
	struct lc_span sealed;
	int rc = point_decode(entry, out, &sealed, e);

	if (rc != 0 || s->keyring == NULL)
		return rc;
	rc = point_open_header(s->keyring, sealed, out, e);
	if (rc != 0)
		point_done(out);
	return rc;
}

/* ---- which point is next ---- */

struct finding {
	struct store *s;
	const uint8_t *line;
	struct lc_span head;
	uint8_t head_id[16]; /* zeros: the taker has none */
	bool passed;         /* head was met, or there is none: the next one is it */
	struct point *old;   /* head, where it is not here any more; its count of points ... */
	bool by_counter;     /* ... tells what is newer */
	bool found, any;
	bool fresh;           /* only points that share nothing with their base ... */
	const uint8_t *after; /* ... and come behind that one; NULL: behind head */
	struct outgoing *o;
};

/* A head that is not here was dropped here, or never was here (this store is an older copy).  Only
 * where the next point was built on it are the rows of that one all that differs: what was dropped
 * as the newest has left nothing, and what was never here is not known. */
static void
give_whole(struct finding *f, const struct point *p)
{
	struct outgoing *o = f->o;
	size_t i, k;

	o->whole = memcmp(p->base, f->head_id, 16) != 0;
	o->ndisks = p->ndisks;
	for (i = 0; i < p->ndisks; i++) {
		struct whole_disk *d = &o->disks[i];

		memcpy(d->id, p->disks[i].id, 16);
		d->windows = point_windows(p->disks[i].size);
		for (k = 0; k < f->old->ndisks; k++) { /* what it cut off meanwhile is zero */
			const struct point_disk *was = &f->old->disks[k];

			if (memcmp(was->id, d->id, 16) == 0 &&
			    point_windows(was->size) > d->windows)
				d->windows = point_windows(was->size);
		}
	}
}

static bool
is_newer(struct finding *f, const struct catalog_point *cp, int *rc, struct lc_err *e)
{
	struct point *p;
	bool newer = false;

	if (!f->by_counter)
		return f->passed;
	p = lc_alloc(sizeof *p);
	if (p == NULL) {
		*rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
		return false;
	}
	*rc = store_point_of(f->s, cp, p, e);
	if (*rc == 0) {
		newer = p->counter >= f->old->counter; /* equal: it came in its place */
		if (newer && (cp->flags & POINT_MAP_DAMAGED) == 0)
			give_whole(f, p);
		point_done(p);
	}
	lc_free(p);
	return newer;
}

static int
look_at(void *arg, const struct catalog_point *cp, struct lc_err *e)
{
	struct finding *f = arg;
	struct outgoing *o = f->o;
	int rc = 0;

	if (f->found || (cp->flags & POINT_SEED) != 0)
		return 0;
	if (memcmp(cp->id, f->head_id, 16) == 0) {
		f->passed = true;
		return 0;
	}
	if (!is_newer(f, cp, &rc, e))
		return rc;
	f->any = true;
	if (f->after != NULL) {
		f->after = memcmp(cp->id, f->after, 16) == 0 ? NULL : f->after;
		return 0;
	}
	if ((cp->flags & POINT_MAP_DAMAGED) != 0 || (f->fresh && (cp->flags & POINT_FRESH) == 0))
		return 0;
	f->found = true;
	memcpy(o->p.id, cp->id, 16);
	memcpy(o->p.vm, cp->vm, 16);
	memcpy(o->p.line, cp->line, 16);
	memcpy(o->p.base, f->head_id, 16);
	o->entry.n = 0;
	return lc_buf_append(&o->entry, cp->entry.p, cp->entry.n) == 0
	           ? 0
	           : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

struct where_is {
	const uint8_t *line;
	bool here;
};

static int
is_on_line(void *arg, const struct catalog_point *p, struct lc_err *e)
{
	struct where_is *x = arg;

	(void)e;
	x->here = memcmp(p->line, x->line, 16) == 0;
	return 0;
}

/* Whether head is a point of the line here; else its own count of points tells its place. */
static int
look_up_head(struct finding *f, struct lc_err *e)
{
	struct where_is x = {.line = f->line};
	struct lc_span sealed;
	struct point *p;
	int rc;

	f->passed = f->head.n == 0;
	if (f->passed)
		return 0;
	p = lc_alloc(sizeof *p);
	if (p == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = point_decode(f->head, p, &sealed, e);
	if (rc == 0) {
		memcpy(f->head_id, p->id, 16);
		rc = catalog_point(f->s->catalog, p->id, is_on_line, &x, e);
		rc = rc == LC_ENOENT ? 0 : rc;
	}
	if (rc == 0 && !x.here) {
		f->by_counter = true;
		if (f->s->keyring == NULL)
			rc = lc_fail(e, LC_EKEY, 0,
			             "the other store's newest point was dropped here: what is "
			             "newer can only be told with the key");
		else
			rc = point_open_header(f->s->keyring, sealed, p, e);
		if (rc == 0) {
			f->old = p;
			return 0;
		}
	}
	lc_free(p);
	return rc;
}

struct find_name {
	const uint8_t *vm;
	struct lc_buf *out;
};

static int
take_name(void *arg, const struct catalog_vm *vm, struct lc_err *e)
{
	struct find_name *f = arg;

	if (memcmp(vm->id, f->vm, 16) != 0)
		return 0;
	f->out->n = 0;
	return lc_buf_append(f->out, vm->sealed.p, vm->sealed.n) == 0
	           ? 0
	           : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

/* The lease comes after the look, so look once more: nobody drops it from then on.  LC_EBUSY: what
 * was found was dropped meanwhile, or is being dropped. */
static int
hold(struct outgoing *o, struct lc_err *e)
{
	struct lc_err err = LC_ERR_INIT;
	struct lc_buf again = {0};
	char hex[33];
	int rc = lease_take(o->s, o->p.id, &o->lease, &o->lease_fd, &err);

	rc = rc != 0 ? rc : catalog_point(o->s->catalog, o->p.id, take_entry, &again, &err);
	lc_buf_free(&again);
	if (rc == LC_ENOENT)
		return lc_fail(e, LC_EBUSY, 0, "restore point %.8s is being dropped",
		               lc_hex(hex, o->p.id, 16));
	if (rc != 0 && e != NULL)
		*e = err;
	return rc;
}

static int
find_next(struct finding *f, struct lc_err *e)
{
	struct find_name name = {.vm = f->o->p.vm, .out = &f->o->name};
	struct where_is x = {.line = f->line};
	int rc = look_up_head(f, e);

	if (f->after != NULL && catalog_point(f->s->catalog, f->after, is_on_line, &x, NULL) != 0)
		f->after = NULL; /* it was dropped since */

	rc = rc != 0 ? rc : catalog_each_point(f->s->catalog, f->line, look_at, f, e);
	if (rc != 0)
		return rc;
	if (!f->found && f->by_counter && !f->any)
		return lc_fail(e, LC_ECONFLICT, 0,
		               "the other store has a newer point of it than this one");
	if (!f->found)
		return LC_ENOENT;
	rc = hold(f->o, e);
	return rc != 0 ? rc : catalog_each_vm(f->s->catalog, take_name, &name, e);
}

/* Takes f->o, which was found with rc. */
static int
finish(struct finding *f, int rc, struct outgoing **out, struct lc_err *e)
{
	struct outgoing *o = f->o;

	if (rc == 0 && o->whole) {
		o->chunks = lc_alloc_array(MAP_ROWS_MAX, sizeof *o->chunks);
		o->ids = lc_alloc_array(MAP_ROWS_MAX, sizeof *o->ids);
		rc = o->chunks == NULL || o->ids == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
		                                         : 0;
	}
	if (rc != 0) {
		outgoing_free(o);
		return rc;
	}
	o->p.name = (struct lc_span){o->name.p, o->name.n};
	o->p.entry = (struct lc_span){o->entry.p, o->entry.n};
	*out = o;
	return 0;
}

/* how: what is known before anything was found. */
static int
find_once(const struct finding *how, int (*find)(struct finding *f, struct lc_err *e),
          struct outgoing **out, struct lc_err *e)
{
	struct finding f = *how;
	int rc;

	f.o = lc_alloc(sizeof *f.o);
	if (f.o == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	f.o->s = f.s;
	f.o->lease_fd = -1;
	rc = find(&f, e);
	if (f.old != NULL)
		point_done(f.old);
	lc_free(f.old);
	return finish(&f, rc, out, e);
}

/* Where what was found is dropped it goes with the next one: it is looked for again. */
static int
find_it(const struct finding *how, int (*find)(struct finding *f, struct lc_err *e),
        struct outgoing **out, struct lc_err *e)
{
	const struct timespec pause = {.tv_nsec = DROP_PAUSE_MS * LC_NS_PER_MS};
	struct lc_err err = LC_ERR_INIT;
	unsigned tries = 0;
	int rc;

	while ((rc = find_once(how, find, out, &err)) == LC_EBUSY && ++tries < DROP_TRIES) {
		lc_err_clear(&err);
		(void)nanosleep(&pause, NULL);
	}
	if (rc != 0 && e != NULL && e->code == LC_OK)
		*e = err;
	return rc;
}

static int
next_of(struct store *s, const uint8_t line[16], struct lc_span head, bool fresh,
        const uint8_t *after, struct outgoing **out, struct lc_err *e)
{
	struct finding how = {.s = s, .line = line, .head = head, .fresh = fresh, .after = after};

	return find_it(&how, find_next, out, e);
}

int
outgoing_next(struct store *s, const uint8_t line[16], struct lc_span head, struct outgoing **out,
              struct lc_err *e)
{
	return next_of(s, line, head, false, NULL, out, e);
}

int
outgoing_next_fresh(struct store *s, const uint8_t line[16], struct lc_span head,
                    const uint8_t *after, struct outgoing **out, struct lc_err *e)
{
	return next_of(s, line, head, true, after, out, e);
}

/* There is no place in the log that is to blame. */
static int
build_restart(void *arg, struct lc_buf *payload, struct lc_err *e)
{
	uint8_t body[32] = {0};
	int rc = commit_start(payload, clock_wall_ns(), e);

	memcpy(body + 16, arg, 16);
	return rc != 0
	           ? rc
	           : commit_add(payload, COMMIT_RESTART, (struct lc_span){body, sizeof body}, e);
}

int
outgoing_restart(struct store *s, const uint8_t line[16], struct lc_err *e)
{
	uint8_t id[16];
	bool is;
	int rc = catalog_restarts(s->catalog, line, &is, e);

	memcpy(id, line, sizeof id);
	return rc != 0 || is || !s->writable ? rc : store_commit(s, build_restart, id, e);
}

static int
take_newest(void *arg, const struct catalog_point *cp, struct lc_err *e)
{
	struct finding *f = arg;
	struct outgoing *o = f->o;

	if ((cp->flags & (POINT_SEED | POINT_MAP_DAMAGED)) != 0)
		return 0;
	f->found = true;
	memcpy(o->p.id, cp->id, 16);
	memcpy(o->p.vm, cp->vm, 16);
	memcpy(o->p.line, cp->line, 16);
	o->entry.n = 0;
	return lc_buf_append(&o->entry, cp->entry.p, cp->entry.n) == 0
	           ? 0
	           : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

static int
find_newest(struct finding *f, struct lc_err *e)
{
	struct find_name name = {.vm = f->o->p.vm, .out = &f->o->name};
	struct point *p = lc_alloc(sizeof *p);
	struct lc_span sealed;
	size_t i;
	int rc = p == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	                   : catalog_each_point(f->s->catalog, f->line, take_newest, f, e);

	if (rc == 0 && !f->found)
		rc = LC_ENOENT;
	rc = rc != 0 ? rc
	             : point_decode((struct lc_span){f->o->entry.p, f->o->entry.n}, p, &sealed, e);
	for (i = 0; rc == 0 && i < p->ndisks; i++) {
		memcpy(f->o->disks[i].id, p->disks[i].id, 16);
		f->o->disks[i].windows = point_windows(p->disks[i].size);
		f->o->ndisks = i + 1;
	}
	f->o->whole = f->o->no_zeros = true;
	lc_free(p);
	rc = rc != 0 ? rc : hold(f->o, e);
	return rc != 0 ? rc : catalog_each_vm(f->s->catalog, take_name, &name, e);
}

int
outgoing_newest(struct store *s, const uint8_t line[16], struct outgoing **out, struct lc_err *e)
{
	struct finding how = {.s = s, .line = line};

	return find_it(&how, find_newest, out, e);
}

/* ---- points in the making ---- */

void
transfer_making(struct store *s, struct transfer_making *list, size_t *n)
{
	const struct seed *seed;
	const struct writer *w;
	size_t i;

	*n = 0;
	(void)pthread_mutex_lock(&s->writers_lock);
	for (seed = s->seeds; seed != NULL && *n < TRANSFER_MAKING_MAX; seed = seed->next) {
		memcpy(list[*n].line, seed->line, 16);
		memcpy(list[*n].vm, seed->vm, 16);
		memcpy(list[*n].point, seed->id, 16);
		memcpy(list[*n].seed, seed->id, 16);
		++*n;
	}
	for (w = s->writers; w != NULL; w = w->next) {
		for (i = 0; i < *n && memcmp(list[i].line, w->line, 16) != 0; i++)
			;
		if (!w->large || i == TRANSFER_MAKING_MAX)
			continue;
		if (i == *n)
			list[(*n)++] = (struct transfer_making){.line = {0}};
		memcpy(list[i].line, w->line, 16);
		memcpy(list[i].vm, w->vm_id, 16);
		memcpy(list[i].point, w->id, 16);
	}
	(void)pthread_mutex_unlock(&s->writers_lock);
}

static int
id_of_entry(struct lc_span entry, uint8_t id[16], struct lc_err *e)
{
	struct point *p = lc_alloc(sizeof *p);
	struct lc_span sealed;
	int rc;

	if (p == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = point_decode(entry, p, &sealed, e);
	if (rc == 0)
		memcpy(id, p->id, 16);
	lc_free(p);
	return rc;
}

int
outgoing_made(struct store *s, const struct transfer_making *m, struct lc_span head,
              struct outgoing **out, struct lc_err *e)
{
	struct outgoing *o = lc_alloc(sizeof *o);
	int rc;

	if (o == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	o->s = s;
	o->lease_fd = -1;
	o->made = true;
	memcpy(o->seed, m->seed, 16);
	memcpy(o->p.id, m->point, 16);
	memcpy(o->p.vm, m->vm, 16);
	memcpy(o->p.line, m->line, 16);
	rc = head.n == 0 ? 0 : id_of_entry(head, o->p.base, e);
	if (rc != 0)
		outgoing_free(o);
	else
		*out = o;
	return rc;
}

/* Where the rows of a disk that were given end: at first behind those of the disk before. */
static struct made_disk *
made_disk(struct outgoing *o, uint64_t no)
{
	size_t i;

	for (i = 0; i < o->nmade; i++) {
		if (o->made_disks[i].no == no)
			return &o->made_disks[i];
	}
	if (o->nmade == POINT_DISKS_MAX)
		return NULL;
	o->made_disks[o->nmade] = (struct made_disk){
	    .no = no, .disk = no - 1, .window = MAP_WINDOW_MAX};
	return &o->made_disks[o->nmade++];
}

/* It is over, too, where the next pass took its rows over: then that one's are to come. */
static int
seed_rows(struct outgoing *o, struct map_record *m, size_t max)
{
	m->n = 0;
	if (lc_is_zero(o->seed, sizeof o->seed))
		return LC_ENOENT;
	if (catalog_rows(o->s->catalog, o->seed, &o->disk, &o->window, max, m, NULL) == 0 &&
	    m->n > 0)
		return 0;
	memset(o->seed, 0, sizeof o->seed);
	return LC_ENOENT;
}

/* Disks are read side by side, so each has a place of its own. */
static int
made_rows(struct outgoing *o, struct map_record *m, size_t max, struct lc_err *e)
{
	struct catalog *c = o->s->catalog;
	struct made_disk *d, next;
	uint64_t disk = 0, window;
	int rc;

	if (seed_rows(o, m, max) == 0)
		return 0;
	for (;;) {
		window = MAP_WINDOW_MAX; /* the next disk that has rows */
		rc = catalog_rows_made(c, o->p.id, &disk, &window, 1, m, e);
		d = rc != 0 || m->n == 0 ? NULL : made_disk(o, disk);
		if (d == NULL)
			break;
		next = *d;
		rc = catalog_rows_made(c, o->p.id, &next.disk, &next.window, max, m, e);
		if (rc != 0)
			break;
		if (m->n > 0 && next.disk == disk) {
			*d = next;
			return 0;
		}
	}
	m->n = 0;
	return rc;
}

const struct transfer_point *
outgoing_point(const struct outgoing *o)
{
	return &o->p;
}

/* ---- its content ---- */

static int
some_rows(struct outgoing *o, struct map_record *m, size_t max, bool *over, struct lc_err *e)
{
	const struct whole_disk *d;
	size_t i;
	int rc;

	m->n = 0;
	*over = false;
	while (o->disk < o->ndisks && o->window >= o->disks[o->disk].windows) {
		o->disk++;
		o->window = 0;
	}
	*over = o->disk == o->ndisks;
	if (*over)
		return 0;
	d = &o->disks[o->disk];
	max = max < MAP_ROWS_MAX ? max : MAP_ROWS_MAX;
	if (max > d->windows - o->window)
		max = (size_t)(d->windows - o->window);
	memcpy(m->disk, d->id, sizeof m->disk);
	rc = catalog_map(o->s->catalog, o->p.id, d->id, o->window, (uint32_t)max, o->chunks, e);
	rc = rc != 0 ? rc : catalog_chunk_ids(o->s->catalog, o->chunks, (uint32_t)max, o->ids, e);
	for (i = 0; rc == 0 && i < max; i++) {
		struct map_row *r = &m->rows[m->n];

		if (o->no_zeros && o->chunks[i] == 0)
			continue;
		r->window = o->window + i;
		r->chunk = o->chunks[i];
		memcpy(r->id, o->ids[i], sizeof r->id);
		m->n++;
	}
	o->window += max;
	return rc;
}

static int
whole_rows(struct outgoing *o, struct map_record *m, size_t max, struct lc_err *e)
{
	bool over = false;
	int rc = 0;

	do
		rc = some_rows(o, m, max, &over, e);
	while (rc == 0 && m->n == 0 && !over);
	return rc;
}

int
outgoing_rows(struct outgoing *o, struct map_record *m, size_t max, struct lc_err *e)
{
	int rc = o->whole  ? whole_rows(o, m, max, e)
	         : o->made ? made_rows(o, m, max, e)
	                   : catalog_rows(o->s->catalog, o->p.id, &o->disk, &o->window, max, m, e);

	memcpy(m->point, o->p.id, 16);
	memcpy(m->line, o->p.line, 16);
	return rc;
}

void
outgoing_free(struct outgoing *o)
{
	if (o == NULL)
		return;
	lease_give(&o->lease, &o->lease_fd);
	lc_buf_free(&o->name);
	lc_buf_free(&o->entry);
	lc_free(o->chunks);
	lc_free(o->ids);
	lc_free(o);
}
