/*
 * The answer is one line:
 *
 *   {"return": {"edges": [{"name": "root", "parent": 5, "child": 2, "perm": ["write", ...], ...},
 * ...], "nodes": [{"name": "n0", "type": "block-driver", "id": 2}, ...]}, ...}
 *
 * with keys and elements in any order.  Nodes and edges hold no objects, so it is read object by
 * object: whatever is between a brace that opens and the next one of either kind.
 */
#include <stdint.h>
#include <string.h>

#include "agent/hypervisor/guard_graph.h"

struct text { /* borrowed, without an end */
	const char *p;
	size_t n;
};

struct object {
	struct text name, type;
	uint64_t id, parent, child; /* 0, which QEMU never uses: not there */
};

struct cursor {
	const char *p, *end;
};

static bool
is(struct text t, const char *s)
{
	return t.n == strlen(s) && memcmp(t.p, s, t.n) == 0;
}

/* The rest of a string; the cursor is behind its first quote and ends behind its last. */
static struct text
string(struct cursor *c)
{
	struct text t = {.p = c->p};

	while (c->p < c->end && *c->p != '"') {
		if (*c->p == '\\' && c->end - c->p > 1)
			c->p++;
		c->p++;
	}
	t.n = (size_t)(c->p - t.p);
	if (c->p < c->end)
		c->p++;
	return t;
}

static uint64_t
number(struct cursor *c)
{
	uint64_t v = 0;

	for (; c->p < c->end && *c->p >= '0' && *c->p <= '9'; c->p++)
		v = v > UINT64_MAX / 100 ? 0 : v * 10 + (uint64_t)(*c->p - '0');
	return v;
}

static bool
is_key(struct cursor *c)
{
	while (c->p < c->end && *c->p == ' ')
		c->p++;
	return c->p < c->end && *c->p == ':';
}

static void
put_string(struct object *o, struct text key, struct text v)
{
	if (is(key, "name"))
		o->name = v;
	else if (is(key, "type"))
		o->type = v;
}

static void
put_number(struct object *o, struct text key, uint64_t v)
{
	if (is(key, "id"))
		o->id = v;
	else if (is(key, "parent"))
		o->parent = v;
	else if (is(key, "child"))
		o->child = v;
}

/* The next object that holds none; false at the end of the text. */
static bool
next(struct cursor *c, struct object *o)
{
	struct text key = {.p = ""}, t;

	*o = (struct object){.name = {.p = ""}, .type = {.p = ""}};
	while (c->p < c->end) {
		char ch = *c->p;

		if (ch >= '0' && ch <= '9') {
			put_number(o, key, number(c));
			continue;
		}
		c->p++;
		if (ch == '{')
			*o = (struct object){.name = {.p = ""}, .type = {.p = ""}};
		else if (ch == '}')
			return true;
		if (ch != '"')
			continue;
		t = string(c);
		if (is_key(c))
			key = t;
		else
			put_string(o, key, t);
	}
	return false;
}

/* Number of the image node of that name, or 0. */
static uint64_t
find(struct cursor c, const char *name)
{
	struct object o;

	while (next(&c, &o)) {
		if (is(o.name, name) && is(o.type, "block-driver"))
			return o.id;
	}
	return 0;
}

static bool
is_device(struct cursor c, uint64_t id)
{
	struct object o;

	while (next(&c, &o)) {
		if (o.id == id && is(o.type, "block-backend"))
			return true;
	}
	return false;
}

bool
guard_graph_has(const char *p, size_t n, const char *parent, const char *edge, const char *child)
{
	struct cursor all = {.p = p, .end = p + n}, c = all;
	uint64_t from = parent == NULL ? 0 : find(all, parent), to = find(all, child);
	struct object o;

	if (to == 0 || (parent != NULL && from == 0))
		return false;
	while (next(&c, &o)) {
		if (!is(o.name, edge) || o.child != to || o.parent == 0)
			continue;
		if (parent == NULL ? is_device(all, o.parent) : o.parent == from)
			return true;
	}
	return false;
}

bool
guard_graph_prefix(const char *p, size_t n, const char *prefix)
{
	struct cursor c = {.p = p, .end = p + n};
	size_t k = strlen(prefix);
	struct object o;

	while (next(&c, &o)) {
		if (is(o.type, "block-driver") && o.name.n >= k && memcmp(o.name.p, prefix, k) == 0)
			return true;
	}
	return false;
}
