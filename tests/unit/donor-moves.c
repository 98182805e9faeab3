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
	weft_donor_given(donor, region);
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
	weft_donor_not_given(donor, region);
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
		T(who_cannot_follow_is_named),
		T(a_writer_that_is_not_seen_waits),
		T(a_frozen_region_has_its_reader_alone),
		T(given_is_final),
		T(a_name_is_elsewhere),
		T(a_silent_taker_gives_up),
		T(a_removed_region_is_not_found),
		T(changes_are_told_once),
		T(ids_are_hashed_under_the_key_that_came),
#undef T
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
