/* SPDX-License-Identifier: MIT */
/* Status and sense data, as an initiator has to take them.  Pure functions. */
#include "transports/srp/borrower/judge.h"

#include <errno.h>
#include <stdio.h>

/* SPC annex D: what an initiator meets beyond what weft's own units say */
enum {
	ASC_NOT_READY = 0x04,
	ASCQ_BECOMING_READY = 0x01,
	ASC_DATA_PROTECT_SPACE = 0x2707,
	ASC_RESET = 0x29,
	ASCQ_RESET_BUS = 0x02,
	ASCQ_RESET_BY_FUNCTION = 0x03,
	ASCQ_NEXUS_LOSS = 0x07,
	ASC_PARAMETERS_CHANGED = 0x2a,
	ASCQ_LAST_HARMLESS_PARAMETER = 0x05, /* mode pages, logs, reservations */
	ASC_COMMANDS_CLEARED = 0x2f,
};

static void describe(struct srp_judgement *j, int code)
{
	const char *words = scsi_asc_name(j->fault.asc);

	weft_error_set(&j->why, code, "the unit says %s, %02x/%02x%s%s",
		scsi_key_name(j->fault.key), j->fault.asc >> 8, j->fault.asc & 0xff,
		words ? ": " : "", words ? words : "");
}

static void end(struct srp_judgement *j, int code)
{
	j->verdict = SRP_END;
	describe(j, code);
}

static void fail(struct srp_judgement *j, int code)
{
	j->verdict = SRP_DONE;
	j->status = -code;
	describe(j, code);
}

/*
 * Some tell only of what others did to the unit's queue.  After any other the unit, or what it
 * holds, may not be what it was: a restart has lost what was not flushed, too.
 */
static bool is_harmless(uint16_t asc)
{
	uint8_t high = (uint8_t)(asc >> 8), low = (uint8_t)asc;

	switch (high) {
	case ASC_RESET:
		return low == ASCQ_RESET_BUS || low == ASCQ_RESET_BY_FUNCTION ||
			low == ASCQ_NEXUS_LOSS;
	case ASC_PARAMETERS_CHANGED:
		return low >= 1 && low <= ASCQ_LAST_HARMLESS_PARAMETER;
	case ASC_COMMANDS_CLEARED:
		return true;
	default:
		return false;
	}
}

bool srp_is_news(const struct scsi_fault *fault)
{
	return fault->key == SCSI_KEY_UNIT_ATTENTION && !is_harmless(fault->asc);
}

bool srp_is_greeting(const struct scsi_fault *fault)
{
	return srp_is_news(fault) && fault->asc >> 8 == ASC_RESET;
}

static void judge_illegal(struct srp_judgement *j, bool begun)
{
	switch (j->fault.asc) {
	case SCSI_ASC_LBA_OUT_OF_RANGE: /* we keep to its size */
	case SCSI_ASC_LUN_NOT_SUPPORTED:
		if (begun)
			end(j, ENOTCONN);
		else
			fail(j, j->fault.asc == SCSI_ASC_LUN_NOT_SUPPORTED ? ENOENT : EIO);
		break;
	default:
		fail(j, EOPNOTSUPP);
	}
}

static void judge_fault(struct srp_judgement *j, bool begun)
{
	switch (j->fault.key) {
	case SCSI_KEY_NO_SENSE:
	case SCSI_KEY_RECOVERED_ERROR:
		break;
	case SCSI_KEY_UNIT_ATTENTION:
		if (begun && srp_is_news(&j->fault))
			end(j, ENOTCONN);
		else
			j->verdict = SRP_AGAIN;
		break;
	case SCSI_KEY_ABORTED_COMMAND:
		j->verdict = SRP_AGAIN;
		break;
	case SCSI_KEY_NOT_READY:
		if (j->fault.asc == (ASC_NOT_READY << 8 | ASCQ_BECOMING_READY))
			j->verdict = SRP_LATER;
		else
			fail(j, EIO);
		break;
	case SCSI_KEY_DATA_PROTECT:
		fail(j, j->fault.asc == ASC_DATA_PROTECT_SPACE ? ENOSPC : EPERM);
		break;
	case SCSI_KEY_ILLEGAL_REQUEST:
		judge_illegal(j, begun);
		break;
	default:
		fail(j, EIO);
	}
	/* What is not done says why, should it be given up. */
	if (j->verdict == SRP_AGAIN || j->verdict == SRP_LATER)
		describe(j, EIO);
}

static void judge_check(const struct srp_rsp *rsp, bool begun, struct srp_judgement *j)
{
	if (rsp->sense_bytes == 0 ||
		scsi_unpack_sense(rsp->sense, rsp->sense_bytes, &j->fault) < 0) {
		j->status = weft_error_set(&j->why, EIO,
			"the unit failed a command and does not say why");
		return;
	}
	j->has_fault = true;
	if (j->fault.deferred) {
		/* This command was not carried out; another, which was answered, failed later. */
		j->deferred = true;
		j->verdict = SRP_AGAIN;
		describe(j, EIO);
		return;
	}
	judge_fault(j, begun);
}

void srp_judge(const struct srp_rsp *rsp, bool begun, struct srp_judgement *ret)
{
	*ret = (struct srp_judgement){.verdict = SRP_DONE};
	if (rsp->has_code && rsp->code != SRP_RSP_GOOD) {
		ret->status = weft_error_set(&ret->why, EIO,
			"the target refused a command (response code %u)", rsp->code);
		return;
	}
	switch (rsp->status) {
	case SCSI_GOOD:
		break;
	case SCSI_CHECK_CONDITION:
		judge_check(rsp, begun, ret);
		break;
	case SCSI_BUSY:
	case SCSI_TASK_SET_FULL:
		ret->verdict = SRP_LATER;
		weft_error_set(&ret->why, EIO, "the unit is too busy: %s",
			scsi_status_name(rsp->status));
		break;
	case SCSI_TASK_ABORTED:
		ret->verdict = SRP_AGAIN;
		weft_error_set(&ret->why, EIO, "another initiator aborts our commands");
		break;
	case SCSI_RESERVATION_CONFLICT:
		ret->verdict = SRP_END;
		weft_error_set(&ret->why, EBUSY, "another initiator has reserved the unit");
		break;
	default:
		ret->status = weft_error_set(&ret->why, EIO, "the unit answered with status %02xh",
			rsp->status);
	}
}
