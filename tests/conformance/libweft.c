/* SPDX-License-Identifier: MIT */
/*
 * The C API at a donor in this process: what its header promises.  Over RDMA where RDMA_IP names a
 * device (tests/shell/verbs-conformance.sh).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "tests/conformance/libweft-peer.h"

static void what_is_written_is_read(void **state)
{
	static const struct {
		uint64_t off;
		size_t len;
	} cases[] = {{0, 1}, {1, 4096}, {4095, 1000003}, {0, CONF_REGION_BYTES}, {12345, 5 << 20},
		{CONF_REGION_BYTES - 1, 1}, {CONF_REGION_BYTES, 0}};
	struct weft *w = libweft_open(libweft_uri, 0);
	uint8_t *out = test_malloc(CONF_REGION_BYTES), *in = test_malloc(CONF_REGION_BYTES);

	assert_int_equal(weft_size(w), CONF_REGION_BYTES);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(cases); i++) {
		conf_fill(out, cases[i].off, cases[i].len, i);
		assert_int_equal(weft_pwrite(w, out, cases[i].len, cases[i].off), 0);
		assert_int_equal(weft_pread(w, in, cases[i].len, cases[i].off), 0);
		assert_memory_equal(in, out, cases[i].len);
	}
	assert_int_equal(weft_flush(w), 0);
	weft_close(w);
	test_free(out);
	test_free(in);
}

static void beyond_the_end_is_refused(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	char buf[2] = {0};

	assert_int_equal(weft_pread(w, buf, 2, CONF_REGION_BYTES - 1), -ENOSPC);
	assert_int_equal(weft_pwrite(w, buf, 1, CONF_REGION_BYTES), -ENOSPC);
	assert_int_equal(weft_pwrite(w, buf, 2, UINT64_MAX), -ENOSPC);
	weft_close(w);
}

static void a_read_only_handle_does_not_write(void **state)
{
	struct weft *w = libweft_open(libweft_uri, WEFT_OPEN_READ_ONLY);
	char byte = 1;

	assert_int_equal(weft_pwrite(w, &byte, 1, 0), -EPERM);
	assert_int_equal(weft_pread(w, &byte, 1, 0), 0);
	weft_close(w);
}

static void a_second_writer_is_told_who_is_first(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0), *shared, *none = (void *)1;
	char why[256] = "";

	assert_int_equal(weft_open(libweft_uri, 0, &none, why, sizeof(why)), -EBUSY);
	assert_ptr_equal(none, (void *)1);
	assert_non_null(strstr(why, "libweft-"));
	shared = libweft_open(libweft_uri, WEFT_OPEN_READ_ONLY | WEFT_OPEN_SHARED);
	weft_close(shared);
	weft_close(w);
	weft_close(libweft_open_when_free(libweft_uri, 0));
}

static void what_cannot_be_opened_says_why(void **state)
{
	static const struct {
		const char *uri;
		unsigned flags;
		int code;
		const char *why;
	} cases[] = {
		{"scratch", 0, -EINVAL, "weft://"},
		{"weft://127.0.0.1:1/x", 0, -ECONNREFUSED, "127.0.0.1"},
		{"nbd://127.0.0.1:1/x?transport=rdma", 0, -EINVAL, "transport"},
		{"weft+unix:///x?socket=/nonexistent/s&transport=rdma", 0, -EINVAL, "transport"},
		{"weft+unix:///x?socket=/nonexistent/s", 0, -ECONNREFUSED, "no such socket"},
		{"weft://127.0.0.1/x?transport=rdma", 0, -ENODEV, "RDMA"},
		{"weft://127.0.0.1/x", 1u << 31, -EINVAL, "flags"},
		{"weft://127.0.0.1/x", WEFT_OPEN_SHARED, -EINVAL, "READ_ONLY"},
	};
	char why[256], wrong[128];
	struct weft *w;

	for (size_t i = 0; i < WEFT_ARRAY_LEN(cases); i++) {
		assert_int_equal(weft_open(cases[i].uri, cases[i].flags, &w, why, sizeof(why)),
			cases[i].code);
		if (!strstr(why, cases[i].why))
			fail_msg("'%s' says nothing of '%s'", why, cases[i].why);
	}
	snprintf(wrong, sizeof(wrong), "weft+unix:///wrong?socket=%s", libweft_conf->target.host);
	assert_int_equal(weft_open(wrong, 0, &w, why, sizeof(why)), -ENOENT);
	assert_non_null(strstr(why, "wrong"));
}

static volatile sig_atomic_t silent_fd, interrupted;

static void end_silent_server(int signo)
{
	interrupted = 1;
	close(silent_fd);
}

/* No other thread is there that could take the signal. */
static void a_signal_is_taken_while_a_donor_does_not_answer(void **state)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	const struct sigaction action = {.sa_handler = end_silent_server};
	socklen_t len = sizeof(addr);
	struct sigaction before;
	struct weft *w;
	char uri[64];

	silent_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_return_code(bind(silent_fd, (struct sockaddr *)&addr, len), 0);
	assert_return_code(listen(silent_fd, 8), 0);
	assert_return_code(getsockname(silent_fd, (struct sockaddr *)&addr, &len), 0);
	snprintf(uri, sizeof(uri), "weft://127.0.0.1:%u/r", ntohs(addr.sin_port));
	interrupted = 0;
	sigaction(SIGALRM, &action, &before);
	alarm(1);
	uint64_t begin_ns = weft_now_ns();
	assert_int_equal(weft_open(uri, 0, &w, NULL, 0), -ECONNREFUSED);
	assert_true(interrupted);
	assert_true(weft_now_ns() - begin_ns < UINT64_C(8000000000));
	sigaction(SIGALRM, &before, NULL);
}

static void a_donor_serves_stock_handles_too(void **state)
{
	char stock[128];

	snprintf(stock, sizeof(stock), "nbd+unix:///r?socket=%s", libweft_conf->target.host);
	struct weft *w = libweft_open(stock, 0);
	char byte = 1;
	assert_int_equal(weft_pwrite(w, &byte, 1, 0), 0);
	weft_close(w);
}

static void a_broken_connection_is_made_again(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	uint8_t buf[4096];

	for (unsigned i = 0; i < 5; i++) {
		conf_fill(buf, 0, sizeof(buf), i);
		assert_int_equal(weft_pwrite(w, buf, sizeof(buf), 0), 0);
		/* Cuts every session off; whoever comes again gets in. */
		weft_donor_fence_all(libweft_conf->donor, CONF_BOUND_MS);
		memset(buf, 0, sizeof(buf));
		assert_int_equal(weft_pread(w, buf, sizeof(buf), 0), 0);
		conf_check(buf, 0, sizeof(buf), i);
	}
	weft_close(w);
}

static void a_handle_that_was_taken_over_is_lost(void **state)
{
	const struct weft_options options = {.size = sizeof(options), .connections = 1};
	struct libweft_hold h;
	uint8_t byte = 1;

	struct weft *w = libweft_open_with(&options);
	libweft_hold(w, &h);
	/* The lease runs out, and somebody else writes. */
	weft_donor_tick(libweft_conf->donor, weft_now_ns() + 2 * CONF_LEASE_MS * UINT64_C(1000000));
	weft_donor_fence_all(libweft_conf->donor, CONF_BOUND_MS);
	struct weft *other = libweft_open_when_free(libweft_uri, 0);
	assert_int_equal(weft_pwrite(other, &byte, 1, 0), 0);
	weft_close(other);
	libweft_let_go(&h);
	uint64_t end = libweft_bound_ns();
	int r;
	while ((r = weft_pread(w, &byte, 1, 0)) == -ENOTCONN && weft_now_ns() < end)
		poll(NULL, 0, 5); /* until the other's goodbye has arrived */
	assert_int_equal(r, -ESTALE);
	assert_int_equal(weft_pread(w, &byte, 1, 0), -ESTALE);
	weft_close(w);
}

/*
 * RDMA with fewer connections may do: the second try is the same borrower to a donor that still
 * holds the first.
 */
static void a_second_try_is_no_other_borrower(void **state)
{
	struct libweft_starts starts = {.fall_back = true};
	struct rlimit before, low;

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		skip();
	assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &before), 0);
	low = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &low), 0);
	libweft_starts = &starts;
	weft_close(libweft_open(libweft_uri, 0));
	libweft_starts = NULL;
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &before), 0);
	assert_int_equal(starts.nr, 2);
	assert_true(starts.nr_lanes[0] > 1);
	assert_int_equal(starts.nr_lanes[1], 1);
	assert_memory_equal(starts.id[0], starts.id[1], sizeof(starts.id[0]));
	assert_true(starts.generation[1] >= starts.generation[0] + (UINT64_C(1) << 32));
}

int main(void)
{
	const struct CMUnitTest over_rdma[] = {
		libweft_case(what_is_written_is_read),
		libweft_case(beyond_the_end_is_refused),
		libweft_case(a_read_only_handle_does_not_write),
		libweft_case(a_second_writer_is_told_who_is_first),
		libweft_case(a_broken_connection_is_made_again),
		libweft_case(a_handle_that_was_taken_over_is_lost),
	};
	const struct CMUnitTest tests[] = {
		libweft_case(what_is_written_is_read),
		libweft_case(beyond_the_end_is_refused),
		libweft_case(a_read_only_handle_does_not_write),
		libweft_case(a_second_writer_is_told_who_is_first),
		libweft_case(what_cannot_be_opened_says_why),
		cmocka_unit_test(a_signal_is_taken_while_a_donor_does_not_answer),
		libweft_case(a_donor_serves_stock_handles_too),
		libweft_buffered_case(what_is_written_is_read),
		libweft_buffered_case(a_broken_connection_is_made_again),
		libweft_case(a_broken_connection_is_made_again),
		libweft_case(a_handle_that_was_taken_over_is_lost),
		libweft_case(a_second_try_is_no_other_borrower),
	};

	libweft_rdma_ip = getenv("RDMA_IP");
	return libweft_rdma_ip ? cmocka_run_group_tests(over_rdma, NULL, NULL)
			       : cmocka_run_group_tests(tests, NULL, NULL);
}
