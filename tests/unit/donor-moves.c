/* SPDX-License-Identifier: MIT */
/* A region that moves away: who is let in meanwhile and afterwards, and what is noted. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "fabric/donor/moving.h"
#include "tests/support/donor-sessions.h"

#define INCARNATION (UINT64_C(1) << 32)
#define PLACE "weft://b:7/r"

static const struct weft_moving moving = {.number = 42, .reader = {99}, .to = PLACE};

static int follow(struct session *s, uint8_t who, uint64_t generation, enum weft_mode mode)
{
	struct weft_hello hello = hello_of(who, generation, mode);

	hello.follows = true;
	return grant_hello(s, &hello);
}

/* Goes on with what it knows, as after a lost connection. */
static int go_on(struct session *s, uint8_t who, uint64_t generation)
{
	struct weft_hello hello = hello_of(who, generation, WEFT_MODE_WRITE);

	hello.follows = true;
	hello.epoch = region->epoch;
	return grant_hello(s, &hello);
}

static int track(void)
{
	return weft_donor_track(donor, region, &moving, false, &err);
}

static const char *moving_to(void)
{
	static struct weft_welcome welcome;

	weft_donor_welcome(donor, region, &welcome);
	return welcome.moving;
}

static void freeze_it(void)
{
	assert_int_equal(weft_donor_freeze(donor, region, moving.number, &err), 0);
}

static void give_it(void)
{
	assert_int_equal(weft_donor_begin_giving(donor, region, moving.number, &err), 0);
	weft_donor_given(donor, region, false);
}

static void sessions_end_once_and_come_back(void **state)
{
	struct session a, b;

	assert_int_equal(follow(&a, 1, INCARNATION, WEFT_MODE_WRITE), 0);
	start_copier(&a);
	assert_string_equal(moving_to(), "");
	assert_int_equal(track(), 0);
	assert_true(atomic_load(&a.released));
	assert_string_equal(moving_to(), PLACE);
	assert_int_equal(go_on(&b, 1, INCARNATION + 1), 0);
	assert_true(weft_region_is_tracked(region));
	/* Nobody else moves it meanwhile. */
	assert_int_equal(track(), -EBUSY);
	assert_int_equal(weft_donor_unfreeze(donor, region, 43, &err), -ESTALE);
	assert_int_equal(weft_donor_unfreeze(donor, region, moving.number, &err), 0);
	assert_string_equal(moving_to(), "");
	assert_false(weft_region_is_tracked(region));
	assert_false(b.fenced);
	release(&b, true);
	pthread_join(a.thread, NULL);
}

static void *track_in_vain(void *ret)
{
	struct weft_error why;

	*(int *)ret = weft_donor_track(donor, region, &moving, false, &why);
	return NULL;
}

static void *freeze_in_vain(void *ret)
{
	struct weft_error why;

	*(int *)ret = weft_donor_freeze(donor, region, moving.number, &why);
	return NULL;
}

/* A begin that waits in vain ends nothing that others have gone on with meanwhile. */
static void a_late_begin_ends_no_later_step(void **state)
{
	pthread_t tracks, freezes;
	int tracked = 0, frozen = 0;
	struct session s;

	assert_int_equal(follow(&s, 1, INCARNATION, WEFT_MODE_WRITE), 0);
	assert_int_equal(pthread_create(&tracks, NULL, track_in_vain, &tracked), 0);
	while (!*moving_to())
		usleep(1000);
	assert_int_equal(pthread_create(&freezes, NULL, freeze_in_vain, &frozen), 0);
	while (weft_donor_begin_giving(donor, region, moving.number, &err) < 0)
		usleep(1000);
	pthread_join(tracks, NULL);
	pthread_join(freezes, NULL);
	assert_true(tracked == -EBUSY && frozen == -EBUSY);
	assert_true(weft_donor_is_moving(donor, region, moving.number));
	weft_donor_not_given(donor, region, true);
	assert_int_equal(weft_donor_unfreeze(donor, region, moving.number, &err), 0);
	release(&s, false);
}

/* A taker asks again over a new connection; its first question gives up before the second ends. */
static void what_an_earlier_question_let_go_of_is_not_frozen(void **state)
{
	pthread_t freezes[2];
	int frozen[2] = {0, 0};
	struct session s;

	assert_int_equal(track(), 0);
	assert_int_equal(follow(&s, 1, INCARNATION, WEFT_MODE_WRITE), 0);
	assert_int_equal(pthread_create(&freezes[0], NULL, freeze_in_vain, &frozen[0]), 0);
	usleep(FENCE_MS / 2 * 1000);
	assert_int_equal(pthread_create(&freezes[1], NULL, freeze_in_vain, &frozen[1]), 0);
	pthread_join(freezes[0], NULL);
	release(&s, false);
	pthread_join(freezes[1], NULL);
	assert_true(frozen[0] == -EBUSY && frozen[1] == -EBUSY);
	assert_int_equal(weft_donor_begin_giving(donor, region, moving.number, &err), -EBUSY);
	assert_int_equal(weft_donor_unfreeze(donor, region, moving.number, &err), 0);
}

static void *give_again(void *ret)
{
	*(int *)ret = weft_donor_begin_giving(donor, region, moving.number, NULL);
	return NULL;
}

/* So that nothing is noted of a move that was called off since. */
static void a_region_is_given_by_one_question_at_a_time(void **state)
{
	pthread_t again;
	int r = 1;

	assert_int_equal(track(), 0);
	assert_int_equal(weft_donor_freeze(donor, region, moving.number, &err), 0);
	assert_int_equal(weft_donor_begin_giving(donor, region, moving.number, &err), 0);
	assert_int_equal(pthread_create(&again, NULL, give_again, &r), 0);
	usleep(50000);
	assert_int_equal(r, 1);
	weft_donor_not_given(donor, region, true);
	pthread_join(again, NULL);
	assert_int_equal(r, 0);
	assert_int_equal(weft_donor_unfreeze(donor, region, moving.number, &err), -EBUSY);
	weft_donor_not_given(donor, region, true);
	assert_int_equal(weft_donor_unfreeze(donor, region, moving.number, &err), 0);
	assert_int_equal(weft_donor_begin_giving(donor, region, moving.number, &err), -ESTALE);
}

/* What was taken back in between is not given by a question that comes once more. */
static void what_was_given_is_decided_about_by_one_at_a_time(void **state)
{
	pthread_t again;
	int r = 1;

	assert_int_equal(track(), 0);
	freeze_it();
	assert_int_equal(weft_donor_claim_given(donor, region, moving.number, &err), -ESTALE);
	give_it();
	assert_int_equal(weft_donor_claim_given(donor, region, moving.number + 1, &err), -ESTALE);
	assert_int_equal(weft_donor_claim_given(donor, region, moving.number, &err), 0);
	assert_int_equal(pthread_create(&again, NULL, give_again, &r), 0);
	usleep(50000);
	assert_int_equal(r, 1);
	weft_donor_take_back(donor, region);
	pthread_join(again, NULL);
	assert_int_equal(r, -ESTALE);
	/* Of one that is left as it is the next question decides. */
	assert_int_equal(track(), 0);
	freeze_it();
	give_it();
	assert_int_equal(weft_donor_claim_given(donor, region, moving.number, &err), 0);
	weft_donor_unclaim(donor, region);
	assert_int_equal(weft_donor_claim_given(donor, region, moving.number, &err), 0);
	weft_donor_take_back(donor, region);
}

static void who_cannot_follow_is_named(void **state)
{
	struct session stock, old, other;
	char names[200];
	unsigned follow_too;

	assert_int_equal(grant_stock(&stock), 0);
	assert_int_equal(track(), -EBUSY);
	assert_non_null(strstr(err.message, "1 stock NBD client"));
	assert_int_equal(weft_donor_who_cannot_follow(donor, region, names, sizeof(names),
				 &follow_too), 1);
	release(&stock, true);
	assert_int_equal(grant(&old, 1, INCARNATION, WEFT_MODE_WRITE), 0);
	assert_int_equal(track(), -EBUSY);
	assert_non_null(strstr(err.message, "'box1' (an older weft)"));
	assert_int_equal(follow(&other, 2, INCARNATION, WEFT_MODE_SHARED), 0);
	assert_int_equal(weft_donor_who_cannot_follow(donor, region, names, sizeof(names),
				 &follow_too), 1);
	assert_int_equal(follow_too, 1);
	release(&other, true);
	start_copier(&old);
	assert_int_equal(weft_donor_track(donor, region, &moving, true, &err), 0);
	pthread_join(old.thread, NULL);
	/* … and those do not come back. */
	assert_int_equal(claim(&old, 1, INCARNATION + 1, WEFT_MODE_WRITE), -EBUSY);
	assert_int_equal(grant_stock(&stock), -EBUSY);
	assert_int_equal(weft_donor_unfreeze(donor, region, 0, &err), 0);
	assert_int_equal(claim(&old, 1, INCARNATION + 1, WEFT_MODE_WRITE), 0);
	release(&old, true);
}

static void an_eviction_may_end(void **state)
{
	struct session s;

	assert_int_equal(weft_donor_evict(donor, region, &err), 0);
	assert_int_equal(follow(&s, 1, INCARNATION, WEFT_MODE_WRITE), -ENOENT);
	weft_donor_end_eviction(donor, region);
	assert_int_equal(follow(&s, 1, INCARNATION, WEFT_MODE_WRITE), 0);
	release(&s, true);
}

/* A borrower that was granted what it asks for by the donor before, and never learned of that. */
static void who_joins_after_a_restart_can_follow(void **state)
{
	struct session s;
	char names[200];
	unsigned nr_follow;

	assert_int_equal(follow(&s, 1, INCARNATION, WEFT_MODE_WRITE), 0);
	release(&s, false);
	assert_int_equal(weft_donor_remove(donor, region), 0);
	assert_int_equal(weft_donor_add(donor, region, &err), 0);
	assert_int_equal(go_on(&s, 1, INCARNATION), 0);
	assert_int_equal(weft_donor_who_cannot_follow(donor, region, names, sizeof(names),
				 &nr_follow), 0);
	assert_int_equal(nr_follow, 1);
	release(&s, true);
}

static void a_writer_that_is_not_seen_waits(void **state)
{
	const struct weft_peer rdma = {.text = "10.0.0.1:5", .transport = "rdma", .local = true,
		.one_sided = true};
	struct weft_hello hello = hello_of(1, INCARNATION, WEFT_MODE_WRITE);
	struct session s;

	hello.follows = true;
	assert_int_equal(track(), 0);
	assert_int_equal(grant_to(&s, &rdma, &hello), -EBUSY);
	assert_non_null(strstr(err.message, "over TCP"));
	hello.mode = WEFT_MODE_SHARED;
	assert_int_equal(grant_to(&s, &rdma, &hello), 0);
	release(&s, true);
	assert_int_equal(weft_donor_unfreeze(donor, region, 0, &err), 0);
	hello.mode = WEFT_MODE_WRITE;
	assert_int_equal(grant_to(&s, &rdma, &hello), 0);
	release(&s, true);
}

static void a_writer_that_reports_stays_until_it_is_held_back(void **state)
{
	const struct weft_peer rdma = {.text = "10.0.0.1:5", .transport = "rdma", .local = true,
		.one_sided = true, .reports = true};
	struct weft_hello hello = hello_of(1, INCARNATION, WEFT_MODE_WRITE);
	struct session s, tcp;

	hello.follows = true;
	assert_int_equal(track(), 0);
	assert_int_equal(grant_to(&s, &rdma, &hello), 0);
	assert_int_equal(weft_donor_hold_back(donor, region, moving.number, 0, &err), 0);
	assert_int_equal(weft_donor_hold_back(donor, region, 43, 1000, &err), -ESTALE);
	assert_false(s.fenced);
	assert_int_equal(weft_donor_hold_back(donor, region, moving.number, 1000, &err), 0);
	assert_true(s.fenced);
	assert_int_equal(atomic_load(&region->pace_ns_per_mib), 1000);
	release(&s, false);
	hello.generation++;
	assert_int_equal(grant_to(&s, &rdma, &hello), -EBUSY);
	assert_non_null(strstr(err.message, "over TCP"));
	assert_int_equal(go_on(&tcp, 1, INCARNATION + 1), 0);
	assert_int_equal(weft_donor_hold_back(donor, region, moving.number, 2000, &err), 0);
	assert_false(tcp.fenced);
	release(&tcp, true);
}

static void a_frozen_region_has_its_reader_alone(void **state)
{
	struct session reader, writer, s;

	assert_int_equal(track(), 0);
	assert_int_equal(grant(&reader, moving.reader[0], INCARNATION, WEFT_MODE_SHARED), 0);
	assert_int_equal(follow(&writer, 1, INCARNATION, WEFT_MODE_WRITE), 0);
	start_copier(&writer);
	freeze_it();
	assert_true(atomic_load(&writer.released));
	assert_false(reader.fenced);
	pthread_join(writer.thread, NULL);
	assert_int_equal(go_on(&s, 1, INCARNATION + 1), -WEFT_EMOVING);
	char place[WEFT_PLACE_MAX];
	assert_true(weft_place_of(err.message, place));
	assert_string_equal(place, PLACE);
	assert_int_equal(follow(&s, 2, INCARNATION, WEFT_MODE_SHARED), -WEFT_EMOVING);
	/* The reader may come back, but does not write. */
	assert_int_equal(grant(&s, moving.reader[0], INCARNATION + 1, WEFT_MODE_WRITE),
		-WEFT_EMOVING);
	freeze_it();
	/* Called off: as if nothing had been. */
	assert_int_equal(weft_donor_unfreeze(donor, region, moving.number, &err), 0);
	assert_int_equal(go_on(&s, 1, INCARNATION + 1), 0);
	release(&s, true);
	release(&reader, true);
}

static void given_is_final(void **state)
{
	struct session s;

	assert_int_equal(track(), 0);
	assert_int_equal(weft_donor_begin_giving(donor, region, moving.number, &err), -EBUSY);
	freeze_it();
	assert_int_equal(weft_donor_begin_giving(donor, region, moving.number, &err), 0);
	/* It may have been noted: nobody is let in, and nobody calls it off. */
	assert_int_equal(weft_donor_unfreeze(donor, region, moving.number, &err), -EBUSY);
	assert_int_equal(follow(&s, 1, INCARNATION, WEFT_MODE_WRITE), -WEFT_EMOVING);
	weft_donor_not_given(donor, region, true);
	assert_int_equal(weft_donor_unfreeze(donor, region, 0, &err), 0);
	assert_int_equal(track(), 0);
	freeze_it();
	give_it();
	assert_int_equal(follow(&s, 1, INCARNATION, WEFT_MODE_WRITE), -WEFT_EMOVED);
	assert_int_equal(grant(&s, moving.reader[0], INCARNATION, WEFT_MODE_SHARED), -WEFT_EMOVED);
	assert_int_equal(grant_stock(&s), -WEFT_EMOVED);
	assert_int_equal(weft_donor_unfreeze(donor, region, moving.number, &err), -EBUSY);
	assert_int_equal(weft_donor_freeze(donor, region, moving.number, &err), -EBUSY);
}

static void a_name_is_elsewhere(void **state)
{
	struct weft_region *found = NULL;
	struct session s;
	struct weft_hello hello = hello_of(1, INCARNATION, WEFT_MODE_WRITE);

	assert_int_equal(weft_donor_find(donor, NULL, "gone", &found, NULL, &err), -ENOENT);
	assert_int_equal(weft_donor_elsewhere(donor, "gone", 7, PLACE), 0);
	assert_int_equal(weft_donor_find(donor, NULL, "gone", &found, NULL, &err), -WEFT_EMOVED);
	assert_int_equal(weft_donor_elsewhere(donor, "gone", 0, PLACE), 0);
	assert_int_equal(weft_donor_find(donor, NULL, "gone", &found, NULL, &err), -WEFT_EMOVING);
	weft_donor_not_elsewhere(donor, "gone", 0);
	assert_int_equal(weft_donor_find(donor, NULL, "gone", &found, NULL, &err), -WEFT_EMOVED);
	weft_donor_not_elsewhere(donor, "gone", 7);
	assert_int_equal(weft_donor_find(donor, NULL, "gone", &found, NULL, &err), -ENOENT);

	/* Another region has the name now: who remembers those contents is sent after them. */
	assert_int_equal(weft_donor_elsewhere(donor, region->name, 7, PLACE), 0);
	hello.epoch = 7;
	assert_int_equal(grant_hello(&s, &hello), -WEFT_EMOVED);
	hello.epoch = 8;
	assert_int_equal(grant_hello(&s, &hello), -ESTALE);
	hello.epoch = 0;
	assert_int_equal(grant_hello(&s, &hello), 0);
	release(&s, true);
}

static void a_silent_taker_gives_up(void **state)
{
	struct session reader;

	assert_int_equal(track(), 0);
	freeze_it();
	/* One that reads is not silent, though it asks nothing. */
	assert_int_equal(grant(&reader, moving.reader[0], INCARNATION, WEFT_MODE_SHARED), 0);
	weft_grant_touch(reader.grant, weft_now_ns() + UINT64_C(25000000000));
	tick_in(30000);
	assert_string_equal(moving_to(), PLACE);
	release(&reader, true);
	assert_true(weft_donor_is_moving(donor, region, moving.number));
	tick_in(10000);
	assert_string_equal(moving_to(), PLACE);
	assert_true(weft_donor_is_moving(donor, region, moving.number));
	tick_in(30000);
	assert_string_equal(moving_to(), "");
	assert_false(weft_donor_is_moving(donor, region, moving.number));
	/* But not once it was given. */
	assert_int_equal(track(), 0);
	freeze_it();
	give_it();
	tick_in(1000000);
	assert_string_equal(moving_to(), PLACE);
}

static void questions_about_another_move_are_no_sign_of_life(void **state)
{
	assert_int_equal(track(), 0);
	const uint64_t begun_ns = weft_now_ns();
	usleep(50000);
	assert_false(weft_donor_is_moving(donor, region, moving.number + 1));
	assert_int_equal(weft_donor_unfreeze(donor, region, moving.number + 1, &err), -ESTALE);
	weft_donor_tick(donor, begun_ns + UINT64_C(20001000000));
	assert_string_equal(moving_to(), "");
}

static void a_removed_region_is_not_found(void **state)
{
	struct weft_region *found = NULL;
	struct session s;

	assert_int_equal(follow(&s, 1, INCARNATION, WEFT_MODE_WRITE), 0);
	assert_int_equal(weft_donor_remove(donor, region), -EBUSY);
	release(&s, false);
	assert_int_equal(weft_donor_remove(donor, region), 0);
	assert_int_equal(weft_donor_remove(donor, region), -ENOENT);
	assert_int_equal(weft_donor_find(donor, NULL, region->name, &found, NULL, &err), -ENOENT);
}

static void changes_are_told_once(void **state)
{
	const struct weft_memory_spec spec = {
		.name = "long", .size_bytes = 70 * WEFT_CHUNK_BYTES + 4096};
	struct weft_region *other;
	uint64_t bits[2] = {0};

	assert_int_equal(weft_region_new_memory(&spec, NULL, NULL, &other, &err), 0);
	assert_int_equal(weft_region_nr_chunks(other), 71);
	assert_int_equal(weft_region_track(other), 0);
	weft_region_track_change(other, WEFT_CHUNK_BYTES - 1, 2);
	weft_region_track_change(other, other->size_bytes - 1, 1);
	weft_region_track_change(other, 0, 0);
	weft_region_take_changes(other, 0, 71, bits);
	assert_true(bits[0] == 3 && bits[1] == 1 << 6);
	weft_region_take_changes(other, 0, 71, bits);
	assert_true(bits[0] == 0 && bits[1] == 0);
	/* What changes the region by itself is noted too. */
	assert_int_equal(weft_region_zero(other, 2 * WEFT_CHUNK_BYTES, 10, false, false), 0);
	weft_region_take_changes(other, 0, 71, bits);
	assert_true(bits[0] == 4 && bits[1] == 0);
	/* Another move begins with none. */
	weft_region_track_change(other, 0, 1);
	weft_region_untrack(other);
	assert_false(weft_region_is_tracked(other));
	assert_int_equal(weft_region_track(other), 0);
	weft_region_take_changes(other, 0, 71, bits);
	assert_true(bits[0] == 0);
	weft_region_put(other);
}

/* As a network card would. */
static void say(struct weft_report *report, uint64_t chunk, uint8_t what)
{
	((volatile uint8_t *)report->said)[chunk] = what;
}

static void what_is_open_is_told_until_it_is_closed(void **state)
{
	const struct weft_memory_spec spec = {
		.name = "long", .size_bytes = 70 * WEFT_CHUNK_BYTES + 4096};
	_Atomic uint64_t said[2][9] = {0};
	struct weft_report one = {.said = said[0]}, two = {.said = said[1]};
	struct weft_region *other;
	uint64_t bits[2];

	assert_int_equal(weft_region_new_memory(&spec, NULL, NULL, &other, &err), 0);
	assert_int_equal(weft_region_track(other), 0);
	weft_region_begin_report(other, &one);
	weft_region_begin_report(other, &two);
	weft_region_take_changes(other, 0, 71, bits);
	assert_true(bits[0] == 0 && bits[1] == 0);
	say(&one, 3, WEFT_SAID_OPEN);
	say(&one, 70, WEFT_SAID_CLOSED);
	say(&two, 3, WEFT_SAID_CLOSED);
	say(&two, 9, 200);
	weft_region_track_change(other, 5 * WEFT_CHUNK_BYTES, 1);
	weft_region_take_changes(other, 0, 71, bits);
	assert_true(bits[0] == (1 << 3 | 1 << 5 | 1 << 9) && bits[1] == 1 << 6);
	/* Closed once, open ever again, and so is what nobody may say. */
	weft_region_take_changes(other, 0, 71, bits);
	assert_true(bits[0] == (1 << 3 | 1 << 9) && bits[1] == 0);
	weft_region_take_changes(other, 64, 7, bits);
	assert_true(bits[0] == 0);
	say(&one, 3, WEFT_SAID_CLOSED);
	/* Whoever ends leaves what it said. */
	weft_region_end_report(other, &two);
	weft_region_take_changes(other, 0, 71, bits);
	assert_true(bits[0] == (1 << 3 | 1 << 9));
	weft_region_take_changes(other, 0, 71, bits);
	assert_true(bits[0] == 0 && bits[1] == 0);
	say(&one, 0, WEFT_SAID_OPEN);
	say(&one, 70, WEFT_SAID_OPEN);
	weft_region_end_report(other, &one);
	weft_region_take_changes(other, 0, 71, bits);
	assert_true(bits[0] == 1 && bits[1] == 1 << 6);
	weft_region_take_changes(other, 0, 71, bits);
	assert_true(bits[0] == 0 && bits[1] == 0);
	weft_region_put(other);
}

/* A card makes "open" of "closed" while the closed ones are forgotten. */
static void *say_and_write(void *ctx)
{
	struct weft_report *report = ctx;
	_Atomic uint8_t *said = (_Atomic uint8_t *)report->said;

	for (unsigned i = 0; i < 200000; i++)
		atomic_store(&said[3], i % 2 ? WEFT_SAID_CLOSED : WEFT_SAID_OPEN);
	atomic_store(&said[3], WEFT_SAID_OPEN);
	return NULL;
}

static void what_is_opened_meanwhile_stays(void **state)
{
	_Atomic uint64_t said[1] = {0};
	struct weft_report report = {.said = said};
	pthread_t thread;
	uint64_t bits[1];

	assert_int_equal(weft_region_track(region), 0);
	weft_region_begin_report(region, &report);
	assert_int_equal(pthread_create(&thread, NULL, say_and_write, &report), 0);
	for (unsigned i = 0; i < 1000; i++)
		weft_region_take_changes(region, 0, 1, bits);
	pthread_join(thread, NULL);
	for (unsigned i = 0; i < 3; i++) {
		weft_region_take_changes(region, 0, 1, bits);
		assert_int_equal(bits[0], 1 << 3);
	}
	weft_region_end_report(region, &report);
}

static void ids_are_hashed_under_the_key_that_came(void **state)
{
	const uint8_t id[16] = {1, 2, 3};
	uint8_t key[WEFT_ID_KEY_BYTES], ours[16], theirs[16];
	struct weft_region *other = new_region("other", false);

	/* The boot's id, as a key that came from elsewhere, gives the same. */
	weft_region_get_id_key(region, key);
	weft_region_id_hash(region, id, ours);
	weft_region_set_id_key(other, key);
	weft_region_id_hash(other, id, theirs);
	assert_memory_equal(ours, theirs, sizeof(ours));
	key[0] ^= 1;
	weft_region_set_id_key(other, key);
	weft_region_id_hash(other, id, theirs);
	assert_memory_not_equal(ours, theirs, sizeof(ours));
	weft_region_put(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(sessions_end_once_and_come_back),
		T(a_late_begin_ends_no_later_step),
		T(what_an_earlier_question_let_go_of_is_not_frozen),
		T(a_region_is_given_by_one_question_at_a_time),
		T(what_was_given_is_decided_about_by_one_at_a_time),
		T(who_cannot_follow_is_named),
		T(an_eviction_may_end),
		T(who_joins_after_a_restart_can_follow),
		T(a_writer_that_is_not_seen_waits),
		T(a_writer_that_reports_stays_until_it_is_held_back),
		T(a_frozen_region_has_its_reader_alone),
		T(given_is_final),
		T(a_name_is_elsewhere),
		T(a_silent_taker_gives_up),
		T(questions_about_another_move_are_no_sign_of_life),
		T(a_removed_region_is_not_found),
		T(changes_are_told_once),
		T(what_is_open_is_told_until_it_is_closed),
		T(what_is_opened_meanwhile_stays),
		T(ids_are_hashed_under_the_key_that_came),
#undef T
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
