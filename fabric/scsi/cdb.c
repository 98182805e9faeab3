/* SPDX-License-Identifier: MIT */
/*
 * Byte order of command descriptor blocks, and the table of operations: the one place that says
 * which bits of which command mean something.  Pure functions, any thread.
 */
#include "fabric/scsi/cdb.h"

#include <errno.h>
#include <string.h>

#include "fabric/base/bytes.h"

enum layout {
	PLAIN, /* nothing but the operation code */
	SENSE,
	INQUIRY,
	MODE_SELECT,
	MODE_SENSE,
	START_STOP,
	TRANSFER, /* READ, WRITE */
	VERIFY,
	SYNCHRONIZE,
	SAME,
	UNMAP,
	RESERVE_IN,
	RESERVE_OUT,
	CAPACITY_16,
	LUNS,
	OPCODES,
};

/* Bits of byte 1, unless it says otherwise. */
enum {
	DESC = 0x01,         /* SPC 6.39 */
	EVPD = 0x01,         /* SPC 6.6 */
	PF = 0x10,           /* SPC 6.9 */
	LLBAA = 0x10,        /* SPC 6.12 */
	DBD = 0x08,          /* SPC 6.11 */
	IMMED_START = 0x01,  /* SBC 5.20 */
	NO_FLUSH = 0x04,     /* byte 4 */
	START = 0x01,        /* byte 4 */
	DPO = 0x10,          /* SBC 5.10 */
	FUA = 0x08,
	BYTCHK_1 = 0x02,     /* SBC 5.24: BYTCHK is 01b */
	IMMED_SYNC = 0x02,   /* SBC 5.22 */
	WS_UNMAP = 0x08,     /* SBC 5.45 */
	NDOB = 0x01,
	RCTD = 0x80,         /* SPC 6.35, byte 2 */
	REPORTING = 0x07,    /* byte 2 */
	ACTION = 0x1f,       /* SPC 4.2.5.2 */
};

#define FF2 0xff, 0xff
#define FF4 FF2, FF2
#define FF8 FF4, FF4
/* Bytes behind a CDB: whatever they are. */
#define END_6 FF8, FF2
#define END_10 FF4, FF2
#define END_12 FF4

/* The rows, so that the index below cannot be wrong. */
enum {
	ROW_TEST_UNIT_READY,
	ROW_REQUEST_SENSE,
	ROW_INQUIRY,
	ROW_MODE_SELECT_6,
	ROW_MODE_SENSE_6,
	ROW_START_STOP_UNIT,
	ROW_READ_CAPACITY_10,
	ROW_READ_10,
	ROW_WRITE_10,
	ROW_VERIFY_10,
	ROW_SYNCHRONIZE_CACHE_10,
	ROW_WRITE_SAME_10,
	ROW_UNMAP,
	ROW_MODE_SELECT_10,
	ROW_MODE_SENSE_10,
	ROW_PERSISTENT_RESERVE_IN,
	ROW_PERSISTENT_RESERVE_OUT = ROW_PERSISTENT_RESERVE_IN + 4,
	ROW_READ_16 = ROW_PERSISTENT_RESERVE_OUT + 7,
	ROW_WRITE_16,
	ROW_VERIFY_16,
	ROW_SYNCHRONIZE_CACHE_16,
	ROW_WRITE_SAME_16,
	ROW_SERVICE_ACTION_IN_16,
	ROW_REPORT_LUNS,
	ROW_MAINTENANCE_IN,
	ROW_READ_12,
	ROW_WRITE_12,
	ROW_VERIFY_12,
	NR_ROWS,
};

#define ROW(NAME, CODE, BYTES, LAYOUT, ...)                                                        \
	[ROW_##CODE] = {SCSI_OP_##CODE, SCSI_NO_ACTION, BYTES, LAYOUT,                             \
		{SCSI_OP_##CODE, __VA_ARGS__}, NAME}
#define PR_IN(NAME, WHICH)                                                                         \
	[ROW_PERSISTENT_RESERVE_IN + WHICH] = {SCSI_OP_PERSISTENT_RESERVE_IN, WHICH, 10,           \
		RESERVE_IN,                                                                        \
		{SCSI_OP_PERSISTENT_RESERVE_IN, WHICH, 0, 0, 0, 0, 0, FF2, 0, END_10},             \
		"PERSISTENT RESERVE IN, " NAME}
/* TYPE: the bits of SCOPE and TYPE that mean something. */
#define PR_OUT(NAME, WHICH, TYPE)                                                                  \
	[ROW_PERSISTENT_RESERVE_OUT + WHICH] = {SCSI_OP_PERSISTENT_RESERVE_OUT, WHICH, 10,         \
		RESERVE_OUT,                                                                       \
		{SCSI_OP_PERSISTENT_RESERVE_OUT, WHICH, TYPE, 0, 0, FF4, 0, END_10},               \
		"PERSISTENT RESERVE OUT, " NAME}

/* The sections are SPC's and SBC's of the commands. */
const struct scsi_op scsi_ops[] = {
	/* SPC 6.47 */
	ROW("TEST UNIT READY", TEST_UNIT_READY, 6, PLAIN, 0, 0, 0, 0, 0, END_6),
	/* SPC 6.39 */
	ROW("REQUEST SENSE", REQUEST_SENSE, 6, SENSE, DESC, 0, 0, 0xff, 0, END_6),
	/* SPC 6.6 */
	ROW("INQUIRY", INQUIRY, 6, INQUIRY, EVPD, 0xff, FF2, 0, END_6),
	/* SPC 6.9; there are no pages to save */
	ROW("MODE SELECT(6)", MODE_SELECT_6, 6, MODE_SELECT, PF, 0, 0, 0xff, 0, END_6),
	/* SPC 6.11 */
	ROW("MODE SENSE(6)", MODE_SENSE_6, 6, MODE_SENSE, DBD, 0xff, 0xff, 0xff, 0, END_6),
	/* SBC 5.20; there are no power conditions, and nothing to eject */
	ROW("START STOP UNIT", START_STOP_UNIT, 6, START_STOP, IMMED_START, 0, 0, NO_FLUSH | START,
		0, END_6),
	/* SBC 5.15 */
	ROW("READ CAPACITY(10)", READ_CAPACITY_10, 10, PLAIN, 0, 0, 0, 0, 0, 0, 0, 0, 0, END_10),
	/* SBC 5.10, 5.29; there is no protection information, and there are no groups */
	ROW("READ(10)", READ_10, 10, TRANSFER, DPO | FUA, FF4, 0, FF2, 0, END_10),
	ROW("WRITE(10)", WRITE_10, 10, TRANSFER, DPO | FUA, FF4, 0, FF2, 0, END_10),
	/* SBC 5.24 */
	ROW("VERIFY(10)", VERIFY_10, 10, VERIFY, DPO | BYTCHK_1, FF4, 0, FF2, 0, END_10),
	/* SBC 5.22 */
	ROW("SYNCHRONIZE CACHE(10)", SYNCHRONIZE_CACHE_10, 10, SYNCHRONIZE, IMMED_SYNC, FF4, 0, FF2,
		0, END_10),
	/* SBC 5.45; nothing is anchored */
	ROW("WRITE SAME(10)", WRITE_SAME_10, 10, SAME, WS_UNMAP, FF4, 0, FF2, 0, END_10),
	/* SBC 5.28 */
	ROW("UNMAP", UNMAP, 10, UNMAP, 0, 0, 0, 0, 0, 0, FF2, 0, END_10),
	/* SPC 6.10 */
	ROW("MODE SELECT(10)", MODE_SELECT_10, 10, MODE_SELECT, PF, 0, 0, 0, 0, 0, FF2, 0, END_10),
	/* SPC 6.12 */
	ROW("MODE SENSE(10)", MODE_SENSE_10, 10, MODE_SENSE, DBD | LLBAA, 0xff, 0xff, 0, 0, 0, FF2,
		0, END_10),
	/* SPC 6.15 */
	PR_IN("READ KEYS", SCSI_PR_READ_KEYS),
	PR_IN("READ RESERVATION", SCSI_PR_READ_RESERVATION),
	PR_IN("REPORT CAPABILITIES", SCSI_PR_REPORT_CAPABILITIES),
	PR_IN("READ FULL STATUS", SCSI_PR_READ_FULL_STATUS),
	/* SPC 6.16; SCOPE and TYPE are ignored where nothing is reserved */
	PR_OUT("REGISTER", SCSI_PR_REGISTER, 0xff),
	PR_OUT("RESERVE", SCSI_PR_RESERVE, 0xff),
	PR_OUT("RELEASE", SCSI_PR_RELEASE, 0xff),
	PR_OUT("CLEAR", SCSI_PR_CLEAR, 0xff),
	PR_OUT("PREEMPT", SCSI_PR_PREEMPT, 0xff),
	PR_OUT("PREEMPT AND ABORT", SCSI_PR_PREEMPT_AND_ABORT, 0xff),
	PR_OUT("REGISTER AND IGNORE EXISTING KEY", SCSI_PR_REGISTER_AND_IGNORE, 0xff),
	/* SBC 5.12, 5.31, 5.26, 5.23, 5.46 */
	ROW("READ(16)", READ_16, 16, TRANSFER, DPO | FUA, FF8, FF4, 0, 0),
	ROW("WRITE(16)", WRITE_16, 16, TRANSFER, DPO | FUA, FF8, FF4, 0, 0),
	ROW("VERIFY(16)", VERIFY_16, 16, VERIFY, DPO | BYTCHK_1, FF8, FF4, 0, 0),
	ROW("SYNCHRONIZE CACHE(16)", SYNCHRONIZE_CACHE_16, 16, SYNCHRONIZE, IMMED_SYNC, FF8, FF4, 0,
		0),
	ROW("WRITE SAME(16)", WRITE_SAME_16, 16, SAME, WS_UNMAP | NDOB, FF8, FF4, 0, 0),
	/* SBC 5.16 */
	[ROW_SERVICE_ACTION_IN_16] = {SCSI_OP_SERVICE_ACTION_IN_16, SCSI_ACTION_READ_CAPACITY_16,
		16, CAPACITY_16,
		{SCSI_OP_SERVICE_ACTION_IN_16, SCSI_ACTION_READ_CAPACITY_16, 0, 0, 0, 0, 0, 0, 0, 0,
			FF4, 0, 0},
		"READ CAPACITY(16)"},
	/* SPC 6.33 */
	ROW("REPORT LUNS", REPORT_LUNS, 12, LUNS, 0, 0xff, 0, 0, 0, FF4, 0, 0, END_12),
	/* SPC 6.35 */
	[ROW_MAINTENANCE_IN] = {SCSI_OP_MAINTENANCE_IN, SCSI_ACTION_REPORT_OPERATION_CODES, 12,
		OPCODES,
		{SCSI_OP_MAINTENANCE_IN, SCSI_ACTION_REPORT_OPERATION_CODES, RCTD | REPORTING, 0xff,
			FF2, FF4, 0, 0, END_12},
		"REPORT SUPPORTED OPERATION CODES"},
	/* SBC 5.11, 5.30, 5.25 */
	ROW("READ(12)", READ_12, 12, TRANSFER, DPO | FUA, FF4, FF4, 0, 0, END_12),
	ROW("WRITE(12)", WRITE_12, 12, TRANSFER, DPO | FUA, FF4, FF4, 0, 0, END_12),
	ROW("VERIFY(12)", VERIFY_12, 12, VERIFY, DPO | BYTCHK_1, FF4, FF4, 0, 0, END_12),
};
const unsigned scsi_nr_ops = NR_ROWS;
_Static_assert(sizeof(scsi_ops) / sizeof(scsi_ops[0]) == NR_ROWS, "every row");
_Static_assert(NR_ROWS < 255, "rows fit into the index");

#define AT(CODE) [SCSI_OP_##CODE] = ROW_##CODE + 1
/* Of each operation code, 1 + its first row. */
static const uint8_t first_row[256] = {
	AT(TEST_UNIT_READY), AT(REQUEST_SENSE), AT(INQUIRY), AT(MODE_SELECT_6), AT(MODE_SENSE_6),
	AT(START_STOP_UNIT), AT(READ_CAPACITY_10), AT(READ_10), AT(WRITE_10), AT(VERIFY_10),
	AT(SYNCHRONIZE_CACHE_10), AT(WRITE_SAME_10), AT(UNMAP), AT(MODE_SELECT_10),
	AT(MODE_SENSE_10), AT(PERSISTENT_RESERVE_IN), AT(PERSISTENT_RESERVE_OUT), AT(READ_16),
	AT(WRITE_16), AT(VERIFY_16), AT(SYNCHRONIZE_CACHE_16), AT(WRITE_SAME_16),
	AT(SERVICE_ACTION_IN_16), AT(REPORT_LUNS), AT(MAINTENANCE_IN), AT(READ_12), AT(WRITE_12),
	AT(VERIFY_12),
};

const struct scsi_op *scsi_op_find(uint8_t opcode, uint8_t action)
{
	if (!first_row[opcode])
		return NULL;
	for (unsigned i = first_row[opcode] - 1u; i < NR_ROWS && scsi_ops[i].opcode == opcode; i++)
		if (scsi_ops[i].action == action)
			return &scsi_ops[i];
	return NULL;
}

bool scsi_op_has_actions(uint8_t opcode)
{
	return first_row[opcode] && scsi_ops[first_row[opcode] - 1].action != SCSI_NO_ACTION;
}

unsigned scsi_cdb_bytes(uint8_t opcode)
{
	static const uint8_t of_group[8] = {6, 10, 10, 0, 16, 12, 0, 0};

	return of_group[opcode >> 5];
}

/* SPC 4.5.2.4.2: the bit pointer is the leftmost bit of the field in error. */
static uint8_t highest(uint8_t bits)
{
	uint8_t bit = 7;

	while (!(bits >> bit))
		bit--;
	return bit;
}

/* Whether all bits of the CDB are in usage. */
static bool in_usage(const struct scsi_op *op, const uint8_t *cdb, struct scsi_field *bad)
{
	uint64_t has[2], may[2];

	memcpy(has, cdb, sizeof(has));
	memcpy(may, op->usage, sizeof(may));
	if (!((has[0] & ~may[0]) | (has[1] & ~may[1])))
		return true;
	unsigned i = 0;

	while (!(cdb[i] & ~op->usage[i]))
		i++;
	*bad = (struct scsi_field){
		.byte = (uint16_t)i,
		.bit = highest((uint8_t)(cdb[i] & ~op->usage[i])),
	};
	return false;
}

/* LBA and number of blocks, in the places that go with the CDB's length. */
static void unpack_blocks(const uint8_t *cdb, unsigned bytes, struct scsi_cdb *ret)
{
	if (bytes == 16) {
		ret->lba = weft_get64(cdb + 2);
		ret->blocks = weft_get32(cdb + 10);
	} else {
		ret->lba = weft_get32(cdb + 2);
		ret->blocks = bytes == 12 ? weft_get32(cdb + 6) : weft_get16(cdb + 7);
	}
}

static int pack_blocks(const struct scsi_cdb *cdb, unsigned bytes, uint8_t *ret)
{
	if (bytes == 16) {
		weft_put64(ret + 2, cdb->lba);
		weft_put32(ret + 10, cdb->blocks);
		return 0;
	}
	if (cdb->lba > UINT32_MAX || (bytes == 10 && cdb->blocks > UINT16_MAX))
		return -ERANGE;
	weft_put32(ret + 2, (uint32_t)cdb->lba);
	if (bytes == 12)
		weft_put32(ret + 6, cdb->blocks);
	else
		weft_put16(ret + 7, (uint16_t)cdb->blocks);
	return 0;
}

/* ALLOCATION LENGTH or PARAMETER LIST LENGTH: where it is, and how long. */
static unsigned list_place(const struct scsi_op *op, unsigned *ret_bytes)
{
	switch (op->layout) {
	case SENSE:
		*ret_bytes = 1;
		return 4;
	case INQUIRY:
		*ret_bytes = 2;
		return 3;
	case MODE_SELECT:
	case MODE_SENSE:
		*ret_bytes = op->cdb_bytes == 6 ? 1 : 2;
		return op->cdb_bytes == 6 ? 4 : 7;
	case UNMAP:
	case RESERVE_IN:
		*ret_bytes = 2;
		return 7;
	case RESERVE_OUT:
		*ret_bytes = 4;
		return 5;
	case CAPACITY_16:
		*ret_bytes = 4;
		return 10;
	case LUNS:
	case OPCODES:
		*ret_bytes = 4;
		return 6;
	default:
		*ret_bytes = 0;
		return 0;
	}
}

static void unpack_list(const struct scsi_op *op, const uint8_t *cdb, struct scsi_cdb *ret)
{
	unsigned bytes, at = list_place(op, &bytes);

	for (unsigned i = 0; i < bytes; i++)
		ret->list_bytes = ret->list_bytes << 8 | cdb[at + i];
}

static int pack_list(const struct scsi_op *op, const struct scsi_cdb *cdb, uint8_t *ret)
{
	unsigned bytes, at = list_place(op, &bytes);

	if (bytes < 4 && cdb->list_bytes >> (8 * bytes))
		return -ERANGE;
	for (unsigned i = 0; i < bytes; i++)
		ret[at + i] = (uint8_t)(cdb->list_bytes >> (8 * (bytes - 1 - i)));
	return 0;
}

/* What is neither a range nor a length. */
static void unpack_rest(const struct scsi_op *op, const uint8_t *cdb, struct scsi_cdb *ret)
{
	switch (op->layout) {
	case SENSE:
		ret->desc = cdb[1] & DESC;
		break;
	case INQUIRY:
		ret->evpd = cdb[1] & EVPD;
		ret->page = cdb[2];
		break;
	case MODE_SELECT:
		ret->pf = cdb[1] & PF;
		break;
	case MODE_SENSE:
		ret->dbd = cdb[1] & DBD;
		ret->llbaa = cdb[1] & LLBAA;
		ret->control = cdb[2] >> 6;
		ret->page = cdb[2] & 0x3f;
		ret->subpage = cdb[3];
		break;
	case START_STOP:
		ret->immed = cdb[1] & IMMED_START;
		ret->no_flush = cdb[4] & NO_FLUSH;
		ret->start = cdb[4] & START;
		break;
	case VERIFY:
		ret->dpo = cdb[1] & DPO;
		ret->bytchk = cdb[1] & BYTCHK_1;
		break;
	case SYNCHRONIZE:
		ret->immed = cdb[1] & IMMED_SYNC;
		break;
	case SAME:
		ret->unmap = cdb[1] & WS_UNMAP;
		ret->ndob = cdb[1] & NDOB;
		break;
	case RESERVE_OUT:
		ret->scope = cdb[2] >> 4;
		ret->type = cdb[2] & 0xf;
		break;
	case LUNS:
		ret->select = cdb[2];
		break;
	case OPCODES:
		ret->rctd = cdb[2] & RCTD;
		ret->options = cdb[2] & REPORTING;
		ret->asked_opcode = cdb[3];
		ret->asked_action = weft_get16(cdb + 4);
		break;
	}
}

static void pack_rest(const struct scsi_op *op, const struct scsi_cdb *cdb, uint8_t *ret)
{
	switch (op->layout) {
	case SENSE:
		ret[1] = cdb->desc ? DESC : 0;
		break;
	case INQUIRY:
		ret[1] = cdb->evpd ? EVPD : 0;
		ret[2] = cdb->page;
		break;
	case MODE_SELECT:
		ret[1] = cdb->pf ? PF : 0;
		break;
	case MODE_SENSE:
		ret[1] = (uint8_t)((cdb->dbd ? DBD : 0) |
			(cdb->llbaa && op->cdb_bytes == 10 ? LLBAA : 0));
		ret[2] = (uint8_t)(cdb->control << 6 | (cdb->page & 0x3f));
		ret[3] = cdb->subpage;
		break;
	case START_STOP:
		ret[1] = cdb->immed ? IMMED_START : 0;
		ret[4] = (uint8_t)((cdb->no_flush ? NO_FLUSH : 0) | (cdb->start ? START : 0));
		break;
	case TRANSFER:
		ret[1] = (uint8_t)((cdb->dpo ? DPO : 0) | (cdb->fua ? FUA : 0));
		break;
	case VERIFY:
		ret[1] = (uint8_t)((cdb->dpo ? DPO : 0) | (cdb->bytchk ? BYTCHK_1 : 0));
		break;
	case SYNCHRONIZE:
		ret[1] = cdb->immed ? IMMED_SYNC : 0;
		break;
	case SAME:
		ret[1] = (uint8_t)((cdb->unmap ? WS_UNMAP : 0) |
			(cdb->ndob && op->cdb_bytes == 16 ? NDOB : 0));
		break;
	case RESERVE_OUT:
		ret[2] = (uint8_t)(cdb->scope << 4 | (cdb->type & 0xf));
		break;
	case LUNS:
		ret[2] = cdb->select;
		break;
	case OPCODES:
		ret[2] = (uint8_t)((cdb->rctd ? RCTD : 0) | (cdb->options & REPORTING));
		ret[3] = cdb->asked_opcode;
		weft_put16(ret + 4, cdb->asked_action);
		break;
	}
	if (op->action != SCSI_NO_ACTION)
		ret[1] |= op->action;
}

static bool has_blocks(const struct scsi_op *op)
{
	return op->layout >= TRANSFER && op->layout <= SAME;
}

int scsi_unpack_cdb(const uint8_t cdb[SCSI_CDB_BYTES], struct scsi_cdb *ret,
	struct scsi_field *bad)
{
	const struct scsi_op *op;

	if (!first_row[cdb[0]])
		return -EOPNOTSUPP;
	op = &scsi_ops[first_row[cdb[0]] - 1];
	if (op->action != SCSI_NO_ACTION)
		op = scsi_op_find(cdb[0], cdb[1] & ACTION);
	if (!op) {
		*bad = (struct scsi_field){.byte = 1, .bit = 4};
		return -EINVAL;
	}
	if (!in_usage(op, cdb, bad))
		return -EINVAL;
	*ret = (struct scsi_cdb){.opcode = op->opcode, .action = op->action};
	if (op->layout == TRANSFER) { /* the one that has to be quick */
		ret->dpo = cdb[1] & DPO;
		ret->fua = cdb[1] & FUA;
		unpack_blocks(cdb, op->cdb_bytes, ret);
	} else {
		if (has_blocks(op))
			unpack_blocks(cdb, op->cdb_bytes, ret);
		unpack_list(op, cdb, ret);
		unpack_rest(op, cdb, ret);
	}
	return 0;
}

int scsi_pack_cdb(const struct scsi_cdb *cdb, uint8_t ret[SCSI_CDB_BYTES])
{
	const struct scsi_op *op = scsi_op_find(cdb->opcode, cdb->action);
	uint8_t to[SCSI_CDB_BYTES] = {cdb->opcode};
	int r = 0;

	if (!op)
		return -EOPNOTSUPP;
	if (has_blocks(op))
		r = pack_blocks(cdb, op->cdb_bytes, to);
	if (r == 0)
		r = pack_list(op, cdb, to);
	if (r < 0)
		return r;
	pack_rest(op, cdb, to);
	memcpy(ret, to, sizeof(to));
	return op->cdb_bytes;
}
