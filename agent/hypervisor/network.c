/*
 * No QMP command tells what is behind a card.  The human monitor says
 *
 *     net0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:56
 *      \ hn0: index=0,type=tap,ifname=vnet0,script=no,downscript=no
 *
 * and of a tap device this host's kernel tells the bridge that it is part of.  Where we started the
 * VM the bridge is in the back end's id.
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/hypervisor/driver.h"
#include "agent/hypervisor/network.h"

/* The last part of where .../master points to. */
static bool
bridge_of(const char *interface, char out[NETWORK_MAX])
{
	char path[PATH_MAX], to[PATH_MAX];
	const char *name;
	ssize_t len;

	if (strspn(interface,
	           "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") !=
	        strlen(interface) ||
	    *interface == '\0' || *interface == '.')
		return false;
	(void)snprintf(path, sizeof path, "/sys/class/net/%s/master", interface);
	len = readlink(path, to, sizeof to - 1);
	if (len <= 0)
		return false;
	to[len] = '\0';
	name = strrchr(to, '/');
	(void)snprintf(out, NETWORK_MAX, "bridge:%.15s", name == NULL ? to : name + 1);
	return true;
}

/* Value of "key=" in one line, up to the next comma. */
static bool
line_value(const char *line, const char *key, char *out, size_t n)
{
	const char *end = line + strcspn(line, "\r\n"), *s = strstr(line, key);

	if (s == NULL || s >= end)
		return false;
	s += strlen(key);
	(void)snprintf(out, n, "%.*s", (int)strcspn(s, ",\r\n"), s);
	return true;
}

/* The line of the back end called id, and its type; NULL where there is none. */
static const char *
line_of(const char *text, const char *id, char *type, size_t n)
{
	const char *line = text;
	char key[96];

	(void)snprintf(key, sizeof key, "%.64s: index=", id);
	while (line != NULL && *line != '\0') {
		const char *s = line + strspn(line, " \\");

		if (strncmp(s, key, strlen(key)) == 0 && line_value(s, ",type=", type, n) &&
		    strcmp(type, "nic") != 0)
			return s;
		line = strchr(line, '\n');
		line = line == NULL ? NULL : line + 1;
	}
	*type = '\0';
	return NULL;
}

bool
network_behind(const char *text, const char *id, char out[NETWORK_MAX])
{
	static const char ours[] = DRIVER_BRIDGE_PREFIX;
	char type[32], interface[32];
	const char *line, *bridge;

	if (id == NULL || *id == '\0') {
		(void)snprintf(out, NETWORK_MAX, "none");
		return true;
	}
	bridge = strncmp(id, ours, sizeof ours - 1) == 0 ? strchr(id + sizeof ours - 1, '-') : NULL;
	if (bridge != NULL) {
		(void)snprintf(out, NETWORK_MAX, "bridge:%.32s", bridge + 1);
		return true;
	}
	line = line_of(text, id, type, sizeof type);
	if (strcmp(type, "user") == 0) {
		(void)snprintf(out, NETWORK_MAX, "user");
		return true;
	}
	if (line != NULL && strcmp(type, "tap") == 0 &&
	    line_value(line, "ifname=", interface, sizeof interface) && bridge_of(interface, out))
		return true;
	(void)snprintf(out, NETWORK_MAX, "unmapped");
	return false;
}
