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

/* Okabe and Ito's colours, which the colour-blind tell apart too; lighter ones on dark ground. */
static const char style[] =
	":root{color-scheme:light "
	"dark;--bg:#fff;--fg:#1b1f24;--dim:#57606a;--line:#d0d7de;--box:#f6f8fa;"
	"--f0:#0072b2;--f1:#d55e00;--f2:#007a59;--f3:#a3448a;--f4:#1b1f24;--s0:#0072b2;--s1:#"
	"e69f00;--s2:#5f6b76}\n"
	"@media screen and "
	"(prefers-color-scheme:dark){:root{--bg:#12161b;--fg:#e6edf3;--dim:#9da7b1;--line:#39424c;-"
	"-box:#1b2128;"
	"--f0:#56b4e9;--f1:#ff9a4d;--f2:#2fd0a0;--f3:#e49bcf;--f4:#fff;--s0:#56b4e9;--s1:#e6b000;--"
	"s2:#8b97a3}}\n"
	"body{margin:0 auto;max-width:1120px;padding:24px 20px "
	"60px;background:var(--bg);color:var(--fg);"
	"font:15px/1.5 system-ui,-apple-system,'Segoe UI',sans-serif}\n"
	"h1{font-size:clamp(1.15em,5vw,1.6em);margin:0 0 .2em}h2{font-size:1.2em;margin:2em 0 "
	".4em;border-bottom:1px solid var(--line)}"
	"h1,td.w{overflow-wrap:anywhere}td:first-child{white-space:nowrap}p{max-width:75ch;margin:."
	"5em 0}.dim{color:var(--dim)}\n"
	".grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr));gap:"
	"20px}"
	"figure{margin:0;background:var(--box);border:1px solid "
	"var(--line);border-radius:6px;padding:10px 12px}"
	"figcaption{font-weight:600;margin-bottom:4px}figcaption "
	"span{font-weight:400;color:var(--dim);float:right}svg{display:block;width:100%;height:"
	"auto}\n"
	".scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.87em;font-variant-"
	"numeric:tabular-nums}"
	"th,td{padding:3px 8px;text-align:left;border-bottom:1px solid "
	"var(--line);vertical-align:top}"
	"th{color:var(--dim);font-weight:600}td.n,th.n{text-align:right}td.n{white-space:nowrap}th."
	"n{max-width:12em}tr.row th{color:var(--fg);padding-top:14px}\n"
	".legend{display:flex;flex-wrap:wrap;gap:4px 20px;margin:.2em "
	"0}.grid{margin-top:.6em}.legend span{display:inline-flex;align-items:center;gap:6px}"
	".legend svg{width:44px;height:16px}.legend "
	"i{width:14px;height:14px;display:inline-block}\n"
	".t,.v{font-size:12px;fill:var(--dim)}.v{fill:var(--fg)}.g{stroke:var(--line);fill:none}.a{"
	"stroke:var(--dim);fill:none}"
	".l{fill:none;stroke-width:2}.e{fill:none;stroke-width:1.5;opacity:.6}.m{stroke-width:1.8}."
	"l.d1{stroke-dasharray:7 4}"
	".l.d2{stroke-dasharray:2 4}.l.d3{stroke-dasharray:10 3 2 "
	"3}.m.d1,.m.d3{fill:var(--box)!important}"
	".r{fill:none;stroke:var(--dim);stroke-width:1;stroke-dasharray:1 3}.rt{font-size:10px;"
	"font-style:italic;fill:var(--dim)}\n"
	"svg:has(g:hover) g:not(:hover){opacity:.15}\n"
	".f0{stroke:var(--f0)}.m.f0{fill:var(--f0)}.f1{stroke:var(--f1)}.m.f1{fill:var(--f1)}.f2{"
	"stroke:var(--f2)}.m.f2{fill:var(--f2)}"
	".f3{stroke:var(--f3)}.m.f3{fill:var(--f3)}.f4{stroke:var(--f4)}.m.f4{fill:var(--f4)}.s0{"
	"fill:var(--s0);background:var(--s0)}.s1{fill:var(--s1);background:var(--s1)}"
	".s2{fill:var(--s2);background:var(--s2)}\n"
	"@media screen and (max-width:480px){.t,.v{font-size:13px}}\n"
	"@media "
	"print{:root{color-scheme:light}body{padding:0;font-size:11px}figure,tr{break-inside:avoid}"
	"h2,h3,h2+p,.legend,tr.row{break-after:avoid}"
	".grid{grid-template-columns:1fr 1fr;gap:10px}.scroll{overflow:visible}th,td{padding:2px "
	"4px}}\n";

void html_begin(const char *title, FILE *out)
{
	fputs("<!DOCTYPE html>\n<html lang=\"en\" "
	      "xmlns=\"http://www.w3.org/1999/xhtml\"><head><meta charset=\"utf-8\"/>"
	      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"/><title>",
		out);
	plot_text(title, out);
	fprintf(out, "</title><style>\n%s</style></head><body>\n", style);
	html_element("h1", "", title, out);
	fputc('\n', out);
}

void html_end(FILE *out)
{
	fputs("</body></html>\n", out);
}

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
