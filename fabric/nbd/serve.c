/* SPDX-License-Identifier: MIT */
/*
 * The drivers.  The waiting one: a thread that owns one connection serves it to its end.  The other
 * one goes as far as it can, over a pipe.
 *
 * Invariant: it sleeps in recvmsg(2) only while nothing is queued to send; otherwise in poll(2) for
 * both, so that a peer who sends without reading cannot lock itself and us up.
 */
#include <errno.h>
#include <poll.h>

#include "fabric/nbd/conn.h"
#include "fabric/base/util.h"

enum {
	GOODBYE_MS = 10000,       /* for the last replies to leave */
	BATCH_BYTES = 256 << 10, /* received before anything is answered */
};

/*
 * Sends what is queued; requests that were held back for it are taken on.  0, -EAGAIN, or -errno.
 */
static int send_all(struct nbd_conn *conn)
{
	for (;;) {
		int r = nbd_conn_send(conn);

		if (r < 0 || !conn->starved)
			return r;
		if (conn->nr_requests > 0)
			return 0;
		/* Every buffer is free again. */
		r = nbd_conn_resume(conn);
		if (r < 0)
			return r;
		if (conn->starved && !conn->done)
			return -ENOBUFS;
	}
}

/*
 * Each receive brings one payload that is received in place.  While more seems to be there, it is
 * received before anything is answered: a send for each reply would cost more than the payload.
 */
static int receive_batch(struct nbd_conn *conn, bool wait)
{
	size_t bytes = 0;
	int r;

	r = nbd_conn_receive(conn, wait);
	while (r > 0 && conn->filled && conn->opened && (bytes += conn->received) < BATCH_BYTES) {
		r = nbd_conn_receive(conn, false);
		if (r == -EAGAIN)
			return 1;
	}
	return r;
}

int nbd_conn_serve(struct nbd_conn *conn, unsigned handshake_ms)
{
	const uint64_t step_ns = handshake_ms * UINT64_C(1000000);
	const uint64_t end_ns = weft_now_ns() + NBD_HANDSHAKE_STEPS * step_ns;
	uint64_t deadline_ns = weft_now_ns() + step_ns;
	unsigned step = 0;
	int r;

	conn->step_ms = handshake_ms;
	for (;;) {
		bool ready = false;

		r = send_all(conn);
		if (r == -ESHUTDOWN)
			return 0;
		if (r < 0 && r != -EAGAIN)
			return r;
		/*
		 * On a Unix socket a thread that sleeps in recvmsg(2) is also woken whenever the
		 * peer receives our bytes; in poll(2) it is not.
		 */
		if (r == -EAGAIN || !conn->opened || conn->local) {
			if (!conn->opened && step != conn->nr_steps) {
				step = conn->nr_steps;
				deadline_ns = weft_min(weft_now_ns() + step_ns, end_ns);
			}
			r = nbd_conn_wait(conn, nbd_conn_events(conn) | conn->tls_events,
				conn->opened ? 0 : deadline_ns);
			if (r <= 0)
				return r < 0 ? r : -ETIMEDOUT;
			ready = true;
		}
		r = receive_batch(conn, !ready);
		if (r == 0)
			return nbd_conn_flush(conn, GOODBYE_MS);
		if (r < 0 && r != -EAGAIN) {
			/* What was answered before the stream broke still counts. */
			nbd_conn_send(conn);
			return r;
		}
	}
}

int nbd_conn_move(struct nbd_conn *conn)
{
	for (;;) {
		int sent = send_all(conn);

		if (sent == -ESHUTDOWN)
			return 0;
		if (sent < 0 && sent != -EAGAIN)
			return sent;
		int r = receive_batch(conn, false);
		if (r < 0 && r != -EAGAIN)
			return r;
		/* Nothing more may come; what is left to send has no room. */
		if (r <= 0 && (sent == -EAGAIN || !nbd_conn_has_to_send(conn)))
			return r == 0 && !nbd_conn_has_to_send(conn) ? 0 : 1;
	}
}
