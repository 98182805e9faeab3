/* SPDX-License-Identifier: MIT */
/* Trains of packets: some segments alone are what the kernel would have sent, had it cut them off
 * itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <string.h>

#include "perf/peers/line/train.h"

enum {
	HDR = 10,
	TCP_BYTES = 32,
	UDP_BYTES = 8,
	GSO_UDP_L4 = 5, /* VIRTIO_NET_HDR_GSO_UDP_L4 */
	SEGMENT = 1000,
	NR = 5,
	LAST = 333,
	PAYLOAD = (NR - 1) * SEGMENT + LAST,
	SEQ = 0xfffffa00
};

struct train {
	uint8_t frame[LINE_FRAME_MAX];
	size_t len, ip_bytes, head_bytes; /* IP's header, and the next */
	bool is_udp;
};

static uint32_t add(const uint8_t *bytes, size_t n, uint32_t sum)
{
	for (size_t i = 0; i < n; i++)
		sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static uint8_t protocol(const struct train *t)
{
	return t->is_udp ? IPPROTO_UDP : IPPROTO_TCP;
}

/* The pseudo-header's sum, which stands in the checksum until somebody completes it. */
static uint32_t pseudo(const struct train *t, const uint8_t *ip, size_t len)
{
	if (ip[0] >> 4 == 4)
		return add(ip + 12, 8, protocol(t) + (uint32_t)len);
	return add(ip + 8, 32, protocol(t) + (uint32_t)len);
}

static void make_ip(struct train *t, bool v6)
{
	uint8_t *at = t->frame + HDR;

	t->ip_bytes = v6 ? sizeof(struct ip6_hdr) : sizeof(struct iphdr);
	if (v6) {
		struct ip6_hdr ip = {.ip6_flow = htonl(6U << 28),
			.ip6_plen = htons((uint16_t)(t->head_bytes + PAYLOAD)),
			.ip6_nxt = protocol(t),
			.ip6_hlim = 64};
		memset(&ip.ip6_src, 0x21, 16);
		memset(&ip.ip6_dst, 0x42, 16);
		memcpy(at, &ip, sizeof(ip));
	} else {
		struct iphdr ip = {.version = 4,
			.ihl = 5,
			.tot_len = htons((uint16_t)(sizeof(ip) + t->head_bytes + PAYLOAD)),
			.id = htons(0xfffe),
			.ttl = 64,
			.protocol = protocol(t),
			.saddr = htonl(0xc6120001),
			.daddr = htonl(0xc6120002)};
		memcpy(at, &ip, sizeof(ip));
		ip.check = htons((uint16_t)~add(at, sizeof(ip), 0));
		memcpy(at, &ip, sizeof(ip));
	}
}

static void make_tcp(const struct train *t, uint8_t *at)
{
	struct tcphdr tcp = {
		.seq = htonl(SEQ), .doff = TCP_BYTES / 4, .fin = 1, .psh = 1, .ack = 1};

	tcp.check = htons((uint16_t)pseudo(t, t->frame + HDR, TCP_BYTES + PAYLOAD));
	memcpy(at, &tcp, sizeof(tcp));
	at[13] |= 0x80; /* CWR */
	memset(at + sizeof(tcp), 1, TCP_BYTES - sizeof(tcp));
}

static void make_udp(const struct train *t, uint8_t *at)
{
	struct udphdr udp = {.source = htons(7), .len = htons(UDP_BYTES + PAYLOAD)};

	udp.check = htons((uint16_t)pseudo(t, t->frame + HDR, UDP_BYTES + PAYLOAD));
	memcpy(at, &udp, sizeof(udp));
}

static void make(struct train *t, bool v6, bool is_udp)
{
	struct virtio_net_hdr hdr = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_size = SEGMENT,
		.csum_offset = is_udp ? 6 : 16,
		.gso_type = is_udp ? GSO_UDP_L4
			: (v6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4) |
				VIRTIO_NET_HDR_GSO_ECN};

	t->is_udp = is_udp;
	t->head_bytes = is_udp ? UDP_BYTES : TCP_BYTES;
	make_ip(t, v6);
	hdr.csum_start = (uint16_t)t->ip_bytes;
	hdr.hdr_len = (uint16_t)(t->ip_bytes + t->head_bytes);
	memcpy(t->frame, &hdr, HDR);
	uint8_t *at = t->frame + HDR + t->ip_bytes;
	if (is_udp)
		make_udp(t, at);
	else
		make_tcp(t, at);
	for (size_t i = 0; i < PAYLOAD; i++)
		at[t->head_bytes + i] = (uint8_t)(i * 7 + i / 251);
	t->len = HDR + t->ip_bytes + t->head_bytes + PAYLOAD;
}

static size_t length_of(const uint8_t *ip)
{
	return ip[0] >> 4 == 4 ? (size_t)(ip[2] << 8 | ip[3])
			       : sizeof(struct ip6_hdr) + (size_t)(ip[4] << 8 | ip[5]);
}

static void check_tcp(const struct train *t, const uint8_t *ip, size_t len, unsigned from,
	unsigned to)
{
	const uint8_t *tcp = ip + t->ip_bytes;
	struct tcphdr header;

	memcpy(&header, tcp, sizeof(header));
	assert_int_equal(ntohl(header.seq), (uint32_t)(SEQ + from * SEGMENT));
	assert_int_equal(ntohs(header.check), pseudo(t, ip, len));
	assert_int_equal(header.fin, to == NR);
	assert_int_equal(header.psh, to == NR);
	assert_int_equal(header.ack, 1);
	assert_int_equal(tcp[13] & 0x80, from == 0 ? 0x80 : 0);
}

static void check_udp(const struct train *t, const uint8_t *ip, size_t len)
{
	struct udphdr header;

	memcpy(&header, ip + t->ip_bytes, sizeof(header));
	assert_int_equal(ntohs(header.len), len);
	assert_int_equal(ntohs(header.check), pseudo(t, ip, len));
	assert_int_equal(ntohs(header.source), 7);
}

/* One piece, as the receiving kernel will look at it. */
static void check_piece(
	const struct train *t, const uint8_t *piece, size_t len, unsigned from, unsigned to)
{
	const uint8_t *ip = piece + HDR;
	const size_t headers = t->ip_bytes + t->head_bytes, begin = (size_t)from * SEGMENT,
		     end = to == NR ? PAYLOAD : (size_t)to * SEGMENT;
	struct virtio_net_hdr hdr;

	memcpy(&hdr, piece, sizeof(hdr));
	assert_int_equal(length_of(ip), len - HDR);
	assert_int_equal(len - HDR, headers + end - begin);
	assert_memory_equal(ip + headers, t->frame + HDR + headers + begin, end - begin);
	if (t->is_udp)
		check_udp(t, ip, len - HDR - t->ip_bytes);
	else
		check_tcp(t, ip, len - HDR - t->ip_bytes, from, to);
	assert_int_equal(hdr.gso_size, to - from > 1 ? SEGMENT : 0);
	assert_int_equal(hdr.gso_type == VIRTIO_NET_HDR_GSO_NONE, to - from == 1);
	assert_int_equal(hdr.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
	if (ip[0] >> 4 == 4) {
		assert_int_equal(add(ip, t->ip_bytes, 0), 0xffff);
		assert_int_equal(ip[4] << 8 | ip[5], (uint16_t)(0xfffe + from));
	}
}

static void cut_anywhere(bool v6, bool is_udp)
{
	static uint8_t piece[LINE_FRAME_MAX + LINE_HEADERS_MAX];
	static struct train t;
	struct line_train train;

	make(&t, v6, is_udp);
	assert_int_equal(line_train_parse(t.frame, t.len, &train), 0);
	assert_int_equal(train.nr_segments, NR);
	for (unsigned from = 0; from < NR; from++)
		for (unsigned to = from + 1; to <= NR; to++) {
			size_t len = line_train_cut(&train, from, to, piece);

			check_piece(&t, piece, len, from, to);
			assert_int_equal(line_train_bytes(&train, from, to),
				len - HDR + (to - from - 1) * (t.ip_bytes + t.head_bytes));
		}
}

static void ipv4_trains_are_cut_anywhere(void **state)
{
	cut_anywhere(false, false);
	cut_anywhere(false, true);
}

static void ipv6_trains_are_cut_anywhere(void **state)
{
	cut_anywhere(true, false);
	cut_anywhere(true, true);
}

static void what_is_no_train_has_one_segment(void **state)
{
	static struct train t;
	struct line_train train;
	uint8_t copy[2000];

	make(&t, false, false);
	t.frame[1] = VIRTIO_NET_HDR_GSO_NONE;
	assert_int_equal(line_train_parse(t.frame, HDR + 1000, &train), 0);
	assert_int_equal(train.nr_segments, 1);
	assert_int_equal(line_train_bytes(&train, 0, 1), 1000);
	assert_int_equal(line_train_cut(&train, 0, 1, copy), HDR + 1000);
	assert_memory_equal(copy, t.frame, HDR + 1000);
}

/* Every length, and every value of each byte of the first headers: refused, or within the frame. */
static void try_odd_headers(bool is_udp)
{
	static uint8_t piece[LINE_FRAME_MAX + LINE_HEADERS_MAX];
	static struct train t;
	struct line_train train;

	make(&t, false, is_udp);
	const size_t headers = HDR + t.ip_bytes + t.head_bytes;
	for (size_t len = 0; len <= t.len; len++)
		if (line_train_parse(t.frame, len, &train) == 0)
			assert_true(line_train_cut(&train, 0, 1, piece) <= len);
	assert_int_equal(line_train_parse(t.frame, headers, &train), -EINVAL);
	for (size_t at = 0; at < headers; at++)
		for (unsigned value = 0; value < 256; value++) {
			uint8_t old = t.frame[at];

			t.frame[at] = (uint8_t)value;
			if (line_train_parse(t.frame, t.len, &train) == 0) {
				assert_in_range(train.nr_segments, 1, LINE_SEGMENTS_MAX);
				for (unsigned i = 0; i < train.nr_segments; i++)
					assert_true(
						line_train_cut(&train, i, i + 1, piece) <= t.len);
			}
			t.frame[at] = old;
		}
}

static void odd_headers_stay_within_the_frame(void **state)
{
	try_odd_headers(false);
	try_odd_headers(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ipv4_trains_are_cut_anywhere),
		cmocka_unit_test(ipv6_trains_are_cut_anywhere),
		cmocka_unit_test(what_is_no_train_has_one_segment),
		cmocka_unit_test(odd_headers_stay_within_the_frame),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
