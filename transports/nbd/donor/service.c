/* SPDX-License-Identifier: MIT */
/*
 * A donor's regions as NBD exports.
 * Owned by the connection's thread.
 *
 * Memory regions are received into and sent from directly.  File regions go through a buffer, so
 * that an I/O error is an error and not a SIGBUS.  Every request completes inside submit().
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>

#include "fabric/base/util.h"
#include "transports/nbd/donor/session.h"

_Static_assert(WEFT_HASH_MAX_BLOCKS * WEFT_HASH_BYTES <= NBD_ARENA_BYTES, "hashes fit");

enum { SLICE_BYTES = 64 << 20 }; /* of a long request, between looks at the fence */

static struct nbd_session *session_of(const struct nbd_conn *conn)
{
	return nbd_conn_user(conn);
}

/* ---- handshake ---- */

struct emitter {
	int (*emit)(void *ctx, const char *name, const char *description);
	void *ctx;
};

static int emit_region(void *ctx, const char *name, const char *description, uint64_t size_bytes)
{
	const struct emitter *e = ctx;

	return e->emit(e->ctx, name, description);
}

static int service_list(struct nbd_conn *conn,
	int (*emit)(void *ctx, const char *name, const char *description), void *ctx,
	struct weft_error *err)
{
	struct nbd_session *s = session_of(conn);
	struct emitter e = { emit, ctx };
	int r = nbd_session_begin_list(s);

	if (r < 0)
		return r;
	r = weft_donor_list(s->donor, &s->peer, emit_region, &e, err);
	nbd_session_end_list(s);
	return r;
}

static void describe(const struct weft_region *region, bool writable, struct nbd_export *ret)
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

/* Keeps the region until the next question: the engine borrows its strings. */
static int find(struct nbd_session *s, const char *name, struct weft_error *err)
{
	struct weft_region *region;
	int r;

	s->asked_tenure = 0;
	s->asked_by_alias = weft_alias_parse(name, s->asked_alias);
	r = s->asked_by_alias ? weft_donor_find_alias(s->donor, &s->peer, s->asked_alias, &region,
					&s->alias_writes, err)
			      : weft_donor_find(s->donor, &s->peer, name, &region,
					&s->asked_tenure, err);
	if (r < 0)
		return r;
	weft_region_put(s->asked);
	s->asked = region;
	return 0;
}

static int service_info(struct nbd_conn *conn, const char *name, struct nbd_export *ret,
	struct weft_error *err)
{
	struct nbd_session *s = session_of(conn);
	int r;

	r = find(s, name, err);
	if (r == 0)
		describe(s->asked,
			s->asked_by_alias ? s->alias_writes
					  : weft_donor_may_write(s->donor, &s->peer, s->asked),
			ret);
	return r;
}

/* Now is weft_now_ns(), and the session is alive. */
static void touch(const struct nbd_session *s, uint64_t now_ns)
{
	weft_grant_touch(s->grant, s->by_alias ? UINT64_MAX : now_ns);
}

static void live_by_answers(struct nbd_session *s)
{
	struct weft_welcome welcome;

	weft_donor_welcome(s->donor, s->asked, &welcome);
	nbd_session_live_by_answers(s, welcome.lease_ms);
	touch(s, 0);
}

static int service_open(struct nbd_conn *conn, const char *name, const struct weft_hello *hello,
	struct nbd_export *ret, struct weft_error *err)
{
	struct nbd_session *s = session_of(conn);
	int r;

	r = find(s, name, err);
	if (r == 0 && s->asked_by_alias && !hello->anonymous)
		r = weft_error_set(err, EINVAL, "an alias is for clients that say no hello");
	if (r == 0 && !s->counted)
		r = nbd_session_count(s,
			s->asked_by_alias ||
				weft_donor_knows(s->donor, &s->peer, s->asked, hello),
			err);
	if (r < 0)
		return r;
	struct weft_hello said = *hello;
	said.tenure = s->asked_tenure;
	if (s->asked_by_alias) {
		said.has_alias = true;
		memcpy(said.alias, s->asked_alias, sizeof(said.alias));
	}
	r = weft_donor_grant(s->donor, s->asked, &said, &s->peer, nbd_session_fence, s, &s->grant,
		err);
	explicit_bzero(&said, sizeof(said));
	if (r < 0) {
		nbd_session_uncount(s);
		return r;
	}
	if (s->asked_by_alias)
		live_by_answers(s);
	weft_stranger_belongs(&s->stranger);
	s->region = s->grant->region;
	describe(s->region, s->grant->writable, ret);
	return 0;
}

/* Whether its TLS session is good for coming over another transport. */
static bool give_pass(struct nbd_session *s, const struct nbd_conn *conn)
{
	struct weft_key pass;

	if (!s->peer.certified || s->has_pass || nbd_conn_pass(conn, &pass) < 0)
		return false;
	s->has_pass = weft_donor_keep_pass(s->donor, &s->peer, &pass) == 0;
	weft_key_wipe(&pass);
	return s->has_pass;
}

static int service_welcome(struct nbd_conn *conn, const char *name, const struct weft_hello *hello,
	struct weft_welcome *ret)
{
	struct nbd_session *s = session_of(conn);

	if (find(s, name, NULL) < 0 || s->asked_by_alias)
		return -ENOENT;
	/* The donor knows this peer: from now on it does not make room for strangers. */
	if (weft_donor_knows(s->donor, &s->peer, s->asked, hello))
		weft_stranger_belongs(&s->stranger);
	weft_donor_welcome(s->donor, s->asked, ret);
	ret->pass = hello->pass && give_pass(s, conn);
	return 0;
}

static void service_secured(struct nbd_conn *conn)
{
	struct nbd_session *s = session_of(conn);

	strcpy(s->peer.identity, nbd_conn_identity(conn));
	s->peer.life = nbd_conn_key_life(conn);
	s->peer.certified = !s->peer.life;
	s->peer.expires = nbd_conn_expires(conn);
	s->peer.encrypted = true;
	s->peer.transport = nbd_conn_in_kernel(conn) ? "tcp+ktls" : "tcp+tls";
}

static void service_kept_out(struct nbd_conn *conn, const struct weft_error *why)
{
	nbd_session_kept_out(session_of(conn), why);
}

static uint64_t service_tenure(struct nbd_conn *conn, const char *name)
{
	struct nbd_session *s = session_of(conn);

	if (find(s, name, NULL) < 0 || s->asked_by_alias)
		return 0;
	return weft_donor_tenure(s->donor, s->asked);
}

static int service_question(struct nbd_conn *conn, const char *json, size_t len, char **ret,
	struct weft_error *err)
{
	struct nbd_session *s = session_of(conn);
	int r = weft_donor_question(s->donor, &s->peer, json, len, ret, err);

	/*
	 * It asks again and again.  If it has proved who it is, it need not make room for strangers
	 * meanwhile: as long as there is a place, it counts as one that was granted something.
	 */
	if (r == 0 && !s->counted && (s->peer.identity[0] || s->peer.has_uid) &&
		nbd_session_count(s, false, NULL) == 0)
		weft_stranger_belongs(&s->stranger);
	return r;
}

static void service_close(struct nbd_conn *conn, bool clean)
{
	struct nbd_session *s = session_of(conn);

	if (s->by_alias)
		weft_grant_touch(s->grant, nbd_session_answered_ns(s));
	weft_grant_release(s->grant, clean);
	nbd_session_uncount(s);
	s->grant = NULL;
	s->region = NULL;
}

static void service_received(struct nbd_conn *conn, uint64_t now_ns)
{
	touch(session_of(conn), now_ns);
}

/* ---- transmission ---- */

static void count(_Atomic uint64_t *counter, uint64_t n)
{
	/* One writer: no locked instruction. */
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
		memory_order_relaxed);
}

static bool is_fenced(const struct nbd_session *s)
{
	return atomic_load_explicit(&s->grant->fenced, memory_order_relaxed);
}

/* 0, or the bytes that there is room for, if fewer. */
static int arena_get(struct nbd_session *s, uint32_t len, void **ret)
{
	if (!s->arena) {
		void *p = mmap(NULL, NBD_ARENA_BYTES, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (p == MAP_FAILED)
			return -ENOMEM;
		s->arena = p;
	}
	/* A request in pieces has all of the arena for itself. */
	if (s->arena_users > 0 && s->arena_used + len > NBD_ARENA_BYTES)
		return -EAGAIN;
	*ret = s->arena + s->arena_used;
	/* Page-aligned for long ones, on cache lines for short ones. */
	const size_t align = len >= 4096 ? 4096 : 64;
	s->arena_used = (s->arena_used + len + align - 1) & ~(align - 1);
	s->arena_users++;
	return len > NBD_ARENA_BYTES ? NBD_ARENA_BYTES : 0;
}

static void arena_put(struct nbd_session *s)
{
	if (--s->arena_users == 0)
		s->arena_used = 0;
}

static int service_prepare(struct nbd_request *rq)
{
	struct nbd_session *s = session_of(rq->conn);

	if (is_fenced(s))
		return -ESHUTDOWN;
	if (rq->type == NBD_CMD_HASH)
		return arena_get(s, weft_hash_nr_blocks(rq->len, rq->hashing.block_bytes) *
			WEFT_HASH_BYTES, &rq->buf);
	if (s->region->map) {
		rq->buf = s->region->map + rq->off;
		return 0;
	}
	int r = arena_get(s, rq->len, &rq->buf);
	if (r > 0 && rq->type == NBD_CMD_READ) {
		/* submit() does not see this request. */
		count(&s->counters.requests, 1);
		count(&s->counters.read_bytes, rq->len);
	}
	return r;
}

static int service_take(struct nbd_request *rq, uint64_t off, uint32_t len)
{
	struct nbd_session *s = session_of(rq->conn);
	int r;

	/* While a disk is slow nothing is received, and the borrower is not silent for that. */
	weft_grant_touch(s->grant, UINT64_MAX);
	if (rq->type == NBD_CMD_READ)
		r = weft_region_read(s->region, rq->buf, off, len);
	else
		r = is_fenced(s) ? -ESHUTDOWN : weft_region_write(s->region, rq->buf, off, len);
	touch(s, weft_now_ns());
	if (r < 0)
		count(&s->counters.errors, 1);
	return r;
}

/* Works on a long range in slices, so that a fence need not wait for all of it. */
static int in_slices(struct nbd_session *s, const struct nbd_request *rq,
	int (*fn)(struct weft_region *region, const struct nbd_request *rq, uint64_t off,
		uint64_t len))
{
	for (uint64_t done = 0, n; done < rq->len; done += n) {
		int r;

		n = weft_min(SLICE_BYTES, rq->len - done);
		r = is_fenced(s) ? -ESHUTDOWN : fn(s->region, rq, rq->off + done, n);
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
static int do_write(struct nbd_session *s, const struct nbd_request *rq)
{
	if (s->region->map || rq->len > NBD_ARENA_BYTES) /* service_take() has written it */
		return 0;
	return is_fenced(s) ? -ESHUTDOWN : weft_region_write(s->region, rq->buf, rq->off, rq->len);
}

static int do_read(struct nbd_session *s, const struct nbd_request *rq)
{
	return s->region->map ? 0 : weft_region_read(s->region, rq->buf, rq->off, rq->len);
}

/* Advisory. */
static void do_cache(struct nbd_session *s, const struct nbd_request *rq)
{
	if (!s->region->map)
		posix_fadvise(s->region->fd, (off_t)rq->off, rq->len, POSIX_FADV_WILLNEED);
}

static void do_status(struct nbd_session *s, struct nbd_request *rq)
{
	uint64_t done = 0;

	while (done < rq->len && rq->nr_extents < rq->max_extents) {
		const struct weft_extent e =
			weft_region_extent(s->region, rq->off + done, rq->len - done);

		rq->extents[rq->nr_extents++] = (struct nbd_extent){
			.len = e.len,
			.flags = e.hole ? NBD_STATE_HOLE | NBD_STATE_ZERO : 0,
		};
		done += e.len;
	}
}

/* Nobody waits for the answer any more: fenced, or the peer has hung up. */
static bool is_gone(void *ctx)
{
	const struct nbd_request *rq = ctx;
	struct pollfd pfd = {.fd = nbd_conn_fd(rq->conn), .events = POLLRDHUP};

	return is_fenced(session_of(rq->conn)) || poll(&pfd, 1, 0) != 0;
}

static int do_hash(struct nbd_session *s, struct nbd_request *rq)
{
	if (weft_asks_for_mark(&rq->hashing))
		return weft_donor_mark(s->donor, s->grant, &rq->hashing, rq->buf);
	return weft_donor_hash(s->donor, s->region, &rq->hashing, rq->off, rq->len, is_gone, rq,
		rq->buf);
}

static int carry_out(struct nbd_session *s, struct nbd_request *rq)
{
	int r = 0;

	switch (rq->type) {
	case NBD_CMD_READ:
		count(&s->counters.read_bytes, rq->len);
		return do_read(s, rq);
	case NBD_CMD_WRITE:
		count(&s->counters.written_bytes, rq->len);
		r = do_write(s, rq);
		break;
	case NBD_CMD_TRIM:
		r = in_slices(s, rq, trim);
		break;
	case NBD_CMD_WRITE_ZEROES:
		r = in_slices(s, rq, zero);
		break;
	case NBD_CMD_CACHE:
		do_cache(s, rq);
		return 0;
	case NBD_CMD_BLOCK_STATUS:
		do_status(s, rq);
		return 0;
	case NBD_CMD_HASH:
		return do_hash(s, rq);
	case NBD_CMD_FLUSH:
		return weft_region_flush(s->region);
	}
	if (r == 0 && (rq->flags & NBD_CMD_FLAG_FUA))
		r = weft_region_flush(s->region);
	return r;
}

static void service_submit(struct nbd_request *rq)
{
	struct nbd_session *s = session_of(rq->conn);
	int r;

	count(&s->counters.requests, 1);
	const bool slow = !s->region->map || rq->type == NBD_CMD_HASH;
	/* While a disk is slow nothing is received, and the borrower is not silent for that. */
	if (slow)
		weft_grant_touch(s->grant, UINT64_MAX);
	r = carry_out(s, rq);
	if (slow)
		touch(s, weft_now_ns());
	if (r < 0)
		count(&s->counters.errors, 1);
	nbd_request_complete(rq, r);
}

static void service_release(struct nbd_request *rq)
{
	struct nbd_session *s = session_of(rq->conn);

	if (rq->buf && (!s->region->map || rq->type == NBD_CMD_HASH))
		arena_put(s);
	/* Of a WRITE whose payload did not come to its end, too. */
	if (__builtin_expect(weft_region_is_tracked(s->region), 0) && rq->type == NBD_CMD_WRITE)
		weft_region_track_change(s->region, rq->off, rq->len);
}

const struct nbd_service nbd_donor_service = {
	.list = service_list,
	.info = service_info,
	.open = service_open,
	.welcome = service_welcome,
	.tenure = service_tenure,
	.question = service_question,
	.secured = service_secured,
	.kept_out = service_kept_out,
	.prepare = service_prepare,
	.take = service_take,
	.submit = service_submit,
	.release = service_release,
	.close = service_close,
	.received = service_received,
	.hashes = true,
};
