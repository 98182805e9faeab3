/* SPDX-License-Identifier: MIT */
/* Looking figures up in a run, and which method is best for what.  Functions without state. */
#include <string.h>

#include "fabric/base/util.h"
#include "perf/bench/json.h"
#include "perf/methods/methods.h"

static const double AS_GOOD = 0.8; /* of the best */

const char methods_how_to_decide[] =
	"Take the column of the round trip that ping shows between your machines, and the row of "
	"what your program does: there is the best of weft's methods in plaintext for one program, "
	"and its figure on this page. What a method needs stands further down.";

const char *methods_name(const json_t *cell, char *buf)
{
	const char *transport = text_of(cell, "transport");
	bool plain = strcmp(transport, methods_transports[0].name) == 0;

	snprintf(buf, 64, "%s %s%s%s", text_of(cell, "method"), text_of(cell, "mode"),
		plain ? "" : " over ", plain ? "" : transport);
	return buf;
}

bool methods_is_run(const json_t *run)
{
	return number_of(run, "weft_bench_methods") == 1;
}

const json_t *methods_find(const json_t *run, double rtt_ms, const char *method, const char *mode,
	const char *transport)
{
	const json_t *one;
	size_t i;

	json_array_foreach(json_object_get(run, "cells"), i, one)
		if (number_of(one, "rtt_ms") == rtt_ms &&
			strcmp(text_of(one, "method"), method) == 0 &&
			strcmp(text_of(one, "mode"), mode) == 0 &&
			strcmp(text_of(one, "transport"), transport) == 0)
			return one;
	return NULL;
}

double methods_figure(const json_t *cell, const char *work, const char *figure)
{
	return work[0] ? number_of(
				 json_object_get(json_object_get(cell, "works"), work), figure)
		       : number_of(cell, figure);
}

double methods_cpu_per_gb(const json_t *cell, const char *work)
{
	const json_t *cpu = json_object_get(
		json_object_get(json_object_get(cell, "works"), work), "cpu_s_per_GB");
	static const char *const who[] = {"client", "bridge", "donor"};
	double sum = 0;

	if (!cpu)
		return -1;
	for (size_t i = 0; i < WEFT_ARRAY_LEN(who); i++) {
		const json_t *one = json_object_get(cpu, who[i]);

		if (json_is_object(one))
			sum += number_of(one, "user") + number_of(one, "system");
	}
	return sum;
}

/* What somebody wants, and the figure by which methods are held against it. */
static const struct situation {
	const char *what, *work, *figure, *unit;
	bool less; /* is better */
} situations[] = {
	{"read much, from the beginning to the end", "read", "MB_s", "MB/s", false},
	{"look up small things at random, each about once", "random_read", "p50_us", "us", true},
	{"work on a part that fits in local memory, mostly reading", "fits", "ops_s",
		"operations/s", false},
	{"work on more than fits in local memory", "exceeds", "ops_s", "operations/s", false},
	{"write much, and want it at the donor in the end", "write", "MB_s", "MB/s", false},
	{"write small things at random, and want them at the donor in the end", "random_write",
		"ops_s", "operations/s", false},
	{"change 1 % of it, and want that at the donor", "update", "seconds", "s", true},
	{"want the first bytes soon, on a region that is open", "", "first_ms", "ms", true},
	{"give all of it to another machine", "copy", "seconds", "s", true},
	{"have little processor time to spare (reading)", "read", "cpu", "s/GB", true},
	{"have little memory to spare", "", "resident_bytes", "bytes", true},
};

static double figure_of(const json_t *cell, const struct situation *s)
{
	return strcmp(s->figure, "cpu") == 0 ? methods_cpu_per_gb(cell, s->work)
					     : methods_figure(cell, s->work, s->figure);
}

/* TCP, and RDMA where there is some. */
static bool is_of_table(const char *transport)
{
	return strcmp(transport, "tcp") == 0 || strcmp(transport, "rdma") == 0;
}

/* weft's own, by one program at a time, in plaintext: what is to be decided. */
static bool is_choice(const json_t *cell, double rtt_ms)
{
	return number_of(cell, "rtt_ms") == rtt_ms &&
		!json_is_true(json_object_get(cell, "peer")) &&
		is_of_table(text_of(cell, "transport")) &&
		strcmp(text_of(cell, "method"), "bulk") != 0;
}

static json_t *decide(const json_t *run, const struct situation *s, double rtt_ms)
{
	const json_t *best = NULL, *one;
	json_t *as_good = json_array();
	double most = -1;
	char name[64];
	size_t i;

	json_array_foreach(json_object_get(run, "cells"), i, one) {
		double value = is_choice(one, rtt_ms) ? figure_of(one, s) : -1;

		if (value < 0 || (best && (s->less ? value >= most : value <= most)))
			continue;
		best = one;
		most = value;
	}
	if (!best) {
		json_decref(as_good);
		return NULL;
	}
	json_array_foreach(json_object_get(run, "cells"), i, one) {
		double value = is_choice(one, rtt_ms) ? figure_of(one, s) : -1;

		if (one != best && value >= 0 &&
			(s->less ? value * AS_GOOD <= most : value >= most * AS_GOOD))
			json_array_append_new(as_good, json_string(methods_name(one, name)));
	}
	return json_pack("{s:s, s:f, s:s, s:f, s:s, s:o}", "situation", s->what, "rtt_ms", rtt_ms,
		"best", methods_name(best, name), "figure", most, "unit", s->unit, "as_good",
		as_good);
}

json_t *methods_decide(const json_t *run)
{
	json_t *ret = json_array(), *one;
	double rtts[BENCH_MAX_RTTS];
	unsigned nr = methods_rtts(run, rtts);

	for (size_t i = 0; i < WEFT_ARRAY_LEN(situations); i++)
		for (unsigned k = 0; k < nr; k++)
			if ((one = decide(run, &situations[i], rtts[k])))
				json_array_append_new(ret, one);
	return ret;
}

const json_t *methods_decision(const json_t *all, const char *situation, double rtt_ms)
{
	const json_t *one;
	size_t i;

	json_array_foreach(all, i, one)
		if (strcmp(text_of(one, "situation"), situation) == 0 &&
			(rtt_ms < 0 || number_of(one, "rtt_ms") == rtt_ms))
			return one;
	return NULL;
}

unsigned methods_rtts(const json_t *run, double *ret)
{
	const json_t *one;
	unsigned n = 0;
	size_t i;

	json_array_foreach(json_object_get(run, "cells"), i, one) {
		double rtt_ms = number_of(one, "rtt_ms");
		unsigned k = 0;

		while (k < n && ret[k] != rtt_ms)
			k++;
		if (k == n && n < BENCH_MAX_RTTS)
			ret[n++] = rtt_ms;
	}
	return n;
}
