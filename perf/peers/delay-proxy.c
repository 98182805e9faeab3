/*
 * delay-proxy: a path of some length on one machine.  Forwards each connection to a TCP port, each byte half a round trip after it came, both ways.
 *
 * A connection has a thread for each direction, which holds what came in a ring until it is due.  So throughput is the ring's size over the
 * delay, as a window's would be: 64 MiB, more than anybody here has under way.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fabric/base/util.h"

enum { RING = 64 << 20, PIECES = 1 << 16, READ_MAX = 256 << 10 };

struct direction {
	int from, to;
	uint64_t delay_ns;
	uint8_t *ring;
	uint64_t in, out; /* bytes */
	struct {
		uint64_t due_ns, end; /* bytes before end are due then */
	} pieces[PIECES];
	uint64_t first, next; /* pieces */
	bool ended;
};

static void take(struct direction *d)
{
	size_t at = d->in % RING;
	size_t room = weft_min(weft_min(RING - (d->in - d->out), RING - at), READ_MAX);
	ssize_t n = recv(d->from, d->ring + at, room, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		d->ended = true;
		return;
	}
	d->in += (uint64_t)n;
	d->pieces[d->next % PIECES].due_ns = weft_now_ns() + d->delay_ns;
	d->pieces[d->next++ % PIECES].end = d->in;
}

/* false: nobody takes it. */
static bool give(struct direction *d)
{
	while (d->first != d->next && d->pieces[d->first % PIECES].due_ns <= weft_now_ns()) {
		uint64_t end = d->pieces[d->first % PIECES].end;
		size_t at = d->out % RING;
		ssize_t n = send(d->to, d->ring + at, weft_min(end - d->out, RING - at), MSG_NOSIGNAL);

		if (n < 0)
			return false;
		d->out += (uint64_t)n;
		d->first += d->out == end;
	}
	return true;
}

static void *forward(void *ctx)
{
	struct direction *d = ctx;

	prctl(PR_SET_TIMERSLACK, 1000);
	while (give(d) && !(d->ended && d->first == d->next)) {
		bool room = !d->ended && d->in - d->out < RING && d->next - d->first < PIECES;
		struct pollfd fd = {.fd = room ? d->from : -1, .events = POLLIN};
		uint64_t due_ns = d->first != d->next ? d->pieces[d->first % PIECES].due_ns : UINT64_MAX, now_ns = weft_now_ns();
		struct timespec left = {.tv_nsec = due_ns > now_ns ? (long)weft_min(due_ns - now_ns, 999999999) : 0};

		if (ppoll(&fd, 1, due_ns == UINT64_MAX ? NULL : &left, NULL) > 0)
			take(d);
	}
	shutdown(d->to, SHUT_WR);
	if (!d->ended)
		shutdown(d->from, SHUT_RD);
	munmap(d->ring, RING);
	free(d);
	return NULL;
}

static void start(int from, int to, uint64_t delay_ns)
{
	struct direction *d = calloc(1, sizeof(*d));
	pthread_t thread;

	if (!d)
		abort();
	d->from = from;
	d->to = to;
	d->delay_ns = delay_ns;
	d->ring = mmap(NULL, RING, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (d->ring == MAP_FAILED || pthread_create(&thread, NULL, forward, d) != 0)
		abort();
	pthread_detach(thread);
}

static int tcp_socket(void)
{
	const int one = 1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

int main(int argc, char **argv)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);
	const int one = 1;

	if (argc != 3) {
		fprintf(stderr, "usage: delay-proxy PORT MICROSECONDS\nForwards to PORT of 127.0.0.1 with this round trip; prints the port that it listens on.\n");
		return 2;
	}
	uint64_t delay_ns = strtoull(argv[2], NULL, 10) * 1000 / 2;
	int listener = tcp_socket();
	if (bind(listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(listener, 64) < 0 ||
		getsockname(listener, (struct sockaddr *)&addr, &len) < 0) {
		perror("delay-proxy");
		return 1;
	}
	printf("%u\n", ntohs(addr.sin_port));
	fflush(stdout);
	addr.sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10));
	for (;;) {
		int from = accept4(listener, NULL, NULL, SOCK_CLOEXEC), to = tcp_socket();

		setsockopt(from, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (from < 0 || connect(to, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
			perror("delay-proxy");
			close(from);
			close(to);
			continue;
		}
		/* Two ends, two threads; the descriptors stay until the process ends, which is soon. */
		start(from, to, delay_ns);
		start(to, from, delay_ns);
	}
}
