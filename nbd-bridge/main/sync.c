/* SPDX-License-Identifier: MIT */
/*
 * Comparing and moving; see sync.h.
 *
 * Invariants: a chunk is this thread's while nothing of it is in flight (nr_pending).  The end of a
 * command, on whichever thread, notes an error and counts, no more; its result is kept until this
 * thread has taken it, so that weft_aio_poll() never sleeps over an end that nobody has seen.
 */
#include "nbd-bridge/main/sync.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/hashing.h"
#include "nbd-bridge/library/hashes.h"
#include "nbd-bridge/library/weft.h"

enum {
	CHUNK_BYTES = 4 << 20,
	LEAF_BYTES = 64 << 10,
	BLOCK_BYTES = 4 << 10,
	CHUNK_LEAVES = CHUNK_BYTES / LEAF_BYTES, /* 64: bits of a word */
	CHUNK_BLOCKS = CHUNK_BYTES / BLOCK_BYTES,
	LEAF_BLOCKS = LEAF_BYTES / BLOCK_BYTES,  /* 16: bits of a quarter of a word */
	NR_CHUNKS = 24, /* in flight: two round trips of 25 ms at 1.9 GB/s */
	READ_BYTES = 256 << 10, /* read and hashed while the processor's cache has them */
	POLL_MS = 200,
	DENSE_CHUNKS = 7, /* after one in which nearly all differed, so many are not looked into */
	/* equal leaves between two that differ, which are asked for rather than in two questions */
	GAP_LEAVES = 1,
};
_Static_assert(CHUNK_LEAVES == 64, "a word has a bit for each leaf");

enum chunk_state {
	CHUNK_FREE,
	CHUNK_COARSE, /* waits for the hashes of its leaves */
	CHUNK_FINE,   /* waits for those of the blocks of leaves that differ */
	CHUNK_MOVES,  /* waits for blocks to be written, or to come */
	CHUNK_VERIFY, /* waits for the hashes of what was written */
};

struct chunk {
	enum chunk_state state;
	_Atomic unsigned nr_pending;
	_Atomic int error; /* the first */
	uint64_t off;
	uint32_t len;
	bool looked_into;  /* `fine` has the hashes of all blocks that differ */
	uint64_t leaves;   /* that differ, a bit each */
	uint64_t blocks[CHUNK_BLOCKS / 64]; /* the same of blocks */
	const struct written *written;      /* VERIFY */
	uint8_t ours[CHUNK_LEAVES * WEFT_HASH_BYTES], theirs[CHUNK_LEAVES * WEFT_HASH_BYTES];
	uint8_t fine[CHUNK_BLOCKS * WEFT_HASH_BYTES]; /* theirs */
	uint8_t *data;                                /* CHUNK_BYTES: the file's */
};

/* What the donor is to have in the end, of a chunk in which leaves were written. */
struct written {
	uint64_t off, leaves;
	uint32_t len;
	uint8_t hashes[CHUNK_LEAVES * WEFT_HASH_BYTES];
};

struct sync {
	struct sync_config config;
	struct weft_hasher hasher;
	struct weft_hashing coarse, fine;
	struct sync_totals totals;
	uint64_t size_bytes;         /* of the region */
	uint64_t next_off, done;     /* of this pass */
	bool ended;                  /* the stream has */
	unsigned dense;              /* chunks that are not looked into, from now on */
	unsigned nr_used;            /* chunks that are not free */
	struct written *written;     /* of this pass, in order of nothing */
	size_t nr_written, max_written, next_verify;
	uint8_t *data;
	struct chunk chunks[NR_CHUNKS];
};

/* ---- commands ---- */

static int command_ended(void *user, int error)
{
	struct chunk *chunk = user;
	int none = 0;

	if (error < 0)
		atomic_compare_exchange_strong(&chunk->error, &none, error);
	atomic_fetch_sub(&chunk->nr_pending, 1);
	return 0;
}

static struct weft_completion completion_of(struct chunk *chunk)
{
	atomic_fetch_add(&chunk->nr_pending, 1);
	return (struct weft_completion){.fn = command_ended, .user = chunk};
}

/* A command that did not begin has ended. */
static int begun(struct chunk *chunk, int64_t cookie)
{
	if (cookie >= 0)
		return 0;
	atomic_fetch_sub(&chunk->nr_pending, 1);
	return (int)cookie;
}

static int ask(struct sync *s, struct chunk *chunk, const struct weft_hashing *hashing,
	uint32_t off, uint32_t len, uint8_t *ret)
{
	const struct weft_completion completion = completion_of(chunk);

	s->totals.hashes += (uint64_t)weft_hash_nr_blocks(len, hashing->block_bytes) *
		WEFT_HASH_BYTES;
	return begun(chunk,
		library_aio_hash(s->config.w, hashing, chunk->off + off, len, ret, &completion));
}

/* Takes the results of what has ended; what they were is noted already. */
static void take_results(struct sync *s)
{
	int64_t cookie;

	weft_aio_poll(s->config.w, 0);
	while ((cookie = weft_aio_next(s->config.w)) > 0)
		weft_aio_result(s->config.w, cookie);
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

static void finish(struct sync *s, struct chunk *chunk)
{
	chunk->state = CHUNK_FREE;
	s->nr_used--;
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

/* Commands of a chunk, which are sent together. */
struct batch {
	struct sync *s;
	struct chunk *chunk;
	int r;
};

static int in_a_batch(struct sync *s, struct chunk *chunk, void (*fn)(void *ctx))
{
	struct batch batch = {s, chunk, 0};

	library_batch(s->config.w, fn, &batch);
	return batch.r;
}

static void begin_moves(void *ctx)
{
	struct batch *batch = ctx;
	struct sync *s = batch->s;
	struct chunk *chunk = batch->chunk;
	const bool push = s->config.direction == SYNC_PUSH;
	uint32_t at = 0, off, len;
	int r = 0;

	while (r == 0 && next_run(chunk, &at, &off, &len)) {
		const struct weft_completion completion = completion_of(chunk);

		s->totals.different += len;
		r = begun(chunk, push ? weft_aio_pwrite(s->config.w, chunk->data + off, len,
						chunk->off + off, &completion)
				      : weft_aio_pread(s->config.w, chunk->data + off, len,
						chunk->off + off, &completion));
	}
	batch->r = r;
}

static int move(struct sync *s, struct chunk *chunk)
{
	int r = s->config.direction == SYNC_PUSH ? note_written(s, chunk) : 0;

	chunk->state = CHUNK_MOVES;
	return r < 0 ? r : in_a_batch(s, chunk, begin_moves);
}

static void mark_leaf(struct chunk *chunk, unsigned leaf)
{
	const uint32_t nr = weft_hash_nr_blocks(leaf_len(chunk, leaf), BLOCK_BYTES);

	for (uint32_t i = 0; i < nr; i++)
		mark(chunk, leaf * LEAF_BLOCKS + i);
}

static void begin_fine(void *ctx)
{
	struct batch *batch = ctx;
	struct sync *s = batch->s;
	struct chunk *chunk = batch->chunk;
	int r = 0;

	for (unsigned first = 0, end; first < CHUNK_LEAVES && r == 0; first = end) {
		end = first + 1;
		if (!(chunk->leaves >> first & 1))
			continue;
		for (unsigned i = end; i < CHUNK_LEAVES && i <= end + GAP_LEAVES; i++)
			if (chunk->leaves >> i & 1)
				end = i + 1;
		const uint32_t off = first * LEAF_BYTES;
		r = ask(s, chunk, &s->fine, off,
			(uint32_t)weft_min((uint64_t)end * LEAF_BYTES, chunk->len) - off,
			chunk->fine + first * LEAF_BLOCKS * WEFT_HASH_BYTES);
	}
	batch->r = r;
}

/* Asks for the blocks of leaves that differ. */
static int look_into(struct sync *s, struct chunk *chunk)
{
	chunk->state = CHUNK_FINE;
	chunk->looked_into = true;
	return in_a_batch(s, chunk, begin_fine);
}

static int on_coarse(struct sync *s, struct chunk *chunk)
{
	chunk->leaves =
		compare(chunk->ours, chunk->theirs, weft_hash_nr_blocks(chunk->len, LEAF_BYTES));
	s->totals.compared += chunk->len;
	if (chunk->leaves == 0) {
		finish(s, chunk);
		return 0;
	}
	if (s->dense == 0)
		return look_into(s, chunk);
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

static int write_file(const struct sync *s, const uint8_t *data, uint64_t off, uint32_t len)
{
	while (len > 0) {
		ssize_t n = pwrite(s->config.fd, data, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		data += n;
		off += (uint64_t)n;
		len -= (uint32_t)n;
	}
	return 0;
}

static int on_moved(struct sync *s, struct chunk *chunk, struct weft_error *err)
{
	uint32_t at = 0, off, len;
	int r = 0;

	while (s->config.direction == SYNC_PULL && r == 0 && next_run(chunk, &at, &off, &len)) {
		if (chunk->looked_into)
			look_at_arrived(s, chunk, off, len);
		r = write_file(s, chunk->data + off, chunk->off + off, len);
		if (r < 0)
			weft_error_set(err, -r, "cannot write %s: %s", s->config.name,
				strerror(-r));
	}
	finish(s, chunk);
	return r;
}

static int on_verified(struct sync *s, struct chunk *chunk, struct weft_error *err)
{
	const struct written *w = chunk->written;
	const uint64_t bad = w->leaves &
		compare(w->hashes, chunk->theirs, weft_hash_nr_blocks(w->len, LEAF_BYTES));

	finish(s, chunk);
	if (!bad)
		return 0;
	return weft_error_set(err, EIO,
		"the donor has something else than what was written, at offset %" PRIu64
		" or behind it",
		w->off + (uint64_t)__builtin_ctzll(bad) * LEAF_BYTES);
}

static int advance(struct sync *s, struct chunk *chunk, struct weft_error *err)
{
	int r = atomic_load(&chunk->error);

	if (r == 0 && *s->config.stop && chunk->state != CHUNK_MOVES) {
		finish(s, chunk);
		return 0;
	}
	if (r == 0)
		switch (chunk->state) {
		case CHUNK_COARSE:
			return on_coarse(s, chunk);
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

/* ---- beginning a chunk ---- */

/* Reads up to len bytes at off of the file, or the next ones of a stream: fewer at its end. */
static ssize_t read_file(const struct sync *s, uint8_t *to, size_t len, uint64_t off)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = s->config.stream
			? read(s->config.fd, to + done, len - done)
			: pread(s->config.fd, to + done, len - done, (off_t)(off + done));

		if (n < 0 && errno == EINTR && !*s->config.stop)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

/* Reads the chunk and hashes its leaves.  ret: how many bytes there were. */
static int load(struct sync *s, struct chunk *chunk, uint32_t want, uint32_t *ret,
	struct weft_error *err)
{
	for (*ret = 0; *ret < want;) {
		const uint32_t n = (uint32_t)weft_min(READ_BYTES, want - *ret);
		ssize_t got = read_file(s, chunk->data + *ret, n, chunk->off + *ret);

		if (got == -EINTR)
			return -EINTR;
		if (got < 0)
			return weft_error_set(err, (int)-got, "cannot read %s: %s",
				s->config.name, strerror((int)-got));
		if (s->config.direction == SYNC_PULL && got < (ssize_t)n) {
			/* The region is longer than the file yet. */
			memset(chunk->data + *ret + got, 0, n - (size_t)got);
			got = n;
		}
		weft_hasher_hash_blocks(&s->hasher, LEAF_BYTES, chunk->data + *ret, (size_t)got,
			chunk->ours + *ret / LEAF_BYTES * WEFT_HASH_BYTES);
		*ret += (uint32_t)got;
		if (got < (ssize_t)n)
			break;
	}
	return 0;
}

static void use(struct sync *s, struct chunk *chunk, enum chunk_state state, uint64_t off)
{
	chunk->state = state;
	chunk->error = 0;
	chunk->off = off;
	chunk->looked_into = false;
	memset(chunk->blocks, 0, sizeof(chunk->blocks));
	s->nr_used++;
}

/* Of a file the donor hashes while we do. */
static int begin_file(struct sync *s, struct chunk *chunk, struct weft_error *err)
{
	uint32_t got;

	chunk->len = (uint32_t)weft_min(CHUNK_BYTES, s->config.len - chunk->off);
	int r = ask(s, chunk, &s->coarse, 0, chunk->len, chunk->theirs);
	if (r == 0)
		r = load(s, chunk, chunk->len, &got, err);
	if (r == 0 && got < chunk->len)
		r = weft_error_set(err, EIO, "%s became shorter meanwhile", s->config.name);
	return r;
}

/* Of a stream nobody knows how much there is to hash before it was read. */
static int begin_stream(struct sync *s, struct chunk *chunk, struct weft_error *err)
{
	int r = load(s, chunk, CHUNK_BYTES, &chunk->len, err);

	if (r < 0)
		return r;
	s->ended = chunk->len < CHUNK_BYTES;
	if (chunk->len > s->size_bytes - chunk->off)
		return weft_error_set(err, ENOSPC, "%s is longer than the region, which has %"
			PRIu64 " bytes", s->config.name, s->size_bytes);
	if (chunk->len == 0) {
		finish(s, chunk);
		return 0;
	}
	return ask(s, chunk, &s->coarse, 0, chunk->len, chunk->theirs);
}

static int begin(struct sync *s, struct chunk *chunk, struct weft_error *err)
{
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
	return ask(s, chunk, &s->coarse, 0, written->len, chunk->theirs);
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

static struct chunk *find_free(struct sync *s)
{
	for (unsigned i = 0; i < NR_CHUNKS; i++)
		if (s->chunks[i].state == CHUNK_FREE)
			return &s->chunks[i];
	return NULL;
}

/* Moves on what can go on.  1: something did; 0; or -errno. */
static int advance_all(struct sync *s, struct weft_error *err)
{
	bool moved = false;
	int r = 0;

	for (unsigned i = 0; i < NR_CHUNKS && r == 0; i++) {
		struct chunk *chunk = &s->chunks[i];

		if (chunk->state == CHUNK_FREE || atomic_load(&chunk->nr_pending) > 0)
			continue;
		r = advance(s, chunk, err);
		moved = true;
	}
	return r < 0 ? r : moved;
}

/* After an error the buffers are needed until nothing is in flight. */
static void drain(struct sync *s)
{
	for (unsigned i = 0; i < NR_CHUNKS; i++) {
		while (atomic_load(&s->chunks[i].nr_pending) > 0) {
			weft_aio_poll(s->config.w, POLL_MS);
			take_results(s);
		}
		s->chunks[i].state = CHUNK_FREE;
	}
	take_results(s);
	s->nr_used = 0;
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
		if (chunk)
			r = begin_one(s, chunk, err);
		else if (r == 0)
			weft_aio_poll(s->config.w, POLL_MS);
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
	return explain(run(s, has_more, begin, err), err);
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
			"one, or the transport is not TCP");
	s = calloc(1, sizeof(*s));
	if (s)
		s->data = malloc((size_t)NR_CHUNKS * CHUNK_BYTES);
	if (!s || !s->data) {
		free(s);
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
	free(s->written);
	free(s->data);
	free(s);
}
