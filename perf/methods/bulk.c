/* SPDX-License-Identifier: MIT */
/*
 * What the line gives: all of a region with many large requests in flight, over several
 * connections, by libweft's asynchronous commands.  It also fills regions, and checks them.  One
 * thread, beside libweft's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "nbd-bridge/library/weft.h"
#include "perf/methods/methods.h"

struct bulk {
	const struct methods_cell *cell;
	struct methods_contents *contents;
	struct weft *w;
	uint8_t *buf;
	bool write;
	int64_t cookies[METHODS_BULK_DEPTH];
};

static int open_bulk(struct bulk *b, const char *uri, struct weft_error *err)
{
	struct weft_options options = {
		.size = sizeof(options),
		.flags = b->cell->transport->key ? 0 : WEFT_OPEN_ALLOW_INSECURE,
		.connections = METHODS_BULK_LANES,
		.key_file = b->cell->transport->key ? b->cell->site->key : NULL,
	};
	char why[400];
	int r = weft_open_regions(&uri, 1, &options, &b->w, why, sizeof(why));

	return r < 0 ? weft_error_set(err, -r, "%s", why) : 0;
}

static uint8_t *buf_of(const struct bulk *b, uint64_t i)
{
	return b->buf + i % METHODS_BULK_DEPTH * METHODS_BULK;
}

static int begin(struct bulk *b, uint64_t i, struct weft_error *err)
{
	uint64_t off = i * METHODS_BULK;
	uint8_t *buf = buf_of(b, i);
	int64_t cookie;

	if (b->write)
		methods_contents_make(b->contents, buf, METHODS_BULK, off);
	cookie = b->write ? weft_aio_pwrite(b->w, buf, METHODS_BULK, off, NULL)
			  : weft_aio_pread(b->w, buf, METHODS_BULK, off, NULL);
	b->cookies[i % METHODS_BULK_DEPTH] = cookie;
	return cookie < 0 ? weft_error_set(err, (int)-cookie, "bulk: %s", strerror((int)-cookie))
			  : 0;
}

static int end(struct bulk *b, uint64_t i, struct weft_error *err)
{
	int r = weft_aio_wait(b->w, b->cookies[i % METHODS_BULK_DEPTH]);

	if (r < 0)
		return weft_error_set(err, -r, "bulk: %s", strerror(-r));
	return b->write ? 0
			: methods_contents_check(b->contents, buf_of(b, i), METHODS_BULK,
				  i * METHODS_BULK, err);
}

static int all(struct bulk *b, struct weft_error *err)
{
	uint64_t nr = b->cell->site->bytes / METHODS_BULK, done = 0;
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < nr; i++) {
		if (i - done == METHODS_BULK_DEPTH)
			r = end(b, done++, err);
		if (r == 0)
			r = begin(b, i, err);
	}
	while (r == 0 && done < nr)
		r = end(b, done++, err);
	if (r == 0 && b->write) {
		r = weft_flush(b->w);
		if (r < 0)
			weft_error_set(err, -r, "bulk: a flush failed: %s", strerror(-r));
	}
	return r;
}

static int transfer(const struct methods_cell *cell, const char *uri, bool write,
	struct methods_phase *phase, struct weft_error *err)
{
	struct methods_donor *donor = methods_cell_donor(cell);
	struct bulk b = {.cell = cell, .contents = &donor->contents, .write = write};
	int r;

	b.buf = aligned_alloc(METHODS_PAGE, (size_t)METHODS_BULK * METHODS_BULK_DEPTH);
	r = b.buf ? open_bulk(&b, uri, err) : weft_error_set(err, ENOMEM, "out of memory");
	if (r == 0) {
		/* Its pages are there before the clock starts. */
		memset(b.buf, 1, (size_t)METHODS_BULK * METHODS_BULK_DEPTH);
		if (phase)
			methods_meter_read(cell->site, 0, donor->daemon.pid, &phase->from);
		r = all(&b, err);
		if (phase) {
			methods_meter_read(cell->site, 0, donor->daemon.pid, &phase->to);
			phase->bytes = cell->site->bytes;
			phase->ops = phase->bytes / METHODS_BULK;
		}
		weft_close(b.w); /* the last operation has ended, before the memory goes */
	}
	free(b.buf);
	return r;
}

int methods_bulk_write(
	const struct methods_cell *cell, struct methods_phase *phase, struct weft_error *err)
{
	char uri[200];
	int r = methods_cell_find(cell, err);

	return r < 0 ? r : transfer(cell, methods_cell_uri(cell, true, uri), true, phase, err);
}

int methods_bulk_read(const struct methods_cell *cell, const char *uri,
	struct methods_phase *phase, struct weft_error *err)
{
	return transfer(cell, uri, false, phase, err);
}

json_t *methods_run_bulk(const struct methods_cell *cell, struct weft_error *err)
{
	static struct methods_phase phases[2];
	bool have_donor = methods_cell_donor(cell)->daemon.pid != 0;
	char uri[200];
	int r = methods_bulk_write(cell, &phases[0], err);

	if (r == 0)
		r = methods_cell_find(cell, err);
	if (r == 0)
		r = methods_bulk_read(cell, methods_cell_uri(cell, true, uri), &phases[1], err);
	if (r < 0)
		return NULL;
	return json_pack("{s:{s:o, s:o}}", "works", "write",
		methods_phase_json(cell->site, &phases[0], false, have_donor), "read",
		methods_phase_json(cell->site, &phases[1], false, have_donor));
}
