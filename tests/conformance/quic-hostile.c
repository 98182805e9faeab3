/* SPDX-License-Identifier: MIT */
/*
 * A donor over QUIC among those who mean no good: other versions, tokens that are not theirs, half
 * handshakes by the thousand, bytes on streams that are not open to them yet, frames that no
 * library sends, and moves that ngtcp2 would end the process for.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/nbd/client-handshake.h"
#include "fabric/nbd/tls-bare.h"
#include "fabric/nbd/tls.h"
#include "tests/conformance/quic-peer.h"
#include "transports/quic/wire.h"

enum {
	HALF_OPEN = 10000,
	SOCKETS = 32,
	STRANGERS = 64,
	ANSWER_MS = 10000, /* at most */
	PLACES = 24,
};

static struct quic_listener_config listener;

/* What the next packet of this thread has in place of what ngtcp2 wrote. */
static _Thread_local const uint8_t *frames;
static _Thread_local size_t frames_len;

typedef int encrypt_fn(uint8_t *dest, const void *aead, const void *ctx, const uint8_t *plain,
	size_t plain_len, const uint8_t *nonce, size_t nonce_len, const uint8_t *beside,
	size_t beside_len);

/* In place of the library's. */
encrypt_fn ngtcp2_crypto_encrypt_cb;
int ngtcp2_crypto_encrypt_cb(uint8_t *dest, const void *aead, const void *ctx, const uint8_t *plain,
	size_t plain_len, const uint8_t *nonce, size_t nonce_len, const uint8_t *beside,
	size_t beside_len)
{
	encrypt_fn *encrypt = NULL;
	uint8_t other[QUIC_MOST_BYTES] = {0}; /* what is behind the frames is PADDING */

	*(void **)&encrypt = dlsym(RTLD_NEXT, "ngtcp2_crypto_encrypt_cb");
	assert_non_null(encrypt);
	/* Not in a packet of the handshake, whose head is a long one. */
	if (frames && !(beside[0] & 0x80) && plain_len >= frames_len &&
		plain_len <= sizeof(other)) {
		memcpy(other, frames, frames_len);
		frames = NULL;
		plain = other;
	}
	return encrypt(dest, aead, ctx, plain, plain_len, nonce, nonce_len, beside, beside_len);
}

/* Whether clients of this thread want tickets, and to send before the handshake is over. */
static _Thread_local bool is_eager;

typedef int init_fn(gnutls_session_t *session, unsigned flags);

/* In place of the library's. */
int gnutls_init(gnutls_session_t *session, unsigned flags)
{
	init_fn *init = NULL;

	*(void **)&init = dlsym(RTLD_NEXT, "gnutls_init");
	assert_non_null(init);
	if (is_eager && flags & GNUTLS_CLIENT)
		flags = (flags & ~(unsigned)GNUTLS_NO_TICKETS) | GNUTLS_ENABLE_EARLY_DATA;
	return init(session, flags);
}

/* There is no route to it. */
enum { NO_ROUTE = INADDR_LOOPBACK + 8 };

typedef int connect_fn(int fd, const struct sockaddr *to, socklen_t len);

/* In place of the library's. */
int connect(int fd, const struct sockaddr *to, socklen_t len)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)to;
	connect_fn *really = NULL;

	if (to->sa_family == AF_INET && in->sin_addr.s_addr == htonl(NO_ROUTE)) {
		errno = ENETUNREACH;
		return -1;
	}
	*(void **)&really = dlsym(RTLD_NEXT, "connect");
	assert_non_null(really);
	return really(fd, to, len);
}

/* Sends and receives as a stranger; a wire without the library's timing. */
struct stranger {
	struct quic_socket socket;
	struct quic_inbox *inbox;
	uint64_t sent, received; /* bytes */
};

/* From an address of this machine to another. */
static void come_from(struct stranger *s, in_addr_t from, in_addr_t to, const char *port)
{
	const struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(from)};
	const struct sockaddr_in there = {.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(to),
		.sin_port = htons((uint16_t)atoi(port))};

	*s = (struct stranger){.inbox = quic_inbox_new()};
	assert_int_equal(quic_socket_open((const struct sockaddr *)&here,
				 (const struct sockaddr *)&there, false, &s->socket, NULL),
		0);
}

static void come(struct stranger *s, const struct conf *conf)
{
	come_from(s, INADDR_LOOPBACK, INADDR_LOOPBACK, conf->target.port);
}

static void leave(struct stranger *s)
{
	quic_socket_close(&s->socket);
	quic_inbox_free(s->inbox);
}

static void say(struct stranger *s, const void *bytes, size_t len)
{
	assert_int_equal(send(s->socket.fd, bytes, len, 0), len);
	s->sent += len;
}

/* Whether something comes within the time; the first datagram into buf. */
static size_t hear(struct stranger *s, uint8_t *buf, size_t len, int timeout_ms)
{
	struct pollfd fd = {.fd = s->socket.fd, .events = POLLIN};

	if (poll(&fd, 1, timeout_ms) <= 0)
		return 0;
	/* The kernel may have made one message of several datagrams. */
	ssize_t n = recv(s->socket.fd, buf, len, MSG_TRUNC);
	s->received += n > 0 ? (size_t)n : 0;
	return n > 0 ? weft_min((size_t)n, len) : 0;
}

static struct nbd_tls_credentials *credentials_of(const struct weft_key *key)
{
	const struct nbd_tls_client client = {.key = key, .host = "127.0.0.1"};
	struct nbd_tls_credentials *ret;

	assert_int_equal(nbd_tls_client_new(&client, &ret, NULL), 0);
	return ret;
}

static const struct quic_owner nobody = {.new_cid = NULL};

static struct quic_conn *begin(const struct stranger *s, struct nbd_tls_credentials *credentials)
{
	const struct quic_config config = {
		.credentials = credentials,
		.owner = &nobody,
		.path = s->socket.path,
		.idle_ms = 20000,
		.handshake_ms = 20000,
		.route_bytes = s->socket.route_bytes,
	};
	struct quic_conn *conn;

	assert_int_equal(quic_client_new(&config, &conn), 0);
	return conn;
}

/* The first datagram of a connection. */
static size_t first_of(const struct stranger *s, struct nbd_tls_credentials *credentials,
	struct quic_batch *batch)
{
	struct quic_conn *conn = begin(s, credentials);
	ssize_t n = quic_fill(conn, batch, weft_now_ns());

	quic_free(conn);
	assert_true(n >= QUIC_LEAST_BYTES);
	return (size_t)n;
}

static struct quic_batch batch;

static uint32_t version_of(const uint8_t *datagram)
{
	return (uint32_t)datagram[1] << 24 | (uint32_t)datagram[2] << 16 |
		(uint32_t)datagram[3] << 8 | datagram[4];
}

static struct weft_listener_status status_of(const struct conf *conf)
{
	struct weft_listener_status status;

	quic_peer_status(conf, &status);
	return status;
}

static void another_version_is_told_ours(void **state)
{
	/* The second one is a draft's, and the third version 2's, which ngtcp2 has, too. */
	static const char others[][5] = {
		"\xde\xad\xbe\xef", "\xff\x00\x00\x1d", "\x70\x9a\x50\xc4"};
	struct conf *conf = *state;
	struct nbd_tls_credentials *credentials = credentials_of(conf->target.key);
	uint8_t answer[2048];
	struct stranger s;

	come(&s, conf);
	size_t len = first_of(&s, credentials, &batch);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(others); i++) {
		memcpy(batch.bytes + 1, others[i], 4);
		/* Who sends less than an answer may have gets none. */
		say(&s, batch.bytes, QUIC_LEAST_BYTES - 1);
		say(&s, batch.bytes, len);
		size_t n = hear(&s, answer, sizeof(answer), ANSWER_MS);
		assert_true(n > 7 && n < QUIC_LEAST_BYTES);
		assert_int_equal(version_of(answer), 0);
		assert_memory_equal(answer + n - 4, "\0\0\0\1", 4);
		assert_int_equal(hear(&s, answer, sizeof(answer), 100), 0);
	}
	assert_int_equal(status_of(conf).accepted, 0);
	leave(&s);
	nbd_tls_credentials_put(credentials);
}

/* One half handshake that stays, so that the donor is busy: max_unproved is 1. */
static void be_busy(struct stranger *s, const struct conf *conf,
	struct nbd_tls_credentials *credentials)
{
	uint8_t answer[2048];

	come(s, conf);
	say(s, batch.bytes, first_of(s, credentials, &batch));
	assert_true(hear(s, answer, sizeof(answer), ANSWER_MS) > 0);
}

static void a_token_is_good_for_one_address(void **state)
{
	struct conf *conf = *state;
	struct nbd_tls_credentials *credentials = credentials_of(conf->target.key);
	struct stranger busy, s, other;
	uint8_t answer[2048];

	be_busy(&busy, conf, credentials);
	come(&s, conf);
	come(&other, conf);
	struct quic_conn *conn = begin(&s, credentials);
	say(&s, batch.bytes, (size_t)quic_fill(conn, &batch, weft_now_ns()));
	size_t n = hear(&s, answer, sizeof(answer), ANSWER_MS);
	assert_int_equal(answer[0] & 0xf0, 0xf0); /* Retry: RFC 9000, 17.2.5 */
	assert_true(n < QUIC_LEAST_BYTES);
	assert_int_equal(quic_receive(conn, &s.socket.path, answer, n, weft_now_ns()), 0);
	const uint64_t accepted = status_of(conf).accepted;

	size_t len = (size_t)quic_fill(conn, &batch, weft_now_ns());
	say(&other, batch.bytes, len);
	n = hear(&other, answer, sizeof(answer), ANSWER_MS);
	assert_true(n > 0 && n < len); /* it is told that its token is invalid */
	assert_int_equal(status_of(conf).accepted, accepted);

	say(&s, batch.bytes, len);
	assert_true(hear(&s, answer, sizeof(answer), ANSWER_MS) > 0);
	assert_int_equal(status_of(conf).accepted, accepted + 1);
	quic_free(conn);
	leave(&busy);
	leave(&s);
	leave(&other);
	nbd_tls_credentials_put(credentials);
}

static void half_handshakes_by_the_thousand_keep_nobody_out(void **state)
{
	struct conf *conf = *state;
	struct nbd_tls_credentials *credentials = credentials_of(conf->target.key);
	struct stranger s[SOCKETS];
	struct tp_conn *good = NULL;
	uint8_t answer[2048];

	for (unsigned i = 0; i < SOCKETS; i++)
		come(&s[i], conf);
	for (unsigned i = 0; i < HALF_OPEN; i++) {
		struct stranger *one = &s[i % SOCKETS];

		say(one, batch.bytes, first_of(one, credentials, &batch));
		while (hear(one, answer, sizeof(answer), 0) > 0)
			;
		if (i == HALF_OPEN / 4)
			good = conf_connect(conf, &conf->target);
		if (good && i % 100 == 0)
			assert_int_equal(
				conf_do(conf, good, TP_READ, 0, 0, 4096, conf->buf), 0);
	}
	assert_int_equal(conf_do(conf, good, TP_WRITE, 0, 0, 4096, conf->buf), 0);
	assert_int_equal(conf_do(conf, good, TP_READ, 0, 0, 4096, conf->buf), 0);
	conf_end(good);
	struct weft_listener_status status = status_of(conf);
	assert_true(status.strangers.now <= STRANGERS);
	for (unsigned i = 0; i < SOCKETS; i++) {
		while (hear(&s[i], answer, sizeof(answer), 20) > 0)
			;
		assert_true(s[i].received <= 3 * s[i].sent);
		leave(&s[i]);
	}
	nbd_tls_credentials_put(credentials);
}

/* A directory with a donor's certificate that is longer than what one ClientHello pays for. */
static void make_certificate(char *dir)
{
	static const char *const names[] = {"server-key.pem", "server-cert.pem", "ca-cert.pem"};
	static uint8_t padding[12000];
	gnutls_x509_privkey_t key;
	gnutls_x509_crt_t cert;
	gnutls_datum_t pem;
	char path[128];

	assert_non_null(mkdtemp(dir));
	assert_int_equal(gnutls_x509_privkey_init(&key), 0);
	assert_int_equal(gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA,
				 GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0),
		0);
	assert_int_equal(gnutls_x509_crt_init(&cert), 0);
	gnutls_x509_crt_set_version(cert, 3);
	gnutls_x509_crt_set_serial(cert, "\1", 1);
	gnutls_x509_crt_set_activation_time(cert, time(NULL) - 1000);
	gnutls_x509_crt_set_expiration_time(cert, time(NULL) + 1000);
	assert_int_equal(gnutls_x509_crt_set_dn(cert, "CN=donor", NULL), 0);
	assert_int_equal(gnutls_x509_crt_set_key(cert, key), 0);
	assert_int_equal(gnutls_x509_crt_set_extension_by_oid(
				 cert, "1.3.6.1.4.1.55555.1", padding, sizeof(padding), 0),
		0);
	assert_int_equal(gnutls_x509_crt_sign2(cert, cert, key, GNUTLS_DIG_SHA256, 0), 0);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
		assert_int_equal(
			i == 0 ? gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_PEM, &pem)
			       : gnutls_x509_crt_export2(cert, GNUTLS_X509_FMT_PEM, &pem),
			0);
		assert_int_equal(write(fd, pem.data, pem.size), pem.size);
		gnutls_free(pem.data);
		close(fd);
	}
	gnutls_x509_crt_deinit(cert);
	gnutls_x509_privkey_deinit(key);
}

/* RFC 9000, 8.1: whoever has not shown to be there, and says nothing more either. */
static void one_hello_is_answered_with_three_times_its_bytes_at_most(void **state)
{
	static const char *const names[] = {"server-key.pem", "server-cert.pem", "ca-cert.pem"};
	char dir[] = "/tmp/weft-quic-hostile.XXXXXX", path[128];
	const struct quic_listener_config config = {.max_unproved = 100, .tls_certificates = dir};
	const struct nbd_tls_client client = {.certificates = dir, .host = "127.0.0.2"};
	struct nbd_tls_credentials *credentials;
	struct conf other = {0};
	struct stranger s;
	uint8_t answer[2048];

	make_certificate(dir);
	quic_peer_start_at(&other, &config, INADDR_LOOPBACK + 1, "0");
	assert_int_equal(nbd_tls_client_new(&client, &credentials, NULL), 0);
	come_from(&s, INADDR_LOOPBACK, INADDR_LOOPBACK + 1, other.target.port);
	say(&s, batch.bytes, first_of(&s, credentials, &batch));
	/* Probe time-outs are after 1, 3 and 7 seconds. */
	for (const uint64_t end_ns = weft_now_ns() + UINT64_C(8000000000);
		weft_now_ns() < end_ns;)
		(void)hear(&s, answer, sizeof(answer), 100);
	print_message("%lu for %lu\n", (unsigned long)s.received, (unsigned long)s.sent);
	assert_in_range(s.received, 2 * s.sent, 3 * s.sent); /* it had more to say */
	assert_int_equal(status_of(&other).accepted, 1);
	leave(&s);
	nbd_tls_credentials_put(credentials);
	quic_peer_stop(&other);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		unlink(path);
	}
	rmdir(dir);
}

/* A connection whose handshake is done, with its streams open. */
static struct quic_wire *shake(const struct conf *conf)
{
	struct nbd_tls_credentials *credentials = credentials_of(conf->target.key);
	struct quic_wire *w = test_calloc(1, sizeof(*w));
	struct stranger s;

	come(&s, conf);
	w->socket = s.socket;
	w->conn = begin(&s, credentials);
	nbd_tls_credentials_put(credentials);
	while (!quic_is_shaken(w->conn)) {
		struct pollfd fd = {.fd = w->socket.fd, .events = POLLIN};

		assert_int_equal(quic_wire_send(w, weft_now_ns()), 0);
		assert_true(poll(&fd, 1, ANSWER_MS) > 0);
		assert_int_equal(quic_wire_receive(w, s.inbox, weft_now_ns()), 0);
	}
	assert_int_equal(quic_open_streams(w->conn), 0);
	quic_inbox_free(s.inbox);
	return w;
}

/* ---- early data ---- */

enum { EARLY_DATA = 42 }; /* an extension: RFC 8446, 4.2 */

static struct {
	unsigned nr_hellos, nr_answers, nr_early, nr_tickets;
} seen;

static int look_at_extension(void *ctx, unsigned id, const unsigned char *data, unsigned len)
{
	seen.nr_early += id == EARLY_DATA;
	return 0;
}

static int look_at_message(gnutls_session_t session, unsigned type, unsigned when,
	unsigned incoming, const gnutls_datum_t *message)
{
	switch (type) {
	case GNUTLS_HANDSHAKE_CLIENT_HELLO:
		seen.nr_hellos++;
		return gnutls_ext_raw_parse(NULL, look_at_extension, message,
			GNUTLS_EXT_RAW_FLAG_TLS_CLIENT_HELLO);
	case GNUTLS_HANDSHAKE_ENCRYPTED_EXTENSIONS:
		seen.nr_answers++;
		return gnutls_ext_raw_parse(NULL, look_at_extension, message, 0);
	case GNUTLS_HANDSHAKE_NEW_SESSION_TICKET:
		seen.nr_tickets++;
		return 0;
	default:
		return 0;
	}
}

/* Sends and receives until nothing has come for so long. */
static void rest(struct quic_wire *w, struct quic_inbox *inbox, int quiet_ms)
{
	struct pollfd fd = {.fd = w->socket.fd, .events = POLLIN};

	do {
		assert_int_equal(quic_wire_receive(w, inbox, weft_now_ns()), 0);
		assert_int_equal(quic_wire_send(w, weft_now_ns()), 0);
	} while (poll(&fd, 1, quiet_ms) > 0);
}

/*
 * A handshake during which a packet says that it carries early data; what each end says of that.
 * Nobody has the keys of such a packet, so it is junk.
 */
static void shake_early(const struct conf *conf)
{
	struct nbd_tls_credentials *credentials = credentials_of(conf->target.key);
	struct quic_wire w = {.socket.fd = -1};
	uint8_t early[QUIC_LEAST_BYTES];
	struct stranger s;

	memset(&seen, 0, sizeof(seen));
	come(&s, conf);
	w.socket = s.socket;
	w.conn = begin(&s, credentials);
	nbd_tls_credentials_put(credentials);
	gnutls_handshake_set_hook_function(nbd_tls_bare_session(w.conn->tls), GNUTLS_HANDSHAKE_ANY,
		GNUTLS_HOOK_POST, look_at_message);
	ssize_t n = quic_fill(w.conn, &w.batch, weft_now_ns());
	assert_true(n >= QUIC_LEAST_BYTES);
	/* RFC 9000, 17.2.3: the head has the ids of the Initial packet, and then its length. */
	memcpy(early, w.batch.bytes, sizeof(early));
	early[0] = 0xd0;
	say(&s, w.batch.bytes, (size_t)n);
	w.batch.sent = w.batch.len;
	say(&s, early, sizeof(early));
	while (!quic_is_shaken(w.conn)) {
		struct pollfd fd = {.fd = w.socket.fd, .events = POLLIN};

		assert_true(poll(&fd, 1, ANSWER_MS) > 0);
		assert_int_equal(quic_wire_receive(&w, s.inbox, weft_now_ns()), 0);
		assert_int_equal(quic_wire_send(&w, weft_now_ns()), 0);
	}
	rest(&w, s.inbox, 300);
	assert_int_equal(w.conn->error, 0);
	quic_inbox_free(s.inbox);
	quic_wire_fini(&w);
}

/* Our client offers none; and a donor gives nobody what one would need for it. */
static void there_is_no_early_data(void **state)
{
	const struct conf *conf = *state;

	for (is_eager = false;; is_eager = true) {
		shake_early(conf);
		assert_int_equal(seen.nr_hellos, 1);
		assert_int_equal(seen.nr_answers, 1);
		assert_int_equal(seen.nr_early, 0);
		assert_int_equal(seen.nr_tickets, 0);
		if (is_eager)
			break;
	}
	is_eager = false;
}

/* Anybody can send with a source to which nothing could be answered. */
static void sources_without_a_route_take_nobodys_place(void **state)
{
	const struct quic_listener_config config = {.max_unproved = 100};
	struct conf other = {0};
	struct stranger real, forged;
	uint8_t answer[2048];

	quic_peer_start_at(&other, &config, INADDR_LOOPBACK + 1, "0");
	struct nbd_tls_credentials *credentials = credentials_of(other.target.key);
	come_from(&real, INADDR_LOOPBACK, INADDR_LOOPBACK + 1, other.target.port);
	say(&real, batch.bytes, first_of(&real, credentials, &batch));
	assert_true(hear(&real, answer, sizeof(answer), ANSWER_MS) > 0);
	come_from(&forged, NO_ROUTE, INADDR_LOOPBACK + 1, other.target.port);
	for (unsigned i = 0; i < 5; i++)
		say(&forged, batch.bytes, first_of(&forged, credentials, &batch));
	for (unsigned i = 0; status_of(&other).refused < 5; i++) {
		assert_true(i < ANSWER_MS / 10);
		usleep(10000);
	}
	assert_int_equal(status_of(&other).strangers.now, 1);
	assert_int_equal(status_of(&other).strangers.made_room, 0);
	leave(&real);
	leave(&forged);
	nbd_tls_credentials_put(credentials);
	quic_peer_stop(&other);
}

/* There is no descriptor for whoever comes, until one who has proved nothing has gone. */
static void without_descriptors_a_stranger_makes_room(void **state)
{
	struct conf *conf = *state;
	struct nbd_tls_credentials *credentials = credentials_of(conf->target.key);
	const uint64_t end_ns = weft_now_ns() + ANSWER_MS * UINT64_C(1000000);
	struct quic_wire *w = test_calloc(1, sizeof(*w));
	struct rlimit before, few;
	struct stranger busy, s;
	int fds[1024], last, nr = 0;

	be_busy(&busy, conf, credentials);
	come(&s, conf);
	w->socket = s.socket;
	w->conn = begin(&s, credentials);
	last = dup(0);
	close(last);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	few = (struct rlimit){.rlim_cur = 256, .rlim_max = before.rlim_max};
	assert_true(last < 256);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	while ((fds[nr] = dup(0)) >= 0)
		nr++;
	while (!quic_is_shaken(w->conn) && weft_now_ns() < end_ns) {
		struct pollfd fd = {.fd = w->socket.fd, .events = POLLIN};

		assert_int_equal(quic_wire_send(w, weft_now_ns()), 0);
		poll(&fd, 1, 10);
		assert_int_equal(quic_wire_receive(w, s.inbox, weft_now_ns()), 0);
	}
	while (nr > 0)
		close(fds[--nr]);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_true(quic_is_shaken(w->conn));
	assert_int_equal(status_of(conf).strangers.made_room, 1);
	quic_inbox_free(s.inbox);
	quic_wire_fini(w);
	test_free(w);
	leave(&busy);
	nbd_tls_credentials_put(credentials);
}

static void end_wire(struct quic_wire *w, struct quic_inbox *inbox)
{
	quic_inbox_free(inbox);
	quic_wire_fini(w);
	test_free(w);
}

/* Until the donor ends the connection: how. */
static int wait_for_the_end(struct quic_wire *w, struct quic_inbox *inbox)
{
	const uint64_t end_ns = weft_now_ns() + ANSWER_MS * UINT64_C(1000000);
	int r = 0;

	while (r == 0) {
		struct pollfd fd = {.fd = w->socket.fd, .events = POLLIN};

		assert_true(weft_now_ns() < end_ns);
		r = quic_wire_send(w, weft_now_ns());
		poll(&fd, 1, 10);
		if (r == 0)
			r = quic_wire_receive(w, inbox, weft_now_ns());
	}
	return r;
}

static int send_until_the_end(struct quic_wire *w, unsigned stream, const char *text,
	struct quic_inbox *inbox)
{
	struct nbd_pipe *pipe = &w->conn->streams[stream].pipe;
	struct iovec iov = {(void *)text, strlen(text)};

	assert_int_equal(pipe->ops->write(pipe, &iov, 1), strlen(text));
	return wait_for_the_end(w, inbox);
}

/* The donor ends the connection when it gets this on the stream, as it is none of NBD's. */
static void is_ended_by(const struct conf *conf, unsigned stream, const char *text)
{
	struct quic_wire *w = shake(conf);
	struct quic_inbox *inbox = quic_inbox_new();

	assert_int_equal(send_until_the_end(w, stream, text, inbox), -EPROTO);
	assert_non_null(strstr(w->conn->why.message, "is not NBD"));
	end_wire(w, inbox);
}

/* ---- frames that no library sends ---- */

/* RFC 9000: frames in 19, errors in 20.1. */
static const struct forgery {
	const char *what, *error;
	size_t len;
	uint8_t bytes[16];
} forgeries[] = {
	{"bytes beyond a stream's window", "0x3", 12,
		{0x0e, 0, 0xc0, 0, 1, 0, 0, 0, 0, 0, 1, 'x'}},
	{"a stream more than there may be", "0x4", 5, {0x0a, 0x40, 4 * QUIC_STREAMS, 1, 'x'}},
	{"a stream of one direction", "0x4", 4, {0x0a, 2, 1, 'x'}},
	{"a stream that the server would open", "0x5", 4, {0x0a, 1, 1, 'x'}},
	{"room on a stream that is not open", "0x5", 3, {0x11, 1, 9}},
	{"an end in front of what came", "0x6", 9, {0x0e, 4, 10, 1, 'x', 0x04, 4, 0, 5}},
	{"bytes behind the end", "0x6", 10, {0x0f, 4, 5, 1, 'x', 0x0e, 4, 9, 1, 'x'}},
	{"a frame that there is none of", "0x7", 1, {0x21}},
	{"an id to retire that nobody gave", "0xa", 2, {0x19, 0x3f}},
	{"a word that is the server's", "0xa", 1, {0x1e}},
	{"a token for the server", "0xa", 3, {0x07, 1, 'x'}},
	{"a receipt for what was not sent", "0xa", 8, {0x02, 0x9f, 0xff, 0xff, 0xff, 0, 0, 0}},
};

/* A connection of its own sends the forgery; the donor ends that, and says why. */
static void forge(const struct conf *conf, const struct forgery *f)
{
	struct quic_wire *w = shake(conf);
	struct quic_inbox *inbox = quic_inbox_new();
	char said[32];

	print_message("%s\n", f->what);
	frames = f->bytes;
	frames_len = f->len;
	const int r = send_until_the_end(w, 0, "some bytes for the packet", inbox);
	snprintf(said, sizeof(said), "(QUIC error %s", f->error);
	if (r != -EPROTO || frames || !strstr(w->conn->why.message, said))
		fail_msg("%s: %s", f->what, w->conn->why.message);
	end_wire(w, inbox);
}

static void what_breaks_quic_ends_its_connection_alone(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *good = conf_connect(conf, &conf->target);

	for (unsigned i = 0; i < WEFT_ARRAY_LEN(forgeries); i++) {
		forge(conf, &forgeries[i]);
		assert_int_equal(conf_do(conf, good, TP_READ, 0, 0, 4096, conf->buf), 0);
	}
	conf_end(good);
}

/* ---- streams ---- */

static void what_is_not_nbd_ends_the_connection(void **state)
{
	is_ended_by(*state, 0, "GET / HTTP/1.1\r\nHost: there\r\n\r\n");
}

static void other_streams_are_for_who_has_a_grant(void **state)
{
	is_ended_by(*state, 1, "\x25\x60\x95\x13");
}

static void move(struct quic_wire *w, struct quic_inbox *inbox)
{
	struct pollfd fd = {.fd = w->socket.fd, .events = POLLIN};

	assert_int_equal(quic_wire_send(w, weft_now_ns()), 0);
	assert_true(poll(&fd, 1, ANSWER_MS) > 0);
	assert_int_equal(quic_wire_receive(w, inbox, weft_now_ns()), 0);
}

/* A connection that is granted the region. */
static struct quic_wire *be_granted(const struct conf *conf, struct quic_inbox *inbox)
{
	static struct nbd_talk talk;
	struct quic_wire *w = shake(conf);
	struct nbd_stream stream = {.fd = -1, .pipe = &w->conn->streams[0].pipe};
	const struct nbd_talk_wish wish = {
		.region = conf->target.region, .hello = conf->target.hello, .at_once = true};
	short events;
	int r;

	assert_int_equal(nbd_talk_begin(&talk, &wish), 0);
	while ((r = nbd_talk_move(&talk, &stream, &events)) == 0)
		move(w, inbox);
	assert_int_equal(r, 1);
	nbd_talk_end(&talk);
	return w;
}

static void ask(struct quic_wire *w, unsigned stream, const struct nbd_request_header *request,
	size_t payload_len)
{
	struct nbd_pipe *pipe = &w->conn->streams[stream].pipe;
	uint8_t bytes[NBD_REQUEST_BYTES + 4096] = {0};
	struct iovec iov = {bytes, NBD_REQUEST_BYTES + payload_len};

	nbd_pack_request(bytes, request);
	assert_int_equal(pipe->ops->write(pipe, &iov, 1), iov.iov_len);
}

/* Half a WRITE on one stream, and DISC on the first: that borrower may come back and write. */
static void a_goodbye_amid_a_write_is_none(void **state)
{
	const struct nbd_request_header write = {.type = NBD_CMD_WRITE, .len = 4096},
					disc = {.type = NBD_CMD_DISC};
	struct conf *conf = *state;
	struct quic_inbox *inbox = quic_inbox_new();
	struct quic_wire *w = be_granted(conf, inbox);
	struct tp_target other = conf->target;

	ask(w, 3, &write, 2048);
	while (!quic_all_arrived(w->conn))
		move(w, inbox);
	ask(w, 0, &disc, 0);
	assert_int_equal(wait_for_the_end(w, inbox), -ENOTCONN);
	memset(other.hello.id, 'o', sizeof(other.hello.id));
	assert_int_equal(conf_refused(conf, &other, NULL), -EBUSY);
	end_wire(w, inbox);
}

/* RFC 9000, 19.15: what ngtcp2 before 1.2 does not survive. */
static void who_retires_ids_twice_ends_its_connection_alone(void **state)
{
	static const char ids[] = "\x18\x09\x09\x08" "the 9th." "of 16 bytes, 9th"
				  "\x18\x08\x00\x08" "the 8th." "of 16 bytes, 8th"
				  "\x18\x08\x00\x08" "the 8th." "of 16 bytes, 8th";
	const struct nbd_request_header read = {.type = NBD_CMD_READ, .len = 512};
	struct conf *conf = *state;
	struct quic_inbox *inbox = quic_inbox_new();
	struct quic_wire *w = be_granted(conf, inbox);

	for (unsigned i = 0; i < 8; i++)
		ask(w, 1, &read, 0);
	frames = (const uint8_t *)ids;
	frames_len = sizeof(ids);
	wait_for_the_end(w, inbox);
	assert_null(frames);
	end_wire(w, inbox);
	struct tp_target again = conf->target;
	again.hello.generation++;
	conf_end(conf_connect(conf, &again));
}

/* A client whose datagrams come from there, from elsewhere, and from there again. */
static void who_comes_back_before_the_move_is_proved_goes_on(void **state)
{
	const struct nbd_request_header read = {.type = NBD_CMD_READ, .len = 512};
	struct conf *conf = *state;
	struct quic_inbox *inbox = quic_inbox_new();
	struct quic_wire *w = be_granted(conf, inbox);
	struct nbd_pipe *pipe = &w->conn->streams[1].pipe;
	uint8_t answers[2048];
	size_t len = 0;
	struct stranger elsewhere;

	come(&elsewhere, conf);
	for (unsigned i = 0; i < 3; i++) {
		while (hear(&elsewhere, answers, sizeof(answers), 0) > 0)
			;
		ask(w, 1, &read, 0);
		ssize_t n = quic_fill(w->conn, &batch, weft_now_ns());
		assert_true(n > 0);
		say(&elsewhere, batch.bytes, (size_t)n);
		/* It was taken: the donor looks whether datagrams arrive there. */
		assert_true(hear(&elsewhere, answers, sizeof(answers), ANSWER_MS) > 0);
		ask(w, 1, &read, 0);
		while (len < 2 * (i + 1) * (NBD_DATA_CHUNK_BYTES + read.len)) {
			struct iovec iov = {answers, sizeof(answers)};

			move(w, inbox);
			for (ssize_t got; (got = pipe->ops->read(pipe, &iov, 1)) > 0;)
				len += (size_t)got;
		}
	}
	leave(&elsewhere);
	end_wire(w, inbox);
}

static void note_peer(void *ctx, const struct weft_attachment_status *status)
{
	snprintf(ctx, 64, "%.63s", status->peer);
}

/* Nobody answers there: the donor's socket, and what it says of its peer, stay where they were. */
static void nobody_is_followed_before_the_move_is_proved(void **state)
{
	const struct nbd_request_header read = {.type = NBD_CMD_READ, .len = 512};
	struct conf *conf = *state;
	struct quic_inbox *inbox = quic_inbox_new();
	struct quic_wire *w = be_granted(conf, inbox);
	char before[64] = "", after[64] = "";
	struct stranger elsewhere;
	uint8_t answer[2048];

	come(&elsewhere, conf);
	weft_donor_status(conf->donor, note_peer, before);
	ask(w, 1, &read, 0);
	ssize_t n = quic_fill(w->conn, &batch, weft_now_ns());
	assert_true(n > 0);
	say(&elsewhere, batch.bytes, (size_t)n);
	/* Some packets at least: a challenge, and answers to the request. */
	for (unsigned i = 0; i < 2; i++)
		assert_true(hear(&elsewhere, answer, sizeof(answer), ANSWER_MS) > 0);
	weft_donor_status(conf->donor, note_peer, after);
	assert_true(strlen(before) > 0);
	assert_string_equal(before, after);
	leave(&elsewhere);
	end_wire(w, inbox);
}

/*
 * Packets from one port after the other, each with another id for the donor to use there and with
 * the frame; none of the donor's is acknowledged.
 */
static void wander(const struct conf *conf, const uint8_t *frame, size_t frame_len)
{
	struct quic_inbox *inbox = quic_inbox_new();
	struct quic_wire *w = shake(conf);
	struct nbd_pipe *pipe = &w->conn->streams[0].pipe;
	struct stranger s[PLACES];
	uint8_t answer[2048];
	unsigned nr = 0;

	/* The client's ids are on their way, and the donor's. */
	for (unsigned i = 0; i < 5; i++) {
		struct pollfd fd = {.fd = w->socket.fd, .events = POLLIN};

		assert_int_equal(quic_wire_send(w, weft_now_ns()), 0);
		poll(&fd, 1, 50);
		assert_int_equal(quic_wire_receive(w, inbox, weft_now_ns()), 0);
	}
	for (; nr < PLACES && status_of(conf).connections > 0; nr++) {
		const struct iovec some = {answer, 200};
		uint8_t said[64] = {0x18, (uint8_t)(nr + 6), 0, 8};
		size_t len = nr < 2 ? 0 : 28; /* it has ids for two from the handshake */
		ssize_t n;

		come(&s[nr], conf);
		memset(said + 4, 0x40 + (int)nr, 24);
		memcpy(said + len, frame, frame_len);
		frames = said;
		frames_len = len + frame_len;
		memset(answer, 0, sizeof(answer));
		pipe->ops->write(pipe, &some, 1);
		while ((n = quic_fill(w->conn, &batch, weft_now_ns())) == 0)
			usleep(1000);
		assert_true(n > 0);
		assert_null(frames);
		say(&s[nr], batch.bytes, (size_t)n);
		usleep(20000);
	}
	print_message("ended after %u\n", nr);
	for (unsigned i = 0; i < ANSWER_MS / 10 && status_of(conf).connections > 0; i++)
		usleep(10000);
	assert_int_equal(status_of(conf).connections, 0);
	for (unsigned i = 0; i < nr; i++)
		leave(&s[i]);
	end_wire(w, inbox);
}

/* After 17 ids that it gave back, and whose return nobody confirmed, ngtcp2 ends the process. */
static void who_moves_on_and_on_ends_its_connection_alone(void **state)
{
	static const uint8_t ping[] = {0x01}, challenge[] = {0x1a, 1, 2, 3, 4, 5, 6, 7, 8};
	struct conf *conf = *state;
	struct tp_conn *good = conf_connect(conf, &conf->target);

	conf_end(good);
	wander(conf, ping, sizeof(ping));
	wander(conf, challenge, sizeof(challenge));
	good = conf_connect(conf, &conf->target);
	assert_int_equal(conf_do(conf, good, TP_READ, 0, 0, 4096, conf->buf), 0);
	conf_end(good);
}

/* A byte at every second offset: ngtcp2 takes a thousand gaps of a stream, and no more. */
static void crumbs_end_their_connection_alone(void **state)
{
	enum { PACKETS = 100, EACH = 100 };
	struct conf *conf = *state;
	struct quic_wire *w = shake(conf);
	struct quic_inbox *inbox = quic_inbox_new();
	struct nbd_pipe *pipe = &w->conn->streams[0].pipe;
	static uint8_t some[1100], crumbs[EACH * 8];
	const struct iovec iov = {some, sizeof(some)};
	unsigned nr = 0;

	for (; nr < PACKETS && !w->conn->error; nr++) {
		struct pollfd fd = {.fd = w->socket.fd, .events = POLLIN};

		for (unsigned i = 0; i < EACH; i++) {
			const unsigned off = 2 * (nr * EACH + i) + 1;

			memcpy(crumbs + 8 * i,
				(uint8_t[]){0x0e, 0, (uint8_t)(0x80 | off >> 24),
					(uint8_t)(off >> 16), (uint8_t)(off >> 8), (uint8_t)off, 1,
					'x'},
				8);
		}
		pipe->ops->write(pipe, &iov, 1);
		frames = crumbs;
		frames_len = sizeof(crumbs);
		while (!w->conn->error && frames) {
			(void)quic_wire_send(w, weft_now_ns());
			poll(&fd, 1, 1);
			(void)quic_wire_receive(w, inbox, weft_now_ns());
		}
		frames = NULL;
	}
	print_message("ended after %u packets\n", nr);
	assert_in_range(nr, 2, PACKETS / 2);
	assert_int_equal(w->conn->error, -EPROTO);
	end_wire(w, inbox);
	conf_end(conf_connect(conf, &conf->target));
}

/* ---- stateless resets ---- */

/* Of connections that the donor does not know. */
static void say_unknown(struct stranger *s)
{
	uint8_t datagram[100] = {0x40};

	weft_random(datagram + 1 + QUIC_CID_BYTES, sizeof(datagram) - 1 - QUIC_CID_BYTES);
	say(s, datagram, sizeof(datagram));
}

/*
 * Sources have a place of 256 each, so now and then two have the same: not the same two in each
 * round, and of 20 rounds five will not be such by chance.
 */
static void one_source_does_not_take_the_resets_of_others(void **state)
{
	struct conf *conf = *state;
	struct stranger many, one;
	uint8_t answer[2048];
	unsigned nr_missed = 0;

	come(&one, conf);
	for (unsigned i = 0; i < 20; i++) {
		come_from(&many, INADDR_LOOPBACK + 1 + i, INADDR_LOOPBACK, conf->target.port);
		for (unsigned k = 0; k < 20; k++)
			say_unknown(&many);
		say_unknown(&one);
		nr_missed += hear(&one, answer, sizeof(answer), 2000) == 0;
		assert_true(nr_missed < 5);
		usleep(15000);
		leave(&many);
	}
	leave(&one);
}

/* Two donors on one port of two addresses: what one knows of its peers is not the other's. */
static void each_address_has_its_own_resets(void **state)
{
	struct conf *conf = *state, other = {0};
	uint8_t answers[2][2048];
	size_t len[2];

	for (unsigned i = 0; i < 2; i++) {
		struct stranger s;

		if (i == 1)
			quic_peer_start_at(
				&other, &listener, INADDR_LOOPBACK + 1, conf->target.port);
		come_from(&s, INADDR_LOOPBACK, INADDR_LOOPBACK + i, conf->target.port);
		say_unknown(&s);
		len[i] = hear(&s, answers[i], sizeof(answers[i]), ANSWER_MS);
		assert_true(len[i] > 16);
		leave(&s);
	}
	quic_peer_stop(&other);
	assert_memory_not_equal(answers[0] + len[0] - 16, answers[1] + len[1] - 16, 16);
}

struct flood {
	const struct conf *conf;
	struct quic_wire *wire;
	_Atomic bool over;
};

/* FLUSH after FLUSH, as fast as they are answered. */
static void *flush_on_and_on(void *ctx)
{
	static const struct nbd_request_header flush = {.type = NBD_CMD_FLUSH};
	struct flood *f = ctx;
	struct nbd_pipe *pipe = &f->wire->conn->streams[1].pipe;
	const struct quic_ring *tx = &f->wire->conn->streams[1].tx;
	struct quic_inbox *inbox = quic_inbox_new();
	uint8_t bytes[64 * NBD_REQUEST_BYTES], answers[4096];
	int r = 0;

	for (unsigned i = 0; i < 64; i++)
		nbd_pack_request(bytes + i * NBD_REQUEST_BYTES, &flush);
	while (r == 0 && !atomic_load(&f->over)) {
		struct iovec out = {bytes, sizeof(bytes)}, in = {answers, sizeof(answers)};
		struct pollfd fd = {.fd = f->wire->socket.fd, .events = POLLIN};

		/* All or nothing, as a request that is cut would be none. */
		if (tx->tail - tx->head < (64 << 10))
			pipe->ops->write(pipe, &out, 1);
		r = quic_wire_send(f->wire, weft_now_ns());
		poll(&fd, 1, 1);
		if (r == 0)
			r = quic_wire_receive(f->wire, inbox, weft_now_ns());
		while (r == 0 && pipe->ops->read(pipe, &in, 1) > 0)
			;
	}
	quic_inbox_free(inbox);
	return NULL;
}

/* The next generation waits for the end of this one's session, which is in its file. */
static void who_flushes_on_and_on_is_fenced(void **state)
{
	char path[] = "/tmp/weft-quic-hostile.XXXXXX";
	struct conf *conf = *state;
	struct tp_target target = conf->target;
	struct quic_inbox *inbox = quic_inbox_new();
	struct flood f = {.conf = conf};
	struct weft_region *file = quic_peer_lend_file(conf, path);
	pthread_t thread;

	target.region = conf->target.region = "f";
	f.wire = be_granted(conf, inbox);
	assert_int_equal(pthread_create(&thread, NULL, flush_on_and_on, &f), 0);
	while (status_of(conf).requests < 1000)
		usleep(1000);
	target.hello.generation++;
	struct tp_conn *next = conf_connect(conf, &target);
	atomic_store(&f.over, true);
	pthread_join(thread, NULL);
	conf_end(next);
	end_wire(f.wire, inbox);
	weft_region_put(file);
	unlink(path);
}

static void a_key_that_nobody_has_is_refused(void **state)
{
	struct conf *conf = *state;
	struct tp_target target = conf->target;
	struct weft_error why;
	struct weft_key key;

	assert_int_equal(weft_key_new("mallory", &key, NULL), 0);
	target.key = &key;
	assert_int_equal(conf_refused(conf, &target, &why), -EKEYREJECTED);
	assert_non_null(strstr(why.message, "did not accept the key of mallory"));
	strcpy(key.identity, "alice");
	assert_int_equal(conf_refused(conf, &target, &why), -EKEYREJECTED);
	weft_key_wipe(&key);
}

static void without_a_key_there_is_no_quic(void **state)
{
	struct conf *conf = *state;
	struct tp_target target = conf->target;
	struct tp_conn *conn;

	target.key = NULL;
	assert_int_equal(tp_connect(conf->tp, &target, &conn, NULL), -EOPNOTSUPP);
}

static void start(struct conf *conf)
{
	quic_peer_start(conf, &listener);
}

int main(void)
{
	static const struct conf_fixture fixture = {.name = "quic-hostile",
		.start = start,
		.stop = quic_peer_stop,
		.epoch = true,
		.sessions = true,
		.no_stock = true};
	const struct CMUnitTest tests[] = {
		conf_case(another_version_is_told_ours),
		conf_case(a_token_is_good_for_one_address),
		conf_case(half_handshakes_by_the_thousand_keep_nobody_out),
		conf_case(there_is_no_early_data),
		conf_case(one_hello_is_answered_with_three_times_its_bytes_at_most),
		conf_case(sources_without_a_route_take_nobodys_place),
		conf_case(without_descriptors_a_stranger_makes_room),
		conf_case(what_breaks_quic_ends_its_connection_alone),
		conf_case(what_is_not_nbd_ends_the_connection),
		conf_case(other_streams_are_for_who_has_a_grant),
		conf_case(a_goodbye_amid_a_write_is_none),
		conf_case(who_retires_ids_twice_ends_its_connection_alone),
		conf_case(who_comes_back_before_the_move_is_proved_goes_on),
		conf_case(nobody_is_followed_before_the_move_is_proved),
		conf_case(who_moves_on_and_on_ends_its_connection_alone),
		conf_case(crumbs_end_their_connection_alone),
		conf_case(one_source_does_not_take_the_resets_of_others),
		conf_case(each_address_has_its_own_resets),
		conf_case(who_flushes_on_and_on_is_fenced),
		conf_case(a_key_that_nobody_has_is_refused),
		conf_case(without_a_key_there_is_no_quic),
	};

	listener.max_unproved = 1;
	listener.max_strangers = STRANGERS;
	return conf_run_own(&fixture, tests, WEFT_ARRAY_LEN(tests));
}
