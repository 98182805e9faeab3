/* SPDX-License-Identifier: MIT */
/*
 * TLS under an NBD stream: two ends over a socketpair in one thread, ours with ours and ours with
 * what GnuTLS does by itself.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <gnutls/gnutls.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/key/pass.h"
#include "fabric/nbd/stream.h"
#include "tests/support/seed.h"

enum { BIG = 3 << 20 };

static struct weft_key alice, other, expired;
static uint8_t from[BIG], to[BIG];

static int secret(void *ctx, const char *identity, struct weft_key *ret, uint64_t *ret_life)
{
	assert_ptr_equal(ctx, &alice);
	if (strcmp(identity, "expired") == 0)
		return -EKEYEXPIRED;
	if (strcmp(identity, "alice") != 0)
		return -ENOKEY;
	*ret = alice;
	*ret_life = 7;
	return 0;
}

struct pair {
	struct nbd_tls_credentials *server_credentials, *client_credentials;
	struct nbd_stream server, client;
	int server_result, client_result;
	struct weft_error server_error, client_error;
};

static void make_pair(struct pair *p)
{
	const struct nbd_tls_server config = { .secret = secret, .ctx = &alice };
	int fds[2];

	memset(p, 0, sizeof(*p));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	p->server.fd = fds[0];
	p->client.fd = fds[1];
	assert_int_equal(nbd_tls_server_new(&config, &p->server_credentials, NULL), 0);
	assert_int_equal(nbd_stream_start_tls(&p->server, p->server_credentials), 0);
}

static void end_stream(struct nbd_stream *stream)
{
	nbd_tls_free(stream->tls);
	stream->tls = NULL;
	if (stream->fd >= 0)
		close(stream->fd);
	stream->fd = -1;
}

static void end_pair(struct pair *p)
{
	end_stream(&p->server);
	end_stream(&p->client);
	nbd_tls_credentials_put(p->server_credentials);
	nbd_tls_credentials_put(p->client_credentials);
}

static int step(struct nbd_stream *stream, struct weft_error *err)
{
	int events = 0;
	int r = nbd_tls_handshake(stream->tls, &events, err);

	if (r == -EAGAIN)
		assert_true(events & (POLLIN | POLLOUT));
	return r;
}

/* Both ends, until neither goes on. */
static void shake(struct pair *p)
{
	p->server_result = p->client_result = -EAGAIN;
	for (int i = 0; i < 20; i++) {
		if (p->client_result == -EAGAIN)
			p->client_result = step(&p->client, &p->client_error);
		if (p->server_result == -EAGAIN)
			p->server_result = step(&p->server, &p->server_error);
	}
	print_message("server: %d %s; client: %d %s\n", p->server_result, p->server_error.message,
		p->client_result, p->client_error.message);
}

static void connect_with(struct pair *p, const struct weft_key *key)
{
	const struct nbd_tls_client config = { .key = key };

	assert_int_equal(nbd_tls_client_new(&config, &p->client_credentials, NULL), 0);
	assert_int_equal(nbd_stream_start_tls(&p->client, p->client_credentials), 0);
	shake(p);
}

static void connected(struct pair *p)
{
	make_pair(p);
	connect_with(p, &alice);
	assert_int_equal(p->server_result, 0);
	assert_int_equal(p->client_result, 0);
}

static ssize_t put(struct nbd_stream *s, const void *data, size_t n)
{
	return nbd_stream_write(s, &(struct iovec){ (void *)data, n }, 1);
}

static ssize_t get(struct nbd_stream *s, void *data, size_t n)
{
	return nbd_stream_read(s, &(struct iovec){ data, n }, 1, false);
}

/* ---- what works ---- */

static void a_key_lets_in_and_says_who_it_is(void **state)
{
	char text[16];
	struct pair p;

	connected(&p);
	assert_string_equal(nbd_tls_identity(p.server.tls), "alice");
	assert_int_equal(nbd_tls_life(p.server.tls), 7);
	assert_string_equal(nbd_tls_identity(p.client.tls), "");
	assert_string_equal(nbd_tls_cipher(p.server.tls), "TLS1.3 AES-128-GCM");
	assert_string_equal(nbd_tls_cipher(p.client.tls), "TLS1.3 AES-128-GCM");
	assert_int_equal(get(&p.server, text, sizeof(text)), -EAGAIN);
	assert_int_equal(put(&p.client, "hello", 5), 5);
	assert_int_equal(get(&p.server, text, sizeof(text)), 5);
	assert_memory_equal(text, "hello", 5);
	assert_int_equal(put(&p.server, "you", 3), 3);
	assert_int_equal(get(&p.client, text, sizeof(text)), 3);
	assert_memory_equal(text, "you", 3);
	assert_int_equal(nbd_tls_expires(p.server.tls), 0);
	end_pair(&p);
}

/* Both ends have the same, of one session and no other; it has the form of no key. */
static void a_session_has_a_pass(void **state)
{
	struct weft_key passes[2][2];

	for (unsigned i = 0; i < 2; i++) {
		struct pair p;

		connected(&p);
		assert_int_equal(nbd_tls_pass(p.server.tls, &passes[i][0]), 0);
		assert_int_equal(nbd_tls_pass(p.client.tls, &passes[i][1]), 0);
		end_pair(&p);
		assert_string_equal(passes[i][0].identity, passes[i][1].identity);
		assert_int_equal(passes[i][0].secret_bytes, WEFT_SECRET_BYTES);
		assert_memory_equal(passes[i][0].secret, passes[i][1].secret, WEFT_SECRET_BYTES);
		assert_true(weft_identity_is_pass(passes[i][0].identity));
		assert_false(weft_identity_valid(passes[i][0].identity));
	}
	assert_string_not_equal(passes[0][0].identity, passes[1][0].identity);
	assert_memory_not_equal(passes[0][0].secret, passes[1][0].secret, WEFT_SECRET_BYTES);
	static const char *const others[] = {"", "@", "alice", "@0123", "@0123456789abcdef",
		"@0123456789abcdef0123456789abcdeg", "@0123456789abcdef0123456789abcdef0"};
	for (size_t i = 0; i < WEFT_ARRAY_LEN(others); i++)
		assert_false(weft_identity_is_pass(others[i]));
}

/* Cuts [0, len) of data into vectors at random. */
static unsigned cut(uint8_t *data, size_t len, struct iovec *iov, unsigned most)
{
	unsigned nr = 0;

	while (len > 0) {
		size_t n = (size_t)rand() % (rand() % 3 ? 40000 : 40) + 1;

		n = nr + 1 == most ? len : weft_min(n, len);
		iov[nr++] = (struct iovec){ data, n };
		data += n;
		len -= n;
	}
	return nr;
}

/* Whatever a socket takes of a write, its bytes arrive once and in order, and reads do not wait. */
static void every_byte_arrives_once(void **state)
{
	size_t sent = 0, got = 0, left = 0;
	unsigned partial = 0;
	struct pair p;

	connected(&p);
	for (size_t i = 0; i < BIG; i++)
		from[i] = (uint8_t)rand();
	memset(to, 0, BIG);
	while (got < BIG) {
		struct iovec iov[20];
		/* At least what was offered before and did not leave. */
		size_t len = weft_min(BIG - sent, weft_max(left, 1 + (size_t)rand() % 900000));
		ssize_t n = len ? nbd_stream_write(&p.client, iov, cut(from + sent, len, iov, 20))
				: -EAGAIN;

		assert_true(n > 0 || n == -EAGAIN);
		assert_true(n <= (ssize_t)len);
		sent += n > 0 ? (size_t)n : 0;
		left = len - (n > 0 ? (size_t)n : 0);
		partial += n == -EAGAIN || (size_t)n < len;
		len = weft_min(BIG - got, 1 + (size_t)rand() % 100000);
		n = nbd_stream_read(&p.server, iov, cut(to + got, len, iov, 20), false);
		assert_true(n > 0 || n == -EAGAIN);
		/* Fewer than were asked for: there are no others. */
		if (n == -EAGAIN || (size_t)n < len)
			assert_false(nbd_stream_pending(&p.server));
		got += n > 0 ? (size_t)n : 0;
		assert_true(got <= sent + 6 * 17000);
	}
	assert_int_equal(sent, BIG);
	assert_memory_equal(from, to, BIG);
	assert_true(partial > 10);
	end_pair(&p);
}

static void bytes_that_the_socket_has_no_more_are_pending(void **state)
{
	uint8_t half[4096];
	struct pair p;

	connected(&p);
	assert_int_equal(put(&p.client, from, 8192), 8192);
	assert_false(nbd_stream_pending(&p.server));
	assert_int_equal(get(&p.server, half, sizeof(half)), sizeof(half));
	assert_true(nbd_stream_pending(&p.server));
	assert_int_equal(get(&p.server, half, sizeof(half)), sizeof(half));
	assert_int_equal(get(&p.server, half, sizeof(half)), -EAGAIN);
	assert_false(nbd_stream_pending(&p.server));
	end_pair(&p);
}

/* ---- ends ---- */

static void an_end_that_was_said_is_an_end(void **state)
{
	char text[8];
	struct pair p;

	connected(&p);
	assert_int_equal(put(&p.client, "bye", 3), 3);
	nbd_tls_bye(p.client.tls);
	end_stream(&p.client);
	assert_int_equal(get(&p.server, text, sizeof(text)), 3);
	assert_int_equal(get(&p.server, text, sizeof(text)), 0);
	assert_int_equal(get(&p.server, text, sizeof(text)), 0);
	end_pair(&p);
}

/* Its socket may stay open, as that of a peer that waits for us to say the same. */
static void an_end_that_was_said_behind_bytes_is_pending(void **state)
{
	char text[8];
	struct pair p;

	connected(&p);
	assert_int_equal(put(&p.client, "bye", 3), 3);
	nbd_tls_bye(p.client.tls);
	assert_int_equal(get(&p.server, text, sizeof(text)), 3);
	assert_true(nbd_stream_pending(&p.server));
	assert_int_equal(get(&p.server, text, sizeof(text)), 0);
	end_pair(&p);
}

static void an_end_that_was_not_said_is_an_error(void **state)
{
	char text[8];
	struct pair p;

	connected(&p);
	assert_int_equal(put(&p.client, "bye", 3), 3);
	end_stream(&p.client);
	assert_int_equal(get(&p.server, text, sizeof(text)), 3);
	assert_int_equal(get(&p.server, text, sizeof(text)), -ECONNRESET);
	assert_int_equal(get(&p.server, text, sizeof(text)), -ECONNRESET);
	assert_int_equal(put(&p.server, "x", 1), -EPIPE);
	end_pair(&p);
}

static void a_record_that_was_changed_is_an_error(void **state)
{
	static uint8_t raw[8192];
	struct pair p;
	ssize_t n;

	connected(&p);
	assert_int_equal(put(&p.client, from, 4096), 4096);
	n = recv(p.server.fd, raw, sizeof(raw), MSG_DONTWAIT);
	assert_true(n > 4096);
	raw[2000] ^= 1;
	assert_int_equal(send(p.client.fd, raw, (size_t)n, 0), n);
	assert_int_equal(get(&p.server, to, 4096), -EBADMSG);
	assert_int_equal(get(&p.server, to, 4096), -EBADMSG);
	end_pair(&p);
}

/* ---- who is not let in ---- */

static void refused(const struct weft_key *key, int server, const char *why)
{
	struct pair p;

	make_pair(&p);
	connect_with(&p, key);
	assert_int_equal(p.server_result, server);
	assert_non_null(strstr(p.server_error.message, why));
	assert_int_equal(p.client_result, -EKEYREJECTED);
	assert_non_null(strstr(p.client_error.message, key->identity));
	assert_int_equal(step(&p.server, NULL), server);
	end_pair(&p);
}

static void an_unknown_identity_is_refused(void **state)
{
	refused(&other, -ENOKEY, "no key for the identity mallory");
}

static void an_expired_key_is_refused(void **state)
{
	refused(&expired, -EKEYEXPIRED, "the key of expired has expired");
}

static void another_secret_is_refused(void **state)
{
	struct weft_key wrong = alice;

	wrong.secret[3] ^= 1;
	refused(&wrong, -EKEYREJECTED, "identity alice");
}

static void what_is_not_tls_is_refused(void **state)
{
	struct pair p;

	make_pair(&p);
	memset(from, 'A', 4096);
	assert_int_equal(send(p.client.fd, from, 4096, 0), 4096);
	p.server_result = step(&p.server, &p.server_error);
	assert_int_equal(p.server_result, -EPROTO);
	end_pair(&p);
}

static void a_peer_that_hangs_up_is_told_of(void **state)
{
	struct pair p;

	make_pair(&p);
	end_stream(&p.client);
	p.server_result = step(&p.server, &p.server_error);
	assert_int_equal(p.server_result, -ECONNRESET);
	assert_non_null(strstr(p.server_error.message, "hung up"));
	end_pair(&p);
}

/* ---- others ---- */

struct stock {
	gnutls_session_t session;
	gnutls_psk_client_credentials_t credentials;
	int result;
};

static void stock_start(struct pair *p, struct stock *s, const char *priorities)
{
	const gnutls_datum_t key = { alice.secret, (unsigned)alice.secret_bytes };

	make_pair(p);
	assert_int_equal(gnutls_init(&s->session, GNUTLS_CLIENT | GNUTLS_NONBLOCK), 0);
	assert_int_equal(gnutls_priority_set_direct(s->session, priorities, NULL), 0);
	assert_int_equal(gnutls_psk_allocate_client_credentials(&s->credentials), 0);
	assert_int_equal(gnutls_psk_set_client_credentials(s->credentials, "alice", &key,
		GNUTLS_PSK_KEY_RAW), 0);
	assert_int_equal(gnutls_credentials_set(s->session, GNUTLS_CRD_PSK, s->credentials), 0);
	gnutls_transport_set_int(s->session, p->client.fd);
	p->server_result = -EAGAIN;
	s->result = GNUTLS_E_AGAIN;
	for (int i = 0; i < 20; i++) {
		if (s->result == GNUTLS_E_AGAIN)
			s->result = gnutls_handshake(s->session);
		if (p->server_result == -EAGAIN)
			p->server_result = step(&p->server, &p->server_error);
	}
	print_message("%s: server %d %s, client %s\n", priorities, p->server_result,
		p->server_error.message, gnutls_strerror(s->result));
}

static void stock_end(struct pair *p, struct stock *s)
{
	gnutls_deinit(s->session);
	gnutls_psk_free_client_credentials(s->credentials);
	end_pair(p);
}

static void stock_clients_are_let_in(void **state)
{
	static const struct {
		const char *priorities, *cipher;
	} cases[] = {
		/* nbdkit, qemu; libnbd adds no other */
		{ "NORMAL:+ECDHE-PSK:+DHE-PSK:+PSK", "TLS1.3 AES-128-GCM" },
		{ "NORMAL:-VERS-TLS1.3:+ECDHE-PSK:+DHE-PSK:+PSK", "TLS1.2 CHACHA20-POLY1305" },
		{ "NORMAL:-VERS-TLS1.3:+DHE-PSK", "TLS1.2 AES-128-GCM" },
		{ "NORMAL:-VERS-ALL:+VERS-TLS1.2:+ECDHE-PSK:-CIPHER-ALL:+CHACHA20-POLY1305",
			"TLS1.2 CHACHA20-POLY1305" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct stock s;
		struct pair p;
		char text[8];

		stock_start(&p, &s, cases[i].priorities);
		assert_int_equal(s.result, 0);
		assert_int_equal(p.server_result, 0);
		assert_string_equal(nbd_tls_identity(p.server.tls), "alice");
		assert_string_equal(nbd_tls_cipher(p.server.tls), cases[i].cipher);
		assert_int_equal(gnutls_record_send(s.session, "hello", 5), 5);
		assert_int_equal(get(&p.server, text, sizeof(text)), 5);
		stock_end(&p, &s);
	}
}

static void what_is_weak_is_refused(void **state)
{
	static const char *const cases[] = {
		"NORMAL:-VERS-ALL:+VERS-TLS1.1:+ECDHE-PSK:+DHE-PSK",
		"NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+PSK", /* no ephemeral keys */
		"NORMAL:-VERS-ALL:+VERS-TLS1.2:+ECDHE-PSK:-CIPHER-ALL:+AES-128-CBC",
		"NORMAL:-VERS-ALL:+VERS-TLS1.2", /* certificates, of which there are none */
		"NORMAL:-VERS-ALL:+VERS-TLS1.3",
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct stock s;
		struct pair p;

		stock_start(&p, &s, cases[i]);
		assert_int_not_equal(s.result, 0);
		assert_int_equal(p.server_result, -EPROTO);
		stock_end(&p, &s);
	}
}

/* A peer may change its keys whenever it likes, and ask for ours to be changed. */
static void new_keys_are_taken(void **state)
{
	struct stock s;
	struct pair p;
	char text[8];

	stock_start(&p, &s, "NORMAL:+ECDHE-PSK");
	assert_int_equal(s.result, 0);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(gnutls_session_key_update(s.session, GNUTLS_KU_PEER), 0);
		/* Alone, or with what comes behind it. */
		if (i % 2 == 0)
			assert_int_equal(get(&p.server, text, sizeof(text)), -EAGAIN);
		assert_int_equal(gnutls_record_send(s.session, "hello", 5), 5);
		assert_int_equal(get(&p.server, text, sizeof(text)), 5);
		assert_int_equal(put(&p.server, "you", 3), 3);
		assert_int_equal(gnutls_record_recv(s.session, text, sizeof(text)),
			GNUTLS_E_AGAIN);
		assert_int_equal(gnutls_record_recv(s.session, text, sizeof(text)), 3);
	}
	stock_end(&p, &s);
}

static uint64_t written_since_the_last_key(gnutls_session_t session)
{
	uint8_t sequence[8];
	uint64_t n = 0;

	assert_int_equal(gnutls_record_get_state(session, 0, NULL, NULL, NULL, sequence), 0);
	for (unsigned i = 0; i < 8; i++)
		n = n << 8 | sequence[i];
	return n;
}

/*
 * WEFT_RECORDS in each direction (2^24 is where GnuTLS takes new keys, of 4 KiB each they are
 * 64 GiB): none ends the session.
 */
static void many_records_end_nothing(void **state)
{
	const char *text = getenv("WEFT_RECORDS");
	const uint64_t nr = text ? strtoull(text, NULL, 0) : 10000;
	uint64_t data[2];
	struct stock s;
	struct pair p;

	stock_start(&p, &s, "NORMAL:+ECDHE-PSK");
	assert_int_equal(s.result, 0);
	for (uint64_t i = 0; i < nr; i++) {
		data[0] = data[1] = i;
		assert_int_equal(gnutls_record_send(s.session, data, 16), 16);
		memset(data, 0, sizeof(data));
		assert_int_equal(get(&p.server, data, 16), 16);
		assert_int_equal(data[1], i);
		assert_int_equal(put(&p.server, data, 16), 16);
		ssize_t n;
		do
			n = gnutls_record_recv(s.session, data, 16);
		while (n == GNUTLS_E_AGAIN);
		assert_int_equal(n, 16);
		assert_int_equal(data[0], i);
	}
	const uint64_t last = written_since_the_last_key(s.session);
	print_message("%" PRIu64 " records, %" PRIu64 " under the last key\n", nr, last);
	assert_true(last <= UINT64_C(1) << 24);
	stock_end(&p, &s);
}

/* TLS 1.2 lets a client begin anew in the middle, which nobody needs. */
static void a_client_that_begins_anew_is_refused(void **state)
{
	struct stock s;
	struct pair p;
	char text[8];

	stock_start(&p, &s, "NORMAL:-VERS-TLS1.3:+ECDHE-PSK");
	assert_int_equal(s.result, 0);
	assert_int_equal(gnutls_handshake(s.session), GNUTLS_E_AGAIN);
	assert_int_equal(get(&p.server, text, sizeof(text)), -EPROTO);
	assert_int_equal(put(&p.server, text, sizeof(text)), -EPROTO);
	stock_end(&p, &s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_key_lets_in_and_says_who_it_is),
		cmocka_unit_test(a_session_has_a_pass),
		cmocka_unit_test(every_byte_arrives_once),
		cmocka_unit_test(bytes_that_the_socket_has_no_more_are_pending),
		cmocka_unit_test(an_end_that_was_said_is_an_end),
		cmocka_unit_test(an_end_that_was_said_behind_bytes_is_pending),
		cmocka_unit_test(an_end_that_was_not_said_is_an_error),
		cmocka_unit_test(a_record_that_was_changed_is_an_error),
		cmocka_unit_test(an_unknown_identity_is_refused),
		cmocka_unit_test(an_expired_key_is_refused),
		cmocka_unit_test(another_secret_is_refused),
		cmocka_unit_test(what_is_not_tls_is_refused),
		cmocka_unit_test(a_peer_that_hangs_up_is_told_of),
		cmocka_unit_test(stock_clients_are_let_in),
		cmocka_unit_test(what_is_weak_is_refused),
		cmocka_unit_test(new_keys_are_taken),
		cmocka_unit_test(many_records_end_nothing),
		cmocka_unit_test(a_client_that_begins_anew_is_refused),
	};

	if (weft_key_new("alice", &alice, NULL) < 0 || weft_key_new("mallory", &other, NULL) < 0 ||
		weft_key_new("expired", &expired, NULL) < 0)
		return 1;
	srand((unsigned)seed_or(1));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
