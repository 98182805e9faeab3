/* SPDX-License-Identifier: MIT */
/*
 * A lane that its callers drive themselves: a thread that wants a job done takes the lane, runs
 * steps of its loop until the job is done, and leaves.  So a request costs no hop to another
 * thread. A thread that has taken the lane is "the lane's thread", and its leader; there is one at
 * a time.
 *
 * A thread that finds the lane led hands its job to the leader, and waits.  A leader that leaves
 * makes one of the waiting threads the next leader.  The lane's own thread is the keeper.  When no
 * caller leads, the keeper sends heartbeats, brings connections back, and takes answers that nobody
 * waits for.  While callers come again and again the keeper sleeps, so that an answer wakes one
 * thread and not two.
 *
 * Threads: any, unless a comment says otherwise.
 */
#ifndef WEFT_NBD_BRIDGE_LANE_DRIVE_H
#define WEFT_NBD_BRIDGE_LANE_DRIVE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct bridge_lane;
struct lane_drive;
struct weft_loop;

/*
 * Something to be done on the lane's thread, once.  The caller fills fn and keeps the job in place
 * until fn was called.
 */
struct lane_job {
	void (*fn)(struct lane_job *job);
	struct lane_job *next; /* private */
};

/*
 * A thread that waits; lies on its stack.  All zeros, or with count and seen set: then its wait
 * also ends when *count differs from seen.  Whoever changes *count calls lane_drive_counted().
 */
struct lane_waiter {
	const _Atomic uint64_t *count; /* NULL: it waits for lane_drive_tell() alone */
	uint64_t seen;
	/* Private. */
	bool done, leads, listed;
	pthread_cond_t cond;
	struct lane_waiter *next;
};

/*
 * busy: a leader that leaves asks whether the lane has something in flight, which the keeper then
 * looks after.  0, or -ENOMEM.
 */
int lane_drive_new(struct weft_loop *loop, bool (*busy)(void *ctx), void *ctx,
	struct lane_drive **ret);
/* No thread uses the drive any more.  Takes NULL. */
void lane_drive_free(struct lane_drive *drive);

/*
 * The lane's drive; NULL: only the lane's own thread runs it, as in most bridges
 * (bridge_config.driven).
 */
struct lane_drive *bridge_lane_drive(struct bridge_lane *lane);

/* The keeper: returns once the loop was stopped. */
void lane_drive_keep(struct lane_drive *drive);

/*
 * Runs the job on this thread, before it returns, if nobody leads the lane; otherwise the leader
 * runs the job.  All that the job queued is sent as well.  Never blocks for long.
 */
void lane_drive_post(struct lane_drive *drive, struct lane_job *job);
/* The same, but returns when the waiter was told. */
void lane_drive_do(struct lane_drive *drive, struct lane_job *job, struct lane_waiter *waiter);
/*
 * Leads the lane, or waits while another thread leads, until the waiter is told or its count has
 * moved (true), or until deadline_ns of weft_now_ns() (false; UINT64_MAX: no deadline; 0: one step
 * at most).
 */
bool lane_drive_wait(struct lane_drive *drive, struct lane_waiter *waiter, uint64_t deadline_ns);

/* The lane's thread: ends the waiter's wait.  The waiter may be gone when this returns. */
void lane_drive_tell(struct lane_drive *drive, struct lane_waiter *waiter);
/* The count that waiters of this lane look at has moved.  here: this is the lane's thread. */
void lane_drive_counted(struct lane_drive *drive, bool here);
/* The lane's thread: whether this thread itself waits for a count. */
bool lane_drive_counts(const struct lane_drive *drive);

/* Whether nobody leads the lane at this moment. */
bool lane_drive_is_free(const struct lane_drive *drive);

/*
 * Tells the keeper that a caller takes the lane's answers when there are some (weft_loop_fd()).
 * The keeper then leaves to the caller what is in flight, until the caller is late once.
 */
void lane_drive_attend(struct lane_drive *drive);

#endif
