/* SPDX-License-Identifier: MIT */
/*
 * Touching a mapped file whose pages may not be there: its disk cannot read one, or somebody made
 * the file shorter.  The kernel says so with SIGBUS, which ends a process; here the access ends
 * instead, with -EIO.  The page stays as it is, so that nobody takes anything else for its bytes,
 * and the kernel, which touches it for write(2) and the like, says EFAULT.  Any thread.
 */
#ifndef WEFT_NBD_BRIDGE_CACHE_MAPPED_H
#define WEFT_NBD_BRIDGE_CACHE_MAPPED_H

#include <stddef.h>

/*
 * Before a process maps such a file.  Once is enough, unless somebody else takes the signal
 * meanwhile.
 */
void mapped_init(void);
/*
 * fn(ctx)'s result, or -EIO if a page that fn touches is not there: fn ended in the middle then,
 * and *ret_at (may be NULL) is the address, or another within the same 4 KiB.  fn takes no lock and
 * allocates nothing, and does not come here again.
 */
int mapped_try(int (*fn)(void *ctx), void *ctx, const void **ret_at);
/* memcpy(3); one side of it is mapped, or both. */
int mapped_copy(void *to, const void *from, size_t len, const void **ret_at);

#endif
