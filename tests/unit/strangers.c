/* SPDX-License-Identifier: MIT */
/* The budget for peers without a grant: who makes room for whom. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/donor/strangers.h"
#include "fabric/base/util.h"

enum { MAX = 8 };

static struct weft_strangers budget;
static struct weft_stranger strangers[64];
static struct weft_stranger *went[64];
static unsigned nr_went;

static void on_make_room(struct weft_stranger *stranger)
{
	went[nr_went++] = stranger;
}

static int set_up(void **state)
{
	memset(strangers, 0, sizeof(strangers));
	nr_went = 0;
	return weft_strangers_init(&budget, MAX);
}

static int tear_down(void **state)
{
	for (size_t i = 0; i < WEFT_ARRAY_LEN(strangers); i++)
		weft_stranger_leave(&strangers[i]);
	weft_strangers_fini(&budget);
	return 0;
}

static struct weft_stranger *enter(unsigned i, const char *address)
{
	struct sockaddr_in in = {.sin_family = AF_INET};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
	struct sockaddr local = {.sa_family = AF_UNIX};
	const struct sockaddr *peer = &local;

	if (inet_pton(AF_INET, address, &in.sin_addr) == 1)
		peer = (struct sockaddr *)&in;
	else if (inet_pton(AF_INET6, address, &in6.sin6_addr) == 1)
		peer = (struct sockaddr *)&in6;
	strangers[i].make_room = on_make_room;
	weft_strangers_enter(&budget, &strangers[i], peer, (uint32_t)atoi(address));
	return &strangers[i];
}

static struct weft_strangers_status status(void)
{
	struct weft_strangers_status s;

	weft_strangers_status(&budget, &s);
	return s;
}

static void one_address_has_all_room_while_nobody_else_comes(void **state)
{
	for (unsigned i = 0; i < MAX; i++)
		enter(i, "192.0.2.1");
	assert_int_equal(nr_went, 0);
	assert_int_equal(status().now, MAX);
	assert_int_equal(status().addresses, 1);
}

static void the_oldest_makes_room(void **state)
{
	for (unsigned i = 0; i < MAX + 3; i++)
		enter(i, "192.0.2.1");
	assert_int_equal(nr_went, 3);
	for (unsigned i = 0; i < 3; i++)
		assert_ptr_equal(went[i], &strangers[i]);
	assert_int_equal(status().now, MAX);
	assert_int_equal(status().made_room, 3);
	assert_false(weft_stranger_leave(&strangers[0]));
	assert_true(weft_stranger_leave(&strangers[5]));
	assert_int_equal(status().now, MAX - 1);
}

static void a_crowd_from_one_address_does_not_push_out_another(void **state)
{
	struct weft_stranger *friend = enter(0, "192.0.2.7");

	for (unsigned i = 1; i < 60; i++)
		enter(i, "192.0.2.1");
	for (unsigned i = 0; i < nr_went; i++)
		assert_ptr_not_equal(went[i], friend);
	assert_true(weft_stranger_leave(friend));
}

static void crowds_from_many_addresses_do_not_either(void **state)
{
	char address[32];

	/* Of 7 other addresses one has two, whoever comes. */
	struct weft_stranger *friend = enter(0, "192.0.2.100");
	for (unsigned i = 1; i < 60; i++) {
		snprintf(address, sizeof(address), "192.0.2.%u", i % (MAX - 1));
		enter(i, address);
	}
	assert_true(weft_stranger_leave(friend));
}

/*
 * More addresses than there is room for, each with one: those that come again are told from one
 * that comes first.
 */
static void a_crowd_that_comes_again_is_told_from_a_newcomer(void **state)
{
	char address[32];
	unsigned n = 0;

	for (; n < 30; n++) {
		snprintf(address, sizeof(address), "192.0.2.%u", n % (3 * MAX));
		enter(n, address);
	}
	struct weft_stranger *newcomer = enter(n++, "192.0.2.200");
	for (; n < 60; n++) {
		snprintf(address, sizeof(address), "192.0.2.%u", n % (3 * MAX));
		enter(n, address);
	}
	assert_true(weft_stranger_leave(newcomer));
}

/* What made room once is not held against an address that was granted something. */
static void an_address_with_a_friend_begins_anew(void **state)
{
	char address[32];
	unsigned n = 0;

	for (; n < 3 * MAX; n++)
		enter(n, "192.0.2.200");
	assert_true(weft_stranger_belongs(&strangers[n - 1]));
	for (unsigned i = 0; i < n; i++)
		weft_stranger_leave(&strangers[i]);
	struct weft_stranger *friend = enter(n++, "192.0.2.200");
	for (unsigned end = n + 20; n < end; n++) {
		snprintf(address, sizeof(address), "192.0.2.%u", n % (MAX - 1));
		enter(n, address);
	}
	assert_true(weft_stranger_leave(friend));
}

static void whoever_said_something_stays_longer(void **state)
{
	for (unsigned i = 0; i < MAX; i++)
		enter(i, "192.0.2.1");
	weft_stranger_spoke(&strangers[0]);
	for (unsigned i = MAX; i < 60; i++)
		enter(i, "192.0.2.1");
	assert_true(weft_stranger_leave(&strangers[0]));
}

static void of_those_that_all_spoke_the_oldest_makes_room(void **state)
{
	for (unsigned i = 0; i < MAX; i++)
		weft_stranger_spoke(enter(i, "192.0.2.1"));
	enter(MAX, "192.0.2.1");
	assert_ptr_equal(went[0], &strangers[0]);
}

static void an_ipv6_network_is_one_address(void **state)
{
	enter(0, "2001:db8:0:1::1");
	enter(1, "2001:db8:0:1:ffff::2");
	assert_int_equal(status().addresses, 1);
	enter(2, "2001:db8:0:2::1");
	assert_int_equal(status().addresses, 2);
	/* All link-local ones have the same 64 bits. */
	enter(3, "fe80::1");
	enter(4, "fe80::2");
	assert_int_equal(status().addresses, 4);
	/* An IPv4 address is one, however it is written. */
	enter(5, "::ffff:192.0.2.1");
	enter(6, "192.0.2.1");
	assert_int_equal(status().addresses, 5);
}

static void local_users_are_addresses(void **state)
{
	enter(0, "1000");
	enter(1, "1000");
	enter(2, "1001");
	assert_int_equal(status().addresses, 2);
}

static void something_else_that_is_scarce_makes_one_go(void **state)
{
	assert_false(weft_strangers_make_room(&budget));
	enter(0, "192.0.2.1");
	enter(1, "192.0.2.2");
	enter(2, "192.0.2.2");
	assert_true(weft_strangers_make_room(&budget));
	assert_ptr_equal(went[0], &strangers[1]);
}

static bool may_come(const char *address)
{
	struct sockaddr_in in = {.sin_family = AF_INET};

	assert_int_equal(inet_pton(AF_INET, address, &in.sin_addr), 1);
	return weft_strangers_may_come(&budget, (struct sockaddr *)&in);
}

static void a_source_begins_so_many_handshakes_a_second(void **state)
{
	struct sockaddr local = {.sa_family = AF_UNIX};
	uint64_t begin_ns = weft_now_ns();
	unsigned nr = 0, nr_later = 0;

	while (nr < 100000 && may_come("192.0.2.1"))
		nr++;
	/* Those at once, and 500 for each second that it took. */
	assert_in_range(nr, 1000, 1001 + (weft_now_ns() - begin_ns) / 2000000);
	/* 40 more take no less than 80 ms, and no more than a busy machine makes of that. */
	for (const uint64_t end_ns = begin_ns + UINT64_C(20000000000);
		nr_later < 40 && weft_now_ns() < end_ns;)
		nr_later += may_come("192.0.2.1");
	assert_in_range(nr_later, 40, 1 + (weft_now_ns() - begin_ns) / 2000000);
	/* Not others, but for the few that share its place. */
	unsigned others = may_come("192.0.2.2") + may_come("192.0.2.3") + may_come("192.0.2.4");
	assert_in_range(others, 2, 3);
	/* Nor those whose address is everybody's. */
	for (unsigned i = 0; i < 3000; i++)
		assert_true(may_come("127.0.0.1") && weft_strangers_may_come(&budget, &local));
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(one_address_has_all_room_while_nobody_else_comes),
		T(the_oldest_makes_room),
		T(a_crowd_from_one_address_does_not_push_out_another),
		T(crowds_from_many_addresses_do_not_either),
		T(a_crowd_that_comes_again_is_told_from_a_newcomer),
		T(an_address_with_a_friend_begins_anew),
		T(whoever_said_something_stays_longer),
		T(of_those_that_all_spoke_the_oldest_makes_room),
		T(an_ipv6_network_is_one_address),
		T(local_users_are_addresses),
		T(something_else_that_is_scarce_makes_one_go),
		T(a_source_begins_so_many_handshakes_a_second),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
