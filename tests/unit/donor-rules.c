/* SPDX-License-Identifier: MIT */
/*
 * The rules of who may go on with a region's contents, in memory and in a file, and of what the
 * contents are taken for.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/donor-sessions.h"

/*
 * Attached and detached again as part `index` of `count`; 0 of 0: by a borrower that does not say.
 */
static int try_as(uint8_t who, enum weft_mode mode, uint32_t index, uint32_t count,
	uint64_t unit_bytes)
{
	struct weft_hello hello = hello_of(who, 1, mode);
	struct session s;

	hello.stripe = (struct weft_stripe){index, count, unit_bytes};
	int r = grant_hello(&s, &hello);
	if (r == 0)
		release(&s, true);
	return r;
}

static void expect_message(const char *text)
{
	if (strcmp(err.message, text) != 0)
		fail_msg("%s", err.message);
}

static void a_region_stays_the_part_of_the_device_that_it_was(void **state)
{
	/*
	 * Nobody wrote yet: whatever comes first; reading it changes nothing, nor does a client
	 * that knows nothing of it.
	 */
	assert_int_equal(try_as(1, WEFT_MODE_READ, 2, 3, 4096), 0);
	assert_int_equal(try_as(1, WEFT_MODE_SHARED, 2, 3, 4096), 0);
	struct session stock;
	assert_int_equal(grant_stock(&stock), 0);
	release(&stock, true);
	assert_int_equal(region->stripe.count, 0);
	assert_int_equal(try_as(2, WEFT_MODE_WRITE, 1, 2, 65536), 0);
	assert_int_equal(try_as(3, WEFT_MODE_WRITE, 1, 2, 65536), 0);
	assert_int_equal(try_as(4, WEFT_MODE_READ, 1, 2, 65536), 0);

	assert_int_equal(try_as(5, WEFT_MODE_WRITE, 2, 2, 65536), -EINVAL);
	expect_message("region 'm' is part 1 of 2 of a striped device (stripes of 64 KiB), not "
		       "part 2 of 2: give the donors in the order in which they "
		       "were first attached; to give its contents up: --new-contents");
	assert_int_equal(try_as(5, WEFT_MODE_READ, 2, 2, 65536), -EINVAL);
	assert_int_equal(try_as(5, WEFT_MODE_SHARED, 2, 2, 65536), -EINVAL);
	assert_int_equal(try_as(5, WEFT_MODE_WRITE, 1, 2, 4096), -EINVAL);
	expect_message("region 'm' is part 1 of 2 of a striped device (stripes of 64 KiB), not "
		       "part 1 of 2 (stripes of 4 KiB): give --stripe-unit 65536; "
		       "to give its contents up: --new-contents");
	assert_int_equal(try_as(5, WEFT_MODE_WRITE, 1, 3, 65536), -EINVAL);
	expect_message("region 'm' is part 1 of 2 of a striped device (stripes of 64 KiB), not "
		       "part 1 of 3: give all 2 donors, in the order in which they "
		       "were first attached; to give its contents up: --new-contents");
	assert_int_equal(try_as(5, WEFT_MODE_WRITE, 1, 1, 0), -EINVAL);
	expect_message("region 'm' is part 1 of 2 of a striped device (stripes of 64 KiB), not a "
		       "whole device: give all 2 donors, in the order in which "
		       "they were first attached; to give its contents up: --new-contents");
	/*
	 * Who attaches a region and says nothing has it alone; a goodbye is said by one that wants
	 * nothing of it.
	 */
	assert_int_equal(try_as(5, WEFT_MODE_WRITE, 0, 0, 0), -EINVAL);
	assert_int_equal(try_as(5, WEFT_MODE_READ, 0, 0, 0), -EINVAL);
	assert_int_equal(try_as(5, WEFT_MODE_SHARED, 0, 0, 0), 0);
	/* These cannot say it. */
	struct weft_hello old = hello_of(6, 1, WEFT_MODE_WRITE);
	struct session s;
	old.version0 = true;
	assert_int_equal(grant_hello(&s, &old), 0);
	release(&s, true);
	assert_int_equal(grant_stock(&s), 0);
	release(&s, true);
	assert_int_equal(try_as(3, WEFT_MODE_WRITE, 1, 2, 65536), 0);
}

static void what_was_attached_alone_becomes_no_part(void **state)
{
	assert_int_equal(try_as(1, WEFT_MODE_WRITE, 0, 0, 0), 0);
	assert_int_equal(try_as(2, WEFT_MODE_WRITE, 1, 2, 65536), -EINVAL);
	expect_message("region 'm' is a whole device, not part 1 of 2 of a striped device (stripes "
		       "of 64 KiB): attach this region alone; to give its "
		       "contents up: --new-contents");
	assert_int_equal(try_as(2, WEFT_MODE_WRITE, 1, 1, 0), 0);
}

/* The refused one fences nobody; and who holds the region is told first. */
static void another_part_is_refused_before_anybody_is_fenced(void **state)
{
	struct weft_hello hello = hello_of(1, 1, WEFT_MODE_WRITE);
	struct session a, b;

	hello.stripe = (struct weft_stripe){1, 2, 65536};
	assert_int_equal(grant_hello(&a, &hello), 0);
	hello.generation = 2;
	hello.stripe.index = 2;
	assert_int_equal(grant_hello(&b, &hello), -EINVAL);
	assert_false(a.fenced);
	hello.new_contents = true;
	hello.epoch = region->epoch; /* what it remembers it does not give up */
	assert_int_equal(grant_hello(&b, &hello), -EINVAL);
	assert_false(a.fenced);
	release(&a, true);
}

static void new_contents_are_another_part(void **state)
{
	struct weft_hello hello = hello_of(2, 1, WEFT_MODE_READ);
	struct session s;

	assert_int_equal(try_as(1, WEFT_MODE_WRITE, 1, 2, 65536), 0);
	hello.stripe = (struct weft_stripe){2, 2, 65536};
	hello.new_contents = true;
	/* A reader would leave contents behind that are of neither. */
	assert_int_equal(grant_hello(&s, &hello), -EINVAL);
	/* A shared reader does not see the bytes of the other device as those of its own. */
	struct weft_hello shared = hello_of(3, 1, WEFT_MODE_SHARED);
	struct session reader;
	shared.stripe = (struct weft_stripe){1, 2, 65536};
	assert_int_equal(grant_hello(&reader, &shared), 0);
	start_copier(&reader);
	hello.mode = WEFT_MODE_WRITE;
	assert_int_equal(grant_hello(&s, &hello), 0);
	assert_true(reader.released);
	assert_int_equal(pthread_join(reader.thread, NULL), 0);
	/* From here on it remembers, as do the other lanes. */
	struct session lane;
	hello.new_contents = false;
	hello.epoch = region->epoch;
	assert_int_equal(grant_hello(&lane, &hello), 0);
	release(&lane, true);
	release(&s, true);
	assert_int_equal(try_as(1, WEFT_MODE_WRITE, 1, 2, 65536), -EINVAL);
	assert_int_equal(try_as(1, WEFT_MODE_WRITE, 2, 2, 65536), 0);
}

static void who_lost_the_lease_to_a_writer_must_attach_anew(void **state)
{
	struct session a, b;
	uint64_t first = UINT64_C(1) << 32;

	assert_int_equal(grant(&a, 1, first, WEFT_MODE_WRITE), 0);
	release(&a, false);
	tick_in(LEASE_MS + 50);
	assert_int_equal(grant(&b, 2, first, WEFT_MODE_WRITE), 0);
	release(&b, true);
	assert_int_equal(claim(&a, 1, first + 1, WEFT_MODE_WRITE), -ESTALE);
	assert_non_null(strstr(err.message, "attach anew"));
	/* A take-over goes on with what the one before it remembered. */
	assert_int_equal(claim(&a, 1, 2 * first, WEFT_MODE_WRITE), -ESTALE);
	assert_int_equal(claim(&a, 1, 2 * first, WEFT_MODE_READ), -ESTALE);
	/* Nor does it vouch for anything that it was let in as a shared reader. */
	assert_int_equal(claim(&a, 1, 2 * first, WEFT_MODE_SHARED), 0);
	release(&a, true);
	assert_int_equal(claim(&a, 1, 3 * first, WEFT_MODE_WRITE), -ESTALE);
	assert_int_equal(grant(&a, 1, 3 * first, WEFT_MODE_WRITE), 0);
	release(&a, true);
	assert_int_equal(claim(&a, 1, 3 * first + 1, WEFT_MODE_WRITE), 0);
	release(&a, true);
}

static void who_left_before_a_writer_came_does_not_reconnect(void **state)
{
	struct session a, b;
	uint64_t first = UINT64_C(1) << 32;

	assert_int_equal(grant(&a, 1, first, WEFT_MODE_WRITE), 0);
	release(&a, true);
	assert_int_equal(grant(&b, 2, first, WEFT_MODE_WRITE), 0);
	release(&b, true);
	/* What it might write again is older than what b wrote. */
	assert_int_equal(claim(&a, 1, first + 1, WEFT_MODE_WRITE), -ESTALE);
	assert_int_equal(claim(&a, 1, first + 1, WEFT_MODE_SHARED), 0);
	release(&a, true);
	assert_int_equal(grant(&a, 1, 2 * first, WEFT_MODE_WRITE), 0);
	release(&a, true);
}

static void who_is_not_remembered_does_not_go_on(void **state)
{
	struct session a;
	uint64_t first = UINT64_C(1) << 32;

	assert_int_equal(claim(&a, 1, first, WEFT_MODE_WRITE), -ESTALE);
	assert_non_null(strstr(err.message, "attach anew"));
	assert_int_equal(claim(&a, 1, first + 1, WEFT_MODE_READ), -ESTALE);
	assert_int_equal(claim(&a, 1, first + 1, WEFT_MODE_SHARED), 0);
	release(&a, true);
	assert_int_equal(grant(&a, 2, first + 7, WEFT_MODE_WRITE), 0);
	release(&a, true);
}

static void who_is_new_and_of_version0_may_name_an_epoch(void **state)
{
	struct session a, b;
	uint64_t first = UINT64_C(1) << 32;
	struct weft_hello hello = hello_of(1, first, WEFT_MODE_WRITE);

	hello.epoch = region->epoch;
	hello.version0 = true;
	uint64_t tenure = region->tenure;
	assert_int_equal(grant_hello(&a, &hello), 0);
	assert_int_not_equal(region->tenure, tenure);
	/* Its next lane joins. */
	tenure = region->tenure;
	assert_int_equal(grant_hello(&b, &hello), 0);
	assert_int_equal(region->tenure, tenure);
	release(&b, true);
	release(&a, true);
	assert_int_equal(grant(&b, 2, first, WEFT_MODE_WRITE), 0);
	release(&b, true);
	assert_int_equal(grant_hello(&a, &hello), -ESTALE);
	hello = hello_of(3, first + 1, WEFT_MODE_WRITE);
	hello.epoch = region->epoch;
	hello.version0 = true;
	assert_int_equal(grant_hello(&a, &hello), -ESTALE);
	hello.generation = 2 * first;
	assert_int_equal(grant_hello(&a, &hello), -ESTALE);
	hello.generation = first;
	hello.epoch++;
	assert_int_equal(grant_hello(&a, &hello), -ESTALE);
}

static void a_reader_that_stood_beside_a_writer_takes_nothing_over(void **state)
{
	struct session reader, writer;

	assert_int_equal(grant(&writer, 2, 1, WEFT_MODE_WRITE), 0);
	assert_int_equal(grant(&reader, 1, 1, WEFT_MODE_SHARED), 0);
	release(&writer, true);
	release(&reader, true);
	/* It was granted after the writer: that it held nothing then is no excuse. */
	assert_int_equal(grant(&writer, 2, 2, WEFT_MODE_WRITE), 0);
	release(&writer, true);
	assert_int_equal(claim(&reader, 1, 2, WEFT_MODE_WRITE), -ESTALE);
}

static void refusals_are_told_apart(void **state)
{
	struct session a, b;
	uint64_t first = UINT64_C(1) << 32;

	assert_int_equal(grant(&a, 1, 2 * first + 1, WEFT_MODE_WRITE), 0);
	assert_int_equal(claim(&b, 1, first + 9, WEFT_MODE_WRITE), -WEFT_ESUPERSEDED);
	release(&a, true);
	assert_int_equal(claim(&a, 1, first + 9, WEFT_MODE_WRITE), -WEFT_ESUPERSEDED);
	/* Another lane of the same process was quicker. */
	assert_int_equal(claim(&a, 1, 2 * first, WEFT_MODE_WRITE), -WEFT_EOVER);
	assert_int_equal(claim(&a, 1, 2 * first + 2, WEFT_MODE_WRITE), 0);
	release(&a, false);
	tick_in(LEASE_MS + 50);
	assert_int_equal(claim(&a, 1, 2 * first + 2, WEFT_MODE_WRITE), -WEFT_EOVER);
	assert_int_equal(claim(&a, 1, 2 * first + 3, WEFT_MODE_WRITE), 0);
	release(&a, true);
}

static void stock_clients_come_back_by_tenure(void **state)
{
	struct session a, weft;
	uint64_t tenure;

	assert_int_equal(grant_stock(&a), 0);
	tenure = region->tenure;
	assert_int_equal(tenure == 0, 0);
	release(&a, false);
	assert_int_equal(grant_stock_at(&a, tenure), 0);
	assert_true(region->tenure == tenure);
	release(&a, false);
	assert_int_equal(grant_stock_at(&a, tenure + 1), -ESTALE);
	/* An attachment says what it remembers otherwise. */
	struct weft_hello named = hello_of(1, 1, WEFT_MODE_WRITE);
	named.tenure = tenure;
	assert_int_equal(grant_hello(&a, &named), -EINVAL);
	/* A reader changes nothing. */
	assert_int_equal(grant(&weft, 1, 1, WEFT_MODE_READ), 0);
	release(&weft, true);
	assert_int_equal(grant_stock_at(&a, tenure), 0);
	release(&a, false);
	/* A writer that remembers nothing may. */
	assert_int_equal(grant(&weft, 1, 2, WEFT_MODE_WRITE), 0);
	release(&weft, true);
	assert_int_equal(grant_stock_at(&a, tenure), -ESTALE);
	assert_non_null(strstr(err.message, "is over"));
	/* So may a stock client that says none. */
	tenure = region->tenure;
	assert_int_equal(grant_stock(&a), 0);
	release(&a, false);
	assert_int_equal(grant_stock_at(&a, tenure), -ESTALE);
	assert_int_equal(grant_stock_at(&a, region->tenure), 0);
	release(&a, false);
}

/* ---- a file: closed and opened again, killed, put back from a copy ---- */

static void copy_file(const char *from, const char *to)
{
	char command[256];

	snprintf(command, sizeof(command), "cp -a --preserve=all %s %s", from, to);
	assert_int_equal(system(command), 0);
}

static int go_on(struct session *s, uint8_t who, uint64_t generation, uint64_t epoch,
	uint64_t granted, bool wrote)
{
	struct weft_hello hello = hello_of(who, generation, WEFT_MODE_WRITE);

	hello.epoch = epoch;
	hello.granted = granted;
	hello.wrote = wrote;
	return grant_hello(s, &hello);
}

#define G(incarnation, low) (((uint64_t)(incarnation) << 32) + (low))

static void a_file_is_known_to_be_a_part_before_the_grant_is_answered(void **state)
{
	struct weft_hello hello = hello_of(1, G(1, 0), WEFT_MODE_WRITE);
	struct session s;

	hello.stripe = (struct weft_stripe){1, 2, 65536};
	assert_int_equal(grant_hello(&s, &hello), 0);
	release(&s, true);
	kill_donor();
	open_again();
	assert_int_equal(try_as(2, WEFT_MODE_WRITE, 2, 2, 65536), -EINVAL);
	/*
	 * Also when the mark said already that the file is being written, and after the crash that
	 * leaves it so.
	 */
	tick_in(LEASE_MS + 50); /* it holds the region still, as far as the mark knows */
	assert_int_equal(weft_region_write(region, "x", 0, 1), 0);
	hello = hello_of(3, G(1, 0), WEFT_MODE_WRITE);
	hello.stripe = (struct weft_stripe){2, 2, 65536};
	hello.new_contents = true;
	assert_int_equal(grant_hello(&s, &hello), 0);
	release(&s, true);
	kill_donor();
	open_again();
	assert_int_equal(try_as(2, WEFT_MODE_WRITE, 1, 2, 65536), -EINVAL);
	assert_non_null(strstr(err.message, "is part 2 of 2"));
	assert_int_equal(try_as(2, WEFT_MODE_WRITE, 2, 2, 65536), -EBUSY); /* it only has to wait */
	stop_donor();
	open_again();
	assert_int_equal(try_as(2, WEFT_MODE_WRITE, 1, 2, 65536), -EINVAL);
}

static void who_waits_for_a_restart_goes_on(void **state)
{
	struct session a, b;
	uint64_t epoch = region->epoch;

	assert_int_equal(grant(&a, 1, G(1, 0), WEFT_MODE_WRITE), 0);
	assert_int_equal(weft_region_write(region, "a", 0, 1), 0);
	release(&a, false);
	stop_donor();
	open_again();
	assert_true(region->epoch == epoch);
	/* It holds the region still, under the lease that it was promised. */
	assert_int_equal(grant(&b, 2, G(1, 0), WEFT_MODE_WRITE), -EBUSY);
	assert_int_equal(go_on(&a, 1, G(1, 0), epoch, G(1, 0), true), -WEFT_EOVER);
	assert_int_equal(go_on(&a, 1, G(1, 1), epoch, G(1, 0), true), 0);
	release(&a, false);
	/* As does one that only read, and whose donor was killed before anything was written. */
	kill_donor();
	open_again();
	assert_true(region->epoch == epoch);
	assert_int_equal(go_on(&a, 1, G(1, 2), epoch, G(1, 1), false), 0);
	release(&a, false);
	/* A lapse changes nothing, as long as nobody else comes. */
	tick_in(LEASE_MS + 50);
	stop_donor();
	open_again();
	assert_int_equal(go_on(&a, 1, G(1, 3), epoch, G(1, 2), false), 0);
	release(&a, true);
}

static void who_lapsed_before_another_wrote_is_stale_after_a_restart(void **state)
{
	struct session a, b;
	uint64_t epoch = region->epoch;

	assert_int_equal(grant(&a, 1, G(1, 0), WEFT_MODE_WRITE), 0);
	release(&a, false);
	tick_in(LEASE_MS + 50);
	assert_int_equal(grant(&b, 2, G(1, 0), WEFT_MODE_WRITE), 0);
	assert_int_equal(weft_region_write(region, "b", 0, 1), 0);
	release(&b, true);
	stop_donor();
	open_again();
	assert_true(region->epoch == epoch);
	assert_int_equal(go_on(&a, 1, G(1, 1), epoch, G(1, 0), true), -ESTALE);
	assert_int_equal(go_on(&a, 1, G(2, 0), epoch, G(1, 0), true), -ESTALE);
	assert_int_equal(go_on(&a, 1, G(3, 0), 0, 0, false), 0);
	release(&a, true);
	/* A stock client writes as well. */
	assert_int_equal(grant_stock(&b), 0);
	release(&b, false);
	stop_donor();
	open_again();
	assert_int_equal(go_on(&a, 1, G(3, 1), epoch, G(3, 0), true), -ESTALE);
}

static void put_back(void)
{
	assert_int_equal(unlink(file_path), 0);
	copy_file(copy_path, file_path);
	open_again();
}

static void contents_that_were_put_back_are_found(void **state)
{
	struct session a;
	uint64_t epoch = region->epoch;

	/* Attached before the copy, goes on after it. */
	assert_int_equal(grant(&a, 1, G(1, 0), WEFT_MODE_WRITE), 0);
	assert_int_equal(weft_region_write(region, "1", 0, 1), 0);
	release(&a, false);
	stop_donor();
	copy_file(file_path, copy_path);
	/* To have it back before going on is to have the same. */
	put_back();
	assert_true(region->epoch == epoch);
	assert_int_equal(go_on(&a, 1, G(1, 1), epoch, G(1, 0), true), 0);
	assert_int_equal(weft_region_write(region, "2", 0, 1), 0);
	release(&a, false);
	stop_donor();
	put_back();
	assert_true(region->epoch == epoch);
	assert_int_equal(go_on(&a, 1, G(1, 2), epoch, G(1, 1), true), -ESTALE);
	assert_non_null(strstr(err.message, "put back"));
	/* The copy hides a crash, too. */
	assert_int_equal(go_on(&a, 1, G(2, 0), 0, 0, false), 0);
	assert_int_equal(weft_region_write(region, "3", 0, 1), 0);
	release(&a, false);
	kill_donor();
	put_back();
	assert_int_equal(go_on(&a, 1, G(2, 1), epoch, G(2, 0), true), -ESTALE);
}

static void a_copy_that_was_made_during_a_grant_is_found(void **state)
{
	struct session a;

	stop_donor(); /* a clean mark */
	open_again();
	uint64_t epoch = region->epoch;
	assert_int_equal(grant(&a, 1, G(1, 0), WEFT_MODE_WRITE), 0);
	copy_file(file_path, copy_path);
	assert_int_equal(weft_region_write(region, "1", 0, 1), 0);
	release(&a, false);
	kill_donor();
	put_back();
	assert_true(region->epoch == epoch);
	assert_int_equal(go_on(&a, 1, G(1, 1), epoch, G(1, 0), true), -ESTALE);
	/* Had it not written, nothing would have been lost. */
	assert_int_equal(go_on(&a, 1, G(1, 1), epoch, G(1, 0), false), 0);
	release(&a, true);
}

static void an_older_borrower_does_not_go_on_after_a_restart(void **state)
{
	struct session a;
	uint64_t epoch = region->epoch;

	assert_int_equal(grant(&a, 1, G(1, 0), WEFT_MODE_WRITE), 0);
	release(&a, false);
	assert_int_equal(go_on(&a, 1, G(1, 1), epoch, 0, false), 0);
	release(&a, false);
	stop_donor();
	open_again();
	assert_int_equal(go_on(&a, 1, G(1, 2), epoch, 0, false), -ESTALE);
}

static void after_a_crash_nobody_is_let_in_before_the_leases_are_over(void **state)
{
	struct session a, b;
	uint64_t epoch = region->epoch;

	assert_int_equal(grant(&a, 1, G(1, 0), WEFT_MODE_WRITE), 0);
	assert_int_equal(weft_region_write(region, "1", 0, 1), 0);
	release(&a, false);
	kill_donor();
	open_again();
	assert_true(region->epoch != epoch);
	assert_int_equal(go_on(&a, 1, G(1, 1), epoch, G(1, 0), true), -ESTALE);
	assert_int_equal(grant(&b, 2, G(1, 0), WEFT_MODE_WRITE), -EBUSY);
	assert_non_null(strstr(err.message, "is free in"));
	assert_int_equal(grant_stock(&b), -EBUSY);
	/* Who held it knows that it is gone once it asks anew. */
	assert_int_equal(grant(&a, 1, G(2, 0), WEFT_MODE_WRITE), 0);
	release(&a, true);
	usleep((LEASE_MS + 50) * 1000);
	assert_int_equal(grant(&b, 2, G(1, 0), WEFT_MODE_WRITE), 0);
	release(&b, true);
	/* Without anybody who held it nobody waits. */
	assert_int_equal(grant_stock(&b), 0);
	release(&b, false);
	kill_donor();
	open_again();
	assert_int_equal(grant_stock(&b), 0);
	release(&b, false);
}

/* Memory that is gone, and its donor; a new one of the same name. */
static void lose_memory(const char *promises)
{
	weft_donor_free(donor);
	weft_region_put(region);
	region = new_region("m", false);
	assert_int_equal(weft_region_keep_promises(region, promises, true), 0);
	new_donor();
}

static void leases_outlive_the_memory(void **state)
{
	char promises[] = "/tmp/weft-promises.XXXXXX";
	struct session a, b, lane;
	uint64_t epoch;

	int fd = mkstemp(promises);
	assert_true(fd >= 0 && close(fd) == 0 && unlink(promises) == 0);
	lose_memory(promises);
	/* Nobody holds it: nobody waits. */
	assert_int_equal(grant(&b, 2, G(1, 0), WEFT_MODE_WRITE), 0);
	assert_int_equal(access(promises, F_OK), 0);
	release(&b, true);
	assert_int_equal(access(promises, F_OK), -1);
	assert_int_equal(grant_stock(&b), 0);
	release(&b, false);
	assert_int_equal(grant(&a, 1, G(1, 0), WEFT_MODE_WRITE), 0);
	epoch = region->epoch;
	release(&a, false);
	lose_memory(promises);
	assert_int_equal(go_on(&a, 1, G(1, 1), epoch, 0, false), -ESTALE);
	assert_int_equal(grant(&b, 2, G(1, 0), WEFT_MODE_WRITE), -EBUSY);
	assert_non_null(strstr(err.message, "is free in"));
	assert_int_equal(grant_stock(&b), -EBUSY);
	assert_int_equal(grant(&a, 1, G(2, 0), WEFT_MODE_WRITE), 0);
	assert_int_equal(claim(&lane, 1, G(2, 0), WEFT_MODE_WRITE), 0);
	release(&lane, true);
	release(&a, false);
	usleep((LEASE_MS + 50) * 1000);
	tick_in(0);
	assert_int_equal(grant(&b, 2, G(1, 0), WEFT_MODE_WRITE), 0);
	release(&b, true);
	assert_int_equal(access(promises, F_OK), -1);
	/* What a stranger put there is no promise, and is said. */
	FILE *f = fopen(promises, "w");
	assert_non_null(f);
	fputs("v2 state=open\n", f);
	fclose(f);
	struct weft_region *other = new_region("m", false);
	assert_int_equal(weft_region_keep_promises(other, promises, true), -EBADMSG);
	weft_region_put(other);
	unlink(promises);
}

static unsigned nr_held(void)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++)
		nr += region->generations[i].generation != 0 && region->generations[i].held;
	return nr;
}

static void a_grant_that_cannot_be_noted_makes_nobody_stale(void **state)
{
	char place[] = "/tmp/weft-promises.XXXXXX", promises[64];
	struct session a, b;

	assert_non_null(mkdtemp(place));
	snprintf(promises, sizeof(promises), "%s/leases", place);
	lose_memory(promises);
	assert_int_equal(grant(&a, 1, G(1, 0), WEFT_MODE_WRITE), 0);
	release(&a, false);
	tick_in(LEASE_MS + 50);
	assert_int_equal(nr_held(), 0);
	/* The disk is full, or gone. */
	assert_int_equal(access(promises, F_OK), -1);
	assert_int_equal(rmdir(place), 0);
	assert_int_equal(grant(&b, 2, G(1, 0), WEFT_MODE_WRITE), -EIO);
	assert_int_equal(grant_stock(&b), -EBUSY);
	assert_int_equal(mkdir(place, 0700), 0);
	tick_in(2 * LEASE_MS + 100);
	/* Nobody wrote. */
	assert_int_equal(claim(&a, 1, G(1, 1), WEFT_MODE_WRITE), 0);
	release(&a, true);
	/* One that is noted at another try counts. */
	assert_int_equal(grant(&b, 2, G(1, 1), WEFT_MODE_WRITE), 0);
	release(&b, true);
	assert_int_equal(claim(&a, 1, G(1, 2), WEFT_MODE_WRITE), -ESTALE);
	rmdir(place);
}

static void who_joins_as_a_shared_reader_vouches_for_nothing(void **state)
{
	struct session a, b;

	/*
	 * As weft detach does for a bridge that was killed; then it is killed itself, and the
	 * bridge is taken over after all.
	 */
	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_WRITE), 0);
	release(&a, true);
	assert_int_equal(grant(&b, 2, 1, WEFT_MODE_WRITE), 0);
	release(&b, true);
	assert_int_equal(grant(&a, 1, 2, WEFT_MODE_SHARED), 0);
	release(&a, true);
	assert_int_equal(claim(&a, 1, 2, WEFT_MODE_WRITE), -ESTALE);
	assert_int_equal(claim(&a, 1, 3, WEFT_MODE_WRITE), -ESTALE);
	/* Nor when it does not leave, but lapses. */
	assert_int_equal(grant(&a, 1, 4, WEFT_MODE_SHARED), 0);
	release(&a, false);
	tick_in(LEASE_MS + 50);
	assert_int_equal(claim(&a, 1, 5, WEFT_MODE_WRITE), -ESTALE);
	assert_int_equal(grant(&a, 1, 5, WEFT_MODE_WRITE), 0);
	release(&a, true);
}

static void who_was_forgotten_before_a_crash_does_not_reconnect(void **state)
{
	struct session a, b;
	uint64_t first = UINT64_C(1) << 32;

	assert_int_equal(grant(&a, 1, first, WEFT_MODE_WRITE), 0);
	release(&a, false);
	tick_in(LEASE_MS + 50);
	/* So many that the table has no entry left for the first. */
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS + 1; i++) {
		assert_int_equal(grant(&b, (uint8_t)(2 + i), first, WEFT_MODE_WRITE), 0);
		release(&b, true);
	}
	assert_int_equal(claim(&a, 1, first + 1, WEFT_MODE_WRITE), -ESTALE);
	assert_int_equal(grant(&a, 1, 2 * first, WEFT_MODE_WRITE), 0);
	release(&a, true);
}

static void another_epoch_is_stale(void **state)
{
	struct weft_hello hello = hello_of(1, 1, WEFT_MODE_WRITE);
	struct weft_welcome welcome;
	struct session a;

	weft_donor_welcome(donor, region, &welcome);
	assert_true(welcome.epoch == region->epoch);
	assert_int_equal(welcome.lease_ms, LEASE_MS);
	assert_string_equal(welcome.offers, "tcp");
	hello.epoch = region->epoch + 1;
	assert_int_equal(grant_hello(&a, &hello), -ESTALE);
	hello.epoch = 0;
	hello.expect = region->epoch + 1;
	assert_int_equal(grant_hello(&a, &hello), -ESTALE);
	hello.expect = region->epoch;
	assert_int_equal(grant_hello(&a, &hello), 0);
	release(&a, true);
}

int main(void)
{
#define FILE_TEST(name) cmocka_unit_test_setup_teardown(name, setup_file, teardown_file)
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_region_stays_the_part_of_the_device_that_it_was),
		TEST(what_was_attached_alone_becomes_no_part),
		TEST(another_part_is_refused_before_anybody_is_fenced),
		TEST(new_contents_are_another_part),
		FILE_TEST(a_file_is_known_to_be_a_part_before_the_grant_is_answered),
		TEST(who_lost_the_lease_to_a_writer_must_attach_anew),
		TEST(who_was_forgotten_before_a_crash_does_not_reconnect),
		TEST(who_left_before_a_writer_came_does_not_reconnect),
		TEST(who_is_not_remembered_does_not_go_on),
		TEST(who_is_new_and_of_version0_may_name_an_epoch),
		TEST(a_reader_that_stood_beside_a_writer_takes_nothing_over),
		TEST(refusals_are_told_apart),
		TEST(stock_clients_come_back_by_tenure),
		TEST(leases_outlive_the_memory),
		TEST(a_grant_that_cannot_be_noted_makes_nobody_stale),
		TEST(who_joins_as_a_shared_reader_vouches_for_nothing),
		FILE_TEST(who_waits_for_a_restart_goes_on),
		FILE_TEST(who_lapsed_before_another_wrote_is_stale_after_a_restart),
		FILE_TEST(contents_that_were_put_back_are_found),
		FILE_TEST(a_copy_that_was_made_during_a_grant_is_found),
		FILE_TEST(an_older_borrower_does_not_go_on_after_a_restart),
		FILE_TEST(after_a_crash_nobody_is_let_in_before_the_leases_are_over),
		TEST(another_epoch_is_stale),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
