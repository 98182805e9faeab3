/* SPDX-License-Identifier: MIT */
/*
 * A TLS session over a socket.  Owned by the stream's thread.
 *
 * GnuTLS makes and opens records; their bytes go through two buffers here, so that many of them
 * cost one system call.  Invariants: GnuTLS is given plain bytes only while there is room for their
 * record, so that no record is half made; bytes count as sent once all of their record has left
 * (`encrypted` counts those that have not, which the next nbd_tls_write() begins with).
 *
 * Where the session may, the kernel makes and opens records instead (ktls.h), from the end of the
 * handshake on.  Each direction goes over by itself, and only while no byte of it waits here; until
 * the handshake is done nothing is received beyond what GnuTLS asks for.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "fabric/base/map.h"
#include "fabric/base/util.h"
#include "fabric/key/pass.h"
#include "fabric/nbd/ktls.h"
#include "fabric/nbd/tls-private.h"

enum {
	RECORD_BYTES = 16 << 10,                  /* of plain bytes (RFC 8446, 5.1) */
	RECORD_MOST_BYTES = RECORD_BYTES + 5 + 256, /* encrypted (RFC 8446, 5.2) */
	TX_BYTES = 5 * RECORD_MOST_BYTES,
	RX_BYTES = 128 << 10,
	/*
	 * Records of one direction under the same keys: after so many a session is worn, and after
	 * most of them the sender changes the keys, or ends the session (RFC 8446, 5.5).
	 */
	WORN_RECORDS = 1 << 22,
	MOST_RECORDS = 1 << 24,
};

struct nbd_tls {
	gnutls_session_t session;
	int fd;
	bool shaken; /* the handshake is done, what it left to send perhaps not */
	bool wait;   /* the next bytes may be waited for */
	bool ended;  /* the socket's bytes ended, which GnuTLS is not told: it may send still */
	bool over;   /* the peer has said that this is the end; its socket may stay open */
	bool renews; /* the two ends agreed to keep their keys, and to make a new session in time */
	bool kernel_tx, kernel_rx;
	bool unlooked; /* the kernel may have bytes that came before it knew of TLS */
	const char *why_not_kernel;
	int broken;  /* -errno of what ended the session; it lasts */
	int socket_error;
	uint64_t worn_records, most_records;
	uint64_t sent_records; /* under the present keys; no fewer than that */
	size_t encrypted;          /* plain bytes, all of whose records stand in tx */
	size_t rx_start, rx_end;   /* received, not opened yet */
	size_t tx_start, tx_end;   /* made, not sent yet */
	struct nbd_tls_peer peer;
	struct nbd_tls_credentials *credentials; /* NULL: a client's that is shaken */
	struct nbd_tls_found found;
	uint8_t plain[RECORD_BYTES]; /* where short pieces become one record */
	uint8_t rx[RX_BYTES];
	uint8_t tx[TX_BYTES];
};

/* ---- between GnuTLS and the socket ---- */

/* What stands in tx, as far as the socket takes it.  0: all; -EAGAIN; or what the socket said. */
static int flush(struct nbd_tls *t)
{
	while (t->tx_start < t->tx_end) {
		ssize_t n = send(t->fd, t->tx + t->tx_start, t->tx_end - t->tx_start,
			MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		t->tx_start += (size_t)n;
	}
	t->tx_start = t->tx_end = 0;
	return 0;
}

/* gnutls_vec_push_func: takes all of it, or nothing. */
static ssize_t push(gnutls_transport_ptr_t ptr, const giovec_t *iov, int nr)
{
	struct nbd_tls *t = ptr;
	size_t len = 0;

	for (int i = 0; i < nr; i++)
		len += iov[i].iov_len;
	/* What GnuTLS has to say by itself would be a record twice, with keys that are used up. */
	if (t->kernel_tx || len > TX_BYTES - t->tx_end) {
		gnutls_transport_set_errno(t->session, t->kernel_tx ? EIO : EAGAIN);
		return -1;
	}
	for (int i = 0; i < nr; i++) {
		memcpy(t->tx + t->tx_end, iov[i].iov_base, iov[i].iov_len);
		t->tx_end += iov[i].iov_len;
	}
	return (ssize_t)len;
}

/* gnutls_pull_func: what was received and not taken yet, else from the socket. */
static ssize_t pull(gnutls_transport_ptr_t ptr, void *buf, size_t len)
{
	struct nbd_tls *t = ptr;

	if (t->rx_start == t->rx_end) {
		ssize_t n = recv(t->fd, t->rx, t->shaken ? RX_BYTES : weft_min(len, RX_BYTES),
			t->wait ? 0 : MSG_DONTWAIT);

		if (n < 0 && errno != EAGAIN && errno != EINTR)
			t->socket_error = -errno;
		if (n <= 0) {
			t->ended = n == 0;
			gnutls_transport_set_errno(t->session, n == 0 ? EAGAIN : errno);
			return -1;
		}
		t->rx_start = 0;
		t->rx_end = (size_t)n;
	}
	len = weft_min(len, t->rx_end - t->rx_start);
	memcpy(buf, t->rx + t->rx_start, len);
	t->rx_start += len;
	return (ssize_t)len;
}

/* ---- what went wrong ---- */

/* What GnuTLS said of a session that ends by it, as -errno. */
static int to_errno(const struct nbd_tls *t, int r)
{
	switch (r) {
	case GNUTLS_E_PULL_ERROR:
	case GNUTLS_E_PUSH_ERROR:
		return t->socket_error ? t->socket_error : -EIO;
	case GNUTLS_E_DECRYPTION_FAILED:
		return -EBADMSG;
	case GNUTLS_E_MEMORY_ERROR:
		return -ENOMEM;
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
		return nbd_tls_alert_is_of_keys(gnutls_alert_get(t->session)) ? -EKEYREJECTED
									      : -EPROTO;
	default:
		return -EPROTO;
	}
}

static int break_with(struct nbd_tls *t, int error)
{
	return t->broken = error;
}

/* Why a server lets a client not in, or a client leaves. */
static int explain(struct nbd_tls *t, int r, struct weft_error *err)
{
	const struct nbd_tls_failure failure = {
		.gnutls = r,
		.error = to_errno(t, r),
		.alert = gnutls_alert_get(t->session),
	};

	return nbd_tls_explain(&t->peer, &failure, err);
}

/* ---- life ---- */

/* Tests may have fewer ("WORN" or "WORN:MOST"); nobody may have more. */
static void set_records(struct nbd_tls *t)
{
	const char *text = secure_getenv("WEFT_TLS_RECORDS");
	char *rest = NULL;
	const uint64_t worn = text ? strtoull(text, &rest, 10) : 0;
	const uint64_t most = worn > 0 && *rest == ':' ? strtoull(rest + 1, NULL, 10) : 0;

	t->worn_records = worn > 0 ? weft_min(worn, WORN_RECORDS) : WORN_RECORDS;
	t->most_records = most > 0 ? weft_min(most, MOST_RECORDS) : MOST_RECORDS;
}

int nbd_tls_new(int fd, struct nbd_tls_credentials *credentials, struct nbd_tls **ret)
{
	/* Not from the heap: pages that are not used are not there, and all of them go. */
	struct nbd_tls *t = weft_map_bytes(sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->fd = fd;
	set_records(t);
	t->credentials = nbd_tls_credentials_get(credentials);
	t->peer.credentials = credentials;
	/* When keys change is decided here: make_record(). */
	if (gnutls_init(&t->session, (credentials->server ? GNUTLS_SERVER : GNUTLS_CLIENT) |
			GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS | GNUTLS_NO_AUTO_REKEY) < 0 ||
		nbd_tls_equip(t->session, &t->peer) < 0) {
		nbd_tls_free(t);
		return -ENOMEM;
	}
	gnutls_handshake_set_timeout(t->session, GNUTLS_INDEFINITE_TIMEOUT);
	gnutls_transport_set_ptr(t->session, t);
	gnutls_transport_set_vec_push_function(t->session, push);
	gnutls_transport_set_pull_function(t->session, pull);
	*ret = t;
	return 0;
}

void nbd_tls_free(struct nbd_tls *t)
{
	if (!t)
		return;
	if (t->session)
		gnutls_deinit(t->session);
	nbd_tls_credentials_put(t->credentials);
	explicit_bzero(t->plain, sizeof(t->plain));
	weft_unmap_bytes(t, sizeof(*t));
}

/* ---- handshake ---- */

/* Only weft's ends say the name of the protocol by which both promise that. */
static bool both_renew(const struct nbd_tls *t)
{
	const size_t len = strlen(NBD_TLS_WEFT);
	gnutls_datum_t name;

	return gnutls_protocol_get_version(t->session) == GNUTLS_TLS1_3 &&
		gnutls_alpn_get_selected_protocol(t->session, &name) == 0 && name.size == len &&
		memcmp(name.data, NBD_TLS_WEFT, len) == 0;
}

/* A client has proved what it had to: GnuTLS keeps no copy of the key as long as the session. */
static void forget_proof(struct nbd_tls *t)
{
	if (t->credentials->server)
		return;
	gnutls_credentials_clear(t->session);
	nbd_tls_credentials_put(t->credentials);
	t->credentials = NULL;
	t->peer.credentials = NULL;
}

/* Ends the handshake with an error that is not to be told by TLS itself. */
static int refuse(struct nbd_tls *t, int error)
{
	gnutls_alert_send(t->session, GNUTLS_AL_FATAL, GNUTLS_A_ACCESS_DENIED);
	flush(t);
	return break_with(t, error);
}

static int wait_for(const struct nbd_tls *t, int events, int *ret_events)
{
	*ret_events = events | (t->tx_start < t->tx_end ? POLLOUT : 0);
	return -EAGAIN;
}

/*
 * Nothing was sent, or received, of the records that follow: hands them to the kernel if it takes
 * them.  A direction that it does not take stays GnuTLS's.
 */
static void go_to_kernel(struct nbd_tls *t)
{
	int r;

	if (!t->renews) {
		t->why_not_kernel = gnutls_protocol_get_version(t->session) == GNUTLS_TLS1_3
					    ? "it is not between weft's own ends"
					    : "it is for TLS 1.3 alone";
		return;
	}
	r = nbd_ktls_begin(t->fd);
	if (r < 0) {
		t->why_not_kernel = r == -ENOENT     ? "the module tls is not loaded"
			: r == -EOPNOTSUPP ? "it is no TCP connection"
					   : strerrordesc_np(-r);
		return;
	}
	assert(t->tx_start == t->tx_end && t->encrypted == 0);
	r = nbd_ktls_take(t->fd, t->session, false);
	t->kernel_tx = r == 0;
	/* Nobody may speak before the handshake is done; whoever did is understood here. */
	if (r == 0 && t->rx_start == t->rx_end && gnutls_record_check_pending(t->session) == 0) {
		r = nbd_ktls_take(t->fd, t->session, true);
		t->kernel_rx = t->unlooked = r == 0;
	}
	if (!nbd_tls_in_kernel(t))
		t->why_not_kernel = r == -EOPNOTSUPP ? "the kernel is not asked for this cipher"
			: r < 0 ? strerrordesc_np(-r)
				: "bytes came early";
}

int nbd_tls_handshake(struct nbd_tls *t, int *ret_events, struct weft_error *err)
{
	int r, sent;

	if (t->broken)
		return weft_error_set(err, -t->broken, "the TLS handshake has failed before");
	sent = flush(t);
	t->wait = false;
	while (!t->shaken) {
		if (sent < 0 && sent != -EAGAIN)
			return weft_error_set(err, -break_with(t, sent), "TLS handshake: %s",
				strerror(-t->broken));
		r = gnutls_handshake(t->session);
		sent = flush(t);
		if (r == 0) {
			t->shaken = true;
			t->renews = both_renew(t);
			r = nbd_tls_learn(t->session, &t->peer, &t->found, err);
			if (r < 0)
				return refuse(t, r);
			forget_proof(t);
		} else if (r == GNUTLS_E_AGAIN && t->ended) {
			return weft_error_set(err, -break_with(t, -ECONNRESET),
				"the %s hung up in the TLS handshake",
				t->credentials->server ? "client" : "server");
		} else if (r == GNUTLS_E_AGAIN) {
			/* Its own bytes had no room, and now they may have. */
			if (gnutls_record_get_direction(t->session) == 0)
				return wait_for(t, POLLIN, ret_events);
			if (sent == -EAGAIN)
				return wait_for(t, POLLOUT, ret_events);
		} else if (gnutls_error_is_fatal(r)) {
			gnutls_alert_send_appropriate(t->session, r);
			flush(t);
			return break_with(t, explain(t, r, err));
		}
	}
	if (sent == -EAGAIN)
		return wait_for(t, POLLOUT, ret_events);
	if (sent < 0)
		return weft_error_set(err, -break_with(t, sent), "TLS handshake: %s",
			strerror(-sent));
	go_to_kernel(t);
	return 0;
}

const char *nbd_tls_identity(const struct nbd_tls *t)
{
	return t->found.identity;
}

uint64_t nbd_tls_life(const struct nbd_tls *t)
{
	return t->found.life;
}

const char *nbd_tls_cipher(const struct nbd_tls *t)
{
	return t->found.cipher;
}

bool nbd_tls_in_kernel(const struct nbd_tls *t)
{
	return t->kernel_tx && t->kernel_rx;
}

const char *nbd_tls_why_not_kernel(const struct nbd_tls *t)
{
	return t->why_not_kernel;
}

static uint64_t records(const struct nbd_tls *t, bool receives)
{
	unsigned char sequence[8];
	uint64_t n = 0;

	if (receives ? t->kernel_rx : t->kernel_tx)
		return nbd_ktls_records(t->fd, receives);
	if (gnutls_record_get_state(t->session, receives, NULL, NULL, NULL, sequence) < 0)
		return 0;
	for (unsigned i = 0; i < sizeof(sequence); i++)
		n = n << 8 | sequence[i];
	return n;
}

bool nbd_tls_is_worn(const struct nbd_tls *t)
{
	return t->renews &&
		(records(t, false) >= t->worn_records || records(t, true) >= t->worn_records);
}

int64_t nbd_tls_expires(const struct nbd_tls *t)
{
	return t->found.expires;
}

int nbd_tls_pass(const struct nbd_tls *t, struct weft_key *ret)
{
	uint8_t exported[WEFT_PASS_BYTES];

	if (gnutls_protocol_get_version(t->session) < GNUTLS_TLS1_3)
		return -EOPNOTSUPP;
	int r = gnutls_prf_rfc5705(t->session, strlen(WEFT_PASS_LABEL), WEFT_PASS_LABEL, 0, NULL,
		sizeof(exported), (char *)exported);
	if (r == 0)
		weft_pass_make(exported, ret);
	explicit_bzero(exported, sizeof(exported));
	return r == 0 ? 0 : -EIO;
}

/* ---- bytes ---- */

/* One record, or the rest of one.  As nbd_tls_read(). */
static ssize_t read_record(struct nbd_tls *t, void *buf, size_t len)
{
	ssize_t r;

	/* It says so after a record that is the session's own, too, such as one of new keys. */
	do
		r = gnutls_record_recv(t->session, buf, len);
	while (r == GNUTLS_E_AGAIN && !t->ended && (t->wait || t->rx_start < t->rx_end));
	t->over = r == 0;
	if (r >= 0)
		return r;
	if (r == GNUTLS_E_AGAIN)
		return t->ended ? -ECONNRESET : -EAGAIN;
	if (r == GNUTLS_E_INTERRUPTED)
		return -EINTR;
	return break_with(t, to_errno(t, (int)r));
}

/* A record came that is no data. */
static ssize_t take_control(struct nbd_tls *t)
{
	uint8_t alert;
	int r = nbd_ktls_take_control(t->fd, &alert);

	t->over = r == 0;
	if (r == 0 || r == -EAGAIN || r == -EINTR)
		return r;
	if (r > 0)
		r = nbd_tls_alert_is_of_keys(alert) ? -EKEYREJECTED : -EPROTO;
	return break_with(t, r);
}

/* As nbd_tls_read(). */
static ssize_t read_by_kernel(struct nbd_tls *t, const struct iovec *iov, unsigned nr, bool wait)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = nr };
	ssize_t n;

	if (t->over)
		return 0;
	n = recvmsg(t->fd, &msg, wait ? 0 : MSG_DONTWAIT);
	t->unlooked = false;
	if (n > 0)
		return n;
	if (n == 0)
		return -ECONNRESET;
	switch (errno) {
	case EAGAIN:
	case EINTR:
		return -errno;
	case EIO:
		return take_control(t);
	case EINVAL: /* of another version, too long */
	case EMSGSIZE:
		return break_with(t, -EBADMSG);
	default:
		return break_with(t, -errno);
	}
}

ssize_t nbd_tls_read(struct nbd_tls *t, const struct iovec *iov, unsigned nr, bool wait)
{
	size_t got = 0;

	assert(t->shaken);
	if (t->broken)
		return t->broken;
	if (t->kernel_rx)
		return read_by_kernel(t, iov, nr, wait);
	for (unsigned i = 0; i < nr; i++) {
		for (size_t at = 0; at < iov[i].iov_len;) {
			t->wait = wait && got == 0;
			ssize_t r = read_record(t, (uint8_t *)iov[i].iov_base + at,
				iov[i].iov_len - at);

			/* What came counts; what ended it is said the next time. */
			if (r <= 0)
				return got > 0 ? (ssize_t)got : r;
			at += (size_t)r;
			got += (size_t)r;
		}
	}
	return (ssize_t)got;
}

bool nbd_tls_pending(const struct nbd_tls *t)
{
	return t->rx_start < t->rx_end || t->unlooked || t->over || t->broken ||
		(!t->kernel_rx && gnutls_record_check_pending(t->session) > 0);
}

/* Where a write's vectors have got to. */
struct cursor {
	const struct iovec *iov;
	unsigned nr;
	size_t at; /* in the first */
};

static void skip(struct cursor *c, size_t n)
{
	c->at += n;
	while (c->nr > 0 && c->at >= c->iov->iov_len) {
		c->at -= c->iov->iov_len;
		c->iov++;
		c->nr--;
	}
}

/* Copies the next bytes, at most len, to `to`; how many. */
static size_t gather(struct cursor c, uint8_t *to, size_t len)
{
	size_t n = 0;

	while (c.nr > 0 && n < len) {
		const size_t piece = weft_min(c.iov->iov_len - c.at, len - n);

		memcpy(to + n, (const uint8_t *)c.iov->iov_base + c.at, piece);
		n += piece;
		skip(&c, piece);
	}
	return n;
}

/*
 * Before more records are made: if these keys have made their share, others follow, or the session
 * ends.  0, or -errno.
 */
static int spare_keys(struct nbd_tls *t)
{
	if (t->sent_records < t->most_records)
		return 0;
	t->sent_records = 0;
	if (t->renews)
		return break_with(t, -ECONNABORTED);
	/* TLS 1.2 has no such thing. */
	if (gnutls_protocol_get_version(t->session) != GNUTLS_TLS1_3)
		return 0;
	int r = gnutls_session_key_update(t->session, 0);
	return r < 0 ? break_with(t, to_errno(t, r)) : 0;
}

/*
 * Makes a record of the next bytes: of a long piece where it lies, of short ones together.  How
 * many, or -errno.
 */
static ssize_t make_record(struct nbd_tls *t, const struct cursor *c)
{
	const size_t piece = c->iov->iov_len - c->at;
	const uint8_t *from = (const uint8_t *)c->iov->iov_base + c->at;
	size_t len = weft_min(piece, RECORD_BYTES);

	if (len < RECORD_BYTES && c->nr > 1) {
		len = gather(*c, t->plain, RECORD_BYTES);
		from = t->plain;
	}
	ssize_t r = spare_keys(t);
	if (r < 0)
		return r;
	t->sent_records++;
	r = gnutls_record_send(t->session, from, len);
	return r >= 0 ? r : break_with(t, to_errno(t, (int)r));
}

/* As nbd_tls_write(). */
static ssize_t write_by_kernel(struct nbd_tls *t, const struct iovec *iov, unsigned nr)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = nr };
	ssize_t n = spare_keys(t);

	if (n < 0)
		return n;
	n = sendmsg(t->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? -errno : break_with(t, -errno);
	t->sent_records += 1 + (uint64_t)n / RECORD_BYTES;
	return n;
}

ssize_t nbd_tls_write(struct nbd_tls *t, const struct iovec *iov, unsigned nr)
{
	struct cursor c = { .iov = iov, .nr = nr };
	size_t left = 0;
	int r;

	assert(t->shaken);
	if (t->broken)
		return t->broken;
	if (t->kernel_tx)
		return write_by_kernel(t, iov, nr);
	r = flush(t);
	skip(&c, t->encrypted);
	assert(c.nr > 0 || c.at == 0); /* they are the first bytes again */
	if (r == 0) {
		left = t->encrypted;
		t->encrypted = 0;
	}
	while (r == 0 && c.nr > 0) {
		while (c.nr > 0 && TX_BYTES - t->tx_end >= RECORD_MOST_BYTES) {
			ssize_t n = make_record(t, &c);

			if (n < 0)
				return n;
			t->encrypted += (size_t)n;
			skip(&c, (size_t)n);
		}
		r = flush(t);
		if (r == 0) {
			left += t->encrypted;
			t->encrypted = 0;
		}
	}
	if (r < 0 && r != -EAGAIN)
		return break_with(t, r);
	return left > 0 ? (ssize_t)left : -EAGAIN;
}

void nbd_tls_bye(struct nbd_tls *t)
{
	if (!t->shaken || t->broken || t->tx_start < t->tx_end)
		return;
	if (t->kernel_tx) {
		nbd_ktls_bye(t->fd);
		return;
	}
	gnutls_bye(t->session, GNUTLS_SHUT_WR);
	flush(t);
}
