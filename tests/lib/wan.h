/**
 * wan: a long wire in the test's own loop: a TCP proxy with delay and limited bandwidth, which can
 * be cut, or go silent with all connections open.
 */
#ifndef LOCUM_TESTS_WAN_H
#define LOCUM_TESTS_WAN_H

#include <stdbool.h>
#include <stdint.h>

struct uv_loop_s;
struct wan;

struct wan_opts {
	struct uv_loop_s *loop;
	unsigned to;       /* port on 127.0.0.1 */
	int64_t delay_ms;  /* of one way */
	uint64_t bytes_ps; /* of one way, a second; 0: no limit */
};

/** wan_start(o): listen on 127.0.0.1; aborts where that fails. */
struct wan *wan_start(const struct wan_opts *o);
unsigned wan_port(const struct wan *w);
/** wan_cut(w): end every connection, both ends. */
void wan_cut(struct wan *w);
/** wan_cut_after(w, n): cut once, when n more bytes have gone up. */
void wan_cut_after(struct wan *w, uint64_t n);
/** wan_silence(w, silent): carry nothing, tell nobody. */
void wan_silence(struct wan *w, bool silent);
/** wan_down(w, down): from now on new connections end at once. */
void wan_down(struct wan *w, bool down);
/** wan_up_bytes(w), wan_connections(w): so far. */
uint64_t wan_up_bytes(const struct wan *w);
unsigned wan_connections(const struct wan *w);
unsigned wan_cuts(const struct wan *w);
/** wan_stop(w): it is gone when the loop has run. */
void wan_stop(struct wan *w);

#endif
