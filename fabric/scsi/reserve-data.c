/* SPDX-License-Identifier: MIT */
/*
 * Byte order of what PERSISTENT RESERVE IN and OUT carry.  Pure functions, any thread.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "fabric/base/bytes.h"
#include "fabric/base/util.h"
#include "fabric/scsi/cdb.h"
#include "fabric/scsi/data.h"

/* SPC 6.16.3 */
struct wire_list {
	uint8_t key[8], action_key[8];
	uint8_t obsolete[4];
	uint8_t flags; /* SPEC_I_PT 08h, ALL_TG_PT 04h, APTPL 01h */
	uint8_t reserved;
	uint8_t obsolete2[2];
};
_Static_assert(sizeof(struct wire_list) == SCSI_PR_LIST_BYTES, "list of PERSISTENT RESERVE OUT");

enum { SPEC_I_PT = 0x08, ALL_TG_PT = 0x04, APTPL = 0x01 };

/* SPC 6.15.2, 6.15.3, 6.15.5 */
struct wire_head {
	uint8_t generation[4];
	uint8_t length[4]; /* of what follows */
};
_Static_assert(sizeof(struct wire_head) == 8, "head of PERSISTENT RESERVE IN");

/* SPC 6.15.3.2 */
struct wire_reservation {
	struct wire_head head;
	uint8_t key[8];
	uint8_t obsolete[4];
	uint8_t reserved;
	uint8_t type; /* SCOPE, bits 7 to 4, and TYPE */
	uint8_t obsolete2[2];
};
_Static_assert(sizeof(struct wire_reservation) == 24, "READ RESERVATION");

/* SPC 6.15.4 */
struct wire_capabilities {
	uint8_t length[2];
	uint8_t can; /* CRH 10h, SIP_C 08h, ATP_C 04h, PTPL_C 01h */
	uint8_t is;  /* TMV 80h, ALLOW COMMANDS bits 6 to 4, PTPL_A 01h */
	uint8_t types[2];
	uint8_t reserved[2];
};
_Static_assert(sizeof(struct wire_capabilities) == 8, "REPORT CAPABILITIES");

enum { PTPL_C = 0x01, TMV = 0x80, PTPL_A = 0x01 };
/* Table 175: the bit of a type is 1 << type; that of the last is in the second byte. */
enum { TYPES_0 = 0xea, TYPES_1 = 0x01 };

/* SPC 6.15.5.2 */
struct wire_status {
	uint8_t key[8];
	uint8_t reserved[4];
	uint8_t flags; /* ALL_TG_PT 02h, R_HOLDER 01h */
	uint8_t type;
	uint8_t reserved2[4];
	uint8_t relative_port[2];
	uint8_t length[4]; /* of the TransportID that follows */
};
_Static_assert(sizeof(struct wire_status) == 24, "full status");

enum { R_HOLDER = 0x01 };

void scsi_pack_pr_list(const struct scsi_pr_list *list, uint8_t ret[SCSI_PR_LIST_BYTES])
{
	struct wire_list *wire = (void *)ret;

	memset(wire, 0, sizeof(*wire));
	weft_put64(wire->key, list->key);
	weft_put64(wire->action_key, list->action_key);
	wire->flags = (uint8_t)((list->spec_i_pt ? SPEC_I_PT : 0) |
		(list->all_tg_pt ? ALL_TG_PT : 0) | (list->aptpl ? APTPL : 0));
}

void scsi_unpack_pr_list(const uint8_t data[SCSI_PR_LIST_BYTES], struct scsi_pr_list *ret)
{
	const struct wire_list *wire = (const void *)data;

	*ret = (struct scsi_pr_list){
		.key = weft_get64(wire->key),
		.action_key = weft_get64(wire->action_key),
		.spec_i_pt = wire->flags & SPEC_I_PT,
		.all_tg_pt = wire->flags & ALL_TG_PT,
		.aptpl = wire->flags & APTPL,
	};
}

static void pack_head(struct wire_head *head, uint32_t generation, size_t length)
{
	weft_put32(head->generation, generation);
	weft_put32(head->length, (uint32_t)length);
}

size_t scsi_pack_pr_keys(uint32_t generation, const uint64_t *keys, size_t nr, uint8_t *ret)
{
	pack_head((void *)ret, generation, 8 * nr);
	for (size_t i = 0; i < nr; i++)
		weft_put64(ret + sizeof(struct wire_head) + 8 * i, keys[i]);
	return sizeof(struct wire_head) + 8 * nr;
}

size_t scsi_pack_pr_reservation(const struct scsi_pr_reservation *r, uint8_t *ret)
{
	struct wire_reservation *wire = (void *)ret;

	memset(wire, 0, sizeof(*wire));
	if (r->type == 0) {
		pack_head(&wire->head, r->generation, 0);
		return sizeof(wire->head);
	}
	pack_head(&wire->head, r->generation, sizeof(*wire) - sizeof(wire->head));
	weft_put64(wire->key, r->key);
	wire->type = r->type;
	return sizeof(*wire);
}

int scsi_unpack_pr_reservation(const uint8_t *data, size_t len, struct scsi_pr_reservation *ret)
{
	const struct wire_reservation *wire = (const void *)data;

	if (len < sizeof(wire->head))
		return -EPROTO;
	struct scsi_pr_reservation to = {.generation = weft_get32(wire->head.generation)};

	if (weft_get32(wire->head.length) > 0) {
		if (len < sizeof(*wire) ||
			weft_get32(wire->head.length) < sizeof(*wire) - sizeof(wire->head))
			return -EPROTO;
		to.key = weft_get64(wire->key);
		to.type = wire->type & 0xf;
	}
	*ret = to;
	return 0;
}

size_t scsi_pack_pr_capabilities(const struct scsi_pr_capabilities *c, uint8_t *ret)
{
	struct wire_capabilities *wire = (void *)ret;

	memset(wire, 0, sizeof(*wire));
	weft_put16(wire->length, sizeof(*wire));
	wire->can = c->ptpl_capable ? PTPL_C : 0;
	wire->is = (uint8_t)(TMV | (c->ptpl_active ? PTPL_A : 0));
	wire->types[0] = (uint8_t)(c->types & TYPES_0);
	wire->types[1] = (uint8_t)(c->types >> 8 & TYPES_1);
	return sizeof(*wire);
}

int scsi_unpack_pr_capabilities(const uint8_t *data, size_t len, struct scsi_pr_capabilities *ret)
{
	const struct wire_capabilities *wire = (const void *)data;

	if (len < sizeof(*wire) || weft_get16(wire->length) < sizeof(*wire))
		return -EPROTO;
	*ret = (struct scsi_pr_capabilities){
		.ptpl_capable = wire->can & PTPL_C,
		.ptpl_active = wire->is & PTPL_A,
		.types = wire->is & TMV
			? (uint16_t)((wire->types[0] & TYPES_0) | (wire->types[1] & TYPES_1) << 8)
			: 0,
	};
	return 0;
}

size_t scsi_pack_pr_status(uint32_t generation, const struct scsi_pr_registrant *registrants,
	size_t nr, uint8_t *ret)
{
	size_t len = sizeof(struct wire_head);

	for (size_t i = 0; i < nr; i++) {
		const struct scsi_pr_registrant *from = &registrants[i];
		struct wire_status *wire = (void *)(ret + len);

		assert(len + sizeof(*wire) + from->transport_id_bytes <= SCSI_PARAMETER_BYTES);
		memset(wire, 0, sizeof(*wire));
		weft_put64(wire->key, from->key);
		if (from->holder) {
			wire->flags = R_HOLDER;
			wire->type = from->type;
		}
		weft_put16(wire->relative_port, from->relative_port);
		weft_put32(wire->length, from->transport_id_bytes);
		len += sizeof(*wire);
		memcpy(ret + len, from->transport_id, from->transport_id_bytes);
		len += from->transport_id_bytes;
	}
	pack_head((void *)ret, generation, len - sizeof(struct wire_head));
	return len;
}

int scsi_next_pr_registrant(const uint8_t *data, size_t len, size_t *at,
	struct scsi_pr_registrant *ret)
{
	const struct wire_head *head = (const void *)data;
	size_t from = *at ? *at : sizeof(*head);

	if (len < sizeof(*head))
		return -EPROTO;
	len = weft_min(len, sizeof(*head) + (size_t)weft_get32(head->length));
	if (from == len)
		return -ENOENT;
	if (from > len || len - from < sizeof(struct wire_status))
		return -EPROTO;
	const struct wire_status *wire = (const void *)(data + from);
	uint32_t id_bytes = weft_get32(wire->length);

	if (len - from - sizeof(*wire) < id_bytes)
		return -EPROTO;
	*ret = (struct scsi_pr_registrant){
		.key = weft_get64(wire->key),
		.holder = wire->flags & R_HOLDER,
		.type = wire->flags & R_HOLDER ? wire->type & 0xf : 0,
		.relative_port = weft_get16(wire->relative_port),
		.transport_id = data + from + sizeof(*wire),
		.transport_id_bytes = id_bytes,
	};
	*at = from + sizeof(*wire) + id_bytes;
	return 0;
}
