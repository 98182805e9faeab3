/* SPDX-License-Identifier: MIT */
/* The NBD protocol's pack and unpack functions. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "fabric/nbd/proto.h"

static void handshake_is_as_in_the_specification(void **state)
{
	uint8_t p[NBD_HANDSHAKE_BYTES];

	nbd_pack_handshake(p, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	assert_memory_equal(p, "NBDMAGICIHAVEOPT\0\3", sizeof(p));
}

static void option_needs_its_magic(void **state)
{
	uint8_t p[] = "IHAVEOPT\0\0\0\7\1\2\3\4";
	struct nbd_option option = { 0 };

	assert_int_equal(nbd_unpack_option(p, &option), 0);
	assert_int_equal(option.option, NBD_OPT_GO);
	assert_int_equal(option.len, 0x01020304);
	p[3] ^= 1;
	option.len = 5;
	assert_int_equal(nbd_unpack_option(p, &option), -EPROTO);
	assert_int_equal(option.len, 5);
}

static void option_reply_is_as_in_the_specification(void **state)
{
	static const uint8_t want[NBD_OPTION_REPLY_BYTES] = {0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9,
		0, 0, 0, 6, 0x80, 0, 0, 6, 0, 0, 1, 0};
	uint8_t p[NBD_OPTION_REPLY_BYTES];

	nbd_pack_option_reply(p, NBD_OPT_INFO, NBD_REP_ERR_UNKNOWN, 256);
	assert_memory_equal(p, want, sizeof(p));
}

static void request_comes_back_as_it_went(void **state)
{
	const struct nbd_request_header in = { NBD_CMD_FLAG_FUA, NBD_CMD_WRITE, 0x0102030405060708,
		UINT64_MAX - 1, UINT32_MAX };
	struct nbd_request_header out;
	uint8_t p[NBD_REQUEST_BYTES];

	nbd_pack_request(p, &in);
	assert_int_equal(weft_get32(p), NBD_REQUEST_MAGIC);
	assert_memory_equal(p + 8, &in.cookie, 8);
	assert_int_equal(nbd_unpack_request(p, &out), 0);
	assert_int_equal(out.flags, in.flags);
	assert_int_equal(out.type, in.type);
	assert_int_equal(out.cookie, in.cookie);
	assert_int_equal(out.off, in.off);
	assert_int_equal(out.len, in.len);
	p[0]++;
	assert_int_equal(nbd_unpack_request(p, &out), -EPROTO);
}

static void replies_come_back_as_they_went(void **state)
{
	uint8_t p[NBD_DATA_CHUNK_BYTES];
	struct nbd_chunk chunk;
	uint64_t cookie;
	uint32_t error;

	nbd_pack_simple_reply(p, NBD_ENOSPC, 0xabcdef);
	assert_int_equal(weft_get32(p), NBD_SIMPLE_REPLY_MAGIC);
	nbd_unpack_simple_reply(p, &error, &cookie);
	assert_int_equal(error, NBD_ENOSPC);
	assert_int_equal(cookie, 0xabcdef);

	nbd_pack_data_chunk(p, NBD_REPLY_FLAG_DONE, 77, 0x1000, 512);
	assert_int_equal(weft_get32(p), NBD_STRUCTURED_REPLY_MAGIC);
	nbd_unpack_chunk(p, &chunk);
	assert_int_equal(chunk.flags, NBD_REPLY_FLAG_DONE);
	assert_int_equal(chunk.type, NBD_REPLY_TYPE_OFFSET_DATA);
	assert_int_equal(chunk.cookie, 77);
	assert_int_equal(chunk.len, 520);
	assert_int_equal(weft_get64(p + NBD_CHUNK_BYTES), 0x1000);

	nbd_pack_error_chunk(p, NBD_REPLY_FLAG_DONE, 78, NBD_EIO);
	nbd_unpack_chunk(p, &chunk);
	assert_int_equal(chunk.type, NBD_REPLY_TYPE_ERROR);
	assert_int_equal(chunk.len, 6);
	assert_int_equal(weft_get32(p + NBD_CHUNK_BYTES), NBD_EIO);
	assert_int_equal(weft_get16(p + NBD_CHUNK_BYTES + 4), 0);
}

static void errors_map_both_ways(void **state)
{
	static const int both[] = { 0, EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, EOPNOTSUPP,
		ESHUTDOWN };

	for (size_t i = 0; i < sizeof(both) / sizeof(both[0]); i++)
		assert_int_equal(nbd_error_to_errno(nbd_error_from_errno(both[i])), both[i]);
	assert_int_equal(nbd_error_from_errno(EROFS), NBD_EPERM);
	assert_int_equal(nbd_error_from_errno(EDQUOT), NBD_ENOSPC);
	assert_int_equal(nbd_error_from_errno(EFBIG), NBD_ENOSPC);
	assert_int_equal(nbd_error_from_errno(ESTALE), NBD_EIO);
	assert_int_equal(nbd_error_to_errno(0xffffffff), EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(handshake_is_as_in_the_specification),
		cmocka_unit_test(option_needs_its_magic),
		cmocka_unit_test(option_reply_is_as_in_the_specification),
		cmocka_unit_test(request_comes_back_as_it_went),
		cmocka_unit_test(replies_come_back_as_they_went),
		cmocka_unit_test(errors_map_both_ways),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
