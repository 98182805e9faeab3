/* SPDX-License-Identifier: MIT */
/*
 * What a cache holds, saved to a file of the region's size, with a map beside it (FILE.map) of what
 * is known: lines of an offset, a length, both in bytes, and "clean", "dirty" or "torn".  What the
 * map does not name is a hole in the file.  One thread.
 */
#ifndef WEFT_NBD_BRIDGE_CACHE_RESCUE_H
#define WEFT_NBD_BRIDGE_CACHE_RESCUE_H

#include "nbd-bridge/cache/file.h"

struct rescue;

/* Makes both under other names.  -EEXIST: one of them is there already; it is left as it is. */
int rescue_new(const char *path, const char *uri, uint64_t size_bytes, struct rescue **ret,
	struct weft_error *err);
/* A cache_each_fn, in the region's order. */
int rescue_put(void *rescue, uint64_t off, uint64_t len, enum cache_content content,
	const void *data);
/* Bytes of each enum cache_content so far.  Any thread. */
uint64_t rescue_bytes(const struct rescue *rescue, enum cache_content content);
/*
 * r: what the walk ended with.  0: both are there, under their names and on disk; they are not,
 * otherwise.
 */
int rescue_end(struct rescue *rescue, int r, struct weft_error *err);
/* Takes NULL; what has not ended is removed. */
void rescue_free(struct rescue *rescue);

#endif
