/*
 * pushed: whatever the tables of the file say, looking goes on to the end of the disk, what is said
 * to be there can be read, and nothing but the file is read.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "agent/hypervisor/pushed.h"
#include "tests/fuzz/fuzz.h"

#define DISK (UINT64_C(600) << 20) /* more than one table */

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	int fd = memfd_create("pushed", MFD_CLOEXEC);
	uint64_t off, len = 0, sum = 0, count = 0;
	enum pushed_kind kind;
	uint8_t buf[64];

	fuzz_check(fd >= 0 && pushed_make(fd, DISK) == 0);
	/* The tables begin at cluster 3. */
	fuzz_check(pwrite(fd, p, n, 3 * (off_t)PUSHED_CLUSTER) == (ssize_t)n);
	for (off = 0; off < DISK; off += len) {
		if (pushed_look(fd, DISK, off, &len, &kind, NULL) != 0)
			break;
		fuzz_check(len > 0 && len <= DISK - off);
		if (kind != PUSHED_NOT)
			sum += (len + PUSHED_CLUSTER - 1) / PUSHED_CLUSTER;
		fuzz_check(pushed_read(fd, buf, sizeof buf, off, NULL) == 0);
	}
	if (off == DISK)
		fuzz_check(pushed_count(fd, DISK, &count, NULL) == 0 && count == sum);
	(void)close(fd);
	return 0;
}
