/* SPDX-License-Identifier: MIT */
/* Memory for secrets. */
#include "fabric/key/memory.h"

#include <string.h>
#include <sys/mman.h>

#include "fabric/base/map.h"
#include "fabric/base/resident.h"
#include "fabric/base/util.h"

void *weft_secret_alloc(size_t bytes)
{
	const size_t len = weft_whole_pages(bytes ? bytes : 1);
	void *memory = weft_map_bytes(len);

	/* What is resident is locked, and a fork of it would be a cost of its own. */
	if (!memory || weft_is_resident())
		return memory;
	/* No child has a use for it. */
	(void)madvise(memory, len, MADV_WIPEONFORK);
	/* Memory beyond RLIMIT_MEMLOCK is used unlocked: the machine's owner has to see to swap. */
	(void)mlock(memory, len);
	return memory;
}

void weft_secret_free(void *memory, size_t bytes)
{
	if (!memory)
		return;
	explicit_bzero(memory, bytes);
	weft_unmap_bytes(memory, weft_whole_pages(bytes ? bytes : 1));
}
