/* SPDX-License-Identifier: MIT */
/*
 * What callers ask of a map: weft_map_sync() and the like.  See map.c.
 */
#include "nbd-bridge/library/python/map-private.h"

#include <errno.h>

/* ---- what callers ask ---- */

/* (offset, length) of the map; a length that was not given: up to its end. */
static void whole(const struct py_map *map, uint64_t off, uint64_t *len)
{
	if (*len == UINT64_MAX)
		*len = off < map->len ? map->len - off : 0;
}

/* Offsets are bytes of the map, so a place behind it is refused here rather than as an address. */
static bool is_in(struct py_map *map, uint64_t off, uint64_t len)
{
	if (off <= map->len && len <= map->len - off)
		return true;
	PyErr_Format(PyExc_ValueError, "%llu bytes at %llu are not in a map of %llu",
		(unsigned long long)len, (unsigned long long)off, (unsigned long long)map->len);
	return false;
}

/* Enters, for a call of these bytes; NULL, with an exception. */
static struct weft_map *enter_for(struct py_map *map, uint64_t off, uint64_t *len)
{
	struct weft_map *m = py_map_enter(map);

	if (!m)
		return NULL;
	whole(map, off, len);
	if (is_in(map, off, *len))
		return m;
	py_gate_leave(&map->gate);
	return NULL;
}

static PyObject *call_for(struct py_map *map, struct py_map_job *wanted, uint64_t off, uint64_t len,
	const char *what, const char *(*why)(int r))
{
	if (!enter_for(map, off, &len))
		return NULL;
	wanted->addr = map->addr + off;
	wanted->len = len;
	bool done = py_map_call(map, wanted, what, why);
	py_gate_leave(&map->gate);
	return done ? Py_NewRef(Py_None) : NULL;
}

PyObject *py_map_sync(PyObject *self, PyObject *args, PyObject *keywords)
{
	static char *names[] = {"offset", "length", "flush", NULL};
	struct py_map_job wanted = {.call = PY_MAP_SYNC};
	uint64_t off = 0, len = UINT64_MAX;
	int flushes = 0;

	if (!PyArg_ParseTupleAndKeywords(args, keywords, "|O&O&$p:sync", names, py_to_u64, &off,
		    py_to_len, &len, &flushes))
		return NULL;
	wanted.flags = flushes ? WEFT_MAP_FLUSH : 0U;
	return call_for(py_map_of(self), &wanted, off, len, "is not written back", NULL);
}

static const char *why_no_prefetch(int r)
{
	return r == -EAGAIN    ? "too much was asked for, and the last of it has not begun"
		: r == -ENOSPC ? "it is more than three quarters of local_bytes"
		: r == -EIO    ? "the donor cannot be read"
			       : NULL;
}

PyObject *py_map_prefetch(PyObject *self, PyObject *args, PyObject *keywords)
{
	static char *names[] = {"offset", "length", "wait", NULL};
	struct py_map_job wanted = {.call = PY_MAP_PREFETCH};
	uint64_t off = 0, len = UINT64_MAX;
	int waits = 0;

	if (!PyArg_ParseTupleAndKeywords(args, keywords, "|O&O&$p:prefetch", names, py_to_u64, &off,
		    py_to_len, &len, &waits))
		return NULL;
	wanted.flags = waits ? WEFT_MAP_WAIT : 0U;
	return call_for(py_map_of(self), &wanted, off, len, "is not fetched", why_no_prefetch);
}

PyObject *py_map_reset(PyObject *self, PyObject *unused)
{
	struct py_map_job wanted = {.call = PY_MAP_RESET};

	return call_for(py_map_of(self), &wanted, 0, 0, "is not reset", NULL);
}

PyObject *py_map_evict(PyObject *self, PyObject *args, PyObject *keywords)
{
	static char *names[] = {"offset", "length", NULL};
	struct py_map *map = py_map_of(self);
	uint64_t off = 0, len = UINT64_MAX;
	struct weft_map *m;
	int r;

	if (!PyArg_ParseTupleAndKeywords(args, keywords, "|O&O&:evict", names, py_to_u64, &off,
		    py_to_len, &len))
		return NULL;
	m = enter_for(map, off, &len);
	if (!m)
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	r = weft_map_evict(m, map->addr + off, len);
	Py_END_ALLOW_THREADS
	py_gate_leave(&map->gate);
	if (r < 0)
		return py_map_error(map, r, "is not evicted",
			r == -EBUSY ? "the kernel uses some of it" : NULL);
	Py_RETURN_NONE;
}

PyObject *py_map_advise(PyObject *self, PyObject *number)
{
	struct py_map *map = py_map_of(self);
	long advice = PyLong_AsLong(number);
	struct weft_map *m;

	if (advice == -1 && PyErr_Occurred())
		return NULL;
	if (advice != WEFT_MAP_NORMAL && advice != WEFT_MAP_RANDOM) {
		PyErr_SetString(PyExc_ValueError, "advice is weft.NORMAL or weft.RANDOM");
		return NULL;
	}
	m = py_map_enter(map);
	if (!m)
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	weft_map_advise(m, (int)advice);
	Py_END_ALLOW_THREADS
	py_gate_leave(&map->gate);
	Py_RETURN_NONE;
}

enum { EXTENTS = 256 }; /* asked for at a time */

static bool append_extents(PyObject *list, const struct weft_map_extent *extents, int64_t nr)
{
	for (int64_t i = 0; i < nr; i++) {
		PyObject *pair = Py_BuildValue("KK", (unsigned long long)extents[i].off,
			(unsigned long long)extents[i].len);

		if (!pair || PyList_Append(list, pair) < 0) {
			Py_XDECREF(pair);
			return false;
		}
		Py_DECREF(pair);
	}
	return true;
}

static PyObject *list_dirty(struct py_map *map, struct weft_map *m, uint64_t from, unsigned flags)
{
	struct weft_map_extent extents[EXTENTS];
	PyObject *list = PyList_New(0);
	int64_t nr = EXTENTS;

	while (list && nr == EXTENTS) {
		Py_BEGIN_ALLOW_THREADS
		nr = weft_map_dirty(m, from, extents, EXTENTS, flags);
		Py_END_ALLOW_THREADS
		if (nr < 0)
			py_map_error(map, (int)nr, "cannot tell what was written", NULL);
		if (nr < 0 || !append_extents(list, extents, nr))
			Py_CLEAR(list);
		if (nr == EXTENTS)
			from = extents[EXTENTS - 1].off + extents[EXTENTS - 1].len;
	}
	return list;
}

PyObject *py_map_dirty(PyObject *self, PyObject *args, PyObject *keywords)
{
	static char *names[] = {"offset", "reset", NULL};
	struct py_map *map = py_map_of(self);
	uint64_t from = 0;
	int resets = 0;

	if (!PyArg_ParseTupleAndKeywords(args, keywords, "|O&$p:dirty", names, py_to_u64, &from,
		    &resets))
		return NULL;
	struct weft_map *m = py_map_enter(map);
	if (!m)
		return NULL;
	PyObject *list = list_dirty(map, m, from, resets ? WEFT_MAP_RESET : 0U);
	py_gate_leave(&map->gate);
	return list;
}

/* With the GIL: weft_map_rescue() calls it on its caller's thread. */
static int rescue_part(void *ctx, uint64_t off, const void *data, size_t len)
{
	PyObject *said = PyObject_CallFunction(ctx, "Ky#", (unsigned long long)off,
		(const char *)data, (Py_ssize_t)len);

	Py_XDECREF(said);
	return said ? 0 : -ECANCELED;
}

PyObject *py_map_rescue(PyObject *self, PyObject *function)
{
	struct py_map *map = py_map_of(self);
	struct weft_map *m = py_map_enter(map);
	struct py_inside inside;

	if (!m)
		return NULL;
	py_inside_begin(&inside, &map->gate);
	int64_t r = weft_map_rescue(m, rescue_part, function);
	py_inside_end(&inside);
	py_gate_leave(&map->gate);
	if (PyErr_Occurred())
		return NULL;
	if (r < 0)
		return py_map_error(map, (int)r, "has nothing to be rescued",
			r == -EINVAL           ? "the contents are not gone"
				: r == -EAGAIN ? "it is not known yet whether they are gone"
					       : NULL);
	return PyLong_FromLongLong(r);
}

/* ---- what it is ---- */

static PyStructSequence_Field stats_fields[] = {
	{"mode", "how the kernel helps: paged, compat or resident"},
	{"user_faults_only", "system calls get EFAULT for what is not here"},
	{"error", "why the contents are gone, or of the last write; 0: none"},
	{"local_bytes", "the bound of what is here"},
	{"resident_bytes", "in the map"},
	{"staged_bytes", "on their way out, or kept for a while"},
	{"dirty_bytes", "known to be newer than the donor's"},
	{"poisoned_bytes", "SIGBUS at present"},
	{"faults", "page faults that were taken"},
	{"fetched", "units that were fetched"},
	{"fetched_ahead", "before they were needed"},
	{"returned", "units that were wanted again before they were gone"},
	{"evicted", "units that left"},
	{"evicted_dirty", "that had to be written first"},
	{"pinned", "that could not leave, as the kernel used them"},
	{"read_bytes", "from the donor"},
	{"written_bytes", "to the donor"},
	{"write_errors", "writes that failed"},
	{NULL, NULL},
};

PyStructSequence_Desc py_stats_desc = {
	.name = "weft.MapStats",
	.doc = "What a map has done, and holds now.",
	.fields = stats_fields,
	.n_in_sequence = (int)(sizeof(stats_fields) / sizeof(stats_fields[0])) - 1,
};

static PyObject *make_stats(const struct py_map *map, const struct weft_map_stats *s)
{
	const uint64_t numbers[] = {s->local_bytes, s->resident_bytes, s->staged_bytes,
		s->dirty_bytes, s->poisoned_bytes, s->faults, s->fetched, s->fetched_ahead,
		s->returned, s->evicted, s->evicted_dirty, s->pinned, s->read_bytes,
		s->written_bytes, s->write_errors};
	enum { BEFORE = 3, NUMBERS = sizeof(numbers) / sizeof(numbers[0]) };
	PyObject *stats = PyStructSequence_New(map->state->stats);

	if (!stats)
		return NULL;
	PyStructSequence_SetItem(stats, 0, PyUnicode_FromString(s->mode));
	PyStructSequence_SetItem(stats, 1, PyBool_FromLong(s->user_faults_only));
	PyStructSequence_SetItem(stats, 2, PyLong_FromLong(-s->error));
	for (Py_ssize_t i = 0; i < NUMBERS; i++)
		PyStructSequence_SetItem(stats, BEFORE + i,
			PyLong_FromUnsignedLongLong(numbers[i]));
	if (PyErr_Occurred())
		Py_CLEAR(stats);
	return stats;
}

PyObject *py_map_stats(PyObject *self, PyObject *unused)
{
	struct weft_map_stats stats = {.size = sizeof(stats)};
	struct py_map *map = py_map_of(self);
	struct weft_map *m = py_map_enter(map);

	if (!m)
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	weft_map_stats(m, &stats);
	Py_END_ALLOW_THREADS
	py_gate_leave(&map->gate);
	return make_stats(map, &stats);
}
