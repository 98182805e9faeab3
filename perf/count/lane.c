/* SPDX-License-Identifier: MIT */
/*
 * A bridge's lane: requests are split, posted to the transport mem in a batch, and completed.  The
 * lane's thread is this one.
 */
#include <err.h>
#include <string.h>

#include "fabric/base/util.h"
#include "perf/count/count.h"
#include "perf/harness/mem-bridge.h"

static unsigned nr_done;

static void done(struct bridge_request *rq, int error)
{
	if (error < 0)
		errx(1, "a request failed: %s", strerror(-error));
	nr_done++;
}

__attribute__((noinline)) void weft_counted_lane(struct bridge_lane *lane,
	struct bridge_request *requests, bool write, unsigned batch);

void weft_counted_lane(struct bridge_lane *lane, struct bridge_request *requests, bool write,
	unsigned batch)
{
	for (unsigned op = 0; op < COUNT_OPS; op += batch) {
		nr_done = 0;
		for (unsigned i = 0; i < batch; i++) {
			struct bridge_request *rq = &requests[i];
			void *buf = rq->buf;
			struct tp_mem *mem = rq->mem;

			*rq = (struct bridge_request){.kind = write ? TP_WRITE : TP_READ,
				.len = COUNT_BYTES,
				.buf = buf,
				.mem = mem,
				.off = (op + i) % (COUNT_REGION / COUNT_BYTES) * COUNT_BYTES,
				.done = done};
			bridge_lane_submit(lane, rq);
		}
		/* The first step posts, at its end; another one takes the completions. */
		while (nr_done < batch)
			weft_loop_step(bridge_lane_loop(lane), 0);
	}
}

void count_lane(bool write, unsigned batch)
{
	static struct mem_config mem = {.size_bytes = COUNT_REGION};
	struct bridge_config config = perf_mem_bridge(&mem);
	struct bridge_request requests[COUNT_MAX_BATCH] = {0};
	struct bridge_waiter waiter = {0};
	struct weft_error error;
	struct bridge *bridge;

	if (bridge_new(&config, &bridge, &error) < 0)
		errx(1, "%s", error.message);
	struct bridge_lane *lane = bridge_lane(bridge, 0);
	lane_start_links(lane);
	while (!lane_is_ready(lane))
		weft_loop_step(bridge_lane_loop(lane), 0);
	for (unsigned i = 0; i < batch; i++)
		if (bridge_lane_buffer_get(lane, COUNT_BYTES, &waiter, &requests[i].buf,
			    &requests[i].mem) < 0)
			errx(1, "no buffer");
	weft_counted_lane(lane, requests, write, batch);
}
