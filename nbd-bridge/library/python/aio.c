/* SPDX-License-Identifier: MIT */
/*
 * Reads, writes and flushes of a region: of callers that wait, and of asyncio's futures.
 *
 * Invariants: the library calls has_ended() once for each operation that was begun, on any thread
 * and without the GIL.  An operation whose caller waits on its stack belongs to the caller once its
 * state is OP_ENDED.  All others are pushed on region->ended, from where a thread with the GIL
 * takes them.  The handle is closed before the region goes, and then none is in flight.
 */
#include "nbd-bridge/library/python/python-private.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum op_state {
	OP_IN_FLIGHT, /* its caller waits, or its future */
	OP_ENDED,     /* its caller has it */
	OP_LEFT,      /* in flight, and its caller waits no more */
};

struct py_op {
	struct py_op *next;
	struct py_region *region;
	enum py_op_kind kind;
	uint64_t off;
	Py_buffer buffer;
	PyObject *bytes;  /* NULL: the caller's buffer is used */
	PyObject *future; /* NULL: a caller waits */
	_Atomic int state;
	int error;
};

/* The region whose answers this thread takes for the futures. */
static _Thread_local struct py_region *taking;

/* ---- ending; any thread, without the GIL ---- */

static void push(struct py_op *op)
{
	struct py_region *region = op->region;
	uint64_t one = 1;

	op->next = atomic_load(&region->ended);
	while (!atomic_compare_exchange_weak(&region->ended, &op->next, op))
		;
	/* The operation may be gone.  If the counter is full it is readable anyway. */
	if (region->told_fd >= 0 && taking != region)
		while (write(region->told_fd, &one, sizeof(one)) < 0 && errno == EINTR)
			;
}

static int has_ended(void *user, int error)
{
	struct py_op *op = user;

	op->error = error;
	if (op->future || atomic_exchange(&op->state, OP_ENDED) == OP_LEFT)
		push(op);
	return 1; /* retired */
}

/* ---- beginning ---- */

static struct py_op *new_op(struct py_region *region, enum py_op_kind kind, Py_buffer *buffer,
	uint64_t off)
{
	struct py_op *op = calloc(1, sizeof(*op));

	if (!op) {
		PyBuffer_Release(buffer);
		PyErr_NoMemory();
		return NULL;
	}
	op->region = region;
	op->kind = kind;
	op->off = off;
	op->buffer = *buffer;
	return op;
}

static void free_op(struct py_op *op)
{
	PyBuffer_Release(&op->buffer);
	Py_XDECREF(op->bytes);
	Py_XDECREF(op->future);
	free(op);
}

static void *bytes_of(const struct py_op *op)
{
	return op->bytes ? PyBytes_AS_STRING(op->bytes) : op->buffer.buf;
}

static size_t len_of(const struct py_op *op)
{
	return op->bytes ? (size_t)PyBytes_GET_SIZE(op->bytes) : (size_t)op->buffer.len;
}

static int call(struct weft *w, const struct py_op *op)
{
	return op->kind == PY_READ     ? weft_pread(w, bytes_of(op), len_of(op), op->off)
		: op->kind == PY_WRITE ? weft_pwrite(w, bytes_of(op), len_of(op), op->off)
				       : weft_flush(w);
}

/* 0: it was begun, and may have ended. */
static int begin(struct weft *w, struct py_op *op)
{
	const struct weft_completion completion = {has_ended, op, NULL};
	int64_t r;

	Py_BEGIN_ALLOW_THREADS
	r = op->kind == PY_READ ? weft_aio_pread(w, bytes_of(op), len_of(op), op->off, &completion)
		: op->kind == PY_WRITE
		? weft_aio_pwrite(w, bytes_of(op), len_of(op), op->off, &completion)
		: weft_aio_flush(w, &completion);
	Py_END_ALLOW_THREADS
	return r < 0 ? (int)r : 0;
}

static PyObject *make_error(const struct py_op *op, int r)
{
	static const char *const verbs[] = {[PY_READ] = "read", [PY_WRITE] = "written"};

	return py_make_error(op->region->state, r,
		op->kind == PY_FLUSH
			? PyUnicode_FromFormat("%U cannot be flushed", op->region->name)
			: PyUnicode_FromFormat("%zu bytes at %llu of %U cannot be %s", len_of(op),
				  (unsigned long long)op->off, op->region->name, verbs[op->kind]),
		NULL);
}

static void set_error(const struct py_op *op, int r)
{
	PyObject *error = make_error(op, r);

	if (error)
		PyErr_SetObject((PyObject *)op->region->state->error, error);
	Py_XDECREF(error);
}

/* ---- entering ---- */

/* An interrupted caller leaves its operation; once that has ended, its buffer is given back. */
static void free_left(struct py_region *region)
{
	struct py_op *op = atomic_exchange(&region->ended, NULL);

	while (op) {
		struct py_op *next = op->next;

		free_op(op);
		op = next;
	}
}

struct weft *py_region_enter(struct py_region *region)
{
	if (!py_gate_enter(&region->gate, "region"))
		return NULL;
	if (region->nr_begun == 0 && atomic_load(&region->ended))
		free_left(region);
	return region->w;
}

void py_region_leave(struct py_region *region)
{
	py_gate_leave(&region->gate);
}

/* ---- callers that wait ---- */

/* Without the GIL: until the operation has ended, or it is time to look for signals. */
static void poll_a_while(struct weft *w, const struct py_op *op)
{
	const uint64_t end_ms = py_now_ms() + PY_LOOK_MS;

	do
		weft_aio_poll(w, PY_LOOK_MS);
	while (atomic_load(&op->state) != OP_ENDED && py_now_ms() < end_ms);
}

/* False, with an exception: a signal came, and the operation is not ours any more. */
static bool wait_for(struct weft *w, struct py_op *op)
{
	while (atomic_load(&op->state) != OP_ENDED) {
		Py_BEGIN_ALLOW_THREADS
		poll_a_while(w, op);
		Py_END_ALLOW_THREADS
		if (atomic_load(&op->state) != OP_ENDED &&
			!py_look_for_signals(&op->region->gate)) {
			if (atomic_exchange(&op->state, OP_LEFT) == OP_ENDED)
				free_op(op);
			return false;
		}
	}
	return true;
}

/* 1: it is the library's; otherwise 0, or what failed. */
static int carry_out(struct weft *w, struct py_op *op)
{
	int r;

	if (py_hears_signals()) {
		r = begin(w, op);
		return r < 0 ? r : wait_for(w, op) ? op->error : 1;
	}
	Py_BEGIN_ALLOW_THREADS
	r = call(w, op);
	Py_END_ALLOW_THREADS
	return r;
}

static bool transfer(struct py_region *region, struct weft *w, struct py_op *op)
{
	int r = carry_out(w, op);

	if (r == 1)
		return false;
	if (r < 0)
		set_error(op, r);
	free_op(op);
	return r == 0;
}

bool py_transfer(struct py_region *region, enum py_op_kind kind, Py_buffer *buffer, uint64_t off)
{
	struct py_op *op = new_op(region, kind, buffer, off);
	struct weft *w = op ? py_region_enter(region) : NULL;

	if (!w) {
		if (op)
			free_op(op);
		return false;
	}
	bool done = transfer(region, w, op);
	py_region_leave(region);
	return done;
}

/* ---- futures ---- */

bool py_aio_begin(struct py_region *region, enum py_op_kind kind, Py_buffer *buffer, size_t len,
	uint64_t off, PyObject *future)
{
	struct py_op *op = new_op(region, kind, buffer, off);
	struct weft *w = op ? py_region_enter(region) : NULL;
	int r = 0;

	if (w) {
		op->future = Py_NewRef(future);
		/* Before it can end. */
		region->nr_begun++;
		if (kind == PY_READ && !op->buffer.obj)
			op->bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)len);
		bool has_room = kind != PY_READ || op->buffer.obj || op->bytes;
		r = has_room ? begin(w, op) : 1;
		if (r < 0)
			set_error(op, r);
		py_region_leave(region);
	}
	if (w && r == 0)
		return true;
	region->nr_begun -= w != NULL;
	if (op)
		free_op(op);
	return false;
}

static int watch(int epoll_fd, int fd)
{
	struct epoll_event event = {.events = EPOLLIN};

	return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

/* What the library has for its threads, and what has_ended() has for ours. */
static int make_fds(struct py_region *region, struct weft *w)
{
	int fd = epoll_create1(EPOLL_CLOEXEC), told_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	int of_library = weft_aio_fd(w);
	int r = of_library < 0                                        ? of_library
		: fd < 0 || told_fd < 0                               ? -errno
		: watch(fd, of_library) < 0 || watch(fd, told_fd) < 0 ? -errno
								      : 0;

	if (r < 0) {
		if (fd >= 0)
			close(fd);
		if (told_fd >= 0)
			close(told_fd);
		return r;
	}
	region->fd = fd;
	atomic_store(&region->told_fd, told_fd);
	return 0;
}

int py_aio_fd(struct py_region *region)
{
	struct weft *w = py_region_enter(region);

	if (!w)
		return -1;
	int r = region->fd < 0 ? make_fds(region, w) : 0;
	py_region_leave(region);
	if (r == 0)
		return region->fd;
	py_error_of(region->state, r, PyUnicode_FromString("no descriptor to wait at"), NULL);
	return -1;
}

/* (future, result, exception) */
static PyObject *tell(const struct py_op *op)
{
	PyObject *error = op->error < 0 ? make_error(op, op->error) : NULL;

	if (op->error < 0 && !error)
		return NULL;
	PyObject *result = error || !op->bytes ? Py_None : op->bytes;
	PyObject *told = PyTuple_Pack(3, op->future, result, error ? error : Py_None);
	Py_XDECREF(error);
	return told;
}

/* Of all that have ended, the one that ended first is the first. */
static PyObject *take_ended(struct py_region *region)
{
	struct py_op *op = atomic_exchange(&region->ended, NULL);
	PyObject *list = PyList_New(0);

	while (op) {
		struct py_op *next = op->next;

		if (op->future) {
			PyObject *told = list ? tell(op) : NULL;

			region->nr_begun--;
			if (!told || PyList_Append(list, told) < 0)
				Py_CLEAR(list);
			Py_XDECREF(told);
		}
		free_op(op);
		op = next;
	}
	if (list)
		PyList_Reverse(list);
	return list;
}

PyObject *py_aio_take(struct py_region *region, struct weft *w)
{
	uint64_t n;

	Py_BEGIN_ALLOW_THREADS
	if (region->told_fd >= 0)
		(void)!read(region->told_fd, &n, sizeof(n));
	taking = region;
	weft_aio_poll(w, 0);
	taking = NULL;
	Py_END_ALLOW_THREADS
	return take_ended(region);
}

PyObject *py_aio_end(struct py_region *region)
{
	return take_ended(region);
}

void py_aio_close_fds(struct py_region *region)
{
	if (region->fd >= 0)
		close(region->fd);
	if (region->told_fd >= 0)
		close(region->told_fd);
	region->fd = -1;
	atomic_store(&region->told_fd, -1);
}
