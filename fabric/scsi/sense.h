/* SPDX-License-Identifier: MIT */
/*
 * Status and sense data: how a command ended, and why.  Pure functions, any thread.
 */
#ifndef WEFT_FABRIC_SCSI_SENSE_H
#define WEFT_FABRIC_SCSI_SENSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/scsi/cdb.h"

/* SAM 5.3.1 */
enum {
	SCSI_GOOD = 0x00,
	SCSI_CHECK_CONDITION = 0x02,
	SCSI_CONDITION_MET = 0x04,
	SCSI_BUSY = 0x08,
	SCSI_RESERVATION_CONFLICT = 0x18,
	SCSI_TASK_SET_FULL = 0x28,
	SCSI_ACA_ACTIVE = 0x30,
	SCSI_TASK_ABORTED = 0x40,
};

/* SPC 4.5.6: sense keys */
enum {
	SCSI_KEY_NO_SENSE = 0x0,
	SCSI_KEY_RECOVERED_ERROR = 0x1,
	SCSI_KEY_NOT_READY = 0x2,
	SCSI_KEY_MEDIUM_ERROR = 0x3,
	SCSI_KEY_HARDWARE_ERROR = 0x4,
	SCSI_KEY_ILLEGAL_REQUEST = 0x5,
	SCSI_KEY_UNIT_ATTENTION = 0x6,
	SCSI_KEY_DATA_PROTECT = 0x7,
	SCSI_KEY_ABORTED_COMMAND = 0xb,
	SCSI_KEY_MISCOMPARE = 0xe,
};

/* SPC annex D.1: additional sense code, and its qualifier in the low byte */
enum {
	SCSI_ASC_NONE = 0x0000,
	SCSI_ASC_BECOMING_READY = 0x0401,
	SCSI_ASC_WRITE_ERROR = 0x0c00,
	SCSI_ASC_INVALID_INFORMATION_UNIT_FIELD = 0x0e03,
	SCSI_ASC_READ_ERROR = 0x1100,
	SCSI_ASC_PARAMETER_LIST_LENGTH = 0x1a00,
	SCSI_ASC_MISCOMPARE = 0x1d00,
	SCSI_ASC_INVALID_OPCODE = 0x2000,
	SCSI_ASC_LBA_OUT_OF_RANGE = 0x2100,
	SCSI_ASC_INVALID_FIELD_IN_CDB = 0x2400,
	SCSI_ASC_LUN_NOT_SUPPORTED = 0x2500,
	SCSI_ASC_INVALID_FIELD_IN_LIST = 0x2600,
	SCSI_ASC_PARAMETER_VALUE_INVALID = 0x2602,
	SCSI_ASC_INVALID_RELEASE = 0x2604,
	SCSI_ASC_WRITE_PROTECTED = 0x2700,
	SCSI_ASC_SPACE_ALLOCATION_FAILED = 0x2707,
	SCSI_ASC_MEDIUM_CHANGED = 0x2800,
	SCSI_ASC_POWER_ON = 0x2900,
	SCSI_ASC_RESET_BY_FUNCTION = 0x2903,
	SCSI_ASC_NEXUS_LOSS = 0x2907,
	SCSI_ASC_MODE_CHANGED = 0x2a01,
	SCSI_ASC_RESERVATIONS_PREEMPTED = 0x2a03,
	SCSI_ASC_RESERVATIONS_RELEASED = 0x2a04,
	SCSI_ASC_REGISTRATIONS_PREEMPTED = 0x2a05,
	SCSI_ASC_CAPACITY_CHANGED = 0x2a09,
	SCSI_ASC_COMMANDS_CLEARED = 0x2f00,
	SCSI_ASC_SAVING_NOT_SUPPORTED = 0x3900,
	SCSI_ASC_MEDIUM_NOT_PRESENT = 0x3a00,
	SCSI_ASC_INTERNAL_TARGET_FAILURE = 0x4400,
	SCSI_ASC_DATA_PHASE_ERROR = 0x4b00,
	SCSI_ASC_INSUFFICIENT_REGISTRATION_RESOURCES = 0x5504,
};

enum {
	SCSI_SENSE_FIXED_BYTES = 18,
	SCSI_SENSE_MAX_BYTES = 32, /* the longest that scsi_pack_sense() makes */
	SCSI_SENSE_READ_BYTES = 252, /* SPC 4.5.1: what an initiator has to take */
};

struct scsi_fault {
	uint8_t key;     /* SCSI_KEY_… */
	uint16_t asc;    /* SCSI_ASC_… */
	bool deferred;   /* of an earlier command */
	bool has_information;
	uint64_t information; /* a LBA, or an offset; SPC 4.5.2.2 */
	bool has_field;  /* ILLEGAL REQUEST: what is wrong, SPC 4.5.2.4.2 */
	bool field_in_cdb; /* or in the parameter list */
	struct scsi_field field;
};

/*
 * Fixed format (SPC 4.5.3), or with descriptors (SPC 4.5.2): the length.  Information that does not
 * fit into the fixed format's 32 bits is left out.
 */
size_t scsi_pack_sense(const struct scsi_fault *fault, bool descriptors,
	uint8_t ret[SCSI_SENSE_MAX_BYTES]);

/* Either format, of len bytes as a peer sent them.  0; -EPROTO: neither, or too short for a key. */
int scsi_unpack_sense(const uint8_t *sense, size_t len, struct scsi_fault *ret);

/* For people: "ILLEGAL REQUEST"; "invalid field in CDB", or NULL if weft has no words for it. */
const char *scsi_key_name(uint8_t key);
const char *scsi_asc_name(uint16_t asc);
/* "GOOD"; "status" for what is not known. */
const char *scsi_status_name(uint8_t status);

#endif
