/* SPDX-License-Identifier: MIT */
/*
 * weft-count CASE: one hot path of ours, 4096 times, in one thread, for callgrind to count its
 * instructions (perf/count/run).  Nothing of it depends on time or on a scheduler; what the C
 * library and the kernel do is not looked at.
 */
#include <err.h>
#include <string.h>

#include "fabric/base/util.h"
#include "perf/count/count.h"

static const struct {
	const char *name;
	void (*fn)(bool write, unsigned batch);
	bool write;
	unsigned batch;
} cases[] = {
	{"engine-read-1", count_engine, false, 1},
	{"engine-read-16", count_engine, false, 16},
	{"engine-write-16", count_engine, true, 16},
	{"lane-read-1", count_lane, false, 1},
	{"lane-read-16", count_lane, false, 16},
	{"lane-write-16", count_lane, true, 16},
	{"scsi-read-1", count_scsi, false, 1},
	{"scsi-write-16", count_scsi, true, 16},
	{"verbs-read-1", count_verbs, false, 1},
	{"verbs-read-16", count_verbs, false, 16},
	{"verbs-write-16", count_verbs, true, 16},
};

int main(int argc, char **argv)
{
	for (size_t i = 0; i < WEFT_ARRAY_LEN(cases); i++) {
		if (argc < 2) {
			puts(cases[i].name);
		} else if (strcmp(argv[1], cases[i].name) == 0) {
			cases[i].fn(cases[i].write, cases[i].batch);
			return 0;
		}
	}
	if (argc > 1)
		errx(2, "no case '%s'", argv[1]);
	return 0;
}
