/* SPDX-License-Identifier: MIT */
/* On the test's thread, but for what a lane calls. */
#include "tests/support/bridge-io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "nbd-bridge/cache/file.h"
#include "transports/mem/mem.h"

enum { WAIT_MS = 60000 };

struct bridge *bridge;

void mem_config_init(struct mem_config *mem, void *base, uint64_t size_bytes)
{
	memset(mem, 0, sizeof(*mem));
	mem->base = base;
	mem->size_bytes = size_bytes;
	mem->epoch = 42;
}

struct weft_donor *lend_memory(uint64_t size_bytes, uint32_t lease_ms, struct weft_region **ret)
{
	struct weft_memory_spec spec = {.name = "r", .size_bytes = size_bytes};
	struct weft_donor_config config = {.offers = "mem", .lease_ms = lease_ms};
	struct weft_donor *donor;

	assert_int_equal(weft_region_new_memory(&spec, NULL, NULL, ret, NULL), 0);
	assert_int_equal(weft_donor_new(&config, &donor), 0);
	assert_int_equal(weft_donor_add(donor, *ret, NULL), 0);
	return donor;
}

struct bridge_config bridge_config_for_tests(struct mem_config *mem)
{
	struct bridge_config config = {
		.attach =
			{
				.name = "test",
				.mode = WEFT_MODE_WRITE,
				.timeout_ms = 10000,
				.dead_timeout_ms = 10000,
				.connect_timeout_ms = 5000,
			},
		.nr_lanes = 2,
	};

	if (!mem)
		return config;
	config.attach.transport = &tp_mem_ops;
	config.attach.transport_config = mem;
	config.attach.host = "";
	config.attach.region = "r";
	config.attach.generation = UINT64_C(1) << 32;
	weft_random(config.attach.id, sizeof(config.attach.id));
	return config;
}

struct bridge_cache_config cache_config_in_file(struct cache_file *file, uint64_t bytes,
	uint64_t chunk_bytes, uint32_t push_interval_ms)
{
	return (struct bridge_cache_config){
		.uri = "weft://test/r",
		.bytes = bytes,
		.chunk_bytes = chunk_bytes,
		.push_interval_ms = push_interval_ms,
		.file = file,
		.resume = cache_file_dirty_bytes(file) > 0,
	};
}

void bridge_begin(const struct bridge_config *config)
{
	struct weft_error err = {0};

	if (bridge_new(config, &bridge, &err) < 0 || bridge_start(bridge, &err) < 0)
		fail_msg("cannot start: %s", err.message);
}

void fill_pattern(uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(i * 2654435761u >> 13);
}

static void io_done(struct bridge_request *rq, int error)
{
	struct io *io = weft_container_of(rq, struct io, rq);

	if (io->to && error == 0)
		memcpy(io->to, rq->lent ? rq->lent : rq->buf, rq->len);
	bridge_lane_give_back(io->lane, rq);
	if (rq->buf)
		bridge_lane_buffer_put(io->lane, rq->buf);
	io->error = error;
	atomic_store(&io->finished, true);
}

static void io_submit(struct bridge_lane *lane, void *ctx)
{
	struct io *io = ctx;

	io->lane = lane;
	if (io->rq.kind == TP_READ || io->rq.kind == TP_WRITE) {
		assert_int_equal(bridge_lane_buffer_get(lane, io->rq.len, &io->waiter, &io->rq.buf,
					 &io->rq.mem),
			0);
		if (io->from)
			memcpy(io->rq.buf, io->from, io->rq.len);
	}
	io->rq.may_lend = !io->copied;
	io->rq.done = io_done;
	bridge_lane_submit(lane, &io->rq);
}

void io_start(struct io *io, unsigned lane)
{
	bridge_lane_run(bridge_lane(bridge, lane), io_submit, io);
}

int io_wait(struct io *io)
{
	uint64_t end = weft_now_ns() + WAIT_MS * UINT64_C(1000000);

	while (!atomic_load(&io->finished)) {
		if (weft_now_ns() > end)
			fail_msg("a request was not answered");
		usleep(200);
	}
	return io->error;
}

static int run(unsigned lane, struct io *io)
{
	io_start(io, lane);
	return io_wait(io);
}

int do_write(unsigned lane, uint64_t off, const void *data, uint64_t len, uint8_t flags)
{
	struct io io = {.rq = {.kind = TP_WRITE, .flags = flags, .off = off, .len = len},
		.from = data};

	return run(lane, &io);
}

int do_read(unsigned lane, uint64_t off, void *data, uint64_t len)
{
	struct io io = {.rq = {.kind = TP_READ, .off = off, .len = len}, .to = data};

	return run(lane, &io);
}

int do_flush(unsigned lane)
{
	struct io io = {.rq = {.kind = TP_FLUSH}};

	return run(lane, &io);
}

int do_range(unsigned lane, uint8_t kind, uint64_t off, uint64_t len, uint8_t flags)
{
	struct io io = {.rq = {.kind = kind, .flags = flags, .off = off, .len = len}};

	return run(lane, &io);
}

uint64_t cache_number_of(const char *part, const char *key)
{
	json_t *status = bridge_status(bridge), *of = json_object_get(status, "cache");
	uint64_t number;

	if (part)
		of = json_object_get(of, part);
	number = (uint64_t)json_integer_value(json_object_get(of, key));
	json_decref(status);
	return number;
}

uint64_t cache_number(const char *key)
{
	return cache_number_of(NULL, key);
}

const char *status_text(const char *key, char *buf, size_t len)
{
	json_t *status = bridge_status(bridge);
	const char *text = json_string_value(json_object_get(status, key));

	snprintf(buf, len, "%s", text ? text : "");
	json_decref(status);
	return buf;
}

void wait_for_text(const char *key, const char *want)
{
	uint64_t end = weft_now_ns() + WAIT_MS * UINT64_C(1000000);
	char now[64];

	while (strcmp(status_text(key, now, sizeof(now)), want) != 0) {
		if (weft_now_ns() > end)
			fail_msg("waited for %s '%s', it is '%s'", key, want, now);
		usleep(1000);
	}
}

void wait_for_state(const char *want)
{
	wait_for_text("state", want);
}

void wait_for_connects(const struct mem_config *mem, unsigned nr)
{
	uint64_t end = weft_now_ns() + WAIT_MS * UINT64_C(1000000);
	uint64_t enough = atomic_load(&mem->nr_connects) + nr;

	while (atomic_load(&mem->nr_connects) < enough) {
		if (weft_now_ns() > end)
			fail_msg("nobody asks for a connection");
		usleep(1000);
	}
}
