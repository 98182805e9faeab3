/* SPDX-License-Identifier: MIT */
/*
 * A region by libweft: calls, and maps.  One thread, beside the library's.  Whatever is open is
 * closed by its own close().
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "nbd-bridge/library/weft.h"
#include "perf/methods/methods.h"

struct library_way {
	struct methods_way way;
	struct weft *w;
	struct weft_map *map; /* NULL: calls */
	uint64_t bytes;
};

static struct library_way *of(struct methods_way *way)
{
	return weft_container_of(way, struct library_way, way);
}

static int library_read(struct methods_way *way, void *buf, uint32_t len, uint64_t off)
{
	return weft_pread(of(way)->w, buf, len, off);
}

static int library_write(struct methods_way *way, const void *buf, uint32_t len, uint64_t off)
{
	return weft_pwrite(of(way)->w, buf, len, off);
}

static int library_flush(struct methods_way *way)
{
	return weft_flush(of(way)->w);
}

static void close_library(struct methods_way *way)
{
	struct library_way *l = of(way);

	if (l->map)
		weft_unmap(l->map, WEFT_UNMAP_DISCARD);
	weft_close(l->w);
	free(l);
}

static int map_read(struct methods_way *way, void *buf, uint32_t len, uint64_t off)
{
	memcpy(buf, (const char *)weft_map_addr(of(way)->map) + off, len);
	return 0;
}

static int map_write(struct methods_way *way, const void *buf, uint32_t len, uint64_t off)
{
	memcpy((char *)weft_map_addr(of(way)->map) + off, buf, len);
	return 0;
}

static int map_flush(struct methods_way *way)
{
	struct library_way *l = of(way);

	return weft_map_sync(l->map, weft_map_addr(l->map), l->bytes, WEFT_MAP_FLUSH);
}

static int open_handle(const struct methods_cell *cell, uint64_t cache_bytes,
	struct library_way **ret, struct weft_error *err)
{
	const struct methods_site *site = cell->site;
	struct weft_options options = {
		.size = sizeof(options),
		.flags = (cell->transport->key ? 0 : WEFT_OPEN_ALLOW_INSECURE) |
			(cache_bytes ? WEFT_OPEN_WRITE_BACK : 0),
		.cache_bytes = cache_bytes,
		.key_file = cell->transport->key ? site->key : NULL,
	};
	struct library_way *l = calloc(1, sizeof(*l));
	char uri[200], why[400];
	const char *uris[] = {methods_cell_uri(cell, true, uri)};

	if (!l)
		return weft_error_set(err, ENOMEM, "out of memory");
	int r = weft_open_regions(uris, 1, &options, &l->w, why, sizeof(why));
	if (r < 0) {
		free(l);
		return weft_error_set(err, -r, "%s", why);
	}
	l->bytes = site->bytes;
	l->way = (struct methods_way){.read = library_read,
		.write = library_write,
		.flush = library_flush,
		.close = close_library};
	*ret = l;
	return 0;
}

int methods_open_library(const struct methods_cell *cell, uint64_t local_bytes,
	struct methods_way **ret, struct weft_error *err)
{
	bool managed = strcmp(cell->method->mode, "managed") == 0;
	struct library_way *l;
	int r = open_handle(cell, managed ? local_bytes : 0, &l, err);

	if (r == 0)
		*ret = &l->way;
	return r;
}

static unsigned mode_of(const char *name)
{
	return strcmp(name, "paged") == 0     ? WEFT_MAP_PAGED
		: strcmp(name, "compat") == 0 ? WEFT_MAP_COMPAT
					      : WEFT_MAP_RESIDENT;
}

int methods_open_map(const struct methods_cell *cell, uint64_t local_bytes,
	struct methods_way **ret, struct weft_error *err)
{
	struct weft_map_options options = {.size = sizeof(options),
		.mode = mode_of(cell->method->mode)};
	struct library_way *l;
	char why[400] = "";
	int r = open_handle(cell, 0, &l, err);

	if (r < 0)
		return r;
	if (options.mode != WEFT_MAP_RESIDENT)
		options.local_bytes = local_bytes;
	r = weft_map(l->w, 0, l->bytes, &options, &l->map, why, sizeof(why));
	if (r < 0) {
		close_library(&l->way);
		return weft_error_set(err, -r, "%s", why);
	}
	l->way.read = map_read;
	l->way.write = map_write;
	l->way.flush = map_flush;
	*ret = &l->way;
	return 0;
}
