/*
 * libweft.  A handle has one connection, used under its lock by whoever calls, and by its keeper: a thread
 * that shows a sign of life when nobody else does, lest the donor's lease run out.
 * Invariant: no operation is outstanding when the lock is free.
 */
#include "nbd-bridge/library/weft.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/transport.h"
#include "fabric/driver.h"
#include "fabric/uri.h"
#include "fabric/base/util.h"

enum {
	IN_FLIGHT = 16,     /* pieces of one call */
	PIECE_BYTES = 1 << 20,
	BOUNCE_BYTES = 256 << 10, /* a piece over RDMA */
	CONNECT_MS = 10000,
	ANSWER_MS = 30000,
};

struct weft {
	struct weft_uri uri;
	struct tp_target target; /* its strings are the uri's */
	struct tp *tp;
	struct tp_conn *conn; /* NULL: lost */
	struct tp_info info; /* of the first connection; constant */
	/*
	 * What a device may reach must be registered, which costs more than the copy: over RDMA IN_FLIGHT pieces of our own.
	 * NULL: the caller's memory is used.
	 */
	struct tp_mem *bounce;
	int lost; /* -errno: nothing will bring it back */
	pthread_mutex_t lock;
	pthread_cond_t stop_cond;
	bool stop, has_keeper;
	pthread_t keeper;
	uint64_t last_used_ns;
};

/* Waits for the connection to want progress.  -ETIMEDOUT at the deadline. */
static int wait_conn(struct tp_conn *conn, uint64_t deadline_ns)
{
	uint64_t now = weft_now_ns();
	int events = tp_arm(conn);

	if (events == 0)
		return 0;
	if (now >= deadline_ns)
		return -ETIMEDOUT;
	struct pollfd fd = {.fd = tp_event_fd(conn), .events = (short)events};
	if (poll(&fd, 1, (int)((deadline_ns - now + 999999) / 1000000)) < 0 && errno != EINTR)
		return -errno;
	return 0;
}

/* Ends the connection.  Nothing is outstanding after it. */
static void drop(struct weft *w)
{
	struct tp_op *done[IN_FLIGHT];

	if (!w->conn)
		return;
	tp_shutdown(w->conn);
	while (w->conn->nr_outstanding > 0)
		tp_progress(w->conn, done, IN_FLIGHT);
	tp_disconnect(w->conn);
	w->conn = NULL;
}

static int establish(struct weft *w, struct weft_error *err)
{
	uint64_t deadline = weft_now_ns() + (CONNECT_MS + 1000) * UINT64_C(1000000);
	int r = tp_connect(w->tp, &w->target, &w->conn, err);

	if (r < 0)
		return r;
	while (r == 0 && tp_state(w->conn) == TP_CONNECTING) {
		tp_progress(w->conn, NULL, 0);
		if (tp_state(w->conn) == TP_CONNECTING)
			r = wait_conn(w->conn, deadline);
	}
	if (r < 0) {
		drop(w);
		return weft_error_set(err, -r, "cannot connect: %s", strerror(-r));
	}
	if (tp_state(w->conn) == TP_FAILED) {
		if (err)
			*err = w->conn->why;
		r = w->conn->error;
		drop(w);
		return r;
	}
	return 0;
}

/*
 * After a connection was lost.  The next generation's grant implies that the donor has fenced the one before, so
 * that whatever was in flight can be done again.
 */
static int reestablish(struct weft *w)
{
	int r;

	if (w->lost)
		return w->lost;
	drop(w);
	if (!w->info.has_epoch)
		return w->lost = -ENOTCONN;
	if (w->target.hello.epoch == 0)
		w->target.hello.granted = w->target.hello.generation;
	w->target.hello.generation++;
	w->target.hello.epoch = w->info.epoch;
	w->target.hello.version0 = w->info.version0;
	r = establish(w, NULL);
	if (r == 0) {
		w->target.hello.granted = w->target.hello.generation;
		w->target.hello.wrote = false;
	} else if (r == -WEFT_ESUPERSEDED) {
		r = -ESTALE; /* to the caller both say that this handle is done with */
	}
	if (r == 0 && w->conn->info.size_bytes != w->info.size_bytes) {
		drop(w);
		r = -ESTALE;
	}
	if (r == -ESTALE)
		w->lost = r;
	return r == 0 || r == -ESTALE ? r : -ENOTCONN;
}

/* A part of a call; op.user is NULL when it is free. */
struct piece {
	struct tp_op op;
	void *to; /* what was read goes here; NULL: it is there already */
};

/* Waits until at most `most` operations are in flight.  0, or the first failure. */
static int settle(struct weft *w, unsigned most)
{
	uint64_t deadline = weft_now_ns() + ANSWER_MS * UINT64_C(1000000);
	int r = 0;

	while (w->conn->nr_outstanding > most) {
		struct tp_op *done[IN_FLIGHT];
		int n = tp_progress(w->conn, done, IN_FLIGHT);

		for (int i = 0; i < n; i++) {
			const struct piece *piece = done[i]->user;

			if (done[i]->status < 0 && r == 0)
				r = done[i]->status;
			else if (done[i]->status == 0 && piece && piece->to)
				memcpy(piece->to, done[i]->buf, done[i]->len);
			/* For the hello after this connection: the donor has to know of it. */
			if (done[i]->status == 0 && (done[i]->kind == TP_WRITE || done[i]->kind == TP_ZERO || done[i]->kind == TP_TRIM))
				w->target.hello.wrote = true;
			done[i]->user = NULL; /* free again */
		}
		if (n == 0 && wait_conn(w->conn, deadline) < 0) {
			tp_shutdown(w->conn);
			if (r == 0)
				r = -ETIMEDOUT;
		}
	}
	return r;
}

static struct piece *free_piece(struct piece *pieces)
{
	while (pieces->op.user)
		pieces++;
	return pieces;
}

/* mem: NULL: through the bounce. */
static void fill_piece(const struct weft *w, struct piece *piece, unsigned i, enum tp_op_kind kind, struct tp_mem *mem, uint8_t *at)
{
	struct tp_op *op = &piece->op;

	op->kind = (uint8_t)kind;
	op->buf = at;
	op->mem = mem;
	op->user = piece; /* taken */
	if (mem)
		return;
	op->mem = w->bounce;
	op->buf = (uint8_t *)w->bounce->base + (size_t)i * BOUNCE_BYTES;
	piece->to = kind == TP_READ ? at : NULL;
	if (kind == TP_WRITE)
		memcpy(op->buf, at, op->len);
}

/* One attempt at a READ or WRITE, in pieces, several in flight.  Nothing is in flight after it. */
static int move(struct weft *w, enum tp_op_kind kind, void *buf, size_t len, struct tp_mem *mem, uint64_t off)
{
	const uint64_t block = w->info.min_block_bytes, most_bytes = mem ? PIECE_BYTES : BOUNCE_BYTES;
	uint64_t piece_bytes = weft_min(w->info.max_io_bytes, most_bytes / block * block);
	unsigned most = (unsigned)weft_min(IN_FLIGHT, w->info.depth);
	struct piece pieces[IN_FLIGHT] = {0};
	int r = 0, r2;

	for (size_t done = 0; done < len && r == 0;) {
		struct piece *piece = free_piece(pieces);
		struct tp_op *list[1] = {&piece->op};

		piece->op.off = off + done;
		piece->op.len = weft_min(piece_bytes, len - done);
		fill_piece(w, piece, (unsigned)(piece - pieces), kind, mem, (uint8_t *)buf + done);
		r = tp_post(w->conn, list, 1);
		if (r < 0)
			break;
		done += piece->op.len;
		r = settle(w, most - 1);
	}
	r2 = settle(w, 0);
	return r < 0 ? r : r2;
}

/* What goes wrong for a reason that another connection would mend; one that we gave up ourselves, after ANSWER_MS, would not. */
static bool worth_another_try(const struct weft *w, int r)
{
	return r == -ENOTCONN || (r == -ETIMEDOUT && w->conn && w->conn->error == -ETIMEDOUT);
}

static int transfer(struct weft *w, enum tp_op_kind kind, void *buf, size_t len, uint64_t off)
{
	struct tp_mem *mem = NULL;
	int r = 0;

	/* All or nothing: what cannot be done as a whole is not begun. */
	if (off > w->info.size_bytes || len > w->info.size_bytes - off)
		return -ENOSPC;
	if (kind == TP_WRITE && w->info.read_only)
		return -EPERM;
	if (off % w->info.min_block_bytes || len % w->info.min_block_bytes)
		return -EINVAL;
	if (len == 0)
		return 0;
	pthread_mutex_lock(&w->lock);
	/* Costs next to nothing on sockets, and spares a copy. */
	if (!w->bounce)
		r = tp_register(w->tp, buf, len, &mem, NULL);
	if (r == 0) {
		r = w->conn ? move(w, kind, buf, len, mem, off) : -ENOTCONN;
		if (worth_another_try(w, r)) {
			r = reestablish(w);
			if (r == 0)
				r = move(w, kind, buf, len, mem, off);
		}
		if (mem)
			tp_deregister(mem);
	}
	w->last_used_ns = weft_now_ns();
	pthread_mutex_unlock(&w->lock);
	return r;
}

int weft_pread(struct weft *w, void *buf, size_t len, uint64_t off)
{
	return transfer(w, TP_READ, buf, len, off);
}

int weft_pwrite(struct weft *w, const void *buf, size_t len, uint64_t off)
{
	return transfer(w, TP_WRITE, (void *)buf, len, off);
}

/* One operation without data, on the connection that there is. */
static int command(struct weft *w, enum tp_op_kind kind)
{
	struct tp_op op = {.kind = (uint8_t)kind}, *list[1] = {&op};
	int r;

	if (!w->conn)
		return -ENOTCONN;
	r = tp_post(w->conn, list, 1);
	return r < 0 ? r : settle(w, 0);
}

int weft_flush(struct weft *w)
{
	int r;

	/* Without FLUSH at the donor, completed is as durable as it gets. */
	if (!w->info.can_flush)
		return 0;
	pthread_mutex_lock(&w->lock);
	r = command(w, TP_FLUSH);
	if (worth_another_try(w, r)) {
		r = reestablish(w);
		if (r == 0)
			r = command(w, TP_FLUSH);
	}
	w->last_used_ns = weft_now_ns();
	pthread_mutex_unlock(&w->lock);
	return r;
}

uint64_t weft_size(const struct weft *w)
{
	return w->info.size_bytes;
}

static void *keeper_main(void *ctx)
{
	struct weft *w = ctx;
	uint64_t every = w->info.lease_ms * UINT64_C(1000000) / 4;

	pthread_mutex_lock(&w->lock);
	while (!w->stop) {
		uint64_t due = w->last_used_ns + every;

		if (weft_now_ns() >= due) {
			/* A failure is found, and mended, by the next call; an idle region is held meanwhile if it can be. */
			if (!w->lost && worth_another_try(w, command(w, TP_PROBE)))
				reestablish(w);
			w->last_used_ns = weft_now_ns();
			continue;
		}
		struct timespec until = {.tv_sec = (time_t)(due / 1000000000),
			.tv_nsec = (long)(due % 1000000000)};
		pthread_cond_timedwait(&w->stop_cond, &w->lock, &until);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

static int start_keeper(struct weft *w, struct weft_error *err)
{
	sigset_t all, before;
	int r;

	if (w->info.lease_ms == 0)
		return 0;
	/* Signals are for the program's own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&w->keeper, NULL, keeper_main, w);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r != 0)
		return weft_error_set(err, r, "cannot start a thread: %s", strerror(r));
	w->has_keeper = true;
	return 0;
}

void weft_close(struct weft *w)
{
	if (!w)
		return;
	if (w->has_keeper) {
		pthread_mutex_lock(&w->lock);
		w->stop = true;
		pthread_cond_signal(&w->stop_cond);
		pthread_mutex_unlock(&w->lock);
		pthread_join(w->keeper, NULL);
	}
	drop(w);
	if (w->bounce) {
		void *base = w->bounce->base;

		tp_deregister(w->bounce);
		free(base);
	}
	tp_close(w->tp);
	pthread_cond_destroy(&w->stop_cond);
	pthread_mutex_destroy(&w->lock);
	weft_uri_fini(&w->uri);
	free(w);
}

static void init_sync(struct weft *w)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->stop_cond, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&w->lock, NULL);
}

static int open_other(struct weft *w, struct weft_error *err)
{
	const size_t len = (size_t)IN_FLIGHT * BOUNCE_BYTES;
	int r = tp_open(w->uri.transport->ops, NULL, &w->tp, err);

	if (r < 0)
		return r;
	void *base = aligned_alloc(BOUNCE_BYTES, len);
	if (!base)
		return weft_error_set(err, ENOMEM, "cannot open: out of memory");
	r = tp_register(w->tp, base, len, &w->bounce, err);
	if (r < 0)
		free(base);
	return r;
}

static int open_handle(struct weft *w, unsigned flags, struct weft_error *err)
{
	const struct tp_driver *base = w->uri.driver ? w->uri.driver : tp_base_driver();
	struct weft_hello *hello = &w->target.hello;
	int r;

	w->target.host = w->uri.socket[0] ? w->uri.socket : w->uri.host;
	w->target.port = w->uri.port;
	w->target.region = w->uri.region;
	w->target.connect_timeout_ms = CONNECT_MS;
	hello->anonymous = w->uri.foreign;
	weft_random(hello->id, sizeof(hello->id));
	hello->generation = UINT64_C(1) << 32;
	hello->stripe = weft_stripe_whole;
	hello->mode = flags & WEFT_OPEN_SHARED      ? WEFT_MODE_SHARED
		      : flags & WEFT_OPEN_READ_ONLY ? WEFT_MODE_READ
						    : WEFT_MODE_WRITE;
	snprintf(hello->name, sizeof(hello->name), "libweft-%d", (int)getpid());
	r = w->uri.transport && w->uri.transport != base ? open_other(w, err) : tp_open(base->ops, NULL, &w->tp, err);
	if (r == 0)
		r = establish(w, err);
	if (r < 0)
		return r;
	w->info = w->conn->info;
	w->last_used_ns = weft_now_ns();
	if (!(flags & WEFT_OPEN_READ_ONLY) && w->info.read_only)
		return weft_error_set(err, EROFS, "region '%.100s' is read-only", w->uri.region);
	w->info.read_only |= (flags & WEFT_OPEN_READ_ONLY) != 0;
	return start_keeper(w, err);
}

int weft_open(const char *uri, unsigned flags, struct weft **ret, char *why, size_t why_size)
{
	struct weft_error err = {0};
	struct weft *w = NULL;
	int r;

	if (flags & ~(unsigned)(WEFT_OPEN_READ_ONLY | WEFT_OPEN_SHARED) || flags == WEFT_OPEN_SHARED) {
		r = weft_error_set(&err, EINVAL, "cannot open: unknown flags, or SHARED without READ_ONLY");
		goto out;
	}
	w = calloc(1, sizeof(*w));
	if (!w) {
		r = weft_error_set(&err, ENOMEM, "cannot open: out of memory");
		goto out;
	}
	init_sync(w);
	r = weft_uri_parse(uri, &w->uri, &err);
	if (r == 0)
		r = open_handle(w, flags, &err);
	if (r == 0)
		*ret = w;
	else
		weft_close(w);
out:
	if (r < 0 && why_size > 0)
		snprintf(why, why_size, "%s", err.message);
	return r;
}
