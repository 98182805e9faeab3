/* SPDX-License-Identifier: MIT */
/* All round trips, one after another, and what was found as one JSON object.  One thread. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "fabric/base/util.h"
#include "perf/bench/json.h"
#include "perf/methods/methods.h"

/* What is left out of the matrix, and why. */
static const char *const pruned[][2] = {
	{"map, socket, file, nbd, ublk, push and move over TLS and QUIC",
		"their way to the region is the library's, which is measured over each transport"},
	{"a map behind a cache", "a map keeps what it fetched by itself"},
	{"resident maps of more than fits", "such a map has all of the region in memory"},
	{"a resident map that is read with system calls", "the program loads and stores"},
	{"swap", "it changes the whole machine: weft swap"},
	{"moves by post-copy",
		"its hand-over is over before its copying is: weft move --post-copy"},
	{"the kernel's page cache", "files and devices are opened with O_DIRECT, so that only what "
				    "the method keeps is near"},
	{"more than one program at a time; several regions; networks that lose packets",
		"weft bench --line has loss and rates"},
};

/* … with lines, and with --at.  Up to a NULL. */
static const char *const pruned_of_lines[][2] = {
	{"RDMA and SRP", "a line has no RDMA device; --at ADDRESS measures them where there is "
			 "one, weft bench weft://HOST/REGION between two machines"},
	{"NVMe-oF and SRP of the kernel, nbd-client",
		"they want root, modules of the kernel and RDMA devices: --device measures them "
		"where somebody set them up"},
	{NULL, NULL},
},
		  *const pruned_here[][2] = {
			  {"round trips", "there is no line: everything is on one machine"},
			  {"bytes on the wire", "nothing counts what stays on a machine"},
			  {"push, move and peers over RDMA",
				  "push and move are of their own protocol over TCP"},
			  {NULL, NULL},
};

/* The same reason is told once, with the round trips that it is of. */
static void note_failed(json_t *missing, const json_t *one)
{
	char what[160];
	json_t *entry;
	size_t i;

	snprintf(what, sizeof(what), "%s %s over %s", text_of(one, "method"), text_of(one, "mode"),
		text_of(one, "transport"));
	json_array_foreach(missing, i, entry)
		if (strcmp(text_of(entry, "what"), what) == 0 &&
			strcmp(text_of(entry, "why"), text_of(one, "why")) == 0) {
			json_array_append(json_object_get(entry, "rtt_ms"),
				json_object_get(one, "rtt_ms"));
			return;
		}
	json_array_append_new(missing,
		json_pack("{s:s, s:s, s:[O]}", "what", what, "why", text_of(one, "why"), "rtt_ms",
			json_object_get(one, "rtt_ms")));
}

static json_t *methods_json(void)
{
	json_t *json = json_array();

	for (unsigned i = 0; i < methods_nr; i++) {
		const struct methods_method *m = &methods_table[i];

		json_array_append_new(json,
			json_pack("{s:s, s:s, s:b, s:s, s:s, s:s?, s:o}", "method", m->name, "mode",
				m->mode, "peer", m->peer, "needs", m->needs, "effort", m->effort,
				"room", m->room, "lines",
				m->room ? json_integer(m->lines) : json_null()));
	}
	return json;
}

static unsigned nr_cells(const struct bench_options *o)
{
	unsigned n = 0;

	for (unsigned m = 0; m < methods_nr; m++)
		for (unsigned t = 0; t < METHODS_NR_TRANSPORTS; t++)
			n += methods_wanted(o, &methods_table[m], &methods_transports[t]);
	return n;
}

static json_t *new_run(const struct bench_options *o)
{
	const char *const(*more)[2] = o->at ? pruned_here : pruned_of_lines;
	time_t now = time(NULL);
	char when[32];

	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
	json_t *missing = json_array();
	for (size_t i = 0; i < WEFT_ARRAY_LEN(pruned); i++)
		json_array_append_new(missing,
			json_pack("{s:s, s:s}", "what", pruned[i][0], "why", pruned[i][1]));
	for (size_t i = 0; more[i][0]; i++)
		json_array_append_new(missing,
			json_pack("{s:s, s:s}", "what", more[i][0], "why", more[i][1]));
	return json_pack("{s:i, s:s?, s:s, s:s, s:I, s:b, s:I, s:o, s:o, s:o, s:o, s:o}",
		"weft_bench_methods", 1, "at", o->at, "version", WEFT_VERSION, "when", when, "seed",
		(json_int_t)o->seed, "quick", o->quick, "region_bytes",
		(json_int_t)(o->span_bytes / METHODS_BULK * METHODS_BULK), "machine",
		bench_machine(), "methods", methods_json(), "published", methods_published(),
		"not_measured", missing, "cells", json_array());
}

int methods_run(const struct bench_options *o, json_t **ret, struct weft_error *err)
{
	unsigned per_rtt = nr_cells(o);
	uint64_t start_ns = weft_now_ns();
	json_t *run, *one;
	int r = 0;
	size_t k;

	if (per_rtt == 0)
		return weft_error_set(err, EINVAL, "nothing is left to measure");
	if (o->at)
		fprintf(stderr,
			"weft-bench: meanwhile whoever reaches %s can read and write, without a "
			"key, the memory that is lent there for this\n",
			o->at);
	run = new_run(o);
	json_t *control = json_array();
	for (unsigned i = 0; r == 0 && i < o->nr_rtts; i++) {
		json_array_append_new(control, json_real(bench_control(UINT64_C(200000000))));
		json_t *station =
			methods_station(o, o->rtts[i], i * per_rtt, per_rtt * o->nr_rtts, err);
		if (!station) {
			r = -err->code;
			break;
		}
		json_array_extend(json_object_get(run, "cells"), json_object_get(station, "cells"));
		json_array_foreach(json_object_get(station, "failed"), k, one)
			note_failed(json_object_get(run, "not_measured"), one);
		json_decref(station);
	}
	bench_progress_end();
	json_object_set_new(run, "control_ops_s", control);
	json_object_set_new(run, "seconds", json_real((double)(weft_now_ns() - start_ns) / 1e9));
	json_object_set_new(run, "decisions", methods_decide(run));
	if (r == 0 && json_array_size(json_object_get(run, "cells")) == 0)
		r = weft_error_set(err, ENODATA, "no method could be measured: %s",
			text_of(json_array_get(json_object_get(run, "not_measured"),
					json_array_size(json_object_get(run, "not_measured")) - 1),
				"why"));
	if (r < 0)
		json_decref(run);
	else
		*ret = run;
	return r;
}
