/**
 * unit: what every unit test includes: cmocka with the headers it wants before it, and a folder to
 * work in.
 */
#ifndef LOCUM_TESTS_UNIT_H
#define LOCUM_TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/** tmpdir_new(): a new empty folder; aborts where there is none to be had. */
char *tmpdir_new(void);
/** tmpdir_free(dir): remove it with all in it. */
void tmpdir_free(char *dir);
/** tmpdir_path(dir, name): "dir/name" in one of four static buffers. */
const char *tmpdir_path(const char *dir, const char *name);

#endif
