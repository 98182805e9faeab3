/* SPDX-License-Identifier: MIT */
/*
 * QUIC by ngtcp2, of version 0.12; see quic.h.
 *
 * ngtcp2 is given bytes of a stream where they lie in its ring, and they stay there until the peer
 * has acknowledged them.  What it has received in order goes into the other ring at once; the
 * window that the peer is given is what fits there.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/map.h"
#include "fabric/base/util.h"
#include "fabric/nbd/tls-bare.h"
#include "transports/quic/frames.h"
#include "transports/quic/quic-private.h"

#define ALPN "weft-quic/1"

enum {
	ACK_DELAY_MS = 1,
	PEER_IDS = 8, /* that a client keeps of a server's */
	/*
	 * A server takes another id of its client's for each of its addresses, and ngtcp2 0.12 ends
	 * the process when 17 that it has given back are not acknowledged.  Nobody but ngtcp2 knows
	 * which are, so a client gives a server so many ids as long as the connection lives, a few
	 * of them ahead.  It may change its address as often as there are others.
	 */
	CLIENT_IDS = 16,
	CLIENT_IDS_AHEAD = 4,
	KEPT_BYTES = 256 << 10, /* of a stream, whatever is kept of others */
};

_Static_assert(sizeof(ngtcp2_crypto_conn_ref) == 2 * sizeof(void *), "a carrier's words");

/* ---- how a connection ends ---- */

/* What the peer said when it ended the connection. */
static int explain_close(struct quic_conn *c)
{
	ngtcp2_connection_close_error said;
	char reason[QUIC_REASON_BYTES];

	ngtcp2_conn_get_connection_close_error(c->ngtcp2, &said);
	snprintf(reason, sizeof(reason), "%.*s", (int)weft_min(said.reasonlen, sizeof(reason) - 1),
		said.reasonlen > 0 ? (const char *)said.reason : "");
	weft_printable(reason);
	const char *colon = reason[0] ? ": " : "";
	if (said.type == NGTCP2_CONNECTION_CLOSE_ERROR_CODE_TYPE_APPLICATION)
		return weft_error_set(&c->why, said.error_code == QUIC_BROKEN ? EPROTO : ENOTCONN,
			"the %s closed the connection%s%s", c->is_server ? "client" : "server",
			colon, reason);
	if ((said.error_code & ~UINT64_C(0xff)) == NGTCP2_CRYPTO_ERROR)
		return nbd_tls_bare_explain(c->tls, said.error_code & 0xff, true, &c->why);
	if (said.error_code == NGTCP2_CONNECTION_REFUSED ||
		said.error_code == NGTCP2_INVALID_TOKEN)
		return weft_error_set(&c->why, ECONNRESET, "the server refused the connection");
	return weft_error_set(&c->why, said.error_code == NGTCP2_NO_ERROR ? ENOTCONN : EPROTO,
		"the %s ended the connection (QUIC error %#lx%s%s)",
		c->is_server ? "client" : "server", (unsigned long)said.error_code, colon, reason);
}

int quic_fail(struct quic_conn *c, int error)
{
	if (c->error)
		return c->error;
	c->ngtcp2_error = error;
	c->is_closed = true;
	switch (error) {
	case NGTCP2_ERR_DRAINING:
		c->error = explain_close(c);
		break;
	case NGTCP2_ERR_IDLE_CLOSE:
		c->error = weft_error_set(&c->why, ETIMEDOUT, "nothing came for %u s",
			(unsigned)(c->idle_ns / (1000 * MS_NS)));
		break;
	case NGTCP2_ERR_HANDSHAKE_TIMEOUT:
		c->error = weft_error_set(&c->why, ETIMEDOUT, "the handshake took too long");
		break;
	case NGTCP2_ERR_DROP_CONN:
	case NGTCP2_ERR_RETRY:
		c->error = weft_error_set(&c->why, ECONNRESET, "the handshake was dropped");
		break;
	case NGTCP2_ERR_CRYPTO:
		c->is_closed = false;
		c->error = nbd_tls_bare_explain(c->tls, ngtcp2_conn_get_tls_alert(c->ngtcp2), false,
			&c->why);
		break;
	case NGTCP2_ERR_NOMEM:
		c->error = weft_error_set(&c->why, ENOMEM, "no memory for a packet");
		break;
	default:
		c->is_closed = false;
		c->error = weft_error_set(&c->why, EPROTO, "QUIC: %s", ngtcp2_strerror(error));
	}
	if (c->moved_too_often) {
		c->ngtcp2_error = 0; /* to the peer it is no error */
		c->error = weft_error_set(&c->why, ESHUTDOWN,
			"the client's address changed too often");
	}
	c->readable = c->writable = UINT32_MAX;
	return c->error;
}

void quic_close(struct quic_conn *c, unsigned code, const char *reason, struct quic_batch *batch,
	uint64_t now_ns)
{
	const uint8_t *text = (const uint8_t *)reason;
	const size_t text_len = reason ? strnlen(reason, QUIC_REASON_BYTES) : 0;
	ngtcp2_connection_close_error said;
	ngtcp2_path_storage path;
	ngtcp2_pkt_info info;

	batch->len = batch->sent = 0;
	if (!c->is_closed) {
		if (c->ngtcp2_error == NGTCP2_ERR_CRYPTO)
			ngtcp2_connection_close_error_set_transport_error_tls_alert(
				&said, ngtcp2_conn_get_tls_alert(c->ngtcp2), NULL, 0);
		else if (c->ngtcp2_error)
			ngtcp2_connection_close_error_set_transport_error_liberr(
				&said, c->ngtcp2_error, NULL, 0);
		else
			ngtcp2_connection_close_error_set_application_error(
				&said, code, text, text_len);
		ngtcp2_path_storage_zero(&path);
		batch->len = written(ngtcp2_conn_write_connection_close(c->ngtcp2, &path.path,
			&info, batch->bytes, c->packet_bytes, &said, now_ns));
		batch->segment = batch->len;
		batch->path = c->path;
	}
	c->is_closed = true;
	if (!c->error)
		c->error = weft_error_set(&c->why, ECANCELED, "the connection was closed here");
}

/* ---- what ngtcp2 calls ---- */

static ngtcp2_conn *conn_of_ref(ngtcp2_crypto_conn_ref *ref)
{
	return ((struct quic_conn *)ref->user_data)->ngtcp2;
}

static void on_random(uint8_t *bytes, size_t len, const ngtcp2_rand_ctx *ctx)
{
	weft_random(bytes, len);
}

/* NULL: it cannot be. */
static struct quic_stream *stream_of(struct quic_conn *c, int64_t id)
{
	if (id < 0 || id % 4 != 0 || id / 4 >= QUIC_STREAMS)
		return NULL;
	return &c->streams[id / 4];
}

static int open_stream(struct quic_stream *s)
{
	if (quic_ring_init(&s->rx) < 0 || quic_ring_init(&s->tx) < 0)
		return -ENOMEM;
	s->is_open = true;
	return 0;
}

static int on_stream_open(ngtcp2_conn *conn, int64_t id, void *user)
{
	struct quic_stream *s = stream_of(user, id);

	return s && open_stream(s) == 0 ? 0 : NGTCP2_ERR_CALLBACK_FAILURE;
}

static int on_stream_data(ngtcp2_conn *conn, uint32_t flags, int64_t id, uint64_t offset,
	const uint8_t *data, size_t len, void *user, void *stream_user)
{
	struct quic_conn *c = user;
	struct quic_stream *s = stream_of(c, id);

	/* ngtcp2 has held the peer to the window, and early data is never accepted. */
	if (!s || !s->is_open || flags & NGTCP2_STREAM_DATA_FLAG_EARLY ||
		quic_ring_put(&s->rx, data, len) != len)
		return NGTCP2_ERR_CALLBACK_FAILURE;
	if (flags & NGTCP2_STREAM_DATA_FLAG_FIN)
		s->ended = true;
	c->readable |= bit_of(s);
	return 0;
}

static int on_acked(ngtcp2_conn *conn, int64_t id, uint64_t offset, uint64_t len, void *user,
	void *stream_user)
{
	struct quic_conn *c = user;
	struct quic_stream *s = stream_of(c, id);

	if (!s || !s->is_open)
		return 0;
	c->kept -= offset + len - s->tx.head;
	quic_ring_drop(&s->tx, offset + len);
	quic_try_arrived(s);
	s->waits_ns = s->sent > s->tx.head ? c->now_ns : 0;
	c->writable |= bit_of(s);
	return 0;
}

static int on_stream_reset(ngtcp2_conn *conn, int64_t id, uint64_t final_size, uint64_t code,
	void *user, void *stream_user)
{
	struct quic_conn *c = user;
	struct quic_stream *s = stream_of(c, id);

	if (s) {
		s->ended = true;
		c->readable |= bit_of(s);
	}
	return 0;
}

static int on_new_cid(ngtcp2_conn *conn, ngtcp2_cid *cid, uint8_t *token, size_t len, void *user)
{
	struct quic_conn *c = user;
	uint8_t id[NGTCP2_MAX_CIDLEN];

	weft_random(id, len);
	ngtcp2_cid_init(cid, id, len);
	if (!make_token(c->secret, cid, token) ||
		(c->owner->new_cid && !c->owner->new_cid(c, id)))
		return NGTCP2_ERR_CALLBACK_FAILURE;
	return 0;
}

static int on_drop_cid(ngtcp2_conn *conn, const ngtcp2_cid *cid, void *user)
{
	struct quic_conn *c = user;

	if (c->owner->drop_cid && cid->datalen == QUIC_CID_BYTES)
		c->owner->drop_cid(c, cid->data);
	return 0;
}

/* The path is known to work: from now on datagrams may be as large as it takes. */
static int on_shaken(ngtcp2_conn *conn, void *user)
{
	struct quic_conn *c = user;

	quic_set_packet_bytes(c, c->most_packet_bytes);
	return 0;
}

/* RFC 9000, 8.2 */
static int on_path_validation(ngtcp2_conn *conn, uint32_t flags, const ngtcp2_path *path,
	ngtcp2_path_validation_result result, void *user)
{
	struct quic_conn *c = user;

	if (c->is_server && result == NGTCP2_PATH_VALIDATION_RESULT_SUCCESS)
		memcpy(&c->proved, path->remote.addr, path->remote.addrlen);
	return 0;
}

/* ngtcp2 tells on_decrypt() of no connection. */
static _Thread_local struct quic_conn *receiving;

void quic_set_receiving(struct quic_conn *c)
{
	receiving = c;
}

/* What ngtcp2 0.12 would not survive; it hears twice of an id that was retired, too. */
static bool may_take(struct quic_conn *c, const uint8_t *payload, size_t len)
{
	const struct quic_frames_ids ids = quic_frames_ids(payload, len);

	c->moved_too_often = c->is_server && ids.highest >= CLIENT_IDS;
	return !ids.retire && !c->moved_too_often;
}

static int on_decrypt(uint8_t *plain, const ngtcp2_crypto_aead *aead,
	const ngtcp2_crypto_aead_ctx *ctx, const uint8_t *bytes, size_t len, const uint8_t *nonce,
	size_t nonce_len, const uint8_t *beside, size_t beside_len)
{
	const bool has_long_head = beside[0] & 0x80; /* frames of the handshake alone */
	int r = ngtcp2_crypto_decrypt_cb(
		plain, aead, ctx, bytes, len, nonce, nonce_len, beside, beside_len);

	return r == 0 && !has_long_head && !may_take(receiving, plain, len - aead->max_overhead)
		? NGTCP2_ERR_CALLBACK_FAILURE
		: r;
}

static const ngtcp2_callbacks callbacks = {
	.client_initial = ngtcp2_crypto_client_initial_cb,
	.recv_client_initial = ngtcp2_crypto_recv_client_initial_cb,
	.recv_crypto_data = ngtcp2_crypto_recv_crypto_data_cb,
	.handshake_completed = on_shaken,
	.encrypt = ngtcp2_crypto_encrypt_cb,
	.decrypt = on_decrypt,
	.hp_mask = ngtcp2_crypto_hp_mask_cb,
	.recv_stream_data = on_stream_data,
	.acked_stream_data_offset = on_acked,
	.stream_open = on_stream_open,
	.recv_retry = ngtcp2_crypto_recv_retry_cb,
	.rand = on_random,
	.get_new_connection_id = on_new_cid,
	.remove_connection_id = on_drop_cid,
	.update_key = ngtcp2_crypto_update_key_cb,
	.stream_reset = on_stream_reset,
	.delete_crypto_aead_ctx = ngtcp2_crypto_delete_crypto_aead_ctx_cb,
	.delete_crypto_cipher_ctx = ngtcp2_crypto_delete_crypto_cipher_ctx_cb,
	.path_validation = on_path_validation,
	.get_path_challenge_data = ngtcp2_crypto_get_path_challenge_data_cb,
	.version_negotiation = ngtcp2_crypto_version_negotiation_cb,
};

/* ---- streams ---- */

static ssize_t pipe_read(struct nbd_pipe *pipe, const struct iovec *iov, unsigned nr)
{
	struct quic_stream *s = weft_container_of(pipe, struct quic_stream, pipe);
	struct quic_conn *c = s->conn;
	size_t got = 0;

	for (unsigned i = 0; i < nr && s->rx.head < s->rx.tail; i++)
		got += quic_ring_take(&s->rx, iov[i].iov_base, iov[i].iov_len);
	if (got == 0)
		return c->error ? c->error : s->ended ? 0 : -EAGAIN;
	if (!c->error && !s->ended) {
		ngtcp2_conn_extend_max_stream_offset(c->ngtcp2, id_of(s), got);
		ngtcp2_conn_extend_max_offset(c->ngtcp2, got);
	}
	return (ssize_t)got;
}

/*
 * How much more of the stream may be kept until it has arrived: what keeps the path busy, which is
 * there for all streams together, and little for a peer that acknowledges nothing.
 */
static size_t room_of(const struct quic_stream *s)
{
	const struct quic_conn *c = s->conn;
	const uint64_t own = s->tx.tail - s->tx.head;
	ngtcp2_conn_stat stat;

	ngtcp2_conn_get_conn_stat(c->ngtcp2, &stat);
	const uint64_t room = 2 * stat.cwnd - weft_min(c->kept, 2 * stat.cwnd);
	return (size_t)weft_max(room, KEPT_BYTES - weft_min(own, KEPT_BYTES));
}

static ssize_t pipe_write(struct nbd_pipe *pipe, const struct iovec *iov, unsigned nr)
{
	struct quic_stream *s = weft_container_of(pipe, struct quic_stream, pipe);
	size_t room = room_of(s), put = 0;

	if (s->conn->error)
		return s->conn->error;
	for (unsigned i = 0; i < nr && room > 0; i++) {
		const size_t n = quic_ring_put(
			&s->tx, iov[i].iov_base, weft_min(iov[i].iov_len, room));

		put += n;
		room -= n;
	}
	s->conn->kept += put;
	return put > 0 ? (ssize_t)put : -EAGAIN;
}

static bool pipe_pending(const struct nbd_pipe *pipe)
{
	const struct quic_stream *s = weft_container_of(pipe, const struct quic_stream, pipe);

	return s->rx.head < s->rx.tail || s->ended || s->conn->error;
}

static const struct nbd_pipe_ops pipe_ops = {
	.read = pipe_read,
	.write = pipe_write,
	.pending = pipe_pending,
};

bool quic_has_to_send(const struct quic_conn *c)
{
	for (unsigned i = 0; i < QUIC_STREAMS; i++)
		if (c->streams[i].sent < c->streams[i].tx.tail)
			return true;
	return c->carry_len > 0;
}

bool quic_all_arrived(const struct quic_conn *c)
{
	for (unsigned i = 0; i < QUIC_STREAMS; i++)
		if (c->streams[i].tx.head < c->streams[i].tx.tail)
			return false;
	return true;
}

int quic_open_streams(struct quic_conn *c)
{
	for (unsigned i = 0; i < QUIC_STREAMS; i++) {
		struct quic_stream *s = &c->streams[i];
		int64_t id;

		if (s->is_open)
			continue;
		if (ngtcp2_conn_open_bidi_stream(c->ngtcp2, &id, NULL) != 0 || id != id_of(s))
			return weft_error_set(&c->why, EPROTO, "the server allows too few streams");
		if (open_stream(s) < 0)
			return weft_error_set(&c->why, ENOMEM, "no memory for a stream");
	}
	return 0;
}

/* ---- life ---- */

static struct quic_conn *conn_new(const struct quic_config *config, ngtcp2_settings *settings,
	ngtcp2_transport_params *params)
{
	struct quic_conn *c = weft_map_bytes(sizeof(*c));

	if (!c)
		return NULL;
	c->owner = config->owner;
	c->user = config->user;
	c->path = config->path;
	c->packet_bytes = QUIC_LEAST_BYTES;
	c->most_packet_bytes =
		weft_max(weft_min(config->route_bytes, QUIC_MOST_BYTES), QUIC_LEAST_BYTES);
	c->idle_ns = config->idle_ms * MS_NS;
	for (unsigned i = 0; i < QUIC_STREAMS; i++) {
		c->streams[i].pipe.ops = &pipe_ops;
		c->streams[i].conn = c;
	}
	ngtcp2_settings_default(settings);
	settings->initial_ts = weft_now_ns();
	/*
	 * CUBIC takes each loss for a full queue.  BBR's first version sends no more than arrives
	 * for a round trip after one, which holds up reads that lost nothing.  The second is worse
	 * on near lines that lose 3 % all the time, and better on all others
	 * (perf/results/quic.md).
	 */
	settings->cc_algo = NGTCP2_CC_ALGO_BBR2;
	settings->handshake_timeout = config->handshake_ms * MS_NS;
	settings->max_tx_udp_payload_size = c->most_packet_bytes;
	/* ngtcp2 looks for a few sizes below 1500 alone: shrink_if_stuck() does that here. */
	settings->no_tx_udp_payload_size_shaping = 1;
	settings->no_pmtud = 1;
	ngtcp2_transport_params_default(params);
	params->initial_max_stream_data_bidi_local = QUIC_RING_BYTES;
	params->initial_max_stream_data_bidi_remote = QUIC_RING_BYTES;
	params->initial_max_data = (uint64_t)QUIC_STREAMS * QUIC_RING_BYTES;
	params->max_idle_timeout = c->idle_ns;
	/* So much is added to what a peer waits before it sends again what may be lost. */
	params->max_ack_delay = ACK_DELAY_MS * MS_NS;
	params->active_connection_id_limit = PEER_IDS;
	return c;
}

static int start_tls(struct quic_conn *c, struct nbd_tls_credentials *credentials)
{
	const ngtcp2_crypto_conn_ref ref = {.get_conn = conn_of_ref, .user_data = c};
	void **carrier;
	int r = nbd_tls_bare_new(credentials, ALPN, &c->tls, &carrier);

	if (r < 0)
		return r;
	memcpy(carrier, &ref, sizeof(ref));
	gnutls_session_t session = nbd_tls_bare_session(c->tls);
	r = c->is_server ? ngtcp2_crypto_gnutls_configure_server_session(session)
			 : ngtcp2_crypto_gnutls_configure_client_session(session);
	ngtcp2_conn_set_tls_native_handle(c->ngtcp2, session);
	return r == 0 ? 0 : -EIO;
}

int quic_client_new(const struct quic_config *config, struct quic_conn **ret)
{
	const ngtcp2_path path = to_path(&config->path);
	ngtcp2_transport_params params;
	ngtcp2_settings settings;
	uint8_t random[2 * QUIC_CID_BYTES];
	struct quic_conn *c = conn_new(config, &settings, &params);

	if (!c)
		return -ENOMEM;
	weft_random(c->secret, sizeof(c->secret));
	weft_random(random, sizeof(random));
	const ngtcp2_cid dcid = to_cid(random, QUIC_CID_BYTES);
	const ngtcp2_cid scid = to_cid(random + QUIC_CID_BYTES, QUIC_CID_BYTES);
	int r = ngtcp2_conn_client_new(&c->ngtcp2, &dcid, &scid, &path, NGTCP2_PROTO_VER_V1,
		&callbacks, &settings, &params, NULL, c);
	r = r == 0 ? start_tls(c, config->credentials) : -ENOMEM;
	if (r < 0) {
		quic_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

int quic_server_new(const struct quic_config *config, const struct quic_initial *initial,
	const uint8_t *secret, struct quic_conn **ret)
{
	const ngtcp2_cid theirs = to_cid(initial->scid, initial->scid_len);
	const ngtcp2_cid asked = to_cid(initial->dcid, initial->dcid_len);
	const ngtcp2_path path = to_path(&config->path);
	ngtcp2_transport_params params;
	ngtcp2_settings settings;
	uint8_t id[QUIC_CID_BYTES];
	struct quic_conn *c = conn_new(config, &settings, &params);

	if (!c)
		return -ENOMEM;
	c->is_server = true;
	c->port = c->stay = *quic_port_of(&c->path.local);
	c->next_stay = (uint16_t)(c->stay + 1);
	memcpy(c->secret, secret, sizeof(c->secret));
	weft_random(id, sizeof(id));
	const ngtcp2_cid ours = to_cid(id, sizeof(id));
	params.initial_max_streams_bidi = QUIC_STREAMS;
	params.active_connection_id_limit = CLIENT_IDS_AHEAD;
	params.original_dcid = asked;
	if (initial->validated) {
		params.original_dcid = to_cid(initial->first_dcid, initial->first_dcid_len);
		params.retry_scid = asked;
		params.retry_scid_present = 1;
		settings.token.base = (uint8_t *)initial->token;
		settings.token.len = initial->token_len;
	}
	params.stateless_reset_token_present =
		make_token(c->secret, &ours, params.stateless_reset_token);
	int r = ngtcp2_conn_server_new(&c->ngtcp2, &theirs, &ours, &path, initial->version,
		&callbacks, &settings, &params, NULL, c);
	r = r == 0 ? start_tls(c, config->credentials) : -ENOMEM;
	if (r == 0 && c->owner->new_cid && !c->owner->new_cid(c, id))
		r = -ENOMEM;
	if (r < 0) {
		quic_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

void quic_free(struct quic_conn *c)
{
	if (!c)
		return;
	if (c->ngtcp2)
		ngtcp2_conn_del(c->ngtcp2);
	nbd_tls_bare_free(c->tls);
	for (unsigned i = 0; i < QUIC_STREAMS; i++) {
		quic_ring_fini(&c->streams[i].rx);
		quic_ring_fini(&c->streams[i].tx);
	}
	explicit_bzero(c->secret, sizeof(c->secret));
	weft_unmap_bytes(c, sizeof(*c));
}

bool quic_is_shaken(const struct quic_conn *c)
{
	return ngtcp2_conn_get_handshake_completed(c->ngtcp2);
}

void quic_keep_alive(struct quic_conn *c, uint32_t every_ms)
{
	ngtcp2_conn_set_keep_alive_timeout(c->ngtcp2, every_ms * MS_NS);
}

uint64_t quic_rtt_ns(const struct quic_conn *c)
{
	ngtcp2_conn_stat stat;

	ngtcp2_conn_get_conn_stat(c->ngtcp2, &stat);
	return stat.first_rtt_sample_ts == UINT64_MAX ? 0 : stat.smoothed_rtt;
}
