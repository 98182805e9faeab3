/* SPDX-License-Identifier: MIT */
/*
 * A client's bytes from STARTTLS on.  The first byte says how they come: in a socket, where TLS's
 * handshake is expected, or through the records of a client that is let in.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "fabric/base/util.h"
#include "fabric/nbd/stream.h"
#include "tests/support/nbd-memory.h"
#include "tests/support/nbd-raw.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { THROUGH_RECORDS = 1, PLAIN_BEHIND_STARTTLS = 2 };

static struct weft_key key = { .identity = "alice", .secret_bytes = WEFT_SECRET_BYTES };

static int secret(void *ctx, const char *identity, struct weft_key *ret, uint64_t *ret_life)
{
	if (strcmp(identity, key.identity) != 0)
		return -1;
	*ret = key;
	return 0;
}

static struct nbd_tls_credentials *credentials(bool server)
{
	static struct nbd_tls_credentials *made[2];
	const struct nbd_tls_server at_server = { .secret = secret };
	const struct nbd_tls_client at_client = { .key = &key };
	int r = made[server] ? 0
		: server     ? nbd_tls_server_new(&at_server, &made[server], NULL)
			     : nbd_tls_client_new(&at_client, &made[server], NULL);

	if (r < 0)
		abort();
	return made[server];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t starttls[NBD_OPTION_BYTES] = "IHAVEOPT\0\0\0\5\0\0\0";
	static uint8_t mem[65536];
	struct nbd_memory m;
	struct nbd_raw raw;

	if (size < 1)
		return 0;
	const uint8_t how = data[0];
	data++, size--;
	nbd_memory_init(&m, mem, sizeof(mem));
	nbd_raw_pair(&raw, &m.service, &m);
	nbd_conn_offer_tls(raw.server, credentials(true), "TLS is wanted");
	if (nbd_raw_hello(&raw, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES) < 0)
		abort();
	if (how & THROUGH_RECORDS) {
		if (nbd_raw_starttls(&raw, credentials(false)) < 0)
			abort();
	} else {
		nbd_raw_send(&raw, starttls, sizeof(starttls));
		if (!(how & PLAIN_BEHIND_STARTTLS))
			nbd_raw_pump(&raw);
	}
	for (size_t at = 0; at < size; at += 1024) {
		const size_t n = weft_min(size - at, 1024);

		/* Answers pile up: they are taken in, and not looked at. */
		if (nbd_raw_send(&raw, data + at, n) < 0)
			break;
		nbd_raw_pump(&raw);
		static uint8_t answers[65536];
		struct iovec iov = { answers, sizeof(answers) };
		const struct nbd_stream stream = { .fd = raw.fd, .tls = raw.tls };
		while (nbd_stream_read(&stream, &iov, 1, false) > 0)
			nbd_raw_pump(&raw);
	}
	nbd_raw_close(&raw);
	return 0;
}
