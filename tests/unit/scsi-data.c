/* SPDX-License-Identifier: MIT */
/*
 * CDBs, parameter data and sense data, with libiscsi as an independent judge: what it builds we
 * read, what we build it reads, and the bytes are the same.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <iscsi/scsi-lowlevel.h>

#include "fabric/base/bytes.h"
#include "fabric/base/util.h"
#include "fabric/scsi/cdb.h"
#include "fabric/scsi/data.h"
#include "fabric/scsi/sense.h"
#include "tests/support/seed.h"

static void same_fields(const struct scsi_cdb *a, const struct scsi_cdb *b)
{
	assert_int_equal(a->opcode, b->opcode);
	assert_int_equal(a->action, b->action);
	assert_int_equal(a->lba, b->lba);
	assert_int_equal(a->blocks, b->blocks);
	assert_int_equal(a->list_bytes, b->list_bytes);
	assert_int_equal(a->dpo, b->dpo);
	assert_int_equal(a->fua, b->fua);
	assert_int_equal(a->bytchk, b->bytchk);
	assert_int_equal(a->unmap, b->unmap);
	assert_int_equal(a->ndob, b->ndob);
	assert_int_equal(a->immed, b->immed);
	assert_int_equal(a->start, b->start);
	assert_int_equal(a->no_flush, b->no_flush);
	assert_int_equal(a->evpd, b->evpd);
	assert_int_equal(a->page, b->page);
	assert_int_equal(a->subpage, b->subpage);
	assert_int_equal(a->control, b->control);
	assert_int_equal(a->dbd, b->dbd);
	assert_int_equal(a->llbaa, b->llbaa);
	assert_int_equal(a->pf, b->pf);
	assert_int_equal(a->desc, b->desc);
	assert_int_equal(a->select, b->select);
	assert_int_equal(a->rctd, b->rctd);
	assert_int_equal(a->options, b->options);
	assert_int_equal(a->asked_opcode, b->asked_opcode);
	assert_int_equal(a->asked_action, b->asked_action);
	assert_int_equal(a->scope, b->scope);
	assert_int_equal(a->type, b->type);
}

/* The judge's CDB and ours are the same, and ours is read as what it was made of. */
static void same_cdb(struct scsi_task *task, struct scsi_cdb cdb)
{
	uint8_t packed[SCSI_CDB_BYTES];
	uint8_t judged[SCSI_CDB_BYTES] = {0};
	struct scsi_cdb back;
	struct scsi_field bad;
	int len = scsi_pack_cdb(&cdb, packed);

	assert_non_null(task);
	assert_int_equal(len, task->cdb_size);
	assert_int_equal(scsi_cdb_bytes(cdb.opcode), len);
	assert_memory_equal(packed, task->cdb, (size_t)len);
	memcpy(judged, task->cdb, (size_t)len);
	/* Whatever lies behind it is not looked at. */
	memset(judged + len, 0xa5, sizeof(judged) - (size_t)len);
	assert_int_equal(scsi_unpack_cdb(judged, &back, &bad), 0);
	same_fields(&back, &cdb);
	scsi_free_scsi_task(task);
}

#define CDB(...) ((struct scsi_cdb){.action = SCSI_NO_ACTION, __VA_ARGS__})
#define ACTION(...) ((struct scsi_cdb){__VA_ARGS__})

static void the_judge_builds_the_same_transfers(void **state)
{
	const uint64_t high = UINT64_C(0x123456789a);

	(void)state;
	same_cdb(scsi_cdb_read10(0xfedcba98, 0x1234 * 512, 512, 0, 1, 1, 0, 0),
		CDB(.opcode = SCSI_OP_READ_10, .lba = 0xfedcba98, .blocks = 0x1234, .dpo = true,
			.fua = true));
	same_cdb(scsi_cdb_read12(7, 0x123456 * 512, 512, 0, 0, 1, 0, 0),
		CDB(.opcode = SCSI_OP_READ_12, .lba = 7, .blocks = 0x123456, .fua = true));
	same_cdb(scsi_cdb_read16(high, 8 * 512, 512, 0, 0, 0, 0, 0),
		CDB(.opcode = SCSI_OP_READ_16, .lba = high, .blocks = 8));
	same_cdb(scsi_cdb_write10(1, 2 * 512, 512, 0, 0, 1, 0, 0),
		CDB(.opcode = SCSI_OP_WRITE_10, .lba = 1, .blocks = 2, .fua = true));
	same_cdb(scsi_cdb_write12(1, 2 * 512, 512, 0, 1, 0, 0, 0),
		CDB(.opcode = SCSI_OP_WRITE_12, .lba = 1, .blocks = 2, .dpo = true));
	same_cdb(scsi_cdb_write16(high, 2 * 512, 512, 0, 1, 1, 0, 0),
		CDB(.opcode = SCSI_OP_WRITE_16, .lba = high, .blocks = 2, .dpo = true,
			.fua = true));
	same_cdb(scsi_cdb_verify10(3, 4 * 512, 0, 1, 1, 512),
		CDB(.opcode = SCSI_OP_VERIFY_10, .lba = 3, .blocks = 4, .dpo = true,
			.bytchk = true));
	same_cdb(scsi_cdb_verify12(3, 4 * 512, 0, 0, 1, 512),
		CDB(.opcode = SCSI_OP_VERIFY_12, .lba = 3, .blocks = 4, .bytchk = true));
	same_cdb(scsi_cdb_verify16(high, 4 * 512, 0, 0, 0, 512),
		CDB(.opcode = SCSI_OP_VERIFY_16, .lba = high, .blocks = 4));
	same_cdb(scsi_cdb_synchronizecache10(5, 6, 0, 1),
		CDB(.opcode = SCSI_OP_SYNCHRONIZE_CACHE_10, .lba = 5, .blocks = 6, .immed = true));
	same_cdb(scsi_cdb_synchronizecache16(high, 6, 0, 0),
		CDB(.opcode = SCSI_OP_SYNCHRONIZE_CACHE_16, .lba = high, .blocks = 6));
	same_cdb(scsi_cdb_writesame10(0, 0, 1, 9, 0, 10, 512),
		CDB(.opcode = SCSI_OP_WRITE_SAME_10, .lba = 9, .blocks = 10, .unmap = true));
	/* Without data the judge sets NDOB. */
	same_cdb(scsi_cdb_writesame16(0, 0, 1, high, 0, 10, 0),
		CDB(.opcode = SCSI_OP_WRITE_SAME_16, .lba = high, .blocks = 10, .unmap = true,
			.ndob = true));
	same_cdb(scsi_cdb_writesame16(0, 0, 0, high, 0, 10, 512),
		CDB(.opcode = SCSI_OP_WRITE_SAME_16, .lba = high, .blocks = 10));
	same_cdb(scsi_cdb_unmap(0, 0, 24), CDB(.opcode = SCSI_OP_UNMAP, .list_bytes = 24));
}

static struct scsi_task *reserve_out(int action, int type, struct scsi_pr_list list)
{
	struct scsi_persistent_reserve_out_basic basic = {
		.reservation_key = list.key,
		.service_action_reservation_key = list.action_key,
		.spec_i_pt = list.spec_i_pt,
		.all_tg_pt = list.all_tg_pt,
		.aptpl = list.aptpl,
	};

	return scsi_cdb_persistent_reserve_out((enum scsi_persistent_out_sa)action,
		SCSI_PERSISTENT_RESERVE_SCOPE_LU, (enum scsi_persistent_out_type)type, &basic);
}

static void the_judge_builds_the_same_questions(void **state)
{
	(void)state;
	same_cdb(scsi_cdb_testunitready(), CDB(.opcode = SCSI_OP_TEST_UNIT_READY));
	same_cdb(scsi_cdb_inquiry(0, 0, 36), CDB(.opcode = SCSI_OP_INQUIRY, .list_bytes = 36));
	same_cdb(scsi_cdb_inquiry(1, 0x83, 0x1234),
		CDB(.opcode = SCSI_OP_INQUIRY, .evpd = true, .page = 0x83, .list_bytes = 0x1234));
	same_cdb(scsi_reportluns_cdb(2, 4096),
		CDB(.opcode = SCSI_OP_REPORT_LUNS, .select = 2, .list_bytes = 4096));
	same_cdb(scsi_cdb_readcapacity10(0, 0), CDB(.opcode = SCSI_OP_READ_CAPACITY_10));
	same_cdb(scsi_cdb_readcapacity16(),
		ACTION(.opcode = SCSI_OP_SERVICE_ACTION_IN_16,
			.action = SCSI_ACTION_READ_CAPACITY_16,
			.list_bytes = 32));
	same_cdb(scsi_cdb_modesense6(1, SCSI_MODESENSE_PC_DEFAULT, SCSI_MODEPAGE_CACHING, 0,
			 192),
		CDB(.opcode = SCSI_OP_MODE_SENSE_6, .dbd = true, .control = SCSI_MODE_DEFAULT,
			.page = SCSI_PAGE_CACHING, .list_bytes = 192));
	same_cdb(scsi_cdb_modesense10(1, 0, SCSI_MODESENSE_PC_CURRENT, SCSI_MODEPAGE_CONTROL, 5,
			 255),
		CDB(.opcode = SCSI_OP_MODE_SENSE_10, .llbaa = true, .page = SCSI_PAGE_CONTROL,
			.subpage = 5, .list_bytes = 255));
	same_cdb(scsi_cdb_modeselect6(1, 0, 24),
		CDB(.opcode = SCSI_OP_MODE_SELECT_6, .pf = true, .list_bytes = 24));
	same_cdb(scsi_cdb_modeselect10(1, 0, 300),
		CDB(.opcode = SCSI_OP_MODE_SELECT_10, .pf = true, .list_bytes = 300));
	same_cdb(scsi_cdb_startstopunit(1, 0, 0, 1, 0, 1),
		CDB(.opcode = SCSI_OP_START_STOP_UNIT, .immed = true, .no_flush = true,
			.start = true));
	same_cdb(scsi_cdb_report_supported_opcodes(1, SCSI_REPORT_SUPPORTING_SERVICEACTION,
			 SCSI_OPCODE_SERVICE_ACTION_IN, SCSI_READCAPACITY16, 64),
		ACTION(.opcode = SCSI_OP_MAINTENANCE_IN,
			.action = SCSI_ACTION_REPORT_OPERATION_CODES, .rctd = true,
			.options = SCSI_OPCODES_ONE_ACTION,
			.asked_opcode = SCSI_OP_SERVICE_ACTION_IN_16,
			.asked_action = SCSI_ACTION_READ_CAPACITY_16, .list_bytes = 64));
	for (uint8_t action = SCSI_PR_READ_KEYS; action <= SCSI_PR_READ_FULL_STATUS; action++)
		same_cdb(scsi_cdb_persistent_reserve_in((enum scsi_persistent_in_sa)action, 520),
			ACTION(.opcode = SCSI_OP_PERSISTENT_RESERVE_IN, .action = action,
				.list_bytes = 520));
	for (uint8_t action = SCSI_PR_REGISTER; action <= SCSI_PR_REGISTER_AND_IGNORE; action++)
		same_cdb(reserve_out(action, SCSI_PR_EXCLUSIVE_ACCESS_ALL,
				 (struct scsi_pr_list){0}),
			ACTION(.opcode = SCSI_OP_PERSISTENT_RESERVE_OUT, .action = action,
				.type = SCSI_PR_EXCLUSIVE_ACCESS_ALL,
				.list_bytes = SCSI_PR_LIST_BYTES));
}

/* Those that the judge does not build. */
static void other_cdbs_survive_the_trip(void **state)
{
	const struct scsi_cdb cdbs[] = {
		CDB(.opcode = SCSI_OP_REQUEST_SENSE, .desc = true, .list_bytes = 252),
		CDB(.opcode = SCSI_OP_MODE_SENSE_6, .page = 0x3f, .subpage = 0xff,
			.list_bytes = 255),
	};

	(void)state;
	for (size_t i = 0; i < WEFT_ARRAY_LEN(cdbs); i++) {
		uint8_t packed[SCSI_CDB_BYTES];
		struct scsi_cdb back;
		struct scsi_field bad;

		assert_int_equal(scsi_pack_cdb(&cdbs[i], packed), 6);
		assert_int_equal(scsi_unpack_cdb(packed, &back, &bad), 0);
		same_fields(&back, &cdbs[i]);
	}
}

static void what_does_not_fit_is_not_packed(void **state)
{
	uint8_t packed[SCSI_CDB_BYTES] = {0x55};
	const struct scsi_cdb far[] = {
		CDB(.opcode = SCSI_OP_READ_10, .lba = UINT64_C(1) << 32, .blocks = 1),
		CDB(.opcode = SCSI_OP_WRITE_12, .lba = UINT64_C(1) << 32, .blocks = 1),
		CDB(.opcode = SCSI_OP_WRITE_10, .blocks = 0x10000),
		CDB(.opcode = SCSI_OP_MODE_SENSE_6, .list_bytes = 256),
		CDB(.opcode = SCSI_OP_INQUIRY, .list_bytes = 0x10000),
	};

	(void)state;
	for (size_t i = 0; i < WEFT_ARRAY_LEN(far); i++)
		assert_int_equal(scsi_pack_cdb(&far[i], packed), -ERANGE);
	struct scsi_cdb unknown = CDB(.opcode = 0xff);

	assert_int_equal(scsi_pack_cdb(&unknown, packed), -EOPNOTSUPP);
	unknown = CDB(.opcode = SCSI_OP_PERSISTENT_RESERVE_OUT); /* which? */
	assert_int_equal(scsi_pack_cdb(&unknown, packed), -EOPNOTSUPP);
	assert_int_equal(packed[0], 0x55);
}

/* The table is the rule: of every operation, each bit is either known, or refused by its place. */
static void each_bit_means_something_or_is_refused(void **state)
{
	(void)state;
	for (unsigned i = 0; i < scsi_nr_ops; i++) {
		const struct scsi_op *op = &scsi_ops[i];
		const unsigned first_bit = op->action == SCSI_NO_ACTION ? 8 : 13;

		assert_ptr_equal(scsi_op_find(op->opcode, op->action), op);
		assert_int_equal(scsi_cdb_bytes(op->opcode), op->cdb_bytes);
		for (unsigned n = first_bit; n < 8u * op->cdb_bytes; n++) {
			uint8_t cdb[SCSI_CDB_BYTES] = {op->opcode}, back[SCSI_CDB_BYTES];
			struct scsi_cdb to;
			struct scsi_field bad;

			if (op->action != SCSI_NO_ACTION)
				cdb[1] = op->action;
			cdb[n / 8] |= (uint8_t)(1 << n % 8);
			if (op->usage[n / 8] & 1 << n % 8) {
				assert_int_equal(scsi_unpack_cdb(cdb, &to, &bad), 0);
				assert_int_equal(scsi_pack_cdb(&to, back), op->cdb_bytes);
				assert_memory_equal(back, cdb, sizeof(cdb));
			} else {
				assert_int_equal(scsi_unpack_cdb(cdb, &to, &bad), -EINVAL);
				assert_int_equal(bad.byte, n / 8);
				assert_int_equal(bad.bit, n % 8);
			}
		}
	}
}

static void unknown_operations_and_actions_are_refused(void **state)
{
	unsigned nr = 0;

	(void)state;
	for (unsigned opcode = 0; opcode < 256; opcode++) {
		uint8_t cdb[SCSI_CDB_BYTES] = {(uint8_t)opcode, 0x1f};
		struct scsi_cdb to;
		struct scsi_field bad = {.byte = 99};
		int r = scsi_unpack_cdb(cdb, &to, &bad);

		if (r == -EOPNOTSUPP)
			continue;
		nr++;
		assert_int_equal(r, -EINVAL); /* no such action, or reserved bits */
		assert_int_equal(bad.byte, 1);
		if (scsi_op_has_actions((uint8_t)opcode))
			assert_int_equal(bad.bit, 4);
	}
	assert_int_equal(nr, 28);
}

/* As if `data` had come in answer to the task. */
static void *judge(struct scsi_task *task, const uint8_t *data, size_t len)
{
	task->datain.data = malloc(len);
	assert_non_null(task->datain.data);
	memcpy(task->datain.data, data, len);
	task->datain.size = (int)len;
	void *said = scsi_datain_unmarshall(task);

	assert_non_null(said);
	return said;
}

/* What was packed again is what was packed. */
static void came_back(const uint8_t *data, size_t len, const uint8_t *again, size_t again_len)
{
	assert_int_equal(again_len, len);
	assert_memory_equal(again, data, len);
}

/* An answer is as long as it says that it is (where the judge knows how each says it). */
static void is_whole(struct scsi_task *task, size_t len)
{
	assert_int_equal(scsi_datain_getfullsize(task), len);
}

static void the_judge_reads_inquiry(void **state)
{
	const struct scsi_inquiry ours = {
		.version = 6,
		.command_queue = true,
		.vendor = "WEFT",
		.product = "region",
		.revision = "1.0",
		.standards = {0x00a0, 0x0460, 0x04c0},
	};
	uint8_t data[SCSI_PARAMETER_BYTES], again[SCSI_PARAMETER_BYTES];
	struct scsi_inquiry back;
	size_t len = scsi_pack_inquiry(&ours, data);
	struct scsi_task *task = scsi_cdb_inquiry(0, 0, 96);
	const struct scsi_inquiry_standard *said = judge(task, data, len);

	(void)state;
	is_whole(task, len);
	assert_int_equal(said->qualifier, 0);
	assert_int_equal(said->device_type, 0);
	assert_int_equal(said->version, 6);
	assert_int_equal(said->response_data_format, 2);
	assert_true(said->cmdque);
	assert_false(said->normaca || said->hisup || said->protect || said->tpgs || said->rmb);
	assert_string_equal(said->vendor_identification, "WEFT    ");
	assert_string_equal(said->product_identification, "region          ");
	assert_string_equal(said->product_revision_level, "1.0 ");
	for (int i = 0; i < 8; i++)
		assert_int_equal(said->version_descriptor[i], ours.standards[i]);
	assert_int_equal(scsi_unpack_inquiry(data, len, &back), 0);
	came_back(data, len, again, scsi_pack_inquiry(&back, again));
	scsi_free_scsi_task(task);
}

static void the_judge_reads_names(void **state)
{
	const uint8_t pages[] = {0x00, 0x80, 0x83, 0xb0};
	const uint8_t naa[8] = {0x31, 2, 3, 4, 5, 6, 7, 8}, port[4] = {0, 0, 0, 1};
	const struct scsi_designator ours[] = {
		{.type = SCSI_DESIGNATOR_NAA, .code_set = SCSI_CODE_BINARY, .len = 8, .bytes = naa},
		{.type = SCSI_DESIGNATOR_T10, .code_set = SCSI_CODE_ASCII, .len = 12,
			.bytes = (const uint8_t *)"WEFT    0123"},
		{.type = SCSI_DESIGNATOR_RELATIVE_PORT, .association = SCSI_OF_PORT,
			.code_set = SCSI_CODE_BINARY, .has_protocol = true, .protocol = 4, .len = 4,
			.bytes = port},
	};
	uint8_t data[SCSI_PARAMETER_BYTES];
	char serial[SCSI_SERIAL_MAX + 1];

	(void)state;
	size_t len = scsi_pack_vpd_pages(pages, sizeof(pages), data);
	struct scsi_task *task = scsi_cdb_inquiry(1, 0, 255);
	const struct scsi_inquiry_supported_pages *list = judge(task, data, len);

	is_whole(task, len);
	assert_int_equal(list->num_pages, 4);
	assert_memory_equal(list->pages, pages, 4);
	assert_true(scsi_vpd_has_page(data, len, 0xb0));
	assert_false(scsi_vpd_has_page(data, len, 0xb1));
	assert_false(scsi_vpd_has_page(data, len - 1, 0xb0));
	scsi_free_scsi_task(task);

	len = scsi_pack_vpd_serial("0123456789abcdef", data);
	task = scsi_cdb_inquiry(1, 0x80, 255);
	const struct scsi_inquiry_unit_serial_number *number = judge(task, data, len);

	is_whole(task, len);
	assert_string_equal(number->usn, "0123456789abcdef");
	assert_int_equal(scsi_unpack_vpd_serial(data, len, serial), 0);
	assert_string_equal(serial, "0123456789abcdef");
	scsi_free_scsi_task(task);

	len = scsi_pack_vpd_designators(ours, WEFT_ARRAY_LEN(ours), data);
	task = scsi_cdb_inquiry(1, 0x83, 255);
	const struct scsi_inquiry_device_identification *names = judge(task, data, len);
	const struct scsi_inquiry_device_designator *next = names->designators;
	unsigned nr = 0;

	is_whole(task, len);
	for (; next; next = next->next, nr++) { /* the judge has them backwards */
		const struct scsi_designator *our = &ours[WEFT_ARRAY_LEN(ours) - 1 - nr];

		assert_int_equal(next->designator_type, our->type);
		assert_int_equal(next->association, our->association);
		assert_int_equal(next->code_set, our->code_set);
		assert_int_equal(next->piv, our->has_protocol);
		assert_int_equal(next->protocol_identifier, our->protocol);
		assert_int_equal(next->designator_length, our->len);
		assert_memory_equal(next->designator, our->bytes, our->len);
	}
	assert_int_equal(nr, WEFT_ARRAY_LEN(ours));
	scsi_free_scsi_task(task);

	size_t at = 0;
	struct scsi_designator back;

	for (nr = 0; scsi_next_designator(data, len, &at, &back) == 0; nr++) {
		assert_int_equal(back.type, ours[nr].type);
		assert_int_equal(back.has_protocol, ours[nr].has_protocol);
		assert_int_equal(back.len, ours[nr].len);
		assert_memory_equal(back.bytes, ours[nr].bytes, back.len);
	}
	assert_int_equal(nr, WEFT_ARRAY_LEN(ours));
	assert_int_equal(scsi_next_designator(data, len, &at, &back), -ENOENT);
	/* One that is cut short is not there at all. */
	at = 0;
	for (nr = 0; scsi_next_designator(data, len - 1, &at, &back) == 0; nr++)
		;
	assert_int_equal(nr, WEFT_ARRAY_LEN(ours) - 1);
	assert_int_equal(scsi_next_designator(data, len - 1, &at, &back), -EPROTO);
}

static void the_judge_reads_limits(void **state)
{
	const struct scsi_limits ours = {
		.same_needs_length = true,
		.transfer_granularity = 8,
		.max_transfer = 0x8000,
		.optimal_transfer = 0x800,
		.max_unmap = 0x12345678,
		.max_unmap_extents = 255,
		.unmap_granularity = 8,
		.has_unmap_alignment = true,
		.unmap_alignment = 3,
		.max_same = UINT64_C(0x123456789a),
	};
	const struct scsi_characteristics still = {.rotation = 1, .form_factor = 0, .fuab = true};
	const struct scsi_provisioning thin = {
		.unmap = true, .same_16 = true, .same_10 = true, .reads_zeros = 1, .type = 2};
	uint8_t data[SCSI_PARAMETER_BYTES], again[SCSI_PARAMETER_BYTES];

	(void)state;
	size_t len = scsi_pack_vpd_limits(&ours, data);
	struct scsi_task *task = scsi_cdb_inquiry(1, 0xb0, 255);
	const struct scsi_inquiry_block_limits *limits = judge(task, data, len);
	struct scsi_limits back;

	is_whole(task, len);
	assert_int_equal(limits->wsnz, 1);
	assert_int_equal(limits->max_cmp, 0);
	assert_int_equal(limits->opt_gran, 8);
	assert_int_equal(limits->max_xfer_len, 0x8000);
	assert_int_equal(limits->opt_xfer_len, 0x800);
	assert_int_equal(limits->max_unmap, 0x12345678);
	assert_int_equal(limits->max_unmap_bdc, 255);
	assert_int_equal(limits->opt_unmap_gran, 8);
	assert_true(limits->ugavalid);
	assert_int_equal(limits->unmap_gran_align, 3);
	assert_int_equal(limits->max_ws_len, UINT64_C(0x123456789a));
	assert_int_equal(scsi_unpack_vpd_limits(data, len, &back), 0);
	came_back(data, len, again, scsi_pack_vpd_limits(&back, again));
	scsi_free_scsi_task(task);

	len = scsi_pack_vpd_characteristics(&still, data);
	task = scsi_cdb_inquiry(1, 0xb1, 255);
	const struct scsi_inquiry_block_device_characteristics *c = judge(task, data, len);
	struct scsi_characteristics still_back;

	is_whole(task, len);
	assert_int_equal(c->medium_rotation_rate, 1);
	assert_true(c->fuab);
	assert_false(c->vbuls);
	assert_int_equal(scsi_unpack_vpd_characteristics(data, len, &still_back), 0);
	came_back(data, len, again, scsi_pack_vpd_characteristics(&still_back, again));
	scsi_free_scsi_task(task);

	len = scsi_pack_vpd_provisioning(&thin, data);
	task = scsi_cdb_inquiry(1, 0xb2, 255);
	const struct scsi_inquiry_logical_block_provisioning *p = judge(task, data, len);
	struct scsi_provisioning thin_back;

	is_whole(task, len);
	assert_true(p->lbpu && p->lbpws && p->lbpws10 && p->lbprz);
	assert_false(p->anc_sup || p->dp);
	assert_int_equal(p->provisioning_type, PROVISIONING_TYPE_THIN);
	assert_int_equal(scsi_unpack_vpd_provisioning(data, len, &thin_back), 0);
	came_back(data, len, again, scsi_pack_vpd_provisioning(&thin_back, again));
	scsi_free_scsi_task(task);
}

static void the_judge_reads_capacity_and_luns(void **state)
{
	const struct scsi_capacity ours = {
		.last_lba = UINT64_C(0x123456789a),
		.block_bytes = 512,
		.physical_exponent = 3,
		.lowest_aligned = 5,
		.provisioned = true,
		.reads_zeros = true,
	};
	const uint64_t luns[] = {0, UINT64_C(7) << 48};
	uint8_t data[SCSI_PARAMETER_BYTES], again[SCSI_PARAMETER_BYTES];
	struct scsi_capacity back;

	(void)state;
	size_t len = scsi_pack_capacity_16(&ours, data);
	struct scsi_task *task = scsi_cdb_readcapacity16();
	const struct scsi_readcapacity16 *said = judge(task, data, len);

	assert_int_equal(said->returned_lba, ours.last_lba);
	assert_int_equal(said->block_length, 512);
	assert_int_equal(said->lbppbe, 3);
	assert_int_equal(said->lalba, 5);
	assert_true(said->lbpme && said->lbprz);
	assert_false(said->prot_en);
	assert_int_equal(scsi_unpack_capacity_16(data, len, &back), 0);
	came_back(data, len, again, scsi_pack_capacity_16(&back, again));
	scsi_free_scsi_task(task);

	len = scsi_pack_capacity_10(&ours, data);
	task = scsi_cdb_readcapacity10(0, 0);
	const struct scsi_readcapacity10 *ten = judge(task, data, len);

	is_whole(task, len);
	assert_int_equal(ten->lba, UINT32_MAX); /* ask for (16) */
	assert_int_equal(ten->block_size, 512);
	assert_int_equal(scsi_unpack_capacity_10(data, len, &back), 0);
	assert_int_equal(back.last_lba, UINT32_MAX);
	scsi_free_scsi_task(task);

	len = scsi_pack_luns(luns, 2, data);
	task = scsi_reportluns_cdb(0, 4096);
	const struct scsi_reportluns_list *list = judge(task, data, len);
	uint64_t lun = 1;

	is_whole(task, len);
	assert_int_equal(list->num, 2);
	assert_int_equal(list->luns[0], 0);
	assert_int_equal(list->luns[1], 7);
	assert_int_equal(scsi_unpack_lun(data, len, 1, &lun), 2);
	assert_int_equal(lun, UINT64_C(7) << 48);
	assert_int_equal(scsi_unpack_lun(data, len - 1, 1, &lun), 1);
	scsi_free_scsi_task(task);
}

static void mode_is_read(struct scsi_task *task, const struct scsi_mode *ours)
{
	uint8_t data[SCSI_PARAMETER_BYTES], again[SCSI_PARAMETER_BYTES];
	struct scsi_mode back;
	size_t len = scsi_pack_mode(ours, data);
	struct scsi_mode_sense *said = judge(task, data, len);
	const struct scsi_mode_page *page;

	assert_int_equal(said->device_specific_parameter,
		(ours->write_protected ? 0x80 : 0) | (ours->dpofua ? 0x10 : 0));
	assert_int_equal(said->block_descriptor_length,
		ours->has_blocks ? ours->long_blocks ? 16 : 8 : 0);
	page = scsi_modesense_get_page(said, SCSI_MODEPAGE_CACHING, 0);
	assert_int_equal(page != NULL, ours->has_caching);
	if (page) {
		assert_int_equal(page->caching.wce, ours->wce);
		assert_int_equal(page->caching.rcd, ours->rcd);
		assert_false(page->ps);
	}
	page = scsi_modesense_get_page(said, SCSI_MODEPAGE_CONTROL, 0);
	assert_int_equal(page != NULL, ours->has_control);
	if (page) {
		assert_int_equal(page->control.d_sense, ours->descriptor_sense);
		assert_int_equal(page->control.swp, ours->swp);
		assert_int_equal(page->control.queue_algorithm_modifier, 1);
		assert_false(page->control.tst || page->control.tas || page->control.qerr);
	}
	assert_int_equal(scsi_unpack_mode(data, len, ours->ten, &back), 0);
	assert_int_equal(back.has_blocks, ours->has_blocks);
	came_back(data, len, again, scsi_pack_mode(&back, again));
	scsi_free_scsi_task(task);
}

static void the_judge_reads_mode_pages(void **state)
{
	struct scsi_mode mode = {
		.write_protected = true, .has_blocks = true, .nr_blocks = 0x12345678,
		.block_bytes = 512, .has_caching = true, .wce = true, .has_control = true,
		.swp = true};

	(void)state;
	mode_is_read(scsi_cdb_modesense6(0, SCSI_MODESENSE_PC_CURRENT,
			     SCSI_MODEPAGE_RETURN_ALL_PAGES, 0, 255),
		&mode);
	mode = (struct scsi_mode){.ten = true, .dpofua = true, .has_control = true,
		.descriptor_sense = true};
	mode_is_read(scsi_cdb_modesense10(0, 1, SCSI_MODESENSE_PC_CURRENT, SCSI_MODEPAGE_CONTROL,
			     0, 255),
		&mode);
	mode = (struct scsi_mode){.ten = true, .has_blocks = true, .long_blocks = true,
		.nr_blocks = UINT64_C(1) << 40, .block_bytes = 4096, .has_caching = true,
		.rcd = true};
	mode_is_read(scsi_cdb_modesense10(1, 0, SCSI_MODESENSE_PC_CURRENT, SCSI_MODEPAGE_CACHING,
			     0, 255),
		&mode);
}

static void the_judge_reads_reservations(void **state)
{
	const uint64_t keys[] = {1, UINT64_C(0xfedcba9876543210)};
	const struct scsi_pr_reservation held = {
		.generation = 8, .type = SCSI_PR_EXCLUSIVE_ACCESS, .key = keys[1]};
	const struct scsi_pr_reservation free_ = {.generation = 9};
	const struct scsi_pr_capabilities can = {.ptpl_capable = true,
		.types = 1 << SCSI_PR_WRITE_EXCLUSIVE | 1 << SCSI_PR_EXCLUSIVE_ACCESS_REGISTRANTS |
			1 << SCSI_PR_EXCLUSIVE_ACCESS_ALL};
	uint8_t data[SCSI_PARAMETER_BYTES], again[SCSI_PARAMETER_BYTES];
	uint64_t key = 0;

	(void)state;
	size_t len = scsi_pack_pr_keys(7, keys, 2, data);
	struct scsi_task *task = scsi_cdb_persistent_reserve_in(SCSI_PERSISTENT_RESERVE_READ_KEYS,
		255);
	const struct scsi_persistent_reserve_in_read_keys *list = judge(task, data, len);

	is_whole(task, len);
	assert_int_equal(list->prgeneration, 7);
	assert_int_equal(list->num_keys, 2);
	assert_int_equal(list->keys[1], keys[1]);
	assert_int_equal(scsi_unpack_pr_key(data, len, 1, &key), 2);
	assert_int_equal(key, keys[1]);
	scsi_free_scsi_task(task);

	len = scsi_pack_pr_reservation(&held, data);
	task = scsi_cdb_persistent_reserve_in(SCSI_PERSISTENT_RESERVE_READ_RESERVATION, 255);
	const struct scsi_persistent_reserve_in_read_reservation *said = judge(task, data, len);
	struct scsi_pr_reservation back;

	assert_true(said->reserved);
	assert_int_equal(said->reservation_key, keys[1]);
	assert_int_equal(said->pr_scope, 0);
	assert_int_equal(said->pr_type, SCSI_PERSISTENT_RESERVE_TYPE_EXCLUSIVE_ACCESS);
	assert_int_equal(scsi_unpack_pr_reservation(data, len, &back), 0);
	came_back(data, len, again, scsi_pack_pr_reservation(&back, again));
	scsi_free_scsi_task(task);

	len = scsi_pack_pr_reservation(&free_, data);
	task = scsi_cdb_persistent_reserve_in(SCSI_PERSISTENT_RESERVE_READ_RESERVATION, 255);
	said = judge(task, data, len);
	assert_false(said->reserved);
	assert_int_equal(scsi_unpack_pr_reservation(data, len, &back), 0);
	came_back(data, len, again, scsi_pack_pr_reservation(&back, again));
	scsi_free_scsi_task(task);

	len = scsi_pack_pr_capabilities(&can, data);
	task = scsi_cdb_persistent_reserve_in(SCSI_PERSISTENT_RESERVE_REPORT_CAPABILITIES, 255);
	const struct scsi_persistent_reserve_in_report_capabilities *c = judge(task, data, len);
	struct scsi_pr_capabilities can_back;

	assert_true(c->ptpl_c && c->tmv);
	assert_false(c->crh || c->sip_c || c->atp_c || c->ptpl_a);
	assert_int_equal(c->persistent_reservation_type_mask,
		SCSI_PR_TYPE_MASK_WR_EX | SCSI_PR_TYPE_MASK_EX_AC_RO | SCSI_PR_TYPE_MASK_EX_AC_AR);
	assert_int_equal(scsi_unpack_pr_capabilities(data, len, &can_back), 0);
	came_back(data, len, again, scsi_pack_pr_capabilities(&can_back, again));
	scsi_free_scsi_task(task);
}

/* The judge knows the list of PERSISTENT RESERVE OUT, not READ FULL STATUS. */
static void lists_of_reservations_survive_the_trip(void **state)
{
	const struct scsi_pr_list list = {.key = 0x1122334455667788, .action_key = 42,
		.all_tg_pt = true, .aptpl = true};
	const struct scsi_pr_registrant ours[] = {
		{.key = 5, .relative_port = 1, .transport_id = (const uint8_t *)"abcd",
			.transport_id_bytes = 4},
		{.key = 6, .holder = true, .type = 3, .relative_port = 1,
			.transport_id = (const uint8_t *)"efghijkl", .transport_id_bytes = 8},
	};
	uint8_t data[SCSI_PARAMETER_BYTES];
	struct scsi_pr_list back;
	struct scsi_task *task = reserve_out(SCSI_PR_RESERVE, SCSI_PR_WRITE_EXCLUSIVE, list);

	(void)state;
	assert_int_equal(task->expxferlen, SCSI_PR_LIST_BYTES);
	assert_int_equal(task->iovector_out.niov, 1);
	scsi_pack_pr_list(&list, data);
	assert_memory_equal(task->iovector_out.iov[0].iov_base, data, SCSI_PR_LIST_BYTES);
	scsi_unpack_pr_list(data, &back);
	assert_int_equal(back.key, list.key);
	assert_int_equal(back.action_key, list.action_key);
	assert_true(back.all_tg_pt && back.aptpl && !back.spec_i_pt);
	scsi_free_scsi_task(task);

	size_t len = scsi_pack_pr_status(3, ours, 2, data), at = 0;
	struct scsi_pr_registrant one;

	assert_int_equal(len, 8 + 24 + 4 + 24 + 8);
	assert_int_equal(weft_get32(data + 4), len - 8);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(scsi_next_pr_registrant(data, len, &at, &one), 0);
		assert_int_equal(one.key, ours[i].key);
		assert_int_equal(one.holder, ours[i].holder);
		assert_int_equal(one.type, ours[i].type);
		assert_int_equal(one.transport_id_bytes, ours[i].transport_id_bytes);
		assert_memory_equal(one.transport_id, ours[i].transport_id,
			one.transport_id_bytes);
	}
	assert_int_equal(scsi_next_pr_registrant(data, len, &at, &one), -ENOENT);
	weft_put32(data + 8 + 20, UINT32_MAX); /* a TransportID without end */
	at = 0;
	assert_int_equal(scsi_next_pr_registrant(data, len, &at, &one), -EPROTO);
}

static void the_judge_reads_operation_codes(void **state)
{
	uint8_t data[SCSI_PARAMETER_BYTES];
	bool supported = false;

	(void)state;
	for (int timeouts = 0; timeouts < 2; timeouts++) {
		size_t len = scsi_pack_opcodes(timeouts, data);
		struct scsi_task *task = scsi_cdb_report_supported_opcodes(timeouts,
			SCSI_REPORT_SUPPORTING_OPS_ALL, SCSI_OPCODE_TESTUNITREADY, 0, 4096);
		const struct scsi_report_supported_op_codes *all = judge(task, data, len);

		is_whole(task, len);
		assert_int_equal(all->num_descriptors, scsi_nr_ops);
		for (unsigned i = 0; i < scsi_nr_ops; i++) {
			assert_int_equal(all->descriptors[i].opcode, scsi_ops[i].opcode);
			assert_int_equal(all->descriptors[i].cdb_len, scsi_ops[i].cdb_bytes);
			assert_int_equal(all->descriptors[i].ctdp, timeouts);
			assert_int_equal(all->descriptors[i].servactv,
				scsi_ops[i].action != SCSI_NO_ACTION);
			if (scsi_ops[i].action != SCSI_NO_ACTION)
				assert_int_equal(all->descriptors[i].sa, scsi_ops[i].action);
			if (timeouts)
				assert_int_equal(all->descriptors[i].to.descriptor_length, 10);
		}
		scsi_free_scsi_task(task);

		len = scsi_pack_opcode(SCSI_OP_WRITE_SAME_16, SCSI_NO_ACTION, timeouts, data);
		task = scsi_cdb_report_supported_opcodes(timeouts, SCSI_REPORT_SUPPORTING_OPCODE,
			SCSI_OPCODE_WRITE_SAME16, 0, 4096);
		const struct scsi_report_supported_op_codes_one_command *one =
			judge(task, data, len);

		assert_int_equal(one->support, 3);
		assert_int_equal(one->cdb_length, 16);
		assert_int_equal(one->ctdp, timeouts);
		assert_memory_equal(one->cdb_usage_data,
			scsi_op_find(SCSI_OP_WRITE_SAME_16, SCSI_NO_ACTION)->usage, 16);
		assert_int_equal(scsi_unpack_opcode(data, len, &supported), 0);
		assert_true(supported);
		scsi_free_scsi_task(task);
	}
	size_t len = scsi_pack_opcode(0x89, SCSI_NO_ACTION, false, data); /* COMPARE AND WRITE */

	assert_int_equal(scsi_unpack_opcode(data, len, &supported), 0);
	assert_false(supported);
	data[1] = 0;
	assert_int_equal(scsi_unpack_opcode(data, len, &supported), -EAGAIN);
	data[1] = 2;
	assert_int_equal(scsi_unpack_opcode(data, len, &supported), -EPROTO);
}

static void the_judge_reads_sense(void **state)
{
	const struct scsi_fault faults[] = {
		{.key = SCSI_KEY_ILLEGAL_REQUEST, .asc = SCSI_ASC_INVALID_FIELD_IN_CDB,
			.has_field = true, .field_in_cdb = true, .field = {.byte = 7, .bit = 3}},
		{.key = SCSI_KEY_ILLEGAL_REQUEST, .asc = SCSI_ASC_INVALID_FIELD_IN_LIST,
			.has_field = true, .field = {.byte = 0x1234, .bit = 8}},
		{.key = SCSI_KEY_UNIT_ATTENTION, .asc = SCSI_ASC_CAPACITY_CHANGED},
		{.key = SCSI_KEY_MISCOMPARE, .asc = SCSI_ASC_MISCOMPARE, .has_information = true,
			.information = 0x12345678},
		{.key = SCSI_KEY_MEDIUM_ERROR, .asc = SCSI_ASC_READ_ERROR, .deferred = true},
	};

	(void)state;
	for (size_t i = 0; i < WEFT_ARRAY_LEN(faults) * 2; i++) {
		const struct scsi_fault *fault = &faults[i / 2];
		uint8_t data[SCSI_SENSE_MAX_BYTES], again[SCSI_SENSE_MAX_BYTES];
		/* the judge reads beyond it */
		uint8_t room[SCSI_SENSE_READ_BYTES + 4] = {0};
		size_t len = scsi_pack_sense(fault, i % 2, data);
		struct scsi_sense said = {0};
		struct scsi_fault back;

		memcpy(room, data, len);
		scsi_parse_sense_data(&said, room);
		assert_int_equal(said.error_type, 0x70 + 2 * (i % 2) + fault->deferred);
		assert_int_equal(said.key, fault->key);
		assert_int_equal(said.ascq, fault->asc);
		if (i % 2 == 0) /* it looks at no descriptor */
			assert_int_equal(said.sense_specific, fault->has_field);
		if (i % 2 == 0 && fault->has_field) {
			assert_int_equal(said.ill_param_in_cdb, fault->field_in_cdb);
			assert_int_equal(said.field_pointer, fault->field.byte);
			assert_int_equal(said.bit_pointer_valid, fault->field.bit < 8);
			if (fault->field.bit < 8)
				assert_int_equal(said.bit_pointer, fault->field.bit);
		}
		assert_int_equal(scsi_unpack_sense(data, len, &back), 0);
		came_back(data, len, again, scsi_pack_sense(&back, i % 2, again));
		assert_non_null(scsi_asc_name(fault->asc));
	}
}

static void a_far_block_is_said_with_descriptors_alone(void **state)
{
	const struct scsi_fault fault = {.key = SCSI_KEY_MEDIUM_ERROR, .asc = SCSI_ASC_WRITE_ERROR,
		.has_information = true, .information = UINT64_C(1) << 32};
	uint8_t data[SCSI_SENSE_MAX_BYTES];
	struct scsi_fault back;

	(void)state;
	assert_int_equal(scsi_unpack_sense(data, scsi_pack_sense(&fault, true, data), &back), 0);
	assert_int_equal(back.information, UINT64_C(1) << 32);
	assert_int_equal(scsi_unpack_sense(data, scsi_pack_sense(&fault, false, data), &back), 0);
	assert_false(back.has_information);
}

/* Reads data as everything that it could be, from a buffer of exactly that size. */
static void read_as_all(const uint8_t *data, size_t len)
{
	uint8_t *buf = malloc(len ? len : 1);
	union {
		struct scsi_inquiry inquiry;
		struct scsi_limits limits;
		struct scsi_characteristics characteristics;
		struct scsi_provisioning provisioning;
		struct scsi_capacity capacity;
		struct scsi_mode mode;
		struct scsi_pr_reservation reservation;
		struct scsi_pr_capabilities capabilities;
		struct scsi_fault fault;
		char serial[SCSI_SERIAL_MAX + 1];
		bool supported;
		uint64_t number;
	} to;
	struct scsi_designator designator;
	struct scsi_pr_registrant registrant;
	size_t at = 0;

	assert_non_null(buf);
	memcpy(buf, data, len);
	(void)scsi_unpack_inquiry(buf, len, &to.inquiry);
	(void)scsi_vpd_has_page(buf, len, 0x77);
	(void)scsi_unpack_vpd_serial(buf, len, to.serial);
	(void)scsi_unpack_vpd_limits(buf, len, &to.limits);
	(void)scsi_unpack_vpd_characteristics(buf, len, &to.characteristics);
	(void)scsi_unpack_vpd_provisioning(buf, len, &to.provisioning);
	(void)scsi_unpack_capacity_10(buf, len, &to.capacity);
	(void)scsi_unpack_capacity_16(buf, len, &to.capacity);
	(void)scsi_unpack_mode(buf, len, false, &to.mode);
	(void)scsi_unpack_mode(buf, len, true, &to.mode);
	(void)scsi_unpack_pr_reservation(buf, len, &to.reservation);
	(void)scsi_unpack_pr_capabilities(buf, len, &to.capabilities);
	(void)scsi_unpack_opcode(buf, len, &to.supported);
	(void)scsi_unpack_sense(buf, len, &to.fault);
	for (size_t i = 0; i < scsi_unpack_lun(buf, len, i, &to.number); i++)
		;
	assert_true(scsi_unpack_unmap_head(buf, len) <= (int)(len / SCSI_UNMAP_EXTENT_BYTES));
	while (scsi_next_designator(buf, len, &at, &designator) == 0)
		assert_true(designator.bytes + designator.len <= buf + len);
	at = 0;
	while (scsi_next_pr_registrant(buf, len, &at, &registrant) == 0)
		assert_true(registrant.transport_id + registrant.transport_id_bytes <= buf + len);
	free(buf);
}

static void whatever_a_target_says_is_harmless(void **state)
{
	const uint8_t heads[] = {0x00, 0x70, 0x72, 0x80, 0x83, 0xb0, 0xb1, 0xb2};
	uint8_t data[300];

	(void)state;
	srandom((unsigned)seed_or(14));
	for (unsigned i = 0; i < 20000; i++) {
		size_t len = (size_t)random() % sizeof(data);

		for (size_t n = 0; n < len; n++)
			data[n] = (uint8_t)(random() % 4 ? random() % 16 : random());
		if (len > 4) {
			data[random() % 2] = heads[(size_t)random() % sizeof(heads)];
			data[2] = random() % 2 ? 0 : data[2];
		}
		read_as_all(data, len);
	}
}

static void the_head_of_unmap_is_held_against_its_list(void **state)
{
	uint8_t list[8 + 2 * 16];
	uint64_t lba = 0;
	uint32_t blocks = 0;

	(void)state;
	assert_int_equal(scsi_pack_unmap_head(2, list), sizeof(list));
	scsi_pack_unmap_extent(1, 2, list + 8);
	scsi_pack_unmap_extent(UINT64_C(0x123456789abc), 0xfffffffe, list + 24);
	assert_int_equal(scsi_unpack_unmap_head(list, sizeof(list)), 2);
	scsi_unpack_unmap_extent(list + 24, &lba, &blocks);
	assert_int_equal(lba, UINT64_C(0x123456789abc));
	assert_int_equal(blocks, 0xfffffffe);
	assert_int_equal(scsi_unpack_unmap_head(list, sizeof(list) - 1), -EPROTO);
	weft_put16(list + 2, 31); /* half an extent is none */
	assert_int_equal(scsi_unpack_unmap_head(list, sizeof(list)), 1);
	weft_put16(list + 2, 33);
	assert_int_equal(scsi_unpack_unmap_head(list, sizeof(list)), -EPROTO);
	weft_put16(list, UINT16_MAX);
	assert_int_equal(scsi_unpack_unmap_head(list, sizeof(list)), -EPROTO);
	weft_put16(list, 3); /* shorter than the head */
	assert_int_equal(scsi_unpack_unmap_head(list, sizeof(list)), -EPROTO);
	assert_int_equal(scsi_unpack_unmap_head(list, 7), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_judge_builds_the_same_transfers),
		cmocka_unit_test(the_judge_builds_the_same_questions),
		cmocka_unit_test(other_cdbs_survive_the_trip),
		cmocka_unit_test(what_does_not_fit_is_not_packed),
		cmocka_unit_test(each_bit_means_something_or_is_refused),
		cmocka_unit_test(unknown_operations_and_actions_are_refused),
		cmocka_unit_test(the_judge_reads_inquiry),
		cmocka_unit_test(the_judge_reads_names),
		cmocka_unit_test(the_judge_reads_limits),
		cmocka_unit_test(the_judge_reads_capacity_and_luns),
		cmocka_unit_test(the_judge_reads_mode_pages),
		cmocka_unit_test(the_judge_reads_reservations),
		cmocka_unit_test(lists_of_reservations_survive_the_trip),
		cmocka_unit_test(the_judge_reads_operation_codes),
		cmocka_unit_test(the_judge_reads_sense),
		cmocka_unit_test(a_far_block_is_said_with_descriptors_alone),
		cmocka_unit_test(whatever_a_target_says_is_harmless),
		cmocka_unit_test(the_head_of_unmap_is_held_against_its_list),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
