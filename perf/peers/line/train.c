/* SPDX-License-Identifier: MIT */
/* Trains of packets: how many there are, and some of them alone.  Functions without state. */
#include "perf/peers/line/train.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <string.h>

#include "fabric/base/util.h"

enum {
	HDR = sizeof(struct virtio_net_hdr),
	GSO_UDP_L4 = 5, /* VIRTIO_NET_HDR_GSO_UDP_L4, since Linux 6.2 */
	TCP_FIN_PSH = 0x09,
	TCP_CWR = 0x80,
	TCP_FLAGS_OFF = 13
};

_Static_assert(sizeof(struct virtio_net_hdr) == 10, "what TUNSETVNETHDRSZ has by default");

/* How many bytes of headers are in front of each segment, IP's not counted; 0: it cannot be. */
static uint32_t header_bytes(const struct virtio_net_hdr *hdr, const uint8_t *at, size_t len)
{
	struct tcphdr tcp;

	if ((hdr->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) == GSO_UDP_L4)
		return hdr->csum_offset == offsetof(struct udphdr, check) ? sizeof(struct udphdr)
									  : 0;
	if (len < sizeof(tcp) || hdr->csum_offset != offsetof(struct tcphdr, check))
		return 0;
	memcpy(&tcp, at, sizeof(tcp));
	return tcp.doff < 5 ? 0 : tcp.doff * 4u;
}

static bool is_train(const struct virtio_net_hdr *hdr)
{
	const unsigned type = hdr->gso_type & ~VIRTIO_NET_HDR_GSO_ECN;

	return type == VIRTIO_NET_HDR_GSO_TCPV4 || type == VIRTIO_NET_HDR_GSO_TCPV6 ||
		type == GSO_UDP_L4;
}

int line_train_parse(const uint8_t *frame, size_t len, struct line_train *ret)
{
	struct virtio_net_hdr hdr;

	*ret = (struct line_train){.frame = frame, .len = len, .nr_segments = 1};
	if (len < HDR + sizeof(struct iphdr))
		return -EINVAL;
	memcpy(&hdr, frame, sizeof(hdr));
	if (!is_train(&hdr))
		return 0;
	const size_t ip_bytes =
		frame[HDR] >> 4 == 4 ? sizeof(struct iphdr) : sizeof(struct ip6_hdr);
	ret->transport_off = HDR + hdr.csum_start;
	if (hdr.gso_size == 0 || hdr.csum_start % 4 != 0 || hdr.csum_start < ip_bytes ||
		len < ret->transport_off)
		return -EINVAL;
	const uint32_t bytes =
		header_bytes(&hdr, frame + ret->transport_off, len - ret->transport_off);
	ret->payload_off = ret->transport_off + bytes;
	if (bytes == 0 || ret->payload_off >= len || ret->payload_off > LINE_HEADERS_MAX)
		return -EINVAL;
	ret->is_udp = (hdr.gso_type & ~VIRTIO_NET_HDR_GSO_ECN) == GSO_UDP_L4;
	ret->segment_bytes = hdr.gso_size;
	ret->nr_segments = (unsigned)((len - ret->payload_off + hdr.gso_size - 1) / hdr.gso_size);
	return ret->nr_segments <= LINE_SEGMENTS_MAX ? 0 : -EINVAL;
}

/* Where the payload of a segment begins; that of the one behind the last: where the frame ends. */
static size_t begin(const struct line_train *train, unsigned segment)
{
	return weft_min(train->payload_off + (size_t)segment * train->segment_bytes, train->len);
}

size_t line_train_bytes(const struct line_train *train, unsigned from, unsigned to)
{
	if (train->nr_segments == 1)
		return train->len - HDR;
	return begin(train, to) - begin(train, from) +
	       (size_t)(to - from) * (train->payload_off - HDR);
}

static uint32_t sum(const void *bytes, size_t n, uint32_t start)
{
	const uint8_t *b = bytes;

	for (size_t i = 0; i + 1 < n; i += 2)
		start += (uint32_t)b[i] << 8 | b[i + 1];
	return start;
}

static uint16_t fold(uint32_t value)
{
	while (value >> 16)
		value = (value & 0xffff) + (value >> 16);
	return (uint16_t)value;
}

/* The pseudo-header's sum: what a checksum begins with, and whoever completes it expects there. */
static uint16_t begin_checksum(const struct line_train *train, const void *addresses, size_t n,
	size_t len)
{
	const uint32_t protocol = train->is_udp ? IPPROTO_UDP : IPPROTO_TCP;

	return htons(fold(sum(addresses, n, protocol + (uint32_t)len)));
}

/* IP's header of a packet of len bytes, of which transport_len are behind it; what
 * begin_checksum() says. */
static uint16_t fix_ip(const struct line_train *train, unsigned from, uint8_t *head, size_t len,
	size_t transport_len)
{
	struct ip6_hdr *ip6 = (struct ip6_hdr *)head;
	struct iphdr *ip = (struct iphdr *)head;

	if (head[0] >> 4 != 4) {
		ip6->ip6_plen = htons((uint16_t)(len - sizeof(*ip6)));
		return begin_checksum(train, &ip6->ip6_src, 32, transport_len);
	}
	ip->tot_len = htons((uint16_t)len);
	ip->id = htons((uint16_t)(ntohs(ip->id) + from));
	ip->check = 0;
	ip->check = htons((uint16_t)~fold(sum(ip, ip->ihl * 4u, 0)));
	return begin_checksum(train, &ip->saddr, 8, transport_len);
}

static void fix_tcp(const struct line_train *train, unsigned from, unsigned to, uint8_t *bytes,
	uint16_t check)
{
	struct tcphdr *tcp = (struct tcphdr *)bytes;

	tcp->check = check;
	tcp->seq = htonl(ntohl(tcp->seq) + from * train->segment_bytes);
	if (from > 0)
		bytes[TCP_FLAGS_OFF] &= (uint8_t)~TCP_CWR;
	if (to < train->nr_segments)
		bytes[TCP_FLAGS_OFF] &= (uint8_t)~TCP_FIN_PSH;
}

static void fix_udp(uint8_t *bytes, size_t len, uint16_t check)
{
	struct udphdr *udp = (struct udphdr *)bytes;

	udp->len = htons((uint16_t)len);
	udp->check = check;
}

size_t line_train_cut(const struct line_train *train, unsigned from, unsigned to, uint8_t *buf)
{
	const size_t first = begin(train, from), n = begin(train, to) - first;
	const size_t headers = train->payload_off;
	_Alignas(8) uint8_t head[LINE_HEADERS_MAX];
	struct virtio_net_hdr hdr;

	if (to - from == train->nr_segments) {
		memcpy(buf, train->frame, train->len);
		return train->len;
	}
	memcpy(&hdr, train->frame, sizeof(hdr));
	if (to - from == 1) {
		hdr.gso_type = VIRTIO_NET_HDR_GSO_NONE;
		hdr.gso_size = 0;
	}
	hdr.hdr_len = (uint16_t)(headers - HDR);
	/* The packet's headers, where they are aligned. */
	memcpy(head, train->frame + HDR, headers - HDR);
	const size_t len = headers - HDR + n, at = train->transport_off - HDR;
	const uint16_t check = fix_ip(train, from, head, len, len - at);
	if (train->is_udp)
		fix_udp(head + at, len - at, check);
	else
		fix_tcp(train, from, to, head + at, check);
	memcpy(buf, &hdr, HDR);
	memcpy(buf + HDR, head, headers - HDR);
	memcpy(buf + headers, train->frame + first, n);
	return headers + n;
}
