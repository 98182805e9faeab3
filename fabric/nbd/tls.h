/* SPDX-License-Identifier: MIT */
/*
 * TLS under an NBD stream (stream.h), of either side: credentials, and a session over a socket.  It
 * is required, never opportunistic: a session that does not end its handshake carries no byte.
 *
 * TLS 1.2 and 1.3 with what libnbd, nbdkit and qemu speak: a pre-shared key with an ephemeral key
 * exchange, or X.509 certificates on both sides.  No tickets, no resumption, no early data, no
 * renegotiation.
 *
 * Threads: any thread may start sessions with credentials; a session belongs to one thread at a
 * time. Of our code only nbd_tls_new() allocates; GnuTLS allocates for each record, the kernel's
 * records cost nothing here.
 */
#ifndef WEFT_FABRIC_NBD_TLS_H
#define WEFT_FABRIC_NBD_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "fabric/base/error.h"
#include "fabric/key/key.h"

struct nbd_tls_credentials;
struct nbd_tls;

/*
 * How weft's own ends know each other in TLS's handshake (ALPN, RFC 7301), which says that over
 * TLS 1.3 neither of them changes keys in a session, and the client makes a new one in time.
 */
#define NBD_TLS_WEFT "weft/1"

/* How a server knows its clients: by keys, by certificates, or by either of them. */
struct nbd_tls_server {
	/*
	 * The key of a client that says it is identity (which has the form of one), and which of
	 * this identity's secrets it is (nbd_tls_life()).  Called in handshakes, from any thread,
	 * while the credentials live.  0, -ENOKEY, -EKEYEXPIRED, or another -errno.  NULL: there
	 * are no keys.
	 */
	int (*secret)(void *ctx, const char *identity, struct weft_key *ret, uint64_t *ret_life);
	void *ctx;
	/*
	 * A directory with ca-cert.pem, server-cert.pem, server-key.pem and perhaps ca-crl.pem.  A
	 * client has to show a certificate of the authority; its common name is its identity.
	 * NULL: there are none.
	 */
	const char *certificates;
};

/* How a client shows who it is, and knows the server: by a key, or by certificates. */
struct nbd_tls_client {
	const struct weft_key *key; /* copied; NULL: certificates */
	/*
	 * A directory with ca-cert.pem and perhaps ca-crl.pem, client-cert.pem and client-key.pem
	 * (without these two no certificate is shown).
	 */
	const char *certificates;
	const char *host; /* name or address that the server's certificate has to be for */
	/*
	 * Whoever has a session of these begins another when nbd_tls_is_worn() says so: weft's
	 * servers are told, and the kernel may have the records.
	 */
	bool renews;
};

/*
 * One reference, which the caller puts back.  Files are read here and never again.  0; -ENOENT,
 * -EPERM (others may read a private key), -EINVAL (a file is not what it should be), or -ENOMEM,
 * with why.
 */
int nbd_tls_server_new(const struct nbd_tls_server *config, struct nbd_tls_credentials **ret,
	struct weft_error *err);
int nbd_tls_client_new(const struct nbd_tls_client *config, struct nbd_tls_credentials **ret,
	struct weft_error *err);
/* Sessions have references of their own. */
struct nbd_tls_credentials *nbd_tls_credentials_get(struct nbd_tls_credentials *credentials);
void nbd_tls_credentials_put(struct nbd_tls_credentials *credentials); /* takes NULL */

/*
 * A session over the socket, which stays its owner's, on the side that the credentials are for.
 * Nothing is sent yet.  0, or -ENOMEM.
 */
int nbd_tls_new(int fd, struct nbd_tls_credentials *credentials, struct nbd_tls **ret);
/* Wipes it.  Sends nothing to the peer: nbd_tls_bye() does.  Takes NULL. */
void nbd_tls_free(struct nbd_tls *tls);

/*
 * Goes on with the handshake as far as it goes without waiting.  0: done, the peer is who it says;
 * -EAGAIN: *ret_events are the poll(2) events to wait for.  Else it has failed, and err says why:
 *   -ENOKEY       the client's identity is not known here
 *   -EKEYEXPIRED  its key, or a certificate, has expired
 *   -EKEYREJECTED another key or certificate was not accepted, by us or by the peer
 *   -ECONNRESET   the peer hung up
 *   -EPROTO       what came is not TLS, or the two have nothing in common
 *   or what the socket said.
 * The first three will not change by asking again.  With TLS 1.3 and certificates a client is done
 * before the server has looked at its certificate: a refusal may come from the first read.
 */
int nbd_tls_handshake(struct nbd_tls *tls, int *ret_events, struct weft_error *err);

/* What the server knows of the client after the handshake; "" at a client. */
const char *nbd_tls_identity(const struct nbd_tls *tls);
/* What secret() said of the key that the client proved to have; 0: it showed a certificate. */
uint64_t nbd_tls_life(const struct nbd_tls *tls);
/* When the certificate that the client showed expires; 0: it showed none. */
int64_t nbd_tls_expires(const struct nbd_tls *tls);
/* "TLS1.3 AES-128-GCM", after the handshake; for people. */
const char *nbd_tls_cipher(const struct nbd_tls *tls);
/*
 * After the handshake.  Whether the kernel makes and opens the session's records; if not, why, for
 * people (a static text), else NULL.
 */
bool nbd_tls_in_kernel(const struct nbd_tls *tls);
const char *nbd_tls_why_not_kernel(const struct nbd_tls *tls);
/*
 * Whether the two ends agreed that the client makes a new session in time, and it is time.  A few
 * system calls: not for each request.
 */
bool nbd_tls_is_worn(const struct nbd_tls *tls);
/*
 * The session's pass (fabric/key/pass.h), after the handshake, at either end; the caller wipes it.
 * 0; -EOPNOTSUPP: the session is of TLS 1.2, where another session could have been made to have the
 * same secret (RFC 7627); -EIO.
 */
int nbd_tls_pass(const struct nbd_tls *tls, struct weft_key *ret);

/*
 * How many bytes came, as many as fit and are there; 0: the peer has said that this is the end;
 * -EAGAIN: none are there; -EINTR; -ECONNRESET: the stream ended before that was said, or was
 * reset; -EBADMSG: a record is not the peer's; -EKEYREJECTED: it did not accept the certificate;
 * -EPROTO; or what the socket said.  wait: waits for the first.
 */
ssize_t nbd_tls_read(struct nbd_tls *tls, const struct iovec *iov, unsigned nr, bool wait);
/*
 * How many bytes have left; -EAGAIN: there is no room (POLLOUT tells); -EPROTO; -ECONNABORTED: the
 * session is more than worn, and was not replaced; or what the socket said.  Bytes that did not
 * leave may have been encrypted already: the next call has to begin with
 * the same bytes, unchanged, and may have more behind them.
 */
ssize_t nbd_tls_write(struct nbd_tls *tls, const struct iovec *iov, unsigned nr);
/* Whether nbd_tls_read() has to be asked again before anybody waits for the socket. */
bool nbd_tls_pending(const struct nbd_tls *tls);
/*
 * Tells the peer that no more bytes follow, if the socket takes the message.  No bytes wait to be
 * sent.
 */
void nbd_tls_bye(struct nbd_tls *tls);

#endif
