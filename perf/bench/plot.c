/* SPDX-License-Identifier: MIT */
/* Plots as inline SVG.  Functions without state. */
#include "perf/bench/plot.h"

#include <math.h>
#include <string.h>

#include "fabric/base/util.h"
#include "perf/bench/bench.h"

enum { WIDTH = 480, HEIGHT = 300, LEFT = 66, RIGHT = 14, TOP = 14, BOTTOM = 48 };
enum { BAR_LEFT = 176, BAR_RIGHT = 84, BAR_ROW = 24, BAR_TOP = 8, BAR_BOTTOM = 44 };

void plot_text(const char *text, FILE *out)
{
	static const char marks[] = "<>&\"";
	static const char *const names[] = {"&lt;", "&gt;", "&amp;", "&quot;"};

	for (; *text; text++) {
		const char *mark = strchr(marks, *text);

		/* Control characters are not allowed at all. */
		if (mark)
			fputs(names[mark - marks], out);
		else
			fputc((unsigned char)*text < 0x20 || *text == 0x7f ? ' ' : *text, out);
	}
}

void plot_marker(unsigned colour, unsigned dash, double x, double y, const char *tip, FILE *out)
{
	static const char *const shapes[] = {
		"M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z", /* circle */
		"M-4 -4h8v8h-8z",                                /* square */
		"M0 -5l5 9h-10z",                                /* triangle */
		"M0 -5.5l5.5 5.5l-5.5 5.5l-5.5 -5.5z",           /* diamond */
		"M0 5l5 -9h-10z",                                /* triangle, upside down */
	};

	fprintf(out, "<path class=\"m f%u d%u\" transform=\"translate(%.1f %.1f)\" d=\"%s\">",
		colour, dash, x, y, shapes[colour % WEFT_ARRAY_LEN(shapes)]);
	if (tip) {
		fputs("<title>", out);
		plot_text(tip, out);
		fputs("</title>", out);
	}
	fputs("</path>", out);
}

/* A logarithmic axis. */
struct axis {
	double low, high; /* logarithms */
	double from, to;  /* pixels */
};

static double place(const struct axis *axis, double value)
{
	double share = axis->high > axis->low
		? (log10(value) - axis->low) / (axis->high - axis->low)
		: 0.5;

	return axis->from + share * (axis->to - axis->from);
}

static void begin(const char *title, const char *good, int width, int height, FILE *out)
{
	fprintf(out, "<figure><figcaption>");
	plot_text(title, out);
	fprintf(out,
		" <span>%s is better</span></figcaption><svg viewBox=\"0 0 %d %d\" role=\"img\" "
		"aria-label=\"",
		good, width, height);
	plot_text(title, out);
	fputs("\">\n", out);
}

static void text_at(const char *class, double x, double y, const char *anchor, const char *text,
	FILE *out)
{
	fprintf(out, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", class, x, y,
		anchor);
	plot_text(text, out);
	fputs("</text>\n", out);
}

static void y_ticks(const struct axis *y, FILE *out)
{
	static const double all[] = {1, 2, 5}, few[] = {1};
	double decades = y->high - y->low;
	const double *steps = decades > 3.5 ? few : all;
	size_t nr = decades > 3.5 ? 1 : 3;

	for (int exponent = (int)floor(y->low); exponent <= (int)ceil(y->high); exponent++) {
		for (size_t i = 0; i < nr; i++) {
			double value = steps[i] * pow(10, exponent), at = place(y, value);
			char text[32];

			if (log10(value) < y->low - 1e-9 || log10(value) > y->high + 1e-9)
				continue;
			if (value >= 1e6)
				snprintf(text, sizeof(text), "%g M", value / 1e6);
			else if (value >= 1e4)
				snprintf(text, sizeof(text), "%g k", value / 1e3);
			else
				snprintf(text, sizeof(text), "%g", value);
			fprintf(out, "<path class=\"g\" d=\"M%d %.1fH%d\"/>\n", LEFT, at,
				WIDTH - RIGHT);
			text_at("t", LEFT - 8, at + 4, "end", text, out);
		}
	}
}

static bool at_tick(const struct plot *plot, double x)
{
	for (unsigned i = 0; i < plot->nr_x_ticks; i++)
		if (fabs(plot->x_ticks[i].at / x - 1) < 1e-6)
			return true;
	return false;
}

static void draw_series(const struct plot *plot, const struct plot_series *s, const struct axis *x,
	const struct axis *y, FILE *out)
{
	bool any = false;
	char tip[160], count[32];

	fprintf(out, "<g><path class=\"l f%u d%u\" d=\"", s->colour, s->dash);
	for (unsigned i = 0; i < s->nr_points; i++) {
		if (!(s->points[i].y > 0))
			continue;
		fprintf(out, "%c%.1f %.1f", any ? 'L' : 'M', place(x, s->points[i].x),
			place(y, s->points[i].y));
		any = true;
	}
	fputs(any ? "\">" : "M0 0\">", out);
	fputs("<title>", out);
	plot_text(s->name, out);
	fputs("</title></path>\n", out);
	for (unsigned i = 0; i < s->nr_points; i++) {
		const struct plot_point *p = &s->points[i];

		if (!(p->y > 0) || (plot->sparse && i + 1 < s->nr_points && !at_tick(plot, p->x)))
			continue;
		if (p->low > 0 && p->high > p->low)
			fprintf(out, "<path class=\"e f%u\" d=\"M%.1f %.1fV%.1f\"/>", s->colour,
				place(x, p->x), place(y, p->low), place(y, p->high));
		snprintf(tip, sizeof(tip), "%.100s: %s %.20s", s->name,
			bench_format_count(p->y, count), plot->y_unit);
		plot_marker(s->colour, s->dash, place(x, p->x), place(y, p->y), tip, out);
		fputc('\n', out);
	}
	fputs("</g>\n", out);
}

/* Texts stand at the left and at the right in turn, so that close lines keep theirs. */
static void draw_reference(const struct plot_reference *r, unsigned i, const struct axis *y,
	FILE *out)
{
	double at = place(y, r->y);
	bool left = i % 2 == 0;

	fprintf(out, "<g><path class=\"r\" d=\"M%d %.1fH%d\"><title>", LEFT, at, WIDTH - RIGHT);
	plot_text(r->source, out);
	fputs("</title></path>\n", out);
	text_at("rt", left ? LEFT + 4 : WIDTH - RIGHT - 4, at < TOP + 12 ? at + 11 : at - 3,
		left ? "start" : "end", r->text, out);
	fputs("</g>\n", out);
}

/* The next figure down, or up, that has a tick. */
static double round_down(double value)
{
	double ten = pow(10, floor(log10(value))), head = value / ten;

	return ten * (head >= 5 ? 5 : head >= 2 ? 2 : 1);
}

static double round_up(double value)
{
	double ten = pow(10, floor(log10(value))), head = value / ten;

	return ten * (head > 5 ? 10 : head > 2 ? 5 : head > 1 ? 2 : 1);
}

void plot_lines(const struct plot *plot, const struct plot_series *series, unsigned nr, FILE *out)
{
	double least = INFINITY, most = 0;
	struct axis x = {.from = LEFT + 14, .to = WIDTH - RIGHT - 14},
		    y = {.from = HEIGHT - BOTTOM, .to = TOP};

	for (unsigned s = 0; s < nr; s++)
		for (unsigned i = 0; i < series[s].nr_points; i++) {
			const struct plot_point *p = &series[s].points[i];

			if (!(p->y > 0))
				continue;
			least = fmin(least, p->low > 0 ? p->low : p->y);
			most = fmax(most, fmax(p->high, p->y));
		}
	if (!(most > 0) || plot->nr_x_ticks == 0)
		return;
	for (unsigned i = 0; i < plot->nr_references; i++) {
		least = fmin(least, plot->references[i].y);
		most = fmax(most, plot->references[i].y);
	}
	y.low = log10(round_down(least));
	y.high = log10(round_up(most));
	if (y.high - y.low < 0.3) /* 10 and 12 are not worlds apart */
		y.high = y.low + 1;
	x.low = log10(plot->x_ticks[0].at);
	x.high = log10(plot->x_ticks[plot->nr_x_ticks - 1].at);
	begin(plot->title, plot->good, WIDTH, HEIGHT, out);
	y_ticks(&y, out);
	for (unsigned i = 0; i < plot->nr_x_ticks; i++) {
		double at = place(&x, plot->x_ticks[i].at);

		fprintf(out, "<path class=\"g\" d=\"M%.1f %dV%d\"/>\n", at, HEIGHT - BOTTOM,
			HEIGHT - BOTTOM + 5);
		text_at("t", at, HEIGHT - BOTTOM + 19, "middle", plot->x_ticks[i].text, out);
	}
	fprintf(out, "<path class=\"a\" d=\"M%d %dV%dH%d\"/>\n", LEFT, TOP, HEIGHT - BOTTOM,
		WIDTH - RIGHT);
	text_at("t", (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8, "middle", plot->x_label, out);
	fprintf(out,
		"<text class=\"t\" transform=\"translate(14 %.1f) rotate(-90)\" "
		"text-anchor=\"middle\">",
		(TOP + HEIGHT - BOTTOM) / 2.0);
	plot_text(plot->y_label, out);
	fputs("</text>\n", out);
	for (unsigned i = 0; i < plot->nr_references; i++)
		draw_reference(&plot->references[i], i, &y, out);
	for (unsigned s = 0; s < nr; s++)
		draw_series(plot, &series[s], &x, &y, out);
	fputs("</svg></figure>\n", out);
}

void plot_bars(const char *title, const char *good, const char *x_label,
	const struct plot_bar *bars, unsigned nr, FILE *out)
{
	int height = BAR_TOP + (int)nr * BAR_ROW + BAR_BOTTOM, foot = height - BAR_BOTTOM;
	double most = 0, room = WIDTH - BAR_LEFT - BAR_RIGHT;

	for (unsigned i = 0; i < nr; i++) {
		double sum = 0;

		for (unsigned k = 0; k < PLOT_MAX_SEGMENTS; k++)
			sum += fmax(bars[i].segments[k], 0);
		most = fmax(most, sum);
	}
	if (!(most > 0))
		return;
	begin(title, good, WIDTH, height, out);
	double step = round_down(most / 4); /* 4 to 10 of them */
	for (double at = 0; at <= most * 1.0001; at += step) {
		double x = BAR_LEFT + at / most * room;
		char text[32];

		snprintf(text, sizeof(text), "%.3g", at);
		fprintf(out, "<path class=\"g\" d=\"M%.1f %dV%d\"/>\n", x, BAR_TOP, foot + 5);
		text_at("t", x, foot + 19, "middle", text, out);
	}
	for (unsigned i = 0; i < nr; i++) {
		double x = BAR_LEFT, y = BAR_TOP + i * BAR_ROW + 4;

		text_at("t", BAR_LEFT - 8, y + 12, "end", bars[i].name, out);
		for (unsigned k = 0; k < PLOT_MAX_SEGMENTS; k++) {
			double width = fmax(bars[i].segments[k], 0) / most * room;

			if (width > 0)
				fprintf(out,
					"<rect class=\"s%u\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
					"height=\"16\"/>\n",
					k, x, y, width);
			x += width;
		}
		text_at("v", x + 6, y + 12, "start", bars[i].text, out);
	}
	fprintf(out, "<path class=\"a\" d=\"M%d %dV%d\"/>\n", BAR_LEFT, BAR_TOP, foot);
	text_at("t", BAR_LEFT + room / 2, height - 8, "middle", x_label, out);
	fputs("</svg></figure>\n", out);
}
