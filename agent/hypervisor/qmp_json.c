/*
 * What QEMU says, as JSON: values to send and to look into, and the parser of one line.
 *
 * jansson keeps its own malloc(): its parser asserts where an allocation fails (2.14), so failing
 * those on purpose would test nothing of ours.
 */
#include <stdarg.h>
#include <string.h>

#include <jansson.h>

#include "agent/hypervisor/qmp.h"

/* ---- values ---- */

struct json_t *
qmp_pack(const char *fmt, ...)
{
	va_list ap;
	json_t *v;

	va_start(ap, fmt);
	v = json_vpack_ex(NULL, 0, fmt, ap);
	va_end(ap);
	return v;
}

struct json_t *
qmp_none(void)
{
	return json_object();
}

struct json_t *
qmp_list(void)
{
	return json_array();
}

bool
qmp_list_add(struct json_t *list, struct json_t *v)
{
	if (list == NULL) {
		json_decref(v);
		return false;
	}
	return json_array_append_new(list, v) == 0;
}

struct json_t *
qmp_flags(const char *const *keys, size_t n, bool value)
{
	json_t *v = json_object();
	size_t i;

	for (i = 0; v != NULL && i < n; i++) {
		if (json_object_set_new(v, keys[i], json_boolean(value)) == 0)
			continue;
		json_decref(v);
		v = NULL;
	}
	return v;
}

struct json_t *
qmp_copy(const struct json_t *v)
{
	return v == NULL ? NULL : json_deep_copy(v);
}

void
qmp_list_free(struct json_t *list)
{
	json_decref(list);
}

const struct json_t *
qmp_get(const struct json_t *v, const char *path)
{
	while (v != NULL && *path != '\0') {
		size_t n = strcspn(path, ".");
		char key[64];

		if (n >= sizeof key)
			return NULL;
		memcpy(key, path, n);
		key[n] = '\0';
		v = json_object_get(v, key);
		path += n + (path[n] == '.' ? 1 : 0);
	}
	return v;
}

const char *
qmp_str(const struct json_t *v, const char *path)
{
	return json_string_value(qmp_get(v, path));
}

bool
qmp_u64(const struct json_t *v, const char *path, uint64_t *out)
{
	const json_t *n = qmp_get(v, path);

	if (!json_is_integer(n) || json_integer_value(n) < 0)
		return false;
	*out = (uint64_t)json_integer_value(n);
	return true;
}

bool
qmp_true(const struct json_t *v, const char *path)
{
	return json_is_true(qmp_get(v, path));
}

bool
qmp_flag(const struct json_t *v, const char *key, bool *out)
{
	const json_t *flag = json_object_get(v, key);

	if (!json_is_boolean(flag))
		return false;
	*out = json_is_true(flag);
	return true;
}

size_t
qmp_count(const struct json_t *v)
{
	return json_array_size(v);
}

const struct json_t *
qmp_at(const struct json_t *v, size_t i)
{
	return json_array_get(v, i);
}

/* ---- lines ---- */

void
qmp_message_done(struct qmp_message *m)
{
	json_decref(m->root);
	*m = (struct qmp_message){0};
}

static int64_t
event_time(const json_t *ts)
{
	uint64_t s = 0, us = 0;

	(void)qmp_u64(ts, "seconds", &s);
	(void)qmp_u64(ts, "microseconds", &us);
	return s < UINT32_MAX * UINT64_C(4) && us < 1000000 ? (int64_t)(s * 1000000 + us) : 0;
}

/* What kind of message root is; the rest of m is filled.  False: none. */
static bool
classify(struct qmp_message *m)
{
	json_t *root = m->root, *v;

	if ((v = json_object_get(root, "QMP")) != NULL) {
		m->kind = QMP_GREETING;
		m->body = json_object_get(v, "version");
		return json_is_object(m->body);
	}
	if ((v = json_object_get(root, "event")) != NULL) {
		m->kind = QMP_EVENT;
		m->event = json_string_value(v);
		m->body = json_object_get(root, "data");
		m->at_us = event_time(json_object_get(root, "timestamp"));
		return m->event != NULL;
	}
	v = json_object_get(root, "id");
	if (json_is_integer(v) && json_integer_value(v) > 0)
		m->id = (uint64_t)json_integer_value(v);
	if ((v = json_object_get(root, "return")) != NULL) {
		m->kind = QMP_RETURN;
		m->body = v;
		return json_object_get(root, "error") == NULL;
	}
	m->kind = QMP_ERROR;
	m->body = json_object_get(root, "error");
	return json_is_string(json_object_get(m->body, "desc"));
}

int
qmp_parse(const char *p, size_t n, struct qmp_message *out, struct lc_err *e)
{
	json_error_t why;

	*out = (struct qmp_message){0};
	if (n > QMP_LINE_MAX)
		return lc_fail(e, LC_EPEER, 0, "message of more than %u bytes", QMP_LINE_MAX);
	out->root = json_loadb(p, n, JSON_REJECT_DUPLICATES, &why);
	if (out->root == NULL && json_error_code(&why) == json_error_out_of_memory)
		return lc_fail(e, LC_ENOMEM, 0, "message of %zu bytes: out of memory", n);
	if (out->root == NULL)
		return lc_fail(e, LC_EPEER, 0, "bad message: %s at byte %d", why.text,
		               why.position);
	if (!classify(out)) {
		qmp_message_done(out);
		return lc_fail(e, LC_EPEER, 0, "message that is no greeting, event or answer");
	}
	return 0;
}
