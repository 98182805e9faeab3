/* SPDX-License-Identifier: MIT */
/*
 * Ten thousand malformed options and requests, and connections dropped at every stage, while
 * another client verifies its data: nothing crashes, hangs, grows or reaches that data.  WEFT_SEED
 * repeats a run.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "fabric/base/util.h"
#include "tests/support/emulated.h"
#include "tests/support/entries.h"
#include "tests/support/nbd-donor.h"
#include "tests/support/seed.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 }; /* quarantine and shadow memory grow */
#else
enum { SANITIZED = 0 };
#endif

enum {
	SIZE = 4 << 20,
	NR_MESSAGES = 10000,
	NR_DROPS = 100,
	GROWTH_BYTES = 6 << 20,
	STRANGERS = 512, /* that a donor serves at once */
	THREAD_BYTES = 64 << 10,
};

static struct nbd_donor donor;
static struct weft_region *precious;
static _Atomic bool stop_verifying;
static pthread_t verifier;
static uint64_t verified;

/* ---- the undisturbed client ---- */

static void fill(uint8_t *p, uint64_t off, size_t n)
{
	for (size_t i = 0; i < n; i += 8)
		weft_put64(p + i, (off + i) * 0x9e3779b97f4a7c15);
}

static void *verify(void *arg)
{
	static uint8_t want[16384], got[16384];
	struct nbd_raw raw;
	uint64_t off = 0;

	nbd_donor_connect(&donor, &raw, true);
	if (nbd_raw_go(&raw, "precious", true) < 0)
		abort();
	while (!stop_verifying) {
		fill(want, off, sizeof(want));
		if (nbd_raw_command(&raw, 0, verified % 2 ? NBD_CMD_READ : NBD_CMD_WRITE, off,
			    sizeof(got), verified % 2 ? got : want) != 0)
			abort();
		if (verified % 2 && memcmp(want, got, sizeof(want)) != 0)
			abort();
		if (verified++ % 2)
			off = (off + sizeof(want)) % SIZE;
		usleep(100); /* it shall be disturbed, not disturb */
	}
	nbd_raw_close(&raw);
	return NULL;
}

/* ---- the hostile one ---- */

static uint64_t seed;

static uint64_t rnd(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (seed >> 11) % below;
}

static uint8_t buf[NBD_MAX_OPTION + 4096];

/* One that was right once. */
static size_t good_option(uint8_t *p)
{
	static const char *const queries[] = {"base:allocation", "base:", "weft:session:",
		"weft:session:id=00112233445566778899aabbccddeeff,gen=1,mode=w,name=x", "x-y:", ""};
	static const uint16_t infos[] = { 0, 1, 2, 3, 77 };
	static const char *const names[] = { "m", "", "no", "m/../m" };
	const char *name = names[rnd(4)];
	uint32_t option = (uint32_t)rnd(13), len = 0;
	uint8_t *data = p + NBD_OPTION_BYTES;

	switch (option) {
	case NBD_OPT_EXPORT_NAME:
		len = (uint32_t)strlen(name);
		memcpy(data, name, len);
		break;
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		len = nbd_raw_info_data(data, name, infos, (unsigned)rnd(6));
		break;
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT:
		len = nbd_raw_context_data(data, name, queries + rnd(3), (unsigned)rnd(4));
		break;
	}
	weft_put64(p, NBD_OPTS_MAGIC);
	weft_put32(p + 8, option);
	weft_put32(p + 12, len);
	return NBD_OPTION_BYTES + len;
}

static size_t good_request(uint8_t *p)
{
	const struct nbd_request_header h = {
		.flags = rnd(3) ? 0 : (uint16_t)(1 << rnd(16)),
		.type = (uint16_t)rnd(10),
		.cookie = rnd(100),
		.off = rnd(2) ? rnd(SIZE) : UINT64_MAX - rnd(10000),
		.len = (uint32_t)rnd(3) ? (uint32_t)rnd(5000) : (uint32_t)rnd(UINT32_MAX),
	};

	nbd_pack_request(p, &h);
	return NBD_REQUEST_BYTES + (h.type == NBD_CMD_WRITE && h.len < 5000 ? h.len : 0);
}

static size_t spoil(uint8_t *p, size_t n)
{
	static const uint32_t lengths[] = { 0, 1, 3, 4095, 4097, 65536, 65537, 1 << 20, INT32_MAX,
		UINT32_MAX };

	switch (rnd(6)) {
	case 0: /* a bit */
		p[rnd(n)] ^= (uint8_t)(1 << rnd(8));
		return n;
	case 1: /* a length */
		weft_put32(p + rnd(n - 3), lengths[rnd(WEFT_ARRAY_LEN(lengths))]);
		return n;
	case 2: /* too short: what follows is taken for the rest */
		return 1 + rnd(n);
	case 3: /* too long */
		return n + rnd(200);
	case 4: /* noise */
		for (size_t i = 0; i < n; i++)
			p[i] = (uint8_t)rnd(256);
		return n;
	default:
		weft_put32(p + 12, (uint32_t)rnd(NBD_MAX_OPTION + 2000));
		return n + rnd(3000);
	}
}

static void drain(struct nbd_raw *raw)
{
	static uint8_t sink[65536];

	while (recv(raw->fd, sink, sizeof(sink), MSG_DONTWAIT) > 0)
		;
}

/* -ECONNRESET, or -ETIMEDOUT when the server keeps the connection. */
static int read_to_end(struct nbd_raw *raw)
{
	uint8_t byte;
	int r;

	do {
		drain(raw);
		r = nbd_raw_recv(raw, &byte, 1);
	} while (r == 0);
	return r;
}

/* Sends what it can; the server's hanging up is fine, its hanging is not. */
static unsigned attack(unsigned left)
{
	const bool transmission = rnd(2);
	struct nbd_raw raw;
	unsigned n = 0;
	bool up;

	nbd_donor_connect(&donor, &raw, rnd(2));
	up = transmission ? nbd_raw_go(&raw, "m", rnd(2)) == 0
			  : nbd_raw_hello(&raw, rnd(20) ? 3 : (uint32_t)rnd(UINT32_MAX)) == 0;
	for (unsigned want = 1 + (unsigned)rnd(30); up && n < want && n < left; n++) {
		size_t len = transmission ? good_request(buf) : good_option(buf);

		if (rnd(4))
			len = spoil(buf, len);
		up = nbd_raw_send(&raw, buf, len) == 0;
		drain(&raw);
	}
	shutdown(raw.fd, SHUT_WR);
	assert_int_equal(read_to_end(&raw), -ECONNRESET);
	nbd_raw_close(&raw);
	return n;
}

static void wait_until_alone(void)
{
	struct weft_listener_status s;

	for (int i = 0;; i++) {
		nbd_listener_status(donor.listener, &s);
		if (s.connections == 1)
			return;
		assert_true(i < 30000);
		usleep(1000);
	}
}

static void malformed_messages(void **state)
{
	unsigned fds, threads, sent = 0;
	uint64_t rss;

	/* What is allocated once is allocated before the measurement. */
	for (int i = 0; i < 50; i++)
		attack(100);
	wait_until_alone();
	rss = rss_bytes();
	fds = count_entries("/proc/self/fd");
	threads = count_entries("/proc/self/task");
	while (sent < NR_MESSAGES)
		sent += attack(NR_MESSAGES - sent);
	wait_until_alone();
	assert_int_equal(count_entries("/proc/self/fd"), fds);
	/* Threads stay: on a busy machine many are not idle yet when the next connection comes. */
	const unsigned now = count_entries("/proc/self/task");
	assert_in_range(now, threads, threads + STRANGERS);
	if (!SANITIZED && MEMORY_IS_OURS())
		assert_in_range(rss_bytes(), 0,
			rss + GROWTH_BYTES + (now - threads) * (uint64_t)THREAD_BYTES);
}

/* ---- dropped connections ---- */

/* i: which connection; each writes into its own place. */
static void reach(struct nbd_raw *raw, unsigned stage, unsigned i)
{
	uint8_t data[256];

	switch (stage) {
	case 0: /* connected */
		return;
	case 1: /* part of the greeting read */
		nbd_raw_recv(raw, data, 5);
		return;
	case 2: /* part of the flags sent */
		nbd_raw_send(raw, "\0\0", 2);
		return;
	case 3:
		nbd_raw_hello(raw, 3);
		return;
	case 4: /* in an option's header */
		nbd_raw_hello(raw, 3);
		nbd_raw_send(raw, "IHAVEOPT\0\0", 10);
		return;
	case 5: /* in an option's data */
		nbd_raw_hello(raw, 3);
		nbd_raw_send(raw, "IHAVEOPT\0\0\0\7\0\0\0\50abc", 19);
		return;
	case 6: /* the reply not read */
		nbd_raw_hello(raw, 3);
		nbd_raw_option(raw, NBD_OPT_LIST, NULL, 0);
		return;
	case 7: /* GO's reply not read */
		nbd_raw_hello(raw, 3);
		nbd_raw_option(raw, NBD_OPT_GO, data, nbd_raw_info_data(data, "m", NULL, 0));
		return;
	case 8:
		nbd_raw_go(raw, "m", true);
		return;
	case 9: /* in a request */
		nbd_raw_go(raw, "m", true);
		nbd_raw_send(raw, "\x25\x60\x95\x13", 4);
		return;
	case 10: /* in a payload */
		nbd_raw_go(raw, "m", true);
		nbd_raw_request(raw, 0, NBD_CMD_WRITE, 1, i * (SIZE / NR_DROPS), SIZE / NR_DROPS);
		nbd_raw_send(raw, buf, 30000);
		return;
	default: /* the reply not read */
		nbd_raw_go(raw, "m", true);
		nbd_raw_request(raw, 0, NBD_CMD_READ, 1, 0, 1 << 20);
	}
}

static void drop_at_every_stage(void)
{
	static struct nbd_raw raw[NR_DROPS];

	for (unsigned stage = 0; stage < 12; stage++) {
		for (unsigned i = 0; i < NR_DROPS; i++) {
			nbd_donor_connect(&donor, &raw[i], i % 2);
			reach(&raw[i], stage, i);
		}
		for (unsigned i = 0; i < NR_DROPS; i++) {
			/* Half of them with a reset. */
			if (i % 4 < 2)
				setsockopt(raw[i].fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0},
					sizeof(struct linger));
			nbd_raw_close(&raw[i]);
		}
		wait_until_alone();
	}
}

static void connections_dropped_at_every_stage(void **state)
{
	const int fds = count_entries("/proc/self/fd");
	uint64_t rss;

	drop_at_every_stage();
	rss = rss_bytes();
	drop_at_every_stage();
	assert_int_equal(count_entries("/proc/self/fd"), fds);
	if (!SANITIZED && MEMORY_IS_OURS())
		assert_in_range(rss_bytes(), 0, rss + GROWTH_BYTES);
}

static int set_up(void **state)
{
	const struct weft_memory_spec spec = { .name = "precious", .size_bytes = SIZE };

	seed = seed_or(weft_now_ns()) | 1;
	nbd_donor_start(&donor, SIZE, NULL, 0);
	if (weft_region_new_memory(&spec, NULL, NULL, &precious, NULL) < 0 ||
		weft_donor_add(donor.donor, precious, NULL) < 0)
		return -1;
	fill(precious->map, 0, SIZE);
	return pthread_create(&verifier, NULL, verify, NULL);
}

static int tear_down(void **state)
{
	static uint8_t want[SIZE];

	stop_verifying = true;
	pthread_join(verifier, NULL);
	fill(want, 0, SIZE);
	if (verified < 10 || memcmp(precious->map, want, SIZE) != 0)
		return -1;
	nbd_donor_end(&donor);
	weft_region_put(precious);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(malformed_messages),
		cmocka_unit_test(connections_dropped_at_every_stage),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
