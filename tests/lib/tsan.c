/*
 * What the thread sanitizer is told to pass over.  libuv closes descriptors by a system call that
 * it does not see, so for it whoever gets the number next shares the descriptor with the loop.
 */
const char *__tsan_default_suppressions(void); /* NOLINT(bugprone-reserved-identifier) */

/* By the name of the function, and by that of what the sanitizer puts before it. */
#define CALL(name) "race_top:^" name "$\nrace_top:^__interceptor_" name "$\n"

__attribute__((visibility("default"))) const char *
__tsan_default_suppressions(void)
{
	return CALL("epoll_ctl") CALL("accept4") CALL("socket") CALL("open") CALL("openat")
	    CALL("opendir") CALL("fdopendir") CALL("close") CALL("closedir") CALL("dup")
		CALL("pipe2") CALL("eventfd") CALL("epoll_create1");
}
