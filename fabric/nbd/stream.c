/* SPDX-License-Identifier: MIT */
/* Streams over TLS, and pipes; see stream.h. */
#include <linux/tcp.h> /* netinet/tcp.h knows no tcpi_min_rtt */
#include <netinet/in.h>
#include <stdatomic.h>

#include "fabric/base/resident.h"
#include "fabric/nbd/stream.h"

enum {
	UNDER_WAY_BYTES = 16 << 20, /* twice that, as the kernel counts */
	UNSENT_BYTES = 2 << 20,     /* of them: what the path does not take yet */
	FAR_US = 4000,              /* nearer, 4 MiB a round trip are a GB a second */
};

static _Atomic unsigned nr_far; /* streams of this process */

static bool take_one(void)
{
	unsigned nr = atomic_load(&nr_far);

	while (nr < NBD_STREAMS_FAR)
		if (atomic_compare_exchange_weak(&nr_far, &nr, nr + 1))
			return true;
	return false;
}

void nbd_stream_goes_no_more(struct nbd_stream *stream)
{
	if (stream->goes_far)
		atomic_fetch_sub(&nr_far, 1);
	stream->goes_far = false;
}

/* Sockets of another kind have no such information. */
uint32_t nbd_stream_rtt_us(const struct nbd_stream *stream)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);

	if (stream->fd < 0 || getsockopt(stream->fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0 ||
		info.tcpi_min_rtt == UINT32_MAX)
		return 0;
	return info.tcpi_min_rtt;
}

void nbd_stream_may_go_far(struct nbd_stream *stream)
{
	const int under_way = UNDER_WAY_BYTES, unsent = UNSENT_BYTES;

	/*
	 * Who is swapped to is not to need more of the kernel's memory for sockets than swapping
	 * was begun with.
	 */
	if (weft_is_resident() || nbd_stream_rtt_us(stream) < FAR_US || !take_one())
		return;
	stream->goes_far = true;
	if (setsockopt(stream->fd, SOL_SOCKET, SO_SNDBUFFORCE, &under_way, sizeof(under_way)) == 0)
		setsockopt(stream->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
	else
		nbd_stream_goes_no_more(stream);
}

ssize_t nbd_stream_read_over(const struct nbd_stream *stream, struct iovec *iov, unsigned nr,
	bool wait)
{
	return stream->tls ? nbd_tls_read(stream->tls, iov, nr, wait)
			   : stream->pipe->ops->read(stream->pipe, iov, nr);
}

ssize_t nbd_stream_write_over(const struct nbd_stream *stream, struct iovec *iov, unsigned nr)
{
	return stream->tls ? nbd_tls_write(stream->tls, iov, nr)
			   : stream->pipe->ops->write(stream->pipe, iov, nr);
}

bool nbd_stream_pending_over(const struct nbd_stream *stream)
{
	return stream->tls ? nbd_tls_pending(stream->tls)
			   : stream->pipe->ops->pending(stream->pipe);
}
