/* SPDX-License-Identifier: MIT */
/* Questions about moves that no good donor asks: what is noted stays what it is. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/move/moves-private.h"
#include "fabric/move/notes.h"
#include "tests/support/donor-sessions.h"

#define READER "000102030405060708090a0b0c0d0e0f"

static char dir[] = "/tmp/weft-questions.XXXXXX", path[64];
static struct weft_moves *moves;
static int turn, nr_chunks;
static bool fills, unfinished;
static char bits[65]; /* of the last answer that had some */
static bool anew;     /* said by the last answer */

/* A donor that has taken one region and was promised another. */
static int begin(void **state)
{
	struct notes notes;

	turn = 0;
	nr_chunks = 1;
	fills = unfinished = false;
	strcpy(dir + strlen(dir) - 6, "XXXXXX");
	if (!mkdtemp(dir) || setup(state) < 0)
		return -1;
	snprintf(path, sizeof(path), "%s/moves", dir);
	assert_int_equal(notes_load(&notes, path, &err), 0);
	for (enum note_is is = 0; is < NOTE_NR; is++) {
		struct note *note = notes_add(&notes, "other", 0x10 + is, NULL);

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
	json_t *question = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:b, s:b}",
		"op", op, "region", name, "move", number, "epoch", epoch, "reader", READER, "to",
		"weft://b/m", "from", "weft://a/m", "first", 0, "nr", nr_chunks, "turn", turn,
		"fills", fills, "unfinished", unfinished);
	int r = weft_moves_question(moves, &peer, question, &answer, &err);
	const char *said = json_string_value(json_object_get(answer, "bits"));
	if (said)
		snprintf(bits, sizeof(bits), "%s", said);
	anew = json_is_true(json_object_get(answer, "anew"));
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
	assert_string_equal(note->region, move < 0x99 ? "other" : "m");
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

/*
 * Only a note of a move is a word on it: who has none has not said that it never served, and what
 * is served, or was given, is promised to nobody.
 */
static void only_what_is_prepared_is_refused(void **state)
{
	for (enum note_is is = 0; is < NOTE_NR; is++) {
		const bool may = is == NOTE_PREPARED || is == NOTE_REFUSED;

		assert_int_equal(ask("resolve-refuse", "other", 0x10 + is), may ? 0 : -EBUSY);
		assert_int_equal(noted(0x10 + is), may ? NOTE_REFUSED : is);
		/* A word that nobody waits for; and nothing that is kept can be taken back. */
		assert_int_equal(ask("resolve-given", "other", 0x10 + is), -ESTALE);
		assert_int_equal(ask("resolve-never", "other", 0x10 + is), -ESTALE);
		assert_int_equal(ask("resolve-refused", "other", 0x10 + is), -ESTALE);
		assert_int_equal(noted(0x10 + is), may ? NOTE_REFUSED : is);
	}
	assert_int_equal(ask("resolve-refuse", "other", 0x99), -ESTALE);
	assert_int_equal(ask("resolve-refuse", "m", 0x10 + NOTE_PREPARED), -ESTALE);
	assert_int_equal(ask("resolve-refuse", "other", 0), -EINVAL);
	assert_int_equal(ask("resolve-forget", "other", 0x10), -ENOSYS);
}

/* What was given is lent here again once its taker has promised never to serve it. */
static void what_was_given_is_taken_back(void **state)
{
	struct weft_hello hello = hello_of(1, UINT64_C(1) << 32, WEFT_MODE_WRITE);
	struct session s;

	hello.follows = true;
	assert_int_equal(ask("give-begin", "m", 0x99), 0);
	assert_int_equal(ask("resolve-refused", "m", 0x99), -ESTALE);
	assert_int_equal(ask("give-freeze", "m", 0x99), 0);
	assert_int_equal(ask("resolve-refused", "m", 0x99), -ESTALE);
	assert_int_equal(ask("give-commit", "m", 0x99), 0);
	assert_int_equal(ask("resolve-refused", "m", 0x98), -ESTALE);
	assert_int_equal(grant_hello(&s, &hello), -WEFT_EMOVED);
	assert_int_equal(ask("resolve-refused", "m", 0x99), 0);
	assert_int_equal(grant_hello(&s, &hello), 0);
	release(&s, true);
	/* That move is nobody's any more. */
	assert_int_equal(ask("give-commit", "m", 0x99), -ESTALE);
	assert_int_equal(ask("give-served", "m", 0x99), -ESTALE);
	assert_int_equal(ask("resolve-refused", "m", 0x99), -ESTALE);
}

static void give(void)
{
	assert_int_equal(ask("give-begin", "m", 0x99), 0);
	assert_int_equal(ask("give-freeze", "m", 0x99), 0);
	assert_int_equal(ask("give-commit", "m", 0x99), 0);
}

/*
 * The taker is said to be gone, after this donor was started anew: whoever remembers the contents
 * is not sent there.
 */
static void contents_that_are_begun_anew_are_nowhere_else(void **state)
{
	struct weft_hello hello = hello_of(1, UINT64_C(1) << 32, WEFT_MODE_WRITE);

	hello.follows = true;
	hello.epoch = region->epoch;
	give();
	assert_int_equal(weft_donor_elsewhere(donor, "m", region->epoch, "weft://b/m"), 0);
	assert_int_equal(ask("give-outcome", "m", 0x99), 0);
	assert_false(anew);
	assert_int_equal(ask("resolve-gone", "m", 0x99), 0);
	assert_true(region->epoch != hello.epoch);
	struct session s;
	assert_int_equal(grant_hello(&s, &hello), -ESTALE);
	/* A taker that is not gone, and fills, hears that there is nothing to come any more. */
	assert_int_equal(ask("give-outcome", "m", 0x99), 0);
	assert_true(anew);
	assert_int_equal(noted(0x99), NOTE_REFUSED);
	assert_int_equal(ask("give-commit", "m", 0x99), -ESTALE);
	assert_int_equal(ask("give-served", "m", 0x99), -ESTALE);
	assert_int_equal(ask("give-outcome", "m", 0x98), 0);
	assert_false(anew);
}

static void *begin_anew(void *ret)
{
	*(int *)ret = ask("resolve-gone", "m", 0x99);
	return NULL;
}

/* A taker that is not gone reads what it lacks: nobody changes that before it has ended. */
static void a_taker_that_is_said_to_be_gone_reads_no_more(void **state)
{
	struct weft_hello reader = hello_of(0, UINT64_C(1) << 32, WEFT_MODE_SHARED),
			  writer = hello_of(1, UINT64_C(1) << 32, WEFT_MODE_WRITE);
	const uint64_t epoch = region->epoch;
	struct session s, late, other;
	pthread_t thread;
	int r = 1;

	for (uint8_t i = 0; i < sizeof(reader.id); i++)
		reader.id[i] = i; /* READER */
	reader.expect = epoch;
	writer.follows = true;
	fills = true;
	give();
	assert_int_equal(grant_hello(&s, &reader), 0);
	assert_int_equal(pthread_create(&thread, NULL, begin_anew, &r), 0);
	pthread_mutex_lock(&s.lock);
	while (!s.fenced)
		pthread_cond_wait(&s.cond, &s.lock);
	pthread_mutex_unlock(&s.lock);
	assert_true(region->epoch == epoch);
	assert_int_equal(grant_hello(&late, &reader), -WEFT_EMOVED);
	assert_int_equal(grant_hello(&other, &writer), -WEFT_EMOVED);
	release(&s, false);
	pthread_join(thread, NULL);
	assert_int_equal(r, 0);
	assert_true(grant_hello(&late, &reader) < 0);
	assert_int_equal(grant_hello(&other, &writer), 0);
	release(&other, true);
}

/* A disk that is full for a while: the taker goes on with what it lacks, and can be gone later. */
static void what_cannot_be_begun_anew_stays_given(void **state)
{
	struct weft_hello reader = hello_of(0, UINT64_C(1) << 32, WEFT_MODE_SHARED),
			  writer = hello_of(1, UINT64_C(1) << 32, WEFT_MODE_WRITE);
	const uint64_t epoch = region->epoch;
	struct session s;
	char next[80];

	for (uint8_t i = 0; i < sizeof(reader.id); i++)
		reader.id[i] = i; /* READER */
	reader.expect = writer.epoch = epoch;
	writer.follows = true;
	fills = true;
	give();
	assert_int_equal(weft_donor_elsewhere(donor, "m", epoch, "weft://b/m"), 0);
	snprintf(next, sizeof(next), "%s.new", path);
	assert_int_equal(mkdir(next, 0700), 0);
	assert_true(ask("resolve-gone", "m", 0x99) < 0);
	assert_int_equal(noted(0x99), NOTE_GIVEN);
	assert_true(region->epoch == epoch);
	assert_int_equal(grant_hello(&s, &writer), -WEFT_EMOVED);
	assert_int_equal(grant_hello(&s, &reader), 0);
	release(&s, false);
	assert_int_equal(rmdir(next), 0);
	assert_int_equal(ask("resolve-gone", "m", 0x99), 0);
	/* Nobody is sent to the taker any more. */
	assert_int_equal(grant_hello(&s, &writer), -ESTALE);
}

/* By the note its taker reads what it lacks, also after a restart: no failure takes that away. */
static void a_note_that_stays_is_whole(void **state)
{
	char next[80];
	struct notes notes;

	fills = true;
	give();
	snprintf(next, sizeof(next), "%s.new", path);
	assert_int_equal(mkdir(next, 0700), 0);
	assert_true(ask("resolve-gone", "m", 0x99) < 0);
	assert_int_equal(rmdir(next), 0);
	assert_int_equal(ask("give-served", "other", 0x10 + NOTE_GIVEN), 0);
	assert_int_equal(notes_load(&notes, path, &err), 0);
	const struct note *note = notes_of_move(&notes, 0x99);
	assert_true(note && note->is == NOTE_GIVEN && note_fills(note));
	notes_fini(&notes);
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

/*
 * The taker has lost a connection, and asks over the next: what it asked over the one before takes
 * no changes any more, nor freezes anything.
 */
static void a_question_of_an_earlier_connection_is_late(void **state)
{
	assert_int_equal(ask("give-begin", "m", 0x99), 0);
	turn = 1;
	assert_int_equal(ask("give-outcome", "m", 0x99), 0);
	weft_region_track_change(region, 4096, 1);
	turn = 0;
	assert_int_equal(ask("give-changes", "m", 0x99), -ESTALE);
	assert_int_equal(ask("give-freeze", "m", 0x99), -ESTALE);
	turn = 1;
	assert_int_equal(ask("give-commit", "m", 0x99), -EBUSY);
	assert_int_equal(ask("give-changes", "m", 0x99), 0);
	assert_string_equal(bits, "01");
	assert_int_equal(ask("give-freeze", "m", 0x99), 0);
	assert_string_equal(bits, "00");
	assert_int_equal(ask("give-commit", "m", 0x99), 0);
	/* A taker that was started anew counts from 0, and is told what became of it. */
	turn = 0;
	assert_int_equal(ask("give-outcome", "m", 0x99), 0);
	assert_int_equal(ask("give-changes", "m", 0x99), -ESTALE);
	turn = -1;
	assert_int_equal(ask("give-outcome", "m", 0x99), -EINVAL);
}

/* Changes are taken 64 at a time: what is beside those that are asked for is not lost. */
static void changes_are_asked_for_in_whole_words(void **state)
{
	const struct weft_memory_spec spec = {
		.name = "big", .size_bytes = 70 * UINT64_C(65536), .epoch = region->epoch};
	struct weft_region *big;

	assert_int_equal(weft_region_new_memory(&spec, NULL, NULL, &big, &err), 0);
	assert_int_equal(weft_donor_add(donor, big, &err), 0);
	assert_int_equal(ask("give-begin", "big", 0x99), 0);
	weft_region_track_change(big, 60 * UINT64_C(65536), 1);
	nr_chunks = 10;
	assert_int_equal(ask("give-changes", "big", 0x99), -EINVAL);
	nr_chunks = 64;
	assert_int_equal(ask("give-changes", "big", 0x99), 0);
	assert_string_equal(bits, "0000000000000010");
	nr_chunks = 70;
	assert_int_equal(ask("give-changes", "big", 0x99), 0);
	assert_string_equal(bits, "000000000000000000");
	weft_region_put(big);
}

/* Nothing that is asked again takes away what is noted, whatever the disk says now. */
static void a_commit_may_be_asked_for_again(void **state)
{
	char next[80];
	struct notes notes;

	snprintf(next, sizeof(next), "%s.new", path);
	give();
	assert_int_equal(mkdir(next, 0700), 0);
	assert_int_equal(ask("give-commit", "m", 0x99), 0);
	assert_int_equal(rmdir(next), 0);
	/* Another note is written, and this one is in the file still. */
	assert_int_equal(ask("give-served", "other", 0x10 + NOTE_GIVEN), 0);
	assert_int_equal(notes_load(&notes, path, &err), 0);
	assert_non_null(notes_of_move(&notes, 0x99));
	notes_fini(&notes);
}

/* A commit of an earlier connection, which was about another kind of move, changes nothing. */
static void a_commit_that_comes_again_lets_nobody_in(void **state)
{
	struct weft_hello reader = hello_of(0, UINT64_C(1) << 32, WEFT_MODE_SHARED);
	struct session s;

	for (uint8_t i = 0; i < sizeof(reader.id); i++)
		reader.id[i] = i; /* READER */
	give();
	fills = true;
	assert_int_equal(ask("give-commit", "m", 0x99), 0);
	assert_int_equal(grant_hello(&s, &reader), -WEFT_EMOVED);
}

/*
 * Of a giver whose disk failed nobody knows whether it gave the region away.  A taker that has no
 * copy to serve has it say that it did not, once it can.
 */
static void what_may_be_noted_is_called_off_once_that_is_certain(void **state)
{
	char next[80];
	struct notes notes;

	snprintf(next, sizeof(next), "%s.new", path);
	assert_int_equal(ask("give-begin", "m", 0x99), 0);
	assert_int_equal(ask("give-freeze", "m", 0x99), 0);
	assert_int_equal(mkdir(next, 0700), 0);
	assert_true(ask("give-commit", "m", 0x99) < 0);
	unfinished = true;
	assert_int_equal(ask("give-abort", "m", 0x99), -EBUSY);
	assert_int_equal(rmdir(next), 0);
	unfinished = false;
	assert_int_equal(ask("give-abort", "m", 0x99), -EBUSY);
	unfinished = true;
	assert_int_equal(ask("give-abort", "m", 0x99), 0);
	assert_int_equal(notes_load(&notes, path, &err), 0);
	assert_null(notes_of_move(&notes, 0x99));
	notes_fini(&notes);
	/* What was given stays so. */
	assert_int_equal(ask("give-begin", "m", 0x9a), 0);
	assert_int_equal(ask("give-freeze", "m", 0x9a), 0);
	assert_int_equal(ask("give-commit", "m", 0x9a), 0);
	assert_int_equal(ask("give-abort", "m", 0x9a), -EBUSY);
	assert_int_equal(noted(0x9a), NOTE_GIVEN);
}

static void *serve_other(void *ret)
{
	*(int *)ret = ask("give-served", "other", 0x10 + NOTE_GIVEN);
	return NULL;
}

static const char *noted_other(json_t *status)
{
	/* The newest is the first. */
	const json_t *note = json_array_get(json_object_get(status, "noted"),
		NOTE_NR - 1 - NOTE_GIVEN);
	return json_string_value(json_object_get(note, "is"));
}

/* A disk that hangs, which a pipe without a reader is, keeps no loop from telling its status. */
static void status_waits_for_no_disk(void **state)
{
	char next[80];
	pthread_t thread;
	int r = 1;

	snprintf(next, sizeof(next), "%s.new", path);
	assert_int_equal(mkfifo(next, 0600), 0);
	assert_int_equal(pthread_create(&thread, NULL, serve_other, &r), 0);
	/* Nobody has the lock of the notes but the thread that waits for the pipe. */
	while (pthread_mutex_trylock(&moves->notes_lock) == 0) {
		pthread_mutex_unlock(&moves->notes_lock);
		usleep(1000);
	}
	json_t *status = weft_moves_status(moves);
	assert_string_equal(noted_other(status), "given");
	json_decref(status);
	int fd = open(next, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	pthread_join(thread, NULL);
	close(fd);
	assert_int_equal(unlink(next), 0);
	/* A pipe keeps nothing: it is not noted, and is not shown. */
	assert_true(r < 0 && r != 1);
	assert_int_equal(ask("give-served", "other", 0x10 + NOTE_GIVEN), 0);
	status = weft_moves_status(moves);
	assert_string_equal(noted_other(status), "gone");
	json_decref(status);
}

static void *stop(void *done)
{
	weft_moves_stop(moves);
	atomic_store((atomic_bool *)done, true);
	return NULL;
}

/* A donor that ends answers what it was asked, and nothing else. */
static void questions_end_before_the_moves(void **state)
{
	struct weft_hello hello = hello_of(1, UINT64_C(1) << 32, WEFT_MODE_WRITE);
	atomic_bool stopped = false;
	pthread_t asks, stops;
	struct session s;
	int r = 1;

	assert_int_equal(ask("give-begin", "m", 0x99), 0);
	hello.follows = true;
	assert_int_equal(grant_hello(&s, &hello), 0);
	assert_int_equal(pthread_create(&asks, NULL, freeze, &r), 0);
	pthread_mutex_lock(&s.lock);
	while (!s.fenced)
		pthread_cond_wait(&s.cond, &s.lock);
	pthread_mutex_unlock(&s.lock);
	assert_int_equal(pthread_create(&stops, NULL, stop, &stopped), 0);
	while (ask("takes", "m", 0x99) != -ESHUTDOWN)
		usleep(1000);
	assert_false(atomic_load(&stopped));
	release(&s, false);
	pthread_join(asks, NULL);
	pthread_join(stops, NULL);
	assert_int_equal(r, 0);
	assert_int_equal(ask("give-commit", "m", 0x99), -ESHUTDOWN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, begin, end)
		T(what_was_taken_is_not_ended_by_another),
		T(a_number_is_one_moves_alone),
		T(only_what_is_prepared_is_refused),
		T(what_was_given_is_taken_back),
		T(contents_that_are_begun_anew_are_nowhere_else),
		T(a_taker_that_is_said_to_be_gone_reads_no_more),
		T(what_cannot_be_begun_anew_stays_given),
		T(a_note_that_stays_is_whole),
		T(a_freeze_that_is_called_off_is_none),
		T(a_question_of_an_earlier_connection_is_late),
		T(changes_are_asked_for_in_whole_words),
		T(a_commit_may_be_asked_for_again),
		T(a_commit_that_comes_again_lets_nobody_in),
		T(what_may_be_noted_is_called_off_once_that_is_certain),
		T(status_waits_for_no_disk),
		T(questions_end_before_the_moves),
#undef T
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
