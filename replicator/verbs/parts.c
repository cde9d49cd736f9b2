#include <stdio.h>
#include <string.h>

#include "replicator/verbs/parts.h"
#include "store/base/bytes.h"
#include "store/store.h"
#include "store/transfer.h"

struct part_vm {
	uint8_t id[16];
	unsigned writer;
};

struct looking {
	struct parts *out;
	const uint8_t (*only)[16];
	size_t n;
};

static int
note(void *arg, const struct transfer_line *l, struct lc_err *e)
{
	const struct looking *x = arg;
	const struct part_vm *had = (const struct part_vm *)(const void *)x->out->all.p;
	struct part_vm vm = {.writer = l->writer};
	size_t i;

	for (i = 0; i < x->n && memcmp(x->only[i], l->vm, 16) != 0; i++)
		continue;
	if (x->n > 0 && i == x->n)
		return 0;
	for (i = 0; i < x->out->all.n / sizeof vm; i++) { /* it may have several lines */
		if (memcmp(had[i].id, l->vm, 16) == 0)
			return 0;
	}
	memcpy(vm.id, l->vm, 16);
	return lc_buf_append(&x->out->all, &vm, sizeof vm) == 0
	           ? 0
	           : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

int
parts_of(struct store *s, const uint8_t (*only)[16], size_t n, struct parts *out, struct lc_err *e)
{
	struct looking x = {out, only, n};

	*out = (struct parts){.all = {0}};
	return transfer_lines(s, note, &x, e);
}

bool
parts_next(const struct parts *p, unsigned *writer, uint8_t (**vms)[16], size_t *n)
{
	const struct part_vm *all = (const struct part_vm *)(const void *)p->all.p;
	size_t i, count = p->all.n / sizeof *all;
	unsigned next = 0;
	bool some = false;

	for (i = 0; i < count; i++) {
		if (all[i].writer >= *writer && (!some || all[i].writer < next)) {
			next = all[i].writer;
			some = true;
		}
	}
	if (!some)
		return false;
	*writer = next;
	*n = 0;
	*vms = lc_alloc_array(count, sizeof **vms);
	for (i = 0; *vms != NULL && i < count; i++) {
		if (all[i].writer == next)
			memcpy((*vms)[(*n)++], all[i].id, 16);
	}
	return true;
}

void
parts_done(struct parts *p)
{
	lc_buf_free(&p->all);
}

void
parts_vm(struct store *s, const uint8_t vm[16], char text[POINT_NAME_MAX])
{
	struct store_vm *list = NULL;
	size_t i, n = 0;
	char hex[33];

	(void)snprintf(text, POINT_NAME_MAX, "%.8s", lc_hex(hex, vm, 16));
	if (store_vms(s, &list, &n, NULL) != 0)
		return;
	for (i = 0; i < n; i++) {
		if (memcmp(list[i].id, vm, 16) == 0 && strcmp(list[i].name, hex) != 0)
			(void)snprintf(text, POINT_NAME_MAX, "%s", list[i].name);
	}
	lc_free(list);
}
