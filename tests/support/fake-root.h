/* SPDX-License-Identifier: MIT */
/*
 * A machine of a test's: files below a temporary directory, which facts_root leads to
 * (fabric/machine/finding.h), and a run directory in it.  One thread.
 */
#ifndef WEFT_TESTS_SUPPORT_FAKE_ROOT_H
#define WEFT_TESTS_SUPPORT_FAKE_ROOT_H

/* Makes the directory, or removes it with all that is in it.  0, or -1. */
int fake_root_make(void);
int fake_root_remove(void);
/* Removes all files; the run directory is empty. */
void fake_root_clear(void);
/* The file at path, with its directories. */
void fake_root_put(const char *path, const char *text);
/* The first line of the file at path, until the next call. */
const char *fake_root_get(const char *path);
/* $WEFT_RUN_DIR. */
const char *fake_root_run_dir(void);

#endif
