/* SPDX-License-Identifier: MIT */
#include "fabric/move/pull.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/driver.h"

enum {
	BITS = 64,
	HASHES_BYTES = PULL_CHUNKS * WEFT_HASH_BYTES,
	CONNECT_MS = 5000,
	SILENT_MS = 10000, /* nothing comes for so long: the connection is lost */
};

static bool has(const uint64_t *bits, uint64_t i)
{
	return bits[i / BITS] >> i % BITS & 1;
}

static void set(uint64_t *bits, uint64_t i)
{
	bits[i / BITS] |= UINT64_C(1) << i % BITS;
}

static void clear(uint64_t *bits, uint64_t i)
{
	bits[i / BITS] &= ~(UINT64_C(1) << i % BITS);
}

int pull_init(struct pull *pull, struct weft_region *region, int cancel_fd, struct weft_error *err)
{
	*pull = (struct pull){.region = region, .cancel_fd = cancel_fd};
	pull->nr_chunks = weft_region_nr_chunks(region);
	pull->nr_words = (pull->nr_chunks + BITS - 1) / BITS;
	pull->dirty = calloc(pull->nr_words, sizeof(*pull->dirty));
	pull->bad = calloc(pull->nr_words, sizeof(*pull->bad));
	pull->strikes = calloc(pull->nr_chunks, 1);
	uint8_t *hashes = aligned_alloc(4096, weft_whole_pages(PULL_DEPTH * HASHES_BYTES));
	pull->slots[0].hashes = hashes;
	if (!pull->dirty || !pull->bad || !pull->strikes || !hashes)
		return weft_error_set(err, ENOMEM, "no memory");
	for (unsigned i = 0; i < PULL_DEPTH; i++)
		pull->slots[i].hashes = hashes + i * HASHES_BYTES;
	for (uint64_t i = 0; i < pull->nr_chunks; i++)
		set(pull->dirty, i);
	pull->hashing.block_bytes = WEFT_CHUNK_BYTES;
	weft_random(pull->hashing.key, sizeof(pull->hashing.key));
	return weft_hasher_set(&pull->hasher, pull->hashing.key);
}

void pull_disconnect(struct pull *pull)
{
	struct tp_op *done[2 * PULL_DEPTH];

	if (pull->conn) {
		tp_shutdown(pull->conn);
		while (pull->conn->nr_outstanding > 0)
			tp_progress(pull->conn, done, WEFT_ARRAY_LEN(done));
		tp_disconnect(pull->conn);
		pull->conn = NULL;
	}
	tp_deregister(pull->mem);
	tp_deregister(pull->hash_mem);
	pull->mem = pull->hash_mem = NULL;
	tp_close(pull->tp);
	pull->tp = NULL;
	for (unsigned i = 0; i < PULL_DEPTH; i++)
		pull->slots[i].nr_pending = 0;
}

void pull_fini(struct pull *pull)
{
	pull_disconnect(pull);
	free(pull->dirty);
	free(pull->bad);
	free(pull->strikes);
	free(pull->slots[0].hashes);
	explicit_bzero(&pull->hasher, sizeof(pull->hasher));
}

/* Until the connection has something to do, or ms are over.  0, or -ECANCELED, -ETIMEDOUT. */
static int wait(struct pull *pull, int ms)
{
	int events = tp_arm(pull->conn);
	struct pollfd fds[2] = {
		{.fd = pull->cancel_fd, .events = POLLIN},
		{.fd = tp_event_fd(pull->conn), .events = (short)events},
	};

	if (events == 0)
		ms = 0;
	int n = poll(fds, 2, ms);
	if (fds[0].revents)
		return -ECANCELED;
	return n == 0 && events != 0 ? -ETIMEDOUT : 0;
}

static int register_memory(struct pull *pull, struct weft_error *err)
{
	int r = tp_register(pull->tp, pull->region->map, pull->region->size_bytes, &pull->mem, err);

	return r < 0 ? r
		     : tp_register(pull->tp, pull->slots[0].hashes,
			       weft_whole_pages(PULL_DEPTH * HASHES_BYTES), &pull->hash_mem, err);
}

static int check_grant(const struct pull *pull, struct weft_error *err)
{
	const struct tp_info *info = &pull->conn->info;

	if (info->size_bytes != pull->region->size_bytes)
		return weft_error_set(err, EINVAL, "the region has another size than it had");
	if (info->max_hash_blocks < PULL_CHUNKS ||
		info->max_io_bytes < PULL_CHUNKS * WEFT_CHUNK_BYTES)
		return weft_error_set(err, EOPNOTSUPP,
			"the donor that has the region hashes no blocks, or too few; upgrade it");
	return 0;
}

int pull_connect(struct pull *pull, const struct weft_uri *uri, const struct weft_key *key,
	const char *certificates, const uint8_t id[WEFT_ID_BYTES], uint64_t epoch,
	struct weft_error *err)
{
	struct tp_target target = {
		.host = uri->host,
		.port = uri->port,
		.region = uri->region,
		.key = key,
		.certificates = certificates,
		.connect_timeout_ms = CONNECT_MS,
		.dead_ms = SILENT_MS,
		.hello = {.generation = UINT64_C(1) << 32,
			.mode = WEFT_MODE_SHARED,
			.name = "weft-move",
			.expect = epoch},
	};
	uint64_t deadline_ns = weft_now_ns() + CONNECT_MS * UINT64_C(1000000);

	pull_disconnect(pull);
	memcpy(target.hello.id, id, WEFT_ID_BYTES);
	int r = tp_open(tp_base_driver()->ops, NULL, &pull->tp, err);
	if (r == 0)
		r = register_memory(pull, err);
	if (r == 0)
		r = tp_connect(pull->tp, &target, &pull->conn, err);
	if (r < 0) {
		pull->conn = NULL;
		return r;
	}
	while (tp_state(pull->conn) == TP_CONNECTING) {
		struct tp_op *none[1];

		if (wait(pull, 100) == -ECANCELED)
			return weft_error_set(err, ECANCELED, "aborted");
		tp_progress(pull->conn, none, 1);
		if (weft_now_ns() > deadline_ns)
			return weft_error_set(err, ETIMEDOUT, "%s does not answer", uri->host);
	}
	if (tp_state(pull->conn) == TP_READY)
		return check_grant(pull, err);
	*err = pull->conn->why;
	return pull->conn->error;
}

uint64_t pull_nr_dirty(const struct pull *pull)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < pull->nr_words; i++)
		n += (uint64_t)__builtin_popcountll(pull->dirty[i]);
	return n;
}

uint64_t pull_dirty_bytes(const struct pull *pull)
{
	return weft_min(pull_nr_dirty(pull) * WEFT_CHUNK_BYTES, pull->region->size_bytes);
}

/* ---- a round ---- */

struct round {
	struct pull *pull;
	bool only_compares;
	uint64_t *todo; /* dirty, or all that are left to compare */
	uint64_t at;
	unsigned nr_busy;
};

static uint64_t len_of(const struct pull *pull, uint64_t first, unsigned nr)
{
	uint64_t off = first * WEFT_CHUNK_BYTES;

	return weft_min((uint64_t)nr * WEFT_CHUNK_BYTES, pull->region->size_bytes - off);
}

/* The next run of chunks to do; false: there are none. */
static bool next_run(struct round *round, uint64_t *ret_first, unsigned *ret_nr)
{
	const struct pull *pull = round->pull;
	uint64_t i = round->at;
	unsigned nr = 0;

	while (i < pull->nr_chunks && !has(round->todo, i))
		i += round->todo[i / BITS] >> i % BITS == 0 ? BITS - i % BITS : 1;
	if (i >= pull->nr_chunks)
		return false;
	*ret_first = i;
	for (; nr < PULL_CHUNKS && i < pull->nr_chunks && has(round->todo, i); nr++, i++)
		clear(round->todo, i);
	*ret_nr = nr;
	round->at = i;
	return true;
}

/* Nanoseconds until the bandwidth allows another READ; 0: now. */
static uint64_t held_back_ns(struct pull *pull, uint64_t len)
{
	uint64_t now_ns = weft_now_ns();

	if (!pull->bandwidth)
		return 0;
	if (pull->free_ns > now_ns)
		return pull->free_ns - now_ns;
	pull->free_ns = weft_max(pull->free_ns, now_ns - weft_min(now_ns, 10000000)) +
		len * 1000000000u / pull->bandwidth;
	return 0;
}

static int post(struct round *round, struct pull_slot *slot, uint64_t first, unsigned nr)
{
	struct pull *pull = round->pull;
	const uint64_t off = first * WEFT_CHUNK_BYTES, len = len_of(pull, first, nr);
	struct tp_op *ops[2], *hash = &slot->hash;
	unsigned n = 0, posted = 0;

	slot->read = (struct tp_op){.kind = TP_READ,
		.off = off,
		.len = len,
		.buf = pull->region->map + off,
		.mem = pull->mem,
		.user = slot};
	*hash = (struct tp_op){.kind = TP_HASH,
		.off = off,
		.len = len,
		.buf = slot->hashes,
		.mem = pull->hash_mem,
		.hashing = &pull->hashing,
		.user = slot};
	slot->first = first;
	slot->nr = nr;
	slot->status = 0;
	if (!round->only_compares)
		ops[n++] = &slot->read;
	ops[n++] = hash;
	slot->nr_pending = n;
	round->nr_busy++;
	while (posted < n) {
		int r = tp_post(pull->conn, ops + posted, n - posted);

		if (r < 0) {
			/* The depth is far below what every transport takes. */
			slot->status = r == -EAGAIN ? -EIO : r;
			slot->nr_pending -= n - posted;
			break;
		}
		posted += (unsigned)r;
	}
	return slot->status;
}

static void finish_slot(struct round *round, struct pull_slot *slot)
{
	struct pull *pull = round->pull;
	uint8_t hashes[HASHES_BYTES];
	const uint64_t off = slot->first * WEFT_CHUNK_BYTES,
		       len = len_of(pull, slot->first, slot->nr);

	round->nr_busy--;
	if (slot->status < 0) {
		for (unsigned i = 0; i < slot->nr; i++)
			set(pull->dirty, slot->first + i);
		return;
	}
	weft_hasher_hash_blocks(&pull->hasher, WEFT_CHUNK_BYTES, pull->region->map + off, len,
		hashes);
	for (unsigned i = 0; i < slot->nr; i++)
		if (memcmp(hashes + i * WEFT_HASH_BYTES, slot->hashes + i * WEFT_HASH_BYTES,
			    WEFT_HASH_BYTES) != 0)
			set(round->only_compares ? pull->dirty : pull->bad, slot->first + i);
	if (!round->only_compares)
		atomic_fetch_add(&pull->copied_bytes, len);
	atomic_fetch_add(&pull->checked_bytes, len);
}

static struct pull_slot *free_slot(struct pull *pull)
{
	for (unsigned i = 0; i < PULL_DEPTH; i++)
		if (pull->slots[i].nr_pending == 0)
			return &pull->slots[i];
	return NULL;
}

/* Posts what may leave now.  0, or -errno; *ret_wait_ms: until more may. */
static int fill(struct round *round, int *ret_wait_ms)
{
	struct pull *pull = round->pull;
	struct pull_slot *slot;
	uint64_t first;
	unsigned nr;

	*ret_wait_ms = SILENT_MS;
	while ((slot = free_slot(pull)) != NULL) {
		uint64_t ns = round->only_compares
			? 0
			: held_back_ns(pull, PULL_CHUNKS * WEFT_CHUNK_BYTES);

		if (ns > 0) {
			*ret_wait_ms = (int)(ns / 1000000) + 1;
			return 0;
		}
		if (!next_run(round, &first, &nr))
			return 0;
		int r = post(round, slot, first, nr);
		if (r < 0 && slot->nr_pending == 0)
			finish_slot(round, slot);
		if (r < 0)
			return r;
	}
	return 0;
}

static void take_done(struct round *round)
{
	struct tp_op *done[2 * PULL_DEPTH];
	int n;

	while ((n = tp_progress(round->pull->conn, done, WEFT_ARRAY_LEN(done))) > 0)
		for (int i = 0; i < n; i++) {
			struct pull_slot *slot = done[i]->user;

			if (done[i]->status < 0)
				slot->status = done[i]->status;
			if (--slot->nr_pending == 0)
				finish_slot(round, slot);
		}
}

/* All that is in flight comes back; what was not done is dirty again. */
static void give_up(struct round *round)
{
	struct pull *pull = round->pull;

	tp_shutdown(pull->conn);
	while (round->nr_busy > 0)
		take_done(round);
	for (uint64_t i = round->at; i < pull->nr_chunks; i++)
		if (has(round->todo, i))
			set(pull->dirty, i);
}

static int run(struct round *round, struct weft_error *err)
{
	struct pull *pull = round->pull;
	uint64_t seen_ns = weft_now_ns(), first;
	int wait_ms, r = 0;

	for (;;) {
		unsigned nr, busy = round->nr_busy;

		r = fill(round, &wait_ms);
		take_done(round);
		if (r == 0 && tp_state(pull->conn) != TP_READY) {
			*err = pull->conn->why;
			r = pull->conn->error;
		} else if (r < 0) {
			weft_error_set(err, -r, "cannot read the region: %s", strerror(-r));
		}
		if (r < 0)
			break;
		if (round->nr_busy < busy)
			seen_ns = weft_now_ns();
		if (round->nr_busy == 0) {
			uint64_t at = round->at;
			bool more = next_run(round, &first, &nr);

			if (!more)
				return 0;
			/* It was only a look. */
			for (unsigned i = 0; i < nr; i++)
				set(round->todo, first + i);
			round->at = at;
		}
		r = wait(pull, (int)weft_min((uint64_t)wait_ms, 100));
		if (r == -ECANCELED) {
			weft_error_set(err, ECANCELED, "aborted");
			break;
		}
		if (round->nr_busy > 0 && weft_now_ns() - seen_ns > SILENT_MS * UINT64_C(1000000)) {
			r = weft_error_set(err, ETIMEDOUT, "no answer for %d s", SILENT_MS / 1000);
			break;
		}
	}
	give_up(round);
	return r;
}

/* Takes over todo, which is NULL without memory. */
static int run_all(struct pull *pull, bool only_compares, uint64_t *todo, struct weft_error *err)
{
	struct round round = {.pull = pull, .only_compares = only_compares, .todo = todo};

	if (!todo)
		return weft_error_set(err, ENOMEM, "no memory");
	memset(pull->dirty, 0, pull->nr_words * sizeof(*todo));
	memset(pull->bad, 0, pull->nr_words * sizeof(*todo));
	int r = run(&round, err);
	free(todo);
	return r;
}

int pull_round(struct pull *pull, struct weft_error *err)
{
	uint64_t *todo = calloc(pull->nr_words, sizeof(*todo));

	if (todo)
		memcpy(todo, pull->dirty, pull->nr_words * sizeof(*todo));
	return run_all(pull, false, todo, err);
}

int pull_compare(struct pull *pull, struct weft_error *err)
{
	uint64_t *todo = calloc(pull->nr_words, sizeof(*todo));

	for (uint64_t i = 0; todo && i < pull->nr_chunks; i++)
		set(todo, i);
	return run_all(pull, true, todo, err);
}

int pull_judge(struct pull *pull, const uint64_t *changed, struct weft_error *err)
{
	for (uint64_t i = 0; i < pull->nr_words; i++)
		pull->dirty[i] |= changed[i] | pull->bad[i];
	for (uint64_t i = 0; i < pull->nr_chunks; i++) {
		if (pull->bad[i / BITS] == 0) {
			i += BITS - 1 - i % BITS;
			continue;
		}
		if (!has(pull->bad, i) || has(changed, i))
			continue;
		if (++pull->strikes[i] == PULL_STRIKES)
			return weft_error_set(err, EIO,
				"%" PRIu64 " bytes from %" PRIu64
				" came with another hash than they have at the donor, %d times",
				len_of(pull, i, 1), i * WEFT_CHUNK_BYTES, PULL_STRIKES);
	}
	return 0;
}
