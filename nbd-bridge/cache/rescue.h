/* SPDX-License-Identifier: MIT */
/*
 * Saves what a cache holds to a file of the region's size, with a map beside it (FILE.map).  The
 * map's lines have an offset and a length, both in bytes, and "clean", "dirty" or "torn".  Parts
 * that the map does not name are holes in the file.  One thread.
 */
#ifndef WEFT_NBD_BRIDGE_CACHE_RESCUE_H
#define WEFT_NBD_BRIDGE_CACHE_RESCUE_H

#include "nbd-bridge/cache/file.h"

struct rescue;

/*
 * Makes both files under temporary names.  -EEXIST: one of them exists already, and is left as it
 * is.
 */
int rescue_new(const char *path, const char *uri, uint64_t size_bytes, struct rescue **ret,
	struct weft_error *err);
/* A cache_each_fn, in the region's order. */
int rescue_put(void *rescue, uint64_t off, uint64_t len, enum cache_content content,
	const void *data);
/* Bytes of each enum cache_content so far.  Any thread. */
uint64_t rescue_bytes(const struct rescue *rescue, enum cache_content content);
/*
 * r: what the walk ended with.  0: both files are on disk, under their names.  After an error
 * neither is there.
 */
int rescue_end(struct rescue *rescue, int r, struct weft_error *err);
/* Removes the files of a rescue that has not ended.  Takes NULL. */
void rescue_free(struct rescue *rescue);

#endif
