/* SPDX-License-Identifier: MIT */
/*
 * Log lines on standard error: "weft-serve: warning: …", or with the <N>
 * prefixes of sd-daemon(3) when standard error is the journal.
 * Never called on the I/O path.  Any thread; one write(2) a line.
 */
#ifndef WEFT_FABRIC_BASE_LOG_H
#define WEFT_FABRIC_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>

enum weft_log_level { WEFT_LOG_ERROR, WEFT_LOG_WARNING, WEFT_LOG_INFO, WEFT_LOG_DEBUG };

/* program: a static string for the line's head.  Lines above `max` are dropped. */
void weft_log_init(const char *program, enum weft_log_level max);
void weft_log(enum weft_log_level level, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#define weft_err(...) weft_log(WEFT_LOG_ERROR, __VA_ARGS__)
#define weft_warn(...) weft_log(WEFT_LOG_WARNING, __VA_ARGS__)
#define weft_info(...) weft_log(WEFT_LOG_INFO, __VA_ARGS__)

/*
 * From now on a thread writes the lines, so that nobody who logs waits for whoever reads: a pipe
 * that is full, a disk or memory that is short.  Lines that find no room, of 256, are counted, and
 * the log says how many.  No other thread logs yet; 0, or -errno: lines are written as before.
 * weft_log_end_thread(): no other thread logs any more; waits for a second at most.
 */
int weft_log_start_thread(void);
void weft_log_end_thread(void);

/*
 * A line of --debug: "weft-serve: debug: [SECONDS] AREA: …", with the seconds of CLOCK_MONOTONIC,
 * as dmesg(1) has them.  The area is the room of the file: "link" in nbd-bridge/link/, "verbs" in
 * transports/verbs/.  While the area is off, the arguments are not evaluated: a line costs a load
 * and a branch.  All the same there are no such lines on the I/O path.
 */
#define weft_debug(...)                                                                            \
	do {                                                                                       \
		static struct weft_debug_site weft_site = {__FILE__, false};                       \
		static struct weft_debug_site *const weft_site_row                                 \
			__attribute__((used, section("weft_debug_sites"))) = &weft_site;           \
		if (weft_site.on)                                                                  \
			weft_debug_print(&weft_site, __VA_ARGS__);                                 \
	} while (0)

/*
 * Turns on the debug lines of some areas: names with commas between them; NULL or "all": every
 * area.  False: this program has no area of a name, which is then in unknown[len]; the other areas
 * are on.  One thread, before others are started.
 */
bool weft_debug_enable(const char *areas, char *unknown, size_t len);
/* The same for the areas in $WEFT_DEBUG, which may name areas that this program does not have. */
void weft_debug_enable_from_environment(void);
/* The areas of this program in alphabetical order, with `between` between them; returns buf. */
char *weft_debug_areas(const char *between, char *buf, size_t len);

/* Private to weft_debug(). */
struct weft_debug_site {
	const char *file;
	bool on;
};
void weft_debug_print(const struct weft_debug_site *site, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#endif
