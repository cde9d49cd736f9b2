/*
 * Features that the CPUs have beside those of their model, or lack.  QEMU does not tell how it was
 * started, but what it would make of a model now, and its own command line takes part in that:
 *
 *   -cpu X,+f,-g     is done to every CPU that is made, after all that is asked for.  So where one
 * is asked for with all features off, those that are on were added; and where one is with all on,
 * those that are off were taken away. -cpu X,f=on      is a default of the model X alone, which has
 * another name, X-v1 (on machines of QEMU's for PCs X is always that); so the two are compared.
 *
 * What is not to be seen so: f=on beside a model with a version in its name, or beside max or host.
 * libvirt says it in its description.
 *
 * QEMU reads its monitor a byte at a time, and looks after all else in between; so only features
 * that admins set are asked for, in few bytes.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "agent/hypervisor/introspect_state.h"
#include "agent/hypervisor/qmp.h"

enum { AS_STARTED = 0, AS_NAMED, ALL_OFF, ALL_ON };

/* Of QEMU 4.1 and later. */
static const char *const features[] = {
    "pni",      "ssse3",        "sse4.1",    "sse4.2",     "sse4a",      "popcnt",
    "cx16",     "lahf-lm",      "aes",       "pclmulqdq",  "xsave",      "avx",
    "avx2",     "f16c",         "fma",       "bmi1",       "bmi2",       "movbe",
    "abm",      "adx",          "rdrand",    "rdseed",     "rdtscp",     "sha-ni",
    "fsgsbase", "smep",         "smap",      "umip",       "pku",        "erms",
    "invpcid",  "pcid",         "pdpe1gb",   "nx",         "x2apic",     "vme",
    "ht",       "tsc-deadline", "invtsc",    "hypervisor", "hle",        "rtm",
    "mpx",      "vmx",          "svm",       "topoext",    "avx512f",    "avx512dq",
    "avx512cd", "avx512bw",     "avx512vl",  "spec-ctrl",  "stibp",      "ssbd",
    "md-clear", "ibpb",         "virt-ssbd", "amd-ssbd",   "amd-no-ssb", "arch-capabilities"};
#define NFEATURES (sizeof features / sizeof features[0])

void
introspect_cpu_model(const char *type, char out[INTROSPECT_VALUE_BYTES])
{
	static const char *const tails[] = {"-x86_64-cpu", "-i386-cpu"};
	size_t i;

	(void)snprintf(out, INTROSPECT_VALUE_BYTES, "%.*s", (int)strcspn(type, ">"), type);
	for (i = 0; i < 2; i++) {
		if (!introspect_ends(out, tails[i]))
			continue;
		out[strlen(out) - strlen(tails[i])] = '\0';
		return;
	}
	*out = '\0';
}

/* Whether the name ends in "-v3". */
static bool
has_version(const char *model)
{
	size_t n = strlen(model);

	while (n > 0 && isdigit((unsigned char)model[n - 1]))
		n--;
	return model[n] != '\0' && n >= 2 && model[n - 1] == 'v' && model[n - 2] == '-';
}

static void
expand(struct qmp_batch *b, const char *model, struct json_t *props)
{
	(void)qmp_batch_add(b, "query-cpu-model-expansion",
	                    qmp_pack("{s:s, s:{s:s, s:o*}}", "type", "static", "model", "name",
	                             model, "props", props));
	qmp_batch_may_fail(b);
	qmp_batch_unnoted(b); /* of the program and how it was started */
}

void
introspect_cpu(struct introspect *x, struct qmp_batch *b)
{
	char named[INTROSPECT_VALUE_BYTES + 4];

	if (x->cpu_model[0] == '\0')
		return;
	(void)snprintf(named, sizeof named, "%s%s", x->cpu_model,
	               has_version(x->cpu_model) ? "" : "-v1");
	expand(b, x->cpu_model, NULL);
	expand(b, named, NULL);
	expand(b, x->cpu_model, qmp_flags(features, NFEATURES, false));
	expand(b, x->cpu_model, qmp_flags(features, NFEATURES, true));
}

/* What feature i was set to, if it was: +1, -1 or 0. */
static int
was_set(const struct qmp_batch *b, size_t i)
{
	bool started = false, named = false, flag = false;

	if (qmp_flag(qmp_get(qmp_reply(b, ALL_OFF), "model.props"), features[i], &flag) && flag)
		return 1;
	if (qmp_flag(qmp_get(qmp_reply(b, ALL_ON), "model.props"), features[i], &flag) && !flag)
		return -1;
	if (!qmp_flag(qmp_get(qmp_reply(b, AS_STARTED), "model.props"), features[i], &started) ||
	    !qmp_flag(qmp_get(qmp_reply(b, AS_NAMED), "model.props"), features[i], &named) ||
	    started == named)
		return 0;
	return started ? 1 : -1;
}

void
introspect_cpu_told(struct introspect *x, const struct qmp_batch *b)
{
	size_t i, used = 0;

	x->cpu_features[0] = '\0';
	x->cpu_unknown = x->cpu_model[0] != '\0' &&
	                 (qmp_reply(b, ALL_OFF) == NULL || qmp_reply(b, ALL_ON) == NULL);
	for (i = 0; x->cpu_model[0] != '\0' && i < NFEATURES; i++) {
		int set = was_set(b, i);

		if (set != 0 && used < sizeof x->cpu_features)
			used += (size_t)snprintf(
			    x->cpu_features + used, sizeof x->cpu_features - used, "%s%c%s",
			    used == 0 ? "" : ",", set > 0 ? '+' : '-', features[i]);
	}
}

void
introspect_tell_features(struct introspect *x)
{
	if (x->cpu_features[0] != '\0')
		(void)introspect_set(x, "machine", "", "cpu_features", x->cpu_features);
	if (x->cpu_unknown)
		introspect_leave_out(x, "CPU features", "",
		                     "this QEMU does not tell which were added or taken away");
}
