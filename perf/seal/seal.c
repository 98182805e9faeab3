/* SPDX-License-Identifier: MIT */
/*
 * What sealing costs by itself: ns a byte of the processor, in blocks of 4 KiB, of GnuTLS alone, as
 * nbd-bridge/cache/seal-cipher.c calls it.  Prints a line for each: KIND WHAT NS.  The bytes lie in
 * more memory than the caches hold, as those of an attachment do.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fabric/base/map.h"
#include "fabric/base/util.h"
#include "nbd-bridge/cache/seal-private.h"

enum { BYTES = 64 << 20, BLOCKS = BYTES / SEAL_BLOCK, ROUNDS = 5 };

static uint8_t tags[BLOCKS][SEAL_TAG_BYTES];

/* The thread's, in ns. */
static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

static double least(double a, double b)
{
	return a < b ? a : b;
}

/* In the order in which a bridge does it: out of a slot into a buffer, and in its place. */
static void measure(enum seal_kind kind, uint8_t *plain, uint8_t *sealed)
{
	const struct seal_context context = {.kind = kind, .algorithm = seal_fastest(kind)};
	const uint8_t key[SEAL_KEY_BYTES] = {1};
	double seal_ns = 1e9, open_ns = 1e9;
	struct seal_cipher *cipher;
	int r = seal_cipher_new(&context, key, &cipher);

	for (unsigned round = 0; round < ROUNDS && r == 0; round++) {
		uint64_t start_ns = cpu_ns();

		for (uint64_t i = 0; i < BLOCKS && r == 0; i++) {
			const struct seal_place place = {.block = i, .counter = i + 1};

			r = seal_cipher_seal(cipher, &place, plain + i * SEAL_BLOCK,
				sealed + i * SEAL_BLOCK, SEAL_BLOCK, tags[i]);
		}
		seal_ns = least(seal_ns, (double)(cpu_ns() - start_ns) / BYTES);
		if (kind == SEAL_VERIFY)
			memcpy(sealed, plain, BYTES);
		start_ns = cpu_ns();
		for (uint64_t i = 0; i < BLOCKS && r == 0; i++) {
			const struct seal_place place = {.block = i, .counter = i + 1};

			r = seal_cipher_open(cipher, &place, sealed + i * SEAL_BLOCK, SEAL_BLOCK,
				tags[i]);
		}
		open_ns = least(open_ns, (double)(cpu_ns() - start_ns) / BYTES);
	}
	if (r < 0) {
		fprintf(stderr, "time-seal: %s\n", strerror(-r));
		exit(1);
	}
	printf("%s seal %.4f\n%s open %.4f\n%s algorithm %s\n", seal_kind_name(kind), seal_ns,
		seal_kind_name(kind), open_ns, seal_kind_name(kind),
		seal_algorithm_name(context.algorithm));
	seal_cipher_free(cipher);
}

int main(void)
{
	uint8_t *plain = weft_map_bytes(BYTES), *sealed = weft_map_bytes(BYTES + SEAL_BLOCK);

	if (!plain || !sealed) {
		fprintf(stderr, "time-seal: out of memory\n");
		return 1;
	}
	memset(plain, 1, BYTES);
	memset(sealed, 2, BYTES + SEAL_BLOCK);
	measure(SEAL_VERIFY, plain, sealed);
	measure(SEAL_ENCRYPT, plain, sealed);
	return 0;
}
