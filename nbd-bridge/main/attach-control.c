/* The control socket of weft attach: status, the flight recorder, detaching.  On the main thread. */
#include "nbd-bridge/main/attach.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { DRAIN_MS = 10000 }; /* for requests in flight when we stop */

static json_t *failure(int code, const char *message)
{
	return json_pack("{s:s, s:i}", "error", message, "code", code);
}

/* Why it cannot be detached without force; NULL: it can. */
static json_t *busy(struct attach *a)
{
	json_t *texts = json_array(), *text;
	char message[2048];
	unsigned users = 0;
	size_t i;

	for (struct bridge_front *front = a->fronts; front; front = front->next)
		users += front->ops->users(front, texts);
	FILE *out = users > 0 ? fmemopen(message, sizeof(message), "w") : NULL;
	if (out) {
		fprintf(out, "'%s' is in use:", a->options.name);
		json_array_foreach(texts, i, text)
			if (i < 10)
				fprintf(out, "%s %.160s", i ? "," : "", json_string_value(text));
		if (users > 10)
			fprintf(out, ", and %u more", users - 10);
		fprintf(out, "; end that first, or: weft detach --force %s", a->options.name);
		fclose(out);
	}
	json_decref(texts);
	return users > 0 ? failure(EBUSY, out ? message : "it is in use") : NULL;
}

int attach_stop_fronts(struct attach *a, bool force, struct weft_error *err)
{
	for (struct bridge_front *front = a->fronts; front; front = front->next) {
		int r = front->ops->stop(front, force, DRAIN_MS, err);

		if (r < 0)
			return r;
	}
	return 0;
}

static void on_detach(struct attach *a, struct weft_control_call *call, bool force)
{
	json_t *no = force ? NULL : busy(a);
	struct weft_error err = {0};
	uint64_t dirty;

	if (!no && a->detach)
		no = failure(EALREADY, "it is being detached already");
	/* What the cache holds goes to the donor first; whoever asks asks again, and shows how far it is. */
	if (!no && !force && (dirty = bridge_dirty_bytes(a->bridge)) > 0) {
		bridge_push_now(a->bridge);
		no = json_pack("{s:b, s:I, s:s}", "detached", 0, "dirty_bytes", (json_int_t)dirty, "state",
			bridge_state(a->bridge, NULL));
	}
	if (!no && attach_stop_fronts(a, force, &err) < 0)
		no = failure(err.code, err.message);
	if (no) {
		weft_control_answer(call, no);
		return;
	}
	a->detach = call;
	weft_loop_stop(a->loop);
}

static json_t *optional_string(const char *text)
{
	return text ? json_string(text) : json_null();
}

/* Of one donor as of the attachment; of several, each has its own. */
static void set_transport(struct attach *a, json_t *json)
{
	json_t *donors = json_object_get(json, "donors"), *donor;
	json_int_t changes = 0;
	size_t i;

	json_array_foreach(donors, i, donor) {
		changes += json_integer_value(json_object_get(donor, "transport_changes"));
		if (!json_is_string(json_object_get(donor, "transport_why")))
			json_object_set_new(donor, "transport_why", json_string(a->why));
	}
	donor = json_array_get(donors, 0);
	json_object_set(json, "transport_why", json_object_get(donor, "transport_why"));
	json_object_set(json, "transport_since_s", json_object_get(donor, "transport_since_s"));
	json_object_set_new(json, "transport_changes", json_integer(changes));
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
	json_object_set_new(json, "mount", optional_string(a->options.mount));
	json_object_set_new(json, "device", optional_string(a->options.device ? a->state.device.path : NULL));
	json_object_set_new(json, "device_why", optional_string(a->options.device ? a->device_why : NULL));
	for (struct bridge_front *front = a->fronts; front; front = front->next) {
		if (strcmp(front->ops->name, "socket") == 0)
			front->ops->users(front, clients);
		if (strcmp(front->ops->name, "mount") == 0)
			json_object_set_new(json, "mounted", json_boolean(!front->ops->gone(front)));
	}
	json_object_set_new(json, "clients", clients);
	return json;
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
	} else if (op && strcmp(op, "reset") == 0) {
		weft_control_answer(call, attach_on_reset(a, json_is_true(json_object_get(question, "discard"))));
	} else if (op && strcmp(op, "detach") == 0) {
		on_detach(a, call, json_is_true(json_object_get(question, "force")));
	} else {
		weft_control_answer(call,
			failure(EOPNOTSUPP, "an attachment answers to status, explain, rescue, reset and detach only"));
	}
}
