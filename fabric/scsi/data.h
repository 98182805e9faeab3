/* SPDX-License-Identifier: MIT */
/*
 * Parameter data: what a logical unit answers, and the lists that it is sent.  Pure functions in
 * both directions, any thread.
 *
 * Packing writes a whole answer to a buffer of SCSI_PARAMETER_BYTES and returns its length; who was
 * asked cuts it to the ALLOCATION LENGTH.  Unpacking takes len bytes as a peer sent them, cut short
 * or lying about their own lengths: 0, or -EPROTO when they are too short for what they have to
 * hold, or not what was asked for.  Fields that a short answer leaves out are 0.
 */
#ifndef WEFT_FABRIC_SCSI_DATA_H
#define WEFT_FABRIC_SCSI_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SCSI_PARAMETER_BYTES = 4096 };

/* SPC 6.6.2: standard INQUIRY data */
struct scsi_inquiry {
	uint8_t qualifier; /* PERIPHERAL QUALIFIER: 0: the unit is there; 3: it cannot be */
	uint8_t type;      /* PERIPHERAL DEVICE TYPE: 0: a disk; 0x1f: none */
	uint8_t version;   /* 6: SPC-4 */
	bool command_queue; /* CMDQUE */
	char vendor[9], product[17], revision[5]; /* ASCII, without the spaces at their ends */
	uint16_t standards[8]; /* version descriptors; 0: none */
};
size_t scsi_pack_inquiry(const struct scsi_inquiry *inquiry, uint8_t *ret);
int scsi_unpack_inquiry(const uint8_t *data, size_t len, struct scsi_inquiry *ret);

/* SPC 7.8: vital product data */
enum {
	SCSI_VPD_PAGES = 0x00,
	SCSI_VPD_SERIAL = 0x80,
	SCSI_VPD_DESIGNATORS = 0x83,
	SCSI_VPD_LIMITS = 0xb0,
	SCSI_VPD_CHARACTERISTICS = 0xb1,
	SCSI_VPD_PROVISIONING = 0xb2,
};

size_t scsi_pack_vpd_pages(const uint8_t *pages, size_t nr, uint8_t *ret);
/* Whether the answer to page 00h has the page. */
bool scsi_vpd_has_page(const uint8_t *data, size_t len, uint8_t page);

enum { SCSI_SERIAL_MAX = 64 };
size_t scsi_pack_vpd_serial(const char *serial, uint8_t *ret);
/* Without spaces at its ends; bytes that are not printable become '?'.  A longer one is cut. */
int scsi_unpack_vpd_serial(const uint8_t *data, size_t len, char ret[SCSI_SERIAL_MAX + 1]);

/* SPC 7.8.5: a designator of page 83h */
enum { SCSI_OF_UNIT = 0, SCSI_OF_PORT = 1, SCSI_OF_DEVICE = 2 };
enum { SCSI_CODE_BINARY = 1, SCSI_CODE_ASCII = 2, SCSI_CODE_UTF8 = 3 };
enum {
	SCSI_DESIGNATOR_T10 = 1,
	SCSI_DESIGNATOR_EUI64 = 2,
	SCSI_DESIGNATOR_NAA = 3,
	SCSI_DESIGNATOR_RELATIVE_PORT = 4,
	SCSI_DESIGNATOR_NAME = 8,
};
struct scsi_designator {
	uint8_t association; /* SCSI_OF_… */
	uint8_t code_set, type;
	bool has_protocol;   /* PIV */
	uint8_t protocol;
	uint8_t len;
	const uint8_t *bytes; /* unpacked: inside the answer */
};
size_t scsi_pack_vpd_designators(const struct scsi_designator *designators, size_t nr,
	uint8_t *ret);
/*
 * One after another: *at is 0 first.  0; -ENOENT: there are no more; -EPROTO: it is not page 83h,
 * or the rest does not hold a designator.
 */
int scsi_next_designator(const uint8_t *data, size_t len, size_t *at, struct scsi_designator *ret);

/* SBC 6.6.4: page B0h; blocks, 0: not said */
struct scsi_limits {
	bool same_needs_length;     /* WSNZ */
	uint8_t max_compare_and_write;
	uint16_t transfer_granularity;
	uint32_t max_transfer, optimal_transfer;
	uint32_t max_unmap, max_unmap_extents, unmap_granularity;
	bool has_unmap_alignment;   /* UGAVALID */
	uint32_t unmap_alignment;
	uint64_t max_same;
};
size_t scsi_pack_vpd_limits(const struct scsi_limits *limits, uint8_t *ret);
int scsi_unpack_vpd_limits(const uint8_t *data, size_t len, struct scsi_limits *ret);

/* SBC 6.6.2: page B1h */
struct scsi_characteristics {
	uint16_t rotation; /* MEDIUM ROTATION RATE: 1: it does not rotate */
	uint8_t form_factor;
	bool fuab, vbuls;
};
size_t scsi_pack_vpd_characteristics(const struct scsi_characteristics *c, uint8_t *ret);
int scsi_unpack_vpd_characteristics(const uint8_t *data, size_t len,
	struct scsi_characteristics *ret);

/* SBC 6.6.6: page B2h */
struct scsi_provisioning {
	bool unmap, same_16, same_10; /* LBPU, LBPWS, LBPWS10 */
	uint8_t reads_zeros;          /* LBPRZ; 1: blocks that are not mapped read as zeros */
	bool anchor;
	uint8_t type;                 /* PROVISIONING TYPE: 0: not said; 1: resource; 2: thin */
};
size_t scsi_pack_vpd_provisioning(const struct scsi_provisioning *p, uint8_t *ret);
int scsi_unpack_vpd_provisioning(const uint8_t *data, size_t len, struct scsi_provisioning *ret);

/* SPC 6.33: REPORT LUNS */
size_t scsi_pack_luns(const uint64_t *luns, size_t nr, uint8_t *ret);
/* How many there are in data; *ret is the one of that number if there is one. */
size_t scsi_unpack_lun(const uint8_t *data, size_t len, size_t number, uint64_t *ret);

/* SBC 5.15, 5.16: READ CAPACITY */
struct scsi_capacity {
	uint64_t last_lba;     /* of (10): UINT32_MAX: more than it can say */
	uint32_t block_bytes;
	uint8_t physical_exponent; /* 2^n logical blocks are a physical one */
	uint16_t lowest_aligned;
	uint8_t protection;    /* 0: none; 1 + P_TYPE */
	bool provisioned, reads_zeros; /* LBPME, LBPRZ */
};
enum { SCSI_CAPACITY_10_BYTES = 8, SCSI_CAPACITY_16_BYTES = 32 };
size_t scsi_pack_capacity_10(const struct scsi_capacity *capacity, uint8_t *ret);
size_t scsi_pack_capacity_16(const struct scsi_capacity *capacity, uint8_t *ret);
int scsi_unpack_capacity_10(const uint8_t *data, size_t len, struct scsi_capacity *ret);
int scsi_unpack_capacity_16(const uint8_t *data, size_t len, struct scsi_capacity *ret);

/* SPC 7.5, SBC 6.5: MODE SENSE and MODE SELECT */
enum {
	SCSI_PAGE_CACHING = 0x08,
	SCSI_PAGE_CONTROL = 0x0a,
	SCSI_PAGE_ALL = 0x3f,
	SCSI_SUBPAGE_ALL = 0xff,
};
struct scsi_mode {
	bool ten;             /* of the commands of 10 bytes */
	bool write_protected; /* WP */
	bool dpofua;          /* DPO and FUA mean something */
	bool has_blocks, long_blocks; /* a block descriptor; in its long form */
	uint64_t nr_blocks;
	uint32_t block_bytes;
	bool has_caching, wce, rcd;  /* the caching page */
	bool has_control, descriptor_sense, swp; /* the control page */
	bool changeable;      /* packing: the bits are a mask of what MODE SELECT can change */
};
size_t scsi_pack_mode(const struct scsi_mode *mode, uint8_t *ret);
int scsi_unpack_mode(const uint8_t *data, size_t len, bool ten, struct scsi_mode *ret);
/*
 * A list of MODE SELECT, held against what is and what can be changed (pages of both; no block
 * descriptor): *ret is what shall be.  0; -EPROTO: the list ends within something; -EINVAL: it asks
 * for something else, *bad says where.
 */
int scsi_unpack_mode_list(const uint8_t *list, size_t len, const struct scsi_mode *is,
	const struct scsi_mode *can, struct scsi_mode *ret, size_t *bad);

/* SPC 6.16.3: the list of PERSISTENT RESERVE OUT */
enum { SCSI_PR_LIST_BYTES = 24 };
struct scsi_pr_list {
	uint64_t key, action_key;
	bool spec_i_pt, all_tg_pt, aptpl;
};
void scsi_pack_pr_list(const struct scsi_pr_list *list, uint8_t ret[SCSI_PR_LIST_BYTES]);
void scsi_unpack_pr_list(const uint8_t data[SCSI_PR_LIST_BYTES], struct scsi_pr_list *ret);

/* SPC 6.15: the answers of PERSISTENT RESERVE IN */
size_t scsi_pack_pr_keys(uint32_t generation, const uint64_t *keys, size_t nr, uint8_t *ret);
/* How many keys there are in data; *ret is the one of that number if there is one. */
size_t scsi_unpack_pr_key(const uint8_t *data, size_t len, size_t number, uint64_t *ret);

struct scsi_pr_reservation {
	uint32_t generation;
	uint8_t type; /* 0: not reserved */
	uint64_t key;
};
size_t scsi_pack_pr_reservation(const struct scsi_pr_reservation *r, uint8_t *ret);
int scsi_unpack_pr_reservation(const uint8_t *data, size_t len, struct scsi_pr_reservation *ret);

struct scsi_pr_capabilities {
	bool ptpl_capable, ptpl_active; /* over a loss of power */
	uint16_t types;                 /* bits of SCSI_PR_…: 1 << type */
};
size_t scsi_pack_pr_capabilities(const struct scsi_pr_capabilities *c, uint8_t *ret);
int scsi_unpack_pr_capabilities(const uint8_t *data, size_t len, struct scsi_pr_capabilities *ret);

struct scsi_pr_registrant {
	uint64_t key;
	bool holder;
	uint8_t type; /* of a holder's reservation */
	uint16_t relative_port;
	const uint8_t *transport_id; /* transport_id_bytes, a multiple of 4 */
	uint32_t transport_id_bytes;
};
size_t scsi_pack_pr_status(uint32_t generation, const struct scsi_pr_registrant *registrants,
	size_t nr, uint8_t *ret);
/* As scsi_next_designator(). */
int scsi_next_pr_registrant(const uint8_t *data, size_t len, size_t *at,
	struct scsi_pr_registrant *ret);

/* SBC 5.28: the list of UNMAP */
enum { SCSI_UNMAP_HEAD_BYTES = 8, SCSI_UNMAP_EXTENT_BYTES = 16 };
/* The list's length; the extents follow the head. */
size_t scsi_pack_unmap_head(size_t nr, uint8_t ret[SCSI_UNMAP_HEAD_BYTES]);
void scsi_pack_unmap_extent(uint64_t lba, uint32_t blocks, uint8_t ret[SCSI_UNMAP_EXTENT_BYTES]);
/* How many whole extents the head speaks of; -EPROTO: len bytes do not hold it or them. */
int scsi_unpack_unmap_head(const uint8_t *list, size_t len);
void scsi_unpack_unmap_extent(const uint8_t extent[SCSI_UNMAP_EXTENT_BYTES], uint64_t *ret_lba,
	uint32_t *ret_blocks);

/* SPC 6.35: REPORT SUPPORTED OPERATION CODES; of all, with or without time-outs (none is said) */
size_t scsi_pack_opcodes(bool timeouts, uint8_t *ret);
/* opcode, action: of one; an operation that weft does not know is told as not supported. */
size_t scsi_pack_opcode(uint8_t opcode, uint8_t action, bool timeouts, uint8_t *ret);
/* Whether the answer about one operation says that it is supported; -EAGAIN: not now. */
int scsi_unpack_opcode(const uint8_t *data, size_t len, bool *ret_supported);

#endif
