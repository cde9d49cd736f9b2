/*
 * locum status: how continuous protection does, at a host or at a replica.
 */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "agent/hypervisor/settings.h"
#include "agent/names.h"
#include "agent/verbs.h"
#include "replicator/session.h"
#include "store/base/cli.h"
#include "store/base/clock.h"
#include "store/base/config.h"
#include "store/base/files.h"
#include "store/base/log.h"

#define STATUS_FILE "agent.json"
#define REPLICA_FILE "replica.json"
#define STALE_NS (10 * LC_NS_PER_S)

static const char *
text_of(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s == NULL ? "-" : s;
}

static const char *
duration_of(const json_t *o, const char *key, char *dst, size_t n)
{
	const json_t *v = json_object_get(o, key);

	if (!json_is_number(v))
		return "none";
	return clock_format_duration(dst, n, (int64_t)(json_number_value(v) * 1e9));
}

/* Points that the replica which lacks most is still to get. */
static const char *
waiting_of(const json_t *x, char *dst, size_t n)
{
	const json_t *v = json_object_get(x, "waiting_points");

	if (!json_is_integer(v))
		return "-";
	(void)snprintf(dst, n, "%lld", (long long)json_integer_value(v));
	return dst;
}

static void
print_clock(const json_t *x)
{
	double ahead = json_number_value(json_object_get(x, "clock_ahead_s"));
	char text[32];

	if (fabs(ahead) * 1e9 > (double)SESSION_SKEW_NS)
		(void)printf("    its clock is %s %s this host's: one of the two is wrong\n",
		             clock_format_duration(text, sizeof text, (int64_t)(fabs(ahead) * 1e9)),
		             ahead > 0 ? "ahead of" : "behind");
}

/* What to do next, below what is wrong. */
static void __attribute__((format(printf, 1, 2))) next_step(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)printf("    -> ");
	(void)vprintf(fmt, ap);
	(void)putchar('\n');
	va_end(ap);
}

/* Of a quota; NULL: there is room. */
static const char *
how_full(json_int_t used, json_int_t max)
{
	return max <= 0 || used < max / 10 * 9 ? NULL
	       : used < max                    ? "nearly full"
	                                       : "full, no more points are taken";
}

/* It does not end by itself. */
static bool
turned_away(const json_t *x)
{
	const char *why = text_of(x, "error");

	return strstr(why, "was revoked at this replica") != NULL ||
	       strstr(why, "is not paired with this replica") != NULL;
}

static void
print_spool(const json_t *x)
{
	char bytes[32], max[32];

	if (x == NULL)
		return;
	(void)printf("\nspool: %s of %s%s\n",
	             size_format(bytes, sizeof bytes,
	                         (uint64_t)json_integer_value(json_object_get(x, "bytes"))),
	             size_format(max, sizeof max,
	                         (uint64_t)json_integer_value(json_object_get(x, "max_bytes"))),
	             json_is_true(json_object_get(x, "spent"))
	                 ? ": SPENT; no points are made until the replicas have what waits"
	                 : "");
	if (json_is_true(json_object_get(x, "spent")))
		next_step(
		    "changes collect in the VMs meanwhile; a replica is DOWN or slow (below), or "
		    "spool_max is too small");
	if (json_is_string(json_object_get(x, "error")))
		(void)printf("    %s\n", text_of(x, "error"));
}

static bool
any_down(const json_t *replicas)
{
	const json_t *x;
	size_t i;

	json_array_foreach(replicas, i, x)
	{
		if (!json_is_true(json_object_get(x, "up")))
			return true;
	}
	return false;
}

static bool
any_wrong(const json_t *replicas)
{
	const json_t *x;
	size_t i;

	json_array_foreach(replicas, i, x)
	{
		if (json_is_string(json_object_get(x, "error")))
			return true;
	}
	return false;
}

static void
print_vm_step(const json_t *doc, const json_t *x)
{
	const json_t *replicas = json_object_get(doc, "replicas");
	const char *state = text_of(x, "state"), *vm = text_of(x, "vm");
	struct cli_word w;

	if (strcmp(state, "failing") == 0)
		next_step("locum doctor %s", cli_word(&w, vm));
	else if (strcmp(state, "waiting") == 0)
		next_step("see the spool, below");
	else if (strcmp(state, "late") == 0 && any_down(replicas))
		next_step("its points wait here for the replica that is DOWN, below");
	else if (strcmp(state, "late") == 0 && any_wrong(replicas))
		next_step("see what is wrong with the replica, below");
	else if (strcmp(state, "late") == 0)
		next_step("its points come too seldom, or go too slowly: is bandwidth too low for "
		          "what changes? else a longer rpo");
	else if (strcmp(state, "beginning") == 0)
		next_step("its first point is being made or sent: wait for that");
}

static void
print_unprotected(const json_t *list)
{
	const json_t *x;
	size_t i;

	if (json_array_size(list) == 0)
		return;
	(void)printf("\nrun here, and nothing protects them:");
	json_array_foreach(list, i, x)
	{
		(void)printf(" %s", json_string_value(x));
	}
	(void)putchar('\n');
	next_step("locum doctor says what to write for each");
}

static void
print_quota(const json_t *x)
{
	json_int_t used = json_integer_value(json_object_get(x, "quota_used_bytes"));
	json_int_t max = json_integer_value(json_object_get(x, "quota_bytes"));
	char of[32], all[32];

	if (max > 0)
		(void)printf("    %s used of the %s that this host may have there\n",
		             size_format(of, sizeof of, (uint64_t)used),
		             size_format(all, sizeof all, (uint64_t)max));
	if (how_full(used, max) != NULL)
		next_step("%s: there, locum replica limit HOST --max SIZE (what is dropped gives "
		          "no room back yet)",
		          how_full(used, max));
}

static void
print_site(const json_t *x)
{
	json_int_t bytes = json_integer_value(json_object_get(x, "sent_bytes"));
	bool up = json_is_true(json_object_get(x, "up"));
	char sent[32], rate[32];
	struct cli_word w;

	(void)printf("%-20s %-28s %-10s %-9s %10s %10s/s\n", text_of(x, "name"),
	             text_of(x, "address"), up ? "up" : "DOWN",
	             json_is_true(json_object_get(x, "has_all")) ? "yes" : "no",
	             size_format(sent, sizeof sent, (uint64_t)bytes),
	             size_format(rate, sizeof rate,
	                         (uint64_t)json_integer_value(json_object_get(x, "rate_bytes"))));
	if (json_is_string(json_object_get(x, "error")))
		(void)printf("    %s\n", text_of(x, "error"));
	if (json_is_false(json_object_get(x, "known")))
		next_step("points wait here; mend that file or take it away (locum pair TOKEN "
		          "--name %s makes it anew), then: systemctl reload locum-agent",
		          cli_word(&w, text_of(x, "name")));
	else if (!up && turned_away(x))
		next_step(
		    "it lets this host in no more, and points wait here: locum replica hosts, "
		    "there; with locum token there and locum pair here it does again");
	else if (!up)
		next_step("points wait here, and go by themselves when it is back; there: locum "
		          "status, systemctl status locum-replica");
	print_clock(x);
	if (json_is_string(json_object_get(x, "lost_points")))
		(void)printf(
		    "    on %s it lacked points that it had acknowledged (an older copy of its "
		    "folder?)\n",
		    text_of(x, "lost_points"));
	if (json_is_string(json_object_get(x, "damage"))) {
		(void)printf("    %s\n", text_of(x, "damage"));
		next_step("it is asked again now and then; there: locum scrub names the points, "
		          "and is its disk failing?");
	}
	print_quota(x);
}

/* An agent whose last VM was taken from it; a replica has hosts instead. */
static bool
protects_none(const json_t *doc)
{
	const json_t *vms = json_object_get(doc, "vms");

	return json_is_array(vms) && json_array_size(vms) == 0;
}

static void
print_table(const json_t *doc)
{
	char lag[32], worst[32], goal[32], sent[32], waiting[32];
	json_int_t bytes;
	const json_t *x;
	size_t i;

	(void)printf("%-20s %-10s %12s %12s %12s %8s  %s\n", "VM", "STATE", "LAG", "WORST 24H",
	             "GOAL", "WAITING", "LAST POINT");
	json_array_foreach(json_object_get(doc, "vms"), i, x)
	{
		(void)printf("%-20s %-10s %12s %12s %12s %8s  %s\n", text_of(x, "vm"),
		             text_of(x, "state"), duration_of(x, "lag_s", lag, sizeof lag),
		             duration_of(x, "worst_lag_s", worst, sizeof worst),
		             duration_of(x, "goal_s", goal, sizeof goal),
		             waiting_of(x, waiting, sizeof waiting), text_of(x, "time"));
		if (json_is_string(json_object_get(x, "error")))
			(void)printf("    %s\n", text_of(x, "error"));
		print_vm_step(doc, x);
	}
	if (protects_none(doc)) {
		(void)printf("no VM is protected: neither locum.conf nor libvirt names one\n");
		next_step("a section [vm NAME] each, then systemctl reload locum-agent");
	}
	print_unprotected(json_object_get(doc, "unprotected"));
	print_spool(json_object_get(doc, "spool"));
	if (json_array_size(json_object_get(doc, "replicas")) == 0)
		(void)printf("\nno replica: all of it burns with this host (locum pair)\n");
	else
		(void)printf("\n%-20s %-28s %-10s %-9s %10s %12s\n", "REPLICA", "ADDRESS", "LINK",
		             "HAS ALL", "SENT", "RATE");
	json_array_foreach(json_object_get(doc, "replicas"), i, x)
	{
		print_site(x);
	}
	bytes = json_integer_value(json_object_get(doc, "bandwidth_bytes"));
	if (bytes > 0)
		(void)printf("\nat most %s/s go to replicas (bandwidth)\n",
		             size_format(sent, sizeof sent, (uint64_t)bytes));
}

static void
print_unopened(const json_t *doc)
{
	(void)printf("no points are made: the store can't be opened: %s\n",
	             text_of(doc, "store_error"));
	next_step("the agent tries again, each minute at least: is its disk there? locum doctor");
}

/* Not connected, and that is as it should be: it sends by cron. */
static bool
comes_by(const json_t *h)
{
	return json_is_true(json_object_get(h, "by_command")) &&
	       !json_is_true(json_object_get(h, "late"));
}

static const char *
how_linked(const json_t *h)
{
	return json_is_true(json_object_get(h, "connected"))    ? "connected"
	       : turned_away(h)                                 ? "REVOKED"
	       : comes_by(h)                                    ? "idle"
	       : json_is_true(json_object_get(h, "by_command")) ? "LATE"
	                                                        : "AWAY";
}

static void
say_when(const json_t *h)
{
	bool usual = json_is_number(json_object_get(h, "comes_each_s"));
	char each[32];

	(void)printf("    it sends by cron, and did last at %s%s%s\n", text_of(h, "came"),
	             usual ? "; from one time to the next: " : "",
	             usual ? duration_of(h, "comes_each_s", each, sizeof each) : "");
}

static void
print_host(const json_t *h, bool *locked)
{
	const char *linked = how_linked(h);
	json_int_t max = json_integer_value(json_object_get(h, "quota_bytes"));
	const json_t *size = json_object_get(h, "stored_bytes");
	json_int_t stored = json_integer_value(size);
	json_int_t damaged = json_integer_value(json_object_get(h, "damaged"));
	char got[32], kept[32], age[32];
	struct cli_word w;
	const json_t *x;
	size_t i;

	(void)printf(
	    "%-20s %-10s %-26s %10s %10s %8lld\n", text_of(h, "name"), linked, text_of(h, "since"),
	    size_format(got, sizeof got,
	                (uint64_t)json_integer_value(json_object_get(h, "received_bytes"))),
	    json_is_integer(size) ? size_format(kept, sizeof kept, (uint64_t)stored) : "-",
	    (long long)json_integer_value(json_object_get(h, "points")));
	if (json_is_string(json_object_get(h, "error")))
		(void)printf("    %s\n", text_of(h, "error"));
	if (strcmp(linked, "idle") == 0 || strcmp(linked, "LATE") == 0)
		say_when(h);
	if (turned_away(h))
		next_step("its store stays; with a new token (locum token) it is let in again");
	else if (strcmp(linked, "AWAY") == 0)
		next_step("there: locum status, systemctl status locum-agent (one that sends by "
		          "cron is known as that when it has come once, and had no agent for a "
		          "week)");
	else if (strcmp(linked, "LATE") == 0)
		next_step("there: what does cron say, and locum backup --all --to this replica? "
		          "(where all of its VMs are off there is nothing to send)");
	if (damaged > 0) {
		(void)printf("    %lld contents or maps of it are damaged here\n",
		             (long long)damaged);
		next_step("it sends them again by itself, where it has them (locum status, there); "
		          "here: locum scrub names the points, and is the disk failing?");
	}
	if (max > 0)
		(void)printf("    %s is all that it may have here\n",
		             size_format(kept, sizeof kept, (uint64_t)max));
	if (how_full(stored, max) != NULL)
		next_step("%s: locum replica limit %s --max SIZE (what is dropped gives no room "
		          "back yet)",
		          how_full(stored, max), cli_word(&w, text_of(h, "name")));
	json_array_foreach(json_object_get(h, "vms"), i, x)
	{
		bool named = json_is_string(json_object_get(x, "name"));

		*locked = *locked || !named;
		(void)printf("    VM %-38.*s newest point %s old\n", named ? 63 : 8,
		             text_of(x, named ? "name" : "vm"),
		             duration_of(x, "age_s", age, sizeof age));
	}
}

static void
print_replica(const json_t *doc)
{
	const json_t *hosts = json_object_get(doc, "hosts"), *x;
	bool locked = false;
	size_t i;

	(void)printf("replica %s in %s\n\n", text_of(doc, "fingerprint"), text_of(doc, "dir"));
	if (json_array_size(hosts) == 0) {
		(void)printf("no host is paired (locum token)\n");
		return;
	}
	(void)printf("%-20s %-10s %-26s %10s %10s %8s\n", "HOST", "LINK", "SINCE", "RECEIVED",
	             "STORED", "POINTS");
	json_array_foreach(hosts, i, x)
	{
		print_host(x, &locked);
	}
	if (locked)
		(void)printf(
		    "\nVMs show by their ids: locum unlock HOST asks for the code of its kit, and "
		    "shows their names\n");
}

/* 3 where something is not as it should be: for monitoring. */
static int
verdict(const json_t *doc)
{
	const json_t *x;
	size_t i;

	if (json_is_string(json_object_get(doc, "lent")) ||
	    json_is_string(json_object_get(doc, "store_error")) || protects_none(doc) ||
	    json_array_size(json_object_get(doc, "unprotected")) > 0)
		return CLI_PARTLY;
	json_array_foreach(json_object_get(doc, "vms"), i, x)
	{
		if (strcmp(text_of(x, "state"), "protected") != 0)
			return CLI_PARTLY;
	}
	json_array_foreach(json_object_get(doc, "replicas"), i, x)
	{
		if (!json_is_true(json_object_get(x, "up")) ||
		    json_is_string(json_object_get(x, "damage")) ||
		    json_is_string(json_object_get(x, "error")))
			return CLI_PARTLY;
	}
	json_array_foreach(json_object_get(doc, "hosts"), i, x)
	{
		if (turned_away(x)) /* somebody wanted that */
			continue;
		if ((!json_is_true(json_object_get(x, "connected")) && !comes_by(x)) ||
		    json_integer_value(json_object_get(x, "damaged")) > 0 ||
		    json_is_string(json_object_get(x, "error")))
			return CLI_PARTLY;
	}
	return CLI_DONE;
}

static bool
alive(const json_t *doc)
{
	json_int_t pid = json_integer_value(json_object_get(doc, "pid"));

	return pid <= 0 || kill((pid_t)pid, 0) == 0 || errno != ESRCH;
}

static void
print_json(const json_t *doc, const struct lc_buf *text, bool replica)
{
	if (!replica) {
		(void)fwrite(text->p, 1, text->n, stdout);
		return;
	}
	(void)json_dumpf(doc, stdout,
	                 JSON_INDENT(1) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(15));
	(void)putchar('\n');
}

static int
show(const struct cli_args *a, const struct lc_buf *text, const char *path, const char *key_dir)
{
	json_error_t je;
	json_t *doc = json_loadb((const char *)text->p, text->n, 0, &je);
	const char *role;
	int64_t at = 0, age;
	bool replica;
	char *dir;
	int status;

	if (doc == NULL || !clock_parse(text_of(doc, "time"), &at)) {
		log_error("%s: not written by this version", path);
		json_decref(doc);
		return CLI_FAILED;
	}
	role = strcmp(text_of(doc, "role"), "replica") == 0 ? "replica" : "agent";
	/* One that was killed leaves its last words behind; one that lives and whose clock is set
	 * back writes anew within a second. */
	age = clock_since(clock_wall_ns(), at);
	if (age > STALE_NS || age < -STALE_NS || !alive(doc)) {
		log_error("the %s (pid %lld) has said nothing since %s%s: was it killed, or does "
		          "it hang? systemctl restart locum-%s",
		          role, (long long)json_integer_value(json_object_get(doc, "pid")),
		          text_of(doc, "time"),
		          age < -STALE_NS ? ", by a clock that was set back" : "", role);
		json_decref(doc);
		return CLI_FAILED;
	}
	status = verdict(doc);
	replica = strcmp(role, "replica") == 0;
	dir = replica ? path_dirname(path) : NULL;
	if (dir != NULL)
		names_add(doc, dir, key_dir);
	lc_free(dir);
	if (cli_has(a, "json"))
		print_json(doc, text, replica);
	else if (replica)
		print_replica(doc);
	else if (json_is_string(json_object_get(doc, "lent")))
		(void)printf("the store is lent to %s: no points are made until it is done\n",
		             text_of(doc, "lent"));
	else if (json_is_string(json_object_get(doc, "store_error")))
		print_unopened(doc);
	else
		print_table(doc);
	json_decref(doc);
	return status;
}

static int
read_status(const char *dir, const char *name, char **path, struct lc_buf *text, struct lc_err *e)
{
	lc_free(*path);
	*path = path_join(dir, name);
	return *path == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	                     : file_read_all(*path, 16u << 20, text, e);
}

static int
run_status(const struct cli_args *a)
{
	const char *dir = cli_get(a, "dir");
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf text = {0};
	struct settings settings;
	char *path = NULL;
	struct cli_word w;
	int rc, status;

	rc = settings_load(a, &settings, &e);
	if (rc == 0 && dir == NULL) {
		rc = read_status(settings.run_dir, STATUS_FILE, &path, &text, &e);
		dir = rc == LC_ENOENT ? settings.replica_dir : NULL;
	}
	if (dir != NULL) {
		lc_err_clear(&e);
		rc = read_status(dir, REPLICA_FILE, &path, &text, &e);
	}
	if (rc == LC_ENOENT) {
		lc_err_clear(&e);
		rc = lc_fail(&e, LC_ENOENT, 0,
		             cli_get(a, "dir") != NULL
		                 ? "no replica runs in %s (locum replica --dir %s)"
		                 : "no agent runs on this host (locum agent)",
		             dir, cli_word(&w, dir == NULL ? "" : dir));
	}
	status = rc != 0 ? cli_error(&e) : show(a, &text, path, settings.key_dir);
	lc_buf_free(&text);
	lc_free(path);
	settings_done(&settings);
	return status;
}

static const struct cli_option status_options[] = {
    {.name = "dir",
     .arg = "DIR",
     .help = "folder of a replica (default: the agent here, else replica_dir of the settings)"},
    {.name = NULL}};

const struct cli_verb verb_status = {
    .name = "status",
    .operands = "",
    .summary = "show how continuous protection does",
    .details =
	"For each VM: how old its newest safe state is (lag), the worst of 24 hours, its goal,\n"
	"and what is wrong.  For each replica: whether it is connected and has everything.\n"
	"\n"
	"At a replica: for each host whether it is connected, what it has sent, and how old the\n"
	"newest point of each of its VMs is.  VMs show by their ids there, and by their names\n"
	"where this machine has the key of the host's store (locum unlock).\n"
	"\n"
	"Exit status: 0 every VM that runs here is protected and within its goal, and all\n"
	"replicas (all hosts) are connected; 3 not so, or it protects none; 1 no agent or\n"
	"replica runs.\n"
	"\n"
	"Examples:\n"
	"  locum status\n"
	"  watch -n 1 locum status\n"
	"  locum status --json\n"
	"  locum status --dir /srv/locum",
    .options = status_options,
    .min_operands = 0,
    .max_operands = 0,
    .run = run_status,
};
