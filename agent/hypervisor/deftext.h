/**
 * deftext: what the texts of a definition may hold.
 *
 * A definition may come from a hostile restore point, and its texts end up in arguments of QEMU: so
 * names, models, addresses and serials are made of a few harmless characters, and only paths, the
 * kernel command line and reasons are free text, in valid UTF-8 without control characters.  "" is
 * none of these.
 */
#ifndef LOCUM_DEFTEXT_H
#define LOCUM_DEFTEXT_H

#include <stdbool.h>

#define DEFTEXT_LOWERS "abcdefghijklmnopqrstuvwxyz"
#define DEFTEXT_UPPERS "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DEFTEXT_DIGITS "0123456789"

/** deftext_is_one_of(c, set): NUL is none. */
bool deftext_is_one_of(char c, const char *set);
bool deftext_is_name(const char *s);
bool deftext_is_machine(const char *s);
bool deftext_is_cpu(const char *s);
#define DEFTEXT_FEATURE_MAX 48
/** deftext_is_features(s): "+aes,-svm". */
bool deftext_is_features(const char *s);
/** deftext_feature(s, on, name): the first of such a text; the rest of it, "" behind the last one,
 * or NULL where s does not begin so. */
const char *deftext_feature(const char *s, bool *on, char name[DEFTEXT_FEATURE_MAX]);
/** deftext_is_topology(s): "SOCKETS:CORES:THREADS", each from 1 to 1024. */
bool deftext_is_topology(const char *s);
/** deftext_topology(s, out): its three numbers; false: it is none. */
bool deftext_topology(const char *s, unsigned out[3]);
bool deftext_is_serial(const char *s);
/** deftext_is_uuid(s), deftext_is_mac(s), deftext_is_address(s): in lower case; an address is that
 * of PCI. */
bool deftext_is_uuid(const char *s);
bool deftext_is_mac(const char *s);
bool deftext_is_address(const char *s);
bool deftext_is_network(const char *s);
/** deftext_is_text(s): stands in a line of INI and comes out as it went in. */
bool deftext_is_text(const char *s);
/** deftext_is_path(s): an absolute one. */
bool deftext_is_path(const char *s);
/** deftext_is_what(s): names a part that was left out. */
bool deftext_is_what(const char *s);
bool deftext_is_format(const char *s);
bool deftext_is_clock(const char *s);
bool deftext_is_model(const char *s);

#endif
