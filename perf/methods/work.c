/* SPDX-License-Identifier: MIT */
/*
 * The same work by whatever can be opened, read and written: each kind of it on a region that was
 * just opened, so that nothing of it is here.  One thread, beside libweft's.  Invariant: what
 * belongs in the region is known in each page that no failed write was to.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "perf/bench/stats.h"
#include "perf/methods/methods.h"

enum {
	READS_OF_20 = 19, /* of the working sets */
	LOCAL_MIN = 4 << 20, /* what a cache has at least */
};

struct work {
	const struct methods_cell *cell;
	const struct methods_site *site;
	struct methods_contents *contents;
	struct methods_way *way;
	struct methods_phase phase;
	struct methods_random random;
	uint8_t *buf;
	struct weft_error *err;
	uint64_t until_ns;
	double ready_ms[METHODS_NR_WORKS], first_ms[METHODS_NR_WORKS];
	unsigned nr_opened;
	bool has_bridge;
	uint64_t resident_bytes, resident_before;
};

static int failed(struct work *w, const char *what, int r)
{
	return weft_error_set(w->err, -r, "a %s failed: %s", what, strerror(-r));
}

/* One operation, which is checked, or after which other bytes belong there. */
static int operate(struct work *w, bool write, uint64_t off, uint32_t len)
{
	if (write) {
		methods_contents_change(w->contents, off, len);
		methods_contents_make(w->contents, w->buf, len, off);
	}
	uint64_t start_ns = weft_now_ns();
	int r = write ? w->way->write(w->way, w->buf, len, off)
		      : w->way->read(w->way, w->buf, len, off);
	weft_histogram_add(&w->phase.latency, weft_now_ns() - start_ns);
	if (r < 0)
		return failed(w, write ? "write" : "read", r);
	w->phase.ops++;
	w->phase.bytes += len;
	return write ? 0 : methods_contents_check(w->contents, w->buf, len, off, w->err);
}

static bool in_time(const struct work *w)
{
	return weft_now_ns() < w->until_ns && !bench_stop;
}

static int in_order(struct work *w, bool write)
{
	int r = 0;

	for (uint64_t off = 0; r == 0 && off < w->site->bytes && in_time(w); off += METHODS_CHUNK)
		r = operate(w, write, off, METHODS_CHUNK);
	return r;
}

/* Of 20 operations so many are reads; the pages are the first nr of the region. */
static int at_random(struct work *w, unsigned reads, uint64_t nr_pages, uint64_t most)
{
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < most && in_time(w); i++) {
		bool write = methods_random_below(&w->random, 20) >= reads;
		uint64_t page = methods_random_below(&w->random, nr_pages);

		r = operate(w, write, page * METHODS_PAGE, METHODS_PAGE);
	}
	return r;
}

static int flush(struct work *w)
{
	int r = w->way->flush(w->way);

	return r < 0 ? failed(w, "flush", r) : 0;
}

static int carry_out(struct work *w, enum methods_work what)
{
	uint64_t pages = w->site->bytes / METHODS_PAGE;
	int r;

	switch (what) {
	case METHODS_READ:
		return in_order(w, false);
	case METHODS_RANDOM_READ:
		return at_random(w, 20, pages, pages / 4);
	case METHODS_FITS:
		return at_random(w, READS_OF_20, pages / 4, UINT64_MAX);
	case METHODS_EXCEEDS:
		return at_random(w, READS_OF_20, pages, UINT64_MAX);
	case METHODS_WRITE:
		r = in_order(w, true);
		break;
	case METHODS_RANDOM_WRITE:
		r = at_random(w, 0, pages, pages / 4);
		break;
	default:
		/* As much as has to be, however long it takes. */
		w->until_ns = UINT64_MAX;
		r = at_random(w, 0, pages, pages / 100);
	}
	return r == 0 ? flush(w) : r;
}

static uint64_t local_bytes(const struct work *w, enum methods_work what)
{
	uint64_t bytes = w->site->bytes;

	return what == METHODS_FITS    ? bytes / 2
		: what == METHODS_EXCEEDS ? weft_max(bytes / 8, LOCAL_MIN)
					  : bytes + bytes / 4;
}

static void begin(struct work *w)
{
	methods_meter_read(w->site, w->way->bridge, methods_cell_donor(w->cell)->daemon.pid,
		&w->phase.from);
	w->until_ns = weft_now_ns() + w->site->phase_ns;
}

static void keep_resident(struct work *w)
{
	uint64_t now = methods_resident_bytes(0);
	uint64_t grown = now > w->resident_before ? now - w->resident_before : 0;

	if (w->way->bridge)
		grown += methods_resident_bytes(w->way->bridge);
	w->resident_bytes = weft_max(w->resident_bytes, grown);
}

/* The first bytes of a region that was just opened. */
static int read_first(struct work *w, enum methods_work what)
{
	memset(&w->phase, 0, sizeof(w->phase));
	begin(w);
	int r = operate(w, false, 0, METHODS_PAGE);
	w->first_ms[w->nr_opened++] = (double)w->phase.latency.max / 1e6;
	/* What is read from the first byte on begins with it; other work comes after it. */
	if (what == METHODS_READ)
		return r;
	memset(&w->phase, 0, sizeof(w->phase));
	begin(w);
	return r;
}

static int do_opened(struct work *w, enum methods_work what)
{
	int r = read_first(w, what);

	w->random.x = w->site->o->seed ^ (uint64_t)(what + 1) << 32 ^ 0x9e3779b9;
	if (r == 0)
		r = carry_out(w, what);
	methods_meter_read(w->site, w->way->bridge, methods_cell_donor(w->cell)->daemon.pid,
		&w->phase.to);
	keep_resident(w);
	/* Of a working set it is not measured when its writes arrive; but they have to. */
	if (r == 0 && (what == METHODS_FITS || what == METHODS_EXCEEDS))
		r = flush(w);
	return r == 0 && bench_stop ? weft_error_set(w->err, EINTR, "stopped") : r;
}

/*
 * The host of a virtual machine gives it memory when it is touched, at a twentieth of the rate at
 * which a kernel clears pages (334 MB/s was seen), and takes back what lies free for a while.  What
 * a method will take has just been touched, so that the host has no part in what is measured.
 */
static void touch_memory(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return;
	madvise(p, bytes, MADV_HUGEPAGE);
	for (size_t at = 0; at < bytes; at += METHODS_PAGE)
		((volatile char *)p)[at] = 1;
	munmap(p, bytes);
}

static int do_work(struct work *w, enum methods_work what)
{
	touch_memory(local_bytes(w, what));
	int r = methods_cell_find(w->cell, w->err);
	if (r < 0)
		return r;
	uint64_t start_ns = weft_now_ns();
	r = w->cell->method->open(w->cell, local_bytes(w, what), &w->way, w->err);

	if (r < 0)
		return r;
	w->ready_ms[w->nr_opened] = (double)(weft_now_ns() - start_ns) / 1e6;
	w->has_bridge = w->way->bridge != 0;
	r = do_opened(w, what);
	w->way->close(w->way);
	return r;
}

static bool means_something(const struct methods_method *method, enum methods_work what)
{
	return what != METHODS_COPY && !(what == METHODS_EXCEEDS && method->holds_all);
}

json_t *methods_work(const struct methods_cell *cell, struct weft_error *err)
{
	struct methods_donor *donor = methods_cell_donor(cell);
	struct work w = {
		.cell = cell, .site = cell->site, .contents = &donor->contents, .err = err};
	json_t *works = json_object();
	int r = 0;

	w.buf = malloc(METHODS_CHUNK);
	if (!w.buf || !bench_buf())
		r = weft_error_set(err, ENOMEM, "out of memory");
	w.resident_before = methods_resident_bytes(0);
	for (int what = 0; r == 0 && what < METHODS_NR_WORKS; what++) {
		if (!means_something(cell->method, what))
			continue;
		r = do_work(&w, what);
		if (r == 0)
			json_object_set_new(works, methods_work_names[what],
				methods_phase_json(w.site, &w.phase, w.has_bridge,
					donor->daemon.pid != 0));
		else
			weft_error_prefix(err, "%s", methods_work_names[what]);
	}
	free(w.buf);
	if (r < 0) {
		json_decref(works);
		return NULL;
	}
	return json_pack("{s:f, s:f, s:I, s:o}", "ready_ms", stats_median(w.ready_ms, w.nr_opened),
		"first_ms", stats_median(w.first_ms, w.nr_opened), "resident_bytes",
		(json_int_t)w.resident_bytes, "works", works);
}
