/* SPDX-License-Identifier: MIT */
/* Whole pages; see map.h.  No state. */
#include "fabric/base/map.h"

#include <sys/mman.h>

#include "fabric/base/resident.h"

void *weft_map_bytes(size_t len)
{
	void *p = weft_resident_take(len);

	if (p)
		return p;
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		0);
	if (p == MAP_FAILED)
		return NULL;
	madvise(p, len, MADV_DONTDUMP);
	return p;
}

void weft_unmap_bytes(void *p, size_t len)
{
	if (p && !weft_resident_give_back(p))
		munmap(p, len);
}
