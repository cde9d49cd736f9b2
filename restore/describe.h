/**
 * describe: a restore point in words and in JSON, the same wherever one is shown.
 */
#ifndef LOCUM_DESCRIBE_H
#define LOCUM_DESCRIBE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct point;

#define DESCRIBE_ID_SIZE 33 /* 32 hex digits and NUL */

/** describe_id(p, dst): the whole id in hex; describe_short(p, dst): its first 8 digits. */
char *describe_id(const struct point *p, char dst[DESCRIBE_ID_SIZE]);
char *describe_short(const struct point *p, char dst[DESCRIBE_ID_SIZE]);
/** describe_age(p, now_ns, dst, n): "3 min 20 s ago"; "in the future" where the clocks disagree. */
char *describe_age(const struct point *p, int64_t now_ns, char *dst, size_t n);
/** describe_kind(p): static text: "crash-consistent", "frozen", "powered off". */
const char *describe_kind(const struct point *p);
/** describe_line(p, dst, n): "web01@2026-11-22T05:00:00 (1f2e3d4c, 3.0 s ago, frozen)". */
char *describe_line(const struct point *p, char *dst, size_t n);
/** describe_json(f, p): one JSON object. */
void describe_json(FILE *f, const struct point *p);

#endif
