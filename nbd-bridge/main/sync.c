/* SPDX-License-Identifier: MIT */
/* Comparing and moving: passes over a file, chunk by chunk; see sync.h and sync-private.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "nbd-bridge/library/hashes.h"
#include "nbd-bridge/library/weft.h"
#include "nbd-bridge/main/sync-private.h"

/* ---- beginning a chunk ---- */

static void use(struct sync *s, struct chunk *chunk, enum chunk_state state, uint64_t off)
{
	chunk->state = state;
	chunk->pending.error = 0;
	chunk->wants = false;
	chunk->span = NULL;
	chunk->off = off;
	chunk->looked_into = false;
	memset(chunk->blocks, 0, sizeof(chunk->blocks));
	s->nr_used++;
}

static void take_known(const struct sync *s, struct chunk *chunk)
{
	memcpy(chunk->theirs, sync_known_of(s, chunk),
		weft_hash_nr_blocks(chunk->len, LEAF_BYTES) * WEFT_HASH_BYTES);
}

static struct span *span_at(struct sync *s, uint64_t off)
{
	return &s->spans[off / SPAN_BYTES % NR_SPANS];
}

/* Asks for the hashes of the span that begins at off.  0; -EAGAIN: its place is taken. */
static int ask_span(struct sync *s, uint64_t off)
{
	struct span *span = span_at(s, off);

	if (span->asked && span->off == off)
		return 0;
	if (span->nr_users > 0 || atomic_load(&span->pending.nr) > 0)
		return -EAGAIN;
	span->asked = true;
	span->off = off;
	span->pending.error = 0;
	return sync_ask(s, &span->pending, &s->coarse, off,
		(uint32_t)weft_min(SPAN_BYTES, s->config.len - off), span->hashes);
}

/* The donor is some spans ahead, so that nobody waits for the line.  As ask_span(). */
static int ask_ahead(struct sync *s)
{
	uint64_t off = s->next_off - s->next_off % SPAN_BYTES;
	int r = ask_span(s, off), ahead = r;

	for (unsigned i = 0; i < AHEAD && ahead == 0; i++) {
		off += SPAN_BYTES;
		ahead = off < s->config.len ? ask_span(s, off) : -EAGAIN;
	}
	return ahead == -EAGAIN ? r : ahead;
}

static void join_span(struct sync *s, struct chunk *chunk)
{
	chunk->span = span_at(s, chunk->off);
	chunk->span->nr_users++;
}

/* Of a file the donor hashes while we do. */
static int begin_file(struct sync *s, struct chunk *chunk, struct weft_error *err)
{
	uint32_t got;

	chunk->len = (uint32_t)weft_min(CHUNK_BYTES, s->config.len - chunk->off);
	if (s->has_known)
		take_known(s, chunk);
	else
		join_span(s, chunk);
	int r = sync_load(s, chunk, chunk->len, s->dense > 0, &got, err);
	return r == 0 && got < chunk->len ? sync_file_is_short(s, err) : r;
}

/* Of a stream nobody knows how much there is to hash before it was read. */
static int begin_stream(struct sync *s, struct chunk *chunk, struct weft_error *err)
{
	int r = sync_load(s, chunk, CHUNK_BYTES, true, &chunk->len, err);

	if (r < 0)
		return r;
	s->ended = chunk->len < CHUNK_BYTES;
	if (chunk->len > s->size_bytes - chunk->off)
		return weft_error_set(err, ENOSPC, "%s is longer than the region, which has %"
			PRIu64 " bytes", s->config.name, s->size_bytes);
	if (chunk->len == 0) {
		sync_chunk_finish(s, chunk);
		return 0;
	}
	return sync_ask(s, &chunk->pending, &s->coarse, chunk->off, chunk->len, chunk->theirs);
}

/* 0; -EAGAIN: later; or another -errno. */
static int begin(struct sync *s, struct chunk *chunk, struct weft_error *err)
{
	int r = s->config.stream || s->has_known ? 0 : ask_ahead(s);

	if (r < 0)
		return r;
	use(s, chunk, CHUNK_COARSE, s->next_off);
	s->next_off += CHUNK_BYTES;
	return s->config.stream ? begin_stream(s, chunk, err) : begin_file(s, chunk, err);
}

static int begin_verify(struct sync *s, struct chunk *chunk, struct weft_error *err)
{
	const struct written *written = &s->written[s->next_verify++];

	use(s, chunk, CHUNK_VERIFY, written->off);
	chunk->len = written->len;
	chunk->written = written;
	chunk->leaves = written->leaves;
	sync_chunk_want(s, chunk, CHUNK_VERIFY);
	return 0;
}

static bool has_more(const struct sync *s)
{
	return s->config.stream ? !s->ended : s->next_off < s->config.len;
}

static bool has_more_to_verify(const struct sync *s)
{
	return s->next_verify < s->nr_written;
}

/* ---- a pass ---- */

/* Takes the results of what has ended; what they were is noted already. */
static void take_results(struct sync *s)
{
	int64_t cookie;

	weft_aio_poll(s->config.w, 0);
	while ((cookie = weft_aio_next(s->config.w)) > 0)
		weft_aio_result(s->config.w, cookie);
}

static struct chunk *find_free(struct sync *s)
{
	for (unsigned i = 0; i < NR_CHUNKS; i++)
		if (s->chunks[i].state == CHUNK_FREE)
			return &s->chunks[i];
	return NULL;
}

static bool can_go_on(const struct chunk *chunk)
{
	return chunk->state != CHUNK_FREE && !chunk->wants &&
		atomic_load(&chunk->pending.nr) == 0 &&
		!(chunk->span && atomic_load(&chunk->span->pending.nr) > 0);
}

/* Moves on what can go on.  1: something did; 0; or -errno. */
static int advance_all(struct sync *s, struct weft_error *err)
{
	bool moved = false;
	int r = 0;

	for (unsigned i = 0; i < NR_CHUNKS && r == 0; i++) {
		struct chunk *chunk = &s->chunks[i];

		if (!can_go_on(chunk))
			continue;
		r = sync_chunk_advance(s, chunk, err);
		moved = true;
	}
	return r < 0 ? r : moved;
}

static void await(struct sync *s, struct pending *pending)
{
	while (atomic_load(&pending->nr) > 0) {
		weft_aio_poll(s->config.w, POLL_MS);
		take_results(s);
	}
}

/* After an error the buffers are needed until nothing is in flight. */
static void drain(struct sync *s)
{
	for (unsigned i = 0; i < NR_CHUNKS; i++) {
		await(s, &s->chunks[i].pending);
		s->chunks[i].state = CHUNK_FREE;
		s->chunks[i].wants = false;
	}
	for (unsigned i = 0; i < NR_SPANS; i++) {
		await(s, &s->spans[i].pending);
		s->spans[i].nr_users = 0;
		s->spans[i].asked = false;
	}
	take_results(s);
	s->nr_used = s->nr_wanting = 0;
}

static int run(struct sync *s, bool (*more)(const struct sync *s),
	int (*begin_one)(struct sync *s, struct chunk *chunk, struct weft_error *err),
	struct weft_error *err)
{
	int r = 0;

	while (r >= 0 && (s->nr_used > 0 || (more(s) && !*s->config.stop))) {
		take_results(s);
		r = advance_all(s, err);
		if (r < 0)
			break;
		struct chunk *chunk = more(s) && !*s->config.stop ? find_free(s) : NULL;
		/* Reading a stream may take long. */
		const bool now = !chunk || s->config.stream;
		bool moved = r > 0 || chunk || s->nr_wanting > 0;
		r = 0;
		if (s->nr_wanting >= (now ? 1 : TOGETHER))
			r = sync_begin_wanted(s);
		if (r == 0 && chunk)
			r = begin_one(s, chunk, err);
		/* Nothing waits for more that could be sent with it. */
		if (r == -EAGAIN && s->nr_wanting > 0) {
			r = sync_begin_wanted(s);
		} else if (r == -EAGAIN || (r == 0 && !moved)) {
			weft_aio_poll(s->config.w, POLL_MS);
			r = 0;
		}
		if (s->config.progress)
			s->config.progress(s->config.ctx, s->done);
	}
	drain(s);
	return r < 0 ? r : *s->config.stop ? -EINTR : 0;
}

/* What a command's error means, unless somebody has said more already. */
static int explain(int r, struct weft_error *err)
{
	if (r >= 0 || r == -EINTR || err->code == -r)
		return r;
	return weft_error_set(err, -r, "%s",
		r == -ESTALE ? "the region's contents are gone, or somebody took the region over"
		: r == -EOPNOTSUPP ? "the donor does not hash blocks: it runs an older weft"
		: r == -ENOTCONN || r == -ETIMEDOUT ? "the donor is gone" : strerror(-r));
}

int sync_pass(struct sync *s, struct weft_error *err)
{
	s->next_off = s->done = 0;
	s->ended = false;
	s->nr_written = s->next_verify = 0;
	s->totals.unsettled = 0;
	int r = explain(run(s, has_more, begin, err), err);
	s->has_known = r == 0 && s->known;
	return r;
}

int sync_verify(struct sync *s, struct weft_error *err)
{
	s->next_verify = 0;
	return explain(run(s, has_more_to_verify, begin_verify, err), err);
}

const struct sync_totals *sync_totals(const struct sync *s)
{
	return &s->totals;
}

int sync_new(const struct sync_config *config, struct sync **ret, struct weft_error *err)
{
	struct sync *s;

	if (!library_can_hash(config->w, LEAF_BYTES))
		return weft_error_set(err, EOPNOTSUPP,
			"blocks are not hashed there: the server is no weft donor or an older "
			"one, or the transport cannot ask for hashes");
	s = calloc(1, sizeof(*s));
	if (s)
		s->data = malloc((size_t)NR_CHUNKS * CHUNK_BYTES);
	if (s && config->again)
		s->known = malloc((size_t)weft_hash_nr_blocks(config->len, LEAF_BYTES) *
			WEFT_HASH_BYTES + 1);
	if (!s || !s->data || (config->again && !s->known)) {
		sync_free(s);
		return weft_error_set(err, ENOMEM, "out of memory");
	}
	s->config = *config;
	s->size_bytes = weft_size(config->w);
	for (size_t i = 0; i < NR_CHUNKS; i++)
		s->chunks[i].data = s->data + i * CHUNK_BYTES;
	weft_random(s->coarse.key, sizeof(s->coarse.key));
	s->fine = s->coarse;
	s->coarse.block_bytes = LEAF_BYTES;
	s->fine.block_bytes = BLOCK_BYTES;
	int r = weft_hasher_set(&s->hasher, s->coarse.key);
	if (r < 0) {
		sync_free(s);
		return weft_error_set(err, -r, "cannot make a key to hash under");
	}
	*ret = s;
	return 0;
}

void sync_free(struct sync *s)
{
	if (!s)
		return;
	free(s->known);
	free(s->written);
	free(s->data);
	free(s);
}
