/*
 * Whether a definition can be launched: fields that are fine by themselves and fit together.
 */
#include <inttypes.h>
#include <string.h>

#include "agent/hypervisor/definition.h"
#include "agent/hypervisor/deftext.h"

static bool
is_known_machine(const char *s)
{
	static const char *const families[] = {"pc-q35-", "pc-i440fx-"};
	size_t i;

	for (i = 0; i < sizeof families / sizeof families[0]; i++) {
		if (strncmp(s, families[i], strlen(families[i])) == 0)
			return true;
	}
	return strcmp(s, "q35") == 0 || strcmp(s, "pc") == 0;
}

static int
check_addresses(const struct definition *d, struct lc_err *e)
{
	const char *used[HV_DISKS_MAX + DEF_NICS_MAX];
	size_t i, k, n = 0;

	for (i = 0; i < d->ndisks; i++) {
		if (d->disks[i].address[0] != '\0' && d->disks[i].bus == DEF_BUS_VIRTIO)
			used[n++] = d->disks[i].address;
	}
	for (i = 0; i < d->nnics; i++) {
		if (d->nics[i].address[0] != '\0')
			used[n++] = d->nics[i].address;
	}
	for (i = 0; i < n; i++) {
		for (k = i + 1; k < n; k++) {
			if (strcmp(used[i], used[k]) == 0)
				return lc_fail(e, LC_EINVAL, 0, "two devices at PCI address %s",
				               used[i]);
		}
	}
	return 0;
}

static int
check_boot_order(const struct definition *d, struct lc_err *e)
{
	const char *at[DEF_BOOT_MAX + 1] = {NULL};
	size_t i;

	for (i = 0; i < d->ndisks; i++) {
		const struct def_disk *disk = &d->disks[i];

		if (disk->boot == 0)
			continue;
		if (disk->boot > DEF_BOOT_MAX || at[disk->boot] != NULL)
			return lc_fail(e, LC_EINVAL, 0, "disk %s: boot = %u is taken by disk %s",
			               disk->name, disk->boot,
			               disk->boot > DEF_BOOT_MAX ? "?" : at[disk->boot]);
		at[disk->boot] = disk->name;
	}
	return 0;
}

static int
check_roles(const struct definition *d, struct lc_err *e)
{
	static const char *const names[] = {"disk", "nvram", "kernel", "initrd"};
	unsigned count[HV_ROLE_INITRD + 1] = {0};
	size_t i;

	for (i = 0; i < d->ndisks; i++) {
		if (++count[d->disks[i].role] > 1 && d->disks[i].role != HV_ROLE_DISK)
			return lc_fail(e, LC_EINVAL, 0, "disk %s: a second %s", d->disks[i].name,
			               names[d->disks[i].role]);
	}
	if (count[HV_ROLE_DISK] == 0 && count[HV_ROLE_KERNEL] == 0)
		return lc_fail(e, LC_EINVAL, 0, "neither a disk nor a kernel to boot from");
	if (count[HV_ROLE_KERNEL] == 0 && count[HV_ROLE_INITRD] != 0)
		return lc_fail(e, LC_EINVAL, 0, "an initrd without a kernel");
	if (count[HV_ROLE_KERNEL] == 0 && d->append[0] != '\0')
		return lc_fail(e, LC_EINVAL, 0, "a kernel command line (append) without a kernel");
	if (count[HV_ROLE_NVRAM] != 0 && d->firmware[0] == '\0')
		return lc_fail(e, LC_EINVAL, 0, "firmware variables (nvram) without firmware");
	return 0;
}

static int
check_topology(const struct definition *d, struct lc_err *e)
{
	unsigned n[3];

	if (d->topology[0] == '\0' || !deftext_topology(d->topology, n) ||
	    (uint64_t)n[0] * n[1] * n[2] == d->cpus)
		return 0;
	return lc_fail(e, LC_EINVAL, 0, "topology = %s is of %" PRIu64 " CPUs, and there are %u",
	               d->topology, (uint64_t)n[0] * n[1] * n[2], d->cpus);
}

static int
check_blocks(const struct definition *d, struct lc_err *e)
{
	size_t i;

	for (i = 0; i < d->ndisks; i++) {
		const struct def_disk *disk = &d->disks[i];

		if (disk->block > DEF_BLOCK_MIN &&
		    (disk->bus == DEF_BUS_SATA || disk->bus == DEF_BUS_IDE))
			return lc_fail(e, LC_EINVAL, 0,
			               "disk %s: block = %u: SATA and IDE disks have blocks of 512 "
			               "bytes only",
			               disk->name, disk->block);
	}
	return 0;
}

int
definition_check(const struct definition *d, struct lc_err *e)
{
	int rc;

	if (!is_known_machine(d->machine))
		return lc_fail(
		    e, LC_ENOTSUP, 0,
		    "machine type '%s' can't be started here; q35, pc and their versions can",
		    d->machine);
	rc = check_roles(d, e);
	if (rc == 0)
		rc = check_boot_order(d, e);
	if (rc == 0)
		rc = check_blocks(d, e);
	if (rc == 0)
		rc = check_topology(d, e);
	if (rc == 0)
		rc = check_addresses(d, e);
	return rc;
}
