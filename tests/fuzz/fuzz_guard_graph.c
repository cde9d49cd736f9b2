/*
 * guard_graph: whatever the text, questions about it end; and who hangs on an edge is a node.
 */
#include <string.h>

#include "agent/hypervisor/guard_graph.h"
#include "tests/fuzz/fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	const char *text = (const char *)p;

	if (guard_graph_has(text, n, "c0", "file", "n0"))
		fuzz_check(guard_graph_prefix(text, n, "c0") && guard_graph_prefix(text, n, "n0"));
	if (guard_graph_has(text, n, NULL, "root", "c0"))
		fuzz_check(guard_graph_prefix(text, n, "c0"));
	return 0;
}
