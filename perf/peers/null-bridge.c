/* SPDX-License-Identifier: MIT */
/*
 * null-bridge SOCKET BYTES LANES: the bridge with nothing behind it, its region in its own memory
 * (the transport `mem`, which completes at once).  What a client's latency at it is, is the
 * front-end's share.  Ends with the standard input.
 */
#include <err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "fabric/base/util.h"
#include "nbd-bridge/front/front.h"
#include "perf/harness/mem-bridge.h"

static void on_input(struct weft_watch *watch, uint32_t events)
{
	exit(0);
}

int main(int argc, char **argv)
{
	static struct mem_config mem;
	struct bridge_config config = perf_mem_bridge(&mem);
	struct weft_watch input = {.fd = 0, .fn = on_input};
	struct bridge_front *front;
	struct weft_error error;
	struct bridge *bridge;
	struct weft_loop *loop;

	if (argc != 4)
		errx(2, "usage: null-bridge SOCKET BYTES LANES");
	mem.size_bytes = strtoull(argv[2], NULL, 10);
	mem.base = calloc(1, mem.size_bytes); /* one for all lanes */
	if (!mem.base)
		errx(1, "out of memory");
	config.nr_lanes = (unsigned)atoi(argv[3]);
	weft_random(config.attach.id, sizeof(config.attach.id));
	int r = weft_loop_new(&loop);
	if (r == 0)
		r = weft_loop_add(loop, &input, EPOLLIN);
	if (r < 0)
		errx(1, "%s", strerror(-r));
	if (bridge_new(&config, &bridge, &error) < 0 || bridge_start(bridge, &error) < 0 ||
		bridge_front_nbd_new(bridge, loop, argv[1], NULL, &front, &error) < 0)
		errx(1, "%s", error.message);
	weft_loop_run(loop);
	return 0;
}
