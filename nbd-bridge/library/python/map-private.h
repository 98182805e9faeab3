/* SPDX-License-Identifier: MIT */
/*
 * What the files of weft.Map share.
 */
#ifndef WEFT_NBD_BRIDGE_PYTHON_MAP_PRIVATE_H
#define WEFT_NBD_BRIDGE_PYTHON_MAP_PRIVATE_H

#include "nbd-bridge/library/python/python-private.h"

struct py_map {
	PyObject_HEAD
	struct py_state *state;
	struct py_region *region;
	struct weft_map *m; /* NULL: ended */
	struct py_gate gate;
	char *addr;
	uint64_t off, len;
	bool read_only;
	Py_ssize_t nr_views;
	struct py_map *next, **at; /* of the region's maps */
};

static inline struct py_map *py_map_of(PyObject *self)
{
	return (struct py_map *)self;
}

/* The map, for a caller that is inside now (py_gate_leave()); NULL, with an exception. */
struct weft_map *py_map_enter(struct py_map *map);
/* Sets weft.Error: "the map of … " and what; see py_error_of().  Returns NULL. */
PyObject *py_map_error(const struct py_map *map, int r, const char *what, const char *why);

enum py_map_call { PY_MAP_SYNC, PY_MAP_PREFETCH, PY_MAP_RESET, PY_MAP_UNMAP };

struct py_map_job {
	struct py_job job;
	struct py_map *map; /* stays as long as the job is inside its gate */
	enum py_map_call call;
	char *addr;
	size_t len;
	unsigned flags;
	int r;
	char why[PY_WHY_SIZE];
};

/*
 * Does what is wanted; the caller is inside, or has closed the gate.  False, with an exception that
 * begins with `what`.  why: what a result means, or NULL.
 */
bool py_map_call(struct py_map *map, const struct py_map_job *wanted, const char *what,
	const char *(*why)(int r));

/* ---- methods (map-calls.c) ---- */

PyObject *py_map_sync(PyObject *self, PyObject *args, PyObject *keywords);
PyObject *py_map_prefetch(PyObject *self, PyObject *args, PyObject *keywords);
PyObject *py_map_reset(PyObject *self, PyObject *unused);
PyObject *py_map_evict(PyObject *self, PyObject *args, PyObject *keywords);
PyObject *py_map_advise(PyObject *self, PyObject *number);
PyObject *py_map_dirty(PyObject *self, PyObject *args, PyObject *keywords);
PyObject *py_map_rescue(PyObject *self, PyObject *function);
PyObject *py_map_stats(PyObject *self, PyObject *unused);

#endif
