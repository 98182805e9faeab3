/* SPDX-License-Identifier: MIT */
/*
 * Private to the page: what html.c, html-parts.c and html-plots.c share.  Functions without state.
 */
#ifndef WEFT_PERF_BENCH_HTML_H
#define WEFT_PERF_BENCH_HTML_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

/* The page's head, with its style, and its title; and its end. */
void html_begin(const char *title, FILE *out);
void html_end(FILE *out);
/* "4 KiB", into buf of at least 32 bytes. */
const char *html_size(double bytes, char *buf);
void html_element(const char *tag, const char *class, const char *text, FILE *out);
/* A heading, and a paragraph if it is not "". */
void html_section(const char *head, const char *what, FILE *out);

/* NULL: not measured. */
const json_t *html_cell(const json_t *run, const char *path, const char *op, double block,
	double depth);
bool html_has_op(const json_t *run, const char *op);
/*
 * The values of key among the cells whose at_key is at (below 0: among all), ascending, each once,
 * at most max of them.  How many.
 */
unsigned html_values_of(const json_t *run, const char *key, const char *at_key, double at,
	double *values, unsigned max);

/* Of all cells; 0 without any. */
struct html_span {
	double least_block, most_block, least_depth, most_depth;
};
struct html_span html_span_of(const json_t *run);

void html_print_plots(const json_t *run, FILE *out);

#endif
