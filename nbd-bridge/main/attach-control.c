/* SPDX-License-Identifier: MIT */
/*
 * The control socket of weft attach: status, the flight recorder, detaching.  On the main thread.
 */
#include "nbd-bridge/main/attach.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "nbd-bridge/bridge/copies.h"

static json_t *failure(int code, const char *message)
{
	return json_pack("{s:s, s:i}", "error", message, "code", code);
}

static void on_detach(struct attach *a, struct weft_control_call *call, bool force)
{
	enum attach_end end = ATTACH_END_NOW;
	struct weft_error err = {0};

	if (a->detach) {
		weft_control_answer(call, failure(EALREADY, "it is being detached already"));
		return;
	}
	a->gives_up = force && !attach_donor_answers(a);
	if (!force)
		end = attach_try_to_end(a, &err);
	else if (attach_stop_fronts(a, true, &err) < 0)
		end = ATTACH_END_REFUSED;
	switch (end) {
	case ATTACH_END_NOW:
		a->detach = call;
		weft_loop_stop(a->loop);
		break;
	case ATTACH_END_LATER:
		/* weft detach asks again, and shows the progress. */
		weft_control_answer(call,
			json_pack("{s:b, s:I, s:I, s:b, s:s}", "detached", 0, "dirty_bytes",
				(json_int_t)bridge_dirty_bytes(a->bridge), "written_bytes",
				(json_int_t)bridge_written_bytes(a->bridge), "settling",
				a->settle.pid != 0, "state", bridge_state(a->bridge, NULL)));
		break;
	case ATTACH_END_REFUSED:
		weft_control_answer(call, failure(err.code, err.message));
		break;
	}
}

static json_t *optional_string(const char *text)
{
	return text ? json_string(text) : json_null();
}

/* One donor's transport is the attachment's; with several donors each has its own. */
static void set_transport(struct attach *a, json_t *json)
{
	json_t *donors = json_object_get(json, "donors"), *donor;
	json_int_t changes = 0;
	size_t i;

	json_array_foreach(donors, i, donor) {
		changes += json_integer_value(json_object_get(donor, "transport_changes"));
		const char *uri = json_string_value(json_object_get(donor, "uri"));
		bool moved = uri && !attach_is_given(&a->options, (unsigned)i, uri);

		if (!uri) /* the only one */
			json_object_set_new(donor, "uri", json_string(a->options.uri_text));
		json_object_set_new(donor, "moved_from",
			moved ? json_string(a->options.donors[i].uri_text) : json_null());
		if (!json_is_string(json_object_get(donor, "transport_why")))
			json_object_set_new(donor, "transport_why", json_string(a->find.why));
	}
	donor = json_array_get(donors, 0);
	json_object_set(json, "transport_why", json_object_get(donor, "transport_why"));
	json_object_set(json, "transport_since_s", json_object_get(donor, "transport_since_s"));
	json_object_set_new(json, "transport_changes", json_integer(changes));
}

/* Of the one front-end that there is then; null without --kernel-socket. */
static json_t *kernel_socket(const struct attach *a)
{
	return a->options.device_wish.kernel_socket && a->fronts
		? a->fronts->ops->status(a->fronts)
		: json_null();
}

static json_t *status(struct attach *a)
{
	json_t *json = bridge_status(a->bridge), *clients = json_array();

	if (!json)
		return failure(ENOMEM, "out of memory");
	json_object_set_new(json, "kind", json_string("attachment"));
	json_object_set_new(json, "pid", json_integer(getpid()));
	json_object_set_new(json, "uri", json_string(a->options.uri_text));
	set_transport(a, json);
	json_object_set_new(json, "socket", optional_string(a->options.socket));
	json_object_set_new(json, "socket_tenure", a->options.socket
		? json_sprintf("%016" PRIx64, atomic_load(&a->socket_tenure.now)) : json_null());
	json_object_set_new(json, "mount", optional_string(a->options.mount));
	json_object_set_new(json, "device",
		optional_string(a->options.device ? a->state.device.path : NULL));
	json_object_set_new(json, "device_why",
		optional_string(a->options.device ? a->device_why : NULL));
	for (struct bridge_front *front = a->fronts; front; front = front->next) {
		if (strcmp(front->ops->name, "socket") == 0)
			front->ops->users(front, clients);
		if (strcmp(front->ops->name, "mount") == 0)
			json_object_set_new(json, "mounted",
				json_boolean(!front->ops->gone(front)));
	}
	json_object_set_new(json, "clients", clients);
	json_object_set_new(json, "kernel_socket", kernel_socket(a));
	json_object_set_new(json, "swap", attach_swap_status(a));
	if (a->asked_to_end)
		json_object_set_new(json, "ending",
			json_sprintf("SIG%s", sigabbrev_np(a->asked_to_end)));
	return json;
}

static json_t *on_repair(struct attach *a, const json_t *question)
{
	json_int_t stripe = -1, copy = -1, off = -1, len = -1;
	struct weft_error err;

	json_unpack((json_t *)question, "{s?:I, s?:I, s?:I, s?:I}", "stripe", &stripe, "copy",
		&copy, "offset_bytes", &off, "length_bytes", &len);
	if (stripe < 0 || stripe >= BRIDGE_MAX_DONORS || copy < 0 || copy >= BRIDGE_MAX_DONORS ||
		off < 0 || len < 0)
		return failure(EINVAL, "which bytes, and as which copy has them?");
	int r = bridge_copies_repair(a->bridge, (unsigned)stripe, (unsigned)copy, (uint64_t)off,
		(uint64_t)len, &err);
	/* weft verify asks again. */
	return r < 0 && r != -EINPROGRESS ? failure(err.code, err.message)
					  : json_pack("{s:b}", "repaired", r == 0);
}

void attach_on_question(void *ctx, struct weft_control_call *call, const json_t *question)
{
	struct attach *a = ctx;
	const char *op = json_string_value(json_object_get(question, "op"));

	if (!a->bridge) {
		weft_control_answer(call, failure(ESHUTDOWN, "it is being detached"));
	} else if (op && strcmp(op, "status") == 0) {
		weft_control_answer(call, status(a));
	} else if (op && strcmp(op, "explain") == 0) {
		json_t *json = status(a);

		json_object_set_new(json, "recorder", bridge_explain(a->bridge));
		weft_control_answer(call, json);
	} else if (op && strcmp(op, "rescue") == 0) {
		weft_control_answer(call, attach_on_rescue(a, question));
	} else if (op && strcmp(op, "repair") == 0) {
		weft_control_answer(call, on_repair(a, question));
	} else if (op && strcmp(op, "reset") == 0) {
		weft_control_answer(call,
			attach_on_reset(a, json_is_true(json_object_get(question, "discard"))));
	} else if (op && strcmp(op, "detach") == 0) {
		on_detach(a, call, json_is_true(json_object_get(question, "force")));
	} else {
		weft_control_answer(call,
			failure(EOPNOTSUPP,
				"an attachment answers to status, explain, rescue, repair, reset "
				"and detach only"));
	}
}
