/* SPDX-License-Identifier: MIT */
/* What a donor notes of moves, and what it takes from another donor's answers. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "fabric/move/fields.h"
#include "fabric/move/notes.h"

static char dir[] = "/tmp/weft-notes.XXXXXX", path[64];
static struct weft_error err;

static int make_dir(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/moves", dir);
	return 0;
}

static int remove_dir(void **state)
{
	unlink(path);
	return rmdir(dir);
}

static void put(const char *text)
{
	WEFT_CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(weft_write_all(fd, text, strlen(text)), 0);
}

static struct note *add(struct notes *notes, const char *region, uint64_t move, enum note_is is)
{
	struct note *note = notes_add(notes, region, move, NULL);

	assert_non_null(note);
	note->is = is;
	note->epoch = move + 1000;
	note->size_bytes = 4096;
	strcpy(note->from, "weft://a/r");
	strcpy(note->to, "weft://b/r");
	return note;
}

static void notes_come_back(void **state)
{
	struct notes notes;

	unlink(path);
	assert_int_equal(notes_load(&notes, path, &err), 0);
	assert_null(notes.first);
	for (enum note_is is = 0; is < NOTE_NR; is++)
		add(&notes, "r", 1 + is, is);
	add(&notes, "a \"name\" of another \xc3\xa4", UINT64_MAX, NOTE_GIVEN);
	assert_int_equal(notes_save(&notes, &err), 0);
	notes_fini(&notes);

	assert_int_equal(notes_load(&notes, path, &err), 0);
	/* The newest is found first. */
	const struct note *note = notes_of(&notes, "r", 0);
	assert_true(note && note->is == NOTE_NR - 1 && note->move == NOTE_NR);
	for (enum note_is is = 0; is < NOTE_NR; is++) {
		note = notes_of_move(&notes, 1 + is);
		assert_true(note && note->is == is && note->epoch == 1001 + is);
		assert_ptr_equal(notes_of(&notes, "r", 1001 + is), note);
		assert_string_equal(note->to, "weft://b/r");
	}
	assert_non_null(notes_of(&notes, "a \"name\" of another \xc3\xa4", 0));
	assert_null(notes_of(&notes, "s", 0));
	assert_null(notes_of(&notes, "r", 7));
	notes_remove(&notes, notes_of_move(&notes, 3));
	assert_null(notes_of_move(&notes, 3));
	notes_fini(&notes);
}

#define NOTE(more) "{\"version\": 1, \"moves\": [{" more "}]}"
#define GOOD "\"region\": \"r\", \"is\": \"given\", \"epoch\": \"0000000000000001\", \
\"move\": \"00000000000000ff\", \"from\": \"weft://a/r\", \"size\": 4096"

static void damage_is_no_note(void **state)
{
	static const char *const bad[] = {
		"",
		"{",
		"[]",
		"{\"version\": 1}",
		"{\"version\": 0, \"moves\": []}",
		"{\"version\": 1, \"moves\": [], \"moves\": []}",
		"{\"version\": 1, \"moves\": [7]}",
		NOTE(GOOD),
		NOTE(GOOD ", \"to\": \"weft://b/r x\""),
		NOTE(GOOD ", \"to\": \"weft://b/r\", \"size\": 1"),
	};
	struct notes notes;

	put(NOTE(GOOD ", \"to\": \"weft://b/r\""));
	assert_int_equal(notes_load(&notes, path, &err), 0);
	assert_true(notes.first && notes.first->move == 255);
	notes_fini(&notes);
	for (size_t i = 0; i < WEFT_ARRAY_LEN(bad); i++) {
		put(bad[i]);
		if (notes_load(&notes, path, &err) != -EBADMSG)
			fail_msg("taken: %s", bad[i]);
		notes_fini(&notes);
	}
	put("{\"version\": 3, \"moves\": {}}");
	assert_int_equal(notes_load(&notes, path, &err), -EPROTONOSUPPORT);
	assert_non_null(strstr(err.message, "newer"));
	notes_fini(&notes);
}

/* Marks of files name the notes, which a weft that knows of no files must not take for its own. */
static void files_have_a_path_and_the_notes_a_number(void **state)
{
	struct notes notes;

	unlink(path);
	assert_int_equal(notes_load(&notes, path, &err), 0);
	add(&notes, "memory", 1, NOTE_TAKEN);
	assert_int_equal(notes_save(&notes, &err), 0);
	assert_true(notes.donor == 0);
	assert_int_equal(notes_name_donor(&notes, &err), 0);
	const uint64_t donor = notes.donor;
	assert_true(donor != 0);
	struct note *note = notes_add(&notes, "f", 2, "/srv/f");
	note->epoch = 3;
	note->size_bytes = 4096;
	strcpy(note->from, "weft://a/f");
	strcpy(note->to, "weft://b/f");
	assert_int_equal(notes_save(&notes, &err), 0);
	notes_fini(&notes);

	assert_int_equal(notes_load(&notes, path, &err), 0);
	assert_true(notes.donor == donor);
	assert_int_equal(notes_name_donor(&notes, &err), 0);
	assert_true(notes.donor == donor);
	assert_null(notes_of_move(&notes, 1)->file);
	assert_string_equal(notes_of_move(&notes, 2)->file, "/srv/f");
	notes_fini(&notes);
}

/* What has left since is forgotten some time; what came here and is here never is. */
static void what_is_here_is_not_forgotten(void **state)
{
	struct notes notes;

	unlink(path);
	assert_int_equal(notes_load(&notes, path, &err), 0);
	add(&notes, "stays", 1, NOTE_TAKEN);
	add(&notes, "goes", 2, NOTE_TAKEN);
	for (uint64_t move = 3; move < 5000; move++)
		add(&notes, "goes", move, NOTE_GONE);
	assert_int_equal(notes_save(&notes, &err), 0);
	notes_fini(&notes);

	assert_int_equal(notes_load(&notes, path, &err), 0);
	assert_non_null(notes_of_move(&notes, 1));
	assert_null(notes_of_move(&notes, 2));
	assert_null(notes_of_move(&notes, 3));
	assert_non_null(notes_of_move(&notes, 4999));
	notes_fini(&notes);
}

/* A mark that names a move of which there is no note says that nothing was given away by it. */
static void what_a_mark_may_name_is_not_forgotten(void **state)
{
	struct notes notes;

	unlink(path);
	assert_int_equal(notes_load(&notes, path, &err), 0);
	for (uint64_t move = 1; move < 3; move++) {
		struct note *note = notes_add(&notes, "f", move, "");

		note->is = NOTE_GONE;
		note->epoch = 3;
		note->size_bytes = 4096;
		note->settled = move == 2;
		strcpy(note->from, "weft://a/f");
		strcpy(note->to, "weft://b/f");
	}
	assert_int_equal(notes_save(&notes, &err), 0);
	notes_fini(&notes);
	assert_int_equal(notes_load(&notes, path, &err), 0);
	assert_true(!notes_of_move(&notes, 1)->settled && notes_of_move(&notes, 2)->settled);
	for (uint64_t move = 3; move < 5000; move++)
		add(&notes, "goes", move, NOTE_GONE);
	assert_int_equal(notes_save(&notes, &err), 0);
	notes_fini(&notes);

	assert_int_equal(notes_load(&notes, path, &err), 0);
	assert_non_null(notes_of_move(&notes, 1));
	assert_null(notes_of_move(&notes, 2));
	notes_fini(&notes);
}

static void notes_that_cannot_be_saved_say_so(void **state)
{
	struct notes notes;
	char nowhere[96];

	snprintf(nowhere, sizeof(nowhere), "%s/none/moves", dir);
	assert_int_equal(notes_load(&notes, nowhere, &err), 0);
	assert_int_equal(notes_save(&notes, &err), -ENOENT);
	assert_non_null(strstr(err.message, nowhere));
	notes_fini(&notes);
}

static void bits_travel(void **state)
{
	const uint64_t bits[2] = {UINT64_C(0x8000000000000001), 5};
	uint64_t back[2] = {2, 0};
	json_t *json = json_pack("{s:o}", "bits", bits_json(bits, 67));

	assert_string_equal(json_string_value(json_object_get(json, "bits")), "010000000000008005");
	assert_true(field_bits(json, "bits", 67, back));
	assert_true(back[0] == (bits[0] | 2) && back[1] == 5);
	/* Bits beyond the end are nobody's. */
	back[1] = 0;
	assert_true(field_bits(json, "bits", 65, back) && back[1] == 1);
	assert_false(field_bits(json, "bits", 73, back));
	assert_false(field_bits(json, "bits", 64, back));
	assert_false(field_bits(json, "none", 67, back));
	json_decref(json);
}

static void facts_travel(void **state)
{
	struct weft_region_facts out, in = {
		.id_key = {1, 2}, .lease_ms = 30000, .stripe = {1, 2, 65536}};

	in.table[0] = (struct weft_generation){.id_hash = {9}, .generation = UINT64_MAX,
		.last_used = 3, .lapsed = WEFT_LAPSED_WRITTEN, .held = 1 + WEFT_MODE_WRITE,
		.name = "box"};
	in.table[WEFT_NR_GENERATIONS - 1] = (struct weft_generation){.generation = 1};
	json_t *json = json_pack("{s:o}", "facts", facts_json(&in));
	assert_true(field_facts(json, "facts", &out));
	assert_memory_equal(&in.table[0], &out.table[0], sizeof(in.table[0]));
	assert_true(out.table[1].generation == 1 && out.table[2].generation == 0);
	assert_true(out.lease_ms == 30000 && weft_stripe_equal(&in.stripe, &out.stripe));
	assert_memory_equal(in.id_key, out.id_key, sizeof(in.id_key));

	json_t *facts = json_object_get(json, "facts"), *table = json_object_get(facts, "table");
	json_t *first = json_array_get(table, 0);
	const struct {
		json_t *in;
		const char *key;
		json_t *value;
	} wrong[] = {
		{facts, "id_key", json_string("01")},
		{facts, "lease_ms", json_integer(-1)},
		{facts, "lease_ms", json_integer(INT64_MAX)},
		{facts, "stripe_count", json_integer(1)},
		{facts, "stripe_unit", json_null()},
		{first, "id", json_string("")},
		{first, "generation", json_string("0000000000000000")},
		{first, "held", json_integer(9)},
		{first, "lapsed", json_integer(4)},
		{first, "name", json_string("a b")},
		{first, "name",
			json_string("ghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghi"
				    "jklmnopqrstuvwxyz")},
	};
	for (size_t i = 0; i < WEFT_ARRAY_LEN(wrong); i++) {
		json_t *was = json_incref(json_object_get(wrong[i].in, wrong[i].key));

		json_object_set_new(wrong[i].in, wrong[i].key, wrong[i].value);
		if (field_facts(json, "facts", &out))
			fail_msg("taken: another %s (%zu)", wrong[i].key, i);
		json_object_set_new(wrong[i].in, wrong[i].key, was);
	}
	assert_true(field_facts(json, "facts", &out));
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++)
		json_array_append(table, first);
	assert_false(field_facts(json, "facts", &out));
	json_decref(json);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(notes_come_back),
		cmocka_unit_test(damage_is_no_note),
		cmocka_unit_test(files_have_a_path_and_the_notes_a_number),
		cmocka_unit_test(what_is_here_is_not_forgotten),
		cmocka_unit_test(what_a_mark_may_name_is_not_forgotten),
		cmocka_unit_test(notes_that_cannot_be_saved_say_so),
		cmocka_unit_test(bits_travel),
		cmocka_unit_test(facts_travel),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
