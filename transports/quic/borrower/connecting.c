/* SPDX-License-Identifier: MIT */
/*
 * Connecting: on a thread of the transport's crew, because names are resolved and a donor's grant
 * may wait for the sessions that it supersedes.  The thread has the connection until it is granted,
 * then the lane has it.  Every wait ends at the deadline or when the owner gives up, but for the
 * resolver's own.
 */
#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/lookup.h"
#include "fabric/base/map.h"
#include "fabric/base/util.h"
#include "fabric/nbd/tls-bare.h"
#include "transports/quic/borrower/client-private.h"

#define MS_NS UINT64_C(1000000)

enum {
	DEFAULT_TIMEOUT_MS = 10000,
	DEAD_MS = 20000,
	KEEP_ALIVE_PART = 4, /* of the time after which a silent peer is gone */
};

void quic_wire_free(struct quic_wire *wire)
{
	if (!wire)
		return;
	quic_wire_fini(wire);
	weft_unmap_bytes(wire, sizeof(*wire));
}

/*
 * One round: sends, waits until something comes or is due, receives.  0; -ETIMEDOUT at end_ns,
 * -ECANCELED, or what ended the connection, with c->error set.
 */
static int move(struct quic_connecting *c, uint64_t end_ns, uint32_t end_ms)
{
	struct quic_wire *w = c->wire;
	uint64_t now_ns = weft_now_ns();
	int r = quic_wire_send(w, now_ns);

	if (r == 0 && now_ns >= end_ns)
		return weft_error_set(&c->error, ETIMEDOUT, "no answer within %u ms", end_ms);
	if (r == 0) {
		const uint64_t due_ns = weft_min(quic_due_ns(w->conn), end_ns);
		struct pollfd fds[2] = {
			{.fd = w->socket.fd, .events = POLLIN | (w->blocked ? POLLOUT : 0)},
			{.fd = c->cancel_fd, .events = POLLIN},
		};

		poll(fds, 2, due_ns > now_ns ? (int)((due_ns - now_ns) / MS_NS + 1) : 0);
		if (fds[1].revents)
			return weft_error_set(&c->error, ECANCELED, "given up");
		r = quic_wire_receive(w, c->inbox, weft_now_ns());
	}
	if (r == -ECONNREFUSED)
		return weft_error_set(&c->error, ECONNREFUSED, "%s", strerror(ECONNREFUSED));
	if (r < 0)
		c->error = w->conn->why;
	/* To whoever connects it would say that the generation is over. */
	if (r == -EKEYEXPIRED)
		r = -(c->error.code = EKEYREJECTED);
	return r;
}

/* QUIC's handshake. */
static int shake(struct quic_connecting *c)
{
	const uint32_t wait_ms =
		c->answer_ms ? (uint32_t)weft_min(c->answer_ms, c->timeout_ms) : c->timeout_ms;
	const uint64_t end_ns = weft_min(weft_now_ns() + wait_ms * MS_NS, c->deadline_ns);
	int r = 0;

	while (r == 0 && !quic_is_shaken(c->wire->conn))
		r = move(c, end_ns, wait_ms);
	if (r == 0) {
		r = quic_open_streams(c->wire->conn);
		if (r < 0)
			c->error = c->wire->conn->why;
	}
	return r;
}

/* NBD's, over the first stream. */
static int talk(struct quic_connecting *c)
{
	struct nbd_stream stream = {.fd = -1, .pipe = &c->wire->conn->streams[0].pipe};
	const struct nbd_talk_wish wish = {
		.region = c->region,
		.hello = c->hello,
		.at_once = true,
	};
	short events;
	int r = nbd_talk_begin(&c->talk, &wish);

	if (r < 0)
		c->error = c->talk.error;
	while (r == 0) {
		r = nbd_talk_move(&c->talk, &stream, &events);
		/* What ended the connection says more than that it ended. */
		if (r < 0)
			c->error = c->wire->conn->error ? c->wire->conn->why : c->talk.error;
		else if (r == 0)
			r = move(c, c->deadline_ns, c->timeout_ms);
	}
	c->info = c->talk.info;
	c->structured = c->talk.structured;
	nbd_talk_end(&c->talk);
	return r < 0 ? r : 0;
}

static void describe(struct quic_connecting *c)
{
	const struct quic_path *path = &c->wire->socket.path;
	char host[2][NI_MAXHOST] = {"?", "?"}, port[2][NI_MAXSERV] = {"?", "?"};
	const char *form = path->remote.ss_family == AF_INET6
				   ? "quic [%.50s]:%.5s -> [%.50s]:%.5s (%s)"
				   : "quic %.50s:%.5s -> %.50s:%.5s (%s)";

	snprintf(c->info.transport, sizeof(c->info.transport), "quic");
	c->info.rtt_us = (uint32_t)(quic_rtt_ns(c->wire->conn) / 1000);
	(void)getnameinfo((const struct sockaddr *)&path->local, path->local_len, host[0],
		sizeof(host[0]), port[0], sizeof(port[0]), NI_NUMERICHOST | NI_NUMERICSERV);
	(void)getnameinfo((const struct sockaddr *)&path->remote, path->remote_len, host[1],
		sizeof(host[1]), port[1], sizeof(port[1]), NI_NUMERICHOST | NI_NUMERICSERV);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	snprintf(c->info.path, sizeof(c->info.path), form, host[0], port[0], host[1], port[1],
		nbd_tls_bare_cipher(c->wire->conn->tls));
#pragma GCC diagnostic pop
}

static const struct quic_owner owner = {.new_cid = NULL};

static int begin(struct quic_connecting *c, const struct sockaddr *address)
{
	struct quic_config config = {
		.credentials = c->credentials,
		.owner = &owner,
		.idle_ms = c->dead_ms,
		.handshake_ms = c->timeout_ms,
	};
	int r;

	c->wire = weft_map_bytes(sizeof(*c->wire));
	if (!c->wire)
		return weft_error_set(&c->error, ENOMEM, "out of memory");
	c->wire->socket.fd = -1;
	r = quic_socket_open(NULL, address, false, &c->wire->socket, &c->error);
	if (r < 0)
		return r;
	config.path = c->wire->socket.path;
	config.route_bytes = c->wire->socket.route_bytes;
	r = quic_client_new(&config, &c->wire->conn);
	return r < 0 ? weft_error_set(&c->error, -r, "cannot begin QUIC: %s", strerror(-r)) : 0;
}

static int try_address(struct quic_connecting *c, const struct sockaddr *address)
{
	int r = begin(c, address);

	if (r == 0)
		r = shake(c);
	if (r == 0)
		r = talk(c);
	/* With certificates the donor has looked at ours by now. */
	if (r == 0)
		r = nbd_tls_bare_done(c->wire->conn->tls, &c->error);
	if (r == 0) {
		quic_keep_alive(c->wire->conn, c->dead_ms / KEEP_ALIVE_PART);
		describe(c);
		return 0;
	}
	if (c->wire && c->wire->conn)
		quic_wire_close(c->wire, QUIC_OVER, NULL);
	quic_wire_free(c->wire);
	c->wire = NULL;
	return r;
}

/* Whether another address of the donor's may answer where this one did not. */
static bool is_of_address(int r)
{
	return r == -ECONNREFUSED || r == -EHOSTUNREACH || r == -ENETUNREACH ||
		r == -EADDRNOTAVAIL || r == -EAFNOSUPPORT;
}

static int try_all(struct quic_connecting *c)
{
	struct weft_lookup found;
	int r = weft_lookup(c->host, c->port, AI_ADDRCONFIG, &found);

	/* AI_ADDRCONFIG takes loopback for no address. */
	if (r == EAI_NONAME || r == EAI_ADDRFAMILY)
		r = weft_lookup(c->host, c->port, 0, &found);
	if (r != 0)
		return weft_error_set(&c->error, EHOSTUNREACH, "%s", gai_strerror(r));
	r = weft_error_set(&c->error, EHOSTUNREACH, "it has no address");
	for (unsigned i = 0; i < found.nr; i++) {
		r = try_address(c, (const struct sockaddr *)&found.at[i]);
		if (!is_of_address(r))
			break;
	}
	return r;
}

static void run(struct quic_connecting *c)
{
	c->deadline_ns = weft_now_ns() + c->timeout_ms * MS_NS;
	int r = try_all(c);
	weft_debug("%s UDP port %s: %s", c->host, c->port, r < 0 ? c->error.message : "granted");
	if (r == 0)
		c->error.code = 0;
	else
		weft_error_prefix(&c->error, "%.200s UDP port %s", c->host, c->port);
}

static void free_connecting(struct quic_connecting *c)
{
	if (c->wire)
		quic_wire_close(c->wire, QUIC_OVER, NULL);
	quic_wire_free(c->wire);
	quic_inbox_free(c->inbox);
	weft_close_fd(c->cancel_fd);
	weft_close_fd(c->done_fd);
	nbd_tls_credentials_put(c->credentials);
	free(c->host);
	free(c->port);
	free(c->region);
	explicit_bzero(&c->hello, sizeof(c->hello));
	free(c);
}

void quic_connecting_put(struct quic_connecting *c)
{
	if (atomic_fetch_sub(&c->refs, 1) == 1)
		free_connecting(c);
}

static void connecting_main(void *ctx)
{
	struct quic_connecting *c = ctx;
	uint64_t one = 1;

	run(c);
	if (write(c->done_fd, &one, sizeof(one)) < 0)
		abort(); /* a fresh eventfd takes any count */
	quic_connecting_put(c);
}

int quic_connecting_start(struct weft_crew *crew, const struct tp_target *target,
	struct quic_connecting **ret, struct weft_error *err)
{
	const struct nbd_tls_client client = {
		.key = target->key,
		.certificates = target->certificates,
		.host = target->host,
	};
	struct quic_connecting *c = calloc(1, sizeof(*c));
	int r = 0;

	if (!c)
		return weft_error_set(err, ENOMEM, "cannot connect: out of memory");
	c->hello = target->hello;
	c->timeout_ms =
		target->connect_timeout_ms ? target->connect_timeout_ms : DEFAULT_TIMEOUT_MS;
	c->answer_ms = target->answer_ms;
	c->dead_ms = target->dead_ms ? (uint32_t)weft_min(target->dead_ms, DEAD_MS) : DEAD_MS;
	c->host = strdup(target->host);
	c->port = strdup(target->port ? target->port : "10809");
	c->region = strdup(target->region);
	c->inbox = quic_inbox_new();
	c->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!c->host || !c->port || !c->region || !c->inbox || c->cancel_fd < 0 || c->done_fd < 0)
		r = weft_error_set(err, ENOMEM, "cannot connect: no memory, or no descriptor");
	if (r == 0)
		r = nbd_tls_client_new(&client, &c->credentials, err);
	if (r < 0) {
		free_connecting(c);
		return r;
	}
	atomic_init(&c->refs, 2);
	r = weft_crew_run(crew, connecting_main, c);
	if (r < 0) {
		free_connecting(c);
		return weft_error_set(err, -r, "cannot connect: no thread: %s", strerror(-r));
	}
	*ret = c;
	return 0;
}

void quic_connecting_cancel(struct quic_connecting *c)
{
	uint64_t one = 1;

	/* EAGAIN would mean that it was told already. */
	if (write(c->cancel_fd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN);
}
