/* SPDX-License-Identifier: MIT */
/*
 * A client's bytes from STARTTLS on.  The first byte says how they come: in a socket, where TLS's
 * handshake is expected, or through the records of a client that is let in, or among them.  Or they
 * are a server's, in answer to our client's hello.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/nbd/stream.h"
#include "tests/support/nbd-memory.h"
#include "tests/support/nbd-raw.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	THROUGH_RECORDS = 1,
	PLAIN_BEHIND_STARTTLS = 2,
	OF_SERVER = 4,
	AMONG_RECORDS = 8,
	RESET = 16, /* of the server's connection, before it has read our hello */
	WRONG_KEY = 32,
};

static struct weft_key key = { .identity = "alice", .secret_bytes = WEFT_SECRET_BYTES };

static int secret(void *ctx, const char *identity, struct weft_key *ret, uint64_t *ret_life)
{
	if (strcmp(identity, key.identity) != 0)
		return -1;
	*ret = key;
	return 0;
}

enum who { CLIENT, SERVER, STRANGER };

static struct nbd_tls_credentials *credentials(enum who who)
{
	static struct weft_key other = { .identity = "alice", .secret_bytes = WEFT_SECRET_BYTES };
	static struct nbd_tls_credentials *made[3];
	const struct nbd_tls_server at_server = { .secret = secret };
	const struct nbd_tls_client at_client = { .key = who == CLIENT ? &key : &other };
	int r = 0;

	other.secret[0] = 1;
	if (!made[who] && who == SERVER)
		r = nbd_tls_server_new(&at_server, &made[who], NULL);
	else if (!made[who])
		r = nbd_tls_client_new(&at_client, &made[who], NULL);
	if (r < 0)
		abort();
	return made[who];
}

static void answer_client(const uint8_t *data, size_t size, bool reset)
{
	static uint8_t said[65536];
	struct weft_error err = { 0 };
	struct nbd_tls *tls;
	int pair[2], events, r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) < 0 ||
		nbd_tls_new(pair[0], credentials(CLIENT), &tls) < 0)
		abort();
	r = nbd_tls_handshake(tls, &events, &err);
	if (r != -EAGAIN || (!reset && recv(pair[1], said, sizeof(said), 0) <= 0))
		abort();
	if (send(pair[1], data, size, MSG_NOSIGNAL) >= 0)
		shutdown(pair[1], SHUT_WR);
	if (reset)
		close(pair[1]);
	while (r == -EAGAIN && events == POLLIN)
		r = nbd_tls_handshake(tls, &events, &err);
	/* Nobody without the key comes to its end. */
	if (r >= 0 || (r != -EAGAIN && err.code != -r))
		abort();
	if (r != -EAGAIN && nbd_tls_handshake(tls, &events, &err) != r)
		abort();
	nbd_tls_free(tls);
	close(pair[0]);
	if (!reset)
		close(pair[1]);
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
	if (how & OF_SERVER) {
		answer_client(data, size, how & RESET);
		return 0;
	}
	nbd_memory_init(&m, mem, sizeof(mem));
	nbd_raw_pair(&raw, &m.service, &m);
	nbd_conn_offer_tls(raw.server, credentials(SERVER), "TLS is wanted");
	if (nbd_raw_hello(&raw, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES) < 0)
		abort();
	if (how & (THROUGH_RECORDS | AMONG_RECORDS)) {
		const bool wrong = how & WRONG_KEY;

		if ((nbd_raw_starttls(&raw, credentials(wrong ? STRANGER : CLIENT)) < 0) != wrong)
			abort();
		if (wrong)
			size = 0;
	} else {
		nbd_raw_send(&raw, starttls, sizeof(starttls));
		if (!(how & PLAIN_BEHIND_STARTTLS))
			nbd_raw_pump(&raw);
	}
	for (size_t at = 0; at < size; at += 1024) {
		const size_t n = weft_min(size - at, 1024);

		/* Answers pile up: they are taken in, and not looked at. */
		if (how & AMONG_RECORDS ? write(raw.fd, data + at, n) < 0
					: nbd_raw_send(&raw, data + at, n) < 0)
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
