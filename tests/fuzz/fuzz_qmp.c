/*
 * qmp: a line is refused with a reason, or it is one of four kinds with what belongs to the kind;
 * and looking into it by any path is safe.
 */
#include <string.h>

#include "agent/hypervisor/qmp.h"
#include "tests/fuzz/fuzz.h"

static void
look_around(const struct json_t *v)
{
	static const char *const paths[] = {"",         ".",       "..",    "a",         "a.b",
	                                    "return.a", "data.id", "class", "qemu.major"};
	size_t i;

	for (i = 0; i < sizeof paths / sizeof paths[0]; i++) {
		uint64_t n = 7;

		if (!qmp_u64(v, paths[i], &n))
			fuzz_check(n == 7);
		if (qmp_str(v, paths[i]) != NULL)
			fuzz_check(qmp_get(v, paths[i]) != NULL &&
			           qmp_count(qmp_get(v, paths[i])) == 0);
		(void)qmp_true(v, paths[i]);
	}
	for (i = 0; i < qmp_count(v); i++)
		fuzz_check(qmp_at(v, i) != NULL);
	fuzz_check(qmp_at(v, qmp_count(v)) == NULL);
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct lc_err e = LC_ERR_INIT;
	struct qmp_message m;
	int rc = qmp_parse((const char *)p, n, &m, &e);

	fuzz_check(rc == 0 || rc == LC_EPEER);
	fuzz_check(e.code == rc);
	if (rc != 0) {
		fuzz_check(m.root == NULL && e.msg[0] != '\0');
		return 0;
	}
	fuzz_check(m.root != NULL);
	switch (m.kind) {
	case QMP_GREETING:
	case QMP_RETURN:
		fuzz_check(m.body != NULL);
		break;
	case QMP_ERROR:
		fuzz_check(qmp_str(m.body, "desc") != NULL);
		break;
	case QMP_EVENT:
		fuzz_check(m.event != NULL && m.at_us >= 0);
		break;
	}
	look_around(m.root);
	look_around(m.body);
	qmp_message_done(&m);
	return 0;
}
