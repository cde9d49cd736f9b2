/**
 * files: whole reads and writes, durable replacement, locks.
 *
 * Durable means: data fsynced, then renamed, then the directory fsynced.  Every message names the
 * path.
 */
#ifndef LOCUM_FILES_H
#define LOCUM_FILES_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "store/base/errors.h"
#include "store/base/memory.h"

/**
 * file_read_all(path, max, out, e):
 * Replace what out holds by the whole file.  Pipes and files of /proc work too.
 *
 * Returns  0; LC_EINVAL where it is longer than max bytes.  On failure out is wiped and empty.
 * Secret:  a regular file is read into one allocation, so a caller that wipes out wiped all of it.
 */
int file_read_all(const char *path, size_t max, struct lc_buf *out, struct lc_err *e);
/**
 * file_write_atomic(path, p, n, mode, e):
 * Replace path by n bytes at p: temporary file beside it, fsync, rename, fsync of the directory.
 * The mode is set as given, whatever the umask.  A process killed meanwhile leaves a file
 * ".<name>.<16 hex digits>.tmp" there, which nothing ever reads.
 *
 * Durable: the new content, on return of 0.  On failure the old content stands, except where only
 *          the last step, the fsync of the directory, failed: then either may.
 */
int file_write_atomic(const char *path, const void *p, size_t n, mode_t mode, struct lc_err *e);
/**
 * file_write_new(path, p, n, mode, e):
 * As above but LC_EEXIST if path is there already (link(2), never a replacement).
 */
int file_write_new(const char *path, const void *p, size_t n, mode_t mode, struct lc_err *e);
/**
 * file_pread_full(fd, p, n, off, name, e):
 * Exactly n bytes; LC_ECORRUPT where the file ends before, or off is beyond any file.
 */
int file_pread_full(int fd, void *p, size_t n, uint64_t off, const char *name, struct lc_err *e);
/** file_pwrite_full(fd, p, n, off, name, e): all n bytes, whatever the kernel takes at once. */
int file_pwrite_full(int fd, const void *p, size_t n, uint64_t off, const char *name,
                     struct lc_err *e);
/**
 * dir_make(path, mode, e):
 * mkdir -p: an existing directory (or a link to one) is fine, anything else is LC_EEXIST.  All that
 * is created gets mode less the umask.
 *
 * Durable: the new names.
 */
int dir_make(const char *path, mode_t mode, struct lc_err *e);
/** dir_sync(path, e): fsync a directory, so that names in it are durable. */
int dir_sync(const char *path, struct lc_err *e);
/**
 * dir_next(d, path, rc, e):
 * The next name in a folder that was opened with opendir(path), by one thread.
 *
 * Returns  NULL at the end, and where the folder can't be read on: with that in *rc and e, because
 *          what takes the one for the other has lost the rest of the names.
 */
struct dirent *dir_next(DIR *d, const char *path, int *rc, struct lc_err *e);
/** dir_same(a, b): both are there, and are the same one. */
bool dir_same(const char *a, const char *b);
/** dir_remove(path): rm -rf of a directory of ours; never follows links; best effort. */
void dir_remove(const char *path);
/**
 * file_lock(path, mode, who, fd_out, e):
 * Take an exclusive lock (flock) on path, creating it.  The holder's pid and `who` (a short text
 * such as "locum backup") are written into it, for the message that others get; a second line of
 * it is for whoever reads the file.  The lock dies with
 * the process, so a dead holder leaves nothing to clean, and its text is never taken for that of a
 * holder that lives.  The file itself stays for ever; do not unlink it.  Waits half a second at
 * most.
 *
 * Returns   0 and an open descriptor; LC_EBUSY with "in use by <who> (pid N) since <time>", or
 *           "in use by another process" where that cannot be known.
 * Ownership: fd_close(fd_out) gives the lock back.  A child made by fork() without exec shares the
 *           lock and must close the descriptor.
 */
int file_lock(const char *path, mode_t mode, const char *who, int *fd_out, struct lc_err *e);
/** path_join(dir, name): "dir/name", or NULL when out of memory; free with lc_free(). */
char *path_join(const char *dir, const char *name);
/** path_dirname(path): the folder part ("." if none), or NULL; free with lc_free(). */
char *path_dirname(const char *path);
/** fd_close(fdp): close *fdp if >= 0 and set it to -1. */
void fd_close(int *fdp);
/** random_bytes(p, n): n bytes from the kernel; aborts where the kernel has none (never seen). */
void random_bytes(void *p, size_t n);

#endif
