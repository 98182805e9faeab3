/* SPDX-License-Identifier: MIT */
/* A chunk of a push or a pull, from the hashes of its leaves to its end; see sync-private.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "nbd-bridge/library/hashes.h"
#include "nbd-bridge/library/weft.h"
#include "nbd-bridge/main/sync-private.h"

/* ---- commands ---- */

static int command_ended(void *user, int error)
{
	struct pending *pending = user;
	int none = 0;

	if (error < 0)
		atomic_compare_exchange_strong(&pending->error, &none, error);
	atomic_fetch_sub(&pending->nr, 1);
	return 0;
}

static struct weft_completion completion_of(struct pending *pending)
{
	atomic_fetch_add(&pending->nr, 1);
	return (struct weft_completion){.fn = command_ended, .user = pending};
}

/* A command that did not begin has ended. */
static int begun(struct pending *pending, int64_t cookie)
{
	if (cookie >= 0)
		return 0;
	atomic_fetch_sub(&pending->nr, 1);
	return (int)cookie;
}

int sync_ask(struct sync *s, struct pending *pending, const struct weft_hashing *hashing,
	uint64_t off, uint32_t len, uint8_t *ret)
{
	const struct weft_completion completion = completion_of(pending);

	s->totals.hashes += (uint64_t)weft_hash_nr_blocks(len, hashing->block_bytes) *
		WEFT_HASH_BYTES;
	return begun(pending,
		library_aio_hash(s->config.w, hashing, off, len, ret, &completion));
}

/* ---- what differs ---- */

static uint32_t nr_blocks(const struct chunk *chunk)
{
	return weft_hash_nr_blocks(chunk->len, BLOCK_BYTES);
}

static bool differs(const struct chunk *chunk, uint32_t block)
{
	return chunk->blocks[block / 64] >> block % 64 & 1;
}

static void mark(struct chunk *chunk, uint32_t block)
{
	chunk->blocks[block / 64] |= UINT64_C(1) << block % 64;
}

/* The next run of blocks that differ, from *at on, which becomes its end.  False: there is none. */
static bool next_run(const struct chunk *chunk, uint32_t *at, uint32_t *ret_off, uint32_t *ret_len)
{
	const uint32_t nr = nr_blocks(chunk);
	uint32_t first = *at;

	while (first < nr && !differs(chunk, first))
		first++;
	*at = first;
	while (*at < nr && differs(chunk, *at))
		++*at;
	*ret_off = first * BLOCK_BYTES;
	*ret_len = (uint32_t)weft_min((uint64_t)*at * BLOCK_BYTES, chunk->len) - *ret_off;
	return first < nr;
}

static uint64_t compare(const uint8_t *a, const uint8_t *b, unsigned nr)
{
	uint64_t bits = 0;

	for (unsigned i = 0; i < nr; i++)
		if (memcmp(a + i * WEFT_HASH_BYTES, b + i * WEFT_HASH_BYTES, WEFT_HASH_BYTES) != 0)
			bits |= UINT64_C(1) << i;
	return bits;
}

static uint32_t leaf_len(const struct chunk *chunk, unsigned leaf)
{
	return (uint32_t)weft_min(LEAF_BYTES, chunk->len - leaf * LEAF_BYTES);
}

/* ---- stages of a chunk ---- */

uint8_t *sync_known_of(const struct sync *s, const struct chunk *chunk)
{
	return s->known + chunk->off / LEAF_BYTES * WEFT_HASH_BYTES;
}

/* The region has what the file had. */
static void note_known(struct sync *s, const struct chunk *chunk)
{
	if (s->known)
		memcpy(sync_known_of(s, chunk), chunk->ours,
			weft_hash_nr_blocks(chunk->len, LEAF_BYTES) * WEFT_HASH_BYTES);
}

static void give_up(struct sync *s, struct chunk *chunk)
{
	chunk->state = CHUNK_FREE;
	s->nr_used--;
}

void sync_chunk_finish(struct sync *s, struct chunk *chunk)
{
	give_up(s, chunk);
	s->done += chunk->len;
}

/* What was moved is to be found there in the end. */
static int note_written(struct sync *s, const struct chunk *chunk)
{
	if (s->nr_written == s->max_written) {
		const size_t max = weft_max(2 * s->max_written, 16);
		struct written *more = reallocarray(s->written, max, sizeof(*more));

		if (!more)
			return -ENOMEM;
		s->written = more;
		s->max_written = max;
	}
	struct written *written = &s->written[s->nr_written++];
	written->off = chunk->off;
	written->len = chunk->len;
	written->leaves = chunk->leaves;
	memcpy(written->hashes, chunk->ours, sizeof(written->hashes));
	return 0;
}

void sync_chunk_want(struct sync *s, struct chunk *chunk, enum chunk_state state)
{
	chunk->state = state;
	chunk->wants = true;
	s->nr_wanting++;
}

static int begin_moves(struct sync *s, struct chunk *chunk)
{
	const bool push = s->config.direction == SYNC_PUSH;
	uint32_t at = 0, off, len;
	int r = 0;

	while (r == 0 && next_run(chunk, &at, &off, &len)) {
		const struct weft_completion completion = completion_of(&chunk->pending);

		s->totals.different += len;
		r = begun(&chunk->pending,
			push ? weft_aio_pwrite(s->config.w, chunk->data + off, len,
				       chunk->off + off, &completion)
			     : weft_aio_pread(s->config.w, chunk->data + off, len,
				       chunk->off + off, &completion));
	}
	return r;
}

static int move(struct sync *s, struct chunk *chunk)
{
	sync_chunk_want(s, chunk, CHUNK_MOVES);
	return s->config.direction == SYNC_PUSH ? note_written(s, chunk) : 0;
}

static void mark_leaf(struct chunk *chunk, unsigned leaf)
{
	const uint32_t nr = weft_hash_nr_blocks(leaf_len(chunk, leaf), BLOCK_BYTES);

	for (uint32_t i = 0; i < nr; i++)
		mark(chunk, leaf * LEAF_BLOCKS + i);
}

/* Asks for hashes of the chunk's leaves that differ. */
static int ask_leaves(struct sync *s, struct chunk *chunk, const struct weft_hashing *hashing,
	uint8_t *ret)
{
	const size_t leaf_bytes = LEAF_BYTES / hashing->block_bytes * WEFT_HASH_BYTES;
	const unsigned gap = hashing == &s->fine ? FINE_GAP_LEAVES : VERIFY_GAP_LEAVES;
	int r = 0;

	for (unsigned first = 0, end; first < CHUNK_LEAVES && r == 0; first = end) {
		end = first + 1;
		if (!(chunk->leaves >> first & 1))
			continue;
		for (unsigned i = end; i < CHUNK_LEAVES && i <= end + gap; i++)
			if (chunk->leaves >> i & 1)
				end = i + 1;
		const uint32_t off = first * LEAF_BYTES;
		r = sync_ask(s, &chunk->pending, hashing, chunk->off + off,
			(uint32_t)weft_min((uint64_t)end * LEAF_BYTES, chunk->len) - off,
			ret + first * leaf_bytes);
	}
	return r;
}

/* What chunks want, all of it in one batch. */
struct batch {
	struct sync *s;
	int r;
};

static void begin_wanted(void *ctx)
{
	struct batch *batch = ctx;
	struct sync *s = batch->s;

	for (unsigned i = 0; i < NR_CHUNKS && batch->r == 0; i++) {
		struct chunk *chunk = &s->chunks[i];

		if (!chunk->wants)
			continue;
		chunk->wants = false;
		s->nr_wanting--;
		if (chunk->state == CHUNK_FINE)
			batch->r = ask_leaves(s, chunk, &s->fine, chunk->fine);
		else if (chunk->state == CHUNK_VERIFY)
			batch->r = ask_leaves(s, chunk, &s->coarse, chunk->theirs);
		else
			batch->r = begin_moves(s, chunk);
	}
}

int sync_begin_wanted(struct sync *s)
{
	struct batch batch = {s, 0};

	library_batch(s->config.w, begin_wanted, &batch);
	return batch.r;
}

static void leave_span(struct chunk *chunk)
{
	if (chunk->span)
		chunk->span->nr_users--;
	chunk->span = NULL;
}

static int on_coarse(struct sync *s, struct chunk *chunk, struct weft_error *err)
{
	const uint8_t *theirs = chunk->span
		? chunk->span->hashes +
			(chunk->off - chunk->span->off) / LEAF_BYTES * WEFT_HASH_BYTES
		: chunk->theirs;

	chunk->leaves = compare(chunk->ours, theirs, weft_hash_nr_blocks(chunk->len, LEAF_BYTES));
	leave_span(chunk);
	s->totals.compared += chunk->len;
	if (chunk->leaves == 0) {
		note_known(s, chunk);
		sync_chunk_finish(s, chunk);
		return 0;
	}
	int r = sync_keep_leaves(s, chunk, err);
	if (r < 0)
		return r;
	if (s->dense == 0) {
		chunk->looked_into = true;
		sync_chunk_want(s, chunk, CHUNK_FINE);
		return 0;
	}
	s->dense--;
	for (unsigned leaf = 0; leaf < CHUNK_LEAVES; leaf++)
		if (chunk->leaves >> leaf & 1)
			mark_leaf(chunk, leaf);
	return move(s, chunk);
}

static int on_fine(struct sync *s, struct chunk *chunk)
{
	uint8_t ours[LEAF_BLOCKS * WEFT_HASH_BYTES];
	unsigned nr_leaves = 0, nr_differ = 0;

	for (unsigned leaf = 0; leaf < CHUNK_LEAVES; leaf++) {
		const uint32_t len = leaf_len(chunk, leaf);
		const unsigned first = leaf * LEAF_BLOCKS;

		if (!(chunk->leaves >> leaf & 1))
			continue;
		weft_hasher_hash_blocks(&s->hasher, BLOCK_BYTES, chunk->data + leaf * LEAF_BYTES,
			len, ours);
		uint64_t bits = compare(ours, chunk->fine + first * WEFT_HASH_BYTES,
			weft_hash_nr_blocks(len, BLOCK_BYTES));
		chunk->blocks[first / 64] |= bits << first % 64;
		nr_leaves++;
		nr_differ += (unsigned)__builtin_popcountll(bits);
	}
	/* Where nearly all differs, another look would cost more than it saves. */
	if (nr_leaves > CHUNK_LEAVES / 2 && nr_differ * 100 >= nr_leaves * LEAF_BLOCKS * 99)
		s->dense = DENSE_CHUNKS;
	return move(s, chunk);
}

/* Whether what came is what was hashed; a writer may have been there in between. */
static void look_at_arrived(struct sync *s, const struct chunk *chunk, uint32_t off, uint32_t len)
{
	uint8_t hash[WEFT_HASH_BYTES];

	for (uint32_t done = 0; done < len; done += BLOCK_BYTES) {
		const uint32_t n = (uint32_t)weft_min(BLOCK_BYTES, len - done);

		weft_hasher_hash(&s->hasher, chunk->data + off + done, n, hash);
		if (memcmp(hash, chunk->fine + (off + done) / BLOCK_BYTES * WEFT_HASH_BYTES,
			    WEFT_HASH_BYTES) != 0)
			s->totals.unsettled += n;
	}
}

static int on_moved(struct sync *s, struct chunk *chunk, struct weft_error *err)
{
	uint32_t at = 0, off, len;
	int r = 0;

	while (s->config.direction == SYNC_PULL && r == 0 && next_run(chunk, &at, &off, &len)) {
		if (chunk->looked_into)
			look_at_arrived(s, chunk, off, len);
		r = sync_write_file(s, chunk->data + off, chunk->off + off, len);
		if (r < 0)
			weft_error_set(err, -r, "cannot write %s: %s", s->config.name,
				strerror(-r));
	}
	note_known(s, chunk);
	sync_chunk_finish(s, chunk);
	return r;
}

static int on_verified(struct sync *s, struct chunk *chunk, struct weft_error *err)
{
	const struct written *w = chunk->written;
	const uint64_t bad = w->leaves &
		compare(w->hashes, chunk->theirs, weft_hash_nr_blocks(w->len, LEAF_BYTES));

	give_up(s, chunk);
	if (!bad)
		return 0;
	return weft_error_set(err, EIO,
		"the donor has something else than what was written, at offset %" PRIu64
		" or behind it",
		w->off + (uint64_t)__builtin_ctzll(bad) * LEAF_BYTES);
}

int sync_chunk_advance(struct sync *s, struct chunk *chunk, struct weft_error *err)
{
	int r = atomic_load(&chunk->pending.error);

	if (r == 0 && chunk->span)
		r = atomic_load(&chunk->span->pending.error);
	if (r == 0 && *s->config.stop && chunk->state != CHUNK_MOVES) {
		leave_span(chunk);
		sync_chunk_finish(s, chunk);
		return 0;
	}
	if (r == 0)
		switch (chunk->state) {
		case CHUNK_COARSE:
			return on_coarse(s, chunk, err);
		case CHUNK_FINE:
			return on_fine(s, chunk);
		case CHUNK_MOVES:
			return on_moved(s, chunk, err);
		case CHUNK_VERIFY:
			return on_verified(s, chunk, err);
		case CHUNK_FREE:
			break;
		}
	return r;
}
