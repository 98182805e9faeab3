/* SPDX-License-Identifier: MIT */
/* On the test's thread. */
#include "tests/support/cache-bridge.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"

struct mem_config mem;
struct bridge_config config;
uint8_t *region;
uint8_t old[4 * CHUNK], new[4 * CHUNK], got[4 * CHUNK];

int cache_set_up(void **state)
{
	region = malloc(REGION);
	for (size_t i = 0; i < REGION; i++)
		region[i] = (uint8_t)(i * 2654435761u >> 11);
	memcpy(old, region, sizeof(old));
	for (size_t i = 0; i < sizeof(new); i++)
		new[i] = (uint8_t)~old[i];
	mem_config_init(&mem, region, REGION);
	config = bridge_config_for_tests(&mem);
	config.cache.bytes = 32 * CHUNK;
	config.cache.chunk_bytes = CHUNK;
	config.cache.push_interval_ms = NEVER_MS;
	config.cache.pull_workers = 4;
	return 0;
}

int cache_tear_down(void **state)
{
	atomic_store(&mem.hold, false);
	bridge_free(bridge);
	bridge = NULL;
	free(region);
	return 0;
}

void start(void)
{
	bridge_begin(&config);
}

void start_io(struct io *io, unsigned lane, uint8_t kind, uint64_t off, uint64_t len,
	const void *from, void *to)
{
	*io = (struct io){.rq = {.kind = kind, .off = off, .len = len},
		.from = from,
		.to = to,
		.copied = true};
	io_start(io, lane);
}

int read_got(unsigned lane, uint64_t off, uint64_t len)
{
	struct io io;

	memset(got, 0xee, sizeof(got));
	start_io(&io, lane, TP_READ, off, len, NULL, got);
	return io_wait(&io);
}

void wait_for_ops(uint64_t nr)
{
	uint64_t end = weft_now_ns() + WAIT_MS * UINT64_C(1000000);

	while (atomic_load(&mem.nr_ops) < nr) {
		if (weft_now_ns() > end)
			fail_msg("no operation was posted");
		usleep(200);
	}
}
