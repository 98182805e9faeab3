/* SPDX-License-Identifier: MIT */
/*
 * Operations over a transport's connection: straight to the donor, or to the socket of a bridge.
 * Waits as a lane does: armed, on the event descriptor.  One thread.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/transport.h"
#include "fabric/base/util.h"
#include "fabric/driver.h"
#include "perf/bench/bench.h"

enum { CONNECT_MS = 10000, ANSWER_MS = 30000 };

struct transport_io {
	struct bench_io io;
	struct tp *tp;
	struct tp_conn *conn;
	struct tp_mem *mem;
	struct tp_op ops[BENCH_MAX_DEPTH];
	struct tp_op *free[BENCH_MAX_DEPTH];
	unsigned nr_free;
};

/* -ETIMEDOUT at the deadline. */
static int wait_for(struct tp_conn *conn, uint64_t deadline_ns)
{
	int events = tp_arm(conn);
	uint64_t now_ns;

	if (events == 0)
		return 0;
	now_ns = weft_now_ns();
	if (now_ns >= deadline_ns)
		return -ETIMEDOUT;
	struct pollfd fd = {.fd = tp_event_fd(conn), .events = (short)events};
	poll(&fd, 1, (int)((deadline_ns - now_ns) / 1000000) + 1);
	return 0;
}

static int submit(struct bench_io *base, struct bench_slot **slots, unsigned n)
{
	struct transport_io *io = weft_container_of(base, struct transport_io, io);
	struct tp_op *ops[BENCH_MAX_DEPTH];

	for (unsigned i = 0; i < n; i++) {
		ops[i] = io->free[--io->nr_free];
		*ops[i] = (struct tp_op){.kind = slots[i]->write ? TP_WRITE : TP_READ,
			.off = slots[i]->off,
			.len = slots[i]->len,
			.buf = slots[i]->buf,
			.mem = io->mem,
			.user = slots[i]};
	}
	/* The cells keep below the depth that was granted. */
	for (unsigned at = 0; at < n;) {
		int r = tp_post(io->conn, ops + at, n - at);

		if (r < 0)
			return r;
		at += (unsigned)r;
	}
	return 0;
}

static int reap(struct bench_io *base, struct bench_slot **done, unsigned max)
{
	struct transport_io *io = weft_container_of(base, struct transport_io, io);
	uint64_t deadline_ns = weft_now_ns() + ANSWER_MS * UINT64_C(1000000);
	struct tp_op *ops[BENCH_MAX_DEPTH];
	int n, r = 0;

	while ((n = tp_progress(io->conn, ops, (unsigned)weft_min(max, BENCH_MAX_DEPTH))) == 0) {
		if (io->conn->nr_outstanding == 0)
			return -ENOTCONN;
		r = wait_for(io->conn, deadline_ns);
		if (r < 0)
			return r;
	}
	for (int i = 0; i < n; i++) {
		done[i] = ops[i]->user;
		done[i]->error = ops[i]->status;
		io->free[io->nr_free++] = ops[i];
	}
	return n;
}

static int flush(struct bench_io *base)
{
	struct transport_io *io = weft_container_of(base, struct transport_io, io);
	struct bench_slot slot = {0}, *done;
	struct tp_op *op = io->free[--io->nr_free];

	*op = (struct tp_op){.kind = TP_FLUSH, .user = &slot};
	int r = tp_post(io->conn, &op, 1);
	if (r == 1)
		r = reap(base, &done, 1);
	return r < 0 ? r : slot.error;
}

static void close_io(struct bench_io *base)
{
	struct transport_io *io = weft_container_of(base, struct transport_io, io);
	struct tp_op *done[BENCH_MAX_DEPTH];

	if (io->conn) {
		tp_shutdown(io->conn);
		while (io->conn->nr_outstanding > 0)
			tp_progress(io->conn, done, BENCH_MAX_DEPTH);
		tp_disconnect(io->conn);
	}
	tp_deregister(io->mem);
	tp_close(io->tp);
	free(io);
}

static int establish(struct transport_io *io, const struct tp_target *target,
	struct weft_error *err)
{
	uint64_t deadline_ns = weft_now_ns() + (CONNECT_MS + 1000) * UINT64_C(1000000);
	int r = tp_connect(io->tp, target, &io->conn, err);

	while (r == 0 && tp_state(io->conn) == TP_CONNECTING) {
		tp_progress(io->conn, NULL, 0);
		if (tp_state(io->conn) == TP_CONNECTING)
			r = wait_for(io->conn, deadline_ns);
		if (r < 0)
			weft_error_set(err, -r, "no answer for %d s", CONNECT_MS / 1000);
	}
	if (r == 0 && tp_state(io->conn) == TP_FAILED) {
		*err = io->conn->why;
		r = io->conn->error;
	}
	return r;
}

int bench_io_connect(const struct tp_ops *ops, const struct weft_uri *uri, const char *port,
	struct weft_held_key *held, bool read_only, bool anonymous, const char *hello_name,
	struct bench_io **ret, struct tp_info *ret_info, struct weft_error *err)
{
	struct weft_key key = {0};
	struct transport_io *io = calloc(1, sizeof(*io));
	struct tp_target target = {
		.host = uri->socket[0] ? uri->socket : uri->host,
		.port = uri->socket[0] ? NULL : port,
		.region = uri->region ? uri->region : "",
		.get_pass = tp_get_pass,
		.pass_host = uri->host,
		.pass_port = uri->port,
		.hello = {.anonymous = anonymous,
			.generation = 1,
			.mode = read_only ? WEFT_MODE_READ : WEFT_MODE_WRITE},
		.connect_timeout_ms = CONNECT_MS,
	};
	int r;

	if (!io)
		return weft_error_set(err, ENOMEM, "out of memory");
	weft_random(target.hello.id, sizeof(target.hello.id));
	strcpy(target.hello.name, hello_name);
	io->io.buf = bench_buf();
	uint64_t start_ns = weft_now_ns();
	r = io->io.buf ? tp_open(ops, NULL, &io->tp, err)
		       : weft_error_set(err, ENOMEM, "out of memory");
	if (r == 0)
		r = tp_register(io->tp, io->io.buf, BENCH_BUF_BYTES, &io->mem, err);
	target.key = weft_held_key_proof(held, &key, &target.certificates);
	if (r == 0)
		r = establish(io, &target, err);
	weft_key_wipe(&key);
	if (r < 0) {
		close_io(&io->io);
		return r;
	}
	const struct tp_info *info = &io->conn->info;
	io->io.ready_ns = weft_now_ns() - start_ns;
	for (; io->nr_free < BENCH_MAX_DEPTH; io->nr_free++)
		io->free[io->nr_free] = &io->ops[io->nr_free];
	io->io.size_bytes = info->size_bytes;
	io->io.max_io_bytes = (uint32_t)weft_min(info->max_io_bytes, UINT32_MAX);
	io->io.max_depth = (unsigned)weft_min(info->depth, BENCH_MAX_DEPTH);
	io->io.submit = submit;
	io->io.reap = reap;
	io->io.flush = flush;
	io->io.close = close_io;
	if (ret_info)
		*ret_info = *info;
	*ret = &io->io;
	return 0;
}
