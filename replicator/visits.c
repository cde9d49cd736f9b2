#include <inttypes.h>
#include <unistd.h>

#include "replicator/visits.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/config.h"
#include "store/base/files.h"
#include "store/base/memory.h"

#define HOUR_NS (3600 * LC_NS_PER_S)
#define WEEK_NS (168 * HOUR_NS)
#define UNKNOWN_NS (26 * HOUR_NS)
#define MONTH_NS (768 * HOUR_NS)
#define SLACK_NS (600 * LC_NS_PER_S) /* a run may take longer than the one before */

void
visits_command(struct visits *v, int64_t now_ns)
{
	int64_t gap = v->last_ns == 0 || now_ns < v->last_ns ? 0 : now_ns - v->last_ns;
	int64_t most = v->usual_ns == 0 ? MONTH_NS : 4 * v->usual_ns;

	/* One gap alone says little: the host was away, or a clock was years ahead. */
	gap = gap < most ? gap : most;
	/* Up at once, down slowly: who comes on workdays is not late on Sunday. */
	if (gap > v->usual_ns)
		v->usual_ns = gap;
	else if (gap > 0)
		v->usual_ns -= (v->usual_ns - gap) / 8;
	v->last_ns = now_ns;
}

void
visits_agent(struct visits *v, int64_t now_ns)
{
	*v = (struct visits){.agent_ns = now_ns};
}

bool
visits_by_command(const struct visits *v, int64_t now_ns)
{
	return v->last_ns != 0 && (v->agent_ns == 0 || now_ns - v->agent_ns > WEEK_NS);
}

bool
visits_late(const struct visits *v, int64_t now_ns)
{
	int64_t may = v->usual_ns == 0 ? UNKNOWN_NS : 2 * v->usual_ns + SLACK_NS;

	return now_ns - v->last_ns > may;
}

/* ---- the file ---- */

static char *
file_of(const char *dir, const uint8_t key[CHANNEL_KEY_SIZE])
{
	char hex[2 * CHANNEL_KEY_SIZE + 1];

	return lc_asprintf("%s/visits/%s", dir, lc_hex(hex, key, CHANNEL_KEY_SIZE));
}

static int64_t
time_of(const struct config *c, const char *key)
{
	const char *text = config_get(c, "", "", key);
	uint64_t ns = 0;

	return text == NULL || !config_uint(text, &ns) || ns > INT64_MAX / 4 ? 0 : (int64_t)ns;
}

void
visits_load(const char *dir, const uint8_t key[CHANNEL_KEY_SIZE], struct visits *out)
{
	char *path = file_of(dir, key);
	struct config *c = NULL;

	*out = (struct visits){0};
	if (path != NULL && access(path, F_OK) == 0 && config_load(path, &c, NULL) == 0) {
		out->last_ns = time_of(c, "last_ns");
		out->usual_ns = time_of(c, "usual_ns");
		out->agent_ns = time_of(c, "agent_ns");
	}
	config_free(c);
	lc_free(path);
}

int
visits_save(const char *dir, const uint8_t key[CHANNEL_KEY_SIZE], const struct visits *v,
            struct lc_err *e)
{
	char *folder = path_join(dir, "visits"), *path = file_of(dir, key);
	struct lc_buf text = {0};
	int rc;

	if (folder == NULL || path == NULL ||
	    lc_buf_printf(&text,
	                  "# when this host came by last; made by locum\n"
	                  "last_ns = %" PRId64 "\nusual_ns = %" PRId64 "\nagent_ns = %" PRId64 "\n",
	                  v->last_ns, v->usual_ns, v->agent_ns) != 0)
		rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	else
		rc = dir_make(folder, 0700, e);
	rc = rc != 0 ? rc : file_write_atomic(path, text.p, text.n, 0600, e);
	lc_buf_free(&text);
	lc_free(folder);
	lc_free(path);
	return rc;
}
