/* SPDX-License-Identifier: MIT */
/* Shared by pull-connect.c and pull.c, which uses it; see pull.h. */
#ifndef WEFT_FABRIC_MOVE_PULL_PRIVATE_H
#define WEFT_FABRIC_MOVE_PULL_PRIVATE_H

#include "fabric/move/pull.h"

enum {
	PULL_HASHES_BYTES = PULL_CHUNKS * WEFT_HASH_BYTES,
	PULL_BUF_BYTES = PULL_CHUNKS * WEFT_CHUNK_BYTES,
	PULL_SILENT_MS = 10000, /* nothing comes for so long: the connection is lost */
	PULL_PLACES_MAX = 16,
};

static inline bool pull_is_file(const struct pull *pull)
{
	return pull->region->backing == WEFT_BACKING_FILE;
}

/* Until the connection has something to do, or ms are over.  0, or -ECANCELED, -ETIMEDOUT. */
int pull_wait(struct pull *pull, int ms);

/* Places that a connection was tried to. */
struct pull_tried {
	unsigned nr;
	struct {
		char host[64], port[8];
	} places[PULL_PLACES_MAX];
};

/* False: it was tried, as an offer names a place more than once; or there is no room. */
bool pull_is_new_place(struct pull_tried *tried, const char *host, const char *port);

#endif
