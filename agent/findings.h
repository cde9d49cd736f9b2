/**
 * findings: what `locum doctor` has found, each with what to do about it.
 */
#ifndef LOCUM_FINDINGS_H
#define LOCUM_FINDINGS_H

#include <stdbool.h>
#include <stddef.h>

enum finding_level {
	FINDING_GOOD = 0,
	FINDING_NOTE, /* worth knowing, nothing to do */
	FINDING_WARN, /* works, and will hurt one day */
	FINDING_BAD,  /* does not work */
};

struct finding {
	enum finding_level level;
	char about[64];   /* what was looked at: "scratch"; of a VM its name */
	bool is_vm;       /* about is a VM */
	char state[16];   /* of a VM: "protected", "ready", "possible", "no"; else "" */
	char text[400];   /* how it is */
	char advice[400]; /* the one thing to do, as it is typed; "" nothing */
};

struct findings {
	struct finding *list; /* owned */
	size_t n;
	bool lost; /* out of memory: some are missing */
};

/** findings_add(f, level, about, fmt, ...): one more.  It stays until the next is added. */
struct finding *findings_add(struct findings *f, enum finding_level level, const char *about,
                             const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/** findings_vm(f, level, vm, state, fmt, ...): likewise, of a VM. */
struct finding *findings_vm(struct findings *f, enum finding_level level, const char *vm,
                            const char *state, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/** finding_advise(x, fmt, ...): what to do about it. */
void finding_advise(struct finding *x, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/** findings_worst(f, vms): of those of VMs, or of the others. */
enum finding_level findings_worst(const struct findings *f, bool vms);
/** findings_print(f, all), findings_json(f): to stdout.  all: also what is good. */
void findings_print(const struct findings *f, bool all);
void findings_json(const struct findings *f);
void findings_free(struct findings *f);

#endif
