/* SPDX-License-Identifier: MIT */
/* The command layer of SCSI: a READ(10) or a WRITE(16) from its CDB to its status. */
#include <err.h>

#include "fabric/scsi/target.h"
#include "perf/count/count.h"

/* The name is what perf/count/run counts by. */
__attribute__((noinline)) void weft_counted_scsi(struct scsi_nexus *nexus,
	uint8_t cdb[][SCSI_CDB_BYTES], bool write, unsigned batch);

void weft_counted_scsi(struct scsi_nexus *nexus, uint8_t cdb[][SCSI_CDB_BYTES], bool write,
	unsigned batch)
{
	static struct scsi_command cmd[COUNT_MAX_BATCH];
	static uint8_t data[SCSI_DATA_BYTES];
	struct scsi_request rq = {.cdb_bytes = SCSI_CDB_BYTES};

	*(write ? &rq.out_bytes : &rq.in_bytes) = COUNT_BYTES;
	for (unsigned op = 0; op < COUNT_OPS; op += batch) {
		for (unsigned i = 0; i < batch; i++) {
			rq.cdb = cdb[i];
			scsi_command_begin(&cmd[i], nexus, &rq, data);
			if (cmd[i].kind != (write ? SCSI_DO_WRITE : SCSI_DO_READ))
				errx(1, "the command is not carried out");
		}
		for (unsigned i = 0; i < batch; i++)
			scsi_command_end(&cmd[i], 0);
	}
}

void count_scsi(bool write, unsigned batch)
{
	const struct scsi_unit_config config = {.size_bytes = COUNT_REGION};
	static uint8_t cdb[COUNT_MAX_BATCH][SCSI_CDB_BYTES];
	static const uint8_t test[SCSI_CDB_BYTES] = {SCSI_OP_TEST_UNIT_READY};
	static uint8_t data[SCSI_DATA_BYTES];
	struct scsi_nexus nexus = {.read_only = false};
	struct scsi_unit unit;
	struct scsi_command cmd;

	if (scsi_unit_init(&unit, &config) < 0 || scsi_unit_join(&unit, &nexus) < 0)
		errx(1, "set-up");
	/* power on is told */
	scsi_command_begin(&cmd, &nexus,
		&(struct scsi_request){.cdb = test, .cdb_bytes = SCSI_CDB_BYTES}, data);
	for (unsigned i = 0; i < batch; i++) {
		const struct scsi_cdb is = {
			.opcode = write ? SCSI_OP_WRITE_16 : SCSI_OP_READ_10,
			.action = SCSI_NO_ACTION,
			.lba = i * (COUNT_BYTES / SCSI_BLOCK_BYTES),
			.blocks = COUNT_BYTES / SCSI_BLOCK_BYTES,
		};

		if (scsi_pack_cdb(&is, cdb[i]) < 0)
			errx(1, "CDB");
	}
	weft_counted_scsi(&nexus, cdb, write, batch);
	scsi_unit_leave(&nexus);
	scsi_unit_fini(&unit);
}
