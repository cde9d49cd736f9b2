/*
 * Replays a corpus without libFuzzer: every file of the folders given, and of the small ones also
 * every shorter start and every copy with one byte turned over, which finds most of what a fuzzer
 * finds in its first second.  Variants end after VARY_S seconds, for targets that derive keys.
 *
 * Fails where there is no file: a test that looked at nothing must not pass.
 */
#include <dirent.h>
#include <string.h>

#include "store/base/clock.h"
#include "store/base/files.h"
#include "tests/fuzz/fuzz.h"

enum { LARGEST_INPUT = 16 << 20, LARGEST_VARIED = 2048, VARY_S = 15 };

static unsigned long runs;
static int64_t vary_until_ns;

/* In a block of exactly n bytes, so that reading one too many is seen by ASan and valgrind. */
static void
run(const uint8_t *p, size_t n)
{
	uint8_t *copy = malloc(n == 0 ? 1 : n);

	if (copy == NULL)
		abort();
	if (n > 0)
		memcpy(copy, p, n);
	(void)LLVMFuzzerTestOneInput(copy, n);
	free(copy);
	runs++;
}

static void
run_variants(uint8_t *p, size_t n)
{
	static const uint8_t masks[] = {0x01, 0x80, 0xff};
	size_t i, k;

	for (i = 0; i < n && clock_mono_ns() < vary_until_ns; i++)
		run(p, i);
	for (i = 0; i < n && clock_mono_ns() < vary_until_ns; i++) {
		for (k = 0; k < sizeof masks; k++) {
			p[i] ^= masks[k];
			run(p, n);
			p[i] ^= masks[k];
		}
	}
}

static unsigned long
replay_folder(const char *dir)
{
	struct dirent **names;
	unsigned long files = 0;
	int n = scandir(dir, &names, NULL, alphasort);
	int i;

	if (n < 0) {
		perror(dir);
		return 0;
	}
	for (i = 0; i < n; i++) {
		char *path = path_join(dir, names[i]->d_name);
		struct lc_err e = LC_ERR_INIT;
		struct lc_buf b = {0};

		if (path == NULL)
			abort();
		if (names[i]->d_name[0] != '.') {
			if (file_read_all(path, LARGEST_INPUT, &b, &e) != 0) {
				(void)fprintf(stderr, "%s\n", e.msg);
				exit(1);
			}
			run(b.p, b.n);
			if (b.n <= LARGEST_VARIED)
				run_variants(b.p, b.n);
			files++;
		}
		lc_buf_free(&b);
		lc_free(path);
		free(names[i]);
	}
	free(names);
	return files;
}

int
main(int argc, char **argv)
{
	unsigned long files = 0;
	int i;

	vary_until_ns = clock_mono_ns() + VARY_S * LC_NS_PER_S;
	for (i = 1; i < argc; i++)
		files += replay_folder(argv[i]);
	(void)printf("%lu inputs from %lu files\n", runs, files);
	return files == 0;
}
