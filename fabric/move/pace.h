/* SPDX-License-Identifier: MIT */
/* How fast moves copy that share one bandwidth.  Any thread. */
#ifndef WEFT_FABRIC_MOVE_PACE_H
#define WEFT_FABRIC_MOVE_PACE_H

#include <stdatomic.h>
#include <stdint.h>

struct pace {
	_Atomic uint64_t free_ns; /* the next READ but those that have their turn leaves then */
};

/*
 * When so many bytes may be read, by weft_now_ns(), at as many a second; 0: at once, as there is no
 * limit.  Whoever asks first comes first, and is counted.
 */
uint64_t pace_turn_ns(struct pace *pace, uint64_t bytes_per_s, uint64_t len);

#endif
