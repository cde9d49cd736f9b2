#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/base/memory.h"

#include "agent/hypervisor/domains.h"
#include "agent/hypervisor/launch_talk.h"
#include "agent/hypervisor/relay.h"

/* One question.  *b holds its answer and dies with *t. */
static int
ask(const struct domains_at *at, const char *command, struct json_t *args, struct talk **t,
    struct qmp_batch **b, struct lc_err *e)
{
	const struct qmp_opts o = {.libvirt = at->uri,
	                           .connect_timeout_ms = at->connect_timeout_ms,
	                           .command_timeout_ms = at->command_timeout_ms};
	int rc = talk_open_opts(&o, t, e);

	*b = NULL;
	if (rc != 0) {
		qmp_list_free(args);
		return rc;
	}
	*b = talk_batch(*t);
	if (*b == NULL) {
		qmp_list_free(args);
		return lc_fail(e, LC_ENOMEM, 0, "libvirt: out of memory");
	}
	(void)qmp_batch_add(*b, command, args);
	return talk_run(*t, *b, e);
}

static int
compare(const void *a, const void *b)
{
	const struct domain *x = a, *y = b;

	return strcmp(x->name, y->name);
}

int
domains_list(const struct domains_at *at, struct domain **out, size_t *n, struct lc_err *e)
{
	struct talk *t = NULL;
	struct qmp_batch *b = NULL;
	const struct json_t *list;
	int rc = ask(at, RELAY_DOMAINS, qmp_none(), &t, &b, e);
	size_t i, count;

	*out = NULL;
	*n = 0;
	list = rc == 0 ? qmp_reply(b, 0) : NULL;
	count = qmp_count(list);
	if (count > 0) {
		*out = lc_alloc_array(count, sizeof **out);
		if (*out == NULL)
			rc = lc_fail(e, LC_ENOMEM, 0, "libvirt: out of memory");
	}
	for (i = 0; rc == 0 && *out != NULL && i < count; i++) {
		const struct json_t *v = qmp_at(list, i);
		const char *name = qmp_str(v, "name"), *uuid = qmp_str(v, "uuid");
		const char *state = qmp_str(v, "state");
		struct domain *d = &(*out)[*n];

		if (name == NULL || uuid == NULL || state == NULL)
			continue;
		d->name = lc_strdup(name);
		if (d->name == NULL)
			rc = lc_fail(e, LC_ENOMEM, 0, "libvirt: out of memory");
		(void)snprintf(d->uuid, sizeof d->uuid, "%s", uuid);
		(void)snprintf(d->state, sizeof d->state, "%s", state);
		*n += rc == 0 ? 1 : 0;
	}
	qmp_batch_free(b);
	talk_close(t);
	if (*n > 1)
		qsort(*out, *n, sizeof **out, compare);
	if (rc != 0) {
		domains_free(*out, *n);
		*out = NULL;
		*n = 0;
	}
	return rc;
}

void
domains_free(struct domain *list, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		lc_free(list[i].name);
	lc_free(list);
}

int
domains_define(const struct domains_at *at, const char *xml, struct lc_err *e)
{
	struct talk *t = NULL;
	struct qmp_batch *b = NULL;
	int rc = ask(at, RELAY_DEFINE, qmp_pack("{s:s}", "xml", xml), &t, &b, e);

	qmp_batch_free(b);
	talk_close(t);
	return rc;
}
