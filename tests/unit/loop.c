/* SPDX-License-Identifier: MIT */
/*
 * The event loop, over epoll(7) and over a lane's io_uring: watches, timers, wake-ups, and moving
 * from one to the other.
 */
#include <errno.h>
#include <poll.h>
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

#include "fabric/base/loop.h"
#include "fabric/base/util.h"
#include "nbd-bridge/device/ring.h"

enum { NR = 100, NR_OPS = 128 };

/* One end of a pair of sockets. */
struct end {
	struct weft_watch watch;
	int other;
	unsigned nr_calls, nr_bytes;
	uint32_t events;
	bool reads, removes; /* what fn does */
};

static struct weft_loop *loop;
static struct bridge_ring *ring; /* NULL: epoll */
static struct end ends[NR];

static void on_end(struct weft_watch *watch, uint32_t events)
{
	struct end *end = weft_container_of(watch, struct end, watch);
	char bytes[16];

	end->nr_calls++;
	end->events = events;
	if (end->reads) {
		ssize_t n = recv(watch->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

		end->nr_bytes += n > 0 ? (unsigned)n : 0;
	}
	if (end->removes)
		weft_loop_remove(loop, watch);
}

static void use_ring(void)
{
	int r = bridge_ring_new(loop, NR_OPS, &ring);

	if (r == -ENOSYS || r == -EPERM || r == -EINVAL) {
		print_message("SKIP: there is no io_uring here\n");
		skip();
	}
	assert_int_equal(r, 0);
}

static int set_up(void **state)
{
	assert_int_equal(weft_loop_new(&loop), 0);
	for (unsigned i = 0; i < NR; i++) {
		int fds[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
		ends[i] = (struct end){.watch = {.fd = fds[0], .fn = on_end},
			.other = fds[1],
			.reads = true};
	}
	return 0;
}

static int tear_down(void **state)
{
	bridge_ring_free(ring);
	ring = NULL;
	weft_loop_free(loop);
	for (unsigned i = 0; i < NR; i++) {
		close(ends[i].watch.fd);
		close(ends[i].other);
	}
	return 0;
}

static void send_to(struct end *end, unsigned n)
{
	assert_int_equal(write(end->other, "0123456789abcdef", n), n);
}

static void add(struct end *end)
{
	assert_int_equal(weft_loop_add(loop, &end->watch, EPOLLIN), 0);
}

static void step(void)
{
	assert_int_equal(weft_loop_step(loop, 0), 0);
}

/* As many steps as it takes, and then some that must bring nothing. */
static void settle(void)
{
	for (unsigned i = 0; i < 8; i++)
		step();
}

/* ---- what holds for both ---- */

static void what_is_ready_is_told_until_it_is_not(void)
{
	add(&ends[0]);
	settle();
	assert_int_equal(ends[0].nr_calls, 0);
	ends[0].reads = false;
	send_to(&ends[0], 3);
	settle();
	assert_true(ends[0].nr_calls >= 7); /* level-triggered */
	ends[0].reads = true;
	settle();
	assert_int_equal(ends[0].nr_bytes, 3);
	ends[0].nr_calls = 0;
	settle();
	assert_int_equal(ends[0].nr_calls, 0);
	send_to(&ends[0], 1);
	settle();
	assert_int_equal(ends[0].nr_bytes, 4);
	assert_int_equal(ends[0].nr_calls, 1);
}

static void many_watches_at_once(void)
{
	for (unsigned i = 0; i < NR; i++)
		add(&ends[i]);
	for (unsigned round = 1; round <= 3; round++) {
		for (unsigned i = 0; i < NR; i++)
			send_to(&ends[i], 2);
		settle();
		for (unsigned i = 0; i < NR; i++)
			assert_int_equal(ends[i].nr_bytes, 2 * round);
	}
}

static void what_is_removed_is_told_nothing(void)
{
	add(&ends[0]);
	add(&ends[1]);
	step();
	weft_loop_remove(loop, &ends[0].watch);
	send_to(&ends[0], 1);
	send_to(&ends[1], 1);
	settle();
	assert_int_equal(ends[0].nr_calls, 0);
	assert_int_equal(ends[1].nr_calls, 1);
	/* Within a call, its own and one that is ready in the same step. */
	add(&ends[0]);
	ends[0].reads = ends[1].reads = false;
	ends[0].removes = ends[1].removes = true;
	ends[0].nr_calls = ends[1].nr_calls = 0;
	send_to(&ends[1], 1);
	settle();
	assert_int_equal(ends[0].nr_calls, 1);
	assert_int_equal(ends[1].nr_calls, 1);
	/* Another descriptor of the same number is another watch. */
	ends[2].removes = false;
	add(&ends[2]);
	step();
	weft_loop_remove(loop, &ends[2].watch);
	send_to(&ends[2], 1);
	assert_int_equal(dup2(ends[3].watch.fd, ends[2].watch.fd), ends[2].watch.fd);
	add(&ends[2]);
	settle();
	assert_int_equal(ends[2].nr_calls, 0);
}

static struct end *victim;

static void on_end_that_removes_another(struct weft_watch *watch, uint32_t events)
{
	on_end(watch, events);
	if (victim) {
		weft_loop_remove(loop, victim == &ends[0] ? &ends[0].watch : &ends[1].watch);
		victim = NULL;
	}
}

static void one_may_remove_another_that_is_ready(void)
{
	for (unsigned round = 0; round < 2; round++) {
		ends[round].watch.fn = on_end;
		ends[!round].watch.fn = on_end_that_removes_another;
		victim = &ends[round];
		ends[0].nr_calls = ends[1].nr_calls = 0;
		add(&ends[0]);
		add(&ends[1]);
		send_to(&ends[0], 1);
		send_to(&ends[1], 1);
		settle();
		assert_int_equal(ends[!round].nr_calls, 1);
		assert_true(ends[round].nr_calls <= 1); /* its turn may have been first */
		for (unsigned i = 0; i < 2; i++) {
			char byte;

			weft_loop_remove(loop, &ends[i].watch);
			recv(ends[i].watch.fd, &byte, 1, MSG_DONTWAIT);
		}
	}
}

static void events_can_be_changed(void)
{
	add(&ends[0]);
	step();
	assert_int_equal(weft_loop_modify(loop, &ends[0].watch, 0), 0);
	send_to(&ends[0], 1);
	settle();
	assert_int_equal(ends[0].nr_calls, 0);
	assert_int_equal(weft_loop_modify(loop, &ends[0].watch, EPOLLIN | EPOLLOUT), 0);
	settle();
	assert_true(ends[0].nr_calls > 0);
	assert_true(ends[0].events & EPOLLOUT);
	assert_int_equal(ends[0].nr_bytes, 1);
	assert_int_equal(weft_loop_modify(loop, &ends[0].watch, EPOLLIN), 0);
	step();
	ends[0].nr_calls = 0;
	settle();
	assert_int_equal(ends[0].nr_calls, 0);
	ends[0].removes = true;
	shutdown(ends[0].other, SHUT_RDWR);
	settle();
	assert_int_equal(ends[0].nr_calls, 1);
	assert_true(ends[0].events & EPOLLHUP);
}

static unsigned nr_timers, nr_wakes, nr_afters;

static void on_timer(struct weft_timer *timer)
{
	nr_timers++;
	weft_loop_stop(loop);
}

static void on_wake(void *ctx)
{
	nr_wakes++;
	weft_loop_stop(loop);
}

static void on_after(void *ctx)
{
	nr_afters++;
}

static void timers_and_wake_ups_end_the_wait(void)
{
	struct weft_timer timer = {.fn = on_timer};
	uint64_t start_ns = weft_now_ns();

	nr_timers = nr_wakes = nr_afters = 0;
	weft_loop_on_wake(loop, on_wake, NULL);
	weft_loop_after(loop, on_after, NULL);
	weft_loop_timer_set(loop, &timer, 30 * UINT64_C(1000000));
	assert_int_equal(weft_loop_run(loop), 0);
	assert_true(weft_now_ns() - start_ns >= 30 * UINT64_C(1000000));
	assert_int_equal(nr_timers, 1);
	assert_true(nr_afters >= 1 && nr_afters <= 40); /* it slept */
	weft_loop_wake(loop);
	weft_loop_wake(loop);
	assert_int_equal(weft_loop_run(loop), 0);
	settle();
	assert_int_equal(nr_wakes, 1);
}

#define FOR_BOTH(name) \
	static void name##_epoll(void **state) { name(); } \
	static void name##_ring(void **state) { use_ring(); name(); }

FOR_BOTH(what_is_ready_is_told_until_it_is_not)
FOR_BOTH(many_watches_at_once)
FOR_BOTH(what_is_removed_is_told_nothing)
FOR_BOTH(one_may_remove_another_that_is_ready)
FOR_BOTH(events_can_be_changed)
FOR_BOTH(timers_and_wake_ups_end_the_wait)

/* ---- the ring's own ---- */

struct nop {
	struct bridge_ring_op op;
	int result;
	unsigned nr_calls;
};

static void on_nop(struct bridge_ring_op *op, int result)
{
	struct nop *nop = weft_container_of(op, struct nop, op);

	nop->result = result;
	nop->nr_calls++;
}

static void queue_nop(struct nop *nop)
{
	io_uring_prep_nop(bridge_ring_queue(ring, &nop->op));
}

static unsigned nr_notes;

static void on_note(struct bridge_ring_note *note)
{
	nr_notes++;
}

static void operations_go_with_the_wait_and_notes_follow_them(void **state)
{
	static struct nop nops[NR_OPS];
	struct bridge_ring_note note = {.fn = on_note}, cancelled = {.fn = on_note};

	use_ring();
	memset(nops, 0, sizeof(nops));
	nr_notes = 0;
	/* As many as there may be, with as many polls as fit in no submission. */
	for (unsigned i = 0; i < NR; i++) {
		add(&ends[i]);
		send_to(&ends[i], 1);
	}
	for (unsigned i = 0; i < NR_OPS; i++) {
		nops[i] = (struct nop){.op.fn = on_nop, .result = -1};
		queue_nop(&nops[i]);
	}
	bridge_ring_note(ring, &cancelled);
	bridge_ring_note(ring, &note);
	bridge_ring_note(ring, &note);
	bridge_ring_note_cancel(ring, &cancelled);
	assert_int_equal(nr_notes, 0);
	settle();
	assert_int_equal(nr_notes, 1);
	for (unsigned i = 0; i < NR_OPS; i++) {
		assert_int_equal(nops[i].nr_calls, 1);
		assert_int_equal(nops[i].result, 0);
	}
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(ends[i].nr_bytes, 1);
	/* At once. */
	queue_nop(&nops[0]);
	bridge_ring_note(ring, &note);
	bridge_ring_submit_and_reap(ring);
	assert_int_equal(nops[0].nr_calls, 2);
	assert_int_equal(nr_notes, 2);
}

static void watches_move_to_the_ring_and_back(void **state)
{
	for (unsigned i = 0; i < NR; i++)
		add(&ends[i]);
	for (unsigned round = 1; round <= 3; round++) {
		use_ring();
		for (unsigned i = 0; i < NR; i++)
			send_to(&ends[i], 1);
		settle();
		bridge_ring_free(ring);
		ring = NULL;
		for (unsigned i = 0; i < NR; i++)
			send_to(&ends[i], 1);
		settle();
		for (unsigned i = 0; i < NR; i++)
			assert_int_equal(ends[i].nr_bytes, 2 * round);
	}
}

static void on_end_that_frees_the_ring(struct weft_watch *watch, uint32_t events)
{
	on_end(watch, events);
	bridge_ring_free(ring);
	ring = NULL;
}

static void the_ring_can_be_freed_by_what_it_calls(void **state)
{
	use_ring();
	ends[0].watch.fn = on_end_that_frees_the_ring;
	for (unsigned i = 0; i < 8; i++) {
		add(&ends[i]);
		send_to(&ends[i], 1);
	}
	step();
	settle();
	assert_null(ring);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(ends[i].nr_bytes, 1);
}

int main(void)
{
#define BOTH(name) \
	cmocka_unit_test_setup_teardown(name##_epoll, set_up, tear_down), \
	cmocka_unit_test_setup_teardown(name##_ring, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		BOTH(what_is_ready_is_told_until_it_is_not),
		BOTH(many_watches_at_once),
		BOTH(what_is_removed_is_told_nothing),
		BOTH(one_may_remove_another_that_is_ready),
		BOTH(events_can_be_changed),
		BOTH(timers_and_wake_ups_end_the_wait),
		cmocka_unit_test_setup_teardown(operations_go_with_the_wait_and_notes_follow_them,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(watches_move_to_the_ring_and_back, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(the_ring_can_be_freed_by_what_it_calls, set_up,
			tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
