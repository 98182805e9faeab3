/* SPDX-License-Identifier: MIT */
/* Memory for secrets. */
#include "fabric/key/memory.h"

#include <string.h>
#include <sys/mman.h>

#include "fabric/base/util.h"

void *weft_secret_alloc(size_t bytes)
{
	const size_t len = weft_whole_pages(bytes ? bytes : 1);
	void *memory = weft_map_bytes(len);

	if (!memory)
		return NULL;
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
	munmap(memory, weft_whole_pages(bytes ? bytes : 1));
}
