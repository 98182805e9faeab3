/* SPDX-License-Identifier: MIT */
/*
 * Memory that is lent before its contents are here; see region.h.
 *
 * Threads: any; the lock guards what is wanted, and the wait.  A chunk's bit is taken after its
 * bytes are there, by the one thread that fetches, and is never set again.  So whoever sees no bit
 * sees the bytes, and nothing is written over what a borrower has written.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "fabric/base/thread.h"
#include "fabric/base/util.h"
#include "fabric/region/region-private.h"

enum { BITS = 64, MAX_WANTED = 256 };

struct region_fill {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint64_t wanted[MAX_WANTED]; /* chunks that somebody waits for, the first comes first */
	unsigned nr_wanted;
	uint64_t nr_absent;
	bool is_lost; /* there is no hope for what is absent */
};

static uint64_t nr_words(uint64_t size_bytes)
{
	const uint64_t nr = (size_bytes + WEFT_CHUNK_BYTES - 1) / WEFT_CHUNK_BYTES;

	return (nr + BITS - 1) / BITS;
}

uint64_t region_fill_bytes(uint64_t size_bytes)
{
	return REGION_FILL_OFF + nr_words(size_bytes) * sizeof(uint64_t);
}

static uint64_t map_bytes(const struct weft_region *region)
{
	return nr_words(region->size_bytes) * sizeof(uint64_t);
}

int region_fill_map(struct weft_region *region)
{
	struct region_fill *fill = calloc(1, sizeof(*fill));
	void *map = fill ? mmap(NULL, map_bytes(region), PROT_READ | PROT_WRITE, MAP_SHARED,
				   region->header_fd, REGION_FILL_OFF)
			 : MAP_FAILED;

	if (map == MAP_FAILED) {
		free(fill);
		return -ENOMEM;
	}
	pthread_mutex_init(&fill->lock, NULL);
	weft_cond_init(&fill->changed);
	region->absent = map;
	region->fill = fill;
	for (uint64_t i = 0; i < nr_words(region->size_bytes); i++)
		fill->nr_absent += (uint64_t)__builtin_popcountll(atomic_load(&region->absent[i]));
	atomic_store(&region->filling, fill->nr_absent > 0);
	return 0;
}

void region_fill_free(struct weft_region *region)
{
	if (!region->fill)
		return;
	munmap((void *)region->absent, map_bytes(region));
	pthread_mutex_destroy(&region->fill->lock);
	pthread_cond_destroy(&region->fill->changed);
	free(region->fill);
}

static bool is_absent(const struct weft_region *region, uint64_t chunk)
{
	return atomic_load_explicit(&region->absent[chunk / BITS], memory_order_acquire) >>
		chunk % BITS &
		1;
}

void weft_region_begin_fill(struct weft_region *region)
{
	const uint64_t nr = weft_region_nr_chunks(region);

	for (uint64_t i = 0; i < nr; i++)
		atomic_fetch_or(&region->absent[i / BITS], UINT64_C(1) << i % BITS);
	region->fill->nr_absent = nr;
	atomic_store(&region->filling, true);
}

/* Under the lock. */
static void want(struct region_fill *fill, uint64_t chunk)
{
	for (unsigned i = 0; i < fill->nr_wanted; i++)
		if (fill->wanted[i] == chunk)
			return;
	if (fill->nr_wanted < MAX_WANTED)
		fill->wanted[fill->nr_wanted++] = chunk;
}

int weft_region_fetch(struct weft_region *region, uint64_t off, uint64_t len, uint32_t timeout_ms)
{
	const uint64_t first = off / WEFT_CHUNK_BYTES,
		       last = len > 0 ? (off + len - 1) / WEFT_CHUNK_BYTES : first;
	const uint64_t deadline_ns = weft_now_ns() + timeout_ms * UINT64_C(1000000);
	struct region_fill *fill = region->fill;
	int r = 0;

	if (len == 0)
		return 0;
	for (uint64_t i = first; i <= last && r == 0; i++) {
		if (!is_absent(region, i))
			continue;
		pthread_mutex_lock(&fill->lock);
		while (r == 0 && is_absent(region, i)) {
			for (uint64_t j = i; j <= last && j < i + MAX_WANTED; j++)
				if (is_absent(region, j))
					want(fill, j);
			if (fill->is_lost)
				r = -EIO;
			else if (!weft_cond_wait_until(&fill->changed, &fill->lock, deadline_ns))
				r = is_absent(region, i) ? -ETIMEDOUT : 0;
		}
		pthread_mutex_unlock(&fill->lock);
	}
	return r;
}

unsigned weft_region_take_wanted(struct weft_region *region, uint64_t *ret, unsigned max)
{
	struct region_fill *fill = region->fill;

	pthread_mutex_lock(&fill->lock);
	unsigned n = weft_min(max, fill->nr_wanted);
	memcpy(ret, fill->wanted, n * sizeof(*ret));
	fill->nr_wanted -= n;
	memmove(fill->wanted, fill->wanted + n, fill->nr_wanted * sizeof(*ret));
	pthread_mutex_unlock(&fill->lock);
	return n;
}

uint64_t weft_region_next_absent(const struct weft_region *region, uint64_t from)
{
	const uint64_t nr = weft_region_nr_chunks(region);

	for (uint64_t i = from; i < nr; i++) {
		const uint64_t word = atomic_load(&region->absent[i / BITS]) >> i % BITS;

		if (word)
			return i + (uint64_t)__builtin_ctzll(word);
		i += BITS - 1 - i % BITS;
	}
	return nr;
}

uint64_t weft_region_arrived(struct weft_region *region, uint64_t chunk)
{
	const uint64_t bit = UINT64_C(1) << chunk % BITS;
	struct region_fill *fill = region->fill;

	const bool was = atomic_fetch_and_explicit(&region->absent[chunk / BITS], ~bit,
				 memory_order_release) &
		bit;
	pthread_mutex_lock(&fill->lock);
	fill->nr_absent -= was;
	const uint64_t left = fill->nr_absent;
	pthread_cond_broadcast(&fill->changed);
	pthread_mutex_unlock(&fill->lock);
	if (left == 0)
		atomic_store(&region->filling, false);
	return left;
}

void weft_region_lose_absent(struct weft_region *region)
{
	pthread_mutex_lock(&region->fill->lock);
	region->fill->is_lost = true;
	pthread_cond_broadcast(&region->fill->changed);
	pthread_mutex_unlock(&region->fill->lock);
}
