/* SPDX-License-Identifier: MIT */
/* The C API's marks at a donor in this process: what its header promises. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "tests/conformance/libweft-peer.h"

enum { IO = 4096 };

static const unsigned follows = WEFT_OPEN_READ_ONLY | WEFT_OPEN_SHARED;

static struct weft_mark look(struct weft *w)
{
	struct weft_mark mark = {.size = sizeof(mark)};

	assert_int_equal(weft_mark_look(w, &mark), 0);
	return mark;
}

/* What is written next takes the mark away, before it is there. */
static void a_write_takes_the_mark_away(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0), *f = libweft_open(libweft_uri, follows);
	uint8_t bytes[IO] = {1}, read[IO];
	uint64_t last = look(f).number;
	int64_t cookies[8];

	assert_false(look(f).is_set);
	assert_int_equal(weft_pwrite(w, bytes, IO, 0), 0);
	for (unsigned round = 0; round < 3; round++) {
		assert_int_equal(weft_mark(w), 0);
		const struct weft_mark mark = look(f);
		assert_true(mark.is_set && mark.number > last);
		assert_true(look(f).number == mark.number && look(w).number == mark.number);
		last = mark.number;
		/* Reading, and a flush, leave it. */
		assert_int_equal(weft_pread(w, read, IO, 0), 0);
		assert_int_equal(weft_flush(w), 0);
		assert_true(look(f).number == mark.number);
		if (round == 0)
			assert_int_equal(weft_pwrite(w, bytes, IO, IO), 0);
		for (unsigned i = 0; i < WEFT_ARRAY_LEN(cookies) && round > 0; i++)
			cookies[i] = weft_aio_pwrite(w, bytes, IO, i * IO, NULL);
		for (unsigned i = 0; i < WEFT_ARRAY_LEN(cookies) && round > 0; i++)
			assert_int_equal(weft_aio_wait(w, cookies[i]), 0);
		assert_false(look(f).is_set);
		assert_true(look(f).number > last);
	}
	weft_close(f);
	weft_close(w);
}

static int begin_write(void *user, int error)
{
	static uint8_t bytes[IO];

	assert_int_equal(error, 0);
	assert_true(weft_aio_pwrite(user, bytes, IO, 0, NULL) > 0);
	return 1;
}

static void a_write_out_of_a_completion_does_too(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0), *f = libweft_open(libweft_uri, follows);
	const struct weft_completion completion = {.fn = begin_write, .user = w};
	uint8_t read[IO];

	assert_int_equal(weft_mark(w), 0);
	assert_true(weft_aio_pread(w, read, IO, 0, &completion) > 0);
	while (weft_aio_in_flight(w) > 0)
		assert_true(weft_aio_poll(w, -1) >= 0);
	assert_int_equal(weft_aio_result(w, weft_aio_next(w)), 0);
	assert_false(look(f).is_set);
	weft_close(f);
	weft_close(w);
}

static void the_next_writer_takes_it_away(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0), *f = libweft_open(libweft_uri, follows);

	assert_int_equal(weft_mark(w), 0);
	weft_close(w);
	assert_true(look(f).is_set);
	w = libweft_open_when_free(libweft_uri, 0);
	assert_false(look(f).is_set);
	weft_close(f);
	weft_close(w);
}

static void a_connection_that_is_made_again_keeps_it(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0), *f = libweft_open(libweft_uri, follows);
	uint8_t bytes[IO] = {0};

	assert_int_equal(weft_mark(w), 0);
	const struct weft_mark mark = look(f);
	weft_donor_fence_all(libweft_conf->donor, 2000);
	assert_true(look(f).number == mark.number && look(f).is_set);
	assert_true(look(w).number == mark.number);
	weft_donor_fence_all(libweft_conf->donor, 2000);
	assert_int_equal(weft_pwrite(w, bytes, IO, 0), 0);
	assert_false(look(f).is_set);
	weft_close(f);
	weft_close(w);
}

static void of_several_regions_all_are_marked(void **state)
{
	char uri[128], why[256];
	struct conf *another = libweft_start_another(uri);
	const char *uris[] = {libweft_uri, uri};
	const struct weft_options options = {.size = sizeof(options), .stripe_bytes = 64 << 10},
				  reads = {.size = sizeof(reads), .stripe_bytes = 64 << 10,
					  .flags = follows};
	struct weft *w, *f;
	uint8_t bytes[IO] = {7};

	assert_int_equal(weft_open_regions(uris, 2, &options, &w, why, sizeof(why)), 0);
	assert_int_equal(weft_open_regions(uris, 2, &reads, &f, why, sizeof(why)), 0);
	assert_false(look(f).is_set);
	assert_int_equal(weft_mark(w), 0);
	const struct weft_mark mark = look(f);
	assert_true(mark.is_set);
	assert_int_equal(weft_pwrite(w, bytes, IO, 64 << 10), 0);
	assert_true(!look(f).is_set && look(f).number != mark.number);
	assert_int_equal(weft_mark(w), 0);
	assert_true(look(f).is_set && look(f).number > mark.number);
	weft_close(f);
	weft_close(w);
	libweft_stop_another(another);
}

static void a_synced_map_is_marked_until_a_page_of_it_goes_home(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0), *f = libweft_open(libweft_uri, follows);
	struct weft_map *m;
	uint8_t read[IO];
	char why[256];

	if (weft_map(w, 0, CONF_REGION_BYTES, NULL, &m, why, sizeof(why)) < 0) {
		print_message("no maps here: %s\n", why);
		weft_close(f);
		weft_close(w);
		skip();
	}
	uint8_t *bytes = weft_map_addr(m);
	for (unsigned i = 1; i < 4; i++) {
		memset(bytes, (int)i, IO);
		memset(bytes + CONF_REGION_BYTES - IO, (int)i, IO);
		/* All of the map is, whatever the range. */
		assert_int_equal(weft_map_sync(m, bytes, IO, WEFT_MAP_MARK), 0);
		assert_true(look(f).is_set);
		assert_int_equal(weft_pread(f, read, IO, CONF_REGION_BYTES - IO), 0);
		assert_memory_equal(read, bytes + CONF_REGION_BYTES - IO, IO);
		bytes[IO]++;
		assert_int_equal(weft_map_sync(m, bytes, CONF_REGION_BYTES, WEFT_MAP_FLUSH), 0);
		assert_false(look(f).is_set);
	}
	assert_int_equal(weft_unmap(m, 0), 0);
	weft_close(f);
	weft_close(w);
}

static void what_cannot_be_marked_says_so(void **state)
{
	struct weft_options options = {.size = sizeof(options), .cache_bytes = 4 << 20};
	const char *uris[] = {libweft_uri};
	struct weft_mark small = {.size = 8};
	struct weft *w = libweft_open(libweft_uri, follows);

	assert_int_equal(weft_mark(w), -EPERM);
	assert_int_equal(weft_mark_look(w, &small), -EINVAL);
	weft_close(w);
	assert_int_equal(weft_open_regions(uris, 1, &options, &w, NULL, 0), 0);
	assert_int_equal(weft_mark(w), -EOPNOTSUPP);
	weft_close(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		libweft_both_cases(a_write_takes_the_mark_away),
		libweft_both_cases(a_write_out_of_a_completion_does_too),
		libweft_both_cases(a_connection_that_is_made_again_keeps_it),
		libweft_case(the_next_writer_takes_it_away),
		libweft_case(of_several_regions_all_are_marked),
		libweft_case(a_synced_map_is_marked_until_a_page_of_it_goes_home),
		libweft_case(what_cannot_be_marked_says_so),
	};

	libweft_rdma_ip = getenv("RDMA_IP");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
