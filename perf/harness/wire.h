/* SPDX-License-Identifier: MIT */
/*
 * What the measuring client needs of the wire, inline: what a client pays for packing should not
 * depend on the server's code.  NBD proto, "Request message", "Simple reply message".
 */
#ifndef PERF_HARNESS_WIRE_H
#define PERF_HARNESS_WIRE_H

#include <sys/socket.h>
#include <sys/uio.h>

#include "fabric/nbd/proto.h"

static inline void wire_request(uint8_t *p, uint16_t type, uint64_t cookie, uint64_t off,
	uint32_t len)
{
	weft_put32(p, NBD_REQUEST_MAGIC);
	weft_put16(p + 4, 0);
	weft_put16(p + 6, type);
	weft_put64(p + 8, cookie);
	weft_put64(p + 16, off);
	weft_put32(p + 24, len);
}

/* Returns the error; UINT32_MAX for what is no simple reply. */
static inline uint32_t wire_reply(const uint8_t *p, uint64_t *ret_cookie)
{
	*ret_cookie = weft_get64(p + 8);
	return weft_get32(p) == NBD_SIMPLE_REPLY_MAGIC ? weft_get32(p + 4) : UINT32_MAX;
}

/* Of what the message is made of, the first n bytes have gone. */
static inline void wire_sent(struct msghdr *msg, size_t n)
{
	while (msg->msg_iovlen && n >= msg->msg_iov->iov_len) {
		n -= msg->msg_iov->iov_len;
		msg->msg_iov++;
		msg->msg_iovlen--;
	}
	if (msg->msg_iovlen) {
		msg->msg_iov->iov_base = (uint8_t *)msg->msg_iov->iov_base + n;
		msg->msg_iov->iov_len -= n;
	}
}

#endif
