/*
 * What the thread sanitizer is told to pass over.  libuv closes descriptors by a system call that
 * it does not see, so for it whoever gets the number next shares the descriptor with the loop.
 */
const char *__tsan_default_suppressions(void); /* NOLINT(bugprone-reserved-identifier) */

__attribute__((visibility("default"))) const char *
__tsan_default_suppressions(void)
{
	return "race_top:epoll_ctl\nrace_top:accept4\nrace_top:^socket$\nrace_top:^open$\n"
	       "race_top:^openat$\nrace_top:^opendir$\nrace_top:^fdopendir$\nrace_top:^close$\n"
	       "race_top:^closedir$\nrace_top:^dup$\nrace_top:^pipe2$\nrace_top:^eventfd$\n"
	       "race_top:^epoll_create1$\n";
}
