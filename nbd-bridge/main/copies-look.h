/* SPDX-License-Identifier: MIT */
/*
 * A look at regions that may be copies, by programs that attach nothing: weft rescue --copies and
 * weft verify.  It leaves no trace at the donors.  One thread; blocks.
 */
#ifndef WEFT_NBD_BRIDGE_MAIN_COPIES_LOOK_H
#define WEFT_NBD_BRIDGE_MAIN_COPIES_LOOK_H

#include "nbd-bridge/bridge/find.h"
#include "nbd-bridge/bridge/visit.h"
#include "nbd-bridge/link/agree.h"

struct copies_look {
	unsigned nr;
	struct weft_uri uris[BRIDGE_MAX_DONORS];
	char *texts[BRIDGE_MAX_DONORS]; /* the canonical URIs */
	struct bridge_visit visits[BRIDGE_MAX_DONORS]; /* … with an answer each, if they are open */
	/* Private. */
	struct bridge_find find;
	struct bridge_donor_config donors[BRIDGE_MAX_DONORS];
};

/* The copies of one set, among the regions. */
struct copies_set {
	uint64_t set;
	unsigned count, min;
	struct agree_copy copies[WEFT_COPIES_MAX];
	int at[WEFT_COPIES_MAX]; /* the region's number; -1: none of them is this copy */
	struct agree_answer answer; /* as for a borrower without a state */
};

enum { COPIES_LOOK_MS = 5000 }; /* for all donors to answer */

/*
 * Connects to the regions as a shared reader, and asks what their donors have noted.  *look: zeros.
 * buf_bytes: as for visits_open().  0, if a donor answered or not; or -errno with *err: a URI makes
 * no sense, or its key.  copies_look_close() in either case.
 */
int copies_look_open(struct copies_look *look, char *const *uris, unsigned nr,
	const char *key_file, bool allow_insecure, size_t buf_bytes, struct weft_error *err);
/* Asks once more.  Returns how many answered. */
unsigned copies_look_again(struct copies_look *look);
void copies_look_close(struct copies_look *look);

/*
 * Fills *ret with the next set that a region is a copy of; *io_next is 0 for the first.  Regions
 * without a set fill the places of copies that are missing, in their order, if there is one set
 * alone.  False: there are no more.
 */
bool copies_look_next(const struct copies_look *look, unsigned *io_next, struct copies_set *ret);

#endif
