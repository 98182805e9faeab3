/* SPDX-License-Identifier: MIT */
/*
 * Whole pages beside the heap: for what is large, and leaves no hole in the heap when it goes.  In
 * a process that is resident (resident.h) they come from its reserve.  Any thread.
 */
#ifndef WEFT_FABRIC_BASE_MAP_H
#define WEFT_FABRIC_BASE_MAP_H

#include <stddef.h>

/*
 * len bytes of zeros: taken page by page as they are touched, and left out of core dumps.  NULL: no
 * memory.
 */
void *weft_map_bytes(size_t len);
/* p and len as above; takes NULL. */
void weft_unmap_bytes(void *p, size_t len);

#endif
