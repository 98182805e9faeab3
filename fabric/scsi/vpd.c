/* SPDX-License-Identifier: MIT */
/*
 * Byte order of INQUIRY's answers: the standard data and the pages of vital product data.  Pure
 * functions, any thread.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "fabric/base/bytes.h"
#include "fabric/base/util.h"
#include "fabric/scsi/data.h"

/* SPC 6.6.2 */
struct wire_inquiry {
	uint8_t peripheral; /* PERIPHERAL QUALIFIER, bits 7 to 5, and PERIPHERAL DEVICE TYPE */
	uint8_t rmb;
	uint8_t version;
	uint8_t format;     /* RESPONSE DATA FORMAT: 2; HISUP, bit 4; NORMACA, bit 5 */
	uint8_t additional_length;
	uint8_t protect;    /* PROTECT, 3PC, TPGS, ACC, SCCS */
	uint8_t enclosure;  /* MULTIP, ENCSERV */
	uint8_t cmdque;     /* bit 1 */
	uint8_t vendor[8], product[16], revision[4];
	uint8_t vendor_specific[20];
	uint8_t reserved[2];
	uint8_t standards[8][2];
	uint8_t reserved2[22];
};
_Static_assert(sizeof(struct wire_inquiry) == 96, "standard INQUIRY data");

/* SPC 7.8.2 */
struct wire_page {
	uint8_t peripheral;
	uint8_t code;
	uint8_t length[2]; /* of what follows */
};
_Static_assert(sizeof(struct wire_page) == 4, "head of a page");

/* SPC 7.8.5.1 */
struct wire_designator {
	uint8_t code_set; /* and PROTOCOL IDENTIFIER, bits 7 to 4 */
	uint8_t type;     /* and ASSOCIATION, bits 5 and 4; PIV, bit 7 */
	uint8_t reserved;
	uint8_t length;
};
_Static_assert(sizeof(struct wire_designator) == 4, "head of a designator");

/* SBC 6.6.4 */
struct wire_limits {
	struct wire_page head;
	uint8_t wsnz;
	uint8_t max_compare_and_write;
	uint8_t transfer_granularity[2];
	uint8_t max_transfer[4], optimal_transfer[4], max_prefetch[4];
	uint8_t max_unmap[4], max_unmap_extents[4], unmap_granularity[4];
	uint8_t unmap_alignment[4]; /* UGAVALID, bit 31 */
	uint8_t max_same[8];
	uint8_t reserved[20];
};
_Static_assert(sizeof(struct wire_limits) == 64, "page B0h");

/* SBC 6.6.2 */
struct wire_characteristics {
	struct wire_page head;
	uint8_t rotation[2];
	uint8_t product_type;
	uint8_t form_factor;
	uint8_t fuab; /* VBULS, bit 0; FUAB, bit 1 */
	uint8_t reserved[55];
};
_Static_assert(sizeof(struct wire_characteristics) == 64, "page B1h");

/* SBC 6.6.6 */
struct wire_provisioning {
	struct wire_page head;
	uint8_t threshold;
	uint8_t flags; /* LBPU 80h, LBPWS 40h, LBPWS10 20h, LBPRZ bits 4 to 2, ANC_SUP 2, DP 1 */
	uint8_t type;
	uint8_t reserved;
};
_Static_assert(sizeof(struct wire_provisioning) == 8, "page B2h");

/* Fields of text are left-aligned, and end in spaces (SPC 4.4.1). */
static void pack_text(uint8_t *to, size_t bytes, const char *text)
{
	size_t n = strnlen(text, bytes);

	memset(to, ' ', bytes);
	memcpy(to, text, n);
}

/* The printable part, without the spaces at its ends; ret has room for bytes + 1. */
static void unpack_text(const uint8_t *from, size_t bytes, char *ret)
{
	while (bytes > 0 && (from[bytes - 1] == ' ' || from[bytes - 1] == '\0'))
		bytes--;
	while (bytes > 0 && *from == ' ')
		from++, bytes--;
	for (size_t i = 0; i < bytes; i++)
		ret[i] = from[i] >= 0x20 && from[i] < 0x7f ? (char)from[i] : '?';
	ret[bytes] = '\0';
}

size_t scsi_pack_inquiry(const struct scsi_inquiry *inquiry, uint8_t *ret)
{
	struct wire_inquiry *wire = (void *)ret;

	memset(wire, 0, sizeof(*wire));
	wire->peripheral = (uint8_t)(inquiry->qualifier << 5 | inquiry->type);
	wire->version = inquiry->version;
	wire->format = 2;
	wire->additional_length = sizeof(*wire) - 5;
	wire->cmdque = inquiry->command_queue ? 0x02 : 0;
	pack_text(wire->vendor, sizeof(wire->vendor), inquiry->vendor);
	pack_text(wire->product, sizeof(wire->product), inquiry->product);
	pack_text(wire->revision, sizeof(wire->revision), inquiry->revision);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(wire->standards); i++)
		weft_put16(wire->standards[i], inquiry->standards[i]);
	return sizeof(*wire);
}

int scsi_unpack_inquiry(const uint8_t *data, size_t len, struct scsi_inquiry *ret)
{
	struct wire_inquiry wire = {0};

	/* SPC 6.6.2: every device has the first 36 bytes. */
	if (len < 36)
		return -EPROTO;
	memcpy(&wire, data, weft_min(len, sizeof(wire)));
	*ret = (struct scsi_inquiry){
		.qualifier = wire.peripheral >> 5,
		.type = wire.peripheral & 0x1f,
		.version = wire.version,
		.command_queue = wire.cmdque & 0x02,
	};
	unpack_text(wire.vendor, sizeof(wire.vendor), ret->vendor);
	unpack_text(wire.product, sizeof(wire.product), ret->product);
	unpack_text(wire.revision, sizeof(wire.revision), ret->revision);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(wire.standards); i++)
		ret->standards[i] = weft_get16(wire.standards[i]);
	return 0;
}

/* A page of a disk that is there, of `bytes` in all. */
static size_t begin_page(uint8_t *ret, uint8_t code, size_t bytes)
{
	struct wire_page *head = (void *)ret;

	assert(bytes <= SCSI_PARAMETER_BYTES);
	memset(ret, 0, bytes);
	head->code = code;
	weft_put16(head->length, (uint16_t)(bytes - sizeof(*head)));
	return bytes;
}

/* How much of the page has come, head and all; 0: it is another, or less than a head. */
static size_t page_bytes(const uint8_t *data, size_t len, uint8_t code)
{
	const struct wire_page *head = (const void *)data;

	if (len < sizeof(*head) || head->code != code)
		return 0;
	return weft_min(len, sizeof(*head) + weft_get16(head->length));
}

/*
 * Copies a page of fixed layout; what has not come stays 0.  At least `needed` bytes have to.
 */
static int copy_page(const uint8_t *data, size_t len, uint8_t code, size_t needed, void *ret,
	size_t bytes)
{
	size_t has = page_bytes(data, len, code);

	if (has < needed)
		return -EPROTO;
	memset(ret, 0, bytes);
	memcpy(ret, data, weft_min(has, bytes));
	return 0;
}

size_t scsi_pack_vpd_pages(const uint8_t *pages, size_t nr, uint8_t *ret)
{
	size_t len = begin_page(ret, SCSI_VPD_PAGES, sizeof(struct wire_page) + nr);

	memcpy(ret + sizeof(struct wire_page), pages, nr);
	return len;
}

bool scsi_vpd_has_page(const uint8_t *data, size_t len, uint8_t page)
{
	size_t has = page_bytes(data, len, SCSI_VPD_PAGES);

	for (size_t i = sizeof(struct wire_page); i < has; i++)
		if (data[i] == page)
			return true;
	return false;
}

size_t scsi_pack_vpd_serial(const char *serial, uint8_t *ret)
{
	size_t n = strnlen(serial, SCSI_SERIAL_MAX);
	size_t len = begin_page(ret, SCSI_VPD_SERIAL, sizeof(struct wire_page) + n);

	memcpy(ret + sizeof(struct wire_page), serial, n);
	return len;
}

int scsi_unpack_vpd_serial(const uint8_t *data, size_t len, char ret[SCSI_SERIAL_MAX + 1])
{
	size_t has = page_bytes(data, len, SCSI_VPD_SERIAL);

	if (has < sizeof(struct wire_page))
		return -EPROTO;
	unpack_text(data + sizeof(struct wire_page),
		weft_min(has - sizeof(struct wire_page), SCSI_SERIAL_MAX), ret);
	return 0;
}

size_t scsi_pack_vpd_designators(const struct scsi_designator *designators, size_t nr, uint8_t *ret)
{
	size_t len = sizeof(struct wire_page);

	for (size_t i = 0; i < nr; i++)
		len += sizeof(struct wire_designator) + designators[i].len;
	begin_page(ret, SCSI_VPD_DESIGNATORS, len);
	uint8_t *at = ret + sizeof(struct wire_page);

	for (size_t i = 0; i < nr; i++) {
		const struct scsi_designator *from = &designators[i];
		struct wire_designator *wire = (void *)at;

		wire->code_set = (uint8_t)((from->has_protocol ? from->protocol << 4 : 0) |
			from->code_set);
		wire->type = (uint8_t)((from->has_protocol ? 0x80 : 0) | from->association << 4 |
			from->type);
		wire->length = from->len;
		memcpy(at + sizeof(*wire), from->bytes, from->len);
		at += sizeof(*wire) + from->len;
	}
	return len;
}

int scsi_next_designator(const uint8_t *data, size_t len, size_t *at, struct scsi_designator *ret)
{
	const struct wire_designator *wire;
	size_t has = page_bytes(data, len, SCSI_VPD_DESIGNATORS);
	size_t from = *at ? *at : sizeof(struct wire_page);

	if (has < sizeof(struct wire_page) || from > has)
		return -EPROTO;
	if (from == has)
		return -ENOENT;
	wire = (const void *)(data + from);
	if (has - from < sizeof(*wire) || has - from - sizeof(*wire) < wire->length)
		return -EPROTO;
	*ret = (struct scsi_designator){
		.association = wire->type >> 4 & 3,
		.code_set = wire->code_set & 0xf,
		.type = wire->type & 0xf,
		.has_protocol = wire->type & 0x80,
		.protocol = wire->type & 0x80 ? wire->code_set >> 4 : 0,
		.len = wire->length,
		.bytes = data + from + sizeof(*wire),
	};
	*at = from + sizeof(*wire) + wire->length;
	return 0;
}

size_t scsi_pack_vpd_limits(const struct scsi_limits *limits, uint8_t *ret)
{
	struct wire_limits *wire = (void *)ret;

	begin_page(ret, SCSI_VPD_LIMITS, sizeof(*wire));
	wire->wsnz = limits->same_needs_length;
	wire->max_compare_and_write = limits->max_compare_and_write;
	weft_put16(wire->transfer_granularity, limits->transfer_granularity);
	weft_put32(wire->max_transfer, limits->max_transfer);
	weft_put32(wire->optimal_transfer, limits->optimal_transfer);
	weft_put32(wire->max_unmap, limits->max_unmap);
	weft_put32(wire->max_unmap_extents, limits->max_unmap_extents);
	weft_put32(wire->unmap_granularity, limits->unmap_granularity);
	if (limits->has_unmap_alignment)
		weft_put32(wire->unmap_alignment, limits->unmap_alignment | 0x80000000u);
	weft_put64(wire->max_same, limits->max_same);
	return sizeof(*wire);
}

int scsi_unpack_vpd_limits(const uint8_t *data, size_t len, struct scsi_limits *ret)
{
	struct wire_limits wire;
	/* SBC-2's page ends behind OPTIMAL TRANSFER LENGTH. */
	int r = copy_page(data, len, SCSI_VPD_LIMITS, offsetof(struct wire_limits, max_prefetch),
		&wire, sizeof(wire));

	if (r < 0)
		return r;
	*ret = (struct scsi_limits){
		.same_needs_length = wire.wsnz & 1,
		.max_compare_and_write = wire.max_compare_and_write,
		.transfer_granularity = weft_get16(wire.transfer_granularity),
		.max_transfer = weft_get32(wire.max_transfer),
		.optimal_transfer = weft_get32(wire.optimal_transfer),
		.max_unmap = weft_get32(wire.max_unmap),
		.max_unmap_extents = weft_get32(wire.max_unmap_extents),
		.unmap_granularity = weft_get32(wire.unmap_granularity),
		.max_same = weft_get64(wire.max_same),
	};
	ret->has_unmap_alignment = wire.unmap_alignment[0] & 0x80;
	if (ret->has_unmap_alignment)
		ret->unmap_alignment = weft_get32(wire.unmap_alignment) & 0x7fffffff;
	return 0;
}

size_t scsi_pack_vpd_characteristics(const struct scsi_characteristics *c, uint8_t *ret)
{
	struct wire_characteristics *wire = (void *)ret;

	begin_page(ret, SCSI_VPD_CHARACTERISTICS, sizeof(*wire));
	weft_put16(wire->rotation, c->rotation);
	wire->form_factor = c->form_factor & 0xf;
	wire->fuab = (uint8_t)((c->fuab ? 0x02 : 0) | (c->vbuls ? 0x01 : 0));
	return sizeof(*wire);
}

int scsi_unpack_vpd_characteristics(const uint8_t *data, size_t len,
	struct scsi_characteristics *ret)
{
	struct wire_characteristics wire;
	int r = copy_page(data, len, SCSI_VPD_CHARACTERISTICS,
		offsetof(struct wire_characteristics, product_type), &wire, sizeof(wire));

	if (r < 0)
		return r;
	*ret = (struct scsi_characteristics){
		.rotation = weft_get16(wire.rotation),
		.form_factor = wire.form_factor & 0xf,
		.fuab = wire.fuab & 0x02,
		.vbuls = wire.fuab & 0x01,
	};
	return 0;
}

size_t scsi_pack_vpd_provisioning(const struct scsi_provisioning *p, uint8_t *ret)
{
	struct wire_provisioning *wire = (void *)ret;

	begin_page(ret, SCSI_VPD_PROVISIONING, sizeof(*wire));
	wire->flags = (uint8_t)((p->unmap ? 0x80 : 0) | (p->same_16 ? 0x40 : 0) |
		(p->same_10 ? 0x20 : 0) | (p->reads_zeros & 7) << 2 | (p->anchor ? 0x02 : 0));
	wire->type = p->type & 7;
	return sizeof(*wire);
}

int scsi_unpack_vpd_provisioning(const uint8_t *data, size_t len, struct scsi_provisioning *ret)
{
	struct wire_provisioning wire;
	int r = copy_page(data, len, SCSI_VPD_PROVISIONING, sizeof(wire), &wire, sizeof(wire));

	if (r < 0)
		return r;
	*ret = (struct scsi_provisioning){
		.unmap = wire.flags & 0x80,
		.same_16 = wire.flags & 0x40,
		.same_10 = wire.flags & 0x20,
		.reads_zeros = wire.flags >> 2 & 7,
		.anchor = wire.flags & 0x02,
		.type = wire.type & 7,
	};
	return 0;
}
