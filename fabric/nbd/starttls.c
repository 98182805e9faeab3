/* SPDX-License-Identifier: MIT */
/*
 * The option STARTTLS, and who may do without (proto, "TLS support").  Owned by the connection's
 * thread.
 *
 * Invariant: nothing that came in plain text counts behind STARTTLS.  What was negotiated is
 * forgotten, and bytes that are there before TLS has begun, which somebody on the way may have put
 * there, end the connection.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/nbd/conn.h"

static int keep_out(struct nbd_conn *conn, int error, const struct weft_error *why)
{
	if (!conn->kept_out && conn->service->kept_out)
		conn->service->kept_out(conn, why);
	conn->kept_out = true;
	return error;
}

int nbd_starttls_wanted(struct nbd_conn *conn)
{
	struct weft_error why;

	weft_error_set(&why, EPERM, "it asks for a region without TLS, which is wanted here");
	keep_out(conn, -EPERM, &why);
	/* proto, NBD_OPT_EXPORT_NAME: cannot say no but by hanging up. */
	if (conn->option.option == NBD_OPT_EXPORT_NAME)
		return -ECONNABORTED;
	return nbd_option_error(conn, NBD_REP_ERR_TLS_REQD, conn->wants_tls);
}

int nbd_option_starttls(struct nbd_conn *conn, size_t len)
{
	if (len > 0)
		return nbd_option_error(conn, NBD_REP_ERR_INVALID, "STARTTLS takes no data");
	if (conn->stream.tls)
		return nbd_option_error(conn, NBD_REP_ERR_INVALID, "TLS is on already");
	if (!conn->credentials)
		return nbd_option_error(conn, NBD_REP_ERR_POLICY, "this server has no TLS");
	conn->phase = NBD_TLS;
	return nbd_option_reply(conn, NBD_REP_ACK, NULL);
}

int nbd_starttls_step(struct nbd_conn *conn)
{
	struct weft_error why;

	/* Not to be received here: nbd_starttls_handshake() does. */
	conn->held_back = true;
	conn->tls_events = POLLIN;
	if (nbd_rx_len(conn) == 0)
		return 0;
	weft_error_set(&why, EPROTO, "bytes came behind STARTTLS, before TLS had begun");
	return keep_out(conn, -EPROTO, &why);
}

static void forget_what_was_said(struct nbd_conn *conn)
{
	conn->structured = false;
	conn->contexts = 0;
	conn->have_hello = false;
	explicit_bzero(&conn->hello, sizeof(conn->hello));
	conn->context_name[0] = conn->name[0] = conn->grant[0] = 0;
}

int nbd_starttls_handshake(struct nbd_conn *conn)
{
	struct weft_error why = { 0 };
	int events = 0;
	int r = 0;

	if (conn->tx_len > 0)
		return -EAGAIN;
	if (!conn->stream.tls)
		r = nbd_stream_start_tls(&conn->stream, conn->credentials);
	if (r < 0)
		return conn->error = r;
	r = nbd_tls_handshake(conn->stream.tls, &events, &why);
	conn->tls_events = (uint8_t)events;
	if (r == -EAGAIN)
		return r;
	if (r < 0)
		return conn->error = keep_out(conn, r, &why);
	forget_what_was_said(conn);
	conn->phase = NBD_OPTION;
	conn->held_back = false;
	if (conn->service->secured)
		conn->service->secured(conn);
	return 1;
}
