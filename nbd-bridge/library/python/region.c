/* SPDX-License-Identifier: MIT */
/*
 * _weft.Region: a handle of libweft.  weft.Region, in Python, adds what asyncio needs.
 *
 * A closed region has no handle, and a handle's last user has left when it is closed: everybody who
 * uses it is inside the region's gate.
 */
#include "nbd-bridge/library/python/python-private.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static struct py_region *of(PyObject *self)
{
	return (struct py_region *)self;
}

/* ---- opening ---- */

static PyObject *region_new(PyTypeObject *type, PyObject *uris, PyObject *keywords)
{
	PyTypeObject *ours = type;

	/* The type may be a class in Python that is derived from it. */
	while (ours->tp_base && ours->tp_base->tp_new == region_new)
		ours = ours->tp_base;
	struct py_state *state = PyType_GetModuleState(ours);
	struct py_region *region = state ? (struct py_region *)type->tp_alloc(type, 0) : NULL;

	if (!region)
		return NULL;
	region->state = state;
	region->fd = -1;
	atomic_store(&region->told_fd, -1);
	py_gate_init(&region->gate);
	return (PyObject *)region;
}

static int region_init(PyObject *self, PyObject *uris, PyObject *keywords)
{
	static const char between[] = " ";
	struct py_region *region = of(self);
	PyObject *space = PyUnicode_FromString(between);

	if (region->name) {
		PyErr_SetString(PyExc_RuntimeError, "the region was opened before");
		Py_XDECREF(space);
		return -1;
	}
	struct weft *w = space ? py_open(region->state, uris, keywords) : NULL;
	PyObject *name = w ? PyUnicode_Join(space, uris) : NULL;
	Py_XDECREF(space);
	if (!name) {
		weft_close(w);
		return -1;
	}
	region->name = name;
	region->w = w;
	py_gate_open(&region->gate);
	return 0;
}

/* ---- closing ---- */

struct close_job {
	struct py_job job;
	struct py_region *region;
	struct weft *w;
};

static void run_close(struct py_job *job)
{
	struct close_job *closing = (struct close_job *)job;

	weft_close(closing->w);
	py_gate_leave(&closing->region->gate);
}

static void abandoned_close(struct py_job *job)
{
	free(job);
}

/* The handle goes; its last job is inside the gate until then. */
static bool close_handle(struct py_region *region)
{
	struct close_job *closing = calloc(1, sizeof(*closing));

	if (!closing) {
		PyErr_NoMemory();
		return false;
	}
	*closing = (struct close_job){
		.job = {.gate = &region->gate, .run = run_close, .abandoned = abandoned_close},
		.region = region,
		.w = region->w,
	};
	region->w = NULL;
	py_gate_enter_again(&region->gate);
	if (!py_job_do(&closing->job))
		return false;
	free(closing);
	return true;
}

/*
 * Returns what py_aio_end() does: a list of (future, result, exception), of the operations that had
 * not ended.
 */
static PyObject *region_close(PyObject *self, PyObject *unused)
{
	struct py_region *region = of(self);

	if (!py_gate_is_ours(&region->gate) || py_maps_are_viewed(region) ||
		!py_gate_close(&region->gate))
		return NULL;
	if (region->w && (!py_maps_close(region) || py_maps_are_viewed(region))) {
		py_gate_open(&region->gate);
		return NULL;
	}
	if (region->w && !close_handle(region))
		return NULL;
	return py_aio_end(region);
}

static void warn_of_unclosed(PyObject *self)
{
	if (PyErr_ResourceWarning(self, 1, "unclosed %R", self) < 0) {
		/* As files do: what the filter made of the warning cannot be raised here. */
		if (PyErr_ExceptionMatches(PyExc_Warning))
			PyErr_WriteUnraisable(self);
		PyErr_Clear();
	}
}

/* Nobody has the region any more, and no map of it has a view. */
static void close_at_last(struct py_region *region)
{
	struct weft *w = region->w;

	py_gate_close_at_last(&region->gate);
	region->w = NULL;
	Py_BEGIN_ALLOW_THREADS
	weft_close(w);
	Py_END_ALLOW_THREADS
	Py_XDECREF(py_aio_end(region));
	py_aio_close_fds(region);
}

/*
 * A view that is garbage as well may be looked at by others that are: then the handle stays until
 * the region is freed, which is after its maps.  A child of fork(2) leaves its parent's alone.
 */
static void region_finalize(PyObject *self)
{
	struct py_region *region = of(self);
	PyObject *type, *value, *traceback;

	if (region->gate.pid != getpid())
		return;
	PyErr_Fetch(&type, &value, &traceback);
	if (region->w)
		warn_of_unclosed(self);
	py_maps_close_at_last(region);
	if (!region->maps)
		close_at_last(region);
	PyErr_Restore(type, value, traceback);
}

static void region_dealloc(PyObject *self)
{
	struct py_region *region = of(self);
	PyTypeObject *type = Py_TYPE(self);

	/* Of a class in Python it was called already. */
	if (PyObject_CallFinalizerFromDealloc(self) < 0)
		return;
	PyObject_GC_UnTrack(self);
	if (region->w && region->gate.pid == getpid())
		close_at_last(region);
	Py_CLEAR(region->name);
	py_gate_fini(&region->gate);
	type->tp_free(self);
	Py_DECREF(type);
}

static int region_traverse(PyObject *self, visitproc visit, void *arg)
{
	Py_VISIT(Py_TYPE(self));
	return 0;
}

/* ---- what it is ---- */

static PyObject *region_size(PyObject *self, void *unused)
{
	struct py_region *region = of(self);
	struct weft *w = py_region_enter(region);

	if (!w)
		return NULL;
	uint64_t size = weft_size(w);
	py_region_leave(region);
	return PyLong_FromUnsignedLongLong(size);
}

static PyObject *region_closed(PyObject *self, void *unused)
{
	return PyBool_FromLong(py_gate_is_closed(&of(self)->gate));
}

static PyObject *region_transports(PyObject *self, void *unused)
{
	struct py_region *region = of(self);
	struct weft *w = py_region_enter(region);
	PyObject *list = w ? PyList_New(0) : NULL;
	char transport[32];

	for (unsigned n = 0; list && weft_transport(w, n, transport, sizeof(transport)) == 0; n++) {
		PyObject *text = PyUnicode_FromString(transport);

		if (!text || PyList_Append(list, text) < 0)
			Py_CLEAR(list);
		Py_XDECREF(text);
	}
	if (w)
		py_region_leave(region);
	PyObject *tuple = list ? PyList_AsTuple(list) : NULL;
	Py_XDECREF(list);
	return tuple;
}

static PyObject *region_repr(PyObject *self)
{
	struct py_region *region = of(self);

	if (!region->name)
		return PyUnicode_FromString("<weft.Region>");
	return PyUnicode_FromFormat("<weft.Region %U%s>", region->name,
		py_gate_is_closed(&region->gate) ? ", closed" : "");
}

/* ---- reading and writing ---- */

static PyObject *none_if(bool done)
{
	return done ? Py_NewRef(Py_None) : NULL;
}

static PyObject *region_pread_into(PyObject *self, PyObject *args, PyObject *keywords)
{
	static char *names[] = {"buffer", "offset", NULL};
	Py_buffer buffer;
	uint64_t off;

	if (!PyArg_ParseTupleAndKeywords(args, keywords, "w*O&:pread_into", names, &buffer,
		    py_to_u64, &off))
		return NULL;
	return none_if(py_transfer(of(self), PY_READ, &buffer, off));
}

/* Whether the region has these bytes at all: nobody makes room for them before. */
static bool may_read(struct py_region *region, uint64_t len, uint64_t off)
{
	struct weft *w = py_region_enter(region);

	if (!w)
		return false;
	uint64_t size = weft_size(w);
	py_region_leave(region);
	if (off <= size && len <= size - off)
		return true;
	py_error_of(region->state, -ENOSPC,
		PyUnicode_FromFormat("%llu bytes at %llu of %U cannot be read",
			(unsigned long long)len, (unsigned long long)off, region->name),
		NULL);
	return false;
}

static PyObject *region_pread(PyObject *self, PyObject *args, PyObject *keywords)
{
	static char *names[] = {"size", "offset", NULL};
	uint64_t len, off;
	Py_buffer buffer;

	if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&O&:pread", names, py_to_u64, &len,
		    py_to_u64, &off) ||
		!may_read(of(self), len, off))
		return NULL;
	PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)len);
	/* Nobody else has seen the bytes yet, so they may be written. */
	if (!bytes ||
		PyBuffer_FillInfo(&buffer, bytes, PyBytes_AS_STRING(bytes), (Py_ssize_t)len, 0,
			PyBUF_SIMPLE) < 0 ||
		!py_transfer(of(self), PY_READ, &buffer, off)) {
		Py_XDECREF(bytes);
		return NULL;
	}
	return bytes;
}

static PyObject *region_pwrite(PyObject *self, PyObject *args, PyObject *keywords)
{
	static char *names[] = {"data", "offset", NULL};
	Py_buffer buffer;
	uint64_t off;

	if (!PyArg_ParseTupleAndKeywords(args, keywords, "y*O&:pwrite", names, &buffer, py_to_u64,
		    &off))
		return NULL;
	return none_if(py_transfer(of(self), PY_WRITE, &buffer, off));
}

static PyObject *region_flush(PyObject *self, PyObject *unused)
{
	Py_buffer none = {0};

	return none_if(py_transfer(of(self), PY_FLUSH, &none, 0));
}

/* ---- for asyncio ---- */

static PyObject *region_begin_read(PyObject *self, PyObject *args)
{
	Py_buffer none = {0};
	uint64_t len, off;
	PyObject *future;

	if (!PyArg_ParseTuple(args, "O&O&O", py_to_u64, &len, py_to_u64, &off, &future) ||
		!may_read(of(self), len, off))
		return NULL;
	return none_if(py_aio_begin(of(self), PY_READ, &none, len, off, future));
}

static PyObject *region_begin_read_into(PyObject *self, PyObject *args)
{
	Py_buffer buffer;
	PyObject *future;
	uint64_t off;

	if (!PyArg_ParseTuple(args, "w*O&O", &buffer, py_to_u64, &off, &future))
		return NULL;
	return none_if(py_aio_begin(of(self), PY_READ, &buffer, 0, off, future));
}

static PyObject *region_begin_write(PyObject *self, PyObject *args)
{
	Py_buffer buffer;
	PyObject *future;
	uint64_t off;

	if (!PyArg_ParseTuple(args, "y*O&O", &buffer, py_to_u64, &off, &future))
		return NULL;
	return none_if(py_aio_begin(of(self), PY_WRITE, &buffer, 0, off, future));
}

static PyObject *region_begin_flush(PyObject *self, PyObject *future)
{
	Py_buffer none = {0};

	return none_if(py_aio_begin(of(self), PY_FLUSH, &none, 0, 0, future));
}

static PyObject *region_fd(PyObject *self, PyObject *unused)
{
	int fd = py_aio_fd(of(self));

	return fd < 0 ? NULL : PyLong_FromLong(fd);
}

static PyObject *region_close_fd(PyObject *self, PyObject *unused)
{
	py_aio_close_fds(of(self));
	Py_RETURN_NONE;
}

static PyObject *region_take(PyObject *self, PyObject *unused)
{
	struct py_region *region = of(self);

	/* A loop may ask once more before it hears that another thread has closed the region. */
	if (py_gate_is_closed(&region->gate))
		return PyList_New(0);
	struct weft *w = py_region_enter(region);
	if (!w)
		return NULL;
	PyObject *list = py_aio_take(region, w);
	py_region_leave(region);
	return list;
}

static PyObject *region_begun(PyObject *self, void *unused)
{
	return PyLong_FromUnsignedLong(of(self)->nr_begun);
}

/* ---- maps ---- */

static int to_mode(PyObject *value, void *ret)
{
	static const struct {
		const char *name;
		unsigned mode;
	} modes[] = {
		{"paged", WEFT_MAP_PAGED},
		{"compat", WEFT_MAP_COMPAT},
		{"resident", WEFT_MAP_RESIDENT},
	};

	if (value == Py_None)
		return 1; /* any, as it is */
	if (!PyUnicode_Check(value)) {
		PyErr_Format(PyExc_TypeError, "mode is a str or None, not %.100s",
			Py_TYPE(value)->tp_name);
		return 0;
	}
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		if (PyUnicode_CompareWithASCIIString(value, modes[i].name) == 0) {
			*(unsigned *)ret = modes[i].mode;
			return 1;
		}
	PyErr_Format(PyExc_ValueError, "mode is 'paged', 'compat' or 'resident', not %R", value);
	return 0;
}

static PyObject *region_map(PyObject *self, PyObject *args, PyObject *keywords)
{
	static char *names[] = {"offset", "length", "local_bytes", "unit_bytes", "handlers",
		"read_only", "all_faults", "mode", NULL};
	struct weft_map_options options = {.size = sizeof(options)};
	struct py_region *region = of(self);
	uint64_t off = 0, len = UINT64_MAX, handlers = 0;
	int read_only = 0, all_faults = 0;

	if (!PyArg_ParseTupleAndKeywords(args, keywords, "|O&O&$O&O&O&ppO&:map", names, py_to_u64,
		    &off, py_to_len, &len, py_to_u64, &options.local_bytes, py_to_u64,
		    &options.unit_bytes, py_to_u64, &handlers, &read_only, &all_faults,
		    to_mode, &options.mode))
		return NULL;
	options.handlers = handlers > UINT32_MAX ? UINT32_MAX : (unsigned)handlers;
	options.flags =
		(read_only ? WEFT_MAP_READ_ONLY : 0U) | (all_faults ? WEFT_MAP_ALL_FAULTS : 0U);
	struct weft *w = py_region_enter(region);
	if (!w)
		return NULL;
	/* Of what lies behind the end the library says that it is not there. */
	if (len == UINT64_MAX)
		len = off < weft_size(w) ? weft_size(w) - off : 0;
	PyObject *map = py_map_new(region, w, off, len, &options);
	py_region_leave(region);
	return map;
}

PyDoc_STRVAR(pread_doc,
	"pread($self, /, size, offset)\n--\n\n"
	"Read size bytes at offset, all of them or an exception.");
PyDoc_STRVAR(pread_into_doc,
	"pread_into($self, /, buffer, offset)\n--\n\n"
	"Fill a writable buffer (bytearray, memoryview, array) from offset.");
PyDoc_STRVAR(pwrite_doc,
	"pwrite($self, /, data, offset)\n--\n\n"
	"Write all bytes of data at offset; they are at the donor when it returns\n"
	"(with write_back=True in the cache).");
PyDoc_STRVAR(flush_doc,
	"flush($self, /)\n--\n\n"
	"Make all writes that returned before as durable as the region can be.");
PyDoc_STRVAR(map_doc,
	"map($self, /, offset=0, length=None, *, local_bytes=0, unit_bytes=0,\n"
	"    handlers=0, read_only=False, all_faults=False, mode=None)\n--\n\n"
	"The region's bytes as memory: a weft.Map.\n\n"
	"local_bytes: so much of it is in this machine at a time (0: 256 MiB).\n"
	"unit_bytes: so much is fetched at a time (0: 64 KiB, far away 8 and the rest behind).\n"
	"handlers: threads that take page faults (0: one for each processor, 4 at most).\n"
	"all_faults: refuse a map in which system calls get EFAULT for what is not\n"
	"here; otherwise RuntimeWarning tells of it.\n"
	"mode: 'paged', 'compat' or 'resident', of which the last has all of it in this\n"
	"machine (no local_bytes); None: paged, or compat where the kernel is too old.");
PyDoc_STRVAR(close_doc, "_close($self, /)\n--\n\nClose; what had not ended.");

#define KEYWORDS(function) (PyCFunction)(void (*)(void))(function)

static PyMethodDef methods[] = {
	{"pread", KEYWORDS(region_pread), METH_VARARGS | METH_KEYWORDS, pread_doc},
	{"pread_into", KEYWORDS(region_pread_into), METH_VARARGS | METH_KEYWORDS, pread_into_doc},
	{"pwrite", KEYWORDS(region_pwrite), METH_VARARGS | METH_KEYWORDS, pwrite_doc},
	{"flush", region_flush, METH_NOARGS, flush_doc},
	{"map", KEYWORDS(region_map), METH_VARARGS | METH_KEYWORDS, map_doc},
	{"_close", region_close, METH_NOARGS, close_doc},
	{"_begin_read", region_begin_read, METH_VARARGS, NULL},
	{"_begin_read_into", region_begin_read_into, METH_VARARGS, NULL},
	{"_begin_write", region_begin_write, METH_VARARGS, NULL},
	{"_begin_flush", region_begin_flush, METH_O, NULL},
	{"_fd", region_fd, METH_NOARGS, NULL},
	{"_close_fd", region_close_fd, METH_NOARGS, NULL},
	{"_take", region_take, METH_NOARGS, NULL},
	{0},
};

static PyGetSetDef getset[] = {
	{.name = "size", .get = region_size, .doc = "In bytes; constant."},
	{.name = "closed", .get = region_closed, .doc = "Whether it was closed."},
	{.name = "transports",
		.get = region_transports,
		.doc = "The transport that each region uses now: rdma, tcp or unix, with +tls."},
	{.name = "_begun", .get = region_begun},
	{0},
};

static PyType_Slot slots[] = {
	{Py_tp_doc, "A region of a donor, or several as one device; see weft.Region."},
	{Py_tp_new, region_new},
	{Py_tp_init, region_init},
	{Py_tp_finalize, region_finalize},
	{Py_tp_dealloc, region_dealloc},
	{Py_tp_traverse, region_traverse},
	{Py_tp_repr, region_repr},
	{Py_tp_methods, methods},
	{Py_tp_getset, getset},
	{0, NULL},
};

PyType_Spec py_region_spec = {
	.name = "weft._weft.Region",
	.basicsize = sizeof(struct py_region),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC |
		Py_TPFLAGS_IMMUTABLETYPE,
	.slots = slots,
};
