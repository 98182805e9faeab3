/* SPDX-License-Identifier: MIT */
/*
 * A region's life, apart from its backing's part: its name, its references, its memory. Threads: as
 * region.h says.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/hello.h"
#include "fabric/region/region-private.h"

bool weft_region_name_valid(const char *name, size_t max)
{
	const uint8_t *p = (const uint8_t *)name;

	if (*p == 0 || strnlen(name, max + 1) > max || strcmp(name, WEFT_EXPORT_SESSION) == 0)
		return false;
	while (*p) {
		uint32_t c = *p++, min = 0;
		unsigned more = 0;

		if (c < 0x80) {
			if (c < 0x20 || c == 0x7f)
				return false;
			continue;
		}
		if ((c & 0xe0) == 0xc0) {
			more = 1, min = 0x80, c &= 0x1f;
		} else if ((c & 0xf0) == 0xe0) {
			more = 2, min = 0x800, c &= 0x0f;
		} else if ((c & 0xf8) == 0xf0) {
			more = 3, min = 0x10000, c &= 0x07;
		} else {
			return false;
		}
		for (; more > 0; more--, p++) {
			if ((*p & 0xc0) != 0x80)
				return false;
			c = c << 6 | (*p & 0x3f);
		}
		/* Overlong forms, surrogates, C1 controls, beyond Unicode. */
		if (c < min || (c >= 0xd800 && c < 0xe000) || c < 0xa0 || c > 0x10ffff)
			return false;
	}
	return true;
}

struct weft_region *region_new(enum weft_backing backing, const char *name, const char *description)
{
	static _Atomic uint64_t nr_made;
	struct weft_region *region = calloc(1, sizeof(*region));

	if (!region)
		return NULL;
	region->number = atomic_fetch_add(&nr_made, 1) + 1;
	region->backing = backing;
	region->fd = region->header_fd = -1;
	atomic_init(&region->refs, 1);
	pthread_mutex_init(&region->flush_lock, NULL);
	pthread_mutex_init(&region->promise_lock, NULL);
	pthread_mutex_init(&region->reports_lock, NULL);
	region->name = strdup(name);
	region->description = strdup(description);
	if (!region->name || !region->description) {
		region_free(region);
		return NULL;
	}
	return region;
}

void region_free(struct weft_region *region)
{
	if (!region)
		return;
	assert(!region->stage && !region->reports);
	region_fill_free(region);
	if (region->map)
		munmap(region->map, region->size_bytes);
	if (region->header)
		munmap(region->header, sizeof(*region->header));
	else
		free(region->generations);
	if (region->store_ops)
		region->store_ops->close(region->store);
	free((void *)region->changes);
	free(region->move);
	free(region->note);
	free(region->promise_path);
	weft_close_fd(region->fd);
	weft_close_fd(region->header_fd);
	pthread_mutex_destroy(&region->flush_lock);
	pthread_mutex_destroy(&region->promise_lock);
	pthread_mutex_destroy(&region->reports_lock);
	free(region->description);
	free(region->name);
	free(region);
}

struct weft_region *weft_region_get(struct weft_region *region)
{
	unsigned before = atomic_fetch_add_explicit(&region->refs, 1, memory_order_relaxed);

	assert(before > 0);
	return region;
}
