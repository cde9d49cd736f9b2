/**
 * qemutext: text as QEMU's command lines want it, so that no value can end an argument.
 *
 * A struct qemutext is one JSON object that grows: zero-initialised, then qemutext_put*(), then
 * qemutext_end().  What fails for want of memory is remembered until then.
 */
#ifndef LOCUM_QEMUTEXT_H
#define LOCUM_QEMUTEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "store/base/memory.h"

struct qemutext {
	struct lc_buf text;
	bool failed;
};

/** qemutext_put(j, key, value): a string; value is valid UTF-8, anything else in it is escaped. */
void qemutext_put(struct qemutext *j, const char *key, const char *value);
void qemutext_put_number(struct qemutext *j, const char *key, uint64_t v);
void qemutext_put_bool(struct qemutext *j, const char *key, bool v);
/** qemutext_put_object(j, key, inner): takes inner, which is empty afterwards. */
void qemutext_put_object(struct qemutext *j, const char *key, struct qemutext *inner);
/** qemutext_end(j): the text, to be freed with lc_free(), or NULL when out of memory; j is empty
 * afterwards. */
char *qemutext_end(struct qemutext *j);
/** qemutext_drop(j): throw away what was begun. */
void qemutext_drop(struct qemutext *j);
/** qemutext_commas(s): a copy with commas doubled, for "key=value,..." options; NULL when out of
 * memory. */
char *qemutext_commas(const char *s);

#endif
