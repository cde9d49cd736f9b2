/*
 * others: points of VMs that nobody protects, with made-up backups: here it is the test that says
 * when one ends.
 */
#include <string.h>

#include "agent/backup.h"
#include "agent/import.h"
#include "agent/others.h"
#include "tests/lib/unit.h"

struct backup {
	const char *vm;
	void (*done)(void *arg, struct backup_result *r);
	void *arg;
	bool canceled;
};

static struct {
	struct backup backups[8];
	unsigned n;
	bool fail;
	const struct settings *freed; /* the last import that was */
	char told[200];               /* in which order */
} fake;

int
backup_start(const struct backup_opts *o, void (*done)(void *arg, struct backup_result *result),
             void *arg, struct backup **out, struct lc_err *e)
{
	struct backup *b = &fake.backups[fake.n];

	if (fake.fail)
		return lc_fail(e, LC_ENOENT, 0, "%s: no such VM", o->vm);
	*b = (struct backup){.vm = o->vm, .done = done, .arg = arg};
	fake.n++;
	*out = b;
	return 0;
}

void
backup_cancel(struct backup *b)
{
	b->canceled = true;
}

void
import_free(struct settings *copy)
{
	if (copy != NULL)
		fake.freed = copy;
}

static void
tell(const char *what, const char *of)
{
	size_t n = strlen(fake.told);

	(void)snprintf(fake.told + n, sizeof fake.told - n, "%s %s; ", what, of);
}

static void
on_made(void *arg, const uint8_t *line)
{
	(void)arg;
	tell("made on", (const char *)line);
}

static void
on_over(void *arg)
{
	(void)arg;
	tell("over", "");
}

static void
on_done(struct protect_ask *ask, const struct backup_result *r)
{
	assert_null(ask->other);
	tell(r->outcome == BACKUP_DONE ? "done" : "failed", ask->vm);
}

static void
finish(unsigned i, enum backup_outcome outcome)
{
	struct backup *b = &fake.backups[i];
	struct backup_result r = {.vm = b->vm, .outcome = outcome, .point.line = "a line"};

	b->done(b->arg, &r);
}

static void
make(struct others *x, const struct protect_opts *o)
{
	memset(&fake, 0, sizeof fake);
	others_init(x, o, on_made, on_over, NULL);
}

/* Who asked looks then at whether the replicas have it: they have to know of it before. */
static void
a_point_is_told_before_who_asked(void **state)
{
	struct protect_ask a = {.vm = "web01", .done = on_done}, b = {.vm = "db", .done = on_done};
	struct protect_opts o = {0};
	struct others x;

	(void)state;
	make(&x, &o);
	assert_int_equal(others_ask(&x, &a, NULL), 0);
	assert_int_equal(others_ask(&x, &b, NULL), 0);
	assert_true(others_begin(&x) && others_begin(&x));
	assert_false(others_begin(&x));
	assert_int_equal(x.running, 2);
	finish(1, BACKUP_DONE);
	finish(0, BACKUP_FAILED);
	assert_string_equal(fake.told, "made on a line; done db; over ; failed web01; over ; ");
	assert_int_equal(x.running, 0);
	fake.fail = true;
	assert_int_equal(others_ask(&x, &a, NULL), 0);
	fake.told[0] = '\0';
	assert_true(others_begin(&x));
	assert_string_equal(fake.told, "failed web01; over ; ");
}

static void
what_is_imported_is_theirs_until_it_is_over(void **state)
{
	static char there; /* nobody looks into it here */
	struct settings *import = (struct settings *)(void *)&there;
	struct protect_ask a = {.vm = "export", .done = on_done, .import = import};
	struct protect_opts o = {0};
	struct others x;

	(void)state;
	make(&x, &o);
	assert_int_equal(others_ask(&x, &a, NULL), 0);
	assert_null(a.import);
	assert_true(others_begin(&x));
	assert_null(fake.freed);
	finish(0, BACKUP_DONE);
	assert_ptr_equal(fake.freed, import);
}

static void
one_vm_is_backed_up_once_at_a_time(void **state)
{
	struct protect_ask a = {.vm = "web01", .done = on_done},
			   b = {.vm = "web01", .done = on_done};
	struct protect_opts o = {0};
	struct others x;

	(void)state;
	make(&x, &o);
	assert_int_equal(others_ask(&x, &a, NULL), 0);
	assert_int_equal(others_ask(&x, &b, NULL), 0);
	assert_true(others_begin(&x));
	assert_false(others_begin(&x));
	assert_non_null(others_backup(a.other));
	assert_null(others_backup(b.other));
	finish(0, BACKUP_DONE);
	assert_true(others_begin(&x));
	finish(1, BACKUP_DONE);
	assert_string_equal(
	    fake.told, "made on a line; done web01; over ; made on a line; done web01; over ; ");
}

static void
who_has_begun_is_canceled_and_others_turned_away(void **state)
{
	struct protect_ask a = {.vm = "web01", .done = on_done}, b = {.vm = "db", .done = on_done},
			   c = {.vm = "web01", .done = on_done}, d = {.vm = "db", .done = on_done};
	struct protect_opts o = {0};
	struct others x;

	(void)state;
	make(&x, &o);
	assert_int_equal(others_ask(&x, &a, NULL), 0);
	assert_int_equal(others_ask(&x, &b, NULL), 0);
	assert_true(others_begin(&x) && others_begin(&x));
	assert_int_equal(others_ask(&x, &c, NULL), 0);
	assert_int_equal(others_ask(&x, &d, NULL), 0);
	others_unask(d.other); /* nothing of it is left */
	others_unask(b.other); /* nor is its end told to anybody */
	assert_true(fake.backups[1].canceled);
	others_turn_away(&x, LC_ECANCELED, "stopping");
	assert_string_equal(fake.told, "failed web01; ");
	assert_false(fake.backups[0].canceled);
	others_cancel(&x);
	assert_true(fake.backups[0].canceled);
	finish(0, BACKUP_FAILED);
	finish(1, BACKUP_FAILED);
	assert_string_equal(fake.told, "failed web01; failed web01; over ; over ; ");
	assert_true(TAILQ_EMPTY(&x.list));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_point_is_told_before_who_asked),
	    cmocka_unit_test(what_is_imported_is_theirs_until_it_is_over),
	    cmocka_unit_test(one_vm_is_backed_up_once_at_a_time),
	    cmocka_unit_test(who_has_begun_is_canceled_and_others_turned_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
