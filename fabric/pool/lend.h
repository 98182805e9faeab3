/* SPDX-License-Identifier: MIT */
/* How much a donor lends of what its machine does not need.  Pure. */
#ifndef WEFT_FABRIC_POOL_LEND_H
#define WEFT_FABRIC_POOL_LEND_H

#include <stdbool.h>
#include <stdint.h>

struct pool_machine {
	uint64_t available_bytes; /* that a process may take now (fabric/machine/available.h) */
	uint64_t reserve_bytes;   /* of them, for the machine's own jobs */
	uint64_t lent_bytes;      /* that the pool's regions have, made or being made */
	uint64_t making_bytes;    /* of these, that are being made: perhaps not taken yet */
	double stalled_percent;   /* of the last ten seconds somebody waited for memory */
	bool was_pressed;
};

struct pool_lending {
	uint64_t lent_bytes;      /* in sum, with what is lent already */
	uint64_t give_back_bytes; /* that the machine's own jobs miss */
	bool pressed;             /* nothing new now */
};

/*
 * Nothing new is lent while less than the reserve is available, or others wait for memory; then not
 * before a sixteenth more than the reserve is, so that it does not change each second.
 */
struct pool_lending pool_lend_idle(const struct pool_machine *machine);

#endif
