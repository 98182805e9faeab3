/* SPDX-License-Identifier: MIT */
/* One line that tells all of an attachment's copies; see status-copies.h. */
#include "nbd-bridge/main/status-copies.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "fabric/base/util.h"

enum { SILENT_S = 2 }; /* a donor's silence is told after this time */

/* A line that is being written; what does not fit is left out. */
struct line {
	char *buf;
	size_t len, at;
};

static void add(struct line *line, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add(struct line *line, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(line->buf + line->at, line->len - line->at, fmt, ap);
	va_end(ap);
	line->at = weft_min(line->at + (size_t)(n < 0 ? 0 : n), line->len - 1);
}

static int64_t number_of(const json_t *json, const char *key)
{
	return json_integer_value(json_object_get(json, key));
}

static bool is(const json_t *json, const char *key, const char *text)
{
	const char *value = json_string_value(json_object_get(json, key));

	return value && strcmp(value, text) == 0;
}

int status_copies_code(const json_t *copies)
{
	if (!json_is_object(copies) || is(copies, "state", "whole"))
		return 0;
	return is(copies, "state", "too few") ? STATUS_TOO_FEW : STATUS_DEGRADED;
}

/* "14:02", or with the day if that is not today. */
static void add_time(struct line *line, time_t when)
{
	time_t now = time(NULL);
	struct tm then, today;
	char text[32];

	localtime_r(&when, &then);
	localtime_r(&now, &today);
	strftime(text, sizeof(text),
		then.tm_yday == today.tm_yday && then.tm_year == today.tm_year ? "%H:%M"
									       : "%F %H:%M",
		&then);
	add(line, "%s", text);
}

/* "donor weft://b/r: silent 31 s". */
static void add_member(struct line *line, const json_t *member, const char *before)
{
	const char *donor = json_string_value(json_object_get(member, "donor"));
	const char *why = json_string_value(json_object_get(member, "why"));
	const double silent_s = json_real_value(json_object_get(member, "silent_s"));

	add(line, "%sdonor %s: ", before, donor ? donor : "?");
	if (is(member, "state", "syncing"))
		add(line, "being made current");
	else if (is(member, "state", "others"))
		add(line, "left alone, since others have used it");
	else if (silent_s >= SILENT_S)
		add(line, "silent %.0f s", silent_s);
	else
		add(line, "%s", why ? why : "lost");
}

static void add_degraded(struct line *line, const json_t *copies)
{
	int64_t behind = 0, since = 0, eta_s = 0;
	const char *before = " (";
	const json_t *member;
	bool syncing = false;
	char size[32];
	size_t i;

	json_array_foreach(json_object_get(copies, "members"), i, member) {
		const int64_t at = number_of(member, "since");

		if (is(member, "state", "current"))
			continue;
		behind += number_of(member, "behind_bytes");
		if (at && (!since || at < since))
			since = at;
		if (is(member, "state", "syncing")) {
			syncing = true;
			eta_s = weft_max(eta_s, number_of(member, "eta_s"));
		}
	}
	add(line, ", %s", is(copies, "state", "too few") ? "TOO FEW" : "DEGRADED");
	if (since) {
		add(line, " since ");
		add_time(line, since);
	}
	json_array_foreach(json_object_get(copies, "members"), i, member) {
		if (is(member, "state", "current"))
			continue;
		add_member(line, member, before);
		before = "; ";
	}
	add(line, "), behind %s", weft_format_size((uint64_t)behind, size, sizeof(size)));
	if (syncing && eta_s)
		add(line, ", whole again in about %" PRId64 " s", eta_s);
	if (!syncing)
		add(line, ", not syncing: no donor to sync with");
}

const char *status_copies_line(const json_t *copies, char *buf, size_t len)
{
	const int64_t nr = number_of(copies, "copies"), current = number_of(copies, "current"),
		      spare = current - number_of(copies, "min_copies");
	struct line line = {buf, len, 0};

	add(&line, "%" PRId64 " copies, ", nr);
	if (is(copies, "state", "whole")) {
		add(&line, "all current");
	} else {
		add(&line, "%" PRId64 " current", current);
		add_degraded(&line, copies);
	}
	if (is(copies, "state", "too few"))
		add(&line, "; it needs %" PRId64, number_of(copies, "min_copies"));
	else if (spare > 0)
		add(&line, "; survives: %" PRId64 " donor%s", spare, spare == 1 ? "" : "s");
	else
		add(&line, "; survives: nothing");
	return buf;
}
