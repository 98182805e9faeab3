/* SPDX-License-Identifier: MIT */
/*
 * What a command comes to: data to send or to fetch, or its end, with status, sense data and
 * residuals.  A command belongs to its thread.
 */
#include <assert.h>
#include <errno.h>

#include "fabric/base/util.h"
#include "fabric/scsi/target-private.h"

void scsi_command_residuals(struct scsi_command *cmd, uint64_t in, uint64_t out)
{
	cmd->in_residual = (int64_t)(cmd->in_bytes - in);
	cmd->out_residual = (int64_t)(cmd->out_bytes - out);
}

void scsi_command_good(struct scsi_command *cmd)
{
	cmd->kind = SCSI_DO_END;
	cmd->status = SCSI_GOOD;
}

void scsi_command_status(struct scsi_command *cmd, uint8_t status)
{
	cmd->kind = SCSI_DO_END;
	cmd->status = status;
	scsi_command_residuals(cmd, 0, 0);
}

void scsi_command_fault(struct scsi_command *cmd, const struct scsi_fault *fault)
{
	bool descriptors =
		atomic_load_explicit(&cmd->nexus->unit->descriptor_sense, memory_order_relaxed);

	scsi_command_status(cmd, SCSI_CHECK_CONDITION);
	cmd->key = fault->key;
	cmd->asc = fault->asc;
	cmd->sense_bytes = (uint8_t)scsi_pack_sense(fault, descriptors, cmd->sense);
}

void scsi_command_illegal(struct scsi_command *cmd, uint16_t asc)
{
	scsi_command_fault(cmd, &(struct scsi_fault){.key = SCSI_KEY_ILLEGAL_REQUEST, .asc = asc});
}

void scsi_command_bad_cdb(struct scsi_command *cmd, unsigned byte, unsigned bit)
{
	scsi_command_fault(cmd,
		&(struct scsi_fault){
			.key = SCSI_KEY_ILLEGAL_REQUEST,
			.asc = SCSI_ASC_INVALID_FIELD_IN_CDB,
			.has_field = true,
			.field_in_cdb = true,
			.field = {.byte = (uint16_t)byte, .bit = (uint8_t)bit},
		});
}

void scsi_command_bad_list(struct scsi_command *cmd, size_t byte)
{
	scsi_command_fault(cmd,
		&(struct scsi_fault){
			.key = SCSI_KEY_ILLEGAL_REQUEST,
			.asc = SCSI_ASC_INVALID_FIELD_IN_LIST,
			.has_field = true,
			.field = {.byte = (uint16_t)byte, .bit = 8},
		});
}

static void fault_of_medium(struct scsi_command *cmd, uint8_t key, uint16_t asc)
{
	scsi_command_fault(cmd, &(struct scsi_fault){.key = key, .asc = asc});
}

void scsi_command_answer(struct scsi_command *cmd, size_t len, uint64_t allowed)
{
	assert(len <= SCSI_DATA_BYTES);
	uint64_t wanted = weft_min(len, allowed);

	scsi_command_residuals(cmd, wanted, 0);
	cmd->data_bytes = (uint32_t)weft_min(wanted, cmd->in_bytes);
	cmd->kind = SCSI_DO_SEND;
	if (cmd->data_bytes == 0)
		scsi_command_good(cmd);
}

void scsi_command_fetch(struct scsi_command *cmd, uint32_t bytes)
{
	assert(bytes > 0 && bytes <= SCSI_DATA_BYTES);
	if (cmd->out_bytes < bytes) {
		scsi_command_illegal(cmd, SCSI_ASC_INVALID_INFORMATION_UNIT_FIELD);
		return;
	}
	scsi_command_residuals(cmd, 0, bytes);
	cmd->data_bytes = bytes;
	cmd->kind = SCSI_DO_FETCH;
}

bool scsi_command_inside(struct scsi_command *cmd, uint64_t lba, uint64_t blocks)
{
	uint64_t nr = atomic_load_explicit(&cmd->nexus->unit->nr_blocks, memory_order_relaxed);

	/* No sum: lba + blocks may wrap. */
	if (lba <= nr && blocks <= nr - lba)
		return true;
	scsi_command_illegal(cmd, SCSI_ASC_LBA_OUT_OF_RANGE);
	return false;
}

void scsi_command_flush(struct scsi_command *cmd, uint64_t off, uint64_t len)
{
	cmd->off = off;
	cmd->len = len;
	cmd->kind = SCSI_DO_FLUSH;
	if (!cmd->nexus->unit->config.write_cache || len == 0)
		scsi_command_good(cmd);
}

/* SCSI_DO_FETCH among them: what was fetched is for the medium. */
static bool touches_medium(enum scsi_kind kind)
{
	return kind != SCSI_DO_SEND && kind != SCSI_DO_ABORT && kind != SCSI_DO_END;
}

static void end_badly(struct scsi_command *cmd, int error)
{
	const bool reads = cmd->kind == SCSI_DO_READ || cmd->kind == SCSI_DO_COMPARE;

	switch (error) {
	case -ESTALE:
	case -ESHUTDOWN:
		fault_of_medium(cmd, SCSI_KEY_HARDWARE_ERROR, SCSI_ASC_INTERNAL_TARGET_FAILURE);
		break;
	case -EROFS:
		fault_of_medium(cmd, SCSI_KEY_DATA_PROTECT, SCSI_ASC_WRITE_PROTECTED);
		break;
	case -ENOSPC:
		fault_of_medium(cmd, SCSI_KEY_DATA_PROTECT, SCSI_ASC_SPACE_ALLOCATION_FAILED);
		break;
	case -ECONNABORTED:
		fault_of_medium(cmd, SCSI_KEY_ABORTED_COMMAND, SCSI_ASC_DATA_PHASE_ERROR);
		break;
	default:
		fault_of_medium(cmd, SCSI_KEY_MEDIUM_ERROR,
			reads ? SCSI_ASC_READ_ERROR : SCSI_ASC_WRITE_ERROR);
	}
}

void scsi_command_end(struct scsi_command *cmd, int error)
{
	/* What was under way while the contents were lost is not believed. */
	if (error == 0 && touches_medium(cmd->kind) &&
		atomic_load_explicit(&cmd->nexus->unit->lost, memory_order_relaxed))
		error = -ESTALE;
	if (error < 0)
		end_badly(cmd, error);
	else
		scsi_command_good(cmd);
}

void scsi_command_miscompare(struct scsi_command *cmd, uint64_t differs)
{
	scsi_command_fault(cmd,
		&(struct scsi_fault){
			.key = SCSI_KEY_MISCOMPARE,
			.asc = SCSI_ASC_MISCOMPARE,
			.has_information = true,
			.information = differs,
		});
}
