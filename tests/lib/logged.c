#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/lib/logged.h"
#include "tests/lib/twosites.h"
#include "tests/lib/unit.h"

static int log_fd = -1, stderr_fd = -1;
static off_t looked; /* up to here */

int
logged_begin(void **state)
{
	(void)state;
	stderr_fd = dup(STDERR_FILENO);
	log_fd = memfd_create("log", MFD_CLOEXEC);
	if (stderr_fd < 0 || log_fd < 0 || dup2(log_fd, STDERR_FILENO) < 0)
		return -1;
	return 0;
}

static bool
is_there(void *text)
{
	static char window[1 << 16];
	ssize_t n = pread(log_fd, window, sizeof window - 1, looked);
	const char *at;

	if (n < 0)
		abort();
	window[n] = '\0';
	at = strstr(window, text);
	if (at != NULL)
		looked += at - window + 1;
	else if ((size_t)n == sizeof window - 1)
		looked += n / 2;
	return at != NULL;
}

void
logged_wait(uv_loop_t *loop, const char *text)
{
	if (!run_until(loop, is_there, (void *)(uintptr_t)text, 30000))
		fail_msg("'%s' is not in the log", text);
}

/* What cmocka says of a test that fails is among it. */
int
logged_end(void **state)
{
	static char bytes[1 << 20];
	ssize_t n = pread(log_fd, bytes, sizeof bytes, 0);

	(void)state;
	(void)dup2(stderr_fd, STDERR_FILENO);
	if (n > 0 && memmem(bytes, (size_t)n, "[  ERROR", 8) != NULL)
		(void)!write(STDERR_FILENO, bytes, (size_t)n);
	(void)close(log_fd);
	(void)close(stderr_fd);
	return 0;
}
