/* SPDX-License-Identifier: MIT */
/*
 * What the files of the target have among themselves.  A command's thread calls them; those that
 * change the unit for others take its lock by themselves.
 */
#ifndef WEFT_FABRIC_SCSI_TARGET_PRIVATE_H
#define WEFT_FABRIC_SCSI_TARGET_PRIVATE_H

#include "fabric/scsi/data.h"
#include "fabric/scsi/target.h"

_Static_assert((int)SCSI_DATA_BYTES >= (int)SCSI_PARAMETER_BYTES, "every answer fits");

/* nexus->gate: unit attentions that it has not been told, the lowest first ... */
enum {
	SCSI_UA_POWER_ON,
	SCSI_UA_RESET,
	SCSI_UA_LOST,
	SCSI_UA_CAPACITY,
	SCSI_UA_CLEARED,
	SCSI_UA_MODE,
	SCSI_UA_REGISTRATIONS_PREEMPTED,
	SCSI_UA_RESERVATIONS_PREEMPTED,
	SCSI_UA_RESERVATIONS_RELEASED,
	SCSI_NR_UAS,
};
/* ... and what others' reservations keep it from. */
enum {
	SCSI_GATE_UAS = (1 << SCSI_NR_UAS) - 1,
	SCSI_GATE_NO_READ = 1 << 16,
	SCSI_GATE_NO_WRITE = 1 << 17,
	SCSI_GATE_RESERVED = SCSI_GATE_NO_READ | SCSI_GATE_NO_WRITE,
};

/* end.c: what a command comes to.  in, out: bytes of the initiator's that are meant to be used. */
void scsi_command_residuals(struct scsi_command *cmd, uint64_t in, uint64_t out);
void scsi_command_good(struct scsi_command *cmd);
void scsi_command_status(struct scsi_command *cmd, uint8_t status);
void scsi_command_fault(struct scsi_command *cmd, const struct scsi_fault *fault);
/* Of an ILLEGAL REQUEST without more to say; one that points into the CDB; and into the list. */
void scsi_command_illegal(struct scsi_command *cmd, uint16_t asc);
void scsi_command_bad_cdb(struct scsi_command *cmd, unsigned byte, unsigned bit);
void scsi_command_bad_list(struct scsi_command *cmd, size_t byte);
/* len bytes of cmd->data are the answer, cut to the ALLOCATION LENGTH allowed. */
void scsi_command_answer(struct scsi_command *cmd, size_t len, uint64_t allowed);
/* The list of `bytes` is needed. */
void scsi_command_fetch(struct scsi_command *cmd, uint32_t bytes);
/* Whether blocks from lba are inside the unit; if not, the command has ended. */
bool scsi_command_inside(struct scsi_command *cmd, uint64_t lba, uint64_t blocks);
/* Everything that was written is made durable, if there is a cache. */
void scsi_command_flush(struct scsi_command *cmd, uint64_t off, uint64_t len);

/* unit.c */
bool scsi_nexus_is_read_only(const struct scsi_nexus *nexus);
/* Takes the first unit attention that is pending: its ASC; 0: there is none. */
uint16_t scsi_nexus_take_attention(struct scsi_nexus *nexus);
/* To all but one (or NULL).  With the lock held. */
void scsi_unit_tell(struct scsi_unit *unit, const struct scsi_nexus *but, unsigned ua);
uint64_t scsi_unit_slots(struct scsi_unit *unit);

/* answer.c: each ends in scsi_command_answer(), or in a fault. */
void scsi_answer_inquiry(struct scsi_command *cmd);
void scsi_answer_sense(struct scsi_command *cmd, uint16_t asc);
void scsi_answer_luns(struct scsi_command *cmd);
void scsi_answer_capacity(struct scsi_command *cmd);
void scsi_answer_opcodes(struct scsi_command *cmd);

/* mode.c */
void scsi_mode_sense(struct scsi_command *cmd);
void scsi_mode_select(struct scsi_command *cmd);
void scsi_mode_selected(struct scsi_command *cmd);

/* reserve.c */
void scsi_reserve_in(struct scsi_command *cmd);
void scsi_reserve_out(struct scsi_command *cmd);
void scsi_reserve_listed(struct scsi_command *cmd);
/* What reservations keep a nexus from that has just come.  With the lock held. */
void scsi_reserve_gate(struct scsi_unit *unit, struct scsi_nexus *nexus);

#endif
