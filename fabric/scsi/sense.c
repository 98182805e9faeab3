/* SPDX-License-Identifier: MIT */
/*
 * Byte order of sense data, and words for what it says.  Pure functions, any thread.
 */
#include "fabric/scsi/sense.h"

#include <errno.h>
#include <string.h>

#include "fabric/base/bytes.h"

/* SPC 4.5.1: response codes; the next higher ones are deferred. */
enum { FIXED = 0x70, DESCRIPTORS = 0x72 };

/* SPC 4.5.2.1: descriptor types */
enum { INFORMATION = 0x00, KEY_SPECIFIC = 0x02 };

/* SPC 4.5.2.4: SENSE KEY SPECIFIC */
enum { SKSV = 0x80, IN_CDB = 0x40, BPV = 0x08 };

/* SPC 4.5.3 */
struct wire_fixed {
	uint8_t response; /* and VALID, bit 7: INFORMATION is */
	uint8_t obsolete;
	uint8_t key;      /* and FILEMARK, EOM, ILI */
	uint8_t information[4];
	uint8_t additional_length;
	uint8_t command_specific[4];
	uint8_t asc[2];
	uint8_t unit_code;
	uint8_t specific[3];
};
_Static_assert(sizeof(struct wire_fixed) == SCSI_SENSE_FIXED_BYTES, "fixed sense data");

/* SPC 4.5.2.1 */
struct wire_head {
	uint8_t response;
	uint8_t key;
	uint8_t asc[2];
	uint8_t reserved[3]; /* SDAT_OVFL, bit 7 of the first */
	uint8_t additional_length;
};
_Static_assert(sizeof(struct wire_head) == 8, "head of sense data");

/* SPC 4.5.2.2 */
struct wire_information {
	uint8_t type, additional_length; /* 0Ah */
	uint8_t valid;                   /* bit 7 */
	uint8_t reserved;
	uint8_t information[8];
};
_Static_assert(sizeof(struct wire_information) == 12, "information descriptor");

/* SPC 4.5.2.4 */
struct wire_specific {
	uint8_t type, additional_length; /* 06h */
	uint8_t reserved[2];
	uint8_t specific[3];
	uint8_t reserved2;
};
_Static_assert(sizeof(struct wire_specific) == 8, "sense key specific descriptor");
_Static_assert(sizeof(struct wire_head) + sizeof(struct wire_information) +
		sizeof(struct wire_specific) <= SCSI_SENSE_MAX_BYTES, "sense data fits");

/* SPC 4.5.2.4.2: field pointer */
static void pack_field(const struct scsi_fault *fault, uint8_t ret[3])
{
	ret[0] = (uint8_t)(SKSV | (fault->field_in_cdb ? IN_CDB : 0));
	if (fault->field.bit < 8)
		ret[0] |= (uint8_t)(BPV | fault->field.bit);
	weft_put16(ret + 1, fault->field.byte);
}

static void unpack_field(const uint8_t specific[3], struct scsi_fault *ret)
{
	if (!(specific[0] & SKSV) || ret->key != SCSI_KEY_ILLEGAL_REQUEST)
		return;
	ret->has_field = true;
	ret->field_in_cdb = specific[0] & IN_CDB;
	ret->field.bit = specific[0] & BPV ? specific[0] & 7 : 8;
	ret->field.byte = weft_get16(specific + 1);
}

static size_t pack_fixed(const struct scsi_fault *fault, uint8_t *ret)
{
	struct wire_fixed *wire = (void *)ret;

	memset(wire, 0, sizeof(*wire));
	wire->response = (uint8_t)(FIXED + fault->deferred);
	wire->key = fault->key;
	if (fault->has_information && fault->information <= UINT32_MAX) {
		wire->response |= 0x80;
		weft_put32(wire->information, (uint32_t)fault->information);
	}
	wire->additional_length = sizeof(*wire) - 8;
	weft_put16(wire->asc, fault->asc);
	if (fault->has_field)
		pack_field(fault, wire->specific);
	return sizeof(*wire);
}

size_t scsi_pack_sense(const struct scsi_fault *fault, bool descriptors,
	uint8_t ret[SCSI_SENSE_MAX_BYTES])
{
	struct wire_head *head = (void *)ret;
	size_t len = sizeof(*head);

	if (!descriptors)
		return pack_fixed(fault, ret);
	memset(ret, 0, SCSI_SENSE_MAX_BYTES);
	head->response = (uint8_t)(DESCRIPTORS + fault->deferred);
	head->key = fault->key;
	weft_put16(head->asc, fault->asc);
	if (fault->has_information) {
		struct wire_information *wire = (void *)(ret + len);

		wire->type = INFORMATION;
		wire->additional_length = sizeof(*wire) - 2;
		wire->valid = 0x80;
		weft_put64(wire->information, fault->information);
		len += sizeof(*wire);
	}
	if (fault->has_field) {
		struct wire_specific *wire = (void *)(ret + len);

		wire->type = KEY_SPECIFIC;
		wire->additional_length = sizeof(*wire) - 2;
		pack_field(fault, wire->specific);
		len += sizeof(*wire);
	}
	head->additional_length = (uint8_t)(len - sizeof(*head));
	return len;
}

static void unpack_fixed(const uint8_t *sense, size_t len, struct scsi_fault *ret)
{
	const struct wire_fixed *wire = (const void *)sense;

	ret->key = wire->key & 0xf;
	if (sense[0] & 0x80 && len >= 7) {
		ret->has_information = true;
		ret->information = weft_get32(wire->information);
	}
	/* What a peer says of its length counts as well as what has come. */
	if (len >= 8 && (size_t)wire->additional_length + 8 < len)
		len = (size_t)wire->additional_length + 8;
	if (len >= offsetof(struct wire_fixed, unit_code))
		ret->asc = weft_get16(wire->asc);
	if (len >= sizeof(*wire))
		unpack_field(wire->specific, ret);
}

static void unpack_descriptors(const uint8_t *sense, size_t len, struct scsi_fault *ret)
{
	const struct wire_head *head = (const void *)sense;
	size_t at = sizeof(*head);

	ret->key = head->key & 0xf;
	if (len >= 4)
		ret->asc = weft_get16(head->asc);
	if (len < sizeof(*head))
		return;
	if (sizeof(*head) + head->additional_length < len)
		len = sizeof(*head) + head->additional_length;
	while (len - at >= 2 && len - at >= 2u + sense[at + 1]) {
		const uint8_t *descriptor = sense + at;
		size_t bytes = 2u + descriptor[1];

		if (descriptor[0] == INFORMATION && bytes >= sizeof(struct wire_information) &&
			descriptor[2] & 0x80) {
			ret->has_information = true;
			ret->information = weft_get64(descriptor +
				offsetof(struct wire_information, information));
		} else if (descriptor[0] == KEY_SPECIFIC && bytes >= sizeof(struct wire_specific)) {
			unpack_field(descriptor + offsetof(struct wire_specific, specific), ret);
		}
		at += bytes;
	}
}

int scsi_unpack_sense(const uint8_t *sense, size_t len, struct scsi_fault *ret)
{
	struct scsi_fault to = {0};

	if (len < 3)
		return -EPROTO;
	uint8_t response = sense[0] & 0x7e;

	if (response != FIXED && response != DESCRIPTORS)
		return -EPROTO;
	to.deferred = sense[0] & 1;
	if (response == FIXED)
		unpack_fixed(sense, len, &to);
	else
		unpack_descriptors(sense, len, &to);
	*ret = to;
	return 0;
}

const char *scsi_key_name(uint8_t key)
{
	static const char *const names[16] = {
		"NO SENSE", "RECOVERED ERROR", "NOT READY", "MEDIUM ERROR", "HARDWARE ERROR",
		"ILLEGAL REQUEST", "UNIT ATTENTION", "DATA PROTECT", "BLANK CHECK",
		"VENDOR SPECIFIC", "COPY ABORTED", "ABORTED COMMAND", "RESERVED", "VOLUME OVERFLOW",
		"MISCOMPARE", "COMPLETED",
	};

	return names[key & 0xf];
}

const char *scsi_asc_name(uint16_t asc)
{
	switch (asc) {
	case SCSI_ASC_NONE:
		return "nothing more to say";
	case SCSI_ASC_BECOMING_READY:
		return "becoming ready";
	case SCSI_ASC_WRITE_ERROR:
		return "write error";
	case SCSI_ASC_INVALID_INFORMATION_UNIT_FIELD:
		return "invalid field in the transport's command";
	case SCSI_ASC_READ_ERROR:
		return "unrecovered read error";
	case SCSI_ASC_PARAMETER_LIST_LENGTH:
		return "wrong length of the parameter list";
	case SCSI_ASC_MISCOMPARE:
		return "miscompare";
	case SCSI_ASC_INVALID_OPCODE:
		return "unknown command";
	case SCSI_ASC_LBA_OUT_OF_RANGE:
		return "block out of range";
	case SCSI_ASC_INVALID_FIELD_IN_CDB:
		return "invalid field in the command";
	case SCSI_ASC_LUN_NOT_SUPPORTED:
		return "no such logical unit";
	case SCSI_ASC_INVALID_FIELD_IN_LIST:
		return "invalid field in the parameter list";
	case SCSI_ASC_PARAMETER_VALUE_INVALID:
		return "invalid value in the parameter list";
	case SCSI_ASC_INVALID_RELEASE:
		return "release of another reservation than there is";
	case SCSI_ASC_WRITE_PROTECTED:
		return "write protected";
	case SCSI_ASC_SPACE_ALLOCATION_FAILED:
		return "no space left";
	case SCSI_ASC_MEDIUM_CHANGED:
		return "contents changed";
	case SCSI_ASC_POWER_ON:
		return "power on or reset";
	case SCSI_ASC_RESET_BY_FUNCTION:
		return "logical unit reset";
	case SCSI_ASC_NEXUS_LOSS:
		return "login lost";
	case SCSI_ASC_MODE_CHANGED:
		return "mode parameters changed";
	case SCSI_ASC_RESERVATIONS_PREEMPTED:
		return "reservation preempted";
	case SCSI_ASC_RESERVATIONS_RELEASED:
		return "reservation released";
	case SCSI_ASC_REGISTRATIONS_PREEMPTED:
		return "registration preempted";
	case SCSI_ASC_CAPACITY_CHANGED:
		return "size changed";
	case SCSI_ASC_COMMANDS_CLEARED:
		return "commands cleared by another initiator";
	case SCSI_ASC_SAVING_NOT_SUPPORTED:
		return "parameters cannot be saved";
	case SCSI_ASC_MEDIUM_NOT_PRESENT:
		return "no medium";
	case SCSI_ASC_INTERNAL_TARGET_FAILURE:
		return "internal target failure";
	case SCSI_ASC_DATA_PHASE_ERROR:
		return "data could not be moved";
	case SCSI_ASC_INSUFFICIENT_REGISTRATION_RESOURCES:
		return "no room for another registration";
	default:
		return NULL;
	}
}

const char *scsi_status_name(uint8_t status)
{
	switch (status) {
	case SCSI_GOOD:
		return "GOOD";
	case SCSI_CHECK_CONDITION:
		return "CHECK CONDITION";
	case SCSI_CONDITION_MET:
		return "CONDITION MET";
	case SCSI_BUSY:
		return "BUSY";
	case SCSI_RESERVATION_CONFLICT:
		return "RESERVATION CONFLICT";
	case SCSI_TASK_SET_FULL:
		return "TASK SET FULL";
	case SCSI_ACA_ACTIVE:
		return "ACA ACTIVE";
	case SCSI_TASK_ABORTED:
		return "TASK ABORTED";
	default:
		return "status";
	}
}
