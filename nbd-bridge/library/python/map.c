/* SPDX-License-Identifier: MIT */
/*
 * weft.Map: a region as memory, which memoryview(), numpy and others see through the buffer
 * protocol.  A map stays as long as anybody has such a view.
 *
 * A thread that touches a map may hold the GIL and wait for a page: the library's threads bring it,
 * which never take the GIL.
 */
#include "nbd-bridge/library/python/map-private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- closing ---- */

static bool is_viewed(const struct py_map *map)
{
	if (map->nr_views == 0)
		return false;
	PyErr_SetString(PyExc_BufferError,
		"the map has views (memoryview, arrays): delete them, "
		"or release() them");
	return true;
}

static bool close_map(struct py_map *map, bool discards)
{
	const struct py_map_job wanted = {.call = PY_MAP_UNMAP,
		.flags = discards ? WEFT_UNMAP_DISCARD : 0U};

	if (!py_gate_is_ours(&map->gate) || is_viewed(map) || !py_gate_close(&map->gate))
		return false;
	if (!map->m)
		return true;
	/* One may have come while the last caller left. */
	if (is_viewed(map)) {
		py_gate_open(&map->gate);
		return false;
	}
	return py_map_call(map, &wanted, "is not written back, and stays", NULL);
}

static PyObject *map_close(PyObject *self, PyObject *args, PyObject *keywords)
{
	static char *names[] = {"discard", NULL};
	int discards = 0;

	if (!PyArg_ParseTupleAndKeywords(args, keywords, "|$p:close", names, &discards) ||
		!close_map(py_map_of(self), discards))
		return NULL;
	Py_RETURN_NONE;
}

static PyObject *map_enter(PyObject *self, PyObject *unused)
{
	if (!py_map_enter(py_map_of(self)))
		return NULL;
	py_gate_leave(&py_map_of(self)->gate);
	return Py_NewRef(self);
}

static PyObject *map_exit(PyObject *self, PyObject *args)
{
	if (!close_map(py_map_of(self), false))
		return NULL;
	Py_RETURN_NONE;
}

bool py_maps_are_viewed(const struct py_region *region)
{
	for (const struct py_map *map = region->maps; map; map = map->next)
		if (is_viewed(map))
			return true;
	return false;
}

static void unlink_map(struct py_map *map)
{
	if (!map->at)
		return;
	*map->at = map->next;
	if (map->next)
		map->next->at = map->at;
	map->at = NULL;
}

bool py_maps_close(struct py_region *region)
{
	bool closed = true;

	/* Others may end a map meanwhile, so each is looked for anew. */
	while (closed && region->maps) {
		struct py_map *map = region->maps;

		Py_INCREF(map);
		closed = close_map(map, false);
		if (closed)
			unlink_map(map);
		Py_DECREF(map);
	}
	return closed;
}

/* Writes back, or says that it could not. */
static void close_at_last(struct py_map *map)
{
	int r = 0;

	py_gate_close_at_last(&map->gate);
	if (map->m) {
		Py_BEGIN_ALLOW_THREADS
		r = weft_unmap(map->m, 0);
		if (r < 0)
			weft_unmap(map->m, WEFT_UNMAP_DISCARD);
		Py_END_ALLOW_THREADS
	}
	map->m = NULL;
	unlink_map(map);
	if (r < 0) {
		py_map_error(map, r, "is not written back", NULL);
		PyErr_WriteUnraisable((PyObject *)map->region);
	}
}

void py_maps_close_at_last(struct py_region *region)
{
	struct py_map *next;

	for (struct py_map *map = region->maps; map; map = next) {
		next = map->next;
		if (map->nr_views == 0)
			close_at_last(map);
	}
}

static void map_finalize(PyObject *self)
{
	struct py_map *map = py_map_of(self);
	PyObject *type, *value, *traceback;

	if (!map->region || map->gate.pid != getpid() || map->nr_views > 0)
		return;
	PyErr_Fetch(&type, &value, &traceback);
	if (map->m && PyErr_ResourceWarning(self, 1, "unclosed %R", self) < 0)
		PyErr_WriteUnraisable(self);
	close_at_last(map);
	PyErr_Restore(type, value, traceback);
}

static void map_dealloc(PyObject *self)
{
	struct py_map *map = py_map_of(self);
	PyTypeObject *type = Py_TYPE(self);

	if (PyObject_CallFinalizerFromDealloc(self) < 0)
		return;
	PyObject_GC_UnTrack(self);
	/* What was viewed when it was finalized is not any more. */
	if (map->m && map->gate.pid == getpid())
		close_at_last(map);
	unlink_map(map);
	Py_XDECREF(map->region);
	py_gate_fini(&map->gate);
	type->tp_free(self);
	Py_DECREF(type);
}

/* Nothing is cleared: a region outlives its maps. */
static int map_traverse(PyObject *self, visitproc visit, void *arg)
{
	Py_VISIT(Py_TYPE(self));
	Py_VISIT(py_map_of(self)->region);
	return 0;
}

/* ---- making one ---- */

static struct py_map *new_map(struct py_region *region)
{
	PyTypeObject *type = region->state->map;
	struct py_map *map = (struct py_map *)type->tp_alloc(type, 0);

	if (!map)
		return NULL;
	map->state = region->state;
	py_gate_init(&map->gate);
	map->region = (struct py_region *)Py_NewRef(region);
	return map;
}

static void link_map(struct py_map *map)
{
	map->at = &map->region->maps;
	map->next = map->region->maps;
	if (map->next)
		map->next->at = &map->next;
	map->region->maps = map;
}

PyObject *py_map_new(struct py_region *region, struct weft *w, uint64_t off, uint64_t len,
	const struct weft_map_options *options)
{
	struct py_map *map = new_map(region);
	char why[PY_WHY_SIZE] = "";
	int r;

	if (!map)
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	r = weft_map(w, off, len, options, &map->m, why, sizeof(why));
	Py_END_ALLOW_THREADS
	if (r < 0) {
		py_error(map->state, r, why);
		Py_DECREF(map);
		return NULL;
	}
	map->addr = weft_map_addr(map->m);
	map->off = off;
	map->len = len;
	map->read_only = options->flags & WEFT_MAP_READ_ONLY;
	link_map(map);
	py_gate_open(&map->gate);
	if (why[0] && PyErr_WarnEx(PyExc_RuntimeWarning, why, 1) < 0) {
		/* The filter made an exception of it. */
		PyObject *type, *value, *traceback;

		PyErr_Fetch(&type, &value, &traceback);
		close_at_last(map);
		PyErr_Restore(type, value, traceback);
		Py_DECREF(map);
		return NULL;
	}
	return (PyObject *)map;
}

/* ---- as a buffer ---- */

static int map_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
	struct py_map *map = py_map_of(self);

	view->obj = NULL;
	if (!py_map_enter(map))
		return -1;
	int r = PyBuffer_FillInfo(view, self, map->addr, (Py_ssize_t)map->len, map->read_only,
		flags);
	map->nr_views += r == 0;
	py_gate_leave(&map->gate);
	return r;
}

static void map_releasebuffer(PyObject *self, Py_buffer *view)
{
	py_map_of(self)->nr_views--;
}

static Py_ssize_t map_length(PyObject *self)
{
	struct py_map *map = py_map_of(self);

	if (!py_map_enter(map))
		return -1;
	py_gate_leave(&map->gate);
	return (Py_ssize_t)map->len;
}

/* ---- what it is ---- */

static PyObject *map_closed(PyObject *self, void *unused)
{
	return PyBool_FromLong(py_gate_is_closed(&py_map_of(self)->gate));
}

static PyObject *map_read_only(PyObject *self, void *unused)
{
	return PyBool_FromLong(py_map_of(self)->read_only);
}

static PyObject *map_offset(PyObject *self, void *unused)
{
	return PyLong_FromUnsignedLongLong(py_map_of(self)->off);
}

static PyObject *map_region(PyObject *self, void *unused)
{
	return Py_NewRef(py_map_of(self)->region);
}

static PyObject *map_repr(PyObject *self)
{
	struct py_map *map = py_map_of(self);

	return PyUnicode_FromFormat("<weft.Map of %U: %llu bytes at %llu%s>", map->region->name,
		(unsigned long long)map->len, (unsigned long long)map->off,
		py_gate_is_closed(&map->gate) ? ", closed" : "");
}

#define DOC(name, text) PyDoc_STRVAR(name##_doc, text)

DOC(sync,
	"sync($self, /, offset=0, length=None, *, flush=False)\n--\n\n"
	"Return when the donor has what was written to these bytes before the call;\n"
	"with flush as durably as the region can be.");
DOC(prefetch,
	"prefetch($self, /, offset=0, length=None, *, wait=False)\n--\n\n"
	"Fetch these bytes before they are needed; with wait return when all are here.");
DOC(evict,
	"evict($self, /, offset=0, length=None)\n--\n\n"
	"Free the memory of these bytes here; what was written is written back first.");
DOC(dirty,
	"dirty($self, /, offset=0, *, reset=False)\n--\n\n"
	"A list of (offset, length): what was written, in whole pages, since the map\n"
	"was made or since dirty(reset=True) told of it.");
DOC(advise,
	"advise($self, advice, /)\n--\n\n"
	"weft.RANDOM: nothing is fetched ahead.  weft.NORMAL: what comes next is.");
DOC(rescue,
	"rescue($self, function, /)\n--\n\n"
	"Once the contents are gone: call function(offset, data) with all that was\n"
	"written and is not known to be at the donor; return how many bytes.");
DOC(reset,
	"reset($self, /)\n--\n\n"
	"Once the contents are gone: begin again with what the region has now.");
DOC(stats, "stats($self, /)\n--\n\nWhat the map has done, and holds now: a weft.MapStats.");
DOC(close,
	"close($self, /, *, discard=False)\n--\n\n"
	"Write back, and end the map.  With discard nothing is written back.  If that\n"
	"fails, or a view lives (BufferError), the map is as before.");

#define KEYWORDS(function) (PyCFunction)(void (*)(void))(function)

static PyMethodDef methods[] = {
	{"sync", KEYWORDS(py_map_sync), METH_VARARGS | METH_KEYWORDS, sync_doc},
	{"prefetch", KEYWORDS(py_map_prefetch), METH_VARARGS | METH_KEYWORDS, prefetch_doc},
	{"evict", KEYWORDS(py_map_evict), METH_VARARGS | METH_KEYWORDS, evict_doc},
	{"dirty", KEYWORDS(py_map_dirty), METH_VARARGS | METH_KEYWORDS, dirty_doc},
	{"advise", py_map_advise, METH_O, advise_doc},
	{"rescue", py_map_rescue, METH_O, rescue_doc},
	{"reset", py_map_reset, METH_NOARGS, reset_doc},
	{"stats", py_map_stats, METH_NOARGS, stats_doc},
	{"close", KEYWORDS(map_close), METH_VARARGS | METH_KEYWORDS, close_doc},
	{"__enter__", map_enter, METH_NOARGS, NULL},
	{"__exit__", map_exit, METH_VARARGS, NULL},
	{0},
};

static PyGetSetDef getset[] = {
	{.name = "closed", .get = map_closed, .doc = "Whether it was closed."},
	{.name = "read_only", .get = map_read_only, .doc = "Whether its views are read-only."},
	{.name = "offset", .get = map_offset, .doc = "Where it begins in its region."},
	{.name = "region", .get = map_region, .doc = "What it is a map of."},
	{0},
};

static PyType_Slot slots[] = {
	{Py_tp_doc,
		"A region of a donor as memory, by the buffer protocol: memoryview(map),\n"
		"numpy.frombuffer(map).  Made by Region.map()."},
	{Py_tp_finalize, map_finalize},
	{Py_tp_dealloc, map_dealloc},
	{Py_tp_traverse, map_traverse},
	{Py_tp_repr, map_repr},
	{Py_tp_methods, methods},
	{Py_tp_getset, getset},
	{Py_sq_length, map_length},
	{Py_bf_getbuffer, map_getbuffer},
	{Py_bf_releasebuffer, map_releasebuffer},
	{0, NULL},
};

PyType_Spec py_map_spec = {
	.name = "weft.Map",
	.basicsize = sizeof(struct py_map),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
		Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.slots = slots,
};
