/* SPDX-License-Identifier: MIT */
/* Log lines on standard error.  Any thread; the settings are written once, before threads start. */
#include "fabric/base/log-private.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/util.h"

enum { LINE_BYTES = WEFT_LOG_LINE };

static const char *log_program = "weft";
static enum weft_log_level log_max = WEFT_LOG_INFO;
static int log_journal;
void (*log_write)(const char *line, size_t len) = log_write_now;

void weft_log_init(const char *program, enum weft_log_level max)
{
	log_program = program;
	log_max = max;
	log_journal = getenv("JOURNAL_STREAM") != NULL && !isatty(STDERR_FILENO);
}

void log_write_now(const char *line, size_t len)
{
	if (write(STDERR_FILENO, line, len) < 0)
		return; /* there is nowhere left to say so */
}

/* Writes the line behind the bytes that it begins with. */
__attribute__((format(printf, 3, 0))) static void write_line(char line[LINE_BYTES], int begin,
	const char *fmt, va_list ap)
{
	int n = begin + vsnprintf(line + begin, LINE_BYTES - (size_t)begin, fmt, ap);

	if (n > LINE_BYTES - 2)
		n = LINE_BYTES - 2;
	/* A quoted text may end in a newline of its own, and a peer's may have any byte. */
	n -= line[n - 1] == '\n';
	line[n] = '\0';
	weft_printable(line + begin);
	line[n++] = '\n';
	log_write(line, (size_t)n);
}

static int begin_line(char line[LINE_BYTES], enum weft_log_level level)
{
	static const char *const names[] = {"error: ", "warning: ", "", "debug: "};
	static const char *const journal[] = {"<3>", "<4>", "<6>", "<7>"};

	return snprintf(line, LINE_BYTES, "%s%s: %s", log_journal ? journal[level] : "",
		log_program, names[level]);
}

void weft_log(enum weft_log_level level, const char *fmt, ...)
{
	char line[LINE_BYTES];
	va_list ap;

	if (level > log_max)
		return;
	va_start(ap, fmt);
	write_line(line, begin_line(line, level), fmt, ap);
	va_end(ap);
}

/* ---- debug lines ---- */

/* The linker sets these around all weft_debug() of the program; NULL: there is none. */
extern struct weft_debug_site *const __start_weft_debug_sites[]
	__attribute__((weak, visibility("hidden")));
extern struct weft_debug_site *const __stop_weft_debug_sites[]
	__attribute__((weak, visibility("hidden")));

#define EACH_SITE(at)                                                                              \
	struct weft_debug_site *const *at = __start_weft_debug_sites;                              \
	at < __stop_weft_debug_sites;                                                              \
	at++

/* The path of a file from the root of the tree: the compiler may have been given another. */
static const char *in_tree(const char *file)
{
	static const char *const tops[] = {"fabric/", "nbd-bridge/", "transports/", "perf/"};
	const char *path = NULL;

	for (size_t i = 0; i < WEFT_ARRAY_LEN(tops); i++)
		for (const char *at = strstr(file, tops[i]); at; at = strstr(at + 1, tops[i]))
			if ((at == file || at[-1] == '/') && at > path)
				path = at;
	return path ? path : file;
}

/* The room of a file, "link" of "…/nbd-bridge/link/link.c", as pointer and length. */
static const char *area_of(const char *file, int *ret_len)
{
	const char *path = in_tree(file), *slash = strchr(path, '/');
	const char *room = slash ? slash + 1 : path, *end = strchr(room, '/');

	/* A file outside of rooms: fabric/hello.c. */
	if (!end) {
		room = path;
		end = slash ? slash : path + strlen(path);
	}
	*ret_len = (int)(end - room);
	return room;
}

static bool is_area(const struct weft_debug_site *site, const char *name, size_t len)
{
	int area_len;
	const char *area = area_of(site->file, &area_len);

	return (size_t)area_len == len && strncmp(area, name, len) == 0;
}

static bool enable(const char *area, size_t len)
{
	bool all = len == 3 && strncmp(area, "all", len) == 0, found = all;

	for (EACH_SITE(at)) {
		if (!all && !is_area(*at, area, len))
			continue;
		(*at)->on = true;
		found = true;
	}
	return found;
}

bool weft_debug_enable(const char *areas, char *unknown, size_t len)
{
	bool known = true;

	for (const char *at = areas ? areas : "all"; *at;) {
		size_t n = strcspn(at, ",");

		if (n > 0 && !enable(at, n)) {
			snprintf(unknown, len, "%.*s", (int)n, at);
			known = false;
		}
		at += n + (at[n] == ',');
	}
	return known;
}

void weft_debug_enable_from_environment(void)
{
	const char *areas = getenv("WEFT_DEBUG");
	char unknown[64];

	if (areas)
		weft_debug_enable(areas, unknown, sizeof(unknown));
}

static int compare_areas(const struct weft_debug_site *a, const struct weft_debug_site *b)
{
	int len_a, len_b;
	const char *area_a = area_of(a->file, &len_a), *area_b = area_of(b->file, &len_b);
	int order = strncmp(area_a, area_b, (size_t)(len_a < len_b ? len_a : len_b));

	return order ? order : len_a - len_b;
}

/* The first area behind `last` (NULL: of all) in alphabetical order; NULL: there is none. */
static const struct weft_debug_site *next_area(const struct weft_debug_site *last)
{
	const struct weft_debug_site *next = NULL;

	for (EACH_SITE(at))
		if ((!last || compare_areas(*at, last) > 0) &&
			(!next || compare_areas(*at, next) < 0))
			next = *at;
	return next;
}

char *weft_debug_areas(const char *between, char *buf, size_t len)
{
	const struct weft_debug_site *site = NULL;
	size_t n = 0;

	buf[0] = '\0';
	while ((site = next_area(site)) && n < len) {
		int area_len;
		const char *area = area_of(site->file, &area_len);

		n += (size_t)snprintf(
			buf + n, len - n, "%s%.*s", n > 0 ? between : "", area_len, area);
	}
	return buf;
}

void weft_debug_print(const struct weft_debug_site *site, const char *fmt, ...)
{
	char line[LINE_BYTES];
	uint64_t us = weft_now_ns() / 1000;
	int n = begin_line(line, WEFT_LOG_DEBUG), area_len;
	const char *area = area_of(site->file, &area_len);
	va_list ap;

	n += snprintf(line + n, sizeof(line) - (size_t)n,
		"[%5llu.%06llu] %.*s: ", (unsigned long long)(us / 1000000),
		(unsigned long long)(us % 1000000), area_len, area);
	va_start(ap, fmt);
	write_line(line, n, fmt, ap);
	va_end(ap);
}
