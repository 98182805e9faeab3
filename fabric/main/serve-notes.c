/* SPDX-License-Identifier: MIT */
/*
 * Which file has this donor's notes of moves, and which may have those of the donor before it.
 * Main thread, at the start.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "fabric/main/serve.h"
#include "fabric/move/notes.h"
#include "fabric/uri.h"

static int notes_of_place(const char *dir, const struct weft_listening *listening, char *ret,
	size_t size)
{
	char place[300];

	weft_listening_format(listening, place);
	return snprintf(ret, size, "%s/moves-%016" PRIx64, dir,
		       (uint64_t)XXH3_64bits(place, strlen(place))) >= (int)size
		? -ENAMETOOLONG
		: 0;
}

/*
 * The file is named for a place where this donor listens.  The donor before it, whose memory it
 * gets for any place that they share, may have named another one first.
 */
static int find(const struct serve *s, const struct weft_listening *first, const char *dir,
	char ret[SERVE_NOTES_MAX])
{
	int r = notes_of_place(dir, first, ret, SERVE_NOTES_MAX);
	char other[SERVE_NOTES_MAX];

	for (unsigned i = 0; r == 0 && access(ret, F_OK) < 0 && i < s->nr_listening; i++)
		if (notes_of_place(dir, &s->listening[i], other, sizeof(other)) == 0 &&
			access(other, F_OK) == 0)
			strcpy(ret, other);
	return r;
}

int serve_find_notes(const struct serve *s, const struct weft_listening *first,
	char ret[SERVE_NOTES_MAX], struct weft_error *err)
{
	char dir[SERVE_NOTES_MAX / 2];
	int r = weft_state_dir(dir, sizeof(dir));

	if (r == 0)
		r = find(s, first, dir, ret);
	if (r == -ENOENT && !*dir)
		return weft_error_set(err, ENOENT,
			"what moves cannot be noted: HOME is not set, and neither is "
			"XDG_STATE_HOME or STATE_DIRECTORY");
	return r < 0 ? weft_error_set(err, -r,
			       "what moves cannot be noted in %s: %s; STATE_DIRECTORY can name "
			       "another directory",
			       dir, strerror(-r))
		     : 0;
}

/*
 * Another donor of this machine's took the region from this one, or was about to: what this one
 * notes decides.
 */
static bool is_taken_from_us(const struct serve *s, const struct note *note)
{
	struct weft_uri from;

	if ((note->is != NOTE_PREPARED && note->is != NOTE_REFUSED) ||
		weft_uri_parse(note->from, &from, NULL) < 0)
		return false;
	const bool ours = !*from.socket &&
		weft_listening_is_at(s->listening, s->nr_listening, from.host, from.port);
	weft_uri_fini(&from);
	return ours;
}

/* Whether the notes in the file say something of this life of the region.  s: NULL, of our own. */
static int has_note(const struct serve *s, const char *path, const struct weft_leftover *left,
	struct weft_error *err)
{
	struct notes notes;
	int r = notes_load(&notes, path, err);
	const struct note *note = r == 0 ? notes_of(&notes, left->name, left->epoch) : NULL;

	if (note)
		r = !s || !is_taken_from_us(s, note);
	notes_fini(&notes);
	return r;
}

static int refuse_without_notes(const struct weft_leftover *left, const char *path,
	struct weft_error *err)
{
	return weft_error_set(err, EEXIST,
		"region '%s' is kept from a donor before this one, which noted in %s that it "
		"moves, or has moved. This donor's notes are in another file, which is named by "
		"where it listens first: start that donor with --listen %s, and where else it "
		"listened",
		left->name, path, left->stored ? "ADDRESS:PORT, as before" : left->place);
}

/* A name that notes_of_place() makes. */
static bool is_notes(const char *name)
{
	return strncmp(name, "moves-", 6) == 0 && strspn(name + 6, "0123456789abcdef") == 16 &&
	       name[22] == '\0';
}

int serve_check_notes(const struct serve *s, const struct weft_listening *first,
	const struct weft_leftover *left, struct weft_error *err)
{
	char dir[SERVE_NOTES_MAX / 2], own[SERVE_NOTES_MAX], path[SERVE_NOTES_MAX];
	int r = 0;

	if (!left->ours)
		return 0;
	r = serve_find_notes(s, first, own, err);
	if (r == 0)
		r = has_note(NULL, own, left, err);
	if (r != 0)
		return r < 0 ? r : 0;
	snprintf(dir, sizeof(dir), "%.*s", (int)(strrchr(own, '/') - own), own);
	DIR *files = opendir(dir);
	if (!files && errno == ENOENT)
		return 0;
	if (!files)
		return weft_error_set(err, errno, "cannot look in %s for what moved: %s", dir,
			strerror(errno));
	for (const struct dirent *e; r == 0 && (e = readdir(files));) {
		if (!is_notes(e->d_name))
			continue;
		snprintf(path, sizeof(path), "%s/%.22s", dir, e->d_name);
		if (strcmp(path, own) == 0)
			continue;
		r = has_note(s, path, left, err);
		if (r > 0)
			r = refuse_without_notes(left, path, err);
	}
	closedir(files);
	return r;
}
