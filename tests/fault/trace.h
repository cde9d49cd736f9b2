/**
 * trace: what a process asks of the filesystem, in order, and what a power failure makes of it.
 *
 * Linked into a program, it takes the place of the calls that change files (those of SQLite too),
 * and with LOCUM_TRACE=<file> and LOCUM_TRACE_ROOT=<folder> writes down each one below the folder.
 *
 * The model is the weakest that POSIX allows: until its file is synced, a write may be lost, alone
 * or in parts of 512 bytes, whatever came after it; until its folder is synced, a name (made,
 * renamed, removed) may be, with all that happened later in that folder.  Syncing a file says
 * nothing of its name.
 */
#ifndef LOCUM_TESTS_TRACE_H
#define LOCUM_TESTS_TRACE_H

#include <stddef.h>
#include <stdint.h>

/** trace_mark(text): put a line of text between the calls; nothing where no trace is made. */
void trace_mark(const char *text);

struct crash; /* a trace, and the folder before it */

/** crash_begin(root): remember the folder as it is, all of it durable. */
struct crash *crash_begin(const char *root);
/** crash_load(c, file): the trace of what was done to it then.  Returns how many calls. */
size_t crash_load(struct crash *c, const char *file);
void crash_free(struct crash *c);
/** crash_is_sync(c, at): whether the call at that place is a sync. */
int crash_is_sync(const struct crash *c, size_t at);

enum crash_keeps { CRASH_NOTHING, CRASH_ALL, CRASH_SOME };
/**
 * crash_make(c, at, keeps, seed, to, journal):
 * Make the folder `to` what may be there after a power failure before call number `at`: of what was
 * not synced nothing, all, or a part that the seed tells.  The marks until then go to a file.
 */
void crash_make(struct crash *c, size_t at, enum crash_keeps keeps, uint64_t seed, const char *to,
                const char *journal);

#endif
