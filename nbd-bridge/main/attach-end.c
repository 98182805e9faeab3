/* SPDX-License-Identifier: MIT */
/*
 * How an attachment ends by `weft detach` without --force, and by a signal.  On the main thread.
 *
 * The attachment ends when nobody uses it and its donor has all that was written: the kernel's
 * cache is written back, then the bridge's own.  Until then it goes on as if nobody had asked.  A
 * signal asks once and for all; `weft detach` asks again and again.
 */
#include "nbd-bridge/main/attach.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"

enum { DRAIN_MS = 10000 }; /* for requests in flight when we stop */

/* a donor that has owed an answer for this time counts as silent */
#define SILENT_NS UINT64_C(3000000000)
#define LOOK_NS UINT64_C(1000000000) /* how often to look whether the last user has gone */
#define SOON_NS UINT64_C(20000000)

unsigned attach_users(struct attach *a, char *text, size_t len)
{
	json_t *texts = json_array(), *one;
	unsigned users = 0, named = 0;
	size_t i, n = 0;

	for (struct bridge_front *front = a->fronts; front; front = front->next)
		users += front->ops->users(front, texts);
	text[0] = '\0';
	json_array_foreach(texts, i, one) {
		if (n + strlen(json_string_value(one)) + strlen(", and 4294967295 more") >= len)
			break;
		n += (size_t)sprintf(text + n, "%s%s", i ? ", " : "", json_string_value(one));
		named++;
	}
	if (users > named)
		snprintf(text + n, len - n, "%s%u more", named ? ", and " : "", users - named);
	json_decref(texts);
	return users;
}

bool attach_donor_answers(struct attach *a)
{
	uint64_t silent_ns;

	return a->bridge &&
		strcmp(bridge_state_silent(a->bridge, NULL, &silent_ns), "ready") == 0 &&
		silent_ns < SILENT_NS;
}

int attach_stop_fronts(struct attach *a, bool force, struct weft_error *err)
{
	uint32_t drain_ms = a->gives_up ? 0 : DRAIN_MS;

	for (struct bridge_front *front = a->fronts; front; front = front->next) {
		int r = front->ops->stop(front, force, drain_ms, err);

		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- what the kernel caches ---- */

static void settled(struct bridge_settle *settle, int result)
{
	struct attach *a = weft_container_of(settle, struct attach, settle);

	a->settled = true;
	/* Unmounting, or closing the device, writes it back as well. */
	if (result == -ECHILD)
		weft_warn(
			"the process that has the kernel write back what it caches of '%s' failed",
			a->options.name);
	a->settle_result = result == -ECHILD ? 0 : result;
	if (a->asked_to_end)
		weft_loop_timer_set(a->loop, &a->end_look, 1);
}

/* False: the kernel caches nothing. */
static bool begin_to_settle(struct attach *a, bool everything)
{
	const char *paths[BRIDGE_SETTLE_PATHS];
	unsigned n = 0;

	for (struct bridge_front *front = a->fronts; front && n < BRIDGE_SETTLE_PATHS;
		front = front->next)
		if (front->ops->forget && !(front->ops->gone && front->ops->gone(front)))
			paths[n++] = front->path;
	a->settled = false;
	if (n == 0)
		return false;
	int r = bridge_settle_begin(&a->settle, a->loop, paths, n, everything, settled);
	/* Unmounting, or closing the device, writes it back as well. */
	if (r < 0)
		weft_warn("cannot start a process that has the kernel write back: %s",
			strerror(-r));
	return r == 0;
}

/* ---- the end ---- */

enum attach_end attach_try_to_end(struct attach *a, struct weft_error *err)
{
	char users[320]; /* the advice behind them has to fit into the message */

	if (a->settle.pid)
		return ATTACH_END_LATER;
	if (attach_users(a, users, sizeof(users)) > 0) {
		weft_error_set(err, EBUSY,
			"'%s' is in use: %s; end that first, or: weft detach --force %s",
			a->options.name, users, a->options.name);
		return ATTACH_END_REFUSED;
	}
	a->gives_up = false;
	/* A stale attachment cannot write back, and has no user any more who could miss it. */
	if (!a->settled && strcmp(bridge_state(a->bridge, NULL), "stale") != 0 &&
		begin_to_settle(a, false))
		return ATTACH_END_LATER;
	a->settled = false;
	int r = a->settle_result;
	a->settle_result = 0;
	if (r < 0) {
		weft_error_set(err, -r,
			"'%s' is not detached: what the kernel caches of it could not be written "
			"to the donor: %s; to lose "
			"that: weft detach --force %s",
			a->options.name, strerror(-r), a->options.name);
		return ATTACH_END_REFUSED;
	}
	uint64_t dirty = bridge_dirty_bytes(a->bridge);
	if (dirty > 0 && dirty == bridge_lost_bytes(a->bridge)) {
		char size[32];

		weft_error_set(err, EIO,
			"'%s' is not detached: %s that were not at its donor are lost, since its "
			"cache file cannot be read; save what there "
			"is with: weft rescue %s FILE; or give the lost ones up: weft detach "
			"--force %s",
			a->options.name, weft_format_size(dirty, size, sizeof(size)),
			a->options.name, a->options.name);
		return ATTACH_END_REFUSED;
	}
	if (dirty > 0) {
		bridge_push_now(a->bridge);
		return ATTACH_END_LATER;
	}
	return attach_stop_fronts(a, false, err) < 0 ? ATTACH_END_REFUSED : ATTACH_END_NOW;
}

/* ---- by a signal ---- */

/* The reason is told once, and again when it changes. */
static void tell_refusal(struct attach *a, const struct weft_error *why)
{
	if (strcmp(a->end_told.message, why->message) == 0)
		return;
	a->end_told = *why;
	weft_warn("'%s' was told to end (SIG%s) and goes on until it can: %s", a->options.name,
		sigabbrev_np(a->asked_to_end), why->message);
}

static const struct weft_error *cannot_write_back(struct attach *a, struct weft_error *ret)
{
	weft_error_set(ret, EAGAIN,
		"its cache holds what is not at the donor, and the donor does not answer; to save "
		"that: weft rescue %s FILE; to lose it: "
		"weft detach --force %s",
		a->options.name, a->options.name);
	return ret;
}

static void end_or_look_again(struct weft_timer *timer)
{
	struct attach *a = weft_container_of(timer, struct attach, end_look);
	struct weft_error why = {0};

	if (a->settle_everything) {
		if (!a->settled)
			return;
		a->settle_everything = a->settled = false;
		if (a->settle_result < 0)
			weft_warn("what the kernel caches of '%s' could not be written to the "
				  "donor: %s",
				a->options.name, strerror(-a->settle_result));
		else
			weft_info("what the kernel cached of '%s' is at its donor",
				a->options.name);
		a->settle_result = 0;
	}
	switch (attach_try_to_end(a, &why)) {
	case ATTACH_END_NOW:
		weft_info("'%s' ends: SIG%s", a->options.name, sigabbrev_np(a->asked_to_end));
		weft_loop_stop(a->loop);
		break;
	case ATTACH_END_LATER:
		if (a->settle.pid)
			break;
		if (!attach_donor_answers(a))
			tell_refusal(a, cannot_write_back(a, &why));
		weft_loop_timer_set(a->loop, timer, why.code ? LOOK_NS : SOON_NS);
		break;
	case ATTACH_END_REFUSED:
		tell_refusal(a, &why);
		weft_loop_timer_set(a->loop, timer, LOOK_NS);
		break;
	}
}

void attach_on_signal(struct weft_signals *signals, int signo)
{
	struct attach *a = weft_container_of(signals, struct attach, signals);

	a->asked_to_end = signo;
	a->end_told.message[0] = '\0';
	a->end_look.fn = end_or_look_again;
	bridge_push_now(a->bridge);
	/*
	 * With users the bridge goes on.  The sender of the signal may kill it soon, so everything
	 * is written back now.
	 */
	if (!a->settle.pid)
		a->settle_everything = begin_to_settle(a, true);
	if (!a->settle.pid)
		weft_loop_timer_set(a->loop, &a->end_look, 1);
}

void attach_forget_end(struct attach *a)
{
	bridge_settle_end(&a->settle);
	weft_loop_timer_cancel(a->loop, &a->end_look);
}
