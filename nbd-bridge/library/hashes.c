/* SPDX-License-Identifier: MIT */
/* Hashes of the donor's blocks, as commands of a handle; see hashes.h. */
#include "nbd-bridge/library/hashes.h"

#include "fabric/base/util.h"
#include "nbd-bridge/library/weft-private.h"

struct batch {
	struct lane_job job;
	struct lane_waiter waiter;
	struct library_lane *lane;
	void (*fn)(void *ctx);
	void *ctx;
};

bool library_can_hash(const struct weft *w, uint32_t block_bytes)
{
	return w->info.max_hash_blocks > 0 && !w->has_cache &&
		(w->nr_uris == 1 || w->stripe_bytes % block_bytes == 0);
}

int64_t library_aio_hash(struct weft *w, const struct weft_hashing *hashing, uint64_t off,
	uint64_t len, uint8_t *ret, const struct weft_completion *completion)
{
	return aio_start(w, TP_HASH, ret, off, len, hashing, completion);
}

/* On the lane's thread, in a step: what begins here is sent at the step's end. */
static void run_batch(struct lane_job *job)
{
	struct batch *batch = weft_container_of(job, struct batch, job);

	library_lane_in_completion = batch->lane;
	batch->fn(batch->ctx);
	library_lane_in_completion = NULL;
	lane_drive_tell(batch->lane->drive, &batch->waiter);
}

void library_batch(struct weft *w, void (*fn)(void *ctx), void *ctx)
{
	struct batch batch = {
		.job.fn = run_batch,
		.lane = library_lane_of_thread(w),
		.fn = fn,
		.ctx = ctx,
	};

	lane_drive_do(batch.lane->drive, &batch.job, &batch.waiter);
}
