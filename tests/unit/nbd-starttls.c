/* SPDX-License-Identifier: MIT */
/*
 * STARTTLS at the NBD engine: what it forgets, what it refuses, and that all that follows goes
 * through records.  A raw client over a socketpair, mostly in one thread.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/nbd/stream.h"
#include "tests/support/nbd-memory.h"
#include "tests/support/nbd-raw.h"

enum { SIZE = 8 << 20, FLAGS = NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES };

#define WANTED "this server wants a key"

static uint8_t mem[SIZE], data[SIZE];
static struct weft_key key;
static struct nbd_tls_credentials *server, *client;

struct fixture {
	struct nbd_memory m;
	struct nbd_raw raw;
};

static unsigned nr_secured, nr_kept_out;
static char why_kept_out[sizeof(((struct weft_error *)0)->message)];

static int secret(void *ctx, const char *identity, struct weft_key *ret, uint64_t *ret_life)
{
	if (strcmp(identity, key.identity) != 0)
		return -ENOKEY;
	*ret = key;
	return 0;
}

static void secured(struct nbd_conn *conn)
{
	assert_string_equal(nbd_conn_identity(conn), "alice");
	assert_non_null(nbd_conn_cipher(conn));
	nr_secured++;
}

static void kept_out(struct nbd_conn *conn, const struct weft_error *why)
{
	assert_string_equal(nbd_conn_identity(conn), "");
	strcpy(why_kept_out, why->message);
	nr_kept_out++;
}

static int set_up(void **state)
{
	static struct fixture f;

	for (size_t i = 0; i < SIZE; i++)
		mem[i] = (uint8_t)(i * 7 + i / 4096);
	nbd_memory_init(&f.m, mem, SIZE);
	f.m.names[0] = "a";
	f.m.service.secured = secured;
	f.m.service.kept_out = kept_out;
	nbd_raw_pair(&f.raw, &f.m.service, &f.m);
	nr_secured = nr_kept_out = 0;
	*state = &f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	nbd_raw_close(&f->raw);
	return f->m.nr_opened == f->m.nr_closed && f->m.nr_in_use == 0 ? 0 : -1;
}

static struct fixture *ready(void **state, bool required)
{
	struct fixture *f = *state;

	nbd_conn_offer_tls(f->raw.server, server, required ? WANTED : NULL);
	assert_int_equal(nbd_raw_hello(&f->raw, FLAGS), 0);
	return f;
}

static struct fixture *encrypted(void **state)
{
	struct fixture *f = ready(state, true);

	assert_int_equal(nbd_raw_starttls(&f->raw, client), 0);
	assert_int_equal(nr_secured, 1);
	return f;
}

static uint32_t ask(struct fixture *f, uint32_t option, const void *bytes, uint32_t n)
{
	assert_int_equal(nbd_raw_option(&f->raw, option, bytes, n), 0);
	return nbd_raw_final(&f->raw, option);
}

static uint32_t go(struct fixture *f, uint32_t option)
{
	return ask(f, option, data, nbd_raw_info_data(data, "a", NULL, 0));
}

static void into_transmission(struct fixture *f)
{
	assert_int_equal(ask(f, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
	assert_int_equal(go(f, NBD_OPT_GO), NBD_REP_ACK);
	f->raw.structured = true;
}

/* ---- what works ---- */

static void all_goes_through_records(void **state)
{
	static const uint32_t lens[] = { 1, 4096, 16 << 10, 100 << 10, 1 << 20, 3 << 20 };
	struct fixture *f = encrypted(state);

	into_transmission(f);
	for (size_t i = 0; i < sizeof(lens) / sizeof(*lens); i++) {
		const uint64_t off = 1000 * i;

		memset(data, (int)i + 1, lens[i]);
		assert_int_equal(nbd_raw_command(&f->raw, 0, NBD_CMD_WRITE, off, lens[i], data),
			0);
		assert_memory_equal(mem + off, data, lens[i]);
		mem[off] = 0xee;
		assert_int_equal(nbd_raw_command(&f->raw, 0, NBD_CMD_READ, off, lens[i], data), 0);
		assert_memory_equal(mem + off, data, lens[i]);
	}
	assert_int_equal(nr_kept_out, 0);
}

static void a_goodbye_is_answered_by_the_end_of_tls(void **state)
{
	struct fixture *f = encrypted(state);
	struct iovec iov = { data, 1 };

	into_transmission(f);
	assert_int_equal(nbd_raw_request(&f->raw, 0, NBD_CMD_DISC, 1, 0, 0), 0);
	assert_int_equal(nbd_conn_receive(f->raw.server, false), 0);
	assert_int_equal(nbd_conn_send(f->raw.server), -ESHUTDOWN);
	nbd_conn_free(f->raw.server);
	f->raw.server = NULL;
	assert_true(f->m.clean);
	assert_int_equal(nbd_tls_read(f->raw.tls, &iov, 1, false), 0);
}

static void without_permission_to_do_without_it_is_optional(void **state)
{
	struct fixture *f = ready(state, false);

	assert_int_equal(go(f, NBD_OPT_GO), NBD_REP_ACK);
	assert_int_equal(nr_kept_out + nr_secured, 0);
}

/* ---- what is refused ---- */

static void plain_text_is_refused_where_tls_is_wanted(void **state)
{
	static const uint32_t options[] = { NBD_OPT_LIST, NBD_OPT_STRUCTURED_REPLY,
		NBD_OPT_SET_META_CONTEXT, NBD_OPT_LIST_META_CONTEXT, NBD_OPT_INFO, NBD_OPT_GO, 77 };
	struct fixture *f = ready(state, true);

	for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++)
		assert_int_equal(go(f, options[i]), NBD_REP_ERR_TLS_REQD);
	assert_int_equal(f->m.nr_opened, 0);
	assert_int_equal(nr_kept_out, 1);
	assert_non_null(strstr(why_kept_out, "without TLS"));
	assert_int_equal(ask(f, NBD_OPT_ABORT, NULL, 0), NBD_REP_ACK);
}

static void an_export_name_in_plain_text_hangs_up(void **state)
{
	struct fixture *f = ready(state, true);

	nbd_raw_option(&f->raw, NBD_OPT_EXPORT_NAME, "a", 1);
	assert_true(nbd_raw_ended(&f->raw));
	assert_int_equal(f->m.nr_opened, 0);
	assert_int_equal(nr_kept_out, 1);
}

static void starttls_twice_is_invalid(void **state)
{
	struct fixture *f = encrypted(state);

	assert_int_equal(ask(f, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ERR_INVALID);
	into_transmission(f);
}

static void starttls_takes_no_data(void **state)
{
	struct fixture *f = ready(state, true);

	assert_int_equal(ask(f, NBD_OPT_STARTTLS, "x", 1), NBD_REP_ERR_INVALID);
	assert_int_equal(nbd_raw_starttls(&f->raw, client), 0);
}

/* CVE-2021-3716: what somebody on the way puts behind STARTTLS must not count as the client's. */
static void cve_2021_3716_bytes_behind_starttls_end_the_connection(void **state)
{
	struct fixture *f = ready(state, false);
	uint8_t bytes[2 * NBD_OPTION_BYTES];

	weft_put64(bytes, NBD_OPTS_MAGIC);
	weft_put32(bytes + 8, NBD_OPT_STARTTLS);
	weft_put32(bytes + 12, 0);
	memcpy(bytes + 16, bytes, 16);
	weft_put32(bytes + 16 + 8, NBD_OPT_STRUCTURED_REPLY);
	assert_int_equal(nbd_raw_send(&f->raw, bytes, sizeof(bytes)), 0);
	nbd_raw_pump(&f->raw);
	assert_int_equal(f->raw.server_result, -EPROTO);
	assert_int_equal(nr_kept_out, 1);
	assert_non_null(strstr(why_kept_out, "behind STARTTLS"));
}

static void cve_2021_3716_options_are_no_tls(void **state)
{
	struct fixture *f = ready(state, false);

	assert_int_equal(ask(f, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ACK);
	nbd_raw_option(&f->raw, NBD_OPT_LIST, NULL, 0);
	nbd_raw_pump(&f->raw);
	assert_int_equal(f->raw.server_result, -EPROTO);
	assert_int_equal(nr_kept_out, 1);
}

/* CVE-2021-3716, the other half: what was agreed on in plain text is not so behind STARTTLS. */
static void cve_2021_3716_what_was_said_before_is_forgotten(void **state)
{
	static const char *const queries[] = { "base:allocation" };
	struct fixture *f = ready(state, false);
	uint32_t len = nbd_raw_context_data(data, "a", queries, 1);

	assert_int_equal(ask(f, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
	assert_int_equal(ask(f, NBD_OPT_SET_META_CONTEXT, data, len), NBD_REP_ACK);
	assert_int_equal(nbd_raw_starttls(&f->raw, client), 0);
	assert_int_equal(ask(f, NBD_OPT_SET_META_CONTEXT, data, len), NBD_REP_ERR_INVALID);
	assert_int_equal(go(f, NBD_OPT_GO), NBD_REP_ACK);
	/* Simple replies, and no context to ask the status of. */
	assert_int_equal(nbd_raw_command(&f->raw, 0, NBD_CMD_READ, 0, 512, data), 0);
	assert_int_equal(nbd_raw_request(&f->raw, 0, NBD_CMD_BLOCK_STATUS, 9, 0, 512), 0);
	assert_int_equal(nbd_raw_recv(&f->raw, data, NBD_SIMPLE_REPLY_BYTES), 0);
	assert_int_equal(weft_get32(data), NBD_SIMPLE_REPLY_MAGIC);
	assert_int_equal(weft_get32(data + 4), NBD_EINVAL);
}

static void cve_2021_3716_a_hello_in_plain_text_is_no_session(void **state)
{
	struct fixture *f = ready(state, false);
	const struct weft_hello hello = { .generation = 1, .name = "x" };
	char query[WEFT_CONTEXT_MAX];
	const char *queries[] = { query };
	uint32_t len;

	f->m.names[0] = "";
	weft_hello_format(&hello, query);
	len = nbd_raw_context_data(data, "", queries, 1);
	assert_int_equal(ask(f, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
	assert_int_equal(ask(f, NBD_OPT_SET_META_CONTEXT, data, len), NBD_REP_ACK);
	assert_int_equal(nbd_raw_starttls(&f->raw, client), 0);
	len = nbd_raw_info_data(data, WEFT_EXPORT_SESSION, NULL, 0);
	assert_int_equal(ask(f, NBD_OPT_GO, data, len), NBD_REP_ERR_UNKNOWN);
	assert_int_equal(f->m.nr_opened, 0);
}

static void a_wrong_key_is_kept_out(void **state)
{
	struct fixture *f = ready(state, true);
	struct weft_key wrong = key;
	const struct nbd_tls_client config = { .key = &wrong };
	struct nbd_tls_credentials *other;

	wrong.secret[0] ^= 1;
	assert_int_equal(nbd_tls_client_new(&config, &other, NULL), 0);
	assert_int_equal(nbd_raw_starttls(&f->raw, other), -EKEYREJECTED);
	nbd_tls_credentials_put(other);
	assert_int_equal(f->raw.server_result, -EKEYREJECTED);
	assert_int_equal(nr_kept_out, 1);
	assert_int_equal(nr_secured, 0);
}

/* ---- a thread that serves ---- */

struct serving {
	pthread_t thread;
	unsigned handshake_ms;
	struct nbd_conn *conn;
	int result;
};

static void *serve(void *arg)
{
	struct serving *s = arg;

	s->result = nbd_conn_serve(s->conn, s->handshake_ms);
	return NULL;
}

/* Waits for the thread's end; how it served. */
static int end_serving(struct serving *s)
{
	pthread_join(s->thread, NULL);
	nbd_conn_free(s->conn);
	return s->result;
}

/* From here on a thread has the server's end. */
static void start_serving(struct fixture *f, struct serving *s, unsigned handshake_ms)
{
	nbd_conn_offer_tls(f->raw.server, server, WANTED);
	*s = (struct serving){ .handshake_ms = handshake_ms, .conn = f->raw.server };
	f->raw.server = NULL;
	assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
	assert_int_equal(nbd_raw_hello(&f->raw, FLAGS), 0);
}

static void start_transmission(struct fixture *f, struct serving *s)
{
	start_serving(f, s, 10000);
	assert_int_equal(nbd_raw_starttls(&f->raw, client), 0);
	into_transmission(f);
}

static void a_peer_that_is_silent_in_tls_is_dropped(void **state)
{
	struct fixture *f = *state;
	struct serving s;

	start_serving(f, &s, 200);
	assert_int_equal(ask(f, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ACK);
	assert_int_equal(end_serving(&s), -ETIMEDOUT);
}

static void a_thread_serves_all_that_came_at_once(void **state)
{
	enum { N = 64 };
	struct fixture *f = *state;
	struct nbd_raw_answer answer;
	struct serving s;

	start_transmission(f, &s);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(nbd_raw_request(&f->raw, 0, NBD_CMD_READ, i, i * 4096, 4096), 0);
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(nbd_raw_answer(&f->raw, &answer, data, 4096), 0);
		assert_int_equal(answer.cookie, i);
		assert_memory_equal(data, mem + i * 4096, 4096);
	}
	assert_int_equal(nbd_raw_request(&f->raw, 0, NBD_CMD_DISC, N, 0, 0), 0);
	assert_int_equal(end_serving(&s), 0);
}

/* CVE-2024-7409: a server that ends with clients in flight answers what it has, and ends. */
static void cve_2024_7409_ending_with_clients_in_flight(void **state)
{
	struct fixture *f = *state;
	struct nbd_raw_answer answer;
	struct iovec iov = { data, 1 };
	struct serving s;

	start_transmission(f, &s);
	assert_int_equal(nbd_raw_request(&f->raw, 0, NBD_CMD_READ, 1, 0, 1 << 20), 0);
	assert_int_equal(nbd_raw_answer(&f->raw, &answer, data, 1 << 20), 0);
	assert_int_equal(nbd_raw_request(&f->raw, 0, NBD_CMD_READ, 2, 0, 1 << 20), 0);
	nbd_conn_kill(s.conn, true);
	assert_int_equal(nbd_raw_answer(&f->raw, &answer, data, 1 << 20), 0);
	assert_memory_equal(data, mem, 1 << 20);
	assert_int_equal(end_serving(&s), 0);
	/* An end that was said. */
	assert_int_equal(nbd_tls_read(f->raw.tls, &iov, 1, false), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(all_goes_through_records),
		T(a_goodbye_is_answered_by_the_end_of_tls),
		T(without_permission_to_do_without_it_is_optional),
		T(plain_text_is_refused_where_tls_is_wanted),
		T(an_export_name_in_plain_text_hangs_up),
		T(starttls_twice_is_invalid),
		T(starttls_takes_no_data),
		T(cve_2021_3716_bytes_behind_starttls_end_the_connection),
		T(cve_2021_3716_options_are_no_tls),
		T(cve_2021_3716_what_was_said_before_is_forgotten),
		T(cve_2021_3716_a_hello_in_plain_text_is_no_session),
		T(a_wrong_key_is_kept_out),
		T(a_peer_that_is_silent_in_tls_is_dropped),
		T(a_thread_serves_all_that_came_at_once),
		T(cve_2024_7409_ending_with_clients_in_flight),
	};
	const struct nbd_tls_server at_server = { .secret = secret };
	const struct nbd_tls_client at_client = { .key = &key };

	if (weft_key_new("alice", &key, NULL) < 0 ||
		nbd_tls_server_new(&at_server, &server, NULL) < 0 ||
		nbd_tls_client_new(&at_client, &client, NULL) < 0)
		return 1;
	int r = cmocka_run_group_tests(tests, NULL, NULL);
	nbd_tls_credentials_put(server);
	nbd_tls_credentials_put(client);
	return r;
}
