/* SPDX-License-Identifier: MIT */
/*
 * Trains of packets.  The kernel hands over the segments of a TCP connection, and the datagrams
 * that somebody sent at once (UDP_SEGMENT), as one large packet, as it would to a network card that
 * cuts it (TSO, USO), and takes such a packet back.  Functions without state; any thread.
 *
 * A frame is a struct virtio_net_hdr and an IP packet, which is what a TUN device with IFF_VNET_HDR
 * reads and writes.
 */
#ifndef WEFT_PERF_PEERS_LINE_TRAIN_H
#define WEFT_PERF_PEERS_LINE_TRAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	LINE_FRAME_MAX = 65535 + 10, /* the largest packet, with the header in front of it */
	LINE_HEADERS_MAX = 10 + 60 + 60 + 256, /* all headers of one */
	LINE_SEGMENTS_MAX = 2048,              /* of a train */
};

struct line_train {
	const uint8_t *frame; /* the caller's */
	size_t len;
	unsigned nr_segments; /* packets on the wire: at least 1 */
	/* Where there are several: IP's and TCP's or UDP's headers, in front of each; the payload
	 * of each but the last. */
	bool is_udp;
	uint32_t transport_off, payload_off, segment_bytes;
};

/*
 * 0, or -EINVAL: a train whose headers are not those of TCP or UDP over IPv4 or IPv6, or of too
 * many segments.  What is no train has one segment.
 */
int line_train_parse(const uint8_t *frame, size_t len, struct line_train *ret);

/* Bytes on the wire of the segments from up to, and without, to: their IP packets. */
size_t line_train_bytes(const struct line_train *train, unsigned from, unsigned to);

/*
 * The frame of these segments alone, into buf, which has room for their bytes and LINE_HEADERS_MAX
 * more.  Their headers say what the kernel would have written, had it cut them off itself.  Returns
 * the frame's length.
 */
size_t line_train_cut(const struct line_train *train, unsigned from, unsigned to, uint8_t *buf);

#endif
