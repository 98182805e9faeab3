/* SPDX-License-Identifier: MIT */
/*
 * A borrower whose region moves: where it asks after a loss, what it believes, and what those who
 * use it see of that, which is nothing.  Donors are stand-ins that say what a test tells them.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "fabric/driver.h"
#include "nbd-bridge/link/peer.h"
#include "tests/support/bridge-io.h"
#include "tests/support/moving-donor.h"

enum { REGION = 1 << 20, NR_LANES = 3, NR_IOS = 24 };

static struct moving_donor a, b, c;
static uint8_t bytes[REGION], other_bytes[REGION], pattern[1 << 16], got[1 << 16];
static char ports[3][8];
static struct bridge_donor_config to[2];
static struct bridge_config config;
static struct weft_error refused;

/* What was noted last, and after how many requests at all donors. */
static struct noted {
	unsigned nr, after_requests;
	uint64_t number;
	char at[WEFT_PLACE_MAX], moving[WEFT_PLACE_MAX];
} noted_now;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic int note_error;

static struct noted what_is_noted(void)
{
	pthread_mutex_lock(&lock);
	struct noted noted = noted_now;
	pthread_mutex_unlock(&lock);
	return noted;
}

static int note_place(void *ctx, unsigned donor, uint64_t nr, const char *at, const char *moving)
{
	struct noted *noted = &noted_now;

	if (note_error)
		return note_error;
	pthread_mutex_lock(&lock);
	if (nr > noted->number) {
		noted->number = nr;
		noted->after_requests = a.nr_requests + b.nr_requests + c.nr_requests;
		snprintf(noted->at, sizeof(noted->at), "%s", at);
		snprintf(noted->moving, sizeof(noted->moving), "%s", moving);
		noted->nr++;
	}
	pthread_mutex_unlock(&lock);
	return 0;
}

static void lead_to(struct bridge_donor_config *donor, const struct moving_donor *d, char *port)
{
	snprintf(port, 8, "%u", d->port);
	*donor = (struct bridge_donor_config){.region = "r",
		.ways = {{.transport = tp_base_driver()->ops,
			.host = "127.0.0.1",
			.port = port}},
		.nr_ways = 1,
		.generation = UINT64_C(1) << 32};
	weft_random(donor->id, sizeof(donor->id));
}

static int set_up(void **state)
{
	moving_donor_start(&a, bytes, REGION);
	moving_donor_start(&b, bytes, REGION);
	moving_donor_start(&c, bytes, REGION);
	lead_to(&to[0], &a, ports[0]);
	config = bridge_config_for_tests(NULL);
	config.attach.donors = to;
	config.attach.nr_donors = 1;
	config.attach.note_place = note_place;
	config.nr_lanes = NR_LANES;
	noted_now = (struct noted){0};
	note_error = 0;
	fill_pattern(pattern, sizeof(pattern));
	return 0;
}

static int tear_down(void **state)
{
	/* Nobody who waits for an answer is left. */
	a.stalls = b.stalls = c.stalls = false;
	bridge_free(bridge);
	bridge = NULL;
	moving_donor_end(&a);
	moving_donor_end(&b);
	moving_donor_end(&c);
	return 0;
}

static struct bridge_peer *peer_of(unsigned i)
{
	return &bridge_attachment(bridge)->peers[i];
}

static int try_to_begin(void)
{
	int r = bridge_new(&config, &bridge, &refused);

	return r < 0 ? r : bridge_start(bridge, &refused);
}

/* A region at A that is about to move to B, which is not ready yet. */
static void begin_a_move(void)
{
	a.names = b.uri;
	b.refuse = WEFT_EMOVING;
	bridge_begin(&config);
	assert_string_equal(what_is_noted().moving, b.uri);
}

/* A has given it away, and B serves. */
static void commit(void)
{
	b.refuse = 0;
	b.names = NULL;
	moving_donor_close(&a, WEFT_EMOVED);
}

static char *donor_status(unsigned donor, const char *key, char *buf, size_t len)
{
	json_t *status = bridge_status(bridge);
	const char *text = json_string_value(json_object_get(
		json_array_get(json_object_get(status, "donors"), donor), key));

	snprintf(buf, len, "%s", text ? text : "");
	json_decref(status);
	return buf;
}

static void assert_is_at(const struct moving_donor *d)
{
	char text[WEFT_PLACE_MAX];
	unsigned before = d->nr_requests;

	wait_for_state("ready");
	for (unsigned lane = 0; lane < NR_LANES; lane++)
		assert_int_equal(do_write(lane, 4096 * lane, pattern + lane, 4096, 0), 0);
	assert_true(d->nr_requests >= before + NR_LANES);
	assert_string_equal(donor_status(0, "uri", text, sizeof(text)), d->uri);
}

static void after_a_loss_the_place_is_asked_first_and_goes_on(void **state)
{
	begin_a_move();
	for (unsigned lane = 0; lane < NR_LANES; lane++)
		assert_int_equal(do_write(lane, 0, pattern, 4096, 0), 0);
	const uint64_t generation = atomic_load(&peer_of(0)->generation);
	const unsigned at_a = a.nr_asked;
	b.refuse = 0;
	moving_donor_close(&a, WEFT_EMOVED);
	assert_is_at(&b);
	assert_int_equal(a.nr_asked, at_a);
	assert_true(atomic_load(&peer_of(0)->generation) == generation + 1);
	const struct weft_hello hello = moving_donor_hello(&b, true);
	assert_true(hello.generation == generation + 1 && hello.epoch == 4711);
	assert_true(hello.follows && hello.granted == generation && hello.wrote);
	assert_int_equal(b.nr_granted, NR_LANES);
}

static void requests_in_flight_are_repeated_and_nobody_sees_an_error(void **state)
{
	static struct io ios[NR_IOS];

	begin_a_move();
	a.stalls = true;
	memset(ios, 0, sizeof(ios));
	for (unsigned i = 0; i < NR_IOS; i++) {
		ios[i].rq = (struct bridge_request){
			.kind = TP_WRITE, .off = i * 4096, .len = 4096};
		ios[i].from = pattern + i;
		io_start(&ios[i], i % NR_LANES);
	}
	while (a.nr_requests < NR_LANES)
		usleep(500);
	/* B has other bytes: what A got and did not answer is written there. */
	b.mem = other_bytes;
	memset(other_bytes, 0, sizeof(other_bytes));
	commit();
	for (unsigned i = 0; i < NR_IOS; i++)
		assert_int_equal(io_wait(&ios[i]), 0);
	for (unsigned i = 0; i < NR_IOS; i++)
		moving_donor_check(&b, i * 4096, pattern + i, 4096);
	assert_is_at(&b);
}

static void both_are_asked_in_turn_until_one_grants(void **state)
{
	struct io io = {.rq = {.kind = TP_READ, .len = 4096}, .to = got};

	begin_a_move();
	moving_donor_close(&a, WEFT_EMOVING);
	io_start(&io, 0);
	const uint64_t begin_ns = weft_now_ns();
	const unsigned at_a = a.nr_asked, at_b = b.nr_asked;
	moving_donor_wait_asked(&b, 4 * NR_LANES);
	moving_donor_wait_asked(&a, 4 * NR_LANES);
	const unsigned asked_a = a.nr_asked - at_a, asked_b = b.nr_asked - at_b;
	/* In turn, the place more often; and no more often than every 5 ms, 10 ms, then 20 ms. */
	assert_true(asked_a <= asked_b + 2 * NR_LANES && asked_b <= 4 * (asked_a + 2 * NR_LANES));
	assert_true(asked_a + asked_b <=
		NR_LANES * (4 + (weft_now_ns() - begin_ns) / 20000000));
	assert_false(atomic_load(&io.finished));
	b.refuse = 0;
	assert_int_equal(io_wait(&io), 0);
	assert_is_at(&b);
}

static void an_aborted_move_is_forgotten(void **state)
{
	begin_a_move();
	b.refuse = ENOENT;
	a.names = NULL;
	moving_donor_cut(&a);
	moving_donor_wait_granted(&a, 1);
	wait_for_state("ready");
	assert_int_equal(do_write(0, 0, pattern, 4096, 0), 0);
	assert_string_equal(what_is_noted().moving, "");
	assert_string_equal(what_is_noted().at, "");
	const unsigned at_b = b.nr_asked;
	assert_true(at_b > 0);
	moving_donor_cut(&a);
	moving_donor_wait_granted(&a, NR_LANES);
	wait_for_state("ready");
	assert_int_equal(b.nr_asked, at_b);
}

static void what_an_undecided_place_says_is_not_final(void **state)
{
	static const int errors[] = {ESTALE, WEFT_ESUPERSEDED, ENOENT, EBUSY, EROFS, EACCES};

	begin_a_move();
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(errors); i++) {
		b.refuse = errors[i];
		moving_donor_cut(&a);
		moving_donor_wait_granted(&a, NR_LANES);
		wait_for_state("ready");
		assert_int_equal(do_read(i % NR_LANES, 0, got, 4096), 0);
	}
	/* Nor is a grant of other contents there. */
	b.epoch = 1;
	b.refuse = 0;
	moving_donor_cut(&a);
	moving_donor_wait_granted(&a, NR_LANES);
	wait_for_state("ready");
	assert_int_equal(do_read(0, 0, got, 4096), 0);
}

static void what_the_place_says_is_final_once_the_home_has_decided(void **state)
{
	begin_a_move();
	b.refuse = ESTALE;
	moving_donor_close(&a, WEFT_EMOVED);
	wait_for_state("stale");
	assert_int_equal(do_read(0, 0, got, 4096), -EIO);
}

static void what_the_home_says_is_final(void **state)
{
	begin_a_move();
	moving_donor_close(&a, ESTALE);
	wait_for_state("stale");
	assert_true(b.nr_asked > 0);
}

static void a_place_that_says_over_is_asked_for_the_next_generation(void **state)
{
	begin_a_move();
	b.refuse = WEFT_EOVER;
	const uint64_t generation = atomic_load(&peer_of(0)->generation);
	moving_donor_close(&a, WEFT_EMOVED);
	moving_donor_wait_asked(&b, 2 * NR_LANES);
	b.refuse = 0;
	assert_is_at(&b);
	assert_true(atomic_load(&peer_of(0)->generation) > generation + 1);
}

static void a_donor_may_name_another_place(void **state)
{
	begin_a_move();
	b.refuse = ENOENT;
	a.names = c.uri;
	moving_donor_close(&a, WEFT_EMOVED);
	assert_is_at(&c);
}

static void who_was_away_is_told_when_it_comes_back(void **state)
{
	bridge_begin(&config);
	assert_int_equal(b.nr_asked, 0);
	a.names = b.uri;
	moving_donor_close(&a, WEFT_EMOVED);
	assert_is_at(&b);
	/* … twice, where the region has gone on meanwhile. */
	b.names = c.uri;
	moving_donor_close(&b, WEFT_EMOVED);
	assert_is_at(&c);
}

static void a_region_that_returns_is_followed_back(void **state)
{
	begin_a_move();
	commit();
	assert_is_at(&b);
	for (unsigned i = 0; i < 4; i++) {
		struct moving_donor *from = i % 2 ? &a : &b, *next = i % 2 ? &b : &a;

		next->refuse = WEFT_EMOVING;
		from->names = next->uri;
		moving_donor_cut(from);
		moving_donor_wait_granted(from, NR_LANES);
		wait_for_state("ready");
		assert_string_equal(what_is_noted().moving, next->uri);
		next->names = NULL;
		next->refuse = 0;
		moving_donor_close(from, WEFT_EMOVED);
		assert_is_at(next);
		assert_string_equal(what_is_noted().at, next->uri);
		assert_string_equal(what_is_noted().moving, "");
	}
}

static void where_both_are_silent_the_dead_timeout_holds(void **state)
{
	config.attach.dead_timeout_ms = 300;
	begin_a_move();
	/* The time counts from an answer on. */
	assert_int_equal(do_read(0, 0, got, 4096), 0);
	a.hangs_up = b.hangs_up = true;
	const uint64_t begin_ns = weft_now_ns();
	moving_donor_cut(&a);
	/* Until the loss is seen, a request may be answered. */
	while (do_read(0, 0, got, 4096) == 0)
		;
	/* Half of the time stays at least, however long the donor was silent before. */
	assert_true(weft_now_ns() - begin_ns >= UINT64_C(140000000));
	a.refuse = WEFT_EMOVED;
	b.refuse = 0;
	b.hangs_up = false;
	assert_is_at(&b);
}

static void donors_that_name_each_other_are_not_asked_without_a_wait(void **state)
{
	begin_a_move();
	a.names = b.uri;
	b.names = a.uri;
	b.refuse = WEFT_EMOVED;
	moving_donor_close(&a, WEFT_EMOVED);
	const unsigned before = a.nr_asked + b.nr_asked;
	usleep(1000000); /* the time in which they are asked is what is looked at */
	assert_true(a.nr_asked + b.nr_asked - before < 60 * NR_LANES);
	b.names = NULL;
	b.refuse = 0;
	assert_is_at(&b);
}

static void nothing_is_asked_before_it_is_noted(void **state)
{
	begin_a_move();
	assert_int_equal(what_is_noted().after_requests, 0);
	assert_string_equal(what_is_noted().at, "");
	for (unsigned lane = 0; lane < NR_LANES; lane++)
		assert_int_equal(do_write(lane, 0, pattern, 4096, 0), 0);
	const unsigned requests = a.nr_requests;
	note_error = -EIO;
	commit();
	moving_donor_wait_granted(&b, 3);
	assert_int_equal(b.nr_requests, 0);
	note_error = 0;
	assert_is_at(&b);
	assert_string_equal(what_is_noted().at, b.uri);
	assert_string_equal(what_is_noted().moving, "");
	assert_int_equal(what_is_noted().after_requests, requests);
}

static void a_take_over_asks_the_place_that_was_noted_and_then_the_home(void **state)
{
	to[0].generation = UINT64_C(2) << 32;
	to[0].epoch = 4711;
	to[0].moving = b.uri;
	b.refuse = EBUSY;
	bridge_begin(&config);
	assert_int_equal(b.nr_asked, 1);
	assert_int_equal(a.nr_granted, NR_LANES);
	const struct weft_hello hello = moving_donor_hello(&b, true);
	assert_true(hello.generation == UINT64_C(2) << 32 && hello.epoch == 4711);
	bridge_free(bridge);
	bridge = NULL;
	a.refuse = WEFT_EMOVED;
	b.refuse = 0;
	to[0].generation = UINT64_C(3) << 32;
	bridge_begin(&config);
	assert_is_at(&b);
	assert_string_equal(what_is_noted().at, b.uri);
}

static void *start_it(void *ctx)
{
	bridge_start(bridge, &refused);
	return NULL;
}

static void a_take_over_waits_for_a_region_between_two_donors(void **state)
{
	to[0].generation = UINT64_C(2) << 32;
	to[0].epoch = 4711;
	to[0].moving = b.uri;
	a.refuse = b.refuse = WEFT_EMOVING;
	a.names = b.uri;
	assert_int_equal(bridge_new(&config, &bridge, NULL), 0);
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, start_it, NULL), 0);
	moving_donor_wait_asked(&a, 3);
	b.refuse = 0;
	pthread_join(thread, NULL);
	assert_is_at(&b);
}

static void an_attach_finds_a_region_that_has_moved_or_says_why_not(void **state)
{
	a.names = b.uri;
	a.refuse = WEFT_EMOVED;
	bridge_begin(&config);
	assert_is_at(&b);
	bridge_free(bridge);
	bridge = NULL;
	b.refuse = EBUSY;
	to[0].generation += UINT64_C(1) << 32;
	assert_int_equal(try_to_begin(), -EBUSY);
	assert_non_null(strstr(refused.message, "told to refuse"));
}

static void a_region_between_two_donors_refuses_in_the_end(void **state)
{
	config.attach.connect_timeout_ms = 300;
	a.names = b.uri;
	a.refuse = b.refuse = WEFT_EMOVING;
	assert_int_equal(try_to_begin(), -WEFT_EMOVING);
	assert_non_null(strstr(refused.message, b.uri));
}

static void of_a_striped_device_one_part_moves_alone(void **state)
{
	lead_to(&to[0], &c, ports[1]);
	lead_to(&to[1], &a, ports[0]);
	c.mem = other_bytes;
	config.attach.nr_donors = 2;
	config.attach.stripe_bytes = 65536;
	begin_a_move();
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(do_write(i % NR_LANES, i * 65536, pattern + i, 8192, 0), 0);
	const unsigned at_c = c.nr_asked;
	commit();
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(do_read(i % NR_LANES, i * 65536, got, 8192), 0);
		assert_memory_equal(got, pattern + i, 8192);
	}
	wait_for_state("ready");
	assert_int_equal(c.nr_asked, at_c);
	assert_true(b.nr_granted == NR_LANES && b.nr_requests > 0);
	char text[WEFT_PLACE_MAX];
	assert_string_equal(donor_status(1, "uri", text, sizeof(text)), b.uri);
	const struct weft_hello hello = moving_donor_hello(&b, false);
	assert_true(hello.stripe.index == 2 && hello.stripe.count == 2);
}

static void a_session_with_an_alias_does_not_follow(void **state)
{
	config.attach.wants_alias = true;
	config.nr_lanes = 1;
	a.names = b.uri;
	bridge_begin(&config);
	assert_false(moving_donor_hello(&a, true).follows);
	assert_int_equal(what_is_noted().nr, 0);
	moving_donor_close(&a, WEFT_EMOVED);
	moving_donor_wait_asked(&a, 3);
	assert_int_equal(b.nr_asked, 0);
	wait_for_state("reconnecting");
}

static void a_place_that_cannot_be_understood_is_none(void **state)
{
	a.names = "weft://b:99999/r";
	bridge_begin(&config);
	assert_int_equal(what_is_noted().nr, 0);
	moving_donor_close(&a, WEFT_EMOVED);
	moving_donor_wait_asked(&a, 2 * NR_LANES);
	a.names = b.uri;
	assert_is_at(&b);
}

/* Writes all the time, while it goes back and forth. */
static void what_is_in_flight_survives_moves(void **state)
{
	static struct io ios[NR_IOS];
	struct moving_donor *home = &a, *other = &b;

	begin_a_move();
	for (unsigned round = 0; round < 40; round++) {
		memset(ios, 0, sizeof(ios));
		for (unsigned i = 0; i < NR_IOS; i++) {
			ios[i].rq = (struct bridge_request){
				.kind = TP_WRITE, .off = i * 8192, .len = 8192};
			ios[i].from = pattern + round * 100 + i;
			io_start(&ios[i], i % NR_LANES);
			if (i == NR_IOS / 2 && round % 2)
				moving_donor_close(home, WEFT_EMOVING);
		}
		if (round % 2) {
			struct moving_donor *was = home;

			was->refuse = WEFT_EMOVED;
			was->names = other->uri;
			other->names = was->uri; /* and on it goes */
			other->refuse = 0;
			home = other;
			other = was;
		}
		for (unsigned i = 0; i < NR_IOS; i++)
			assert_int_equal(io_wait(&ios[i]), 0);
		for (unsigned i = 0; i < NR_IOS; i++)
			moving_donor_check(home, i * 8192, pattern + round * 100 + i, 8192);
	}
	assert_is_at(home);
	assert_int_equal(bridge_stop(bridge, 2000, NULL), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(after_a_loss_the_place_is_asked_first_and_goes_on),
		TEST(requests_in_flight_are_repeated_and_nobody_sees_an_error),
		TEST(both_are_asked_in_turn_until_one_grants),
		TEST(an_aborted_move_is_forgotten),
		TEST(what_an_undecided_place_says_is_not_final),
		TEST(what_the_place_says_is_final_once_the_home_has_decided),
		TEST(what_the_home_says_is_final),
		TEST(a_place_that_says_over_is_asked_for_the_next_generation),
		TEST(a_donor_may_name_another_place),
		TEST(who_was_away_is_told_when_it_comes_back),
		TEST(a_region_that_returns_is_followed_back),
		TEST(where_both_are_silent_the_dead_timeout_holds),
		TEST(donors_that_name_each_other_are_not_asked_without_a_wait),
		TEST(nothing_is_asked_before_it_is_noted),
		TEST(a_take_over_asks_the_place_that_was_noted_and_then_the_home),
		TEST(a_take_over_waits_for_a_region_between_two_donors),
		TEST(an_attach_finds_a_region_that_has_moved_or_says_why_not),
		TEST(a_region_between_two_donors_refuses_in_the_end),
		TEST(of_a_striped_device_one_part_moves_alone),
		TEST(a_session_with_an_alias_does_not_follow),
		TEST(a_place_that_cannot_be_understood_is_none),
		TEST(what_is_in_flight_survives_moves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
