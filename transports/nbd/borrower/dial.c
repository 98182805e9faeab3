/* SPDX-License-Identifier: MIT */
/* Connected sockets, and donors behind them; see dial.h. */
#include "transports/nbd/borrower/dial.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/lookup.h"
#include "fabric/base/util.h"

enum { KEEPALIVE_S = 5, KEEPALIVE_PROBES = 3 };

int nbd_dial_wait(const struct nbd_dial *dial, int fd, short events, short *ret_events,
	struct weft_error *err)
{
	/* poll(2) passes over a descriptor of -1. */
	struct pollfd fds[2] = {{.fd = fd, .events = events},
		{.fd = dial->cancel_fd, .events = POLLIN}};

	for (;;) {
		uint64_t now = weft_now_ns();

		if (now >= dial->deadline_ns)
			return weft_error_set(err, ETIMEDOUT, "no answer within %u ms",
				dial->timeout_ms);
		int r = poll(fds, 2, (int)((dial->deadline_ns - now + 999999) / 1000000));
		if (r < 0 && errno != EINTR)
			return weft_error_set(err, errno, "poll: %s", strerror(errno));
		if (r > 0 && fds[1].revents)
			return weft_error_set(err, ECANCELED, "given up");
		if (r > 0) {
			*ret_events = fds[0].revents;
			return 0;
		}
	}
}

static void tune(int fd, int family, int dead_ms)
{
	const struct {
		int level, name, value;
	} options[] = {
		{IPPROTO_TCP, TCP_NODELAY, 1},
		{SOL_SOCKET, SO_KEEPALIVE, 1},
		{IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_S},
		{IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_S},
		{IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES},
		{IPPROTO_TCP, TCP_USER_TIMEOUT, dead_ms},
	};

	/* Best effort: without them it is slower, or a dead peer is found later. */
	if (family != AF_UNIX)
		for (size_t i = 0; i < WEFT_ARRAY_LEN(options); i++)
			(void)setsockopt(fd, options[i].level, options[i].name, &options[i].value,
				sizeof(options[i].value));
}

/* A connected socket, or -errno. */
static int connect_to(const struct nbd_dial *dial, const struct sockaddr *addr, socklen_t len,
	struct weft_error *err)
{
	int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int error = 0, r;
	short events;

	if (fd < 0)
		return weft_error_set(err, errno, "socket: %s", strerror(errno));
	tune(fd, addr->sa_family, (int)dial->dead_ms);
	if (connect(fd, addr, len) < 0) {
		error = errno;
		if (error == EINPROGRESS) {
			socklen_t size = sizeof(error);

			r = nbd_dial_wait(dial, fd, POLLOUT, &events, err);
			if (r < 0)
				goto fail;
			getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
		}
	}
	if (error == 0)
		return fd;
	/*
	 * No socket file, or its queue is full: to the caller both are a donor that does not
	 * answer.
	 */
	if (addr->sa_family == AF_UNIX && (error == ENOENT || error == EAGAIN))
		r = weft_error_set(err, ECONNREFUSED, "%s",
			error == ENOENT ? "no such socket" : "its queue is full");
	else
		r = weft_error_set(err, error, "%s", strerror(error));
fail:
	close(fd);
	return r;
}

static int connect_unix(const struct nbd_dial *dial, struct weft_error *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	if (strlen(dial->host) >= sizeof(addr.sun_path))
		return weft_error_set(err, ENAMETOOLONG, "the socket's path is too long");
	strcpy(addr.sun_path, dial->host);
	return connect_to(dial, (const struct sockaddr *)&addr, sizeof(addr), err);
}

static int connect_tcp(const struct nbd_dial *dial, struct weft_error *err)
{
	struct weft_lookup found;
	int r = weft_lookup(dial->host, dial->port, AI_ADDRCONFIG, &found);

	/*
	 * AI_ADDRCONFIG takes loopback for no address: a machine without a network has only that.
	 */
	if (r == EAI_NONAME || r == EAI_ADDRFAMILY)
		r = weft_lookup(dial->host, dial->port, 0, &found);
	if (r != 0)
		return weft_error_set(err, EHOSTUNREACH, "%s", gai_strerror(r));
	r = -EHOSTUNREACH;
	for (unsigned i = 0; i < found.nr; i++) {
		r = connect_to(dial, (const struct sockaddr *)&found.at[i], found.len[i], err);
		if (r >= 0 || r == -ECANCELED || r == -ETIMEDOUT)
			break;
	}
	return r;
}

int nbd_dial(const struct nbd_dial *dial, struct weft_error *err)
{
	return dial->host[0] == '/' ? connect_unix(dial, err) : connect_tcp(dial, err);
}

int nbd_dial_prove(struct nbd_dial *dial, const struct weft_key *key, const char *certificates,
	bool renews, struct weft_error *err)
{
	const struct nbd_tls_client client = {
		.key = key,
		.certificates = certificates,
		.host = dial->host[0] == '/' ? "localhost" : dial->host,
		.renews = renews,
	};

	return key || certificates ? nbd_tls_client_new(&client, &dial->credentials, err) : 0;
}

/* As nbd_talk_move(). */
static int secure(const struct nbd_dial *dial, struct nbd_stream *stream, struct nbd_talk *talk)
{
	int r = nbd_stream_start_tls(stream, dial->credentials);

	if (r < 0)
		return weft_error_set(&talk->error, -r, "cannot begin TLS: %s", strerror(-r));
	for (;;) {
		int events = 0;
		short found;

		r = nbd_tls_handshake(stream->tls, &events, &talk->error);
		if (r != -EAGAIN)
			break;
		r = nbd_dial_wait(dial, stream->fd, (short)events, &found, &talk->error);
		if (r < 0)
			return r;
	}
	/* To whoever connects it would say that the generation is over. */
	if (r == -EKEYEXPIRED)
		r = -(talk->error.code = EKEYREJECTED);
	if (r < 0)
		return r;
	weft_debug("%s port %s: %s", dial->host, dial->port, nbd_tls_cipher(stream->tls));
	nbd_talk_secured(talk);
	return talk->state == NBD_TALK_OVER;
}

int nbd_dial_talk(const struct nbd_dial *dial, struct nbd_stream *stream, struct nbd_talk *talk,
	const struct nbd_talk_wish *wish)
{
	struct nbd_talk_wish all = *wish;
	int r;

	all.tls = dial->credentials != NULL;
	r = nbd_talk_begin(talk, &all);
	while (r == 0) {
		short events;

		r = nbd_talk_move(talk, stream, &events);
		if (r == 0)
			r = nbd_dial_wait(dial, stream->fd, events, &events, &talk->error);
		else if (r > 0 && talk->state == NBD_TALK_TLS)
			r = secure(dial, stream, talk);
	}
	nbd_talk_end(talk);
	explicit_bzero(&all.hello, sizeof(all.hello));
	if (r < 0) {
		nbd_tls_free(stream->tls);
		stream->tls = NULL;
	}
	return r < 0 ? r : 0;
}

void nbd_dial_describe(const struct nbd_dial *dial, int fd, char *buf, size_t len)
{
	struct sockaddr_storage ours, theirs;
	socklen_t ours_len = sizeof(ours), theirs_len = sizeof(theirs);
	char host[2][NI_MAXHOST], port[2][NI_MAXSERV];

	if (dial->host[0] == '/') {
		snprintf(buf, len, "unix %.150s", dial->host);
		return;
	}
	snprintf(buf, len, "tcp %.140s:%s", dial->host, dial->port);
	if (getsockname(fd, (struct sockaddr *)&ours, &ours_len) < 0 ||
		getpeername(fd, (struct sockaddr *)&theirs, &theirs_len) < 0)
		return;
	if (getnameinfo((struct sockaddr *)&ours, ours_len, host[0], sizeof(host[0]), port[0],
		    sizeof(port[0]), NI_NUMERICHOST | NI_NUMERICSERV) != 0 ||
		getnameinfo((struct sockaddr *)&theirs, theirs_len, host[1], sizeof(host[1]),
			port[1], sizeof(port[1]), NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return;
	const char *form = theirs.ss_family == AF_INET6 ? "tcp [%.60s]:%.5s -> [%.60s]:%.5s"
							: "tcp %.60s:%.5s -> %.60s:%.5s";
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	snprintf(buf, len, form, host[0], port[0], host[1], port[1]);
#pragma GCC diagnostic pop
}
