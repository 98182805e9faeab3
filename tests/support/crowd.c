/* SPDX-License-Identifier: MIT */
/*
 * crowd: half-open connections for a test.  Opens COUNT TCP connections to a port, says nothing on
 * them, holds them, and opens again whatever was ended; until it is told to stop.
 *
 *     crowd HOST PORT COUNT FIRST-ADDRESS ADDRESSES [SPEAK]
 *
 * They come from ADDRESSES addresses, one after the other, from FIRST-ADDRESS on (all of
 * 127.0.0.0/8 are this machine's).  SPEAK: say as much as a client of NBD does before it names an
 * export.  Prints "there" once as many were opened as wanted; the numbers at the end.
 */
#include <arpa/inet.h>
#include <errno.h>
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
	bool connected;
};

static struct sockaddr_in donor, first;
static struct connection *connections;
static unsigned nr, nr_addresses, nr_under_way, nr_open, next;
static uint64_t opened, ended, failed;
static bool speak;
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
	c->connected = false;
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

static void on_event(const struct epoll_event *event)
{
	struct connection *c = &connections[event->data.u32];
	struct epoll_event want = {.events = EPOLLRDHUP, .data = event->data};
	/* Flags, then STRUCTURED_REPLY. */
	static const char words[] = "\0\0\0\3IHAVEOPT\0\0\0\10\0\0\0";

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
		if (speak && send(c->fd, words, sizeof(words), MSG_NOSIGNAL) < 0)
			hang_up(c);
	}
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
	speak = argc > 6;
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
	printf("opened %llu, ended by the other side %llu, failed %llu, most at once %u\n",
		(unsigned long long)opened, (unsigned long long)ended, (unsigned long long)failed,
		most);
	return 0;
}
