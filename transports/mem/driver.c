/* SPDX-License-Identifier: MIT */
/* The row of the transport "mem": mem:///NAME is mem_home, whatever the name. */
#include "transports/mem/driver.h"

#include "transports/mem/mem.h"

static const struct tp_scheme schemes[] = {
	{
		.name = "mem",
		.place = TP_AT_HOME,
		.example = "mem:///scratch",
		.only = "it is in this process",
		.why = "the region is in this process",
	},
	{.name = NULL},
};

const struct tp_driver tp_mem_driver = {
	.word = "mem",
	.label = "mem",
	.schemes = schemes,
	.ops = &tp_mem_ops,
};
