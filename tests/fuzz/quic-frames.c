/* SPDX-License-Identifier: MIT */
/* Payloads of QUIC packets: nothing behind their end is read, and the walk ends. */
#include "transports/quic/frames.c"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *payload = malloc(size + 1), *at = payload + 1;

	memcpy(at, data, size);
	(void)quic_frames_ids(at, size);
	free(payload);
	return 0;
}
