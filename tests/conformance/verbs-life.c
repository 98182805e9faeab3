/* SPDX-License-Identifier: MIT */
/*
 * The verbs transport when things go wrong, against a donor in another process: stopped, killed,
 * revoked, cut off.  With the argument `interface` or `device` it takes that away, for good:
 * tests/shell/verbs-life.sh.
 */
#include "tests/conformance/verbs-process.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/util.h"

/* Ticks of the processor that the donor, which is stopped, has used. */
static unsigned long cpu_of_stopped(pid_t pid)
{
	char path[64], text[1024], how;
	unsigned long user, sys;
	uint64_t end_ns = peer_bound_ns(BOUND_MS);

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	do {
		FILE *file = fopen(path, "re");

		assert_true(file && weft_now_ns() < end_ns);
		assert_non_null(fgets(text, sizeof(text), file));
		fclose(file);
		assert_int_equal(sscanf(strrchr(text, ')') + 2,
					 "%c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &how,
					 &user, &sys),
			3);
	} while (how != 'T'); /* signals take their time */
	return user + sys;
}

static void one_sided_means_that_the_donor_may_sleep(void **state)
{
	struct peer *peer = peer_new("67108864", "16777216", "60000");
	struct tp_conn *conn = peer_connect(peer);
	const uint64_t size = 64 * WEFT_MIB, step = 8 * WEFT_MIB;

	assert_true(conn->info.one_sided);
	print_message("path: %s\n", conn->info.path);
	assert_int_equal(kill(peer->pid, SIGSTOP), 0);
	unsigned long before = cpu_of_stopped(peer->pid);
	for (uint64_t pass = 0; pass < 4; pass++) {
		for (uint64_t off = 0; off < size; off += step) {
			peer_fill(peer->buf, off, step, pass);
			assert_int_equal(peer_run(peer, conn, TP_WRITE, off, step, peer->buf), 0);
		}
		assert_int_equal(peer_run(peer, conn, TP_FLUSH, 0, 0, NULL), 0);
		assert_int_equal(peer_run(peer, conn, TP_PROBE, 0, 0, NULL), 0);
		assert_int_equal(peer_run(peer, conn, TP_ZERO, 4096, 4096, NULL), 0);
		for (uint64_t off = 0; off < size; off += step) {
			memset(peer->buf, 0xee, step);
			assert_int_equal(peer_run(peer, conn, TP_READ, off, step, peer->buf), 0);
			if (off == 0) {
				for (unsigned i = 4096; i < 8192; i++)
					assert_int_equal(peer->buf[i], 0);
				peer_check(peer->buf, 0, 4096, pass);
				peer_check(peer->buf + 8192, 8192, step - 8192, pass);
			} else {
				peer_check(peer->buf, off, step, pass);
			}
		}
	}
	assert_int_equal(cpu_of_stopped(peer->pid), before);
	kill(peer->pid, SIGCONT);
	peer_finish(conn);
	peer_free(peer);
}

static void a_region_of_many_registrations_is_one(void **state)
{
	/* 1024 chunks: more than one message holds. */
	struct peer *peer = peer_new("268435456", "262144", "60000");
	struct tp_conn *conn = peer_connect(peer);
	const uint64_t size = 256 * WEFT_MIB;

	assert_int_equal(conn->info.size_bytes, size);
	for (uint64_t off = 262144 - 4096; off + 8192 <= size; off += 262144) {
		peer_fill(peer->buf, off, 8192, 5);
		assert_int_equal(peer_run(peer, conn, TP_WRITE, off, 8192, peer->buf), 0);
	}
	for (uint64_t off = 262144 - 4096; off + 8192 <= size; off += 262144) {
		memset(peer->buf, 0, 8192);
		assert_int_equal(peer_run(peer, conn, TP_READ, off, 8192, peer->buf), 0);
		peer_check(peer->buf, off, 8192, 5);
	}
	peer_finish(conn);
	peer_free(peer);
}

static void registering_may_take_longer_than_the_lease(void **state)
{
	const uint64_t lease_ns = 1000 * UINT64_C(1000000);

	setenv("WEFT_SLOW_REGISTER_MS", "3000", 1);
	struct peer *peer = peer_new("16777216", "0", "1000");
	unsetenv("WEFT_SLOW_REGISTER_MS");
	peer->target.connect_timeout_ms = BOUND_MS;
	uint64_t start_ns = weft_now_ns();
	struct tp_conn *conn = peer_connect(peer);

	assert_true(weft_now_ns() - start_ns > 2 * lease_ns);
	peer_fill(peer->buf, 0, 4096, 3);
	assert_int_equal(peer_run(peer, conn, TP_WRITE, 0, 4096, peer->buf), 0);
	memset(peer->buf, 0, 4096);
	assert_int_equal(peer_run(peer, conn, TP_READ, 0, 4096, peer->buf), 0);
	peer_check(peer->buf, 0, 4096, 3);
	peer_finish(conn);
	peer_free(peer);
}

static void three_gibibytes_need_several_registrations(void **state)
{
	long pages = sysconf(_SC_AVPHYS_PAGES);

#ifdef __SANITIZE_THREAD__
	print_message("\nSKIP: under the thread sanitizer the donor zeroes 1 GiB in over 30 s\n");
	skip();
#endif
	if (pages > 0 && (uint64_t)pages * 4096 < 7 * WEFT_GIB / 2) {
		print_message("\nSKIP: 3 GiB need more memory than there is\n");
		skip();
	}
	struct peer *peer = peer_new("3221225472", "0", "60000");
	struct tp_conn *conn = peer_connect(peer);

	assert_int_equal(conn->info.size_bytes, 3 * WEFT_GIB);
	for (uint64_t chunk = 1; chunk < 6; chunk++) {
		uint64_t off = chunk * 512 * WEFT_MIB - WEFT_MIB;

		peer_fill(peer->buf, off, 2 * WEFT_MIB, chunk);
		assert_int_equal(peer_run(peer, conn, TP_WRITE, off, 2 * WEFT_MIB, peer->buf), 0);
	}
	peer_fill(peer->buf, 3 * WEFT_GIB - 4096, 4096, 9);
	assert_int_equal(peer_run(peer, conn, TP_WRITE, 3 * WEFT_GIB - 4096, 4096, peer->buf), 0);
	for (uint64_t chunk = 1; chunk < 6; chunk++) {
		uint64_t off = chunk * 512 * WEFT_MIB - WEFT_MIB;

		memset(peer->buf, 0, 2 * WEFT_MIB);
		assert_int_equal(peer_run(peer, conn, TP_READ, off, 2 * WEFT_MIB, peer->buf), 0);
		peer_check(peer->buf, off, 2 * WEFT_MIB, chunk);
	}
	assert_int_equal(peer_run(peer, conn, TP_READ, 3 * WEFT_GIB - 4096, 4096, peer->buf), 0);
	peer_check(peer->buf, 3 * WEFT_GIB - 4096, 4096, 9);
	/* A ZERO that the donor carries out. */
	assert_int_equal(peer_run(peer, conn, TP_ZERO, 512 * WEFT_MIB, 1024 * WEFT_MIB, NULL), 0);
	assert_int_equal(peer_run(peer, conn, TP_READ, 511 * WEFT_MIB, 2 * WEFT_MIB, peer->buf), 0);
	peer_check(peer->buf, 511 * WEFT_MIB, WEFT_MIB, 1);
	for (uint64_t i = WEFT_MIB; i < 2 * WEFT_MIB; i++)
		assert_int_equal(peer->buf[i], 0);
	peer_finish(conn);
	peer_free(peer);
}

/* Posts NR_OPS READs and WRITEs of 1 MiB, runs `blow`, and expects all back within limit_ms. */
static void blow_up(struct peer *peer, struct tp_conn *conn, void (*blow)(struct peer *peer),
	unsigned limit_ms)
{
	struct tp_op op[NR_OPS];
	int done[NR_OPS] = {0};

	for (unsigned i = 0; i < NR_OPS; i++) {
		struct tp_op *ops[] = {&op[i]};

		op[i] = (struct tp_op){
			.kind = i % 2 ? TP_READ : TP_WRITE,
			.off = i * WEFT_MIB,
			.len = WEFT_MIB,
			.buf = peer->buf + i * WEFT_MIB,
			.mem = peer->mem,
			.user = &done[i],
		};
		assert_int_equal(tp_post(conn, ops, 1), 1);
	}
	blow(peer);
	uint64_t start_ns = weft_now_ns(), end_ns = peer_bound_ns(BOUND_MS);
	while (conn->nr_outstanding > 0 && weft_now_ns() < end_ns)
		peer_pump(conn, 100);
	uint64_t took_ms = (weft_now_ns() - start_ns) / 1000000;
	unsigned nr_failed = 0;
	for (unsigned i = 0; i < NR_OPS; i++) {
		assert_int_equal(done[i], 1);
		if (op[i].status == 0)
			continue;
		nr_failed++;
		if (op[i].status != -ENOTCONN)
			assert_int_equal(op[i].status, -ETIMEDOUT);
	}
	print_message("%u of %u failed, after %ju ms: %s\n", nr_failed, NR_OPS, (uintmax_t)took_ms,
		tp_state(conn) == TP_FAILED ? conn->why.message : "(alive)");
	/* What was fast enough may have passed; the connection is dead all the same. */
	while (tp_state(conn) != TP_FAILED && weft_now_ns() < end_ns)
		peer_run(peer, conn, TP_PROBE, 0, 0, NULL);
	took_ms = (weft_now_ns() - start_ns) / 1000000;
	assert_int_equal(tp_state(conn), TP_FAILED);
	assert_true(took_ms <= limit_ms);
	assert_true(peer_run(peer, conn, TP_PROBE, 0, 0, NULL) == -ENOTCONN);
}

static void kill_donor(struct peer *peer)
{
	peer_stop_donor(peer);
}

static void a_killed_donor_is_known_at_once(void **state)
{
	struct peer *peer = peer_new("67108864", "0", "60000");
	struct tp_conn *conn = peer_connect(peer);

	blow_up(peer, conn, kill_donor, 3000);
	peer_finish(conn);
	conn = peer_try_connect(peer);
	assert_int_equal(tp_state(conn), TP_FAILED);
	print_message("then: %s\n", conn->why.message);
	assert_int_equal(conn->error, -ECONNREFUSED);
	peer_finish(conn);
	peer_free(peer);
}

static void a_killed_donor_is_known_when_idle(void **state)
{
	struct peer *peer = peer_new("1048576", "0", "60000");
	struct tp_conn *conn = peer_connect(peer);
	uint64_t end_ns = peer_bound_ns(3000);

	peer_stop_donor(peer);
	while (tp_state(conn) == TP_READY) {
		assert_true(weft_now_ns() < end_ns);
		peer_pump(conn, 1000);
	}
	peer_finish(conn);
	peer_free(peer);
}

static void a_busy_borrower_keeps_its_lease_without_asking(void **state)
{
	struct peer *peer = peer_new("1048576", "0", "1000");
	struct tp_conn *conn = peer_connect(peer);
	uint64_t end_ns = peer_bound_ns(4000);

	while (weft_now_ns() < end_ns)
		assert_int_equal(peer_run(peer, conn, TP_READ, 0, 4096, peer->buf), 0);
	peer_finish(conn);
	peer_free(peer);
}

static void a_silent_borrower_loses_its_access(void **state)
{
	struct peer *peer = peer_new("1048576", "0", "1000");
	struct tp_conn *conn = peer_connect(peer);
	struct tp_op op = {.kind = TP_WRITE, .len = 4096, .buf = peer->buf, .mem = peer->mem};
	struct tp_op *ops[] = {&op};
	int done = 0;

	assert_int_equal(peer_run(peer, conn, TP_WRITE, 0, 4096, peer->buf), 0);
	poll(NULL, 0, 2500); /* silence is the point */
	op.user = &done;
	/* Posted before anything told it: refused by the NIC, not by us. */
	assert_int_equal(tp_post(conn, ops, 1), 1);
	while (!done)
		peer_pump(conn, 1000);
	assert_int_equal(op.status, -ENOTCONN);
	print_message("%s\n", conn->why.message);
	peer_finish(conn);
	conn = peer_try_connect(peer);
	assert_int_equal(conn->error, -WEFT_EOVER);
	peer_finish(conn);
	peer_free(peer);
}

static void a_higher_generation_kills_the_keys_of_one_that_is_stopped(void **state)
{
	struct peer *peer = peer_new("1048576", "0", "60000");
	struct tp_conn *old = peer_connect(peer);

	assert_int_equal(peer_run(peer, old, TP_WRITE, 0, 4096, peer->buf), 0);
	/* As if it were stopped: nobody looks after it while the new one takes over. */
	peer->target.hello.generation = UINT64_C(2) << 32;
	struct tp_conn *new = peer_connect(peer);
	peer_fill(peer->buf, 0, 4096, 7);
	assert_int_equal(peer_run(peer, new, TP_WRITE, 0, 4096, peer->buf), 0);
	memset(peer->buf, 0x11, 4096);
	assert_int_equal(peer_run(peer, old, TP_WRITE, 0, 4096, peer->buf), -ENOTCONN);
	assert_int_equal(peer_run(peer, new, TP_READ, 0, 4096, peer->buf), 0);
	peer_check(peer->buf, 0, 4096, 7);
	peer_finish(old);
	peer_finish(new);
	peer_free(peer);
}

static void what_cannot_be_registered_is_not_held(void **state)
{
	setenv("WEFT_POOR", "1", 1);
	struct peer *peer = peer_new("4194304", "0", "60000");
	unsetenv("WEFT_POOR");

	/* Another attachment each time: the one before left nothing that is in its way. */
	for (unsigned i = 1; i <= 2; i++) {
		peer->target.hello.id[0] = (uint8_t)i;
		struct tp_conn *conn = peer_try_connect(peer);
		if (conn->error != -ENOMEM || !strstr(conn->why.message, "ulimit -l"))
			fail_msg("attachment %u: %s", i, conn->why.message);
		peer_finish(conn);
	}
	peer_free(peer);
}

/* Last: these take the interface and the device away. */

static void run_command(const char *command)
{
	int status = system(command);

	if (status != 0)
		fail_msg("%s: %d", command, status);
}

static void link_down(struct peer *peer)
{
	run_command("ip link set rdma0 down");
}

static void an_interface_that_goes_down_fails_it(void **state)
{
	struct peer *peer = peer_new("67108864", "0", "60000");
	struct tp_conn *conn = peer_connect(peer);

	blow_up(peer, conn, link_down, 5000);
	peer_finish(conn);
	peer->target.connect_timeout_ms = 2000;
	conn = peer_try_connect(peer);
	assert_int_equal(tp_state(conn), TP_FAILED);
	print_message("without the interface: %s\n", conn->why.message);
	peer_finish(conn);
	peer_free(peer);
}

/* rxe waits until everybody who has it open is gone: in the background. */
static void remove_device(struct peer *peer)
{
	run_command("rdma link del rxe0 </dev/null >/dev/null 2>&1 &");
}

static void a_device_that_is_removed_fails_it(void **state)
{
	struct peer *peer = peer_new("67108864", "0", "60000");
	struct tp_conn *conn = peer_connect(peer);

	blow_up(peer, conn, remove_device, 10000);
	peer_finish(conn);
	peer_free(peer);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_sided_means_that_the_donor_may_sleep),
		cmocka_unit_test(a_region_of_many_registrations_is_one),
		cmocka_unit_test(registering_may_take_longer_than_the_lease),
		cmocka_unit_test(three_gibibytes_need_several_registrations),
		cmocka_unit_test(a_killed_donor_is_known_at_once),
		cmocka_unit_test(a_killed_donor_is_known_when_idle),
		cmocka_unit_test(a_busy_borrower_keeps_its_lease_without_asking),
		cmocka_unit_test(a_silent_borrower_loses_its_access),
		cmocka_unit_test(a_higher_generation_kills_the_keys_of_one_that_is_stopped),
		cmocka_unit_test(what_cannot_be_registered_is_not_held),
	};
	const struct CMUnitTest last[] = {
		cmocka_unit_test(an_interface_that_goes_down_fails_it),
		cmocka_unit_test(a_device_that_is_removed_fails_it),
	};
	int r = peer_main(argc, argv);

	if (r >= 0)
		return r;
	if (argc == 2 && strcmp(argv[1], "interface") == 0)
		return _cmocka_run_group_tests("interface", last, 1, NULL, NULL);
	if (argc == 2 && strcmp(argv[1], "device") == 0)
		return _cmocka_run_group_tests("device", last + 1, 1, NULL, NULL);
	if (argc == 2)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
