/* SPDX-License-Identifier: MIT */
/*
 * Memory for secrets: not in core dumps, not in swap if the system lets us lock it, and wiped when
 * it is freed.  Any thread.
 */
#ifndef WEFT_FABRIC_KEY_MEMORY_H
#define WEFT_FABRIC_KEY_MEMORY_H

#include <stddef.h>

/* Whole pages of zeros, for at least so many bytes.  NULL: there is no memory. */
void *weft_secret_alloc(size_t bytes);
/* Takes NULL.  bytes: what was asked for. */
void weft_secret_free(void *memory, size_t bytes);

#endif
