/* SPDX-License-Identifier: MIT */
/*
 * What a donor says of a move that it carries out.  The donor is another machine's program: what
 * is not as it should be is an error, and texts are made fit for a terminal.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/main/move.h"

static int malformed(const char *what, struct weft_error *err)
{
	return weft_error_set(err, EPROTO, "the donor's answer has no proper '%s'", what);
}

/* A number that may be left out, or null: then *ret is untouched.  False: it is none. */
static bool read_number(const json_t *answer, const char *name, int64_t max, int64_t *ret)
{
	const json_t *value = json_object_get(answer, name);

	if (!value || json_is_null(value))
		return true;
	if (!json_is_number(value))
		return false;
	const double number = json_number_value(value);
	if (!(number >= 0 && number <= (double)max))
		return false;
	*ret = json_is_integer(value) ? json_integer_value(value) : (int64_t)number;
	return true;
}

static bool read_count(const json_t *answer, const char *name, uint64_t *ret)
{
	int64_t number = 0;

	/* What a double holds: a rate may come as one. */
	if (!read_number(answer, name, INT64_C(1) << 60, &number))
		return false;
	*ret = (uint64_t)number;
	return true;
}

static bool read_small(const json_t *answer, const char *name, unsigned *ret)
{
	int64_t number = 0;

	if (!read_number(answer, name, UINT32_MAX, &number))
		return false;
	*ret = (unsigned)number;
	return true;
}

/* A text that may be left out, or null: then it is "". */
static bool read_text(const json_t *answer, const char *name, char *ret, size_t size)
{
	const json_t *value = json_object_get(answer, name);

	ret[0] = '\0';
	if (value && !json_is_null(value) && !json_is_string(value))
		return false;
	if (json_is_string(value))
		snprintf(ret, size, "%s", json_string_value(value));
	weft_printable(ret);
	return true;
}

int move_id_read(const json_t *answer, char ret[MOVE_ID_LEN + 1], struct weft_error *err)
{
	const char *id = json_string_value(json_object_get(answer, "move"));

	if (!id || strlen(id) != MOVE_ID_LEN || strspn(id, "0123456789abcdef") != MOVE_ID_LEN)
		return malformed("move", err);
	strcpy(ret, id);
	return 0;
}

int move_status_read(const json_t *answer, struct move_status *ret, struct weft_error *err)
{
	struct move_status s = {.eta_ms = -1, .downtime_ms = -1};
	const struct {
		const char *name;
		uint64_t *value;
	} counts[] = {
		{"size", &s.size_bytes},
		{"copied", &s.copied_bytes},
		{"left", &s.left_bytes},
		{"checked", &s.checked_bytes},
		{"rate", &s.rate},
		{"dirty_rate", &s.dirty_rate},
	};

	if (!read_text(answer, "phase", s.phase, sizeof(s.phase)) || !s.phase[0])
		return malformed("phase", err);
	for (size_t i = 0; i < WEFT_ARRAY_LEN(counts); i++)
		if (!read_count(answer, counts[i].name, counts[i].value))
			return malformed(counts[i].name, err);
	if (!read_small(answer, "round", &s.round))
		return malformed("round", err);
	if (!read_small(answer, "borrowers", &s.borrowers))
		return malformed("borrowers", err);
	if (!read_small(answer, "waiting", &s.waiting))
		return malformed("waiting", err);
	if (!read_text(answer, "who", s.who, sizeof(s.who)))
		return malformed("who", err);
	if (!read_number(answer, "eta_ms", INT64_MAX / 2, &s.eta_ms))
		return malformed("eta_ms", err);
	if (!read_number(answer, "downtime_ms", INT64_MAX / 2, &s.downtime_ms))
		return malformed("downtime_ms", err);
	if (!read_text(answer, "error", s.error, sizeof(s.error)))
		return malformed("error", err);
	*ret = s;
	return 0;
}

/* Texts alone, each fit for a terminal; NULL: something else is among them, or no memory. */
static json_t *read_texts(const json_t *from)
{
	json_t *texts = json_array();
	size_t i;
	json_t *value;

	json_array_foreach(from, i, value) {
		WEFT_CLEANUP_FREE char *text =
			json_is_string(value) ? strdup(json_string_value(value)) : NULL;

		if (!text || json_array_append_new(texts, json_string(weft_printable(text))) < 0) {
			json_decref(texts);
			return NULL;
		}
	}
	return texts;
}

int move_trial_read(const json_t *answer, struct move_trial *ret, struct weft_error *err)
{
	struct move_trial t = {0};
	const json_t *could = json_object_get(answer, "could");

	if (!json_is_boolean(could))
		return malformed("could", err);
	t.possible = json_is_true(could);
	if (!read_count(answer, "size", &t.size_bytes))
		return malformed("size", err);
	if (!read_count(answer, "free", &t.free_bytes))
		return malformed("free", err);
	if (!read_small(answer, "borrowers", &t.borrowers))
		return malformed("borrowers", err);
	if (!read_text(answer, "why", t.why, sizeof(t.why)))
		return malformed("why", err);
	t.cannot_follow = read_texts(json_object_get(answer, "cannot_follow"));
	if (!t.cannot_follow)
		return malformed("cannot_follow", err);
	*ret = t;
	return 0;
}

enum move_result move_result_of(const struct move_status *status)
{
	static const struct {
		const char *phase;
		enum move_result result;
	} ends[] = {
		{"done", MOVE_MOVED},
		{"aborted", MOVE_ABORTED},
		{"failed", MOVE_FAILED},
	};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(ends); i++)
		if (strcmp(status->phase, ends[i].phase) == 0)
			return ends[i].result;
	return MOVE_GOES_ON;
}
