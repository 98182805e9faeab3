/* SPDX-License-Identifier: MIT */
/*
 * Who runs the steps of a lane's loop: see drive.h.  Any thread.
 *
 * Invariants: `led` means that one thread runs the lane, and owns all fields but those under the
 * lock.  The leader does all jobs before it sleeps; a leader that leaves does them too, or wakes
 * the next leader, who does.  A waiter is listed as long as somebody else leads; it leaves the list
 * when it is told, when it becomes the leader, or when its time is over.
 */
#include "nbd-bridge/lane/drive.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "fabric/base/loop.h"
#include "fabric/base/thread.h"
#include "fabric/base/util.h"

enum {
	/*
	 * While callers come within this time the keeper sleeps.  It may also be so late for a
	 * timer.
	 */
	GRACE_MS = 20,
	FOREVER_MS = 3600 * 1000,
	/* lots of jobs, which come while others are done: a leaving leader does so many */
	LAST_LOTS = 8,
};

struct lane_drive {
	struct weft_loop *loop;
	bool (*busy)(void *ctx);
	void *busy_ctx;
	_Atomic bool attended;
	_Atomic bool asleep;      /* the leader is in its loop's step: a job has to wake it */
	_Atomic unsigned nr_counting; /* listed waiters that look at a count */
	_Atomic bool counts;          /* the leader waits for a count */
	/* callers lead, but nobody has run a step of the loop for a while */
	_Atomic bool neglected;
	struct lane_waiter *own;  /* the leader's: what it waits for; NULL: nothing */
	pthread_mutex_t lock;
	/* Under the lock. */
	pthread_cond_t keeper;
	_Atomic bool led; /* written under the lock */
	bool used;    /* somebody else than the keeper has led since the keeper looked */
	bool stepped; /* a step of the loop was begun since then */
	bool woken;   /* the loop was woken since the leader's last step began */
	bool kicked;  /* the keeper is needed at once */
	bool watches; /* the keeper sleeps until the loop's descriptor is readable … */
	uint64_t watches_until_ns; /* … or until then; 0: for ever */
	struct lane_job *jobs, **jobs_tail;
	struct lane_waiter *waiters, **waiters_tail;
};

/* Whole milliseconds until then, rounded up; -1: for ever. */
static int ms_until(uint64_t deadline_ns)
{
	uint64_t now_ns;

	if (deadline_ns == UINT64_MAX)
		return -1;
	if (deadline_ns == 0)
		return 0;
	now_ns = weft_now_ns();
	return deadline_ns <= now_ns
		? 0
		: (int)weft_min((deadline_ns - now_ns + 999999) / 1000000, FOREVER_MS);
}

static void kick_keeper(struct lane_drive *drive)
{
	drive->kicked = true;
	pthread_cond_signal(&drive->keeper);
}

/*
 * Runs inside weft_loop_wake().  A leader finds the wake-up in its next step; the keeper sees it on
 * the descriptor, if it looks there.
 */
static void on_woken(void *ctx)
{
	struct lane_drive *drive = ctx;

	pthread_mutex_lock(&drive->lock);
	drive->woken = true;
	if (!drive->led && !drive->watches)
		kick_keeper(drive);
	pthread_mutex_unlock(&drive->lock);
}

int lane_drive_new(struct weft_loop *loop, bool (*busy)(void *ctx), void *ctx,
	struct lane_drive **ret)
{
	struct lane_drive *drive = calloc(1, sizeof(*drive));

	if (!drive)
		return -ENOMEM;
	drive->loop = loop;
	drive->busy = busy;
	drive->busy_ctx = ctx;
	drive->jobs_tail = &drive->jobs;
	drive->waiters_tail = &drive->waiters;
	pthread_mutex_init(&drive->lock, NULL);
	weft_cond_init(&drive->keeper);
	weft_loop_on_woken(loop, on_woken, drive);
	*ret = drive;
	return 0;
}

void lane_drive_free(struct lane_drive *drive)
{
	if (!drive)
		return;
	pthread_cond_destroy(&drive->keeper);
	pthread_mutex_destroy(&drive->lock);
	free(drive);
}

static void wake_leader(struct lane_drive *drive)
{
	if (atomic_load(&drive->asleep))
		weft_loop_wake(drive->loop);
}

/* ---- the waiters; under the lock ---- */

static bool has_it(const struct lane_waiter *waiter)
{
	return waiter->done || (waiter->count && atomic_load(waiter->count) != waiter->seen);
}

static void list_waiter(struct lane_drive *drive, struct lane_waiter *waiter)
{
	weft_cond_init(&waiter->cond);
	waiter->listed = true;
	waiter->next = NULL;
	*drive->waiters_tail = waiter;
	drive->waiters_tail = &waiter->next;
	if (waiter->count)
		atomic_fetch_add(&drive->nr_counting, 1);
}

static void unlist_waiter(struct lane_drive *drive, struct lane_waiter *waiter)
{
	struct lane_waiter **at = &drive->waiters;

	while (*at != waiter)
		at = &(*at)->next;
	*at = waiter->next;
	if (!waiter->next)
		drive->waiters_tail = at;
	waiter->listed = false;
	if (waiter->count)
		atomic_fetch_sub(&drive->nr_counting, 1);
}

static void tell(struct lane_drive *drive, struct lane_waiter *waiter)
{
	waiter->done = true;
	if (!waiter->listed)
		return;
	unlist_waiter(drive, waiter);
	pthread_cond_signal(&waiter->cond);
}

void lane_drive_tell(struct lane_drive *drive, struct lane_waiter *waiter)
{
	if (drive->own == waiter) {
		waiter->done = true;
		return;
	}
	pthread_mutex_lock(&drive->lock);
	tell(drive, waiter);
	pthread_mutex_unlock(&drive->lock);
}

void lane_drive_counted(struct lane_drive *drive, bool here)
{
	/*
	 * The count has moved before this line.  A waiter looks at the count after it is listed, or
	 * leads.
	 */
	if (atomic_load(&drive->nr_counting) > 0) {
		pthread_mutex_lock(&drive->lock);
		for (struct lane_waiter *waiter = drive->waiters, *next; waiter; waiter = next) {
			next = waiter->next;
			if (waiter->count && has_it(waiter))
				tell(drive, waiter);
		}
		pthread_mutex_unlock(&drive->lock);
	}
	if (!here && atomic_load(&drive->counts))
		wake_leader(drive);
}

bool lane_drive_counts(const struct lane_drive *drive)
{
	return drive->own && drive->own->count;
}

bool lane_drive_is_free(const struct lane_drive *drive)
{
	return !atomic_load_explicit(&drive->led, memory_order_relaxed);
}

/* ---- the leader ---- */

static struct lane_job *take_jobs(struct lane_drive *drive)
{
	struct lane_job *jobs = drive->jobs;

	drive->jobs = NULL;
	drive->jobs_tail = &drive->jobs;
	return jobs;
}

static void do_jobs(struct lane_drive *drive, struct lane_job *job)
{
	while (job) {
		struct lane_job *next = job->next;

		job->fn(job);
		job = next;
	}
	weft_loop_finish(drive->loop);
}

/* Does the queued jobs, or if there are none a step of the loop; both if the loop is neglected. */
static void step(struct lane_drive *drive, int timeout_ms)
{
	pthread_mutex_lock(&drive->lock);
	struct lane_job *jobs = take_jobs(drive);
	bool steps = !jobs || atomic_load_explicit(&drive->neglected, memory_order_relaxed);

	if (steps) {
		drive->woken = false;
		drive->stepped = true;
		atomic_store_explicit(&drive->neglected, false, memory_order_relaxed);
	}
	atomic_store(&drive->asleep, !jobs);
	pthread_mutex_unlock(&drive->lock);
	if (jobs)
		do_jobs(drive, jobs);
	if (!steps)
		return;
	/* A count that moved before `asleep` was set has woken nobody. */
	bool waits = !jobs && !(drive->own && has_it(drive->own));
	weft_loop_step(drive->loop, waits ? timeout_ms : 0);
	atomic_store_explicit(&drive->asleep, false, memory_order_relaxed);
}

/* Makes the first waiter the leader. */
static void hand_over(struct lane_drive *drive)
{
	struct lane_waiter *next = drive->waiters;

	unlist_waiter(drive, next);
	next->leads = true;
	pthread_cond_signal(&next->cond);
}

static bool is_due_before(const struct lane_drive *drive, uint64_t until_ns)
{
	uint64_t due_ns = weft_loop_due_ns(drive->loop);

	return due_ns != 0 && (until_ns == 0 || due_ns < until_ns);
}

static void leave(struct lane_drive *drive, bool keeper)
{
	/* Calls that are answered at once need no step of the loop. */
	if (atomic_load_explicit(&drive->neglected, memory_order_relaxed))
		step(drive, 0);
	bool busy = drive->busy(drive->busy_ctx) &&
		!atomic_load_explicit(&drive->attended, memory_order_relaxed);
	bool wake = false, stopped = weft_loop_is_stopped(drive->loop);

	pthread_mutex_lock(&drive->lock);
	for (unsigned i = 0; drive->jobs && (i < LAST_LOTS || stopped); i++) {
		struct lane_job *jobs = take_jobs(drive);

		pthread_mutex_unlock(&drive->lock);
		do_jobs(drive, jobs);
		busy = true;
		stopped = weft_loop_is_stopped(drive->loop);
		pthread_mutex_lock(&drive->lock);
	}
	/* The next step may be much later. */
	weft_loop_was_now(drive->loop, 0);
	drive->used |= !keeper;
	if (drive->waiters) {
		hand_over(drive);
	} else {
		drive->led = false;
		if (drive->watches)
			wake = stopped || drive->jobs ||
				is_due_before(drive, drive->watches_until_ns);
		else if (busy || stopped || drive->jobs || drive->woken)
			kick_keeper(drive);
	}
	pthread_mutex_unlock(&drive->lock);
	if (wake)
		weft_loop_wake(drive->loop);
}

/* Leads until the waiter's wait has ended, or its time is over; then leaves. */
static bool lead(struct lane_drive *drive, struct lane_waiter *waiter, uint64_t deadline_ns)
{
	bool late = false;

	drive->own = waiter;
	if (waiter->count)
		atomic_store(&drive->counts, true);
	while (!has_it(waiter) && !late) {
		int timeout_ms = ms_until(deadline_ns);

		step(drive, timeout_ms);
		late = timeout_ms >= 0 && weft_now_ns() >= deadline_ns;
	}
	drive->own = NULL;
	if (waiter->count)
		atomic_store(&drive->counts, false);
	bool has = has_it(waiter);
	leave(drive, false);
	return has;
}

/* Waits while others lead.  Under the lock, which it releases. */
static bool follow(struct lane_drive *drive, struct lane_waiter *waiter, uint64_t deadline_ns)
{
	bool in_time = true;

	while (!waiter->leads && !has_it(waiter) && in_time)
		in_time = weft_cond_wait_until(&waiter->cond, &drive->lock, deadline_ns);
	if (waiter->listed)
		unlist_waiter(drive, waiter);
	bool leads = waiter->leads, has = has_it(waiter);
	waiter->leads = false;
	pthread_mutex_unlock(&drive->lock);
	pthread_cond_destroy(&waiter->cond);
	return leads ? lead(drive, waiter, deadline_ns) : has;
}

/*
 * True: this thread leads now.  False: another thread leads, and has the job; the waiter, if any,
 * is listed.
 */
static bool enter(struct lane_drive *drive, struct lane_job *job, struct lane_waiter *waiter)
{
	pthread_mutex_lock(&drive->lock);
	bool leads = !drive->led;
	if (leads) {
		drive->led = true;
	} else {
		job->next = NULL;
		*drive->jobs_tail = job;
		drive->jobs_tail = &job->next;
		if (waiter)
			list_waiter(drive, waiter);
	}
	pthread_mutex_unlock(&drive->lock);
	return leads;
}

void lane_drive_post(struct lane_drive *drive, struct lane_job *job)
{
	if (!enter(drive, job, NULL)) {
		wake_leader(drive);
		return;
	}
	job->next = NULL;
	do_jobs(drive, job);
	leave(drive, false);
}

void lane_drive_do(struct lane_drive *drive, struct lane_job *job, struct lane_waiter *waiter)
{
	if (enter(drive, job, waiter)) {
		drive->own = waiter;
		job->next = NULL;
		do_jobs(drive, job);
		lead(drive, waiter, UINT64_MAX);
		return;
	}
	wake_leader(drive);
	pthread_mutex_lock(&drive->lock);
	follow(drive, waiter, UINT64_MAX);
}

bool lane_drive_wait(struct lane_drive *drive, struct lane_waiter *waiter, uint64_t deadline_ns)
{
	pthread_mutex_lock(&drive->lock);
	if (!drive->led && !has_it(waiter)) {
		drive->led = true;
		pthread_mutex_unlock(&drive->lock);
		return lead(drive, waiter, deadline_ns);
	}
	list_waiter(drive, waiter);
	return follow(drive, waiter, deadline_ns);
}

void lane_drive_attend(struct lane_drive *drive)
{
	if (!atomic_load_explicit(&drive->attended, memory_order_relaxed))
		atomic_store_explicit(&drive->attended, true, memory_order_relaxed);
}

/* ---- the keeper; under the lock ---- */

/* True: callers look after the lane, and the keeper has slept for a while. */
static bool rest(struct lane_drive *drive)
{
	if (!drive->led && (drive->kicked || !drive->used))
		return false;
	/* A leader that is asleep is in a step. */
	if (!drive->stepped && !atomic_load(&drive->asleep))
		atomic_store_explicit(&drive->neglected, true, memory_order_relaxed);
	drive->used = drive->stepped = false;
	if (drive->led)
		drive->kicked = false; /* the leader kicks again, if it has to, when it leaves */
	const uint64_t end_ns = weft_now_ns() + GRACE_MS * UINT64_C(1000000);
	while (!drive->kicked && weft_cond_wait_until(&drive->keeper, &drive->lock, end_ns))
		;
	return true;
}

/* Sleeps until the lane has something to do. */
static void watch(struct lane_drive *drive)
{
	uint64_t due_ns = weft_loop_due_ns(drive->loop);
	struct pollfd p = {.fd = weft_loop_fd(drive->loop), .events = POLLIN};

	drive->kicked = false;
	drive->watches = true;
	drive->watches_until_ns = due_ns;
	pthread_mutex_unlock(&drive->lock);
	poll(&p, 1, due_ns == 0 ? -1 : ms_until(due_ns));
	pthread_mutex_lock(&drive->lock);
	drive->watches = false;
}

void lane_drive_keep(struct lane_drive *drive)
{
	pthread_mutex_lock(&drive->lock);
	while (drive->led || !weft_loop_is_stopped(drive->loop)) {
		if (rest(drive))
			continue;
		if (!drive->jobs)
			watch(drive);
		if (drive->led)
			continue;
		drive->led = true;
		/* The leader's next step must not be for jobs alone. */
		atomic_store_explicit(&drive->neglected, true, memory_order_relaxed);
		pthread_mutex_unlock(&drive->lock);
		step(drive, 0);
		/* The caller that was to take the answers was late. */
		atomic_store_explicit(&drive->attended, false, memory_order_relaxed);
		leave(drive, true);
		pthread_mutex_lock(&drive->lock);
	}
	pthread_mutex_unlock(&drive->lock);
}
