/* SPDX-License-Identifier: MIT */
/*
 * The NBD client's way to a connection: servers that refuse, hang, lie or hang up, each answered
 * with what is true, in bounded time.  The server is a script in a thread.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/key/key.h"
#include "fabric/nbd/proto.h"
#include "fabric/base/util.h"
#include "transports/nbd/borrower/ask.h"
#include "transports/nbd/borrower/client.h"

#define GRANT "weft:grant:epoch=00000000000000aa,lease=30000,offers=tcp"
#define OTHER_GRANT "weft:grant:epoch=00000000000000bb,lease=30000,offers=tcp"

/* How the server behaves; what is not set is right. */
struct script {
	const char *greeting;     /* instead of NBD's */
	bool silent;              /* accepts and says nothing */
	bool trickles;            /* says a byte of its greeting now and then */
	bool floods;              /* says the same answer without end */
	bool no_structured;       /* declines structured replies */
	unsigned options;         /* hangs up after so many; 0: never … */
	unsigned hang_ups;        /* … on so many connections; 0: on all */
	const char *grant;        /* the hello's answer; NULL: none */
	const char *second_grant; /* another one with it */
	bool version0;            /* it takes no hello of another version */
	bool older;               /* it does not know WEFT_EXPORT_SESSION */
	bool any_name;            /* every name is an export, that one too */
	bool starttls;            /* says yes to it, and goes on in plaintext */
	bool strict;              /* hangs up on what comes before its answer has been seen */
	uint32_t go_error;        /* NBD_REP_ERR_… of GO and INFO */
	const char *go_text;
	uint64_t size;            /* 0: 1 MiB */
	uint16_t flags;
	uint32_t min_block;       /* 0: not told */
	bool empty;               /* size is 0 indeed */
};

static struct {
	const struct script *script;
	int listen_fd, stop[2];
	uint16_t port;
	pthread_t thread;
	_Atomic bool went; /* an export was granted */
	_Atomic unsigned nr_conns;
	_Atomic unsigned nr_plain; /* options in plaintext, but for STARTTLS */
	uint8_t data[NBD_MAX_OPTION]; /* of the option at hand, */
	uint32_t len;
	bool accepted; /* the hello */
	unsigned nr_hang_ups;
} server;

/* Everything or nothing; false at the end of the stream or when told to stop. */
static bool get(int fd, void *data, size_t n)
{
	for (uint8_t *p = data; n > 0;) {
		struct pollfd fds[2] = {{.fd = fd, .events = POLLIN},
			{.fd = server.stop[0], .events = POLLIN}};

		if (poll(fds, 2, 30000) <= 0 || fds[1].revents)
			return false;
		ssize_t got = recv(fd, p, n, 0);
		if (got <= 0)
			return false;
		p += got;
		n -= (size_t)got;
	}
	return true;
}

static bool put(int fd, const void *data, size_t n)
{
	return send(fd, data, n, MSG_NOSIGNAL) == (ssize_t)n;
}

static bool reply(int fd, uint32_t option, uint32_t type, const void *data, size_t n)
{
	uint8_t head[NBD_OPTION_REPLY_BYTES];

	nbd_pack_option_reply(head, option, type, (uint32_t)n);
	return put(fd, head, sizeof(head)) && put(fd, data, n);
}

static bool reply_context(int fd, uint32_t option, const char *name)
{
	uint8_t data[512];

	if (!name)
		return true;
	weft_put32(data, 1);
	memcpy(data + 4, name, strlen(name));
	return reply(fd, option, NBD_REP_META_CONTEXT, data, 4 + strlen(name));
}

static bool reply_info(int fd, uint32_t option)
{
	const struct script *s = server.script;
	uint8_t data[14];

	if (s->go_error)
		return reply(fd, option, s->go_error, s->go_text,
			s->go_text ? strlen(s->go_text) : 0);
	weft_put16(data, NBD_INFO_EXPORT);
	weft_put64(data + 2, s->size || s->empty ? s->size : 1 << 20);
	weft_put16(data + 10, NBD_FLAG_HAS_FLAGS | s->flags);
	if (!reply(fd, option, NBD_REP_INFO, data, 12))
		return false;
	if (s->min_block) {
		weft_put16(data, NBD_INFO_BLOCK_SIZE);
		weft_put32(data + 2, s->min_block);
		weft_put32(data + 6, 4096);
		weft_put32(data + 10, 1 << 20);
		if (!reply(fd, option, NBD_REP_INFO, data, 14))
			return false;
	}
	return reply(fd, option, NBD_REP_ACK, NULL, 0);
}

static bool says(const char *text)
{
	return memmem(server.data, server.len, text, strlen(text));
}

static bool answer_context(int fd, uint32_t option)
{
	const struct script *s = server.script;

	server.accepted = s->grant && !(s->version0 && says("v=1"));
	if (s->grant && !server.accepted)
		return reply(fd, option, NBD_REP_ERR_INVALID, "malformed weft:session", 22);
	return reply_context(fd, option, s->grant) &&
	       reply_context(fd, option, s->second_grant) &&
	       reply(fd, option, NBD_REP_ACK, NULL, 0);
}

static bool answer_go(int fd, uint32_t option)
{
	const struct script *s = server.script;
	const bool by_session = says(WEFT_EXPORT_SESSION);
	const bool knows = server.accepted && !s->older && !s->version0;

	if (by_session && !knows && !s->any_name && !s->go_error)
		return reply(fd, option, NBD_REP_ERR_UNKNOWN, NULL, 0);
	server.went = option == NBD_OPT_GO && !s->go_error;
	return reply_info(fd, option);
}

static bool answer_option(int fd, uint32_t option)
{
	const struct script *s = server.script;

	server.nr_plain += option != NBD_OPT_STARTTLS;
	switch (option) {
	case NBD_OPT_STARTTLS:
		return reply(fd, option, s->starttls ? NBD_REP_ACK : NBD_REP_ERR_UNSUP, NULL, 0);
	case NBD_OPT_STRUCTURED_REPLY:
		return reply(fd, option, s->no_structured ? NBD_REP_ERR_UNSUP : NBD_REP_ACK, NULL,
			0);
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT:
		return answer_context(fd, option);
	case NBD_OPT_GO:
	case NBD_OPT_INFO:
		return answer_go(fd, option);
	default:
		return reply(fd, option, NBD_REP_ERR_UNSUP, NULL, 0);
	}
}

/* Nothing came, for long enough that it is not under way. */
static bool is_quiet(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 100) == 0;
}

static void serve(int fd)
{
	const struct script *s = server.script;
	uint8_t greeting[NBD_HANDSHAKE_BYTES], head[NBD_OPTION_BYTES], data[8192];
	struct nbd_option option;

	if (s->silent) {
		get(fd, data, sizeof(data));
		return;
	}
	nbd_pack_handshake(greeting, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	for (size_t i = 0; s->trickles && i < sizeof(greeting) && put(fd, greeting + i, 1); i++)
		poll(NULL, 0, 50);
	if (s->trickles)
		return;
	if (s->floods) {
		put(fd, greeting, sizeof(greeting));
		reply(fd, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NULL, 0);
		while (reply_context(fd, NBD_OPT_SET_META_CONTEXT, "base:allocation"))
			;
		return;
	}
	if (s->greeting) {
		put(fd, s->greeting, strlen(s->greeting));
		get(fd, data, sizeof(data));
		return;
	}
	server.accepted = false;
	if (s->strict && !is_quiet(fd))
		return;
	if (!put(fd, greeting, sizeof(greeting)) || !get(fd, data, 4))
		return;
	for (unsigned n = 1;; n++) {
		if (!get(fd, head, sizeof(head)) || nbd_unpack_option(head, &option) < 0 ||
			option.len > sizeof(server.data) || !get(fd, server.data, option.len))
			return;
		server.len = option.len;
		if (s->strict && !is_quiet(fd))
			return;
		if (s->options && n > s->options &&
			(!s->hang_ups || server.nr_hang_ups < s->hang_ups)) {
			server.nr_hang_ups++;
			return;
		}
		if (!answer_option(fd, option.option))
			return;
		if (server.went)
			break;
	}
	/* Transmission: a READ comes back as zeros. */
	for (;;) {
		struct nbd_request_header req;

		if (!get(fd, data, NBD_REQUEST_BYTES) || nbd_unpack_request(data, &req) < 0 ||
			req.type != NBD_CMD_READ || req.len > 4096)
			return;
		memset(data, 0, sizeof(data));
		if (s->no_structured)
			nbd_pack_simple_reply(data, 0, req.cookie);
		else
			nbd_pack_data_chunk(data, NBD_REPLY_FLAG_DONE, req.cookie, req.off,
				req.len);
		if (!put(fd, data,
			    (s->no_structured ? NBD_SIMPLE_REPLY_BYTES : NBD_DATA_CHUNK_BYTES) +
				    req.len))
			return;
	}
}

static void *server_main(void *ctx)
{
	for (;;) {
		struct pollfd fds[2] = {{.fd = server.listen_fd, .events = POLLIN},
			{.fd = server.stop[0], .events = POLLIN}};

		poll(fds, 2, -1);
		if (fds[1].revents)
			return NULL;
		int fd = accept(server.listen_fd, NULL, NULL);
		server.nr_conns++;
		serve(fd);
		close(fd);
	}
}

static void server_start(const struct script *script)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);

	server.script = script;
	server.went = false;
	server.nr_conns = server.nr_plain = 0;
	server.nr_hang_ups = 0;
	server.listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_return_code(bind(server.listen_fd, (struct sockaddr *)&addr, len), 0);
	assert_return_code(listen(server.listen_fd, 8), 0);
	assert_return_code(getsockname(server.listen_fd, (struct sockaddr *)&addr, &len), 0);
	server.port = ntohs(addr.sin_port);
	assert_return_code(pipe(server.stop), 0);
	assert_int_equal(pthread_create(&server.thread, NULL, server_main, NULL), 0);
}

static void server_stop(void)
{
	close(server.stop[1]);
	pthread_join(server.thread, NULL);
	close(server.stop[0]);
	close(server.listen_fd);
}

static struct tp *tp;
static char port[8];

static struct tp_target target_of(bool session)
{
	struct tp_target target = {
		.host = "127.0.0.1",
		.port = port,
		.region = "a region",
		.hello = {.anonymous = !session,
			.generation = 1,
			.mode = WEFT_MODE_WRITE,
			.name = "t"},
		.connect_timeout_ms = 10000,
	};

	snprintf(port, sizeof(port), "%u", server.port);
	return target;
}

static struct tp_conn *settle(const struct tp_target *target)
{
	struct tp_conn *conn;

	assert_int_equal(tp_connect(tp, target, &conn, NULL), 0);
	while (tp_state(conn) == TP_CONNECTING) {
		struct pollfd fd = {.fd = tp_event_fd(conn), .events = (short)tp_arm(conn)};

		if (fd.events)
			assert_int_equal(poll(&fd, 1, 30000), 1);
		tp_progress(conn, NULL, 0);
	}
	return conn;
}

/* Expects a refusal with this code, whose message says `text`. */
static void expect(const struct tp_target *target, int code, const char *text)
{
	struct tp_conn *conn = settle(target);

	if (tp_state(conn) != TP_FAILED)
		fail_msg("it connected");
	if (conn->error != code || !strstr(conn->why.message, text))
		fail_msg("%d '%s', not %d '%s'", conn->error, conn->why.message, code, text);
	tp_disconnect(conn);
}

static void expect_of(const struct script *script, bool session, int code, const char *text)
{
	server_start(script);
	const struct tp_target target = target_of(session);
	expect(&target, code, text);
	server_stop();
}

static void a_session_is_granted(void **state)
{
	static const struct script script = {.grant = GRANT, .flags = NBD_FLAG_CAN_MULTI_CONN};

	server_start(&script);
	const struct tp_target target = target_of(true);
	struct tp_conn *conn = settle(&target);
	assert_int_equal(tp_state(conn), TP_READY);
	assert_true(conn->info.has_epoch && conn->info.can_multi_conn);
	assert_int_equal(conn->info.epoch, 0xaa);
	assert_int_equal(conn->info.lease_ms, 30000);
	assert_int_equal(conn->info.size_bytes, 1 << 20);
	assert_string_equal(conn->info.offers, "tcp");
	assert_string_equal(conn->info.transport, "tcp");
	assert_non_null(strstr(conn->info.path, port));
	tp_disconnect(conn);
	server_stop();
}

static void a_plain_server_is_used_as_it_is(void **state)
{
	static const struct script scripts[] = {
		{.no_structured = true},
		{.min_block = 512, .size = (1 << 20) + 100},
		{.flags = NBD_FLAG_READ_ONLY},
	};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(scripts); i++) {
		server_start(&scripts[i]);
		const struct tp_target target = target_of(false);
		struct tp_conn *conn = settle(&target);
		struct tp_op op = {.kind = TP_PROBE}, *list[1] = {&op};

		assert_int_equal(tp_state(conn), TP_READY);
		assert_false(conn->info.has_epoch);
		assert_int_equal(conn->info.size_bytes, 1 << 20);
		assert_int_equal(conn->info.min_block_bytes, i == 1 ? 512 : 1);
		assert_int_equal(conn->info.read_only, i == 2);
		assert_int_equal(tp_post(conn, list, 1), 1);
		while (tp_progress(conn, list, 1) == 0) {
			struct pollfd fd = {.fd = tp_event_fd(conn), .events = (short)tp_arm(conn)};

			assert_int_equal(poll(&fd, 1, 30000), 1);
		}
		assert_int_equal(op.status, 0);
		tp_disconnect(conn);
		server_stop();
	}
}

static void nobody_there_is_refused(void **state)
{
	static const struct script script = {0};

	server_start(&script);
	struct tp_target target = target_of(true);
	server_stop();
	expect(&target, -ECONNREFUSED, "127.0.0.1");
	target.host = "/nonexistent/socket";
	expect(&target, -ECONNREFUSED, "/nonexistent/socket");
	target.host = "host.invalid";
	expect(&target, -EHOSTUNREACH, "host.invalid");
}

static void a_silent_server_times_out(void **state)
{
	static const struct script script = {.silent = true};

	server_start(&script);
	struct tp_target target = target_of(true);
	target.connect_timeout_ms = 50;
	uint64_t start = weft_now_ns();
	expect(&target, -ETIMEDOUT, "50 ms");
	assert_true(weft_now_ns() - start < 5 * UINT64_C(1000000000));
	server_stop();
}

/* Neither bytes that never become an answer nor answers without end keep it longer. */
static void a_server_without_an_end_is_left(void **state)
{
	static const struct script trickles = {.trickles = true}, floods = {.floods = true};

	server_start(&trickles);
	struct tp_target target = target_of(true);
	target.connect_timeout_ms = 300;
	uint64_t start = weft_now_ns();
	expect(&target, -ETIMEDOUT, "300 ms");
	assert_true(weft_now_ns() - start < 5 * UINT64_C(1000000000));
	server_stop();
	expect_of(&floods, true, -EPROTO, "come to an end");
}

static void a_silent_server_can_be_given_up(void **state)
{
	static const struct script script = {.silent = true};

	server_start(&script);
	const struct tp_target target = target_of(true);
	struct tp_conn *conn;
	uint64_t start = weft_now_ns();
	assert_int_equal(tp_connect(tp, &target, &conn, NULL), 0);
	tp_progress(conn, NULL, 0);
	tp_shutdown(conn);
	assert_int_equal(conn->error, -ECANCELED);
	tp_disconnect(conn);
	tp_close(tp); /* waits for its thread, which does not wait for the server */
	assert_true(weft_now_ns() - start < 5 * UINT64_C(1000000000));
	assert_int_equal(tp_open(&tp_nbd_ops, NULL, &tp, NULL), 0);
	server_stop();
}

static void what_is_no_nbd_server_is_recognised(void **state)
{
	static const struct script script = {
		.greeting = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"};

	expect_of(&script, true, -EPROTO, "handshake");
}

static void a_server_that_hangs_up_is_told_from_a_refusal(void **state)
{
	static const struct script scripts[] = {{.grant = GRANT, .options = 1},
		{.grant = GRANT, .options = 2}};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(scripts); i++)
		expect_of(&scripts[i], true, -ECONNRESET, "hung up");
}

static void a_donor_that_hangs_up_on_strangers_is_asked_again(void **state)
{
	static const struct script script = {.grant = GRANT, .options = 1, .hang_ups = 3};

	server_start(&script);
	const struct tp_target target = target_of(true);
	struct tp_conn *conn = settle(&target);
	assert_int_equal(tp_state(conn), TP_READY);
	tp_disconnect(conn);
	server_stop();
	assert_int_equal(server.nr_hang_ups, 3);
	/* Nobody else is. */
	server_start(&script);
	const struct tp_target foreign = target_of(false);
	expect(&foreign, -ECONNRESET, "the server hung up");
	server_stop();
	assert_int_equal(server.nr_hang_ups, 1);
}

static void a_plain_server_is_no_donor(void **state)
{
	static const struct script scripts[] = {{0}, {.no_structured = true}, {.any_name = true},
		{.strict = true}, {.strict = true, .no_structured = true}};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(scripts); i++) {
		expect_of(&scripts[i], true, -EPROTONOSUPPORT, "nbd://");
		assert_int_equal(server.went, scripts[i].any_name);
		/* One that does not take what comes unasked is asked again, step by step. */
		assert_int_equal(server.nr_conns, scripts[i].strict ? 2 : 1);
	}
}

/* Each is granted once, as what it is, and nobody else's grant is asked for on the way. */
static void donors_of_all_ages_grant(void **state)
{
	static const struct script scripts[] = {{.grant = GRANT}, {.grant = GRANT, .older = true},
		{.grant = GRANT, .version0 = true}, {.grant = GRANT, .strict = true}};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(scripts); i++) {
		server_start(&scripts[i]);
		const struct tp_target target = target_of(true);
		struct tp_conn *conn = settle(&target);

		assert_int_equal(tp_state(conn), TP_READY);
		assert_int_equal(conn->info.epoch, 0xaa);
		tp_disconnect(conn);
		server_stop();
		assert_int_equal(server.nr_conns, scripts[i].strict ? 2 : 1);
	}
}

static void refusals_keep_their_reason(void **state)
{
	static const struct {
		struct script script;
		int code;
		const char *text;
	} cases[] = {
		{{.grant = GRANT,
			 .go_error = NBD_REP_ERR_POLICY,
			 .go_text = "EBUSY: held by 'x' since noon"},
			-EBUSY, "held by 'x' since noon"},
		{{.grant = GRANT, .go_error = NBD_REP_ERR_POLICY, .go_text = "ESTALE: superseded"},
			-ESTALE, "superseded"},
		{{.grant = GRANT,
			 .go_error = NBD_REP_ERR_POLICY,
			 .go_text = "EROFS: only for readers"},
			-EROFS, "only for readers"},
		{{.grant = GRANT, .go_error = NBD_REP_ERR_UNKNOWN}, -ENOENT, "'a region'"},
		{{.go_error = NBD_REP_ERR_UNKNOWN}, -ENOENT, "'a region'"},
		{{.grant = GRANT, .go_error = NBD_REP_ERR_SHUTDOWN}, -ESHUTDOWN, "refused"},
		{{.grant = GRANT, .go_error = NBD_REP_ERR_TLS_REQD, .go_text = "say please\x1b[2J"},
			-EACCES, "say please?[2J"},
	};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(cases); i++)
		expect_of(&cases[i].script, true, cases[i].code, cases[i].text);
}

/* Whatever the server says to GO: nothing is done with contents that are others. */
static void another_epoch_is_stale(void **state)
{
	static const struct script scripts[] = {{.grant = GRANT},
		{.grant = GRANT, .go_error = NBD_REP_ERR_POLICY, .go_text = "ESTALE: as it says"},
		{.grant = GRANT, .older = true}};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(scripts); i++) {
		server_start(&scripts[i]);
		struct tp_target target = target_of(true);
		target.hello.epoch = 0xab;
		expect(&target, -ESTALE, "has another epoch");
		server_stop();
		assert_int_equal(server.went, i == 0);
	}
}

static void a_grant_must_be_one(void **state)
{
	static const struct script two = {.grant = GRANT, .second_grant = OTHER_GRANT};

	expect_of(&two, true, -EPROTO, "several");
}

/* Of version 0 it cannot tell whether another wrote; so there is no GO to it. */
static void a_donor_of_version_0_is_not_taken_over_by_who_remembers(void **state)
{
	static const struct script script = {.grant = GRANT, .version0 = true};

	server_start(&script);
	struct tp_target target = target_of(true);
	target.hello.epoch = 0xaa;
	target.hello.generation = weft_next_incarnation(1);
	expect(&target, -EPROTONOSUPPORT, "upgrade the donor");
	server_stop();
	assert_false(server.went);
}

/* The class of CVE-2019-14842: whoever has a key says nothing without TLS, to anybody. */
static void with_a_key_nothing_is_said_in_plaintext(void **state)
{
	static const struct script without = {.grant = GRANT};
	static const struct script pretending = {.grant = GRANT, .starttls = true};
	struct weft_key key;

	assert_int_equal(weft_key_new("alice", &key, NULL), 0);
	for (unsigned session = 0; session < 2; session++) {
		server_start(&without);
		struct tp_target target = target_of(session);
		target.key = &key;
		expect(&target, -EPROTONOSUPPORT, "does not begin TLS");
		server_stop();
		assert_int_equal(server.nr_plain, 0);
		/* What answers TLS's first message as if it were an option's has no TLS. */
		server_start(&pretending);
		target = target_of(session);
		target.key = &key;
		target.connect_timeout_ms = 200;
		struct tp_conn *conn = settle(&target);
		assert_int_equal(tp_state(conn), TP_FAILED);
		tp_disconnect(conn);
		server_stop();
		assert_int_equal(server.nr_plain, 0);
	}
	weft_key_wipe(&key);
}

static void an_empty_export_is_refused(void **state)
{
	static const struct script script = {.empty = true};

	expect_of(&script, false, -ENODATA, "empty");
}

static int open_tp(void **state)
{
	return tp_open(&tp_nbd_ops, NULL, &tp, NULL);
}

static int close_tp(void **state)
{
	tp_close(tp);
	return 0;
}

static _Atomic unsigned nr_signals;

static void count_signal(int signo)
{
	nr_signals++;
}

/* A program's timer, as a profiler or a scheduler of its own would have it. */
static void a_question_outlasts_signals_and_not_its_time(void **state)
{
	static const struct script scripts[] = {{.silent = true}, {.grant = GRANT}};
	const struct itimerval often = {{0, 5000}, {0, 5000}}, never = {0};
	const struct sigaction action = {.sa_handler = count_signal};
	struct sigaction before;
	struct weft_uri uri = {.host = "127.0.0.1", .region = "a region"};
	sigset_t set;

	sigaction(SIGALRM, &action, &before);
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	for (size_t i = 0; i < WEFT_ARRAY_LEN(scripts); i++) {
		struct weft_welcome welcome = {0};

		/* They are this thread's, not the server's. */
		pthread_sigmask(SIG_BLOCK, &set, NULL);
		server_start(&scripts[i]);
		pthread_sigmask(SIG_UNBLOCK, &set, NULL);
		snprintf(uri.port, sizeof(uri.port), "%u", server.port);
		nr_signals = 0;
		setitimer(ITIMER_REAL, &often, NULL);
		uint64_t begin_ns = weft_now_ns();
		nbd_ask(&uri, NULL, NULL, scripts[i].silent ? 300 : 30000, -1, &welcome,
			NULL, NULL);
		uint64_t took_ns = weft_now_ns() - begin_ns;
		setitimer(ITIMER_REAL, &never, NULL);
		if (scripts[i].silent) {
			assert_true(nr_signals > 0);
			assert_true(took_ns >= UINT64_C(300000000));
		}
		assert_true(took_ns < UINT64_C(20000000000));
		assert_int_equal(welcome.epoch, scripts[i].silent ? 0 : 0xaa);
		server_stop();
	}
	sigaction(SIGALRM, &before, NULL);
}

#define connect_case(fn) cmocka_unit_test_setup_teardown(fn, open_tp, close_tp)

int main(void)
{
	const struct CMUnitTest tests[] = {
		connect_case(a_session_is_granted),
		connect_case(a_plain_server_is_used_as_it_is),
		connect_case(nobody_there_is_refused),
		connect_case(a_silent_server_times_out),
		connect_case(a_server_without_an_end_is_left),
		connect_case(a_silent_server_can_be_given_up),
		connect_case(what_is_no_nbd_server_is_recognised),
		connect_case(a_server_that_hangs_up_is_told_from_a_refusal),
		connect_case(a_donor_that_hangs_up_on_strangers_is_asked_again),
		connect_case(a_plain_server_is_no_donor),
		connect_case(refusals_keep_their_reason),
		connect_case(donors_of_all_ages_grant),
		connect_case(another_epoch_is_stale),
		connect_case(a_grant_must_be_one),
		connect_case(a_donor_of_version_0_is_not_taken_over_by_who_remembers),
		connect_case(with_a_key_nothing_is_said_in_plaintext),
		connect_case(an_empty_export_is_refused),
		connect_case(a_question_outlasts_signals_and_not_its_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
