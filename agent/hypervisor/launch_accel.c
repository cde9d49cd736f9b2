/*
 * QEMU's own "accel=kvm:tcg" falls back only where KVM cannot be initialised.  Under some clouds
 * /dev/kvm is there and makes VMs, but for guests that were adapted to it: it has no SSE3 to offer,
 * which every CPU with VT-x or SVM has, cannot set common MSRs, and an ordinary kernel hangs in it
 * without a word, or QEMU dies of an assertion (seen with QEMU 7.2).  So it is asked first.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "store/base/files.h"
#include "store/base/memory.h"

#include "agent/hypervisor/launch_accel.h"

#define CPUID_MAX 256
#define SSE3 (1u << 0)  /* leaf 1, ecx */
#define CX16 (1u << 13) /* leaf 1, ecx */

static bool
has_ordinary_cpus(int kvm)
{
	struct kvm_cpuid2 *cpuid = lc_alloc(sizeof *cpuid + CPUID_MAX * sizeof cpuid->entries[0]);
	bool found = false;
	unsigned i;

	if (cpuid == NULL)
		return false;
	cpuid->nent = CPUID_MAX;
	if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid) == 0) {
		for (i = 0; i < cpuid->nent && i < CPUID_MAX; i++) {
			if (cpuid->entries[i].function == 1)
				found = (cpuid->entries[i].ecx & (SSE3 | CX16)) == (SSE3 | CX16);
		}
	}
	lc_free(cpuid);
	return found;
}

bool
launch_kvm_works(char *why, size_t n)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm = -1;
	bool works = false;

	if (kvm == -1)
		(void)snprintf(why, n, "/dev/kvm: %s", strerrordesc_np(errno));
	else if (ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		(void)snprintf(why, n, "/dev/kvm is of another version");
	else if ((vm = ioctl(kvm, KVM_CREATE_VM, 0)) == -1)
		(void)snprintf(why, n, "/dev/kvm makes no VM: %s", strerrordesc_np(errno));
	else if (!has_ordinary_cpus(kvm))
		(void)snprintf(why, n, "/dev/kvm has no CPUs for ordinary guests");
	else
		works = true;
	fd_close(&vm);
	fd_close(&kvm);
	return works;
}
