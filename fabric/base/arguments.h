/* SPDX-License-Identifier: MIT */
/*
 * Command lines: finds the argument that the user meant as something else.  One thread, before
 * anything is started.
 */
#ifndef WEFT_FABRIC_BASE_ARGUMENTS_H
#define WEFT_FABRIC_BASE_ARGUMENTS_H

#include <getopt.h>
#include <stddef.h>

/*
 * Looks among the nr arguments that are no options (what getopt_long(3) left) for the first that
 * stands behind an option which took no value.  buf gets "'r.json' is not a URI: did you mean
 * --json=r.json?", or that the option takes no value.  If there is no such argument, buf says that
 * argument number `wanted` (from 0) is one too many.  noun: what the arguments are, "a URI".
 * Returns buf.
 */
char *weft_arguments_explain(char *const *arguments, int nr, int wanted, const char *noun,
	const struct option *longs, char *buf, size_t len);

#endif
