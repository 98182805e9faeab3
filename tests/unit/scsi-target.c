/* SPDX-License-Identifier: MIT */
/*
 * A logical unit behind a transport in memory: whole conversations, as initiators have them.
 * libiscsi builds the CDBs and reads the answers, where it knows them.
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

#include "fabric/base/bytes.h"
#include "fabric/base/util.h"
#include "fabric/scsi/data.h"
#include "fabric/scsi/target.h"
#include "tests/support/scsi-world.h"

static int write_blocks(struct world *w, unsigned who, uint32_t lba, uint32_t blocks, int byte)
{
	static uint8_t out[UNIT_BYTES];

	memset(out, byte, blocks * SCSI_BLOCK_BYTES);
	return world_tell(w, who, scsi_cdb_write10(lba, blocks * 512, 512, 0, 0, 0, 0, 0), out);
}

static int read_blocks(struct world *w, unsigned who, uint32_t lba, uint32_t blocks)
{
	return world_tell(w, who, scsi_cdb_read10(lba, blocks * 512, 512, 0, 0, 0, 0, 0), NULL);
}

/* An INQUIRY as Linux makes it: the head of a page, then all of it. */
static void *linux_reads_page(struct world *w, int page, struct scsi_task **ret)
{
	assert_int_equal(world_tell(w, 0, scsi_cdb_inquiry(1, page, 4), NULL), SCSI_GOOD);
	assert_int_equal(w->answer_len, 4);
	assert_int_equal(w->answer[1], page);
	int len = weft_get16(w->answer + 2) + 4;

	*ret = scsi_cdb_inquiry(1, page, len);
	assert_int_equal(world_ask(w, 0, *ret, NULL), SCSI_GOOD);
	assert_int_equal(w->answer_len, len);
	assert_int_equal(w->cmd.in_residual, 0);
	void *said = scsi_datain_unmarshall(*ret);

	assert_non_null(said);
	return said;
}

/* In the order of its scan, of its disk driver, and of a user's first I/O. */
static void linux_finds_a_disk(void **state)
{
	struct world *w = WORLD(.write_cache = true);
	struct scsi_task *task;
	uint8_t list[24];

	(void)state;
	atomic_store(&w->nexus[0].gate, 1); /* it has just logged in */
	/* scan */
	assert_int_equal(world_tell(w, 0, scsi_cdb_inquiry(0, 0, 36), NULL), SCSI_GOOD);
	assert_int_equal(w->answer_len, 36);
	task = scsi_cdb_inquiry(0, 0, w->answer[4] + 5);
	assert_int_equal(world_ask(w, 0, task, NULL), SCSI_GOOD);
	const struct scsi_inquiry_standard *standard = scsi_datain_unmarshall(task);

	assert_string_equal(standard->vendor_identification, "WEFT    ");
	assert_int_equal(standard->device_type, 0);
	assert_int_equal(standard->version, 6);
	scsi_free_scsi_task(task);
	task = scsi_reportluns_cdb(0, 4096);
	assert_int_equal(world_ask(w, 0, task, NULL), SCSI_GOOD);
	const struct scsi_reportluns_list *luns = scsi_datain_unmarshall(task);

	assert_int_equal(luns->num, 1);
	assert_int_equal(luns->luns[0], 0);
	assert_int_equal(w->cmd.in_residual, 4096 - 16);
	scsi_free_scsi_task(task);

	const struct scsi_inquiry_supported_pages *pages = linux_reads_page(w, 0, &task);

	assert_int_equal(pages->num_pages, 6);
	scsi_free_scsi_task(task);
	const struct scsi_inquiry_unit_serial_number *serial = linux_reads_page(w, 0x80, &task);

	assert_string_equal(serial->usn, w->unit.config.names.serial);
	scsi_free_scsi_task(task);
	const struct scsi_inquiry_device_identification *id = linux_reads_page(w, 0x83, &task);
	unsigned types = 0;

	for (struct scsi_inquiry_device_designator *d = id->designators; d; d = d->next)
		types |= 1u << d->designator_type;
	assert_int_equal(types,
		1 << SCSI_DESIGNATOR_NAA | 1 << SCSI_DESIGNATOR_T10 |
			1 << SCSI_DESIGNATOR_RELATIVE_PORT);
	scsi_free_scsi_task(task);

	/* disk: power on is told once */
	world_refused(w, world_tell(w, 0, scsi_cdb_testunitready(), NULL), SCSI_KEY_UNIT_ATTENTION,
		SCSI_ASC_POWER_ON);
	assert_int_equal(world_tell(w, 0, scsi_cdb_testunitready(), NULL), SCSI_GOOD);
	task = scsi_cdb_readcapacity16();
	assert_int_equal(world_ask(w, 0, task, NULL), SCSI_GOOD);
	const struct scsi_readcapacity16 *capacity = scsi_datain_unmarshall(task);

	assert_int_equal(capacity->returned_lba, BLOCKS - 1);
	assert_int_equal(capacity->block_length, 512);
	assert_int_equal(capacity->lbppbe, 3);
	assert_true(capacity->lbpme);
	assert_false(capacity->lbprz || capacity->prot_en);
	scsi_free_scsi_task(task);
	task = scsi_cdb_readcapacity10(0, 0);
	assert_int_equal(world_ask(w, 0, task, NULL), SCSI_GOOD);
	const struct scsi_readcapacity10 *ten = scsi_datain_unmarshall(task);

	assert_int_equal(ten->lba, BLOCKS - 1);
	scsi_free_scsi_task(task);
	for (int page = 0x3f; page; page = page == 0x3f ? 8 : 0) {
		task = scsi_cdb_modesense6(0, SCSI_MODESENSE_PC_CURRENT,
			(enum scsi_modesense_page_code)page, 0, 192);
		assert_int_equal(world_ask(w, 0, task, NULL), SCSI_GOOD);
		struct scsi_mode_sense *mode = scsi_datain_unmarshall(task);

		assert_int_equal(mode->device_specific_parameter, 0x10);
		assert_true(scsi_modesense_get_page(mode, SCSI_MODEPAGE_CACHING, 0)->caching.wce);
		scsi_free_scsi_task(task);
	}
	world_illegal(w,
		world_tell(w, 0,
			scsi_cdb_modesense10(0, 0, SCSI_MODESENSE_PC_CURRENT, SCSI_MODEPAGE_CONTROL,
				5, 64),
			NULL),
		SCSI_ASC_INVALID_FIELD_IN_CDB);
	const struct scsi_inquiry_block_limits *limits = linux_reads_page(w, 0xb0, &task);

	assert_true(limits->wsnz);
	assert_int_equal(limits->max_xfer_len, (16 << 20) / 512);
	assert_int_equal(limits->max_unmap_bdc, 255);
	assert_int_equal(limits->max_ws_len, (256 << 20) / 512);
	scsi_free_scsi_task(task);
	const struct scsi_inquiry_block_device_characteristics *still =
		linux_reads_page(w, 0xb1, &task);

	assert_int_equal(still->medium_rotation_rate, 1);
	scsi_free_scsi_task(task);
	const struct scsi_inquiry_logical_block_provisioning *thin =
		linux_reads_page(w, 0xb2, &task);

	assert_true(thin->lbpu && thin->lbpws && thin->lbpws10);
	assert_false(thin->lbprz || thin->anc_sup);
	scsi_free_scsi_task(task);
	task = scsi_cdb_report_supported_opcodes(0, SCSI_REPORT_SUPPORTING_OPCODE,
		SCSI_OPCODE_WRITE_SAME16, 0, 512);
	assert_int_equal(world_ask(w, 0, task, NULL), SCSI_GOOD);
	const struct scsi_report_supported_op_codes_one_command *one = scsi_datain_unmarshall(task);

	assert_int_equal(one->support, 3);
	scsi_free_scsi_task(task);

	/* I/O */
	assert_int_equal(write_blocks(w, 0, 8, 8, 0x77), SCSI_GOOD);
	assert_int_equal(read_blocks(w, 0, 8, 8), SCSI_GOOD);
	assert_int_equal(w->answer_len, 4096);
	assert_int_equal(w->answer[4095], 0x77);
	assert_int_equal(w->nr_flushes, 0);
	assert_int_equal(world_tell(w, 0, scsi_cdb_synchronizecache10(0, 0, 0, 0), NULL),
		SCSI_GOOD);
	assert_int_equal(w->nr_flushes, 1);
	scsi_pack_unmap_head(1, list);
	scsi_pack_unmap_extent(8, 8, list + 8);
	assert_int_equal(world_tell(w, 0, scsi_cdb_unmap(0, 0, 24), list), SCSI_GOOD);
	assert_int_equal(w->trimmed_bytes, 4096);
	uint8_t zeros[512] = {0};

	assert_int_equal(world_tell(w, 0, scsi_cdb_writesame10(0, 0, 0, 8, 0, 8, 512), zeros),
		SCSI_GOOD);
	assert_int_equal(w->medium[8 * 512], 0);
	world_free(w);
}

static void pages_that_are_not_there_are_refused(void **state)
{
	const int pages[] = {0x01, 0x81, 0x86, 0x87, 0x89, 0x8f, 0xb3, 0xb7, 0xb9, 0xff};
	struct world *w = WORLD(0);

	(void)state;
	for (size_t i = 0; i < WEFT_ARRAY_LEN(pages); i++) {
		world_illegal(w, world_tell(w, 0, scsi_cdb_inquiry(1, pages[i], 255), NULL),
			SCSI_ASC_INVALID_FIELD_IN_CDB);
		world_points_at(w, true, 2);
	}
	world_illegal(w, world_tell(w, 0, scsi_cdb_inquiry(0, 0x83, 255), NULL),
		SCSI_ASC_INVALID_FIELD_IN_CDB);
	/* GET STREAM STATUS, GET LBA STATUS: others of READ CAPACITY(16)'s operation code */
	world_illegal(w, world_tell(w, 0, scsi_cdb_get_lba_status(0, 24), NULL),
		SCSI_ASC_INVALID_FIELD_IN_CDB);
	world_points_at(w, true, 1);
	world_illegal(w,
		world_tell(w, 0, scsi_cdb_compareandwrite(0, 1024, 512, 0, 0, 0, 0, 0), w->medium),
		SCSI_ASC_INVALID_OPCODE);
	world_illegal(w, world_tell(w, 0, scsi_cdb_reserve6(), NULL), SCSI_ASC_INVALID_OPCODE);
	world_free(w);
}

static void a_cdb_that_ends_early_is_refused(void **state)
{
	struct world *w = WORLD(0);
	const uint8_t cdb[SCSI_CDB_BYTES] = {SCSI_OP_READ_16};
	struct scsi_request rq = {.cdb = cdb, .cdb_bytes = 15, .in_bytes = 512};

	(void)state;
	world_illegal(w, world_say(w, 0, &rq, NULL), SCSI_ASC_INVALID_OPCODE);
	rq.cdb_bytes = 16;
	assert_int_equal(world_say(w, 0, &rq, NULL), SCSI_GOOD);
	world_free(w);
}

static void other_luns_are_said_not_to_be_there(void **state)
{
	struct world *w = WORLD(0);
	uint8_t cdb[SCSI_CDB_BYTES] = {SCSI_OP_INQUIRY, 0, 0, 0, 96};
	struct scsi_request rq = {.cdb = cdb,
		.cdb_bytes = 16,
		.in_bytes = 255,
		.lun = UINT64_C(1) << 48};

	(void)state;
	assert_true(scsi_lun_is_unit(0) && scsi_lun_is_unit(UINT64_C(0x4000) << 48));
	assert_false(scsi_lun_is_unit(1) || scsi_lun_is_unit(UINT64_C(0x4001) << 48));
	atomic_store(&w->nexus[0].gate, 1);
	assert_int_equal(world_say(w, 0, &rq, NULL), SCSI_GOOD);
	assert_int_equal(w->answer[0], 0x7f);
	cdb[1] = 1; /* EVPD */
	world_illegal(w, world_say(w, 0, &rq, NULL), SCSI_ASC_INVALID_FIELD_IN_CDB);
	memset(cdb, 0, sizeof(cdb));
	cdb[0] = SCSI_OP_REQUEST_SENSE;
	cdb[4] = 252;
	assert_int_equal(world_say(w, 0, &rq, NULL), SCSI_GOOD);
	assert_int_equal(scsi_unpack_sense(w->answer, w->answer_len, &w->fault), 0);
	assert_int_equal(w->fault.asc, SCSI_ASC_LUN_NOT_SUPPORTED);
	memset(cdb, 0, sizeof(cdb));
	world_illegal(w, world_say(w, 0, &rq, NULL), SCSI_ASC_LUN_NOT_SUPPORTED);
	cdb[0] = 0xff;
	world_illegal(w, world_say(w, 0, &rq, NULL), SCSI_ASC_LUN_NOT_SUPPORTED);
	memset(cdb, 0, sizeof(cdb));
	cdb[0] = SCSI_OP_REPORT_LUNS;
	cdb[9] = 16;
	assert_int_equal(world_say(w, 0, &rq, NULL), SCSI_GOOD);
	assert_int_equal(w->answer_len, 16);
	/* The attention is LUN 0's, and it has not been told. */
	assert_int_equal(atomic_load(&w->nexus[0].gate), 1);
	world_free(w);
}

static void luns_are_reported_as_asked(void **state)
{
	struct world *w = WORLD(0);

	(void)state;
	assert_int_equal(world_tell(w, 0, scsi_reportluns_cdb(1, 4096), NULL), SCSI_GOOD);
	assert_int_equal(weft_get32(w->answer), 0);
	assert_int_equal(world_tell(w, 0, scsi_reportluns_cdb(2, 4096), NULL), SCSI_GOOD);
	assert_int_equal(weft_get32(w->answer), 8);
	world_illegal(w, world_tell(w, 0, scsi_reportluns_cdb(0x10, 4096), NULL),
		SCSI_ASC_INVALID_FIELD_IN_CDB);
	world_free(w);
}

static void blocks_outside_are_refused(void **state)
{
	const struct {
		uint64_t lba;
		uint32_t blocks;
		bool inside;
	} ranges[] = {
		{0, BLOCKS, true},
		{BLOCKS - 1, 1, true},
		{BLOCKS, 0, true},
		{BLOCKS, 1, false},
		{BLOCKS + 1, 0, false},
		{0, BLOCKS + 1, false},
		{BLOCKS - 1, 2, false},
		{UINT64_MAX, 1, false},
		{UINT64_MAX, 2, false},
		{UINT64_MAX - 1, UINT32_MAX, false},
		{UINT64_C(1) << 55, 1, false},
		{UINT64_MAX, 0, false},
	};
	const uint8_t opcodes[] = {SCSI_OP_READ_16, SCSI_OP_WRITE_16, SCSI_OP_VERIFY_16,
		SCSI_OP_SYNCHRONIZE_CACHE_16};
	struct world *w = WORLD(0);

	(void)state;
	for (size_t i = 0; i < WEFT_ARRAY_LEN(ranges); i++) {
		for (size_t n = 0; n < WEFT_ARRAY_LEN(opcodes); n++) {
			int status = world_send(w, 0,
				CDB(.opcode = opcodes[n], .lba = ranges[i].lba,
					.blocks = ranges[i].blocks),
				UINT32_MAX, w->medium, UINT32_MAX);

			if (ranges[i].inside)
				assert_int_equal(status, SCSI_GOOD);
			else
				world_illegal(w, status, SCSI_ASC_LBA_OUT_OF_RANGE);
		}
		if (ranges[i].inside || !ranges[i].blocks)
			continue;
		world_illegal(w,
			world_send(w, 0,
				CDB(.opcode = SCSI_OP_WRITE_SAME_16, .lba = ranges[i].lba,
					.blocks = ranges[i].blocks, .ndob = true),
				0, NULL, 0),
			SCSI_ASC_LBA_OUT_OF_RANGE);
	}
	world_free(w);
}

static void transfers_have_a_limit(void **state)
{
	struct world *w = WORLD(.size_bytes = UINT64_C(1) << 40);
	const uint32_t most = SCSI_MAX_TRANSFER_BYTES / 512;
	uint8_t cdb[SCSI_CDB_BYTES];
	static uint8_t data[SCSI_DATA_BYTES];
	struct scsi_request rq = {.cdb = cdb,
		.cdb_bytes = 16,
		.in_bytes = UINT64_MAX,
		.out_bytes = UINT64_MAX};
	struct scsi_cdb read = CDB(.opcode = SCSI_OP_READ_16, .lba = 5, .blocks = most);

	(void)state;
	scsi_pack_cdb(&read, cdb);
	scsi_command_begin(&w->cmd, &w->nexus[0], &rq, data);
	assert_int_equal(w->cmd.kind, SCSI_DO_READ);
	assert_int_equal(w->cmd.off, 5 * 512);
	assert_int_equal(w->cmd.len, SCSI_MAX_TRANSFER_BYTES);
	world_illegal(w,
		world_send(w, 0, CDB(.opcode = SCSI_OP_READ_16, .blocks = most + 1), UINT32_MAX,
			NULL, 0),
		SCSI_ASC_INVALID_FIELD_IN_CDB);
	world_points_at(w, true, 10);
	world_illegal(w,
		world_send(w, 0, CDB(.opcode = SCSI_OP_WRITE_12, .blocks = most + 1), 0, w->medium,
			UINT32_MAX),
		SCSI_ASC_INVALID_FIELD_IN_CDB);
	world_points_at(w, true, 6);
	world_illegal(w,
		world_send(w, 0,
			CDB(.opcode = SCSI_OP_WRITE_SAME_16, .ndob = true,
				.blocks = SCSI_MAX_ZERO_BYTES / 512 + 1),
			0, NULL, 0),
		SCSI_ASC_INVALID_FIELD_IN_CDB);
	world_free(w);
}

static void lengths_that_differ_are_told(void **state)
{
	struct world *w = WORLD(0);
	const struct scsi_cdb read = CDB(.opcode = SCSI_OP_READ_10, .lba = 1, .blocks = 2);
	const struct scsi_cdb write = CDB(.opcode = SCSI_OP_WRITE_10, .lba = 1, .blocks = 2);
	uint8_t out[4096];

	(void)state;
	memset(out, 0x11, sizeof(out));
	memset(w->medium, 0x22, sizeof(w->medium));
	assert_int_equal(world_send(w, 0, read, 4096, NULL, 0), SCSI_GOOD);
	assert_int_equal(w->answer_len, 1024);
	assert_int_equal(w->cmd.in_residual, 4096 - 1024);
	assert_int_equal(world_send(w, 0, read, 700, NULL, 0), SCSI_GOOD);
	assert_int_equal(w->answer_len, 700);
	assert_int_equal(w->cmd.in_residual, 700 - 1024);
	assert_int_equal(world_send(w, 0, read, 0, NULL, 0), SCSI_GOOD);
	assert_int_equal(w->answer_len, 0);
	assert_int_equal(w->cmd.in_residual, -1024);
	/* A write that is not whole is none. */
	world_illegal(w, world_send(w, 0, write, 0, out, 1023),
		SCSI_ASC_INVALID_INFORMATION_UNIT_FIELD);
	assert_int_equal(w->medium[512], 0x22);
	assert_int_equal(w->cmd.out_residual, 1023);
	assert_int_equal(world_send(w, 0, write, 0, out, 4096), SCSI_GOOD);
	assert_int_equal(w->cmd.out_residual, 4096 - 1024);
	assert_int_equal(w->medium[512 + 1023], 0x11);
	assert_int_equal(w->medium[512 + 1024], 0x22);
	/* Both directions, of which one is meant. */
	assert_int_equal(world_send(w, 0, read, 1024, out, 512), SCSI_GOOD);
	assert_int_equal(w->cmd.in_residual, 0);
	assert_int_equal(w->cmd.out_residual, 512);
	assert_int_equal(world_send(w, 0, CDB(.opcode = SCSI_OP_TEST_UNIT_READY), 100, NULL, 0),
		SCSI_GOOD);
	assert_int_equal(w->cmd.in_residual, 100);
	assert_int_equal(world_send(w, 0, CDB(.opcode = SCSI_OP_INQUIRY, .list_bytes = 96), 20,
				 NULL, 0),
		SCSI_GOOD);
	assert_int_equal(w->answer_len, 20);
	assert_int_equal(w->cmd.in_residual, 20 - 96);
	assert_int_equal(world_send(w, 0, CDB(.opcode = SCSI_OP_INQUIRY, .list_bytes = 0), 20, NULL,
				 0),
		SCSI_GOOD);
	assert_int_equal(w->answer_len, 0);
	world_illegal(w,
		world_send(w, 0, CDB(.opcode = SCSI_OP_UNMAP, .list_bytes = 24), 0, out, 23),
		SCSI_ASC_INVALID_INFORMATION_UNIT_FIELD);
	world_free(w);
}

static void nothing_is_written_where_it_may_not(void **state)
{
	const struct scsi_cdb changes[] = {
		CDB(.opcode = SCSI_OP_WRITE_10, .blocks = 1),
		CDB(.opcode = SCSI_OP_WRITE_12, .blocks = 1),
		CDB(.opcode = SCSI_OP_WRITE_16, .blocks = 1),
		CDB(.opcode = SCSI_OP_WRITE_SAME_10, .blocks = 1),
		CDB(.opcode = SCSI_OP_WRITE_SAME_16, .blocks = 1, .ndob = true),
		CDB(.opcode = SCSI_OP_UNMAP, .list_bytes = 24),
		CDB(.opcode = SCSI_OP_MODE_SELECT_6, .pf = true, .list_bytes = 24),
		{.opcode = SCSI_OP_PERSISTENT_RESERVE_OUT, .action = SCSI_PR_REGISTER,
			.list_bytes = SCSI_PR_LIST_BYTES},
	};
	struct world *w = WORLD(0);

	(void)state;
	w->nexus[1].read_only = true;
	for (size_t i = 0; i < WEFT_ARRAY_LEN(changes); i++)
		world_refused(w, world_send(w, 1, changes[i], 0, w->medium, 512),
			SCSI_KEY_DATA_PROTECT, SCSI_ASC_WRITE_PROTECTED);
	assert_int_equal(read_blocks(w, 1, 0, 1), SCSI_GOOD);
	for (unsigned who = 0; who < 2; who++) {
		assert_int_equal(world_tell(w, who,
					 scsi_cdb_modesense6(0, SCSI_MODESENSE_PC_CURRENT,
						 SCSI_MODEPAGE_CACHING, 0, 64),
					 NULL),
			SCSI_GOOD);
		assert_int_equal(w->answer[2], who == 1 ? 0x90 : 0x10);
	}
	world_free(w);

	w = WORLD(.read_only = true);
	world_refused(w, write_blocks(w, 0, 0, 1, 1), SCSI_KEY_DATA_PROTECT,
		SCSI_ASC_WRITE_PROTECTED);
	assert_int_equal(world_tell(w, 0, scsi_cdb_readcapacity16(), NULL), SCSI_GOOD);
	assert_int_equal(w->answer[14], 0); /* LBPME */
	assert_int_equal(world_tell(w, 0, scsi_cdb_inquiry(1, 0xb2, 64), NULL), SCSI_GOOD);
	assert_int_equal(w->answer[5], 0);
	assert_int_equal(world_tell(w, 0, scsi_cdb_inquiry(1, 0xb0, 64), NULL), SCSI_GOOD);
	assert_int_equal(weft_get32(w->answer + 20), 0); /* no UNMAP */
	world_free(w);
}

static void flushes_mean_what_there_is_to_flush(void **state)
{
	struct world *w = WORLD(0); /* memory */
	uint8_t block[512] = {1};

	(void)state;
	assert_int_equal(world_tell(w, 0, scsi_cdb_write10(0, 512, 512, 0, 1, 1, 0, 0), block),
		SCSI_GOOD);
	assert_int_equal(world_tell(w, 0, scsi_cdb_synchronizecache16(0, 0, 0, 0), NULL),
		SCSI_GOOD);
	assert_int_equal(world_tell(w, 0, scsi_cdb_startstopunit(0, 0, 0, 0, 0, 0), NULL),
		SCSI_GOOD);
	assert_int_equal(w->nr_flushes, 0);
	world_free(w);

	w = WORLD(.write_cache = true); /* a file that is staged */
	assert_int_equal(world_tell(w, 0, scsi_cdb_write10(0, 512, 512, 0, 1, 1, 0, 0), block),
		SCSI_GOOD);
	assert_int_equal(w->nr_flushes, 1);
	assert_int_equal(world_tell(w, 0, scsi_cdb_synchronizecache16(16, 0, 0, 1), NULL),
		SCSI_GOOD);
	assert_int_equal(w->nr_flushes, 2);
	assert_int_equal(w->cmd.off, 16 * 512);
	assert_int_equal(w->cmd.len, UNIT_BYTES - 16 * 512);
	assert_int_equal(world_tell(w, 0, scsi_cdb_synchronizecache16(16, 2, 0, 0), NULL),
		SCSI_GOOD);
	assert_int_equal(w->cmd.len, 1024);
	assert_int_equal(world_tell(w, 0, scsi_cdb_synchronizecache16(BLOCKS, 0, 0, 0), NULL),
		SCSI_GOOD);
	assert_int_equal(w->nr_flushes, 3);
	assert_int_equal(world_tell(w, 0, scsi_cdb_startstopunit(0, 0, 0, 0, 0, 1), NULL),
		SCSI_GOOD);
	assert_int_equal(world_tell(w, 0, scsi_cdb_startstopunit(0, 0, 0, 1, 0, 0), NULL),
		SCSI_GOOD);
	assert_int_equal(w->nr_flushes, 3);
	assert_int_equal(world_tell(w, 0, scsi_cdb_startstopunit(0, 0, 0, 0, 0, 0), NULL),
		SCSI_GOOD);
	assert_int_equal(w->nr_flushes, 4);
	world_free(w);
}

/* Reads the page, has it changed, and sends it back: "echo write through >cache_type" in Linux. */
static int change_page(struct world *w, unsigned who, uint8_t page, unsigned byte, uint8_t set,
	uint8_t clear)
{
	assert_int_equal(world_tell(w, who,
				 scsi_cdb_modesense6(1, SCSI_MODESENSE_PC_CURRENT,
					 (enum scsi_modesense_page_code)page, 0, 64),
				 NULL),
		SCSI_GOOD);
	const size_t len = w->answer_len;
	uint8_t list[64];

	memcpy(list, w->answer, len);
	memset(list, 0, 4);
	list[4 + byte] = (uint8_t)((list[4 + byte] & ~clear) | set);
	return world_tell(w, who, scsi_cdb_modeselect6(1, 0, (int)len), list);
}

static void the_cache_can_be_switched_off(void **state)
{
	struct world *w = WORLD(.write_cache = true);

	(void)state;
	assert_int_equal(change_page(w, 0, SCSI_PAGE_CACHING, 2, 0, 0x04), SCSI_GOOD);
	assert_int_equal(w->nr_flushes, 1); /* what is in it is written */
	assert_int_equal(write_blocks(w, 0, 0, 1, 1), SCSI_GOOD);
	assert_int_equal(w->nr_flushes, 2);
	uint8_t zeros[512] = {0};

	assert_int_equal(world_tell(w, 0, scsi_cdb_writesame10(0, 0, 0, 0, 0, 1, 512), zeros),
		SCSI_GOOD);
	assert_int_equal(w->nr_flushes, 3);
	/* The others are told; the one who did it knows. */
	world_refused(w, world_tell(w, 1, scsi_cdb_testunitready(), NULL), SCSI_KEY_UNIT_ATTENTION,
		SCSI_ASC_MODE_CHANGED);
	assert_int_equal(world_tell(w, 0, scsi_cdb_testunitready(), NULL), SCSI_GOOD);
	assert_int_equal(change_page(w, 0, SCSI_PAGE_CACHING, 2, 0x04, 0), SCSI_GOOD);
	assert_int_equal(write_blocks(w, 0, 0, 1, 1), SCSI_GOOD);
	assert_int_equal(w->nr_flushes, 3);
	/* A reset has it as it was at first. */
	assert_int_equal(change_page(w, 0, SCSI_PAGE_CACHING, 2, 0, 0x04), SCSI_GOOD);
	scsi_function_end(&w->nexus[0], SCSI_LOGICAL_UNIT_RESET);
	assert_true(atomic_load(&w->unit.wce));
	world_free(w);

	/* Where there is none, none can be switched on. */
	w = WORLD(0);
	world_illegal(w, change_page(w, 0, SCSI_PAGE_CACHING, 2, 0x04, 0),
		SCSI_ASC_INVALID_FIELD_IN_LIST);
	world_points_at(w, false, 6);
	world_free(w);
}

static void sense_data_may_have_descriptors(void **state)
{
	struct world *w = WORLD(0);

	(void)state;
	assert_int_equal(change_page(w, 0, SCSI_PAGE_CONTROL, 2, 0x04, 0), SCSI_GOOD);
	world_illegal(w, read_blocks(w, 0, BLOCKS, 1), SCSI_ASC_LBA_OUT_OF_RANGE);
	assert_int_equal(w->cmd.sense[0], 0x72);
	assert_int_equal(world_send(w, 1,
				 CDB(.opcode = SCSI_OP_REQUEST_SENSE, .desc = true,
					 .list_bytes = 252),
				 252, NULL, 0),
		SCSI_GOOD);
	assert_int_equal(w->answer[0], 0x72); /* whatever the mode */
	assert_int_equal(w->answer[1], SCSI_KEY_UNIT_ATTENTION);
	assert_int_equal(change_page(w, 0, SCSI_PAGE_CONTROL, 2, 0, 0x04), SCSI_GOOD);
	world_illegal(w, read_blocks(w, 0, BLOCKS, 1), SCSI_ASC_LBA_OUT_OF_RANGE);
	assert_int_equal(w->cmd.sense[0], 0x70);
	world_free(w);
}

static void mode_pages_are_asked_for_in_many_ways(void **state)
{
	struct world *w = WORLD(.write_cache = true);
	struct scsi_mode mode;

	(void)state;
	for (int pc = 0; pc < 3; pc++) {
		assert_int_equal(world_tell(w, 0,
					 scsi_cdb_modesense10(1, 0,
						 (enum scsi_modesense_page_control)pc,
						 SCSI_MODEPAGE_RETURN_ALL_PAGES, 0xff, 255),
					 NULL),
			SCSI_GOOD);
		assert_int_equal(scsi_unpack_mode(w->answer, w->answer_len, true, &mode), 0);
		assert_true(mode.has_blocks && mode.long_blocks);
		assert_int_equal(mode.nr_blocks, BLOCKS);
		assert_int_equal(mode.block_bytes, 512);
		assert_true(mode.has_caching && mode.wce);
		assert_true(mode.has_control);
		assert_int_equal(mode.descriptor_sense, pc == SCSI_MODE_CHANGEABLE);
		assert_false(mode.swp || mode.rcd);
	}
	world_illegal(w,
		world_tell(w, 0,
			scsi_cdb_modesense6(0, SCSI_MODESENSE_PC_SAVED, SCSI_MODEPAGE_CACHING, 0,
				64),
			NULL),
		SCSI_ASC_SAVING_NOT_SUPPORTED);
	world_illegal(w,
		world_tell(w, 0,
			scsi_cdb_modesense6(0, SCSI_MODESENSE_PC_CURRENT,
				SCSI_MODEPAGE_POWER_CONDITION, 0, 64),
			NULL),
		SCSI_ASC_INVALID_FIELD_IN_CDB);
	world_points_at(w, true, 2);
	world_illegal(w,
		world_tell(w, 0,
			scsi_cdb_modesense6(0, SCSI_MODESENSE_PC_CURRENT, SCSI_MODEPAGE_CONTROL, 1,
				64),
			NULL),
		SCSI_ASC_INVALID_FIELD_IN_CDB);
	world_points_at(w, true, 3);
	world_free(w);
}

static void mode_lists_that_ask_for_more_are_refused(void **state)
{
	struct world *w = WORLD(.write_cache = true);
	uint8_t list[64] = {0};
	const struct {
		unsigned at;
		uint8_t byte;
	} lies[] = {
		{4, 0x88} /* PS */,
		{4, 0x09},
		{5, 0x13},
		{6, 0x05} /* RCD */,
		{7, 1},
		{23, 0xff},
	};

	(void)state;
	world_illegal(w, world_tell(w, 0, scsi_cdb_modeselect6(0, 0, 24), list),
		SCSI_ASC_INVALID_FIELD_IN_CDB);
	world_illegal(w, world_tell(w, 0, scsi_cdb_modeselect6(1, 1, 24), list), /* SP */
		SCSI_ASC_INVALID_FIELD_IN_CDB);
	world_illegal(w, world_tell(w, 0, scsi_cdb_modeselect10(1, 0, 5000), list),
		SCSI_ASC_PARAMETER_LIST_LENGTH);
	assert_int_equal(world_send(w, 0, CDB(.opcode = SCSI_OP_MODE_SELECT_6, .pf = true), 0, NULL,
				 0),
		SCSI_GOOD);
	for (size_t i = 0; i < WEFT_ARRAY_LEN(lies); i++) {
		memset(list, 0, sizeof(list));
		list[4] = SCSI_PAGE_CACHING;
		list[5] = 18;
		list[lies[i].at] = lies[i].byte;
		world_illegal(w, world_tell(w, 0, scsi_cdb_modeselect6(1, 0, 24), list),
			SCSI_ASC_INVALID_FIELD_IN_LIST);
		world_points_at(w, false, lies[i].at);
		assert_true(atomic_load(&w->unit.wce)); /* nothing of it was done */
	}
	/* Shorter than its head, its descriptor, its page. */
	memset(list, 0, sizeof(list));
	world_illegal(w, world_tell(w, 0, scsi_cdb_modeselect6(1, 0, 3), list),
		SCSI_ASC_PARAMETER_LIST_LENGTH);
	list[3] = 8;
	world_illegal(w, world_tell(w, 0, scsi_cdb_modeselect6(1, 0, 11), list),
		SCSI_ASC_PARAMETER_LIST_LENGTH);
	list[3] = 0;
	list[4] = SCSI_PAGE_CACHING;
	list[5] = 18;
	world_illegal(w, world_tell(w, 0, scsi_cdb_modeselect6(1, 0, 23), list),
		SCSI_ASC_PARAMETER_LIST_LENGTH);
	/* A descriptor that says what is so, and one that does not. */
	memset(list, 0, sizeof(list));
	list[7] = 8;
	weft_put32(list + 8, BLOCKS);
	weft_put32(list + 12, 512);
	assert_int_equal(world_tell(w, 0, scsi_cdb_modeselect10(1, 0, 16), list), SCSI_GOOD);
	weft_put32(list + 8, 0);
	assert_int_equal(world_tell(w, 0, scsi_cdb_modeselect10(1, 0, 16), list), SCSI_GOOD);
	weft_put32(list + 8, BLOCKS - 1);
	world_illegal(w, world_tell(w, 0, scsi_cdb_modeselect10(1, 0, 16), list),
		SCSI_ASC_INVALID_FIELD_IN_LIST);
	weft_put32(list + 8, BLOCKS);
	weft_put32(list + 12, 4096);
	world_illegal(w, world_tell(w, 0, scsi_cdb_modeselect10(1, 0, 16), list),
		SCSI_ASC_INVALID_FIELD_IN_LIST);
	list[7] = 7;
	world_illegal(w, world_tell(w, 0, scsi_cdb_modeselect10(1, 0, 16), list),
		SCSI_ASC_INVALID_FIELD_IN_LIST);
	memset(list, 0, sizeof(list));
	list[4] = 1; /* LONGLBA */
	list[7] = 16;
	weft_put64(list + 8, UINT64_MAX);
	weft_put32(list + 20, 512);
	assert_int_equal(world_tell(w, 0, scsi_cdb_modeselect10(1, 0, 24), list), SCSI_GOOD);
	world_free(w);
}

static void unmap_lists_are_held_against_the_unit(void **state)
{
	struct world *w = WORLD(0);
	static uint8_t list[SCSI_DATA_BYTES];
	const size_t most = scsi_pack_unmap_head(SCSI_MAX_EXTENTS, list);

	(void)state;
	/* As many as may be, and all the same. */
	for (unsigned i = 0; i < SCSI_MAX_EXTENTS; i++)
		scsi_pack_unmap_extent(0, BLOCKS, list + 8 + 16 * i);
	assert_int_equal(world_tell(w, 0, scsi_cdb_unmap(0, 0, (uint16_t)most), list), SCSI_GOOD);
	assert_int_equal(w->trimmed_bytes, (uint64_t)SCSI_MAX_EXTENTS * UNIT_BYTES);
	/* The last of them is outside: none is done. */
	w->trimmed_bytes = 0;
	scsi_pack_unmap_extent(UINT64_MAX, 2, list + 8 + 16 * (SCSI_MAX_EXTENTS - 1));
	world_illegal(w, world_tell(w, 0, scsi_cdb_unmap(0, 0, (uint16_t)most), list),
		SCSI_ASC_LBA_OUT_OF_RANGE);
	assert_int_equal(w->trimmed_bytes, 0);
	world_illegal(w, world_tell(w, 0, scsi_cdb_unmap(0, 0, UINT16_MAX), list),
		SCSI_ASC_INVALID_FIELD_IN_CDB);
	/* More than has come. */
	world_illegal(w, world_tell(w, 0, scsi_cdb_unmap(0, 0, 24), list),
		SCSI_ASC_PARAMETER_LIST_LENGTH);
	world_illegal(w, world_tell(w, 0, scsi_cdb_unmap(0, 0, 7), list),
		SCSI_ASC_PARAMETER_LIST_LENGTH);
	assert_int_equal(world_tell(w, 0, scsi_cdb_unmap(0, 0, 0), list), SCSI_GOOD);
	scsi_pack_unmap_head(0, list);
	assert_int_equal(world_tell(w, 0, scsi_cdb_unmap(0, 0, 8), list), SCSI_GOOD);
	world_illegal(w, world_tell(w, 0, scsi_cdb_unmap(1, 0, 8), list),
		SCSI_ASC_INVALID_FIELD_IN_CDB);
	assert_int_equal(w->trimmed_bytes, 0);
	world_free(w);
}

static void write_same_repeats_its_block(void **state)
{
	struct world *w = WORLD(0);
	uint8_t block[512];

	(void)state;
	memset(block, 0, sizeof(block));
	block[511] = 7;
	assert_int_equal(world_tell(w, 0, scsi_cdb_writesame16(0, 0, 1, 3, 0, 5, 512), block),
		SCSI_GOOD);
	for (unsigned i = 3; i < 8; i++)
		assert_memory_equal(w->medium + 512 * i, block, 512);
	assert_int_equal(w->medium[8 * 512 + 511], 0);
	block[511] = 0;
	assert_int_equal(world_tell(w, 0, scsi_cdb_writesame10(0, 0, 1, 3, 0, 1, 512), block),
		SCSI_GOOD);
	assert_int_equal(w->medium[3 * 512 + 511], 0);
	assert_true(w->cmd.may_punch);
	assert_int_equal(world_tell(w, 0, scsi_cdb_writesame10(0, 0, 0, 4, 0, 1, 512), block),
		SCSI_GOOD);
	assert_false(w->cmd.may_punch);
	assert_int_equal(world_send(w, 0,
				 CDB(.opcode = SCSI_OP_WRITE_SAME_16, .lba = 5, .blocks = 2,
					 .ndob = true),
				 0, NULL, 0),
		SCSI_GOOD);
	assert_int_equal(w->medium[6 * 512 + 511], 0);
	assert_int_equal(w->medium[7 * 512 + 511], 7);
	world_illegal(w, world_tell(w, 0, scsi_cdb_writesame16(0, 0, 0, 0, 0, 0, 512), block),
		SCSI_ASC_INVALID_FIELD_IN_CDB);
	world_points_at(w, true, 10);
	world_illegal(w,
		world_send(w, 0, CDB(.opcode = SCSI_OP_WRITE_SAME_16, .blocks = 1), 0, block, 511),
		SCSI_ASC_INVALID_INFORMATION_UNIT_FIELD);
	world_illegal(w,
		world_tell(w, 0, scsi_cdb_writesame10(0, 1, 1, 0, 0, 1, 512), block), /* ANCHOR */
		SCSI_ASC_INVALID_FIELD_IN_CDB);
	world_free(w);
}

static void verify_finds_the_first_byte_that_differs(void **state)
{
	struct world *w = WORLD(0);
	uint8_t out[1024] = {0};

	(void)state;
	assert_int_equal(world_tell(w, 0, scsi_cdb_verify10(2, 1024, 0, 0, 1, 512), out),
		SCSI_GOOD);
	w->medium[2 * 512 + 700] = 1;
	world_refused(w, world_tell(w, 0, scsi_cdb_verify16(2, 1024, 0, 0, 1, 512), out),
		SCSI_KEY_MISCOMPARE, SCSI_ASC_MISCOMPARE);
	assert_int_equal(w->fault.information, 700);
	assert_int_equal(world_send(w, 0, CDB(.opcode = SCSI_OP_VERIFY_12, .lba = 2, .blocks = 2),
				 0, NULL, 0),
		SCSI_GOOD);
	/* BYTCHK 10b and 11b are reserved, or not ours. */
	for (uint8_t bits = 0x04; bits <= 0x06; bits += 2) {
		const uint8_t cdb[SCSI_CDB_BYTES] = {SCSI_OP_VERIFY_10, bits};

		world_illegal(w,
			world_say(w, 0, &(struct scsi_request){.cdb = cdb, .cdb_bytes = 16}, NULL),
			SCSI_ASC_INVALID_FIELD_IN_CDB);
		world_points_at(w, true, 1);
	}
	world_illegal(w,
		world_send(w, 0, CDB(.opcode = SCSI_OP_VERIFY_10, .blocks = 2, .bytchk = true), 0,
			out, 1000),
		SCSI_ASC_INVALID_INFORMATION_UNIT_FIELD);
	world_free(w);
}

static void operation_codes_are_told_one_by_one(void **state)
{
	struct world *w = WORLD(0);
	struct scsi_cdb cdb = {.opcode = SCSI_OP_MAINTENANCE_IN,
		.action = SCSI_ACTION_REPORT_OPERATION_CODES,
		.list_bytes = 4096};
	bool supported = false;
	const struct {
		uint8_t options, opcode;
		uint16_t action;
		int answer; /* 1, 0; -1: refused */
	} questions[] = {
		{SCSI_OPCODES_ONE, SCSI_OP_READ_16, 0, 1},
		{SCSI_OPCODES_ONE, 0x89, 0, 0},
		{SCSI_OPCODES_ONE, SCSI_OP_PERSISTENT_RESERVE_OUT, 0, -1},
		{SCSI_OPCODES_ONE_ACTION, SCSI_OP_PERSISTENT_RESERVE_OUT, SCSI_PR_PREEMPT, 1},
		{SCSI_OPCODES_ONE_ACTION, SCSI_OP_PERSISTENT_RESERVE_OUT, 7, 0},
		{SCSI_OPCODES_ONE_ACTION, SCSI_OP_PERSISTENT_RESERVE_OUT, 0xffff, 0},
		{SCSI_OPCODES_ONE_ACTION, SCSI_OP_READ_16, 0, -1},
		{SCSI_OPCODES_ONE_ACTION, 0x9d, 3, 0},
		{SCSI_OPCODES_ONE_EITHER, SCSI_OP_READ_16, 0, 1},
		{SCSI_OPCODES_ONE_EITHER, SCSI_OP_SERVICE_ACTION_IN_16, 0x10, 1},
		{SCSI_OPCODES_ONE_EITHER, SCSI_OP_SERVICE_ACTION_IN_16, 0x12, 0},
		{4, SCSI_OP_READ_16, 0, -1},
	};

	(void)state;
	for (size_t i = 0; i < WEFT_ARRAY_LEN(questions); i++) {
		cdb.options = questions[i].options;
		cdb.asked_opcode = questions[i].opcode;
		cdb.asked_action = questions[i].action;
		int status = world_send(w, 0, cdb, 4096, NULL, 0);

		if (questions[i].answer < 0) {
			world_illegal(w, status, SCSI_ASC_INVALID_FIELD_IN_CDB);
			continue;
		}
		assert_int_equal(status, SCSI_GOOD);
		assert_int_equal(scsi_unpack_opcode(w->answer, w->answer_len, &supported), 0);
		assert_int_equal(supported, questions[i].answer);
	}
	cdb.options = SCSI_OPCODES_ALL;
	cdb.rctd = true;
	assert_int_equal(world_send(w, 0, cdb, 4096, NULL, 0), SCSI_GOOD);
	assert_int_equal(w->answer_len, 4 + 20 * scsi_nr_ops);
	world_free(w);
}

/* What is told as supported is; what is not is refused as such. */
static void the_table_of_operations_is_true(void **state)
{
	struct world *w = WORLD(.write_cache = true);

	(void)state;
	for (unsigned i = 0; i < scsi_nr_ops; i++) {
		uint8_t cdb[SCSI_CDB_BYTES] = {scsi_ops[i].opcode};
		static const uint8_t out[SCSI_DATA_BYTES];

		if (scsi_ops[i].action != SCSI_NO_ACTION)
			cdb[1] = scsi_ops[i].action;
		(void)world_say(w, 0,
			&(struct scsi_request){.cdb = cdb,
				.cdb_bytes = 16,
				.in_bytes = 4096,
				.out_bytes = 4096},
			out);
		assert_int_not_equal(w->fault.asc, SCSI_ASC_INVALID_OPCODE);
		if (scsi_ops[i].action != SCSI_NO_ACTION && w->fault.has_field)
			assert_int_not_equal(w->fault.field.byte, 1);
	}
	world_free(w);
}

static void errors_of_the_medium_are_told(void **state)
{
	const struct {
		int error;
		uint8_t key;
		uint16_t read, write;
	} errors[] = {
		{-EIO, SCSI_KEY_MEDIUM_ERROR, SCSI_ASC_READ_ERROR, SCSI_ASC_WRITE_ERROR},
		{-ENOSPC, SCSI_KEY_DATA_PROTECT, SCSI_ASC_SPACE_ALLOCATION_FAILED,
			SCSI_ASC_SPACE_ALLOCATION_FAILED},
		{-ESTALE, SCSI_KEY_HARDWARE_ERROR, SCSI_ASC_INTERNAL_TARGET_FAILURE,
			SCSI_ASC_INTERNAL_TARGET_FAILURE},
		{-ECONNABORTED, SCSI_KEY_ABORTED_COMMAND, SCSI_ASC_DATA_PHASE_ERROR,
			SCSI_ASC_DATA_PHASE_ERROR},
	};
	struct world *w = WORLD(.write_cache = true);

	(void)state;
	for (size_t i = 0; i < WEFT_ARRAY_LEN(errors); i++) {
		w->error = errors[i].error;
		world_refused(w, read_blocks(w, 0, 0, 1), errors[i].key, errors[i].read);
		assert_int_equal(w->cmd.in_residual, 512); /* nothing that could be believed */
		world_refused(w, write_blocks(w, 0, 0, 1, 1), errors[i].key, errors[i].write);
		world_refused(w, world_tell(w, 0, scsi_cdb_synchronizecache10(0, 0, 0, 0), NULL),
			errors[i].key, errors[i].write);
	}
	world_free(w);
}

static void lost_contents_are_never_read(void **state)
{
	struct world *w = WORLD(0);
	static uint8_t data[SCSI_DATA_BYTES];
	uint8_t cdb[SCSI_CDB_BYTES];
	const struct scsi_cdb read = CDB(.opcode = SCSI_OP_READ_10, .blocks = 1);
	struct scsi_command under_way;

	(void)state;
	assert_true(scsi_pack_cdb(&read, cdb) > 0);
	scsi_command_begin(&under_way, &w->nexus[0],
		&(struct scsi_request){.cdb = cdb, .cdb_bytes = 16, .in_bytes = 512}, data);
	assert_int_equal(under_way.kind, SCSI_DO_READ);
	scsi_unit_lose(&w->unit);
	scsi_unit_lose(&w->unit); /* told once */
	scsi_command_end(&under_way, 0);
	assert_int_equal(under_way.status, SCSI_CHECK_CONDITION);
	assert_int_equal(under_way.key, SCSI_KEY_HARDWARE_ERROR);
	for (unsigned who = 0; who < 2; who++) {
		world_refused(w, read_blocks(w, who, 0, 1), SCSI_KEY_UNIT_ATTENTION,
			SCSI_ASC_MEDIUM_CHANGED);
		for (unsigned n = 0; n < 3; n++) {
			world_refused(w, read_blocks(w, who, 0, 1), SCSI_KEY_HARDWARE_ERROR,
				SCSI_ASC_INTERNAL_TARGET_FAILURE);
			world_refused(w, write_blocks(w, who, 0, 1, 1), SCSI_KEY_HARDWARE_ERROR,
				SCSI_ASC_INTERNAL_TARGET_FAILURE);
			world_refused(w, world_tell(w, who, scsi_cdb_testunitready(), NULL),
				SCSI_KEY_HARDWARE_ERROR, SCSI_ASC_INTERNAL_TARGET_FAILURE);
		}
		assert_int_equal(world_tell(w, who, scsi_cdb_inquiry(0, 0, 96), NULL), SCSI_GOOD);
	}
	world_free(w);
}

static void another_size_is_told(void **state)
{
	struct world *w = WORLD(0);

	(void)state;
	assert_int_equal(scsi_unit_resize(&w->unit, 511), -EINVAL);
	assert_int_equal(scsi_unit_resize(&w->unit, 16 * 512 + 511), 0);
	for (unsigned who = 0; who < NR_NEXUSES; who++)
		world_refused(w, read_blocks(w, who, 0, 1), SCSI_KEY_UNIT_ATTENTION,
			SCSI_ASC_CAPACITY_CHANGED);
	world_illegal(w, read_blocks(w, 0, 15, 2), SCSI_ASC_LBA_OUT_OF_RANGE);
	assert_int_equal(read_blocks(w, 0, 15, 1), SCSI_GOOD);
	assert_int_equal(world_tell(w, 0, scsi_cdb_readcapacity10(0, 0), NULL), SCSI_GOOD);
	assert_int_equal(weft_get32(w->answer), 15);
	world_free(w);
}

static void sense_can_be_asked_for(void **state)
{
	struct world *w = WORLD(0);
	const struct scsi_cdb sense = CDB(.opcode = SCSI_OP_REQUEST_SENSE, .list_bytes = 252);
	struct scsi_fault fault;

	(void)state;
	assert_int_equal(scsi_unit_resize(&w->unit, UNIT_BYTES / 2), 0);
	scsi_function_end(&w->nexus[0], SCSI_LOGICAL_UNIT_RESET);
	const uint16_t expected[] = {SCSI_ASC_RESET_BY_FUNCTION, SCSI_ASC_CAPACITY_CHANGED,
		SCSI_ASC_NONE};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(expected); i++) {
		assert_int_equal(world_send(w, 0, sense, 252, NULL, 0), SCSI_GOOD);
		assert_int_equal(scsi_unpack_sense(w->answer, w->answer_len, &fault), 0);
		assert_int_equal(fault.asc, expected[i]);
		assert_int_equal(fault.key,
			fault.asc ? SCSI_KEY_UNIT_ATTENTION : SCSI_KEY_NO_SENSE);
	}
	assert_int_equal(world_tell(w, 0, scsi_cdb_testunitready(), NULL), SCSI_GOOD);
	world_free(w);
}

static void functions_say_whose_commands_end(void **state)
{
	struct world *w = WORLD(0);
	uint64_t slots = 0;

	(void)state;
	assert_int_equal(scsi_function_begin(&w->nexus[1], SCSI_ABORT_TASK, 0, &slots), 0);
	assert_int_equal(slots, 1 << w->nexus[1].slot);
	assert_int_equal(scsi_function_begin(&w->nexus[1], SCSI_ABORT_TASK_SET, 0, &slots), 0);
	assert_int_equal(slots, 1 << w->nexus[1].slot);
	scsi_function_end(&w->nexus[1], SCSI_ABORT_TASK_SET);
	for (unsigned who = 0; who < NR_NEXUSES; who++)
		assert_int_equal(world_tell(w, who, scsi_cdb_testunitready(), NULL), SCSI_GOOD);
	assert_int_equal(scsi_function_begin(&w->nexus[1], SCSI_CLEAR_TASK_SET, 0, &slots), 0);
	assert_int_equal(slots, 7);
	scsi_function_end(&w->nexus[1], SCSI_CLEAR_TASK_SET);
	world_refused(w, world_tell(w, 0, scsi_cdb_testunitready(), NULL), SCSI_KEY_UNIT_ATTENTION,
		SCSI_ASC_COMMANDS_CLEARED);
	assert_int_equal(world_tell(w, 1, scsi_cdb_testunitready(), NULL), SCSI_GOOD);
	assert_int_equal(scsi_function_begin(&w->nexus[0], SCSI_LOGICAL_UNIT_RESET, 0, &slots), 0);
	assert_int_equal(slots, 7);
	scsi_function_end(&w->nexus[0], SCSI_LOGICAL_UNIT_RESET);
	for (unsigned who = 0; who < NR_NEXUSES; who++)
		world_refused(w, world_tell(w, who, scsi_cdb_testunitready(), NULL),
			SCSI_KEY_UNIT_ATTENTION, SCSI_ASC_RESET_BY_FUNCTION);
	assert_int_equal(scsi_function_begin(&w->nexus[0], SCSI_CLEAR_ACA, 0, &slots), -EOPNOTSUPP);
	assert_int_equal(scsi_function_begin(&w->nexus[0], SCSI_ABORT_TASK, 1, &slots), -ENXIO);
	world_free(w);
}

static void who_reads_resets_itself_alone(void **state)
{
	struct world *w = WORLD(0);
	uint64_t slots = 0;

	(void)state;
	w->nexus[1].read_only = true;
	for (int function = SCSI_CLEAR_TASK_SET; function <= SCSI_LOGICAL_UNIT_RESET; function++) {
		assert_int_equal(scsi_function_begin(&w->nexus[1], (enum scsi_function)function, 0,
					 &slots),
			0);
		assert_int_equal(slots, 1 << w->nexus[1].slot);
		scsi_function_end(&w->nexus[1], (enum scsi_function)function);
	}
	assert_int_equal(world_tell(w, 0, scsi_cdb_testunitready(), NULL), SCSI_GOOD);
	world_refused(w, world_tell(w, 1, scsi_cdb_testunitready(), NULL), SCSI_KEY_UNIT_ATTENTION,
		SCSI_ASC_RESET_BY_FUNCTION);
	world_free(w);
}

static void a_full_queue_is_told(void **state)
{
	struct world *w = WORLD(0);
	const uint8_t cdb[SCSI_CDB_BYTES] = {0};

	(void)state;
	scsi_command_refuse(&w->cmd, &w->nexus[0],
		&(struct scsi_request){.cdb = cdb, .cdb_bytes = 16, .in_bytes = 7},
		SCSI_TASK_SET_FULL);
	assert_int_equal(w->cmd.kind, SCSI_DO_END);
	assert_int_equal(w->cmd.status, SCSI_TASK_SET_FULL);
	assert_int_equal(w->cmd.in_residual, 7);
	assert_int_equal(w->cmd.sense_bytes, 0);
	world_free(w);
}

static void names_are_of_donor_and_region(void **state)
{
	struct scsi_names a, b;

	(void)state;
	scsi_names("donor", "region", &a);
	/* For ever: a disk that is known by it is looked for after an upgrade. */
	assert_string_equal(a.serial, "3b4494c1fc3a52296cc7629c432b6f58");
	assert_int_equal(a.naa[0] >> 4, 3);
	scsi_names("donor", "region", &b);
	assert_memory_equal(&a, &b, sizeof(a));
	scsi_names("donorr", "egion", &b);
	assert_string_not_equal(a.serial, b.serial);
	scsi_names("region", "donor", &b);
	assert_string_not_equal(a.serial, b.serial);
}

static void units_and_nexuses_have_bounds(void **state)
{
	struct scsi_unit unit;
	static struct scsi_nexus nexus[SCSI_MAX_NEXUSES + 1];
	struct scsi_unit_config config = {.size_bytes = 511};

	(void)state;
	assert_int_equal(scsi_unit_init(&unit, &config), -EINVAL);
	config.size_bytes = 512;
	config.physical_bytes = 3000;
	assert_int_equal(scsi_unit_init(&unit, &config), -EINVAL);
	config.physical_bytes = 256;
	assert_int_equal(scsi_unit_init(&unit, &config), -EINVAL);
	config.physical_bytes = 512;
	assert_int_equal(scsi_unit_init(&unit, &config), 0);
	for (unsigned i = 0; i <= SCSI_MAX_NEXUSES; i++) {
		world_set_nexus(&nexus[i], i);
		assert_int_equal(scsi_unit_join(&unit, &nexus[i]),
			i < SCSI_MAX_NEXUSES ? 0 : -ENOSPC);
	}
	world_set_nexus(&nexus[SCSI_MAX_NEXUSES], 5);
	assert_int_equal(scsi_unit_join(&unit, &nexus[SCSI_MAX_NEXUSES]), -EEXIST);
	scsi_unit_leave(&nexus[5]);
	assert_int_equal(scsi_unit_join(&unit, &nexus[SCSI_MAX_NEXUSES]), 0);
	assert_int_equal(nexus[SCSI_MAX_NEXUSES].slot, 5);
	for (unsigned i = 0; i <= SCSI_MAX_NEXUSES; i++)
		if (nexus[i].unit)
			scsi_unit_leave(&nexus[i]);
	scsi_unit_fini(&unit);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(linux_finds_a_disk),
		cmocka_unit_test(pages_that_are_not_there_are_refused),
		cmocka_unit_test(a_cdb_that_ends_early_is_refused),
		cmocka_unit_test(other_luns_are_said_not_to_be_there),
		cmocka_unit_test(luns_are_reported_as_asked),
		cmocka_unit_test(blocks_outside_are_refused),
		cmocka_unit_test(transfers_have_a_limit),
		cmocka_unit_test(lengths_that_differ_are_told),
		cmocka_unit_test(nothing_is_written_where_it_may_not),
		cmocka_unit_test(flushes_mean_what_there_is_to_flush),
		cmocka_unit_test(the_cache_can_be_switched_off),
		cmocka_unit_test(sense_data_may_have_descriptors),
		cmocka_unit_test(mode_pages_are_asked_for_in_many_ways),
		cmocka_unit_test(mode_lists_that_ask_for_more_are_refused),
		cmocka_unit_test(unmap_lists_are_held_against_the_unit),
		cmocka_unit_test(write_same_repeats_its_block),
		cmocka_unit_test(verify_finds_the_first_byte_that_differs),
		cmocka_unit_test(operation_codes_are_told_one_by_one),
		cmocka_unit_test(the_table_of_operations_is_true),
		cmocka_unit_test(errors_of_the_medium_are_told),
		cmocka_unit_test(lost_contents_are_never_read),
		cmocka_unit_test(another_size_is_told),
		cmocka_unit_test(sense_can_be_asked_for),
		cmocka_unit_test(functions_say_whose_commands_end),
		cmocka_unit_test(who_reads_resets_itself_alone),
		cmocka_unit_test(a_full_queue_is_told),
		cmocka_unit_test(names_are_of_donor_and_region),
		cmocka_unit_test(units_and_nexuses_have_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
