/* SPDX-License-Identifier: MIT */
/*
 * The IUs of SRP: as the standard lays them out, byte by byte; what is packed is unpacked; what a
 * peer cuts short, or lies about, is refused.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "transports/srp/proto.h"

enum { OFF = 68 }; /* where Linux has its immediate data */

static void put(uint8_t *at, uint64_t value, size_t len)
{
	for (size_t i = 0; i < len; i++)
		at[i] = (uint8_t)(value >> 8 * (len - 1 - i));
}

/* An IU in memory of exactly its size, so that a sanitizer sees what is read behind it. */
static int from_initiator(const uint8_t *iu, size_t len, uint16_t off, struct srp_iu *ret,
	uint8_t **mem)
{
	*mem = malloc(len ? len : 1);
	memcpy(*mem, iu, len);
	return srp_unpack_from_initiator(*mem, len, off, ret);
}

static int refused(const uint8_t *iu, size_t len, uint16_t off)
{
	struct srp_iu ret;
	uint8_t *mem;
	int r = from_initiator(iu, len, off, &ret, &mem);

	free(mem);
	return r;
}

static void a_login_is_as_linux_sends_it(void **state)
{
	uint8_t wire[SRP_LOGIN_BYTES] = {0}, again[SRP_LOGIN_BYTES];
	struct srp_login login;

	put(wire, 0x1122334455667788, 8);
	put(wire + 8, 0x0006, 2);
	wire[10] = 0x81;
	put(wire + 12, 8260, 4);
	for (unsigned i = 0; i < 16; i++)
		wire[16 + i] = (uint8_t)(0xa0 + i);
	put(wire + 32, 0x0102030405060708, 8);
	put(wire + 40, 0x1112131415161718, 8);
	put(wire + 48, OFF, 2);
	assert_int_equal(srp_unpack_login(wire, sizeof(wire), &login), 0);
	assert_int_equal(login.tag, 0x1122334455667788);
	assert_int_equal(login.formats, SRP_FORMAT_DIRECT | SRP_FORMAT_INDIRECT);
	assert_int_equal(login.channels, SRP_CHANNELS_MULTI);
	assert_true(login.immediate);
	assert_int_equal(login.it_iu_bytes, 8260);
	assert_int_equal(login.immediate_off, OFF);
	assert_int_equal(login.initiator[15], 0xaf);
	assert_int_equal(login.target_ext, 0x0102030405060708);
	assert_int_equal(login.target_guid, 0x1112131415161718);
	srp_pack_login(&login, again);
	assert_memory_equal(wire, again, sizeof(wire));
	assert_int_equal(srp_unpack_login(wire, sizeof(wire) - 1, &login), -EPROTO);
	wire[11] = SRP_CMD;
	assert_int_equal(srp_unpack_login(wire, sizeof(wire), &login), -EPROTO);
}

static void its_answers_come_back(void **state)
{
	struct srp_login_rsp rsp = {.tag = 7, .delta = 66, .max_it_iu_bytes = 8260,
		.max_ti_iu_bytes = 128, .formats = 6, .result = SRP_CHANNELS_KEPT,
		.immediate = true}, rsp_back;
	struct srp_login_rej rej = {.tag = 8, .reason = SRP_REJ_TARGET, .formats = 6}, rej_back;
	uint8_t wire[196];

	srp_pack_login_rsp(&rsp, wire);
	assert_int_equal(wire[0], 0xc0);
	assert_int_equal(wire[7], 66);
	assert_int_equal(wire[15], 7);
	assert_int_equal(wire[26], 0x82);
	assert_int_equal(srp_unpack_login_rsp(wire, sizeof(wire), &rsp_back), 0);
	assert_int_equal(rsp_back.tag, rsp.tag);
	assert_int_equal(rsp_back.delta, rsp.delta);
	assert_int_equal(rsp_back.max_it_iu_bytes, rsp.max_it_iu_bytes);
	assert_int_equal(rsp_back.max_ti_iu_bytes, rsp.max_ti_iu_bytes);
	assert_int_equal(rsp_back.formats, rsp.formats);
	assert_int_equal(rsp_back.result, rsp.result);
	assert_true(rsp_back.immediate);
	assert_int_equal(srp_unpack_login_rsp(wire, SRP_LOGIN_RSP_BYTES - 1, &rsp_back), -EPROTO);
	assert_int_equal(srp_unpack_login_rej(wire, sizeof(wire), &rej_back), -EPROTO);
	srp_pack_login_rej(&rej, wire);
	assert_int_equal(wire[0], 0xc2);
	assert_int_equal(wire[5] << 16 | wire[6] << 8 | wire[7], 0x10003);
	assert_int_equal(srp_unpack_login_rej(wire, sizeof(wire), &rej_back), 0);
	assert_int_equal(rej_back.tag, rej.tag);
	assert_int_equal(rej_back.reason, rej.reason);
	assert_int_equal(rej_back.formats, rej.formats);
}

/* A WRITE(10) with a direct descriptor. */
static size_t a_command(uint8_t *wire)
{
	memset(wire, 0, 64);
	wire[0] = 0x02;
	wire[1] = 0x06;
	wire[5] = 0x10; /* direct, out */
	put(wire + 8, 0x8877665544332211, 8);
	put(wire + 20, 0x0001000000000000, 8);
	wire[29] = 2;
	wire[32] = 0x2a;
	put(wire + 48, 0x123456789abc, 8);
	put(wire + 56, 0xcafe, 4);
	put(wire + 60, 4096, 4);
	return 64;
}

static void a_command_with_a_direct_descriptor(void **state)
{
	uint8_t wire[64], again[64];
	struct srp_buffer buffer;
	struct srp_iu iu;
	uint8_t *mem;

	assert_int_equal(from_initiator(wire, a_command(wire), OFF, &iu, &mem), 0);
	assert_int_equal(iu.type, SRP_CMD);
	assert_int_equal(iu.cmd.tag, 0x8877665544332211);
	assert_int_equal(iu.cmd.lun, 0x0001000000000000);
	assert_int_equal(iu.cmd.attribute, SRP_ORDERED);
	assert_true(iu.cmd.notify_good && iu.cmd.notify_bad);
	assert_int_equal(iu.cmd.cdb[0], 0x2a);
	assert_int_equal(iu.cmd.cdb_bytes, 16);
	assert_int_equal(iu.cmd.in.format, SRP_NO_DATA);
	assert_int_equal(iu.cmd.out.format, SRP_DIRECT);
	assert_int_equal(iu.cmd.out.len, 4096);
	assert_int_equal(iu.cmd.out.nr_list, 1);
	srp_unpack_buffer(iu.cmd.out.list, &buffer);
	assert_int_equal(buffer.addr, 0x123456789abc);
	assert_int_equal(buffer.key, 0xcafe);
	assert_int_equal(buffer.len, 4096);
	assert_int_equal(srp_pack_cmd(&iu.cmd, again, sizeof(again)), 64);
	assert_memory_equal(wire, again, 64);
	assert_int_equal(srp_pack_cmd(&iu.cmd, again, 63), -EMSGSIZE);
	free(mem);
	for (size_t len = 0; len < 64; len++)
		assert_int_equal(refused(wire, len, OFF), -EPROTO);
}

static void an_indirect_descriptor_says_where_its_table_is(void **state)
{
	uint8_t wire[48 + 8 + 20 + 2 * 16] = {0}, again[sizeof(wire)];
	struct srp_buffer buffer;
	struct srp_iu iu;
	uint8_t *mem;

	a_command(wire);
	memset(wire + 48, 0, sizeof(wire) - 48);
	wire[5] = 0x02; /* indirect, in */
	wire[7] = 2;
	wire[31] = 8; /* two words more of CDB */
	wire[48] = 0x77;
	put(wire + 56, 0xaaaa0000, 8);
	put(wire + 64, 9, 4);
	put(wire + 68, 5 * 16, 4);
	put(wire + 72, 20480, 4);
	put(wire + 92, 0xbbbb0000, 8);
	assert_int_equal(from_initiator(wire, sizeof(wire), 0, &iu, &mem), 0);
	assert_int_equal(iu.cmd.cdb_bytes, 24);
	assert_int_equal(iu.cmd.cdb[16], 0x77);
	assert_int_equal(iu.cmd.in.format, SRP_INDIRECT);
	assert_int_equal(iu.cmd.in.len, 20480);
	assert_int_equal(iu.cmd.in.nr_table, 5);
	assert_int_equal(iu.cmd.in.nr_list, 2);
	assert_int_equal(iu.cmd.in.table.addr, 0xaaaa0000);
	assert_int_equal(iu.cmd.in.table.key, 9);
	srp_unpack_buffer(iu.cmd.in.list + 16, &buffer);
	assert_int_equal(buffer.addr, 0xbbbb0000);
	assert_int_equal(srp_pack_cmd(&iu.cmd, again, sizeof(again)), sizeof(wire));
	assert_memory_equal(wire, again, sizeof(wire));
	free(mem);
	for (size_t len = 0; len < sizeof(wire); len++)
		assert_int_equal(refused(wire, len, 0), -EPROTO);
	put(wire + 68, 1 * 16, 4); /* a table shorter than the list inside */
	assert_int_equal(refused(wire, sizeof(wire), 0), -EPROTO);
	put(wire + 68, 5 * 16 + 1, 4); /* and one of no whole descriptors */
	assert_int_equal(refused(wire, sizeof(wire), 0), -EPROTO);
}

static void immediate_data_is_inside_the_iu(void **state)
{
	uint8_t wire[OFF + 24] = {0};
	struct srp_iu iu;
	uint8_t *mem;

	a_command(wire);
	memset(wire + 48, 0, sizeof(wire) - 48);
	wire[5] = 0x30;
	put(wire + 48, 24, 4);
	wire[OFF] = 0x99;
	assert_int_equal(from_initiator(wire, sizeof(wire), OFF, &iu, &mem), 0);
	assert_int_equal(iu.cmd.out.format, SRP_IMMEDIATE);
	assert_int_equal(iu.cmd.out.len, 24);
	assert_ptr_equal(iu.cmd.out.immediate, mem + OFF);
	free(mem);
	for (size_t len = 0; len < sizeof(wire); len++)
		assert_int_equal(refused(wire, len, OFF), -EPROTO);
	put(wire + 48, 25, 4);
	assert_int_equal(refused(wire, sizeof(wire), OFF), -EPROTO);
	put(wire + 48, UINT32_MAX, 4);
	assert_int_equal(refused(wire, sizeof(wire), OFF), -EPROTO);
	put(wire + 48, 24, 4);
	assert_int_equal(refused(wire, sizeof(wire), 51), -EPROTO);  /* over its own descriptor */
	assert_int_equal(refused(wire, sizeof(wire), 93), -EPROTO);  /* behind the IU */
	assert_int_equal(refused(wire, sizeof(wire), 0), -ENOTSUP);  /* was not agreed on */
	wire[5] = 0x03;
	assert_int_equal(refused(wire, sizeof(wire), OFF), -ENOTSUP); /* not in that direction */
	wire[5] = 0x31; /* the descriptor of the other direction stands in its way */
	put(wire + 48, 8, 4);
	assert_int_equal(refused(wire, sizeof(wire), 60), -EPROTO);
	wire[5] = 0x40;
	assert_int_equal(refused(wire, sizeof(wire), OFF), -ENOTSUP);
}

static void both_directions_follow_each_other(void **state)
{
	uint8_t wire[48 + 16 + 20] = {0};
	struct srp_iu iu;
	uint8_t *mem;

	a_command(wire);
	wire[5] = 0x12;
	put(wire + 72 + 4, 0, 4);
	put(wire + 64 + 12, 0, 4);
	assert_int_equal(from_initiator(wire, sizeof(wire), 0, &iu, &mem), 0);
	assert_int_equal(iu.cmd.out.len, 4096);
	assert_int_equal(iu.cmd.in.format, SRP_INDIRECT);
	assert_int_equal(iu.cmd.in.nr_table, 0);
	free(mem);
}

static void a_response_says_what_is_left(void **state)
{
	const uint8_t sense[18] = {0x70, 0, 5};
	struct srp_rsp rsp = {.tag = 99, .delta = 3, .solicited = true, .status = 2,
		.out_residual = 512, .in_residual = -4, .sense_bytes = sizeof(sense),
		.sense = sense};
	uint8_t wire[SRP_RSP_BYTES + SRP_RSP_DATA_BYTES + sizeof(sense)];
	struct srp_iu iu;
	size_t len = srp_pack_rsp(&rsp, wire);

	assert_int_equal(len, 36 + 18);
	assert_int_equal(wire[0], 0xc1);
	assert_int_equal(wire[1], 1);
	assert_int_equal(wire[7], 3);
	assert_int_equal(wire[15], 99);
	assert_int_equal(wire[18], 0x02 | 0x08 | 0x10);
	assert_int_equal(wire[19], 2);
	assert_int_equal(wire[22] << 8 | wire[23], 512);
	assert_int_equal(wire[27], 4);
	assert_int_equal(wire[31], 18);
	assert_memory_equal(wire + 36, sense, 18);
	assert_int_equal(srp_unpack_from_target(wire, len, &iu), 0);
	assert_int_equal(iu.rsp.out_residual, 512);
	assert_int_equal(iu.rsp.in_residual, -4);
	assert_int_equal(iu.rsp.sense_bytes, 18);
	assert_false(iu.rsp.has_code);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(srp_unpack_from_target(wire, i, &iu), -EPROTO);
	rsp.has_code = true;
	rsp.code = SRP_RSP_NOT_SUPPORTED;
	len = srp_pack_rsp(&rsp, wire);
	assert_int_equal(len, sizeof(wire));
	assert_int_equal(wire[39], 4);
	assert_int_equal(srp_unpack_from_target(wire, len, &iu), 0);
	assert_int_equal(iu.rsp.code, SRP_RSP_NOT_SUPPORTED);
	assert_memory_equal(iu.rsp.sense, sense, 18);
	/* Lengths of the peer's that lead out of the IU, alone and together. */
	put(wire + 32, UINT32_MAX, 4);
	assert_int_equal(srp_unpack_from_target(wire, len, &iu), -EPROTO);
	put(wire + 32, 4, 4);
	put(wire + 28, UINT32_MAX - 3, 4);
	assert_int_equal(srp_unpack_from_target(wire, len, &iu), -EPROTO);
	put(wire + 32, 3, 4);
	assert_int_equal(srp_unpack_from_target(wire, len, &iu), -EPROTO);
}

static void task_management_comes_back(void **state)
{
	struct srp_task task = {.tag = UINT64_C(1) << 31, .lun = 5, .function = SRP_LUN_RESET,
		.task_tag = 77, .notify_bad = true};
	uint8_t wire[SRP_TSK_MGMT_BYTES];
	struct srp_iu iu;

	assert_int_equal(srp_pack_task(&task, wire), sizeof(wire));
	assert_int_equal(wire[0], 0x01);
	assert_int_equal(wire[1], 0x04);
	assert_int_equal(wire[12], 0x80);
	assert_int_equal(wire[27], 5);
	assert_int_equal(wire[30], 0x08);
	assert_int_equal(wire[39], 77);
	assert_int_equal(srp_unpack_from_initiator(wire, sizeof(wire), 0, &iu), 0);
	assert_int_equal(iu.task.tag, task.tag);
	assert_int_equal(iu.task.lun, 5);
	assert_int_equal(iu.task.function, SRP_LUN_RESET);
	assert_int_equal(iu.task.task_tag, 77);
	assert_true(iu.task.notify_bad && !iu.task.notify_good);
	assert_int_equal(refused(wire, sizeof(wire) - 1, 0), -EPROTO);
}

static void what_is_short_comes_back(void **state)
{
	static const uint8_t types[] = {SRP_I_LOGOUT, SRP_T_LOGOUT, SRP_CRED_REQ, SRP_CRED_RSP,
		SRP_AER_REQ, SRP_AER_RSP};
	const uint8_t sense[4] = {1, 2, 3, 4};
	uint8_t wire[SRP_AER_REQ_BYTES + sizeof(sense)];

	for (unsigned i = 0; i < WEFT_ARRAY_LEN(types); i++) {
		struct srp_short other = {.tag = 0x0102030405060708, .delta = -2, .reason = 4,
			.solicited = true, .lun = 9, .sense_bytes = sizeof(sense), .sense = sense};
		bool from_target = types[i] & 0x80;
		struct srp_iu iu;
		size_t len = srp_pack_short(types[i], &other, wire);

		assert_int_equal(wire[0], types[i]);
		assert_int_equal(len, types[i] == SRP_AER_REQ ? sizeof(wire) : 16);
		int (*unpack)(const uint8_t *data, size_t size, struct srp_iu *ret) =
			srp_unpack_from_target;
		assert_int_equal(from_target ? unpack(wire, len, &iu)
			: srp_unpack_from_initiator(wire, len, 0, &iu), 0);
		assert_int_equal(iu.other.tag, other.tag);
		if (types[i] == SRP_CRED_REQ || types[i] == SRP_AER_REQ)
			assert_int_equal(iu.other.delta, -2);
		if (types[i] == SRP_T_LOGOUT)
			assert_int_equal(iu.other.reason, 4);
		if (types[i] == SRP_AER_REQ)
			assert_memory_equal(iu.other.sense, sense, sizeof(sense));
		for (size_t cut = 0; cut < len; cut++)
			assert_int_equal(from_target ? unpack(wire, cut, &iu)
				: srp_unpack_from_initiator(wire, cut, 0, &iu), -EPROTO);
		/* Each end takes what the other one sends, and no more. */
		assert_int_equal(from_target ? srp_unpack_from_initiator(wire, len, 0, &iu)
			: unpack(wire, len, &iu), -EPROTO);
	}
}

static void a_port_has_two_halves(void **state)
{
	uint8_t port[SRP_PORT_BYTES];
	uint64_t ext, guid;

	srp_pack_port(0x0102030405060708, 0x090a0b0c0d0e0f10, port);
	for (unsigned i = 0; i < sizeof(port); i++)
		assert_int_equal(port[i], i + 1);
	srp_unpack_port(port, &ext, &guid);
	assert_int_equal(ext, 0x0102030405060708);
	assert_int_equal(guid, 0x090a0b0c0d0e0f10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_login_is_as_linux_sends_it),
		cmocka_unit_test(its_answers_come_back),
		cmocka_unit_test(a_command_with_a_direct_descriptor),
		cmocka_unit_test(an_indirect_descriptor_says_where_its_table_is),
		cmocka_unit_test(immediate_data_is_inside_the_iu),
		cmocka_unit_test(both_directions_follow_each_other),
		cmocka_unit_test(a_response_says_what_is_left),
		cmocka_unit_test(task_management_comes_back),
		cmocka_unit_test(what_is_short_comes_back),
		cmocka_unit_test(a_port_has_two_halves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
