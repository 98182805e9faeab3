/* SPDX-License-Identifier: MIT */
/* weft rescue --copies: which copies of a device are current, and what can be done. */
#ifndef WEFT_NBD_BRIDGE_MAIN_RESCUE_COPIES_H
#define WEFT_NBD_BRIDGE_MAIN_RESCUE_COPIES_H

#include <stdbool.h>

enum {
	RESCUE_COPIES_WAIT = 3, /* its exit status: more donors have to answer */
	RESCUE_COPIES_LOST = 4, /* the user has to choose */
};

struct rescue_copies {
	const char *key_file;
	bool allow_insecure, json;
};

/* Prints it.  The exit status. */
int rescue_copies(const struct rescue_copies *o, char *const *uris, unsigned nr);

#endif
