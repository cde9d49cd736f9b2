/**
 * commandline: what a QEMU was started with, as /proc shows it.
 *
 * For what its monitor does not tell.  The words are data from a process that may be the guest's
 * victim, which can change them.
 */
#ifndef LOCUM_COMMANDLINE_H
#define LOCUM_COMMANDLINE_H

#include <stdbool.h>
#include <stddef.h>

#include "store/base/memory.h"

#define COMMANDLINE_WORDS_MAX 4096

struct definition;

struct commandline {
	struct lc_buf text;
	const char *at[COMMANDLINE_WORDS_MAX]; /* [n] words, in text */
	size_t n;
};

/** commandline_read(dir): of the process whose files are in dir ("/proc/123"); NULL where that
 * can't be read or is no QEMU.  Free it with commandline_free(). */
struct commandline *commandline_read(const char *dir);
/** commandline_free(c): NULL is fine. */
void commandline_free(struct commandline *c);
/** commandline_is(word, option): "-name" and "--name" are the option "name". */
bool commandline_is(const char *word, const char *option);
/** commandline_left_out(c, def): note what launch.c does not make again of what c asks for. */
void commandline_left_out(const struct commandline *c, struct definition *def);

#endif
