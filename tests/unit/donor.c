/* SPDX-License-Identifier: MIT */
/* Who may use a region, who must stop, and for how long they are remembered. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "tests/support/donor-sessions.h"

/*
 * The linker puts these in the place of the real ones (--wrap).  The nth allocation from now on
 * fails; 0: none.
 */
static unsigned fail_nth;
void *__real_calloc(size_t nr, size_t size);
void *__wrap_calloc(size_t nr, size_t size);
void *__real_reallocarray(void *p, size_t nr, size_t size);
void *__wrap_reallocarray(void *p, size_t nr, size_t size);

void *__wrap_calloc(size_t nr, size_t size)
{
	return fail_nth && --fail_nth == 0 ? NULL : __real_calloc(nr, size);
}

void *__wrap_reallocarray(void *p, size_t nr, size_t size)
{
	return fail_nth && --fail_nth == 0 ? NULL : __real_reallocarray(p, nr, size);
}

static void one_writer_and_the_refusal_says_who(void **state)
{
	struct session a, b;

	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_WRITE), 0);
	assert_true(a.grant->writable);
	assert_int_equal(grant(&b, 2, 1, WEFT_MODE_WRITE), -EBUSY);
	assert_non_null(strstr(err.message, "writer 'box1' from 10.0.0.1:5"));
	assert_non_null(strstr(err.message, "free once 'box1' detaches"));
	release(&a, true);
	assert_int_equal(grant(&b, 2, 1, WEFT_MODE_WRITE), 0);
	release(&b, true);
}

static void joining_adds_a_session(void **state)
{
	struct session a, b, c;

	assert_int_equal(grant(&a, 1, 7, WEFT_MODE_WRITE), 0);
	assert_int_equal(grant(&b, 1, 7, WEFT_MODE_WRITE), 0);
	assert_false(a.fenced);
	assert_int_equal(grant(&c, 1, 7, WEFT_MODE_READ), -EINVAL);
	release(&a, true);
	/* One lane's goodbye is not the attachment's. */
	assert_int_equal(grant(&c, 2, 1, WEFT_MODE_WRITE), -EBUSY);
	release(&b, true);
	assert_int_equal(grant(&c, 2, 1, WEFT_MODE_WRITE), 0);
	release(&c, true);
}

static void readers_and_writers_exclude_each_other(void **state)
{
	struct session a, b, c;

	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_READ), 0);
	assert_false(a.grant->writable);
	assert_int_equal(grant(&b, 2, 1, WEFT_MODE_READ), 0);
	assert_int_equal(grant(&c, 3, 1, WEFT_MODE_WRITE), -EBUSY);
	release(&a, true);
	release(&b, true);
	assert_int_equal(grant(&c, 3, 2, WEFT_MODE_WRITE), 0);
	assert_int_equal(grant(&a, 1, 2, WEFT_MODE_READ), -EBUSY);
	release(&c, true);
}

static void shared_readers_are_always_welcome(void **state)
{
	struct session writer, a, b;

	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_SHARED), 0);
	assert_int_equal(grant(&writer, 3, 1, WEFT_MODE_WRITE), 0);
	assert_int_equal(grant(&b, 2, 1, WEFT_MODE_SHARED), 0);
	assert_false(a.grant->writable);
	release(&a, true);
	release(&b, true);
	release(&writer, true);
}

static void a_higher_generation_supersedes_and_waits_for_the_copy(void **state)
{
	struct session old[2], new;

	for (int i = 0; i < 2; i++) {
		assert_int_equal(grant(&old[i], 1, 5, WEFT_MODE_WRITE), 0);
		start_copier(&old[i]);
	}
	assert_int_equal(grant(&new, 1, 6, WEFT_MODE_WRITE), 0);
	/* Nobody was inside a copy when the grant came. */
	assert_true(atomic_load(&old[0].released) && atomic_load(&old[1].released));
	for (int i = 0; i < 2; i++) {
		pthread_join(old[i].thread, NULL);
		assert_int_equal(old[i].nr_fenced, 1);
	}
	assert_false(new.fenced);
	/* The old one stays out. */
	assert_int_equal(grant(&old[0], 1, 5, WEFT_MODE_WRITE), -WEFT_EOVER);
	release(&new, false);
}

struct joiner {
	struct session session;
	int result;
	bool others_out;
	struct session *old;
	uint64_t generation;
	enum weft_mode mode;
};

static void *join_thread(void *arg)
{
	struct joiner *j = arg;
	const struct weft_peer peer = {.text = "p", .transport = "tcp", .local = true};
	struct weft_hello hello = hello_of(1, j->generation, j->mode);
	struct weft_error own_err;

	pthread_mutex_init(&j->session.lock, NULL);
	pthread_cond_init(&j->session.cond, NULL);
	j->result = weft_donor_grant(donor, region, &hello, &peer, on_fence, &j->session,
		&j->session.grant, &own_err);
	j->others_out = atomic_load(&j->old->released);
	return NULL;
}

static void all_lanes_of_a_new_generation_wait_for_the_old(void **state)
{
	struct joiner joiners[4];
	pthread_t threads[4];
	struct session old;

	assert_int_equal(grant(&old, 1, 5, WEFT_MODE_WRITE), 0);
	start_copier(&old);
	for (int i = 0; i < 4; i++) {
		joiners[i] = (struct joiner){.old = &old, .generation = 6, .mode = WEFT_MODE_WRITE};
		assert_int_equal(pthread_create(&threads[i], NULL, join_thread, &joiners[i]), 0);
	}
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(joiners[i].result, 0);
		assert_true(joiners[i].others_out);
	}
	pthread_join(old.thread, NULL);
	for (int i = 0; i < 4; i++)
		release(&joiners[i].session, true);
}

static void release_on_fence(void *ctx)
{
	struct session *s = ctx;

	s->nr_fenced++;
	weft_grant_release(s->grant, false);
}

static void a_session_may_end_inside_its_fence(void **state)
{
	const struct weft_peer peer = {.text = "p", .transport = "mem", .local = true};
	struct weft_hello hello = hello_of(1, 1, WEFT_MODE_WRITE);
	struct session old = {0}, new;

	assert_int_equal(weft_donor_grant(donor, region, &hello, &peer, release_on_fence, &old,
				 &old.grant, &err),
		0);
	assert_int_equal(grant(&new, 1, 2, WEFT_MODE_WRITE), 0);
	assert_int_equal(old.nr_fenced, 1);
	release(&new, true);
}

static void a_session_that_does_not_stop_keeps_the_new_one_out(void **state)
{
	struct weft_donor_config config = {
		.lease_ms = LEASE_MS, .fence_timeout_ms = 50, .offers = "tcp"};
	struct session old, new;

	weft_donor_free(donor);
	assert_int_equal(weft_donor_new(&config, &donor), 0);
	assert_int_equal(weft_donor_add(donor, region, &err), 0);
	assert_int_equal(grant(&old, 1, 1, WEFT_MODE_WRITE), 0);
	assert_int_equal(grant(&new, 1, 2, WEFT_MODE_WRITE), -EBUSY);
	assert_true(old.fenced);
	/* Superseded all the same. */
	assert_int_equal(grant(&new, 1, 1, WEFT_MODE_WRITE), -WEFT_EOVER);
	release(&old, false);
	assert_int_equal(grant(&new, 1, 2, WEFT_MODE_WRITE), 0);
	assert_int_equal(old.nr_fenced, 1);
	release(&new, true);
}

static void the_highest_generation_is_remembered_after_goodbye(void **state)
{
	struct session a;

	assert_int_equal(grant(&a, 1, 9, WEFT_MODE_WRITE), 0);
	release(&a, true);
	assert_int_equal(grant(&a, 1, 8, WEFT_MODE_WRITE), -WEFT_EOVER);
	assert_int_equal(grant(&a, 1, 9, WEFT_MODE_WRITE), 0);
	release(&a, true);
}

static void a_lost_connection_keeps_the_region_for_a_lease(void **state)
{
	struct session a, b;

	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_WRITE), 0);
	release(&a, false);
	assert_int_equal(grant(&b, 2, 1, WEFT_MODE_WRITE), -EBUSY);
	assert_non_null(strstr(err.message, "disconnected"));
	assert_int_equal(grant(&a, 1, 2, WEFT_MODE_WRITE), 0);
	release(&a, false);
	tick_in(LEASE_MS + 50);
	assert_int_equal(grant(&b, 2, 1, WEFT_MODE_WRITE), 0);
	release(&b, true);
}

static void an_expired_lease_frees_without_waiting_for_the_tick(void **state)
{
	struct session a, b;

	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_WRITE), 0);
	start_copier(&a);
	usleep((LEASE_MS + 50) * 1000);
	assert_int_equal(grant(&b, 2, 1, WEFT_MODE_WRITE), 0);
	assert_true(atomic_load(&a.released));
	pthread_join(a.thread, NULL);
	release(&b, true);
}

static void a_silent_session_is_fenced_and_its_generation_is_stale(void **state)
{
	struct session a;

	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_WRITE), 0);
	tick_in(LEASE_MS / 2);
	assert_false(a.fenced);
	weft_grant_touch(a.grant, weft_now_ns() + LEASE_MS * 1000000);
	tick_in(LEASE_MS + 50);
	assert_false(a.fenced);
	weft_grant_touch(a.grant, weft_now_ns());
	tick_in(LEASE_MS + 50);
	assert_true(a.fenced);
	release(&a, false);
	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_WRITE), -WEFT_EOVER);
	/* Nobody else came: it may go on under a new generation. */
	assert_int_equal(grant(&a, 1, 2, WEFT_MODE_WRITE), 0);
	release(&a, true);
}

static void who_waits_for_the_donor_is_not_silent(void **state)
{
	struct session a;

	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_WRITE), 0);
	weft_grant_touch(a.grant, UINT64_MAX);
	tick_in(LEASE_MS + 50);
	assert_false(a.fenced);
	weft_grant_touch(a.grant, weft_now_ns());
	tick_in(LEASE_MS + 50);
	assert_true(a.fenced);
	release(&a, false);
}

static void a_donor_that_slept_blames_nobody(void **state)
{
	struct session a, b;

	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_WRITE), 0);
	tick_in(0);
	tick_in(60000);
	assert_false(a.fenced);
	assert_int_equal(grant(&b, 2, 1, WEFT_MODE_WRITE), -EBUSY);
	/* From its awakening on the lease counts anew. */
	tick_in(60000 + LEASE_MS + 50);
	assert_true(a.fenced);
	release(&a, false);
}

static void shared_readers_take_nobodys_place(void **state)
{
	struct session readers[WEFT_NR_GENERATIONS + 6], writer, second;

	/* One that left is remembered, however many come and go. */
	assert_int_equal(grant(&writer, 200, 1, WEFT_MODE_WRITE), 0);
	release(&writer, true);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(readers); i++)
		assert_int_equal(grant(&readers[i], (uint8_t)(2 + i), 1, WEFT_MODE_SHARED), 0);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(readers); i++)
		release(&readers[i], true);
	assert_int_equal(claim(&writer, 200, 2, WEFT_MODE_WRITE), 0);
	assert_int_equal(grant(&readers[0], 2, 2, WEFT_MODE_SHARED), 0);
	assert_int_equal(claim(&second, 200, 2, WEFT_MODE_WRITE), 0);
	release(&readers[0], true);
	release(&second, true);
	release(&writer, true);
}

static void a_writer_that_is_left_as_a_shared_reader_stops_first(void **state)
{
	struct weft_donor_config config = {
		.lease_ms = LEASE_MS, .fence_timeout_ms = 50, .offers = "tcp"};
	struct session old, left, other;

	weft_donor_free(donor);
	assert_int_equal(weft_donor_new(&config, &donor), 0);
	assert_int_equal(weft_donor_add(donor, region, &err), 0);
	assert_int_equal(grant(&old, 1, 1, WEFT_MODE_WRITE), 0);
	assert_int_equal(grant(&left, 1, 2, WEFT_MODE_SHARED), -EBUSY);
	assert_true(old.fenced);
	/* A write of the old session may land until it has stopped. */
	assert_int_equal(grant(&other, 2, 1, WEFT_MODE_WRITE), -EBUSY);
	release(&old, false);
	assert_int_equal(grant(&other, 2, 2, WEFT_MODE_WRITE), 0);
	release(&other, true);
}

static void see_generation(void *ctx, const struct weft_attachment_status *status)
{
	*(uint64_t *)ctx = status->generation;
}

static void wait_for_generation(uint64_t generation)
{
	uint64_t seen = 0;

	for (unsigned i = 0; i < 1000 && seen != generation; i++) {
		weft_donor_status(donor, see_generation, &seen);
		usleep(1000);
	}
	assert_int_equal(seen, generation);
}

static void a_shared_reader_that_waits_is_superseded(void **state)
{
	struct session old;
	struct joiner first = {.old = &old, .generation = 6, .mode = WEFT_MODE_SHARED};
	struct joiner second = {.old = &old, .generation = 7, .mode = WEFT_MODE_SHARED};
	pthread_t threads[2];

	assert_int_equal(grant(&old, 1, 5, WEFT_MODE_SHARED), 0);
	assert_int_equal(pthread_create(&threads[0], NULL, join_thread, &first), 0);
	wait_for_generation(6);
	assert_int_equal(pthread_create(&threads[1], NULL, join_thread, &second), 0);
	wait_for_generation(7);
	release(&old, false);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(first.result, -WEFT_EOVER);
	assert_int_equal(second.result, 0);
	release(&second.session, true);
}

static void waiting_for_the_old_to_stop_is_not_silence(void **state)
{
	struct weft_donor_config config = {
		.lease_ms = LEASE_MS, .fence_timeout_ms = LEASE_MS / 2, .offers = "tcp"};
	struct session old, new;

	weft_donor_free(donor);
	assert_int_equal(weft_donor_new(&config, &donor), 0);
	assert_int_equal(weft_donor_add(donor, region, &err), 0);
	assert_int_equal(grant(&old, 1, 1, WEFT_MODE_WRITE), 0);
	/*
	 * Inside a FLUSH of a slow disk for longer than the lease, while its bridge keeps asking.
	 */
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(grant(&new, 1, 2, WEFT_MODE_WRITE), -EBUSY);
		tick_in(LEASE_MS / 2);
	}
	release(&old, false);
	assert_int_equal(grant(&new, 1, 2, WEFT_MODE_WRITE), 0);
	release(&new, true);
}

static void stock_clients_are_one_attachment(void **state)
{
	struct session a, b, weft;

	assert_int_equal(grant_stock(&a), 0);
	assert_int_equal(grant_stock(&b), 0);
	assert_true(a.grant->writable);
	assert_false(a.fenced);
	tick_in(100 * LEASE_MS); /* no lease */
	assert_false(a.fenced || b.fenced);
	assert_int_equal(grant(&weft, 1, 1, WEFT_MODE_WRITE), -EBUSY);
	assert_non_null(strstr(err.message, "2 stock NBD clients"));
	assert_int_equal(grant(&weft, 1, 1, WEFT_MODE_READ), -EBUSY);
	assert_int_equal(grant(&weft, 1, 1, WEFT_MODE_SHARED), 0);
	release(&weft, true);
	release(&a, false);
	release(&b, false);
	assert_int_equal(grant(&weft, 1, 2, WEFT_MODE_WRITE), 0);
	assert_int_equal(grant_stock(&a), -EBUSY);
	release(&weft, true);
}

static void nobody_writes_a_read_only_region(void **state)
{
	struct weft_region *plain = region;
	struct session a, b;

	region = new_region("ro", true);
	assert_int_equal(weft_donor_add(donor, region, &err), 0);
	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_WRITE), -EROFS);
	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_READ), 0);
	assert_int_equal(grant_stock(&b), 0);
	assert_false(b.grant->writable);
	release(&a, true);
	release(&b, true);
	weft_region_put(region);
	region = plain;
}

static void a_new_daemon_remembers_holders_and_generations(void **state)
{
	struct session a, b;
	struct weft_region *again;

	assert_int_equal(grant(&a, 1, 5, WEFT_MODE_WRITE), 0);
	release(&a, false);
	assert_int_equal(grant(&b, 2, 3, WEFT_MODE_SHARED), 0);
	release(&b, true);
	/* As after kill -9: header and memory are all that is left. */
	assert_int_equal(weft_region_adopt(dup(region->fd), dup(region->header_fd), false, &again,
				 &err),
		0);
	struct weft_region *old_region = region;
	struct weft_donor *old_donor = donor;
	region = again;
	new_donor();

	assert_int_equal(grant(&b, 3, 1, WEFT_MODE_WRITE), -EBUSY);
	assert_non_null(strstr(err.message, "box1"));
	/* A shared reader is held to nothing. */
	assert_int_equal(grant(&b, 2, 2, WEFT_MODE_SHARED), 0);
	release(&b, true);
	assert_int_equal(grant(&a, 1, 4, WEFT_MODE_WRITE), -WEFT_EOVER);
	assert_int_equal(grant(&a, 1, 6, WEFT_MODE_WRITE), 0);
	release(&a, true);
	assert_int_equal(grant(&b, 3, 1, WEFT_MODE_WRITE), 0);
	release(&b, true);
	weft_donor_free(donor);
	weft_region_put(again);
	donor = old_donor;
	region = old_region;
}

static void count_attachments(void *ctx, const struct weft_attachment_status *status)
{
	++*(unsigned *)ctx;
}

static void a_region_that_there_is_no_memory_for_leaves_nothing_behind(void **state)
{
	struct weft_donor_config config = {
		.lease_ms = LEASE_MS, .fence_timeout_ms = FENCE_MS, .offers = "tcp"};
	struct weft_region *mine = region, *again;
	struct weft_donor *old_donor = donor;
	struct session a, b;
	unsigned nth = 0;
	int r;

	assert_int_equal(grant(&a, 1, 5, WEFT_MODE_READ), 0);
	release(&a, false);
	assert_int_equal(grant(&b, 2, 3, WEFT_MODE_READ), 0);
	release(&b, false);
	assert_int_equal(weft_region_adopt(dup(region->fd), dup(region->header_fd), false, &again,
				 &err),
		0);
	assert_int_equal(weft_donor_new(&config, &donor), 0);
	do {
		unsigned nr = 0;

		fail_nth = ++nth;
		r = weft_donor_add(donor, again, &err);
		weft_donor_status(donor, count_attachments, &nr);
		assert_int_equal(nr, r < 0 ? 0 : 2);
		assert_int_equal(atomic_load(&again->refs), r < 0 ? 1 : 4);
	} while (r == -ENOMEM && nth < 10);
	fail_nth = 0;
	assert_int_equal(r, 0);
	assert_int_equal(nth, 4);
	/* Those who hold it still do. */
	region = again;
	assert_int_equal(grant(&b, 3, 1, WEFT_MODE_WRITE), -EBUSY);
	weft_donor_free(donor);
	weft_region_put(again);
	donor = old_donor;
	region = mine;
}

static void a_stopping_donor_grants_nothing_and_fences_all(void **state)
{
	struct session a, b, c;

	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_SHARED), 0);
	assert_int_equal(grant(&b, 2, 1, WEFT_MODE_SHARED), 0);
	start_copier(&a);
	weft_donor_stop(donor);
	assert_int_equal(grant(&c, 3, 1, WEFT_MODE_SHARED), -ESHUTDOWN);
	assert_int_equal(weft_donor_fence_all(donor, 100), -ETIMEDOUT);
	assert_true(b.fenced);
	release(&b, false);
	assert_int_equal(weft_donor_fence_all(donor, 5000), 0);
	pthread_join(a.thread, NULL);
}

/* Once it is fenced another comes, and it ends after that. */
static void *leave_to_another(void *arg)
{
	struct session *sessions = arg;

	pthread_mutex_lock(&sessions[0].lock);
	while (!sessions[0].fenced)
		pthread_cond_wait(&sessions[0].cond, &sessions[0].lock);
	pthread_mutex_unlock(&sessions[0].lock);
	usleep(50000); /* now it is waited for */
	assert_int_equal(grant(&sessions[1], 2, 1, WEFT_MODE_SHARED), 0);
	release(&sessions[0], false);
	return NULL;
}

static void fencing_all_waits_for_none_that_comes_later(void **state)
{
	struct session sessions[2];
	pthread_t thread;

	assert_int_equal(grant(&sessions[0], 1, 1, WEFT_MODE_SHARED), 0);
	assert_int_equal(pthread_create(&thread, NULL, leave_to_another, sessions), 0);
	assert_int_equal(weft_donor_fence_all(donor, 5000), 0);
	pthread_join(thread, NULL);
	assert_false(sessions[1].fenced);
	release(&sessions[1], true);
}

static void no_more_than_the_table_holds(void **state)
{
	struct session sessions[WEFT_NR_GENERATIONS], one_more;

	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++)
		assert_int_equal(grant(&sessions[i], (uint8_t)(i + 1), 1, WEFT_MODE_READ), 0);
	assert_int_equal(grant(&one_more, 200, 1, WEFT_MODE_READ), -EBUSY);
	release(&sessions[7], true);
	assert_int_equal(grant(&sessions[7], 200, 1, WEFT_MODE_READ), 0);
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++)
		release(&sessions[i], true);
}

static void copy_status(void *ctx, const struct weft_attachment_status *status)
{
	unsigned *n = ctx;

	assert_string_equal(status->region, "m");
	assert_string_equal(status->name, "box1");
	assert_int_equal(status->nr_sessions, 2);
	assert_int_equal(status->generation, 4);
	assert_true(status->lease_left_ms <= LEASE_MS);
	(*n)++;
}

static void status_tells_of_attachments(void **state)
{
	struct session a, b;
	unsigned n = 0;

	assert_int_equal(grant(&a, 1, 4, WEFT_MODE_WRITE), 0);
	assert_int_equal(grant(&b, 1, 4, WEFT_MODE_WRITE), 0);
	weft_donor_status(donor, copy_status, &n);
	assert_int_equal(n, 1);
	release(&a, true);
	release(&b, true);
	weft_donor_status(donor, copy_status, &n);
	assert_int_equal(n, 1);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(one_writer_and_the_refusal_says_who),
		TEST(joining_adds_a_session),
		TEST(readers_and_writers_exclude_each_other),
		TEST(shared_readers_are_always_welcome),
		TEST(a_higher_generation_supersedes_and_waits_for_the_copy),
		TEST(all_lanes_of_a_new_generation_wait_for_the_old),
		TEST(a_session_may_end_inside_its_fence),
		TEST(a_session_that_does_not_stop_keeps_the_new_one_out),
		TEST(the_highest_generation_is_remembered_after_goodbye),
		TEST(a_lost_connection_keeps_the_region_for_a_lease),
		TEST(an_expired_lease_frees_without_waiting_for_the_tick),
		TEST(a_silent_session_is_fenced_and_its_generation_is_stale),
		TEST(who_waits_for_the_donor_is_not_silent),
		TEST(a_donor_that_slept_blames_nobody),
		TEST(shared_readers_take_nobodys_place),
		TEST(a_writer_that_is_left_as_a_shared_reader_stops_first),
		TEST(a_shared_reader_that_waits_is_superseded),
		TEST(waiting_for_the_old_to_stop_is_not_silence),
		TEST(stock_clients_are_one_attachment),
		TEST(nobody_writes_a_read_only_region),
		TEST(a_new_daemon_remembers_holders_and_generations),
		TEST(a_region_that_there_is_no_memory_for_leaves_nothing_behind),
		TEST(a_stopping_donor_grants_nothing_and_fences_all),
		TEST(fencing_all_waits_for_none_that_comes_later),
		TEST(no_more_than_the_table_holds),
		TEST(status_tells_of_attachments),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
