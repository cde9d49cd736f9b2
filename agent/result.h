/**
 * result: what became of a backup, as JSON from one process to another (control.h).
 *
 * Not what --json prints: all that is needed to print that, or a line for people.
 */
#ifndef LOCUM_RESULT_H
#define LOCUM_RESULT_H

#include "agent/backup.h"

struct json_t;

/** result_encode(r): a new reference, or NULL. */
struct json_t *result_encode(const struct backup_result *r);
/** result_decode(o, vm, r): r->vm is the vm that is given; false: it is no such thing. */
bool result_decode(const struct json_t *o, const char *vm, struct backup_result *r);

/**
 * result_tell_freeze(r, told):
 * Log why a point is not frozen that was to be, and when that is over; where it is not what was
 * told last.  told[POINT_FREEZE_MAX] keeps that, "" at first.
 */
void result_tell_freeze(const struct backup_result *r, char *told);
/** result_print(r): one line for people to stdout, of what did not fail. */
void result_print(const struct backup_result *r);
/** result_print_json(r): an object of what `locum backup --json` prints. */
void result_print_json(const struct backup_result *r);
/** result_tell_reading(r): log that a point took the reading of whole disks, and why. */
void result_tell_reading(const struct backup_result *r);

#endif
