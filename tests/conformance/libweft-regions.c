/* SPDX-License-Identifier: MIT */
/*
 * What the C API opens with options, at donors in this process: several regions as one device, a
 * cache, and options that are wrong.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "fabric/base/util.h"
#include "tests/conformance/libweft-peer.h"

enum { IO = 4096 };

static void regions_are_one_device(void **state)
{
	const struct weft_options options = {.size = sizeof(options), .stripe_bytes = 64 << 10};
	const size_t bytes = 2 * CONF_REGION_BYTES;
	uint8_t *out = test_malloc(bytes), *in = test_malloc(bytes);
	char second[128], why[256], transport[16];
	struct conf *another = libweft_start_another(second);
	const char *uris[] = {libweft_uri, second}, *turned[] = {second, libweft_uri};
	struct weft *w;

	assert_int_equal(weft_open_regions(uris, 2, &options, &w, why, sizeof(why)), 0);
	assert_int_equal(weft_size(w), bytes);
	assert_int_equal(weft_transport(w, 1, transport, sizeof(transport)), 0);
	assert_string_equal(transport, "unix");
	assert_int_equal(weft_transport(w, 2, transport, sizeof(transport)), -EINVAL);
	conf_fill(out, 0, bytes, 3);
	assert_int_equal(weft_pwrite(w, out, bytes, 0), 0);
	assert_int_equal(weft_pread(w, in, bytes - 12345, 12345), 0);
	assert_memory_equal(in, out + 12345, bytes - 12345);
	assert_int_equal(weft_flush(w), 0);
	weft_close(w);
	/* In another order it is another device. */
	uint64_t end = libweft_bound_ns();
	int r;
	while ((r = weft_open_regions(turned, 2, &options, &w, why, sizeof(why))) == -EBUSY &&
		weft_now_ns() < end)
		poll(NULL, 0, 5);
	assert_int_equal(r, -EINVAL);
	assert_non_null(strstr(why, "part 1 of 2"));
	/* Unless its contents are given up. */
	const struct weft_options anew = {.size = sizeof(anew),
		.stripe_bytes = 64 << 10,
		.flags = WEFT_OPEN_NEW_CONTENTS};
	assert_int_equal(weft_open_regions(turned, 2, &anew, &w, why, sizeof(why)), 0);
	weft_close(w);
	libweft_stop_another(another);
	test_free(out);
	test_free(in);
}

static void a_cache_answers_what_was_read(void **state)
{
	struct weft_options options = {.size = sizeof(options), .cache_bytes = 4 << 20};
	uint8_t *out = test_malloc(CONF_REGION_BYTES), *in = test_malloc(CONF_REGION_BYTES);

	for (unsigned i = 0; i < 2; i++) {
		options.flags = i ? WEFT_OPEN_WRITE_BACK : 0;
		weft_close(libweft_open_when_free(libweft_uri, 0));
		weft_close(libweft_open_when_free(libweft_uri, 0));
		const char *uris[] = {libweft_uri};
		uint64_t end = libweft_bound_ns();
		struct weft *w;
		while (weft_open_regions(uris, 1, &options, &w, NULL, 0) == -EBUSY)
			assert_true(weft_now_ns() < end);
		conf_fill(out, 0, CONF_REGION_BYTES, i);
		assert_int_equal(weft_pwrite(w, out, CONF_REGION_BYTES, 0), 0);
		assert_int_equal(weft_pread(w, in, CONF_REGION_BYTES, 0), 0);
		assert_memory_equal(in, out, CONF_REGION_BYTES);
		conf_fill(out, 0, IO, 77 + i);
		assert_int_equal(weft_aio_wait(w, weft_aio_pwrite(w, out, IO, 0, NULL)), 0);
		assert_int_equal(weft_pread(w, in, IO, 0), 0);
		assert_memory_equal(in, out, IO);
		/* Write-through or not, the donor has all of it once the handle is closed. */
		weft_close(w);
		w = libweft_open_when_free(libweft_uri, 0);
		assert_int_equal(weft_pread(w, in, CONF_REGION_BYTES, 0), 0);
		assert_memory_equal(in, out, CONF_REGION_BYTES);
		weft_close(w);
	}
	test_free(out);
	test_free(in);
}

/* ---- what is wrong ---- */

static void wrong_options_say_why(void **state)
{
	const size_t size = sizeof(struct weft_options);
	const struct {
		struct weft_options options;
		unsigned nr_uris;
		int code;
		const char *why;
	} cases[] = {
		{{.size = 0}, 1, -EINVAL, "options.size"},
		{{.size = size, .flags = 1u << 31}, 1, -EINVAL, "flags"},
		{{.size = size, .flags = WEFT_OPEN_WRITE_BACK}, 1, -EINVAL, "cache_bytes"},
		{{.size = size, .flags = WEFT_OPEN_NEW_CONTENTS}, 1, -EINVAL, "several regions"},
		{{.size = size, .flags = WEFT_OPEN_NEW_CONTENTS | WEFT_OPEN_READ_ONLY}, 2, -EINVAL,
			"a handle that writes"},
		{{.size = size, .connections = 65}, 1, -EINVAL, "65"},
		{{.size = size, .cache_bytes = 4096}, 1, -EINVAL, "cache"},
		{{.size = size, .stripe_bytes = 65536}, 1, -EINVAL, "several regions"},
		{{.size = size, .stripe_bytes = 65537}, 2, -EINVAL, "power of two"},
		{{.size = size, .stripe_bytes = 2048}, 2, -EINVAL, "power of two"},
		{{.size = size}, 0, -EINVAL, "0 regions"},
		{{.size = size}, 17, -EINVAL, "17 regions"},
	};
	const char *uris[17];
	char why[256];
	struct weft *w;

	for (unsigned i = 0; i < WEFT_ARRAY_LEN(uris); i++)
		uris[i] = libweft_uri;
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(cases); i++) {
		assert_int_equal(weft_open_regions(uris, cases[i].nr_uris, &cases[i].options, &w,
					 why, sizeof(why)),
			cases[i].code);
		if (!strstr(why, cases[i].why))
			fail_msg("'%s' says nothing of '%s'", why, cases[i].why);
	}
	const char *mixed[] = {"weft://127.0.0.1/a", "nbd://127.0.0.1/b"};
	assert_int_equal(weft_open_regions(mixed, 2, NULL, &w, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, "striped together"));
	const char *ways[] = {"weft://127.0.0.1/a?transport=tcp", "weft://127.0.0.1/b"};
	assert_int_equal(weft_open_regions(ways, 2, NULL, &w, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, "transport"));
}

static void options_of_a_later_version_are_taken_if_they_say_nothing(void **state)
{
	struct {
		struct weft_options options;
		uint64_t more;
	} later = {.options.size = sizeof(later)};
	const char *uris[] = {libweft_uri};
	struct weft *w;

	assert_int_equal(weft_open_regions(uris, 1, &later.options, &w, NULL, 0), 0);
	weft_close(w);
	later.more = 1;
	assert_int_equal(weft_open_regions(uris, 1, &later.options, &w, NULL, 0), -E2BIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		libweft_both_cases(regions_are_one_device),
		libweft_both_cases(a_cache_answers_what_was_read),
		libweft_case(wrong_options_say_why),
		libweft_case(options_of_a_later_version_are_taken_if_they_say_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
