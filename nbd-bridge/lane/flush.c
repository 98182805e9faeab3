/* SPDX-License-Identifier: MIT */
/*
 * FLUSH where the donor learns of a connection's writes by that connection alone: then a lane with
 * a FLUSH first has every other lane that wrote flush.
 *
 * Each lane's thread calls these for its own lane.  A visit is a FLUSH that a lane carries out for
 * others; a ticket is one lane's question for a visit.  Invariants: a lane's nr_written counts a
 * write before its sender learns of the completion.  nr_flushed is the nr_written with which the
 * last successful visit began.  So a lane where both are equal has nothing for a FLUSH to cover.
 */
#include <stdatomic.h>

#include "nbd-bridge/lane/lane-private.h"

static void push(struct request_list *list, struct bridge_request *rq)
{
	rq->lane.listed = true;
	rq->lane.next = NULL;
	*list->tail = rq;
	list->tail = &rq->lane.next;
}

static void list_init(struct request_list *list)
{
	list->head = NULL;
	list->tail = &list->head;
}

static struct bridge_request *take_all(struct request_list *list)
{
	struct bridge_request *first = list->head;

	list_init(list);
	return first;
}

/* One FLUSH answers all tickets so far. */
static void start_visit(struct bridge_lane *lane)
{
	struct lane_flush *flush = &lane->flush;

	if (flush->visiting || atomic_load(&flush->nr_asked) == atomic_load(&flush->nr_answered))
		return;
	flush->visiting = true;
	flush->visit_answers = atomic_load(&flush->nr_asked);
	flush->visit_covers = atomic_load(&flush->nr_written);
	flush->visit.kind = TP_FLUSH;
	lane_begin(lane, &flush->visit);
	int r = lane_admit(lane, &flush->visit);
	if (r > 0 && lane->attachment->info.can_flush)
		lane_backlog(lane, &flush->visit);
	else
		lane_settle(lane, &flush->visit, r < 0 ? r : 0);
}

static void visit_done(struct bridge_request *rq, int error)
{
	struct bridge_lane *lane = weft_container_of(rq, struct bridge_lane, flush.visit);
	struct lane_flush *flush = &lane->flush;
	struct bridge_lanes *lanes = lane->lanes;

	if (error == 0) {
		atomic_store(&flush->nr_flushed, flush->visit_covers);
	} else {
		atomic_store(&flush->error, error);
		atomic_store(&flush->failed, flush->visit_answers);
	}
	atomic_store(&flush->nr_answered, flush->visit_answers);
	flush->visiting = false;
	for (unsigned i = 0; i < lanes->nr; i++)
		if (atomic_load(&lanes->lane[i]->flush.waiting))
			weft_loop_wake(lanes->lane[i]->worker.loop);
	if (atomic_load(&flush->nr_asked) != flush->visit_answers)
		weft_loop_wake(lane->worker.loop);
}

void lane_flush_init(struct bridge_lane *lane)
{
	list_init(&lane->flush.next);
	list_init(&lane->flush.round);
	lane->flush.visit.done = visit_done;
	lane->flush.visit.lane.internal = true;
}

static void end_round(struct bridge_lane *lane, int error)
{
	struct bridge_request *rq = take_all(&lane->flush.round);

	lane->flush.in_round = false;
	atomic_store(&lane->flush.waiting, false);
	while (rq) {
		struct bridge_request *next = rq->lane.next;

		rq->lane.listed = false;
		if (error < 0)
			lane_settle(lane, rq, error);
		else
			lane_backlog(lane, rq);
		rq = next;
	}
}

/* Asks every other lane that wrote; with none to ask the round is over at once. */
static void start_round(struct bridge_lane *lane)
{
	struct lane_flush *flush = &lane->flush;
	struct bridge_lanes *lanes = lane->lanes;
	bool any = false;

	if (flush->in_round || !flush->next.head)
		return;
	flush->in_round = true;
	atomic_store(&flush->waiting, true); /* before the first is asked, who may answer at once */
	for (struct bridge_request *rq = take_all(&flush->next), *next; rq; rq = next) {
		next = rq->lane.next;
		push(&flush->round, rq);
	}
	for (unsigned i = 0; i < lanes->nr; i++) {
		struct bridge_lane *other = lanes->lane[i];

		flush->tickets[i] = 0;
		if (other == lane ||
			atomic_load(&other->flush.nr_written) ==
				atomic_load(&other->flush.nr_flushed))
			continue;
		flush->tickets[i] = atomic_fetch_add(&other->flush.nr_asked, 1) + 1;
		weft_loop_wake(other->worker.loop);
		any = true;
	}
	if (!any)
		end_round(lane, 0);
}

static void look_at_round(struct bridge_lane *lane)
{
	struct lane_flush *flush = &lane->flush;
	struct bridge_lanes *lanes = lane->lanes;
	int error = 0;

	if (!flush->in_round)
		return;
	for (unsigned i = 0; i < lanes->nr; i++) {
		struct lane_flush *other = &lanes->lane[i]->flush;

		if (flush->tickets[i] > atomic_load(&other->nr_answered))
			return;
		/* A later visit may have failed, not ours: then this FLUSH fails needlessly. */
		if (flush->tickets[i] > 0 && atomic_load(&other->failed) >= flush->tickets[i])
			error = atomic_load(&other->error);
	}
	end_round(lane, error);
}

void lane_flush(struct bridge_lane *lane, struct bridge_request *rq)
{
	push(&lane->flush.next, rq);
	start_round(lane);
}

void lane_flush_look(struct bridge_lane *lane)
{
	start_visit(lane);
	look_at_round(lane);
	start_round(lane);
}

struct bridge_request *lane_flush_take_waiting(struct bridge_lane *lane)
{
	struct bridge_request *first = take_all(&lane->flush.next), **end = &first;

	while (*end)
		end = &(*end)->lane.next;
	*end = take_all(&lane->flush.round);
	return first;
}
