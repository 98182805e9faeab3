/* SPDX-License-Identifier: MIT */
/*
 * What is refused when a foreign server comes back, or a bridge takes over: another size, another
 * device.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "nbd-bridge/link/peer.h"

static struct bridge_attachment attachment;
static struct bridge_peer peer;

static const struct tp_info first = {.size_bytes = 1 << 20,
	.identity = 7,
	.max_io_bytes = 1 << 20,
	.min_block_bytes = 512,
	.path = "srp rxe0 gid 1 10.9.0.1:1 -> 10.9.0.1:5555, LIO-ORG FILEIO, serial 12"};

static int setup(void **state)
{
	memset(&attachment, 0, sizeof(attachment));
	memset(&peer, 0, sizeof(peer));
	peer.attachment = &attachment;
	attachment.peers = &peer;
	attachment.nr_peers = attachment.nr_transports = 1;
	attachment.config.mode = WEFT_MODE_WRITE;
	return 0;
}

static int grant(const struct tp_info *info, struct weft_error *why)
{
	return peer_check_grant(&peer, info, why);
}

static void the_same_device_may_come_back(void **state)
{
	struct tp_info info = first;
	struct weft_error why;

	assert_int_equal(grant(&first, &why), 0);
	strcpy(info.path, "srp rxe0 gid 1 10.9.0.1:2 -> 10.9.0.1:5555");
	assert_int_equal(grant(&info, &why), 0);
}

static void another_size_is_refused(void **state)
{
	struct tp_info info = first;
	struct weft_error why;

	assert_int_equal(grant(&first, &why), 0);
	info.size_bytes *= 2;
	assert_int_equal(grant(&info, &why), -ESTALE);
}

static void another_device_is_refused(void **state)
{
	struct tp_info info = first;
	struct weft_error why;

	assert_int_equal(grant(&first, &why), 0);
	info.identity++;
	assert_int_equal(grant(&info, &why), -ESTALE);
	assert_non_null(strstr(why.message, "another device"));
	info.identity = 0; /* it has no names any more */
	assert_int_equal(grant(&info, &why), -ESTALE);
}

static void another_device_is_not_taken_over(void **state)
{
	struct weft_error why;

	peer.config.identity = 8;
	assert_int_equal(grant(&first, &why), -ESTALE);
	assert_non_null(strstr(why.message, "another device"));
	peer.config.identity = 7;
	assert_int_equal(grant(&first, &why), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(the_same_device_may_come_back, setup),
		cmocka_unit_test_setup(another_size_is_refused, setup),
		cmocka_unit_test_setup(another_device_is_refused, setup),
		cmocka_unit_test_setup(another_device_is_not_taken_over, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
