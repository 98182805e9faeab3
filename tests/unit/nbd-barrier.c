/* SPDX-License-Identifier: MIT */
/* The barrier against requests that the kernel's nbd driver sent again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nbd-bridge/device/nbd-barrier.h"

enum { NR = 3 };

struct set {
	struct nbd_barrier barrier;
	int kernel[NR];
};

static struct set set;
static bool foreign; /* what nbd_barrier_pass() said last */

static int set_up(void **state)
{
	memset(&set, 0, sizeof(set));
	set.barrier.nr = NR;
	for (int i = 0; i < NR; i++) {
		int fds[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
		set.barrier.fds[i] = (struct pollfd){.fd = fds[0], .events = POLLRDHUP};
		set.kernel[i] = fds[1];
	}
	return 0;
}

static int tear_down(void **state)
{
	for (int i = 0; i < NR; i++) {
		close(set.barrier.fds[i].fd);
		close(set.kernel[i]);
	}
	return 0;
}

static uint64_t handle(uint32_t cookie, unsigned queue, unsigned tag)
{
	return (uint64_t)cookie << 32 | queue << 16 | tag;
}

static void the_queue_is_in_a_big_endian_cookie(void **state)
{
	enum nbd_cookie_order order = NBD_COOKIE_UNKNOWN;

	assert_int_equal(nbd_cookie_queue(&order, handle(1, 2, 5), NR), 2);
	assert_int_equal(order, NBD_COOKIE_BIG);
	assert_int_equal(nbd_cookie_queue(&order, handle(0x100, 1, 127), NR), 1);
}

static void the_queue_is_in_an_old_kernels_cookie(void **state)
{
	enum nbd_cookie_order order = NBD_COOKIE_UNKNOWN;

	assert_int_equal(nbd_cookie_queue(&order, __builtin_bswap64(handle(1, 2, 5)), NR), 2);
	assert_int_equal(order, NBD_COOKIE_NATIVE);
}

/* A cookie that fits both orders decides nothing, and its queue is not known. */
static void an_ambiguous_cookie_is_not_believed(void **state)
{
	enum nbd_cookie_order order = NBD_COOKIE_UNKNOWN;
	const uint64_t both = UINT64_C(0x0000010000010000);

	assert_int_equal(nbd_cookie_queue(&order, both, NR), -1);
	assert_int_equal(order, NBD_COOKIE_UNKNOWN);
	assert_int_equal(nbd_cookie_queue(&order, handle(1, 2, 5), NR), 2);
	assert_int_equal(nbd_cookie_queue(&order, both, NR), 1);
}

static void a_strange_cookie_ends_all_belief(void **state)
{
	enum nbd_cookie_order order = NBD_COOKIE_UNKNOWN;

	assert_int_equal(nbd_cookie_queue(&order, handle(1, 2, 5), NR), 2);
	assert_int_equal(nbd_cookie_queue(&order, handle(1, NR, 5), NR), -1);
	assert_int_equal(nbd_cookie_queue(&order, handle(1, 2, 5), NR), -1);
	order = NBD_COOKIE_UNKNOWN;
	assert_int_equal(nbd_cookie_queue(&order, handle(1, 2, 128), NR), -1);
	assert_int_equal(order, NBD_COOKIE_STRANGE);
}

static void ordinary_requests_pass_even_when_another_connection_is_shut(void **state)
{
	shutdown(set.kernel[1], SHUT_RDWR);
	assert_true(nbd_barrier_pass(&set.barrier, 0, 0, &foreign));
	assert_false(foreign);
	assert_false(set.barrier.over);
}

/* Queue 1's request comes over connection 0, since 1 was shut: the first copy may be under way. */
static void what_was_sent_again_does_not_pass(void **state)
{
	shutdown(set.kernel[1], SHUT_RDWR);
	assert_false(nbd_barrier_pass(&set.barrier, 0, 1, &foreign));
	assert_false(foreign);
	assert_true(set.barrier.over);
	assert_int_equal(set.barrier.nr_foreign, 0);
}

/* Connection 1 was not there yet when queue 1's request was sent. */
static void a_foreign_request_passes_while_all_live(void **state)
{
	assert_true(nbd_barrier_pass(&set.barrier, 0, 1, &foreign));
	assert_true(foreign);
	assert_int_equal(set.barrier.nr_foreign, 1);
	nbd_barrier_done(&set.barrier);
	assert_int_equal(set.barrier.nr_foreign, 0);
}

/* It times out there, connection 0 is shut, and it comes again where it belongs. */
static void a_foreign_request_that_comes_home_does_not_pass(void **state)
{
	assert_true(nbd_barrier_pass(&set.barrier, 0, 1, &foreign));
	assert_true(nbd_barrier_pass(&set.barrier, 1, 1, &foreign));
	assert_false(foreign);
	shutdown(set.kernel[0], SHUT_RDWR);
	assert_false(nbd_barrier_pass(&set.barrier, 1, 1, &foreign));
	assert_true(set.barrier.over);
}

static void an_unknown_queue_passes_only_while_all_live(void **state)
{
	assert_true(nbd_barrier_pass(&set.barrier, 0, -1, &foreign));
	assert_true(foreign);
	close(set.kernel[2]);
	set.kernel[2] = dup(set.kernel[0]);
	assert_false(nbd_barrier_pass(&set.barrier, 0, -1, &foreign));
}

static void a_single_connection_needs_no_barrier(void **state)
{
	set.barrier.nr = 1;
	shutdown(set.kernel[0], SHUT_RDWR);
	assert_true(nbd_barrier_pass(&set.barrier, 0, -1, &foreign));
	assert_false(foreign);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_queue_is_in_a_big_endian_cookie),
		TEST(the_queue_is_in_an_old_kernels_cookie),
		TEST(an_ambiguous_cookie_is_not_believed),
		TEST(a_strange_cookie_ends_all_belief),
		TEST(ordinary_requests_pass_even_when_another_connection_is_shut),
		TEST(what_was_sent_again_does_not_pass),
		TEST(a_foreign_request_passes_while_all_live),
		TEST(a_foreign_request_that_comes_home_does_not_pass),
		TEST(an_unknown_queue_passes_only_while_all_live),
		TEST(a_single_connection_needs_no_barrier),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
