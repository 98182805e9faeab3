/* SPDX-License-Identifier: MIT */
/*
 * The preflight: what makes swapping over this path unsafe, and what is only worth a word.  Swap is
 * what the kernel uses when it has no memory left; whatever needs memory on the way to the donor
 * then waits for itself.  Facts are read below facts_root.  One thread.
 */
#ifndef WEFT_NBD_BRIDGE_MAIN_SWAP_CHECK_H
#define WEFT_NBD_BRIDGE_MAIN_SWAP_CHECK_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "nbd-bridge/main/swap.h"

enum { SWAP_FINDINGS_MAX = 64 };

struct swap_finding {
	bool refuses;   /* else it is only said */
	char text[480]; /* what, why, and what to do */
};

struct swap_findings {
	struct swap_finding at[SWAP_FINDINGS_MAX];
	size_t nr, nr_refusals;
	/* weft attach --swap would refuse it too: with --force it is attached without that */
	bool unlocked;
};

/*
 * Before anything is made: the options, this machine.  group: the job's group, or "".  Looks up
 * the donors' names.
 */
void swap_check_plan(const struct swap_options *o, const char *group, struct swap_findings *ret);
/*
 * Once it is attached, of what the bridge says (its status): the way to the donor, what is behind,
 * whether the bridge is locked in memory.  Adds to *ret.
 */
void swap_check_path(const json_t *status, struct swap_findings *ret);

/* A finding more; what does not fit is not kept, but counts. */
void swap_refuse(struct swap_findings *findings, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
void swap_remark(struct swap_findings *findings, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#endif
