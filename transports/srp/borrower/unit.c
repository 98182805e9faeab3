/* SPDX-License-Identifier: MIT */
/*
 * The examination of a unit.  Invariant: what an answer says is believed only within its length,
 * and what is unsaid is taken for the worse.
 */
#include "transports/srp/borrower/unit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "fabric/base/util.h"

enum {
	QUALIFIER_ABSENT = 3, /* SPC 6.6.2: no unit can be there; 1: it is not there now */
	TYPE_DISK = 0x00,
	PR_WRITE_EXCLUSIVE_ALL = 0x07,
	/* for units that say nothing: what every one takes */
	DEFAULT_TRANSFER_BYTES = 512 << 10,
	MAX_TRANSFER_BYTES = 8 << 20,
	DEFAULT_SAME_BYTES = 4 << 20,
	MAX_SAME_BYTES = 256 << 20,
};

static const char no_unit[] = "there is no unit of this number";

void srp_exam_begin(struct srp_exam *exam, bool wants_write)
{
	*exam = (struct srp_exam){.wants_write = wants_write, .unit.write_cache = true};
}

static bool is_due(const struct srp_exam *exam)
{
	switch (exam->step) {
	case SRP_EXAM_SERIAL:
		return exam->has_serial;
	case SRP_EXAM_DESIGNATORS:
		return exam->has_designators;
	case SRP_EXAM_LIMITS:
		return exam->has_limits;
	case SRP_EXAM_PROVISIONING:
		return exam->has_provisioning;
	case SRP_EXAM_OPCODE:
		return !exam->unit.can_same && !exam->unit.read_only;
	default:
		return true;
	}
}

static uint32_t ask_page(struct scsi_cdb *cdb, uint8_t page)
{
	cdb->opcode = SCSI_OP_INQUIRY;
	cdb->evpd = true;
	cdb->page = page;
	return SRP_UNIT_DATA_BYTES;
}

bool srp_exam_next(struct srp_exam *exam, struct scsi_cdb *ret, uint32_t *ret_bytes)
{
	struct scsi_cdb cdb = {.action = SCSI_NO_ACTION};
	uint32_t bytes = 0;

	while (exam->step < SRP_EXAM_END && !is_due(exam))
		exam->step++;
	switch (exam->step) {
	case SRP_EXAM_READY:
		cdb.opcode = SCSI_OP_TEST_UNIT_READY;
		break;
	case SRP_EXAM_INQUIRY:
		cdb.opcode = SCSI_OP_INQUIRY;
		bytes = 96;
		break;
	case SRP_EXAM_CAPACITY:
		cdb.opcode = SCSI_OP_SERVICE_ACTION_IN_16;
		cdb.action = SCSI_ACTION_READ_CAPACITY_16;
		bytes = SCSI_CAPACITY_16_BYTES;
		break;
	case SRP_EXAM_MODE:
		cdb.opcode = SCSI_OP_MODE_SENSE_10;
		cdb.dbd = true;
		cdb.page = SCSI_PAGE_CACHING;
		bytes = 256;
		break;
	case SRP_EXAM_PAGES:
		bytes = ask_page(&cdb, SCSI_VPD_PAGES);
		break;
	case SRP_EXAM_SERIAL:
		bytes = ask_page(&cdb, SCSI_VPD_SERIAL);
		break;
	case SRP_EXAM_DESIGNATORS:
		bytes = ask_page(&cdb, SCSI_VPD_DESIGNATORS);
		break;
	case SRP_EXAM_LIMITS:
		bytes = ask_page(&cdb, SCSI_VPD_LIMITS);
		break;
	case SRP_EXAM_PROVISIONING:
		bytes = ask_page(&cdb, SCSI_VPD_PROVISIONING);
		break;
	case SRP_EXAM_OPCODE:
		cdb.opcode = SCSI_OP_MAINTENANCE_IN;
		cdb.action = SCSI_ACTION_REPORT_OPERATION_CODES;
		cdb.options = SCSI_OPCODES_ONE;
		cdb.asked_opcode = SCSI_OP_WRITE_SAME_16;
		bytes = 64;
		break;
	case SRP_EXAM_RESERVATION:
		cdb.opcode = SCSI_OP_PERSISTENT_RESERVE_IN;
		cdb.action = SCSI_PR_READ_RESERVATION;
		bytes = 64;
		break;
	case SRP_EXAM_READ:
		cdb.opcode = SCSI_OP_READ_16;
		cdb.blocks = 1;
		bytes = exam->unit.block_bytes;
		break;
	case SRP_EXAM_END:
		return false;
	}
	if (cdb.opcode != SCSI_OP_READ_16)
		cdb.list_bytes = bytes;
	*ret = cdb;
	*ret_bytes = bytes;
	return true;
}

static int take_inquiry(struct srp_exam *exam, const uint8_t *data, size_t len,
	struct weft_error *err)
{
	struct scsi_inquiry *inquiry = &exam->inquiry;

	if (scsi_unpack_inquiry(data, len, inquiry) < 0)
		return weft_error_set(err, EPROTO, "its answer to INQUIRY makes no sense");
	if (inquiry->qualifier != 0)
		return weft_error_set(err, ENOENT, "%s", no_unit);
	if (inquiry->type != TYPE_DISK)
		return weft_error_set(err, EINVAL,
			"the unit is no disk, but a device of type %02xh", inquiry->type);
	return 0;
}

static int take_capacity(struct srp_exam *exam, const uint8_t *data, size_t len,
	struct weft_error *err)
{
	struct srp_unit *unit = &exam->unit;
	struct scsi_capacity c;

	if (scsi_unpack_capacity_16(data, len, &c) < 0)
		return weft_error_set(err, EPROTO, "its answer to READ CAPACITY(16) is too short");
	if (c.block_bytes < 512 || c.block_bytes > SRP_UNIT_DATA_BYTES ||
		(c.block_bytes & (c.block_bytes - 1)))
		return weft_error_set(err, EINVAL,
			"its blocks have %" PRIu32 " bytes; weft takes 512 to %d, powers of two",
			c.block_bytes, SRP_UNIT_DATA_BYTES);
	if (c.protection)
		return weft_error_set(err, EINVAL,
			"it wants protection information (type %u), which weft does not send",
			c.protection);
	if (c.last_lba >= INT64_MAX / c.block_bytes)
		return weft_error_set(err, EINVAL, "its size makes no sense");
	unit->size_bytes = (c.last_lba + 1) * c.block_bytes;
	unit->block_bytes = c.block_bytes;
	unit->physical_bytes = (uint32_t)weft_min((uint64_t)c.block_bytes << c.physical_exponent,
		64 << 10);
	unit->reads_zeros = c.reads_zeros;
	unit->max_transfer = DEFAULT_TRANSFER_BYTES / c.block_bytes;
	unit->max_same = DEFAULT_SAME_BYTES / c.block_bytes;
	return 0;
}

static void take_mode(struct srp_exam *exam, const uint8_t *data, size_t len)
{
	struct scsi_mode mode;

	if (scsi_unpack_mode(data, len, true, &mode) < 0)
		return;
	exam->unit.read_only = mode.write_protected;
	exam->unit.fua = mode.dpofua;
	if (mode.has_caching)
		exam->unit.write_cache = mode.wce;
}

static void take_pages(struct srp_exam *exam, const uint8_t *data, size_t len)
{
	exam->has_serial = scsi_vpd_has_page(data, len, SCSI_VPD_SERIAL);
	exam->has_designators = scsi_vpd_has_page(data, len, SCSI_VPD_DESIGNATORS);
	exam->has_limits = scsi_vpd_has_page(data, len, SCSI_VPD_LIMITS);
	exam->has_provisioning = scsi_vpd_has_page(data, len, SCSI_VPD_PROVISIONING);
}

/* The unit's names, in whatever order; not those of the port, which another way would change. */
static void take_designators(struct srp_exam *exam, const uint8_t *data, size_t len)
{
	struct scsi_designator d;
	size_t at = 0;

	while (scsi_next_designator(data, len, &at, &d) == 0)
		if (d.association == SCSI_OF_UNIT && d.len > 0)
			exam->names += XXH3_64bits_withSeed(d.bytes, d.len, d.type);
}

static uint32_t blocks_of(const struct srp_unit *unit, uint64_t said, uint64_t most_bytes)
{
	return (uint32_t)weft_min(said ? said : UINT32_MAX, most_bytes / unit->block_bytes);
}

static void take_limits(struct srp_exam *exam, const uint8_t *data, size_t len)
{
	struct srp_unit *unit = &exam->unit;
	struct scsi_limits limits;

	if (scsi_unpack_vpd_limits(data, len, &limits) < 0)
		return;
	unit->max_transfer = blocks_of(unit, limits.max_transfer, MAX_TRANSFER_BYTES);
	unit->max_same = blocks_of(unit, limits.max_same, MAX_SAME_BYTES);
	unit->can_same = limits.max_same > 0;
	if (limits.max_unmap_extents > 0)
		unit->max_unmap = limits.max_unmap;
}

static void take_provisioning(struct srp_exam *exam, const uint8_t *data, size_t len)
{
	struct srp_unit *unit = &exam->unit;
	struct scsi_provisioning p;

	if (scsi_unpack_vpd_provisioning(data, len, &p) < 0)
		return;
	unit->can_unmap = p.unmap && unit->max_unmap > 0;
	unit->same_can_unmap = p.same_16;
	unit->can_same |= p.same_16;
	unit->reads_zeros |= p.reads_zeros == 1;
}

static int take_reservation(const struct srp_exam *exam, const uint8_t *data, size_t len,
	struct weft_error *err)
{
	struct scsi_pr_reservation r;

	if (scsi_unpack_pr_reservation(data, len, &r) < 0 || r.type == 0)
		return 0;
	bool for_reads = r.type == SCSI_PR_EXCLUSIVE_ACCESS ||
		r.type == SCSI_PR_EXCLUSIVE_ACCESS_REGISTRANTS ||
		r.type == SCSI_PR_EXCLUSIVE_ACCESS_ALL;
	if (!exam->wants_write && !for_reads)
		return 0;
	return weft_error_set(err, EBUSY,
		"another initiator has reserved the unit (type %u); sg_persist shows who", r.type);
}

/* All that it is called, so that another unit is told apart. */
static void name_it(struct srp_exam *exam)
{
	struct srp_unit *unit = &exam->unit;
	char text[200];

	snprintf(text, sizeof(text), "%s %s", exam->inquiry.vendor, exam->inquiry.product);
	for (char *p = text; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	snprintf(unit->name, sizeof(unit->name), "%.30s%s%.60s", text,
		exam->serial[0] ? ", serial " : "", exam->serial);
	snprintf(text, sizeof(text), "%.8s|%.16s|%.64s|%016" PRIx64 "|%" PRIu32,
		exam->inquiry.vendor, exam->inquiry.product, exam->serial, exam->names,
		unit->block_bytes);
	unit->identity = XXH3_64bits(text, strlen(text));
}

/* Without these the unit cannot be used. */
static bool is_needed(enum srp_exam_step step)
{
	return step == SRP_EXAM_READY || step == SRP_EXAM_INQUIRY || step == SRP_EXAM_CAPACITY ||
		step == SRP_EXAM_READ;
}

static int take(struct srp_exam *exam, const uint8_t *data, size_t len, struct weft_error *err)
{
	bool supported;

	switch (exam->step) {
	case SRP_EXAM_INQUIRY:
		return take_inquiry(exam, data, len, err);
	case SRP_EXAM_CAPACITY:
		return take_capacity(exam, data, len, err);
	case SRP_EXAM_MODE:
		take_mode(exam, data, len);
		break;
	case SRP_EXAM_PAGES:
		take_pages(exam, data, len);
		break;
	case SRP_EXAM_SERIAL:
		scsi_unpack_vpd_serial(data, len, exam->serial);
		break;
	case SRP_EXAM_DESIGNATORS:
		take_designators(exam, data, len);
		break;
	case SRP_EXAM_LIMITS:
		take_limits(exam, data, len);
		break;
	case SRP_EXAM_PROVISIONING:
		take_provisioning(exam, data, len);
		break;
	case SRP_EXAM_OPCODE:
		if (scsi_unpack_opcode(data, len, &supported) == 0)
			exam->unit.can_same = supported;
		break;
	case SRP_EXAM_RESERVATION:
		return take_reservation(exam, data, len, err);
	case SRP_EXAM_READ:
		if (len < exam->unit.block_bytes)
			return weft_error_set(err, EPROTO,
				"it sends less of a block than it should");
		name_it(exam);
		break;
	default:
		break;
	}
	return 0;
}

int srp_exam_answer(struct srp_exam *exam, const struct srp_judgement *judgement,
	const uint8_t *data, size_t len, struct weft_error *err)
{
	static const char *const asked[] = {
		[SRP_EXAM_READY] = "whether it is ready",
		[SRP_EXAM_INQUIRY] = "what it is",
		[SRP_EXAM_CAPACITY] = "how large it is",
		[SRP_EXAM_READ] = "for its first block",
	};
	int r = 0;

	if (judgement->status == 0)
		r = take(exam, data, len, err);
	else if (judgement->status == -ENOENT)
		r = weft_error_set(err, ENOENT, "%s", no_unit);
	else if (is_needed(exam->step))
		r = weft_error_set(err, -judgement->status, "it was asked %s: %.300s",
			asked[exam->step], judgement->why.message);
	exam->step += r == 0;
	return r;
}
