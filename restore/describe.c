#include <inttypes.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/base/cli.h"
#include "store/base/clock.h"
#include "store/point.h"
#include "restore/describe.h"

char *
describe_id(const struct point *p, char dst[DESCRIBE_ID_SIZE])
{
	return lc_hex(dst, p->id, POINT_ID_SIZE);
}

char *
describe_short(const struct point *p, char dst[DESCRIBE_ID_SIZE])
{
	return lc_hex(dst, p->id, 4);
}

char *
describe_age(const struct point *p, int64_t now_ns, char *dst, size_t n)
{
	char age[48];

	if (p->source_ns > now_ns)
		(void)snprintf(dst, n, "in the future");
	else
		(void)snprintf(
		    dst, n, "%s ago",
		    clock_format_duration(age, sizeof age, clock_since(now_ns, p->source_ns)));
	return dst;
}

const char *
describe_kind(const struct point *p)
{
	if (!p->opened)
		return "unknown";
	switch ((enum point_consistency)p->consistency) {
	case POINT_CRASH:
		return "crash-consistent";
	case POINT_FROZEN:
		return "frozen";
	case POINT_OFF:
		return "powered off";
	}
	return "unknown";
}

char *
describe_line(const struct point *p, char *dst, size_t n)
{
	char when[32], id[DESCRIBE_ID_SIZE], age[64];

	(void)snprintf(dst, n, "%s@%s (%s, %s, %s)", p->vm,
	               clock_format(when, sizeof when, p->source_ns), describe_short(p, id),
	               describe_age(p, clock_wall_ns(), age, sizeof age), describe_kind(p));
	return dst;
}

void
describe_json(FILE *f, const struct point *p)
{
	static const char *const roles[] = {"disk", "nvram", "kernel", "initrd"};
	char id[DESCRIBE_ID_SIZE], when[32];
	size_t i;

	(void)fputs("{\"vm\":", f);
	cli_json_string(f, p->vm);
	(void)fprintf(f, ",\"vm_id\":\"%s\",\"opened\":%s", lc_hex(id, p->vm_id, 16),
	              p->opened ? "true" : "false");
	(void)fprintf(f, ",\"id\":\"%s\",\"time\":\"%s\"", describe_id(p, id),
	              clock_format_utc(when, sizeof when, p->source_ns));
	(void)fprintf(f, ",\"committed\":\"%s\"",
	              clock_format_utc(when, sizeof when, p->commit_ns));
	(void)fprintf(f,
	              ",\"consistency\":\"%s\",\"pause_ms\":%" PRId64 ",\"counter\":%" PRIu64
	              ",\"epoch\":%" PRIu64,
	              describe_kind(p), p->pause_ns / LC_NS_PER_MS, p->counter, p->epoch);
	(void)fprintf(f, ",\"changed_bytes\":%" PRIu64 ",\"stored_bytes\":%" PRIu64,
	              p->changed * WINDOW_SIZE, p->stored);
	(void)fprintf(f, ",\"map_damaged\":%s,\"disks\":[",
	              (p->flags & POINT_MAP_DAMAGED) != 0 ? "true" : "false");
	for (i = 0; i < p->ndisks; i++) {
		const struct point_disk *d = &p->disks[i];

		(void)fputs(i == 0 ? "{\"name\":" : ",{\"name\":", f);
		cli_json_string(f, d->name);
		(void)fprintf(f, ",\"role\":\"%s\",\"size\":%" PRIu64 "}",
		              d->role < 4 ? roles[d->role] : "unknown", d->size);
	}
	(void)fputs("],\"freeze\":", f);
	if (p->freeze[0] == '\0')
		(void)fputs("null", f);
	else
		cli_json_string(f, p->freeze);
	(void)fputs(",\"left_out\":", f);
	if (p->left_out == NULL)
		(void)fputs("null", f);
	else
		cli_json_string(f, p->left_out);
	(void)fputc('}', f);
}
