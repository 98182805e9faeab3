/* SPDX-License-Identifier: MIT */
/* The command line of weft line.  One thread, before anything is started. */
#ifndef WEFT_PERF_PEERS_LINE_OPTIONS_H
#define WEFT_PERF_PEERS_LINE_OPTIONS_H

#include "perf/peers/line/direction.h"

struct line_options {
	struct line_shape shape;
	unsigned mtu, number;
	const char *existing[2]; /* NULL: a new namespace */
	const char *stats_file;  /* NULL: nobody wants them */
	char **command;          /* NULL: none */
};

/* WEFT_GO_ON (fabric/base/options.h), or the exit status after everything has been said. */
int line_options_parse(int argc, char **argv, struct line_options *ret);

#endif
