/* SPDX-License-Identifier: MIT */
/* The flight recorder's slow side.  On the lane's thread. */
#include "nbd-bridge/link/recorder.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fabric/transport.h"
#include "fabric/base/log.h"
#include "fabric/base/util.h"

static const char *const event_names[] = {
	[BRIDGE_EVENT_REQUEST] = "request",
	[BRIDGE_EVENT_CONNECT] = "connect",
	[BRIDGE_EVENT_GRANTED] = "granted",
	[BRIDGE_EVENT_REFUSED] = "refused",
	[BRIDGE_EVENT_LOST] = "lost",
	[BRIDGE_EVENT_DEAD] = "dead",
	[BRIDGE_EVENT_STALE] = "stale",
	[BRIDGE_EVENT_MOVED] = "moved",
	[BRIDGE_EVENT_LOOKED] = "looked",
	[BRIDGE_EVENT_RENEWED] = "renewed",
};

/* The meaning of an event's b; NULL: none. */
static const char *const b_names[] = {
	[BRIDGE_EVENT_CONNECT] = "way",
	[BRIDGE_EVENT_GRANTED] = "operations posted again:",
	[BRIDGE_EVENT_LOST] = "operations not answered:",
	[BRIDGE_EVENT_DEAD] = "requests failed:",
	[BRIDGE_EVENT_MOVED] = "way",
	[BRIDGE_EVENT_LOOKED] = "way",
	[BRIDGE_EVENT_RENEWED] = "way",
};

static const char *const kind_names[TP_NR_KINDS] = {
	[TP_READ] = "read",
	[TP_WRITE] = "write",
	[TP_FLUSH] = "flush",
	[TP_TRIM] = "trim",
	[TP_ZERO] = "zero",
	[TP_CACHE] = "cache",
	[TP_PROBE] = "probe",
	[TP_HASH] = "hash",
};

void bridge_recorder_event(struct bridge_recorder *recorder, enum bridge_event event, int error,
	uint64_t a, uint64_t b)
{
	const char *b_name = event < WEFT_ARRAY_LEN(b_names) ? b_names[event] : NULL;
	char b_text[64] = "";

	if (b_name)
		snprintf(b_text, sizeof(b_text), ", %s %" PRIu64, b_name, b);
	weft_debug("%s: generation %s%s%s%s", event_names[event],
		weft_format_generation(a, (char[24]){0}, 24), b_text, error ? ": " : "",
		error ? strerror(-error) : "");
	recorder->events[recorder->nr_events++ % BRIDGE_RECORDER_EVENTS] = (struct bridge_record){
		.when_ns = weft_now_ns(),
		.event = (uint8_t)event,
		.error = error,
		.a = a,
		.b = b,
	};
}

static json_t *record_json(const struct bridge_record *record, uint64_t now_ns)
{
	json_t *json = json_pack("{s:s, s:f}", "event", event_names[record->event], "age_s",
		(double)(now_ns - weft_min(record->when_ns, now_ns)) / 1e9);

	if (record->event == BRIDGE_EVENT_REQUEST) {
		json_object_set_new(json, "kind", json_string(kind_names[record->kind]));
		json_object_set_new(json, "offset_bytes", json_integer((json_int_t)record->a));
		json_object_set_new(json, "length_bytes", json_integer((json_int_t)record->b));
		json_object_set_new(json, "fua", json_boolean(record->flags & TP_FUA));
		json_object_set_new(json, "duration_s", json_real((double)record->took_ns / 1e9));
	} else {
		char generation[24];

		json_object_set_new(json, "generation",
			json_string(
				weft_format_generation(record->a, generation, sizeof(generation))));
		json_object_set_new(json, "operations", json_integer((json_int_t)record->b));
	}
	json_object_set_new(json, "error",
		record->error ? json_string(strerrorname_np(-record->error)) : json_null());
	return json;
}

json_t *bridge_recorder_json(const struct bridge_recorder *recorder)
{
	json_t *array = json_array();
	uint64_t now_ns = weft_now_ns();
	uint64_t i = recorder->nr - weft_min(recorder->nr, BRIDGE_RECORDER_ENTRIES);
	uint64_t e = recorder->nr_events - weft_min(recorder->nr_events, BRIDGE_RECORDER_EVENTS);

	while (i < recorder->nr || e < recorder->nr_events) {
		const struct bridge_record *request = &recorder->ring[i % BRIDGE_RECORDER_ENTRIES];
		const struct bridge_record *event = &recorder->events[e % BRIDGE_RECORDER_EVENTS];
		bool events_turn = i == recorder->nr ||
			(e < recorder->nr_events && event->when_ns <= request->when_ns);

		json_array_append_new(array, record_json(events_turn ? event : request, now_ns));
		e += events_turn;
		i += !events_turn;
	}
	return array;
}
