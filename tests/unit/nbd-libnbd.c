/* SPDX-License-Identifier: MIT */
/*
 * libnbd as the engine's client: what it asks for, and what it sends when it is told not to check.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/nbd-donor.h"

enum { SIZE = 64 << 20 };

static uint8_t data[4 << 20], back[4 << 20];
static struct nbd_donor donor;

static int set_up(void **state)
{
	nbd_donor_start(&donor, SIZE, NULL, 0);
	return 0;
}

static int tear_down(void **state)
{
	nbd_donor_end(&donor);
	return 0;
}

static void must(int r)
{
	if (r == -1)
		fail_msg("%s", nbd_get_error());
}

static struct nbd_handle *client(bool structured)
{
	struct nbd_handle *h = nbd_create();

	assert_non_null(h);
	must(nbd_set_export_name(h, "m"));
	must(nbd_set_request_structured_replies(h, structured));
	must(nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION));
	must(nbd_set_strict_mode(h, 0));
	must(nbd_connect_unix(h, donor.socket));
	assert_int_equal(nbd_get_structured_replies_negotiated(h), structured);
	return h;
}

static void end(struct nbd_handle *h)
{
	must(nbd_shutdown(h, 0));
	nbd_close(h);
}

static void export_is_described(void **state)
{
	struct nbd_handle *h = client(true);

	assert_int_equal(nbd_get_size(h), SIZE);
	assert_int_equal(nbd_get_block_size(h, LIBNBD_SIZE_MINIMUM), 1);
	assert_int_equal(nbd_get_block_size(h, LIBNBD_SIZE_PREFERRED), 4096);
	assert_int_equal(nbd_get_block_size(h, LIBNBD_SIZE_MAXIMUM), 32 << 20);
	assert_true(nbd_can_multi_conn(h) && nbd_can_flush(h) && nbd_can_fua(h) &&
		nbd_can_trim(h) && nbd_can_zero(h) && nbd_can_fast_zero(h) && nbd_can_df(h) &&
		nbd_can_cache(h));
	assert_int_equal(nbd_is_read_only(h), 0);
	assert_int_equal(nbd_can_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION), 1);
	end(h);
}

static int count_name(void *opaque, const char *name, const char *description)
{
	assert_string_equal(name, "m");
	return 0;
}

static void option_mode_asks_what_it_wants(void **state)
{
	struct nbd_handle *h = nbd_create();
	char *text;

	must(nbd_set_opt_mode(h, true));
	must(nbd_set_full_info(h, true));
	must(nbd_connect_unix(h, donor.socket));
	assert_int_equal(nbd_opt_list(h, (nbd_list_callback){ .callback = count_name }), 1);
	must(nbd_set_export_name(h, "none"));
	assert_int_equal(nbd_opt_info(h), -1);
	must(nbd_set_export_name(h, "m"));
	must(nbd_opt_info(h));
	text = nbd_get_canonical_export_name(h);
	assert_string_equal(text, "m");
	free(text);
	text = nbd_get_export_description(h);
	assert_non_null(text);
	free(text);
	must(nbd_opt_go(h));
	end(h);
}

static void default_export_is_the_only_region(void **state)
{
	struct nbd_handle *h = nbd_create();

	must(nbd_connect_unix(h, donor.socket));
	assert_int_equal(nbd_get_size(h), SIZE);
	end(h);
}

static void data_comes_back(void **state)
{
	for (int structured = 0; structured < 2; structured++) {
		struct nbd_handle *h = client(structured);

		for (size_t i = 0; i < sizeof(data); i++)
			data[i] = (uint8_t)(i * 7 + i / 4096 + (size_t)structured);
		must(nbd_pwrite(h, data, sizeof(data), 4095, LIBNBD_CMD_FLAG_FUA));
		must(nbd_pread(h, back, sizeof(back), 4095, 0));
		assert_memory_equal(data, back, sizeof(data));
		must(nbd_zero(h, 1 << 20, 8192, LIBNBD_CMD_FLAG_NO_HOLE));
		must(nbd_pread(h, back, 8192, 8192, structured ? LIBNBD_CMD_FLAG_DF : 0));
		assert_int_equal(back[0] | back[8191], 0);
		must(nbd_flush(h, 0));
		must(nbd_trim(h, 1 << 20, 32 << 20, 0));
		must(nbd_cache(h, 1 << 20, 0, 0));
		end(h);
	}
}

/* As weft-protocol(7) says. */
static void a_longer_request_is_refused_and_the_next_is_not(void **state)
{
	const size_t longest = 32 << 20;
	uint8_t *buf = calloc(1, longest + 1);

	for (int structured = 0; structured < 2; structured++) {
		struct nbd_handle *h = client(structured);

		must(nbd_pwrite(h, buf, longest, 0, 0));
		must(nbd_pread(h, buf, longest, 0, 0));
		assert_int_equal(nbd_pread(h, buf, longest + 1, 0, 0), -1);
		assert_int_equal(nbd_get_errno(), EINVAL);
		assert_int_equal(nbd_pwrite(h, buf, longest + 1, 0, 0), -1);
		assert_int_equal(nbd_get_errno(), EINVAL);
		must(nbd_pread(h, buf, 4096, 0, 0));
		end(h);
	}
	free(buf);
}

static int add_lengths(void *opaque, const char *context, uint64_t offset, uint32_t *entries,
	size_t n, int *error)
{
	uint64_t *sum = opaque;

	for (size_t i = 0; i < n; i += 2)
		*sum += entries[i];
	return 0;
}

static void block_status_covers_the_range(void **state)
{
	struct nbd_handle *h = client(true);
	uint64_t sum = 0;

	must(nbd_block_status(h, SIZE, 0,
		(nbd_extent_callback){ .callback = add_lengths, .user_data = &sum }, 0));
	assert_in_range(sum, 1, SIZE);
	end(h);
}

/* Each is an error reply; the same connection goes on. */
static void misuse_is_answered(void **state)
{
	for (int structured = 0; structured < 2; structured++) {
		struct nbd_handle *h = client(structured);
		uint64_t sum = 0;
		const nbd_extent_callback extents = { .callback = add_lengths, .user_data = &sum };
		void *huge = calloc(1, 40 << 20);

#define refused(call, code) \
	do { \
		assert_int_equal(call, -1); \
		assert_int_equal(nbd_get_errno(), code); \
		must(nbd_pread(h, back, 512, 0, 0)); \
	} while (0)
		refused(nbd_pread(h, back, 512, SIZE, 0), EINVAL);
		refused(nbd_pread(h, back, 512, UINT64_MAX - 5, 0), EINVAL);
		refused(nbd_pread(h, back, 0, 0, 0), EINVAL);
		refused(nbd_pread(h, back, 512, 0, LIBNBD_CMD_FLAG_NO_HOLE), EINVAL);
		refused(nbd_pread(h, huge, 40 << 20, 0, 0), EINVAL);
		refused(nbd_pwrite(h, data, 512, SIZE - 511, 0), ENOSPC);
		refused(nbd_pwrite(h, data, 0, 0, 0), EINVAL);
		refused(nbd_pwrite(h, huge, 40 << 20, 0, 0), EINVAL);
		refused(nbd_pwrite(h, data, sizeof(data), 0, LIBNBD_CMD_FLAG_REQ_ONE), EINVAL);
		refused(nbd_trim(h, 512, SIZE, 0), EINVAL);
		refused(nbd_zero(h, 512, SIZE, 0), ENOSPC);
		refused(nbd_zero(h, 0, 0, 0), EINVAL);
		refused(nbd_cache(h, 512, SIZE, 0), EINVAL);
		refused(nbd_flush(h, LIBNBD_CMD_FLAG_DF), EINVAL);
		if (structured) {
			refused(nbd_block_status(h, 512, SIZE, extents, 0), EINVAL);
			refused(nbd_block_status(h, 512, 0, extents, LIBNBD_CMD_FLAG_DF), EINVAL);
		}
		free(huge);
		end(h);
	}
}

static void many_in_flight(void **state)
{
	struct nbd_handle *h = client(true);

	for (int round = 0; round < 4; round++) {
		for (uint64_t i = 0; i < 1024; i++) {
			const uint64_t off = i * 4096;

			memset(data + off, (int)(i + (uint64_t)round), 4096);
			if (nbd_aio_pwrite(h, data + off, 4096, off, NBD_NULL_COMPLETION, 0) == -1)
				fail_msg("%s", nbd_get_error());
		}
		while (nbd_aio_in_flight(h) > 0) {
			int64_t cookie;

			must(nbd_poll(h, 10000));
			while ((cookie = nbd_aio_peek_command_completed(h)) > 0)
				must(nbd_aio_command_completed(h, (uint64_t)cookie));
		}
		assert_memory_equal(donor.region->map, data, sizeof(data));
	}
	end(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(export_is_described),
		cmocka_unit_test(option_mode_asks_what_it_wants),
		cmocka_unit_test(default_export_is_the_only_region),
		cmocka_unit_test(data_comes_back),
		cmocka_unit_test(a_longer_request_is_refused_and_the_next_is_not),
		cmocka_unit_test(block_status_covers_the_range),
		cmocka_unit_test(misuse_is_answered),
		cmocka_unit_test(many_in_flight),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
