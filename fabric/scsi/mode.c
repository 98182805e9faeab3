/* SPDX-License-Identifier: MIT */
/*
 * Mode pages: caching and control.  What can be changed is what has an effect: whether writes may
 * stay in the cache, and the format of sense data.  A command belongs to its thread; what it
 * changes is atomic.
 */
#include <errno.h>

#include "fabric/base/util.h"
#include "fabric/scsi/target-private.h"

/* What is, what can be changed, or what was at first: which is SCSI_MODE_…. */
static struct scsi_mode mode_of(const struct scsi_command *cmd, uint8_t which)
{
	const struct scsi_unit *unit = cmd->nexus->unit;
	struct scsi_mode mode = {
		.ten = scsi_cdb_bytes(cmd->cdb.opcode) == 10,
		.write_protected = scsi_nexus_is_read_only(cmd->nexus),
		.dpofua = true,
		.nr_blocks = atomic_load(&unit->nr_blocks),
		.block_bytes = SCSI_BLOCK_BYTES,
		.wce = unit->config.write_cache,
	};

	if (which == SCSI_MODE_CURRENT) {
		mode.wce = atomic_load(&unit->wce);
		mode.descriptor_sense = atomic_load(&unit->descriptor_sense);
	} else if (which == SCSI_MODE_CHANGEABLE) {
		mode.changeable = true;
		mode.descriptor_sense = true;
	}
	return mode;
}

void scsi_mode_sense(struct scsi_command *cmd)
{
	const struct scsi_cdb *cdb = &cmd->cdb;
	struct scsi_mode mode = mode_of(cmd, cdb->control);

	if (cdb->control == SCSI_MODE_SAVED) {
		scsi_command_illegal(cmd, SCSI_ASC_SAVING_NOT_SUPPORTED);
		return;
	}
	mode.has_caching = cdb->page == SCSI_PAGE_CACHING || cdb->page == SCSI_PAGE_ALL;
	mode.has_control = cdb->page == SCSI_PAGE_CONTROL || cdb->page == SCSI_PAGE_ALL;
	if (!mode.has_caching && !mode.has_control) {
		scsi_command_bad_cdb(cmd, 2, 5);
		return;
	}
	if (cdb->subpage != 0 && cdb->subpage != SCSI_SUBPAGE_ALL) {
		scsi_command_bad_cdb(cmd, 3, 8);
		return;
	}
	mode.has_blocks = !cdb->dbd;
	mode.long_blocks = cdb->llbaa;
	scsi_command_answer(cmd, scsi_pack_mode(&mode, cmd->data), cdb->list_bytes);
}

void scsi_mode_select(struct scsi_command *cmd)
{
	if (!cmd->cdb.pf)
		scsi_command_bad_cdb(cmd, 1, 4);
	else if (cmd->cdb.list_bytes == 0)
		scsi_command_good(cmd);
	else if (cmd->cdb.list_bytes > SCSI_DATA_BYTES)
		scsi_command_illegal(cmd, SCSI_ASC_PARAMETER_LIST_LENGTH);
	else
		scsi_command_fetch(cmd, cmd->cdb.list_bytes);
}

void scsi_mode_selected(struct scsi_command *cmd)
{
	struct scsi_unit *unit = cmd->nexus->unit;
	const struct scsi_mode is = mode_of(cmd, SCSI_MODE_CURRENT);
	const struct scsi_mode can = mode_of(cmd, SCSI_MODE_CHANGEABLE);
	struct scsi_mode to;
	size_t bad;
	int r = scsi_unpack_mode_list(cmd->list, cmd->data_bytes, &is, &can, &to, &bad);

	if (r == -EPROTO) {
		scsi_command_illegal(cmd, SCSI_ASC_PARAMETER_LIST_LENGTH);
		return;
	}
	if (r < 0) {
		scsi_command_bad_list(cmd, bad);
		return;
	}
	atomic_store(&unit->wce, to.wce);
	atomic_store(&unit->descriptor_sense, to.descriptor_sense);
	if (to.wce != is.wce || to.descriptor_sense != is.descriptor_sense) {
		pthread_mutex_lock(&unit->lock);
		scsi_unit_tell(unit, cmd->nexus, SCSI_UA_MODE);
		pthread_mutex_unlock(&unit->lock);
	}
	/* SBC 6.5.5: what is in a cache that is switched off is written. */
	if (is.wce && !to.wce)
		scsi_command_flush(cmd, 0, is.nr_blocks * SCSI_BLOCK_BYTES);
	else
		scsi_command_good(cmd);
}
