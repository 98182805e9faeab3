/* SPDX-License-Identifier: MIT */
/*
 * The stream of bytes under an NBD connection, the server's as well as the client's: what a
 * transmission phase receives and sends goes through here.  It is a socket; what encrypts the bytes
 * in between has its place here.
 *
 * Neither waits unless it is told to, nor allocates.  The socket is its owner's to close.
 */
#ifndef WEFT_FABRIC_NBD_STREAM_H
#define WEFT_FABRIC_NBD_STREAM_H

#include <errno.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/uio.h>

struct nbd_stream {
	int fd; /* -1: none */
};

/* How many bytes came; 0: the end; -EAGAIN: none are there; -EINTR; or what recvmsg(2) said. */
static inline ssize_t nbd_stream_read(const struct nbd_stream *stream, struct iovec *iov,
	unsigned nr, bool wait)
{
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = nr };
	ssize_t n = recvmsg(stream->fd, &msg, wait ? 0 : MSG_DONTWAIT);

	return n < 0 ? -errno : n;
}

/* How many bytes it took; -EAGAIN: there is no room; -EINTR; or what sendmsg(2) said. */
static inline ssize_t nbd_stream_write(const struct nbd_stream *stream, struct iovec *iov,
	unsigned nr)
{
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = nr };
	ssize_t n = sendmsg(stream->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

	return n < 0 ? -errno : n;
}

#endif
