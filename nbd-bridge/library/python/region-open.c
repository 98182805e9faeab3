/* SPDX-License-Identifier: MIT */
/*
 * Opening a region: what weft.Region() is given, and the library's call.
 */
#include "nbd-bridge/library/python/python-private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_REGIONS 16 /* weft_open_regions() */

struct open_job {
	struct py_job job;
	char *uris[MAX_REGIONS];
	unsigned nr_uris;
	char *key_file;
	struct weft_options options;
	struct weft *w;
	int r;
	char why[PY_WHY_SIZE];
};

static void free_open(struct open_job *open)
{
	for (unsigned i = 0; i < open->nr_uris; i++)
		free(open->uris[i]);
	free(open->key_file);
	free(open);
}

static void run_open(struct py_job *job)
{
	struct open_job *open = (struct open_job *)job;

	open->r = weft_open_regions((const char *const *)open->uris, open->nr_uris, &open->options,
		&open->w, open->why, sizeof(open->why));
}

static void abandoned_open(struct py_job *job)
{
	struct open_job *open = (struct open_job *)job;

	if (open->r == 0)
		weft_close(open->w);
	free_open(open);
}

static bool copy_uris(struct open_job *open, PyObject *uris)
{
	Py_ssize_t nr = PyTuple_GET_SIZE(uris);

	if (nr < 1 || nr > MAX_REGIONS) {
		PyErr_Format(PyExc_ValueError, "a region has 1 to %d URIs", MAX_REGIONS);
		return false;
	}
	for (Py_ssize_t i = 0; i < nr; i++) {
		const char *uri = PyUnicode_AsUTF8(PyTuple_GET_ITEM(uris, i));

		if (!uri)
			return false;
		open->uris[open->nr_uris] = strdup(uri);
		if (!open->uris[open->nr_uris])
			return PyErr_NoMemory();
		open->nr_uris++;
	}
	return true;
}

struct open_flags {
	int read_only, shared, write_back, new_contents, allow_insecure;
};

static unsigned flags_of(const struct open_flags *flags)
{
	return (flags->read_only ? WEFT_OPEN_READ_ONLY : 0U) |
		(flags->shared ? WEFT_OPEN_SHARED : 0U) |
		(flags->write_back ? WEFT_OPEN_WRITE_BACK : 0U) |
		(flags->new_contents ? WEFT_OPEN_NEW_CONTENTS : 0U) |
		(flags->allow_insecure ? WEFT_OPEN_ALLOW_INSECURE : 0U);
}

static bool parse_options(struct open_job *open, PyObject *keywords)
{
	static char *names[] = {"read_only", "shared", "write_back", "new_contents",
		"allow_insecure", "connections", "cache_bytes", "stripe_bytes", "timeout",
		"dead_timeout", "key_file", NULL};
	struct weft_options *o = &open->options;
	struct open_flags flags = {0};
	PyObject *none = PyTuple_New(0), *key_file = NULL;
	uint64_t connections = 0;

	if (!none)
		return false;
	bool parsed = PyArg_ParseTupleAndKeywords(none, keywords, "|$pppppO&O&O&O&O&O&:Region",
		names, &flags.read_only, &flags.shared, &flags.write_back, &flags.new_contents,
		&flags.allow_insecure, py_to_u64, &connections, py_to_u64, &o->cache_bytes,
		py_to_u64, &o->stripe_bytes, py_to_ms, &o->timeout_ms, py_to_ms,
		&o->dead_timeout_ms, py_to_path, &key_file);
	Py_DECREF(none);
	if (!parsed)
		return false;
	o->size = sizeof(*o);
	o->flags = flags_of(&flags);
	o->connections = connections > UINT32_MAX ? UINT32_MAX : (unsigned)connections;
	if (key_file) {
		open->key_file = strdup(PyBytes_AS_STRING(key_file));
		Py_DECREF(key_file);
		if (!open->key_file)
			return PyErr_NoMemory();
		o->key_file = open->key_file;
	}
	return true;
}

struct weft *py_open(struct py_state *state, PyObject *uris, PyObject *keywords)
{
	struct open_job *open = calloc(1, sizeof(*open));
	struct weft *w = NULL;

	if (!open)
		return (struct weft *)PyErr_NoMemory();
	open->job.run = run_open;
	open->job.abandoned = abandoned_open;
	if (copy_uris(open, uris) && parse_options(open, keywords)) {
		if (!py_job_do(&open->job))
			return NULL;
		if (open->r == 0)
			w = open->w;
		else
			py_error(state, open->r, open->why);
	}
	free_open(open);
	return w;
}
