/**
 * process: real programs for tests: started, waited for, killed, never left behind.
 */
#ifndef LOCUM_TESTS_PROCESS_H
#define LOCUM_TESTS_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/** process_start(argv): run argv[0] from PATH; it dies with us.  Its output goes to ours.  -1 on
 * failure. */
pid_t process_start(const char *const *argv);
/** process_run(argv): run and wait; the exit status, 128 + signal, or -1. */
int process_run(const char *const *argv);
/** process_stop(pid): kill -9 one that process_start() gave, and reap it.  pid <= 0 is fine. */
void process_stop(pid_t pid);
/** process_listens(path, timeout_ms): wait until somebody accepts on the unix socket. */
bool process_listens(const char *path, int64_t timeout_ms);
/** process_have(program): whether it is in PATH. */
bool process_have(const char *program);
/** process_tmpdir(): a new private folder with a short path; free() it.  Aborts when there is none.
 */
char *process_tmpdir(void);
/** process_path(dir, name): "dir/name"; free() it. */
char *process_path(const char *dir, const char *name);

#endif
