/* SPDX-License-Identifier: MIT */
/* A bridge with nothing behind it: its region is in its own memory, by the transport `mem`. */
#ifndef PERF_HARNESS_MEM_BRIDGE_H
#define PERF_HARNESS_MEM_BRIDGE_H

#include "nbd-bridge/bridge/bridge.h"
#include "transports/mem/mem.h"

/* One lane, without time-outs that a measurement could meet.  mem outlives the bridge. */
static inline struct bridge_config perf_mem_bridge(struct mem_config *mem)
{
	mem->epoch = 42;
	return (struct bridge_config){
		.attach = {
			.transport = &tp_mem_ops,
			.transport_config = mem,
			.host = "",
			.region = "r",
			.name = "perf",
			.generation = UINT64_C(1) << 32,
			.mode = WEFT_MODE_WRITE,
			.timeout_ms = 600000,
			.dead_timeout_ms = 600000,
			.connect_timeout_ms = 60000,
		},
		.nr_lanes = 1,
	};
}

#endif
