/**
 * unit: what every unit test includes: cmocka with the headers it wants before it, and a folder to
 * work in.
 */
#ifndef LOCUM_TESTS_UNIT_H
#define LOCUM_TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

/* SANITIZED: all takes several times as long, so bounds of time and memory say nothing. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED true
#endif
#endif
#ifndef SANITIZED
#define SANITIZED false
#endif

/* UNDER_VALGRIND: all takes fifty times as long, and what it looks for is there in few rounds as in
 * many. */
#define UNDER_VALGRIND (getenv("LOCUM_TEST_VALGRIND") != NULL)

/** tmpdir_new(): a new empty folder; aborts where there is none to be had. */
char *tmpdir_new(void);
/** tmpdir_free(dir): remove it with all in it. */
void tmpdir_free(char *dir);
/** tmpdir_path(dir, name): "dir/name" in one of four static buffers. */
const char *tmpdir_path(const char *dir, const char *name);

#endif
