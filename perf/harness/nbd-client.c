/* SPDX-License-Identifier: MIT */
/*
 * The measuring client.  Each connection belongs to one thread while a slice runs, else to the
 * caller.  Invariant: a slot is in flight exactly when sent_ns != 0.
 */
#include "perf/harness/nbd-client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "perf/harness/wire.h"

enum {
	MAX_DEPTH = 64,
	MAX_CONNS = 16,
	STAMP_EVERY = 512,
	RECEIVE_BYTES = 256 << 10,
	NR_RECENT = 16, /* writes remembered for the check */
	IO_TIMEOUT_S = 30,
};

struct slot {
	uint64_t off;
	uint64_t sent_ns;
	uint8_t *message; /* request header, and for a write the payload behind it */
};

struct conn {
	const struct perf_nbd_load *load;
	const struct perf_nbd_target *target;
	struct nbd_handle *nbd; /* shook hands; idle since */
	int fd;
	uint64_t first, nr_blocks; /* this connection's share of the span, in requests */
	uint64_t random, next, left;
	struct slot slots[MAX_DEPTH];
	uint8_t *rx, *messages;
	size_t message_bytes, rx_have;
	struct iovec iov[MAX_DEPTH];
	unsigned nr_iov;
	/* the reply that is coming in */
	struct slot *reply;
	uint32_t reply_done;
	uint64_t recent[NR_RECENT];
	unsigned nr_recent;
	/* the slice */
	pthread_t thread;
	pthread_barrier_t *barrier;
	uint64_t slice_ns, start_ns, end_ns;
	struct perf_nbd_result result;
	int error;
	char why[256];
};

struct perf_nbd_client {
	struct perf_nbd_load load;
	struct perf_nbd_target target;
	unsigned nr;
	struct conn conns[MAX_CONNS];
};

/* Word `i` of the span; the high bits tell the generation of the write. */
static inline uint64_t stamp(uint64_t off, uint16_t generation)
{
	return ((uint64_t)generation << 48) | (off / STAMP_EVERY * 2 + 1);
}

static inline uint64_t next_random(struct conn *c)
{
	c->random ^= c->random << 13;
	c->random ^= c->random >> 7;
	c->random ^= c->random << 17;
	return c->random;
}

static int fail(struct conn *c, int code, const char *what)
{
	snprintf(c->why, sizeof(c->why), "%s: %s", what, strerror(code));
	return c->error = -code;
}

/* -- handshake -- */

static const char *host_of(const struct perf_nbd_target *t)
{
	return t->host ? t->host : "127.0.0.1";
}

static int connect_bare(const struct perf_nbd_target *t)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(t->port)};
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	bool local = t->unix_path[0];
	int fd = socket(local ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, r;

	if (fd < 0)
		return -errno;
	inet_pton(AF_INET, host_of(t), &in.sin_addr);
	snprintf(un.sun_path, sizeof(un.sun_path), "%s", t->unix_path);
	r = local ? connect(fd, (struct sockaddr *)&un, sizeof(un))
		  : connect(fd, (struct sockaddr *)&in, sizeof(in));
	if (r < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	if (!local)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	r = weft_write_all(fd, &t->hello, sizeof(t->hello));
	if (r < 0) {
		close(fd);
		return r;
	}
	return fd;
}

static int connect_nbd(struct conn *c, const struct perf_nbd_target *t)
{
	char port[8];
	int fd, r;

	c->nbd = nbd_create();
	if (!c->nbd)
		return -ENOMEM;
	snprintf(port, sizeof(port), "%u", t->port);
	if (nbd_set_export_name(c->nbd, t->export_name ? t->export_name : "") < 0 ||
		nbd_set_request_structured_replies(c->nbd, false) < 0)
		return fail(c, EINVAL, nbd_get_error());
	r = t->unix_path[0] ? nbd_connect_unix(c->nbd, t->unix_path)
			    : nbd_connect_tcp(c->nbd, host_of(t), port);
	if (r < 0) {
		int code = nbd_get_errno();

		return fail(c, code ? code : EPROTO, nbd_get_error());
	}
	fd = fcntl(nbd_aio_get_fd(c->nbd), F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return -errno;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	return fd;
}

static int conn_open(struct conn *c, const struct perf_nbd_client *client, unsigned i)
{
	const struct perf_nbd_load *load = &client->load;
	const struct timeval timeout = {.tv_sec = IO_TIMEOUT_S};

	c->load = load;
	c->target = &client->target;
	c->nr_blocks = load->span / load->len / load->conns;
	c->first = c->nr_blocks * i;
	c->random = 0x9e3779b97f4a7c15u * (weft_now_ns() | 1) + i;
	c->message_bytes = NBD_REQUEST_BYTES + (load->write ? load->len : 0);
	c->message_bytes = (c->message_bytes + 63) / 64 * 64;
	c->rx = mmap(NULL, RECEIVE_BYTES, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	c->messages = mmap(NULL, c->message_bytes * load->depth, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (c->rx == MAP_FAILED || c->messages == MAP_FAILED)
		return fail(c, ENOMEM, "buffers");
	for (unsigned s = 0; s < load->depth; s++)
		c->slots[s].message = c->messages + s * c->message_bytes;
	c->fd = client->target.bare ? connect_bare(&client->target)
				    : connect_nbd(c, &client->target);
	if (c->fd < 0)
		return c->why[0] ? c->fd : fail(c, -c->fd, "connect");
	setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	return 0;
}

static void conn_close(struct conn *c)
{
	uint8_t bye[NBD_REQUEST_BYTES];

	if (c->fd >= 0) {
		if (!c->target->bare && !c->error) {
			wire_request(bye, NBD_CMD_DISC, 0, 0, 0);
			send(c->fd, bye, sizeof(bye), MSG_NOSIGNAL);
		}
		close(c->fd);
	}
	if (c->nbd)
		nbd_close(c->nbd);
	if (c->rx && c->rx != MAP_FAILED)
		munmap(c->rx, RECEIVE_BYTES);
	if (c->messages && c->messages != MAP_FAILED)
		munmap(c->messages, c->message_bytes * c->load->depth);
}

/* -- the loop -- */

static void ask(struct conn *c, unsigned s)
{
	struct slot *slot = &c->slots[s];
	const struct perf_nbd_load *load = c->load;
	uint64_t block = load->total ? c->next++ : next_random(c) % c->nr_blocks;

	slot->off = (c->first + block) * load->len;
	slot->sent_ns = 1;
	wire_request(slot->message, load->write ? NBD_CMD_WRITE : NBD_CMD_READ, s, slot->off,
		load->len);
	if (load->write) {
		uint8_t *payload = slot->message + NBD_REQUEST_BYTES;

		for (uint32_t i = 0; i < load->len; i += STAMP_EVERY) {
			uint64_t word = stamp(slot->off + i, load->generation);

			memcpy(payload + i, &word, sizeof(word));
		}
		c->recent[c->nr_recent++ % NR_RECENT] = slot->off;
	}
	c->iov[c->nr_iov].iov_base = slot->message;
	c->iov[c->nr_iov].iov_len = NBD_REQUEST_BYTES + (load->write ? load->len : 0);
	c->nr_iov++;
}

static int send_asked(struct conn *c)
{
	struct msghdr msg = {.msg_iov = c->iov, .msg_iovlen = c->nr_iov};

	while (msg.msg_iovlen) {
		ssize_t n = sendmsg(c->fd, &msg, MSG_NOSIGNAL);

		if (n < 0)
			return fail(c, errno, "send");
		c->result.sends++;
		wire_sent(&msg, (size_t)n);
	}
	c->nr_iov = 0;
	return 0;
}

/* Looks at each stamp that lies whole in these n bytes of the current reply's payload. */
static int check_words(struct conn *c, const uint8_t *data, uint32_t n)
{
	uint32_t i = (c->reply_done + STAMP_EVERY - 1) / STAMP_EVERY * STAMP_EVERY;
	uint64_t wrong = 0, word;

	for (; i + sizeof(word) <= c->reply_done + n; i += STAMP_EVERY) {
		memcpy(&word, data + (i - c->reply_done), sizeof(word));
		wrong |= (word ^ stamp(c->reply->off + i, 0)) << 16;
		c->result.words++;
	}
	if (wrong && !c->target->bare)
		return fail(c, EILSEQ, "the server sent other bytes than were written");
	return 0;
}

static int parse_header(struct conn *c, const uint8_t *p)
{
	uint64_t cookie;
	uint32_t error = wire_reply(p, &cookie);

	if (error == UINT32_MAX || cookie >= c->load->depth || !c->slots[cookie].sent_ns)
		return fail(c, EPROTO, "a reply that nothing asked for");
	if (error)
		return fail(c, EIO, "the server answered with an error");
	c->reply = &c->slots[cookie];
	c->reply_done = 0;
	return 0;
}

/* Takes what was received.  Completed slots are asked again while there is something to ask. */
static int parse(struct conn *c, uint64_t now, unsigned *in_flight)
{
	const struct perf_nbd_load *load = c->load;
	uint32_t payload = load->write ? 0 : load->len;
	bool go_on = load->total ? true : now < c->end_ns;
	size_t pos = 0;
	int r;

	while (pos < c->rx_have || (c->reply && c->reply_done == payload)) {
		if (!c->reply) {
			if (c->rx_have - pos < NBD_SIMPLE_REPLY_BYTES)
				break;
			r = parse_header(c, c->rx + pos);
			if (r < 0)
				return r;
			pos += NBD_SIMPLE_REPLY_BYTES;
		}
		if (c->reply_done < payload) {
			uint32_t n = (uint32_t)weft_min(payload - c->reply_done, c->rx_have - pos);

			r = check_words(c, c->rx + pos, n);
			if (r < 0)
				return r;
			pos += n;
			c->reply_done += n;
			if (c->reply_done < payload)
				break;
		}
		weft_histogram_add(&c->result.latency, now - c->reply->sent_ns);
		c->reply->sent_ns = 0;
		c->result.all_ops++;
		if (now < c->end_ns)
			c->result.ops++;
		if (go_on && (!load->total || c->next < c->nr_blocks))
			ask(c, (unsigned)(c->reply - c->slots));
		else
			--*in_flight;
		c->reply = NULL;
	}
	memmove(c->rx, c->rx + pos, c->rx_have - pos);
	c->rx_have -= pos;
	return 0;
}

static void stamp_sent(struct conn *c, uint64_t now)
{
	for (unsigned s = 0; s < c->load->depth; s++)
		if (c->slots[s].sent_ns == 1)
			c->slots[s].sent_ns = now;
}

static int drive(struct conn *c)
{
	unsigned in_flight = c->load->depth;
	/*
	 * A thread in recv(2) on a Unix socket wakes up each time the peer frees a buffer
	 * (unix_write_space() wakes all who wait), one in poll(2) only when something came.
	 */
	struct pollfd pfd = {.fd = c->fd, .events = POLLIN};
	uint64_t now;
	int r;

	memset(&c->result, 0, sizeof(c->result));
	c->next = 0;
	c->nr_iov = 0;
	if (c->load->total && in_flight > c->nr_blocks)
		in_flight = (unsigned)c->nr_blocks;
	for (unsigned s = 0; s < in_flight; s++)
		ask(c, s);
	now = c->start_ns = weft_now_ns();
	c->end_ns = c->load->total ? UINT64_MAX : now + c->slice_ns;
	while (in_flight) {
		ssize_t n;

		if (c->nr_iov) {
			stamp_sent(c, now);
			r = send_asked(c);
			if (r < 0)
				return r;
		}
		if (c->target->unix_path[0])
			poll(&pfd, 1, IO_TIMEOUT_S * 1000);
		n = recv(c->fd, c->rx + c->rx_have, RECEIVE_BYTES - c->rx_have, 0);
		if (n <= 0)
			return fail(c, n < 0 ? errno : EPIPE, "receive");
		c->result.receives++;
		c->rx_have += (size_t)n;
		now = weft_now_ns();
		r = parse(c, now, &in_flight);
		if (r < 0)
			return r;
	}
	c->result.elapsed_ns = c->load->total ? now - c->start_ns : c->slice_ns;
	return 0;
}

static void *conn_thread(void *arg)
{
	struct conn *c = arg;

	pthread_barrier_wait(c->barrier);
	drive(c);
	return NULL;
}

/* -- for suites -- */

int perf_nbd_open(const struct perf_nbd_target *target, const struct perf_nbd_load *load,
	struct perf_nbd_client **ret, char *why)
{
	struct perf_nbd_client *client = calloc(1, sizeof(*client));
	int r;

	if (!client)
		return -ENOMEM;
	client->load = *load;
	client->target = *target;
	client->target.hello.write = load->write;
	client->target.hello.len = load->len;
	for (unsigned i = 0; i < load->conns; i++)
		client->conns[i].fd = -1;
	for (; client->nr < load->conns; client->nr++) {
		r = conn_open(&client->conns[client->nr], client, client->nr);
		if (r < 0) {
			snprintf(why, 256, "%.255s", client->conns[client->nr].why);
			client->nr++;
			perf_nbd_close(client);
			return r;
		}
	}
	*ret = client;
	return 0;
}

int perf_nbd_run(struct perf_nbd_client *client, uint64_t slice_ns, struct perf_nbd_result *ret,
	char *why)
{
	pthread_barrier_t barrier;
	int r = 0;

	memset(ret, 0, sizeof(*ret));
	for (unsigned i = 0; i < client->nr; i++) {
		client->conns[i].slice_ns = slice_ns;
		client->conns[i].barrier = &barrier;
	}
	if (client->nr == 1) {
		drive(&client->conns[0]);
	} else {
		pthread_barrier_init(&barrier, NULL, client->nr);
		for (unsigned i = 0; i < client->nr; i++)
			if (pthread_create(&client->conns[i].thread, NULL, conn_thread,
				    &client->conns[i]))
				abort(); /* the barrier would never open */
		for (unsigned i = 0; i < client->nr; i++)
			pthread_join(client->conns[i].thread, NULL);
		pthread_barrier_destroy(&barrier);
	}
	for (unsigned i = 0; i < client->nr; i++) {
		struct conn *c = &client->conns[i];

		if (c->error && !r) {
			r = c->error;
			snprintf(why, 256, "%.255s", c->why);
		}
		ret->elapsed_ns = weft_max(ret->elapsed_ns, c->result.elapsed_ns);
		ret->ops += c->result.ops;
		ret->all_ops += c->result.all_ops;
		ret->words += c->result.words;
		ret->receives += c->result.receives;
		ret->sends += c->result.sends;
		weft_histogram_merge(&ret->latency, &c->result.latency);
	}
	return r;
}

static int check_recent(struct conn *c)
{
	uint32_t len = c->load->len;
	unsigned n = (unsigned)weft_min(c->nr_recent, NR_RECENT);
	uint8_t head[NBD_REQUEST_BYTES], reply[NBD_SIMPLE_REPLY_BYTES];
	WEFT_CLEANUP_FREE uint8_t *data = malloc(len);

	if (!data)
		return fail(c, ENOMEM, "buffers");
	for (unsigned i = 0; i < n; i++) {
		uint64_t off = c->recent[i], cookie;

		wire_request(head, NBD_CMD_READ, i, off, len);
		if (weft_write_all(c->fd, head, sizeof(head)) < 0 ||
			weft_read_all(c->fd, reply, sizeof(reply)) < 0 ||
			wire_reply(reply, &cookie) != 0 ||
			weft_read_all(c->fd, data, len) < 0)
			return fail(c, EIO, "reading back what was written");
		for (uint32_t j = 0; j < len; j += STAMP_EVERY) {
			uint64_t want = stamp(off + j, c->load->generation);

			if (memcmp(data + j, &want, sizeof(want)))
				return fail(c, EILSEQ, "the server lost what was written");
		}
	}
	c->nr_recent = 0;
	return 0;
}

int perf_nbd_check(struct perf_nbd_client *client, char *why)
{
	if (client->target.bare || !client->load.write)
		return 0;
	for (unsigned i = 0; i < client->nr; i++) {
		int r = check_recent(&client->conns[i]);

		if (r < 0) {
			snprintf(why, 256, "%.255s", client->conns[i].why);
			return r;
		}
	}
	return 0;
}

void perf_nbd_close(struct perf_nbd_client *client)
{
	if (!client)
		return;
	for (unsigned i = 0; i < client->nr; i++)
		conn_close(&client->conns[i]);
	free(client);
}

int perf_nbd_populate(const struct perf_nbd_target *target, uint64_t span, char *why)
{
	const struct perf_nbd_load load = {.write = true, .len = 1 << 20, .depth = 2, .conns = 1,
		.span = span, .total = span, .generation = 1};
	struct perf_nbd_client *client;
	struct perf_nbd_result *result;
	int r;

	if (target->bare)
		return 0;
	result = malloc(sizeof(*result));
	if (!result)
		return -ENOMEM;
	r = perf_nbd_open(target, &load, &client, why);
	if (r == 0) {
		r = perf_nbd_run(client, 0, result, why);
		if (r == 0)
			r = perf_nbd_check(client, why);
		perf_nbd_close(client);
	}
	free(result);
	return r;
}
