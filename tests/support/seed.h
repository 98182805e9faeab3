/* SPDX-License-Identifier: MIT */
/* A run with chosen numbers says which, so that it can be had again. */
#ifndef WEFT_TESTS_SUPPORT_SEED_H
#define WEFT_TESTS_SUPPORT_SEED_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* WEFT_SEED of the environment, or this one. */
static inline uint64_t seed_or(uint64_t otherwise)
{
	const char *text = getenv("WEFT_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : otherwise;

	printf("WEFT_SEED=%" PRIu64 "\n", seed);
	return seed;
}

#endif
