/* SPDX-License-Identifier: MIT */
/*
 * The transport "mem".  A connection belongs to one thread; a donor's fence and the thread that
 * waits for its grant only set atomics and expire the timer.  Invariant: memory of the region is
 * touched only by mem_progress(), and never after the grant was released.
 */
#include "transports/mem/mem.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "fabric/base/util.h"

enum { DEFAULT_DEPTH = 128, DEFAULT_MAX_IO = 1 << 20 };

static uint8_t home[MEM_HOME_BYTES];
struct mem_config mem_home = {.base = home, .size_bytes = sizeof(home), .epoch = 1};

struct mem_tp {
	struct tp tp;
	struct mem_config *config;
	uint8_t *own; /* the region, when the config brings none */
};

enum grant_state {
	GRANT_NONE,    /* no donor, or released */
	GRANT_ASKED,   /* its thread waits for the donor */
	GRANT_GIVEN,   /* grant is set */
	GRANT_REFUSED, /* refused says why */
};

struct mem_conn {
	struct tp_conn conn;
	struct mem_config *config;
	uint8_t *base;
	int timerfd;
	_Atomic bool fenced;
	uint64_t rng;
	char *region;
	struct weft_hello hello;
	_Atomic int grant_state;
	pthread_t granter;
	bool has_granter;
	struct weft_grant *grant;
	struct weft_region *granted; /* referenced */
	struct weft_error refused;
	uint64_t nr_unflushed;
	uint64_t cut;
	struct weft_donor *donor; /* NULL: none */
	unsigned nr_ops, depth;
	struct tp_op *ops[]; /* posted, oldest first */
};

/* An operation's own words. */
enum { PRIV_DUE_NS, PRIV_NR };

static struct mem_conn *to_mem(struct tp_conn *conn)
{
	return weft_container_of(conn, struct mem_conn, conn);
}

static int mem_open(const void *config, struct tp **ret, struct weft_error *err)
{
	struct mem_tp *tp = calloc(1, sizeof(*tp));

	if (!tp)
		return weft_error_set(err, ENOMEM, "cannot open the transport: out of memory");
	/* Not const: the transport counts in it. */
	tp->config = config ? (struct mem_config *)config : &mem_home;
	if (!tp->config->donor && !tp->config->base) {
		tp->own = calloc(1, tp->config->size_bytes);
		if (!tp->own) {
			free(tp);
			return weft_error_set(err, ENOMEM,
				"cannot take the region's memory: out of memory");
		}
	}
	*ret = &tp->tp;
	return 0;
}

static void mem_close(struct tp *tp)
{
	struct mem_tp *mem_tp = weft_container_of(tp, struct mem_tp, tp);

	free(mem_tp->own);
	free(mem_tp);
}

static int mem_reg(struct tp *tp, struct tp_mem *mem, struct weft_error *err)
{
	return 0;
}

static void mem_dereg(struct tp_mem *mem)
{
}

static void timer_at(struct mem_conn *mem, uint64_t due_ns)
{
	struct itimerspec when = {.it_value = {
		.tv_sec = (time_t)(due_ns / 1000000000u),
		.tv_nsec = (long)(due_ns % 1000000000u),
	}};

	/* Also clears an expiration that was not read; 0 disarms. */
	timerfd_settime(mem->timerfd, TFD_TIMER_ABSTIME, &when, NULL);
}

/* The donor calls this, from any thread. */
static void mem_fence(void *ctx)
{
	struct mem_conn *mem = ctx;

	atomic_store(&mem->fenced, true);
	timer_at(mem, 1);
}

static void *granter_main(void *ctx)
{
	struct mem_conn *mem = ctx;
	const struct weft_peer peer = {.text = "this process", .transport = "mem", .local = true};
	int r = weft_donor_find(mem->donor, &peer, mem->region, &mem->granted, NULL,
		&mem->refused);

	if (r == 0 && mem->granted->backing != WEFT_BACKING_MEMORY)
		r = weft_error_set(&mem->refused, EOPNOTSUPP, "region '%s' is not memory",
			mem->region);
	if (r == 0)
		r = weft_donor_grant(mem->donor, mem->granted, &mem->hello, &peer,
			mem_fence, mem, &mem->grant, &mem->refused);
	atomic_store(&mem->grant_state, r < 0 ? GRANT_REFUSED : GRANT_GIVEN);
	timer_at(mem, 1);
	return NULL;
}

static int mem_connect(struct tp *tp, const struct tp_target *target, struct tp_conn **ret,
	struct weft_error *err)
{
	struct mem_tp *mem_tp = weft_container_of(tp, struct mem_tp, tp);
	struct mem_config *config = mem_tp->config;
	unsigned depth = config->depth ? config->depth : DEFAULT_DEPTH;
	struct mem_conn *mem = calloc(1, sizeof(*mem) + depth * sizeof(mem->ops[0]));
	int r;

	if (!mem)
		return weft_error_set(err, ENOMEM, "cannot connect: out of memory");
	mem->config = config;
	mem->cut = atomic_load(&config->cut);
	mem->donor = config->donor;
	atomic_fetch_add(&config->nr_connects, 1);
	mem->base = config->base ? config->base : mem_tp->own;
	mem->depth = depth;
	mem->hello = target->hello;
	mem->region = strdup(target->region);
	mem->timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (!mem->region || mem->timerfd < 0) {
		r = weft_error_set(err, mem->region ? errno : ENOMEM, "cannot connect: no timer");
		goto fail;
	}
	if (mem->donor) {
		/*
		 * A grant may wait for the sessions that it supersedes, and this very thread may
		 * own them: so another thread asks.
		 */
		mem->grant_state = GRANT_ASKED;
		r = pthread_create(&mem->granter, NULL, granter_main, mem);
		if (r != 0) {
			r = weft_error_set(err, r, "cannot connect: no thread");
			goto fail;
		}
		mem->has_granter = true;
	}
	*ret = &mem->conn;
	return 0;
fail:
	weft_close_fd(mem->timerfd);
	free(mem->region);
	free(mem);
	return r;
}

static void release_grant(struct mem_conn *mem, bool clean)
{
	if (atomic_load(&mem->grant_state) != GRANT_GIVEN)
		return;
	weft_grant_release(mem->grant, clean);
	mem->grant = NULL;
	atomic_store(&mem->grant_state, GRANT_NONE);
}

static void mem_shutdown(struct tp_conn *conn)
{
	struct mem_conn *mem = to_mem(conn);

	/* A grant that is still being asked for is given back by disconnect. */
	release_grant(mem, mem->nr_ops == 0);
}

static void mem_disconnect(struct tp_conn *conn)
{
	struct mem_conn *mem = to_mem(conn);

	if (mem->has_granter)
		pthread_join(mem->granter, NULL);
	release_grant(mem, false);
	atomic_fetch_add(&mem->config->nr_left, mem->nr_unflushed);
	if (mem->granted)
		weft_region_put(mem->granted);
	close(mem->timerfd);
	free(mem->region);
	free(mem);
}

static int mem_post(struct tp_conn *conn, struct tp_op *const *ops, unsigned n)
{
	struct mem_conn *mem = to_mem(conn);
	uint64_t due = weft_now_ns() + atomic_load(&mem->config->delay_ns);

	for (unsigned i = 0; i < n; i++) {
		struct tp_op *op = ops[i];

		op->priv[PRIV_DUE_NS] = due;
		op->priv[PRIV_NR] = atomic_fetch_add(&mem->config->nr_ops, 1) + 1;
		assert(mem->nr_ops < mem->depth);
		mem->ops[mem->nr_ops++] = op;
	}
	return (int)n;
}

/* The answer of a region without a donor. */
static void become_ready(struct mem_conn *mem)
{
	const struct mem_config *config = mem->config;
	struct tp_info *info = &mem->conn.info;
	uint64_t epoch = config->epoch;

	info->size_bytes = config->size_bytes;
	info->lease_ms = config->lease_ms;
	info->read_only = config->read_only;
	if (mem->grant) {
		struct weft_welcome welcome;

		weft_donor_welcome(mem->donor, mem->granted, &welcome);
		epoch = welcome.epoch;
		info->lease_ms = welcome.lease_ms;
		info->size_bytes = mem->granted->size_bytes;
		info->read_only = !mem->grant->writable;
		mem->base = mem->granted->map;
	}
	info->read_only |= !mem->hello.anonymous && mem->hello.mode != WEFT_MODE_WRITE;
	info->has_epoch = !config->no_epoch && !mem->hello.anonymous;
	info->epoch = info->has_epoch ? epoch : 0;
	info->generation = mem->hello.anonymous ? 0 : mem->hello.generation;
	info->max_io_bytes = config->max_io_bytes ? config->max_io_bytes : DEFAULT_MAX_IO;
	info->min_block_bytes = config->min_block_bytes ? config->min_block_bytes : 1;
	info->preferred_block_bytes = (uint32_t)weft_max(info->min_block_bytes, 4096);
	info->depth = mem->depth;
	info->can_flush = !config->no_flush;
	info->can_fua = !config->no_fua;
	info->can_trim = !config->no_trim && !info->read_only;
	info->can_zero = !config->no_zero && !info->read_only;
	info->can_fast_zero = info->can_zero && !config->no_fast_zero;
	info->can_cache = !config->no_cache;
	info->can_multi_conn = !config->no_multi_conn;
	info->flush_each_conn = config->flush_each_conn;
	info->max_hash_blocks = config->no_hash ? 0
		: config->max_hash_blocks ? config->max_hash_blocks : WEFT_HASH_MAX_BLOCKS;
	info->one_sided = true;
	snprintf(info->transport, sizeof(info->transport), "mem");
	snprintf(info->path, sizeof(info->path), "mem, in this process");
	snprintf(info->offers, sizeof(info->offers), "mem");
	mem->conn.state = TP_READY;
}

static void try_connect(struct mem_conn *mem)
{
	const struct mem_config *config = mem->config;
	const struct weft_hello *hello = &mem->hello;
	uint64_t known = hello->anonymous ? 0 : hello->epoch ? hello->epoch : hello->expect;
	int refuse = atomic_load(&config->refuse);

	if (atomic_load(&config->silent))
		return;
	if (refuse) {
		release_grant(mem, false);
		tp_conn_fail(&mem->conn, refuse, "told to refuse");
		return;
	}
	switch (atomic_load(&mem->grant_state)) {
	case GRANT_ASKED:
		return;
	case GRANT_REFUSED:
		tp_conn_fail(&mem->conn, mem->refused.code, "%s", mem->refused.message);
		return;
	case GRANT_GIVEN:
		become_ready(mem);
		return;
	}
	if (config->region && strcmp(config->region, mem->region) != 0)
		tp_conn_fail(&mem->conn, ENOENT, "no region '%s'", mem->region);
	else if (known && known != config->epoch)
		tp_conn_fail(&mem->conn, ESTALE, "region '%s' has another epoch", mem->region);
	else if (config->read_only && !mem->hello.anonymous && mem->hello.mode == WEFT_MODE_WRITE)
		tp_conn_fail(&mem->conn, EROFS, "region '%s' is read-only", mem->region);
	else
		become_ready(mem);
}

/* Notes which changes are safe by now. */
static void note_flushed(struct mem_conn *mem, const struct tp_op *op)
{
	if (op->kind == TP_WRITE || op->kind == TP_ZERO) {
		mem->nr_unflushed++;
		atomic_fetch_add(&mem->config->nr_unflushed, 1);
	} else if (op->kind == TP_FLUSH) {
		atomic_fetch_sub(&mem->config->nr_unflushed,
			mem->nr_unflushed + atomic_exchange(&mem->config->nr_left, 0));
		mem->nr_unflushed = 0;
	}
}

static int hash(const struct mem_conn *mem, const struct tp_op *op)
{
	struct weft_hasher hasher = {0};

	if (weft_asks_for_copies(op->hashing))
		return mem->grant ? weft_donor_copies(mem->donor, mem->grant, op->hashing,
					    op->buf)
				  : -EOPNOTSUPP;
	int r = weft_hasher_set(&hasher, op->hashing->key);

	if (r == 0)
		weft_hasher_hash_blocks(&hasher, op->hashing->block_bytes, mem->base + op->off,
			op->len, op->buf);
	return r;
}

static int carry_out(struct mem_conn *mem, struct tp_op *op)
{
	switch (op->kind) {
	case TP_READ:
		memcpy(op->buf, mem->base + op->off, op->len);
		return 0;
	case TP_WRITE:
		memcpy(mem->base + op->off, op->buf, op->len);
		return 0;
	case TP_ZERO:
		if (mem->granted)
			return weft_region_zero(mem->granted, op->off, op->len,
				!(op->flags & TP_NO_HOLE), op->flags & TP_FAST_ZERO);
		memset(mem->base + op->off, 0, op->len);
		return 0;
	case TP_TRIM:
		if (mem->granted)
			return weft_region_trim(mem->granted, op->off, op->len);
		/* Undefined from here on: not zeros, lest somebody rely on them. */
		memset(mem->base + op->off, 0x5a, op->len);
		return 0;
	case TP_HASH:
		return hash(mem, op);
	case TP_FLUSH:
		return mem->granted ? weft_region_flush(mem->granted) : 0;
	default:
		return 0;
	}
}

static uint64_t next_random(struct mem_conn *mem, uint64_t seed)
{
	if (mem->rng == 0)
		mem->rng = seed;
	/* xorshift64 */
	mem->rng ^= mem->rng << 13;
	mem->rng ^= mem->rng >> 7;
	mem->rng ^= mem->rng << 17;
	return mem->rng;
}

/* The next operation to finish, taken from the queue; NULL: none is due. */
static struct tp_op *take(struct mem_conn *mem, uint64_t now, uint64_t seed)
{
	unsigned nr_due = 0, i = 0;

	while (nr_due < mem->nr_ops && mem->ops[nr_due]->priv[PRIV_DUE_NS] <= now)
		nr_due++;
	if (nr_due == 0)
		return NULL;
	if (seed)
		i = (unsigned)(next_random(mem, seed) % nr_due);
	struct tp_op *op = mem->ops[i];
	memmove(&mem->ops[i], &mem->ops[i + 1], (--mem->nr_ops - i) * sizeof(mem->ops[0]));
	return op;
}

static int mem_progress(struct tp_conn *conn, struct tp_op **done, unsigned max)
{
	struct mem_conn *mem = to_mem(conn);
	struct mem_config *config = mem->config;
	uint64_t now = weft_now_ns();
	unsigned nr = 0;

	/*
	 * The connection becomes ready first, even if it was fenced meanwhile: during
	 * TP_CONNECTING, ESTALE would mean that the contents are gone.
	 */
	if (conn->state == TP_CONNECTING) {
		try_connect(mem);
	} else if (conn->state == TP_READY && atomic_load(&mem->fenced)) {
		tp_conn_fail(conn, ESTALE,
			"the donor ended this session: superseded, lease lost, or it stops");
		release_grant(mem, false);
	}
	if (conn->state == TP_READY && mem->cut != atomic_load(&config->cut)) {
		tp_conn_fail(conn, ECONNRESET, "told to be cut");
		release_grant(mem, false);
	}
	if (conn->state == TP_READY && mem->grant)
		weft_grant_touch(mem->grant, now);
	while (conn->state == TP_READY && nr < max && !atomic_load(&config->hold)) {
		struct tp_op *op = take(mem, now, atomic_load(&config->reorder));

		if (!op)
			break;
		if (op->priv[PRIV_NR] == atomic_load(&config->kill_at) ||
			atomic_load(&config->kill_each)) {
			if (op->kind == TP_WRITE)
				memcpy(mem->base + op->off, op->buf, op->len / 2);
			tp_conn_fail(conn, ECONNRESET, "told to die");
			release_grant(mem, false);
			op->status = tp_conn_op_status(conn);
		} else if (op->priv[PRIV_NR] == atomic_load(&config->fail_at)) {
			op->status = -atomic_load(&config->fail_error);
		} else {
			op->status = carry_out(mem, op);
			if (op->status == 0)
				note_flushed(mem, op);
		}
		done[nr++] = op;
	}
	if (conn->state == TP_FAILED) {
		/* Newest first is as good as any order. */
		while (nr < max && mem->nr_ops > 0) {
			done[nr] = mem->ops[--mem->nr_ops];
			done[nr++]->status = tp_conn_op_status(conn);
		}
	}
	return (int)nr;
}

static int mem_event_fd(struct tp_conn *conn)
{
	return to_mem(conn)->timerfd;
}

static int mem_arm(struct tp_conn *conn)
{
	struct mem_conn *mem = to_mem(conn);
	uint64_t due = 0;
	bool work;

	if (conn->state == TP_READY && mem->nr_ops > 0) {
		due = mem->ops[0]->priv[PRIV_DUE_NS];
		if (atomic_load(&mem->config->hold))
			due = weft_now_ns() + 1000000; /* while on hold: look again soon */
	} else if (atomic_load(&mem->config->cut)) {
		due = weft_now_ns() + 1000000;
	}
	timer_at(mem, due);
	/*
	 * After the timer: a fence or a grant in between has either been seen here or expires it.
	 */
	switch (conn->state) {
	case TP_CONNECTING:
		work = !atomic_load(&mem->config->silent) &&
			(atomic_load(&mem->grant_state) != GRANT_ASKED ||
				atomic_load(&mem->config->refuse));
		break;
	case TP_READY:
		work = atomic_load(&mem->fenced) || (due && due <= weft_now_ns());
		break;
	default:
		work = mem->nr_ops > 0;
	}
	return work ? 0 : POLLIN;
}

const struct tp_ops tp_mem_ops = {
	.name = "mem",
	.open = mem_open,
	.close = mem_close,
	.reg = mem_reg,
	.dereg = mem_dereg,
	.connect = mem_connect,
	.shutdown = mem_shutdown,
	.disconnect = mem_disconnect,
	.post = mem_post,
	.progress = mem_progress,
	.event_fd = mem_event_fd,
	.arm = mem_arm,
};
