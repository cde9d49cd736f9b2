#include <stdio.h>
#include <string.h>

#include "tests/lib/places.h"
#include "tests/lib/unit.h"

size_t
places_read(const char *log, struct place *list, size_t max)
{
	char line[sizeof list->name] = "";
	size_t n = 0, i;
	FILE *f = fopen(log, "r");

	assert_non_null(f);
	while (fgets(line, sizeof line, f) != NULL && n < max) {
		line[strcspn(line, "\n")] = '\0';
		list[n] = (struct place){.n = 1};
		memcpy(list[n].name, line, sizeof line);
		for (i = 0; i < n; i++)
			list[n].n += strcmp(list[i].name, line) == 0;
		n++;
	}
	(void)fclose(f);
	return n;
}
