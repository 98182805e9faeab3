/* SPDX-License-Identifier: MIT */
/*
 * Exceptions that say what libweft says, and what functions are given as numbers and paths.
 */
#include "nbd-bridge/library/python/python-private.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* ---- errors ---- */

PyObject *py_error(const struct py_state *state, int r, const char *sentence)
{
	PyObject *error = PyObject_CallFunction(state->error, "is", -r,
		sentence[0] ? sentence : strerror(-r));

	if (error)
		PyErr_SetObject(state->error, error);
	Py_XDECREF(error);
	return NULL;
}

/* What it means for whoever reads, writes or writes back: see weft_pread(). */
static const char *meaning(int r)
{
	switch (-r) {
	case ENOSPC:
		return "that is beyond its end";
	case EPERM:
		return "it was opened to read only";
	case EINVAL:
		return "a plain NBD server wants whole blocks, or the buffer is a map of this "
		       "region";
	case ESTALE:
		return "its contents are gone, or somebody has taken it over";
	case ENOTCONN:
		return "there is no connection to its donor";
	case ETIMEDOUT:
		return "its donor does not answer";
	case ECANCELED:
		return "the region was closed meanwhile";
	case EAGAIN:
		return "too many operations are in flight";
	default:
		return strerror(-r);
	}
}

PyObject *py_make_error(const struct py_state *state, int r, PyObject *what, const char *why)
{
	PyObject *sentence =
		what ? PyUnicode_FromFormat("%U: %s", what, why ? why : meaning(r)) : NULL;
	PyObject *error = sentence ? PyObject_CallFunction(state->error, "iO", -r, sentence) : NULL;

	Py_XDECREF(what);
	Py_XDECREF(sentence);
	return error;
}

PyObject *py_error_of(const struct py_state *state, int r, PyObject *what, const char *why)
{
	PyObject *error = py_make_error(state, r, what, why);

	if (error)
		PyErr_SetObject(state->error, error);
	Py_XDECREF(error);
	return NULL;
}

/* ---- arguments ---- */

int py_to_u64(PyObject *number, void *ret)
{
	PyObject *index = PyNumber_Index(number);

	if (!index)
		return 0;
	unsigned long long n = PyLong_AsUnsignedLongLong(index);
	Py_DECREF(index);
	if (n == (unsigned long long)-1 && PyErr_Occurred())
		return 0;
	*(uint64_t *)ret = n;
	return 1;
}

int py_to_len(PyObject *number, void *ret)
{
	if (number != Py_None)
		return py_to_u64(number, ret);
	*(uint64_t *)ret = UINT64_MAX;
	return 1;
}

int py_to_ms(PyObject *seconds, void *ret)
{
	double s = seconds == Py_None ? 0 : PyFloat_AsDouble(seconds);

	if (s == -1 && PyErr_Occurred())
		return 0;
	if (seconds != Py_None && !(s > 0 && s * 1000 <= UINT32_MAX)) {
		PyErr_SetString(PyExc_ValueError,
			"a time-out is more than 0 s, and some weeks at most");
		return 0;
	}
	*(uint32_t *)ret = (uint32_t)ceil(s * 1000);
	return 1;
}

int py_to_path(PyObject *path, void *ret)
{
	return path == Py_None || PyUnicode_FSConverter(path, ret);
}
