/* SPDX-License-Identifier: MIT */
/*
 * Programs that weft swap runs, and the signals that end it.  While it works, SIGINT, SIGTERM and
 * SIGHUP are blocked and looked for between steps, so that each step is whole or undone.  One
 * thread.
 */
#ifndef WEFT_NBD_BRIDGE_MAIN_SWAP_RUN_H
#define WEFT_NBD_BRIDGE_MAIN_SWAP_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "fabric/base/error.h"

/* From now on signals wait; and whether one has come, which stays so. */
void swap_signals_hold(void);
bool swap_signals_came(void);
/* Takes them as handled: what comes next is looked for anew. */
void swap_signals_forget(void);
/* For a child that should be ended by them. */
void swap_signals_release(void);

/*
 * Runs argv[0] (found as execvp(3) does) up to its end.  What it says on standard output goes into
 * said[len], or nowhere if said is NULL; standard error is ours.  A signal that comes meanwhile is
 * handed on to it.  0 if it exits with 0; -ECHILD otherwise, with how it ended; or -errno.
 */
int swap_run(const char *const *argv, char *said, size_t len, struct weft_error *err);

/* The path of one of our own programs, "weft-attach", into buf of PATH_MAX bytes.  0, or -errno. */
int swap_own_program(const char *leaf, char *buf);

#endif
