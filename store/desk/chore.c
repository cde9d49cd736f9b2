#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/desk/chore.h"
#include "store/desk/desk.h"

/* A point is read for a moment while it is sent on. */
#define READER_WAIT_NS (2 * LC_NS_PER_S)
#define READER_PAUSE_MS 50

static const char *const verbs[] = {"drop", "condemn", "lend"};
#define VERBS (sizeof verbs / sizeof verbs[0])

static json_t *
place_list(const struct lc_buf *places)
{
	const struct damage *d = (const struct damage *)(const void *)places->p;
	json_t *list = json_array();
	size_t i;

	for (i = 0; i < places->n / sizeof *d; i++)
		(void)json_array_append_new(
		    list, json_pack("[I, i, I, I, I]", (json_int_t)d[i].segment, d[i].type,
		                    (json_int_t)d[i].seq, (json_int_t)d[i].offset,
		                    (json_int_t)d[i].length));
	return list;
}

int
chore_encode(const struct chore *c, struct lc_buf *out, struct lc_err *e)
{
	json_t *o = json_pack("{s:i, s:s, s:s, s:s}", "locum", DESK_VERSION, "store", c->store,
	                      "who", c->who, "verb", verbs[c->verb]);
	char hex[2 * POINT_ID_SIZE + 1], *text = NULL;
	int rc = 0;

	if (o != NULL && c->verb == CHORE_DROP)
		(void)json_object_set_new(o, "point",
		                          json_string(lc_hex(hex, c->point, POINT_ID_SIZE)));
	if (o != NULL && c->verb == CHORE_CONDEMN)
		(void)json_object_set_new(o, "places", place_list(&c->places));
	if (o != NULL)
		text = json_dumps(o, JSON_COMPACT);
	if (text == NULL || lc_buf_append(out, text, strlen(text)) != 0 ||
	    lc_buf_append(out, "\n", 1) != 0)
		rc = lc_fail(e, LC_ENOMEM, 0, "the request can't be written");
	json_decref(o);
	free(text);
	return rc;
}

static int
take_places(const json_t *list, struct chore *c, struct lc_err *e)
{
	size_t i;

	if (!json_is_array(list) || json_array_size(list) > DESK_PLACES_MAX)
		return lc_fail(e, LC_EINVAL, 0, "no places, or too many");
	for (i = 0; i < json_array_size(list); i++) {
		const json_t *x = json_array_get(list, i);
		struct damage d = {
		    .segment = (uint64_t)json_integer_value(json_array_get(x, 0)),
		    .type = (int)json_integer_value(json_array_get(x, 1)),
		    .seq = (uint64_t)json_integer_value(json_array_get(x, 2)),
		    .offset = (uint64_t)json_integer_value(json_array_get(x, 3)),
		    .length = (uint64_t)json_integer_value(json_array_get(x, 4)),
		};

		if (lc_buf_append(&c->places, &d, sizeof d) != 0)
			return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	return 0;
}

static int
take_object(const json_t *o, struct chore *c, struct lc_err *e)
{
	const char *verb = json_string_value(json_object_get(o, "verb"));
	const char *store = json_string_value(json_object_get(o, "store"));
	const char *who = json_string_value(json_object_get(o, "who"));
	const char *point = json_string_value(json_object_get(o, "point"));
	size_t i;

	if (json_integer_value(json_object_get(o, "locum")) != DESK_VERSION)
		return lc_fail(e, LC_ENOTSUP, 0, "it is of another version of locum");
	for (i = 0; i < VERBS && (verb == NULL || strcmp(verbs[i], verb) != 0); i++)
		;
	if (i == VERBS)
		return lc_fail(e, LC_ENOTSUP, 0, "it does not do that for others");
	c->verb = (enum chore_verb)i;
	c->store = lc_strdup(store);
	c->who = lc_strdup(who);
	if (c->store == NULL || c->who == NULL)
		return lc_fail(e, LC_EINVAL, 0, "the request is not understood");
	if (c->verb == CHORE_DROP && (point == NULL || !lc_unhex(c->point, POINT_ID_SIZE, point)))
		return lc_fail(e, LC_EINVAL, 0, "the request names no point");
	return c->verb == CHORE_CONDEMN ? take_places(json_object_get(o, "places"), c, e) : 0;
}

int
chore_decode(const char *p, size_t n, struct chore *c, struct lc_err *e)
{
	json_t *o = json_loadb(p, n, JSON_REJECT_DUPLICATES, NULL);
	int rc;

	*c = (struct chore){0};
	rc = json_is_object(o) ? take_object(o, c, e)
	                       : lc_fail(e, LC_EINVAL, 0, "the request is not understood");
	json_decref(o);
	return rc;
}

static int
drop(const struct chore *c, struct store *s, struct lc_err *e)
{
	const struct timespec pause = {.tv_nsec = READER_PAUSE_MS * LC_NS_PER_MS};
	int64_t until = clock_mono_ns() + READER_WAIT_NS;
	struct lc_err err = LC_ERR_INIT;
	int rc;

	while ((rc = store_drop(s, c->point, &err)) == LC_EBUSY && clock_mono_ns() < until) {
		lc_err_clear(&err);
		(void)nanosleep(&pause, NULL);
	}
	if (rc != 0 && e != NULL)
		*e = err;
	return rc;
}

int
chore_do(const struct chore *c, struct store *s, uint64_t *condemned, struct lc_err *e)
{
	*condemned = 0;
	if (c->verb == CHORE_DROP)
		return drop(c, s, e);
	return store_condemn(s, (const struct damage *)(const void *)c->places.p,
	                     c->places.n / sizeof(struct damage), condemned, e);
}

void
chore_done(struct chore *c)
{
	lc_free(c->store);
	lc_free(c->who);
	lc_buf_free(&c->places);
	*c = (struct chore){0};
}
