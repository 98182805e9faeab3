/* SPDX-License-Identifier: MIT */
/*
 * Marks (fabric/marking.h, tests/model/marks.pml): setting one, asking for it, and raising it
 * before what is written next.
 *
 * From when a mark may be set a lane keeps writes back (`before_write`) until every donor has
 * raised its mark, on the lane's thread and one donor after the other.  Several lanes may do so at
 * once: a mark that is raised twice is raised.
 */
#include <errno.h>

#include "fabric/base/util.h"
#include "fabric/marking.h"
#include "nbd-bridge/library/weft-private.h"

/* A byte that the donor has. */
static uint64_t off_of(const struct weft *w, unsigned donor)
{
	return w->nr_uris > 1 ? donor * w->stripe_bytes : 0;
}

/* ---- before a write: the lane's thread ---- */

static void ask_to_raise(struct library_lane *lane)
{
	struct library_raise *raise = &lane->raise;

	command_init(&raise->command, lane, TP_HASH, raise->answer,
		off_of(lane->w, raise->donor), 1);
	weft_marking_pack(WEFT_MARK_RAISE, 0, &raise->command.hashing);
	command_begin(&raise->command);
}

static void let_go(struct library_lane *lane, int error)
{
	struct command *command = lane->raise.parked;

	lane->raise.parked = NULL;
	lane->raise.parked_tail = &lane->raise.parked;
	while (command) {
		struct command *next = command->next_short;

		if (error < 0)
			command_fail(command, error);
		else
			command_begin(command);
		command = next;
	}
}

static void raised(struct command *command)
{
	struct library_lane *lane = command->lane;
	struct weft *w = lane->w;
	int r = command->status;

	/* A donor that has become an older one has no marks. */
	if (r == -EOPNOTSUPP)
		r = 0;
	if (r == 0 && ++lane->raise.donor < w->nr_uris) {
		ask_to_raise(lane);
		return;
	}
	lane->raise.is_running = false;
	if (r == 0)
		atomic_store(&w->before_write, NULL);
	let_go(lane, r);
}

static void raise_before(struct command *command)
{
	struct library_lane *lane = command->lane;
	struct library_raise *raise = &lane->raise;

	command->next_short = NULL;
	*raise->parked_tail = command;
	raise->parked_tail = &command->next_short;
	if (raise->is_running)
		return;
	raise->is_running = true;
	raise->donor = 0;
	raise->command.ended = raised;
	ask_to_raise(lane);
}

/* ---- calls that block ---- */

/* Of one donor. */
static int ask(struct weft *w, unsigned donor, enum weft_mark_action action, uint64_t number,
	struct weft_marked *ret)
{
	struct weft_hashing hashing;
	uint8_t answer[WEFT_HASH_BYTES];

	weft_marking_pack(action, number, &hashing);
	int r = library_ask(w, &hashing, off_of(w, donor), 1, answer);
	if (r == 0)
		weft_marked_unpack(answer, ret);
	return r;
}

static int check(const struct weft *w)
{
	return library_lane_in_completion ? -EDEADLK : w->info.can_mark && !w->has_cache ? 0
		: -EOPNOTSUPP;
}

int weft_mark(struct weft *w)
{
	struct weft_marked marked[BRIDGE_MAX_DONORS];
	int r = check(w);

	if (r == 0 && w->info.read_only)
		r = -EPERM;
	for (unsigned i = 0; i < w->nr_uris && r == 0; i++)
		r = ask(w, i, WEFT_MARK_RAISE, 0, &marked[i]);
	if (r < 0)
		return r;
	/* A write that begins from here on raises the mark again, so that it is not set. */
	atomic_store(&w->before_write, raise_before);
	r = library_call(w, TP_FLUSH, NULL, 0, 0);
	for (unsigned i = 0; i < w->nr_uris && r == 0; i++)
		r = ask(w, i, WEFT_MARK_SET, marked[i].number, &marked[i]);
	return r;
}

int weft_mark_look(struct weft *w, struct weft_mark *ret)
{
	struct weft_mark mark = {.size = sizeof(mark), .is_set = 1, .age_ms = UINT64_MAX};
	int r = ret->size < sizeof(*ret) ? -EINVAL : check(w);

	for (unsigned i = 0; i < w->nr_uris && r == 0; i++) {
		struct weft_marked marked;

		r = ask(w, i, WEFT_MARK_ASK, 0, &marked);
		if (r < 0)
			break;
		/* Each number only goes up, so that no two sums of them are of the same marks. */
		mark.number += marked.number;
		/* The whole is marked since the last of them was, and is not since the first. */
		if (mark.is_set && !weft_is_marked(marked.number)) {
			mark.is_set = 0;
			mark.age_ms = marked.age_ms;
		} else if (mark.is_set == weft_is_marked(marked.number)) {
			mark.age_ms = mark.is_set ? weft_min(mark.age_ms, marked.age_ms)
						  : weft_max(mark.age_ms, marked.age_ms);
		}
	}
	if (r == 0)
		*ret = mark;
	return r;
}
