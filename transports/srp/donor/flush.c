/* SPDX-License-Identifier: MIT */
/*
 * Flushes of a file, on a thread of the listener's crew: a disk may take longer than an initiator
 * waits for its other commands.
 *
 * Threads: the channel's, but for flush_main().  Invariants: a slot waits in one of two queues, for
 * the flush that runs (which began after the slot had come) or for the next; one runs at a time.
 * A flush touches the region and nothing of the initiator's, so that nobody waits for it but the
 * channel's end.
 */
#include "transports/srp/donor/channel.h"

static void flush_main(void *ctx)
{
	struct srp_channel *channel = ctx;
	struct srp_listener *listener = channel->listener;
	int r = weft_region_flush(channel->region);

	/* Under the lock: the channel may be gone after it. */
	pthread_mutex_lock(&listener->acceptor.lock);
	channel->flush_result = r;
	channel->flush_ended = true;
	srp_channel_wake(channel);
	pthread_cond_broadcast(&listener->acceptor.changed);
	pthread_mutex_unlock(&listener->acceptor.lock);
}

static bool has_ended(struct srp_channel *channel)
{
	pthread_mutex_lock(&channel->listener->acceptor.lock);
	bool ended = channel->flush_ended;
	pthread_mutex_unlock(&channel->listener->acceptor.lock);
	return ended;
}

static void start(struct srp_channel *channel)
{
	if (channel->flush_runs || !channel->flushes.first)
		return;
	channel->flushing = channel->flushes;
	channel->flushes = (struct srp_queue){0};
	channel->flush_runs = true;
	channel->flush_ended = false;
	if (weft_crew_run(&channel->listener->crew, flush_main, channel) < 0)
		flush_main(channel); /* and everybody waits */
}

void srp_flush_begin(struct srp_channel *channel, struct srp_slot *slot)
{
	srp_enqueue(&channel->flushes, slot);
	slot->state = SRP_FLUSHING;
	start(channel);
}

struct srp_slot *srp_flush_take(struct srp_channel *channel, int *ret_result)
{
	if (!channel->flush_runs || !has_ended(channel))
		return NULL;
	struct srp_slot *slot = srp_dequeue(&channel->flushing);
	if (slot) {
		*ret_result = channel->flush_result;
		return slot;
	}
	channel->flush_runs = false;
	start(channel);
	return NULL;
}

void srp_flush_leave(struct srp_channel *channel, struct srp_slot *slot)
{
	if (!srp_unqueue(&channel->flushing, slot))
		srp_unqueue(&channel->flushes, slot);
}

void srp_flush_wait(struct srp_channel *channel)
{
	struct srp_listener *listener = channel->listener;

	pthread_mutex_lock(&listener->acceptor.lock);
	while (channel->flush_runs && !channel->flush_ended)
		pthread_cond_wait(&listener->acceptor.changed, &listener->acceptor.lock);
	pthread_mutex_unlock(&listener->acceptor.lock);
}
