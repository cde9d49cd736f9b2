/**
 * fake_agent: a QEMU guest agent as good and as bad as they come, on a unix socket, in a thread of
 * its own.  As with QEMU's socket one client at a time is heard, the others wait.
 */
#ifndef LOCUM_TESTS_FAKE_AGENT_H
#define LOCUM_TESTS_FAKE_AGENT_H

#include <stdbool.h>
#include <stdint.h>

enum fake_agent_manner {
	FAKE_AGENT_POLITE = 0,  /* two filesystems */
	FAKE_AGENT_HUNG,        /* not a word */
	FAKE_AGENT_RUBBISH,     /* noise, without an end of line, for everything */
	FAKE_AGENT_FLOODS,      /* lines and lines, for everything */
	FAKE_AGENT_NO_FREEZE,   /* does not know the command */
	FAKE_AGENT_FAILS,       /* the freeze fails in the guest */
	FAKE_AGENT_NONSENSE,    /* freezes, and answers what is no answer */
	FAKE_AGENT_NOTHING,     /* has no filesystem to freeze */
	FAKE_AGENT_SLOW,        /* freezes at once, and says so 0.6 s later */
	FAKE_AGENT_NEVER_THAWS, /* freezes, and has died then */
	FAKE_AGENT_REFUSES,     /* the first two thaws fail */
	FAKE_AGENT_LOSES,       /* one of the two filesystems was thawed by somebody else */
	FAKE_AGENT_HELD,        /* somebody else has frozen it */
	FAKE_AGENT_DIES,        /* the VM ends in the middle of the freeze */
	FAKE_AGENT_MANNERS,
};
extern const char *const fake_agent_names[FAKE_AGENT_MANNERS];

struct fake_agent;
struct fake_agent_saw {
	unsigned clients, syncs, freezes, thaws;
	bool frozen;       /* now */
	int64_t freeze_ns; /* when it began to freeze last */
	int64_t thawed_ns; /* when it thawed last */
};

/** fake_agent_start(path, manner): listen there; aborts where that fails. */
struct fake_agent *fake_agent_start(const char *path, enum fake_agent_manner manner);
/** fake_agent_behave(a, manner): from the next command on. */
void fake_agent_behave(struct fake_agent *a, enum fake_agent_manner manner);
struct fake_agent_saw fake_agent_saw(struct fake_agent *a);
/** fake_agent_wait(a, frozen, timeout_ms): until it is that; false: it was not in time. */
bool fake_agent_wait(struct fake_agent *a, bool frozen, int64_t timeout_ms);
void fake_agent_stop(struct fake_agent *a);

#endif
