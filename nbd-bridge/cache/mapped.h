/* SPDX-License-Identifier: MIT */
/*
 * Touching a mapped file whose pages may not be there: the disk cannot read one, or somebody made
 * the file shorter.  The kernel says so with SIGBUS, which would end the process; here the access
 * alone ends, with -EIO.  The page stays missing, so that nobody takes other bytes for its own; if
 * the kernel touches it, for write(2) and the like, the call fails with EFAULT.  Any thread.
 */
#ifndef WEFT_NBD_BRIDGE_CACHE_MAPPED_H
#define WEFT_NBD_BRIDGE_CACHE_MAPPED_H

#include <stddef.h>

/*
 * Call before the process maps such a file.  Once is enough, unless other code takes the signal
 * meanwhile.
 */
void mapped_init(void);
/*
 * Calls fn(ctx) and returns its result; or -EIO if a page that fn touches is not there.  Then fn
 * ended in the middle, and *ret_at (may be NULL) is the address, or another within the same 4 KiB.
 * fn must take no lock, allocate nothing, and not call this function.
 */
int mapped_try(int (*fn)(void *ctx), void *ctx, const void **ret_at);
/* memcpy(3) where one side is such a mapped file, or both are. */
int mapped_copy(void *to, const void *from, size_t len, const void **ret_at);

#endif
