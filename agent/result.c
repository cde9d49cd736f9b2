#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "agent/result.h"
#include "store/base/bytes.h"
#include "store/base/cli.h"
#include "store/base/clock.h"
#include "store/base/config.h"
#include "store/base/log.h"
#include "store/desk/parley.h"

json_t *
result_encode(const struct backup_result *r)
{
	char hex[33];

	return json_pack(
	    "{s:s, s:i, s:i, s:o, s:s, s:I, s:I, s:I, s:I, s:i, s:b, s:i, s:o, s:I, s:i, s:o}",
	    "vm", r->vm, "outcome", (int)r->outcome, "code", (int)r->err.code, "error",
	    parley_text(r->err.msg), "point", lc_hex(hex, r->point.id, sizeof r->point.id),
	    "source_ns", (json_int_t)r->point.source_ns, "changed", (json_int_t)r->point.changed,
	    "pause_ns", (json_int_t)r->point.pause_ns, "stored", (json_int_t)r->stats.stored,
	    "passes", (int)r->passes, "full", (int)r->full, "scanned", (int)r->scanned,
	    "why_scanned", parley_text(r->why_scanned), "took_ns", (json_int_t)r->took_ns,
	    "consistency", (int)r->point.consistency, "freeze", parley_text(r->point.freeze));
}

bool
result_decode(const json_t *o, const char *vm, struct backup_result *r)
{
	json_int_t source, changed, pause, stored, took;
	int outcome, code, passes, full, scanned, consistency = POINT_CRASH;
	const char *name, *error, *point, *why, *freeze = "";

	*r = (struct backup_result){.vm = vm};
	if (json_unpack(
		(json_t *)(uintptr_t)o,
		"{s:s, s:i, s:i, s:s, s:s, s:I, s:I, s:I, s:I, s:i, s:b, s:i, s:s, s:I, s?i, s?s}",
		"vm", &name, "outcome", &outcome, "code", &code, "error", &error, "point", &point,
		"source_ns", &source, "changed", &changed, "pause_ns", &pause, "stored", &stored,
		"passes", &passes, "full", &full, "scanned", &scanned, "why_scanned", &why,
		"took_ns", &took, "consistency", &consistency, "freeze", &freeze) != 0 ||
	    outcome < BACKUP_FAILED || outcome > BACKUP_UNCHANGED ||
	    !lc_unhex(r->point.id, sizeof r->point.id, point))
		return false;
	r->outcome = (enum backup_outcome)outcome;
	if (r->outcome == BACKUP_FAILED)
		(void)lc_fail(&r->err, code < 0 ? (enum lc_code)code : LC_EPEER, 0, "%s", error);
	r->point.source_ns = source;
	r->point.changed = (uint64_t)changed;
	r->point.pause_ns = pause;
	r->stats.stored = (uint64_t)stored;
	r->passes = (unsigned)passes;
	r->full = full != 0;
	r->scanned = (unsigned)scanned;
	(void)snprintf(r->why_scanned, sizeof r->why_scanned, "%s", why);
	r->took_ns = took;
	r->point.consistency = (uint8_t)consistency;
	(void)snprintf(r->point.freeze, sizeof r->point.freeze, "%s", freeze);
	return true;
}

void
result_tell_freeze(const struct backup_result *r, char *told)
{
	const char *why = r->point.consistency == POINT_FROZEN ? "" : r->point.freeze;

	if (r->outcome != BACKUP_DONE || strcmp(why, told) == 0)
		return;
	if (why[0] != '\0')
		log_warn("%s: not frozen: %s; its point is crash-consistent", r->vm, why);
	else
		log_info("%s: frozen for its point", r->vm);
	(void)snprintf(told, POINT_FREEZE_MAX, "%s", why);
}

void
result_tell_reading(const struct backup_result *r)
{
	if (r->outcome != BACKUP_DONE || (!r->full && r->scanned == 0))
		return;
	if (r->full)
		log_info("%s: read whole for its first point", r->vm);
	else
		log_info("%s: %u of its disks read and compared: %s", r->vm, r->scanned,
		         r->why_scanned);
}

void
result_print_json(const struct backup_result *r)
{
	char hex[33], when[40];

	printf("{\"vm\": ");
	cli_json_string(stdout, r->vm);
	printf(", \"outcome\": \"%s\"", r->outcome == BACKUP_DONE        ? "done"
	                                : r->outcome == BACKUP_UNCHANGED ? "unchanged"
	                                                                 : "failed");
	if (r->outcome == BACKUP_FAILED) {
		printf(", \"error\": ");
		cli_json_string(stdout, r->err.msg);
	} else {
		printf(", \"point\": \"%s\", \"time\": \"%s\", \"changed_bytes\": %" PRIu64
		       ", \"stored_bytes\": %" PRIu64 ", \"pause_ms\": %.3f",
		       lc_hex(hex, r->point.id, 16),
		       clock_format_utc(when, sizeof when, r->point.source_ns),
		       r->point.changed * WINDOW_SIZE, r->stats.stored,
		       (double)r->point.pause_ns / 1e6);
		printf(", \"frozen\": %s, \"freeze\": ",
		       r->point.consistency == POINT_FROZEN ? "true" : "false");
		if (r->point.freeze[0] == '\0')
			printf("null");
		else
			cli_json_string(stdout, r->point.freeze);
		printf(", \"full\": %s, \"scanned_disks\": %u, \"passes\": %u",
		       r->full ? "true" : "false", r->scanned, r->passes);
		if (r->scanned > 0) {
			printf(", \"scanned_why\": ");
			cli_json_string(stdout, r->why_scanned);
		}
	}
	printf(", \"seconds\": %.3f}", (double)r->took_ns / 1e9);
}

void
result_print(const struct backup_result *r)
{
	char hex[33], changed[32], stored[32], took[32], when[32];

	if (r->outcome == BACKUP_UNCHANGED) {
		printf("%s: %sunchanged since its point of %s (%.8s)\n", r->vm,
		       r->point.consistency == POINT_OFF ? "off and " : "",
		       clock_format(when, sizeof when, r->point.source_ns),
		       lc_hex(hex, r->point.id, 16));
		return;
	}
	printf("%s: point %.8s, %s, %s changed, %s stored, %s", r->vm, lc_hex(hex, r->point.id, 16),
	       r->full          ? "full"
	       : r->scanned > 0 ? "compared"
	                        : "incremental",
	       size_format(changed, sizeof changed, r->point.changed * WINDOW_SIZE),
	       size_format(stored, sizeof stored, r->stats.stored),
	       clock_format_duration(took, sizeof took, r->took_ns));
	if (r->point.pause_ns > 0)
		printf(", guest paused %.1f ms", (double)r->point.pause_ns / 1e6);
	if (r->point.consistency == POINT_FROZEN)
		printf(", frozen: %s", r->point.freeze);
	if (r->scanned > 0 && !r->full)
		printf(" (%s)", r->why_scanned);
	printf("\n");
}
