/* SPDX-License-Identifier: MIT */
/*
 * A connection's life, and its slots for requests.
 * Owned by the connection's thread; only nbd_conn_kill() may come from another.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fabric/base/map.h"
#include "fabric/base/util.h"
#include "fabric/nbd/conn.h"

enum { LOCAL_SEND_BYTES = 512 << 10 };

/* A payload of 1 MiB leaves in fewer pieces, with fewer wake-ups.  TCP tunes its buffers itself. */
static bool tune_local(int fd)
{
	const int bytes = LOCAL_SEND_BYTES;
	int domain = 0;
	socklen_t len = sizeof(domain);

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0 || domain != AF_UNIX)
		return false;
	/* Without the privilege: up to wmem_max, which is what it is anyway. */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	return true;
}

struct nbd_conn *nbd_conn_make(int fd, const struct nbd_service *service, void *user)
{
	/*
	 * Not from the heap, which would keep the pages for itself when a crowd of connections has
	 * left.
	 */
	struct nbd_conn *conn = weft_map_bytes(sizeof(*conn));

	if (!conn) {
		weft_close_fd(fd);
		return NULL;
	}
	conn->stream.fd = fd;
	conn->local = fd >= 0 && tune_local(fd);
	conn->service = service;
	conn->user = user;
	conn->done_tail = &conn->done;
	for (unsigned i = NBD_CONN_REQUESTS; i-- > 0;) {
		conn->requests[i].conn = conn;
		conn->requests[i].next = conn->free;
		conn->free = &conn->requests[i];
	}
	return conn;
}

int nbd_greet(int fd)
{
	uint8_t greeting[NBD_HANDSHAKE_BYTES];
	ssize_t sent;

	nbd_pack_handshake(greeting, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	sent = send(fd, greeting, sizeof(greeting), MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent < 0)
		return -errno;
	return sent == sizeof(greeting) ? 0 : -EPIPE; /* a fresh socket has room for it */
}

int nbd_conn_new_greeted(int fd, const struct nbd_service *service, void *user,
	struct nbd_conn **ret)
{
	struct nbd_conn *conn = nbd_conn_make(fd, service, user);

	if (!conn)
		return -ENOMEM;
	*ret = conn;
	return 0;
}

int nbd_conn_new_open(int fd, const struct nbd_service *service, void *user,
	const struct nbd_export *export, struct nbd_conn **ret)
{
	struct nbd_conn *conn = nbd_conn_make(fd, service, user);

	if (!conn)
		return -ENOMEM;
	conn->export = *export;
	conn->opened = true;
	conn->phase = NBD_REQUEST;
	*ret = conn;
	return 0;
}

int nbd_conn_new_beside(struct nbd_pipe *pipe, const struct nbd_conn *first, void *user,
	struct nbd_conn **ret)
{
	assert(nbd_conn_in_transmission(first));
	struct nbd_conn *conn = nbd_conn_make(-1, first->service, user);

	if (!conn)
		return -ENOMEM;
	conn->stream.pipe = pipe;
	conn->export = first->export;
	conn->structured = first->structured;
	conn->contexts = first->contexts;
	conn->opened = true;
	conn->phase = NBD_REQUEST;
	*ret = conn;
	return 0;
}

void nbd_request_put(struct nbd_request *rq)
{
	struct nbd_conn *conn = rq->conn;

	if (rq->state == NBD_RQ_HELD)
		conn->service->release(rq);
	rq->state = NBD_RQ_FREE;
	rq->next = conn->free;
	conn->free = rq;
	conn->nr_requests--;
}

static void close_stream(struct nbd_conn *conn)
{
	nbd_tls_free(conn->stream.tls);
	conn->stream.tls = NULL;
	nbd_stream_goes_no_more(&conn->stream);
	weft_close_fd(conn->stream.fd);
	conn->stream.fd = -1;
}

void nbd_conn_finish(struct nbd_conn *conn)
{
	if (conn->nr_submitted > 0)
		return;
	if (conn->opened)
		conn->service->close(conn, conn->clean);
	/* Only now: whoever said goodbye, and sees the end of the stream, has been let go of. */
	if (conn->says_bye && conn->stream.tls)
		nbd_tls_bye(conn->stream.tls);
	close_stream(conn);
	nbd_tls_credentials_put(conn->credentials);
	explicit_bzero(&conn->hello, sizeof(conn->hello));
	free(conn->tx);
	weft_unmap_bytes(conn, sizeof(*conn));
}

void nbd_conn_free(struct nbd_conn *conn)
{
	if (!conn)
		return;
	assert(!conn->freed && !conn->parsing);
	conn->clean = conn->goodbye && conn->nr_requests == 0;
	conn->says_bye = !conn->error && !nbd_conn_has_to_send(conn);
	conn->freed = true;
	if (conn->current) {
		nbd_request_put(conn->current);
		conn->current = NULL;
	}
	while (conn->done || conn->behind) {
		struct nbd_request **first = conn->done ? &conn->done : &conn->behind, *rq = *first;

		*first = rq->next;
		nbd_request_put(rq);
	}
	if (conn->nr_submitted > 0) {
		conn->says_bye = false;
		close_stream(conn);
	}
	nbd_conn_finish(conn);
}

void *nbd_conn_user(const struct nbd_conn *conn)
{
	return conn->user;
}

int nbd_conn_fd(const struct nbd_conn *conn)
{
	return conn->stream.fd;
}

bool nbd_conn_in_transmission(const struct nbd_conn *conn)
{
	return conn->opened && conn->phase >= NBD_REQUEST;
}

unsigned nbd_conn_nr_requests(const struct nbd_conn *conn)
{
	return conn->nr_requests;
}

const char *nbd_conn_identity(const struct nbd_conn *conn)
{
	return conn->stream.tls ? nbd_tls_identity(conn->stream.tls) : "";
}

uint64_t nbd_conn_key_life(const struct nbd_conn *conn)
{
	return conn->stream.tls ? nbd_tls_life(conn->stream.tls) : 0;
}

int64_t nbd_conn_expires(const struct nbd_conn *conn)
{
	return conn->stream.tls ? nbd_tls_expires(conn->stream.tls) : 0;
}

int nbd_conn_pass(const struct nbd_conn *conn, struct weft_key *ret)
{
	return conn->stream.tls ? nbd_tls_pass(conn->stream.tls, ret) : -EOPNOTSUPP;
}

const char *nbd_conn_cipher(const struct nbd_conn *conn)
{
	return conn->stream.tls ? nbd_tls_cipher(conn->stream.tls) : NULL;
}

bool nbd_conn_in_kernel(const struct nbd_conn *conn)
{
	return conn->stream.tls && nbd_tls_in_kernel(conn->stream.tls);
}

void nbd_conn_offer_tls(struct nbd_conn *conn, struct nbd_tls_credentials *credentials,
	const char *required)
{
	assert(!conn->credentials && conn->phase == NBD_CLIENT_FLAGS);
	conn->credentials = nbd_tls_credentials_get(credentials);
	conn->wants_tls = required;
}

void nbd_conn_kill(struct nbd_conn *conn, bool drain)
{
	/* With TLS the end of what comes would be an attack, were it not ours. */
	if (drain)
		atomic_store(&conn->draining, true);
	shutdown(conn->stream.fd, drain ? SHUT_RD : SHUT_RDWR);
}
