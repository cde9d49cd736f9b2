#include <pthread.h>
#include <stddef.h>
#include <time.h>

#include "restore/interrupt.h"

void
interrupt_begin(struct interrupt *i)
{
	i->got = 0;
	(void)sigemptyset(&i->held);
	(void)sigaddset(&i->held, SIGINT);
	(void)sigaddset(&i->held, SIGTERM);
	(void)sigaddset(&i->held, SIGHUP);
	(void)sigaddset(&i->held, SIGPIPE);
	(void)pthread_sigmask(SIG_BLOCK, &i->held, &i->before);
}

bool
interrupt_pending(struct interrupt *i)
{
	static const struct timespec at_once = {0};
	int sig;

	if (i->got == 0) {
		sig = sigtimedwait(&i->held, NULL, &at_once);
		if (sig > 0)
			i->got = sig;
	}
	return i->got != 0;
}

void
interrupt_end(struct interrupt *i)
{
	(void)pthread_sigmask(SIG_SETMASK, &i->before, NULL);
}
