/* SPDX-License-Identifier: MIT */
/*
 * A lane that its callers drive themselves: a thread that wants something done takes the lane, runs
 * steps of its loop until it is done, and leaves.  So a request costs no hop to another thread.
 * While a thread has taken the lane it is "the lane's thread", and leads it; only one does at a
 * time.
 *
 * Whoever finds the lane led hands its job to the leader, and waits.  A leader that leaves makes
 * one of those who wait the next leader.  The lane's own thread is the keeper: it looks after the
 * lane when nobody else does, so that heartbeats are sent, connections come back, and answers are
 * taken that nobody waits for.  While callers come again and again the keeper sleeps, so that an
 * answer wakes one thread and not two.
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
 * Something to be done on the lane's thread, once.  The caller fills fn and keeps it in place until
 * fn was called.
 */
struct lane_job {
	void (*fn)(struct lane_job *job);
	struct lane_job *next; /* private */
};

/*
 * A thread that waits; on its stack.  Zero, or with count and seen: then it also has what it waits
 * for as soon as *count, which only lane_drive_counted() is told of, differs from seen.
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
 * busy: the leader's, when it leaves: whether the lane has something in flight, which the keeper
 * then looks after.  0, or -ENOMEM.
 */
int lane_drive_new(struct weft_loop *loop, bool (*busy)(void *ctx), void *ctx,
	struct lane_drive **ret);
/* Takes NULL.  No thread uses it any more. */
void lane_drive_free(struct lane_drive *drive);

/*
 * The lane's drive; NULL: it has its own thread, as a bridge's usually have (bridge_config.driven).
 */
struct lane_drive *bridge_lane_drive(struct bridge_lane *lane);

/* The keeper: returns once the loop was stopped. */
void lane_drive_keep(struct lane_drive *drive);

/*
 * Has the job done: here, before it returns, if nobody leads the lane; or else by whoever leads it.
 * What the job queued is sent as well.  Never blocks for long.
 */
void lane_drive_post(struct lane_drive *drive, struct lane_job *job);
/* The same, and returns when the waiter was told. */
void lane_drive_do(struct lane_drive *drive, struct lane_job *job, struct lane_waiter *waiter);
/*
 * Leads the lane, or waits for whoever does, until the waiter is told or its count has moved
 * (true), or until deadline_ns of weft_now_ns() (false; UINT64_MAX: there is none; 0: one step at
 * most).
 */
bool lane_drive_wait(struct lane_drive *drive, struct lane_waiter *waiter, uint64_t deadline_ns);

/* The lane's thread: the waiter has what it waits for, and may be gone when this returns. */
void lane_drive_tell(struct lane_drive *drive, struct lane_waiter *waiter);
/* The count that waiters of this lane look at has moved.  here: this is the lane's thread. */
void lane_drive_counted(struct lane_drive *drive, bool here);
/* The lane's thread: whether it waits for a count itself. */
bool lane_drive_counts(const struct lane_drive *drive);

/* Whether nobody leads the lane; a moment later somebody may. */
bool lane_drive_is_free(const struct lane_drive *drive);

/*
 * Somebody takes the lane's answers when there are some (weft_loop_fd()), so that the keeper leaves
 * what is in flight to them.  It does so until they were late.
 */
void lane_drive_attend(struct lane_drive *drive);

#endif
