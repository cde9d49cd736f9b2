/*
 * pages: whatever lies in its file, the index opens, answers, grows, and finds what it was given.
 *
 * The first byte is even where the head is to be made to fit, so that what is behind it is reached.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "store/base/bytes.h"
#include "store/base/memory.h"
#include "store/pages.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/vectors_keys.h"

#define HEAD 72u
#define WINDOWS 80u

static const uint8_t store_id[16] = "fuzz";
static struct keyring *keys;
static uint8_t key[SEAL_TAG_KEY];
static char path[] = "/tmp/locum-fuzz-pages-XXXXXX";

static void
clean_up(void)
{
	(void)unlink(path);
	keyring_free(keys);
}

static void
set_up(void)
{
	struct lc_span seals = {vector_keys, sizeof vector_keys};
	int fd = mkstemp(path);

	fuzz_check(fd >= 0 && keyring_open_code(seals, VECTOR_CODE, &keys, NULL) == 0);
	(void)close(fd);
	seal_tag_key(keys, key);
	(void)atexit(clean_up);
}

static void
put_file(const uint8_t *p, size_t n, bool fit)
{
	uint8_t file[16384] = {0};
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);

	memcpy(file, p, n);
	if (fit && n >= HEAD) {
		memcpy(file, "LOCUMPGS", 8);
		lc_put32(file + 8, 1);
		lc_put32(file + 12, file[12] % 4);
		lc_put64(file + 16, UINT64_C(512) << file[16] % 3);
		lc_put64(file + 24, lc_get16(file + 24));
		memcpy(file + 32, store_id, 16);
		lc_put64(file + 48, seal_tag(key, (struct lc_span){store_id, 16}));
		memset(file + 56, 0, 8);
		lc_put64(file + HEAD - 8, XXH3_64bits(file, HEAD - 8));
	}
	fuzz_check(fd >= 0 && write(fd, file, n) == (ssize_t)n);
	(void)close(fd);
}

static void
make_tags(const struct pages *x, uint64_t window, struct page_tags *t)
{
	static uint8_t bytes[WINDOW_SIZE];
	size_t i;

	for (i = 0; i < WINDOW_PAGES; i++)
		lc_put64(bytes + i * PAGE_SIZE, window * WINDOW_PAGES + i + 1);
	pages_tags(x, bytes, t);
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct page_tags t;
	struct pages *x = NULL;
	uint64_t chunks[WINDOW_PAGES], i, k;
	unsigned kept, found;

	if (keys == NULL)
		set_up();
	if (n == 0 || n > 16384)
		return 0;
	put_file(p + 1, n - 1, p[0] % 2 == 0);
	fuzz_check(pages_open(path, keys, store_id, 128u << 10, &x, NULL) == 0);
	for (i = 0; i < WINDOWS; i++) {
		make_tags(x, i, &t);
		pages_put(x, &t, i + 1);
		kept = pages_find(x, &t, chunks);
		fuzz_check(kept <= WINDOW_PAGES);
		for (k = found = 0; k < WINDOW_PAGES; k++) {
			fuzz_check(chunks[k] == 0 || chunks[k] == i + 1);
			found += chunks[k] != 0;
		}
		fuzz_check(found <= kept && found + 2 >= kept);
	}
	pages_close(x);
	fuzz_check(pages_open(path, keys, store_id, 64u << 10, &x, NULL) == 0);
	pages_close(x);
	return 0;
}
