/* SPDX-License-Identifier: MIT */
/*
 * The transport "nbd": its connections' lives, from a handshake to a goodbye; requests and replies
 * are fabric/nbd/client.h's.  A connection belongs to one thread.
 */
#include "transports/nbd/borrower/client.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "transports/nbd/borrower/client-private.h"

enum {
	DEFAULT_DEPTH = 512,
	LEAVE_MS = 2000, /* for a peer to release the grant after a goodbye */
};

static int nbd_tp_open(const void *arg, struct tp **ret, struct weft_error *err)
{
	const struct nbd_client_config *config = arg;
	struct nbd_tp *tp = calloc(1, sizeof(*tp));

	if (!tp)
		return weft_error_set(err, ENOMEM, "cannot open the transport: out of memory");
	tp->depth = config && config->depth ? config->depth : DEFAULT_DEPTH;
	assert(tp->depth <= NBD_CLIENT_MAX_DEPTH);
	weft_crew_init(&tp->crew, "weft-connect", 0);
	*ret = &tp->tp;
	return 0;
}

/*
 * Whether the peer has ended the connection, as it does when it has released the grant.  Waits
 * until until_ns at most.
 */
static bool has_left(struct nbd_tp_conn *c, uint64_t until_ns)
{
	for (;;) {
		char rest[256];
		ssize_t n = recv(c->client.stream.fd, rest, sizeof(rest), MSG_DONTWAIT);

		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return true;
		uint64_t now_ns = weft_now_ns();
		if (now_ns >= until_ns)
			return false;
		struct pollfd p = {.fd = c->client.stream.fd, .events = POLLIN};
		if (n < 0)
			poll(&p, 1, (int)((until_ns - now_ns) / 1000000) + 1);
	}
}

/*
 * Ends connections whose peers have released the grant, or have had the time for it; all: waits for
 * that.
 */
static void see_off(struct nbd_tp *tp, bool all)
{
	struct nbd_tp_conn **p = &tp->leaving;

	while (*p) {
		struct nbd_tp_conn *c = *p;

		if (!has_left(c, all ? c->leave_ns : 0) && !all && weft_now_ns() < c->leave_ns) {
			p = &c->next_leaving;
			continue;
		}
		*p = c->next_leaving;
		close(c->client.stream.fd);
		free(c);
	}
}

static void nbd_tp_close(struct tp *tp)
{
	struct nbd_tp *nbd = weft_container_of(tp, struct nbd_tp, tp);

	see_off(nbd, true);
	weft_crew_fini(&nbd->crew);
	free(nbd);
}

static int nbd_tp_reg(struct tp *tp, struct tp_mem *mem, struct weft_error *err)
{
	return 0; /* sockets take any memory */
}

static void nbd_tp_dereg(struct tp_mem *mem)
{
}

static int nbd_tp_connect(struct tp *tp, const struct tp_target *target, struct tp_conn **ret,
	struct weft_error *err)
{
	struct nbd_tp *nbd = weft_container_of(tp, struct nbd_tp, tp);
	struct nbd_tp_conn *c = calloc(1, sizeof(*c));
	int r;

	see_off(nbd, false);
	if (!c)
		return weft_error_set(err, ENOMEM, "cannot connect: out of memory");
	c->client.stream.fd = -1;
	r = nbd_connecting_start(&nbd->crew, target, &c->connecting, err);
	if (r < 0) {
		free(c);
		return r;
	}
	*ret = &c->conn;
	return 0;
}

static void take_handshake(struct nbd_tp_conn *c)
{
	struct nbd_tp *nbd = weft_container_of(c->conn.tp, struct nbd_tp, tp);
	struct nbd_connecting *connecting = c->connecting;

	if (!nbd_connecting_is_done(connecting))
		return;
	if (connecting->error.code != 0) {
		memcpy(c->conn.info.moving, connecting->info.moving, sizeof(c->conn.info.moving));
		tp_conn_fail(&c->conn, connecting->error.code, "%s", connecting->error.message);
		return;
	}
	if (nbd_client_begin(&c->client, &c->conn, &connecting->stream, connecting->structured,
		    &connecting->info, nbd->depth) < 0) {
		tp_conn_fail(&c->conn, ENOMEM, "out of memory");
		return;
	}
	connecting->stream = (struct nbd_stream){.fd = -1};
	nbd_connecting_put(connecting);
	c->connecting = NULL;
	c->conn.state = TP_READY;
}

static void nbd_tp_shutdown(struct tp_conn *conn)
{
	struct nbd_tp_conn *c = nbd_tp_conn_of(conn);

	if (c->connecting) {
		nbd_connecting_cancel(c->connecting);
		return;
	}
	if (conn->nr_outstanding == 0)
		c->leaving = nbd_client_say_goodbye(&c->client);
	shutdown(c->client.stream.fd, c->leaving ? SHUT_WR : SHUT_RDWR);
}

static void nbd_tp_disconnect(struct tp_conn *conn)
{
	struct nbd_tp_conn *c = nbd_tp_conn_of(conn);
	struct nbd_tp *nbd = weft_container_of(conn->tp, struct nbd_tp, tp);

	if (c->connecting) {
		nbd_connecting_cancel(c->connecting);
		nbd_connecting_put(c->connecting);
	}
	nbd_client_end(&c->client);
	if (c->leaving) {
		c->leave_ns = weft_now_ns() + LEAVE_MS * UINT64_C(1000000);
		c->next_leaving = nbd->leaving;
		nbd->leaving = c;
		return;
	}
	weft_close_fd(c->client.stream.fd);
	free(c);
}

static bool nbd_tp_is_worn(const struct tp_conn *conn)
{
	const struct nbd_tls *tls = ((const struct nbd_tp_conn *)conn)->client.stream.tls;

	return tls && nbd_tls_is_worn(tls);
}

static int nbd_tp_post(struct tp_conn *conn, struct tp_op *const *ops, unsigned n)
{
	return nbd_client_post(&nbd_tp_conn_of(conn)->client, ops, n);
}

static int nbd_tp_progress(struct tp_conn *conn, struct tp_op **done, unsigned max)
{
	struct nbd_tp_conn *c = nbd_tp_conn_of(conn);

	if (conn->state == TP_CONNECTING)
		take_handshake(c);
	return c->connecting ? 0 : (int)nbd_client_progress(&c->client, done, max);
}

static int nbd_tp_event_fd(struct tp_conn *conn)
{
	struct nbd_tp_conn *c = nbd_tp_conn_of(conn);

	return c->connecting ? c->connecting->done_fd : c->client.stream.fd;
}

static int nbd_tp_arm(struct tp_conn *conn)
{
	struct nbd_tp_conn *c = nbd_tp_conn_of(conn);

	switch (conn->state) {
	case TP_CONNECTING:
		return nbd_connecting_is_done(c->connecting) ? 0 : POLLIN;
	case TP_READY:
		return nbd_client_arm(&c->client);
	default:
		return conn->nr_outstanding > 0 ? 0 : POLLIN;
	}
}

const struct tp_ops tp_nbd_ops = {
	.name = "nbd",
	.any_memory = true, /* sockets take any */
	.proves_keys = true,
	.proves_certificates = true,
	.open = nbd_tp_open,
	.close = nbd_tp_close,
	.reg = nbd_tp_reg,
	.dereg = nbd_tp_dereg,
	.connect = nbd_tp_connect,
	.shutdown = nbd_tp_shutdown,
	.disconnect = nbd_tp_disconnect,
	.post = nbd_tp_post,
	.progress = nbd_tp_progress,
	.event_fd = nbd_tp_event_fd,
	.arm = nbd_tp_arm,
	.is_worn = nbd_tp_is_worn,
};
