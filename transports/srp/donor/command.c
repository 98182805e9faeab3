/* SPDX-License-Identifier: MIT */
/*
 * Commands: from the IU to the answer.  fabric/scsi says what a command does to the medium, and we
 * move the bytes: straight between the region and the initiator's buffers.
 *
 * Threads: the channel's.
 */
#include <errno.h>
#include <string.h>

#include "fabric/base/log.h"
#include "transports/srp/donor/channel.h"

#define SLICE_BYTES (4 * WEFT_MIB) /* of work at the region, so that others go on */

/* Its own thread alone changes a channel's counts. */
static void add(_Atomic uint64_t *to, uint64_t n)
{
	atomic_store_explicit(to, atomic_load_explicit(to, memory_order_relaxed) + n,
		memory_order_relaxed);
}

static void count(struct srp_channel *channel, const struct srp_slot *slot)
{
	const struct scsi_command *cmd = &slot->cmd;
	struct srp_counts *counts = &channel->counts;

	add(&counts->commands, 1);
	if (cmd->status == SCSI_GOOD && slot->kind == SCSI_DO_READ)
		add(&counts->read_bytes, cmd->len);
	if (cmd->status == SCSI_GOOD && slot->kind == SCSI_DO_WRITE)
		add(&counts->written_bytes, cmd->len);
	if (cmd->status == SCSI_CHECK_CONDITION)
		add(&counts->by_key[cmd->key & 15], 1);
}

static void go_on(struct srp_channel *channel, struct srp_slot *slot);

/* What the command was to do is done, or not. */
static void end(struct srp_channel *channel, struct srp_slot *slot, int error)
{
	if (error == -EIO && atomic_load(&channel->region->lost))
		scsi_unit_lose(&channel->member.nexus->unit->scsi);
	scsi_command_end(&slot->cmd, error);
	count(channel, slot);
	slot->decided = true;
	srp_slot_answer(channel, slot);
}

static uint8_t *at(struct srp_channel *channel, uint64_t off)
{
	return weft_region_memory(channel->region) + off;
}

/* How much of `max` from off on is in the same chunk, whose key is *ret_lkey. */
static uint64_t in_chunk(const struct srp_channel *channel, uint64_t off, uint64_t max,
	uint32_t *ret_lkey)
{
	uint64_t chunk_bytes = channel->listener->units.chunk_bytes;

	*ret_lkey = channel->lkeys[off / chunk_bytes];
	return weft_min(max, chunk_bytes - off % chunk_bytes);
}

/* Where the next bytes of the slot's data are here. */
static void *here(struct srp_channel *channel, struct srp_slot *slot, uint64_t max,
	uint64_t *ret_len, uint32_t *ret_lkey)
{
	const struct scsi_command *cmd = &slot->cmd;

	if (cmd->kind == SCSI_DO_READ || cmd->kind == SCSI_DO_WRITE) {
		*ret_len = in_chunk(channel, cmd->off + slot->done, max, ret_lkey);
		return at(channel, cmd->off + slot->done);
	}
	*ret_len = max;
	*ret_lkey = channel->mr->lkey;
	return srp_slot_data(channel, srp_slot_number(channel, slot)) +
		(slot->done - slot->compared);
}

static uint64_t total_of(const struct scsi_command *cmd)
{
	return cmd->kind == SCSI_DO_SEND || cmd->kind == SCSI_DO_FETCH ? cmd->data_bytes
								       : cmd->len;
}

static void read_table(struct srp_channel *channel, struct srp_slot *slot)
{
	struct srp_buffer piece;

	srp_walk_piece(&slot->walk, &piece);
	slot->state = SRP_TABLE_IN;
	srp_post_read(channel, slot, srp_slot_table(channel, srp_slot_number(channel, slot)),
		channel->mr->lkey, &piece, true);
}

static bool may_read(const struct srp_channel *channel)
{
	return channel->nr_reads < channel->max_reads && channel->nr_moves > 0;
}

/* To the initiator: WRITEs, and the answer behind the last. */
static void push(struct srp_channel *channel, struct srp_slot *slot)
{
	uint64_t total = total_of(&slot->cmd), len;
	struct srp_buffer part;
	uint32_t lkey;
	int r = 0;

	while (slot->done < total && srp_writes_room(channel) > 0) {
		void *from = here(channel, slot, total - slot->done, &len, &lkey);

		r = srp_walk_next(&slot->walk, len, &part);
		if (r < 0)
			break;
		srp_post_write(channel, from, lkey, &part);
		slot->done += part.len;
	}
	if (r == -EPROTO || slot->done == total) {
		end(channel, slot, r == -EPROTO ? -ECONNABORTED : 0);
		return;
	}
	srp_post_writes(channel);
	if (r == -EAGAIN && may_read(channel))
		read_table(channel, slot);
	else
		srp_enqueue(r == -EAGAIN ? &channel->pulls : &channel->pushes, slot);
}

/* Before its answer what the region has now has to be in the file. */
static bool is_durable(const struct srp_channel *channel, const struct srp_slot *slot)
{
	return (slot->cmd.kind == SCSI_DO_FLUSH || slot->cmd.fua) &&
		channel->member.nexus->unit->scsi.config.write_cache;
}

/* All of the data is here. */
static void pulled(struct srp_channel *channel, struct srp_slot *slot)
{
	struct scsi_command *cmd = &slot->cmd;

	if (cmd->kind == SCSI_DO_FETCH) {
		scsi_command_fetched(cmd, slot->immediate
				? slot->immediate
				: srp_slot_data(channel, srp_slot_number(channel, slot)));
		slot->done = 0;
		go_on(channel, slot);
		return;
	}
	if (!is_durable(channel, slot)) {
		end(channel, slot, 0);
		return;
	}
	srp_slot_note_write(channel, slot);
	srp_flush_begin(channel, slot);
}

/* The next bytes of a VERIFY are here: true: it goes on with more. */
static bool compare(struct srp_channel *channel, struct srp_slot *slot, const uint8_t *theirs)
{
	struct scsi_command *cmd = &slot->cmd;
	const uint8_t *ours = at(channel, cmd->off + slot->compared);
	uint64_t len = slot->done - slot->compared, same = 0;

	if (memcmp(ours, theirs, len) != 0) {
		while (same < len && ours[same] == theirs[same])
			same++;
		if (same < len) {
			scsi_command_miscompare(cmd, slot->compared + same);
			count(channel, slot);
			slot->decided = true;
			srp_slot_answer(channel, slot);
			return false;
		}
	}
	slot->compared = slot->done;
	if (slot->done < cmd->len)
		return true;
	end(channel, slot, 0);
	return false;
}

static void take_immediate(struct srp_channel *channel, struct srp_slot *slot)
{
	struct scsi_command *cmd = &slot->cmd;
	uint64_t total = total_of(cmd);

	slot->done = total;
	if (cmd->kind == SCSI_DO_WRITE)
		memcpy(at(channel, cmd->off), slot->immediate, total);
	if (cmd->kind == SCSI_DO_COMPARE)
		compare(channel, slot, slot->immediate);
	else
		pulled(channel, slot);
}

static void moved(struct srp_channel *channel, struct srp_slot *slot);

/* From the initiator: READs, and then what the data is for. */
static void pull(struct srp_channel *channel, struct srp_slot *slot)
{
	struct scsi_command *cmd = &slot->cmd;
	uint64_t total = total_of(cmd), until = total, len;
	struct srp_buffer part;
	uint32_t lkey;
	int r = 0;

	if (cmd->kind == SCSI_DO_COMPARE)
		until = weft_min(total, slot->compared + SCSI_DATA_BYTES);
	while (slot->done < until && may_read(channel)) {
		void *to = here(channel, slot, until - slot->done, &len, &lkey);

		r = srp_walk_next(&slot->walk, len, &part);
		if (r < 0)
			break;
		srp_post_read(channel, slot, to, lkey, &part, false);
		slot->done += part.len;
	}
	if (r == -EPROTO)
		slot->failed = true;
	if (r == -EAGAIN && may_read(channel))
		read_table(channel, slot);
	else if (slot->failed || slot->done == until)
		slot->state = SRP_MOVING;
	else
		srp_enqueue(&channel->pulls, slot);
	if (slot->state == SRP_MOVING && slot->nr_out == 0)
		moved(channel, slot);
}

/* No READ of the slot's is in flight, and no more were to be posted. */
static void moved(struct srp_channel *channel, struct srp_slot *slot)
{
	if (slot->failed)
		end(channel, slot, -ECONNABORTED);
	else if (slot->cmd.kind != SCSI_DO_COMPARE)
		pulled(channel, slot);
	else if (compare(channel, slot,
			 srp_slot_data(channel, srp_slot_number(channel, slot))))
		pull(channel, slot);
}

static void read_in(struct srp_channel *channel, struct srp_slot *slot, bool table)
{
	if (slot->aborted) {
		/* In a queue it is found there. */
		if (slot->nr_out == 0 && slot->state != SRP_QUEUED)
			srp_slot_drop(channel, slot);
		return;
	}
	if (table) {
		srp_walk_pieced(
			&slot->walk, srp_slot_table(channel, srp_slot_number(channel, slot)));
		go_on(channel, slot);
		return;
	}
	if (slot->state == SRP_MOVING && slot->nr_out == 0)
		moved(channel, slot);
}

/* The block that was fetched, all over the slice. */
static void same(struct srp_channel *channel, const struct scsi_command *cmd, uint64_t off,
	uint64_t len)
{
	uint8_t *to = at(channel, off);

	for (uint64_t i = 0; i < len; i += SCSI_BLOCK_BYTES)
		memcpy(to + i, cmd->list, SCSI_BLOCK_BYTES);
	if (channel->region->backing == WEFT_BACKING_FILE)
		weft_region_changed(channel->region, off, len);
}

static int unmap(struct srp_channel *channel, const struct scsi_command *cmd)
{
	uint64_t off, len;

	for (unsigned i = 0; i < cmd->nr_extents; i++) {
		scsi_command_extent(cmd, i, &off, &len);
		weft_region_trim(channel->region, off, len);
	}
	return 0;
}

/* A slice of the command's work in memory.  1: there is more; 0, -errno: it has ended. */
static int work_slice(struct srp_channel *channel, struct srp_slot *slot)
{
	struct scsi_command *cmd = &slot->cmd;
	uint64_t off = cmd->off + slot->done, len;
	int r;

	switch (cmd->kind) {
	case SCSI_DO_ZERO:
	case SCSI_DO_SAME:
		len = weft_min(cmd->len - slot->done, SLICE_BYTES);
		/* No holes: the pages are registered. */
		r = cmd->kind == SCSI_DO_ZERO
			? weft_region_zero(channel->region, off, len, false, false) : 0;
		if (r < 0)
			return r;
		if (cmd->kind == SCSI_DO_SAME)
			same(channel, cmd, off, len);
		slot->done += len;
		return slot->done < cmd->len;
	case SCSI_DO_UNMAP:
		return unmap(channel, cmd);
	default: /* FLUSH */
		return 0;
	}
}

static void work(struct srp_channel *channel, struct srp_slot *slot)
{
	/* The initiator waits for us. */
	weft_grant_touch(channel->grant, UINT64_MAX);
	int r = work_slice(channel, slot);
	weft_grant_touch(channel->grant, weft_now_ns());
	if (r > 0)
		srp_enqueue(&channel->works, slot);
	else if (r == 0 && is_durable(channel, slot))
		srp_flush_begin(channel, slot);
	else
		end(channel, slot, r);
}

static void go_on(struct srp_channel *channel, struct srp_slot *slot)
{
	switch (slot->cmd.kind) {
	case SCSI_DO_END:
		count(channel, slot);
		slot->decided = true;
		srp_slot_answer(channel, slot);
		break;
	case SCSI_DO_SEND:
	case SCSI_DO_READ:
		push(channel, slot);
		break;
	case SCSI_DO_FETCH:
	case SCSI_DO_WRITE:
	case SCSI_DO_COMPARE:
		if (slot->immediate)
			take_immediate(channel, slot);
		else
			pull(channel, slot);
		break;
	case SCSI_DO_ABORT:
		srp_task_of_command(channel, slot);
		break;
	default:
		srp_enqueue(&channel->works, slot);
	}
}

static void begin(struct srp_channel *channel, struct srp_slot *slot, const struct srp_cmd *iu)
{
	struct scsi_command *cmd = &slot->cmd;
	struct scsi_request rq = {
		.cdb = iu->cdb,
		.cdb_bytes = iu->cdb_bytes,
		.lun = iu->lun,
		.in_bytes = iu->in.len,
		.out_bytes = iu->out.len,
	};

	slot->tag = iu->tag;
	slot->notify_good = iu->notify_good;
	slot->notify_bad = iu->notify_bad;
	scsi_command_begin(cmd, &channel->member.nexus->scsi, &rq,
		srp_slot_data(channel, srp_slot_number(channel, slot)));
	slot->kind = cmd->kind;
	bool in = cmd->kind == SCSI_DO_SEND || cmd->kind == SCSI_DO_READ;
	bool out = cmd->kind == SCSI_DO_FETCH || cmd->kind == SCSI_DO_WRITE ||
		cmd->kind == SCSI_DO_COMPARE;
	const struct srp_data *data = in ? &iu->in : out ? &iu->out : NULL;
	slot->immediate = data ? data->immediate : NULL;
	if (data && !data->immediate && srp_walk_begin(&slot->walk, data) < 0)
		end(channel, slot, -ECONNABORTED);
	else
		go_on(channel, slot);
}

static void received(struct srp_channel *channel, struct srp_slot *slot, uint32_t len)
{
	struct srp_iu iu;

	if (srp_unpack_from_initiator(srp_slot_iu(channel, srp_slot_number(channel, slot)), len,
		    channel->immediate_off, &iu) < 0) {
		weft_debug("%s sent what is no request of SRP", channel->peer.text);
		channel->over = true;
		return;
	}
	/* Not free, although nothing is on its way: a WRITE may have all of its data. */
	slot->state = SRP_MOVING;
	slot->aborted = slot->failed = slot->decided = false;
	slot->is_task = slot->has_code = slot->of_command = false;
	slot->done = slot->compared = 0;
	slot->nr_out = 0;
	switch (iu.type) {
	case SRP_CMD:
		begin(channel, slot, &iu.cmd);
		break;
	case SRP_TSK_MGMT:
		slot->tag = iu.task.tag;
		slot->notify_good = iu.task.notify_good;
		slot->notify_bad = iu.task.notify_bad;
		srp_task_begin(channel, slot, &iu.task);
		break;
	default: /* a logout, or what answers requests that we did not send */
		channel->clean = iu.type == SRP_I_LOGOUT;
		channel->over = true;
	}
}

const struct srp_completion_ops srp_command_ops = {.received = received, .read = read_in};

/* One that waited for its turn: dropped if it was aborted meanwhile. */
static bool goes_on(struct srp_channel *channel, struct srp_slot *slot)
{
	if (!slot->aborted)
		return true;
	slot->state = SRP_MOVING;
	if (slot->nr_out == 0)
		srp_slot_drop(channel, slot);
	return false;
}

/* Each that is in the queue now gets one turn at most. */
static void run(struct srp_channel *channel, struct srp_queue *queue,
	bool (*may)(const struct srp_channel *channel),
	void (*turn)(struct srp_channel *channel, struct srp_slot *slot))
{
	struct srp_slot *last = queue->last, *slot;

	while (last && may(channel) && (slot = srp_dequeue(queue))) {
		if (goes_on(channel, slot))
			turn(channel, slot);
		if (slot == last)
			break;
	}
}

static bool may_push(const struct srp_channel *channel)
{
	return channel->nr_moves > 0;
}

static bool may_work(const struct srp_channel *channel)
{
	return channel->nr_free_answers > 0;
}

static void turn_to_work(struct srp_channel *channel, struct srp_slot *slot)
{
	if (slot->decided || slot->is_task)
		srp_slot_answer(channel, slot);
	else
		work(channel, slot);
}

bool srp_channel_run(struct srp_channel *channel)
{
	struct srp_slot *flushed;
	int result;

	while ((flushed = srp_flush_take(channel, &result)))
		end(channel, flushed, result);
	run(channel, &channel->pushes, may_push, go_on);
	run(channel, &channel->pulls, may_read, go_on);
	run(channel, &channel->works, may_work, turn_to_work);
	return (channel->pushes.first && may_push(channel)) ||
		(channel->pulls.first && may_read(channel)) ||
		(channel->works.first && may_work(channel));
}
