/*
 * A managed bridge against a plain array: random requests on several lanes at once, while the mem transport delays,
 * reorders, fails, holds and kills.  A seed names a run: WEFT_SEED; WEFT_OPS says how many requests.
 *
 * Requests that overlap are never in flight together unless both are READs, so that each READ has one right
 * answer.  A byte whose last WRITE failed, or that was trimmed, is unknown until it is written again.
 * Now and then everything stops: after a FLUSH the donor's memory must be the array.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/util.h"
#include "nbd-bridge/bridge.h"
#include "nbd-bridge/cache-file.h"
#include "transports/mem/mem.h"

enum {
	REGION = (4 << 20) + 1000, /* the last block is a part of one */
	CHUNK = 64 << 10,
	LANES = 3,
	DEPTH = 8, /* in flight on each */
	LEN_MAX = 200 << 10,
	ROUND = 2000, /* requests between two stops */
	WAIT_MS = 60000,
};

struct op {
	struct bridge_request rq;
	struct bridge_waiter waiter;
	struct bridge_deferred deferred;
	struct bridge_lane *lane;
	unsigned index;
	bool in_flight;
	bool may_fail; /* faults were about when it was sent */
	uint64_t fill;
};

static struct mem_config mem;
static struct bridge_config config;
static char file_path[40];
static struct bridge *bridge;
static uint8_t *region, *model, *known;
static struct op ops[LANES * DEPTH];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Under the lock. */
static uint64_t rng, nr_started, nr_round, stream_off;
static unsigned nr_in_flight;
static bool failing;
static char wrong[256];
static uint64_t nr_errors, nr_reads;

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state * UINT64_C(2685821657736338717);
}

static uint64_t below(uint64_t n)
{
	return (next_random(&rng) >> 20) % n;
}

static bool changes(uint8_t kind)
{
	return kind == TP_WRITE || kind == TP_ZERO || kind == TP_TRIM;
}

static bool clashes(const struct op *op)
{
	for (unsigned i = 0; i < LANES * DEPTH; i++) {
		const struct bridge_request *other = &ops[i].rq;

		if (ops[i].in_flight && other->off < op->rq.off + op->rq.len &&
			op->rq.off < other->off + other->len && (changes(other->kind) || changes(op->rq.kind)))
			return true;
	}
	return false;
}

static uint64_t choose_len(void)
{
	switch (below(8)) {
	case 0:
		return 1 + below(LEN_MAX - 1);
	case 1:
		return CHUNK * (1 + below(3));
	case 2:
		return 1 + below(2000);
	default:
		return 4096 * (1 + below(4));
	}
}

static void choose(struct op *op)
{
	static const uint8_t kinds[] = {TP_READ, TP_READ, TP_READ, TP_READ, TP_READ, TP_READ, TP_READ, TP_READ, TP_WRITE,
		TP_WRITE, TP_WRITE, TP_WRITE, TP_WRITE, TP_WRITE, TP_ZERO, TP_TRIM};
	struct bridge_request *rq = &op->rq;

	rq->flags = 0;
	rq->kind = kinds[below(WEFT_ARRAY_LEN(kinds))];
	if (below(40) == 0)
		rq->kind = TP_FLUSH;
	if (below(60) == 0)
		rq->kind = TP_CACHE;
	rq->off = rq->len = 0;
	if (rq->kind == TP_FLUSH)
		return;
	rq->len = choose_len();
	rq->off = below(REGION);
	if (below(4) != 0)
		rq->off &= ~UINT64_C(4095);
	/* A hot spot, and a stream. */
	if (below(3) == 0)
		rq->off %= 6 * CHUNK;
	if (rq->kind == TP_READ && below(3) == 0) {
		rq->off = stream_off;
		rq->len = 8192;
		stream_off = (stream_off + 8192) % (REGION - 8192);
	}
	if (rq->kind == TP_ZERO && below(2) == 0) {
		rq->off &= ~(uint64_t)(CHUNK - 1);
		rq->len = CHUNK * (1 + below(4));
	}
	rq->len = weft_min(rq->len, REGION - rq->off);
	if (changes(rq->kind) && below(20) == 0)
		rq->flags = TP_FUA;
}

static void fill(uint8_t *buf, uint64_t len, uint64_t seed)
{
	uint64_t state = seed | 1, i = 0;

	for (; i + 8 <= len; i += 8) {
		state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
		memcpy(buf + i, &state, 8);
	}
	for (; i < len; i++)
		buf[i] = (uint8_t)(seed + i);
}

/* Under the lock, which it lets go of. */
static void settle(struct op *op, int error)
{
	const struct bridge_request *rq = &op->rq;
	uint8_t *m = model + rq->off, *k = known + rq->off;

	if (error < 0) {
		nr_errors++;
		if (!op->may_fail && !failing && !wrong[0])
			snprintf(wrong, sizeof(wrong), "kind %u at %" PRIu64 "+%" PRIu64 " failed with %d, and nothing was wrong",
				rq->kind, rq->off, rq->len, error);
		if (changes(rq->kind))
			memset(k, 0, rq->len);
	} else if (rq->kind == TP_WRITE) {
		memcpy(m, rq->buf, rq->len);
		memset(k, 1, rq->len);
	} else if (rq->kind == TP_ZERO) {
		memset(m, 0, rq->len);
		memset(k, 1, rq->len);
	} else if (rq->kind == TP_TRIM) {
		memset(k, 0, rq->len);
	} else if (rq->kind == TP_READ) {
		const uint8_t *got = rq->buf;

		nr_reads++;
		for (uint64_t i = 0; i < rq->len && !wrong[0]; i++)
			if (k[i] && got[i] != m[i])
				snprintf(wrong, sizeof(wrong), "READ at %" PRIu64 "+%" PRIu64 ": byte %" PRIu64 " is %02x, not %02x",
					rq->off, rq->len, i, got[i], m[i]);
	}
	op->in_flight = false;
	nr_in_flight--;
}

static void done(struct bridge_request *rq, int error)
{
	struct op *op = weft_container_of(rq, struct op, rq);

	pthread_mutex_lock(&lock);
	settle(op, error);
	pthread_mutex_unlock(&lock);
	if (rq->buf)
		bridge_lane_buffer_put(op->lane, rq->buf);
	rq->buf = NULL;
	bridge_lane_defer(op->lane, &op->deferred);
}

static void start_next(struct bridge_deferred *deferred)
{
	struct op *op = weft_container_of(deferred, struct op, deferred);
	struct bridge_request *rq = &op->rq;

	pthread_mutex_lock(&lock);
	if (nr_round == 0 || wrong[0]) {
		pthread_mutex_unlock(&lock);
		return;
	}
	do
		choose(op);
	while (clashes(op));
	nr_round--;
	op->in_flight = true;
	op->may_fail = failing;
	op->fill = ++nr_started;
	nr_in_flight++;
	pthread_mutex_unlock(&lock);
	rq->done = done;
	rq->buf = NULL;
	if (rq->kind == TP_READ || rq->kind == TP_WRITE) {
		if (bridge_lane_buffer_get(op->lane, rq->len, &op->waiter, &rq->buf, &rq->mem) < 0)
			abort();
		fill(rq->buf, rq->len, rq->kind == TP_WRITE ? op->fill : 77);
	}
	bridge_lane_submit(op->lane, rq);
}

static void kick(struct bridge_lane *lane, void *ctx)
{
	unsigned first = *(unsigned *)ctx * DEPTH;

	for (unsigned i = first; i < first + DEPTH; i++) {
		ops[i].lane = lane;
		ops[i].deferred.fn = start_next;
		bridge_lane_defer(lane, &ops[i].deferred);
	}
}

/* kills: how many connections may be lost still; a link that is lost again and again waits longer each time. */
static void cause_trouble(uint64_t *state, bool may_fail, unsigned *kills)
{
	uint64_t now = atomic_load(&mem.nr_ops);

	switch (next_random(state) >> 40 & 15) {
	case 0:
		atomic_store(&mem.delay_ns, (next_random(state) >> 40) % 300000);
		break;
	case 1:
		atomic_store(&mem.reorder, next_random(state) | 1);
		break;
	case 2:
		atomic_store(&mem.delay_ns, 0);
		break;
	case 3:
		if (*kills > 0)
			(*kills)--;
		else
			break;
		atomic_store(&mem.kill_at, now + 1 + (next_random(state) >> 40) % 50);
		break;
	case 4:
		if (*kills > 0)
			(*kills)--;
		else
			break;
		atomic_store(&mem.refuse, ECONNREFUSED);
		atomic_store(&mem.kill_at, now + 1);
		usleep(2000);
		atomic_store(&mem.refuse, 0);
		break;
	case 5:
		atomic_store(&mem.hold, true);
		usleep(1000);
		atomic_store(&mem.hold, false);
		break;
	default:
		if (!may_fail)
			break;
		atomic_store(&mem.fail_error, next_random(state) >> 50 & 1 ? EIO : ENOSPC);
		atomic_store(&mem.fail_at, now + 1 + (next_random(state) >> 40) % 20);
	}
}

static bool is_quiet(void)
{
	pthread_mutex_lock(&lock);
	bool quiet = (nr_round == 0 || wrong[0]) && nr_in_flight == 0;
	pthread_mutex_unlock(&lock);
	return quiet;
}

static void report(void)
{
	pthread_mutex_lock(&lock);
	bool bad = wrong[0] != '\0';
	pthread_mutex_unlock(&lock);
	if (bad)
		fail_msg("%s", wrong);
}

/* ---- a request of the test's own, between two rounds ---- */

struct one {
	struct bridge_request rq;
	_Atomic bool finished;
	int error;
};

static void one_done(struct bridge_request *rq, int error)
{
	struct one *one = weft_container_of(rq, struct one, rq);

	one->error = error;
	atomic_store(&one->finished, true);
}

static void one_submit(struct bridge_lane *lane, void *ctx)
{
	struct one *one = ctx;

	one->rq.done = one_done;
	bridge_lane_submit(lane, &one->rq);
}

static int flush_on(unsigned lane)
{
	struct one one = {.rq = {.kind = TP_FLUSH}};
	uint64_t end = weft_now_ns() + WAIT_MS * UINT64_C(1000000);

	bridge_lane_run(bridge_lane(bridge, lane), one_submit, &one);
	while (!atomic_load(&one.finished)) {
		if (weft_now_ns() > end)
			fail_msg("a FLUSH was not answered");
		usleep(100);
	}
	return one.error;
}

static void compare_with_donor(void)
{
	for (uint64_t i = 0; i < REGION; i++)
		if (known[i] && region[i] != model[i])
			fail_msg("after a FLUSH byte %" PRIu64 " is %02x at the donor, not %02x", i, region[i], model[i]);
}

static void run_round(uint64_t *chaos, uint64_t n)
{
	bool may_fail = next_random(chaos) >> 40 & 1;
	unsigned kills = (next_random(chaos) >> 40) % 5 == 0 ? 2 : 0;
	uint64_t end = weft_now_ns() + WAIT_MS * UINT64_C(1000000);

	pthread_mutex_lock(&lock);
	nr_round = n;
	failing = may_fail;
	pthread_mutex_unlock(&lock);
	for (unsigned i = 0; i < LANES; i++)
		bridge_lane_run(bridge_lane(bridge, i), kick, &i);
	while (!is_quiet()) {
		cause_trouble(chaos, may_fail, &kills);
		usleep(500);
		if (weft_now_ns() > end)
			fail_msg("requests were not answered");
	}
	atomic_store(&mem.fail_at, 0);
	report();
	/* Whatever a failed write-back left is written back now. */
	int error = flush_on((unsigned)(next_random(chaos) >> 40) % LANES);
	if (error < 0 && may_fail)
		error = flush_on(0);
	if (error < 0)
		fail_msg("a FLUSH failed with %d", error);
	compare_with_donor();
}

static void start_bridge(uint64_t seed)
{
	struct weft_error err = {0};

	memset(&mem, 0, sizeof(mem));
	memset(&config, 0, sizeof(config));
	memset(ops, 0, sizeof(ops));
	region = malloc(REGION);
	model = malloc(REGION);
	known = malloc(REGION);
	fill(region, REGION, seed);
	memcpy(model, region, REGION);
	memset(known, 1, REGION);
	mem.base = region;
	mem.size_bytes = REGION;
	mem.epoch = 42;
	config.transport = &tp_mem_ops;
	config.transport_config = &mem;
	config.host = "";
	config.region = "r";
	weft_random(config.id, sizeof(config.id));
	strcpy(config.name, "test");
	config.generation = UINT64_C(1) << 32;
	config.mode = WEFT_MODE_WRITE;
	config.nr_lanes = LANES;
	config.timeout_ms = config.dead_timeout_ms = 30000;
	config.connect_timeout_ms = 5000;
	config.chunk_bytes = CHUNK;
	/* From a quarter of the region to all of it. */
	config.cache_bytes = CHUNK * (16 + seed % 3 * 25);
	config.push_interval_ms = 1 + (uint32_t)(seed >> 8) % 20;
	config.write_through = (seed >> 16) % 8 == 0;
	config.pull = (seed >> 20) % 4 == 0;
	config.pull_workers = 2;
	config.uri = "weft://test/r";
	if ((seed >> 28) % 2) {
		int fd = mkstemp(strcpy(file_path, "/tmp/weft-cache-model.XXXXXX"));

		close(fd);
		if (fd < 0 || cache_file_open(file_path, true, &config.cache_file, &err) < 0)
			fail_msg("cannot make a cache file: %s", err.message);
	}
	rng = seed | 1;
	nr_errors = nr_reads = 0;
	stream_off = 0;
	wrong[0] = '\0';
	if (bridge_new(&config, &bridge, &err) < 0 || bridge_start(bridge, &err) < 0)
		fail_msg("cannot start: %s", err.message);
}

static void the_cache_is_an_array(void **state)
{
	const char *seed_text = getenv("WEFT_SEED"), *ops_text = getenv("WEFT_OPS");
	uint64_t seed, left = ops_text ? strtoull(ops_text, NULL, 0) : 20000;

	weft_random(&seed, sizeof(seed));
	if (seed_text)
		seed = strtoull(seed_text, NULL, 0);
	printf("WEFT_SEED=%" PRIu64 "\n", seed);
	fflush(stdout);
	start_bridge(seed);
	uint64_t chaos = seed ^ UINT64_C(0x9e3779b97f4a7c15);
	while (left > 0) {
		uint64_t n = weft_min(left, ROUND);

		run_round(&chaos, n);
		left -= n;
	}
	atomic_store(&mem.kill_at, 0);
	struct weft_error err = {0};
	if (bridge_stop(bridge, 20000, &err) < 0)
		fail_msg("%s", err.message);
	bridge_free(bridge);
	bridge = NULL;
	if (config.cache_file) {
		assert_int_equal(cache_file_dirty_bytes(config.cache_file), 0);
		cache_file_close(config.cache_file);
		unlink(file_path);
	}
	assert_true(nr_reads > 0);
	free(region);
	free(model);
	free(known);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(the_cache_is_an_array)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
