/* SPDX-License-Identifier: MIT */
/*
 * The transport "nbd" with a key: all that is said behind STARTTLS goes through records, both ends
 * have proved the key, and nothing goes on without.  The server is the engine, on a thread.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <malloc.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "fabric/nbd/tls.h"
#include "tests/support/nbd-memory.h"
#include "transports/nbd/borrower/ask.h"
#include "transports/nbd/borrower/client.h"

enum { SIZE = 8 << 20, WARM = 20, TRIES = 200, TRY_BYTES = 100 };

static uint8_t mem[SIZE], buf[SIZE];
static struct weft_key key;
static struct nbd_tls_credentials *credentials;
static struct nbd_memory memory;
static struct {
	int listen_fd;
	pthread_t thread;
	const char *wanted; /* NULL: it need not be TLS */
	int result;
} server;
static char port[8];
static struct tp *tp;

static int secret(void *ctx, const char *identity, struct weft_key *ret,
	uint64_t *ret_life)
{
	if (strcmp(identity, key.identity) != 0)
		return -ENOKEY;
	*ret = key;
	return 0;
}

static void serve_one(void)
{
	struct nbd_conn *conn;
	int fd = accept(server.listen_fd, NULL, NULL);

	server.result = nbd_conn_new(fd, &memory.service, &memory, &conn);
	if (server.result < 0)
		return;
	nbd_conn_offer_tls(conn, credentials, server.wanted);
	server.result = nbd_conn_serve(conn, 10000);
	nbd_conn_free(conn);
}

static void *serve(void *arg)
{
	serve_one();
	return NULL;
}

static int set_up(void **state)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);

	for (size_t i = 0; i < SIZE; i++)
		mem[i] = (uint8_t)(i * 7 + i / 4096);
	nbd_memory_init(&memory, mem, SIZE);
	memory.names[0] = "r";
	server.wanted = "this server wants a key";
	server.listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(server.listen_fd, (struct sockaddr *)&addr, len) < 0 ||
		listen(server.listen_fd, 4) < 0 ||
		getsockname(server.listen_fd, (struct sockaddr *)&addr, &len) < 0 ||
		pthread_create(&server.thread, NULL, serve, NULL) != 0)
		return -1;
	snprintf(port, sizeof(port), "%u", ntohs(addr.sin_port));
	return tp_open(&tp_nbd_ops, NULL, &tp, NULL);
}

static int tear_down(void **state)
{
	tp_close(tp);
	close(server.listen_fd);
	return memory.nr_opened == memory.nr_closed && memory.nr_in_use == 0 ? 0 : -1;
}

static struct tp_target target_of(const struct weft_key *with, bool session)
{
	return (struct tp_target){
		.host = "127.0.0.1",
		.port = port,
		.region = "r",
		.key = with,
		.hello = {.anonymous = !session,
			.generation = 1,
			.mode = WEFT_MODE_WRITE,
			.name = "t"},
		.connect_timeout_ms = 10000,
	};
}

static void wait_for(struct tp_conn *conn)
{
	struct pollfd p = {.fd = tp_event_fd(conn), .events = (short)tp_arm(conn)};

	if (p.events)
		assert_int_equal(poll(&p, 1, 30000), 1);
}

static struct tp_conn *settle(const struct tp_target *target)
{
	struct tp_conn *conn;

	assert_int_equal(tp_connect(tp, target, &conn, NULL), 0);
	while (tp_state(conn) == TP_CONNECTING) {
		wait_for(conn);
		tp_progress(conn, NULL, 0);
	}
	return conn;
}

static struct tp_conn *connected(const struct tp_target *target)
{
	struct tp_conn *conn = settle(target);

	if (tp_state(conn) != TP_READY)
		fail_msg("%d '%s'", conn->error, conn->why.message);
	return conn;
}

/* With a goodbye, which the server takes for one. */
static void end(struct tp_conn *conn)
{
	tp_shutdown(conn);
	tp_disconnect(conn);
	pthread_join(server.thread, NULL);
	assert_int_equal(server.result, 0);
	assert_true(memory.clean);
}

static void expect(const struct tp_target *target, int code, const char *text)
{
	struct tp_conn *conn = settle(target);

	assert_int_equal(tp_state(conn), TP_FAILED);
	if (conn->error != code || !strstr(conn->why.message, text))
		fail_msg("%d '%s', not %d '%s'", conn->error, conn->why.message, code, text);
	tp_disconnect(conn);
	pthread_join(server.thread, NULL);
	assert_int_equal(memory.nr_opened, 0);
}

/* n operations of len bytes, all in flight. */
static void transfer(struct tp_conn *conn, enum tp_op_kind kind, unsigned n, uint32_t len)
{
	struct tp_op ops[32] = {0}, *list[32];
	struct tp_mem *registered;
	unsigned posted = 0, done = 0;

	assert_true(n <= WEFT_ARRAY_LEN(ops) && (size_t)n * len <= SIZE);
	assert_int_equal(tp_register(tp, buf, SIZE, &registered, NULL), 0);
	for (unsigned i = 0; i < n; i++) {
		ops[i] = (struct tp_op){.kind = (uint8_t)kind,
			.off = (uint64_t)i * len,
			.len = len,
			.buf = buf + (size_t)i * len,
			.mem = registered};
		list[i] = &ops[i];
	}
	while (done < n) {
		struct tp_op *finished[32];

		if (posted < n) {
			int r = tp_post(conn, list + posted, n - posted);

			posted += r > 0 ? (unsigned)r : 0;
		}
		done += (unsigned)tp_progress(conn, finished, 32);
		if (done < n)
			wait_for(conn);
	}
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(ops[i].status, 0);
	assert_int_equal(tp_deregister(registered), 0);
}

static void all_goes_through_records(void **state)
{
	const struct tp_target target = target_of(&key, true);
	struct tp_conn *conn = connected(&target);

	assert_string_equal(conn->info.transport, "tcp+tls");
	assert_non_null(strstr(conn->info.path, " (TLS1."));
	assert_true(conn->info.has_epoch);
	assert_string_equal(memory.hello.name, "t");
	memset(buf, 0, SIZE);
	transfer(conn, TP_READ, 32, 4096);
	assert_memory_equal(buf, mem, 32 * 4096);
	transfer(conn, TP_READ, 8, 1 << 20);
	assert_memory_equal(buf, mem, 8 << 20);
	for (size_t i = 0; i < SIZE; i++)
		buf[i] = (uint8_t)(i * 13);
	transfer(conn, TP_WRITE, 8, 1 << 20);
	assert_memory_equal(buf, mem, 8 << 20);
	end(conn);
}

static void another_server_than_a_donor_is_used_with_tls(void **state)
{
	const struct tp_target target = target_of(&key, false);
	struct tp_conn *conn = connected(&target);

	assert_string_equal(conn->info.transport, "tcp+tls");
	assert_false(conn->info.has_epoch);
	assert_true(memory.hello.anonymous);
	transfer(conn, TP_READ, 4, 1 << 20);
	assert_memory_equal(buf, mem, 4 << 20);
	end(conn);
}

static void a_wrong_key_is_refused(void **state)
{
	struct weft_key other = key;

	other.secret[0] ^= 1;
	const struct tp_target target = target_of(&other, true);
	expect(&target, -EKEYREJECTED, "alice");
	assert_true(server.result < 0);
}

static void *serve_others(void *arg)
{
	for (unsigned i = 0; i < WARM + TRIES - 1; i++)
		serve_one();
	return NULL;
}

/* A bridge whose donor refuses it tries again for days. */
static void attempts_that_are_refused_keep_no_memory(void **state)
{
	struct weft_key other = key;
	size_t before = 0;

	other.secret[0] ^= 1;
	const struct tp_target target = target_of(&other, true);
	expect(&target, -EKEYREJECTED, "alice");
	assert_int_equal(pthread_create(&server.thread, NULL, serve_others, NULL), 0);
	for (unsigned i = 1; i < WARM + TRIES; i++) {
		struct tp_conn *conn = settle(&target);

		assert_int_equal(conn->error, -EKEYREJECTED);
		tp_disconnect(conn);
		if (i == WARM)
			before = mallinfo2().uordblks;
	}
	pthread_join(server.thread, NULL);
	assert_in_range(mallinfo2().uordblks, 0, before + TRIES * TRY_BYTES);
}

static void an_unknown_identity_is_refused(void **state)
{
	struct weft_key other = key;

	strcpy(other.identity, "mallory");
	const struct tp_target target = target_of(&other, true);
	expect(&target, -EKEYREJECTED, "mallory");
}

static void without_a_key_a_server_that_wants_one_says_so(void **state)
{
	for (unsigned session = 0; session < 2; session++) {
		const struct tp_target target = target_of(NULL, session);

		/* libnbd, for who is no session, has no word of its own for it. */
		expect(&target, session ? -EACCES : -ENOTSUP, "this server wants a key");
		if (session == 0)
			assert_int_equal(
				pthread_create(&server.thread, NULL, serve, NULL), 0);
	}
}

static void a_question_goes_through_records(void **state)
{
	struct weft_uri uri = {.host = "127.0.0.1", .region = "r"};
	struct weft_welcome welcome = {0};

	snprintf(uri.port, sizeof(uri.port), "%s", port);
	assert_int_equal(nbd_ask(&uri, &key, NULL, 10000, -1, &welcome, NULL, NULL), 0);
	pthread_join(server.thread, NULL);
	assert_int_equal(server.result, 0);
	assert_int_equal(welcome.epoch, 0x1122334455667788);
	assert_int_equal(memory.nr_opened, 0);
}

static void a_question_with_a_wrong_key_has_no_answer(void **state)
{
	struct weft_uri uri = {.host = "127.0.0.1", .region = "r"};
	struct weft_welcome welcome = {0};
	struct weft_key other = key;

	other.secret[5] ^= 0x10;
	snprintf(uri.port, sizeof(uri.port), "%s", port);
	assert_int_equal(nbd_ask(&uri, &other, NULL, 10000, -1, &welcome, NULL, NULL),
		-EKEYREJECTED);
	pthread_join(server.thread, NULL);
	assert_true(server.result < 0);
	assert_int_equal(welcome.epoch, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(all_goes_through_records),
		T(another_server_than_a_donor_is_used_with_tls),
		T(a_wrong_key_is_refused),
		T(attempts_that_are_refused_keep_no_memory),
		T(an_unknown_identity_is_refused),
		T(a_question_goes_through_records),
		T(a_question_with_a_wrong_key_has_no_answer),
		T(without_a_key_a_server_that_wants_one_says_so),
	};
	const struct nbd_tls_server config = {.secret = secret};

	if (weft_key_new("alice", &key, NULL) < 0 ||
		nbd_tls_server_new(&config, &credentials, NULL) < 0)
		return 1;
	int r = cmocka_run_group_tests(tests, NULL, NULL);
	nbd_tls_credentials_put(credentials);
	weft_key_wipe(&key);
	return r;
}
