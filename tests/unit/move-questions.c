/* SPDX-License-Identifier: MIT */
/* Questions about moves that no good donor asks: what is noted stays what it is. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/move/moves.h"
#include "fabric/move/notes.h"
#include "tests/support/donor-sessions.h"

#define READER "000102030405060708090a0b0c0d0e0f"

static char dir[] = "/tmp/weft-questions.XXXXXX", path[64];
static struct weft_moves *moves;

/* A donor that has taken one region and was promised another. */
static int begin(void **state)
{
	struct notes notes;

	strcpy(dir + strlen(dir) - 6, "XXXXXX");
	if (!mkdtemp(dir) || setup(state) < 0)
		return -1;
	snprintf(path, sizeof(path), "%s/moves", dir);
	assert_int_equal(notes_load(&notes, path, &err), 0);
	for (enum note_is is = 0; is < NOTE_NR; is++) {
		struct note *note = notes_add(&notes, "other", 0x10 + is);

		note->is = is;
		note->epoch = 7;
		note->size_bytes = 4096;
		strcpy(note->from, "weft://a/other");
		strcpy(note->to, "weft://b/other");
	}
	assert_int_equal(notes_save(&notes, &err), 0);
	notes_fini(&notes);
	const struct weft_moves_config config = {.donor = donor, .notes = path};
	return weft_moves_new(&config, &moves, &err);
}

static int end(void **state)
{
	weft_moves_free(moves);
	unlink(path);
	rmdir(dir);
	return teardown(state);
}

static int ask(const char *op, const char *name, uint64_t move)
{
	const struct weft_peer peer = {.text = "10.0.0.1:5", .transport = "tcp", .local = true};
	char number[17], epoch[17];
	json_t *answer = NULL;

	snprintf(number, sizeof(number), "%016llx", (unsigned long long)move);
	snprintf(epoch, sizeof(epoch), "%016llx", (unsigned long long)region->epoch);
	json_t *question = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:i}", "op", op,
		"region", name, "move", number, "epoch", epoch, "reader", READER, "to",
		"weft://b/m", "from", "weft://a/m", "first", 0, "nr", 1);
	int r = weft_moves_question(moves, &peer, question, &answer, &err);
	json_decref(question);
	json_decref(answer);
	return r;
}

static enum note_is noted(uint64_t move)
{
	struct notes notes;

	assert_int_equal(notes_load(&notes, path, &err), 0);
	const struct note *note = notes_of_move(&notes, move);
	assert_non_null(note);
	assert_string_equal(note->region, "other");
	enum note_is is = note->is;
	notes_fini(&notes);
	return is;
}

static void what_was_taken_is_not_ended_by_another(void **state)
{
	for (enum note_is is = 0; is < NOTE_NR; is++) {
		const bool gave = is == NOTE_GIVEN || is == NOTE_GONE;

		assert_int_equal(ask("give-served", "other", 0x10 + is), gave ? 0 : -ESTALE);
		assert_int_equal(noted(0x10 + is), gave ? NOTE_GONE : is);
	}
	assert_int_equal(ask("give-served", "other", 0x99), -ESTALE);
}

static void a_number_is_one_moves_alone(void **state)
{
	for (enum note_is is = 0; is < NOTE_NR; is++) {
		assert_int_equal(ask("give-begin", "m", 0x10 + is), -EEXIST);
		assert_int_equal(noted(0x10 + is), is);
	}
	assert_int_equal(ask("give-begin", "m", 0x99), 0);
	assert_int_equal(ask("give-begin", "m", 0x9a), -EBUSY);
	/* Not frozen: nothing is given. */
	assert_int_equal(ask("give-commit", "m", 0x99), -EBUSY);
	assert_int_equal(ask("give-changes", "m", 0x9a), -ESTALE);
	assert_int_equal(ask("give-freeze", "m", 0x9a), -ESTALE);
	assert_int_equal(ask("give-abort", "m", 0x99), 0);
	assert_int_equal(ask("give-commit", "m", 0x99), -ESTALE);
}

static void *freeze(void *ret)
{
	*(int *)ret = ask("give-freeze", "m", 0x99);
	return NULL;
}

/* While the freeze waits for a session's end, somebody calls the move off. */
static void a_freeze_that_is_called_off_is_none(void **state)
{
	struct session s;
	struct weft_hello hello = hello_of(1, UINT64_C(1) << 32, WEFT_MODE_WRITE);
	pthread_t thread;
	int r = 1;

	assert_int_equal(ask("give-begin", "m", 0x99), 0);
	hello.follows = true;
	assert_int_equal(grant_hello(&s, &hello), 0);
	assert_int_equal(pthread_create(&thread, NULL, freeze, &r), 0);
	pthread_mutex_lock(&s.lock);
	while (!s.fenced)
		pthread_cond_wait(&s.cond, &s.lock);
	pthread_mutex_unlock(&s.lock);
	assert_int_equal(ask("give-abort", "m", 0x99), 0);
	release(&s, false);
	pthread_join(thread, NULL);
	assert_int_equal(r, -ESTALE);
	/* It is lent as before. */
	hello.generation++;
	hello.epoch = region->epoch;
	assert_int_equal(grant_hello(&s, &hello), 0);
	release(&s, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, begin, end)
		T(what_was_taken_is_not_ended_by_another),
		T(a_number_is_one_moves_alone),
		T(a_freeze_that_is_called_off_is_none),
#undef T
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
