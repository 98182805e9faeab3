/* SPDX-License-Identifier: MIT */
/*
 * A logical unit behind a transport in memory, its medium, and initiators that have logged in.
 * libiscsi builds the CDBs, where it knows them.  One thread.
 */
#ifndef WEFT_TESTS_SUPPORT_SCSI_WORLD_H
#define WEFT_TESTS_SUPPORT_SCSI_WORLD_H

#include <iscsi/scsi-lowlevel.h>

#include "fabric/scsi/target.h"

enum { NR_NEXUSES = 3, BLOCKS = 256, UNIT_BYTES = BLOCKS * SCSI_BLOCK_BYTES };

struct world {
	struct scsi_unit unit;
	struct scsi_nexus nexus[NR_NEXUSES];
	uint8_t medium[UNIT_BYTES];
	/* of the last command */
	struct scsi_command cmd;
	struct scsi_fault fault;
	uint8_t answer[SCSI_DATA_BYTES + UNIT_BYTES];
	size_t answer_len;
	unsigned nr_flushes;
	uint64_t trimmed_bytes;
	uint64_t aborted;
	int error; /* that the medium makes of the next command */
};

#define WORLD(...) world_new((struct scsi_unit_config){__VA_ARGS__})
#define CDB(...) ((struct scsi_cdb){.action = SCSI_NO_ACTION, __VA_ARGS__})

/* The initiator of that number. */
void world_set_nexus(struct scsi_nexus *nexus, unsigned number);

/* No unit attention is pending.  size_bytes, if not 0: of a unit of which nothing is moved. */
struct world *world_new(struct scsi_unit_config config);
void world_free(struct world *w);

/* Sends a command and carries it out.  Its status; w->fault is what its sense data says. */
int world_say(struct world *w, unsigned who, const struct scsi_request *rq, const uint8_t *out);
/* The judge's command, with a buffer as large as it expects; then its answer is there to read. */
int world_ask(struct world *w, unsigned who, struct scsi_task *task, const void *out);
/* The same, for the status alone. */
int world_tell(struct world *w, unsigned who, struct scsi_task *task, const void *out);
/* Our own CDB, with buffers of any size. */
int world_send(struct world *w, unsigned who, struct scsi_cdb cdb, uint64_t in_bytes,
	const void *out, uint64_t out_bytes);

/* What the last command's status and sense data have to be. */
void world_refused(struct world *w, int status, uint8_t key, uint16_t asc);
void world_illegal(struct world *w, int status, uint16_t asc);
void world_points_at(struct world *w, bool in_cdb, unsigned byte);

#endif
