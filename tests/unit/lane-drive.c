/* SPDX-License-Identifier: MIT */
/* A lane that its callers drive: who runs its loop, and that nobody is forgotten. */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/loop.h"
#include "fabric/base/util.h"
#include "nbd-bridge/lane/drive.h"

enum { BOUND_MS = 10000 };

/* A lane that answers when `answers` is written to: then it tells `asker`. */
struct lane {
	struct weft_loop *loop;
	struct lane_drive *drive;
	struct weft_watch answers;
	struct lane_waiter *asker;
	_Atomic uint64_t nr_answers;
	_Atomic bool busy;
	_Atomic pthread_t answered_by;
	pthread_t keeper;
	bool has_keeper;
};

static void on_answer(struct weft_watch *watch, uint32_t events)
{
	struct lane *lane = weft_container_of(watch, struct lane, answers);
	uint64_t n;

	assert_int_equal(read(watch->fd, &n, sizeof(n)), sizeof(n));
	struct lane_waiter *asker = lane->asker;
	lane->asker = NULL;
	atomic_store(&lane->answered_by, pthread_self());
	atomic_store(&lane->busy, false);
	atomic_fetch_add(&lane->nr_answers, n);
	lane_drive_counted(lane->drive, true);
	if (asker)
		lane_drive_tell(lane->drive, asker);
}

static void answer(struct lane *lane)
{
	uint64_t one = 1;

	assert_int_equal(write(lane->answers.fd, &one, sizeof(one)), sizeof(one));
}

static bool is_busy(void *ctx)
{
	return atomic_load(&((struct lane *)ctx)->busy);
}

static void *keep(void *ctx)
{
	lane_drive_keep(ctx);
	return NULL;
}

static int start(void **state)
{
	struct lane *lane = test_calloc(1, sizeof(*lane));

	assert_int_equal(weft_loop_new(&lane->loop), 0);
	assert_int_equal(lane_drive_new(lane->loop, is_busy, lane, &lane->drive), 0);
	lane->answers.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	lane->answers.fn = on_answer;
	assert_int_equal(weft_loop_add(lane->loop, &lane->answers, EPOLLIN), 0);
	*state = lane;
	return 0;
}

static int start_with_keeper(void **state)
{
	start(state);
	struct lane *lane = *state;
	lane->has_keeper = true;
	assert_int_equal(pthread_create(&lane->keeper, NULL, keep, lane->drive), 0);
	return 0;
}

struct stopper {
	struct lane_job job;
	struct lane *lane;
};

static void stop_loop(struct lane_job *job)
{
	weft_loop_stop(weft_container_of(job, struct stopper, job)->lane->loop);
}

static int stop(void **state)
{
	struct lane *lane = *state;
	struct stopper stopper = {.job.fn = stop_loop, .lane = lane};

	lane_drive_post(lane->drive, &stopper.job);
	if (lane->has_keeper)
		pthread_join(lane->keeper, NULL);
	weft_loop_remove(lane->loop, &lane->answers);
	close(lane->answers.fd);
	weft_loop_free(lane->loop);
	lane_drive_free(lane->drive);
	test_free(lane);
	return 0;
}

/* A question: its job makes the lane expect an answer for its waiter. */
struct question {
	struct lane_job job;
	struct lane_waiter waiter;
	struct lane *lane;
	bool answer_at_once;
	_Atomic bool asked;
	pthread_t asked_by;
	pthread_t thread;
	_Atomic bool over;
};

static void ask(struct lane_job *job)
{
	struct question *q = weft_container_of(job, struct question, job);

	q->asked_by = pthread_self();
	q->lane->asker = &q->waiter;
	atomic_store(&q->lane->busy, true);
	atomic_store(&q->asked, true);
	if (q->answer_at_once)
		answer(q->lane);
}

static void *ask_and_wait(void *ctx)
{
	struct question *q = ctx;

	lane_drive_do(q->lane->drive, &q->job, &q->waiter);
	atomic_store(&q->over, true);
	return NULL;
}

static void wait_until(const _Atomic bool *flag)
{
	uint64_t end_ns = weft_now_ns() + BOUND_MS * UINT64_C(1000000);

	while (!atomic_load(flag)) {
		assert_true(weft_now_ns() < end_ns);
		poll(NULL, 0, 1);
	}
}

static void who_calls_runs_the_lane(void **state)
{
	struct question q = {.job.fn = ask, .lane = *state, .answer_at_once = true};

	ask_and_wait(&q);
	assert_true(pthread_equal(q.asked_by, pthread_self()));
	assert_true(pthread_equal(atomic_load(&q.lane->answered_by), pthread_self()));
	assert_true(lane_drive_is_free(q.lane->drive));
}

static void nop(struct lane_job *job)
{
	struct question *q = weft_container_of(job, struct question, job);

	q->asked_by = pthread_self();
	atomic_store(&q->asked, true);
}

static void a_leader_does_the_jobs_of_others(void **state)
{
	struct question leader = {.job.fn = ask, .lane = *state},
			other = {.job.fn = nop, .lane = *state};

	pthread_create(&leader.thread, NULL, ask_and_wait, &leader);
	wait_until(&leader.asked);
	lane_drive_post(leader.lane->drive, &other.job);
	wait_until(&other.asked);
	assert_true(pthread_equal(other.asked_by, leader.thread));
	answer(leader.lane);
	pthread_join(leader.thread, NULL);
}

static void who_waits_leads_after_the_leader(void **state)
{
	struct question first = {.job.fn = ask, .lane = *state},
			second = {.job.fn = ask, .lane = *state};

	pthread_create(&first.thread, NULL, ask_and_wait, &first);
	wait_until(&first.asked);
	struct lane_waiter *of_first = first.lane->asker;
	first.lane->asker = NULL;
	pthread_create(&second.thread, NULL, ask_and_wait, &second);
	wait_until(&second.asked);
	assert_true(pthread_equal(second.asked_by, first.thread));
	first.lane->asker = of_first;
	answer(first.lane);
	pthread_join(first.thread, NULL);
	assert_false(atomic_load(&second.over));
	first.lane->asker = &second.waiter;
	answer(first.lane);
	pthread_join(second.thread, NULL);
	assert_true(pthread_equal(atomic_load(&first.lane->answered_by), second.thread));
}

static void the_keeper_takes_what_nobody_waits_for(void **state)
{
	struct lane *lane = *state;
	struct question q = {.job.fn = ask, .lane = lane};
	uint64_t end_ns = weft_now_ns() + BOUND_MS * UINT64_C(1000000);

	for (unsigned i = 0; i < 20; i++) {
		lane_drive_post(lane->drive, &q.job);
		answer(lane);
		while (atomic_load(&lane->nr_answers) <= i) {
			assert_true(weft_now_ns() < end_ns);
			poll(NULL, 0, 1);
		}
		assert_true(pthread_equal(atomic_load(&lane->answered_by), lane->keeper));
	}
}

static void the_keeper_comes_for_a_lane_that_is_attended_to_late(void **state)
{
	struct lane *lane = *state;
	struct question q = {.job.fn = ask, .lane = lane};

	lane_drive_attend(lane->drive);
	lane_drive_post(lane->drive, &q.job);
	answer(lane);
	uint64_t end_ns = weft_now_ns() + BOUND_MS * UINT64_C(1000000);
	while (atomic_load(&lane->nr_answers) == 0) {
		assert_true(weft_now_ns() < end_ns);
		poll(NULL, 0, 1);
	}
}

struct ring {
	struct weft_timer timer;
	_Atomic bool rang;
};

static void on_ring(struct weft_timer *timer)
{
	atomic_store(&weft_container_of(timer, struct ring, timer)->rang, true);
}

struct setter {
	struct lane_job job;
	struct lane *lane;
	struct ring *ring;
};

static void set_timer(struct lane_job *job)
{
	struct setter *setter = weft_container_of(job, struct setter, job);

	weft_loop_timer_set(setter->lane->loop, &setter->ring->timer, 1000000);
}

static void the_keeper_keeps_timers_that_callers_set(void **state)
{
	struct lane *lane = *state;
	struct ring ring = {.timer.fn = on_ring};
	struct setter setter = {.job.fn = set_timer, .lane = lane, .ring = &ring};

	/* The keeper sleeps one way or the other meanwhile. */
	for (unsigned i = 0; i < 20; i++) {
		atomic_store(&ring.rang, false);
		lane_drive_post(lane->drive, &setter.job);
		wait_until(&ring.rang);
	}
}

static void a_wait_ends_with_its_time(void **state)
{
	struct lane *lane = *state;
	struct lane_waiter waiter = {0};
	uint64_t begin_ns = weft_now_ns();

	assert_false(lane_drive_wait(lane->drive, &waiter, begin_ns + 3000000));
	assert_true(weft_now_ns() - begin_ns >= 3000000);
	assert_false(lane_drive_wait(lane->drive, &waiter, 0));
	/* The same beside a leader. */
	struct question q = {.job.fn = ask, .lane = lane};
	pthread_create(&q.thread, NULL, ask_and_wait, &q);
	wait_until(&q.asked);
	begin_ns = weft_now_ns();
	assert_false(lane_drive_wait(lane->drive, &waiter, begin_ns + 3000000));
	assert_true(weft_now_ns() - begin_ns >= 3000000);
	answer(lane);
	pthread_join(q.thread, NULL);
}

struct counter {
	struct lane *lane;
	pthread_t thread;
	_Atomic bool begun;
	bool had_it;
};

static void *wait_for_count(void *ctx)
{
	struct counter *c = ctx;
	struct lane_waiter waiter = {.count = &c->lane->nr_answers, .seen = 0};

	atomic_store(&c->begun, true);
	c->had_it = lane_drive_wait(c->lane->drive, &waiter, UINT64_MAX);
	return NULL;
}

static void all_who_count_are_told(void **state)
{
	struct counter counters[3] = {{.lane = *state}, {.lane = *state}, {.lane = *state}};

	for (unsigned i = 0; i < WEFT_ARRAY_LEN(counters); i++)
		pthread_create(&counters[i].thread, NULL, wait_for_count, &counters[i]);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(counters); i++)
		wait_until(&counters[i].begun);
	answer(*state);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(counters); i++) {
		pthread_join(counters[i].thread, NULL);
		assert_true(counters[i].had_it);
	}
}

/* Counted by another lane's thread. */
static void a_leader_that_counts_is_woken_from_elsewhere(void **state)
{
	struct counter counter = {.lane = *state};

	pthread_create(&counter.thread, NULL, wait_for_count, &counter);
	wait_until(&counter.begun);
	atomic_fetch_add(&counter.lane->nr_answers, 1);
	lane_drive_counted(counter.lane->drive, false);
	pthread_join(counter.thread, NULL);
	assert_true(counter.had_it);
}

/* Time for each wait, and what says that one has slept through. */
enum { COUNTS = 20000, COUNT_MS = 4000, OVERSLEPT_MS = 2000 };

struct ping {
	struct lane *lane;
	pthread_t thread;
	_Atomic unsigned round; /* the leader is about to wait */
};

static void *count_on(void *ctx)
{
	struct ping *ping = ctx;

	for (unsigned i = 1; i <= COUNTS; i++) {
		for (unsigned spins = 1; atomic_load(&ping->round) < i; spins++)
			if (spins % 4096 == 0)
				sched_yield();
		/* Sooner and later, so that some hit the moment in which it falls asleep. */
		for (volatile unsigned j = 0; j < i % 512; j++)
			;
		atomic_fetch_add(&ping->lane->nr_answers, 1);
		lane_drive_counted(ping->lane->drive, false);
	}
	return NULL;
}

static void a_leader_does_not_sleep_through_a_count(void **state)
{
	struct ping ping = {.lane = *state};
	uint64_t longest_ns = 0;

	pthread_create(&ping.thread, NULL, count_on, &ping);
	for (unsigned i = 1; i <= COUNTS; i++) {
		const uint64_t seen = atomic_load(&ping.lane->nr_answers);
		struct lane_waiter waiter = {.count = &ping.lane->nr_answers, .seen = seen};
		uint64_t begin_ns = weft_now_ns();

		atomic_store(&ping.round, i);
		lane_drive_wait(ping.lane->drive, &waiter, begin_ns + COUNT_MS * UINT64_C(1000000));
		longest_ns = weft_max(longest_ns, weft_now_ns() - begin_ns);
		if (longest_ns >= OVERSLEPT_MS * UINT64_C(1000000))
			break;
	}
	atomic_store(&ping.round, COUNTS);
	pthread_join(ping.thread, NULL);
	assert_true(longest_ns < OVERSLEPT_MS * UINT64_C(1000000));
}

/* ---- callers that leave the loop no step ---- */

static void tell_at_once(struct lane_job *job)
{
	struct question *q = weft_container_of(job, struct question, job);

	lane_drive_tell(q->lane->drive, &q->waiter);
}

/* Of this thread: time in which it was kept from calling does not count. */
static uint64_t busy_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void call_until(struct lane *lane, const _Atomic bool *flag, uint64_t end_ns)
{
	while (!atomic_load(flag) && busy_ns() < end_ns) {
		struct question q = {.job.fn = tell_at_once, .lane = lane};

		lane_drive_do(lane->drive, &q.job, &q.waiter);
	}
}

/*
 * The keeper finds the lane led, and rests from then on: it looks at the loop no more for some 20
 * ms.
 */
static void let_the_keeper_rest(struct lane *lane)
{
	struct question leader = {.job.fn = nop, .lane = lane};
	struct question nudge = {.job.fn = nop, .lane = lane};
	uint64_t nr_answers = atomic_load(&lane->nr_answers);

	pthread_create(&leader.thread, NULL, ask_and_wait, &leader);
	wait_until(&leader.asked);
	lane_drive_post(lane->drive, &nudge.job);
	wait_until(&nudge.asked);
	poll(NULL, 0, 2);
	/* A step more, which forgets the nudge. */
	answer(lane);
	while (atomic_load(&lane->nr_answers) == nr_answers)
		sched_yield();
	lane->asker = &leader.waiter;
	answer(lane);
	pthread_join(leader.thread, NULL);
}

static void callers_that_never_wait_do_not_stop_timers(void **state)
{
	struct lane *lane = *state;
	struct ring ring = {.timer.fn = on_ring};
	struct setter setter = {.job.fn = set_timer, .lane = lane, .ring = &ring};

	for (unsigned i = 0; i < 10; i++) {
		let_the_keeper_rest(lane);
		atomic_store(&ring.rang, false);
		lane_drive_post(lane->drive, &setter.job);
		call_until(lane, &ring.rang, busy_ns() + UINT64_C(200000000));
		assert_true(atomic_load(&ring.rang));
	}
}

/* A job that comes again and again, as those of many callers do. */
struct flood {
	struct lane_job job;
	struct lane *lane;
	_Atomic bool stop, over, posted;
	pthread_t thread;
};

static void flow(struct lane_job *job)
{
	struct flood *flood = weft_container_of(job, struct flood, job);

	if (atomic_load(&flood->stop))
		atomic_store(&flood->over, true);
	else
		lane_drive_post(flood->lane->drive, job);
}

static void *post_flood(void *ctx)
{
	struct flood *flood = ctx;

	lane_drive_post(flood->lane->drive, &flood->job);
	atomic_store(&flood->posted, true);
	return NULL;
}

static bool is_set_in_time(const _Atomic bool *flag)
{
	uint64_t end_ns = weft_now_ns() + BOUND_MS * UINT64_C(1000000);

	while (!atomic_load(flag) && weft_now_ns() < end_ns)
		poll(NULL, 0, 1);
	return atomic_load(flag);
}

static void end_flood(struct flood *flood)
{
	atomic_store(&flood->stop, true);
	pthread_join(flood->thread, NULL);
	wait_until(&flood->over);
}

static void a_leader_leaves_though_jobs_keep_coming(void **state)
{
	struct flood flood = {.job.fn = flow, .lane = *state};

	pthread_create(&flood.thread, NULL, post_flood, &flood);
	bool posted = is_set_in_time(&flood.posted);
	end_flood(&flood);
	assert_true(posted);
}

static void answers_are_taken_though_jobs_keep_coming(void **state)
{
	struct flood flood = {.job.fn = flow, .lane = *state};
	struct question q = {.job.fn = ask, .lane = *state, .answer_at_once = true};

	pthread_create(&flood.thread, NULL, post_flood, &flood);
	pthread_create(&q.thread, NULL, ask_and_wait, &q);
	bool answered = is_set_in_time(&q.over);
	end_flood(&flood);
	pthread_join(q.thread, NULL);
	assert_true(answered);
}

/* A wake-up comes between two jobs, the second of which is the last that its leader does. */
struct nudge {
	struct lane_job hook, first, second;
	struct lane *lane;
	struct question *leader;
	_Atomic uint64_t woken_ns, seen_ns;
};

static void leave_after_it(struct lane_job *job)
{
	struct nudge *nudge = weft_container_of(job, struct nudge, second);

	lane_drive_tell(nudge->lane->drive, &nudge->leader->waiter);
}

static void wake_between(struct lane_job *job)
{
	struct nudge *nudge = weft_container_of(job, struct nudge, first);

	atomic_store(&nudge->woken_ns, weft_now_ns());
	weft_loop_wake(nudge->lane->loop);
	lane_drive_post(nudge->lane->drive, &nudge->second);
}

static void on_wake(void *ctx)
{
	struct nudge *nudge = ctx;

	/* The job that brings the nudge may wake as well, before it. */
	if (atomic_load(&nudge->woken_ns) != 0 && atomic_load(&nudge->seen_ns) == 0)
		atomic_store(&nudge->seen_ns, weft_now_ns());
}

static void set_hook(struct lane_job *job)
{
	struct nudge *nudge = weft_container_of(job, struct nudge, hook);

	weft_loop_on_wake(nudge->lane->loop, on_wake, nudge);
}

static void a_wake_up_between_jobs_is_not_late(void **state)
{
	struct nudge nudge = {
		.hook.fn = set_hook,
		.first.fn = wake_between,
		.second.fn = leave_after_it,
		.lane = *state,
	};
	uint64_t soonest_ns = UINT64_MAX;

	lane_drive_post(nudge.lane->drive, &nudge.hook);
	for (unsigned i = 0; i < 20; i++) {
		struct question leader = {.job.fn = nop, .lane = nudge.lane};
		uint64_t end_ns = weft_now_ns() + BOUND_MS * UINT64_C(1000000);

		let_the_keeper_rest(nudge.lane);
		atomic_store(&nudge.woken_ns, 0);
		atomic_store(&nudge.seen_ns, 0);
		nudge.leader = &leader;
		pthread_create(&leader.thread, NULL, ask_and_wait, &leader);
		wait_until(&leader.asked);
		lane_drive_post(nudge.lane->drive, &nudge.first);
		pthread_join(leader.thread, NULL);
		while (atomic_load(&nudge.seen_ns) == 0) {
			assert_true(weft_now_ns() < end_ns);
			sched_yield();
		}
		uint64_t took_ns = atomic_load(&nudge.seen_ns) - atomic_load(&nudge.woken_ns);
		soonest_ns = weft_min(soonest_ns, took_ns);
	}
	/* The keeper is called at once, and does not find out when it looks the next time. */
	assert_true(soonest_ns < UINT64_C(10000000));
}

/* ---- many threads at once ---- */

enum { CROWD = 4, ROUNDS = 2000 };

static void echo(struct lane_job *job)
{
	struct question *q = weft_container_of(job, struct question, job);

	/* Answered by the loop's next step, or told at once. */
	if (q->lane->asker)
		lane_drive_tell(q->lane->drive, &q->waiter);
	else
		ask(job);
}

static void *many_questions(void *ctx)
{
	struct lane *lane = ctx;

	for (unsigned i = 0; i < ROUNDS; i++) {
		struct question q = {.job.fn = echo, .lane = lane, .answer_at_once = true};

		lane_drive_do(lane->drive, &q.job, &q.waiter);
	}
	return NULL;
}

static void nobody_is_forgotten_in_a_crowd(void **state)
{
	pthread_t threads[CROWD];

	for (unsigned i = 0; i < CROWD; i++)
		pthread_create(&threads[i], NULL, many_questions, *state);
	for (unsigned i = 0; i < CROWD; i++)
		pthread_join(threads[i], NULL);
}

#define plain(fn) cmocka_unit_test_setup_teardown(fn, start, stop)
#define kept(fn) cmocka_unit_test_setup_teardown(fn, start_with_keeper, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		plain(who_calls_runs_the_lane),
		plain(a_leader_does_the_jobs_of_others),
		plain(who_waits_leads_after_the_leader),
		plain(a_wait_ends_with_its_time),
		plain(all_who_count_are_told),
		plain(a_leader_that_counts_is_woken_from_elsewhere),
		plain(a_leader_does_not_sleep_through_a_count),
		plain(nobody_is_forgotten_in_a_crowd),
		kept(who_calls_runs_the_lane),
		kept(the_keeper_takes_what_nobody_waits_for),
		kept(the_keeper_comes_for_a_lane_that_is_attended_to_late),
		kept(the_keeper_keeps_timers_that_callers_set),
		kept(callers_that_never_wait_do_not_stop_timers),
		kept(a_leader_leaves_though_jobs_keep_coming),
		kept(answers_are_taken_though_jobs_keep_coming),
		kept(a_wake_up_between_jobs_is_not_late),
		kept(nobody_is_forgotten_in_a_crowd),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
