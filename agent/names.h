/**
 * names: what a replica's status lacks, for it is blind: names of VMs, where this machine has the
 * key.
 */
#ifndef LOCUM_NAMES_H
#define LOCUM_NAMES_H

struct json_t;

/**
 * names_add(doc, dir, key_dir):
 * Into the status of the replica in `dir`: "locked" for each host, and where it is not, "name" for
 * each of its VMs.  A store that can't be read stays as it is.
 */
void names_add(struct json_t *doc, const char *dir, const char *key_dir);

#endif
