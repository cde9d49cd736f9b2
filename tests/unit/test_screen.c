#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/hypervisor/screen.h"
#include "tests/lib/unit.h"

enum { W = 72, H = 40, HEAD = 32, BYTES = HEAD + 3 * W * H };

/* A picture of one colour; the number of bytes. */
static size_t
picture(uint8_t *p, uint8_t colour)
{
	int n = snprintf((char *)p, HEAD, "P6\n%d %d\n255\n", W, H);

	memset(p + n, colour, (size_t)3 * W * H);
	return (size_t)n + (size_t)3 * W * H;
}

static void
test_blank_and_same(void **state)
{
	uint8_t *a = calloc(1, BYTES), *b = calloc(1, BYTES);
	size_t na = picture(a, 0), nb = picture(b, 0);
	struct screen x, y;
	uint8_t *pixels;

	(void)state;
	assert_int_equal(screen_parse(a, na, &x, NULL), 0);
	assert_int_equal(screen_parse(b, nb, &y, NULL), 0);
	assert_int_equal(x.width, W);
	assert_int_equal(x.height, H);
	assert_true(screen_blank(&x));
	assert_true(screen_same(&x, &y));
	pixels = b + (nb - (size_t)3 * W * H);
	pixels[3 * 500] = 255; /* one pixel of 2880: a cursor */
	assert_true(screen_blank(&y));
	assert_true(screen_same(&x, &y));
	pixels[3 * 501] = 255; /* two are more than one in 2000 */
	assert_false(screen_blank(&y));
	assert_false(screen_same(&x, &y));
	y.width = W - 1;
	assert_false(screen_same(&x, &y));
	free(a);
	free(b);
}

static void
refuse(const char *text, size_t n)
{
	uint8_t *exact = malloc(n + 1); /* so that a read beyond the end is seen */
	struct screen s;

	memcpy(exact, text, n);
	exact = realloc(exact, n == 0 ? 1 : n);
	if (screen_parse(exact, n, &s, NULL) != LC_EINVAL)
		fail_msg("taken: %s", text);
	free(exact);
}

static void
test_bad_pictures(void **state)
{
	static const char *const bad[] = {
	    "",
	    "P",
	    "P6",
	    "P6 ",
	    "P5 1 1 255 x",
	    "P6 1 1 255",
	    "P6 1 1 255 xx",
	    "P6 0 1 255 xxx",
	    "P6 1 0 255 xxx",
	    "P6 1 1 65535 xxxxxx",
	    "P6 99999 99999 255 x",
	    "P6 1234567 1 255 x",
	    "P6 -1 1 255 xxx",
	    "P6 1 1 255xxx",
	    "P6 # no end",
	    "P6 1 # c\n 1 255",
	};
	size_t i;
	static const char good[] = "P6 # a\n# b\n1 1\n255\nxyz";
	struct screen s;

	(void)state;
	for (i = 0; i < sizeof bad / sizeof bad[0]; i++)
		refuse(bad[i], strlen(bad[i]));
	assert_int_equal(screen_parse(good, sizeof good - 1, &s, NULL), 0);
	assert_memory_equal(s.rgb, "xyz", 3);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_blank_and_same),
	    cmocka_unit_test(test_bad_pictures),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
