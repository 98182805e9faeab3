/* SPDX-License-Identifier: MIT */
/*
 * An NBD client's connection in the transmission phase over a socketpair, without a handshake; the
 * test is the server, in the same thread.
 */
#ifndef WEFT_TESTS_NBD_CLIENT_PAIR_H
#define WEFT_TESTS_NBD_CLIENT_PAIR_H

#include "fabric/nbd/proto.h"
#include "fabric/transport.h"

struct client_pair {
	struct tp *tp;
	struct tp_mem *mem;
	struct tp_conn *conn;
	int fd; /* the server's end */
	bool fd_stays; /* the end of the pair does not close it */
	bool structured;
	uint8_t *buf; /* PAIR_BUF_BYTES, registered */
};

enum { PAIR_REGION_BYTES = 16 << 20, PAIR_BUF_BYTES = 8 << 20, PAIR_DEPTH = 16 };

/* Asserts that it works. */
void client_pair_open(struct client_pair *pair, bool structured);
/* Shuts down, drains, frees. */
void client_pair_close(struct client_pair *pair);

/* What the server sees and says.  Never waits for more than a second (asserted). */
void client_pair_request(struct client_pair *pair, struct nbd_request_header *ret);
void client_pair_payload(struct client_pair *pair, void *data, size_t n);
void client_pair_send(struct client_pair *pair, const void *data, size_t n);
void client_pair_simple(struct client_pair *pair, uint64_t cookie, uint32_t error);
void client_pair_chunk(struct client_pair *pair, uint64_t cookie, uint16_t flags, uint16_t type,
	const void *payload, uint32_t len);
void client_pair_data(struct client_pair *pair, uint64_t cookie, uint16_t flags, uint64_t off,
	const void *data, uint32_t len);
void client_pair_error(struct client_pair *pair, uint64_t cookie, uint16_t flags, uint32_t error,
	const char *text);

/* tp_progress() until nothing more happens; returns the completions. */
unsigned client_pair_progress(struct client_pair *pair);

#endif
