/*
 * seqcheck: are these disks of the test guest one instant of one history?
 *
 * Law 1, in three ways: every number of the ring up to the newest is on its
 * disk, whole, and the successor of the one before it; every random write that
 * was flushed (--strict: complete) at that number is there; and no random write
 * knows of a number that the ring does not have.
 *
 * Exit status: 0 one instant, 1 not, 2 usage or unreadable.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "seqfmt.h"

#define SHOW_DEFAULT 10U
#define NO_ID UINT64_MAX

struct image {
	const char *path;
	int fd;
	uint64_t size;
	struct seqfmt_slot *ring;
	/* Per page of the random area: the last write that must be there. */
	uint64_t *expect;
	uint64_t npages;
};

struct check {
	struct image img[SEQFMT_MAX_DISKS];
	unsigned n;
	bool json, no_load, strict;
	uint64_t show, shown;
	struct seqfmt_result res;
	uint64_t load_writes, load_pages, load_problems;
};

static void *
get_memory(size_t count, size_t size)
{
	void *p = calloc(count == 0 ? 1 : count, size);

	if (p == NULL) {
		fprintf(stderr, "seqcheck: out of memory\n");
		exit(2);
	}
	return p;
}

/* Reads up to n bytes; what the end of the file leaves out is zero. */
static bool
read_at(const struct image *img, uint8_t *buf, size_t n, uint64_t offset)
{
	size_t done = 0;
	ssize_t rc;

	while (done < n) {
		rc = pread(img->fd, buf + done, n - done, (off_t)(offset + done));
		if (rc < 0 && errno == EINTR)
			continue;
		if (rc < 0) {
			fprintf(stderr, "seqcheck: %s: %s\n", img->path, strerror(errno));
			return false;
		}
		if (rc == 0)
			break;
		done += (size_t)rc;
	}
	memset(buf + done, 0, n - done);
	return true;
}

static bool
read_ring(struct image *img)
{
	uint8_t rec[SEQFMT_REC_SIZE];
	unsigned s;

	for (s = 0; s < SEQFMT_SLOTS; s++) {
		if (!read_at(img, rec, sizeof(rec), SEQFMT_RING_OFF + (uint64_t)s * sizeof(rec)))
			return false;
		img->ring[s].kind = seqfmt_get_rec(rec, &img->ring[s].rec);
	}
	return true;
}

static bool
open_image(struct image *img, const char *path)
{
	static const uint8_t qcow2[4] = {'Q', 'F', 'I', 0xfb};
	uint8_t head[4];
	off_t end;

	img->path = path;
	img->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (img->fd < 0) {
		fprintf(stderr, "seqcheck: %s: %s\n", path, strerror(errno));
		return false;
	}
	end = lseek(img->fd, 0, SEEK_END);
	if (end < 0 || !read_at(img, head, sizeof(head), 0))
		return false;
	if (memcmp(head, qcow2, sizeof(head)) == 0) {
		fprintf(stderr, "seqcheck: %s: this is qcow2; qemu-img convert -O raw it first\n",
		        path);
		return false;
	}
	img->size = (uint64_t)end;
	if (img->size < SEQFMT_RING_OFF + SEQFMT_RING_SIZE) {
		fprintf(stderr, "seqcheck: %s: too short to hold a ring\n", path);
		return false;
	}
	img->ring = get_memory(SEQFMT_SLOTS, sizeof(*img->ring));
	return read_ring(img);
}

/* Should this problem still be printed?  Also separates the entries in JSON. */
static bool
show(struct check *c)
{
	if (c->shown >= c->show)
		return false;
	if (c->json && c->shown > 0)
		putchar(',');
	c->shown++;
	return true;
}

static void
on_problem(void *arg, enum seqfmt_problem what, uint64_t n, unsigned disk, unsigned slot,
           uint64_t found)
{
	struct check *c = arg;
	const char *name = seqfmt_problem_name(what);

	if (!show(c))
		return;
	if (c->json) {
		printf("{\"kind\":\"%s\",\"n\":%" PRIu64 ",\"disk\":%u,\"slot\":%u", name, n, disk,
		       slot);
		if (found != SEQFMT_NONE)
			printf(",\"found\":%" PRIu64, found);
		putchar('}');
		return;
	}
	printf("seqcheck: %s: number %" PRIu64 " disk %u slot %u", name, n, disk, slot);
	if (found != SEQFMT_NONE && found != n)
		printf(" (holds %" PRIu64 ")", found);
	if (what == SEQFMT_P_CHAIN)
		printf(" (not the successor of %" PRIu64 ": another history)", n - 1);
	putchar('\n');
}

static void
load_problem(struct check *c, const char *kind, unsigned disk, uint64_t offset, uint64_t id,
             uint64_t found)
{
	c->load_problems++;
	if (!show(c))
		return;
	if (c->json)
		printf("{\"kind\":\"load-%s\",\"disk\":%u,\"offset\":%" PRIu64 ",\"write\":%" PRId64
		       ",\"found\":%" PRId64 "}",
		       kind, disk, offset, (int64_t)id, (int64_t)found);
	else
		printf("seqcheck: load-%s: disk %u offset %" PRIu64 " write %" PRId64
		       " (holds %" PRId64 ")\n",
		       kind, disk, offset, (int64_t)id, (int64_t)found);
}

/*
 * Replay where the random writes of the newest run went that must be there.  In
 * a restore point taken from a running guest those are all that were complete.
 * Of a machine that was killed they are those that were flushed: QEMU keeps the
 * tables of a qcow2 in memory until a flush.
 */
static void
replay_load(struct check *c)
{
	struct seqfmt_place at;
	struct image *img;
	uint64_t id, i, page;
	unsigned d;

	for (d = 0; d < c->n; d++) {
		img = &c->img[d];
		if (c->res.region_end[d] > img->size) /* A short file: the rest reads as zero. */
			fprintf(stderr, "seqcheck: %s: shorter than the disk was\n", img->path);
		if (c->res.region_end[d] != 0)
			img->npages = (c->res.region_end[d] - SEQFMT_LOAD_OFF) / SEQFMT_REC_SIZE;
		img->expect = get_memory((size_t)img->npages, sizeof(*img->expect));
		for (i = 0; i < img->npages; i++)
			img->expect[i] = NO_ID;
	}
	for (id = 0; c->res.load_known && id < c->res.top.load_done; id++) {
		at = seqfmt_place(c->res.top.load_seed, id, c->res.region_end, c->n);
		if (at.size == 0)
			return;
		if (!c->strict && id >= c->res.load_flushed[at.disk])
			continue;
		c->load_writes++;
		page = (at.offset - SEQFMT_LOAD_OFF) / SEQFMT_REC_SIZE;
		for (i = 0; i < at.size / SEQFMT_REC_SIZE; i++)
			c->img[at.disk].expect[page + i] = id;
	}
}

/* Does write p.id of the newest run go to where this page is? */
static bool
placed_here(const struct check *c, const struct seqfmt_page *p)
{
	struct seqfmt_place at = seqfmt_place(c->res.top.load_seed, p->id, c->res.region_end, c->n);

	return at.disk == p->disk && p->page < at.size / SEQFMT_REC_SIZE &&
	       at.offset + (uint64_t)p->page * SEQFMT_REC_SIZE == p->offset;
}

/*
 * One page against the last write that must be there.  A newer write of the
 * same run may have landed, because writes go on between two numbers, but none
 * that was issued after a number which the ring does not have.
 */
static void
judge_page(struct check *c, unsigned disk, uint64_t offset, uint64_t expect, const uint8_t *buf)
{
	struct seqfmt_page p;
	enum seqfmt_kind kind = seqfmt_get_page(buf, &p);
	bool newest_run;

	if (kind == SEQFMT_TORN) {
		load_problem(c, "torn", disk, offset, expect, NO_ID);
		return;
	}
	if (kind == SEQFMT_EMPTY) {
		if (expect != NO_ID)
			load_problem(c, "missing", disk, offset, expect, NO_ID);
		return;
	}
	c->load_pages++;
	newest_run = p.run == c->res.top.run;
	if (p.disk != disk || p.offset != offset ||
	    (newest_run && c->res.load_known && !placed_here(c, &p)))
		load_problem(c, "foreign", disk, offset, expect, p.id);
	else if (p.seq_next > c->res.top.n + 1)
		load_problem(c, "future", disk, offset, expect, p.id);
	else if (expect != NO_ID && (!newest_run || p.id < expect))
		load_problem(c, "stale", disk, offset, expect, p.id);
}

static bool
check_load(struct check *c)
{
	uint8_t *buf = get_memory(SEQFMT_LOAD_MAX, 1);
	uint64_t page, i, offset;
	unsigned d;

	replay_load(c);
	for (d = 0; d < c->n; d++) {
		for (page = 0; page < c->img[d].npages; page += SEQFMT_LOAD_MAX / SEQFMT_REC_SIZE) {
			offset = SEQFMT_LOAD_OFF + page * SEQFMT_REC_SIZE;
			if (!read_at(&c->img[d], buf, SEQFMT_LOAD_MAX, offset)) {
				free(buf);
				return false;
			}
			for (i = 0; i < SEQFMT_LOAD_MAX / SEQFMT_REC_SIZE; i++)
				judge_page(c, d, offset + i * SEQFMT_REC_SIZE,
				           c->img[d].expect[page + i], buf + i * SEQFMT_REC_SIZE);
		}
	}
	free(buf);
	return true;
}

static void
print_json(const struct check *c, bool ok)
{
	const struct seqfmt_result *r = &c->res;
	unsigned d;

	printf("],\"ok\":%s,\"found\":%s,\"problems\":%" PRIu64 ",\"load_problems\":%" PRIu64,
	       ok ? "true" : "false", r->found ? "true" : "false", r->problems, c->load_problems);
	if (r->found) {
		printf(",\"newest\":%" PRIu64 ",\"oldest\":%" PRIu64 ",\"checked\":%" PRIu64
		       ",\"wall_ns\":%" PRIu64 ",\"run\":\"%016" PRIx64
		       "\",\"load_writes\":%" PRIu64 ",\"load_pages\":%" PRIu64 ",\"per_disk\":[",
		       r->top.n, r->lo, r->checked, r->top.wall_ns, r->top.run, c->load_writes,
		       c->load_pages);
		for (d = 0; d < c->n; d++)
			printf("%s%" PRId64, d > 0 ? "," : "", (int64_t)r->newest[d]);
		putchar(']');
	}
	printf("}\n");
}

/* Nothing fits: perhaps the disks are swapped, or one was left out. */
static void
print_whose(const struct check *c)
{
	const struct seqfmt_slot *slot;
	unsigned d, s;

	printf("seqcheck: no sequence on these disks\n");
	for (d = 0; d < c->n; d++) {
		for (s = 0; s < SEQFMT_SLOTS; s++) {
			slot = &c->img[d].ring[s];
			if (slot->kind == SEQFMT_VALID) {
				printf("seqcheck: disk %u (%s) holds disk %u of %u\n", d,
				       c->img[d].path, slot->rec.disk, slot->rec.ndisks);
				break;
			}
		}
	}
}

static void
print_text(const struct check *c, bool ok)
{
	const struct seqfmt_result *r = &c->res;
	uint64_t all = r->problems + c->load_problems;
	unsigned d;

	if (!r->found) {
		print_whose(c);
		return;
	}
	if (ok) {
		printf("seqcheck: newest %" PRIu64 ", checked %" PRIu64 " records, ok\n", r->top.n,
		       r->checked);
		if (c->load_writes > 0 || c->load_pages > 0)
			printf("seqcheck: %" PRIu64 " %s random writes, %" PRIu64 " pages, ok\n",
			       c->load_writes, c->strict ? "complete" : "flushed", c->load_pages);
		return;
	}
	if (all > c->shown)
		printf("seqcheck: and %" PRIu64 " more\n", all - c->shown);
	/* A disk that ends more than a round behind the others is of an earlier instant. */
	for (d = 0; d < c->n; d++) {
		if (r->newest[d] == SEQFMT_NONE)
			printf("seqcheck: disk %u has no record of %u disks\n", d, c->n);
		else if (r->top.n - r->newest[d] >= c->n)
			printf("seqcheck: disk %u ends at %" PRIu64 ", the newest is %" PRIu64
			       ": different instants\n",
			       d, r->newest[d], r->top.n);
	}
	printf("seqcheck: newest %" PRIu64 ", checked %" PRIu64 " records, %" PRIu64 " problems\n",
	       r->top.n, r->checked, all);
}

static int
run(struct check *c)
{
	const struct seqfmt_slot *ring[SEQFMT_MAX_DISKS];
	unsigned d;
	bool ok;

	for (d = 0; d < c->n; d++)
		ring[d] = c->img[d].ring;
	if (c->json)
		printf("{\"list\":[");
	ok = seqfmt_check(ring, c->n, on_problem, c, &c->res);
	if (c->res.found && !c->no_load) {
		if (!check_load(c))
			return 2;
		ok = ok && c->load_problems == 0;
	}
	if (c->json)
		print_json(c, ok);
	else
		print_text(c, ok);
	return ok ? 0 : 1;
}

static int
usage(FILE *to)
{
	fprintf(
	    to,
	    "usage: seqcheck [--strict | --no-load] [--json] [--show N] DISK0.raw DISK1.raw ...\n"
	    "  --strict   every complete random write must be there, not only the flushed ones:\n"
	    "             for a point in time of a running guest, not for a killed one\n"
	    "  --no-load  only the sequence, not the random writes\n"
	    "  --show N   print at most N problems (default 10)\n");
	return to == stdout ? 0 : 2;
}

int
main(int argc, char **argv)
{
	static const struct option longopts[] = {
	    {"json", no_argument, NULL, 'j'},   {"no-load", no_argument, NULL, 'n'},
	    {"strict", no_argument, NULL, 'S'}, {"show", required_argument, NULL, 's'},
	    {"help", no_argument, NULL, 'h'},   {NULL, 0, NULL, 0},
	};
	static struct check c = {.show = SHOW_DEFAULT};
	unsigned d;
	int opt, rc;

	while ((opt = getopt_long(argc, argv, "", longopts, NULL)) != -1) {
		if (opt == 'j')
			c.json = true;
		else if (opt == 'n')
			c.no_load = true;
		else if (opt == 'S')
			c.strict = true;
		else if (opt == 's')
			c.show = strtoull(optarg, NULL, 10);
		else
			return usage(opt == 'h' ? stdout : stderr);
	}
	if (optind == argc || argc - optind > (int)SEQFMT_MAX_DISKS)
		return usage(stderr);
	c.n = (unsigned)(argc - optind);
	for (d = 0; d < c.n; d++) {
		if (!open_image(&c.img[d], argv[optind + (int)d]))
			return 2;
	}
	rc = run(&c);
	for (d = 0; d < c.n; d++) {
		free(c.img[d].ring);
		free(c.img[d].expect);
		(void)close(c.img[d].fd);
	}
	return rc;
}
