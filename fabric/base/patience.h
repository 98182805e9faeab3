/* SPDX-License-Identifier: MIT */
/*
 * Tells a person who waits what the program waits for, for how long, and how to give up.  For
 * programs with one thread.
 */
#ifndef WEFT_FABRIC_BASE_PATIENCE_H
#define WEFT_FABRIC_BASE_PATIENCE_H

/*
 * If weft_patience_end() is not called within half a second, the text and a newline go to standard
 * error, once: "weft-list: waiting for an answer of HOST, up to 10 s (Ctrl-C gives up)".  A new
 * text replaces one that was not printed yet.
 */
void weft_patience_begin(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void weft_patience_end(void);

#endif
