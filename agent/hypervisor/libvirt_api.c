#include "agent/hypervisor/libvirt_api.h"

#ifdef LOCUM_LIBVIRT
#include <dlfcn.h>
#include <string.h>

static const struct {
	const char *name;
	size_t offset;
	bool qemu; /* of the second library */
} functions[] = {
#define ROW(name) {#name, offsetof(struct libvirt_api, name), false},
    LIBVIRT_FUNCTIONS(ROW)
#undef ROW
#define ROW(name) {#name, offsetof(struct libvirt_api, name), true},
	LIBVIRT_QEMU_FUNCTIONS(ROW)
#undef ROW
};

int
libvirt_load(struct libvirt_api *api, struct lc_err *e)
{
	static const char *const files[] = {"libvirt.so.0", "libvirt-qemu.so.0"};
	void *libs[2];
	size_t i;

	for (i = 0; i < 2; i++) {
		libs[i] = dlopen(files[i], RTLD_NOW | RTLD_GLOBAL);
		if (libs[i] == NULL)
			return lc_fail(e, LC_ENOTSUP, 0,
			               "%s cannot be loaded; install the package libvirt0: %s",
			               files[i], dlerror()); /* NOLINT(concurrency-mt-unsafe) */
	}
	for (i = 0; i < sizeof functions / sizeof functions[0]; i++) {
		void *f = dlsym(libs[functions[i].qemu ? 1 : 0], functions[i].name);

		if (f == NULL)
			return lc_fail(e, LC_ENOTSUP, 0,
			               "this libvirt is too old, it has no %s (8.2 is the oldest "
			               "that will do)",
			               functions[i].name);
		memcpy((char *)api + functions[i].offset, &f, sizeof f);
	}
	return 0;
}
#else
int
libvirt_load(struct libvirt_api *api, struct lc_err *e)
{
	(void)api;
	return lc_fail(e, LC_ENOTSUP, 0, "this locum was built without libvirt's headers");
}
#endif
