/* SPDX-License-Identifier: MIT */
/* Trains of packets: how many there are, and some of them alone.  Functions without state. */
#include "perf/peers/line/train.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <string.h>

#include "fabric/base/util.h"

enum {
	HDR = sizeof(struct virtio_net_hdr),
	TCP_FIN_PSH = 0x09,
	TCP_CWR = 0x80,
	TCP_FLAGS_OFF = 13
};

_Static_assert(sizeof(struct virtio_net_hdr) == 10, "what TUNSETVNETHDRSZ has by default");

int line_train_parse(const uint8_t *frame, size_t len, struct line_train *ret)
{
	struct virtio_net_hdr hdr;
	struct tcphdr tcp;

	*ret = (struct line_train){.frame = frame, .len = len, .nr_segments = 1};
	if (len < HDR + sizeof(struct iphdr))
		return -EINVAL;
	memcpy(&hdr, frame, sizeof(hdr));
	unsigned type = hdr.gso_type & ~VIRTIO_NET_HDR_GSO_ECN;
	if (type != VIRTIO_NET_HDR_GSO_TCPV4 && type != VIRTIO_NET_HDR_GSO_TCPV6)
		return 0;
	ret->tcp_off = HDR + hdr.csum_start;
	if (hdr.gso_size == 0 || hdr.csum_start % 4 != 0 || len < ret->tcp_off + sizeof(tcp) ||
		hdr.csum_start < (type == VIRTIO_NET_HDR_GSO_TCPV4 ? sizeof(struct iphdr)
								   : sizeof(struct ip6_hdr)))
		return -EINVAL;
	memcpy(&tcp, frame + ret->tcp_off, sizeof(tcp));
	ret->payload_off = ret->tcp_off + tcp.doff * 4u;
	if (tcp.doff < 5 || ret->payload_off >= len || ret->payload_off > LINE_HEADERS_MAX)
		return -EINVAL;
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

/* What a checksum begins with, which whoever completes it expects in its place: the pseudo-header's
 * sum. */
static void begin_checksum(struct tcphdr *tcp, const void *addresses, size_t n, size_t tcp_len)
{
	tcp->check = htons(fold(sum(addresses, n, IPPROTO_TCP + (uint32_t)tcp_len)));
}

static void fix_ipv4(
	struct iphdr *ip, unsigned from, size_t len, struct tcphdr *tcp, size_t tcp_len)
{
	ip->tot_len = htons((uint16_t)len);
	ip->id = htons((uint16_t)(ntohs(ip->id) + from));
	ip->check = 0;
	ip->check = htons((uint16_t)~fold(sum(ip, ip->ihl * 4u, 0)));
	begin_checksum(tcp, &ip->saddr, 8, tcp_len);
}

static void fix_ipv6(struct ip6_hdr *ip, size_t len, struct tcphdr *tcp, size_t tcp_len)
{
	ip->ip6_plen = htons((uint16_t)(len - sizeof(*ip)));
	begin_checksum(tcp, &ip->ip6_src, 32, tcp_len);
}

static void fix_tcp(const struct line_train *train, unsigned from, unsigned to, uint8_t *bytes)
{
	struct tcphdr *tcp = (struct tcphdr *)bytes;

	tcp->seq = htonl(ntohl(tcp->seq) + from * train->segment_bytes);
	if (from > 0)
		bytes[TCP_FLAGS_OFF] &= (uint8_t)~TCP_CWR;
	if (to < train->nr_segments)
		bytes[TCP_FLAGS_OFF] &= (uint8_t)~TCP_FIN_PSH;
}

size_t line_train_cut(const struct line_train *train, unsigned from, unsigned to, uint8_t *buf)
{
	size_t at = begin(train, from), n = begin(train, to) - at, headers = train->payload_off;
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
	size_t len = headers - HDR + n, tcp_at = train->tcp_off - HDR;
	fix_tcp(train, from, to, head + tcp_at);
	if (head[0] >> 4 == 4)
		fix_ipv4((struct iphdr *)head, from, len, (struct tcphdr *)(head + tcp_at),
			len - tcp_at);
	else
		fix_ipv6((struct ip6_hdr *)head, len, (struct tcphdr *)(head + tcp_at),
			len - tcp_at);
	memcpy(buf, &hdr, HDR);
	memcpy(buf + HDR, head, headers - HDR);
	memcpy(buf + headers, train->frame + at, n);
	return headers + n;
}
