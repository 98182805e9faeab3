/* SPDX-License-Identifier: MIT */
/*
 * A queue of a ublk device.  Everything here runs on its lane's thread, except making and freeing
 * it.
 *
 * A step of the lane's loop takes the requests that the kernel has handed over; the lane posts them
 * together.  A completed request is answered by a command that also fetches the tag's next request.
 * All commands of a step are submitted by the system call in which the lane waits for the next one,
 * or before the lane spins.
 *
 * A READ's data are copied by the kernel when it takes the answer, out of the buffer that the
 * answer names.  A WRITE comes without its data: it gets a buffer, and the kernel is told to copy
 * into that (NEED_GET_DATA).  So a buffer is taken when there is a request for it, not for each
 * tag, and no system call is made for one request alone.
 */
#include "nbd-bridge/device/ublk-queue.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/probe.h"
#include "fabric/base/util.h"

#define RETRY_NS 1000000

static void send_command(struct ublk_tag *tag)
{
	struct ublk_queue *queue = tag->queue;
	struct io_uring_sqe *sqe = bridge_ring_queue(queue->config.ring, &tag->op);

	io_uring_prep_rw(IORING_OP_URING_CMD, sqe, queue->config.cdev, NULL, 0, 0);
	sqe->cmd_op = tag->cmd_op;
	memcpy((char *)sqe + offsetof(struct io_uring_sqe, cmd), &tag->cmd, sizeof(tag->cmd));
	bridge_lane_defer(queue->config.lane, &queue->submit);
}

static void command(struct ublk_tag *tag, uint32_t op, int result, const void *buf)
{
	tag->cmd_op = op;
	tag->cmd = (struct ublksrv_io_cmd){
		.q_id = tag->queue->config.index,
		.tag = tag->index,
		.result = result,
		.addr = (uintptr_t)buf,
	};
	send_command(tag);
}

static void put_buffer(struct ublk_tag *tag)
{
	bridge_lane_give_back(tag->queue->config.lane, &tag->rq);
	if (tag->rq.buf)
		bridge_lane_buffer_put(tag->queue->config.lane, tag->rq.buf);
	tag->rq.buf = NULL;
}

static void list_answered(struct ublk_tag *tag)
{
	struct ublk_queue *queue = tag->queue;

	tag->answered = true;
	tag->next = queue->answered;
	queue->answered = tag;
	bridge_ring_note(queue->config.ring, &queue->submitted);
}

/* The result for the kernel, which hands over the tag's next request in return. */
static void answer(struct ublk_tag *tag, int result)
{
	struct ublk_queue *queue = tag->queue;

	if (!queue->serving) {
		put_buffer(tag);
		return;
	}
	/* For a READ the kernel wants an address even if it failed. */
	command(tag, UBLK_U_IO_COMMIT_AND_FETCH_REQ, result,
		tag->rq.lent          ? tag->rq.lent
			: tag->rq.buf ? tag->rq.buf
				      : (const void *)queue->descs);
	WEFT_PROBE(sent, &tag->rq);
	if (tag->rq.buf)
		list_answered(tag);
}

static void unlist_answered(struct ublk_tag *tag)
{
	struct ublk_tag **lists[] = {&tag->queue->answered, &tag->queue->taken};

	for (unsigned i = 0; i < WEFT_ARRAY_LEN(lists); i++)
		for (struct ublk_tag **at = lists[i]; *at; at = &(*at)->next)
			if (*at == tag) {
				*at = tag->next;
				tag->answered = false;
				return;
			}
}

static void put_taken(struct ublk_queue *queue)
{
	while (queue->taken) {
		struct ublk_tag *tag = queue->taken;

		queue->taken = tag->next;
		tag->answered = false;
		put_buffer(tag);
	}
}

static void request_done(struct bridge_request *rq, int error)
{
	struct ublk_tag *tag = weft_container_of(rq, struct ublk_tag, rq);
	bool moves = rq->kind == TP_READ || rq->kind == TP_WRITE;

	tag->submitted = false;
	tag->queue->nr_submitted--;
	if (tag->refused)
		put_buffer(tag);
	else
		answer(tag, error < 0 ? error : moves ? (int)rq->len : 0);
	if (tag->queue->freed && tag->queue->nr_submitted == 0)
		free(tag->queue);
}

/* Fails the tag's present request, even if the lane still has an earlier one of this tag. */
static void refuse(struct ublk_tag *tag)
{
	if (tag->submitted)
		tag->refused = true;
	else
		put_buffer(tag);
	command(tag, UBLK_U_IO_COMMIT_AND_FETCH_REQ, -EIO, tag->queue->descs);
}

static void submit(struct ublk_tag *tag)
{
	tag->submitted = true;
	tag->queue->nr_submitted++;
	bridge_lane_submit(tag->queue->config.lane, &tag->rq);
}

/* A READ or WRITE goes on once there is a buffer for it; false: there is none yet. */
static bool take_buffer(struct ublk_tag *tag)
{
	struct ublk_queue *queue = tag->queue;
	struct bridge_request *rq = &tag->rq;
	int r = bridge_lane_buffer_get(queue->config.lane, rq->len, &queue->waiter, &rq->buf,
		&rq->mem);

	assert(r == 0 || r == -EAGAIN); /* no request is larger than the pool's largest buffer */
	if (r < 0)
		return false;
	if (rq->kind == TP_READ) {
		submit(tag);
	} else {
		tag->waits_for_data = true;
		command(tag, UBLK_U_IO_NEED_GET_DATA, 0, rq->buf);
	}
	return true;
}

static void wait_for_buffer(struct ublk_tag *tag)
{
	struct ublk_queue *queue = tag->queue;

	tag->next = NULL;
	*queue->waiting_tail = tag;
	queue->waiting_tail = &tag->next;
}

static void on_buffer(struct bridge_waiter *waiter)
{
	struct ublk_queue *queue = weft_container_of(waiter, struct ublk_queue, waiter);

	while (queue->waiting) {
		struct ublk_tag *tag = queue->waiting, *next = tag->next;

		if (!take_buffer(tag))
			return;
		queue->waiting = next;
		if (!next)
			queue->waiting_tail = &queue->waiting;
	}
}

/* Reads the kernel's request.  0; -EINVAL: a kind that we did not offer. */
static int read_desc(struct ublk_tag *tag)
{
	const struct ublk_queue *queue = tag->queue;
	const struct ublksrv_io_desc *desc = &queue->descs[tag->index];
	const uint64_t size_bytes = queue->config.size_bytes;
	struct bridge_request *rq = &tag->rq;

	rq->flags = 0;
	rq->off = desc->start_sector << 9;
	rq->len = (uint64_t)desc->nr_sectors << 9;
	switch (ublksrv_get_op(desc)) {
	case UBLK_IO_OP_READ:
		rq->kind = TP_READ;
		break;
	case UBLK_IO_OP_WRITE:
		rq->kind = TP_WRITE;
		break;
	case UBLK_IO_OP_FLUSH:
		rq->kind = TP_FLUSH;
		rq->off = rq->len = 0;
		return 0;
	case UBLK_IO_OP_DISCARD:
		rq->kind = TP_TRIM;
		break;
	case UBLK_IO_OP_WRITE_ZEROES:
		rq->kind = TP_ZERO;
		if (desc->op_flags & UBLK_IO_F_NOUNMAP)
			rq->flags |= TP_NO_HOLE;
		break;
	default:
		return -EINVAL;
	}
	if (rq->kind != TP_READ && (desc->op_flags & UBLK_IO_F_FUA))
		rq->flags |= TP_FUA;
	if (rq->len == 0 || rq->off > size_bytes || rq->len > size_bytes - rq->off)
		return -EINVAL;
	if ((rq->kind == TP_READ || rq->kind == TP_WRITE) && rq->len > UBLK_MAX_IO_BYTES)
		return -EINVAL;
	return 0;
}

/* Tells the control thread that the kernel sends no more requests. */
static void tell_gone(struct ublk_queue *queue)
{
	const struct bridge_config *config = bridge_config_of(queue->config.bridge);

	if (!atomic_exchange(queue->config.gone, true) && config->attach.changed)
		config->attach.changed(config->attach.changed_ctx);
}

/* A command failed: the kernel was out of memory for it, or something is wrong with the device. */
static void command_failed(struct ublk_tag *tag, int result)
{
	struct ublk_queue *queue = tag->queue;

	if (result == -ENOMEM || result == -EAGAIN || result == -EINTR) {
		tag->again = true;
		/* An answer's buffer is kept until it has been taken. */
		if (tag->answered) {
			unlist_answered(tag);
			tag->answered = true;
		}
		weft_loop_timer_set(bridge_lane_loop(queue->config.lane), &queue->retry, RETRY_NS);
		return;
	}
	if (queue->error == 0 && queue->began)
		weft_err("queue %u of the device is lost: %s", queue->config.index,
			strerror(-result));
	queue->error = result;
	if (queue->began)
		tell_gone(queue);
}

static void on_retry(struct weft_timer *timer)
{
	struct ublk_queue *queue = weft_container_of(timer, struct ublk_queue, retry);

	for (unsigned i = 0; i < queue->config.depth; i++) {
		struct ublk_tag *tag = &queue->tags[i];

		if (!tag->again)
			continue;
		tag->again = false;
		send_command(tag);
		if (tag->answered)
			list_answered(tag);
	}
}

/* A tag comes back from the kernel. */
static void take(struct bridge_ring_op *op, int result)
{
	struct ublk_tag *tag = weft_container_of(op, struct ublk_tag, op);
	struct bridge_request *rq = &tag->rq;

	if (!tag->queue->serving)
		return;
	if (result < 0 && result != UBLK_IO_RES_ABORT) {
		command_failed(tag, result);
		return;
	}
	if (tag->answered) {
		unlist_answered(tag);
		put_buffer(tag);
	}
	const bool has_data = tag->waits_for_data && result == UBLK_IO_RES_OK;
	/* The same request comes again if the kernel could not copy the data. */
	if (tag->waits_for_data && !has_data)
		put_buffer(tag);
	tag->waits_for_data = false;
	if (result == UBLK_IO_RES_ABORT) {
		tell_gone(tag->queue);
		return;
	}
	if (tag->queue->aborted) {
		refuse(tag);
		return;
	}
	if (has_data) {
		/* Fewer bytes if the kernel was out of memory: then it asks for the rest again. */
		rq->len =
			weft_min(rq->len, (uint64_t)tag->queue->descs[tag->index].nr_sectors << 9);
		submit(tag);
		return;
	}
	if (read_desc(tag) < 0)
		answer(tag, -EIO);
	else if (rq->kind != TP_READ && rq->kind != TP_WRITE)
		submit(tag);
	else if (!take_buffer(tag))
		wait_for_buffer(tag);
}

/* The kernel has copied the answers' data, except of answers that it is about to refuse. */
static void on_submitted(struct bridge_ring_note *note)
{
	struct ublk_queue *queue = weft_container_of(note, struct ublk_queue, submitted);

	while (queue->answered) {
		struct ublk_tag *tag = queue->answered;

		queue->answered = tag->next;
		tag->next = queue->taken;
		queue->taken = tag;
	}
	bridge_lane_defer(queue->config.lane, &queue->submit);
}

static void on_submit(struct weft_deferred *deferred)
{
	struct ublk_queue *queue = weft_container_of(deferred, struct ublk_queue, submit);

	put_taken(queue);
	/* A lane that does not spin waits next, and that submits. */
	if (bridge_lane_spins(queue->config.lane))
		bridge_ring_submit_and_reap(queue->config.ring);
}

static size_t descs_bytes(unsigned depth)
{
	return weft_whole_pages(depth * sizeof(struct ublksrv_io_desc));
}

int ublk_queue_new(const struct ublk_queue_config *config, struct ublk_queue **ret,
	struct weft_error *err)
{
	struct ublk_queue *queue =
		calloc(1, sizeof(*queue) + config->depth * sizeof(queue->tags[0]));

	if (!queue)
		return weft_error_set(err, ENOMEM, "cannot make a queue: out of memory");
	queue->config = *config;
	queue->waiting_tail = &queue->waiting;
	queue->submitted.fn = on_submitted;
	queue->submit.fn = on_submit;
	queue->retry.fn = on_retry;
	queue->waiter.fn = on_buffer;
	for (unsigned i = 0; i < config->depth; i++) {
		queue->tags[i].queue = queue;
		queue->tags[i].index = (uint16_t)i;
		queue->tags[i].rq.done = request_done;
		queue->tags[i].rq.may_lend = true;
		queue->tags[i].op.fn = take;
	}
	void *descs = mmap(NULL, descs_bytes(config->depth), PROT_READ, MAP_SHARED | MAP_POPULATE,
		config->cdev,
		(off_t)(UBLKSRV_CMD_BUF_OFFSET +
			config->index * descs_bytes(UBLK_MAX_QUEUE_DEPTH)));
	if (descs == MAP_FAILED) {
		int r = weft_error_set(err, errno, "cannot map queue %u: %s", config->index,
			strerror(errno));

		free(queue);
		return r;
	}
	queue->descs = descs;
	*ret = queue;
	return 0;
}

int ublk_queue_begin(struct ublk_queue *queue, struct weft_error *err)
{
	queue->serving = true;
	for (unsigned i = 0; i < queue->config.depth; i++)
		command(&queue->tags[i], UBLK_U_IO_FETCH_REQ, 0, queue->descs);
	/*
	 * A fetch that is refused is answered at once; no other is, as the device is not started.
	 */
	int r = bridge_ring_submit_and_reap(queue->config.ring);
	if (queue->error < 0)
		r = queue->error;
	queue->began = r == 0;
	return r < 0 ? weft_error_set(err, -r, "the kernel does not let queue %u be served: %s",
			       queue->config.index, strerror(-r))
		     : 0;
}

void ublk_queue_abort(struct ublk_queue *queue)
{
	struct bridge_lane *lane = queue->config.lane;

	if (queue->aborted || !queue->serving)
		return;
	queue->aborted = true;
	bridge_lane_waiter_cancel(lane, &queue->waiter);
	while (queue->waiting) {
		struct ublk_tag *tag = queue->waiting;

		queue->waiting = tag->next;
		refuse(tag);
	}
	queue->waiting_tail = &queue->waiting;
	for (unsigned i = 0; i < queue->config.depth; i++) {
		struct ublk_tag *tag = &queue->tags[i];

		if (!tag->submitted)
			continue;
		bridge_lane_orphan(lane, &tag->rq);
		refuse(tag);
	}
}

void ublk_queue_end(struct ublk_queue *queue)
{
	struct bridge_lane *lane = queue->config.lane;

	if (!queue->serving)
		return;
	queue->serving = false;
	bridge_lane_waiter_cancel(lane, &queue->waiter);
	bridge_lane_defer_cancel(lane, &queue->submit);
	weft_loop_timer_cancel(bridge_lane_loop(lane), &queue->retry);
	bridge_ring_note_cancel(queue->config.ring, &queue->submitted);
	for (unsigned i = 0; i < queue->config.depth; i++)
		if (!queue->tags[i].submitted)
			put_buffer(&queue->tags[i]);
	/* A mapping keeps the device as well. */
	if (queue->descs)
		munmap((void *)(uintptr_t)queue->descs, descs_bytes(queue->config.depth));
	queue->descs = NULL;
}

void ublk_queue_free(struct ublk_queue *queue)
{
	if (!queue)
		return;
	queue->freed = true;
	if (queue->nr_submitted == 0) {
		free(queue);
		return;
	}
	for (unsigned i = 0; i < queue->config.depth; i++)
		if (queue->tags[i].submitted)
			bridge_lane_orphan(queue->config.lane, &queue->tags[i].rq);
}
