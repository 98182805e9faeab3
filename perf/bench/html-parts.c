/* SPDX-License-Identifier: MIT */
/*
 * What the page's tables and plots share: its elements, and the cells of a run that they show.
 * Functions without state.
 */
#include <string.h>

#include "fabric/base/util.h"
#include "perf/bench/html.h"
#include "perf/bench/json.h"
#include "perf/bench/plot.h"

const char *html_size(double bytes, char *buf)
{
	return weft_format_size((uint64_t)bytes, buf, 32);
}

void html_element(const char *tag, const char *class, const char *text, FILE *out)
{
	fprintf(out, class[0] ? "<%s class=\"%s\">" : "<%s>", tag, class);
	plot_text(text, out);
	fprintf(out, "</%s>", tag);
}

void html_section(const char *head, const char *what, FILE *out)
{
	html_element("h2", "", head, out);
	if (what[0])
		html_element("p", "dim", what, out);
	fputc('\n', out);
}

const json_t *html_cell(const json_t *run, const char *path, const char *op, double block,
	double depth)
{
	const json_t *one;
	size_t i;

	json_array_foreach(json_object_get(run, "cells"), i, one)
		if (strcmp(text_of(one, "path"), path) == 0 &&
			strcmp(text_of(one, "op"), op) == 0 &&
			number_of(one, "block_bytes") == block && number_of(one, "depth") == depth)
			return one;
	return NULL;
}

unsigned html_values_of(const json_t *run, const char *key, const char *at_key, double at,
	double *values, unsigned max)
{
	const json_t *one;
	unsigned n = 0;
	size_t i;

	json_array_foreach(json_object_get(run, "cells"), i, one) {
		double value = number_of(one, key);
		unsigned k = 0;

		if (at >= 0 && number_of(one, at_key) != at)
			continue;
		while (k < n && values[k] < value)
			k++;
		if ((k < n && values[k] == value) || n == max)
			continue;
		memmove(values + k + 1, values + k, (n - k) * sizeof(*values));
		values[k] = value;
		n++;
	}
	return n;
}

struct html_span html_span_of(const json_t *run)
{
	double values[16];
	struct html_span span = {0};
	unsigned n = html_values_of(run, "block_bytes", "", -1, values, 16);

	if (n > 0) {
		span.least_block = values[0];
		span.most_block = values[n - 1];
	}
	n = html_values_of(run, "depth", "", -1, values, 16);
	if (n > 0) {
		span.least_depth = values[0];
		span.most_depth = values[n - 1];
	}
	return span;
}

bool html_has_op(const json_t *run, const char *op)
{
	const json_t *one;
	size_t i;

	json_array_foreach(json_object_get(run, "cells"), i, one)
		if (strcmp(text_of(one, "op"), op) == 0)
			return true;
	return false;
}
