/* SPDX-License-Identifier: MIT */
/*
 * What the files of the Python module share.  The module knows of weft what <weft.h> says, and
 * nothing else.
 *
 * Threads: a function runs with the GIL unless its comment says otherwise.  No completion, and no
 * other function that the library calls, takes the GIL: a thread that waits for a page of a map
 * holds it.
 */
#ifndef WEFT_NBD_BRIDGE_PYTHON_PRIVATE_H
#define WEFT_NBD_BRIDGE_PYTHON_PRIVATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "nbd-bridge/library/weft.h"

enum { PY_WHY_SIZE = 512 };

/* ---- the module (module.c) ---- */

struct py_state {
	PyObject *error;            /* weft.Error */
	PyTypeObject *region, *map; /* _weft.Region, weft.Map */
	PyTypeObject *stats;        /* weft.MapStats */
};

extern PyType_Spec py_region_spec, py_map_spec;
extern PyStructSequence_Desc py_stats_desc;

/* ---- exceptions and arguments (errors.c) ---- */

/* Sets weft.Error with -r and this sentence; returns NULL. */
PyObject *py_error(const struct py_state *state, int r, const char *sentence);
/*
 * Makes one that says what failed, which it takes over (NULL: an exception is set), and why: what r
 * means in weft.h, unless `why` says it.  NULL, with an exception.
 */
PyObject *py_make_error(const struct py_state *state, int r, PyObject *what, const char *why);
/* Sets such a one; returns NULL. */
PyObject *py_error_of(const struct py_state *state, int r, PyObject *what, const char *why);

/* For PyArg_Parse's "O&": into a uint64_t. */
int py_to_u64(PyObject *number, void *ret);
/* The same; of None UINT64_MAX. */
int py_to_len(PyObject *number, void *ret);
/* From seconds, a float, into milliseconds, a uint32_t; at least one. */
int py_to_ms(PyObject *seconds, void *ret);
/* From a path or None into bytes, a new reference, or NULL. */
int py_to_path(PyObject *path, void *ret);

/* ---- who is inside, and waiting that Ctrl-C ends (wait.c) ---- */

/*
 * Whoever uses an object is inside its gate, so that the object is closed when nobody is.  The lock
 * is held for moments, and nobody waits for the GIL meanwhile.
 */
struct py_gate {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned nr_inside;
	bool closed;
	pid_t pid; /* a child of fork(2) may not use what its parent has */
};

void py_gate_init(struct py_gate *gate);
void py_gate_fini(struct py_gate *gate);
/* False, with an exception: it is closed, or this is a child of the process that opened it. */
bool py_gate_enter(struct py_gate *gate, const char *name);
/* With or without the GIL. */
void py_gate_leave(struct py_gate *gate);
/*
 * Lets nobody in, and returns when nobody is inside.  False, with an exception: a signal came, and
 * the gate is as before.
 */
bool py_gate_close(struct py_gate *gate);
/* The same, whatever comes. */
void py_gate_close_at_last(struct py_gate *gate);
void py_gate_open(struct py_gate *gate);
bool py_gate_is_closed(struct py_gate *gate);
/* One more inside: a job that may go on when its caller, who is inside or has closed it, is gone.
 */
void py_gate_enter_again(struct py_gate *gate);
/* False, with an exception: this is a child of the process that opened it. */
bool py_gate_is_ours(const struct py_gate *gate);

/*
 * A call that may take long.  Lies in memory of its own, as it may go on when its caller was
 * interrupted.
 */
struct py_job {
	struct py_gate *gate;            /* that the caller is inside of; NULL: none */
	void (*run)(struct py_job *job); /* without the GIL, on any thread */
	/* It has run, and its caller does not wait any more; with or without the GIL. */
	void (*abandoned)(struct py_job *job);
	/* Private. */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool has_run, is_abandoned;
};

/*
 * Returns true when the job has run; or false, with an exception: a signal came, and the job is not
 * the caller's any more.
 */
bool py_job_do(struct py_job *job);

/* While Python runs something for a call that is inside the gate: the gate cannot be closed. */
struct py_inside {
	struct py_gate *gate;
	const struct py_inside *outer;
};
void py_inside_begin(struct py_inside *inside, struct py_gate *gate);
void py_inside_end(const struct py_inside *inside);

/*
 * Runs what Python has for signals that came, while a call of this thread waits that is inside the
 * gate (NULL: none).  False, with an exception.
 */
bool py_look_for_signals(struct py_gate *gate);
/* Whether signals end this thread's calls: Python takes them on the first thread alone. */
bool py_hears_signals(void);
uint64_t py_now_ms(void);

enum { PY_LOOK_MS = 100 }; /* so often a thread that waits looks whether a signal came */

/* ---- regions (region.c, region-open.c, aio.c) ---- */

struct py_map;
struct py_op;

struct py_region {
	PyObject_HEAD
	struct py_state *state;
	struct weft *w; /* NULL: closed */
	struct py_gate gate;
	PyObject *name; /* its URIs, as they were given */
	struct py_map *maps;
	/* Operations that have ended and that nobody has taken; pushed by any thread. */
	_Atomic(struct py_op *) ended;
	int fd;              /* of py_aio_fd(); -1: nobody asked */
	_Atomic int told_fd; /* the same */
	unsigned nr_begun;   /* asynchronous operations whose end nobody has taken */
};

/* Opens the regions of a tuple of URIs, with Region()'s keywords; NULL, with an exception. */
struct weft *py_open(struct py_state *state, PyObject *uris, PyObject *keywords);

/* The region's handle, for a caller that is inside now; NULL, with an exception. */
struct weft *py_region_enter(struct py_region *region);
void py_region_leave(struct py_region *region);

enum py_op_kind { PY_READ, PY_WRITE, PY_FLUSH };

/*
 * Moves all bytes of the buffer, which is released in any case, now or when the library has done
 * with it.  False, with an exception.
 */
bool py_transfer(struct py_region *region, enum py_op_kind kind, Py_buffer *buffer, uint64_t off);

/*
 * Begins an operation for a future: of a buffer, which is released when it has ended; or, of
 * PY_READ, of bytes that are made for it.
 */
bool py_aio_begin(struct py_region *region, enum py_op_kind kind, Py_buffer *buffer, size_t len,
	uint64_t off, PyObject *future);
/* A descriptor that is readable when py_aio_take() would find something; -1, with an exception. */
int py_aio_fd(struct py_region *region);
/* A list of (future, result, exception) of operations that have ended; polls first. */
PyObject *py_aio_take(struct py_region *region, struct weft *w);
/* The same, once the handle is closed. */
PyObject *py_aio_end(struct py_region *region);
/* Once no loop has them any more, and the handle is closed. */
void py_aio_close_fds(struct py_region *region);

/* ---- maps (map.c, map-calls.c, map-job.c) ---- */

/* The caller is inside the region. */
PyObject *py_map_new(struct py_region *region, struct weft *w, uint64_t off, uint64_t len,
	const struct weft_map_options *options);
/* Whether a view of any map of the region lives: then BufferError is set. */
bool py_maps_are_viewed(const struct py_region *region);
/* Writes back and ends all maps of the region; false, with an exception: at least one is left. */
bool py_maps_close(struct py_region *region);
/* Ends those that nobody views, whatever comes. */
void py_maps_close_at_last(struct py_region *region);

#endif
