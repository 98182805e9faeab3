/* SPDX-License-Identifier: MIT */
/*
 * A managed bridge against a plain array: random requests on several lanes at once, while the mem
 * transport delays, reorders, fails, holds and kills.  A seed names a run: WEFT_SEED; WEFT_OPS says
 * how many requests.  It also says whether there is one donor or stripes over several, one way to
 * each or two, which then take turns.
 *
 * Requests that overlap are never in flight together unless both are READs, so that each READ has
 * one right answer.  A byte whose last WRITE failed, or that was trimmed, is unknown until it is
 * written again.  Now and then everything stops: after a FLUSH the donors' memory must be the
 * array.  Then another bridge may take over: what the old one was writing back must not arrive any
 * more.
 *
 * The contents may be sealed.  Then they begin empty, and whenever everything stops some blocks of
 * the donors' memory are changed, put back to what they were, or swapped: a READ of such a block
 * fails or has what was written, and no other one fails.
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
#include <sys/mman.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "nbd-bridge/cache/file.h"
#include "nbd-bridge/cache/seal.h"
#include "tests/support/bridge-io.h"
#include "tests/support/seed.h"
#include "transports/mem/mem.h"

enum {
	REGION = 4 << 20,
	TAIL = 1000, /* the last block is a part of one, where there is one donor and one way */
	CHUNK = 64 << 10,
	UNIT = 20 << 10, /* of stripes: chunks have parts of several */
	DONORS = 3,
	LANES = 3,
	DEPTH = 8, /* in flight on each */
	LEN_MAX = 200 << 10,
	BLOCK = 4096,
	ROUND = 2000, /* requests between two stops */
	WAIT_MS = 60000,
};

struct op {
	struct bridge_request rq;
	struct bridge_waiter waiter;
	struct weft_deferred deferred;
	struct bridge_lane *lane;
	unsigned index;
	bool in_flight;
	bool may_fail;  /* faults were about when it was sent */
	unsigned looks; /* before what was lent is looked at, and given back */
	uint64_t fill;
};

/* Of this bridge and of the next one: each way to each donor. */
static struct mem_config mems[2][DONORS][2];
static struct bridge_donor_config donors[DONORS];
static struct weft_region *lent[DONORS];
static struct weft_donor *lenders[DONORS];
static unsigned turn, nr_ways;
static struct bridge_config config;
static char file_path[40];
static uint64_t region_bytes;
static uint8_t *region, *model, *known; /* region: of one donor with one way */
static unsigned nr_superseded;
static enum seal_kind sealed_as;
static int seal_fd = -1, cache_fd = -1;
static uint8_t *before, *tampered; /* the donors' memory a while ago; a byte for each block */
static uint64_t nr_tampered, nr_refused;
static struct op ops[LANES * DEPTH];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Under the lock. */
static uint64_t rng, nr_started, nr_round, stream_off;
static unsigned nr_busy; /* of ops: those that begin one request after another */
static bool failing;
static char wrong[256];
static uint64_t nr_errors, nr_reads, nr_lent;

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
			op->rq.off < other->off + other->len &&
			(changes(other->kind) || changes(op->rq.kind)))
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
	static const uint8_t kinds[] = {TP_READ, TP_READ, TP_READ, TP_READ, TP_READ, TP_READ,
		TP_READ, TP_READ, TP_WRITE, TP_WRITE, TP_WRITE, TP_WRITE, TP_WRITE, TP_WRITE,
		TP_ZERO, TP_TRIM};
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
	rq->off = below(region_bytes);
	if (below(4) != 0)
		rq->off &= ~UINT64_C(4095);
	/* A hot spot, and a stream. */
	if (below(3) == 0)
		rq->off %= 6 * CHUNK;
	if (rq->kind == TP_READ && below(3) == 0) {
		rq->off = stream_off;
		rq->len = 8192;
		stream_off = (stream_off + 8192) % (region_bytes - 8192);
	}
	if (rq->kind == TP_ZERO && below(2) == 0) {
		rq->off &= ~(uint64_t)(CHUNK - 1);
		rq->len = CHUNK * (1 + below(4));
	}
	rq->len = weft_min(rq->len, region_bytes - rq->off);
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

/* Whether a donor has tampered with any of it. */
static bool touches_tampered(const struct bridge_request *rq)
{
	for (uint64_t block = rq->off / BLOCK;
		sealed_as && rq->len && block <= (rq->off + rq->len - 1) / BLOCK; block++)
		if (tampered[block])
			return true;
	return false;
}

/* What was written as a whole is whole. */
static void heal(const struct bridge_request *rq)
{
	for (uint64_t block = rq->off / BLOCK; sealed_as && block * BLOCK < rq->off + rq->len;
		block++)
		if (block * BLOCK >= rq->off &&
			weft_min(region_bytes, (block + 1) * BLOCK) <= rq->off + rq->len)
			tampered[block] = 0;
}

/* Under the lock, which it lets go of. */
static void settle(struct op *op, int error)
{
	const struct bridge_request *rq = &op->rq;
	uint8_t *m = model + rq->off, *k = known + rq->off;
	bool refused = error == -EIO && touches_tampered(rq);

	if (error < 0) {
		nr_errors++;
		nr_refused += refused;
		if (!op->may_fail && !failing && !refused && !wrong[0])
			snprintf(wrong, sizeof(wrong),
				"kind %u at %" PRIu64 "+%" PRIu64
				" failed with %d, and nothing was wrong",
				rq->kind, rq->off, rq->len, error);
		if (changes(rq->kind))
			memset(k, 0, rq->len);
	} else if (rq->kind == TP_WRITE) {
		memcpy(m, rq->buf, rq->len);
		memset(k, 1, rq->len);
		heal(rq);
	} else if (rq->kind == TP_ZERO) {
		memset(m, 0, rq->len);
		memset(k, 1, rq->len);
		heal(rq);
	} else if (rq->kind == TP_TRIM) {
		memset(k, 0, rq->len);
	} else if (rq->kind == TP_READ) {
		const uint8_t *got = rq->lent ? rq->lent : rq->buf;

		nr_reads++;
		nr_lent += rq->lent != NULL;
		for (uint64_t i = 0; i < rq->len && !wrong[0]; i++)
			if (k[i] && got[i] != m[i])
				snprintf(wrong, sizeof(wrong),
					"READ at %" PRIu64 "+%" PRIu64 ": byte %" PRIu64
					" is %02x, not %02x",
					rq->off, rq->len, i, got[i], m[i]);
	}
	op->in_flight = false;
}

static void start_next(struct weft_deferred *deferred);

static void end_op(struct op *op, int error)
{
	struct bridge_request *rq = &op->rq;

	pthread_mutex_lock(&lock);
	settle(op, error);
	pthread_mutex_unlock(&lock);
	bridge_lane_give_back(op->lane, rq);
	if (rq->buf)
		bridge_lane_buffer_put(op->lane, rq->buf);
	rq->buf = NULL;
	op->deferred.fn = start_next;
	bridge_lane_defer(op->lane, &op->deferred);
}

/*
 * What was lent stays what it is, whatever others do meanwhile: the operation is in flight, so
 * nobody writes there.
 */
static void look_again(struct weft_deferred *deferred)
{
	struct op *op = weft_container_of(deferred, struct op, deferred);

	if (op->looks-- > 0)
		bridge_lane_defer(op->lane, deferred);
	else
		end_op(op, 0);
}

static void done(struct bridge_request *rq, int error)
{
	struct op *op = weft_container_of(rq, struct op, rq);

	if (!rq->lent) {
		end_op(op, error);
		return;
	}
	op->deferred.fn = look_again;
	bridge_lane_defer(op->lane, &op->deferred);
}

static void start_next(struct weft_deferred *deferred)
{
	struct op *op = weft_container_of(deferred, struct op, deferred);
	struct bridge_request *rq = &op->rq;

	pthread_mutex_lock(&lock);
	if (nr_round == 0 || wrong[0]) {
		nr_busy--;
		pthread_mutex_unlock(&lock);
		return;
	}
	do
		choose(op);
	while (clashes(op));
	nr_round--;
	rq->may_lend = below(4) != 0;
	op->looks = below(4) == 0 ? (unsigned)below(200) : 0;
	op->in_flight = true;
	op->may_fail = failing;
	op->fill = ++nr_started;
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

	pthread_mutex_lock(&lock);
	nr_busy += DEPTH;
	pthread_mutex_unlock(&lock);
	for (unsigned i = first; i < first + DEPTH; i++) {
		ops[i].lane = lane;
		ops[i].deferred.fn = start_next;
		bridge_lane_defer(lane, &ops[i].deferred);
	}
}

/*
 * kills: how many connections may be lost still; a link that is lost again and again waits longer
 * each time.
 */
static void cause_trouble(uint64_t *state, bool may_fail, unsigned *kills)
{
	struct mem_config *mem = &mems[turn][(next_random(state) >> 40) % config.attach.nr_donors]
				      [(next_random(state) >> 40) % nr_ways];
	uint64_t now = atomic_load(&mem->nr_ops);

	switch (next_random(state) >> 40 & 15) {
	case 0:
		atomic_store(&mem->delay_ns, (next_random(state) >> 40) % 300000);
		break;
	case 1:
		atomic_store(&mem->reorder, next_random(state) | 1);
		break;
	case 2:
		atomic_store(&mem->delay_ns, 0);
		break;
	case 3:
		if (*kills > 0)
			(*kills)--;
		else
			break;
		atomic_store(&mem->kill_at, now + 1 + (next_random(state) >> 40) % 50);
		break;
	case 4:
		if (*kills > 0)
			(*kills)--;
		else
			break;
		atomic_store(&mem->refuse, ECONNREFUSED);
		atomic_store(&mem->kill_at, now + 1);
		usleep(nr_ways > 1 ? 20000 : 2000); /* it goes over the other one, and comes back */
		atomic_store(&mem->refuse, 0);
		break;
	case 5:
		atomic_store(&mem->hold, true);
		usleep(1000);
		atomic_store(&mem->hold, false);
		break;
	default:
		if (!may_fail)
			break;
		atomic_store(&mem->fail_error, next_random(state) >> 50 & 1 ? EIO : ENOSPC);
		atomic_store(&mem->fail_at, now + 1 + (next_random(state) >> 40) % 20);
	}
}

static bool is_quiet(void)
{
	pthread_mutex_lock(&lock);
	bool quiet = nr_busy == 0;
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

/* Where byte i lies. */
static uint8_t *byte_at(uint64_t i)
{
	if (config.attach.nr_donors > 1)
		return (uint8_t *)lent[i / UNIT % config.attach.nr_donors]->map +
			i / UNIT / config.attach.nr_donors * UNIT + i % UNIT;
	return lent[0] ? (uint8_t *)lent[0]->map + i : region + i;
}

static void compare_with_donor(void)
{
	if (sealed_as)
		return;
	for (uint64_t i = 0; i < region_bytes; i++)
		if (known[i] && *byte_at(i) != model[i])
			fail_msg("after a FLUSH byte %" PRIu64 " is %02x at its donor, not %02x", i,
				*byte_at(i), model[i]);
}

static void new_bridge(void)
{
	struct weft_error err = {0};

	for (unsigned d = 0; d < DONORS; d++)
		for (unsigned w = 0; w < 2; w++) {
			mems[turn][d][w] = (struct mem_config){.donor = lenders[d],
				.base = region,
				.size_bytes = region_bytes,
				.epoch = 42};
			donors[d].ways[w] = (struct bridge_way){.transport = &tp_mem_ops,
				.transport_config = &mems[turn][d][w],
				.host = ""};
		}
	if (nr_ways > 1)
		for (unsigned d = 0; d < DONORS; d++)
			mems[turn][d][1].no_fua = mems[turn][d][1].no_cache =
				mems[turn][d][1].no_fast_zero = true; /* as verbs */
	if (bridge_new(&config, &bridge, &err) < 0 || bridge_start(bridge, &err) < 0)
		fail_msg("cannot start: %s", err.message);
}

/* The next process's. */
static void new_seal(void)
{
	struct weft_error err;

	if (seal_new(seal_fd, sealed_as, &config.cache.seal, &err) < 0)
		fail_msg("%s", err.message);
	/* In a file on disk, or in memory. */
	if (config.cache.file)
		return;
	if (cache_file_on_memory(cache_fd, &config.cache.file, &err) < 0)
		fail_msg("%s", err.message);
	cache_file_forget(config.cache.file);
}

static void end_seal(void)
{
	seal_free(config.cache.seal);
	if (cache_file_is_memory(config.cache.file)) {
		assert_int_equal(cache_file_dirty_bytes(config.cache.file), 0);
		cache_file_close(config.cache.file);
		config.cache.file = NULL;
	}
}

/* It ends, and another one goes on with what is sealed. */
static void restart(void)
{
	struct weft_error err = {0};

	if (bridge_stop(bridge, 20000, &err) < 0)
		fail_msg("%s", err.message);
	bridge_free(bridge);
	end_seal();
	for (unsigned d = 0; d < config.attach.nr_donors; d++)
		donors[d].generation += UINT64_C(1) << 32;
	new_seal();
	turn = !turn;
	new_bridge();
	nr_superseded++;
}

static void swap_blocks(uint64_t a, uint64_t b)
{
	for (unsigned i = 0; i < BLOCK; i++) {
		uint8_t *x = byte_at(a * BLOCK + i), *y = byte_at(b * BLOCK + i), was = *x;

		*x = *y;
		*y = was;
	}
	tampered[a] = tampered[b] = 1;
}

/* Everything was flushed, and nothing is under way. */
static void tamper(uint64_t *chaos)
{
	const uint64_t whole = region_bytes / BLOCK;

	for (unsigned n = 0; n < 12; n++) {
		uint64_t block = (next_random(chaos) >> 20) % whole,
			 other = (next_random(chaos) >> 20) % whole;

		nr_tampered++;
		switch (next_random(chaos) >> 40 & 3) {
		case 0:
			*byte_at(block * BLOCK + (next_random(chaos) >> 40) % BLOCK) ^= 4;
			break;
		case 1:
			swap_blocks(block, other);
			break;
		default: /* a good old one */
			for (unsigned i = 0; i < BLOCK; i++)
				*byte_at(block * BLOCK + i) = before[block * BLOCK + i];
		}
		tampered[block] = 1;
	}
	for (uint64_t i = 0; next_random(chaos) >> 40 & 1 && i < region_bytes; i++)
		before[i] = *byte_at(i);
}

static void hold(bool on)
{
	for (unsigned d = 0; d < DONORS; d++)
		for (unsigned w = 0; w < 2; w++)
			atomic_store(&mems[turn][d][w].hold, on);
}

/* While the bridge writes back what the model knows nothing of, another takes its place. */
static void supersede(uint64_t *chaos)
{
	static uint8_t data[CHUNK];
	struct io flush = {.rq = {.kind = TP_FLUSH}}, write;
	struct bridge *old = bridge;
	uint64_t off = (next_random(chaos) >> 20) % (region_bytes - CHUNK) & ~UINT64_C(4095);

	hold(true);
	memset(data, 0xa5, sizeof(data));
	for (unsigned i = 0; i < 2; i++) {
		write = (struct io){.rq = {.kind = TP_WRITE, .off = off, .len = i ? 4096 : CHUNK},
			.from = data};
		io_start(&write, i);
		if (i == 0 && !config.cache.write_through)
			io_wait(&write);
		if (config.cache.write_through)
			break;
	}
	io_start(&flush, 1);
	usleep(1000);
	turn = !turn;
	for (unsigned d = 0; d < config.attach.nr_donors; d++)
		donors[d].generation += UINT64_C(1) << 32;
	new_bridge();
	struct bridge *new = bridge;
	turn = !turn;
	hold(false);
	if (io_wait(&flush) == 0)
		fail_msg("a bridge that was superseded has flushed");
	io_wait(&write);
	bridge_stop(old, 0, NULL);
	bridge_free(old);
	turn = !turn;
	bridge = new;
	nr_superseded++;
	compare_with_donor();
}

static void run_round(uint64_t *chaos, uint64_t n)
{
	bool may_fail = next_random(chaos) >> 40 & 1;
	unsigned kills = nr_ways > 1 ? 2 : (next_random(chaos) >> 40) % 5 == 0 ? 2 : 0;
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
	for (unsigned d = 0; d < DONORS; d++)
		for (unsigned w = 0; w < 2; w++)
			atomic_store(&mems[turn][d][w].fail_at, 0);
	report();
	/* Whatever a failed write-back left is written back now. */
	int error = do_flush((unsigned)(next_random(chaos) >> 40) % LANES);
	if (error < 0 && may_fail)
		error = do_flush(0);
	if (error < 0)
		fail_msg("a FLUSH failed with %d", error);
	compare_with_donor();
}

/* Donors that fence, with the array's bytes. */
static void start_donors(void)
{
	struct weft_memory_spec spec = {.name = "r",
		.size_bytes = region_bytes / config.attach.nr_donors};
	struct weft_donor_config donor_config = {.offers = "mem"};

	for (unsigned d = 0; d < config.attach.nr_donors; d++) {
		assert_int_equal(weft_region_new_memory(&spec, NULL, NULL, &lent[d], NULL), 0);
		assert_int_equal(weft_donor_new(&donor_config, &lenders[d]), 0);
		assert_int_equal(weft_donor_add(lenders[d], lent[d], NULL), 0);
	}
	for (uint64_t i = 0; i < region_bytes; i++)
		*byte_at(i) = model[i];
}

/* Contents that are sealed begin empty, whatever is there. */
static void choose_seal(uint64_t seed)
{
	sealed_as = (enum seal_kind)((seed >> 44) % 3);
	nr_tampered = nr_refused = 0;
	if (!sealed_as)
		return;
	seal_fd = memfd_create("seal", MFD_CLOEXEC);
	cache_fd = memfd_create("cache", MFD_CLOEXEC);
	before = malloc(region_bytes);
	tampered = calloc(1, region_bytes / BLOCK + 1);
	for (uint64_t i = 0; i < region_bytes; i++)
		before[i] = *byte_at(i);
	memset(model, 0, region_bytes);
	new_seal();
}

static void start_bridge(uint64_t seed)
{
	struct weft_error err = {0};

	memset(&config, 0, sizeof(config));
	memset(ops, 0, sizeof(ops));
	config.attach.donors = donors;
	config.attach.nr_donors = (seed >> 32) % 2 ? 1 : 1 + (unsigned)(seed >> 33) % DONORS;
	config.attach.stripe_bytes = UNIT;
	/* a bridge has no more transports */
	nr_ways = config.attach.nr_donors < DONORS ? 1 + (unsigned)(seed >> 36) % 2 : 1;
	region_bytes = config.attach.nr_donors > 1
		? REGION / (config.attach.nr_donors * UNIT) * config.attach.nr_donors * UNIT
		: REGION;
	bool fences = config.attach.nr_donors > 1 || nr_ways > 1 || (seed >> 40) % 2;
	if (!fences)
		region_bytes += TAIL;
	region = malloc(region_bytes);
	model = malloc(region_bytes);
	known = malloc(region_bytes);
	fill(region, region_bytes, seed);
	memcpy(model, region, region_bytes);
	memset(known, 1, region_bytes);
	if (fences)
		start_donors();
	for (unsigned d = 0; d < DONORS; d++) {
		donors[d] = (struct bridge_donor_config){.label = "d",
			.region = "r",
			.nr_ways = nr_ways,
			.first_way = nr_ways - 1,
			.generation = UINT64_C(1) << 32};
		weft_random(donors[d].id, sizeof(donors[d].id));
	}
	strcpy(config.attach.name, "test");
	config.attach.mode = WEFT_MODE_WRITE;
	config.nr_lanes = LANES;
	config.attach.timeout_ms = config.attach.dead_timeout_ms = 30000;
	config.attach.connect_timeout_ms = 5000;
	config.attach.return_ms = 5;
	config.attach.settle_ms = 10;
	config.cache.chunk_bytes = CHUNK;
	/* From a quarter of the region to all of it. */
	config.cache.bytes = CHUNK * (16 + seed % 3 * 25);
	config.cache.push_interval_ms = 1 + (uint32_t)(seed >> 8) % 20;
	config.cache.write_through = (seed >> 16) % 8 == 0;
	config.cache.pull = (seed >> 20) % 4 == 0;
	config.cache.pull_workers = 2;
	config.cache.uri = "weft://test/r";
	if ((seed >> 28) % 2) {
		int fd = mkstemp(strcpy(file_path, "/tmp/weft-cache-model.XXXXXX"));

		close(fd);
		if (fd < 0 || cache_file_open(file_path, true, &config.cache.file, &err) < 0)
			fail_msg("cannot make a cache file: %s", err.message);
	}
	printf("%u donors, %u ways, %s\n", config.attach.nr_donors, nr_ways,
		config.cache.file ? "a cache file"
			: fences  ? "take-overs"
				  : "");
	choose_seal(seed);
	if (sealed_as)
		printf("sealed: %s, %s\n", seal_kind_name(sealed_as),
			cache_file_is_memory(config.cache.file) ? "in memory" : "in the file");
	fflush(stdout);
	rng = seed | 1;
	nr_errors = nr_reads = nr_lent = 0;
	stream_off = 0;
	wrong[0] = '\0';
	new_bridge();
}

static void the_cache_is_an_array(void **state)
{
	const char *ops_text = getenv("WEFT_OPS");
	uint64_t seed, left = ops_text ? strtoull(ops_text, NULL, 0) : 20000;

	weft_random(&seed, sizeof(seed));
	seed = seed_or(seed);
	fflush(stdout);
	start_bridge(seed);
	uint64_t chaos = seed ^ UINT64_C(0x9e3779b97f4a7c15);
	while (left > 0) {
		uint64_t n = weft_min(left, ROUND);

		run_round(&chaos, n);
		left -= n;
		if (sealed_as)
			tamper(&chaos);
		if (sealed_as && (next_random(&chaos) >> 40) % 4 == 0)
			restart();
		/* A cache file is one bridge's at a time (unit/cache-file). */
		if (lent[0] && !config.cache.file && (next_random(&chaos) >> 40) % 4 == 0)
			supersede(&chaos);
	}
	for (unsigned d = 0; d < DONORS; d++)
		for (unsigned w = 0; w < 2; w++)
			atomic_store(&mems[turn][d][w].kill_at, 0);
	uint64_t nr_moves = 0;
	for (unsigned d = 0; nr_ways > 1 && d < config.attach.nr_donors; d++) {
		struct bridge_way_now now;

		peer_way_now(&bridge_attachment(bridge)->peers[d], &now);
		nr_moves += now.nr_changes;
	}
	struct weft_error err = {0};
	if (bridge_stop(bridge, 20000, &err) < 0)
		fail_msg("%s", err.message);
	bridge_free(bridge);
	bridge = NULL;
	if (sealed_as) {
		printf("%" PRIu64 " blocks tampered with, %" PRIu64 " requests refused\n",
			nr_tampered, nr_refused);
		end_seal();
		close(seal_fd);
		close(cache_fd);
		free(before);
		free(tampered);
	}
	if (config.cache.file) {
		assert_int_equal(cache_file_dirty_bytes(config.cache.file), 0);
		cache_file_close(config.cache.file);
		unlink(file_path);
	}
	assert_true(nr_reads > 0 && nr_lent > 0);
	printf("%" PRIu64 " errors, %u take-overs, %" PRIu64 " changes of way since the last\n",
		nr_errors, nr_superseded, nr_moves);
	for (unsigned d = 0; d < DONORS; d++) {
		weft_donor_free(lenders[d]);
		weft_region_put(lent[d]);
	}
	free(region);
	free(model);
	free(known);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(the_cache_is_an_array)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
