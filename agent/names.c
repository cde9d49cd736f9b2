#include <jansson.h>
#include <string.h>

#include "agent/names.h"
#include "replicator/writers.h"
#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/store.h"

/* The VM of that id, or NULL. */
static const struct store_vm *
find(const struct store_vm *vms, size_t n, const char *hex)
{
	uint8_t id[16];
	size_t i;

	if (hex == NULL || !lc_unhex(id, sizeof id, hex))
		return NULL;
	for (i = 0; i < n; i++) {
		if (memcmp(vms[i].id, id, sizeof id) == 0)
			return &vms[i];
	}
	return NULL;
}

static void
name_vms(json_t *host, struct store *s)
{
	struct store_vm *vms = NULL;
	size_t i, n = 0;
	json_t *x;

	if (store_vms(s, &vms, &n, NULL) != 0)
		return;
	json_array_foreach(json_object_get(host, "vms"), i, x)
	{
		const struct store_vm *vm = find(vms, n,
		                                 json_string_value(json_object_get(x, "vm")));

		if (vm != NULL)
			(void)json_object_set_new(x, "name", json_string(vm->name));
	}
	lc_free(vms);
}

static void
name_host(json_t *host, const struct writer_entry *w, const char *dir, const char *key_dir)
{
	char *path = path_join(dir, w->store);
	struct store_opts o = {.dir = path, .key_dir = key_dir, .who = "locum status"};
	struct store *s = NULL;

	if (path != NULL && store_open(&o, &s, NULL) == 0) {
		name_vms(host, s);
		store_close(s);
	}
	(void)json_object_set_new(host, "locked", json_boolean(s == NULL));
	lc_free(path);
}

void
names_add(json_t *doc, const char *dir, const char *key_dir)
{
	struct writer_entry *list = NULL;
	char print[FINGERPRINT_MAX];
	size_t i, j, n = 0;
	json_t *host;

	if (writers_list(dir, &list, &n, NULL) != 0)
		return;
	json_array_foreach(json_object_get(doc, "hosts"), i, host)
	{
		const char *want = json_string_value(json_object_get(host, "fingerprint"));

		for (j = 0; want != NULL && j < n; j++) {
			if (strcmp(fingerprint(print, list[j].key), want) == 0)
				name_host(host, &list[j], dir, key_dir);
		}
	}
	lc_free(list);
}
