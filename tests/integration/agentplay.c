/* agentplay MANNER SOCKET: a guest agent that is not there, see fake_agent.h; until it is killed.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/fake_agent.h"

int
main(int argc, char **argv)
{
	int i;

	for (i = 0; argc == 3 && i < FAKE_AGENT_MANNERS; i++) {
		if (strcmp(argv[1], fake_agent_names[i]) != 0)
			continue;
		(void)fake_agent_start(argv[2], (enum fake_agent_manner)i);
		for (;;)
			(void)pause();
	}
	(void)fprintf(stderr, "usage: agentplay MANNER SOCKET\n");
	return 2;
}
