/**
 * libvirt_api: the functions of libvirt that the relay calls, loaded when it starts.
 *
 * Building takes libvirt's headers only, running takes its libraries only where the configuration
 * says `libvirt = ...`.  Where Locum was built without the headers, loading fails and says so.
 */
#ifndef LOCUM_LIBVIRT_API_H
#define LOCUM_LIBVIRT_API_H

#include "store/base/errors.h"

#ifdef LOCUM_LIBVIRT
#include <libvirt/libvirt-qemu.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#define LIBVIRT_FUNCTIONS(X)                \
	X(virConnectClose)                  \
	X(virConnectDomainEventRegisterAny) \
	X(virConnectDomainXMLToNative)      \
	X(virConnectGetLibVersion)          \
	X(virConnectIsAlive)                \
	X(virConnectListAllDomains)         \
	X(virConnectOpen)                   \
	X(virConnectSetKeepAlive)           \
	X(virDomainDefineXML)               \
	X(virDomainFree)                    \
	X(virDomainGetName)                 \
	X(virDomainGetState)                \
	X(virDomainGetUUIDString)           \
	X(virDomainGetXMLDesc)              \
	X(virDomainIsActive)                \
	X(virDomainIsPersistent)            \
	X(virDomainLookupByName)            \
	X(virDomainLookupByUUIDString)      \
	X(virEventAddHandle)                \
	X(virEventAddTimeout)               \
	X(virEventRegisterDefaultImpl)      \
	X(virEventRunDefaultImpl)           \
	X(virEventUpdateTimeout)            \
	X(virGetLastErrorCode)              \
	X(virGetLastErrorMessage)

#define LIBVIRT_QEMU_FUNCTIONS(X)                   \
	X(virConnectDomainQemuMonitorEventRegister) \
	X(virDomainQemuAgentCommand)                \
	X(virDomainQemuMonitorCommand)              \
	X(virDomainQemuMonitorCommandWithFiles)

#define LIBVIRT_POINTER(name) __typeof__(name) *(name);
struct libvirt_api {
	LIBVIRT_FUNCTIONS(LIBVIRT_POINTER)
	LIBVIRT_QEMU_FUNCTIONS(LIBVIRT_POINTER)
};
#undef LIBVIRT_POINTER
#else
struct libvirt_api {
	int none;
};
#endif

/** libvirt_load(api, e): LC_ENOTSUP with the library or function that is missing.  Never unloaded.
 */
int libvirt_load(struct libvirt_api *api, struct lc_err *e);

#endif
