/* SPDX-License-Identifier: MIT */
/*
 * The stream of bytes under an NBD connection, the server's as well as the client's: what a
 * transmission phase receives and sends goes through here.  It is a socket, with TLS over it from
 * the moment that somebody starts it; or a pipe, whose bytes something else carries, such as a
 * stream of QUIC.
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

/*
 * What carries the bytes of a stream without a socket.  Neither function waits; whoever owns the
 * pipe knows when to call again.
 */
struct nbd_pipe {
	const struct nbd_pipe_ops *ops;
};

struct nbd_pipe_ops {
	/* How many bytes came; 0: the end; -EAGAIN: none are there; or what broke it. */
	ssize_t (*read)(struct nbd_pipe *pipe, const struct iovec *iov, unsigned nr);
	/* How many bytes it took, which it keeps a copy of; -EAGAIN: no room; or what broke it. */
	ssize_t (*write)(struct nbd_pipe *pipe, const struct iovec *iov, unsigned nr);
	/* Whether a read would bring bytes, or the end. */
	bool (*pending)(const struct nbd_pipe *pipe);
};

struct nbd_stream {
	int fd; /* -1: none */
	struct nbd_tls *tls; /* NULL: bytes are as they are */
	struct nbd_pipe *pipe; /* in place of a socket; NULL: there is none */
	bool goes_far;         /* until nbd_stream_goes_no_more() */
};

/* All that follows is encrypted, once nbd_tls_handshake() is done.  0, or -ENOMEM. */
static inline int nbd_stream_start_tls(struct nbd_stream *stream,
	struct nbd_tls_credentials *credentials)
{
	return nbd_tls_new(stream->fd, credentials, &stream->tls);
}

/*
 * The peer has been granted what it asked for.  If it is far, much may be on its way: by itself TCP
 * sends 4 MiB a round trip at most (net.ipv4.tcp_wmem), which is 160 MB/s at 25 ms.  More takes the
 * right to ask for it, CAP_NET_ADMIN; without, everything stays as it is.  How much is on its way
 * is still for congestion control to say, and for the peer's window; of bytes that cannot leave yet
 * the kernel takes 2 MiB.  A process has NBD_STREAMS_FAR such sockets at a time, so that crowds do
 * not take the machine's memory: the others stay as they are, too.
 */
enum { NBD_STREAMS_FAR = 32 };
/* The shortest round trip of a TCP connection so far; 0: not known. */
uint32_t nbd_stream_rtt_us(const struct nbd_stream *stream);
void nbd_stream_may_go_far(struct nbd_stream *stream);
/* The socket is about to be closed: another one may go far. */
void nbd_stream_goes_no_more(struct nbd_stream *stream);

/* A socket, with nothing over it: what the fast path is for. */
static inline bool nbd_stream_is_bare(const struct nbd_stream *stream)
{
	return ((uintptr_t)stream->tls | (uintptr_t)stream->pipe) == 0;
}

/* stream.c: as the functions below without "_over", of a stream that is not bare. */
ssize_t nbd_stream_read_over(const struct nbd_stream *stream, struct iovec *iov, unsigned nr,
	bool wait);
ssize_t nbd_stream_write_over(const struct nbd_stream *stream, struct iovec *iov, unsigned nr);
bool nbd_stream_pending_over(const struct nbd_stream *stream);

/*
 * How many bytes came; 0: the end; -EAGAIN: none are there; -EINTR; or what recvmsg(2) said, or
 * nbd_tls_read().
 */
static inline ssize_t nbd_stream_read(const struct nbd_stream *stream, struct iovec *iov,
	unsigned nr, bool wait)
{
	if (__builtin_expect(!nbd_stream_is_bare(stream), 0))
		return nbd_stream_read_over(stream, iov, nr, wait);

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
	if (__builtin_expect(!nbd_stream_is_bare(stream), 0))
		return nbd_stream_write_over(stream, iov, nr);

	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = nr };
	ssize_t n = sendmsg(stream->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

	return n < 0 ? -errno : n;
}

/* Whether bytes are here that poll(2) does not tell of: read before waiting. */
static inline bool nbd_stream_pending(const struct nbd_stream *stream)
{
	return __builtin_expect(!nbd_stream_is_bare(stream), 0) && nbd_stream_pending_over(stream);
}

#endif
