/* SPDX-License-Identifier: MIT */
/* What the log says of who was granted what, and who was refused; and what bounds it. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/log.h"
#include "tests/support/donor-sessions.h"

/* Standard error goes there from log_begin() to log_end(). */
static char said[65536];
static int log_fd, was_fd;

static void log_begin(void)
{
	log_fd = memfd_create("log", MFD_CLOEXEC);
	was_fd = dup(STDERR_FILENO);
	assert_true(log_fd >= 0 && was_fd >= 0);
	dup2(log_fd, STDERR_FILENO);
}

static const char *log_end(void)
{
	dup2(was_fd, STDERR_FILENO);
	close(was_fd);
	ssize_t n = pread(log_fd, said, sizeof(said) - 1, 0);
	said[n > 0 ? n : 0] = '\0';
	close(log_fd);
	return said;
}

static unsigned nr_lines(void)
{
	unsigned n = 0;

	for (const char *p = said; (p = strchr(p, '\n')); p++)
		n++;
	return n;
}

static int set_up(void **state)
{
	const struct weft_donor_config config = {.lease_ms = LEASE_MS,
		.fence_timeout_ms = FENCE_MS,
		.offers = "tcp",
		.max_sessions_each = 2,
		.allow_insecure = true};

	weft_log_init("weft-serve", WEFT_LOG_INFO);
	region = new_region("m", false);
	assert_int_equal(weft_donor_new(&config, &donor), 0);
	assert_int_equal(weft_donor_add(donor, region, &err), 0);
	return 0;
}

static struct weft_peer peer_at(const char *address, uint16_t port)
{
	struct weft_peer peer = {.transport = "tcp"};
	struct sockaddr_in *in = (struct sockaddr_in *)&peer.address;

	in->sin_family = AF_INET;
	in->sin_port = htons(port);
	assert_int_equal(inet_pton(AF_INET, address, &in->sin_addr), 1);
	snprintf(peer.text, sizeof(peer.text), "%s:%u", address, port);
	return peer;
}

static void each_grant_has_a_line(void **state)
{
	struct weft_hello hello = hello_of(1, (UINT64_C(1) << 32) + 3, WEFT_MODE_READ);
	struct weft_peer peer = peer_at("10.0.0.1", 5), lane = peer_at("10.0.0.1", 6),
			 elsewhere = peer_at("10.0.0.2", 5);
	struct session a, b, c, stock;

	log_begin();
	assert_int_equal(grant_to(&a, &peer, &hello), 0);
	/* A further connection of the same from the same is none, but from elsewhere it is one. */
	assert_int_equal(grant_to(&b, &lane, &hello), 0);
	assert_int_equal(grant_to(&c, &elsewhere, &hello), 0);
	assert_string_equal(log_end(),
		"weft-serve: granted region 'm' to 10.0.0.1:5 over tcp: reader, attachment 'box1', "
		"generation 1.3\n"
		"weft-serve: granted region 'm' to 10.0.0.2:5 over tcp: reader, attachment 'box1', "
		"generation 1.3\n");
	release(&a, true);
	release(&b, true);
	release(&c, true);
	hello = (struct weft_hello){.anonymous = true};
	log_begin();
	assert_int_equal(grant_to(&stock, &peer, &hello), 0);
	assert_string_equal(log_end(), "weft-serve: granted region 'm' to 10.0.0.1:5 over tcp: "
				       "writer, a stock NBD client\n");
	release(&stock, true);
}

static void each_refusal_has_a_line_but_not_again_and_again(void **state)
{
	struct weft_hello hello = hello_of(1, 1, WEFT_MODE_WRITE), other = hello_of(2, 1,
		WEFT_MODE_WRITE);
	struct weft_peer peer = peer_at("10.0.0.1", 5), next = peer_at("10.0.0.2", 5);
	struct session a, b;

	assert_int_equal(grant_to(&a, &peer, &hello), 0);
	log_begin();
	for (unsigned i = 0; i < 1000; i++) {
		next = peer_at("10.0.0.2", (uint16_t)(5 + i)); /* another connection */
		assert_int_equal(grant_to(&b, &next, &other), -EBUSY);
	}
	log_end();
	assert_int_equal(nr_lines(), 1);
	const char *begins = "weft-serve: refused region 'm' to 10.0.0.2:5 over tcp: writer, "
			     "attachment 'box2', generation 0.1: region 'm' is held by writer "
			     "'box1' from 10.0.0.1:5, ";
	if (strncmp(said, begins, strlen(begins)) != 0)
		fail_msg("%s", said);
	release(&a, true);
}

static void refusals_from_many_addresses_do_not_fill_the_log(void **state)
{
	const struct weft_error why = {.code = EACCES, .message = "no"};
	char address[32];

	log_begin();
	for (unsigned i = 0; i < 5000; i++) {
		snprintf(address, sizeof(address), "10.1.%u.%u", i / 250, i % 250);
		struct weft_peer peer = peer_at(address, 5);

		weft_donor_kept_out(donor, &peer, &why);
	}
	log_end();
	/* Of one ten seconds, or the next as well. */
	assert_in_range(nr_lines(), 20, 41);
	const char *begins = "weft-serve: refused 10.1.0.0:5 over tcp: no\n";
	assert_memory_equal(said, begins, strlen(begins));
}

static void an_address_has_its_sessions_at_a_time(void **state)
{
	struct weft_hello hello = hello_of(1, 1, WEFT_MODE_READ);
	struct weft_peer peer = peer_at("10.0.0.1", 5), other = peer_at("10.0.0.2", 5);
	struct session a, b, c;

	assert_int_equal(grant_to(&a, &peer, &hello), 0);
	assert_int_equal(grant_to(&b, &peer, &hello), 0);
	assert_int_equal(grant_to(&c, &peer, &hello), -EBUSY);
	assert_string_equal(err.message, "region 'm': an address may have 2 connections at a "
					 "time, and that of 10.0.0.1:5 has them");
	assert_int_equal(grant_to(&c, &other, &hello), 0);
	release(&c, true);
	release(&b, true);
	assert_int_equal(grant_to(&b, &peer, &hello), 0);
	release(&a, true);
	release(&b, true);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, teardown)
	const struct CMUnitTest tests[] = {
		TEST(each_grant_has_a_line),
		TEST(each_refusal_has_a_line_but_not_again_and_again),
		TEST(refusals_from_many_addresses_do_not_fill_the_log),
		TEST(an_address_has_its_sessions_at_a_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
