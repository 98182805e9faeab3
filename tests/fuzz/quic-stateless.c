/* SPDX-License-Identifier: MIT */
/*
 * Datagrams for which there is no connection, as a donor looks at them: nothing is answered with
 * more bytes than came, and no token is good that was not made here.
 */
#include "transports/quic/stateless.c"

#include <assert.h>
#include <netinet/in.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t secret[QUIC_SECRET_BYTES] = {1};
	const uint64_t now_ns = UINT64_C(1) << 40;
	struct quic_path path = {.remote_len = sizeof(struct sockaddr_in)};
	uint8_t *datagram = malloc(size + 1); /* so that a byte too many is found */
	uint8_t answer[QUIC_LEAST_BYTES];
	struct quic_initial seen;
	size_t n = 0;

	path.remote.ss_family = AF_INET;
	memcpy(datagram, data, size);
	switch (quic_look(datagram, size, &seen)) {
	case QUIC_VERSION:
		n = quic_make_version(&seen, answer, sizeof(answer));
		break;
	case QUIC_INITIAL:
		assert(seen.token_len <= size);
		assert(!quic_check_token(&seen, secret, &path, now_ns));
		n = quic_make_refusal(&seen, answer, sizeof(answer));
		assert(n < size);
		n = quic_make_retry(&seen, secret, &path, now_ns, answer, sizeof(answer));
		break;
	case QUIC_OTHER:
		if (seen.version == 0)
			n = quic_make_reset(seen.dcid, secret, size, answer, sizeof(answer));
		break;
	case QUIC_JUNK:
		break;
	}
	assert(n == 0 || n < size);
	free(datagram);
	return 0;
}
