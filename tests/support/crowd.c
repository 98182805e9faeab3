/* SPDX-License-Identifier: MIT */
/*
 * crowd: half-open connections for a test.  Opens COUNT TCP connections to a port, says nothing on
 * them, holds them, and opens again whatever was ended; until it is told to stop.
 *
 *     crowd HOST PORT COUNT FIRST-ADDRESS ADDRESSES [speak|tls|tls-key]
 *
 * They come from ADDRESSES addresses, one after the other, from FIRST-ADDRESS on (all of
 * 127.0.0.0/8 are this machine's).  speak: they say as much as a client of NBD does before it
 * names an export.  tls: they begin TLS and send a ClientHello, on which a donor has to work, and
 * no more; tls-key: the same, with a proof of a key that there is not.  Prints "there" once as
 * many were opened as wanted; the numbers at the end.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fabric/base/util.h"

/* Even for those who are at it, opening is not for nothing: at most so many under way. */
enum { UNDER_WAY = 256, EVENTS = 256 };

struct connection {
	int fd; /* -1: to be opened */
	bool connected, said_hello;
	size_t got; /* bytes of the donor's */
};

enum { GREETING_BYTES = 18, ACK_BYTES = 20 };

static struct sockaddr_in donor, first;
static struct connection *connections;
static unsigned nr, nr_addresses, nr_under_way, nr_open, next;
static uint64_t opened, ended, failed, hellos;
/* What each says: as soon as it is connected, and once TLS is acknowledged. */
static struct {
	char bytes[2048];
	size_t len;
} words, hello;
static int epfd;
static volatile sig_atomic_t stop;

static void on_signal(int signo)
{
	stop = 1;
}

static void hang_up(struct connection *c)
{
	struct linger linger = {.l_onoff = 1};

	setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	close(c->fd);
	c->fd = -1;
	nr_open -= c->connected;
	nr_under_way -= !c->connected;
}

static void begin(unsigned i)
{
	struct connection *c = &connections[i];
	struct sockaddr_in from = first;
	struct epoll_event event = {.events = EPOLLOUT, .data.u32 = i};
	int one = 1;

	from.sin_addr.s_addr = htonl(ntohl(first.sin_addr.s_addr) + i % nr_addresses);
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0) {
		perror("crowd: socket");
		exit(1);
	}
	c->connected = c->said_hello = false;
	c->got = 0;
	nr_under_way++;
	setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
	if (bind(c->fd, (struct sockaddr *)&from, sizeof(from)) < 0 ||
		(connect(c->fd, (struct sockaddr *)&donor, sizeof(donor)) < 0 &&
			errno != EINPROGRESS) ||
		epoll_ctl(epfd, EPOLL_CTL_ADD, c->fd, &event) < 0) {
		failed++;
		hang_up(c);
	}
}

/* Those that were ended, in turn, so that each address has its share. */
static void begin_some(void)
{
	for (unsigned looked = 0; looked < nr && nr_under_way < UNDER_WAY; looked++) {
		unsigned i = next++ % nr;

		if (connections[i].fd < 0)
			begin(i);
	}
}

/* What a donor says is of no interest, but for how much it is. */
static void take(struct connection *c)
{
	char bytes[4096];
	ssize_t n = recv(c->fd, bytes, sizeof(bytes), 0);

	c->got += n > 0 ? (size_t)n : 0;
	if (c->got < GREETING_BYTES + ACK_BYTES || c->said_hello)
		return;
	c->said_hello = true;
	if (send(c->fd, hello.bytes, hello.len, MSG_NOSIGNAL) < 0)
		hang_up(c);
	else
		hellos++;
}

static void on_event(const struct epoll_event *event)
{
	struct connection *c = &connections[event->data.u32];
	struct epoll_event want = {.events = EPOLLRDHUP | (hello.len ? EPOLLIN : 0),
		.data = event->data};

	if (event->events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP)) {
		*(c->connected ? &ended : &failed) += 1;
		hang_up(c);
		return;
	}
	if (!c->connected) {
		c->connected = true;
		nr_under_way--;
		nr_open++;
		opened++;
		epoll_ctl(epfd, EPOLL_CTL_MOD, c->fd, &want);
		if (words.len && send(c->fd, words.bytes, words.len, MSG_NOSIGNAL) < 0)
			hang_up(c);
	} else if (hello.len) {
		take(c);
	}
}

static ssize_t keep_hello(gnutls_transport_ptr_t ptr, const void *bytes, size_t len)
{
	if (hello.len + len > sizeof(hello.bytes))
		abort();
	memcpy(hello.bytes + hello.len, bytes, len);
	hello.len += len;
	return (ssize_t)len;
}

static ssize_t pull_nothing(gnutls_transport_ptr_t session, void *bytes, size_t len)
{
	gnutls_transport_set_errno(session, EAGAIN);
	return -1;
}

static void make_hello(bool with_key)
{
	static unsigned char secret[32] = {1};
	const gnutls_datum_t key = {secret, sizeof(secret)};
	gnutls_certificate_credentials_t certificates;
	gnutls_psk_client_credentials_t psk;
	gnutls_session_t session;

	gnutls_init(&session, GNUTLS_CLIENT | GNUTLS_NONBLOCK);
	gnutls_priority_set_direct(session,
		with_key ? "NORMAL:-KX-ALL:+ECDHE-PSK" : "NORMAL", NULL);
	gnutls_certificate_allocate_credentials(&certificates);
	gnutls_psk_allocate_client_credentials(&psk);
	gnutls_psk_set_client_credentials(psk, "mallory", &key, GNUTLS_PSK_KEY_RAW);
	gnutls_credentials_set(session, with_key ? GNUTLS_CRD_PSK : GNUTLS_CRD_CERTIFICATE,
		with_key ? (void *)psk : (void *)certificates);
	gnutls_transport_set_ptr(session, session);
	gnutls_transport_set_push_function(session, keep_hello);
	gnutls_transport_set_pull_function(session, pull_nothing);
	gnutls_handshake(session);
	if (hello.len == 0)
		abort();
}

/* Flags, then an option. */
static void choose_words(const char *what)
{
	static const char spoken[] = "\0\0\0\3IHAVEOPT\0\0\0\10\0\0\0";
	static const char starttls[] = "\0\0\0\3IHAVEOPT\0\0\0\5\0\0\0";

	words.len = sizeof(spoken);
	memcpy(words.bytes, strcmp(what, "speak") == 0 ? spoken : starttls, sizeof(spoken));
	if (strcmp(what, "speak") != 0)
		make_hello(strcmp(what, "tls-key") == 0);
}

int main(int argc, char **argv)
{
	struct epoll_event events[EVENTS];
	struct rlimit limit;
	bool told = false;
	unsigned most = 0;

	if (argc < 6)
		return 2;
	donor.sin_family = first.sin_family = AF_INET;
	donor.sin_port = htons((uint16_t)atoi(argv[2]));
	nr = (unsigned)atoi(argv[3]);
	nr_addresses = (unsigned)atoi(argv[5]);
	if (argc > 6)
		choose_words(argv[6]);
	if (inet_pton(AF_INET, argv[1], &donor.sin_addr) != 1 ||
		inet_pton(AF_INET, argv[4], &first.sin_addr) != 1 || nr == 0 || nr_addresses == 0)
		return 2;
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur < nr + 16) {
		fprintf(stderr, "crowd: %u descriptors are more than the limit of %llu\n", nr,
			(unsigned long long)limit.rlim_cur);
		return 77;
	}
	connections = calloc(nr, sizeof(*connections));
	epfd = epoll_create1(EPOLL_CLOEXEC);
	for (unsigned i = 0; i < nr; i++)
		connections[i].fd = -1;
	signal(SIGTERM, on_signal);
	signal(SIGINT, on_signal);
	while (!stop) {
		begin_some();
		int n = epoll_wait(epfd, events, EVENTS, 10);
		for (int i = 0; i < n; i++)
			on_event(&events[i]);
		most = nr_open > most ? nr_open : most;
		if (!told && opened >= nr) {
			told = true;
			puts("there");
			fflush(stdout);
		}
	}
	printf("opened %llu, ended by the other side %llu, failed %llu, most at once %u",
		(unsigned long long)opened, (unsigned long long)ended, (unsigned long long)failed,
		most);
	if (hello.len)
		printf(", hellos %llu", (unsigned long long)hellos);
	puts("");
	return 0;
}
