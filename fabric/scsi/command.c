/* SPDX-License-Identifier: MIT */
/*
 * The trust boundary: a CDB, and the buffers that the initiator says it has, become something to do
 * that is inside the unit, inside the buffers, and allowed.
 * A command belongs to its thread; of the nexus and the unit only atomics are looked at here.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/scsi/target-private.h"

/* Where the number of blocks is in a CDB that has a LBA. */
static unsigned place_of_blocks(const struct scsi_cdb *cdb)
{
	unsigned bytes = scsi_cdb_bytes(cdb->opcode);

	return bytes == 16 ? 10 : bytes == 12 ? 6 : 7;
}

/* The range of the CDB as bytes.  False: the command has ended. */
static bool take_range(struct scsi_command *cmd, uint64_t max_bytes)
{
	if (!scsi_command_inside(cmd, cmd->cdb.lba, cmd->cdb.blocks))
		return false;
	/* Neither wraps: the unit's size in bytes has 64 bits. */
	cmd->off = cmd->cdb.lba * SCSI_BLOCK_BYTES;
	cmd->len = (uint64_t)cmd->cdb.blocks * SCSI_BLOCK_BYTES;
	if (cmd->len <= max_bytes)
		return true;
	scsi_command_bad_cdb(cmd, place_of_blocks(&cmd->cdb), 8);
	return false;
}

/* FUA where there is something to flush: asked for, or since the cache was switched off. */
static bool wants_fua(const struct scsi_command *cmd)
{
	const struct scsi_unit *unit = cmd->nexus->unit;

	return unit->config.write_cache &&
		(cmd->cdb.fua || !atomic_load_explicit(&unit->wce, memory_order_relaxed));
}

static void begin_read(struct scsi_command *cmd)
{
	if (!take_range(cmd, SCSI_MAX_TRANSFER_BYTES))
		return;
	scsi_command_residuals(cmd, cmd->len, 0);
	/* A buffer that is too short takes what fits, and is told of the rest. */
	cmd->len = weft_min(cmd->len, cmd->in_bytes);
	cmd->kind = SCSI_DO_READ;
	if (cmd->len == 0)
		scsi_command_good(cmd);
}

/* WRITE, and VERIFY of what is sent.  A part is never written, nor compared. */
static void begin_out(struct scsi_command *cmd, enum scsi_kind kind)
{
	if (!take_range(cmd, SCSI_MAX_TRANSFER_BYTES))
		return;
	if (cmd->out_bytes < cmd->len) {
		scsi_command_illegal(cmd, SCSI_ASC_INVALID_INFORMATION_UNIT_FIELD);
		return;
	}
	scsi_command_residuals(cmd, 0, cmd->len);
	cmd->fua = kind == SCSI_DO_WRITE && wants_fua(cmd);
	cmd->kind = kind;
	if (cmd->len == 0)
		scsi_command_good(cmd);
}

static void begin_verify(struct scsi_command *cmd)
{
	if (cmd->cdb.bytchk)
		begin_out(cmd, SCSI_DO_COMPARE);
	else if (take_range(cmd, SCSI_MAX_TRANSFER_BYTES))
		scsi_command_good(cmd); /* memory has no errors that reading would find */
}

static void begin_synchronize(struct scsi_command *cmd)
{
	uint64_t nr = atomic_load_explicit(&cmd->nexus->unit->nr_blocks, memory_order_relaxed);
	uint64_t blocks = cmd->cdb.blocks;

	/* SBC 5.22: no number of blocks means all up to the last. */
	if (blocks == 0 && cmd->cdb.lba <= nr)
		blocks = nr - cmd->cdb.lba;
	if (scsi_command_inside(cmd, cmd->cdb.lba, blocks))
		scsi_command_flush(cmd, cmd->cdb.lba * SCSI_BLOCK_BYTES, blocks * SCSI_BLOCK_BYTES);
}

static void begin_same(struct scsi_command *cmd)
{
	if (cmd->cdb.blocks == 0) { /* WSNZ of page B0h */
		scsi_command_bad_cdb(cmd, place_of_blocks(&cmd->cdb), 8);
		return;
	}
	if (!take_range(cmd, SCSI_MAX_ZERO_BYTES))
		return;
	cmd->fua = wants_fua(cmd);
	cmd->may_punch = cmd->cdb.unmap;
	cmd->kind = SCSI_DO_ZERO;
	if (!cmd->cdb.ndob)
		scsi_command_fetch(cmd, SCSI_BLOCK_BYTES);
}

/* The block of WRITE SAME has come. */
static void same_fetched(struct scsi_command *cmd)
{
	const uint8_t *block = cmd->list;

	cmd->kind = SCSI_DO_SAME;
	if (block[0] == 0 && memcmp(block, block + 1, SCSI_BLOCK_BYTES - 1) == 0)
		cmd->kind = SCSI_DO_ZERO;
}

static void begin_unmap(struct scsi_command *cmd)
{
	if (cmd->cdb.list_bytes == 0)
		scsi_command_good(cmd);
	else if (cmd->cdb.list_bytes < SCSI_UNMAP_HEAD_BYTES)
		scsi_command_illegal(cmd, SCSI_ASC_PARAMETER_LIST_LENGTH);
	else if (cmd->cdb.list_bytes > SCSI_DATA_BYTES)
		scsi_command_bad_cdb(cmd, 7, 8);
	else
		scsi_command_fetch(cmd, cmd->cdb.list_bytes);
}

void scsi_command_extent(const struct scsi_command *cmd, unsigned i, uint64_t *ret_off,
	uint64_t *ret_len)
{
	uint64_t lba;
	uint32_t blocks;

	assert(i < cmd->nr_extents);
	scsi_unpack_unmap_extent(cmd->list + SCSI_UNMAP_HEAD_BYTES + i * SCSI_UNMAP_EXTENT_BYTES,
		&lba, &blocks);
	*ret_off = lba * SCSI_BLOCK_BYTES;
	*ret_len = (uint64_t)blocks * SCSI_BLOCK_BYTES;
}

static void unmap_fetched(struct scsi_command *cmd)
{
	int nr = scsi_unpack_unmap_head(cmd->list, cmd->data_bytes);

	if (nr < 0) {
		scsi_command_illegal(cmd, SCSI_ASC_PARAMETER_LIST_LENGTH);
		return;
	}
	const uint8_t *extent = cmd->list + SCSI_UNMAP_HEAD_BYTES;

	/* All of them, before any is dropped. */
	for (int i = 0; i < nr; i++, extent += SCSI_UNMAP_EXTENT_BYTES) {
		uint64_t lba;
		uint32_t blocks;

		scsi_unpack_unmap_extent(extent, &lba, &blocks);
		if (!scsi_command_inside(cmd, lba, blocks))
			return;
	}
	cmd->nr_extents = (uint32_t)nr;
	cmd->kind = SCSI_DO_UNMAP;
	if (nr == 0)
		scsi_command_good(cmd);
}

/* Stopping is a flush: there is nothing that could stand still. */
static void begin_start_stop(struct scsi_command *cmd)
{
	uint64_t nr = atomic_load_explicit(&cmd->nexus->unit->nr_blocks, memory_order_relaxed);

	if (cmd->cdb.start || cmd->cdb.no_flush)
		scsi_command_good(cmd);
	else
		scsi_command_flush(cmd, 0, nr * SCSI_BLOCK_BYTES);
}

static void begin_write(struct scsi_command *cmd)
{
	begin_out(cmd, SCSI_DO_WRITE);
}

static void begin_sense(struct scsi_command *cmd)
{
	scsi_answer_sense(cmd, scsi_nexus_take_attention(cmd->nexus));
}

enum {
	/* What others' reservations keep it from (SPC table 58, SBC table 13). */
	READS = 1 << 0,
	WRITES = 1 << 1,
	/* It is about the contents, and fails when they are lost. */
	CONTENTS = 1 << 2,
	/* It changes them, or what others find, and is not for who may only read. */
	CHANGES = 1 << 3,
	/* It is answered whatever else has to be told first (SAM 5.14.2). */
	ALWAYS = 1 << 4,
	READ = READS | CONTENTS,
	WRITE = WRITES | CONTENTS | CHANGES,
};

static const struct row {
	void (*begin)(struct scsi_command *cmd);
	unsigned is;
} rows[256] = {
	[SCSI_OP_TEST_UNIT_READY] = {scsi_command_good, CONTENTS},
	[SCSI_OP_REQUEST_SENSE] = {begin_sense, ALWAYS},
	[SCSI_OP_INQUIRY] = {scsi_answer_inquiry, ALWAYS},
	[SCSI_OP_MODE_SELECT_6] = {scsi_mode_select, WRITES | CHANGES},
	[SCSI_OP_MODE_SENSE_6] = {scsi_mode_sense, READS},
	[SCSI_OP_START_STOP_UNIT] = {begin_start_stop, WRITES | CONTENTS},
	[SCSI_OP_READ_CAPACITY_10] = {scsi_answer_capacity, 0},
	[SCSI_OP_READ_10] = {begin_read, READ},
	[SCSI_OP_WRITE_10] = {begin_write, WRITE},
	[SCSI_OP_VERIFY_10] = {begin_verify, READ},
	[SCSI_OP_SYNCHRONIZE_CACHE_10] = {begin_synchronize, WRITES | CONTENTS},
	[SCSI_OP_WRITE_SAME_10] = {begin_same, WRITE},
	[SCSI_OP_UNMAP] = {begin_unmap, WRITE},
	[SCSI_OP_MODE_SELECT_10] = {scsi_mode_select, WRITES | CHANGES},
	[SCSI_OP_MODE_SENSE_10] = {scsi_mode_sense, READS},
	[SCSI_OP_PERSISTENT_RESERVE_IN] = {scsi_reserve_in, 0},
	[SCSI_OP_PERSISTENT_RESERVE_OUT] = {scsi_reserve_out, CHANGES},
	[SCSI_OP_READ_16] = {begin_read, READ},
	[SCSI_OP_WRITE_16] = {begin_write, WRITE},
	[SCSI_OP_VERIFY_16] = {begin_verify, READ},
	[SCSI_OP_SYNCHRONIZE_CACHE_16] = {begin_synchronize, WRITES | CONTENTS},
	[SCSI_OP_WRITE_SAME_16] = {begin_same, WRITE},
	[SCSI_OP_SERVICE_ACTION_IN_16] = {scsi_answer_capacity, 0},
	[SCSI_OP_REPORT_LUNS] = {scsi_answer_luns, ALWAYS},
	[SCSI_OP_MAINTENANCE_IN] = {scsi_answer_opcodes, READS},
	[SCSI_OP_READ_12] = {begin_read, READ},
	[SCSI_OP_WRITE_12] = {begin_write, WRITE},
	[SCSI_OP_VERIFY_12] = {begin_verify, READ},
};

/*
 * Reservations of others, then what the nexus has to be told first (SAM 5.3.3: a conflict goes
 * before a CHECK CONDITION).  False: the command has ended.
 */
static bool passes_gate(struct scsi_command *cmd, unsigned is)
{
	/* In one order with what the transport knows to be under way: see target.h. */
	uint32_t gate = atomic_load(&cmd->nexus->gate);

	if (gate == 0)
		return true;
	if ((is & READS && gate & SCSI_GATE_NO_READ) ||
		(is & WRITES && gate & SCSI_GATE_NO_WRITE)) {
		scsi_command_status(cmd, SCSI_RESERVATION_CONFLICT);
		return false;
	}
	if (!(gate & SCSI_GATE_UAS) || is & ALWAYS)
		return true;
	uint16_t asc = scsi_nexus_take_attention(cmd->nexus);

	if (asc)
		scsi_command_fault(cmd,
			&(struct scsi_fault){.key = SCSI_KEY_UNIT_ATTENTION, .asc = asc});
	return asc == 0;
}

/* There is no unit behind the LUN (SPC 6.6.1, 6.33.1, 6.39). */
static void begin_elsewhere(struct scsi_command *cmd)
{
	switch (cmd->cdb.opcode) {
	case SCSI_OP_INQUIRY:
		scsi_answer_inquiry(cmd);
		break;
	case SCSI_OP_REPORT_LUNS:
		scsi_answer_luns(cmd);
		break;
	case SCSI_OP_REQUEST_SENSE:
		scsi_answer_sense(cmd, SCSI_ASC_LUN_NOT_SUPPORTED);
		break;
	default:
		scsi_command_illegal(cmd, SCSI_ASC_LUN_NOT_SUPPORTED);
	}
}

static void begin(struct scsi_command *cmd, struct scsi_nexus *nexus, const struct scsi_request *rq,
	uint8_t *data)
{
	/* The CDB and the sense data, which come last, are written before they are read. */
	memset(cmd, 0, offsetof(struct scsi_command, cdb));
	cmd->nexus = nexus;
	cmd->data = data;
	cmd->in_bytes = weft_min(rq->in_bytes, INT64_MAX);
	cmd->out_bytes = weft_min(rq->out_bytes, INT64_MAX);
	cmd->elsewhere = !scsi_lun_is_unit(rq->lun);
	scsi_command_residuals(cmd, 0, 0);
}

void scsi_command_begin(struct scsi_command *cmd, struct scsi_nexus *nexus,
	const struct scsi_request *rq, uint8_t *data)
{
	const uint8_t opcode = rq->cdb[0];
	unsigned is = rows[opcode].is;
	struct scsi_field bad;
	int r;

	begin(cmd, nexus, rq, data);
	r = rq->cdb_bytes < scsi_cdb_bytes(opcode) ? -EOPNOTSUPP
						   : scsi_unpack_cdb(rq->cdb, &cmd->cdb, &bad);
	if (r == 0 && cmd->cdb.start) /* START STOP UNIT: to start is allowed to all */
		is &= ~(unsigned)WRITES;
	if (!cmd->elsewhere && !passes_gate(cmd, is))
		return;
	if (r == -EOPNOTSUPP) {
		scsi_command_illegal(cmd,
			cmd->elsewhere ? SCSI_ASC_LUN_NOT_SUPPORTED : SCSI_ASC_INVALID_OPCODE);
	} else if (r < 0) {
		scsi_command_bad_cdb(cmd, bad.byte, bad.bit);
	} else if (cmd->elsewhere) {
		begin_elsewhere(cmd);
	} else if (is & CONTENTS &&
		atomic_load_explicit(&nexus->unit->lost, memory_order_relaxed)) {
		scsi_command_end(cmd, -ESTALE);
	} else if (is & CHANGES && scsi_nexus_is_read_only(nexus)) {
		scsi_command_end(cmd, -EROFS);
	} else {
		rows[opcode].begin(cmd);
	}
}

void scsi_command_fetched(struct scsi_command *cmd, const uint8_t *list)
{
	assert(cmd->kind == SCSI_DO_FETCH);
	cmd->list = list;
	switch (cmd->cdb.opcode) {
	case SCSI_OP_UNMAP:
		unmap_fetched(cmd);
		break;
	case SCSI_OP_WRITE_SAME_10:
	case SCSI_OP_WRITE_SAME_16:
		same_fetched(cmd);
		break;
	case SCSI_OP_PERSISTENT_RESERVE_OUT:
		scsi_reserve_listed(cmd);
		break;
	default:
		scsi_mode_selected(cmd);
	}
}

void scsi_command_refuse(struct scsi_command *cmd, struct scsi_nexus *nexus,
	const struct scsi_request *rq, uint8_t status)
{
	begin(cmd, nexus, rq, NULL);
	scsi_command_status(cmd, status);
}
