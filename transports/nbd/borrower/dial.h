/* SPDX-License-Identifier: MIT */
/*
 * Connecting to a server, over TCP or a Unix socket, and our own handshake over that.  Blocks, up
 * to a deadline or until given up.
 */
#ifndef WEFT_TRANSPORTS_NBD_BORROWER_DIAL_H
#define WEFT_TRANSPORTS_NBD_BORROWER_DIAL_H

#include <stddef.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/nbd/client-handshake.h"

struct nbd_dial {
	const char *host, *port; /* a path beginning with '/' is a Unix socket */
	uint32_t timeout_ms;     /* what messages call the time until the deadline */
	uint64_t deadline_ns;
	uint32_t dead_ms; /* a machine that acknowledges nothing for this time is gone */
	int cancel_fd;    /* readable: given up; -1: nobody does */
	/* TLS with these, before anything is said; NULL: plaintext */
	struct nbd_tls_credentials *credentials;
};

/*
 * Makes the credentials of a key, or of a directory of certificates, or none; renews as in struct
 * nbd_tls_client.  0, or as nbd_tls_client_new().
 */
int nbd_dial_prove(struct nbd_dial *dial, const struct weft_key *key, const char *certificates,
	bool renews, struct weft_error *err);
/*
 * A connected, non-blocking socket, the caller's; or -errno: -ECONNREFUSED, -EHOSTUNREACH,
 * -ETIMEDOUT, -ECANCELED, what connect(2) said.  Only the resolver's own waits may last longer.
 */
int nbd_dial(const struct nbd_dial *dial, struct weft_error *err);
/* Waits for poll(2) events on fd.  0, or -ETIMEDOUT, -ECANCELED, -errno. */
int nbd_dial_wait(const struct nbd_dial *dial, int fd, short events, short *ret_events,
	struct weft_error *err);
/*
 * The handshake over a connected socket, stream->fd.  0: stream->tls is there if there are
 * credentials, and belongs to the caller; -errno as nbd_talk_move(), nbd_tls_handshake() and
 * nbd_dial_wait() say, with talk->error set and no session.  Nothing secret is left in talk.
 */
int nbd_dial_talk(const struct nbd_dial *dial, struct nbd_stream *stream, struct nbd_talk *talk,
	const struct nbd_talk_wish *wish);
/* For people: "tcp 10.0.0.1:52044 -> 10.0.0.2:10809". */
void nbd_dial_describe(const struct nbd_dial *dial, int fd, char *buf, size_t len);

#endif
