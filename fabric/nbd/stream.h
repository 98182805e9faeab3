/* SPDX-License-Identifier: MIT */
/*
 * The stream of bytes under an NBD connection, the server's as well as the client's: what a
 * transmission phase receives and sends goes through here.  It is a socket, with TLS over it from
 * the moment that somebody starts it.
 *
 * Neither waits unless it is told to, nor allocates.  The socket and the session are the owner's,
 * who may copy the struct to a new owner.
 */
#ifndef WEFT_FABRIC_NBD_STREAM_H
#define WEFT_FABRIC_NBD_STREAM_H

#include <errno.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "fabric/nbd/tls.h"

struct nbd_stream {
	int fd; /* -1: none */
	struct nbd_tls *tls; /* NULL: bytes are as they are */
};

/* All that follows is encrypted, once nbd_tls_handshake() is done.  0, or -ENOMEM. */
static inline int nbd_stream_start_tls(struct nbd_stream *stream,
	struct nbd_tls_credentials *credentials)
{
	return nbd_tls_new(stream->fd, credentials, &stream->tls);
}

/*
 * How many bytes came; 0: the end; -EAGAIN: none are there; -EINTR; or what recvmsg(2) said, or
 * nbd_tls_read().
 */
static inline ssize_t nbd_stream_read(const struct nbd_stream *stream, struct iovec *iov,
	unsigned nr, bool wait)
{
	if (__builtin_expect(stream->tls != NULL, 0))
		return nbd_tls_read(stream->tls, iov, nr, wait);

	const int flags = wait ? 0 : MSG_DONTWAIT;
	ssize_t n;

	if (nr == 1) {
		n = recv(stream->fd, iov->iov_base, iov->iov_len, flags);
	} else {
		struct msghdr msg = { .msg_iov = iov, .msg_iovlen = nr };
		n = recvmsg(stream->fd, &msg, flags);
	}
	return n < 0 ? -errno : n;
}

/*
 * How many bytes it took; -EAGAIN: there is no room; -EINTR; or what sendmsg(2) said, or
 * nbd_tls_write().  Bytes that it did not take are the first of the next call, unchanged.
 */
static inline ssize_t nbd_stream_write(const struct nbd_stream *stream, struct iovec *iov,
	unsigned nr)
{
	if (__builtin_expect(stream->tls != NULL, 0))
		return nbd_tls_write(stream->tls, iov, nr);

	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = nr };
	ssize_t n = sendmsg(stream->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

	return n < 0 ? -errno : n;
}

/* Whether bytes are here that poll(2) does not tell of: read before waiting. */
static inline bool nbd_stream_pending(const struct nbd_stream *stream)
{
	return __builtin_expect(stream->tls != NULL, 0) && nbd_tls_pending(stream->tls);
}

#endif
