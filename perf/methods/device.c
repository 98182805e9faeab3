/* SPDX-License-Identifier: MIT */
/*
 * A block device that somebody set up before: by nbd-client, by nvme connect, by a login to an SRP
 * target.  It is filled first, since nobody else knows what is on it.  One thread; blocks.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "perf/methods/methods.h"

static int fill(const struct methods_cell *cell, struct methods_way *way, struct weft_error *err)
{
	uint8_t *buf = malloc(METHODS_CHUNK);
	int r = buf ? 0 : -ENOMEM;

	for (uint64_t off = 0; r == 0 && off < cell->site->bytes; off += METHODS_CHUNK) {
		methods_contents_make(&cell->own->contents, buf, METHODS_CHUNK, off);
		r = way->write(way, buf, METHODS_CHUNK, off);
	}
	if (r == 0)
		r = way->flush(way);
	free(buf);
	return r < 0 ? weft_error_set(err, -r, "it cannot be filled: %s", strerror(-r)) : 0;
}

json_t *methods_run_device(const struct methods_cell *cell, struct weft_error *err)
{
	struct methods_donor own = {.daemon.out = -1};
	struct methods_cell device = *cell;
	struct methods_way *way;
	json_t *json = NULL;

	device.own = &own;
	if (methods_contents_new(&own.contents, cell->site->o->seed, cell->site->bytes) < 0) {
		weft_error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	int r = methods_open_device(&device, 0, &way, err);
	if (r == 0) {
		r = fill(&device, way, err);
		way->close(way);
	}
	if (r == 0)
		json = methods_work(&device, err);
	methods_contents_free(&own.contents);
	return json;
}
