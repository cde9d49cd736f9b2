/**
 * qmp_memo: what QEMU was asked, and what it said, word for word; to see later that it would say
 * all of it again.
 *
 *     qmp_memo_new ─► qmp_record ─► (batches) ─► qmp_record(NULL) ─► qmp_memo_whole?
 *                                                                        │
 *         another connection:  qmp_batch_recall ─► qmp_batch_run ─► qmp_batch_differs?
 *
 * Only questions are in it.  Where a command was among them that does something, or more was said
 * than a memo holds, it is not whole, and what was asked is not known to be all.
 */
#ifndef LOCUM_QMP_MEMO_H
#define LOCUM_QMP_MEMO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qmp_cmd;
struct qmp_memo;

#define QMP_MEMO_MAX (1u << 20) /* bytes of questions and answers */

struct qmp_said { /* one question; of a memo */
	char name[48];
	char *question; /* the line, as far as "id": */
	size_t nquestion;
	char *answer;          /* the line without the digits of its id ... */
	size_t nanswer, id_at; /* ... which were here */
};

/** qmp_memo_new(): an empty one, which is not whole; NULL when out of memory. */
struct qmp_memo *qmp_memo_new(void);
/** qmp_memo_free(m): NULL is fine. */
void qmp_memo_free(struct qmp_memo *m);
/** qmp_memo_clear(m): empty again, and whole until something is put into it. */
void qmp_memo_clear(struct qmp_memo *m);
/** qmp_memo_whole(m): all that was asked since it was cleared is in it, and nothing was done. */
bool qmp_memo_whole(const struct qmp_memo *m);
size_t qmp_memo_count(const struct qmp_memo *m);
const struct qmp_said *qmp_memo_at(const struct qmp_memo *m, size_t i);

/* For qmp.c. */
/** qmp_memo_add(m, c, line, n): what was answered to c; takes c->line.  The same question again
 * replaces what was said before. */
void qmp_memo_add(struct qmp_memo *m, struct qmp_cmd *c, const char *line, size_t n);
/** qmp_said_again(s, id, line, n): whether that line is the same answer, to a question with that
 * id. */
bool qmp_said_again(const struct qmp_said *s, uint64_t id, const char *line, size_t n);

#endif
