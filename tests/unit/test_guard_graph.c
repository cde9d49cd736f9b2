#include <stdlib.h>
#include <string.h>

#include "agent/hypervisor/guard_graph.h"
#include "tests/lib/unit.h"

/* As QEMU 7.2 says it: a device on a filter over an image; another one on an image with a node of
 * ours over it that no device has. */
static const char answer[] =
    "{\"return\": {\"edges\": [{\"name\": \"file\", \"parent\": 4, \"shared-perm\": "
    "[\"write-unchanged\", \"consistent-read\"], \"perm\": [\"write\"], \"child\": 2}, "
    "{\"name\": \"target\", \"parent\": 4, \"perm\": [], \"child\": 6}, "
    "{\"child\": 4, \"parent\": 3, \"name\": \"root\"}, "
    "{\"name\": \"root\", \"parent\": 7, \"child\": 5}, "
    "{\"name\": \"file\", \"parent\": 8, \"child\": 5}, "
    "{\"name\": \"root\", \"parent\": 9, \"child\": 8}], \"nodes\": ["
    "{\"name\": \"n0\", \"type\": \"block-driver\", \"id\": 2}, "
    "{\"name\": \"n1\", \"type\": \"block-driver\", \"id\": 5}, "
    "{\"name\": \"locum.1.c0\", \"type\": \"block-driver\", \"id\": 4}, "
    "{\"name\": \"locum.1.s0\", \"type\": \"block-driver\", \"id\": 6}, "
    "{\"name\": \"locum.1.c1\", \"type\": \"block-driver\", \"id\": 8}, "
    "{\"name\": \"locum.1.x\", \"type\": \"block-job\", \"id\": 9}, "
    "{\"name\": \"/machine/peripheral/a\\\"},{\\\"b\", \"type\": \"block-backend\", \"id\": 3}, "
    "{\"name\": \"n2\", \"type\": \"block-backend\", \"id\": 7}]}, \"id\": \"4\"}\n";

static bool
has(const char *parent, const char *edge, const char *child)
{
	return guard_graph_has(answer, sizeof answer - 1, parent, edge, child);
}

static void
test_edges(void **state)
{
	(void)state;
	assert_true(has(NULL, "root", "locum.1.c0"));
	assert_true(has("locum.1.c0", "file", "n0"));
	assert_true(has("locum.1.c0", "target", "locum.1.s0"));
	assert_true(has(NULL, "root", "n1"));
	assert_true(has("locum.1.c1", "file", "n1"));
	/* Not right under a device, whatever else has it. */
	assert_false(has(NULL, "root", "n0"));
	assert_false(has(NULL, "root", "locum.1.c1"));
	assert_false(has(NULL, "root", "locum.1.s0"));
	/* Another edge, another child, the other way round. */
	assert_false(has("locum.1.c0", "backing", "n0"));
	assert_false(has("locum.1.c0", "file", "n1"));
	assert_false(has("n0", "file", "locum.1.c0"));
	/* A device is no image node, and names are whole. */
	assert_false(has("n2", "root", "n1"));
	assert_false(has(NULL, "root", "n2"));
	assert_false(has(NULL, "root", "n9"));
	assert_false(has(NULL, "root", "locum.1.c"));
	assert_false(has("n9", "file", "n0"));
}

static void
test_prefix(void **state)
{
	(void)state;
	assert_true(guard_graph_prefix(answer, sizeof answer - 1, "locum.1."));
	assert_true(guard_graph_prefix(answer, sizeof answer - 1, "n"));
	assert_false(guard_graph_prefix(answer, sizeof answer - 1, "locum.1.x"));
	assert_false(guard_graph_prefix(answer, sizeof answer - 1, "locum.2."));
	assert_false(guard_graph_prefix(answer, sizeof answer - 1, "/machine"));
}

/* Cut off anywhere it says less, reads nothing beyond, and ends. */
static void
test_cut_off(void **state)
{
	size_t n;

	(void)state;
	for (n = 0; n < sizeof answer; n++) {
		char *exact = malloc(n + 1);

		memcpy(exact, answer, n);
		exact = realloc(exact, n == 0 ? 1 : n);
		assert_false(guard_graph_has(exact, n, NULL, "root", "n0"));
		(void)guard_graph_has(exact, n, "locum.1.c0", "file", "n0");
		(void)guard_graph_prefix(exact, n, "locum.1.");
		free(exact);
	}
}

static void
test_nonsense(void **state)
{
	static const char *const texts[] = {"",
	                                    "{",
	                                    "}",
	                                    "{}{}}}",
	                                    "\"",
	                                    "\"\\",
	                                    "{\"name\":\"n0\",\"type\":\"block-driver\",\"id\":0}",
	                                    ("{\"name\":\"n0\",\"type\":\"block-driver\","
	                                     "\"id\":99999999999999999999999999}"),
	                                    "{\"error\": {\"class\": \"CommandNotFound\"}}"};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof texts / sizeof texts[0]; i++)
		assert_false(guard_graph_has(texts[i], strlen(texts[i]), NULL, "root", "n0"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_edges),
	    cmocka_unit_test(test_prefix),
	    cmocka_unit_test(test_cut_off),
	    cmocka_unit_test(test_nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
