/* SPDX-License-Identifier: MIT */
/* Members of a JSON object, whatever it holds.  Functions without state. */
#ifndef WEFT_PERF_BENCH_JSON_H
#define WEFT_PERF_BENCH_JSON_H

#include <jansson.h>

/* "" without one. */
static inline const char *text_of(const json_t *json, const char *key)
{
	const char *text = json_string_value(json_object_get(json, key));

	return text ? text : "";
}

/* -1 without one: all figures here are above. */
static inline double number_of(const json_t *json, const char *key)
{
	const json_t *value = json_object_get(json, key);

	return json_is_number(value) ? json_number_value(value) : -1;
}

#endif
