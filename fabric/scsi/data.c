/* SPDX-License-Identifier: MIT */
/*
 * Byte order of parameter data, but for INQUIRY's and reservations'.  Pure functions, any thread.
 */
#include "fabric/scsi/data.h"

#include <errno.h>
#include <string.h>

#include "fabric/base/bytes.h"
#include "fabric/base/util.h"
#include "fabric/scsi/cdb.h"

/* SPC 6.33.2 */
struct wire_luns {
	uint8_t length[4]; /* of the list */
	uint8_t reserved[4];
};
_Static_assert(sizeof(struct wire_luns) == 8, "head of REPORT LUNS");

/* SBC 5.15.2 */
struct wire_capacity_10 {
	uint8_t last_lba[4];
	uint8_t block_bytes[4];
};
_Static_assert(sizeof(struct wire_capacity_10) == SCSI_CAPACITY_10_BYTES, "READ CAPACITY(10)");

/* SBC 5.16.2 */
struct wire_capacity_16 {
	uint8_t last_lba[8];
	uint8_t block_bytes[4];
	uint8_t protection; /* PROT_EN, bit 0; P_TYPE, bits 3 to 1 */
	uint8_t exponent;   /* LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT, bits 3 to 0 */
	uint8_t lowest[2];  /* LBPME, bit 15; LBPRZ, bit 14; LOWEST ALIGNED LBA */
	uint8_t reserved[16];
};
_Static_assert(sizeof(struct wire_capacity_16) == SCSI_CAPACITY_16_BYTES, "READ CAPACITY(16)");

/* SPC 7.5.5 */
struct wire_mode_6 {
	uint8_t length; /* of what follows */
	uint8_t medium;
	uint8_t specific;    /* SBC 6.5.1: WP 80h, DPOFUA 10h */
	uint8_t descriptors; /* BLOCK DESCRIPTOR LENGTH */
};
_Static_assert(sizeof(struct wire_mode_6) == 4, "head of MODE SENSE(6)");

struct wire_mode_10 {
	uint8_t length[2];
	uint8_t medium;
	uint8_t specific;
	uint8_t longlba; /* bit 0 */
	uint8_t reserved;
	uint8_t descriptors[2];
};
_Static_assert(sizeof(struct wire_mode_10) == 8, "head of MODE SENSE(10)");

/* SBC 6.5.2.2, 6.5.2.3 */
struct wire_blocks {
	uint8_t number[4];
	uint8_t block_bytes[4]; /* the first is reserved */
};
_Static_assert(sizeof(struct wire_blocks) == 8, "block descriptor");

struct wire_long_blocks {
	uint8_t number[8];
	uint8_t reserved[4];
	uint8_t block_bytes[4];
};
_Static_assert(sizeof(struct wire_long_blocks) == 16, "long block descriptor");

/* SBC 6.5.5 */
struct wire_caching {
	uint8_t code; /* PS 80h, SPF 40h */
	uint8_t length;
	uint8_t flags; /* WCE 04h, MF 02h, RCD 01h */
	uint8_t rest[17];
};
_Static_assert(sizeof(struct wire_caching) == 20, "caching page");

/* SPC 7.5.8 */
struct wire_control {
	uint8_t code;
	uint8_t length;
	uint8_t flags; /* TST bits 7 to 5, D_SENSE 04h */
	uint8_t queue; /* QUEUE ALGORITHM MODIFIER bits 7 to 4, QERR bits 2 and 1 */
	uint8_t swp;   /* SWP 08h */
	uint8_t rest[7];
};
_Static_assert(sizeof(struct wire_control) == 12, "control page");

enum { WP = 0x80, DPOFUA = 0x10, WCE = 0x04, RCD = 0x01, D_SENSE = 0x04, SWP = 0x08 };

/* SBC 5.28.2 */
struct wire_unmap {
	uint8_t length[2];  /* of what follows */
	uint8_t extents[2]; /* bytes of the extents */
	uint8_t reserved[4];
};
_Static_assert(sizeof(struct wire_unmap) == SCSI_UNMAP_HEAD_BYTES, "head of UNMAP");

struct wire_extent {
	uint8_t lba[8];
	uint8_t blocks[4];
	uint8_t reserved[4];
};
_Static_assert(sizeof(struct wire_extent) == SCSI_UNMAP_EXTENT_BYTES, "extent of UNMAP");

/* SPC 6.35.2 */
struct wire_opcode {
	uint8_t opcode;
	uint8_t reserved;
	uint8_t action[2];
	uint8_t reserved2;
	uint8_t flags; /* CTDP 02h, SERVACTV 01h */
	uint8_t cdb_bytes[2];
};
_Static_assert(sizeof(struct wire_opcode) == 8, "operation code");

/* SPC 6.35.4 */
struct wire_timeouts {
	uint8_t length[2]; /* of what follows */
	uint8_t reserved;
	uint8_t specific;
	uint8_t nominal[4], recommended[4]; /* 0: not said */
};
_Static_assert(sizeof(struct wire_timeouts) == 12, "command timeouts");

/* SPC 6.35.3 */
struct wire_one_opcode {
	uint8_t reserved;
	uint8_t support; /* CTDP 80h; SUPPORT, bits 2 to 0: 0 not now, 1 no, 3 as in a standard */
	uint8_t cdb_bytes[2];
	/* the usage data, then perhaps time-outs */
};
_Static_assert(sizeof(struct wire_one_opcode) == 4, "one operation code");

enum { OPCODE_HAS_TIMEOUTS = 0x02, SERVACTV = 0x01, ONE_HAS_TIMEOUTS = 0x80 };

size_t scsi_pack_luns(const uint64_t *luns, size_t nr, uint8_t *ret)
{
	struct wire_luns *head = (void *)ret;

	memset(head, 0, sizeof(*head));
	weft_put32(head->length, (uint32_t)(8 * nr));
	for (size_t i = 0; i < nr; i++)
		weft_put64(ret + sizeof(*head) + 8 * i, luns[i]);
	return sizeof(*head) + 8 * nr;
}

/* The list of 8-byte items behind a head of 8 bytes that says its length at offset at. */
static size_t unpack_item(const uint8_t *data, size_t len, unsigned at, size_t number,
	uint64_t *ret)
{
	if (len < 8)
		return 0;
	size_t nr = weft_min(len - 8, weft_get32(data + at)) / 8;

	if (number < nr)
		*ret = weft_get64(data + 8 + 8 * number);
	return nr;
}

size_t scsi_unpack_lun(const uint8_t *data, size_t len, size_t number, uint64_t *ret)
{
	return unpack_item(data, len, offsetof(struct wire_luns, length), number, ret);
}

size_t scsi_unpack_pr_key(const uint8_t *data, size_t len, size_t number, uint64_t *ret)
{
	return unpack_item(data, len, 4, number, ret);
}

size_t scsi_pack_capacity_10(const struct scsi_capacity *capacity, uint8_t *ret)
{
	struct wire_capacity_10 *wire = (void *)ret;

	weft_put32(wire->last_lba, (uint32_t)weft_min(capacity->last_lba, UINT32_MAX));
	weft_put32(wire->block_bytes, capacity->block_bytes);
	return sizeof(*wire);
}

size_t scsi_pack_capacity_16(const struct scsi_capacity *capacity, uint8_t *ret)
{
	struct wire_capacity_16 *wire = (void *)ret;

	memset(wire, 0, sizeof(*wire));
	weft_put64(wire->last_lba, capacity->last_lba);
	weft_put32(wire->block_bytes, capacity->block_bytes);
	if (capacity->protection)
		wire->protection = (uint8_t)(1 | (capacity->protection - 1) << 1);
	wire->exponent = capacity->physical_exponent & 0xf;
	weft_put16(wire->lowest,
		(uint16_t)((capacity->provisioned ? 0x8000 : 0) |
			(capacity->reads_zeros ? 0x4000 : 0) |
			(capacity->lowest_aligned & 0x3fff)));
	return sizeof(*wire);
}

int scsi_unpack_capacity_10(const uint8_t *data, size_t len, struct scsi_capacity *ret)
{
	const struct wire_capacity_10 *wire = (const void *)data;

	if (len < sizeof(*wire))
		return -EPROTO;
	*ret = (struct scsi_capacity){
		.last_lba = weft_get32(wire->last_lba),
		.block_bytes = weft_get32(wire->block_bytes),
	};
	return 0;
}

int scsi_unpack_capacity_16(const uint8_t *data, size_t len, struct scsi_capacity *ret)
{
	struct wire_capacity_16 wire = {0};

	/* SBC-2's answer has 12 bytes that mean something. */
	if (len < offsetof(struct wire_capacity_16, protection))
		return -EPROTO;
	memcpy(&wire, data, weft_min(len, sizeof(wire)));
	uint16_t lowest = weft_get16(wire.lowest);

	*ret = (struct scsi_capacity){
		.last_lba = weft_get64(wire.last_lba),
		.block_bytes = weft_get32(wire.block_bytes),
		.physical_exponent = wire.exponent & 0xf,
		.lowest_aligned = lowest & 0x3fff,
		.protection = wire.protection & 1 ? (uint8_t)(1 + (wire.protection >> 1 & 7)) : 0,
		.provisioned = lowest & 0x8000,
		.reads_zeros = lowest & 0x4000,
	};
	return 0;
}

static size_t pack_block_descriptor(const struct scsi_mode *mode, uint8_t *ret)
{
	if (!mode->has_blocks)
		return 0;
	if (mode->long_blocks) {
		struct wire_long_blocks *wire = (void *)ret;

		weft_put64(wire->number, mode->nr_blocks);
		weft_put32(wire->block_bytes, mode->block_bytes);
		return sizeof(*wire);
	}
	struct wire_blocks *wire = (void *)ret;

	weft_put32(wire->number, (uint32_t)weft_min(mode->nr_blocks, UINT32_MAX));
	weft_put32(wire->block_bytes, mode->block_bytes & 0xffffff);
	return sizeof(*wire);
}

static size_t pack_caching(const struct scsi_mode *mode, uint8_t *ret)
{
	struct wire_caching *wire = (void *)ret;

	wire->code = SCSI_PAGE_CACHING;
	wire->length = sizeof(*wire) - 2;
	wire->flags = (uint8_t)((mode->wce ? WCE : 0) | (mode->rcd ? RCD : 0));
	return sizeof(*wire);
}

static size_t pack_control(const struct scsi_mode *mode, uint8_t *ret)
{
	struct wire_control *wire = (void *)ret;

	wire->code = SCSI_PAGE_CONTROL;
	wire->length = sizeof(*wire) - 2;
	wire->flags = mode->descriptor_sense ? D_SENSE : 0;
	/* Commands are carried out in whatever order: unrestricted reordering. */
	wire->queue = mode->changeable ? 0 : 1 << 4;
	wire->swp = mode->swp ? SWP : 0;
	return sizeof(*wire);
}

size_t scsi_pack_mode(const struct scsi_mode *mode, uint8_t *ret)
{
	size_t head = mode->ten ? sizeof(struct wire_mode_10) : sizeof(struct wire_mode_6);
	uint8_t specific =
		(uint8_t)((mode->write_protected ? WP : 0) | (mode->dpofua ? DPOFUA : 0));

	memset(ret, 0,
		head + sizeof(struct wire_long_blocks) + sizeof(struct wire_caching) +
			sizeof(struct wire_control));
	size_t descriptors = pack_block_descriptor(mode, ret + head);
	size_t len = head + descriptors;

	if (mode->has_caching)
		len += pack_caching(mode, ret + len);
	if (mode->has_control)
		len += pack_control(mode, ret + len);
	if (mode->ten) {
		struct wire_mode_10 *wire = (void *)ret;

		weft_put16(wire->length, (uint16_t)(len - sizeof(wire->length)));
		wire->specific = specific;
		wire->longlba = mode->has_blocks && mode->long_blocks;
		weft_put16(wire->descriptors, (uint16_t)descriptors);
	} else {
		struct wire_mode_6 *wire = (void *)ret;

		wire->length = (uint8_t)(len - sizeof(wire->length));
		wire->specific = specific;
		wire->descriptors = (uint8_t)descriptors;
	}
	return len;
}

static void unpack_block_descriptor(const uint8_t *data, size_t len, struct scsi_mode *ret)
{
	if (ret->long_blocks && len >= sizeof(struct wire_long_blocks)) {
		const struct wire_long_blocks *wire = (const void *)data;

		ret->has_blocks = true;
		ret->nr_blocks = weft_get64(wire->number);
		ret->block_bytes = weft_get32(wire->block_bytes);
	} else if (!ret->long_blocks && len >= sizeof(struct wire_blocks)) {
		const struct wire_blocks *wire = (const void *)data;

		ret->has_blocks = true;
		ret->nr_blocks = weft_get32(wire->number);
		ret->block_bytes = weft_get32(wire->block_bytes) & 0xffffff;
	}
}

/* The pages that weft knows; those that are not whole count as not there. */
static void unpack_pages(const uint8_t *data, size_t len, struct scsi_mode *ret)
{
	while (len >= 4) {
		bool sub = data[0] & 0x40;
		size_t bytes = sub ? 4u + weft_get16(data + 2) : 2u + data[1];

		if (bytes > len)
			return;
		if (!sub && (data[0] & 0x3f) == SCSI_PAGE_CACHING && bytes > 2) {
			ret->has_caching = true;
			ret->wce = data[2] & WCE;
			ret->rcd = data[2] & RCD;
		} else if (!sub && (data[0] & 0x3f) == SCSI_PAGE_CONTROL && bytes > 4) {
			ret->has_control = true;
			ret->descriptor_sense = data[2] & D_SENSE;
			ret->swp = data[4] & SWP;
		}
		data += bytes;
		len -= bytes;
	}
}

int scsi_unpack_mode(const uint8_t *data, size_t len, bool ten, struct scsi_mode *ret)
{
	struct scsi_mode to = {.ten = ten};
	size_t head = ten ? sizeof(struct wire_mode_10) : sizeof(struct wire_mode_6);
	size_t descriptors;
	uint8_t specific;

	if (len < head)
		return -EPROTO;
	if (ten) {
		const struct wire_mode_10 *wire = (const void *)data;

		len = weft_min(len, weft_get16(wire->length) + sizeof(wire->length));
		specific = wire->specific;
		to.long_blocks = wire->longlba & 1;
		descriptors = weft_get16(wire->descriptors);
	} else {
		const struct wire_mode_6 *wire = (const void *)data;

		len = weft_min(len, wire->length + sizeof(wire->length));
		specific = wire->specific;
		descriptors = wire->descriptors;
	}
	to.write_protected = specific & WP;
	to.dpofua = specific & DPOFUA;
	if (len >= head && descriptors <= len - head) {
		unpack_block_descriptor(data + head, descriptors, &to);
		unpack_pages(data + head + descriptors, len - head - descriptors, &to);
	}
	*ret = to;
	return 0;
}

/*
 * The block descriptor of a MODE SELECT may say what is so anyway; a number of 0 or of all ones is
 * no number.
 */
static int check_block_descriptor(const uint8_t *list, size_t bytes, const struct scsi_mode *is,
	bool is_long)
{
	struct scsi_mode said = {.long_blocks = is_long};

	if (bytes == 0)
		return 0;
	if (bytes != (is_long ? sizeof(struct wire_long_blocks) : sizeof(struct wire_blocks)))
		return -EINVAL;
	unpack_block_descriptor(list, bytes, &said);
	if (said.block_bytes != is->block_bytes)
		return -EINVAL;
	if (said.nr_blocks == 0 || said.nr_blocks == (is_long ? UINT64_MAX : UINT32_MAX))
		return 0;
	return said.nr_blocks == is->nr_blocks ? 0 : -EINVAL;
}

/* What the page at `list` is now, and the bits that may differ.  The page's length, or 0. */
static size_t page_as_it_is(uint8_t code, const struct scsi_mode *is, const struct scsi_mode *can,
	uint8_t ret_is[20], uint8_t ret_can[20])
{
	size_t bytes = 0;

	memset(ret_is, 0, 20);
	memset(ret_can, 0, 20);
	if (code == SCSI_PAGE_CACHING) {
		bytes = pack_caching(is, ret_is);
		pack_caching(can, ret_can);
	} else if (code == SCSI_PAGE_CONTROL) {
		bytes = pack_control(is, ret_is);
		pack_control(can, ret_can);
	}
	memset(ret_can, 0, 2); /* code and length */
	return bytes;
}

int scsi_unpack_mode_list(const uint8_t *list, size_t len, const struct scsi_mode *is,
	const struct scsi_mode *can, struct scsi_mode *ret, size_t *bad)
{
	size_t at = is->ten ? sizeof(struct wire_mode_10) : sizeof(struct wire_mode_6), descriptors;
	struct scsi_mode to = *is;
	bool is_long = false;

	if (len < at)
		return -EPROTO;
	if (is->ten) {
		const struct wire_mode_10 *wire = (const void *)list;

		is_long = wire->longlba & 1;
		descriptors = weft_get16(wire->descriptors);
	} else {
		descriptors = ((const struct wire_mode_6 *)list)->descriptors;
	}
	if (descriptors > len - at)
		return -EPROTO;
	*bad = at;
	if (check_block_descriptor(list + at, descriptors, is, is_long) < 0)
		return -EINVAL;
	at += descriptors;
	while (at < len) {
		uint8_t now[20], may[20];
		size_t bytes = page_as_it_is(list[at], is, can, now, may);

		*bad = at;
		if (bytes == 0)
			return -EINVAL;
		for (size_t i = 0; i < bytes && at + i < len; i++) {
			*bad = at + i;
			if ((list[at + i] ^ now[i]) & ~may[i])
				return -EINVAL;
		}
		if (len - at < bytes)
			return -EPROTO;
		unpack_pages(list + at, bytes, &to);
		at += bytes;
	}
	*ret = to;
	return 0;
}

size_t scsi_pack_unmap_head(size_t nr, uint8_t ret[SCSI_UNMAP_HEAD_BYTES])
{
	struct wire_unmap *wire = (void *)ret;
	size_t bytes = nr * sizeof(struct wire_extent);

	memset(wire, 0, sizeof(*wire));
	weft_put16(wire->length, (uint16_t)(sizeof(*wire) - sizeof(wire->length) + bytes));
	weft_put16(wire->extents, (uint16_t)bytes);
	return sizeof(*wire) + bytes;
}

void scsi_pack_unmap_extent(uint64_t lba, uint32_t blocks, uint8_t ret[SCSI_UNMAP_EXTENT_BYTES])
{
	struct wire_extent *wire = (void *)ret;

	memset(wire, 0, sizeof(*wire));
	weft_put64(wire->lba, lba);
	weft_put32(wire->blocks, blocks);
}

int scsi_unpack_unmap_head(const uint8_t *list, size_t len)
{
	const struct wire_unmap *wire = (const void *)list;

	if (len < sizeof(*wire))
		return -EPROTO;
	size_t bytes = weft_get16(wire->length) + sizeof(wire->length);
	size_t extents = weft_get16(wire->extents);

	if (bytes > len || bytes < sizeof(*wire) || extents > bytes - sizeof(*wire))
		return -EPROTO;
	return (int)(extents / sizeof(struct wire_extent));
}

void scsi_unpack_unmap_extent(const uint8_t extent[SCSI_UNMAP_EXTENT_BYTES], uint64_t *ret_lba,
	uint32_t *ret_blocks)
{
	const struct wire_extent *wire = (const void *)extent;

	*ret_lba = weft_get64(wire->lba);
	*ret_blocks = weft_get32(wire->blocks);
}

static size_t pack_timeouts(uint8_t *ret)
{
	struct wire_timeouts *wire = (void *)ret;

	memset(wire, 0, sizeof(*wire));
	weft_put16(wire->length, sizeof(*wire) - sizeof(wire->length));
	return sizeof(*wire);
}

size_t scsi_pack_opcodes(bool timeouts, uint8_t *ret)
{
	size_t len = 4; /* COMMAND DATA LENGTH */

	for (unsigned i = 0; i < scsi_nr_ops; i++) {
		const struct scsi_op *op = &scsi_ops[i];
		struct wire_opcode *wire = (void *)(ret + len);

		memset(wire, 0, sizeof(*wire));
		wire->opcode = op->opcode;
		if (op->action != SCSI_NO_ACTION) {
			wire->flags |= SERVACTV;
			weft_put16(wire->action, op->action);
		}
		weft_put16(wire->cdb_bytes, op->cdb_bytes);
		len += sizeof(*wire);
		if (timeouts) {
			wire->flags |= OPCODE_HAS_TIMEOUTS;
			len += pack_timeouts(ret + len);
		}
	}
	weft_put32(ret, (uint32_t)(len - 4));
	return len;
}

size_t scsi_pack_opcode(uint8_t opcode, uint8_t action, bool timeouts, uint8_t *ret)
{
	const struct scsi_op *op = scsi_op_find(opcode, action);
	struct wire_one_opcode *wire = (void *)ret;
	size_t len = sizeof(*wire);

	memset(wire, 0, sizeof(*wire));
	if (!op) {
		wire->support = 1;
		return len;
	}
	wire->support = 3;
	weft_put16(wire->cdb_bytes, op->cdb_bytes);
	memcpy(ret + len, op->usage, op->cdb_bytes);
	len += op->cdb_bytes;
	if (timeouts) {
		wire->support |= ONE_HAS_TIMEOUTS;
		len += pack_timeouts(ret + len);
	}
	return len;
}

int scsi_unpack_opcode(const uint8_t *data, size_t len, bool *ret_supported)
{
	const struct wire_one_opcode *wire = (const void *)data;

	if (len < sizeof(*wire))
		return -EPROTO;
	switch (wire->support & 7) {
	case 0:
		return -EAGAIN;
	case 1:
		*ret_supported = false;
		return 0;
	case 3: /* as in a standard */
	case 5: /* in another way, of the vendor's */
		*ret_supported = (wire->support & 7) == 3;
		return 0;
	default:
		return -EPROTO;
	}
}
