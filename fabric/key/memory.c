/* SPDX-License-Identifier: MIT */
/* Memory for secrets. */
#include "fabric/key/memory.h"

#include <string.h>
#include <sys/mman.h>

#include "fabric/base/util.h"

void *weft_secret_alloc(size_t bytes)
{
	void *memory = weft_map_bytes(weft_whole_pages(bytes ? bytes : 1));

	/* Memory beyond RLIMIT_MEMLOCK is used unlocked: the machine's owner has to see to swap. */
	if (memory)
		(void)mlock(memory, weft_whole_pages(bytes ? bytes : 1));
	return memory;
}

void weft_secret_free(void *memory, size_t bytes)
{
	if (!memory)
		return;
	explicit_bzero(memory, bytes);
	munmap(memory, weft_whole_pages(bytes ? bytes : 1));
}
