/* What the files that make up regions share; see region.h. */
#ifndef WEFT_FABRIC_REGION_PRIVATE_H
#define WEFT_FABRIC_REGION_PRIVATE_H

#include "fabric/region.h"

#define REGION_HEADER_MAGIC "weftRGN1"

/* Everything up to the checksum is constant from the moment the memory is complete. */
struct weft_region_header {
	char magic[8];
	uint64_t header_bytes;
	uint64_t size_bytes;
	uint64_t page_bytes;
	uint64_t epoch;
	uint64_t mem_dev, mem_ino; /* of the memfd that it belongs to */
	char name[WEFT_MEMORY_NAME_MAX + 1];
	uint64_t checksum; /* of everything above */
	uint64_t unused[87];
	struct weft_generation generations[WEFT_NR_GENERATIONS];
};

_Static_assert(sizeof(struct weft_generation) == 104, "the header's layout outlives the daemon");
_Static_assert(sizeof(struct weft_region_header) == 1016 + 64 * 104, "so does its size");

/* A region with name, description and one reference; fd and header_fd are -1.  NULL without memory. */
struct weft_region *region_new(enum weft_backing backing, const char *name, const char *description);
/* Closes and frees whatever there is. */
void region_free(struct weft_region *region);

uint64_t region_new_epoch(void);

/* Marks a file region's end: flushed, epoch kept. */
void region_file_finish(struct weft_region *region);
/* 0, or -EIO when the file is shorter than it was, removed, or lost. */
int region_file_check(struct weft_region *region);
/* The same before a change; the first one takes the clean mark away, durably. */
int region_file_check_write(struct weft_region *region);

#endif
