/**
 * guard_graph: what lies on what, from the text of QEMU's answer to x-debug-query-block-graph.
 *
 * For a guard process, which may not allocate: the text is searched anew for every question.  It is
 * not trusted: what is no such answer has no edges.
 */
#ifndef LOCUM_GUARD_GRAPH_H
#define LOCUM_GUARD_GRAPH_H

#include <stdbool.h>
#include <stddef.h>

/** guard_graph_has(p, n, parent, edge, child): whether image node `child` hangs on that edge
 * ("file") of image node `parent`, or right under a device where parent is NULL (edge "root"). */
bool guard_graph_has(const char *p, size_t n, const char *parent, const char *edge,
                     const char *child);
/** guard_graph_prefix(p, n, prefix): whether there is an image node whose name begins so. */
bool guard_graph_prefix(const char *p, size_t n, const char *prefix);

#endif
