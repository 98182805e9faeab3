/* SPDX-License-Identifier: MIT */
/*
 * What targets answer an initiator: what is accepted is packed, and comes back the same.  The first
 * byte says as what the rest comes.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/scsi/cdb.h"
#include "fabric/scsi/data.h"
#include "fabric/scsi/sense.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/*
 * What was unpacked is packed, unpacked and packed again: the bytes are the same.
 * What weft does not know is lost the first time.
 */
#define TWICE(TYPE, UNPACK, PACK)                                                                  \
	do {                                                                                       \
		TYPE to, back;                                                                     \
		uint8_t first[SCSI_PARAMETER_BYTES], second[SCSI_PARAMETER_BYTES];                 \
                                                                                                   \
		if (UNPACK(buf, len, &to) < 0)                                                     \
			return;                                                                    \
		size_t bytes = PACK(&to, first);                                                   \
		assert(UNPACK(first, bytes, &back) == 0);                                          \
		assert(PACK(&back, second) == bytes);                                              \
		assert(memcmp(first, second, bytes) == 0);                                         \
	} while (0)

static int unpack_mode_6(const uint8_t *buf, size_t len, struct scsi_mode *ret)
{
	return scsi_unpack_mode(buf, len, false, ret);
}

static int unpack_mode_10(const uint8_t *buf, size_t len, struct scsi_mode *ret)
{
	return scsi_unpack_mode(buf, len, true, ret);
}

static size_t pack_fixed(const struct scsi_fault *fault, uint8_t *ret)
{
	return scsi_pack_sense(fault, false, ret);
}

static size_t pack_descriptors(const struct scsi_fault *fault, uint8_t *ret)
{
	return scsi_pack_sense(fault, true, ret);
}

static void as_sense(const uint8_t *buf, size_t len)
{
	TWICE(struct scsi_fault, scsi_unpack_sense, pack_fixed);
	TWICE(struct scsi_fault, scsi_unpack_sense, pack_descriptors);
}

static void as_cdb(const uint8_t *buf, size_t len)
{
	uint8_t cdb[SCSI_CDB_BYTES] = {0}, again[SCSI_CDB_BYTES];
	struct scsi_cdb to;
	struct scsi_field bad = {.byte = SCSI_CDB_BYTES};
	int r;

	memcpy(cdb, buf, weft_min(len, sizeof(cdb)));
	r = scsi_unpack_cdb(cdb, &to, &bad);
	if (r == 0) {
		r = scsi_pack_cdb(&to, again);
		assert(r == (int)scsi_cdb_bytes(cdb[0]) && memcmp(cdb, again, (size_t)r) == 0);
	} else if (r == -EINVAL) {
		assert(bad.byte < scsi_cdb_bytes(cdb[0]) && bad.bit < 8);
	}
}

static void as_lists(const uint8_t *buf, size_t len)
{
	struct scsi_designator designator;
	struct scsi_pr_registrant registrant;
	char serial[SCSI_SERIAL_MAX + 1];
	uint64_t number = 0;
	size_t at = 0;

	while (scsi_next_designator(buf, len, &at, &designator) == 0)
		assert(at <= len && designator.bytes + designator.len <= buf + len);
	at = 0;
	while (scsi_next_pr_registrant(buf, len, &at, &registrant) == 0)
		assert(at <= len &&
			registrant.transport_id + registrant.transport_id_bytes <= buf + len);
	for (size_t i = 0; i < scsi_unpack_lun(buf, len, i, &number); i++)
		assert(i <= len / 8);
	for (size_t i = 0; i < scsi_unpack_pr_key(buf, len, i, &number); i++)
		assert(i <= len / 8);
	(void)scsi_vpd_has_page(buf, len, 0xb0);
	if (scsi_unpack_vpd_serial(buf, len, serial) == 0)
		for (const char *c = serial; *c; c++)
			assert(*c >= 0x20 && *c < 0x7f);
	assert(scsi_unpack_unmap_head(buf, len) <= (int)(len / SCSI_UNMAP_EXTENT_BYTES));
}

static void as_opcode(const uint8_t *buf, size_t len)
{
	bool supported;

	(void)scsi_unpack_opcode(buf, len, &supported);
}

static void read_as(uint8_t what, const uint8_t *buf, size_t len)
{
	switch (what) {
	case 0:
		as_cdb(buf, len);
		break;
	case 1:
		as_sense(buf, len);
		break;
	case 2:
		as_lists(buf, len);
		break;
	case 3:
		as_opcode(buf, len);
		break;
	case 4:
		TWICE(struct scsi_inquiry, scsi_unpack_inquiry, scsi_pack_inquiry);
		break;
	case 5:
		TWICE(struct scsi_limits, scsi_unpack_vpd_limits, scsi_pack_vpd_limits);
		break;
	case 6:
		TWICE(struct scsi_characteristics, scsi_unpack_vpd_characteristics,
			scsi_pack_vpd_characteristics);
		break;
	case 7:
		TWICE(struct scsi_provisioning, scsi_unpack_vpd_provisioning,
			scsi_pack_vpd_provisioning);
		break;
	case 8:
		TWICE(struct scsi_capacity, scsi_unpack_capacity_16, scsi_pack_capacity_16);
		break;
	case 9:
		TWICE(struct scsi_capacity, scsi_unpack_capacity_10, scsi_pack_capacity_10);
		break;
	case 10:
		TWICE(struct scsi_mode, unpack_mode_6, scsi_pack_mode);
		break;
	case 11:
		TWICE(struct scsi_mode, unpack_mode_10, scsi_pack_mode);
		break;
	case 12:
		TWICE(struct scsi_pr_reservation, scsi_unpack_pr_reservation,
			scsi_pack_pr_reservation);
		break;
	default:
		TWICE(struct scsi_pr_capabilities, scsi_unpack_pr_capabilities,
			scsi_pack_pr_capabilities);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Of exactly that size, so that what is read behind it is seen. */
	uint8_t *buf;

	if (size == 0)
		return 0;
	buf = malloc(size);
	if (!buf)
		return 0;
	memcpy(buf, data + 1, size - 1);
	read_as(data[0] % 14, buf, size - 1);
	free(buf);
	return 0;
}
