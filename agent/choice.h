/**
 * choice: which VMs a command is to back up, as its operands say.
 *
 * Thread: loop.
 */
#ifndef LOCUM_CHOICE_H
#define LOCUM_CHOICE_H

#include <stdbool.h>
#include <stddef.h>

struct cli_args;
struct settings;

struct choice {
	const char **vms; /* [nvms], to be freed; the names are the settings' and the operands' */
	size_t nvms;
	unsigned failed; /* that can't be backed up, or found out about; that was told */
	bool import;     /* of image files, not of a VM that is known */
};

/** choice_make(c, s, a): one of CLI_*; what is wrong was told.  s gets what the operands add to it.
 */
int choice_make(struct choice *c, struct settings *s, const struct cli_args *a);

#endif
