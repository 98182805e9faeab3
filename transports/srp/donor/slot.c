/* SPDX-License-Identifier: MIT */
/*
 * Slots that wait for their turn, and their answers.
 *
 * Threads: the channel's.  Invariant: a slot is in one queue at most, and only in SRP_QUEUED or
 * SRP_FLUSHING.
 */
#include "transports/srp/donor/channel.h"

void srp_enqueue(struct srp_queue *queue, struct srp_slot *slot)
{
	slot->state = SRP_QUEUED;
	slot->next = NULL;
	if (queue->last)
		queue->last->next = slot;
	else
		queue->first = slot;
	queue->last = slot;
}

struct srp_slot *srp_dequeue(struct srp_queue *queue)
{
	struct srp_slot *slot = queue->first;

	if (!slot)
		return NULL;
	queue->first = slot->next;
	if (!queue->first)
		queue->last = NULL;
	return slot;
}

bool srp_unqueue(struct srp_queue *queue, struct srp_slot *slot)
{
	struct srp_slot *before = NULL, *at = queue->first;

	while (at && at != slot) {
		before = at;
		at = at->next;
	}
	if (!at)
		return false;
	if (before)
		before->next = slot->next;
	else
		queue->first = slot->next;
	if (queue->last == slot)
		queue->last = before;
	return true;
}

void srp_slot_answer(struct srp_channel *channel, struct srp_slot *slot)
{
	if (slot->aborted) {
		srp_post_writes(channel);
		srp_slot_drop(channel, slot);
	} else if (!srp_post_answer(channel, slot)) {
		srp_post_writes(channel);
		srp_enqueue(&channel->works, slot);
	}
}
