/* SPDX-License-Identifier: MIT */
/*
 * A device with copies against a plain array: random requests on two lanes, while donors are cut
 * off, fall silent, forget what they had, are slow, or answer with errors, and while the bridge is
 * killed or detached and attached again.  A seed names a run: WEFT_SEED; WEFT_OPS says how many
 * requests.  It also says how many copies there are, how many have to be, and whether there are
 * stripes.
 *
 * As long as enough copies are well no request may fail, and each READ has one right answer.  In
 * harsh rounds more copies are in trouble than may be: then requests may fail.  A byte whose last
 * WRITE failed is one of two until somebody has read it, or written it again: what was read once
 * stays.  Now and then everything is healed: then all copies are current and have the array's
 * bytes.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "tests/support/copies-world.h"
#include "tests/support/seed.h"

enum {
	LANES = 2,
	DEPTH = 6, /* in flight on each */
	SLOT = 32 << 10, /* a request keeps to one */
	SLOTS = WORLD_REGION / SLOT,
	ROUND = 1500, /* requests until everything is healed */
	DEAD_MS = 600, /* in harsh rounds */
};

struct op {
	struct io io;
	bool in_flight;
	unsigned slot, lane;
	uint8_t data[SLOT];
};

static struct op ops[LANES * DEPTH];
static bool slot_taken[2 * SLOTS];
static uint8_t want[2 * WORLD_REGION], other[2 * WORLD_REGION];
static uint8_t doubt[2 * WORLD_REGION]; /* 1: want or other; 2: anything */
static uint64_t rng, size_bytes;
static uint64_t nr_done, nr_failed, nr_faults;
static bool harsh, killed;
static uint64_t healing_ns[WORLD_DONORS]; /* then the donor is healed; 0: it is well */

static uint64_t next_random(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

static uint64_t below(uint64_t n)
{
	return next_random() % n;
}

/* ---- requests ---- */

static void begin_op(struct op *op)
{
	uint64_t off, len;
	unsigned slot;

	do
		slot = (unsigned)below(size_bytes / SLOT);
	while (slot_taken[slot]);
	off = below(SLOT);
	len = 1 + below(below(4) ? weft_min(8000, SLOT - off) : SLOT - off);
	if (below(3) == 0) {
		off &= ~UINT64_C(4095);
		len = weft_min(4096, SLOT - off);
	}
	memset(&op->io, 0, sizeof(op->io));
	op->slot = slot;
	op->io.rq.off = (uint64_t)slot * SLOT + off;
	op->io.rq.len = len;
	switch (below(20)) {
	case 0:
		op->io.rq.kind = TP_FLUSH;
		op->io.rq.off = op->io.rq.len = 0;
		break;
	case 1:
		/* What a cache leaves where it trims is unknown. */
		op->io.rq.kind = world.config.cache.bytes || below(2) ? TP_ZERO : TP_TRIM;
		memset(op->data, 0, len);
		break;
	case 2 ... 10:
		op->io.rq.kind = TP_READ;
		op->io.to = op->data;
		break;
	default:
		op->io.rq.kind = TP_WRITE;
		op->io.rq.flags = below(8) ? 0 : TP_FUA;
		for (uint64_t i = 0, r = next_random(); i < len; i++)
			op->data[i] = (uint8_t)((r + i * 0x9e3779b9) >> 13);
		op->io.from = op->data;
	}
	slot_taken[slot] = op->in_flight = true;
	io_start(&op->io, op->lane);
}

static void was_read(const struct op *op)
{
	const uint64_t off = op->io.rq.off;

	for (uint64_t i = 0; i < op->io.rq.len; i++) {
		const uint8_t is = op->data[i];

		if (!(is == want[off + i] || doubt[off + i] == 2 ||
			    (doubt[off + i] == 1 && is == other[off + i])))
			fail_msg("byte %" PRIu64 " is %u and should be %u (doubt %u)", off + i, is,
				want[off + i], doubt[off + i]);
		want[off + i] = is;
		doubt[off + i] = 0;
	}
}

static void was_changed(const struct op *op, bool failed)
{
	const uint64_t off = op->io.rq.off;

	for (uint64_t i = 0; i < op->io.rq.len; i++) {
		if (failed) {
			doubt[off + i] = doubt[off + i] ? 2 : 1;
			other[off + i] = op->data[i];
		} else {
			want[off + i] = op->data[i];
			doubt[off + i] = 0;
		}
	}
}

static void end_op(struct op *op)
{
	const bool failed = op->io.error < 0;

	if (failed && !harsh && !killed)
		fail_msg("a request of kind %u failed (%d)", op->io.rq.kind, op->io.error);
	nr_failed += failed;
	if (op->io.rq.kind == TP_READ && !failed)
		was_read(op);
	else if (op->io.rq.kind != TP_READ && op->io.rq.kind != TP_FLUSH)
		was_changed(op, failed);
	slot_taken[op->slot] = op->in_flight = false;
	nr_done++;
}

/* Ends what is done; true: something was. */
static bool reap(void)
{
	bool any = false;

	for (unsigned i = 0; i < WEFT_ARRAY_LEN(ops); i++) {
		if (!ops[i].in_flight || !atomic_load(&ops[i].io.finished))
			continue;
		end_op(&ops[i]);
		any = true;
	}
	return any;
}

static void drain(void)
{
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(ops); i++)
		if (ops[i].in_flight)
			io_wait(&ops[i].io);
	reap();
}

/* ---- trouble ---- */

static bool is_well(unsigned donor)
{
	return healing_ns[donor] == 0 && world_state(donor) == BRIDGE_COPY_CURRENT;
}

/* Whether the donor may be in trouble, and still no request may fail. */
static bool may_hurt(unsigned donor)
{
	const unsigned stripe = donor / world.nr_copies;
	unsigned well = 0;

	for (unsigned i = stripe * world.nr_copies; i < (stripe + 1) * world.nr_copies; i++)
		well += i != donor && is_well(i);
	return well >= world.min;
}

/* Then others have what it has; it was cut. */
static bool was_left_behind(unsigned donor)
{
	const uint64_t end_ns = weft_now_ns() + 3 * WORLD_LOST_MS * UINT64_C(1000000);

	while (world_state(donor) == BRIDGE_COPY_CURRENT && weft_now_ns() < end_ns)
		usleep(1000);
	return world_state(donor) != BRIDGE_COPY_CURRENT;
}

static void hurt(void)
{
	const unsigned donor = (unsigned)below(world.nr_donors);
	struct mem_config *mem = &world.mems[donor];
	const uint64_t ms = below(4) ? below(3 * WORLD_LOST_MS) : below(20);

	if (healing_ns[donor] || (!harsh && !may_hurt(donor)))
		return;
	nr_faults++;
	healing_ns[donor] = weft_now_ns() + ms * 1000000 + 1;
	switch (below(8)) {
	case 0:
	case 1:
		world_cut(donor);
		break;
	case 2:
		world_cut(donor);
		if (was_left_behind(donor))
			world_forget(donor);
		break;
	case 3:
		world_silence(donor);
		break;
	case 4:
		atomic_store(&mem->delay_ns, below(4000000));
		break;
	case 5:
		atomic_store(&mem->fail_error, EIO);
		atomic_store(&mem->fail_at, atomic_load(&mem->nr_ops) + 1 + below(20));
		break;
	case 6:
		atomic_fetch_add(&mem->cut, 1);
		break;
	default:
		atomic_store(&mem->kill_at, atomic_load(&mem->nr_ops) + 1 + below(20));
	}
}

static void heal(bool all)
{
	for (unsigned i = 0; i < world.nr_donors; i++) {
		if (!healing_ns[i] || (!all && weft_now_ns() < healing_ns[i]))
			continue;
		healing_ns[i] = 0;
		atomic_store(&world.mems[i].delay_ns, 0);
		atomic_store(&world.mems[i].fail_at, 0);
		atomic_store(&world.mems[i].kill_at, 0);
		world_heal(i);
	}
}

/* ---- rounds ---- */

static void check_all(void)
{
	static uint8_t got[2 * WORLD_REGION];

	heal(true);
	drain();
	world_wait_until_whole();
	for (uint64_t off = 0; off < size_bytes; off += 1 << 20) {
		struct op op = {.io.rq = {.off = off, .len = 1 << 20}};

		assert_int_equal(do_read(0, off, got + off, 1 << 20), 0);
		for (uint64_t i = 0; i < op.io.rq.len; i++)
			if (got[off + i] != want[off + i] && !doubt[off + i])
				fail_msg("byte %" PRIu64 " is wrong", off + i);
		memcpy(want + off, got + off, 1 << 20);
		memset(doubt + off, 0, 1 << 20);
	}
	/* A cache has it all, and the donors not yet. */
	assert_int_equal(do_flush(0), 0);
	world_assert_same();
}

static void attach_again(void)
{
	heal(true);
	/* What a cache has not written back ends with the bridge. */
	if (world.config.cache.bytes || below(2)) {
		drain();
		wait_for_state("ready");
		/* A FLUSH says what could not be written back in a harsh round. */
		do_flush(0);
		world_detach();
		world.takes_over = false;
	} else {
		killed = true;
		world_kill_bridge();
		drain();
		killed = false;
		world.takes_over = below(2);
	}
	world.config.attach.dead_timeout_ms = harsh ? DEAD_MS : 60000;
	world_attach();
	world.takes_over = false;
}

static void round_of(unsigned nr)
{
	const uint64_t end = nr_done + nr;
	uint64_t hurt_at = nr_done;

	harsh = below(4) == 0;
	attach_again();
	while (nr_done < end) {
		for (unsigned i = 0; i < WEFT_ARRAY_LEN(ops); i++)
			if (!ops[i].in_flight)
				begin_op(&ops[i]);
		if (!reap())
			usleep(50);
		if (nr_done >= hurt_at) {
			hurt();
			hurt_at = nr_done + below(60);
		}
		heal(false);
		if (below(4 * ROUND) == 0)
			attach_again();
	}
	check_all();
}

static void run(unsigned stripes, unsigned copies, unsigned min, uint64_t nr)
{
	memset(want, 0, sizeof(want));
	memset(doubt, 0, sizeof(doubt));
	memset(healing_ns, 0, sizeof(healing_ns));
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(ops); i++)
		ops[i].lane = i % LANES;
	world_begin(stripes, copies, min);
	size_bytes = stripes * (uint64_t)WORLD_REGION;
	if (below(3) == 0) {
		world.config.cache.bytes = 1 << 20;
		world.config.cache.chunk_bytes = 64 << 10;
		world.config.cache.push_interval_ms = 20;
	}
	print_message("%u stripes, %u copies, at least %u%s\n", stripes, copies, min,
		world.config.cache.bytes ? ", a cache" : "");
	harsh = false;
	world_attach();
	for (uint64_t begin = nr_done; nr_done - begin < nr;)
		round_of(ROUND);
	world_detach();
	world_end();
}

static void against_an_array(void **state)
{
	static const unsigned shapes[][3] = {{1, 2, 1}, {1, 3, 2}, {2, 2, 1}, {1, 2, 1}, {1, 3, 1}};
	const char *text = getenv("WEFT_OPS");
	const uint64_t nr = text ? strtoull(text, NULL, 0) : 5000;

	rng = seed_or(weft_now_ns()) | 1;
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(shapes); i++)
		run(shapes[i][0], shapes[i][1], shapes[i][2], nr / WEFT_ARRAY_LEN(shapes));
	print_message("%" PRIu64 " requests, of which %" PRIu64 " failed; %" PRIu64 " faults\n",
		nr_done, nr_failed, nr_faults);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(against_an_array)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
