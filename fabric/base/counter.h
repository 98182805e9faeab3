/* SPDX-License-Identifier: MIT */
/* Counters that one thread writes and any thread reads. */
#ifndef WEFT_FABRIC_BASE_COUNTER_H
#define WEFT_FABRIC_BASE_COUNTER_H

#include <stdatomic.h>
#include <stdint.h>

/* For the thread that writes the counter. */
static inline void weft_count(_Atomic uint64_t *counter, uint64_t by)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + by,
		memory_order_relaxed);
}

#endif
