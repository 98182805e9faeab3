/* SPDX-License-Identifier: MIT */
/*
 * Task management: what ends commands of this channel, and of others.
 *
 * Threads: the channel's.  Invariant: an answer says that nothing of the commands concerned is in
 * flight any more: the initiator's memory is used for something else at once.
 */
#include <errno.h>

#include "transports/srp/donor/channel.h"

static bool function_of(uint8_t function, enum scsi_function *ret)
{
	switch (function) {
	case SRP_ABORT_TASK:
		*ret = SCSI_ABORT_TASK;
		return true;
	case SRP_ABORT_TASK_SET:
		*ret = SCSI_ABORT_TASK_SET;
		return true;
	case SRP_CLEAR_TASK_SET:
		*ret = SCSI_CLEAR_TASK_SET;
		return true;
	case SRP_LUN_RESET:
		*ret = SCSI_LOGICAL_UNIT_RESET;
		return true;
	case SRP_CLEAR_ACA:
		*ret = SCSI_CLEAR_ACA;
		return true;
	default:
		return false;
	}
}

static void answer_code(struct srp_channel *channel, struct srp_slot *slot, uint8_t code)
{
	slot->has_code = true;
	slot->code = code;
	srp_slot_answer(channel, slot);
}

/* One in a queue is found there, and one that waits for READs by their completions. */
static void mark(struct srp_channel *channel, struct srp_slot *slot)
{
	if (slot->aborted || slot->state == SRP_FREE || slot->is_task)
		return;
	/* A flush that goes on does nothing that an aborted one might not have done. */
	if (slot->state == SRP_FLUSHING) {
		srp_flush_leave(channel, slot);
		srp_slot_drop(channel, slot);
		return;
	}
	slot->aborted = true;
	channel->nr_aborted++;
	if (slot->nr_out == 0 && slot->state != SRP_QUEUED)
		srp_slot_drop(channel, slot);
}

static void wait_for(struct srp_channel *channel, struct srp_slot *slot, uint64_t slots)
{
	struct srp_unit *unit = channel->member.nexus->unit;

	slot->state = SRP_WAITING;
	slot->is_task = true;
	slot->wish_slots = slots;
	slot->deadline_ns = weft_now_ns() + SRP_ABORT_MS * UINT64_C(1000000);
	slot->wish = 0;
	pthread_mutex_lock(&channel->listener->units.lock);
	channel->member.nr_waiting++;
	pthread_mutex_unlock(&channel->listener->units.lock);
	if (slots)
		slot->wish = srp_unit_ask(&channel->listener->units, unit, slots);
}

void srp_task_begin(struct srp_channel *channel, struct srp_slot *slot,
	const struct srp_task *task)
{
	enum scsi_function function;
	uint64_t slots = 0;

	slot->is_task = true;
	int r = function_of(task->function, &function)
		? scsi_function_begin(&channel->member.nexus->scsi, function, task->lun, &slots)
		: -EOPNOTSUPP;
	if (r < 0) {
		answer_code(channel, slot,
			r == -EOPNOTSUPP ? SRP_RSP_NOT_SUPPORTED : SRP_RSP_FAILED);
		return;
	}
	slot->function = (uint8_t)function;
	if (function != SCSI_ABORT_TASK) {
		wait_for(channel, slot, slots);
		return;
	}
	/* Tags are the channel's.  One that is not there was answered. */
	for (unsigned i = 0; i < SRP_DEPTH; i++)
		if (channel->slots[i].tag == task->task_tag)
			mark(channel, &channel->slots[i]);
	wait_for(channel, slot, 0);
	slot->wish = channel->nr_posted;
}

void srp_task_of_command(struct srp_channel *channel, struct srp_slot *slot)
{
	slot->of_command = true;
	wait_for(channel, slot, slot->cmd.abort_slots);
}

/* Marks what has to end, once for each wish, and says when it has. */
static void look_at_wishes(struct srp_channel *channel)
{
	uint64_t asked = atomic_load(&channel->member.asked);

	if (asked != channel->marked) {
		for (unsigned i = 0; i < SRP_DEPTH; i++)
			mark(channel, &channel->slots[i]);
		channel->marked = asked;
		channel->marked_posted = channel->nr_posted;
	}
	if (channel->met != channel->marked && channel->nr_aborted == 0 &&
		channel->nr_completed >= channel->marked_posted) {
		channel->met = channel->marked;
		srp_unit_met(&channel->listener->units, &channel->member, channel->met);
	}
}

static bool is_over(struct srp_channel *channel, const struct srp_slot *slot, bool late)
{
	if (slot->wish_slots)
		return srp_unit_is_met(&channel->listener->units, channel->member.nexus->unit,
			slot->wish_slots, slot->wish, late);
	if (channel->nr_aborted == 0 && channel->nr_completed >= slot->wish)
		return true;
	channel->over |= late;
	return false;
}

static void look_at(struct srp_channel *channel, struct srp_slot *slot, uint64_t now_ns)
{
	if (!is_over(channel, slot, now_ns >= slot->deadline_ns))
		return;
	pthread_mutex_lock(&channel->listener->units.lock);
	channel->member.nr_waiting--;
	pthread_mutex_unlock(&channel->listener->units.lock);
	if (slot->of_command) {
		scsi_command_end(&slot->cmd, 0);
		srp_slot_answer(channel, slot);
		return;
	}
	scsi_function_end(&channel->member.nexus->scsi, (enum scsi_function)slot->function);
	answer_code(channel, slot, SRP_RSP_GOOD);
}

void srp_channel_look_at_tasks(struct srp_channel *channel)
{
	uint64_t now_ns;

	look_at_wishes(channel);
	if (channel->member.nr_waiting == 0)
		return;
	now_ns = weft_now_ns();
	for (unsigned i = 0; i < SRP_DEPTH; i++)
		if (channel->slots[i].state == SRP_WAITING)
			look_at(channel, &channel->slots[i], now_ns);
}
