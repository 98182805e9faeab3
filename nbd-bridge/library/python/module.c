/* SPDX-License-Identifier: MIT */
/*
 * The module weft._weft: its types and constants.  Each interpreter has a module of
 * its own; nothing is shared but libweft.
 */
#include "nbd-bridge/library/python/python-private.h"

static bool add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **ret)
{
	*ret = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
	return *ret && PyModule_AddType(module, *ret) == 0;
}

static bool add_error(PyObject *module, PyObject **ret)
{
	*ret = PyErr_NewExceptionWithDoc("weft.Error",
		"What libweft says of something that failed: errno, and a sentence.", PyExc_OSError,
		NULL);
	return *ret && PyModule_AddObjectRef(module, "Error", *ret) == 0;
}

static int exec_module(PyObject *module)
{
	struct py_state *state = PyModule_GetState(module);

	state->stats = PyStructSequence_NewType(&py_stats_desc);
	return add_error(module, &state->error) &&
			add_type(module, &py_region_spec, &state->region) &&
			add_type(module, &py_map_spec, &state->map) && state->stats &&
			PyModule_AddType(module, state->stats) == 0 &&
			PyModule_AddIntConstant(module, "NORMAL", WEFT_MAP_NORMAL) == 0 &&
			PyModule_AddIntConstant(module, "RANDOM", WEFT_MAP_RANDOM) == 0 &&
			PyModule_AddStringConstant(module, "__version__", WEFT_VERSION) == 0
		? 0
		: -1;
}

static int traverse_module(PyObject *module, visitproc visit, void *arg)
{
	struct py_state *state = PyModule_GetState(module);

	Py_VISIT(state->error);
	Py_VISIT(state->region);
	Py_VISIT(state->map);
	Py_VISIT(state->stats);
	return 0;
}

static int clear_module(PyObject *module)
{
	struct py_state *state = PyModule_GetState(module);

	Py_CLEAR(state->error);
	Py_CLEAR(state->region);
	Py_CLEAR(state->map);
	Py_CLEAR(state->stats);
	return 0;
}

static void free_module(void *module)
{
	clear_module(module);
}

static PyModuleDef_Slot module_slots[] = {
	{Py_mod_exec, exec_module},
#ifdef Py_mod_multiple_interpreters
	{Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
	{0, NULL},
};

static struct PyModuleDef module_def = {
	PyModuleDef_HEAD_INIT,
	.m_name = "weft._weft",
	.m_doc = "What weft has in C.",
	.m_size = sizeof(struct py_state),
	.m_slots = module_slots,
	.m_traverse = traverse_module,
	.m_clear = clear_module,
	.m_free = free_module,
};

PyMODINIT_FUNC PyInit__weft(void);

PyMODINIT_FUNC PyInit__weft(void)
{
	return PyModuleDef_Init(&module_def);
}
