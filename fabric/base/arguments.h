/* SPDX-License-Identifier: MIT */
/*
 * Command lines: which argument was not meant to be one.  One thread, before anything is started.
 */
#ifndef WEFT_FABRIC_BASE_ARGUMENTS_H
#define WEFT_FABRIC_BASE_ARGUMENTS_H

#include <getopt.h>
#include <stddef.h>

/*
 * Of the nr arguments that are no options (what getopt_long(3) left), the first that stands behind
 * an option which took no value: buf gets "'r.json' is not a URI: did you mean --json=r.json?", or
 * that the option takes no value.  Without such a one it says that the argument number `wanted`
 * (from 0) is one too many.  noun: what the arguments are, "a URI".  Returns buf.
 */
char *weft_arguments_explain(char *const *arguments, int nr, int wanted, const char *noun,
	const struct option *longs, char *buf, size_t len);

#endif
