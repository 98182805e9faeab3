/* SPDX-License-Identifier: MIT */
/*
 * What else has a byte order in the verbs transport beside messages: the numbers of errors, the
 * private data of connection requests, and what a proof is of.  Pure functions, any thread.
 */
#include "transports/verbs/proto.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "transports/verbs/proto-wire.h"

struct wire_private {
	uint32_t magic;
	uint8_t version;
	uint8_t purpose;
	uint16_t reserved;
	uint8_t token[VERBS_TOKEN_BYTES];
} PACKED;
_Static_assert(sizeof(struct wire_private) == VERBS_PRIVATE_BYTES, "private data");

/* The same for VERBS_PROVED. */
struct wire_proved {
	uint32_t magic;
	uint8_t version;
	uint8_t purpose;
	uint16_t reserved;
	uint64_t session, counter;
	uint8_t mac[VERBS_TAG_BYTES];
} PACKED;
_Static_assert(sizeof(struct wire_proved) == VERBS_PROVED_BYTES, "private data with a MAC");

struct wire_ends {
	uint8_t borrower[16], donor[16];
	uint16_t donor_port;
} PACKED;
_Static_assert(sizeof(struct wire_ends) == VERBS_ENDS_BYTES, "ends");

struct wire_maced {
	uint8_t token[VERBS_TOKEN_BYTES];
	uint64_t session, counter;
} PACKED;
_Static_assert(sizeof(struct wire_maced) == VERBS_MACED_BYTES, "what the MAC is of");

struct wire_reject {
	uint32_t magic;
	uint32_t error;
} PACKED;
_Static_assert(sizeof(struct wire_reject) == VERBS_REJECT_BYTES, "reject");

/* Errors that travel, with the protocol's own numbers. */
static const struct {
	uint32_t wire;
	int error;
} errors[] = {
	{0, 0},
	{1, EPERM},
	{2, ENOENT},
	{3, EIO},
	{4, EBUSY},
	{5, ESTALE},
	{6, EROFS},
	{7, ESHUTDOWN},
	{8, EOPNOTSUPP},
	{9, ENOMEM},
	{10, ENOSPC},
	{11, EINVAL},
	{12, EPROTO},
	{13, EPROTONOSUPPORT},
	{14, EACCES},
	{15, EAGAIN},
	{16, ETIMEDOUT},
	{17, WEFT_EOVER},       /* 17 and up: since version 1 */
	{18, WEFT_ESUPERSEDED},
	{19, WEFT_EMOVED},
	{20, WEFT_EMOVING},
};

uint32_t verbs_error_to_wire(int error)
{
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (errors[i].error == -error)
			return htobe32(errors[i].wire);
	return htobe32(3);
}

int verbs_error_from_wire(uint32_t wire)
{
	wire = be32toh(wire);
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (errors[i].wire == wire)
			return -errors[i].error;
	return -EIO;
}

uint64_t verbs_epoch_to_wire(uint64_t epoch)
{
	return htobe64(epoch);
}

void verbs_pack_private(enum verbs_purpose purpose, const uint8_t token[VERBS_TOKEN_BYTES],
	uint8_t buf[VERBS_PRIVATE_BYTES])
{
	struct wire_private wire = {
		.magic = htobe32(VERBS_MAGIC),
		.version = VERBS_VERSION,
		.purpose = (uint8_t)purpose,
	};

	if (purpose == VERBS_DATA)
		memcpy(wire.token, token, sizeof(wire.token));
	memcpy(buf, &wire, sizeof(wire));
}

void verbs_pack_proved(const struct verbs_private *wants, uint8_t buf[VERBS_PROVED_BYTES])
{
	struct wire_proved wire = {
		.magic = htobe32(VERBS_MAGIC),
		.version = VERBS_VERSION,
		.purpose = VERBS_PROVED,
		.session = htobe64(wants->session),
		.counter = htobe64(wants->counter),
	};

	memcpy(wire.mac, wants->mac, sizeof(wire.mac));
	memcpy(buf, &wire, sizeof(wire));
}

int verbs_unpack_private(const void *buf, size_t len, struct verbs_private *ret)
{
	struct wire_private wire;
	struct wire_proved proved;

	if (!buf || len < sizeof(wire))
		return -EPROTO;
	memcpy(&wire, buf, sizeof(wire));
	if (be32toh(wire.magic) != VERBS_MAGIC)
		return -EPROTO;
	if (wire.version != VERBS_VERSION)
		return -EPROTONOSUPPORT;
	struct verbs_private wants = {.purpose = (enum verbs_purpose)wire.purpose};
	switch (wire.purpose) {
	case VERBS_CONTROL:
		break;
	case VERBS_DATA:
		memcpy(wants.token, wire.token, sizeof(wire.token));
		break;
	case VERBS_PROVED:
		if (len < sizeof(proved))
			return -EPROTO;
		memcpy(&proved, buf, sizeof(proved));
		wants.session = be64toh(proved.session);
		wants.counter = be64toh(proved.counter);
		memcpy(wants.mac, proved.mac, sizeof(proved.mac));
		break;
	default:
		return -EPROTO;
	}
	*ret = wants;
	return 0;
}

void verbs_pack_ends(const struct verbs_ends *ends, uint8_t buf[VERBS_ENDS_BYTES])
{
	struct wire_ends wire = {.donor_port = htobe16(ends->donor_port)};

	memcpy(wire.borrower, ends->borrower, sizeof(wire.borrower));
	memcpy(wire.donor, ends->donor, sizeof(wire.donor));
	memcpy(buf, &wire, sizeof(wire));
}

void verbs_pack_maced(const uint8_t token[VERBS_TOKEN_BYTES], uint64_t session, uint64_t counter,
	uint8_t buf[VERBS_MACED_BYTES])
{
	struct wire_maced wire = {.session = htobe64(session), .counter = htobe64(counter)};

	memcpy(wire.token, token, sizeof(wire.token));
	memcpy(buf, &wire, sizeof(wire));
}

void verbs_pack_reject(int error, uint8_t buf[VERBS_REJECT_BYTES])
{
	struct wire_reject wire = {
		.magic = htobe32(VERBS_MAGIC),
		.error = verbs_error_to_wire(error),
	};

	memcpy(buf, &wire, sizeof(wire));
}

int verbs_unpack_reject(const void *buf, size_t len, int *ret_error)
{
	struct wire_reject wire;

	if (!buf || len < sizeof(wire))
		return -EPROTO;
	memcpy(&wire, buf, sizeof(wire));
	if (be32toh(wire.magic) != VERBS_MAGIC)
		return -EPROTO;
	int error = verbs_error_from_wire(wire.error);
	if (error == 0)
		return -EPROTO;
	*ret_error = error;
	return 0;
}
