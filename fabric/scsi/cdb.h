/* SPDX-License-Identifier: MIT */
/*
 * Command descriptor blocks: what an initiator asks of a logical unit.  Pure functions, any thread;
 * nothing here knows what a logical unit can do beyond the table of operations.
 *
 * "SPC" below is SPC-4 (T10/1731-D), "SBC" is SBC-3 (T10/1799-D), "SAM" is SAM-5.  All integers on
 * the wire are big-endian.
 */
#ifndef WEFT_FABRIC_SCSI_CDB_H
#define WEFT_FABRIC_SCSI_CDB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* SPC table D.2: the operations of which weft knows the layout. */
enum {
	SCSI_OP_TEST_UNIT_READY = 0x00,
	SCSI_OP_REQUEST_SENSE = 0x03,
	SCSI_OP_INQUIRY = 0x12,
	SCSI_OP_MODE_SELECT_6 = 0x15,
	SCSI_OP_MODE_SENSE_6 = 0x1a,
	SCSI_OP_START_STOP_UNIT = 0x1b,
	SCSI_OP_READ_CAPACITY_10 = 0x25,
	SCSI_OP_READ_10 = 0x28,
	SCSI_OP_WRITE_10 = 0x2a,
	SCSI_OP_VERIFY_10 = 0x2f,
	SCSI_OP_SYNCHRONIZE_CACHE_10 = 0x35,
	SCSI_OP_WRITE_SAME_10 = 0x41,
	SCSI_OP_UNMAP = 0x42,
	SCSI_OP_MODE_SELECT_10 = 0x55,
	SCSI_OP_MODE_SENSE_10 = 0x5a,
	SCSI_OP_PERSISTENT_RESERVE_IN = 0x5e,
	SCSI_OP_PERSISTENT_RESERVE_OUT = 0x5f,
	SCSI_OP_READ_16 = 0x88,
	SCSI_OP_WRITE_16 = 0x8a,
	SCSI_OP_VERIFY_16 = 0x8f,
	SCSI_OP_SYNCHRONIZE_CACHE_16 = 0x91,
	SCSI_OP_WRITE_SAME_16 = 0x93,
	SCSI_OP_SERVICE_ACTION_IN_16 = 0x9e, /* READ CAPACITY(16) */
	SCSI_OP_REPORT_LUNS = 0xa0,
	SCSI_OP_MAINTENANCE_IN = 0xa3,       /* REPORT SUPPORTED OPERATION CODES */
	SCSI_OP_READ_12 = 0xa8,
	SCSI_OP_WRITE_12 = 0xaa,
	SCSI_OP_VERIFY_12 = 0xaf,
};

/* Service actions. */
enum {
	SCSI_ACTION_READ_CAPACITY_16 = 0x10,     /* SBC 5.16, of SERVICE ACTION IN(16) */
	SCSI_ACTION_REPORT_OPERATION_CODES = 0x0c, /* SPC 6.35, of MAINTENANCE IN */
	/* SPC 6.15, of PERSISTENT RESERVE IN */
	SCSI_PR_READ_KEYS = 0,
	SCSI_PR_READ_RESERVATION = 1,
	SCSI_PR_REPORT_CAPABILITIES = 2,
	SCSI_PR_READ_FULL_STATUS = 3,
	/* SPC 6.16, of PERSISTENT RESERVE OUT */
	SCSI_PR_REGISTER = 0,
	SCSI_PR_RESERVE = 1,
	SCSI_PR_RELEASE = 2,
	SCSI_PR_CLEAR = 3,
	SCSI_PR_PREEMPT = 4,
	SCSI_PR_PREEMPT_AND_ABORT = 5,
	SCSI_PR_REGISTER_AND_IGNORE = 6,
};

/* SPC 6.15.3.4: types of a reservation. */
enum {
	SCSI_PR_WRITE_EXCLUSIVE = 1,
	SCSI_PR_EXCLUSIVE_ACCESS = 3,
	SCSI_PR_WRITE_EXCLUSIVE_REGISTRANTS = 5,
	SCSI_PR_EXCLUSIVE_ACCESS_REGISTRANTS = 6,
	SCSI_PR_WRITE_EXCLUSIVE_ALL = 7,
	SCSI_PR_EXCLUSIVE_ACCESS_ALL = 8,
};

/* SPC 6.11.1: which values of a mode page MODE SENSE asks for. */
enum {
	SCSI_MODE_CURRENT = 0,
	SCSI_MODE_CHANGEABLE = 1,
	SCSI_MODE_DEFAULT = 2,
	SCSI_MODE_SAVED = 3,
};

/* SPC 6.35: REPORTING OPTIONS. */
enum {
	SCSI_OPCODES_ALL = 0,
	SCSI_OPCODES_ONE = 1,        /* an operation code without service actions */
	SCSI_OPCODES_ONE_ACTION = 2, /* one with */
	SCSI_OPCODES_ONE_EITHER = 3,
};

enum {
	SCSI_CDB_BYTES = 16, /* the longest that weft knows */
	SCSI_NO_ACTION = 0xff,
};

/*
 * One command.  Which fields mean something depends on the operation; packing leaves out the
 * others, and unpacking sets them to 0.
 */
struct scsi_cdb {
	uint8_t opcode;
	uint8_t action;     /* SERVICE ACTION, of an operation that has them; else SCSI_NO_ACTION */
	uint64_t lba;       /* LOGICAL BLOCK ADDRESS */
	uint32_t blocks;    /* TRANSFER or VERIFICATION LENGTH, NUMBER OF LOGICAL BLOCKS */
	uint32_t list_bytes; /* ALLOCATION LENGTH, PARAMETER LIST LENGTH */
	bool dpo, fua;      /* SBC 5.10, 5.29 */
	bool bytchk;        /* SBC 5.24: compare with what is sent */
	bool unmap, ndob;   /* SBC 5.45 */
	bool immed;         /* SYNCHRONIZE CACHE, START STOP UNIT */
	bool start, no_flush; /* START STOP UNIT, SBC 5.20 */
	bool evpd;          /* INQUIRY, SPC 6.6 */
	uint8_t page, subpage; /* INQUIRY, MODE SENSE */
	uint8_t control;    /* MODE SENSE: SCSI_MODE_… */
	bool dbd, llbaa;    /* MODE SENSE, SPC 6.11 */
	bool pf;            /* MODE SELECT, SPC 6.9 */
	bool desc;          /* REQUEST SENSE, SPC 6.39 */
	uint8_t select;     /* REPORT LUNS: SELECT REPORT, SPC 6.33 */
	bool rctd;          /* REPORT SUPPORTED OPERATION CODES, SPC 6.35 */
	uint8_t options;    /* the same: SCSI_OPCODES_… */
	uint8_t asked_opcode;
	uint16_t asked_action;
	uint8_t scope, type; /* PERSISTENT RESERVE OUT */
};

/* A place in a CDB or in a parameter list, which sense data points at (SPC 4.5.2.4.2). */
struct scsi_field {
	uint16_t byte;
	uint8_t bit; /* of the field's highest bit; 8: the whole byte, or bytes */
};

/*
 * One operation, as REPORT SUPPORTED OPERATION CODES tells it.  A bit of a CDB that is not in usage
 * is reserved, or asks for what weft does not do.
 */
struct scsi_op {
	uint8_t opcode, action; /* action: or SCSI_NO_ACTION */
	uint8_t cdb_bytes;
	uint8_t layout;         /* private to cdb.c */
	/* SPC 6.35.3: CDB USAGE DATA; the first byte is the opcode */
	uint8_t usage[SCSI_CDB_BYTES];
	const char *name;       /* "READ(10)", for people */
};

/* In order of opcode and action. */
extern const struct scsi_op scsi_ops[];
extern const unsigned scsi_nr_ops;

/* NULL: weft does not know it.  action: SCSI_NO_ACTION finds an opcode without actions only. */
const struct scsi_op *scsi_op_find(uint8_t opcode, uint8_t action);
/* Whether there are operations of this code that service actions tell apart. */
bool scsi_op_has_actions(uint8_t opcode);

/* How long a CDB of that operation code is (SPC 4.2.5.1); 0: the code does not say. */
unsigned scsi_cdb_bytes(uint8_t opcode);

/*
 * cdb: SCSI_CDB_BYTES can be read; bytes behind the command's own are not looked at.  0;
 * -EOPNOTSUPP: the operation code is unknown; -EINVAL: the service action is, or a bit is set that
 * is not in usage (*bad says where).  ret is untouched on failure, bad on success.
 */
int scsi_unpack_cdb(const uint8_t cdb[SCSI_CDB_BYTES], struct scsi_cdb *ret,
	struct scsi_field *bad);

/*
 * The inverse: the length of the CDB, all SCSI_CDB_BYTES of which are written.  -EOPNOTSUPP: no
 * such operation; -ERANGE: a field does not fit into the operation's (a LBA into 32 bits).
 */
int scsi_pack_cdb(const struct scsi_cdb *cdb, uint8_t ret[SCSI_CDB_BYTES]);

#endif
