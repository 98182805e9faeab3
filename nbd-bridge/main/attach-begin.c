/* SPDX-License-Identifier: MIT */
/*
 * Begins the bridge of an attachment: with the memory in the state file, over the ways that are
 * found, once or until a donor answers.  Main thread; blocks.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "nbd-bridge/cache/file.h"
#include "nbd-bridge/cache/pull-order.h"
#include "nbd-bridge/front/front.h"
#include "nbd-bridge/main/attach-guard.h"
#include "nbd-bridge/main/attach.h"

enum { WAIT_MS = 1000 }; /* between two tries, with --wait */

static void bridge_changes(void *ctx)
{
	struct attach *a = ctx;

	weft_loop_wake(a->loop);
}

/* What the donor granted; of a copy that was never there, what another of its stripe did. */
static const struct tp_info *info_of(const struct bridge_state_file *state, unsigned donor)
{
	const unsigned first = donor - donor % state->copies;
	const struct tp_info *info = &state->donors[donor].info;

	for (unsigned i = 0; info->size_bytes == 0 && i < state->copies; i++)
		info = &state->donors[first + i].info;
	return info;
}

/* Whether the state has what the front-ends of a stale attachment need, without a donor's word. */
static bool knows_infos(const struct bridge_state_file *state)
{
	for (unsigned i = 0; i < state->nr_donors; i++)
		if (info_of(state, i)->size_bytes == 0)
			return false;
	return true;
}

/*
 * A stale bridge owns the device, file or socket and answers EIO, so that weft reset and detach
 * have somebody to ask.  *err: why it is stale.
 */
static int start_stale(struct attach *a, struct bridge_config *config,
	struct bridge_donor_config *donors, struct weft_error *err)
{
	struct tp_info infos[BRIDGE_MAX_DONORS];
	struct weft_error why = *err;

	for (unsigned i = 0; i < config->attach.nr_donors; i++)
		infos[i] = *info_of(&a->state, i);
	config->cache.bytes = 0;
	config->cache.file = NULL;
	config->cache.seal = NULL;
	a->left_cache = a->resumes && a->options.cache_file;
	a->resumes = config->cache.resume = false;
	cache_file_close(a->cache_file);
	a->cache_file = NULL;
	int r = attach_save_state(a, attach_change_stale, NULL, err);
	if (r == 0)
		r = bridge_find_and_start_stale(&a->find, config, donors, infos, &why, &a->bridge,
			err);
	a->began_stale = r == 0;
	return r;
}

/* Sleeps.  True: the waiting command has given up, or a signal asks for the end. */
static bool sleep_or_give_up(const struct attach *a, int ms)
{
	struct pollfd p[] = {{.fd = a->signals.watch.fd, .events = POLLIN}, {.fd = a->result_fd}};

	return poll(p, WEFT_ARRAY_LEN(p), ms) > 0;
}

bool attach_is_given_up(void *ctx)
{
	return sleep_or_give_up(ctx, 0);
}

static int start_bridge(struct attach *a, struct weft_error *err)
{
	const struct attach_options *o = &a->options;
	const struct weft_uri *uri = &o->donors[0].uri;
	struct bridge_donor_config donors[BRIDGE_MAX_DONORS] = {0};
	struct pull_order order = {0};
	int asked;

	if (o->pull_order && pull_order_read(o->pull_order, &order, err) < 0)
		return -err->code;
	struct bridge_config config = {
		.attach = {
			.nr_donors = o->nr_donors,
			.stripe_bytes = o->stripe_bytes,
			.new_contents = o->new_contents || o->from,
			.copies = {
				.nr = o->copies > 1 ? o->copies : 0,
				.min = o->min_copies,
				.fails_on_too_few = o->fails_on_too_few,
				.spare_ms = o->spare_after_ms,
				.nr_needed = attach_copies_needed(a),
				.settle = attach_settle_copies,
				.note = attach_note_copies,
				.ctx = a,
			},
			.wants_alias = o->device_wish.kernel_socket,
			.foreign = uri->foreign,
			.mode = attach_mode(o),
			.timeout_ms = o->timeout_ms,
			.dead_timeout_ms = o->dead_timeout_ms,
			.connect_timeout_ms = ATTACH_CONNECT_MS,
			.assume_stable = o->assume_stable,
			.borrower = a->state.borrower,
			.changed = bridge_changes,
			.changed_ctx = a,
			.note = attach_note,
			.note_place = attach_note_place,
			.note_ctx = a,
		},
		.cache = {
			.bytes = o->cache_bytes,
			.chunk_bytes = o->chunk_bytes,
			.write_through = o->write_through,
			.push_interval_ms = o->push_interval_ms,
			.pull = o->pull,
			.pull_workers = o->pull_workers,
			.pull_rate = o->pull_rate,
			.pull_order = o->pull_order ? &order : NULL,
			.file = a->cache_file,
			.uri = o->uri_text,
			.resume = a->resumes,
			.seal = a->seal,
		},
		.nr_lanes = o->nr_lanes,
		.given_up = attach_is_given_up,
		.given_up_ctx = a,
	};
	config.attach.copies.nr_spares = attach_spares_now(a, config.attach.copies.spares);
	strcpy(config.attach.name, o->name);
	a->find.choice = o->transport;
	asked = a->state.stale ? 0 : attach_ask_copies(a, err);
	for (unsigned i = 0; i < o->nr_donors; i++) {
		a->find.donors[i].label = o->nr_donors > 1 ? o->donors[i].uri_text : NULL;
		memcpy(donors[i].id, a->state.donors[i].id, sizeof(donors[i].id));
		if (attach_copy_remembers(a, i)) {
			donors[i].epoch = a->state.donors[i].epoch;
			donors[i].granted = a->state.donors[i].granted;
			donors[i].wrote = a->state.donors[i].wrote;
		}
		donors[i].at = a->state.donors[i].at;
		donors[i].moving = a->state.donors[i].moving;
		if (a->state.takes_over)
			donors[i].identity = a->state.donors[i].info.identity;
		donors[i].generation = a->state.generation;
	}
	int r = a->state.stale
		? weft_error_set(err, ESTALE, "it was stale already when its bridge died")
		: a->seal_lost
		? weft_error_set(err, ESTALE,
			  "the key of its contents is gone: weft-guard, the process that kept it, "
			  "has ended")
		: asked < 0
		? asked
		: bridge_find_and_start(&a->find, &config, donors, &a->bridge, err);

	pull_order_free(&order);
	if (r == -ESTALE && a->state.takes_over && knows_infos(&a->state))
		return start_stale(a, &config, donors, err);
	if (r < 0)
		return attach_explain_refusal(a, err);
	return attach_save_state(a, attach_change_granted, NULL, err);
}

/*
 * Whether the reason for a refusal may be over soon: a donor, a network or a name server that is
 * not up yet, another's lease.
 */
static bool may_come(const struct attach *a, int r)
{
	return r == -ECONNREFUSED || r == -EHOSTUNREACH || r == -ENETUNREACH || r == -ENETDOWN ||
		r == -ETIMEDOUT || r == -ECONNRESET || r == -EADDRNOTAVAIL || r == -ESHUTDOWN ||
		r == -EBUSY || r == -EAGAIN || (r == -ENOENT && a->options.donors[0].uri.socket[0]);
}

/* What the state had before the first try. */
struct before_try {
	bool remembers[BRIDGE_STATE_DONORS];
	bool knows_set[BRIDGE_STATE_DONORS];
};

/* After a failed try: the next incarnation fences grants that we have not heard of. */
static void change_try(struct attach *a, void *ctx)
{
	const struct before_try *before = ctx;

	bridge_state_next_incarnation(&a->state);
	/* Nobody has used what the failed try was granted. */
	for (unsigned i = 0; i < a->state.nr_donors; i++) {
		struct bridge_state_donor *donor = &a->state.donors[i];

		if (!before->remembers[i]) {
			donor->epoch = donor->granted = 0;
			donor->wrote = false;
		}
	}
	/* A set that was known is noted at its donors as the failed try had it. */
	for (unsigned i = 0; i < BRIDGE_STATE_DONORS; i++)
		if (!before->knows_set[i])
			a->state.sets[i] = (struct bridge_copies_known){0};
}

/* A spare that is a copy is known as one once enough of the others are there. */
static int place_spares(struct attach *a, const struct before_try *before, struct weft_error *err)
{
	for (unsigned i = 0; i < BRIDGE_STATE_DONORS; i++)
		if (before->knows_set[i])
			return 0;
	attach_place_spares(a);
	return attach_begin_at_places(a, err);
}

/* Refusals of a region that is held count seconds. */
static bool differ_in_numbers_only(const char *a, const char *b)
{
	static const char number[] = "0123456789.";

	for (;; a++, b++) {
		a += strspn(a, number);
		b += strspn(b, number);
		if (*a != *b || !*a)
			return *a == *b;
	}
}

/*
 * The requests of a ublk device whose bridge died wait for this one, which has its donor to wait
 * for: they are not kept for longer than by a guard.  An nbd device has the kernel's own limit.
 */
static int end_unserved_device(struct attach *a, struct weft_error *why)
{
	const uint64_t waited_ns = weft_boottime_ns() - a->state.unserved_ns;
	struct weft_error err;
	char path[32];

	if (!a->state.unserved_ns || waited_ns < attach_patience_ms(&a->options) * 1000000 ||
		!bridge_ublk_device_find(&a->state.device, path, sizeof(path)))
		return 0;
	if (bridge_ublk_device_clear(&a->state.device, true, &err) < 0) {
		weft_warn("%s has no bridge, and cannot be ended: %s", path, err.message);
		return 0;
	}
	weft_warn("the bridge of '%s' died, and its region could not be attached within %" PRIu64
		  " s (%s): %s is ended, and requests that waited for it failed",
		a->options.name, waited_ns / 1000000000, why->message, path);
	a->state.unserved_ns = 0;
	return attach_save_state(a, NULL, NULL, why);
}

/* Tries as often as --wait allows. */
int attach_begin_bridge(struct attach *a, struct weft_error *err)
{
	struct before_try before;
	const struct attach_options *o = &a->options;
	const uint64_t end_ns =
		o->wait_ms ? weft_now_ns() + o->wait_ms * UINT64_C(1000000) : UINT64_MAX;
	struct weft_error told = {0};
	char how_long[48] = "";
	int r;

	if (o->wait_ms)
		snprintf(how_long, sizeof(how_long), " for up to %g s", (double)o->wait_ms / 1000);
	for (unsigned i = 0; i < a->state.nr_donors; i++)
		before.remembers[i] = a->state.donors[i].epoch != 0;
	for (unsigned i = 0; i < BRIDGE_STATE_DONORS; i++)
		before.knows_set[i] = a->state.sets[i].set != 0;
	while ((r = start_bridge(a, err)) < 0) {
		const int ended = end_unserved_device(a, err);

		if (ended < 0)
			return ended;
		if (!o->waits || !may_come(a, r) || weft_now_ns() >= end_ns)
			return r;
		if (!differ_in_numbers_only(told.message, err->message))
			weft_info("%s; trying again%s", err->message, how_long);
		told = *err;
		bridge_find_end(&a->bridge);
		if (sleep_or_give_up(a, WAIT_MS))
			return weft_error_prefix(err, "given up");
		r = place_spares(a, &before, err);
		if (r == 0)
			r = attach_save_state(a, change_try, &before, err);
		if (r < 0)
			return r;
	}
	return r;
}
