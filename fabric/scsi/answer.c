/* SPDX-License-Identifier: MIT */
/*
 * What a logical unit says of itself: INQUIRY, READ CAPACITY, REPORT LUNS, the table of operations,
 * sense data that is asked for.  A command belongs to its thread; nothing here changes the unit.
 */
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/scsi/target-private.h"

static uint64_t blocks_of(const struct scsi_command *cmd)
{
	return atomic_load_explicit(&cmd->nexus->unit->nr_blocks, memory_order_relaxed);
}

static size_t standard_data(const struct scsi_command *cmd)
{
	struct scsi_inquiry inquiry = {
		.version = 6, /* SPC-4 */
		.command_queue = true,
		.vendor = "WEFT",
		.product = "region",
		.revision = "1",
		.standards = {0x00a0 /* SAM-5 */, 0x0940 /* SRP */, 0x0460 /* SPC-4 */,
			0x04c0 /* SBC-3 */},
	};

	if (cmd->elsewhere) { /* SPC 6.6.2: there is no such unit, and there cannot be */
		inquiry.qualifier = 3;
		inquiry.type = 0x1f;
	}
	return scsi_pack_inquiry(&inquiry, cmd->data);
}

static size_t designators(const struct scsi_command *cmd)
{
	const struct scsi_unit_config *config = &cmd->nexus->unit->config;
	/* A unit is a target of its own, with one port. */
	static const uint8_t port[4] = {0, 0, 0, 1};
	char t10[8 + sizeof(config->names.serial)] = "WEFT    ";

	memcpy(t10 + 8, config->names.serial, sizeof(config->names.serial));
	const struct scsi_designator names[] = {
		{
			.association = SCSI_OF_UNIT,
			.type = SCSI_DESIGNATOR_NAA,
			.code_set = SCSI_CODE_BINARY,
			.len = sizeof(config->names.naa),
			.bytes = config->names.naa,
		},
		{
			.association = SCSI_OF_UNIT,
			.type = SCSI_DESIGNATOR_T10,
			.code_set = SCSI_CODE_ASCII,
			.len = (uint8_t)strlen(t10),
			.bytes = (const uint8_t *)t10,
		},
		{
			.association = SCSI_OF_PORT,
			.type = SCSI_DESIGNATOR_RELATIVE_PORT,
			.code_set = SCSI_CODE_BINARY,
			.has_protocol = true,
			.protocol = config->protocol,
			.len = sizeof(port),
			.bytes = port,
		},
	};

	return scsi_pack_vpd_designators(names, WEFT_ARRAY_LEN(names), cmd->data);
}

static size_t limits(const struct scsi_command *cmd)
{
	const uint32_t physical = cmd->nexus->unit->config.physical_bytes / SCSI_BLOCK_BYTES;
	struct scsi_limits to = {
		.same_needs_length = true,
		.transfer_granularity = (uint16_t)physical,
		.max_transfer = SCSI_MAX_TRANSFER_BYTES / SCSI_BLOCK_BYTES,
		.optimal_transfer = (1 << 20) / SCSI_BLOCK_BYTES,
		.max_same = SCSI_MAX_ZERO_BYTES / SCSI_BLOCK_BYTES,
	};

	if (!scsi_nexus_is_read_only(cmd->nexus)) {
		to.max_unmap = UINT32_MAX;
		to.max_unmap_extents = SCSI_MAX_EXTENTS;
		to.unmap_granularity = physical;
	}
	return scsi_pack_vpd_limits(&to, cmd->data);
}

/*
 * UNMAP is advisory, so nothing is said of what it leaves (LBPRZ 0).  WRITE SAME leaves zeros where
 * zeros are sent, with its UNMAP bit or without.
 */
static size_t provisioning(const struct scsi_command *cmd)
{
	const bool may = !scsi_nexus_is_read_only(cmd->nexus);
	const struct scsi_provisioning to = {
		.unmap = may,
		.same_16 = may,
		.same_10 = may,
		.type = may ? 1 : 0,
	};

	return scsi_pack_vpd_provisioning(&to, cmd->data);
}

static size_t vpd_page(const struct scsi_command *cmd)
{
	static const uint8_t pages[] = {SCSI_VPD_PAGES, SCSI_VPD_SERIAL, SCSI_VPD_DESIGNATORS,
		SCSI_VPD_LIMITS, SCSI_VPD_CHARACTERISTICS, SCSI_VPD_PROVISIONING};
	const struct scsi_characteristics still = {.rotation = 1};

	switch (cmd->cdb.page) {
	case SCSI_VPD_PAGES:
		return scsi_pack_vpd_pages(pages, sizeof(pages), cmd->data);
	case SCSI_VPD_SERIAL:
		return scsi_pack_vpd_serial(cmd->nexus->unit->config.names.serial, cmd->data);
	case SCSI_VPD_DESIGNATORS:
		return designators(cmd);
	case SCSI_VPD_LIMITS:
		return limits(cmd);
	case SCSI_VPD_CHARACTERISTICS:
		return scsi_pack_vpd_characteristics(&still, cmd->data);
	case SCSI_VPD_PROVISIONING:
		return provisioning(cmd);
	default:
		return 0;
	}
}

void scsi_answer_inquiry(struct scsi_command *cmd)
{
	size_t len = 0;

	if (cmd->cdb.evpd && !cmd->elsewhere)
		len = vpd_page(cmd);
	else if (!cmd->cdb.evpd && cmd->cdb.page == 0)
		len = standard_data(cmd);
	if (len > 0)
		scsi_command_answer(cmd, len, cmd->cdb.list_bytes);
	else
		scsi_command_bad_cdb(cmd, 2, 8);
}

void scsi_answer_sense(struct scsi_command *cmd, uint16_t asc)
{
	struct scsi_fault fault = {.asc = asc};

	if (asc == SCSI_ASC_LUN_NOT_SUPPORTED)
		fault.key = SCSI_KEY_ILLEGAL_REQUEST;
	else if (asc)
		fault.key = SCSI_KEY_UNIT_ATTENTION;
	scsi_command_answer(cmd, scsi_pack_sense(&fault, cmd->cdb.desc, cmd->data),
		cmd->cdb.list_bytes);
}

void scsi_answer_luns(struct scsi_command *cmd)
{
	static const uint64_t unit = 0;

	/* SPC 6.33: 1: well known logical units alone, of which there are none */
	if (cmd->cdb.select > 2)
		scsi_command_bad_cdb(cmd, 2, 8);
	else
		scsi_command_answer(cmd,
			scsi_pack_luns(&unit, cmd->cdb.select == 1 ? 0 : 1, cmd->data),
			cmd->cdb.list_bytes);
}

void scsi_answer_capacity(struct scsi_command *cmd)
{
	const struct scsi_unit_config *config = &cmd->nexus->unit->config;
	const struct scsi_capacity capacity = {
		.last_lba = blocks_of(cmd) - 1,
		.block_bytes = SCSI_BLOCK_BYTES,
		.physical_exponent =
			(uint8_t)__builtin_ctz(config->physical_bytes / SCSI_BLOCK_BYTES),
		.provisioned = !scsi_nexus_is_read_only(cmd->nexus),
	};

	if (cmd->cdb.opcode == SCSI_OP_READ_CAPACITY_10)
		scsi_command_answer(cmd, scsi_pack_capacity_10(&capacity, cmd->data), UINT64_MAX);
	else
		scsi_command_answer(cmd, scsi_pack_capacity_16(&capacity, cmd->data),
			cmd->cdb.list_bytes);
}

void scsi_answer_opcodes(struct scsi_command *cmd)
{
	const struct scsi_cdb *cdb = &cmd->cdb;
	const bool has_actions = scsi_op_has_actions(cdb->asked_opcode);
	uint8_t action = SCSI_NO_ACTION;
	size_t len;

	switch (cdb->options) {
	case SCSI_OPCODES_ALL:
		len = scsi_pack_opcodes(cdb->rctd, cmd->data);
		scsi_command_answer(cmd, len, cdb->list_bytes);
		return;
	case SCSI_OPCODES_ONE:
		if (has_actions) { /* SPC 6.35.1, table 249 */
			scsi_command_bad_cdb(cmd, 2, 2);
			return;
		}
		break;
	case SCSI_OPCODES_ONE_ACTION:
		if (!has_actions && scsi_op_find(cdb->asked_opcode, SCSI_NO_ACTION)) {
			scsi_command_bad_cdb(cmd, 2, 2);
			return;
		}
		action = (uint8_t)weft_min(cdb->asked_action, SCSI_NO_ACTION - 1);
		break;
	case SCSI_OPCODES_ONE_EITHER:
		if (has_actions)
			action = (uint8_t)weft_min(cdb->asked_action, SCSI_NO_ACTION - 1);
		break;
	default:
		scsi_command_bad_cdb(cmd, 2, 2);
		return;
	}
	len = scsi_pack_opcode(cdb->asked_opcode, action, cdb->rctd, cmd->data);
	scsi_command_answer(cmd, len, cdb->list_bytes);
}
