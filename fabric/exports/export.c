/* SPDX-License-Identifier: MIT */
/*
 * A donor's region as an NBD export: see export.h.
 *
 * Memory regions are received into and sent from directly.  File regions go through a buffer, so
 * that an I/O error is an error and not a SIGBUS.  Every request completes inside submit().
 */
#include "fabric/exports/export.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "fabric/base/util.h"
#include "fabric/nbd/tls.h"

_Static_assert(WEFT_HASH_MAX_BLOCKS * WEFT_HASH_BYTES <= WEFT_EXPORT_ARENA_BYTES, "hashes fit");

enum {
	SLICE_BYTES = 64 << 20, /* of a long request, between looks at the fence */
	FETCH_MS = 15000, /* the longest wait in which none of the bytes on their way here come */
	FETCH_LOOK_MS = 100,
};

void weft_export_describe(const struct weft_region *region, bool writable,
	struct nbd_export *ret)
{
	uint16_t flags = NBD_FLAG_SEND_FLUSH | NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE;

	if (writable)
		flags |= NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES |
			NBD_FLAG_SEND_FAST_ZERO;
	else
		flags |= NBD_FLAG_READ_ONLY;
	*ret = (struct nbd_export){
		.size_bytes = region->size_bytes,
		.flags = flags,
		.min_block_bytes = 1,
		.preferred_block_bytes = 4096,
		.max_block_bytes = NBD_MAX_PAYLOAD,
		.name = region->name,
		.description = region->description,
	};
}

void weft_export_touch(const struct weft_export *e, uint64_t now_ns)
{
	weft_grant_touch(e->grant, e->by_alias ? UINT64_MAX : now_ns);
}

void weft_export_received(struct nbd_conn *conn, uint64_t now_ns)
{
	weft_export_touch(nbd_conn_user(conn), now_ns);
}

static int find_secret(void *ctx, const char *identity, struct weft_key *ret, uint64_t *ret_life)
{
	struct weft_keys *keys = weft_donor_keys(ctx);

	return keys ? weft_keys_get(keys, identity, ret, ret_life) : -ENOKEY;
}

int weft_export_credentials(struct weft_donor *donor, const char *certificates,
	struct nbd_tls_credentials **ret, struct weft_error *err)
{
	const struct nbd_tls_server config = {
		.secret = find_secret,
		.ctx = donor,
		.certificates = certificates,
	};

	return nbd_tls_server_new(&config, ret, err);
}

void weft_export_fini(struct weft_export *e)
{
	assert(e->arena_users == 0);
	if (e->arena)
		munmap(e->arena, WEFT_EXPORT_ARENA_BYTES);
}

void weft_export_add(struct weft_export_counters *sum, const struct weft_export_counters *c)
{
	sum->requests += c->requests;
	sum->read_bytes += c->read_bytes;
	sum->written_bytes += c->written_bytes;
	sum->errors += c->errors;
}

static void count(_Atomic uint64_t *counter, uint64_t n)
{
	/* One writer: no locked instruction. */
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
		memory_order_relaxed);
}

static bool is_fenced(const struct weft_export *e)
{
	return atomic_load_explicit(&e->grant->fenced, memory_order_relaxed);
}

/* 0, or the bytes that there is room for, if fewer. */
static int arena_get(struct weft_export *e, uint32_t len, void **ret)
{
	if (!e->arena) {
		void *p = mmap(NULL, WEFT_EXPORT_ARENA_BYTES, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (p == MAP_FAILED)
			return -ENOMEM;
		e->arena = p;
	}
	/* A request in pieces has all of the arena for itself. */
	if (e->arena_users > 0 && e->arena_used + len > WEFT_EXPORT_ARENA_BYTES)
		return -EAGAIN;
	*ret = e->arena + e->arena_used;
	/* Page-aligned for long ones, on cache lines for short ones. */
	const size_t align = len >= 4096 ? 4096 : 64;
	e->arena_used = (e->arena_used + len + align - 1) & ~(align - 1);
	e->arena_users++;
	return len > WEFT_EXPORT_ARENA_BYTES ? WEFT_EXPORT_ARENA_BYTES : 0;
}

static void arena_put(struct weft_export *e)
{
	if (--e->arena_users == 0)
		e->arena_used = 0;
}

/* While a disk is slow nothing is received, and the borrower is not silent for that. */
static int begin_wait(struct weft_export *e)
{
	int r = e->waits ? e->waits(e, true) : 0;

	if (r == 0)
		weft_grant_touch(e->grant, UINT64_MAX);
	return r;
}

static void end_wait(struct weft_export *e)
{
	if (e->waits)
		e->waits(e, false);
	weft_export_touch(e, weft_now_ns());
}

/* Until a range of a region whose contents are on their way is here. */
static int __attribute__((noinline)) fetch(struct weft_export *e, uint64_t off, uint64_t len)
{
	const uint64_t first = off / WEFT_CHUNK_BYTES;
	uint64_t absent = 0, end_ns = 0;
	int r = begin_wait(e);

	if (r < 0)
		return r;
	do {
		const uint64_t next = weft_region_next_absent(e->region, first);

		/* As long as something of it comes, however slowly, it is worth the wait. */
		if (next != absent || end_ns == 0)
			end_ns = weft_now_ns() + FETCH_MS * UINT64_C(1000000);
		absent = next;
		r = is_fenced(e) ? -ESHUTDOWN
				 : weft_region_fetch(e->region, off, len, FETCH_LOOK_MS);
	} while (r == -ETIMEDOUT && weft_now_ns() < end_ns);
	end_wait(e);
	return r == -ETIMEDOUT ? -EIO : r;
}

static inline int here(struct weft_export *e, uint64_t off, uint64_t len)
{
	return __builtin_expect(weft_region_is_filling(e->region), 0) ? fetch(e, off, len) : 0;
}

int weft_export_prepare(struct nbd_request *rq)
{
	struct weft_export *e = nbd_conn_user(rq->conn);

	if (is_fenced(e))
		return -ESHUTDOWN;
	int r = here(e, rq->off, rq->len);
	if (r < 0)
		return r;
	if (rq->type == NBD_CMD_HASH)
		return arena_get(e, weft_hash_nr_blocks(rq->len, rq->hashing.block_bytes) *
			WEFT_HASH_BYTES, &rq->buf);
	if (e->region->map) {
		rq->buf = e->region->map + rq->off;
		return 0;
	}
	r = arena_get(e, rq->len, &rq->buf);
	if (r > 0 && rq->type == NBD_CMD_READ) {
		/* submit() does not see this request. */
		count(&e->counters.requests, 1);
		count(&e->counters.read_bytes, rq->len);
	}
	return r;
}

static int transfer(struct weft_export *e, const struct nbd_request *rq, uint64_t off,
	uint32_t len)
{
	if (rq->type == NBD_CMD_READ)
		return weft_region_read(e->region, rq->buf, off, len);
	return is_fenced(e) ? -ESHUTDOWN : weft_region_write(e->region, rq->buf, off, len);
}

int weft_export_take(struct nbd_request *rq, uint64_t off, uint32_t len)
{
	struct weft_export *e = nbd_conn_user(rq->conn);
	int r;

	r = begin_wait(e);
	if (r == 0) {
		r = transfer(e, rq, off, len);
		end_wait(e);
	}
	if (r < 0)
		count(&e->counters.errors, 1);
	return r;
}

/* Works on a long range in slices, so that a fence need not wait for all of it. */
static int in_slices(struct weft_export *e, const struct nbd_request *rq,
	int (*fn)(struct weft_region *region, const struct nbd_request *rq, uint64_t off,
		uint64_t len))
{
	for (uint64_t done = 0, n; done < rq->len; done += n) {
		int r;

		n = weft_min(SLICE_BYTES, rq->len - done);
		r = is_fenced(e) ? -ESHUTDOWN : here(e, rq->off + done, n);
		if (r == 0)
			r = fn(e->region, rq, rq->off + done, n);
		if (r < 0)
			return r;
	}
	return 0;
}

static int trim(struct weft_region *region, const struct nbd_request *rq, uint64_t off,
	uint64_t len)
{
	return weft_region_trim(region, off, len);
}

static int zero(struct weft_region *region, const struct nbd_request *rq, uint64_t off,
	uint64_t len)
{
	return weft_region_zero(region, off, len, !(rq->flags & NBD_CMD_FLAG_NO_HOLE),
		rq->flags & NBD_CMD_FLAG_FAST_ZERO);
}

/* A WRITE to memory is in place already: its payload was received there. */
static int do_write(struct weft_export *e, const struct nbd_request *rq)
{
	/* A longer one was written by weft_export_take(). */
	if (e->region->map || rq->len > WEFT_EXPORT_ARENA_BYTES)
		return 0;
	return is_fenced(e) ? -ESHUTDOWN : weft_region_write(e->region, rq->buf, rq->off, rq->len);
}

static int do_read(struct weft_export *e, const struct nbd_request *rq)
{
	return e->region->map ? 0 : weft_region_read(e->region, rq->buf, rq->off, rq->len);
}

/* Advisory. */
static void do_cache(struct weft_export *e, const struct nbd_request *rq)
{
	if (!e->region->map)
		posix_fadvise(e->region->fd, (off_t)rq->off, rq->len, POSIX_FADV_WILLNEED);
}

static void do_status(struct weft_export *e, struct nbd_request *rq)
{
	uint64_t done = 0;

	while (done < rq->len && rq->nr_extents < rq->max_extents) {
		const struct weft_extent extent =
			weft_region_extent(e->region, rq->off + done, rq->len - done);

		rq->extents[rq->nr_extents++] = (struct nbd_extent){
			.len = extent.len,
			.flags = extent.hole ? NBD_STATE_HOLE | NBD_STATE_ZERO : 0,
		};
		done += extent.len;
	}
}

/* Nobody waits for the answer any more: fenced, or the peer has hung up. */
static bool is_gone(void *ctx)
{
	const struct nbd_request *rq = ctx;
	const struct weft_export *e = nbd_conn_user(rq->conn);

	return is_fenced(e) || e->is_gone(rq->conn);
}

static int do_hash(struct weft_export *e, struct nbd_request *rq)
{
	if (weft_asks_for_mark(&rq->hashing))
		return weft_donor_mark(e->donor, e->grant, &rq->hashing, rq->buf);
	if (weft_asks_for_copies(&rq->hashing))
		return weft_donor_copies(e->donor, e->grant, &rq->hashing, rq->buf);
	return weft_donor_hash(e->donor, e->region, &rq->hashing, rq->off, rq->len, is_gone, rq,
		rq->buf);
}

static int flush(struct weft_export *e)
{
	/* Those that wait may be many, and the next writer waits for the end of this session. */
	if (is_fenced(e))
		return -ESHUTDOWN;
	return weft_region_flush(e->region);
}

static int carry_out(struct weft_export *e, struct nbd_request *rq)
{
	int r = 0;

	switch (rq->type) {
	case NBD_CMD_READ:
		count(&e->counters.read_bytes, rq->len);
		return do_read(e, rq);
	case NBD_CMD_WRITE:
		count(&e->counters.written_bytes, rq->len);
		r = do_write(e, rq);
		break;
	case NBD_CMD_TRIM:
		r = in_slices(e, rq, trim);
		break;
	case NBD_CMD_WRITE_ZEROES:
		r = in_slices(e, rq, zero);
		break;
	case NBD_CMD_CACHE:
		do_cache(e, rq);
		return 0;
	case NBD_CMD_BLOCK_STATUS:
		do_status(e, rq);
		return 0;
	case NBD_CMD_HASH:
		return do_hash(e, rq);
	case NBD_CMD_FLUSH:
		return flush(e);
	}
	if (r == 0 && (rq->flags & NBD_CMD_FLAG_FUA))
		r = flush(e);
	return r;
}

void weft_export_submit(struct nbd_request *rq)
{
	struct weft_export *e = nbd_conn_user(rq->conn);
	int r;

	count(&e->counters.requests, 1);
	const bool slow = !e->region->map || rq->type == NBD_CMD_HASH;
	r = slow ? begin_wait(e) : 0;
	if (r == 0) {
		r = carry_out(e, rq);
		if (slow)
			end_wait(e);
	}
	if (r < 0)
		count(&e->counters.errors, 1);
	nbd_request_complete(rq, r);
}

void weft_export_release(struct nbd_request *rq)
{
	struct weft_export *e = nbd_conn_user(rq->conn);

	if (rq->buf && (!e->region->map || rq->type == NBD_CMD_HASH))
		arena_put(e);
	/* Of a WRITE whose payload did not come to its end, too. */
	if (__builtin_expect(weft_region_is_tracked(e->region), 0) && rq->type == NBD_CMD_WRITE)
		weft_region_track_change(e->region, rq->off, rq->len);
}
