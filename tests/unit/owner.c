/* SPDX-License-Identifier: MIT */
/* Whose socket the other end of a connection over loopback is. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/machine/owner.h"

enum { OTHER_UID = 54321 };

struct ends {
	int listening, client, served;
};

static struct sockaddr_storage address_of(const char *text)
{
	struct sockaddr_storage address = {0};
	struct sockaddr_in *four = (struct sockaddr_in *)&address;
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)&address;

	if (inet_pton(AF_INET, text, &four->sin_addr) == 1) {
		four->sin_family = AF_INET;
		return address;
	}
	six->sin6_family = AF_INET6;
	assert_int_equal(inet_pton(AF_INET6, text, &six->sin6_addr), 1);
	return address;
}

/* A connection from one address to another, both as an application writes them. */
static struct ends connect_to(const char *listen_at, const char *to, const char *from)
{
	struct sockaddr_storage here = address_of(listen_at), there = address_of(to),
				own = address_of(from);
	const int off = 0;
	socklen_t len = sizeof(here);
	struct ends ends = {.listening = socket(here.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0)};

	if (here.ss_family == AF_INET6)
		setsockopt(ends.listening, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(ends.listening, (struct sockaddr *)&here, len) < 0 && errno == EADDRNOTAVAIL)
		skip(); /* no IPv6 here */
	assert_int_equal(listen(ends.listening, 1), 0);
	assert_int_equal(getsockname(ends.listening, (struct sockaddr *)&here, &len), 0);
	/* The port is at the same place in both. */
	((struct sockaddr_in *)&there)->sin_port = ((struct sockaddr_in *)&here)->sin_port;
	ends.client = socket(there.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(ends.client, (struct sockaddr *)&own, sizeof(own)), 0);
	assert_int_equal(connect(ends.client, (struct sockaddr *)&there, sizeof(there)), 0);
	ends.served = accept4(ends.listening, NULL, NULL, SOCK_CLOEXEC);
	assert_true(ends.served >= 0);
	return ends;
}

static void end(struct ends *ends)
{
	close(ends->listening);
	close(ends->served);
	close(ends->client);
}

static int ask(int served, uint32_t *ret_uid)
{
	struct sockaddr_storage theirs, ours;
	socklen_t theirs_len = sizeof(theirs), ours_len = sizeof(ours);

	assert_int_equal(getpeername(served, (struct sockaddr *)&theirs, &theirs_len), 0);
	assert_int_equal(getsockname(served, (struct sockaddr *)&ours, &ours_len), 0);
	return weft_socket_owner((struct sockaddr *)&theirs, (struct sockaddr *)&ours, ret_uid);
}

static void expect_own(const char *listen_at, const char *to, const char *from)
{
	struct ends ends = connect_to(listen_at, to, from);
	uint32_t uid = 1;

	assert_int_equal(ask(ends.served, &uid), 0);
	assert_int_equal(uid, geteuid());
	end(&ends);
}

static void it_is_known_over_ipv4(void **state)
{
	expect_own("127.0.0.1", "127.0.0.1", "127.0.0.1");
	expect_own("127.0.0.1", "127.0.0.1", "127.1.2.3");
}

static void it_is_known_over_ipv6(void **state)
{
	expect_own("::1", "::1", "::1");
}

static void it_is_known_over_ipv4_that_is_written_as_ipv6(void **state)
{
	expect_own("::", "127.0.0.1", "127.0.0.1");
	expect_own("::", "::ffff:127.0.0.1", "::ffff:127.0.0.1");
	expect_own("127.0.0.1", "::ffff:127.0.0.1", "::ffff:127.0.0.1");
}

/* The kernel says that such a socket is root's. */
static void a_socket_that_was_closed_is_nobodys(void **state)
{
	struct ends ends = connect_to("127.0.0.1", "127.0.0.1", "127.0.0.1");
	uint32_t uid = 77;

	close(ends.client);
	assert_int_equal(ask(ends.served, &uid), -ENOENT);
	assert_int_equal(uid, 77);
	ends.client = -1;
	end(&ends);
}

static void one_that_sends_no_more_is_known_still(void **state)
{
	struct ends ends = connect_to("127.0.0.1", "127.0.0.1", "127.0.0.1");
	uint32_t uid = 77;

	shutdown(ends.client, SHUT_WR);
	assert_int_equal(ask(ends.served, &uid), 0);
	assert_int_equal(uid, geteuid());
	end(&ends);
}

static void a_connection_that_there_is_not_is_nobodys(void **state)
{
	struct sockaddr_storage a = address_of("127.0.0.1"), b = address_of("::1");
	uint32_t uid;

	((struct sockaddr_in *)&a)->sin_port = htons(1);
	assert_int_equal(weft_socket_owner((struct sockaddr *)&a, (struct sockaddr *)&a, &uid),
		-ENOENT);
	assert_int_equal(weft_socket_owner((struct sockaddr *)&a, (struct sockaddr *)&b, &uid),
		-ENOENT);
}

/* In a process of its own: 0, or what went wrong first. */
static int in_child(int (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(fn());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static struct sockaddr_storage served_at;

/* Connects as another user, and waits until the other end is closed. */
static int connect_as_other(void)
{
	int fd;
	char byte;

	if (setresuid(OTHER_UID, OTHER_UID, OTHER_UID) < 0)
		return 1;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(fd, (struct sockaddr *)&served_at, sizeof(served_at)) < 0)
		return 2;
	return read(fd, &byte, 1) == 0 ? 0 : 3;
}

static void another_users_socket_is_theirs(void **state)
{
	socklen_t len = sizeof(served_at);
	uint32_t uid = 0;
	int status;

	if (geteuid() != 0)
		skip();
	served_at = address_of("127.0.0.1");
	int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(listening, (struct sockaddr *)&served_at, len), 0);
	assert_int_equal(listen(listening, 1), 0);
	getsockname(listening, (struct sockaddr *)&served_at, &len);
	pid_t pid = fork();
	if (pid == 0)
		_exit(connect_as_other());
	int served = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
	assert_int_equal(ask(served, &uid), 0);
	assert_int_equal(uid, OTHER_UID);
	close(served);
	close(listening);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static int up_in_new_namespace(void)
{
	uint32_t uid = 1;

	/* Its loopback is down: an address of it can be used all the same only once it is up. */
	if (unshare(CLONE_NEWNET) < 0)
		return 77;
	if (system("ip link set lo up") != 0)
		return 77;
	struct ends ends = connect_to("127.0.0.1", "127.0.0.1", "127.0.0.1");
	return ask(ends.served, &uid) == 0 && uid == geteuid() ? 0 : 1;
}

static void it_is_known_in_another_network_namespace(void **state)
{
	int r = in_child(up_in_new_namespace);

	if (r == 77)
		skip();
	assert_int_equal(r, 0);
}

/* The linker puts it in the place of socket(2) (--wrap). */
static bool no_netlink;
int __real_socket(int domain, int type, int protocol);
int __wrap_socket(int domain, int type, int protocol);

int __wrap_socket(int domain, int type, int protocol)
{
	if (domain == AF_NETLINK && no_netlink) {
		errno = EAFNOSUPPORT;
		return -1;
	}
	return __real_socket(domain, type, protocol);
}

static void it_is_known_without_netlink(void **state)
{
	no_netlink = true;
	it_is_known_over_ipv4(state);
	it_is_known_over_ipv6(state);
	it_is_known_over_ipv4_that_is_written_as_ipv6(state);
	a_socket_that_was_closed_is_nobodys(state);
	a_connection_that_there_is_not_is_nobodys(state);
	another_users_socket_is_theirs(state);
	no_netlink = false;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_known_over_ipv4),
		cmocka_unit_test(it_is_known_over_ipv6),
		cmocka_unit_test(it_is_known_over_ipv4_that_is_written_as_ipv6),
		cmocka_unit_test(a_socket_that_was_closed_is_nobodys),
		cmocka_unit_test(one_that_sends_no_more_is_known_still),
		cmocka_unit_test(a_connection_that_there_is_not_is_nobodys),
		cmocka_unit_test(another_users_socket_is_theirs),
		cmocka_unit_test(it_is_known_in_another_network_namespace),
		cmocka_unit_test(it_is_known_without_netlink),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
