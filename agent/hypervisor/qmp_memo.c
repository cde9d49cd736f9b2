#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "store/base/memory.h"

#include "agent/hypervisor/qmp_batch.h"
#include "agent/hypervisor/qmp_memo.h"
#include "agent/hypervisor/relay.h"

#define ID_TAIL 64u

struct qmp_memo {
	struct qmp_said *said;
	size_t n, cap, bytes;
	bool whole;
};

struct qmp_memo *
qmp_memo_new(void)
{
	return lc_alloc(sizeof(struct qmp_memo));
}

void
qmp_memo_clear(struct qmp_memo *m)
{
	size_t i;

	for (i = 0; i < m->n; i++) {
		lc_free(m->said[i].question);
		lc_free(m->said[i].answer);
	}
	m->n = m->bytes = 0;
	m->whole = true;
}

void
qmp_memo_free(struct qmp_memo *m)
{
	if (m == NULL)
		return;
	qmp_memo_clear(m);
	lc_free(m->said);
	lc_free(m);
}

bool
qmp_memo_whole(const struct qmp_memo *m)
{
	return m->whole && m->n > 0;
}

size_t
qmp_memo_count(const struct qmp_memo *m)
{
	return m->n;
}

const struct qmp_said *
qmp_memo_at(const struct qmp_memo *m, size_t i)
{
	return &m->said[i];
}

/* That QEMU is as before when it was answered.  Others do something, or may do. */
static bool
is_question(const char *name, const char *line)
{
	static const char query[] = "query-";
	static const char *const others[] = {"qom-list", "qom-get", "x-debug-query-block-graph",
	                                     RELAY_DOMAIN};
	size_t i;

	if (strncmp(name, query, sizeof query - 1) == 0)
		return true;
	for (i = 0; i < sizeof others / sizeof others[0]; i++) {
		if (strcmp(name, others[i]) == 0)
			return true;
	}
	return strcmp(name, "human-monitor-command") == 0 &&
	       strstr(line, "\"command-line\":\"info ") != NULL;
}

static struct qmp_said *
find(struct qmp_memo *m, const char *question, size_t n)
{
	size_t i;

	for (i = 0; i < m->n; i++) {
		if (m->said[i].nquestion == n && memcmp(m->said[i].question, question, n) == 0)
			return &m->said[i];
	}
	return NULL;
}

static bool
reserve(struct qmp_memo *m)
{
	size_t cap = m->cap == 0 ? 64 : m->cap * 2;
	struct qmp_said *said;

	if (m->n < m->cap)
		return true;
	said = lc_realloc(m->said, cap * sizeof *said);
	if (said == NULL)
		return false;
	m->said = said;
	m->cap = cap;
	return true;
}

/* Where the digits of the id begin, which QEMU gives back, at the end mostly.  Where they are there
 * twice the line will never be the same again, which does no harm. */
static const char *
find_id(const char *line, size_t n, const char *digits, size_t ndigits)
{
	size_t tail = n < ID_TAIL ? n : ID_TAIL;
	const char *at = memmem(line + n - tail, tail, digits, ndigits);

	return at != NULL ? at : memmem(line, n, digits, ndigits);
}

static char *
without(const char *line, size_t n, size_t at, size_t hole)
{
	char *s = lc_alloc(n - hole + 1);

	if (s != NULL) {
		memcpy(s, line, at);
		memcpy(s + at, line + at + hole, n - at - hole);
	}
	return s;
}

/* Takes question.  False: it could not be put down. */
static bool
put_down(struct qmp_memo *m, const struct qmp_cmd *c, char *question, size_t nquestion,
         const char *line, size_t n)
{
	char digits[24];
	size_t nd = (size_t)snprintf(digits, sizeof digits, "%" PRIu64, c->id);
	const char *id = find_id(line, n, digits, nd);
	char *answer = id == NULL ? NULL : without(line, n, (size_t)(id - line), nd);
	struct qmp_said *s = find(m, question, nquestion);

	if (answer == NULL || (s == NULL && !reserve(m))) {
		lc_free(question);
		lc_free(answer);
		return false;
	}
	if (s == NULL) {
		s = &m->said[m->n++];
		*s = (struct qmp_said){.question = question, .nquestion = nquestion};
		(void)snprintf(s->name, sizeof s->name, "%s", c->name);
		m->bytes += nquestion;
	} else {
		m->bytes -= s->nanswer;
		lc_free(s->answer);
		lc_free(question);
	}
	s->answer = answer;
	s->nanswer = n - nd;
	s->id_at = (size_t)(id - line);
	m->bytes += s->nanswer;
	return m->bytes <= QMP_MEMO_MAX;
}

void
qmp_memo_add(struct qmp_memo *m, struct qmp_cmd *c, const char *line, size_t n)
{
	char *question = c->line;
	size_t nq = c->nline;

	if (!m->whole || c->unnoted)
		return;
	if (question == NULL || !is_question(c->name, question)) {
		m->whole = false;
		return;
	}
	c->line = NULL;
	/* The id is last: "123}\n". */
	for (nq -= 2; question[nq - 1] >= '0' && question[nq - 1] <= '9'; nq--)
		continue;
	question[nq] = '\0';
	m->whole = put_down(m, c, question, nq, line, n);
}

bool
qmp_said_again(const struct qmp_said *s, uint64_t id, const char *line, size_t n)
{
	char digits[24];
	size_t nd = (size_t)snprintf(digits, sizeof digits, "%" PRIu64, id);

	return n == s->nanswer + nd && memcmp(line, s->answer, s->id_at) == 0 &&
	       memcmp(line + s->id_at, digits, nd) == 0 &&
	       memcmp(line + s->id_at + nd, s->answer + s->id_at, s->nanswer - s->id_at) == 0;
}
