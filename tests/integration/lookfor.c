/*
 * lookfor: whether markers are in files, in folders, or in the memory of processes.
 *
 *     lookfor MARKERS TARGET...     TARGET: a path, or pid:N
 *
 * MARKERS has a line "NAME HEX" for each; HEX are its bytes.  Says where each hit is.  Exit status:
 * 0 none is anywhere, 1 some are, 2 something could not be read.
 */
#include <ctype.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MARKERS_MAX 64
#define MARKER_MAX 256u
#define BLOCK (1u << 20)

static struct marker {
	char name[64];
	uint8_t bytes[MARKER_MAX];
	size_t n;
	bool told; /* of this target */
} markers[MARKERS_MAX];
static size_t nmarkers;
static int hits;
static unsigned long long looked_at;

static void
read_markers(const char *path)
{
	char name[64], hex[2 * MARKER_MAX + 1];
	FILE *f = fopen(path, "re");

	if (f == NULL) {
		perror(path);
		exit(2);
	}
	while (nmarkers < MARKERS_MAX && fscanf(f, "%63s %512s", name, hex) == 2) {
		struct marker *m = &markers[nmarkers++];
		size_t i, n = strlen(hex) / 2;

		(void)snprintf(m->name, sizeof m->name, "%s", name);
		for (i = 0; i < n; i++) {
			char two[3] = {hex[2 * i], hex[2 * i + 1], '\0'};

			m->bytes[i] = (uint8_t)strtoul(two, NULL, 16);
		}
		m->n = n;
		if (n < 8) {
			(void)fprintf(stderr, "marker %s is too short to mean anything\n", name);
			exit(2);
		}
	}
	(void)fclose(f);
	if (nmarkers == 0) {
		(void)fprintf(stderr, "%s: no markers\n", path);
		exit(2);
	}
}

static void
look(const uint8_t *p, size_t n, const char *where, unsigned long long at)
{
	size_t i;

	for (i = 0; i < nmarkers; i++) {
		const uint8_t *hit = markers[i].told ? NULL
		                                     : memmem(p, n, markers[i].bytes, markers[i].n);

		if (hit == NULL)
			continue;
		(void)printf("%s is in %s at %llx\n", markers[i].name, where,
		             at + (unsigned long long)(hit - p));
		markers[i].told = true;
		hits++;
	}
}

/* [from, to) of a descriptor, in blocks that overlap by a marker. */
static void
look_range(int fd, unsigned long long from, unsigned long long to, const char *where)
{
	static uint8_t block[BLOCK + MARKER_MAX];
	size_t kept = 0;

	while (from < to) {
		size_t want = to - from < BLOCK ? (size_t)(to - from) : BLOCK;
		ssize_t n = pread(fd, block + kept, want, (off_t)from);

		if (n <= 0)
			break; /* a mapping that can't be read, or a file that got shorter */
		look(block, kept + (size_t)n, where, from - kept);
		from += (unsigned long long)n;
		looked_at += (unsigned long long)n;
		kept += (size_t)n;
		if (kept > MARKER_MAX) {
			memmove(block, block + kept - MARKER_MAX, MARKER_MAX);
			kept = MARKER_MAX;
		}
	}
}

static void
forget_told(void)
{
	size_t i;

	for (i = 0; i < nmarkers; i++)
		markers[i].told = false;
}

static int
look_file(const char *path, const struct stat *st, int type, struct FTW *f)
{
	int fd;

	(void)f;
	forget_told();
	look((const uint8_t *)path, strlen(path), "the name of a file", 0);
	looked_at++;
	if (type != FTW_F || !S_ISREG(st->st_mode))
		return 0;
	forget_told();
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0; /* it went meanwhile */
	look_range(fd, 0, UINT64_MAX, path);
	(void)close(fd);
	return 0;
}

static void
look_process(const char *pid)
{
	char path[64], where[64], line[512], rights[8];
	unsigned long long from, to;
	FILE *maps;
	int mem;

	forget_told();
	(void)snprintf(path, sizeof path, "/proc/%s/mem", pid);
	mem = open(path, O_RDONLY | O_CLOEXEC);
	(void)snprintf(path, sizeof path, "/proc/%s/maps", pid);
	maps = fopen(path, "re");
	if (mem < 0 || maps == NULL) {
		perror(path);
		exit(2);
	}
	(void)snprintf(where, sizeof where, "the memory of process %s", pid);
	while (fgets(line, sizeof line, maps) != NULL) {
		if (sscanf(line, "%llx-%llx %7s", &from, &to, rights) == 3 && rights[0] == 'r')
			look_range(mem, from, to, where);
	}
	(void)fclose(maps);
	(void)close(mem);
}

int
main(int argc, char **argv)
{
	int i;

	if (argc < 3) {
		(void)fprintf(stderr, "lookfor MARKERS TARGET...\n");
		return 2;
	}
	read_markers(argv[1]);
	for (i = 2; i < argc; i++) {
		if (strncmp(argv[i], "pid:", 4) == 0) {
			look_process(argv[i] + 4);
		} else if (nftw(argv[i], look_file, 16, FTW_PHYS) != 0) {
			perror(argv[i]);
			return 2;
		}
	}
	if (looked_at == 0) {
		(void)fprintf(stderr, "nothing could be read\n");
		return 2;
	}
	return hits == 0 ? 0 : 1;
}
