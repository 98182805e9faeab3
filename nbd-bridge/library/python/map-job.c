/* SPDX-License-Identifier: MIT */
/*
 * Calls of a map that may take long: one that is interrupted goes on, inside the map's gate.
 */
#include "nbd-bridge/library/python/map-private.h"

#include <errno.h>
#include <stdlib.h>

struct weft_map *py_map_enter(struct py_map *map)
{
	return py_gate_enter(&map->gate, "map") ? map->m : NULL;
}

PyObject *py_map_error(const struct py_map *map, int r, const char *what, const char *why)
{
	return py_error_of(map->state, r,
		PyUnicode_FromFormat("the map of %U %s", map->region->name, what), why);
}

/* ---- calls that may take long ---- */

/* Under the gate's lock: a map that has not ended is open again. */
static void has_unmapped(struct py_map *map, int r)
{
	pthread_mutex_lock(&map->gate.lock);
	if (r == 0)
		map->m = NULL;
	else
		map->gate.closed = false;
	pthread_mutex_unlock(&map->gate.lock);
}

static void run_call(struct py_job *job)
{
	struct py_map_job *call = (struct py_map_job *)job;
	struct py_map *map = call->map;

	switch (call->call) {
	case PY_MAP_SYNC:
		call->r = weft_map_sync(map->m, call->addr, call->len, call->flags);
		break;
	case PY_MAP_PREFETCH:
		call->r = weft_map_prefetch(map->m, call->addr, call->len, call->flags);
		break;
	case PY_MAP_RESET:
		call->r = weft_map_reset(map->m, call->why, sizeof(call->why));
		break;
	case PY_MAP_UNMAP:
		call->r = weft_unmap(map->m, call->flags);
		has_unmapped(map, call->r);
		break;
	}
	py_gate_leave(&map->gate);
}

static void abandoned_call(struct py_job *job)
{
	free(job);
}

bool py_map_call(struct py_map *map, const struct py_map_job *wanted, const char *what,
	const char *(*why)(int r))
{
	struct py_map_job *call = malloc(sizeof(*call));

	if (!call)
		return PyErr_NoMemory();
	*call = *wanted;
	call->job.gate = &map->gate;
	call->job.run = run_call;
	call->job.abandoned = abandoned_call;
	call->map = map;
	py_gate_enter_again(&map->gate);
	if (!py_job_do(&call->job))
		return false;
	if (call->r < 0 && call->why[0])
		py_error(map->state, call->r, call->why);
	else if (call->r < 0)
		py_map_error(map, call->r, what, why ? why(call->r) : NULL);
	bool done = call->r >= 0;
	free(call);
	return done;
}
