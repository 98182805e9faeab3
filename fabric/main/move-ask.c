/* SPDX-License-Identifier: MIT */
/* Questions of weft move to donors, over one connection each as long as it lasts. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/driver.h"
#include "fabric/main/move.h"
#include "fabric/uri-key.h"

int move_donor_begin(const struct weft_uri *uri, const struct move_keys *keys,
	struct move_donor *ret, struct weft_error *err)
{
	struct weft_uri place = *uri;
	char none[] = "";

	*ret = (struct move_donor){.uri = uri, .keys = keys};
	place.region = none;
	place.identity[0] = '\0';
	place.transport = NULL;
	ret->name = weft_uri_format(&place);
	if (!ret->name)
		return weft_error_set(err, ENOMEM, "no memory");
	ret->name[strlen(ret->name) - 1] = '\0'; /* the '/' before the region */
	return 0;
}

void move_donor_end(struct move_donor *d)
{
	tp_base_driver()->hang_up(d->talk);
	weft_held_key_close(d->key);
	free(d->name);
	*d = (struct move_donor){0};
}

/* Says it with the donor's name, where it is not the donor that says it. */
static int explain(const struct move_donor *d, int r, struct weft_error *err)
{
	if (r == -ENOSYS)
		return weft_error_set(err, ENOSYS, "%s runs a weft that cannot move regions",
			d->name);
	if (d->talk)
		return r;
	if (r == -ECONNREFUSED)
		return weft_error_set(err, ECONNREFUSED,
			"no donor at %s: connection refused; is weft serve running there?",
			d->name);
	return weft_error_prefix(err, "cannot ask %s", d->name);
}

/* A donor that does not have to be asked needs no key. */
static int find_key(struct move_donor *d, struct weft_error *err)
{
	int r = d->has_key ? 0
			   : weft_uri_key(d->uri, d->keys->file, d->keys->allow_insecure, &d->key,
				     err);

	d->has_key = r == 0;
	return r;
}

bool move_donor_said_so(const struct move_donor *d)
{
	return d->talk != NULL;
}

int move_donor_ask(struct move_donor *d, json_t *question, int timeout_ms, int cancel_fd,
	json_t **ret, struct weft_error *err)
{
	struct weft_key space = {0};
	const char *certificates;
	int r = question ? find_key(d, err) : weft_error_set(err, ENOMEM, "no memory");

	if (r == 0) {
		const struct weft_key *key = weft_held_key_proof(d->key, &space, &certificates);

		r = tp_base_driver()->question(d->uri, key, certificates, (uint32_t)timeout_ms,
			cancel_fd, &d->talk, question, ret, err);
		weft_key_wipe(&space);
	}
	json_decref(question);
	return r < 0 ? explain(d, r, err) : 0;
}

/* ---- what a donor has ---- */

bool move_standing_is(const struct move_standing *standing, const char *word)
{
	return strcmp(standing->is, word) == 0;
}

/* A place of the answer, or "". */
static void read_place(const json_t *answer, const char *name, char ret[WEFT_PLACE_MAX])
{
	const char *place = json_string_value(json_object_get(answer, name));

	if (place && weft_place_valid(place, strlen(place)))
		strcpy(ret, place);
}

/* 16 hex digits of the answer, or "". */
static void read_number(const json_t *answer, const char *name, char ret[MOVE_ID_LEN + 1])
{
	const char *number = json_string_value(json_object_get(answer, name));

	if (number && strlen(number) == MOVE_ID_LEN &&
		strspn(number, "0123456789abcdef") == MOVE_ID_LEN)
		strcpy(ret, number);
}

int move_standing_ask(struct move_donor *d, const char *region, const char *move, int timeout_ms,
	int cancel_fd, struct move_standing *ret, struct weft_error *err)
{
	json_t *answer;
	int r = move_donor_ask(d,
		json_pack("{s:s, s:s, s:s*}", "op", "resolve", "region", region, "move", move),
		timeout_ms, cancel_fd, &answer, err);

	if (r < 0)
		return r;
	const char *is = json_string_value(json_object_get(answer, "is"));
	struct move_standing standing = {0};
	snprintf(standing.is, sizeof(standing.is), "%s", is ? is : "");
	if (move_standing_is(&standing, "given") || move_standing_is(&standing, "gone"))
		read_place(answer, "to", standing.to);
	if (move_standing_is(&standing, "prepared") || move_standing_is(&standing, "filling"))
		read_place(answer, "from", standing.from);
	read_number(answer, "move", standing.move);
	read_number(answer, "epoch", standing.epoch);
	standing.bytes = json_is_true(json_object_get(answer, "bytes"));
	standing.moves = json_is_true(json_object_get(answer, "moves"));
	json_decref(answer);
	if (!standing.is[0])
		return weft_error_set(err, EPROTO, "it does not say so");
	*ret = standing;
	return 0;
}

void move_standing_tell(const struct move_donor *d, const char *region,
	const struct move_standing *standing)
{
	static const struct {
		const char *is, *before, *after;
	} words[] = {
		{"owner", "has region '", "' and serves it"},
		{"filling", "serves region '", "', and does not have all of it yet"},
		{"prepared", "is ready to serve region '", "', and waits for the other's word"},
		{"giving", "gives region '", "' away, and cannot say yet whether that is noted"},
		{"taken", "got region '", "' by that move"},
		{"given", "gave region '", "' away"},
		{"gone", "gave region '", "' away"},
		{"refused", "does not serve region '", "'"},
		{"nothing", "has no region '", "'"},
	};
	const char *before = "does not say what it has of region '", *after = "'";
	char name[256];

	for (size_t i = 0; i < WEFT_ARRAY_LEN(words); i++)
		if (move_standing_is(standing, words[i].is)) {
			before = words[i].before;
			after = words[i].after;
		}
	snprintf(name, sizeof(name), "%s", region);
	fprintf(stderr, "weft-move: %s %s%s%s%s%s\n", d->name, before, weft_printable(name), after,
		standing->to[0] ? ", to " : "", standing->to);
}
