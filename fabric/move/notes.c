/* SPDX-License-Identifier: MIT */
#include "fabric/move/notes.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/replace.h"
#include "fabric/base/util.h"
#include "fabric/move/fields.h"

enum {
	VERSION = 2, /* of notes of files; others are understood by every weft */
	MAX_BYTES = 16 << 20,
	/* Of those that are over: the oldest are forgotten, and their borrowers hear ENOENT. */
	MAX_OVER = 4096,
};

static const char *const words[NOTE_NR] = {
	[NOTE_PREPARED] = "prepared",
	[NOTE_FILLING] = "filling",
	[NOTE_OWNER] = "owner",
	[NOTE_TAKEN] = "taken",
	[NOTE_GIVEN] = "given",
	[NOTE_GONE] = "gone",
	[NOTE_REFUSED] = "refused",
};

const char *note_is_word(enum note_is is)
{
	return words[is];
}

static void note_free(struct note *note)
{
	if (!note)
		return;
	free(note->region);
	free(note->file);
	free(note);
}

struct note *notes_of(const struct notes *notes, const char *region, uint64_t epoch)
{
	struct note *note = notes->first;

	while (note && (strcmp(note->region, region) != 0 || (epoch && note->epoch != epoch)))
		note = note->next;
	return note;
}

struct note *notes_of_move(const struct notes *notes, uint64_t move)
{
	struct note *note = notes->first;

	while (note && note->move != move)
		note = note->next;
	return note;
}

struct note *notes_standing(const struct notes *notes, const char *region, uint64_t epoch)
{
	struct note *note = notes->first;

	while (note && (note->is == NOTE_REFUSED || strcmp(note->region, region) != 0 ||
			       (epoch && note->epoch != epoch)))
		note = note->next;
	return note;
}

struct note *notes_add(struct notes *notes, const char *region, uint64_t move, const char *file)
{
	struct note *note = calloc(1, sizeof(*note));

	if (!note || !(note->region = strdup(region)) || (file && !(note->file = strdup(file)))) {
		note_free(note);
		return NULL;
	}
	note->move = move;
	note->next = notes->first;
	notes->first = note;
	return note;
}

void notes_remove(struct notes *notes, struct note *note)
{
	struct note **at = &notes->first;

	while (*at != note)
		at = &(*at)->next;
	*at = note->next;
	note_free(note);
}

void notes_fini(struct notes *notes)
{
	while (notes->first)
		notes_remove(notes, notes->first);
	free(notes->path);
}

/* ---- as text ---- */

static bool parse_is(const json_t *json, enum note_is *ret)
{
	const char *text = json_string_value(json);

	for (unsigned i = 0; text && i < NOTE_NR; i++)
		if (strcmp(words[i], text) == 0) {
			*ret = (enum note_is)i;
			return true;
		}
	return false;
}

static bool parse_note(struct notes *notes, const json_t *json)
{
	const char *region = json_string_value(json_object_get(json, "region"));
	const char *file = json_string_value(json_object_get(json, "file"));
	uint64_t move, size;

	if (!region || !field_number(json, "move", &move) ||
		!field_count(json, "size", INT64_MAX, &size) || size == 0)
		return false;
	struct note *note = notes_add(notes, region, move, file);
	if (!note)
		return false;
	note->size_bytes = size;
	note->settled = json_is_true(json_object_get(json, "settled"));
	if (json_object_get(json, "reader") &&
		!field_bytes(json, "reader", note->reader, sizeof(note->reader)))
		return false;
	return field_number(json, "epoch", &note->epoch) &&
		parse_is(json_object_get(json, "is"), &note->is) &&
		field_place(json, "from", note->from) && field_place(json, "to", note->to);
}

static int read_file(const char *path, char **ret, size_t *ret_len)
{
	WEFT_CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	size_t len = 0;
	ssize_t n = -1;

	if (fd < 0)
		return -errno;
	char *text = malloc(MAX_BYTES);
	if (!text)
		return -ENOMEM;
	while (len < MAX_BYTES && (n = read(fd, text + len, MAX_BYTES - len)) > 0)
		len += (size_t)n;
	if (n != 0) {
		free(text);
		return n < 0 ? -errno : -EFBIG;
	}
	*ret = text;
	*ret_len = len;
	return 0;
}

int notes_load(struct notes *notes, const char *path, struct weft_error *err)
{
	WEFT_CLEANUP_FREE char *text = NULL;
	json_error_t where;
	size_t len = 0;
	int r;

	*notes = (struct notes){.path = strdup(path)};
	if (!notes->path)
		return weft_error_set(err, ENOMEM, "no memory");
	r = read_file(path, &text, &len);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return weft_error_set(err, -r, "cannot read %s, which says what moved away: %s",
			path, strerror(-r));
	json_t *json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
	const json_t *moves = json_object_get(json, "moves");
	json_int_t version = json_integer_value(json_object_get(json, "version"));
	if (version > VERSION)
		r = weft_error_set(err, EPROTONOSUPPORT,
			"%s, which says what moved away, is of a newer weft", path);
	else if (version < 1 || !json_is_array(moves) ||
		(json_object_get(json, "donor") && !field_number(json, "donor", &notes->donor)))
		r = -EBADMSG;
	/* The newest is the first. */
	for (size_t i = json_array_size(moves); r == 0 && i-- > 0;)
		if (!parse_note(notes, json_array_get(moves, i)))
			r = -EBADMSG;
	json_decref(json);
	if (r == -EBADMSG)
		weft_error_set(err, EBADMSG,
			"%s, which says what moved away, is damaged; look what of this donor's "
			"regions "
			"is at other donors (weft list) before you remove the file",
			path);
	return r;
}

bool note_fills(const struct note *note)
{
	static const uint8_t none[WEFT_ID_BYTES];

	return memcmp(note->reader, none, sizeof(none)) != 0;
}

static bool is_over(const struct note *note)
{
	return note->is == NOTE_GONE || note->is == NOTE_TAKEN || note->is == NOTE_REFUSED;
}

static bool is_to_be_kept(const struct notes *notes, const struct note *note)
{
	/* What came here, and is here, is to be recovered for ever. */
	if (note->is == NOTE_TAKEN)
		return notes_standing(notes, note->region, 0) == note;
	return note->is == NOTE_GONE && note->file && !note->settled;
}

int notes_save(const struct notes *notes, struct weft_error *err)
{
	json_t *moves = json_array();
	unsigned nr_over = 0;
	int r = moves ? 0 : -ENOMEM;

	for (const struct note *n = notes->first; n && r == 0; n = n->next) {
		nr_over += is_over(n);
		if (is_over(n) && nr_over > MAX_OVER && !is_to_be_kept(notes, n))
			continue;
		r = json_array_append_new(moves,
			json_pack("{s:s, s:s, s:o, s:o, s:s, s:s, s:I, s:s*, s:o*, s:o*}", "region",
				n->region, "is", words[n->is], "epoch", number_json(n->epoch),
				"move", number_json(n->move), "from", n->from, "to", n->to, "size",
				(json_int_t)n->size_bytes, "file", n->file, "reader",
				note_fills(n) ? bytes_json(n->reader, sizeof(n->reader)) : NULL,
				"settled", n->settled ? json_true() : NULL));
	}
	json_t *json = json_pack("{s:i, s:o*, s:o}", "version", notes->donor ? VERSION : 1, "donor",
		notes->donor ? number_json(notes->donor) : NULL, "moves", moves);
	WEFT_CLEANUP_FREE char *text = r == 0 && json ? json_dumps(json, JSON_INDENT(1)) : NULL;
	json_decref(json);
	r = text ? weft_replace_file(notes->path, text, strlen(text)) : -ENOMEM;
	return r < 0 ? weft_error_set(err, -r, "cannot note in %s what moves: %s", notes->path,
			       strerror(-r))
		     : 0;
}

int notes_name_donor(struct notes *notes, struct weft_error *err)
{
	if (notes->donor)
		return 0;
	notes->donor = weft_random_name();
	int r = notes_save(notes, err);
	/* The file may have it; another time it gets another one, which no mark has yet. */
	if (r < 0)
		notes->donor = 0;
	return r;
}
