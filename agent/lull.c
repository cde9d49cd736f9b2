#include "agent/hypervisor/definition.h"
#include "agent/hypervisor/hypervisor.h"
#include "agent/lull.h"
#include "store/base/memory.h"
#include "store/store.h"

struct lull {
	struct hv_memo *memo;
	struct point point; /* without its texts */
	bool known;
};

struct lull *
lull_new(void)
{
	struct lull *l = lc_alloc(sizeof *l);

	if (l != NULL)
		l->memo = hv_memo_new();
	if (l != NULL && l->memo != NULL)
		return l;
	lc_free(l);
	return NULL;
}

void
lull_free(struct lull *l)
{
	if (l == NULL)
		return;
	hv_memo_free(l->memo);
	lc_free(l);
}

struct hv_memo *
lull_memo(struct lull *l)
{
	return l->memo;
}

bool
lull_known(const struct lull *l)
{
	return l->known;
}

void
lull_forget(struct lull *l)
{
	l->known = false;
}

/* A file of a direct boot is exchanged without the VM. */
static bool
boots_files(const struct definition *def)
{
	return def == NULL || definition_role(def, HV_ROLE_KERNEL) != NULL ||
	       definition_role(def, HV_ROLE_INITRD) != NULL;
}

void
lull_begin(struct lull *l, struct hv *hv, const struct point *base)
{
	l->known = !boots_files(hv_vm(hv)->def) && hv_note(hv);
	l->point = *base;
	l->point.definition = NULL;
	l->point.left_out = NULL;
}

bool
lull_lasts(const struct lull *l, struct store *store)
{
	return l->known && store_stands(store, &l->point);
}

const struct point *
lull_point(const struct lull *l)
{
	return &l->point;
}
