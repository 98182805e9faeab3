/* SPDX-License-Identifier: MIT */
/*
 * The rules about who may go on with a region's contents, and as which part of a striped device.
 * tests/model/ has the same rules, checked by a machine: change them there first.
 *
 * Threads: under the donor's lock.  Nothing here waits.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "fabric/donor/donor-private.h"
#include "fabric/base/util.h"

static uint32_t incarnation(uint64_t generation)
{
	return (uint32_t)(generation >> 32);
}

/* Whether nobody but stock clients of this owner could write under the tenure since it was told. */
static bool tenure_holds(const struct weft_region *region, uint64_t owner, uint64_t tenure)
{
	return tenure == region->tenure ||
		(owner == region->tenure_owner && tenure == region->owner_tenure);
}

void donor_note_tenure(struct weft_region *region, const struct weft_hello *hello, uint64_t owner)
{
	/*
	 * A writer that remembers nothing may change contents that clients of the old tenure know.
	 */
	if (!(hello->anonymous ? hello->tenure : hello->epoch)) {
		weft_region_note_tenure(region, weft_random_name());
		return;
	}
	if (!hello->anonymous || owner == region->tenure_owner)
		return;
	/* Whoever it was the tenure of may come back with it, and remembers other contents. */
	if (region->tenure_owner)
		weft_region_note_tenure(region, weft_random_name());
	weft_region_note_owner(region, owner, hello->tenure);
}

int donor_check_contents(const struct weft_region *region, const struct weft_hello *hello,
	uint64_t owner, struct weft_error *err)
{
	uint64_t epoch = hello->epoch ? hello->epoch : hello->expect;

	if (hello->anonymous) {
		if (hello->tenure && !tenure_holds(region, owner, hello->tenure))
			return weft_error_set(err, ESTALE,
				"region '%s': tenure %016" PRIx64
				" is over: another could write since, or the "
				"contents are others; what you remember of it is not what it has; "
				"without '@%016" PRIx64 "' you get what it has",
				region->name, hello->tenure, hello->tenure);
		return 0;
	}
	if (hello->tenure)
		return weft_error_set(err, EINVAL,
			"region '%s': a tenure is for clients that cannot say what they remember; "
			"attach the region by its "
			"name, without '@%016" PRIx64 "'",
			region->name, hello->tenure);
	if (epoch && epoch != region->epoch)
		return weft_error_set(err, ESTALE,
			"region '%s': its epoch is %016" PRIx64 ", not %016" PRIx64
			": what '%s' knows of is gone",
			region->name, region->epoch, epoch, hello->name);
	return 0;
}

int donor_refuse_generation(const struct weft_region *region, const struct weft_hello *hello,
	uint64_t highest, struct weft_error *err)
{
	if (incarnation(hello->generation) < incarnation(highest))
		return weft_error_set(err, WEFT_ESUPERSEDED,
			"region '%s': attachment '%s' was taken over by another process",
			region->name, hello->name);
	return weft_error_set(err, WEFT_EOVER,
		"region '%s': generation %" PRIu32 ".%" PRIu32 " of attachment '%s' is over",
		region->name, incarnation(hello->generation), (uint32_t)hello->generation,
		hello->name);
}

static int refuse_claim(const struct weft_region *region, const struct weft_hello *hello,
	const char *why, struct weft_error *err)
{
	return weft_error_set(err, ESTALE, "region '%s': attachment '%s' %s", region->name,
		hello->name, why);
}

/* Whether the region has the contents that the hello remembers.  The epoch is the same. */
static int check_claim(const struct weft_region *region, const struct weft_hello *hello,
	const struct weft_generation *gen, struct weft_error *err)
{
	bool is_file = region->backing == WEFT_BACKING_FILE;

	/* A file that is served read-only has another epoch whenever it has other contents. */
	if (!hello->epoch || hello->mode == WEFT_MODE_SHARED || (is_file && region->read_only))
		return 0;
	if (!gen)
		return refuse_claim(region, hello,
			"is not remembered, and another could write since; attach anew", err);
	if (gen->lapsed == WEFT_LAPSED_WRITTEN)
		return refuse_claim(region, hello,
			"lost its lease, and another could write since; attach anew", err);
	if (gen->lapsed == WEFT_LEFT_WRITTEN)
		return refuse_claim(region, hello,
			"did not hold the region for a while, and another could write since; "
			"attach anew",
			err);
	if (!is_file || (gen->flags & WEFT_ENTRY_HERE))
		return 0;
	if (hello->granted == 0)
		return refuse_claim(region, hello,
			"runs an older weft, and the file was closed since: it may have been put "
			"back to what it was; "
			"attach anew",
			err);
	if (hello->granted > gen->generation ||
		(hello->granted == gen->generation && hello->wrote &&
			(gen->flags & WEFT_ENTRY_OPEN)))
		return refuse_claim(region, hello,
			"knows newer contents than the file has: the file was put back to what it "
			"was before; attach anew",
			err);
	return 0;
}

bool donor_is_new_of_version0(const struct weft_hello *hello, const struct weft_generation *gen)
{
	return hello->version0 && hello->epoch && hello->generation == UINT64_C(1) << 32 && !gen;
}

int donor_check_generation(const struct weft_region *region, const struct weft_hello *hello,
	const struct weft_generation *gen, struct weft_error *err)
{
	if (gen && hello->generation < gen->generation)
		return donor_refuse_generation(region, hello, gen->generation, err);
	int r = check_claim(region, hello, gen, err);
	if (r < 0 || !gen || hello->generation > gen->generation)
		return r;
	/*
	 * The same generation may not go on once its lease is over, or after the file was closed
	 * and opened again.
	 */
	bool over = gen->lapsed == WEFT_LAPSED || gen->lapsed == WEFT_LAPSED_WRITTEN ||
		(region->backing == WEFT_BACKING_FILE && !region->read_only &&
			!(gen->flags & WEFT_ENTRY_HERE));
	return over ? donor_refuse_generation(region, hello, gen->generation, err) : 0;
}

int donor_check_grace(struct weft_region *region, const struct weft_generation *gen,
	struct weft_error *err)
{
	uint64_t now_ns = weft_now_ns();
	bool over = now_ns >= region->grace_until_ns, waits_for = false, held = false;

	if (region->grace_until_ns == 0)
		return 0;
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++) {
		struct weft_generation *other = &region->generations[i];

		if (other->generation == 0 || !other->held)
			continue;
		if (other->lapsed == WEFT_LEFT_WRITTEN && over)
			other->held = 0;
		waits_for |= other->lapsed == WEFT_LEFT_WRITTEN && !over;
		held |= other->held != 0;
	}
	if (waits_for && gen && gen->held)
		return 0;
	/* If nobody knows who held the region, anybody may have held it. */
	waits_for |= region->forgets && !over;
	if (waits_for)
		return weft_error_set(err, EBUSY,
			"region '%s': its donor lost what a borrower held, and that borrower may "
			"still answer from what it "
			"remembers; it is free in %.1f s, or once that borrower detaches",
			region->name, (double)(region->grace_until_ns - now_ns) / 1e9);
	region->grace_until_ns = 0;
	if (!held)
		weft_region_forget_promises(region);
	return 0;
}

_Static_assert(WEFT_NR_GENERATIONS <= 64, "a bit for each");

uint64_t donor_note_writer(struct weft_region *region, const struct weft_generation *ours)
{
	uint64_t changed = 0;

	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++) {
		struct weft_generation *gen = &region->generations[i];
		uint32_t was = gen->lapsed;

		if (gen->generation == 0 || gen == ours)
			continue;
		if (was == WEFT_LAPSED)
			gen->lapsed = WEFT_LAPSED_WRITTEN;
		else if (was == WEFT_NOT_LAPSED)
			gen->lapsed = WEFT_LEFT_WRITTEN;
		if (gen->lapsed != was)
			changed |= UINT64_C(1) << i;
	}
	region->table_seq += changed != 0;
	return changed;
}

void donor_take_back_writer(struct weft_region *region, uint64_t changed)
{
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++) {
		struct weft_generation *gen = &region->generations[i];

		if (changed & UINT64_C(1) << i)
			gen->lapsed =
				gen->lapsed == WEFT_LAPSED_WRITTEN ? WEFT_LAPSED : WEFT_NOT_LAPSED;
	}
	region->table_seq += changed != 0;
}

void donor_enter(struct weft_region *region, struct weft_generation *gen,
	const struct weft_hello *hello)
{
	bool shared = hello->mode == WEFT_MODE_SHARED;

	gen->generation = hello->generation;
	/*
	 * A shared reader goes on with any contents, and keeps nobody out: no claim can rest on its
	 * grant.
	 */
	gen->lapsed = shared ? WEFT_LEFT_WRITTEN : WEFT_NOT_LAPSED;
	gen->held = shared ? 0 : (uint16_t)(1 + hello->mode);
	gen->flags = region->backing == WEFT_BACKING_FILE ? WEFT_ENTRY_HERE : 0;
	snprintf(gen->name, sizeof(gen->name), "%s", hello->name);
	region->table_seq++;
}

void donor_lose_contents(struct weft_region *region)
{
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++)
		if (region->generations[i].generation != 0)
			region->generations[i].lapsed = WEFT_LEFT_WRITTEN;
}

void donor_begin_grace(struct weft_region *region)
{
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++) {
		const struct weft_generation *gen = &region->generations[i];

		if (gen->generation != 0 && gen->held && gen->held != 1 + WEFT_MODE_SHARED &&
			gen->lapsed == WEFT_LEFT_WRITTEN)
			region->grace_until_ns =
				weft_now_ns() + region->promised_lease_ms * UINT64_C(1000000);
	}
}

/* ---- stripes ---- */

/*
 * Readers and writers that say no part attach the region as a whole device.  A shared reader may
 * not care about the bytes: weft detach is one, to say goodbye.
 */
static struct weft_stripe stripe_of(const struct weft_hello *hello)
{
	const struct weft_stripe unknown = {0};

	if (hello->anonymous || hello->version0)
		return unknown;
	if (hello->stripe.count || hello->mode == WEFT_MODE_SHARED)
		return hello->stripe;
	return weft_stripe_whole;
}

bool donor_gives_up_contents(const struct weft_hello *hello)
{
	return !hello->anonymous && hello->new_contents && !hello->epoch &&
		hello->mode == WEFT_MODE_WRITE;
}

/* Adds what the user can do instead. */
static void advise(const struct weft_stripe *kept, const struct weft_stripe *asked, char *text,
	size_t size)
{
	if (kept->count == 1)
		snprintf(text, size, "attach this region alone");
	else if (kept->count != asked->count)
		snprintf(text, size,
			"give all %" PRIu32
			" donors, in the order in which they were first attached",
			kept->count);
	else if (kept->unit_bytes != asked->unit_bytes)
		snprintf(text, size, "give --stripe-unit %" PRIu64, kept->unit_bytes);
	else
		snprintf(text, size,
			"give the donors in the order in which they were first attached");
}

static void describe(const struct weft_stripe *stripe, bool with_unit, const char *of_what,
	char *text, size_t size)
{
	char unit[32];

	if (stripe->count == 1)
		snprintf(text, size, "a whole device");
	else
		snprintf(text, size, "part %" PRIu32 " of %" PRIu32 "%s%s%s%s", stripe->index,
			stripe->count, of_what, with_unit ? " (stripes of " : "",
			with_unit ? weft_format_size(stripe->unit_bytes, unit, sizeof(unit)) : "",
			with_unit ? ")" : "");
}

int donor_check_stripe(const struct weft_region *region, const struct weft_hello *hello,
	struct weft_error *err)
{
	const struct weft_stripe *kept = &region->stripe, asked = stripe_of(hello);
	char is[128], is_not[128], advice[128];

	if (!asked.count || !kept->count || weft_stripe_equal(kept, &asked) ||
		donor_gives_up_contents(hello))
		return 0;
	describe(kept, true, " of a striped device", is, sizeof(is));
	describe(&asked, kept->unit_bytes != asked.unit_bytes,
		kept->count == 1 ? " of a striped device" : "", is_not, sizeof(is_not));
	advise(kept, &asked, advice, sizeof(advice));
	return weft_error_set(err, EINVAL,
		"region '%.60s' is %s, not %s: %s; to give its contents up: --new-contents",
		region->name, is, is_not, advice);
}

bool donor_changes_stripe(const struct weft_region *region, const struct weft_hello *hello)
{
	struct weft_stripe asked = stripe_of(hello);

	return hello->mode == WEFT_MODE_WRITE && asked.count && region->stripe.count &&
		!weft_stripe_equal(&region->stripe, &asked);
}

void donor_note_stripe(struct weft_region *region, const struct weft_hello *hello)
{
	struct weft_stripe asked = stripe_of(hello);

	if (!asked.count || weft_stripe_equal(&region->stripe, &asked))
		return;
	weft_region_note_stripe(region, &asked);
	region->table_seq++;
}
