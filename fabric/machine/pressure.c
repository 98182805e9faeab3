/* SPDX-License-Identifier: MIT */
#include "fabric/machine/pressure.h"

#include <limits.h>
#include <stdio.h>

double weft_memory_stalled(const char *root)
{
	char path[PATH_MAX];
	double percent = 0;

	if (snprintf(path, sizeof(path), "%s/proc/pressure/memory", root) >= (int)sizeof(path))
		return 0;
	FILE *f = fopen(path, "re");
	if (!f)
		return 0;
	if (fscanf(f, "some avg10=%lf", &percent) != 1)
		percent = 0;
	fclose(f);
	return percent;
}
