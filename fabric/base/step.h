/* SPDX-License-Identifier: MIT */
/*
 * Steps of a protocol at which a test can end or pause the process.  Developer builds (WEFT_WERROR)
 * have them; elsewhere they are nothing.
 *
 * $WEFT_STEP is NAME=kill or NAME=stop: at the first step of that name the process gets SIGKILL or
 * SIGSTOP.  $WEFT_STEPS_LOG names a file; the name of each step goes to its end, a line each.
 */
#ifndef WEFT_FABRIC_BASE_STEP_H
#define WEFT_FABRIC_BASE_STEP_H

#ifdef WEFT_STEPS
void weft_step(const char *name); /* any thread */
#else
static inline void weft_step(const char *name)
{
}
#endif

#endif
