/* SPDX-License-Identifier: MIT */
/*
 * Plots as inline SVG.  Colours are classes of the page's style (f0 to f4), so that they follow a
 * dark theme; what colours say, shapes of markers and dashes say again.  Functions without state.
 */
#ifndef WEFT_PERF_BENCH_PLOT_H
#define WEFT_PERF_BENCH_PLOT_H

#include <stdbool.h>
#include <stdio.h>

enum { PLOT_MAX_POINTS = 32, PLOT_MAX_SEGMENTS = 3 };

struct plot_point {
	double x, y;
	double low, high; /* both 0: no bar */
};

struct plot_series {
	const char *name;
	unsigned colour; /* 0 to 4; the marker's shape, too */
	unsigned dash;   /* 0 to 3; even is a filled marker */
	unsigned nr_points;
	struct plot_point points[PLOT_MAX_POINTS];
};

/* What others published, across the whole plot, with its own text: no series, and no marker. */
struct plot_reference {
	double y;
	char text[96], source[200];
};

struct plot_tick {
	double at;
	char text[16];
};

struct plot {
	const char *title, *x_label, *y_label;
	const char *good; /* which way: "higher", "lower" */
	const char *y_unit; /* in the text of a point */
	struct plot_tick x_ticks[12]; /* x is logarithmic */
	unsigned nr_x_ticks;
	bool sparse; /* markers at ticks and the end only */
	struct plot_reference references[6];
	unsigned nr_references;
};

/* Both axes logarithmic.  Points without a place (y <= 0) are left out. */
void plot_lines(const struct plot *plot, const struct plot_series *series, unsigned nr, FILE *out);

struct plot_bar {
	const char *name;
	double segments[PLOT_MAX_SEGMENTS]; /* below 0: not known */
	char text[32]; /* behind the bar */
};

/* From 0; segment i has the class "s<i>". */
void plot_bars(const char *title, const char *good, const char *x_label,
	const struct plot_bar *bars, unsigned nr, FILE *out);

/* Text for HTML and SVG: no character of it is markup. */
void plot_text(const char *text, FILE *out);
/* A marker, for legends as well. */
void plot_marker(unsigned colour, unsigned dash, double x, double y, const char *tip, FILE *out);

#endif
