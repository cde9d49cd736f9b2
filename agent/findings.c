#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "agent/findings.h"
#include "store/base/cli.h"
#include "store/base/memory.h"

static const char *const levels[] = {"ok", "note", "warn", "bad"};

static struct finding *__attribute__((format(printf, 4, 0)))
add(struct findings *f, enum finding_level level, const char *about, const char *fmt, va_list ap)
{
	static struct finding spare; /* somewhere to write to */
	struct finding *more = lc_realloc(f->list, (f->n + 1) * sizeof *more), *x = &spare;

	if (more == NULL) {
		f->lost = true;
	} else {
		f->list = more;
		x = &more[f->n++];
	}
	memset(x, 0, sizeof *x);
	x->level = level;
	(void)snprintf(x->about, sizeof x->about, "%s", about);
	(void)vsnprintf(x->text, sizeof x->text, fmt, ap);
	(void)cli_tame(x->about, strlen(x->about), "");
	(void)cli_tame(x->text, strlen(x->text), "");
	return x;
}

struct finding *
findings_add(struct findings *f, enum finding_level level, const char *about, const char *fmt, ...)
{
	struct finding *x;
	va_list ap;

	va_start(ap, fmt);
	x = add(f, level, about, fmt, ap);
	va_end(ap);
	return x;
}

struct finding *
findings_vm(struct findings *f, enum finding_level level, const char *vm, const char *state,
            const char *fmt, ...)
{
	struct finding *x;
	va_list ap;

	va_start(ap, fmt);
	x = add(f, level, vm, fmt, ap);
	va_end(ap);
	x->is_vm = true;
	(void)snprintf(x->state, sizeof x->state, "%s", state);
	return x;
}

void
finding_advise(struct finding *x, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(x->advice, sizeof x->advice, fmt, ap);
	(void)cli_tame(x->advice, strlen(x->advice), "\n");
	va_end(ap);
}

enum finding_level
findings_worst(const struct findings *f, bool vms)
{
	enum finding_level worst = f->lost ? FINDING_BAD : FINDING_GOOD;
	size_t i;

	for (i = 0; i < f->n; i++) {
		if (f->list[i].is_vm == vms && f->list[i].level > worst)
			worst = f->list[i].level;
	}
	return worst;
}

static void
print_one(const struct finding *x)
{
	const char *s = x->advice;

	printf("%-5s %-14s %s\n", levels[x->level], x->about, x->text);
	for (; *s != '\0'; s += *s == '\n') { /* may be of several lines */
		int n = (int)strcspn(s, "\n");

		printf("      %-14s %s%.*s\n", "", s == x->advice ? "do: " : "    ", n, s);
		s += n;
	}
}

void
findings_print(const struct findings *f, bool all)
{
	size_t i;

	for (i = 0; i < f->n; i++) {
		if (all || f->list[i].level >= FINDING_WARN)
			print_one(&f->list[i]);
	}
	if (f->lost)
		printf("bad   memory         used up: there is more than this list has\n");
}

static void
json_list(const struct findings *f, bool vms)
{
	bool first = true;
	size_t i;

	for (i = 0; i < f->n; i++) {
		const struct finding *x = &f->list[i];

		if (x->is_vm != vms)
			continue;
		printf("%s{\"level\": \"%s\", \"%s\": ", first ? "" : ",\n  ", levels[x->level],
		       vms ? "vm" : "check");
		cli_json_string(stdout, x->about);
		if (vms)
			printf(", \"state\": \"%s\"", x->state);
		printf(", \"text\": ");
		cli_json_string(stdout, x->text);
		printf(", \"do\": ");
		cli_json_string(stdout, x->advice[0] == '\0' ? NULL : x->advice);
		printf("}");
		first = false;
	}
}

void
findings_json(const struct findings *f)
{
	printf("{\"host\": [");
	json_list(f, false);
	printf("],\n \"vms\": [");
	json_list(f, true);
	printf("],\n \"complete\": %s}\n", f->lost ? "false" : "true");
}

void
findings_free(struct findings *f)
{
	lc_free(f->list);
	*f = (struct findings){0};
}
