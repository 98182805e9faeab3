/* A lane that its callers drive: who runs its loop, and that nobody is forgotten. */
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
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
	atomic_store(&lane->answered_by, pthread_self());
	atomic_store(&lane->busy, false);
	atomic_fetch_add(&lane->nr_answers, n);
	lane_drive_counted(lane->drive, true);
	if (lane->asker)
		lane_drive_tell(lane->drive, lane->asker);
	lane->asker = NULL;
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
	struct question leader = {.job.fn = ask, .lane = *state}, other = {.job.fn = nop, .lane = *state};

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
	struct question first = {.job.fn = ask, .lane = *state}, second = {.job.fn = ask, .lane = *state};

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
		plain(nobody_is_forgotten_in_a_crowd),
		kept(who_calls_runs_the_lane),
		kept(the_keeper_takes_what_nobody_waits_for),
		kept(the_keeper_comes_for_a_lane_that_is_attended_to_late),
		kept(the_keeper_keeps_timers_that_callers_set),
		kept(nobody_is_forgotten_in_a_crowd),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
