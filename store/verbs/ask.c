#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "store/base/files.h"
#include "store/base/memory.h"
#include "store/verbs/ask.h"

enum { CTRL_C = 3, CTRL_D = 4, BACKSPACE = 8, CTRL_U = 21, DELETE = 127 };

static int
open_terminal(void)
{
	return open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
}

static void
say(int fd, const char *text)
{
	(void)!write(fd, text, strlen(text));
}

/* One byte at a time, so that nothing of it stays in a buffer of somebody else's.  Signals of the
 * terminal are off meanwhile: else Ctrl-C would leave it without its echo. */
static int
read_line(int fd, char *dst, size_t n, struct lc_err *e)
{
	size_t at = 0;
	ssize_t got;
	char c;

	for (;;) {
		got = read(fd, &c, 1);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return lc_fail_errno(e, "the terminal");
		if (got == 0 || c == CTRL_C || (c == CTRL_D && at == 0))
			return lc_fail(e, LC_ECANCELED, 0, "nothing was typed");
		if (c == '\r' || c == '\n')
			break;
		if (c == CTRL_U) {
			at = 0;
		} else if (c == BACKSPACE || c == DELETE) {
			at -= at > 0;
		} else if (at + 1 < n) {
			dst[at++] = c;
		} else {
			return lc_fail(e, LC_EINVAL, 0, "that is too long");
		}
	}
	dst[at] = '\0';
	return at > 0 ? 0 : lc_fail(e, LC_ECANCELED, 0, "nothing was typed");
}

int
ask_secret(const char *prompt, char *dst, size_t n, struct lc_err *e)
{
	struct termios before, quiet;
	int fd = open_terminal(), rc;

	if (fd < 0 || tcgetattr(fd, &before) != 0) {
		fd_close(&fd);
		return lc_fail(e, LC_ENOTSUP, 0, "there is no terminal to ask on");
	}
	quiet = before;
	quiet.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG);
	quiet.c_cc[VMIN] = 1;
	quiet.c_cc[VTIME] = 0;
	(void)tcsetattr(fd, TCSAFLUSH, &quiet);
	say(fd, prompt);
	rc = read_line(fd, dst, n, e);
	say(fd, "\n");
	(void)tcsetattr(fd, TCSAFLUSH, &before);
	fd_close(&fd);
	return rc;
}

void
ask_tell(const char *text)
{
	int fd = open_terminal();

	if (fd >= 0) {
		say(fd, text);
		say(fd, "\n");
	}
	fd_close(&fd);
}
