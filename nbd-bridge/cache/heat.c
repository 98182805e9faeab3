/* SPDX-License-Identifier: MIT */
/*
 * Saves where a cache was read most, for --pull-order of the next attachment.  The lanes have
 * ended.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nbd-bridge/cache/cache-private.h"

struct heat {
	uint32_t chunk, reads;
};

static int by_heat(const void *a, const void *b)
{
	const struct heat *x = a, *y = b;

	if (x->reads != y->reads)
		return x->reads > y->reads ? -1 : 1;
	return x->chunk < y->chunk ? -1 : x->chunk > y->chunk;
}

static int put_heat(const struct bridge_cache *cache, const struct heat *heat, uint64_t nr,
	FILE *out)
{
	const uint64_t bytes = cache_chunk_bytes(cache);

	fputs("# Where was read most comes first: for weft attach --pull-order.  Offset and length "
	      "in bytes.\n",
		out);
	for (uint64_t i = 0; i < nr; i++) {
		uint64_t off = (uint64_t)heat[i].chunk << cache->shift;

		fprintf(out, "%" PRIu64 " %" PRIu64 "\n", off,
			weft_min(bytes, cache->size_bytes - off));
	}
	return fflush(out) == 0 && !ferror(out) ? 0 : -errno;
}

static int save(const struct bridge_cache *cache, const struct heat *heat, uint64_t nr,
	const char *path)
{
	WEFT_CLEANUP_FREE char *temporary = NULL;

	if (asprintf(&temporary, "%s.XXXXXX", path) < 0) {
		temporary = NULL;
		return -ENOMEM;
	}
	int fd = mkostemp(temporary, O_CLOEXEC);
	FILE *out = fd < 0 ? NULL : fdopen(fd, "w");
	int r = out ? put_heat(cache, heat, nr, out) : -errno;

	if (out ? fclose(out) != 0 : fd >= 0 && close(fd) < 0)
		r = r < 0 ? r : -errno;
	if (r == 0 && rename(temporary, path) < 0)
		r = -errno;
	if (r < 0 && fd >= 0)
		unlink(temporary);
	return r;
}

int cache_save_pull_order(const struct bridge_cache *cache, const char *path,
	struct weft_error *err)
{
	uint64_t nr = 0, room = 0;

	for (uint64_t c = 0; c < cache->nr_chunks; c++)
		room += cache->chunks[c].reads > 0;
	struct heat *heat = malloc(weft_max(room, 1) * sizeof(*heat));
	if (!heat)
		return weft_error_set(err, ENOMEM, "cannot write %s: out of memory", path);
	for (uint64_t c = 0; c < cache->nr_chunks && nr < room; c++)
		if (cache->chunks[c].reads > 0)
			heat[nr++] = (struct heat){.chunk = (uint32_t)c,
				.reads = cache->chunks[c].reads};
	qsort(heat, nr, sizeof(*heat), by_heat);
	int r = save(cache, heat, nr, path);
	free(heat);
	return r < 0 ? weft_error_set(err, -r, "cannot write %s: %s", path, strerror(-r)) : 0;
}
