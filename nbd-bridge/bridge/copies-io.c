/* SPDX-License-Identifier: MIT */
/* Requests of the keeper's to single donors, and waiting for them. */
#include <errno.h>
#include <string.h>

#include "fabric/base/thread.h"
#include "nbd-bridge/bridge/bridge-private.h"
#include "nbd-bridge/bridge/copies-private.h"

enum { LOOK_MS = 20, CUT_MS = 1000 };

static void io_done(struct bridge_request *rq, int error)
{
	struct copies_io *io = weft_container_of(rq, struct copies_io, rq);
	struct bridge_copies *copies = io->copies;

	pthread_mutex_lock(&copies->lock);
	io->error = error;
	io->done = true;
	pthread_cond_broadcast(&copies->changed);
	pthread_mutex_unlock(&copies->lock);
}

static void submit(struct bridge_lane *lane, void *ctx)
{
	struct copies_io *io = ctx;

	lane_submit_at(lane, &io->rq, io->donor);
}

void copies_io_start(struct bridge_copies *copies, struct copies_io *io, unsigned donor,
	uint8_t kind, uint64_t off, uint64_t len, void *buf)
{
	io->copies = copies;
	io->donor = donor;
	io->done = false;
	io->rq = (struct bridge_request){.kind = kind,
		.off = off,
		.len = len,
		.buf = buf,
		.mem = copies->mem,
		.hashing = kind == TP_HASH ? &io->hashing : NULL,
		.done = io_done};
	bridge_lane_run(copies->bridge->lanes.lane[0], submit, io);
}

/* Memory of its own: a write that waits for the answer may have all that the lane has. */
static uint8_t *answer_of(struct bridge_copies *copies, unsigned donor)
{
	return copies->memory + COPIES_ANSWERS + donor * WEFT_COPIES_BYTES;
}

void copies_ask_start(struct bridge_copies *copies, struct copies_io *io, unsigned donor,
	const struct weft_copies_asked *asked)
{
	weft_copies_ask_pack(asked, &io->hashing);
	copies_io_start(copies, io, donor, TP_HASH, 0,
		WEFT_COPIES_BLOCKS * WEFT_HASH_BLOCK_MIN, answer_of(copies, donor));
}

/* The donor does not answer: whatever was asked over this connection ends with it. */
static void cut(struct bridge_lane *lane, void *ctx)
{
	const struct copies_io *io = ctx;

	link_renounce(lane_link(lane, io->donor), "a question about the copies was not answered");
}

int copies_io_wait(struct bridge_copies *copies, struct copies_io *io, bool tends)
{
	uint64_t cut_ns = weft_now_ns() + copies->lost_ns;

	pthread_mutex_lock(&copies->lock);
	while (!io->done) {
		uint64_t now_ns = weft_now_ns();

		weft_cond_wait_until(&copies->changed, &copies->lock,
			now_ns + LOOK_MS * UINT64_C(1000000));
		if (io->done)
			break;
		pthread_mutex_unlock(&copies->lock);
		if (tends)
			copies->tend(copies);
		if (weft_now_ns() > cut_ns) {
			bridge_lane_run(copies->bridge->lanes.lane[0], cut, io);
			cut_ns = weft_now_ns() + CUT_MS * UINT64_C(1000000);
		}
		pthread_mutex_lock(&copies->lock);
	}
	pthread_mutex_unlock(&copies->lock);
	return io->error;
}

int copies_ask_wait(struct bridge_copies *copies, struct copies_io *io,
	struct weft_copies_answer *ret)
{
	int r = copies_io_wait(copies, io, false);

	if (r < 0)
		return r;
	return weft_copies_answer_unpack(answer_of(copies, io->donor), ret) ? 0 : -EPROTO;
}

int copies_ask(struct bridge_copies *copies, unsigned donor, const struct weft_copies_asked *asked,
	struct weft_copies_answer *ret)
{
	struct copies_io io;

	copies_ask_start(copies, &io, donor, asked);
	return copies_ask_wait(copies, &io, ret);
}

void copies_wait(struct bridge_copies *copies, unsigned ms)
{
	const uint64_t end_ns = weft_now_ns() + ms * UINT64_C(1000000);

	pthread_mutex_lock(&copies->lock);
	while (!copies->kicked && !copies->ending &&
		weft_cond_wait_until(&copies->changed, &copies->lock, end_ns))
		;
	copies->kicked = false;
	pthread_mutex_unlock(&copies->lock);
}

bool copies_is_ending(struct bridge_copies *copies)
{
	pthread_mutex_lock(&copies->lock);
	bool ending = copies->ending;
	pthread_mutex_unlock(&copies->lock);
	return ending;
}

bool copies_is_given_up(const struct bridge_copies *copies)
{
	const struct bridge *bridge = copies->bridge;

	return !copies->started && bridge->config.given_up &&
		bridge->config.given_up(bridge->config.given_up_ctx);
}

void copies_kick(void *ctx)
{
	struct bridge_copies *copies = ctx;

	if (!copies)
		return;
	pthread_mutex_lock(&copies->lock);
	copies->kicked = true;
	pthread_cond_broadcast(&copies->changed);
	pthread_mutex_unlock(&copies->lock);
}
