/* SPDX-License-Identifier: MIT */
/*
 * How batches of datagrams leave: in one message where the kernel cuts it (GSO), else in one call
 * with a message for each; and what happens where a call takes only a part of them.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "transports/quic/socket.h"

enum { SEGMENT = 1200, LAST = 700, NR = 10 };

/* What the kernel does, as far as the tests change that. */
static struct {
	int whole_fails, each_fails; /* errno of that call, once; 0: none */
	unsigned most;               /* messages that a call takes; 0: all */
	unsigned room;               /* calls until there is none; 0: there is always room */
	unsigned nr_whole, nr_each;  /* calls */
} kernel;

ssize_t __real_sendmsg(int fd, const struct msghdr *msg, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags)
{
	kernel.nr_whole++;
	if (kernel.whole_fails) {
		errno = kernel.whole_fails;
		kernel.whole_fails = 0;
		return -1;
	}
	return __real_sendmsg(fd, msg, flags);
}

int __real_sendmmsg(int fd, struct mmsghdr *messages, unsigned nr, int flags);
int __wrap_sendmmsg(int fd, struct mmsghdr *messages, unsigned nr, int flags);
int __wrap_sendmmsg(int fd, struct mmsghdr *messages, unsigned nr, int flags)
{
	kernel.nr_each++;
	if (kernel.each_fails) {
		errno = kernel.each_fails;
		kernel.each_fails = 0;
		return -1;
	}
	if (kernel.room && kernel.nr_each > kernel.room) {
		kernel.nr_each = kernel.room = 0;
		errno = EAGAIN;
		return -1;
	}
	if (kernel.most)
		nr = (unsigned)weft_min(nr, kernel.most);
	return __real_sendmmsg(fd, messages, nr, flags);
}

static struct quic_socket from, to;
static struct quic_inbox *inbox;
static struct quic_batch batch;

static struct sockaddr_in loopback(in_addr_t address, in_port_t port)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(address), .sin_port = port};
}

static in_port_t port_of(const struct quic_socket *s)
{
	return ((const struct sockaddr_in *)&s->path.local)->sin_port;
}

static int open_sockets(void **state)
{
	const struct sockaddr_in any = loopback(INADDR_LOOPBACK, 0);

	memset(&kernel, 0, sizeof(kernel));
	inbox = quic_inbox_new();
	assert_non_null(inbox);
	assert_int_equal(
		quic_socket_open((const struct sockaddr *)&any, NULL, false, &to, NULL), 0);
	const struct sockaddr_in there = loopback(INADDR_LOOPBACK, port_of(&to));
	assert_int_equal(
		quic_socket_open(NULL, (const struct sockaddr *)&there, false, &from, NULL), 0);
	batch.len = (NR - 1) * SEGMENT + LAST;
	batch.segment = SEGMENT;
	batch.sent = 0;
	batch.path = from.path;
	for (size_t i = 0; i < batch.len; i++)
		batch.bytes[i] = (uint8_t)(i % 251);
	return 0;
}

static int close_sockets(void **state)
{
	quic_socket_close(&from);
	quic_socket_close(&to);
	quic_inbox_free(inbox);
	return 0;
}

/* All of the batch has come, each datagram once, in their order; from where, if that is told. */
static void expect_all(const struct sockaddr_in *sender)
{
	struct pollfd fd = {.fd = to.fd, .events = POLLIN};
	size_t came = 0;

	while (came < batch.len) {
		struct quic_message messages[QUIC_INBOX];

		assert_int_equal(poll(&fd, 1, 10000), 1);
		int nr = quic_socket_receive(&to, inbox, messages);
		assert_true(nr >= 0);
		for (int i = 0; i < nr; i++) {
			const struct quic_message *m = &messages[i];
			const struct sockaddr_in *at = (const void *)&m->path.remote;

			assert_int_equal(m->segment, weft_min(SEGMENT, batch.len - came));
			assert_true(came + m->len <= batch.len);
			assert_memory_equal(m->bytes, batch.bytes + came, m->len);
			if (sender)
				assert_int_equal(at->sin_addr.s_addr, sender->sin_addr.s_addr);
			came += m->len;
		}
	}
	assert_int_equal(poll(&fd, 1, 0), 0);
}

/* A socket of IPv6 carries IPv4, too (RFC 9000, 14: no datagram is cut into fragments). */
static void no_datagram_is_cut_into_fragments(void **state)
{
	const struct sockaddr_in6 any = {.sin6_family = AF_INET6};
	struct quic_socket both;
	int how = 0;
	socklen_t len = sizeof(how);

	if (quic_socket_open((const struct sockaddr *)&any, NULL, false, &both, NULL) < 0)
		skip(); /* no IPv6 here */
	assert_int_equal(getsockopt(both.fd, IPPROTO_IP, IP_MTU_DISCOVER, &how, &len), 0);
	assert_int_equal(how, IP_PMTUDISC_PROBE);
	assert_int_equal(getsockopt(both.fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &how, &len), 0);
	assert_int_equal(how, IPV6_PMTUDISC_PROBE);
	quic_socket_close(&both);
	assert_int_equal(getsockopt(to.fd, IPPROTO_IP, IP_MTU_DISCOVER, &how, &len), 0);
	assert_int_equal(how, IP_PMTUDISC_PROBE);
}

static void a_batch_is_one_message(void **state)
{
	if (!from.gso)
		skip(); /* the kernel has no GSO */
	assert_int_equal(quic_socket_send(&from, &batch, false), 0);
	assert_int_equal(kernel.nr_whole, 1);
	assert_int_equal(kernel.nr_each, 0);
	expect_all(NULL);
}

static void without_gso_it_is_one_call(void **state)
{
	from.gso = false;
	assert_int_equal(quic_socket_send(&from, &batch, false), 0);
	assert_int_equal(kernel.nr_each, 1);
	assert_int_equal(kernel.nr_whole, 0);
	assert_int_equal(batch.sent, batch.len);
	expect_all(NULL);
}

static void a_device_without_gso_is_found_out(void **state)
{
	from.gso = true;
	kernel.whole_fails = EIO;
	assert_int_equal(quic_socket_send(&from, &batch, false), 0);
	assert_false(from.gso);
	assert_int_equal(kernel.nr_each, 1);
	expect_all(NULL);
}

static void what_a_call_leaves_follows(void **state)
{
	from.gso = false;
	kernel.most = 3;
	assert_int_equal(quic_socket_send(&from, &batch, false), 0);
	assert_int_equal(kernel.nr_each, (NR + 2) / 3);
	expect_all(NULL);
}

static void without_room_it_goes_on_where_it_was(void **state)
{
	from.gso = false;
	kernel.most = 4;
	kernel.room = 2;
	assert_int_equal(quic_socket_send(&from, &batch, false), -EAGAIN);
	assert_int_equal(batch.sent, 8 * SEGMENT);
	kernel.room = 1;
	assert_int_equal(quic_socket_send(&from, &batch, false), 0);
	assert_int_equal(batch.sent, batch.len);
	expect_all(NULL);
}

/* The message that the kernel would cut is all or nothing. */
static void without_room_a_message_stays_whole(void **state)
{
	if (!from.gso)
		skip(); /* the kernel has no GSO */
	kernel.whole_fails = EAGAIN;
	assert_int_equal(quic_socket_send(&from, &batch, false), -EAGAIN);
	assert_int_equal(batch.sent, 0);
	assert_true(from.gso);
	assert_int_equal(quic_socket_send(&from, &batch, false), 0);
	assert_int_equal(kernel.nr_each, 0);
	expect_all(NULL);
}

static void what_a_signal_cut_short_is_sent(void **state)
{
	from.gso = false;
	kernel.each_fails = EINTR;
	assert_int_equal(quic_socket_send(&from, &batch, false), 0);
	assert_int_equal(kernel.nr_each, 2);
	expect_all(NULL);
}

static void what_fails_counts_as_lost(void **state)
{
	from.gso = false;
	kernel.each_fails = EMSGSIZE;
	assert_int_equal(quic_socket_send(&from, &batch, false), -EMSGSIZE);
	assert_int_equal(batch.sent, batch.len);
}

/* A donor's socket sends to an address, and from the one that the peer knows. */
static void each_leaves_from_the_address_of_its_path(void **state)
{
	const struct sockaddr_in any = loopback(INADDR_ANY, 0);
	const struct sockaddr_in sender = loopback(INADDR_LOOPBACK + 1, 0);
	const struct sockaddr_in there = loopback(INADDR_LOOPBACK, port_of(&to));
	struct quic_socket s;

	assert_int_equal(
		quic_socket_open((const struct sockaddr *)&any, NULL, false, &s, NULL), 0);
	s.gso = false;
	memcpy(&batch.path.local, &sender, sizeof(sender));
	memcpy(&batch.path.remote, &there, sizeof(there));
	assert_int_equal(quic_socket_send(&s, &batch, true), 0);
	assert_int_equal(kernel.nr_each, 1);
	expect_all(&sender);
	quic_socket_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_sockets, close_sockets)
		TEST(no_datagram_is_cut_into_fragments),
		TEST(a_batch_is_one_message),
		TEST(without_gso_it_is_one_call),
		TEST(a_device_without_gso_is_found_out),
		TEST(what_a_call_leaves_follows),
		TEST(without_room_it_goes_on_where_it_was),
		TEST(without_room_a_message_stays_whole),
		TEST(what_a_signal_cut_short_is_sent),
		TEST(what_fails_counts_as_lost),
		TEST(each_leaves_from_the_address_of_its_path),
	};

	return cmocka_run_group_tests_name("quic-socket", tests, NULL, NULL);
}
