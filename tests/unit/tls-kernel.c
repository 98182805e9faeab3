/* SPDX-License-Identifier: MIT */
/*
 * TLS between weft's own ends, over TCP: sessions that keep their keys, and where the kernel has
 * TLS, records that it makes and opens.  Two ends in one thread, and a relay between them that can
 * hold bytes back, change them, and end them.  Without TLS in the kernel the same holds of GnuTLS's
 * records, and what is about the kernel alone is skipped; shell/tls-in-the-kernel.sh has one.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/nbd/stream.h"
#include "tests/support/seed.h"

enum { BIG = 2 << 20, SOL_OF_TLS = 282, TX = 1, RX = 2 };

static struct weft_key alice;
static uint8_t from[BIG], to[BIG];
static bool kernel_has_tls;
/* What the kernel is made to refuse: TLS at all (0), or a direction. */
static bool refuses[3];

int __real_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len);

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
	const bool refused = level == IPPROTO_TCP ? name == TCP_ULP && refuses[0]
						  : level == SOL_OF_TLS && refuses[name];

	if (!refused)
		return __real_setsockopt(fd, level, name, value, len);
	errno = ENOMEM;
	return -1;
}

static int secret(void *ctx, const char *identity, struct weft_key *ret, uint64_t *ret_life)
{
	*ret = alice;
	*ret_life = 7;
	return strcmp(identity, "alice") == 0 ? 0 : -ENOKEY;
}

struct pair {
	struct nbd_tls_credentials *server_credentials, *client_credentials;
	struct nbd_stream server, client;
	int server_relay, client_relay; /* the relay's ends */
	bool holds_back;                /* the relay keeps the client's bytes */
	size_t flip; /* of what the client sends next the relay changes this byte; 0: none */
};

static void tcp_pair(int ret[2])
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(addr);
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	const int on = 1;

	assert_int_equal(bind(listener, (struct sockaddr *)&addr, len), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
	ret[0] = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(ret[0], (struct sockaddr *)&addr, len), 0);
	ret[1] = accept(listener, NULL, NULL);
	assert_true(ret[1] >= 0);
	close(listener);
	for (int i = 0; i < 2; i++)
		setsockopt(ret[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

/* What has come to one end of the relay leaves by the other; its end, too. */
static size_t relay(int in, int out, size_t flip)
{
	static uint8_t bytes[1 << 20];
	ssize_t n = recv(in, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (n == 0)
		shutdown(out, SHUT_WR);
	if (n <= 0)
		return 0;
	if (flip && (size_t)n > flip)
		bytes[flip] ^= 1;
	/* The tests send less than sockets hold. */
	assert_int_equal(send(out, bytes, (size_t)n, MSG_NOSIGNAL), n);
	return (size_t)n;
}

/* Until nothing moves. */
static void pump(struct pair *p)
{
	for (int quiet = 0; quiet < 3;) {
		size_t n = relay(p->server_relay, p->client_relay, 0);

		if (!p->holds_back)
			n += relay(p->client_relay, p->server_relay, p->flip);
		quiet = n > 0 ? 0 : quiet + 1;
		poll(NULL, 0, n > 0 ? 0 : 1);
	}
}

static void make_pair(struct pair *p)
{
	const struct nbd_tls_server config = { .secret = secret };
	int at_client[2], at_server[2];

	memset(p, 0, sizeof(*p));
	tcp_pair(at_client);
	tcp_pair(at_server);
	p->client.fd = at_client[0];
	p->client_relay = at_client[1];
	p->server_relay = at_server[0];
	p->server.fd = at_server[1];
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
	close(p->server_relay);
	close(p->client_relay);
	nbd_tls_credentials_put(p->server_credentials);
	nbd_tls_credentials_put(p->client_credentials);
}

static int step(struct nbd_stream *stream)
{
	struct weft_error err;
	int events = 0;

	return nbd_tls_handshake(stream->tls, &events, &err);
}

static void start_client(struct pair *p, bool renews)
{
	const struct nbd_tls_client config = { .key = &alice, .renews = renews };

	assert_int_equal(nbd_tls_client_new(&config, &p->client_credentials, NULL), 0);
	assert_int_equal(nbd_stream_start_tls(&p->client, p->client_credentials), 0);
}

static void connected_as(struct pair *p, bool renews)
{
	int server = -EAGAIN, client = -EAGAIN;

	make_pair(p);
	start_client(p, renews);
	for (int i = 0; i < 20 && (server || client); i++) {
		if (client == -EAGAIN)
			client = step(&p->client);
		pump(p);
		if (server == -EAGAIN)
			server = step(&p->server);
		pump(p);
	}
	assert_int_equal(client, 0);
	assert_int_equal(server, 0);
}

static void connected(struct pair *p)
{
	connected_as(p, true);
	assert_int_equal(nbd_tls_in_kernel(p->client.tls), kernel_has_tls);
	assert_int_equal(nbd_tls_in_kernel(p->server.tls), kernel_has_tls);
	assert_int_equal(nbd_tls_why_not_kernel(p->client.tls) == NULL, kernel_has_tls);
}

static ssize_t put(struct nbd_stream *s, const void *data, size_t n)
{
	return nbd_stream_write(s, &(struct iovec){ (void *)data, n }, 1);
}

static ssize_t get(struct nbd_stream *s, void *data, size_t n)
{
	return nbd_stream_read(s, &(struct iovec){ data, n }, 1, false);
}

static void need_kernel(void)
{
	if (!kernel_has_tls) {
		print_message("the kernel has no TLS\n");
		skip();
	}
}

/* ---- what works ---- */

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

static void every_byte_arrives_once(void **state)
{
	size_t sent = 0, got = 0;
	struct pair p;

	connected(&p);
	for (size_t i = 0; i < BIG; i++)
		from[i] = (uint8_t)rand();
	memset(to, 0, BIG);
	while (got < BIG) {
		struct iovec iov[20];
		/* Less than makes the relay wait. */
		size_t len = weft_min(BIG - sent, 1 + (size_t)rand() % 90000);
		ssize_t n = len ? nbd_stream_write(&p.client, iov, cut(from + sent, len, iov, 20))
				: -EAGAIN;

		assert_true(n > 0 || n == -EAGAIN);
		sent += n > 0 ? (size_t)n : 0;
		pump(&p);
		do {
			len = weft_min(BIG - got, 1 + (size_t)rand() % 100000);
			n = nbd_stream_read(&p.server, iov, cut(to + got, len, iov, 20), false);
			got += n > 0 ? (size_t)n : 0;
		} while (n > 0 && got < BIG);
		assert_true(n > 0 || n == -EAGAIN);
	}
	assert_memory_equal(from, to, BIG);
	assert_int_equal(put(&p.server, "you", 3), 3);
	pump(&p);
	assert_int_equal(get(&p.client, to, 16), 3);
	end_pair(&p);
}

/* A client is done first, and speaks: its last message and its first bytes come at once. */
static void bytes_that_come_with_the_handshakes_end_are_read(void **state)
{
	char text[16];
	struct pair p;

	make_pair(&p);
	start_client(&p, true);
	assert_int_equal(step(&p.client), -EAGAIN);
	pump(&p);
	assert_int_equal(step(&p.server), -EAGAIN);
	pump(&p);
	p.holds_back = true;
	assert_int_equal(step(&p.client), 0);
	assert_int_equal(put(&p.client, "hello", 5), 5);
	pump(&p);
	p.holds_back = false;
	pump(&p);
	assert_int_equal(step(&p.server), 0);
	assert_int_equal(nbd_tls_in_kernel(p.server.tls), kernel_has_tls);
	/* Nobody would be woken for them. */
	struct pollfd polled = { .fd = p.server.fd, .events = POLLIN };
	assert_true(nbd_stream_pending(&p.server) || poll(&polled, 1, 0) == 1);
	assert_int_equal(get(&p.server, text, sizeof(text)), 5);
	assert_memory_equal(text, "hello", 5);
	assert_int_equal(get(&p.server, text, sizeof(text)), -EAGAIN);
	assert_false(nbd_stream_pending(&p.server));
	end_pair(&p);
}

/* ---- what the kernel does not take ---- */

static void works_both_ways(struct pair *p)
{
	char text[16];

	for (int i = 0; i < 3; i++) {
		assert_int_equal(put(&p->client, "hello", 5), 5);
		pump(p);
		assert_int_equal(get(&p->server, text, sizeof(text)), 5);
		assert_memory_equal(text, "hello", 5);
		assert_int_equal(put(&p->server, "you", 3), 3);
		pump(p);
		assert_int_equal(get(&p->client, text, sizeof(text)), 3);
		assert_memory_equal(text, "you", 3);
	}
	nbd_tls_bye(p->client.tls);
	pump(p);
	assert_int_equal(get(&p->server, text, sizeof(text)), 0);
}

/* A kernel that refuses a direction, or TLS, leaves those records to GnuTLS. */
static void what_the_kernel_refuses_goes_on_without_it(void **state)
{
	need_kernel();
	for (unsigned what = 0; what < 8; what++) {
		struct pair p;

		for (unsigned i = 0; i < 3; i++)
			refuses[i] = what & 1u << i;
		connected_as(&p, true);
		assert_int_equal(nbd_tls_in_kernel(p.server.tls), what == 0);
		assert_int_equal(nbd_tls_why_not_kernel(p.client.tls) != NULL, what != 0);
		works_both_ways(&p);
		end_pair(&p);
	}
	memset(refuses, 0, sizeof(refuses));
}

/* A client that does not say that it makes new sessions keeps GnuTLS's records, and so do we. */
static void a_peer_that_does_not_renew_is_not_the_kernels(void **state)
{
	struct pair p;

	connected_as(&p, false);
	assert_false(nbd_tls_in_kernel(p.server.tls));
	assert_false(nbd_tls_in_kernel(p.client.tls));
	assert_non_null(strstr(nbd_tls_why_not_kernel(p.server.tls), "weft's own ends"));
	works_both_ways(&p);
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
	pump(&p);
	assert_int_equal(get(&p.server, text, sizeof(text)), 3);
	assert_int_equal(get(&p.server, text, sizeof(text)), 0);
	assert_true(nbd_stream_pending(&p.server));
	end_stream(&p.client);
	pump(&p);
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
	pump(&p);
	assert_int_equal(get(&p.server, text, sizeof(text)), 3);
	assert_int_equal(get(&p.server, text, sizeof(text)), -ECONNRESET);
	assert_int_equal(get(&p.server, text, sizeof(text)), -ECONNRESET);
	end_pair(&p);
}

static void a_record_that_was_changed_is_an_error(void **state)
{
	struct pair p;

	connected(&p);
	memset(to, 7, 4096);
	assert_int_equal(put(&p.client, from, 4096), 4096);
	p.flip = 2000;
	pump(&p);
	assert_int_equal(get(&p.server, to, 4096), -EBADMSG);
	assert_int_equal(get(&p.server, to, 4096), -EBADMSG);
	assert_int_equal(put(&p.server, "x", 1), -EBADMSG);
	/* Nothing of it is in the buffer, which may be a region. */
	for (unsigned i = 0; i < 4096; i++)
		assert_int_equal(to[i], 7);
	end_pair(&p);
}

/* The head of a record, which no key protects, says that it is longer than can be. */
static void a_record_of_impossible_length_is_an_error(void **state)
{
	struct pair p;

	connected(&p);
	assert_int_equal(put(&p.client, from, 4096), 4096);
	p.flip = 2;
	pump(&p);
	const ssize_t n = get(&p.server, to, 4096);
	assert_true(n == -EBADMSG || n == -EPROTO);
	end_pair(&p);
}

/* A peer of GnuTLS's that says it is weft's. */
struct stock {
	gnutls_session_t session;
	gnutls_psk_client_credentials_t credentials;
};

static void stock_start(struct pair *p, struct stock *s)
{
	const gnutls_datum_t key = { alice.secret, (unsigned)alice.secret_bytes };
	const gnutls_datum_t name = { (uint8_t *)NBD_TLS_WEFT, sizeof(NBD_TLS_WEFT) - 1 };
	int server = -EAGAIN, client = GNUTLS_E_AGAIN;

	make_pair(p);
	assert_int_equal(gnutls_init(&s->session, GNUTLS_CLIENT | GNUTLS_NONBLOCK), 0);
	assert_int_equal(gnutls_priority_set_direct(s->session, "NORMAL:+ECDHE-PSK", NULL), 0);
	assert_int_equal(gnutls_alpn_set_protocols(s->session, &name, 1, 0), 0);
	assert_int_equal(gnutls_psk_allocate_client_credentials(&s->credentials), 0);
	assert_int_equal(gnutls_psk_set_client_credentials(s->credentials, "alice", &key,
		GNUTLS_PSK_KEY_RAW), 0);
	assert_int_equal(gnutls_credentials_set(s->session, GNUTLS_CRD_PSK, s->credentials), 0);
	gnutls_transport_set_int(s->session, p->client.fd);
	assert_int_equal(fcntl(p->client.fd, F_SETFL, O_NONBLOCK), 0);
	for (int i = 0; i < 20 && (server || client); i++) {
		if (client == GNUTLS_E_AGAIN)
			client = gnutls_handshake(s->session);
		pump(p);
		if (server == -EAGAIN)
			server = step(&p->server);
		pump(p);
	}
	assert_int_equal(client, 0);
	assert_int_equal(server, 0);
}

static void stock_end(struct pair *p, struct stock *s)
{
	gnutls_deinit(s->session);
	gnutls_psk_free_client_credentials(s->credentials);
	end_pair(p);
}

static void stock_says(gnutls_alert_description_t alert, int expected)
{
	struct stock s;
	struct pair p;
	char text[8];

	stock_start(&p, &s);
	assert_int_equal(gnutls_record_send(s.session, "hello", 5), 5);
	assert_int_equal(gnutls_alert_send(s.session, GNUTLS_AL_FATAL, alert), 0);
	pump(&p);
	assert_int_equal(get(&p.server, text, sizeof(text)), 5);
	assert_int_equal(get(&p.server, text, sizeof(text)), expected);
	assert_int_equal(get(&p.server, text, sizeof(text)), expected);
	stock_end(&p, &s);
}

static void an_alert_is_the_end(void **state)
{
	stock_says(GNUTLS_A_INTERNAL_ERROR, -EPROTO);
	stock_says(GNUTLS_A_CERTIFICATE_REQUIRED, -EKEYREJECTED);
}

/* The kernel cannot follow: a peer that broke its promise is given up, and nothing is lost. */
static void new_keys_end_what_the_kernel_has(void **state)
{
	struct stock s;
	struct pair p;
	char text[8];

	need_kernel();
	stock_start(&p, &s);
	assert_true(nbd_tls_in_kernel(p.server.tls));
	assert_int_equal(gnutls_record_send(s.session, "hello", 5), 5);
	assert_int_equal(gnutls_session_key_update(s.session, 0), 0);
	assert_int_equal(gnutls_record_send(s.session, "there", 5), 5);
	pump(&p);
	assert_int_equal(get(&p.server, text, sizeof(text)), 5);
	assert_int_equal(get(&p.server, text, sizeof(text)), -EPROTO);
	assert_int_equal(get(&p.server, text, sizeof(text)), -EPROTO);
	stock_end(&p, &s);
}

/* ---- keys are used so often and no more ---- */

static void exchange(struct pair *p, unsigned nr, bool server)
{
	for (unsigned i = 0; i < nr; i++) {
		assert_int_equal(put(server ? &p->server : &p->client, "hello", 5), 5);
		pump(p);
		assert_int_equal(get(server ? &p->client : &p->server, to, 16), 5);
	}
}

static void a_session_is_worn_by_records_of_either_direction(void **state)
{
	setenv("WEFT_TLS_RECORDS", "10", 1);
	for (int server = 0; server < 2; server++) {
		struct pair p;

		connected(&p);
		exchange(&p, 9, server);
		assert_false(nbd_tls_is_worn(p.client.tls));
		assert_false(nbd_tls_is_worn(p.server.tls));
		exchange(&p, 1, server);
		assert_true(nbd_tls_is_worn(p.client.tls));
		assert_true(nbd_tls_is_worn(p.server.tls));
		exchange(&p, 10, server); /* it works still */
		end_pair(&p);
	}
	unsetenv("WEFT_TLS_RECORDS");
}

static void a_session_that_nobody_replaced_ends(void **state)
{
	struct pair p;

	setenv("WEFT_TLS_RECORDS", "10:20", 1);
	connected(&p);
	exchange(&p, 20, false);
	exchange(&p, 20, true);
	assert_int_equal(put(&p.client, "hello", 5), -ECONNABORTED);
	assert_int_equal(put(&p.client, "hello", 5), -ECONNABORTED);
	assert_int_equal(put(&p.server, "hello", 5), -ECONNABORTED);
	end_pair(&p);
	unsetenv("WEFT_TLS_RECORDS");
}

/* With whoever does not renew, the keys change instead. */
static void others_get_new_keys(void **state)
{
	struct pair p;

	setenv("WEFT_TLS_RECORDS", "10:20", 1);
	connected_as(&p, false);
	exchange(&p, 100, false);
	exchange(&p, 100, true);
	assert_false(nbd_tls_is_worn(p.client.tls));
	end_pair(&p);
	unsetenv("WEFT_TLS_RECORDS");
}

static bool tls_in_kernel(void)
{
	int fds[2];
	bool is;

	tcp_pair(fds);
	is = setsockopt(fds[0], IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) == 0;
	close(fds[0]);
	close(fds[1]);
	return is;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_byte_arrives_once),
		cmocka_unit_test(bytes_that_come_with_the_handshakes_end_are_read),
		cmocka_unit_test(what_the_kernel_refuses_goes_on_without_it),
		cmocka_unit_test(a_peer_that_does_not_renew_is_not_the_kernels),
		cmocka_unit_test(an_end_that_was_said_is_an_end),
		cmocka_unit_test(an_end_that_was_not_said_is_an_error),
		cmocka_unit_test(a_record_that_was_changed_is_an_error),
		cmocka_unit_test(a_record_of_impossible_length_is_an_error),
		cmocka_unit_test(an_alert_is_the_end),
		cmocka_unit_test(new_keys_end_what_the_kernel_has),
		cmocka_unit_test(a_session_is_worn_by_records_of_either_direction),
		cmocka_unit_test(a_session_that_nobody_replaced_ends),
		cmocka_unit_test(others_get_new_keys),
	};

	if (weft_key_new("alice", &alice, NULL) < 0)
		return 1;
	kernel_has_tls = tls_in_kernel();
	srand((unsigned)seed_or(1));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
