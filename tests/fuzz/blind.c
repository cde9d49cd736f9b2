#include <stdlib.h>
#include <unistd.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/transfer.h"
#include "tests/fuzz/blind.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/vectors_keys.h"

#define RUNS 5000u

static struct store *store;
static char top[48];

static void
clean_up(void)
{
	if (store == NULL)
		return;
	store_close(store);
	store = NULL;
	dir_remove(top);
}

static void
begin(void)
{
	const struct lc_span keys = {vector_keys, sizeof vector_keys};
	char dir[64];
	struct store_opts o = {.mode = STORE_WRITE, .no_key = true, .dir = dir};
	struct lc_err e = LC_ERR_INIT;

	log_set_level(LOG_LV_ERROR);
	(void)snprintf(top, sizeof top, "%s/locum-fuzz-XXXXXX",
	               access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	fuzz_check(mkdtemp(top) != NULL);
	(void)snprintf(dir, sizeof dir, "%s/store", top);
	fuzz_check(transfer_make(dir, keys, &e) == 0);
	fuzz_check(store_open(&o, &store, &e) == 0);
}

struct store *
blind_store(bool *is_new)
{
	static bool registered;
	static unsigned runs;

	if (!registered)
		registered = atexit(clean_up) == 0;
	if (is_new != NULL)
		*is_new = runs % RUNS == 0;
	if (runs++ % RUNS == 0) {
		clean_up();
		begin();
	}
	return store;
}

bool
blind_message(struct lc_span *all, uint16_t *type, struct lc_span *body)
{
	size_t n;

	if (all->n < 3)
		return false;
	*type = all->p[0];
	n = lc_get16(all->p + 1);
	n = n < all->n - 3 ? n : all->n - 3;
	*body = (struct lc_span){all->p + 3, n};
	all->p += 3 + n;
	all->n -= 3 + n;
	return true;
}
