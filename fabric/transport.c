/* SPDX-License-Identifier: MIT */
/*
 * The choke point in front of every transport: state, bounds and contract, checked once.
 * Runs on the thread that owns the transport.  Invariant: an operation bears OP_POSTED, and is
 * counted in nr_outstanding and in its memory's nr_borrowed, from tp_post() to its completion.
 */
#include "fabric/transport.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/hashing.h"
#include "fabric/key/key.h"

enum { REGION_NAME_MAX = 4096 }; /* the longest string of NBD, and our own limit everywhere */

/* Unlikely in memory that was never posted. */
#define OP_POSTED 0x7e9057edu

static bool uses_memory(uint8_t kind)
{
	return kind == TP_READ || kind == TP_WRITE || kind == TP_HASH;
}

int tp_open(const struct tp_ops *ops, const void *config, struct tp **ret, struct weft_error *err)
{
	struct tp *tp;
	int r = ops->open(config, &tp, err);

	if (r < 0)
		return r;
	tp->ops = ops;
	*ret = tp;
	return 0;
}

void tp_close(struct tp *tp)
{
	if (!tp)
		return;
	assert(tp->nr_mems == 0);
	assert(tp->nr_conns == 0);
	tp->ops->close(tp);
}

int tp_register(struct tp *tp, void *base, size_t len, struct tp_mem **ret, struct weft_error *err)
{
	assert(base && len > 0);
	struct tp_mem *mem = calloc(1, sizeof(*mem));

	if (!mem)
		return weft_error_set(err, ENOMEM, "cannot register %zu bytes: out of memory", len);
	mem->tp = tp;
	mem->base = base;
	mem->len = len;
	int r = tp->ops->reg(tp, mem, err);
	if (r < 0) {
		free(mem);
		return r;
	}
	tp->nr_mems++;
	*ret = mem;
	return 0;
}

int tp_deregister(struct tp_mem *mem)
{
	if (!mem)
		return 0;
	if (mem->nr_borrowed > 0)
		return -EBUSY;
	mem->tp->ops->dereg(mem);
	mem->tp->nr_mems--;
	free(mem);
	return 0;
}

static int check_target(const struct tp *tp, const struct tp_target *target, struct weft_error *err)
{
	const struct weft_hello *hello = &target->hello;

	/* A caller with a key wants protection: the key is not left out in silence. */
	if (target->key && !tp->ops->proves_keys)
		return weft_error_set(err, EOPNOTSUPP,
			"cannot connect over %s with the key '%s': nothing there proves a key",
			tp->ops->name, target->key->identity);
	if (target->certificates && !tp->ops->proves_certificates)
		return weft_error_set(err, EOPNOTSUPP,
			"cannot connect over %s with the certificates of %s: nothing there proves "
			"certificates",
			tp->ops->name, target->certificates);
	if (target->certificates && target->key)
		return weft_error_set(err, EINVAL,
			"cannot connect with a key and with certificates: leave one of them out");
	if (!target->region || strlen(target->region) > REGION_NAME_MAX)
		return weft_error_set(err, EINVAL,
			"cannot connect: the region's name is over %d bytes", REGION_NAME_MAX);
	if (hello->anonymous)
		return 0;
	if (hello->generation == 0)
		return weft_error_set(err, EINVAL, "cannot connect: a generation counts from 1");
	if (!memchr(hello->name, '\0', sizeof(hello->name)) || !weft_name_valid(hello->name))
		return weft_error_set(err, EINVAL,
			"cannot connect: an attachment's name is 1 to %d of A-Z a-z 0-9 . _ -",
			WEFT_NAME_MAX);
	return 0;
}

int tp_connect(struct tp *tp, const struct tp_target *target, struct tp_conn **ret,
	struct weft_error *err)
{
	struct tp_conn *conn;
	int r = check_target(tp, target, err);

	if (r < 0)
		return r;
	uint64_t asked_ns = weft_boottime_ns();
	r = tp->ops->connect(tp, target, &conn, err);
	if (r < 0)
		return r;
	conn->asked_ns = asked_ns;
	conn->tp = tp;
	tp->nr_conns++;
	*ret = conn;
	return 0;
}

void tp_shutdown(struct tp_conn *conn)
{
	if (conn->state == TP_FAILED)
		return;
	conn->tp->ops->shutdown(conn);
	tp_conn_fail(conn, ECANCELED, "shut down");
}

void tp_disconnect(struct tp_conn *conn)
{
	if (!conn)
		return;
	assert(conn->nr_outstanding == 0);
	/* A transport frees a connection at rest, so a living one is ended first. */
	tp_shutdown(conn);
	conn->tp->nr_conns--;
	conn->tp->ops->disconnect(conn);
}

static bool is_inside(const struct tp_mem *mem, const void *buf, uint64_t len)
{
	uintptr_t start = (uintptr_t)buf - (uintptr_t)mem->base;

	return start <= mem->len && len <= mem->len - start;
}

/* len bytes at op->buf are the transport's. */
static inline bool has_memory(const struct tp_conn *conn, const struct tp_op *op, uint64_t len)
{
	return op->mem && op->mem->tp == conn->tp && is_inside(op->mem, op->buf, len);
}

static int check_hash(const struct tp_conn *conn, const struct tp_op *op)
{
	if (!op->hashing || !weft_hashing_valid(op->hashing, op->len))
		return -EINVAL;
	uint32_t nr = weft_hash_nr_blocks(op->len, op->hashing->block_bytes);
	if (nr > conn->info.max_hash_blocks)
		return -EINVAL;
	return has_memory(conn, op, (uint64_t)nr * WEFT_HASH_BYTES) ? 0 : -EINVAL;
}

/* Of operations that have a range: that it is the region's. */
static inline int check_range(const struct tp_info *info, const struct tp_op *op)
{
	if (op->off > info->size_bytes || op->len > info->size_bytes - op->off)
		return -ENOSPC;
	if (info->min_block_bytes > 1 &&
		(op->off % info->min_block_bytes || op->len % info->min_block_bytes))
		return -EINVAL;
	return 0;
}

/* Of operations that move no data of the region.  They are rare, and so this is not inline. */
static int __attribute__((noinline)) check_other(const struct tp_conn *conn, const struct tp_op *op)
{
	const struct tp_info *info = &conn->info;

	if (op->kind == TP_FLUSH || op->kind == TP_PROBE) {
		if (op->off != 0 || op->len != 0)
			return -EINVAL;
		return op->kind == TP_FLUSH && !info->can_flush ? -EOPNOTSUPP : 0;
	}
	if ((op->kind == TP_TRIM || op->kind == TP_ZERO) && info->read_only)
		return -EPERM;
	if ((op->kind == TP_TRIM && !info->can_trim) || (op->kind == TP_ZERO && !info->can_zero) ||
		(op->kind == TP_CACHE && !info->can_cache) ||
		(op->kind == TP_HASH && !info->max_hash_blocks) ||
		((op->flags & TP_FUA) && !info->can_fua) ||
		((op->flags & TP_FAST_ZERO) && !info->can_fast_zero))
		return -EOPNOTSUPP;
	if (op->len == 0 || op->len > TP_MAX_RANGE_BYTES)
		return -EINVAL;
	if (op->kind == TP_HASH) {
		int r = check_hash(conn, op);

		if (r < 0)
			return r;
	}
	return check_range(info, op);
}

/* The contract of tp_post() for one operation: 0, or -errno. */
static int check_op(const struct tp_conn *conn, const struct tp_op *op)
{
	static const uint8_t flags[TP_NR_KINDS] = {
		[TP_WRITE] = TP_FUA,
		[TP_TRIM] = TP_FUA,
		[TP_ZERO] = TP_FUA | TP_NO_HOLE | TP_FAST_ZERO,
	};
	const struct tp_info *info = &conn->info;

	assert(op->owner != OP_POSTED);
	if (op->kind >= TP_NR_KINDS || (op->flags & ~flags[op->kind]))
		return -EINVAL;
	if (op->kind != TP_READ && op->kind != TP_WRITE)
		return check_other(conn, op);
	if (op->kind == TP_WRITE && info->read_only)
		return -EPERM;
	if ((op->flags & TP_FUA) && !info->can_fua)
		return -EOPNOTSUPP;
	if (op->len == 0 || op->len > info->max_io_bytes || !has_memory(conn, op, op->len))
		return -EINVAL;
	return check_range(info, op);
}

int tp_post(struct tp_conn *conn, struct tp_op *const *ops, unsigned n)
{
	unsigned nr = 0;
	int r = 0;

	assert(n > 0);
	if (conn->state != TP_READY)
		return -ENOTCONN;
	unsigned room = conn->info.depth - conn->nr_outstanding;
	if (room == 0)
		return -EAGAIN;
	if (n > room)
		n = room;
	for (; nr < n; nr++) {
		r = check_op(conn, ops[nr]);
		if (r < 0)
			break;
		/*
		 * Operations are marked one by one, so that one that is twice in a batch is found
		 * too.
		 */
		ops[nr]->owner = OP_POSTED;
	}
	if (nr == 0)
		return r;
	r = conn->tp->ops->post(conn, ops, nr);
	assert(r <= (int)nr && r != 0);
	unsigned accepted = r < 0 ? 0 : (unsigned)r;
	for (unsigned i = 0; i < accepted; i++)
		if (uses_memory(ops[i]->kind))
			ops[i]->mem->nr_borrowed++;
	for (unsigned i = accepted; i < nr; i++)
		ops[i]->owner = 0;
	conn->nr_outstanding += accepted;
	return r;
}

int tp_progress(struct tp_conn *conn, struct tp_op **done, unsigned max)
{
	enum tp_state before = conn->state;
	int n = conn->tp->ops->progress(conn, done, max);

	assert(n >= 0 && (unsigned)n <= max);
	for (int i = 0; i < n; i++) {
		struct tp_op *op = done[i];

		assert(op->owner == OP_POSTED); /* exactly once */
		assert(op->status <= 0);
		op->owner = 0;
		if (uses_memory(op->kind)) {
			assert(op->mem->nr_borrowed > 0);
			op->mem->nr_borrowed--;
		}
	}
	assert(conn->nr_outstanding >= (unsigned)n);
	conn->nr_outstanding -= (unsigned)n;
	if (before == TP_CONNECTING && conn->state == TP_READY) {
		assert(conn->info.depth > 0 && conn->info.max_io_bytes > 0);
		assert(conn->info.min_block_bytes > 0);
	}
	return n;
}

int tp_event_fd(struct tp_conn *conn)
{
	return conn->tp->ops->event_fd(conn);
}

int tp_arm(struct tp_conn *conn)
{
	return conn->tp->ops->arm(conn);
}

bool tp_is_worn(const struct tp_conn *conn)
{
	return conn->state == TP_READY && conn->tp->ops->is_worn && conn->tp->ops->is_worn(conn);
}

void tp_conn_fail(struct tp_conn *conn, int code, const char *fmt, ...)
{
	va_list ap;

	assert(code > 0);
	if (conn->state == TP_FAILED)
		return;
	conn->state = TP_FAILED;
	conn->error = -code;
	conn->why.code = code;
	va_start(ap, fmt);
	vsnprintf(conn->why.message, sizeof(conn->why.message), fmt, ap);
	va_end(ap);
}

int tp_conn_op_status(const struct tp_conn *conn)
{
	assert(conn->state == TP_FAILED);
	switch (conn->error) {
	case -ECANCELED:
	case -ESTALE:
	case -ETIMEDOUT:
		return conn->error;
	default:
		return -ENOTCONN;
	}
}
