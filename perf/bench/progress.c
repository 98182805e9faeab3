/* SPDX-License-Identifier: MIT */
/* How far the work is: a bar on a terminal, a line a round elsewhere.  One thread. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "perf/bench/bench.h"

enum { BAR = 30, EVERY_MS = 100 };

static unsigned total;
static bool bar;
static char last[160];
static uint64_t drawn_ns;

void bench_progress_begin(unsigned n)
{
	total = n;
	bar = isatty(STDERR_FILENO);
	last[0] = '\0';
}

void bench_progress(unsigned done, const char *fmt, ...)
{
	char text[160], line[BAR + 1];
	struct winsize size;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!bar) {
		/* The part before the comma is worth a line. */
		text[strcspn(text, ",")] = '\0';
		if (strcmp(text, last) != 0)
			fprintf(stderr, "weft-bench: %s\n", text);
		strcpy(last, text);
		return;
	}
	uint64_t now_ns = weft_now_ns();
	if (now_ns - drawn_ns < EVERY_MS * UINT64_C(1000000) && done < total)
		return;
	drawn_ns = now_ns;
	unsigned full = total ? BAR * done / total : 0;
	for (unsigned i = 0; i < BAR; i++)
		line[i] = i < full ? '#' : '.';
	line[BAR] = '\0';
	int room = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > BAR + 12
		? size.ws_col - BAR - 8
		: 40;
	fprintf(stderr, "\r[%s] %3u%% %.*s\033[K", line, total ? 100 * done / total : 0, room,
		text);
}

void bench_progress_end(void)
{
	if (bar)
		fputs("\r\033[K", stderr);
}
