/*
 * sockline: one question to a unix socket, one answer, for shell tests.
 *
 * Plain, it speaks the command channel of the test guest: the line goes out
 * with a tag of its own, so that a late answer to an earlier command, whose
 * asker gave up, is not taken for ours.  With --qmp it does the greeting and
 * qmp_capabilities first and skips events; with --event NAME it prints the
 * next such event.  Exit status: 0 answered well, 1 answered with an error,
 * 2 no answer.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_SIZE (1U << 20) /* query-block of many disks is long. */

struct peer {
	int fd;
	int64_t until_ms;
	size_t used, taken;
	char *buf;
};

static int64_t
now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* QEMU may have been started a moment ago; a dead one is not worth the whole time-out. */
static bool
dial(struct peer *p, const char *path)
{
	const struct timespec again = {.tv_nsec = 20000000};
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int64_t give_up_ms = now_ms() + 3000;

	if (strlen(path) >= sizeof(sa.sun_path)) {
		fprintf(stderr, "sockline: %s: path too long for a unix socket\n", path);
		return false;
	}
	(void)snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	do {
		p->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (p->fd < 0)
			break;
		if (connect(p->fd, (struct sockaddr *)&sa, sizeof(sa)) == 0)
			return true;
		(void)close(p->fd);
		(void)nanosleep(&again, NULL);
	} while (now_ms() < give_up_ms);
	fprintf(stderr, "sockline: %s: %s\n", path, strerror(errno));
	return false;
}

static bool
send_line(struct peer *p, const char *prefix, const char *line)
{
	if (dprintf(p->fd, "%s%s\n", prefix, line) < 0) {
		fprintf(stderr, "sockline: send: %s\n", strerror(errno));
		return false;
	}
	return true;
}

/* The next line without its end, valid until the next call; NULL after a message. */
static char *
next_line(struct peer *p)
{
	struct pollfd pfd = {.fd = p->fd, .events = POLLIN};
	char *line, *end;
	int64_t left;
	ssize_t n;

	memmove(p->buf, p->buf + p->taken, p->used - p->taken);
	p->used -= p->taken;
	p->taken = 0;
	for (;;) {
		line = p->buf;
		end = memchr(line, '\n', p->used);
		if (end != NULL) {
			p->taken = (size_t)(end - line) + 1;
			*end = '\0';
			if (end > line && end[-1] == '\r')
				end[-1] = '\0';
			return line;
		}
		left = p->until_ms - now_ms();
		if (left <= 0 || p->used == LINE_MAX_SIZE || poll(&pfd, 1, (int)left) <= 0) {
			fprintf(stderr, "sockline: no answer in time\n");
			return NULL;
		}
		n = read(p->fd, p->buf + p->used, LINE_MAX_SIZE - p->used);
		if (n <= 0) {
			fprintf(stderr, "sockline: the other side closed\n");
			return NULL;
		}
		p->used += (size_t)n;
	}
}

static bool
begins(const char *s, const char *with)
{
	return strncmp(s, with, strlen(with)) == 0;
}

/* Skips events and the greeting; a reply of QEMU begins with one of the two. */
static char *
qmp_reply(struct peer *p)
{
	char *line;

	do
		line = next_line(p);
	while (line != NULL && !begins(line, "{\"return\"") && !begins(line, "{\"error\""));
	return line;
}

static int
ask_qmp(struct peer *p, const char *question)
{
	char *line;

	if (!send_line(p, "", "{\"execute\":\"qmp_capabilities\"}") || qmp_reply(p) == NULL ||
	    !send_line(p, "", question))
		return 2;
	line = qmp_reply(p);
	if (line == NULL)
		return 2;
	puts(line);
	return begins(line, "{\"return\"") ? 0 : 1;
}

static int
wait_event(struct peer *p, const char *name)
{
	char want[128];
	char *line;

	(void)snprintf(want, sizeof(want), "\"event\": \"%s\"", name);
	if (!send_line(p, "", "{\"execute\":\"qmp_capabilities\"}"))
		return 2;
	do
		line = next_line(p);
	while (line != NULL && strstr(line, want) == NULL);
	if (line == NULL)
		return 2;
	puts(line);
	return 0;
}

static int
ask_guest(struct peer *p, const char *question)
{
	char tag[48];
	char *line;

	(void)snprintf(tag, sizeof(tag), "@%ld-%lld ", (long)getpid(), (long long)now_ms());
	if (!send_line(p, tag, question))
		return 2;
	do
		line = next_line(p);
	while (line != NULL && !begins(line, tag));
	if (line == NULL)
		return 2;
	line += strlen(tag);
	puts(line);
	return begins(line, "OK") ? 0 : 1;
}

static int
usage(void)
{
	fprintf(stderr, "usage: sockline [--timeout S] [--qmp | --event] SOCKET LINE|EVENT\n");
	return 2;
}

int
main(int argc, char **argv)
{
	static const struct option longopts[] = {
	    {"timeout", required_argument, NULL, 't'},
	    {"qmp", no_argument, NULL, 'q'},
	    {"event", no_argument, NULL, 'e'},
	    {NULL, 0, NULL, 0},
	};
	struct peer p = {.fd = -1};
	char mode = 'g';
	long timeout_s = 30;
	int c, rc;

	while ((c = getopt_long(argc, argv, "", longopts, NULL)) != -1) {
		if (c == 't')
			timeout_s = strtol(optarg, NULL, 10);
		else if (c == 'q' || c == 'e')
			mode = (char)c;
		else
			return usage();
	}
	if (argc - optind != 2 || timeout_s <= 0)
		return usage();
	p.until_ms = now_ms() + timeout_s * 1000;
	p.buf = malloc(LINE_MAX_SIZE);
	if (p.buf == NULL || !dial(&p, argv[optind]))
		return 2;
	if (mode == 'q')
		rc = ask_qmp(&p, argv[optind + 1]);
	else if (mode == 'e')
		rc = wait_event(&p, argv[optind + 1]);
	else
		rc = ask_guest(&p, argv[optind + 1]);
	(void)close(p.fd);
	free(p.buf);
	return rc;
}
