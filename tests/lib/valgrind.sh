#!/bin/sh
# Runs a test under valgrind: leaks and uninitialised bytes fail it.
command -v valgrind >/dev/null 2>&1 || {
	echo "SKIP: valgrind is not installed"
	exit 77
}
LOCUM_TEST_VALGRIND=1 exec valgrind -q --error-exitcode=99 --leak-check=full --show-leak-kinds=definite,indirect \
	--errors-for-leak-kinds=definite,indirect "$@"
