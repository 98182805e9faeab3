/* SPDX-License-Identifier: MIT */
/*
 * What a donor must remember of moves, durably: which regions it gave away, and to where; which it
 * took, or is about to take, and from where.
 *
 * One file of JSON, which is replaced as a whole (weft_replace_file()):
 *     {"version": 1, "moves": [{"region": "r", "is": "given", "epoch": "<16 hex>",
 *         "move": "<16 hex>", "from": "<place>", "to": "<place>", "size": 1048576}, …]}
 * A note of a region that is served before all of it is there has "reader", 32 hex digits.
 * A note of a file has "file" too, and then the version is 2, with "donor": "<16 hex>", by which
 * marks of files name these notes.  "settled": true says that the mark of one that is gone does so
 * no more; others are never forgotten, as a mark without a note says that nothing was given away.
 * A file of a newer version, or one that is damaged, is not gone on with: a donor that does not
 * know what it gave away must not lend.
 *
 * Threads: the caller has a lock around all of it.
 */
#ifndef WEFT_FABRIC_MOVE_NOTES_H
#define WEFT_FABRIC_MOVE_NOTES_H

#include <stdbool.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/hello.h"

enum note_is {
	NOTE_PREPARED, /* the bytes are here, or on their way; who has them is asked at `from` */
	NOTE_FILLING,  /* the region is served here; what is absent is at `from` alone */
	NOTE_OWNER,    /* the region came here; `from` does not know yet that it may let go */
	NOTE_TAKEN,    /* … and `from` knows */
	NOTE_GIVEN,    /* the region went to `to`; the bytes are kept until `to` serves */
	NOTE_GONE,     /* … and `to` serves */
	NOTE_REFUSED,  /* this donor will never serve by that move, and has begun anew if it gave */
	NOTE_NR
};

struct note {
	struct note *next;
	char *region;
	enum note_is is;
	uint64_t epoch, move, size_bytes;
	char from[WEFT_PLACE_MAX], to[WEFT_PLACE_MAX];
	uint8_t reader[WEFT_ID_BYTES]; /* by which `to` reads what it lacks still; zeros: nothing */
	char *file; /* of one that is a file: its path, or, at who gave it away, "" */
	bool settled; /* GONE, a file: its mark names no move any more */
};

struct notes {
	char *path;
	uint64_t donor;     /* random; 0: no file has moved */
	struct note *first; /* the newest */
};

/* 0; -EBADMSG, -EPROTONOSUPPORT: see above; or what open(2) said.  No file is no note. */
int notes_load(struct notes *notes, const char *path, struct weft_error *err);
void notes_fini(struct notes *notes);

/* The newest of this region and epoch (0: any), or NULL; the one of this move, or NULL. */
struct note *notes_of(const struct notes *notes, const char *region, uint64_t epoch);
struct note *notes_of_move(const struct notes *notes, uint64_t move);
/* As notes_of(), but for promises, which change nothing here. */
struct note *notes_standing(const struct notes *notes, const char *region, uint64_t epoch);

/* A new one, not saved.  file: NULL, of memory.  NULL: no memory. */
struct note *notes_add(struct notes *notes, const char *region, uint64_t move, const char *file);
void notes_remove(struct notes *notes, struct note *note);
/* Durably: 0, or -errno, after which the file has either. */
int notes_save(const struct notes *notes, struct weft_error *err);

/* The number by which a mark names these notes is there afterwards, durably: 0, or notes_save(). */
int notes_name_donor(struct notes *notes, struct weft_error *err);

/* Whether the region is, or was, served at `to` before all of it was there. */
bool note_fills(const struct note *note);
const char *note_is_word(enum note_is is);

#endif
