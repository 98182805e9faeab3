/* SPDX-License-Identifier: MIT */
/*
 * The work itself: a number of operations in flight, for a while, and whether the data was right.
 * One thread.  Invariant: outside of a slice truth->words is what the region holds.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "fabric/base/util.h"
#include "perf/bench/bench.h"

enum { SWEEP_DEPTH = 8, SWEEP_BYTES = 1 << 20 };

uint8_t *bench_buf(void)
{
	static uint8_t *buf;

	if (buf)
		return buf;
	buf = mmap(NULL, BENCH_BUF_BYTES, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (buf == MAP_FAILED)
		return buf = NULL;
	/* Not zeros, which somebody on the way could make short work of. */
	for (size_t i = 0; i < BENCH_BUF_BYTES; i += 8) {
		uint64_t word = i * UINT64_C(0x9e3779b97f4a7c15);

		memcpy(buf + i, &word, sizeof(word));
	}
	return buf;
}

/* Spreads the bits of a counter: no two words are equal, none is a shifted neighbour. */
static uint64_t next_word(struct bench_truth *truth)
{
	uint64_t x = truth->next++;

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static uint64_t word_at(const uint8_t *buf)
{
	uint64_t word;

	memcpy(&word, buf, sizeof(word));
	return word;
}

static void stamp(struct bench_truth *truth, struct bench_slot *slot)
{
	for (uint32_t i = 0; i < slot->len; i += BENCH_BLOCK) {
		uint64_t word = next_word(truth);

		memcpy(slot->buf + i, &word, sizeof(word));
	}
}

static void learn(struct bench_truth *truth, const struct bench_slot *slot)
{
	uint64_t *words = truth->words + slot->off / BENCH_BLOCK;

	for (uint32_t i = 0; i < slot->len; i += BENCH_BLOCK)
		*words++ = word_at(slot->buf + i);
}

static int check(const struct bench_truth *truth, const struct bench_slot *slot,
	struct weft_error *err)
{
	const uint64_t *words = truth->words + slot->off / BENCH_BLOCK;

	for (uint32_t i = 0; i < slot->len; i += BENCH_BLOCK, words++)
		if (word_at(slot->buf + i) != *words)
			return weft_error_set(err, EILSEQ,
				"wrong bytes: at offset %" PRIu64 " there is %016" PRIx64
				", and %016" PRIx64 " was written",
				slot->off + i, word_at(slot->buf + i), *words);
	return 0;
}

static bool is_zero(const uint8_t *buf, size_t len)
{
	return buf[0] == 0 && memcmp(buf, buf + 1, len - 1) == 0;
}

static int failed(const struct bench_slot *slot, struct weft_error *err)
{
	return weft_error_set(err, -slot->error,
		"a %s of %u bytes at offset %" PRIu64 " failed: %s", slot->write ? "write" : "read",
		slot->len, slot->off, strerror(-slot->error));
}

static int broken(int r, struct weft_error *err)
{
	return weft_error_set(err, -r,
		r == -ETIMEDOUT ? "no operation came back for 30 s: %s" : "the path broke: %s",
		strerror(-r));
}

/* ---- sweeps ---- */

static int sweep_start(struct bench_io *io, struct bench_truth *truth, enum bench_sweep what,
	struct bench_slot *slot, uint64_t off, uint32_t piece)
{
	struct bench_slot *one = slot;

	slot->off = off;
	slot->len = (uint32_t)weft_min(piece, truth->span_bytes - off);
	slot->write = what == BENCH_SWEEP_FILL || what == BENCH_SWEEP_CLEAR;
	if (what == BENCH_SWEEP_FILL)
		stamp(truth, slot);
	else if (what == BENCH_SWEEP_CLEAR)
		memset(slot->buf, 0, slot->len);
	return io->submit(io, &one, 1);
}

static int sweep_done(struct bench_truth *truth, enum bench_sweep what,
	const struct bench_slot *slot, struct weft_error *err)
{
	if (slot->error < 0)
		return failed(slot, err);
	if (what == BENCH_SWEEP_IS_EMPTY && !is_zero(slot->buf, slot->len))
		return weft_error_set(err, ENOTEMPTY, "the region is not empty");
	if (what == BENCH_SWEEP_CHECK)
		return check(truth, slot, err);
	if (what != BENCH_SWEEP_IS_EMPTY)
		learn(truth, slot);
	return 0;
}

int bench_sweep(struct bench_io *io, struct bench_truth *truth, enum bench_sweep what,
	struct weft_error *err)
{
	struct bench_slot slots[SWEEP_DEPTH], *done[SWEEP_DEPTH];
	uint32_t piece = (uint32_t)weft_min(SWEEP_BYTES, io->max_io_bytes);
	unsigned depth = (unsigned)weft_min(SWEEP_DEPTH, io->max_depth), flying = 0;
	uint64_t off = 0;
	int r = 0;

	for (unsigned i = 0; i < depth; i++)
		slots[i] = (struct bench_slot){.buf = io->buf + (size_t)i * SWEEP_BYTES};
	for (unsigned i = 0; r == 0 && i < depth && off < truth->span_bytes; i++) {
		r = sweep_start(io, truth, what, &slots[i], off, piece);
		if (r < 0)
			return broken(r, err);
		off += slots[i].len;
		flying++;
	}
	while (flying > 0) {
		int n = io->reap(io, done, SWEEP_DEPTH);

		if (n < 0)
			return broken(n, err);
		for (int i = 0; i < n; i++) {
			flying--;
			if (r == 0)
				r = sweep_done(truth, what, done[i], err);
			if (r < 0 || off == truth->span_bytes)
				continue;
			int started = sweep_start(io, truth, what, done[i], off, piece);
			if (started < 0)
				return broken(started, err);
			off += done[i]->len;
			flying++;
		}
	}
	return r;
}

/* ---- a slice ---- */

struct work {
	struct bench_io *io;
	struct bench_truth *truth;
	const struct bench_cell *cell;
	/* places in an order that no prefetcher knows, each once before any comes again */
	uint64_t nr_places, mask, x;
	struct bench_slot slots[BENCH_MAX_DEPTH];
};

static bool in_flight(const struct work *w, uint64_t off)
{
	for (unsigned i = 0; i < w->cell->depth; i++)
		if (w->slots[i].start_ns && w->slots[i].off == off)
			return true;
	return false;
}

static uint64_t next_place(struct work *w)
{
	uint64_t off;

	do {
		do
			w->x = (w->x * UINT64_C(0xd1342543de82ef95) + 0x3c6ef372fe94f82b) & w->mask;
		while (w->x >= w->nr_places);
		off = w->x * w->cell->len;
	} while (in_flight(w, off));
	return off;
}

static void prepare(struct work *w, struct bench_slot *slot, uint64_t now_ns)
{
	slot->off = next_place(w);
	if (slot->write)
		stamp(w->truth, slot);
	slot->start_ns = now_ns;
}

static int finish(struct work *w, struct bench_slot *slot, uint64_t now_ns, struct bench_slice *ret,
	struct weft_error *err)
{
	weft_histogram_add(&ret->latency, now_ns - slot->start_ns);
	slot->start_ns = 0;
	ret->nr_ops++;
	if (slot->error < 0)
		return failed(slot, err);
	if (!slot->write)
		return check(w->truth, slot, err);
	learn(w->truth, slot);
	ret->recent[ret->nr_recent++ % BENCH_NR_RECENT] = slot->off;
	return 0;
}

int bench_work(struct bench_io *io, struct bench_truth *truth, const struct bench_cell *cell,
	uint64_t slice_ns, struct bench_slice *ret, struct weft_error *err)
{
	struct work w = {.io = io,
		.truth = truth,
		.cell = cell,
		.nr_places = truth->span_bytes / cell->len,
		.mask = 1};
	struct bench_slot *done[BENCH_MAX_DEPTH], *again[BENCH_MAX_DEPTH];
	unsigned n = 0, flying = 0;
	int r = 0;

	memset(ret, 0, sizeof(*ret));
	while (w.mask < w.nr_places)
		w.mask = w.mask << 1 | 1;
	weft_random(&w.x, sizeof(w.x));
	uint64_t start_ns = weft_now_ns(), now_ns = start_ns;
	for (; n < cell->depth; n++) {
		w.slots[n] = (struct bench_slot){.write = cell->write,
			.len = cell->len,
			.buf = io->buf + (size_t)n * cell->len};
		prepare(&w, &w.slots[n], now_ns);
		again[n] = &w.slots[n];
	}
	while (n > 0 || flying > 0) {
		if (n > 0) {
			int started = io->submit(io, again, n);

			if (started < 0)
				return broken(started, err);
			flying += n;
			n = 0;
		}
		int got = io->reap(io, done, BENCH_MAX_DEPTH);
		if (got < 0)
			return broken(got, err);
		now_ns = weft_now_ns();
		for (int i = 0; i < got; i++) {
			int finished = finish(&w, done[i], now_ns, ret, r == 0 ? err : NULL);

			flying--;
			r = r == 0 ? finished : r;
			if (r < 0 || now_ns - start_ns >= slice_ns)
				continue;
			prepare(&w, done[i], now_ns);
			again[n++] = done[i];
		}
	}
	ret->elapsed_ns = now_ns - start_ns;
	return r;
}

int bench_read_back(struct bench_io *io, const struct bench_truth *truth,
	const struct bench_cell *cell, const struct bench_slice *slice, struct weft_error *err)
{
	struct bench_slot one = {.len = cell->len, .buf = io->buf}, *slot = &one, *done;
	int r = 0;

	for (unsigned i = 0; r == 0 && i < weft_min(slice->nr_recent, BENCH_NR_RECENT); i++) {
		one.off = slice->recent[i];
		memset(one.buf, 0x55, one.len);
		r = io->submit(io, &slot, 1);
		if (r == 0)
			r = io->reap(io, &done, 1);
		if (r < 0)
			return broken(r, err);
		r = one.error < 0 ? failed(&one, err) : check(truth, &one, err);
	}
	return r;
}
