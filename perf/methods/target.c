/* SPDX-License-Identifier: MIT */
/* Where the region of a donor is as an SRP target: the donor is asked.  No state. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "perf/methods/methods.h"

int methods_cell_find(const struct methods_cell *cell, struct weft_error *err)
{
	struct methods_donor *donor = methods_cell_donor(cell);
	char program[PATH_MAX], uri[128], said[1024], ext[32], guid[32];
	const char *const argv[] = {program, "--allow-insecure", "--line", "srp", uri, NULL};

	if (!donor->target[0])
		return 0;
	bench_program("weft-list", program);
	snprintf(uri, sizeof(uri), "weft://%s/bench", donor->lent_at);
	int r = methods_call(argv, said, sizeof(said), err);
	if (r < 0)
		return r;
	const char *at = strstr(said, "id_ext=");
	if (!at || sscanf(at, "id_ext=%31[0-9a-f],ioc_guid=%31[0-9a-f]", ext, guid) != 2)
		return weft_error_set(err, EPROTO, "the donor does not say where its target is");
	snprintf(donor->address, sizeof(donor->address), "%s/%s.%s", donor->target, ext, guid);
	return 0;
}
