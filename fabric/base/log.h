/*
 * Log lines on standard error: "weft-serve: warning: …", or with the <N>
 * prefixes of sd-daemon(3) when standard error is the journal.
 * Never called on the I/O path.  Any thread; one write(2) a line.
 */
#ifndef WEFT_FABRIC_BASE_LOG_H
#define WEFT_FABRIC_BASE_LOG_H

enum weft_log_level { WEFT_LOG_ERROR, WEFT_LOG_WARNING, WEFT_LOG_INFO, WEFT_LOG_DEBUG };

/* program: a static string for the line's head.  Lines above `max` are dropped. */
void weft_log_init(const char *program, enum weft_log_level max);
void weft_log(enum weft_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define weft_err(...) weft_log(WEFT_LOG_ERROR, __VA_ARGS__)
#define weft_warn(...) weft_log(WEFT_LOG_WARNING, __VA_ARGS__)
#define weft_info(...) weft_log(WEFT_LOG_INFO, __VA_ARGS__)
#define weft_debug(...) weft_log(WEFT_LOG_DEBUG, __VA_ARGS__)

#endif
